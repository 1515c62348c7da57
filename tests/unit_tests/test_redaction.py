"""Keeping big media out of traces and checkpoints."""

import base64
import copy
import hashlib
import io
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.prompt_values import ChatPromptValue
from PIL import Image

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import source
from langchain_glm4v.messages import to_wire
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.redaction import media_digest, redact, to_files


def noise(kind: str) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(data, kind)
    return data.getvalue()


PNG = noise("PNG")
BASE64 = base64.b64encode(PNG).decode()
LINES = base64.encodebytes(PNG).decode()
URL = f"data:image/png;base64,{BASE64}"
NAME = hashlib.sha256(PNG).hexdigest()


def reference(kind: str) -> str:
    return f"[{kind}, {len(PNG):,} bytes, sha256 {NAME[:16]}…]"


SHORT = reference("image/png")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (URL, SHORT),
        (f"data:image/png;base64,{LINES}".strip(), SHORT),
        (f"data:image/png;charset=x;base64,{BASE64}", SHORT),
        (f"See ![a]({URL}) and {URL}\nWhat?", f"See ![a]({SHORT}) and {SHORT}\nWhat?"),
        (URL.replace("+", "%2B").replace("=", "%3D"), SHORT),
        ({"url": URL}, {"url": SHORT}),
        ({"file": {"file_data": URL}}, {"file": {"file_data": SHORT}}),
        (
            {"type": "image", "base64": BASE64, "mime_type": "image/png"},
            {"type": "image", "base64": SHORT, "mime_type": "image/png"},
        ),
        ({"type": "image", "base64": LINES}, {"type": "image", "base64": reference("image")}),
        (
            {"source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
            {"source": {"type": "base64", "media_type": "image/png", "data": SHORT}},
        ),
        ({"input_audio": {"data": BASE64}}, {"input_audio": {"data": reference("data")}}),
        ([(URL, 1), None], [(SHORT, 1), None]),
        (PNG, reference("data")),
    ],
)
def test_media_become_references(value: Any, expected: Any) -> None:
    before = copy.deepcopy(value)

    assert redact(value) == expected
    assert value == before


@pytest.mark.parametrize(
    "value",
    [
        "data:image/png;base64,AAAA",
        {"base64": "AAAA", "data": "x" * 900},
        {"data": "Not base64, a long text. " * 100},
        {"text": "A" * 5000},
        "x" * 5000,
        "data:" * 5000,
    ],
)
def test_all_else_stays(value: Any) -> None:
    assert redact(value) == value


def test_messages_and_results() -> None:
    block: dict[str, Any] = {"type": "image", "base64": BASE64, "mime_type": "image/png"}
    message = HumanMessage([block, "What is it?"], name="ann", extra_field={"url": URL})
    expected = HumanMessage(
        [{**block, "base64": SHORT}, "What is it?"], name="ann", extra_field={"url": SHORT}
    )
    before = message.model_copy(deep=True)
    result = LLMResult(generations=[[ChatGeneration(message=AIMessage(URL))]])

    assert redact(message) == expected
    assert redact({"messages": [[dumpd(message)]]}) == {"messages": [[dumpd(expected)]]}
    assert redact(ChatPromptValue(messages=[message])).messages == [expected]
    assert redact(result).generations[0][0].message.content == SHORT
    assert message == before


def test_broken_base64_is_redacted_too() -> None:
    assert redact({"base64": "A" * 2001}).keys() == {"base64"}
    assert redact({"base64": "A" * 2001})["base64"].startswith("[data, 2,001 bytes")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.just(URL),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["base64", "url", "x"]), inner),
    max_leaves=20,
)


@given(json_like)
def test_no_big_media_are_left(value: Any) -> None:
    redacted = redact(value)

    assert BASE64 not in str(redacted)
    assert redact(redacted) == redacted
    assert (redacted == value) == (URL not in str(value))


@pytest.mark.parametrize(
    "piece", ["data:", "data:a;", "data:a;b;c;d;e;", "data:;base64,", "data:a"]
)
def test_long_texts_without_media_stay(piece: str) -> None:
    text = piece * (4_000_000 // len(piece))  # quadratic work would take hours

    assert redact({"data": text, "x": [text]}) == {"data": text, "x": [text]}


def conversation(path: Path) -> list[Any]:
    pdf = b"%PDF-1.7 x"
    return [
        HumanMessage(
            [
                {"type": "text", "text": "Look:"},
                {"type": "image", "base64": BASE64, "mime_type": "image/png", "id": "a"},
                {"type": "image_url", "image_url": {"url": URL}},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
                },
                {"type": "image", "url": "https://host/a.png"},
                {"type": "image", "path": str(path)},
                "And?",
            ]
        ),
        AIMessage("Well."),
        ToolMessage(
            [
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,"
                        + base64.b64encode(pdf).decode(),
                    },
                },
            ],
            tool_call_id="1",
        ),
    ]


def test_media_become_files(tmp_path: Path) -> None:
    given = tmp_path / "given.png"
    given.write_bytes(noise("PNG"))
    messages = conversation(given)
    before = copy.deepcopy(messages)
    folder = tmp_path / "a" / "media"
    kept = to_files(messages, folder)
    stored = {"type": "image", "path": str(folder / f"{NAME}.png")}
    written = sorted(folder.iterdir())

    assert messages == before
    assert kept[0].content == [
        {"type": "text", "text": "Look:"},
        {**stored, "mime_type": "image/png", "id": "a"},
        stored,
        stored,
        {"type": "image", "url": "https://host/a.png"},
        {"type": "image", "path": str(given)},
        "And?",
    ]
    assert kept[1] == messages[1]
    assert {path.suffix for path in written} == {".png", ".pdf"}
    assert len(written) == 2
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in written)
    assert written == sorted(
        folder / f"{hashlib.sha256(path.read_bytes()).hexdigest()}{path.suffix}" for path in written
    )


def test_the_conversation_works_from_files(tmp_path: Path) -> None:
    messages = conversation(tmp_path)[:1]
    messages[0].content.pop(5)

    media = Preparation(fetches=False)
    moved = to_files(messages, tmp_path / "media")
    assert to_wire(moved, media=media) == to_wire(messages, media=media)


def test_files_are_written_once(tmp_path: Path) -> None:
    messages = [HumanMessage([{"type": "image", "base64": BASE64}])]
    first = to_files(messages, tmp_path)
    path = tmp_path / f"{NAME}.png"
    written = path.stat().st_mtime_ns

    assert to_files(messages, tmp_path) == first
    assert to_files(first, tmp_path) == first
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("kind", "end"),
    [("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif"), ("BMP", "bmp"), ("TIFF", "bin")],
)
def test_names_of_files(tmp_path: Path, kind: str, end: str) -> None:
    url = "data:image/x;base64," + base64.b64encode(noise(kind)).decode()
    to_files([HumanMessage([{"type": "image", "url": url}])], tmp_path)

    assert [path.suffix for path in tmp_path.iterdir()] == [f".{end}"]


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MediaError, match=r"cannot write a medium of \d+ bytes to .*file"):
        to_files([HumanMessage([{"type": "image", "base64": BASE64}])], tmp_path / "file")
    with pytest.raises(UnsupportedMediaError, match="not valid base64"):
        to_files([HumanMessage([{"type": "image", "base64": "###"}])], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_digest_follows_the_content_of_files(tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.pdf"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    image: dict[str, Any] = {"type": "image", "path": str(path)}
    file: dict[str, Any] = {"type": "file", "url": other.as_uri()}
    digest = media_digest([HumanMessage([image, file, "Hi"]), AIMessage("Hello")])

    assert len(digest) == 64
    assert media_digest([HumanMessage([image]), ToolMessage([file], tool_call_id="1")]) == digest
    assert media_digest([HumanMessage([file, image])]) != digest
    path.write_bytes(b"three")
    assert media_digest([HumanMessage([image, file])]) != digest


def test_the_digest_of_a_file_larger_than_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 10)
    path = tmp_path / "film.mp4"
    path.write_bytes(bytes(11))

    assert media_digest([HumanMessage([{"type": "video", "path": str(path)}])])


def test_the_digest_without_files() -> None:
    blocks: list[str | dict[str, Any]] = [
        {"type": "image", "base64": BASE64},
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image", "url": "https://host/a.png"},
        {"type": "text", "text": "/etc/hostname"},
    ]

    assert media_digest([HumanMessage(blocks), HumanMessage("Hi")]) == ""


def test_what_cannot_be_read_is_told_by_the_call_alone() -> None:
    """Else it would tell which files there are, also those that a tool may not name."""
    digests = {
        media_digest([HumanMessage([{"type": "image", "path": path}])])
        for path in ("/no/such.png", "/", "a\0b", "file://[")
    }

    assert len(digests) == 1


def test_bytes_count_in_the_digest() -> None:
    def message(data: bytes) -> HumanMessage:
        return HumanMessage([{"type": "image", "image": data}])

    assert media_digest([message(b"a")]) == media_digest([message(b"a")]) != ""
    assert media_digest([message(b"a")]) != media_digest([message(b"b")])


def test_a_video_becomes_a_file_with_its_options(film: Path, tmp_path: Path) -> None:
    data = base64.b64encode(film.read_bytes()).decode()
    message = HumanMessage([{"type": "video", "base64": data, "fps": 1}])

    (kept,) = to_files([message], tmp_path)

    block = kept.content[0]
    assert isinstance(block, dict)
    assert (block["type"], block["fps"]) == ("video", 1)
    assert Path(block["path"]).read_bytes() == film.read_bytes()
    assert to_wire([kept]) == to_wire([message])
    assert media_digest([kept])


def test_images_of_pils_become_files_and_count_in_the_digest(tmp_path: Path) -> None:
    def message(colour: str) -> HumanMessage:
        return HumanMessage([{"type": "image", "image": Image.new("RGB", (8, 8), colour)}])

    [stored] = to_files([message("red")], tmp_path)
    block = stored.content[0]
    assert isinstance(block, dict)
    with Image.open(block.pop("path")) as written:
        assert (written.size, written.getpixel((0, 0))) == ((8, 8), (255, 0, 0))
    assert block == {"type": "image"}
    assert media_digest([message("red")]) == media_digest([message("red")])
    assert media_digest([message("red")]) != media_digest([message("blue")])


def test_passwords_are_left_out() -> None:
    block = {"type": "file", "path": "a.pdf", "extras": {"password": "secret"}}

    assert redact(block) == {**block, "extras": {"password": "[password]"}}
