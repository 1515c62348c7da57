"""`glm4v transcribe`: what it writes, how it goes on, how it ends."""

import importlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from numbered_pages import UNSURE, Reader, choice, page, write_pdf
from terminal import on_terminal
from vision_server import Body, Serve, VisionServer
from waiting import wait_until

from langchain_glm4v import cli
from langchain_glm4v.transcription.cache import PageCache

pymupdf: Any = importlib.import_module("pymupdf")

GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]
SMALL = ("--longest-side", "784")  # as they are
TEN = [*range(1, 11)]
Says = Callable[[int], "str | Body | None"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GLM4V_BASE_URL", "GLM4V_API_KEY", "GLM4V_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Place:
    """A server, and the command that asks it."""

    def __init__(self, serve: Serve, reader: Reader) -> None:
        self.reader = reader
        self.server: VisionServer = serve(reader)

    def command(self, *given: str) -> list[str]:
        model = ("--base-url", self.server.url, "--model", "glm")
        return ["transcribe", *given, *model, *SMALL]

    def run(self, *given: str) -> int:
        try:
            return cli.main(self.command(*given))
        except SystemExit as end:
            assert isinstance(end.code, int)
            return end.code

    def start(self, *given: str, **streams: Any) -> "subprocess.Popen[bytes]":
        command = ["env", "--default-signal=INT", *GLM4V, *self.command(*given)]
        return subprocess.Popen(command, **streams)


@pytest.fixture
def reading(serve: Serve) -> Callable[..., Place]:
    """To be called with what the model says: starts a server."""
    return lambda says=None: Place(serve, Reader(says))


def records(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def files(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_documents_become_markdown_in_a_folder(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("scans/a.pdf"), [1, None, 2])
    page(3).save("scans/b.png")
    place = reading()

    assert place.run("scans", "-o", "out/texts", "--quiet") == 0

    assert files("out/texts") == {"a.md", "b.md", ".glm4v-pages.sqlite"}
    assert Path("out/texts/a.md").read_text() == (
        "<!-- page 1 of 3: scans/a.pdf -->\n\npage 1\n\n"
        "<!-- page 2 of 3: scans/a.pdf -->\n\n"
        "<!-- page 3 of 3: scans/a.pdf -->\n\npage 2\n"
    )
    assert Path("out/texts/b.md").read_text() == "<!-- page 1 of 1: scans/b.png -->\n\npage 3\n"
    shown = capsys.readouterr()
    rows = dict(line.rsplit("  ", 1) for line in shown.out.splitlines())
    told = {name.strip(): value.strip() for name, value in rows.items()}
    assert (told["documents"], told["pages"], told["blank"], told["failed"]) == ("2", "4", "1", "0")
    assert (told["read by the model"], told["tokens of prompts"]) == ("3", "15")
    assert shown.err == ""


def test_scans_become_pdfs_that_can_be_searched(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("scans/a.pdf"), [1, None, 2])
    page(3).save("scans/b.png")
    place = reading()

    assert place.run("scans", "-o", "out", "--format", "pdf", "--quiet") == 0

    assert files("out") == {"a.pdf", "b.pdf", ".glm4v-pages.sqlite"}
    for name, texts in (("a", ["page 1", "", "page 2"]), ("b", ["page 3"])):
        with pymupdf.open(f"out/{name}.pdf") as document:
            assert [" ".join(one.get_text().split()) for one in document] == texts
    capsys.readouterr()
    for out in ("-", "all.jsonl"):
        assert place.run("scans", "-o", out, "--format", "pdf") == 2
    assert capsys.readouterr().err.count("--format pdf is for a folder of PDFs") == 2
    # The scans themselves are never replaced.
    assert place.run("scans/a.pdf", "-o", "scans", "--format", "pdf") == 2
    assert "'scans/a.pdf' would be replaced" in capsys.readouterr().err
    assert place.run("scans", "-o", "scans", "--format", "pdf") == 2
    assert "all that is to be read is in 'scans': choose another OUT" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["scans", "scans/**/*.pdf", "."])
def test_pdfs_that_were_written_are_not_read(given: str, reading: Callable[..., Place]) -> None:
    write_pdf(Path("scans/a.pdf"), [1])
    write_pdf(Path("scans/deep/b.pdf"), [2])
    place = reading()
    for _ in range(2):
        assert place.run(given, "-o", "scans/out", "--format", "pdf", "-q") == 0
        assert files("scans/out") == {"a.pdf", "b.pdf", ".glm4v-pages.sqlite"}
    assert place.reader.asked == {1: 1, 2: 1}


def test_jsonl_has_all_that_is_known_of_each_page(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), TEN)
    write_pdf(Path("sub/a.pdf"), [11])
    strange = "line\u2028 and \ud83d 茶"
    place = reading(lambda number: choice(strange if number == 3 else f"page {number}"))

    given = ("a.pdf", "sub/a.pdf", "-o", "all.jsonl", "--json", "--quiet")
    assert place.run(*given) == 0

    assert json.loads(capsys.readouterr().out)["pages"] == 11
    found = records("all.jsonl")
    assert [(record["index"], record["page"]) for record in found] == [
        *((0, page) for page in range(10)),
        (1, 0),
    ]
    assert found[2]["text"] == strange
    assert place.run("a.pdf", "-o", "all.jsonl", "--pages", "2-4", "--quiet", "--no-resume") == 0
    found = records("all.jsonl")
    assert [record["page"] for record in found] == [1, 2, 3]
    first = {name: value for name, value in found[0].items() if name != "seconds"}
    assert first == {
        **{"source": "a.pdf", "index": 0, "total_pages": 10, "format": "PDF", "page": 1},
        **{"title": "Squares", "author": "", "subject": "", "creator": "", "created": ""},
        **{"producer": "Scanner 2", "modified": "", "text": "page 2"},
        **{"origin": "model", "problems": [], "confidence": pytest.approx(0.99, abs=0.001)},
        **{"turn": 0, "attempts": 1, "model": "glm", "input_tokens": 5, "output_tokens": 2},
        **{"error": "", "from_cache": False},
    }


def test_jsonl_for_each_document_and_pages_by_a_schema(reading: Callable[..., Place]) -> None:
    write_pdf(Path("a.pdf"), [1])
    page(2).save("b.png")
    Path("wanted.json").write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    said = '<think>I look</think><answer>{{"n": {}}}'  # where the grammar ends
    place = reading(lambda number: choice(said.format(number)))

    assert place.run("a.pdf", "b.png", "-o", "out", "--schema", "wanted.json", "-q") == 0

    assert files("out") == {"a.jsonl", "b.jsonl", ".glm4v-pages.sqlite"}
    assert json.loads(records("out/b.jsonl")[0]["text"]) == {"n": 2}
    assert '"integer"' in json.dumps(place.server.bodies[-1]["response_format"])


def test_standard_output_has_the_pages_and_nothing_else(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), [1, 2])
    place = reading(lambda number: choice(f"页 {number}"))

    assert place.run("a.pdf", "-o", "-") == 0
    shown = capsys.readouterr()
    assert shown.out == (
        "<!-- page 1 of 2: a.pdf -->\n\n页 1\n\n<!-- page 2 of 2: a.pdf -->\n\n页 2\n"
    )
    assert "documents" in shown.err
    assert files(".") == {"a.pdf"}

    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [*GLM4V, *place.command("a.pdf", "-o", "-", "--format", "jsonl")]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert [json.loads(line)["text"] for line in printed.splitlines()] == ["页 1", "页 2"]


def test_what_cannot_be_read_is_named_and_the_rest_is_there(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), [1, 2, 3])
    write_pdf(Path("z.pdf"), [4])
    Path("broken.pdf").write_bytes(b"%PDF-1.7\nno more than this")
    Path("out").mkdir()
    Path("out/broken.md").write_text("of before")

    def says(number: int) -> Body:
        return choice("cut", reason="length") if number == 2 else choice(f"page {number}")

    place = reading(says)
    assert place.run("a.pdf", "broken.pdf", "z.pdf", "-o", "out", "--json", "-q") == 5

    shown = capsys.readouterr()
    told = json.loads(shown.out)
    counts = ("documents", "pages", "read", "failed", "output_tokens")
    assert [told[name] for name in counts] == [3, 5, 3, 2, 2 * 3 + 2 * 4]
    assert [(one["source"], one["page"]) for one in told["failures"]] == [
        ("a.pdf", 1),
        ("broken.pdf", None),
    ]
    lines = shown.err.splitlines()
    assert lines[0].startswith("page 2 of 'a.pdf': it was cut off")
    assert lines[1].startswith("'broken.pdf': ")
    assert lines[2] == "glm4v: 2 of 5 pages failed: see above"
    assert "<!-- failed: it was cut off" in Path("out/a.md").read_text()
    assert Path("out/a.md").read_text().endswith("of 3: a.pdf -->\n\npage 3\n")
    assert Path("out/broken.md").read_text() == "of before"
    assert place.run("broken.pdf", "-o", "out/all.jsonl", "-q") == 5
    (record,) = records("out/all.jsonl")
    assert (record["total_pages"], record["origin"], bool(record["error"])) == (0, "none", True)


@pytest.mark.parametrize(
    ("form", "suffix", "remedy"),
    [("markdown", "md", "choose another OUT"), ("pdf", "pdf", "name another file")],
)
def test_document_that_cannot_be_written_does_not_keep_back_the_others(
    form: str,
    suffix: str,
    remedy: str,
    reading: Callable[..., Place],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, name in enumerate("abc", 1):
        write_pdf(Path(f"{name}.pdf"), [number])
    Path(f"out/b.{suffix}").mkdir(parents=True)
    place = reading()
    given = ("a.pdf", "b.pdf", "c.pdf", "-o", "out", "--format", form, "-q", "--json")
    assert place.run(*given) == 5
    shown = capsys.readouterr()
    (failure,) = json.loads(shown.out)["failures"]
    assert failure["source"] == "b.pdf"
    assert f"'b.pdf': 'out/b.{suffix}' cannot be written: " in shown.err
    assert remedy in shown.err
    assert Path(f"out/a.{suffix}").is_file()
    assert Path(f"out/c.{suffix}").is_file()


def test_scan_of_a_host_that_is_allowed_becomes_a_pdf(
    reading: Callable[..., Place], web: Any
) -> None:
    url = web.give("/scan.pdf", write_pdf(Path("a.pdf"), [7]).read_bytes())
    given = (url, "-o", "out", "--format", "pdf", "--pages", "1,1", "-q")
    assert reading().run(*given, "--allow-host", "127.0.0.1") == 0
    with pymupdf.open("out/scan.pdf") as document:
        assert document[0].get_text().split() == ["page", "7"]


def test_no_page_is_asked_twice(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), [1, 2])
    place = reading()
    assert place.run("a.pdf", "-o", "out", "-q") == 0
    before = Path("out/a.md").read_bytes()
    Path("a.pdf").rename("b.pdf")
    assert place.run("b.pdf", "-o", "out", "-q", "--json") == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["from_cache"], told["read"], told["input_tokens"]) == (2, 0, 0)
    assert place.reader.asked == {1: 1, 2: 1}
    assert Path("out/b.md").read_bytes() == before.replace(b"a.pdf", b"b.pdf")
    assert place.run("b.pdf", "-o", "new", "-q", "--no-resume") == 0
    assert (files("new"), place.reader.asked) == ({"b.md"}, {1: 2, 2: 2})
    assert place.run("b.pdf", "-o", "-", "-q", "--cache", "out/.glm4v-pages.sqlite") == 0
    assert place.reader.asked == {1: 2, 2: 2}


@pytest.fixture
def stuck(reading: Callable[..., Place]) -> Iterator[tuple[Place, threading.Event]]:
    """A server that answers about pages from 6 on, and any, only once the event is set."""
    goes_on = threading.Event()

    def says(number: int) -> Body | None:
        return choice(f"page {number}") if number < 6 or goes_on.is_set() else None

    yield reading(says), goes_on
    goes_on.set()


def five_are_kept() -> bool:
    path = Path("out/.glm4v-pages.sqlite")
    if not path.exists():
        return False
    with PageCache(path) as cache:
        return len(cache) == 5


def test_killed_run_goes_on_where_it_was(stuck: tuple[Place, threading.Event]) -> None:
    place, goes_on = stuck
    write_pdf(Path("a.pdf"), TEN[:3])
    write_pdf(Path("b.pdf"), TEN[3:])
    Path("out").mkdir()
    Path("out/b.md").write_text("of before")
    child = place.start("a.pdf", "b.pdf", "-o", "out", "-q")
    wait_until(five_are_kept)
    wait_until(Path("out/a.md").exists)
    wait_until(lambda: any(name.endswith(".part") for name in files("out")))
    child.kill()
    child.wait()
    assert Path("out/b.md").read_text() == "of before"
    goes_on.set()

    assert place.run("a.pdf", "b.pdf", "-o", "out", "-q") == 0

    assert [place.reader.asked[number] for number in TEN[:5]] == [1] * 5
    assert Path("out/b.md").read_text().count("<!-- page ") == 7
    assert files("out") == {"a.md", "b.md", ".glm4v-pages.sqlite"}


def test_ctrl_c_ends_it_at_once_and_says_how_to_go_on(
    stuck: tuple[Place, threading.Event],
) -> None:
    place, _ = stuck
    write_pdf(Path("a.pdf"), TEN)
    child = place.start("a.pdf", "-o", "out", stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_until(five_are_kept)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)  # an answer is waited for 600 s
    assert (child.returncode, out) == (130, b"")
    last = err.decode().splitlines()[-1]
    assert last.startswith("stopped; pages that were read are in 'out/.glm4v-pages.sqlite'")
    assert b"Traceback" not in err
    assert files("out") == {".glm4v-pages.sqlite"}


def test_ctrl_c_ends_it_though_a_download_hangs(reading: Callable[..., Place], web: Any) -> None:
    place = reading()
    come, over = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        come.set()
        over.wait(60)

    web.routes["/a.pdf"] = hang
    given = (f"{web.url}/a.pdf", "-o", "out", "--allow-host", "127.0.0.1")
    child = place.start(*given, stderr=subprocess.PIPE)
    try:
        assert come.wait(60)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)  # a download may take 30 s
    finally:
        over.set()
    assert child.returncode == 130
    assert b"Traceback" not in err


def test_server_that_goes_away_ends_it_and_what_was_read_is_kept(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), [1])
    given = ["transcribe", "a.pdf", "-o", "out", "--base-url", "http://127.0.0.1:1/v1"]
    assert cli.main([*given, "--model", "m", "-q"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("stopped; pages that were read are in")
    assert lines[1].startswith("glm4v: no answer from the server")
    assert not Path("out/a.md").exists()
    assert reading().run("a.pdf", "-o", "out", "-q") == 0


@pytest.mark.parametrize("out", ["/sys", "/sys/pages.jsonl"])
def test_folder_that_cannot_be_written_is_told_before_a_page_is_read(
    out: str, reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), TEN)
    place = reading()
    assert place.run("a.pdf", "-o", out, "--cache", "pages.sqlite", "-q") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("glm4v: ")
    assert "/sys" in line
    assert "choose another OUT" in line
    assert place.server.bodies == []


def test_cache_that_cannot_be_opened_is_told_and_holds_no_page(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), TEN)
    Path("pages").write_text("no database " * 100)
    place = reading()
    assert place.run("a.pdf", "-o", "out", "--cache", "pages", "-q") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("glm4v: the cache of pages 'pages' cannot be opened")
    assert place.server.bodies == []


def test_nobody_reads_the_output(reading: Callable[..., Place]) -> None:
    write_pdf(Path("a.pdf"), TEN)
    place = reading(lambda number: choice(f"page {number} " * 20_000))
    child = place.start("a.pdf", "-o", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout and child.stderr
    child.stdout.read(10)
    child.stdout.close()
    err = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait(60) == 141
    assert "Traceback" not in err
    assert "stopped" not in err


def test_progress_on_a_terminal_is_one_line_and_none_if_quiet(
    reading: Callable[..., Place],
) -> None:
    write_pdf(Path("a.pdf"), TEN)
    write_pdf(Path("b.pdf"), [None, 12])
    place = reading(lambda number: choice("c", reason="length" if number == 12 else "stop"))
    given = ("a.pdf", "b.pdf", "-o", "out", "--no-resume")
    code, shown = on_terminal([*GLM4V, *place.command(*given)])
    assert code == 5
    begin, _, end = shown.partition("\r\n")
    assert begin.startswith("\rno page yet, 0 of 2 documents, 0.0 pages/s\x1b[K\r")
    last = begin.rpartition("\r")[2]
    assert last.startswith("12/12 pages, 2 of 2 documents, ")
    assert last.endswith("0:00 left, 1 failed\x1b[K")
    assert all(len(line) < 80 + len("\x1b[K") for line in begin.split("\r"))
    assert end.startswith("page 2 of 'b.pdf': ")
    assert on_terminal([*GLM4V, *place.command("a.pdf", "-o", "out", "-q")]) == (0, "")


def test_progress_elsewhere_is_plain_lines(
    reading: Callable[..., Place], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pdf(Path("a.pdf"), TEN)
    assert reading().run("a.pdf", "-o", "out", "--pages", "2-4") == 0
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "no page yet, 0 of 1 documents, 0.0 pages/s"
    assert last.startswith("3/3 pages, 1 of 1 documents, ")


def test_password_and_text_of_its_own(reading: Callable[..., Place]) -> None:
    document = pymupdf.open()
    document.new_page().insert_text((50, 50), "A text of more than twenty characters.")
    options = {"encryption": pymupdf.PDF_ENCRYPT_AES_256, "user_pw": "open it"}
    document.save("secret.pdf", **options)
    Path("password").write_text("open it\n")
    place = reading()
    given = ("secret.pdf", "-o", "out", "-q", "--text-layer", "auto")
    assert place.run(*given) == 5
    assert place.run(*given, "--password-file", "password") == 0
    assert "more than twenty characters." in Path("out/secret.md").read_text()
    assert place.reader.asked == {}


def test_options_reach_the_model(reading: Callable[..., Place]) -> None:
    write_pdf(Path("a.pdf"), TEN)

    def says(_: int) -> Body:
        time.sleep(0.05)  # so that more than two would meet
        return choice("да", logprob=UNSURE)

    place = reading(says)
    given = ("a.pdf", "-o", "out", "-q", "--prompt", "Read it.", "--temperature", "0.1")
    assert place.run(*given, "--max-concurrency", "2", "--pages", "1", "--scripts", "latin") == 5
    assert place.run(*given, "--max-concurrency", "2", "--scripts", "latin,cyrillic") == 0
    assert place.server.bodies[0]["temperature"] == 0.1
    assert all("Read it." in prompt for prompt in place.server.prompts if "<medium>" in prompt)
    assert place.server.most <= 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("-o", "out", "--password", "x"), "give --password-file FILE"),
        (("-o", ""), "the name is empty"),
        (("", "-o", "out"), "the name is empty"),
        (("-o", "out.md"), "'out.md' is no folder"),
        (("-o", "out.TXT"), "'out.TXT' is no folder"),
        (("-o", "out.JSONL"), "'out.JSONL' is no folder"),
        (("-o", "a.pdf"), "'a.pdf' is no folder"),
        (("-o", "out.jsonl", "--format", "markdown"), "give --format jsonl"),
        (("-o", "-", "--json"), "both go to standard output"),
        (("-o", "out", "--no-resume", "--cache", "x"), "do not go together"),
        (("-o", "out", "--pages", "1;3"), "pages='1;3' names no pages"),
        (("-o", "out", "--pages", "1,3-2"), "pages 3 to 2 are none"),
        (("-o", "out", "--pages", "0"), "pages 0 to 0 are none"),
        (("-o", "all.jsonl", "--cache", "all.jsonl"), "'all.jsonl' is OUT too"),
        (("-o", "out", "--scripts", "chinese"), "'chinese' is no script"),
        (("-o", "out", "--schema", "a.pdf"), "no JSON can be read from 'a.pdf'"),
        (("-o", "out", "--password-file", "none"), "no password can be read from 'none'"),
        (("-o", "out", "--longest-side", "27"), "no whole number from 28 on"),
        (("taken.jsonl", "-o", "taken.jsonl"), "'taken.jsonl' would be replaced"),
        (("out/b.md", "-o", "out"), "'out/b.md' would be replaced"),
    ],
)
def test_misuse_is_told_before_anything_is_done(
    given: tuple[str, ...],
    message: str,
    reading: Callable[..., Place],
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pdf(Path("a.pdf"), [1])
    for name in ("taken.jsonl", "out/b.md"):
        write_pdf(Path(name), [1])
    place = reading()
    assert place.run("a.pdf", *given) == 2
    assert message in capsys.readouterr().err
    assert place.server.bodies == []
    assert files("out") == {"b.md"}
    assert files(".") == {"a.pdf", "taken.jsonl", "out"}


def test_written_files_have_the_modes_of_others(reading: Callable[..., Place]) -> None:
    write_pdf(Path("a.pdf"), [1])
    before = os.umask(0o027)
    try:
        assert reading().run("a.pdf", "-o", "out", "-q") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("out/a.md").stat().st_mode) == 0o640
