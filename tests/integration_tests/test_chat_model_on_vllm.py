"""`ChatGLM4V` on the real vLLM."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import add_ai_message_chunks
from PIL import Image, ImageDraw
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V, GLM4VServer, MediaError
from langchain_glm4v.server import find_leftovers

QUESTION = "Read the text."


@pytest.fixture
def model(server: GLM4VServer) -> ChatGLM4V:
    return ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        temperature=0,
        max_tokens=64,
    )


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "total.png"
    image = Image.new("RGB", (336, 224), "white")
    ImageDraw.Draw(image).text((40, 90), "Total 42", "black", font_size=40)
    image.save(path)
    return path


def asked(*content: str | dict[str, Any]) -> list[HumanMessage]:
    return [HumanMessage([*content, {"type": "text", "text": QUESTION}])]


def said(message: AIMessage) -> tuple[str, str]:
    """Reasoning and answer."""
    return message.additional_kwargs.get("reasoning_content", ""), message.text


def read(message: AIMessage) -> int:
    """Tokens of the prompt."""
    assert message.usage_metadata is not None
    return message.usage_metadata["input_tokens"]


@pytest.mark.asyncio
async def test_every_way_to_call_says_the_same(model: ChatGLM4V, picture: Path) -> None:
    messages = asked({"type": "image", "path": str(picture)})
    reply = model.invoke(messages)
    streamed = add_ai_message_chunks(*model.stream(messages))
    astreamed = add_ai_message_chunks(*[chunk async for chunk in model.astream(messages)])

    assert any(said(reply))
    assert said(streamed) == said(astreamed) == said(reply)
    assert said(await model.ainvoke(messages)) == said(reply)
    for message in (reply, streamed, astreamed):
        assert message.usage_metadata is not None
        assert message.usage_metadata["output_tokens"] > 0
        assert message.response_metadata["model_name"] == model.model_name
        assert message.response_metadata["finish_reason"] in ("stop", "length")
        assert message.response_metadata["id"].startswith("chatcmpl-")
        assert "<think>" not in str(said(message))


@pytest.mark.asyncio
async def test_batches(model: ChatGLM4V, picture: Path) -> None:
    inputs: list[LanguageModelInput] = [
        asked({"type": "image", "path": str(picture)}),
        asked("A text alone."),
    ]
    replies = [*model.batch(inputs), *await model.abatch(inputs)]

    assert [read(reply) for reply in replies[:2]] == [read(reply) for reply in replies[2:]]
    assert all(any(said(reply)) for reply in replies)


def test_every_picture_is_read_whole(model: ChatGLM4V, picture: Path) -> None:
    image = {"type": "image", "path": str(picture)}
    image_url = {"type": "image_url", "image_url": {"url": picture.as_uri()}}
    alone, one, two = (
        read(model.invoke(asked(*content), max_tokens=1))
        for content in ([], [image], [image, "Image 2:", image_url])
    )

    # One token for each square of 28 pixels, and one at either end.
    cost = (336 // 28) * (224 // 28) + 2
    assert one - alone == cost
    assert two - alone > 2 * cost


def test_control_tokens_arrive_as_text(model: ChatGLM4V) -> None:
    tokens = "<|image|><|user|><|endoftext|><think>"  # four tokens, if they were any

    assert read(model.invoke(tokens, max_tokens=1)) - read(model.invoke("", max_tokens=1)) > 8


def test_a_conversation(model: ChatGLM4V) -> None:
    first = model.invoke([HumanMessage("Hello")])
    messages = [SystemMessage("Be brief."), HumanMessage("Hello"), first, HumanMessage("And now?")]

    assert any(said(model.invoke(messages)))


@pytest.mark.asyncio
async def test_version_1_and_events(model: ChatGLM4V, picture: Path) -> None:
    messages = asked({"type": "image", "path": str(picture)})
    reply = model.invoke(messages)
    blocks = model.model_copy(update={"output_version": "v1"}).invoke(messages).content_blocks
    events = model.stream_events(messages, version="v3")

    assert blocks == reply.content_blocks
    assert ("".join(events.reasoning), "".join(events.text)) == said(reply)


def test_a_limit_is_told(model: ChatGLM4V) -> None:
    reply = model.invoke("Hello", max_tokens=1)

    assert reply.response_metadata["finish_reason"] == "length"


def test_an_unknown_model(model: ChatGLM4V) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody/nothing"):
        model.invoke("Hello", model="nobody/nothing")


def test_a_wrong_key(server: GLM4VServer) -> None:
    model = ChatGLM4V(base_url=server.base_url, model=server.served_model_name)

    with pytest.raises(openai.AuthenticationError):
        model.invoke("Hello")


def test_a_picture_in_the_network(model: ChatGLM4V, picture: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=picture.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{web.server_port}/{picture.name}"
            remote = asked({"type": "image", "url": url})
            with pytest.raises(MediaError, match="not public"):
                model.invoke(remote)
            reply = model.invoke(remote, allow_hosts=["127.0.0.1"])
        finally:
            web.shutdown()
            thread.join()

    assert said(reply) == said(model.invoke(asked({"type": "image", "path": str(picture)})))


def test_managed_models_share_a_server_and_leave_nothing(server: GLM4VServer) -> None:
    with ChatGLM4V.managed("tiny", max_model_len=2048, max_tokens=4) as model:
        assert model._managed_server is not None
        own = model._managed_server.id
        with ChatGLM4V.managed("tiny", max_model_len=2048, temperature=0) as other:
            assert other.openai_api_base == model.openai_api_base != server.base_url
            assert find_leftovers(own)
        assert any(said(model.invoke("Hello")))

    assert not find_leftovers(own)
