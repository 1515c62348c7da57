"""Gets a checkpoint before vLLM starts, so that vLLM always reads a folder and needs no network.

    model -> folder in the hub's own cache -> what is missing there -> enough space on the disk
    -> configuration and tokenizer -> is it a GLM-4.1V? -> weights, each compared with its SHA-256

A start whose files are all there asks the hub only whether they are still the newest, and goes on
with what is there if the hub cannot be asked.
"""

import importlib
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langchain_glm4v.errors import (
    ModelNotFoundError,
    ServerOptionError,
    WeightsError,
)
from langchain_glm4v.server.hub import Hub, HubAwayError, RemoteFile, Stopped
from langchain_glm4v.server.preflight import Checkpoint, check_folder, resolve_model

# Source -> module and class that speak to it, and what must be installed for them.
SOURCES = {
    "huggingface": ("huggingface", "HuggingFace", "huggingface-hub"),
    "modelscope": ("modelscope", "ModelScope", "modelscope-hub"),
}
# Owners that are called otherwise on ModelScope. Source: the tables of models in zai-org/GLM-V.
MODELSCOPE_OWNERS = {"zai-org": "ZhipuAI", "THUDM": "ZhipuAI"}

WEIGHTS = ".safetensors"
# What vLLM reads beside the weights: configurations, tokenizer, templates. Weights in PyTorch's own
# format would be the same once more.
SUFFIXES = (WEIGHTS, ".json", ".jinja", ".model", ".txt")
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")
INDEX = "model.safetensors.index.json"
MOST_HEADER = 100_000_000  # bytes, by the safetensors library

AT_ONCE = 4  # files: one connection seldom fills a line
REPORT_INTERVAL = 0.2  # seconds


@dataclass(frozen=True)
class Variant:
    """A way to run GLM-4.1V-9B-Thinking.

    Attributes:
        model: Repository id.
        quantization: What vLLM's `--quantization` is to be; None leaves it to the checkpoint.
        download_bytes: Length of its weights.
        memory_bytes: What they take of a GPU's memory.
        card_gb: Memory of the smallest usual GPU that they fit into, with a cache beside them.
    """

    model: str
    quantization: str | None
    download_bytes: int
    memory_bytes: int
    card_gb: int


# Computed from the shapes in the configuration: 8.16e9 parameters in the layers of the language
# model, 1.24e9 in its embeddings, 0.89e9 in the vision part. fp8 halves all but the embeddings; AWQ
# leaves 4.16 bits of each in the layers. The GPTQ one mixes 4 and 8 bits: its figures are those of
# 8, an upper limit. The quantized repositories are those that Xinference lists.
VARIANTS = (
    Variant("zai-org/GLM-4.1V-9B-Thinking", None, 20_600_000_000, 20_600_000_000, 24),
    Variant("zai-org/GLM-4.1V-9B-Thinking", "fp8", 20_600_000_000, 11_500_000_000, 16),
    Variant(
        "dengcao/GLM-4.1V-9B-Thinking-GPTQ-Int4-Int8Mix",
        None,
        12_600_000_000,
        12_600_000_000,
        16,
    ),
    Variant("dengcao/GLM-4.1V-9B-Thinking-AWQ", None, 8_500_000_000, 8_500_000_000, 12),
)


@dataclass(frozen=True)
class Progress:
    """How far a fetch is; as a str, a line for people.

    Attributes:
        file: Name of a file that is under way.
        done_bytes: Bytes of the checkpoint that are here, those of earlier attempts included.
        total_bytes: Bytes of the whole checkpoint.
        files_done: Files that are here.
        files_total: Files of the checkpoint.
        stage: What is done with the files.
    """

    file: str
    done_bytes: int
    total_bytes: int
    files_done: int
    files_total: int
    stage: Literal["downloading", "checking"] = "downloading"

    def __str__(self) -> str:
        unit, name = (1e9, "GB") if self.total_bytes >= 1e9 else (1e6, "MB")
        return f"{self.stage} {self.done_bytes / unit:.1f} of {self.total_bytes / unit:.1f} {name}"


Report = Callable[[Progress], None]


def local_checkpoint(
    model: str,
    *,
    revision: str | None = None,
    source: str | None = None,
    report: Callable[[str], None],
) -> Checkpoint:
    """Find the checkpoint that `model` names, in a folder: one from a hub is fetched.

    Args:
        model: As `resolve_model` takes it.
        revision: As `fetch` takes it.
        source: As `fetch` takes it.
        report: Called with a line for people whenever the fetch is noticeably further.

    Raises:
        ModelNotFoundError: There is no such model.
        WeightsError: It cannot be fetched, or is damaged.
        ServerOptionError: A revision is given for a folder.
    """
    checkpoint = resolve_model(model)
    if checkpoint.is_local:
        if revision is not None:
            message = (
                f"revision is {revision!r}, but {model!r} is not on a model hub: leave it out, or "
                "give a repository id"
            )
            raise ServerOptionError(message)
        for problem in damage(Path(checkpoint.location)).values():
            message = f"{problem}, in {checkpoint.location!r}: copy or download that file again"
            raise WeightsError(message)
        return checkpoint
    said = ""

    def tell(progress: Progress) -> None:
        nonlocal said
        if (line := str(progress)) != said:
            said = line
            report(line)

    folder = fetch(model, revision=revision, source=source, on_progress=tell)
    return Checkpoint(str(folder), checkpoint.name, is_local=True)


def fetch(
    model_id: str,
    *,
    revision: str | None = None,
    source: str | None = None,
    verify: bool = False,
    on_progress: Report | None = None,
) -> Path:
    """Fetch a checkpoint from a model hub into the hub's own cache, as far as it is not there.

    Each file that arrives is compared with the checksum that the hub announced; what is there
    already is checked by its length. Ctrl-C leaves what has arrived, and the next call goes on from
    there, in this process or another. Of several processes at once, one transfers a file and the
    others wait for it.

    Args:
        model_id: Id of a repository.
        revision: Branch, tag or commit; None takes the main branch. With a commit that is all
            there, the hub is not asked.
        source: "huggingface" or "modelscope"; None takes ModelScope if the environment has
            `VLLM_USE_MODELSCOPE=1`, else Hugging Face. Ids of Z.ai's models on Hugging Face are
            turned into those on ModelScope.
        verify: Whether to compare the checksums of files that are there already too, which reads
            all of them. Damaged ones are fetched again.
        on_progress: Called now and then, in this thread.

    Returns:
        The folder of the checkpoint.

    Raises:
        ServerOptionError: There is no such source.
        ModelNotFoundError: The hub has no such model or revision, or it is another kind of model.
        WeightsError: The hub cannot be asked and the cache is not complete, the repository is
            gated, the disk too small, what arrives is damaged, or the hub's library is missing.
    """
    hub = _open(model_id, revision, source)
    report = on_progress or (lambda _: None)
    folder = hub.folder()
    if folder and hub.is_pinned and not verify and is_whole(folder):
        return folder
    try:
        files = _wanted(hub)
    except HubAwayError as error:
        return _without_hub(hub, folder, error, report if verify else None)
    folder = hub.folder()  # of the newest files of this revision
    broken = damage(folder) if folder else {}
    there = [file for file in files if hub.has(file) and file.name not in broken]
    if verify and folder:
        there = _verified(folder, there, report)
    missing = [file for file in files if file not in there]
    _check_space(hub, missing)
    for file in missing:
        if folder and (folder / file.name).exists():
            hub.discard(file.name)
    try:
        # The weights last: who finds them finds the rest, and another kind of model costs little.
        _transfer(hub, [f for f in missing if not f.name.endswith(WEIGHTS)], files, report)
        check_folder(_folder(hub))
        _transfer(hub, [f for f in missing if f.name.endswith(WEIGHTS)], files, report)
    except HubAwayError as error:
        message = (
            f"the transfer of {hub.repository!r} from {hub.title} broke off ({error}): try again, "
            "which goes on from what has arrived"
        )
        raise WeightsError(message) from error
    for problem in damage(_folder(hub)).values():
        message = f"{problem}, though as {hub.title} has it: give another revision of {model_id!r}"
        raise WeightsError(message)
    hub.settle()
    return _folder(hub)


def is_whole(folder: Path) -> bool:
    """Whether a folder has all files of a checkpoint, as far as shows without reading them."""
    return (
        all((folder / name).is_file() for name in NEEDED)
        and any(folder.glob(f"*{WEIGHTS}"))
        and not damage(folder)
    )


def damage(folder: Path) -> dict[str, str]:
    """What is wrong with the weights in a folder, by what they say of themselves; takes no time.

    Finds files that are cut short or missing, by their headers and the index; not changed bytes in
    between. A folder without any weights is fine.

    Returns:
        Name of a file -> what is wrong with it, in words that name it.
    """
    found = {path.name for path in folder.glob(f"*{WEIGHTS}")}
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found |= set(map(str, index["weight_map"].values()))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {INDEX: f"{INDEX!r} is not an index of weights"}
    problems = {name: _damage(folder / name) for name in sorted(found)}
    return {name: problem for name, problem in problems.items() if problem}


def _damage(path: Path) -> str:
    try:
        length = path.stat().st_size
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size)) if size <= min(length, MOST_HEADER) else {}
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
        wanted = 8 + size + max(ends, default=0)
    except FileNotFoundError:
        return f"{path.name!r} is missing"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{path.name!r} is damaged ({type(error).__name__} in its header)"
    if length == wanted:
        return ""
    return f"{path.name!r} is damaged: it has {length} bytes and should have {wanted}"


def _open(model_id: str, revision: str | None, source: str | None) -> Hub:
    if source is None:
        asked = os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in {"1", "true"}
        source = "modelscope" if asked else "huggingface"
    if source not in SOURCES:
        message = f"source is {source!r}: it must be {', '.join(map(repr, SOURCES))}, or None"
        raise ServerOptionError(message)
    module, name, distribution = SOURCES[source]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    try:
        found = importlib.import_module(f"langchain_glm4v.server.{module}")
    except ModuleNotFoundError as error:
        message = (
            f"{model_id!r} cannot be fetched: {error.name} is not installed; "
            f"run: pip install {distribution}"
        )
        raise WeightsError(message) from error
    owner, _, rest = model_id.partition("/")
    if source == "modelscope":
        model_id = f"{MODELSCOPE_OWNERS.get(owner, owner)}/{rest}"
    hub: Hub = getattr(found, name)(model_id, revision)
    return hub


def _wanted(hub: Hub) -> list[RemoteFile]:
    files = sorted(
        (file for file in hub.files() if file.name.endswith(SUFFIXES)),
        key=lambda file: -file.size,
    )
    names = {file.name for file in files}
    if "config.json" not in names or not any(name.endswith(WEIGHTS) for name in names):
        message = (
            f"{hub.repository!r} on {hub.title} is no checkpoint for vLLM: it has no config.json "
            f"or no {WEIGHTS} files; give another repository"
        )
        raise ModelNotFoundError(message)
    return files


def _folder(hub: Hub) -> Path:
    folder = hub.folder()
    if folder is None:
        message = f"the cache {str(hub.cache)!r} lost {hub.repository!r} meanwhile: try again"
        raise WeightsError(message)
    return folder


def _without_hub(
    hub: Hub, folder: Path | None, reason: HubAwayError, report: Report | None
) -> Path:
    remedy = (
        "check the network, set HF_ENDPOINT to a mirror, give source='modelscope', or give the "
        "folder of a checkpoint"
    )
    if folder is None:
        message = (
            f"{hub.title} cannot be reached ({reason}) and {hub.repository!r} is not in the cache "
            f"{str(hub.cache)!r}: {remedy}"
        )
        raise WeightsError(message) from reason
    bad = [*damage(folder).values()]
    if not bad and not is_whole(folder):
        bad = ["files are missing"]
    if not bad and report:
        known = hub.known()
        good = _verified(folder, known, report)
        bad = [f"{file.name!r} is damaged" for file in known if file not in good]
    if bad:
        message = (
            f"{hub.title} cannot be reached ({reason}) and {hub.repository!r} is not whole in the "
            f"cache: {bad[0]}; {remedy}"
        )
        raise WeightsError(message) from reason
    check_folder(folder)
    return folder


def _verified(folder: Path, files: Sequence[RemoteFile], report: Report) -> list[RemoteFile]:
    total, good, done = sum(file.size for file in files), [], 0
    for number, file in enumerate(files):
        report(Progress(file.name, done, total, number, len(files), "checking"))
        if file.is_in(folder / file.name):
            good.append(file)
        done += file.size
    return good


def _check_space(hub: Hub, missing: Iterable[RemoteFile]) -> None:
    needed = sum(file.size - hub.arrived(file) for file in missing)
    place = hub.cache.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed <= free:
        return
    known = {variant.model for variant in VARIANTS}
    smaller = [
        variant.model
        for variant in VARIANTS
        if hub.repository in known - {variant.model} and variant.download_bytes < min(free, needed)
    ]
    variable = "HF_HOME" if hub.title == "Hugging Face" else "MODELSCOPE_CACHE"
    message = (
        f"{hub.repository!r} needs {needed / 1e9:.1f} GB more and {str(hub.cache)!r} has "
        f"{free / 1e9:.1f} GB free: free some, or set {variable} to a folder on a larger disk"
        f"{''.join(f'; a smaller variant is {model!r}' for model in smaller[:1])}"
    )
    raise WeightsError(message)


def _transfer(
    hub: Hub, missing: Sequence[RemoteFile], files: Sequence[RemoteFile], report: Report
) -> None:
    """Get files, several at once, in threads that end with the program."""
    waiting, stop = deque(missing), threading.Event()
    failures: deque[BaseException] = deque()

    def work() -> None:
        while not stop.is_set() and waiting:
            try:
                file = waiting.popleft()
            except IndexError:  # another thread was first
                return
            try:
                hub.get(file, stop)
            except BaseException as error:
                failures.append(error)
                stop.set()

    # Daemons: after Ctrl-C nobody waits for a thread that waits for a silent server.
    threads = [threading.Thread(target=work, daemon=True) for _ in missing[:AT_ONCE]]
    last = None
    try:
        for thread in threads:
            thread.start()
        going = bool(threads)
        while going and not failures:
            time.sleep(REPORT_INTERVAL)
            going = any(thread.is_alive() for thread in threads)
            if (now := _progress(hub, files)) != last:
                report(now)
                last = now
    finally:
        stop.set()
    for failure in failures:
        if not isinstance(failure, Stopped):
            raise failure


def _progress(hub: Hub, files: Sequence[RemoteFile]) -> Progress:
    arrived = {file: hub.arrived(file) for file in files}
    under_way = [file.name for file, size in arrived.items() if size < file.size]
    return Progress(
        file=next(iter(under_way), files[-1].name),
        done_bytes=sum(arrived.values()),
        total_bytes=sum(file.size for file in files),
        files_done=len(files) - len(under_way),
        files_total=len(files),
    )
