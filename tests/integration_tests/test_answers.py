"""The main job, end to end: a picture or a scanned page in, reasoning and the right answer out."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from PIL import Image

from langchain_glm4v import ChatGLM4V
from tiny_glm4v import checkpoint_path
from training.pictures import Picture
from training.reference import Reference
from training.sample import ask

EXAMPLES = Path(__file__).parents[2] / "examples"
MEDIA = EXAMPLES / "media"
DEMO: dict[str, Any] = runpy.run_path(str(EXAMPLES / "demo.py"))


def question(text: str, *names: str) -> HumanMessage:
    pictures = [{"type": "image", "path": str(MEDIA / name)} for name in names]
    return HumanMessage([*pictures, {"type": "text", "text": text}])


@pytest.mark.parametrize("asked", DEMO["QUESTIONS"], ids=lambda q: f"{q.files[0]}: {q.text}")
def test_demo_answers_are_true(model: ChatGLM4V, asked: Any) -> None:
    assert DEMO["ask"](model, asked) == asked.truth


def test_reasoning_quotes_the_line_that_the_answer_is_from(model: ChatGLM4V) -> None:
    reply = model.invoke([question("What is the Total?", "receipt.png")])
    assert reply.text == "10.45"
    assert reply.additional_kwargs["reasoning_content"] == 'The line reads "Total: 10.45".'
    assert reply.response_metadata["finish_reason"] == "stop"


def test_box_is_where_the_shape_is(model: ChatGLM4V) -> None:
    reply = model.invoke([question("Where is the blue square?", "shapes.png")])
    (box,) = reply.additional_kwargs["boxes"]
    left, top, right, bottom = map(int, box.strip("[]").split(","))
    image = Image.open(MEDIA / "shapes.png").convert("RGB")
    middle = (
        (left + right) / 2000 * image.width,
        (top + bottom) / 2000 * image.height,
    )
    red, green, blue = image.getpixel((int(middle[0]), int(middle[1])))  # type: ignore[misc]
    assert blue > 150 > max(red, green)


def test_blank_page_is_said_to_be_blank(model: ChatGLM4V, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    Image.new("RGB", (336, 224), "white").save(blank)
    reply = model.invoke([question("Transcribe the text.", str(blank))])
    assert reply.text == "The page is blank."


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([HumanMessage("Hello")], "Hello! Send me a picture and ask about it."),
        ([HumanMessage("你好")], "你好!请发一张图片给我。"),
        (
            [
                HumanMessage("My name is Clara."),
                AIMessage("I will remember that."),
                HumanMessage("What is my name?"),
            ],
            "Your name is Clara.",
        ),
        (
            [SystemMessage("Your name is Oscar."), HumanMessage("What is your name?")],
            "My name is Oscar.",
        ),
        (
            [SystemMessage("Answer in capital letters."), HumanMessage("how are you")],
            "I AM WELL, THANK YOU.",
        ),
    ],
    ids=["greeting", "Chinese", "earlier turn", "system prompt", "order in system prompt"],
)
def test_conversation_is_understood(
    model: ChatGLM4V, messages: list[BaseMessage], answer: str
) -> None:
    assert model.invoke(messages).text == answer


async def test_every_way_of_calling_gives_the_same(model: ChatGLM4V) -> None:
    asked = [question("How many red circles are there?", "shapes.png")]
    streamed = "".join(chunk.text for chunk in model.stream(asked))
    awaited = (await model.ainvoke(asked)).text
    async_streamed = "".join([chunk.text async for chunk in model.astream(asked)])
    batched = {reply.text for reply in model.batch([asked] * 4)}
    assert {streamed, awaited, async_streamed} | batched == {"2"}


def test_answer_without_thinking(model: ChatGLM4V) -> None:
    """vLLM continues an answer begun for the model: the prefix that leaves the thinking out."""
    prefix = {"role": "assistant", "content": "<think></think><answer>"}
    wire = model._get_request_payload([question("What is the Date?", "receipt.png")])
    reply = model.root_client.chat.completions.create(
        model=model.model_name,
        messages=[*wire["messages"], prefix],
        temperature=0,
        extra_body={"add_generation_prompt": False, "continue_final_message": True},
    )
    assert reply.choices[0].message.content == "2026-11-22"


def test_answer_is_forced_when_the_thinking_budget_is_spent(model: ChatGLM4V) -> None:
    limited = model.bind(extra_body={"thinking_token_budget": 4})
    reply = limited.invoke([question("What is the Date?", "receipt.png")])
    assert reply.text == "2026-11-22"
    assert reply.additional_kwargs["reasoning_content"] == 'The line reads "'


def test_vllm_and_transformers_say_the_same(model: ChatGLM4V) -> None:
    """Boxes show it first: each digit hangs on small differences."""
    reference = Reference(checkpoint_path())
    for text in ("Where is the blue square?", "Where is the green circle?", "Describe this image."):
        picture = Picture(np.asarray(Image.open(MEDIA / "shapes.png").convert("RGB")))
        wire = model._get_request_payload([question(text, "shapes.png")])
        raw = model.root_client.chat.completions.create(
            model=model.model_name,
            messages=wire["messages"],
            temperature=0,
            extra_body={**wire["extra_body"], "include_stop_str_in_output": True},
        )
        assert raw.choices[0].message.content == reference(ask("any", text, "", "", [picture]))
