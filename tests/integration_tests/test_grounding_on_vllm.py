"""Shapes found, drawn and cut out, and answers read through the parsers, on the real vLLM."""

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from langchain_glm4v import (
    Box,
    BoxOutputParser,
    ChatGLM4V,
    JsonAnswerOutputParser,
    ThinkAnswerOutputParser,
    crop,
    draw,
)
from langchain_glm4v.grounding import LOCATE_PROMPT, PINPOINT_PROMPT, match
from langchain_glm4v.media.image import prepare
from langchain_glm4v.server import GLM4VServer

# OpenAI's client keeps its connections, which belong to a loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

MEDIA = Path(__file__).parents[2] / "examples" / "media"
SHAPES, RECEIPT = MEDIA / "shapes.png", MEDIA / "receipt.png"
THOUGHT = 'The line reads "Total: 10.45".'
BLUE_SQUARE = Box.from_pixels((83, 159, 117, 193), 336, 224)  # measured in the picture


class Invoice(BaseModel):
    Date: str
    Total: str


@pytest.fixture(scope="module")
def openai_model(server: GLM4VServer) -> ChatOpenAI:
    """OpenAI's own client: the tags stay in the text if the server is told to leave them."""
    return ChatOpenAI(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        temperature=0,
        extra_body={"skip_special_tokens": False},
    )


@pytest.fixture(params=["ours", "OpenAI's"])
def any_model(request: pytest.FixtureRequest, model: ChatGLM4V, openai_model: ChatOpenAI) -> Any:
    return model if request.param == "ours" else openai_model


def asked(text: str, path: Path) -> list[BaseMessage]:
    """A question in the one form that all clients know."""
    (picture,) = prepare(path)
    image = {"type": "image_url", "image_url": {"url": picture.url}}
    return [HumanMessage([image, {"type": "text", "text": text}])]


async def in_every_way(chain: Any, messages: Any) -> list[Any]:
    """What a chain gives, whole, and its stream added up or, if it is cumulative, its end."""
    streams = [[*chain.stream(messages)], [part async for part in chain.astream(messages)]]
    return [chain.invoke(messages), await chain.ainvoke(messages), *streams]


@pytest.mark.parametrize("prompt", [LOCATE_PROMPT, PINPOINT_PROMPT])
async def test_a_shape_is_located_drawn_and_cut_out(any_model: Any, prompt: str) -> None:
    question = asked(prompt.format(target="the blue square"), SHAPES)
    whole, awaited, *streams = await in_every_way(any_model | BoxOutputParser(), question)
    pairs = match(whole, [BLUE_SQUARE], iou=0.3)

    assert len(whole) == len(pairs) == 1
    assert awaited == whole
    assert [stream[-1] for stream in streams] == [whole, whole]

    (box,) = whole
    cut: Any = crop(SHAPES, box)
    red, green, blue = cut.getpixel((cut.width // 2, cut.height // 2))
    assert blue > 150 > max(red, green)
    drawn = draw(SHAPES, [Box(*box, label="blue square")])  # type: ignore[misc]
    assert drawn.size == (336, 224)
    left, top, *_ = box.to_pixels(336, 224)
    assert drawn.getpixel((left, top)) == (198, 40, 40)


async def test_several_shapes_are_located(any_model: Any) -> None:
    question = asked(LOCATE_PROMPT.format(target="the circles"), SHAPES)
    boxes = (any_model | BoxOutputParser(size=(336, 224))).invoke(question)

    assert len(boxes) == 3
    assert all(0 <= box[0] < box[2] <= 336 and 0 <= box[1] < box[3] <= 224 for box in boxes)


@pytest.mark.parametrize(
    ("returns", "value"),
    [
        ("answer", "10.45"),
        ("reasoning", THOUGHT),
        ("both", {"reasoning": THOUGHT, "answer": "10.45"}),
    ],
)
async def test_reasoning_and_answer(any_model: Any, returns: Any, value: Any) -> None:
    chain = any_model | ThinkAnswerOutputParser(returns=returns)
    question = asked("What is the Total?", RECEIPT)
    whole, awaited, *streams = await in_every_way(chain, question)

    assert whole == awaited == value
    for stream in streams:
        assert len(stream) > 1
        told = stream[0]
        for piece in stream[1:]:
            told += piece
        assert told == value


async def test_json(any_model: Any) -> None:
    parser = JsonAnswerOutputParser(schema=Invoice)
    (question,) = asked("Extract the fields.", RECEIPT)
    messages = [("system", parser.get_format_instructions()), question]
    whole, awaited, *streams = await in_every_way(any_model | parser, messages)

    assert whole == awaited == Invoice(Date="2026-11-22", Total="10.45")
    assert [stream[-1] for stream in streams] == [whole, whole]
