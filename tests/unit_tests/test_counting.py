"""Counting tokens offline, against the miniature's tokenizer."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from tokenizers import Tokenizer

import tiny_glm4v
from langchain_glm4v.counting import PICTURE, masked, upper_bound
from langchain_glm4v.media.video import Form, clip
from langchain_glm4v.messages import neutralise
from langchain_glm4v.server.options import CHAT_TEMPLATE
from langchain_glm4v.turns import PicturePart, VideoPart

Turn = dict[str, Any]

TEMPLATE = Environment().from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))


@cache
def tokenizer() -> Tokenizer:
    path = Path(tiny_glm4v.__file__).parent / "checkpoint" / "tokenizer.json"
    return Tokenizer.from_file(str(path))


def rendered(wire: list[Turn]) -> str:
    return TEMPLATE.render(messages=wire, add_generation_prompt=True)


def tokens(wire: list[Turn]) -> int:
    """Tokens of the prompt, each picture as three."""
    return len(tokenizer().encode(rendered(wire), add_special_tokens=False).ids)


def picture(width: int, height: int) -> PicturePart:
    return PicturePart("data:image/png;base64,AAAA", width, height)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


texts = st.text(max_size=30).map(neutralise)
contents = texts | st.lists(texts.map(text) | st.just(picture(280, 280)), max_size=4)
turns = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    contents,
)


@given(st.lists(turns, max_size=5))
def test_the_bound_holds_and_masking_changes_nothing(wire: list[Turn]) -> None:
    plain, extra = masked(wire)
    pictures = str(plain).count(PICTURE)

    assert "image_url" not in str(plain)
    assert rendered(plain) == rendered(wire)
    assert extra == pictures * 99
    assert tokens(plain) + extra <= upper_bound(wire)


def test_the_bound_is_sharp_where_every_byte_is_a_token() -> None:
    wire = [{"role": "user", "content": ""}]
    assert upper_bound(wire) == tokens(wire)


def test_pictures_of_any_size() -> None:
    wire = [{"role": "user", "content": [text("a"), picture(640, 480), picture(1, 1), text("b")]}]
    plain, extra = masked(wire)

    assert plain == [{"role": "user", "content": [text(f"a{PICTURE}{PICTURE}b")]}]
    assert extra == 391 + 9 - 2
    assert upper_bound(wire) == 6 + 2 + 391 + 9 + 4


def test_a_picture_that_the_server_fetches() -> None:
    url = {"type": "image_url", "image_url": {"url": "https://host/a.png"}}
    wire = [{"role": "user", "content": [url]}]

    assert masked(wire)[1] == 6143
    assert upper_bound(wire) == 6 + 6146


@pytest.mark.parametrize("form", ["frames", "mp4"])
def test_a_video(film: Path, form: Form) -> None:
    sent = clip(film, form=form, start=2)
    wire: list[Turn] = [{"role": "user", "content": [text("a"), VideoPart(sent), text("b")]}]
    plain, extra = masked(wire)

    first = 2 if form == "frames" else 0
    steps = f"{PICTURE}{first}{PICTURE}{first + 1}"
    shown = f"a<|begin_of_video|>{steps}<|end_of_video|>b"
    assert plain == [{"role": "user", "content": [text(shown)]}]
    assert (sent.tokens, extra) == (24, 22)
    # digits are one token each for the miniature
    assert upper_bound(wire) == tokens(plain) + extra == 6 + 2 + sent.prompt_tokens


def test_a_video_that_the_server_fetches() -> None:
    url = {"type": "video_url", "video_url": {"url": "https://host/a.mp4"}}
    wire = [{"role": "user", "content": [url]}]

    assert masked(wire)[1] == 30_000 + 300 * 7
    assert upper_bound(wire) == 6 + 30_002 + 300 * 7


def test_native_tool_calls_are_counted() -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    turn = {"role": "assistant", "content": "", "tool_calls": calls}

    assert upper_bound([turn]) > upper_bound([{"role": "assistant", "content": ""}]) + 40
