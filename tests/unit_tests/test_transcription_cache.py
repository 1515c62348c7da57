"""The file of pages that were read: whole, or not there; and what a page is known by."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.errors import CacheError
from langchain_glm4v.transcription import cache as page_cache
from langchain_glm4v.transcription.cache import PageCache, key_of
from langchain_glm4v.transcription.records import Reading
from langchain_glm4v.transcription.transcriber import Options, _depends_on

READ = Reading(text="Tea: 1.50 茶", origin="model", problems=("cut off",), confidence=0.5)


class Bill(BaseModel):
    total: float


def test_what_was_kept_is_found_again(tmp_path: Path) -> None:
    with PageCache(tmp_path / "new" / "pages") as cache:
        cache.put(b"1", READ)
    with PageCache(tmp_path / "new" / "pages") as cache:
        assert (cache.get(b"1"), cache.get(b"2"), len(cache)) == (READ, None, 1)


def test_many_may_begin_the_same_file_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def begin(path: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            PageCache(path).close()
        except CacheError as error:
            failed.append(error)

    for number in range(40):
        together = threading.Barrier(8)
        args = (tmp_path / str(number), together)
        threads = [threading.Thread(target=begin, args=args) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_file_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="no cache of pages"):
        PageCache(path)
    assert path.read_bytes() == before
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(CacheError, match="cannot be opened"):
        PageCache(path)


def test_what_to_do_about_a_file_depends_on_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_cache, "_BUSY_SECONDS", 0.1)
    path = tmp_path / "pages"
    PageCache(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CacheError, match="another process has it locked"):
            PageCache(path)
    with pytest.raises(CacheError, match="name another file") as told:
        PageCache(Path("/proc/self/pages"))
    assert "free the disk" not in str(told.value)


def test_half_a_character_is_kept_like_any_other(tmp_path: Path) -> None:
    half = Reading(text="\ud83d", origin="model")
    with PageCache(tmp_path / "pages") as cache:
        cache.put(key_of(b"picture", {"prompt": "\ud83d"}), half)
        assert cache.get(key_of(b"picture", {"prompt": "\ud83d"})) == half


def test_pages_are_known_by_all_of_the_schema() -> None:
    llm = ChatGLM4V(base_url="http://127.0.0.1:1/v1", model="m")
    schemas = [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"b": {"type": "string"}}},
        {"title": "x", "type": "array", "items": {"type": "string"}},
        {"title": "x", "type": "array", "items": {"type": "number"}},
        Bill,
        None,
    ]
    keys = {key_of(b"", _depends_on(llm, Options(schema=schema))) for schema in schemas}
    assert len(keys) == len(schemas)


def key(options: Options | None = None, **fields: Any) -> bytes:
    llm = ChatGLM4V(**{"base_url": "http://127.0.0.1:1/v1", "model": "m", **fields})
    return key_of(b"", _depends_on(llm, options or Options()))


def test_pages_are_known_by_all_options_of_the_model_that_change_a_text() -> None:
    fields: list[dict[str, Any]] = [
        {},
        {"model": "n"},
        {"temperature": 0.3},
        {"sampling": "deterministic"},
        {"thinking": "off"},
        {"thinking_budget": 100},
        {"repetition_guard": False},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"stop": ["page"]},
        {"logit_bias": {"7": -100}},
        {"extra_body": {"min_p": 0.1}},
        {"model_kwargs": {"user": "me"}},
    ]
    assert len({key(**each) for each in fields}) == len(fields)


def test_pages_are_found_again_whatever_cannot_have_changed_a_good_text() -> None:
    fields: list[dict[str, Any]] = [
        {"max_tokens": 9000},
        {"base_url": "http://127.0.0.1:2/v1"},
        {"api_key": "other"},
        {"timeout": 3, "max_retries": 7, "streaming": True},
        {"extra_body": {"cache_salt": "us"}},
    ]
    assert {key(**each) for each in fields} == {key()}
    options = [
        Options(temperatures=[None]),
        Options(max_concurrency=1),
        Options(text_layer="auto"),
    ]
    assert {key(each) for each in options} == {key()}
