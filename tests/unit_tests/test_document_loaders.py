"""Loaders against a server that answers with the number that a page shows."""

import asyncio
import importlib
import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from anyio.from_thread import BlockingPortal
from langchain_core.document_loaders import Blob
from langchain_core.documents import Document
from numbered_pages import UNSURE, choice, number_in, page, write_pdf
from pydantic import BaseModel, SecretStr
from vision_server import Body, Refusal, Serve, VisionServer, serving
from waiting import wait_until

from langchain_glm4v import (
    ChatGLM4V,
    GLM4VBlobParser,
    GLM4VLoader,
    MediaNotFoundError,
    PageError,
    RequestError,
    ServerUnreachableError,
    UnsupportedMediaError,
)
from langchain_glm4v.media import pool
from langchain_glm4v.transcription.cache import PageCache
from langchain_glm4v.transcription.records import Reading

pymupdf: Any = importlib.import_module("pymupdf")


def read(body: Body) -> Body:
    """The number that a page shows; what does not stand upright is read without confidence."""
    number = number_in(body)
    return choice(f"page {number}") if number else choice("zzz", logprob=UNSURE)


@pytest.fixture
def server(serve: Serve) -> VisionServer:
    return serve(read)


def numbers_of(documents: Sequence[Any]) -> list[tuple[int, str]]:
    return [(d.metadata["page"], d.page_content) for d in documents]


def test_pages_come_in_order_with_what_is_known_of_them(
    server: VisionServer, tmp_path: Path
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 1, None, 7])
    documents = GLM4VLoader(path, llm=server.model()).load()
    assert numbers_of(documents) == [(0, "page 3"), (1, "page 1"), (2, ""), (3, "page 7")]
    first = documents[0].metadata
    assert first.pop("seconds") > 0
    assert first == {
        "source": str(path),
        "total_pages": 4,
        "format": "PDF",
        "title": "Squares",
        "author": "",
        "subject": "",
        "creator": "",
        "producer": "Scanner 2",
        "creationdate": "",
        "moddate": "",
        "page": 0,
        "origin": "model",
        "model": "glm",
        "confidence": pytest.approx(0.99, abs=0.001),
        "turn": 0,
        "attempts": 1,
        "input_tokens": 5,
        "output_tokens": 2,
        "from_cache": False,
    }
    assert documents[2].metadata["origin"] == "blank"
    assert len(server.bodies) == 3  # nobody is asked about a blank page


def test_many_pages_are_read_at_once_and_slow_ones_keep_their_place(
    serve: Serve, tmp_path: Path
) -> None:
    def say(body: Body) -> Body:
        if number_in(body) == 1:  # the first page is answered when all others are
            assert slow.wait_for(lambda: len(slow.bodies) == 12 and slow.running == 1)
        return read(body)

    slow = serve(say)
    path = write_pdf(tmp_path / "a.pdf", range(1, 13))
    documents = GLM4VLoader(path, llm=slow.model()).load()
    assert numbers_of(documents) == [(n, f"page {n + 1}") for n in range(12)]


def test_no_more_at_once_than_asked_for(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", range(1, 13))
    GLM4VLoader(path, llm=server.model(), max_concurrency=2).load()
    assert server.most <= 2


async def test_async(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 1])
    loader = GLM4VLoader(path, llm=server.model())
    assert numbers_of(await loader.aload()) == [(0, "page 3"), (1, "page 1")]
    parser = GLM4VBlobParser(llm=server.model())
    parsed = [d async for d in parser.alazy_parse(Blob.from_path(path))]
    assert numbers_of(parsed) == [(0, "page 3"), (1, "page 1")]


async def test_what_a_blob_tells_of_itself_is_kept(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])
    own = {"tenant": "us", "page": "theirs", "title": "Theirs", "author": "Me"}
    blob = Blob.from_path(path, metadata=own)
    parser = GLM4VBlobParser(llm=server.model())
    loader = GLM4VLoader([blob], llm=server.model())
    parsed = (*parser.lazy_parse(blob), *[d async for d in parser.alazy_parse(blob)])
    for document in (*parsed, *loader.lazy_load()):
        told = [document.metadata[name] for name in own]
        assert told == ["us", 0, "Squares", "Me"]


def test_sync_in_a_running_event_loop(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])

    async def main() -> list[Any]:
        return GLM4VLoader(path, llm=server.model()).load()

    assert numbers_of(asyncio.run(main())) == [(0, "page 3")]


def test_one_document_for_each_file(server: VisionServer, tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf", [3, None, 1])
    write_pdf(tmp_path / "b.pdf", [5])
    one, two = GLM4VLoader(tmp_path, llm=server.model(), mode="single").load()
    assert one.page_content == "page 3\n\f\n\fpage 1"
    assert one.metadata["origin"] == "model, blank"
    assert one.metadata["input_tokens"] == 10
    assert "page" not in one.metadata
    assert (two.page_content, two.metadata["source"]) == ("page 5", str(tmp_path / "b.pdf"))


def test_all_kinds_of_sources(server: VisionServer, tmp_path: Path) -> None:
    pdf = write_pdf(tmp_path / "a.pdf", [3, 1])
    page(4).save(tmp_path / "b.png")
    (tmp_path / "notes.txt").write_text("of no use")
    model = server.model()

    def found(source: Any, **options: Any) -> list[tuple[int, str]]:
        return numbers_of(GLM4VLoader(source, llm=model, **options).load())

    both = [(0, "page 3"), (1, "page 1"), (0, "page 4")]
    assert found(str(tmp_path)) == both
    assert found(tmp_path / "*.p*") == both
    assert found([pdf, tmp_path / "b.png"]) == both
    assert found(pdf.read_bytes()) == both[:2]
    assert found(Blob.from_path(pdf)) == both[:2]
    assert found(Blob.from_data(pdf.read_bytes(), mime_type="application/pdf")) == both[:2]
    assert found(pdf, pages="2") == [(1, "page 1")]
    assert found(pdf, pages=[1, 0]) == [(1, "page 1"), (0, "page 3")]
    with pytest.raises(MediaNotFoundError, match="no file at"):
        found(tmp_path / "missing.pdf")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaNotFoundError, match="no document or picture in the folder"):
        found(tmp_path / "empty")


def test_name_that_is_no_utf_8(server: VisionServer, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pdf")
    write_pdf(tmp_path / "a.pdf", [3]).rename(path)
    (document,) = GLM4VLoader(path, llm=server.model()).load()
    assert document.page_content == "page 3"


def test_text_layer(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 5])
    document = pymupdf.open(path)
    document.new_page(pno=1).insert_text((72, 72), "Written on a computer, and good to be read.")
    # A scan that another program has read: its text is not taken.
    document[0].insert_text((72, 300), "Read by another program, badly enough.", render_mode=3)
    document.save(tmp_path / "b.pdf")
    documents = GLM4VLoader(tmp_path / "b.pdf", llm=server.model(), text_layer="auto").load()
    assert [d.metadata["origin"] for d in documents] == ["model", "text layer", "model"]
    assert documents[1].page_content.strip() == "Written on a computer, and good to be read."
    assert len(server.bodies) == 2


def test_page_on_its_head_or_side_is_turned(server: VisionServer, tmp_path: Path) -> None:
    for turn in (90, 180, 270):
        path = write_pdf(tmp_path / f"{turn}.pdf", [6], turn)
        (document,) = GLM4VLoader(path, llm=server.model()).load()
        assert document.page_content == "page 6"
        assert document.metadata["turn"] == 360 - turn
        assert document.metadata["attempts"] == 4
    (left,) = GLM4VLoader(path, llm=server.model(), finds_turn=False).load()
    assert left.page_content == "zzz"


@pytest.mark.parametrize("end", [["</think>"], ["</", "think", ">"]])
def test_confidence_is_that_of_the_answer_and_not_of_the_thinking(
    serve: Serve, tmp_path: Path, end: list[str]
) -> None:
    thinking, answer = ["<think>", "a page", *end], ["<answer>", "page 3"]
    told: list[dict[str, Any]] = [
        {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": []}
        for tokens, logprob in ((thinking, -0.35), (answer, -0.001))
        for token in tokens
    ]
    said = {**choice("".join([*thinking, *answer])), "logprobs": {"content": told}}
    server = serve(lambda _: said)
    path = write_pdf(tmp_path / "a.pdf", [3])
    (document,) = GLM4VLoader(path, llm=server.model()).load()
    assert document.page_content == "page 3"
    assert document.metadata["confidence"] == pytest.approx(0.999, abs=0.0005)
    assert document.metadata["attempts"] == 1


@pytest.mark.parametrize(
    ("bad", "options", "error"),
    [
        (choice("page", reason="length"), {}, "cut off by the limit of tokens"),
        (choice("ab " * 400), {}, "repeated itself endlessly"),
        (choice(" "), {}, "read nothing, though something stands"),
        (choice("Страница первая"), {"scripts": ["cjk"]}, "in another script"),
    ],
)
def test_bad_text_is_asked_for_again_at_other_temperatures(
    serve: Serve, tmp_path: Path, bad: Body, options: dict[str, Any], error: str
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])

    def says(body: Body) -> Body:
        good = read(body)  # each time, for a picture is sent once
        return good if len(at_last.bodies) == 3 else bad

    at_last = serve(says)
    (good,) = GLM4VLoader(path, llm=at_last.model(temperature=0.1), **options).load()
    assert (good.page_content, good.metadata["attempts"]) == ("page 3", 3)
    assert [body["temperature"] for body in at_last.bodies] == [0.1, 0.2, 0.5]

    never = serve(lambda _: bad)
    with pytest.raises(PageError, match=f"page 1 of '.*a.pdf': .*{error}"):
        GLM4VLoader(path, llm=never.model(), **options).load()
    assert len(never.bodies) == 4


def test_errors_of_pages_never_shift_the_others(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 4, 5])
    server = serve(
        lambda body: choice("half", reason="length") if number_in(body) == 4 else read(body)
    )
    with pytest.raises(PageError, match="page 2 of"):
        GLM4VLoader(path, llm=server.model()).load()
    with pytest.warns(UserWarning, match=r"page 2 of .* cut off"):
        documents = GLM4VLoader(path, llm=server.model(), on_error="warn").load()
    assert numbers_of(documents) == [(0, "page 3"), (1, "half"), (2, "page 5")]
    assert "cut off" in documents[1].metadata["error"]
    assert "error" not in documents[0].metadata
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        documents = GLM4VLoader(path, llm=server.model(), on_error="skip").load()
    assert numbers_of(documents) == [(0, "page 3"), (2, "page 5")]
    assert re.fullmatch(r"left out: page 2 of .* cut off .*", caplog.messages[-1])
    options: dict[str, Any] = {"mode": "single", "on_error": "skip", "pages_delimiter": "|"}
    (joined,) = GLM4VLoader(path, llm=server.model(), **options).load()
    assert joined.page_content == "page 3||page 5"
    assert "error" not in joined.metadata
    assert GLM4VLoader(path, llm=server.model(), pages="2", **options).load() == []


def test_damaged_files_do_not_stop_the_others(server: VisionServer, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 nothing")
    write_pdf(tmp_path / "b.pdf", [3])
    with pytest.warns(UserWarning, match="not a document that can be read"):
        documents = GLM4VLoader(tmp_path, llm=server.model(), on_error="warn").load()
    assert [d.page_content for d in documents] == ["", "page 3"]
    assert documents[0].metadata["source"] == str(tmp_path / "a.pdf")


def test_page_whose_picture_is_damaged_is_no_blank_page(
    server: VisionServer, tmp_path: Path
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 5, 7])
    with pymupdf.open(path) as scan:
        for number, share in (0, 0.0), (1, 0.9):  # nothing of the first is left
            picture = scan[number].get_images()[0][0]
            data = scan.xref_stream_raw(picture)
            scan.update_stream(picture, data[: int(len(data) * share)], compress=False)
        scan.saveIncr()
    with pytest.warns(UserWarning, match="a part of it is missing .*: scan it again"):
        documents = GLM4VLoader(path, llm=server.model(), on_error="warn").load()
    assert numbers_of(documents) == [(0, ""), (1, "page 5"), (2, "page 7")]
    assert [d.metadata["origin"] for d in documents] == ["none", "model", "model"]
    assert ["error" in d.metadata for d in documents] == [True, True, False]


def test_schema(serve: Serve, tmp_path: Path) -> None:
    class Bar(BaseModel):
        number: int

    path = write_pdf(tmp_path / "a.pdf", [3])
    server = serve(lambda _: choice('<think>x</think><answer>{"number": 3}'))
    (document,) = GLM4VLoader(path, llm=server.model(), schema=Bar).load()
    assert json.loads(document.page_content) == {"number": 3}
    asked = " ".join(server.prompts)
    assert "JSON" in asked
    assert "Markdown" not in asked
    server = serve(lambda _: choice('<think>x</think><answer>{"name": 3}'))
    with pytest.raises(PageError, match="does not fit the schema"):
        GLM4VLoader(path, llm=server.model(), schema=Bar).load()


def test_an_iterator_may_be_loaded_again(server: VisionServer, tmp_path: Path) -> None:
    write_pdf(tmp_path / "a.pdf", [3])
    loader = GLM4VLoader(tmp_path.glob("*.pdf"), llm=server.model())
    assert numbers_of(loader.load()) == numbers_of(loader.load()) == [(0, "page 3")]


def test_open_file_is_not_taken_for_many(server: VisionServer, tmp_path: Path) -> None:
    with (
        write_pdf(tmp_path / "a.pdf", [3]).open("rb") as file,
        pytest.raises(UnsupportedMediaError, match="a BufferedReader is nothing to be read"),
    ):
        GLM4VLoader(file, llm=server.model()).load()


def test_cached_pages_are_not_asked_about_again(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3, 4, None])
    options: dict[str, Any] = {"llm": server.model(), "cache": tmp_path / "cache" / "pages.sqlite"}
    first = GLM4VLoader(path, **options).load()
    again = GLM4VLoader(path.rename(tmp_path / "b.pdf"), **options).load()
    assert numbers_of(again) == numbers_of(first)
    assert [d.metadata["from_cache"] for d in again] == [True, True, False]
    assert len(server.bodies) == 2
    # What the text depends on is part of what a page is known by.
    GLM4VLoader(tmp_path / "b.pdf", prompt="Read it.", **options).load()
    assert len(server.bodies) == 4
    GLM4VLoader(tmp_path / "b.pdf", **{**options, "llm": server.model(temperature=0.3)}).load()
    assert len(server.bodies) == 6


def test_equal_pages_are_asked_about_once(serve: Serve, tmp_path: Path) -> None:
    def say(body: Body) -> Body:
        time.sleep(0.3)  # in which the others would be asked about
        return read(body)

    slow = serve(say)
    path, cache = write_pdf(tmp_path / "a.pdf", [3, 3, 3]), tmp_path / "pages.sqlite"
    documents = GLM4VLoader(path, llm=slow.model(), cache=cache).load()
    assert numbers_of(documents) == [(0, "page 3"), (1, "page 3"), (2, "page 3")]
    assert [d.metadata["from_cache"] for d in documents] == [False, True, True]
    assert len(slow.bodies) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_equal_pages_that_fail_are_paid_for_once(
    serve: Serve, tmp_path: Path, seconds: float
) -> None:
    def say(_: Body) -> Body:
        time.sleep(seconds)
        return choice("half", reason="length")

    server = serve(say)
    path = write_pdf(tmp_path / "a.pdf", [3, 3, 3])
    options: dict[str, Any] = {
        "llm": server.model(),
        "cache": tmp_path / "pages.sqlite",
        "on_error": "warn",
        "max_concurrency": 1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        documents = GLM4VLoader(path, **options).load()
        (whole,) = GLM4VLoader(path, mode="single", **options).load()
    assert len(server.bodies) == 2 * 4
    assert [d.page_content for d in documents] == ["half"] * 3
    assert [d.metadata["from_cache"] for d in documents] == [False] * 3
    assert [d.metadata["attempts"] for d in documents] == [4, 0, 0]
    assert (whole.metadata["attempts"], whole.metadata["output_tokens"]) == (4, 8)


def test_reading_depends_on_how_it_was_made(server: VisionServer, tmp_path: Path) -> None:
    path, cache = write_pdf(tmp_path / "a.pdf", [3], turn=180), tmp_path / "pages.sqlite"
    options: list[dict[str, Any]] = [{"finds_turn": False}, {}, {"temperatures": [0.5]}]
    asked = []
    for given in options:
        (document,) = GLM4VLoader(path, llm=server.model(), cache=cache, **given).load()
        asked.append((document.page_content, document.metadata["from_cache"]))
    assert asked == [("zzz", False), ("page 3", False), ("page 3", False)]


def test_failure_of_a_later_attempt_leaves_what_was_read(serve: Serve, tmp_path: Path) -> None:
    answers = iter([choice("gibberish", logprob=UNSURE)])
    server = serve(lambda _: next(answers, Refusal(400, "no more")))
    path, cache = write_pdf(tmp_path / "a.pdf", [3]), tmp_path / "pages.sqlite"
    (document,) = GLM4VLoader(path, llm=server.model(), cache=cache).load()
    assert document.page_content == "gibberish"
    assert document.metadata["output_tokens"] == 2
    # Another turn might have been better, so it is not kept.
    with pytest.raises(PageError, match="no more"):
        GLM4VLoader(path, llm=server.model(), cache=cache).load()


def test_server_that_tells_no_probabilities(serve: Serve, tmp_path: Path) -> None:
    def say(body: Body) -> "str | Refusal":
        if body.get("logprobs"):
            return Refusal(400, "logprobs is not supported")
        return f"page {number_in(body)}"

    server = serve(say)
    path = write_pdf(tmp_path / "a.pdf", [3, 5])
    documents = GLM4VLoader(path, llm=server.model()).load()
    assert numbers_of(documents) == [(0, "page 3"), (1, "page 5")]
    assert "confidence" not in documents[0].metadata


def test_missing_probability_of_a_token_is_left_out(serve: Serve, tmp_path: Path) -> None:
    def say(body: Body) -> Body:
        answer = read(body)
        answer["logprobs"]["content"].append({"token": "", "logprob": None})
        return answer

    (document,) = GLM4VLoader(write_pdf(tmp_path / "a.pdf", [3]), llm=serve(say).model()).load()
    assert document.metadata["confidence"] == pytest.approx(0.99, abs=0.001)


def test_path_that_leads_nowhere_is_told_before_any_is_read(
    server: VisionServer, tmp_path: Path
) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])
    with pytest.raises(MediaNotFoundError, match=r"nope\.pdf"):
        GLM4VLoader([path, tmp_path / "nope.pdf"], llm=server.model()).load()
    assert server.bodies == []


def test_failed_pages_are_not_cached(serve: Serve, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])
    server = serve(lambda body: choice("x", reason="length") if server.bad else read(body))  # type: ignore[attr-defined]
    server.bad = True  # type: ignore[attr-defined]
    options: dict[str, Any] = {"llm": server.model(), "cache": tmp_path / "pages.sqlite"}
    GLM4VLoader(path, on_error="skip", **options).load()
    server.bad = False  # type: ignore[attr-defined]
    assert numbers_of(GLM4VLoader(path, **options).load()) == [(0, "page 3")]


def test_server_that_is_gone_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    """Else a thousand pages would fail one after the other, and be told as unreadable."""
    server = serve(read)
    model = server.model(max_retries=0)
    path = write_pdf(tmp_path / "a.pdf", [3])
    assert GLM4VLoader(path, llm=model).load()
    server.shutdown()
    server.server_close()
    with pytest.raises(ServerUnreachableError):
        GLM4VLoader(path, llm=model, on_error="skip").load()


class Limited:
    """Reads so many pages at once, and refuses all beyond.

    Args:
        most: How many.
        seconds: How long a page takes.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self._places = threading.Semaphore(most)
        self._seconds = seconds
        self.refusals = 0

    def __call__(self, body: Body) -> "Body | Refusal":
        if not self._places.acquire(blocking=False):
            self.refusals += 1
            return Refusal(429, "too many at once")
        try:
            time.sleep(self._seconds)
            return read(body)
        finally:
            self._places.release()


def test_all_pages_are_read_by_a_server_that_takes_few_at_once(
    serve: Serve, tmp_path: Path
) -> None:
    limited = Limited(most=4, seconds=0.3)
    path = write_pdf(tmp_path / "a.pdf", range(1, 41))
    documents = GLM4VLoader(path, llm=serve(limited).model()).load()
    assert numbers_of(documents) == [(n - 1, f"page {n}") for n in range(1, 41)]
    assert {document.metadata["attempts"] for document in documents} == {1}
    assert limited.refusals <= 24  # 12 of the first 16, and a few that try for more


@pytest.mark.parametrize("status", [429, 503])
async def test_server_that_wants_to_be_left_alone_is(
    serve: Serve, tmp_path: Path, status: int
) -> None:
    came: list[float] = []

    def say(body: Body) -> "Body | Refusal":
        came.append(time.monotonic())
        if len(came) <= 6:
            return Refusal(status, "busy", headers={"Retry-After": "0.8"})
        return read(body)

    path = write_pdf(tmp_path / "a.pdf", [3, 5])
    documents = [d async for d in GLM4VLoader(path, llm=serve(say).model()).alazy_load()]
    assert numbers_of(documents) == [(0, "page 3"), (1, "page 5")]
    assert min(later - before for before, later in pairwise(came[1:7])) > 0.79
    assert {d.metadata["attempts"] for d in documents} == {1}


@pytest.mark.parametrize(("status", "code"), [(429, "insufficient_quota"), (402, None)])
def test_quota_that_is_used_up_ends_the_run_at_once(
    serve: Serve, tmp_path: Path, status: int, code: str | None
) -> None:
    spent = Refusal(status, "You exceeded your quota.", code=code)
    server = serve(lambda body: read(body) if number_in(body) == 1 else spent)
    path = write_pdf(tmp_path / "a.pdf", range(1, 41))
    model = server.model()
    with pytest.raises(openai.APIStatusError, match=r"You exceeded .* check the quota"):
        GLM4VLoader(path, llm=model, on_error="skip", max_concurrency=2).load()
    assert len(server.bodies) < 12


def test_server_that_refuses_all_for_too_long_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    later = Refusal(429, "come tomorrow", headers={"Retry-After": "86400"})
    server = serve(lambda body: read(body) if number_in(body) == 1 else later)
    path, cache = write_pdf(tmp_path / "a.pdf", range(1, 9)), tmp_path / "pages.sqlite"
    with pytest.raises(openai.RateLimitError, match=r"come tomorrow.*go on later.* in the cache"):
        GLM4VLoader(path, llm=server.model(), on_error="skip", cache=cache).load()
    with PageCache(cache) as kept:
        assert len(kept) == 1


def test_loading_that_is_given_up_while_the_server_refuses_ends_at_once(
    serve: Serve, tmp_path: Path
) -> None:
    later = Refusal(429, "busy", headers={"Retry-After": "60"})
    server = serve(lambda body: read(body) if number_in(body) == 1 else later)
    path = write_pdf(tmp_path / "a.pdf", range(1, 9))
    documents = GLM4VLoader(path, llm=server.model()).lazy_load()
    assert next(documents).page_content == "page 1"
    wait_until(lambda: len(server.bodies) > 1)
    time.sleep(0.3)  # until the page that was refused waits for its place
    began = time.monotonic()
    documents.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 10


def test_loading_that_is_given_up_frees_the_server(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda body: read(body) if number_in(body) == 1 else None)
    path = write_pdf(tmp_path / "a.pdf", range(1, 9))
    documents = GLM4VLoader(path, llm=server.model()).lazy_load()
    assert next(documents).page_content == "page 1"
    assert server.wait_for(lambda: server.running == 7)
    documents.close()  # type: ignore[attr-defined]
    assert server.wait_for(lambda: server.running == 0)
    assert server.hung_up == 7


@pytest.mark.parametrize("when", ["before", "after"])
def test_ctrl_c_beside_the_making_of_a_page_ends_all_in_order(
    server: VisionServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    path = write_pdf(tmp_path / "a.pdf", range(1, 9))
    documents = GLM4VLoader(path, llm=server.model()).lazy_load()
    assert next(documents).page_content == "page 1"
    call: Any = BlockingPortal.call

    def interrupted(self: BlockingPortal, *given: Any) -> Any:
        monkeypatch.setattr(BlockingPortal, "call", call)
        if when == "after":
            call(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockingPortal, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(documents)
    assert caplog.messages == []


def test_no_connection_is_left(
    server: VisionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.RequestHandlerClass, "protocol_version", "HTTP/1.1")  # stays open
    monkeypatch.setattr(pool, "_slots", threading.BoundedSemaphore(1))  # the second starts none
    path = write_pdf(tmp_path / "a.pdf", [3, 5, 7])
    GLM4VLoader(path, llm=server.model()).load()  # starts the process that decodes
    begun = sockets()
    model = server.model()
    GLM4VLoader(path, llm=model).load()
    wait_until(lambda: sockets() <= begun, 20)


def sockets() -> set[str]:
    """Those that are open, the server's included, which close when its clients' do."""
    return {one.resolve().name for one in FILES.iterdir() if one.resolve().name[:7] == "socket:"}


def test_program_ends_though_its_documents_are_kept(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", range(1, 61))
    script = (
        "import faulthandler, sys\n"
        "faulthandler.dump_traceback_later(120, exit=True)\n"
        "from langchain_glm4v import ChatGLM4V, GLM4VLoader\n"
        f"model = ChatGLM4V(base_url={server.url!r}, api_key='key', model='glm')\n"
        f"documents = GLM4VLoader({str(path)!r}, llm=model, max_concurrency=4).lazy_load()\n"
        "print(next(documents).page_content)\n"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "page 1\n", "")


FILES = Path("/proc/self/fd")
PAGES, KILLS = 300, 20
SIDE = 280  # pixels, in which the squares can be told


def load_all(path: Path, cache: Path, url: str) -> None:
    """What is killed: a program that loads a document."""
    model = ChatGLM4V(base_url=url, api_key=SecretStr("key"), model="glm")
    for _ in GLM4VLoader(
        path, llm=model, cache=cache, max_concurrency=4, longest_side=SIDE
    ).lazy_load():
        pass


async def test_what_was_read_is_kept_though_loading_is_given_up(
    server: VisionServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write_pdf(tmp_path / "a.pdf", range(1, 7)), tmp_path / "pages.sqlite"
    begun: list[bytes] = []
    put = PageCache.put

    def slow(self: PageCache, key: bytes, reading: Reading) -> None:
        begun.append(key)
        if len(begun) > 1:
            time.sleep(1)
        put(self, key, reading)

    monkeypatch.setattr(PageCache, "put", slow)
    loading = GLM4VLoader(path, llm=server.model(), cache=cache).alazy_load()
    await anext(loading)
    while len(begun) < 2:
        await asyncio.sleep(0.01)
    await loading.aclose()  # type: ignore[attr-defined]
    assert len(texts_in(cache)) == len(begun)


def test_run_that_is_killed_again_and_again_pays_for_no_page_twice(
    server: VisionServer, vllm: Any, tmp_path: Path
) -> None:
    path, cache = write_pdf(tmp_path / "a.pdf", range(1, PAGES + 1)), tmp_path / "pages.sqlite"
    other = tmp_path / "other.sqlite"
    undisturbed = GLM4VLoader(path, llm=server.model(), cache=other, longest_side=SIDE).load()
    assert len(server.bodies) == PAGES
    # Its processes begin with what they need imported.
    programs = multiprocessing.get_context("forkserver")
    programs.set_forkserver_preload([__name__])
    chance = random.Random(7)
    committed: set[str] = set()
    for _ in range(KILLS):
        # One for each run: a request of one that was killed may be noted late.
        with serving(vllm, read) as asked:
            program = programs.Process(target=load_all, args=(path, cache, asked.url))
            program.start()
            assert program.pid is not None
            # After so many pages more, and at any moment after that.
            goal = len(committed) + chance.randrange(PAGES // KILLS)
            wait_until(lambda: len(texts_in(cache)) >= goal)  # noqa: B023
            time.sleep(chance.random() / 50)
            os.kill(program.pid, signal.SIGKILL)
            program.join()
            # by earlier runs
            assert not committed.intersection(f"page {number_in(body)}" for body in asked.bodies)
        committed = texts_in(cache)
    server.bodies.clear()
    documents = GLM4VLoader(path, llm=server.model(), cache=cache, longest_side=SIDE).load()
    assert [without_times(d) for d in documents] == [without_times(d) for d in undisturbed]
    assert sum(d.metadata["from_cache"] for d in documents) == len(committed) < PAGES
    assert len(server.bodies) == PAGES - len(committed)
    assert len(texts_in(cache)) == PAGES


def texts_in(cache: Path) -> set[str]:
    """Texts of the pages that were written by now."""
    if not cache.exists():
        return set()
    with (
        suppress(sqlite3.OperationalError),  # there is no table yet
        closing(sqlite3.connect(f"file:{cache}?mode=ro", uri=True)) as database,
    ):
        rows = database.execute("SELECT reading FROM pages").fetchall()
        return {json.loads(row[0])["text"] for row in rows}
    return set()


def without_times(document: Document) -> tuple[str, dict[str, Any]]:
    known = {k: v for k, v in document.metadata.items() if k not in ("seconds", "from_cache")}
    return document.page_content, known


def test_wrong_options_are_told_at_once(server: VisionServer, tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "a.pdf", [3])
    wrong: list[dict[str, Any]] = [
        {"mode": "pages"},
        {"on_error": "ignore"},
        {"text_layer": "yes"},
        {"max_concurrency": 0},
        {"max_concurrency": 2.5},
        {"temperatures": []},
        {"temperatures": [None, "hot"]},
        {"temperatures": [float("inf")]},
        {"temperatures": None},
        {"scripts": None},
        {"scripts": "cjk"},
        {"scripts": ["chinese"]},
        {"prompt": " "},
    ]
    for options in wrong:
        (name,) = options
        with pytest.raises(ValueError, match=f"{name} is .*: it must be"):
            GLM4VLoader(path, llm=server.model(), **options)
    shown: list[tuple[dict[str, Any], str]] = [
        ({"pages": "abc"}, "pages='abc' names no pages"),
        ({"pages": "1,,2"}, "pages='1,,2' names no pages"),
        ({"pages": [0.5]}, "no list of whole numbers"),
        ({"longest_side": 5}, "longest_side is 5"),
        ({"page_tokens": 99999}, "max_tokens is 99999"),
        ({"schema": {"type": "object"}, "text_layer": "auto"}, "where schema promises JSON"),
    ]
    for options, error in shown:
        with pytest.raises(RequestError, match=error):
            GLM4VLoader(path, llm=server.model(), **options)
    with pytest.raises(TypeError, match="there is no option page"):
        GLM4VLoader(path, llm=server.model(), page="1")  # type: ignore[call-arg]
    with pytest.raises(PageError, match=r"^'.*a.pdf': .*there is no page 9"):
        GLM4VLoader(path, llm=server.model(), pages="9").load()
