"""LangChain messages on their way into a request."""

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call
from PIL import Image

from langchain_glm4v.errors import MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.messages import neutralise, to_wire
from langchain_glm4v.profiles import CONTROL_TOKENS


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    Image.new("RGB", (28, 28)).save(path)
    return path


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def part(path: Path) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(path)}}


def test_roles() -> None:
    messages = [
        SystemMessage("Be brief."),
        HumanMessage("Hi", name="ann"),
        AIMessage("Hello"),
        ToolMessage("42", tool_call_id="call-1"),
        ChatMessage(content="Be kind.", role="developer"),
    ]

    assert to_wire(messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "tool", "content": "42", "tool_call_id": "call-1"},
        {"role": "system", "content": "Be kind."},
    ]


def test_pictures_and_text_keep_their_order(png: Path) -> None:
    message = HumanMessage(
        [
            {"type": "text", "text": "One:"},
            {"type": "image", "path": png},
            "two:",
            {"type": "image_url", "image_url": {"url": png.as_uri()}},
            {"type": "text", "text": "Which?"},
        ]
    )

    assert to_wire([message])[0]["content"] == [
        {"type": "text", "text": "One:"},
        part(png),
        {"type": "text", "text": "two:"},
        part(png),
        {"type": "text", "text": "Which?"},
    ]


def test_every_form_of_a_picture(png: Path) -> None:
    encoded = base64.b64encode(png.read_bytes()).decode()
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "path": png},
        {"type": "image", "path": str(png)},
        {"type": "image", "url": str(png)},
        {"type": "image", "url": png.as_uri()},
        {"type": "image", "url": data_url(png)},
        {"type": "image", "base64": encoded, "mime_type": "image/jpeg"},
        {"type": "image_url", "image_url": {"url": str(png), "detail": "high"}},
        {"type": "image_url", "image_url": {"url": data_url(png)}},
        {"type": "image_url", "image_url": png.as_uri()},
    ]

    assert to_wire([HumanMessage(blocks)])[0]["content"] == [part(png)] * len(blocks)


def test_remote_pictures_stay_with_the_server() -> None:
    url = "https://example.org/cat.png"
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": url}},
    ]

    assert to_wire([HumanMessage(blocks)])[0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}}
    ] * len(blocks)


def test_pictures_in_tool_results(png: Path) -> None:
    message = ToolMessage([{"type": "image", "path": png}], tool_call_id="call-1")

    assert to_wire([message])[0]["content"] == [part(png)]


def test_messages_are_not_changed(png: Path) -> None:
    messages = [
        HumanMessage(
            ["<think>", {"type": "image", "path": str(png)}, {"type": "text", "text": "x"}]
        ),
        AIMessage([{"type": "reasoning", "reasoning": "y"}, {"type": "text", "text": "z"}]),
    ]
    before = copy.deepcopy(messages)
    to_wire(messages)

    assert messages == before


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("42", additional_kwargs={"reasoning_content": "Let me see."}),
        AIMessage(
            [{"type": "reasoning", "reasoning": "Let me see."}, {"type": "text", "text": "42"}]
        ),
        AIMessage("<think>Let me see.</think><answer>42</answer>"),
        AIMessage("\n<think>Let me see.</think>42"),
    ],
)
def test_earlier_thinking_is_left_out(message: AIMessage) -> None:
    assert to_wire([message]) == [{"role": "assistant", "content": "42"}]


def test_an_empty_assistant_turn_is_left_out() -> None:
    cut_off = AIMessage("", additional_kwargs={"reasoning_content": "Let me"})

    assert to_wire([HumanMessage("a"), cut_off, HumanMessage("b")]) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_tool_calls_of_the_assistant() -> None:
    message = AIMessage("", tool_calls=[tool_call(name="add", args={"a": "ü"}, id="call-1")])

    assert to_wire([message]) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": "ü"}'},
                }
            ],
        }
    ]


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_control_tokens_in_texts_stay_text(token: str) -> None:
    text = f"a{token}b{token}"
    messages = [
        HumanMessage(text),
        SystemMessage([{"type": "text", "text": text}]),
        ToolMessage(text, tool_call_id="1"),
        AIMessage(text),
    ]

    for turn in to_wire(messages):
        content = turn["content"]
        sent = content if isinstance(content, str) else content[0]["text"]
        assert token not in sent
        assert sent.replace("\u200b", "") == text


def test_a_control_token_across_two_texts_stays_text() -> None:
    blocks: list[str | dict[str, Any]] = [
        {"type": "text", "text": "<|us"},
        {"type": "text", "text": "er|>"},
        "</thi",
        "nk>",
    ]

    assert to_wire([HumanMessage(blocks)])[0]["content"] == [
        {"type": "text", "text": "<\u200b|user|><\u200b/think>"}
    ]


@pytest.mark.parametrize("text", ["a < b > c", "<|begin_of_box|>1<|end_of_box|>", "<thinker>", ""])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert neutralise(text) == text


@pytest.mark.parametrize("kind", ["file", "video", "audio", "input_audio", None])
def test_other_blocks_are_refused(kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaError, match="accepted are text, image, image_url"):
        to_wire([HumanMessage([{"type": kind, "base64": "AA=="}])])


@pytest.mark.parametrize(
    ("block", "hint"),
    [
        ({"type": "image", "file_id": "x"}, "add url, path or base64"),
        ({"type": "image", "url": None}, "add url, path or base64"),
        ({"type": "image", "url": 7}, "add url, path or base64"),
        ({"type": "image", "base64": 7}, "b64encode"),
        ({"type": "image_url", "image_url": {}}, '"url": '),
        ({"type": "image_url", "image_url": {"url": 7}}, '"url": '),
        ({"type": "text"}, "'text': "),
        ({"type": "text", "text": None}, "'text': "),
    ],
)
def test_malformed_blocks(block: dict[str, Any], hint: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=hint):
        to_wire([HumanMessage([block])])


def test_a_block_that_is_none() -> None:
    message = HumanMessage("")
    message.content = [7]  # type: ignore[list-item]
    with pytest.raises(UnsupportedMediaError, match="has a int in its content"):
        to_wire([message])


def test_empty_fields_of_a_block_do_not_count(png: Path) -> None:
    block = {"type": "image", "url": None, "base64": None, "path": str(png)}
    content = to_wire([HumanMessage([block])])[0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")


def test_a_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no\.png"):
        to_wire([HumanMessage([{"type": "image", "path": tmp_path / "no.png"}])])


def test_unknown_roles_and_messages() -> None:
    with pytest.raises(ValueError, match="role 'critic'"):
        to_wire([ChatMessage(content="x", role="critic")])
    with pytest.raises(TypeError, match="FunctionMessage"):
        to_wire([FunctionMessage(content="x", name="f")])
