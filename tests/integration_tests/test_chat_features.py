"""Tools, forms of answers, thinking and limits of `ChatGLM4V` on the real vLLM."""

import enum
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import tool
from pydantic import BaseModel, SecretStr

from langchain_glm4v import (
    ChatGLM4V,
    ContextLengthError,
    GLM4VServer,
    UnsupportedByServerError,
    chat_models,
)
from langchain_glm4v.abilities import Question, run
from langchain_glm4v.grounding import Box
from langchain_glm4v.server import probes

MEDIA = Path(__file__).resolve().parents[2] / "examples" / "media"
RECEIPT = {"type": "image", "path": str(MEDIA / "receipt.png")}
SHAPES = {"type": "image", "path": str(MEDIA / "shapes.png")}
TOTAL = "10.45"
CONTEXT = 8192  # tokens, of the miniature
LONG_THINKING = "Transcribe the text."


@pytest.fixture
def model(server: GLM4VServer) -> ChatGLM4V:
    return ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        sampling="deterministic",
        max_tokens=512,
    )


def asked(text: str, *pictures: dict[str, Any]) -> list[HumanMessage]:
    return [HumanMessage([*pictures, {"type": "text", "text": text}])]


def joined(chunks: Sequence[AIMessage]) -> AIMessageChunk:
    """The message that the chunks of a stream add up to."""
    return add_ai_message_chunks(*[c for c in chunks if isinstance(c, AIMessageChunk)])


def thought(message: AIMessage) -> str:
    return str(message.additional_kwargs.get("reasoning_content", ""))


@tool
def get_weather(location: str) -> str:
    """Get the weather at a location."""
    return f"It's sunny in {location}."


@tool
def random_image() -> list[dict[str, Any]]:
    """Return a random image."""
    return [RECEIPT]


class Receipt(BaseModel):
    """What a receipt says."""

    Total: str


class Kind(enum.Enum):
    """Kinds of pages."""

    RECEIPT = "receipt"
    LETTER = "letter"


# --- thinking ---


def test_thinking_off(model: ChatGLM4V) -> None:
    question = asked("What is the Total?", RECEIPT)
    chunks = list(model.stream(question, thinking="off"))
    for message in (model.invoke(question, thinking="off"), joined(chunks)):
        assert (thought(message), message.text) == ("", TOTAL)
    assert sum(bool(chunk.text) for chunk in chunks) > 1, "nothing is held back"


def test_thinking_budget(model: ChatGLM4V) -> None:
    question = asked(LONG_THINKING, RECEIPT)
    free = model.invoke(question)
    short = model.invoke(question, thinking_budget=2)

    assert model.get_num_tokens(thought(short)) == 2 < model.get_num_tokens(thought(free))
    assert thought(free).startswith(thought(short))
    assert short.text.endswith(f"Total: {TOTAL}")


@pytest.fixture
def without_budget(model: ChatGLM4V, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatGLM4V]:
    """The model on a server that keeps no budget."""
    model.invoke("Hello")
    known = {
        key: replace(abilities, budget=False) for key, abilities in chat_models._abilities.items()
    }
    monkeypatch.setattr(chat_models, "_abilities", known)
    yield model


async def test_thinking_budget_in_two_rounds(without_budget: ChatGLM4V) -> None:
    question = asked(LONG_THINKING, RECEIPT)
    bound = without_budget.bind(thinking_budget=2)
    reply = bound.invoke(question)

    assert without_budget.get_num_tokens(thought(reply)) == 2
    assert reply.text.endswith(f"Total: {TOTAL}")
    others = [
        joined(list(bound.stream(question))),
        await bound.ainvoke(question),
        joined([chunk async for chunk in bound.astream(question)]),
    ]
    for other in others:
        assert (thought(other), other.text) == (thought(reply), reply.text)
        assert other.usage_metadata == reply.usage_metadata


def test_thinking_that_ends_within_the_budget_needs_no_second_round(
    without_budget: ChatGLM4V,
) -> None:
    question = asked("What is the Total?", RECEIPT)
    free = without_budget.invoke(question)
    bound = without_budget.invoke(question, thinking_budget=400)

    assert (thought(bound), bound.text) == (thought(free), free.text)
    assert bound.usage_metadata == free.usage_metadata


# --- forms of answers ---


def test_structured_output_thinks_first(model: ChatGLM4V) -> None:
    question = asked("What is the Total?", RECEIPT)
    found = model.with_structured_output(Receipt, include_raw=True).invoke(question)

    assert found["parsed"] == Receipt(Total=TOTAL)
    assert found["parsing_error"] is None
    assert thought(found["raw"])


def test_structured_output_with_a_budget_and_without_thinking(model: ChatGLM4V) -> None:
    question = asked("What is the Total?", RECEIPT)
    for options in ({"thinking_budget": 2}, {"thinking": "off"}):
        found = model.with_structured_output(Receipt, include_raw=True, **options).invoke(question)
        assert found["parsed"] == Receipt(Total=TOTAL)
        assert model.get_num_tokens(thought(found["raw"])) <= 2


def test_a_cut_off_answer_is_an_error_that_is_told(model: ChatGLM4V) -> None:
    question = asked("What is the Total?", RECEIPT)
    found = model.with_structured_output(Receipt, include_raw=True, max_tokens=14).invoke(question)
    assert found["parsed"] is None
    assert isinstance(found["parsing_error"], OutputParserException)
    assert "max_tokens cut it off" in str(found["parsing_error"])
    with pytest.raises(OutputParserException, match="max_tokens cut it off"):
        list(model.with_structured_output(Receipt, max_tokens=14).stream(question))


def test_a_stream_of_json_grows(model: ChatGLM4V) -> None:
    schema = Receipt.model_json_schema()
    values = list(model.with_structured_output(schema).stream(asked("What is the Total?", RECEIPT)))

    assert values[-1] == {"Total": TOTAL}
    assert len(values) > 2


def test_choices(model: ChatGLM4V) -> None:
    question = asked("What is the Total?", RECEIPT)

    assert model.with_choices(["12.99", TOTAL, "9"]).invoke(question) == TOTAL
    assert model.with_structured_output(Kind).invoke("Hello") in Kind
    answer = model.with_structured_output(Literal["yes", "no"]).invoke("Hello")
    assert answer in ("yes", "no")


def test_boxes(model: ChatGLM4V) -> None:
    question = asked("Locate the red circle.", SHAPES)
    free = model.invoke(question)
    boxes = model.with_boxes().invoke(question)

    assert boxes
    assert all(isinstance(box, Box) and 0 <= box.left < box.right <= 1000 for box in boxes)
    assert [json.loads(text) for text in free.additional_kwargs["boxes"]] == [
        [list(box) for box in boxes]
    ]


# --- tools ---


def test_an_agent_calls_a_tool_and_answers(model: ChatGLM4V) -> None:
    agent: Any = create_agent(model, [get_weather])
    question = HumanMessage("What is the weather in San Francisco, CA?")
    _, call, result, answer = agent.invoke({"messages": [question]})["messages"]

    assert [(c["name"], c["args"]) for c in call.tool_calls] == [
        ("get_weather", {"location": "San Francisco, CA"})
    ]
    assert isinstance(result, ToolMessage)
    assert answer.text == "It's sunny in San Francisco, CA."
    assert not answer.tool_calls


def test_a_picture_in_a_tool_result_is_seen(model: ChatGLM4V) -> None:
    call = {"name": "random_image", "args": {}, "id": "1", "type": "tool_call"}
    messages = [
        HumanMessage("Use random_image."),
        AIMessage("", tool_calls=[call]),
        ToolMessage([RECEIPT], tool_call_id="1"),
    ]
    without = [*messages[:2], ToolMessage("", tool_call_id="1")]
    seen = model.invoke(messages, max_tokens=1, allowed_dirs=[MEDIA]).usage_metadata
    unseen = model.invoke(without, max_tokens=1).usage_metadata

    assert seen is not None
    assert unseen is not None
    assert seen["input_tokens"] - unseen["input_tokens"] > 100


async def test_calls_stream(model: ChatGLM4V) -> None:
    bound = model.bind_tools([get_weather], tool_choice="any")
    question = "What is the weather in Lima?"
    chunks = [chunk async for chunk in bound.astream(question)]
    whole = joined(chunks)
    pieces = [piece for chunk in chunks for piece in getattr(chunk, "tool_call_chunks", [])]

    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [
        ("get_weather", {"location": "Lima"})
    ]
    assert len(pieces) > 3
    assert whole.text == ""


# --- limits ---


def test_too_long_a_conversation_is_found_before_sending(model: ChatGLM4V) -> None:
    with pytest.raises(ContextLengthError, match=r"has \d+ tokens and 'tiny' takes 8192"):
        model.invoke("word " * (CONTEXT + 800))


def test_max_tokens_is_fitted(model: ChatGLM4V) -> None:
    def length(words: int) -> int:
        return model.get_num_tokens_from_messages([HumanMessage("word " * words)])

    words = 1000 * (CONTEXT - 60) // length(1000)  # leaves little room, so that it is soon full
    reply = model.invoke("word " * words, max_tokens=CONTEXT)

    assert CONTEXT - 500 < length(words) < CONTEXT
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_tokens"] == length(words)
    assert reply.usage_metadata["output_tokens"] <= CONTEXT - length(words)


def test_reasoning_tokens_are_told(model: ChatGLM4V) -> None:
    reply = model.invoke(asked("What is the Total?", RECEIPT))

    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_token_details"]["reasoning"] > 0
    assert reply.response_metadata["reasoning_tokens"] == "estimated"


def test_a_repetition_is_cut(model: ChatGLM4V) -> None:
    # A grammar that allows nothing but one word forces the loop that real models fall into.
    loop = {"structured_outputs": {"regex": r"(word )*"}}
    reply = model.invoke("Hello", max_tokens=2000, extra_body={**loop, "ignore_eos": True})

    assert reply.response_metadata["finish_reason"] == "repetition"
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] < 1000


# --- a server with another template ---

# As the released model's: only user turns are taken apart, others are printed as they come.
STOCK_TEMPLATE = """\
[gMASK]<sop>
{%- for msg in messages %}
{%- if msg.role == 'user' %}<|user|>
{% for item in msg.content %}
{%- if item.type == 'text' %}{{ item.text }}
{%- else %}<|begin_of_image|><|image|><|end_of_image|>{% endif %}
{%- endfor %}
{%- else %}<|{{ msg.role }}|>
{{ msg.content }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>
{% endif %}"""


def test_a_template_that_garbles_turns_gets_one_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = tmp_path / "stock.jinja"
    template.write_text(STOCK_TEMPLATE)
    monkeypatch.setattr(probes, "check_rendering", lambda *_: None)
    messages = [
        SystemMessage("Be brief."),
        *asked("What is the Total?", RECEIPT),
        AIMessage("It is 1."),
        HumanMessage("Sure?"),
    ]
    with GLM4VServer("tiny", extra_args=("--chat-template", str(template))) as server:
        model = ChatGLM4V(
            base_url=server.base_url, api_key=SecretStr(server.api_key), model="tiny", max_tokens=4
        )
        model.invoke(messages)
        question = {"model": "tiny", "messages": messages_sent(model, messages)}
        tokens = model._ask(Question("/tokenize", question))
        assert tokens is not None
        prompt = model._ask(Question("/detokenize", {"model": "tiny", "tokens": tokens["tokens"]}))
        with pytest.raises(UnsupportedByServerError, match="thinking cannot be turned off"):
            model.invoke("Hello", thinking="off")

    assert prompt is not None
    assert "'type'" not in prompt["prompt"]
    for text in ("Be brief.", "What is the Total?", "It is 1.", "Sure?"):
        assert text in prompt["prompt"]


def messages_sent(model: ChatGLM4V, messages: list[Any]) -> Any:
    """The messages of the request that the model makes."""
    return run(model._plan(messages, None, {}), model._ask).payload["messages"]
