"""Fetching checkpoints, from a hub on this machine."""

import json
import re
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_hub import Fetched, Fetcher, StubHub, checkpoint, running, weights

import tiny_glm4v
from langchain_glm4v.errors import ServerOptionError, WeightsError
from langchain_glm4v.server import weights as module
from langchain_glm4v.server.weights import Progress, damage, fetch, is_whole, local_checkpoint

MODEL = "zai-org/GLM-4.1V-9B-Thinking"
ON_MODELSCOPE = "ZhipuAI/GLM-4.1V-9B-Thinking"
WEIGHTS = "model.safetensors"
FILES = checkpoint()
SIZE = len(FILES[WEIGHTS])
MIB = 1 << 20
# huggingface_hub writes in pieces of this size.
PIECE = 10 * MIB


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with running() as hub:
        hub.add(MODEL)
        yield hub


@pytest.fixture
def fetcher(hub: StubHub, tmp_path: Path) -> Fetcher:
    return Fetcher(hub, tmp_path)


def check(fetched: Fetched, files: dict[str, bytes] = FILES) -> Path:
    assert fetched.folder, fetched.message
    wanted = {
        name: content
        for name, content in files.items()
        if "/" not in name and name.endswith((".safetensors", ".json", ".jinja"))
    }
    assert {path.name: path.read_bytes() for path in fetched.folder.iterdir()} == wanted
    assert "%" not in fetched.stderr  # none of the libraries' bars
    return fetched.folder


def sent(hub: StubHub) -> int:
    return sum(seen.sent for seen in hub.transfers())


def starts(hub: StubHub) -> list[int]:
    """At which bytes the transfers of weights started."""
    asked = [seen.headers["Range"] or "bytes=0-" for seen in hub.transfers()]
    return [int(text.removeprefix("bytes=").rstrip("-")) for text in asked]


def lose(hub: StubHub, fetcher: Fetcher, how: str) -> None:
    """Make the hub one that cannot be asked."""
    if how == "offline":
        fetcher.environment["HF_HUB_OFFLINE"] = "1"
    elif how == "closed":
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            fetcher.environment |= {"HF_ENDPOINT": url, "MODELSCOPE_ENDPOINT": url}
    else:
        hub.status = 503


def test_what_vllm_reads_is_fetched_and_nothing_else(hub: StubHub, fetcher: Fetcher) -> None:
    fetched = fetcher(MODEL)
    check(fetched)
    assert sent(hub) == SIZE
    last = fetched.progress[-1]
    assert last["done_bytes"] == last["total_bytes"] > SIZE
    assert last["files_done"] == last["files_total"] == 7
    done = [progress["done_bytes"] for progress in fetched.progress]
    assert done == sorted(done)


def test_what_is_there_is_not_fetched_again(hub: StubHub, fetcher: Fetcher) -> None:
    folder = check(fetcher(MODEL))
    hub.seen.clear()
    assert check(fetcher(MODEL)) == folder
    assert len(hub.seen) == 1


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_broken_connection_is_resumed(hub: StubHub, fetcher: Fetcher, fault: str) -> None:
    hub.faults.append((fault, 15 * MIB))
    check(fetcher(MODEL))
    first, second = starts(hub)
    assert first == 0
    assert second >= PIECE
    assert hub.transfers()[1].sent == SIZE - second


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_next_process_goes_on_where_one_ended(
    hub: StubHub, fetcher: Fetcher, how: signal.Signals
) -> None:
    hub.pace = 10 * MIB
    process = fetcher.start(MODEL)
    fetcher.interrupt(process, how, after=PIECE)
    said, _ = process.communicate()
    assert process.returncode == (-9 if how == signal.SIGKILL else 0)
    if how == signal.SIGINT:
        assert json.loads(said.splitlines()[-1])["error"] == "KeyboardInterrupt"

    hub.pace = float("inf")
    hub.seen.clear()
    fetched = fetcher(MODEL)
    check(fetched)
    (start,) = starts(hub)
    assert start >= PIECE
    assert sent(hub) == SIZE - start
    assert fetched.progress[0]["done_bytes"] >= PIECE


def test_server_that_cannot_resume(hub: StubHub, fetcher: Fetcher) -> None:
    hub.faults += [("cut", 15 * MIB), ("whole", 0)]
    check(fetcher(MODEL))
    assert len(hub.transfers()) == 2


def test_hub_that_is_unwell_for_a_moment(hub: StubHub, fetcher: Fetcher) -> None:
    hub.faults += [("cut", 15 * MIB), ("unwell", 0)]
    check(fetcher(MODEL))
    assert starts(hub) == [0, PIECE, PIECE]


def test_transfer_that_breaks_off_for_good_keeps_what_arrived(
    hub: StubHub, fetcher: Fetcher
) -> None:
    hub.faults += [("reset", 15 * MIB), *[("reset", 0)] * 30]
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "broke off" in fetched.message
    assert "goes on from what has arrived" in fetched.message
    hub.faults.clear()
    hub.seen.clear()
    check(fetcher(MODEL))
    assert starts(hub)[0] >= PIECE


def test_altered_weights_are_found(hub: StubHub, fetcher: Fetcher) -> None:
    hub.faults.append(("alter", 0))
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert f"{WEIGHTS!r} of {MODEL!r} has another checksum" in fetched.message
    assert not is_whole(next(fetcher.cache.glob("models--*/snapshots/*")))
    check(fetcher(MODEL))


def test_altered_small_file_is_found(hub: StubHub, fetcher: Fetcher) -> None:
    hub.swapped["tokenizer.json"] = FILES["tokenizer.json"][::-1]
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "'tokenizer.json' of" in fetched.message
    assert hub.transfers() == []
    hub.swapped.clear()
    check(fetcher(MODEL))


def test_part_of_an_earlier_transfer_that_is_damaged(hub: StubHub, fetcher: Fetcher) -> None:
    hub.faults += [("reset", 15 * MIB), *[("reset", 0)] * 30]
    assert fetcher(MODEL).folder is None
    hub.faults.clear()
    (part,) = fetcher.cache.glob("models--*/blobs/*.incomplete")
    part.write_bytes(bytes(part.stat().st_size))
    hub.seen.clear()
    check(fetcher(MODEL))
    resumed, anew = starts(hub)
    assert resumed > anew == 0


def test_two_processes_at_once_transfer_once(hub: StubHub, fetcher: Fetcher) -> None:
    hub.pace = 10 * MIB
    both = [fetcher.start(MODEL) for _ in range(2)]
    folders = [check(fetcher.finish(process)) for process in both]
    assert folders[0] == folders[1]
    assert sent(hub) == SIZE


def test_one_process_goes_on_when_the_other_is_killed(hub: StubHub, fetcher: Fetcher) -> None:
    hub.pace = 10 * MIB
    first = fetcher.start(MODEL)
    fetcher.interrupt(first, signal.SIGSTOP, after=PIECE)
    second = fetcher.start(MODEL)
    assert second.stdout
    assert json.loads(second.stdout.readline())["done_bytes"] >= PIECE  # it watches the first
    first.kill()
    first.communicate()
    check(fetcher.finish(second))
    assert starts(hub)[1] >= PIECE


@pytest.mark.parametrize("how", ["offline", "closed", "down"])
def test_without_the_hub_the_cache_is_enough(hub: StubHub, fetcher: Fetcher, how: str) -> None:
    folder = check(fetcher(MODEL))
    lose(hub, fetcher, how)
    assert check(fetcher(MODEL)) == folder


@pytest.mark.parametrize(
    ("how", "said"),
    [("offline", "HF_HUB_OFFLINE is set"), ("closed", "ConnectError"), ("down", "503")],
)
def test_without_the_hub_and_the_cache(hub: StubHub, fetcher: Fetcher, how: str, said: str) -> None:
    lose(hub, fetcher, how)
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert said in fetched.message
    assert f"{MODEL!r} is not in the cache" in fetched.message
    assert "\n" not in fetched.message


def test_without_the_hub_and_a_part_in_the_cache(hub: StubHub, fetcher: Fetcher) -> None:
    folder = check(fetcher(MODEL))
    hub.status = 503
    for name, problem in ((WEIGHTS, "files are missing"), ("config.json", "not in the cache")):
        (folder / name).unlink()
        fetched = fetcher(MODEL)
        assert fetched.error == "WeightsError"
        assert problem in fetched.message


def test_commit_that_is_there_needs_no_hub(hub: StubHub, fetcher: Fetcher) -> None:
    old = hub.repositories[MODEL].names["main"]
    new = {**FILES, WEIGHTS: weights(3000)}
    hub.repositories[MODEL].commit(new)
    assert check(fetcher(MODEL, revision=old)).name == old
    hub.seen.clear()
    assert check(fetcher(MODEL, revision=old)).name == old
    assert hub.seen == []
    check(fetcher(MODEL), new)


def test_branch_and_tag(hub: StubHub, fetcher: Fetcher) -> None:
    tagged = {**FILES, WEIGHTS: weights(3000)}
    hub.repositories[MODEL].commit(tagged, "v1")
    check(fetcher(MODEL, revision="v1"), tagged)
    hub.seen.clear()
    check(fetcher(MODEL))
    assert sent(hub) == SIZE
    hub.status = 503
    check(fetcher(MODEL, revision="v1"), tagged)


def test_newer_files_replace_the_old_only_when_all_are_there(
    hub: StubHub, fetcher: Fetcher
) -> None:
    check(fetcher(MODEL))
    new = {**FILES, WEIGHTS: weights(3000), "config.json": FILES["config.json"] + b"\n"}
    hub.repositories[MODEL].commit(new)
    hub.faults.append(("alter", 0))
    assert fetcher(MODEL).error == "WeightsError"
    hub.status = 503
    check(fetcher(MODEL))  # the old ones
    hub.status = 0
    hub.seen.clear()
    check(fetcher(MODEL), new)
    assert not any("tokenizer" in seen.path and seen.method == "GET" for seen in hub.seen)


def test_unknown_revision(fetcher: Fetcher) -> None:
    fetched = fetcher(MODEL, revision="v9")
    assert fetched.error == "ModelNotFoundError"
    assert f"{MODEL!r} has no revision 'v9': give a branch, tag or commit" in fetched.message


def test_unknown_repository(fetcher: Fetcher) -> None:
    fetched = fetcher("zai-org/GLM-4.1V-9B-Thinkin")
    assert fetched.error == "ModelNotFoundError"
    assert "Hugging Face has no model 'zai-org/GLM-4.1V-9B-Thinkin'" in fetched.message
    assert f"did you mean {MODEL!r}?" in fetched.message
    assert "\n" not in fetched.message


def test_gated_repository(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories[MODEL].gated = True
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert f"ask for it at {hub.url}/{MODEL}, then set HF_TOKEN" in fetched.message
    fetcher.environment["HF_TOKEN"] = "good"
    check(fetcher(MODEL))
    # The other host is none of those that the token is for.
    assert {seen.headers["Authorization"] for seen in hub.transfers()} == {None}


def test_token_that_the_hub_refuses(hub: StubHub, fetcher: Fetcher) -> None:
    hub.status = 401
    fetcher.environment["HF_TOKEN"] = "bad"
    fetched = fetcher(MODEL)
    assert fetched.error in {"WeightsError", "ModelNotFoundError"}
    assert "HF_TOKEN" in fetched.message
    assert "bad" not in fetched.message


def test_another_kind_of_model_costs_no_transfer_of_weights(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories[MODEL].commit({**FILES, "config.json": b'{"model_type": "qwen3"}'})
    fetched = fetcher(MODEL)
    assert fetched.error == "ModelNotFoundError"
    assert "'qwen3'" in fetched.message
    assert hub.transfers() == []


def test_repository_without_weights_for_vllm(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories[MODEL].commit({"config.json": FILES["config.json"], "model.gguf": b"x"})
    fetched = fetcher(MODEL)
    assert fetched.error == "ModelNotFoundError"
    assert "no .safetensors files" in fetched.message


def test_disk_that_is_too_small_is_found_before(hub: StubHub, fetcher: Fetcher) -> None:
    hub.lies[WEIGHTS] = {"size": 10**15}
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert f"{MODEL!r} needs 1000000.0 GB more" in fetched.message
    assert re.search(r" has \d+\.\d GB free", fetched.message)
    assert "set HF_HOME to a folder on a larger disk" in fetched.message
    assert hub.transfers() == []


def test_write_that_fails(hub: StubHub, fetcher: Fetcher) -> None:
    fetcher.largest_file = 12 * 1024
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "cannot be written (File too large): free space there" in fetched.message
    fetcher.largest_file = 0
    hub.seen.clear()
    check(fetcher(MODEL))
    assert starts(hub) == [12 * MIB]


def test_cache_that_cannot_be_written(fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fetcher.environment["HF_HOME"] = str(tmp_path / "file" / "hf")
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "cannot be written (Not a directory)" in fetched.message


@pytest.mark.parametrize("lie", [{"blobId": "../../../up"}, {"size": None}])
def test_mirror_that_tells_no_usable_checksum(
    hub: StubHub, fetcher: Fetcher, lie: dict[str, object]
) -> None:
    hub.lies["config.json"] = lie
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "no length or checksum of 'config.json'" in fetched.message


def test_mirror_that_tells_no_commit(hub: StubHub, fetcher: Fetcher) -> None:
    """It would become the path of a folder, in which files are replaced."""
    repository = hub.repositories[MODEL]
    repository.commits["../../../up"] = FILES
    repository.names["main"] = "../../../up"
    up = fetcher.cache.parent.parent / "up"
    up.mkdir()
    (up / "config.json").write_text("mine")
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert "tells no commit" in fetched.message
    assert (up / "config.json").read_text() == "mine"


def test_file_that_was_cut_short_is_fetched_again(hub: StubHub, fetcher: Fetcher) -> None:
    path = check(fetcher(MODEL)) / WEIGHTS
    with path.open("r+b") as stream:
        stream.truncate(SIZE - 1)
    hub.status = 503
    fetched = fetcher(MODEL)
    assert fetched.error == "WeightsError"
    assert f"it has {SIZE - 1} bytes and should have {SIZE}" in fetched.message
    hub.status = 0
    check(fetcher(MODEL))


def test_changed_bytes_are_found_when_asked_for(hub: StubHub, fetcher: Fetcher) -> None:
    path = check(fetcher(MODEL)) / WEIGHTS
    change(path)
    assert fetcher(MODEL).folder == path.parent
    hub.status = 503
    fetched = fetcher(MODEL, verify=True)
    assert fetched.error == "WeightsError"
    assert f"{WEIGHTS!r} is damaged" in fetched.message
    assert {progress["stage"] for progress in fetched.progress} == {"checking"}
    hub.status = 0
    hub.seen.clear()
    check(fetcher(MODEL, verify=True))
    assert sent(hub) == SIZE
    assert fetcher(MODEL, verify=True).progress[-1]["stage"] == "checking"
    assert sent(hub) == SIZE


def test_several_files_of_weights(hub: StubHub, fetcher: Fetcher) -> None:
    names = [f"model-{number:05}-of-00006.safetensors" for number in range(1, 7)]
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    files = {
        **{name: content for name, content in FILES.items() if name != WEIGHTS},
        **{name: weights(MIB, number) for number, name in enumerate(names)},
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    hub.repositories[MODEL].commit(files)
    hub.faults += [("cut", 300_000)] * 3
    folder = check(fetcher(MODEL), files)
    (folder / names[3]).unlink()
    hub.seen.clear()
    assert f"{names[3]!r} is missing" in damage(folder).values()
    check(fetcher(MODEL), files)
    assert hub.transfers() == []  # the blob is still there


@pytest.mark.parametrize("asked", [{"source": "modelscope"}, {}])
def test_modelscope(hub: StubHub, fetcher: Fetcher, asked: dict[str, str]) -> None:
    hub.repositories = {ON_MODELSCOPE: hub.repositories[MODEL]}
    fetcher.environment["VLLM_USE_MODELSCOPE"] = "" if asked else "1"
    folder = of_modelscope(fetcher(MODEL, **asked))
    hub.seen.clear()
    assert of_modelscope(fetcher(MODEL, **asked)) == folder
    assert not any("FilePath" in seen.path for seen in hub.seen)


def test_modelscope_that_cannot_be_asked(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories = {ON_MODELSCOPE: hub.repositories[MODEL]}
    folder = of_modelscope(fetcher(MODEL, source="modelscope"))
    lose(hub, fetcher, "closed")
    assert of_modelscope(fetcher(MODEL, source="modelscope")) == folder
    shutil.rmtree(folder)
    fetched = fetcher(MODEL, source="modelscope")
    assert fetched.error == "WeightsError"
    assert f"{ON_MODELSCOPE!r} is not in the cache" in fetched.message


def change(path: Path) -> None:
    """Change the last byte."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def of_modelscope(fetched: Fetched) -> Path:
    assert fetched.folder, fetched.message
    assert {
        path.name: path.read_bytes() for path in fetched.folder.iterdir() if path.name[0] != "."
    } == {
        name: FILES[name]
        for name in FILES
        if name.endswith((".safetensors", ".json", ".jinja")) and "/" not in name
    }
    return fetched.folder


def test_modelscope_resumes(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories = {ON_MODELSCOPE: hub.repositories[MODEL]}
    hub.pace = 10 * MIB
    process = fetcher.start(MODEL, source="modelscope")
    fetcher.interrupt(process, signal.SIGKILL, after=5 * MIB)
    process.communicate()
    hub.pace = float("inf")
    hub.seen.clear()
    of_modelscope(fetcher(MODEL, source="modelscope"))
    asked = [seen.headers["Range"] for seen in hub.seen if WEIGHTS in seen.path]
    assert [int(text[6:].partition("-")[0]) >= 4 * MIB for text in asked if text] == [True]


def test_modelscope_finds_what_changed(hub: StubHub, fetcher: Fetcher) -> None:
    hub.repositories = {ON_MODELSCOPE: hub.repositories[MODEL]}
    path = of_modelscope(fetcher(MODEL, source="modelscope")) / WEIGHTS
    change(path)
    of_modelscope(fetcher(MODEL, source="modelscope", verify=True))
    with path.open("r+b") as stream:
        stream.truncate(SIZE - 1)
    of_modelscope(fetcher(MODEL, source="modelscope"))


@pytest.mark.parametrize("options", [{}, {"revision": "v9"}])
def test_modelscope_has_no_such_model(
    hub: StubHub, fetcher: Fetcher, options: dict[str, str]
) -> None:
    hub.repositories = {ON_MODELSCOPE: hub.repositories[MODEL]} if options else {}
    fetched = fetcher(MODEL, source="modelscope", **options)
    assert fetched.error == "ModelNotFoundError"
    assert f"ModelScope has no model {ON_MODELSCOPE!r}" in fetched.message
    assert options.get("revision", "") in fetched.message


def test_unknown_source() -> None:
    with pytest.raises(ServerOptionError, match="source is 'hub': it must be 'huggingface', "):
        fetch(MODEL, source="hub")


def test_id_that_no_hub_takes(hub: StubHub, fetcher: Fetcher) -> None:
    fetched = fetcher("zai-org/GLM--4.1V")
    assert fetched.error == "ModelNotFoundError"
    assert "'zai-org/GLM--4.1V' is no id of a repository on Hugging Face" in fetched.message
    assert hub.seen == []


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    name, _, distribution = module.SOURCES[source]
    monkeypatch.setitem(sys.modules, distribution.replace("-", "_"), None)
    monkeypatch.delitem(sys.modules, f"langchain_glm4v.server.{name}", raising=False)
    with pytest.raises(WeightsError, match=f"run: pip install {distribution}"):
        fetch(MODEL, source=source)


def copy(folder: Path) -> Path:
    return Path(shutil.copytree(tiny_glm4v.checkpoint_path(), folder))


def with_header(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "damaged"),
        (b"\xff" * 8, "damaged"),
        (b"\x04" + bytes(7) + b"null", "damaged"),
        (b"\x04" + bytes(7) + b"{{{{", "damaged"),
        (with_header("[" * 100_000), "RecursionError"),
        (with_header('{"w": {"data_offsets": []}}'), "IndexError"),
        (with_header('{"w": {"data_offsets": [0, "b"]}}'), "TypeError"),
        (weights(99) + b"x", "has 170 bytes and should have 169"),
        (weights(99)[:-1], "has 168 bytes and should have 169"),
    ],
)
def test_damaged_weights(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / WEIGHTS).write_bytes(content)
    assert problem in damage(tmp_path)[WEIGHTS]
    (tmp_path / WEIGHTS).write_bytes(weights(99))
    assert damage(tmp_path) == {}


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": 3}', "[" * 100_000])
def test_damaged_index(tmp_path: Path, index: str) -> None:
    folder = copy(tmp_path / "mine")
    assert is_whole(folder)
    (folder / module.INDEX).write_text(index)
    assert not is_whole(folder)
    assert "is not an index" in damage(folder)[module.INDEX]
    (folder / module.INDEX).write_text('{"weight_map": {"a": 3, "b": null}}')
    assert damage(folder) == {name: f"{name!r} is missing" for name in ("3", "None")}
    (folder / module.INDEX).unlink()
    (folder / module.INDEX).mkdir()
    assert "is not an index" in damage(folder)[module.INDEX]


def test_local_folder(tmp_path: Path) -> None:
    folder = copy(tmp_path / "mine")
    said: list[str] = []
    found = local_checkpoint(str(folder), report=said.append)
    assert (found.location, found.name, said) == (str(folder), "mine", [])
    with pytest.raises(ServerOptionError, match=r"revision is 'v1', but .* is not on a model hub"):
        local_checkpoint(str(folder), revision="v1", report=said.append)
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.truncate(100_000)
    with pytest.raises(WeightsError, match=r"'model\.safetensors' is damaged: it has 100000 bytes"):
        local_checkpoint(str(folder), report=said.append)


def test_folder_without_weights_is_left_to_vllm(tmp_path: Path) -> None:
    folder = copy(tmp_path / "mine")
    (folder / WEIGHTS).unlink()
    assert local_checkpoint(str(folder), report=print).is_local
    assert not is_whole(folder)


@pytest.mark.parametrize(
    ("total", "line"),
    [(20_600_000_000, "downloading 3.2 of 20.6 GB"), (22_500_000, "downloading 3200.0 of 22.5 MB")],
)
def test_progress_for_people(total: int, line: str) -> None:
    assert str(Progress("a", 3_200_000_000, total, 1, 2)) == line
