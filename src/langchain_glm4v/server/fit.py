"""How a model is made to fit the GPUs of this machine, and why so.

vLLM refuses to start if one request of the longest context does not fit into what the weights and
its own needs leave of the memory it may use. `choose` foresees these needs and picks, of all ways
to start that fit, the one with the longest context; among equals the one with the fewest GPUs, then
the one that quantises nothing, then the one that leaves most memory alone. Whatever the caller
states stays as it is, and is checked.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from langchain_glm4v.errors import GpuError, ServerOptionError
from langchain_glm4v.server.gpu import GIB, Gpu, find_gpus
from langchain_glm4v.server.preflight import Checkpoint, Engine
from langchain_glm4v.server.sizes import DTYPE_BYTES, Sizes, read_sizes

# GLM-4.1V has 12 vision heads and 2 key-value heads: 8 GPUs cannot divide the former.
TENSOR_PARALLEL = (1, 2, 4)
UTILIZATIONS = (0.9, 0.95)  # the second where memory is tight; vLLM's own default is 0.92
# A thought of 8,192 tokens is what the model's makers allow; less is asked for by name only.
LEAST_CONTEXT = 8192
CONTEXT_STEP = 1024  # chosen contexts are round numbers

# What `quantization` may be besides the name of one of vLLM's own methods.
UNQUANTIZED = "none"
FP8 = "fp8"
# Known to vLLM 0.26 and 0.32; by plain "fp8", 0.32 means checkpoints that are fp8 already.
ONLINE_FP8 = "fp8_per_tensor"

# Compute capabilities. vLLM: `CudaPlatform.supported_dtypes`, `get_min_capability` of its methods,
# `is_fp8_marlin_supported`. CUDA 13, for which its wheels are built, knows nothing below 7.5.
LEAST_CAPABILITY = (7, 5)
BFLOAT16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (8, 9)  # Ada, Hopper and newer compute in fp8; older ones unpack it first

# Bytes. What a process's CUDA context takes before vLLM looks how much is free.
CUDA_CONTEXT = GIB // 2
# Bytes, by estimate: kernels' work areas, and what the allocator cannot use.
WORK_AREAS = GIB // 2
CUDA_GRAPHS = GIB  # the captured sizes up to 512 sequences
COMMUNICATION = GIB  # NCCL and the all-reduce buffers, if there are several GPUs
# The activations are the sums of tensors that are alive at once, and this much more.
ACTIVATION_MARGIN = 1.25
# Numbers of the sampler alive at once for each entry of the logits: they are copied as float32,
# turned to probabilities and sorted, which makes indices of 8 bytes.
SAMPLER_BYTES = 24
KV_BLOCK = 16  # tokens; vLLM keeps one block for itself

# Largest picture and video, in tokens: the released preprocessor's limits.
PICTURE_TOKENS = 6144
VIDEO_TOKENS = 30_000

# Arguments of vLLM that say what is chosen here, or change how much memory is needed.
DECIDING_ARGUMENTS = (
    *("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp"),
    *("--data-parallel-size", "-dp", "--max-model-len", "--gpu-memory-utilization"),
    *("--quantization", "-q", "--quantization-config", "--kv-cache-memory-bytes"),
    *("--kv-cache-dtype", "--cpu-offload-gb", "--dtype", "--config"),
)


class Wanted(Protocol):
    """The options of a server that a fit goes by; `ServerOptions` has them."""

    @property
    def dtype(self) -> str: ...  # noqa: D102
    @property
    def max_model_len(self) -> int | None: ...  # noqa: D102
    @property
    def tensor_parallel(self) -> int | None: ...  # noqa: D102
    @property
    def quantization(self) -> str | None: ...  # noqa: D102
    @property
    def gpu_memory_utilization(self) -> float | None: ...  # noqa: D102
    @property
    def extra_args(self) -> Sequence[str]: ...  # noqa: D102


@dataclass(frozen=True)
class Fit:
    """How a server is started on this machine. None leaves a thing to vLLM.

    Attributes:
        tensor_parallel: Number of GPUs that the model is divided among.
        max_model_len: Longest prompt and answer together, in tokens.
        quantization: vLLM's name of the method that makes the weights smaller while they load.
        gpu_memory_utilization: Share of each GPU's memory that vLLM takes.
        enforce_eager: Whether it goes without compiling and without CUDA graphs.
        devices: The GPUs, as CUDA_VISIBLE_DEVICES calls them; empty leaves them all to vLLM.
        needed_bytes: What one request of the longest context needs on each GPU, as foreseen.
        reasons: What was chosen and why, in sentences for people.
    """

    tensor_parallel: int | None = None
    max_model_len: int | None = None
    quantization: str | None = None
    gpu_memory_utilization: float | None = None
    enforce_eager: bool = False
    devices: tuple[str, ...] = ()
    needed_bytes: int | None = None
    reasons: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Arguments of `vllm serve` that say so."""
        values = {
            "--tensor-parallel-size": self.tensor_parallel,
            "--max-model-len": self.max_model_len,
            "--quantization": self.quantization,
            "--gpu-memory-utilization": self.gpu_memory_utilization,
        }
        given = [str(part) for pair in values.items() if pair[1] is not None for part in pair]
        return [*given, *(["--enforce-eager"] if self.enforce_eager else [])]

    def environment(self) -> dict[str, str]:
        """Environment variables that say so."""
        if not self.devices:
            return {}
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(self.devices),
        }


@dataclass(frozen=True)
class _Way:
    """One way to start: what it is, and what its longest context is; 0 if it does not fit."""

    gpus: tuple[Gpu, ...]
    quantization: str | None
    utilization: float
    eager: bool
    context: int
    need: Callable[[int], int]

    @property
    def budget(self) -> int:
        return _budget(self.gpus, self.utilization)


def fitted(options: Wanted, checkpoint: Checkpoint, engine: Engine) -> Fit:
    """How `checkpoint` is started with `engine` on this machine.

    Raises:
        GpuError: The GPUs do not work, or nothing fits.
        ModelNotFoundError: The checkpoint's sizes cannot be read.
        ServerOptionError: The options state what cannot be.
    """
    if engine.for_cpu:
        # Compiling for a CPU takes minutes at start; it doubles the speed, which long runs may
        # prefer.
        return _left_to_vllm(options, "the engine is for CPUs: nothing is compiled", eager=True)
    if stated := _deciding(options.extra_args):
        return _left_to_vllm(options, f"extra_args has {stated}: the rest is left to vLLM")
    sizes = read_sizes(checkpoint)
    if sizes is None:
        return _left_to_vllm(
            options, f"{checkpoint.location} is quantised and not here yet: its size is unknown"
        )
    gpus = find_gpus()
    if not gpus:
        return _left_to_vllm(options, "no nvidia-smi tells of GPUs: all is left to vLLM")
    return choose(sizes, gpus, options)


def choose(sizes: Sizes, gpus: Sequence[Gpu], options: Wanted) -> Fit:
    """The best way to start a model of these sizes on these GPUs.

    Args:
        sizes: The model's.
        gpus: At least one; those with most free memory are taken.
        options: What the caller states.

    Raises:
        GpuError: Nothing fits; the message says what is needed, what is there, and what to do.
        ServerOptionError: The options state what cannot be.
    """
    dtype = sizes.dtype if options.dtype == "auto" else options.dtype
    order = sorted(gpus, key=lambda gpu: -(gpu.free_bytes // GIB))
    able = [gpu for gpu in order if gpu.capability >= _least_capability(dtype)]
    if not able:
        raise GpuError(_too_old(order[0]))
    _check_stated(sizes, able, options)
    ways = list(_ways(sizes, able, options, dtype))
    best = max(ways, key=lambda way: way.context)  # the first of equals
    if best.context == 0:
        raise GpuError(_nothing_fits(sizes, options, ways, _least_context(sizes, options)))
    return Fit(
        tensor_parallel=len(best.gpus),
        max_model_len=best.context,
        quantization=best.quantization,
        gpu_memory_utilization=best.utilization,
        enforce_eager=best.eager,
        devices=tuple(gpu.id for gpu in best.gpus),
        needed_bytes=best.need(best.context),
        reasons=tuple(_reasons(sizes, options, dtype, best, ways)),
    )


def _left_to_vllm(options: Wanted, reason: str, *, eager: bool = False) -> Fit:
    return Fit(
        tensor_parallel=options.tensor_parallel,
        max_model_len=options.max_model_len,
        quantization=_method(options.quantization),
        gpu_memory_utilization=options.gpu_memory_utilization,
        enforce_eager=eager,
        reasons=(reason,),
    )


def _deciding(arguments: Sequence[str]) -> str | None:
    names = (argument.partition("=")[0].replace("_", "-") for argument in arguments)
    return next((name for name in names if name in DECIDING_ARGUMENTS), None)


def _method(quantization: str | None) -> str | None:
    return {None: None, UNQUANTIZED: None, FP8: ONLINE_FP8}.get(quantization, quantization)


def _check_stated(sizes: Sizes, gpus: Sequence[Gpu], options: Wanted) -> None:
    wanted = options.tensor_parallel
    if wanted is not None and wanted > _usable_together(gpus):
        message = (
            f"tensor_parallel is {wanted}: only {_usable_together(gpus)} GPU(s) can be used here"
        )
        raise ServerOptionError(message)
    if wanted is not None and not sizes.divides_by(wanted):
        message = (
            f"tensor_parallel is {wanted}: the model's {sizes.heads} heads, {sizes.kv_heads} "
            f"key-value heads and {sizes.vision_heads} vision heads do not divide by it"
        )
        raise ServerOptionError(message)
    if options.max_model_len is not None and options.max_model_len > sizes.context:
        message = (
            f"max_model_len is {options.max_model_len}: the model was made for contexts of "
            f"at most {sizes.context} tokens"
        )
        raise ServerOptionError(message)
    if sizes.quantization is not None and options.quantization is not None:
        message = (
            f"quantization is {options.quantization!r}: the checkpoint is quantised already, by "
            f"{sizes.quantization!r}; leave it out"
        )
        raise ServerOptionError(message)


def _least_capability(dtype: str) -> tuple[int, int]:
    return BFLOAT16_CAPABILITY if dtype == "bfloat16" else LEAST_CAPABILITY


def _too_old(gpu: Gpu) -> str:
    if gpu.capability < LEAST_CAPABILITY:
        return (
            f"{gpu} is too old: vLLM's builds for CUDA 13 need compute capability 7.5 (Turing) or "
            "newer; use another GPU"
        )
    return (
        f"{gpu} cannot compute in bfloat16, in which the model was trained: that needs compute "
        "capability 8.0 (Ampere) or newer; use another GPU, or try dtype='float16', whose "
        "smaller range may garble answers"
    )


def _ways(sizes: Sizes, gpus: Sequence[Gpu], options: Wanted, dtype: str) -> Iterator[_Way]:
    """Every way to start, the dearest last."""
    asked = options.gpu_memory_utilization
    numbers = TENSOR_PARALLEL if options.tensor_parallel is None else (options.tensor_parallel,)
    for eager, number in itertools.product((False, True), numbers):
        if number > _usable_together(gpus) or not sizes.divides_by(number):
            continue
        chosen = tuple(gpus[:number])
        for method, share in itertools.product(
            _methods(sizes, chosen, options, dtype), UTILIZATIONS if asked is None else (asked,)
        ):
            utilization = share if asked is not None else _free_share(chosen, share)
            batch = _batch(chosen[0], options.extra_args)
            need = _needs(sizes, chosen, dtype, method, batch, eager=eager)
            way = _Way(chosen, method, utilization, eager, 0, need)
            context = _longest(sizes, options, way)
            yield _Way(chosen, method, utilization, eager, context, need)


def _usable_together(gpus: Sequence[Gpu]) -> int:
    """A CUDA program sees one MIG instance at most."""
    return 1 if any(gpu.id.startswith("MIG-") for gpu in gpus) else len(gpus)


def _methods(sizes: Sizes, gpus: Sequence[Gpu], options: Wanted, dtype: str) -> list[str | None]:
    if options.quantization is not None:
        return [_method(options.quantization)]
    # Where fp8 is unpacked first, layers that are divided among GPUs may have no fitting shape.
    fp8_works = len(gpus) == 1 or all(gpu.capability >= FP8_CAPABILITY for gpu in gpus)
    fp8_works = fp8_works and sizes.quantization is None and DTYPE_BYTES.get(dtype, 2) == 2
    return [None, ONLINE_FP8] if fp8_works else [None]


def _free_share(gpus: Sequence[Gpu], most: float) -> float:
    """Share of the memory that vLLM may ask for: it refuses if that much is not free at start."""
    free = min((gpu.free_bytes - CUDA_CONTEXT) / gpu.total_bytes for gpu in gpus)
    return max(min(most, math.floor(free * 100) / 100), 0.0)


def _budget(gpus: Sequence[Gpu], utilization: float) -> int:
    return min(int(gpu.total_bytes * utilization) for gpu in gpus)


def _least_context(sizes: Sizes, options: Wanted) -> int:
    return options.max_model_len or min(LEAST_CONTEXT, sizes.context)


def _longest(sizes: Sizes, options: Wanted, way: _Way) -> int:
    """Longest context that fits, in round numbers; 0 if even the least does not."""
    least = _least_context(sizes, options)
    if way.need(least) > way.budget or way.utilization > _free_share(way.gpus, 1.0):
        return 0
    if options.max_model_len is not None or way.eager:
        return least  # to go without CUDA graphs is a last resort, worth no longer context
    if way.need(sizes.context) <= way.budget:
        return sizes.context
    steps = range(least // CONTEXT_STEP, sizes.context // CONTEXT_STEP)
    fits = [step * CONTEXT_STEP for step in steps if way.need(step * CONTEXT_STEP) <= way.budget]
    return max(fits, default=least)


def _needs(
    sizes: Sizes,
    gpus: Sequence[Gpu],
    dtype: str,
    method: str | None,
    largest: tuple[int, int],
    *,
    eager: bool,
) -> Callable[[int], int]:
    """Bytes that each GPU needs, as a function of the context in tokens. It never decreases."""
    number = len(gpus)
    value = DTYPE_BYTES.get(dtype, 2)
    fixed = weights_bytes(sizes, dtype, method, number) + WORK_AREAS
    fixed += (0 if eager else CUDA_GRAPHS) + (COMMUNICATION if number > 1 else 0)
    batch, sequences = largest
    layer = ACTIVATION_MARGIN * value * batch * (4 * sizes.hidden + 3 * sizes.inner / number)
    sampler = SAMPLER_BYTES * sequences * sizes.vocabulary
    # In a layer of the vision encoder these are alive at once for each patch; besides, its values
    # are there as they came and as they are computed with.
    patch = ACTIVATION_MARGIN * value * 3 * (sizes.vision_hidden + sizes.vision_inner)
    token = sizes.patches_per_token * (patch + (4 + value) * sizes.patch_values)
    kv = sizes.kv_bytes_per_token(number, value)

    def need(context: int) -> int:
        # vLLM tries out its largest input: a video as long as the context has room for beside a
        # picture, or as many pictures as go into a batch.
        encoded = max(batch, PICTURE_TOKENS, min(VIDEO_TOKENS, context - PICTURE_TOKENS))
        activations = max(layer, sampler, token * encoded) + encoded * sizes.hidden * value
        blocks = math.ceil(context / KV_BLOCK) + 1
        return fixed + math.ceil(activations) + blocks * KV_BLOCK * kv

    return need


def weights_bytes(sizes: Sizes, dtype: str, method: str | None, tensor_parallel: int) -> int:
    """Bytes of the weights on each GPU.

    Args:
        sizes: The model's.
        dtype: Number type that is computed in.
        method: vLLM's name of the method that quantises them while they load; None does not.
        tensor_parallel: Number of GPUs.
    """
    value, stored = DTYPE_BYTES.get(dtype, 2), DTYPE_BYTES.get(sizes.dtype, 2)
    if sizes.quantization is not None:
        return math.ceil(sizes.weights_bytes / tensor_parallel)
    smaller = value - 1 if method is not None else 0  # each of the online methods takes a byte
    whole = sizes.weights_bytes * value / stored - sizes.linear * smaller
    replicated = sizes.replicated * value
    return math.ceil((whole - replicated) / tensor_parallel + replicated)


def _batch(gpu: Gpu, arguments: Sequence[str]) -> tuple[int, int]:
    """Tokens and sequences in a batch, at most: as arguments of vLLM say, or its defaults."""
    tokens, sequences = _default_batch(gpu)
    return (
        _whole_number(arguments, "--max-num-batched-tokens") or tokens,
        _whole_number(arguments, "--max-num-seqs") or sequences,
    )


def _whole_number(arguments: Sequence[str], name: str) -> int | None:
    """The value of an argument of vLLM, of which the last counts; None if it is no plain number."""
    parts = [part for argument in arguments for part in argument.split("=", 1)]
    names = (part.replace("_", "-") for part in parts)
    values = [after for one, after in zip(names, parts[1:], strict=False) if one == name]
    return int(values[-1]) if values and values[-1].isdecimal() else None


def _default_batch(gpu: Gpu) -> tuple[int, int]:
    """Tokens and sequences in a batch, by default (vLLM's `EngineArgs.get_batch_defaults`)."""
    if gpu.total_bytes >= 160 * GIB:
        return 16384, 1024
    if gpu.total_bytes >= 70 * GIB and "a100" not in gpu.name.lower():
        return 8192, 1024
    return 2048, 256


def _reasons(
    sizes: Sizes, options: Wanted, dtype: str, best: _Way, ways: Sequence[_Way]
) -> Iterator[str]:
    number = len(best.gpus)
    weights = weights_bytes(sizes, dtype, best.quantization, number) / GIB
    what = sizes.quantization or best.quantization or dtype
    on_each = " on each" if number > 1 else ""
    yield f"{', '.join(map(str, best.gpus))}: {weights:.1f} GiB of weights in {what}{on_each}"
    if best.quantization is not None and options.quantization is None:
        plain = next(way for way in ways if way.gpus == best.gpus and way.quantization is None)
        yield (
            f"quantised to fp8 while loading: a context of {best.context} tokens needs "
            f"{plain.need(best.context) / GIB:.1f} GiB in {dtype} and {best.budget / GIB:.1f} GiB "
            "can be used"
        )
    if number > 1 and options.tensor_parallel is None:
        yield f"divided among {number} GPUs: on fewer, so long a context does not fit"
    if options.max_model_len is None:
        limit = "the model's limit" if best.context == sizes.context else "the longest that fits"
        room = best.budget - best.need(best.context)
        per_token = sizes.kv_bytes_per_token(number, DTYPE_BYTES.get(dtype, 2))
        yield (
            f"a context of {best.context} tokens, {limit}; about "
            f"{best.context + max(room, 0) // per_token} tokens of all requests are kept at once"
        )
    if options.gpu_memory_utilization is None and best.utilization != UTILIZATIONS[0]:
        tight = best.utilization > UTILIZATIONS[0]
        why = "memory is tight" if tight else "other programs hold the rest"
        usual = f"{UTILIZATIONS[0]:.0%}"
        yield f"{best.utilization:.0%} of the memory is used instead of {usual}: {why}"
    if best.eager:
        yield "without CUDA graphs, which costs speed: they do not fit"


def _nothing_fits(sizes: Sizes, options: Wanted, ways: Sequence[_Way], least: int) -> str:
    way = min(ways, key=lambda way: way.need(least) - way.budget)
    share = _free_share(way.gpus, 1.0)
    if way.utilization > share:
        return (
            f"gpu_memory_utilization is {way.utilization:g}: of {way.gpus[0]} at most {share:g} "
            "can be asked for; ask for less, or end the other programs that hold its memory"
        )
    remedies = ["end other programs on the GPU"]
    if _batch(way.gpus[0], options.extra_args) != _default_batch(way.gpus[0]):
        remedies.append("lower --max-num-batched-tokens or --max-num-seqs")
    if options.max_model_len is not None:
        remedies.append("lower max_model_len")
    if options.gpu_memory_utilization is not None:
        remedies.append("raise gpu_memory_utilization")
    if sizes.quantization is None:
        remedies.append("give an AWQ or GPTQ checkpoint of the model")
    if options.quantization == UNQUANTIZED:
        remedies.append("leave out quantization")
    if options.tensor_parallel is None and len(way.gpus) == 1:
        remedies.append("add a GPU")
    how = f" as {way.quantization}" if way.quantization else ""
    return (
        f"the model does not fit: with a context of {least} tokens{how} it needs "
        f"{way.need(least) / GIB:.1f} GiB on each of {len(way.gpus)} GPU(s), and "
        f"{way.budget / GIB:.1f} GiB can be used of {way.gpus[0]}; {', '.join(remedies[:-1])} "
        f"or {remedies[-1]}"
    )
