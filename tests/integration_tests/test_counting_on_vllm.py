"""Counting against what the real vLLM says it read."""

import io
import json
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call
from PIL import Image

from langchain_glm4v import GLM4VServer
from langchain_glm4v.conversation import fold
from langchain_glm4v.counting import masked, upper_bound
from langchain_glm4v.media.image import Picture, prepare
from langchain_glm4v.messages import to_wire


def post(server: GLM4VServer, path: str, **fields: Any) -> dict[str, Any]:
    request = Request(
        urljoin(server.base_url, path),
        json.dumps({"model": server.served_model_name, **fields}).encode(),
        {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, Any]]:
    """Pictures of odd sizes, one of them turned by its EXIF data."""
    blocks: list[dict[str, Any]] = []
    for size in [(333, 222), (61, 700), (19, 3), (1001, 480)]:
        data = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: a quarter turn
        Image.effect_noise(size, 80).save(data, "JPEG", exif=exif)
        blocks.append({"type": "image", "image": data.getvalue()})
    return blocks


def encoded(drawn: Image.Image, kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    drawn.save(data, kind, **options)
    return data.getvalue()


def test_pictures_of_every_kind_cost_what_is_computed(server: GLM4VServer) -> None:
    drawn = Image.effect_noise((333, 222), 80)
    exif = Image.Exif()
    exif[0x0112] = 5  # orientation: mirrored, and a quarter turn
    files = [
        *(encoded(drawn.convert(mode), "PNG") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *(encoded(drawn.convert("CMYK"), kind, exif=exif) for kind in ("JPEG", "TIFF")),
        *(encoded(drawn.resize((61, 9)), kind) for kind in ("GIF", "BMP", "WEBP", "AVIF")),
        encoded(drawn.convert("I").convert("I;16"), "PNG"),
        encoded(drawn.resize((1500, 1100)), "TIFF", save_all=True, append_images=[drawn]),
    ]
    base = post(server, "/v1/chat/completions", messages=asked([]), max_tokens=1)
    for file in files:
        pictures = prepare(file, max_tokens=400)
        reply = post(server, "/v1/chat/completions", messages=asked(pictures), max_tokens=1)
        used = reply["usage"]["prompt_tokens"] - base["usage"]["prompt_tokens"]

        assert used == sum(picture.tokens + 2 for picture in pictures)
        assert all(picture.tokens <= 400 for picture in pictures)


def asked(pictures: list[Picture]) -> list[dict[str, Any]]:
    shown = [{"type": "image_url", "image_url": {"url": picture.url}} for picture in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": "Compare."}]}]


CALL = tool_call(name="add", args={"a": 1, "b": "zwei"}, id="1")


def conversations(pictures: list[dict[str, Any]]) -> list[list[BaseMessage]]:
    first, second, small, large = pictures
    return [
        [HumanMessage("Hello, what is 1 + 2?")],
        [HumanMessage("Größe 你好 🙂 \n\n{}<|user|><think>")],
        [HumanMessage("".join(map(chr, range(1, 300))))],
        [HumanMessage([first])],
        [HumanMessage(["One:", first, "two: ", second, "\nthree:", small, large, "Compare."])],
        [
            SystemMessage("Be brief."),
            HumanMessage([first, "Read the text."]),
            AIMessage("Total 42"),
            HumanMessage(["And", small]),
        ],
        [
            HumanMessage("Add 1 and zwei."),
            AIMessage("I add.", tool_calls=[CALL]),
            ToolMessage(["Here: ", second, "3"], tool_call_id="1"),
        ],
    ]


def test_counts_are_those_of_the_server(
    server: GLM4VServer, pictures: list[dict[str, Any]]
) -> None:
    for messages in conversations(pictures):
        wire = to_wire(messages)
        for sent in (wire, fold(wire), to_wire(messages, native_tools=True)):
            plain, extra = masked(sent)
            counted = post(server, "/tokenize", messages=plain)["count"] + extra
            reply = post(server, "/v1/chat/completions", messages=sent, max_tokens=1)

            assert counted == reply["usage"]["prompt_tokens"]
            assert upper_bound(sent) >= counted
