"""LangChain messages on their way into a request."""

import base64
import copy
import importlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents.base import Blob
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.content import create_video_block
from langchain_core.messages.tool import invalid_tool_call, tool_call
from PIL import Image

from langchain_glm4v.errors import (
    MediaError,
    MediaNotFoundError,
    RequestError,
    UnsupportedMediaError,
)
from langchain_glm4v.media import document, image
from langchain_glm4v.media.video import clip
from langchain_glm4v.media_blocks import KEYS, KINDS, OPTIONS
from langchain_glm4v.messages import neutralise, to_wire
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.profiles import CONTROL_TOKENS

pymupdf: Any = importlib.import_module("pymupdf")  # has no types


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    Image.new("RGB", (28, 28)).save(path)
    return path


def data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def part(path: Path) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(path)}}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


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
        {"role": "user", "content": "<tool_response>42</tool_response>"},
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
        {"type": "image", "image": str(png)},
        {"type": "image", "image": Image.new("RGB", (28, 28))},
    ]
    *parts, from_pil = to_wire([HumanMessage(blocks)])[0]["content"]

    assert parts == [part(png)] * (len(blocks) - 1)
    assert (from_pil.width, from_pil.height) == (28, 28)


@pytest.mark.parametrize(
    ("block", "size"),
    [
        ({}, (700, 350)),
        ({"longest_side": 140}, (140, 56)),
        ({"max_tokens": 60}, (280, 140)),
        ({"extras": {"max_tokens": 60}}, (280, 140)),
        ({"extras": {"max_tokens": 60}, "max_tokens": 200, "longest_side": None}, (560, 280)),
        ({"extras": {"detail": "low"}}, (504, 252)),
        ({"detail": "low", "longest_side": 140}, (140, 56)),
        ({"type": "image_url", "image_url": {"detail": "low"}}, (504, 252)),
        ({"type": "image_url", "image_url": {"detail": "low"}, "max_tokens": 60}, (280, 140)),
        ({"type": "image_url", "image_url": {"detail": "high"}}, (700, 350)),
        ({"type": "image_url", "image_url": {"detail": "auto"}}, (700, 350)),
    ],
)
def test_options_of_a_picture(tmp_path: Path, block: dict[str, Any], size: tuple[int, int]) -> None:
    path = tmp_path / "wide.png"
    Image.effect_noise((700, 350), 90).save(path)
    given = {"type": "image", "path": path, **block}
    if "image_url" in block:
        del given["path"]
        given["image_url"] = {"url": str(path), **block["image_url"]}
    [sent] = to_wire([HumanMessage([given])])[0]["content"]

    assert (sent.width, sent.height) == size


def test_an_option_out_of_range(png: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens is 'many'"):
        to_wire([HumanMessage([{"type": "image", "path": png, "max_tokens": "many"}])])


def test_a_tiff_is_its_pages(tmp_path: Path) -> None:
    path = tmp_path / "fax.tiff"
    Image.new("1", (56, 28)).save(path, save_all=True, append_images=[Image.new("1", (28, 56))])
    pages = to_wire([HumanMessage([{"type": "image", "path": path}])])[0]["content"]

    assert [(page.width, page.height) for page in pages] == [(56, 28), (28, 56)]


def test_pictures_in_the_network(png: Path, web: Any) -> None:
    url = web.give("/cat?key=1", png.read_bytes(), content_type="text/html")
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": url.replace("http:", "HTTP:")}},
        {"type": "image", "source": {"type": "url", "url": url}},
    ]
    media = Preparation(allow_hosts=["127.0.0.1"])

    assert to_wire([HumanMessage(blocks)], media=media)[0]["content"] == [part(png)] * len(blocks)
    assert web.paths == ["/cat?key=1"] * 2  # once for each spelling


def test_several_media_are_prepared_at_once(png: Path, web: Any) -> None:
    all_there = threading.Barrier(3, timeout=60)

    def answer(handler: Any) -> None:
        all_there.wait()  # passes only if all three are asked for at once
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n" + png.read_bytes())

    web.routes |= dict.fromkeys(("/1", "/2", "/3"), answer)
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "url": web.url + path} for path in ("/1", "/2", "/3")
    ]
    blocks[1:1] = ["and", {"type": "image", "path": png, "longest_side": 28}, "then"]
    content = to_wire([HumanMessage(blocks)], media=Preparation(allow_hosts=["127.0.0.1"]))[0][
        "content"
    ]

    assert content == [part(png), text("and"), part(png), text("then"), *[part(png)] * 2]


def test_the_first_of_several_errors_is_told(tmp_path: Path, png: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "path": path} for path in (png, bad, tmp_path / "none.png")
    ]
    with pytest.raises(UnsupportedMediaError, match=r"bad\.png"):
        to_wire([HumanMessage(blocks)])
    with pytest.raises(MediaError, match=r"none\.png"):
        to_wire([HumanMessage(blocks[::-1])])


def test_an_image_of_pil_that_is_read_by_several_threads(tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    Image.effect_noise((800, 800), 60).save(path)
    with Image.open(path) as lazy:
        blocks: list[str | dict[str, Any]] = [{"type": "image", "image": lazy}] * 8
        content = to_wire([HumanMessage(blocks)])[0]["content"]

    assert content == [content[0]] * 8


def test_something_else_in_the_network(web: Any) -> None:
    url = web.give("/cat.png?key=1", b"no picture")
    message = HumanMessage([{"type": "image", "url": url}])
    with pytest.raises(UnsupportedMediaError, match=r"cat.png\?…': the picture of 10 bytes is not"):
        to_wire([message], media=Preparation(allow_hosts=["127.0.0.1"]))
    with pytest.raises(MediaError, match="not public"):
        to_wire([message])


@pytest.mark.parametrize("fetched", [True, False])
def test_a_pdf_in_the_network(fetched: bool, web: Any) -> None:
    with pymupdf.open() as pdf:
        pdf.new_page()
        pdf.new_page()
        url = web.give("/a", pdf.tobytes())
    media = Preparation(fetches=fetched, allow_hosts=["127.0.0.1"])
    content = to_wire([HumanMessage([{"type": "file", "url": url}])], media=media)[0]["content"]

    assert isinstance(content, list)
    assert [part["image_url"]["url"][:15] for part in content] == ["data:image/jpeg"] * 2


def test_pictures_that_a_service_fetches() -> None:
    url = "https://example.org/cat.png"
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "url": url},
        {"type": "image_url", "image_url": {"url": url}},
    ]

    assert to_wire([HumanMessage(blocks)], media=Preparation(fetches=False))[0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}}
    ] * len(blocks)


def test_pictures_in_tool_results(png: Path) -> None:
    picture: dict[str, Any] = {"type": "image", "path": png}
    message = ToolMessage(["One:", picture, "two:", picture, "Done."], tool_call_id="call-1")

    assert to_wire([message], Preparation(allowed_dirs=[png.parent])) == [
        {
            "role": "user",
            "content": [
                text("<tool_response>One:"),
                part(png),
                text("two:"),
                part(png),
                text("Done.</tool_response>"),
            ],
        }
    ]


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


ADD = tool_call(name="add", args={"a": "ü", "b": 1}, id="call-1")
ADD_TEXT = '<tool_call>{"name":"add","arguments":{"a":"ü","b":1}}</tool_call>'


def test_native_tools() -> None:
    messages = [
        AIMessage("", tool_calls=[ADD]),
        ToolMessage("42", tool_call_id="call-1"),
        ChatMessage(content="43", role="tool"),
    ]

    assert to_wire(messages, native_tools=True) == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "add", "arguments": '{"a": "ü", "b": 1}'},
                }
            ],
        },
        {"role": "tool", "content": "42", "tool_call_id": "call-1"},
        {"role": "tool", "content": "43"},
    ]


def test_tool_calls_as_text() -> None:
    messages = [
        AIMessage("I add.", tool_calls=[ADD, ADD]),
        AIMessage([], tool_calls=[ADD]),
        ChatMessage(content="42", role="tool"),
    ]

    assert to_wire(messages) == [
        {"role": "assistant", "content": f"I add.{ADD_TEXT}{ADD_TEXT}"},
        {"role": "assistant", "content": ADD_TEXT},
        {"role": "user", "content": "<tool_response>42</tool_response>"},
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("add", '{"a": 1', '{"name":"add","arguments":{"a": 1}'),
        ("", '{"nam', '{"nam'),
        (None, None, ""),
    ],
)
def test_invalid_tool_calls_are_shown(name: str | None, arguments: str | None, shown: str) -> None:
    call = invalid_tool_call(name=name, args=arguments, id="1", error=None)
    message = AIMessage("Hm.", invalid_tool_calls=[call])

    assert to_wire([message])[0]["content"] == f"Hm.<tool_call>{shown}</tool_call>"


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "call-1", "name": "add", "input": {"a": "ü", "b": 1}},
        {"type": "tool_call", "id": "call-1", "name": "add", "args": {"a": "ü", "b": 1}},
        {"type": "tool_call_chunk", "id": "call-1", "name": "add", "args": "{", "index": 0},
        {"type": "invalid_tool_call", "id": "call-2", "name": "add", "args": "{"},
    ],
)
def test_calls_in_the_content_are_said_once(block: dict[str, Any]) -> None:
    message = AIMessage([{"type": "text", "text": "some text"}, block], tool_calls=[ADD])

    assert to_wire([message]) == [{"role": "assistant", "content": f"some text{ADD_TEXT}"}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "Let me see.", "signature": "x"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "reasoning", "reasoning": "Let me see."},
    ],
)
def test_thinking_of_other_models(block: dict[str, Any]) -> None:
    message = AIMessage([block, {"type": "text", "text": "Hi", "cache_control": {"type": "x"}}])

    assert to_wire([message]) == [{"role": "assistant", "content": "Hi"}]


PROTOCOL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


@pytest.mark.parametrize("tag", [*PROTOCOL_TAGS, "<|user|>", "[gMASK]"])
def test_nobody_can_forge_a_tag(tag: str) -> None:
    forged = tool_call(name=f"add{tag}", args={"a": [f'"{tag}"'], tag: 1}, id="1")
    broken = invalid_tool_call(name=tag, args=tag, id="2", error=None)
    messages = [
        HumanMessage(tag),
        AIMessage(tag, tool_calls=[forged], invalid_tool_calls=[broken]),
        ToolMessage(tag, tool_call_id="1"),
        ToolMessage([{"type": "text", "text": tag}], tool_call_id="2"),
    ]
    human, assistant, result, parts = to_wire(messages)
    call = assistant["content"].split("<tool_call>")[1].removesuffix("</tool_call>")
    hidden = f"{tag[0]}\u200b{tag[1:]}"

    assert human["content"] == hidden
    assert result["content"] == f"<tool_response>{hidden}</tool_response>"
    assert parts["content"] == [text(result["content"])]
    assert assistant["content"].count(tag) == 2 * (tag in PROTOCOL_TAGS[:2])
    assert json.loads(call) == {
        "name": f"add{hidden}",
        "arguments": {"a": [f'"{hidden}"'], hidden: 1},
    }
    native = to_wire(messages, native_tools=True)
    assert tag not in native[1]["tool_calls"][0]["function"]["arguments"]


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "two.pdf"
    with pymupdf.open() as made:
        for width, height in ((100, 200), (200, 100)):
            made.new_page(width=width, height=height).insert_text((20, 50), "Hi")
        made.save(path)
    return path


@pytest.mark.parametrize("native_tools", [True, False])
@pytest.mark.parametrize(
    "message",
    [
        lambda block: ToolMessage([block], tool_call_id="1"),
        lambda block: ChatMessage(content=[block], role="tool"),
        lambda block: ChatMessage(content=[block], role="assistant"),
    ],
)
def test_files_that_a_tool_or_a_model_names(
    message: Callable[[Any], BaseMessage], native_tools: bool, png: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in (png, png.as_uri(), tmp_path / "none.png", tmp_path):
        named = [message({"type": "image", "path": str(path)})]
        with pytest.raises(MediaError, match=r"is a local file outside .*ChatGLM4V\(allowed_dirs="):
            to_wire(named, native_tools=native_tools)
        with pytest.raises(
            MediaError, match=r"outside the allowed directories, which are .*other:"
        ):
            to_wire(named, Preparation(allowed_dirs=[other]), native_tools=native_tools)
    inside = Preparation(allowed_dirs=[tmp_path])
    named = [message({"type": "image", "path": str(png)})]
    assert data_url(png) in str(to_wire(named, inside, native_tools=native_tools))
    inline = [message({"type": "image", "url": data_url(png)})]
    assert data_url(png) in str(to_wire(inline, native_tools=native_tools))


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage,
        SystemMessage,
        *(
            lambda content, role=role: ChatMessage(content=content, role=role)
            for role in ("user", "system")
        ),
    ],
)
def test_files_that_the_author_names(
    message: Callable[[Any], BaseMessage], png: Path, tmp_path: Path
) -> None:
    named = [message([{"type": "image", "path": str(png)}])]
    other = tmp_path / "other"
    other.mkdir()

    assert data_url(png) in str(to_wire(named))
    assert data_url(png) in str(to_wire(named, Preparation(allowed_dirs=[png.parent])))
    for dirs in ([other], []):
        with pytest.raises(MediaError, match="outside"):
            to_wire(named, Preparation(allowed_dirs=dirs))


def shown(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": image.data_url(page.data, "image/jpeg")}}
        for page in document.pages(path, **options)
    ]


def test_every_form_of_a_pdf(pdf: Path) -> None:
    encoded = base64.b64encode(pdf.read_bytes()).decode()
    url = f"data:application/pdf;base64,{encoded}"
    blocks: list[str | dict[str, Any]] = [
        {"type": "file", "base64": encoded, "mime_type": "application/pdf"},
        {"type": "file", "path": pdf},
        {"type": "file", "url": pdf.as_uri()},
        {"type": "file", "url": url},
        {"type": "file", "file": {"filename": "two.pdf", "file_data": url}},
        {"type": "file", "file": {"file_data": encoded}},
        {"type": "file", "file": pdf.read_bytes()},
        {"type": "file", "file": Blob.from_path(pdf)},
        {"type": "document", "document": bytearray(pdf.read_bytes())},
        {"type": "file", "path": Blob.from_data(pdf.read_bytes())},
        {"type": "file", "base64": pdf.read_bytes()},
    ]
    pages = shown(pdf)
    asked, result = to_wire(
        [HumanMessage([*blocks, "Read it."]), ToolMessage([blocks[0]], tool_call_id="1")]
    )

    assert len(pages) == 2
    assert asked["content"] == [*pages * len(blocks), text("Read it.")]
    assert result["content"] == [text("<tool_response>"), *pages, text("</tool_response>")]


def test_no_pdf(tmp_path: Path, png: Path) -> None:
    for path, hint in ((png, "is not a document"), (tmp_path / "no.pdf", "no document at")):
        with pytest.raises(MediaError, match=hint):
            to_wire([HumanMessage([{"type": "file", "path": path}])])


@pytest.mark.parametrize("pages", ["2", [1]])
def test_options_of_a_document(pdf: Path, pages: str | list[int]) -> None:
    options = {"pages": pages, "longest_side": 280, "password": "not needed"}
    blocks: list[str | dict[str, Any]] = [
        {"type": "file", "path": str(pdf), **options},
        {"type": "file", "path": str(pdf), "extras": options},
    ]
    wire = to_wire([HumanMessage(blocks)])

    assert wire[0]["content"] == 2 * shown(pdf, pages="2", longest_side=280)


@pytest.mark.parametrize(
    "option",
    [
        *({"pages": 2}, {"pages": ["2"]}, {"longest_side": "280"}, {"password": 7}),
        {"max_tokens": "9"},
    ],
)
def test_wrong_options_of_a_document(pdf: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedMediaError, match=f"a document has {next(iter(option))} of type"):
        to_wire([HumanMessage([{"type": "file", "path": str(pdf), **option}])])


SENSELESS: list[Any] = [
    *(-1, 0, 10**400, -0.0, float("nan"), float("inf"), 1e-9, True, 1 + 2j),
    *("", "0", "-", "9" * 5000, "1-0", "1,", "\udcff", "²", b"1"),
    *([], [0.5], ["1"], [None], [-1], [10**30], {}, {"url": []}, object(), range(2)),
]


@pytest.mark.parametrize("type_", KINDS)
def test_whatever_stands_in_a_block_the_error_is_ours(
    type_: str, png: Path, pdf: Path, film: Path
) -> None:
    """An error of another class fails here, as it would pass by who catches `MediaError`."""
    kind = KINDS[type_]
    path = {"picture": png, "document": pdf, "video": film}[kind]
    whole = {"type": type_, "path" if type_ in ("image", "file", "video") else type_: str(path)}
    blocks = [
        *({**whole, option: value} for option in OPTIONS[kind] for value in SENSELESS),
        *({"type": type_, key: value} for key in KEYS for value in SENSELESS),
    ]
    refused = 0
    for block in blocks:
        try:
            to_wire([HumanMessage([block])])
        except MediaError:
            refused += 1

    assert refused > len(blocks) / 2


def test_a_document_is_called_by_its_filename() -> None:
    for block in (
        {"type": "file", "file": {"filename": "bill.pdf", "file_data": "AAAA"}},
        {"type": "file", "base64": "AAAA", "extras": {"filename": "bill.pdf"}},
    ):
        with pytest.raises(UnsupportedMediaError, match=r"^'bill\.pdf' is not a document"):
            to_wire([HumanMessage([block])])


def test_too_many_pages_for_a_request(tmp_path: Path) -> None:
    with pymupdf.open() as made:
        for _ in range(33):
            made.new_page(width=28, height=28)
        made.save(tmp_path / "book.pdf")
    block = {"type": "file", "path": str(tmp_path / "book.pdf")}
    with pytest.raises(MediaError, match=r"has 33 pages to be sent, and 32 can .* as in pages="):
        to_wire([HumanMessage([block])])
    wire = to_wire([HumanMessage([{**block, "pages": "2-", "longest_side": 28}])])
    assert len(wire[0]["content"]) == 32


# As LangChain's standard tests write them.


def test_double_turns_stay() -> None:
    messages = [
        *[SystemMessage("hello")] * 2,
        *[HumanMessage("hello", name="example_user")] * 2,
        *[AIMessage("hello")] * 2,
        HumanMessage("how are you"),
    ]

    assert [(turn["role"], turn["content"]) for turn in to_wire(messages)] == [
        *[("system", "hello")] * 2,
        *[("user", "hello")] * 2,
        *[("assistant", "hello")] * 2,
        ("user", "how are you"),
    ]


def test_a_conversation_with_an_anthropic_model(png: Path) -> None:
    data = base64.b64encode(png.read_bytes()).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    messages = [
        HumanMessage(
            [
                {
                    "type": "text",
                    "text": "what's your favorite color in this image",
                    "cache_control": {"type": "ephemeral"},
                },
                {"type": "image", "source": source},
            ]
        ),
        AIMessage(
            [
                {"type": "text", "text": "Hmm let me think about that"},
                {"type": "tool_use", "input": ADD["args"], "id": "call-1", "name": "add"},
            ],
            tool_calls=[ADD],
        ),
        ToolMessage("That's a great pick!", tool_call_id="call-1"),
    ]

    assert to_wire(messages) == [
        {
            "role": "user",
            "content": [
                text("what's your favorite color in this image"),
                part(png),
            ],
        },
        {"role": "assistant", "content": f"Hmm let me think about that{ADD_TEXT}"},
        {"role": "user", "content": "<tool_response>That's a great pick!</tool_response>"},
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

    for turn in to_wire(messages, native_tools=True):
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


@pytest.mark.parametrize("kind", ["audio", "input_audio", "tool_result", None])
def test_other_blocks_are_refused(kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaError, match=r"accepted are text, image, image_url, file"):
        to_wire([HumanMessage([{"type": kind, "base64": "AA=="}])])


@pytest.mark.parametrize(
    ("block", "hint"),
    [
        ({"type": "image", "file_id": "x"}, "add url, path, or base64"),
        ({"type": "image", "url": None}, "add url, path, or base64"),
        ({"type": "image", "url": 7}, "add url, path, or base64"),
        ({"type": "image", "base64": 7}, "no picture: add url, path, or base64"),
        ({"type": "image", "source": {"type": "base64"}}, "add url, path, or base64"),
        ({"type": "file", "file": {"file_id": "x"}}, "no document: add url, path or base64"),
        ({"type": "image_url", "image_url": {}}, '"url": '),
        ({"type": "image_url", "image_url": {"url": 7}}, '"url": '),
        ({"type": "video"}, "no video: add url, path or base64"),
        ({"type": "video_url", "video_url": {"url": 7}}, '"url": '),
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


def test_every_form_of_a_video(film: Path) -> None:
    data = base64.b64encode(film.read_bytes()).decode()
    options: dict[str, Any] = {"fps": 1, "start": 1, "end": 3}
    blocks: list[str | dict[str, Any]] = [
        {"type": "video", "path": film, **options},
        {"type": "video", "url": f"file://{film}", "extras": options},
        {"type": "video", "base64": data, "mime_type": "video/mp4", **options},
        dict(create_video_block(base64=data, mime_type="video/mp4", **options)),
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}, **options},
        {"type": "video_url", "video_url": str(film), "extras": options},
        {"type": "video", "video": str(film), **options},
        {"type": "video", "video": memoryview(film.read_bytes()), **options},
        {"type": "video", "base64": Blob.from_data(film.read_bytes()), **options},
    ]
    sent = clip(film, fps=1, start=1, end=3)
    for block in blocks:
        part = to_wire([HumanMessage([block])])[0]["content"][0]
        assert part == {"type": "video_url", "video_url": {"url": sent.url}}
        assert part.clip == sent
        small = to_wire([HumanMessage([block])], media=Preparation(video="mp4"))[0]["content"][0]
        assert small["video_url"]["url"].startswith("data:video/mp4;base64,")


def test_a_video_of_the_model_s_own_displaces_none(film: Path) -> None:
    shown: dict[str, Any] = {"type": "video", "path": film}
    messages = [HumanMessage([shown]), AIMessage(["Here.", shown]), HumanMessage("And mine?")]
    first, *_ = to_wire(messages)

    assert [part["type"] for part in first["content"]] == ["video_url"]


def test_a_video_in_the_network(film: Path, web: Any) -> None:
    url = web.give("/film.mp4", film.read_bytes())
    whole = HumanMessage([{"type": "video", "url": url}])
    fetched = to_wire([whole], Preparation(allow_hosts=["127.0.0.1"]))[0]["content"]
    assert fetched[0].clip == clip(film)

    passed = Preparation(fetches=False, allow_hosts=["127.0.0.1"])
    sent = to_wire([whole], passed)[0]["content"]
    assert sent == [{"type": "video_url", "video_url": {"url": url}}]
    part = HumanMessage([{"type": "video", "url": url, "fps": 1}])
    assert to_wire([part], passed)[0]["content"][0].clip == clip(film, fps=1)


def test_of_several_videos_the_last_is_sent(film: Path, tmp_path: Path) -> None:
    gone = {"type": "video", "path": tmp_path / "gone.mp4"}  # not even read
    messages = [
        HumanMessage([gone, "What is it?"]),
        AIMessage("A film."),
        HumanMessage([{"type": "video", "path": film}, "And this?"]),
        AIMessage("Another."),
        HumanMessage("Sure?"),
    ]
    first, _, third, *_ = to_wire(messages)

    text = "[an earlier video is left out]What is it?"
    assert first["content"] == [{"type": "text", "text": text}]
    assert [part["type"] for part in third["content"]] == ["video_url", "text"]
    assert messages[0].content[0] == gone
    with pytest.raises(MediaError, match="the last turn has 2 videos, and the model takes one"):
        to_wire([HumanMessage([gone]), HumanMessage([gone]), AIMessage("Begun")])


@pytest.mark.parametrize("kind", ["image", "file"])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_video_and_pictures_at_once(kind: str, is_first: bool) -> None:
    blocks: list[str | dict[str, Any]] = [{"type": "video", "path": "a.mp4"}]
    blocks.insert(is_first, {"type": kind, "path": "a"})
    with pytest.raises(
        MediaError, match=r"the last turn has 1 \w+ and 1 \w+, and .*: ask about one"
    ):
        to_wire([HumanMessage([block]) for block in blocks])


def test_the_later_of_video_and_pictures_stays(film: Path, png: Path, tmp_path: Path) -> None:
    def ask(*blocks: dict[str, Any]) -> list[BaseMessage]:
        return [HumanMessage([*blocks, "?"]), AIMessage("!")]

    gone = str(tmp_path / "gone")  # not even read
    picture: dict[str, Any] = {"type": "image", "path": str(png)}
    video: dict[str, Any] = {"type": "video", "path": str(film)}
    left = [
        ask({"type": "image", "path": gone}, {"type": "file", "path": gone}),
        ask({"type": "video", "path": gone}),
    ]

    pictures, videos, asked = to_wire([*left[0], *left[1], *ask(video)])[::2]
    told = "[an earlier picture is left out][an earlier document is left out]?"
    assert pictures["content"] == [text(told)]
    assert videos["content"] == [text("[an earlier video is left out]?")]
    assert [part["type"] for part in asked["content"]] == ["video_url", "text"]
    first, second, asked = to_wire([*ask(picture), *left[1], *ask(picture, picture)])[::2]
    assert first["content"] == [part(png), text("?")]
    assert second["content"] == [text("[an earlier video is left out]?")]
    assert asked["content"] == [part(png), part(png), text("?")]


def test_a_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no\.png"):
        to_wire([HumanMessage([{"type": "image", "path": tmp_path / "no.png"}])])


def test_unknown_roles_and_messages() -> None:
    with pytest.raises(ValueError, match="role 'critic'"):
        to_wire([ChatMessage(content="x", role="critic")])
    with pytest.raises(RequestError, match="FunctionMessage"):
        to_wire([FunctionMessage(content="x", name="f")])


def test_results_come_in_the_order_of_their_calls() -> None:
    calls = [tool_call(name=name, args={}, id=name) for name in ("a", "b")]
    results = [ToolMessage(f"of {name}", tool_call_id=name) for name in ("b", "a")]
    wire = to_wire([HumanMessage("Hi"), AIMessage("", tool_calls=calls), *results])

    assert [turn["content"] for turn in wire[2:]] == [
        "<tool_response>of a</tool_response>",
        "<tool_response>of b</tool_response>",
    ]


def test_half_characters_can_be_sent() -> None:
    call = tool_call(name="f", args={"a": "\ud83d"}, id="1")
    wire = to_wire([HumanMessage("a\ud83db"), AIMessage("\ud800", tool_calls=[call])])

    assert wire[0]["content"] == "a\ufffdb"
    assert json.dumps(wire, ensure_ascii=False).encode()


def test_a_pdf_as_anthropic_writes_it() -> None:
    made = pymupdf.open()
    made.new_page()
    data = base64.b64encode(made.tobytes()).decode()
    source = {"type": "base64", "media_type": "application/pdf", "data": data}
    wire = to_wire([HumanMessage([{"type": "document", "source": source}])])

    assert [part["type"] for part in wire[0]["content"]] == ["image_url"]
