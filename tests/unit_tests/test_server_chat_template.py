"""The chat template, as plain Jinja and as transformers (and with it vLLM) renders it."""

from itertools import product
from typing import Any

import pytest
from jinja2 import Environment
from transformers.utils.chat_template_utils import render_jinja_template

from langchain_glm4v.server.options import CHAT_TEMPLATE

SOURCE = CHAT_TEMPLATE.read_text(encoding="utf-8")
START = "[gMASK]<sop>"
IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
VIDEO = "<|begin_of_video|><|video|><|end_of_video|>"


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


CASES = [
    pytest.param(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "<|system|>\nBe brief.<|user|>\nHello",
        id="strings",
    ),
    pytest.param(
        [{"role": "system", "content": [text("Be "), text("brief.")]}],
        "<|system|>\nBe brief.",
        id="system prompt in parts, nothing between them",
    ),
    pytest.param(
        [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [text("Hi.")]},
            {"role": "user", "content": [text("Who are you?")]},
        ],
        "<|user|>\nHello<|assistant|>\nHi.<|user|>\nWho are you?",
        id="history in parts, no closing token",
    ),
    pytest.param(
        [
            {
                "role": "user",
                "content": [
                    text("First "),
                    {"type": "image"},
                    text(" then\n"),
                    {"type": "image_url", "image_url": {"url": "data:,"}},
                    {"type": "video"},
                    {"type": "video_url", "video_url": {"url": "data:,"}},
                ],
            }
        ],
        f"<|user|>\nFirst {IMAGE} then\n{IMAGE}{VIDEO}{VIDEO}",
        id="media keep their places",
    ),
    pytest.param(
        [
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
            {"role": "tool", "content": "42"},
            {"role": "tool", "content": [text("43")]},
        ],
        "<|assistant|>\n<|observation|>\n42<|observation|>\n43",
        id="tool results",
    ),
    pytest.param(
        [{"role": "user", "content": "  \n{{ x }} {% if %} <|user|> \t"}],
        "<|user|>\n  \n{{ x }} {% if %} <|user|> \t",
        id="text is taken as it is",
    ),
    pytest.param([{"role": "user", "content": []}], "<|user|>\n", id="no parts"),
]


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize(("messages", "expected"), CASES)
def test_renders_the_same_everywhere(
    messages: list[dict[str, Any]], expected: str, generation_prompt: bool
) -> None:
    expected = START + expected + ("<|assistant|>\n" if generation_prompt else "")
    for trim, lstrip in product([False, True], repeat=2):
        template = Environment(trim_blocks=trim, lstrip_blocks=lstrip).from_string(SOURCE)
        assert (
            template.render(messages=messages, add_generation_prompt=generation_prompt) == expected
        )
    rendered: Any = render_jinja_template(
        conversations=[messages], chat_template=SOURCE, add_generation_prompt=generation_prompt
    )
    assert rendered[0] == [expected]


@pytest.mark.parametrize("content", ["<think></think><answer>", [text("<think></think><answer>")]])
def test_begun_answer_can_be_continued(content: str | list[object]) -> None:
    rendered: Any = render_jinja_template(
        conversations=[
            [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": content}]
        ],
        chat_template=SOURCE,
        continue_final_message=True,
    )
    assert rendered[0] == [START + "<|user|>\nHello<|assistant|>\n<think></think><answer>"]
