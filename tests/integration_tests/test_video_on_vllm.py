"""Which frames and seconds of a video the real vLLM puts into the prompt, and how many tokens."""

import base64
import importlib
import io
import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pymupdf
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from PIL import Image
from pydantic import SecretStr
from tokenizers import Tokenizer

import tiny_glm4v
from langchain_glm4v import ChatGLM4V, GLM4VServer, MediaError, chat_models, question_about
from langchain_glm4v.media.video import Clip, Form, clip

# Parts of its type hints want NumPy's of another version.
av: Any = importlib.import_module("av")

STEP = re.compile(r"<\|begin_of_image\|>((?:<\|image\|>)+)<\|end_of_image\|>(\d+)")
FORMS: list[Form] = ["frames", "mp4"]


def film(
    path: Path,
    count: int,
    rate: int | Fraction,
    times: list[int] | None = None,
    size: tuple[int, int] = (160, 96),
) -> Path:
    """Write a film; `times` are milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            image = Image.new("RGB", size, (number % 250, 90, 250 - number % 250))
            frame = av.VideoFrame.from_image(image)
            frame.time_base = Fraction(1, 1000) if times else 1 / Fraction(rate)
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    return {
        "10 s": film(folder / "ten.mp4", 300, 30),
        "400 s": film(folder / "long.mkv", 400, 1),
        "uneven": film(
            folder / "uneven.mp4", 40, 30, [number * number * 7 for number in range(40)]
        ),
        "one": film(folder / "one.mp4", 1, 30),
        "ntsc": film(folder / "ntsc.ts", 200, Fraction(30000, 1001)),
    }


def prompt(server: GLM4VServer, sent: Clip) -> tuple[str, int]:
    """The prompt that the model reads, and the tokens that the server says it has."""
    content = [{"type": "video_url", "video_url": {"url": sent.url}}]
    body = {
        "model": server.served_model_name,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 1,
        "return_token_ids": True,
        **(
            {"media_io_kwargs": {"video": dict(sent.media_io_kwargs)}}
            if sent.media_io_kwargs
            else {}
        ),
    }
    request = Request(
        urljoin(server.base_url, "/v1/chat/completions"),
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=120) as response:
        reply = json.load(response)
    path = Path(tiny_glm4v.__file__).parent / "checkpoint" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    text = tokenizer.decode(reply["prompt_token_ids"], skip_special_tokens=False)
    return text, reply["usage"]["prompt_tokens"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "case",
    [
        ("10 s", {}, range(10)),
        ("10 s", {"fps": 1}, range(0, 10, 2)),
        ("10 s", {"num_frames": 7, "end": 9.3}, [0, 2, 5, 7]),
        ("10 s", {"start": 3.25}, [3, 4, 5, 6, 7, 8, 9]),
        ("10 s", {"fps": 4, "start": 2, "end": 4}, [2, 2, 3, 3]),
        ("10 s", {"fps": 0.3}, [0]),
        ("400 s", {"num_frames": 40}, range(0, 400, 20)),
        ("400 s", {"fps": 0.07}, [int(n / 0.07 + 1e-9) for n in range(0, 28, 2)]),
        ("400 s", {"start": 350, "num_frames": 10}, range(350, 400, 10)),
        ("400 s", {}, None),
        ("uneven", {}, None),
        ("one", {}, [0]),
        ("ntsc", {}, range(7)),
    ],
)
def test_the_model_reads_the_seconds_of_the_film(
    server: GLM4VServer, films: dict[str, Path], case: tuple[str, Any, Any], form: Form
) -> None:
    name, options, stamps = case
    sent = clip(films[name], form=form, **options)

    text, counted = prompt(server, sent)

    steps = STEP.findall(text)
    read = [int(second) for _, second in steps]
    assert read == [*sent.stamps]
    if form == "frames":
        assert stamps is None or read == [*stamps]
        assert read == [int(second) for second in sent.seconds[::2]]
    elif stamps is not None and "fps" not in options:
        shift = int(sent.offset)
        assert [second + shift for second in read] == [*stamps]
    elif sent.fps <= 2:
        assert all(
            abs(second + sent.offset - exact) < 1
            for second, exact in zip(read, sent.seconds[::2], strict=True)
        )
    assert sum(part.count("<|image|>") for part, _ in steps) == sent.tokens
    # [gMASK] <sop> <|user|> and a line break; <|assistant|> and a line break
    assert counted == sent.prompt_tokens + 6


@pytest.mark.parametrize("form", FORMS)
def test_the_count_is_that_of_the_server(
    server: GLM4VServer, films: dict[str, Path], form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        temperature=0,
        max_tokens=8,
    )
    model.get_num_tokens_from_messages([HumanMessage("Hi")])  # finds out what the server can do
    noted = chat_models._abilities
    key = model._abilities_key(server.served_model_name)
    # Without frames, it is as a server without --trust-request-mm-kwargs.
    monkeypatch.setitem(noted, key, replace(noted[key], frames=form == "frames"))
    video = {"type": "video", "path": str(films["10 s"]), "start": 1.5}
    picture = {"type": "image", "url": f"data:image/png;base64,{png()}"}
    for messages in (
        [HumanMessage([video, "At which second does it turn dark?"])],
        [HumanMessage([picture, "?"]), AIMessage("!"), HumanMessage(["Before", video, "after"])],
        [HumanMessage([video, "What?"]), AIMessage("That."), HumanMessage([video, "Again?"])],
    ):
        counted = model.get_num_tokens_from_messages(messages)
        reply = model.invoke(messages)
        assert reply.usage_metadata is not None
        assert counted == reply.usage_metadata["input_tokens"]


def test_media_larger_than_the_server_takes(server: GLM4VServer, tmp_path: Path) -> None:
    """With a context of 8,192 tokens, vLLM makes room for 6,084 of one medium."""
    model = ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        max_tokens=1,
    )
    long = str(film(tmp_path / "long.mp4", 100, 5, size=(640, 480)))  # 7,820 tokens
    page = tmp_path / "page.pdf"
    with pymupdf.open() as pdf:
        pdf.new_page(width=595, height=842)
        pdf.save(page)
    document = {"type": "file", "path": str(page), "longest_side": 2604}
    for medium, most in ((long, 4096), (document, 6084)):
        used = model.invoke([question_about("What?", medium)]).usage_metadata
        assert used is not None
        assert most - 500 < used["input_tokens"] < most + 100
    own = {"type": "video", "path": long, "max_tokens": 8000}
    with pytest.raises(MediaError, match="7820 tokens, and the server takes 6084 of one picture"):
        model.invoke([question_about("What?", own)])
    larger = {**document, "max_tokens": 6144}
    with pytest.raises(MediaError, match="6138 tokens, and the server takes 6084 of one picture"):
        model.invoke([question_about("What?", larger)])


def png() -> str:
    data = io.BytesIO()
    Image.new("RGB", (60, 40)).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
