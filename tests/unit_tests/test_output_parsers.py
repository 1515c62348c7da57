"""Output parsers, on the output of all kinds of clients."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from langchain_glm4v import (
    Box,
    BoxOutputParser,
    JsonAnswerOutputParser,
    ThinkAnswerOutputParser,
)

THOUGHT, ANSWER = "I look.", "A cat [1,2,3,4]."
RAW = f"<think>{THOUGHT}</think><answer>{ANSWER}"
OURS = {"model_provider": "glm4v"}


class Cat(BaseModel):
    """A cat."""

    name: str
    age: int = 0


def ours(text: str, **extras: Any) -> AIMessage:
    return AIMessage(text, additional_kwargs=extras, response_metadata=OURS)


def chunk(content: Any, **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, **fields)


def thinking(text: str, key: str = "reasoning_content", **fields: Any) -> AIMessageChunk:
    return chunk("", additional_kwargs={key: text}, **fields)


def chunks_of(text: str, size: int = 3, **fields: Any) -> list[AIMessageChunk]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [chunk(piece, **fields) for piece in pieces]


async def streamed(parser: Any, chunks: Sequence[Any]) -> list[Any]:
    """What a parser gives for a stream, which must be the same in both ways."""

    async def stream() -> AsyncIterator[Any]:
        for chunk in chunks:
            yield chunk

    values = list(parser.transform(iter(chunks)))
    assert [value async for value in parser.atransform(stream())] == values
    return values


# Name of a client -> a whole output, and the same in chunks.
CLIENTS: dict[str, tuple[Any, Sequence[Any]]] = {
    "ours": (
        ours(ANSWER, reasoning_content=THOUGHT),
        [
            thinking("I ", response_metadata=OURS),
            thinking("look.", response_metadata=OURS),
            *chunks_of(ANSWER, response_metadata=OURS),
            chunk("", chunk_position="last"),
        ],
    ),
    "ours, with blocks": (
        AIMessage(
            [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": ANSWER}],
            response_metadata={**OURS, "output_version": "v1"},
        ),
        [
            chunk(
                [{"type": "reasoning", "reasoning": THOUGHT, "index": 0}], response_metadata=OURS
            ),
            chunk([{"type": "text", "text": ANSWER, "index": 1}], response_metadata=OURS),
        ],
    ),
    "tags in the text": (AIMessage(RAW), chunks_of(RAW)),
    "tags, as of OpenAI's": (
        AIMessage(RAW, response_metadata={"model_provider": "openai", "finish_reason": "stop"}),
        [*chunks_of(RAW), chunk("", response_metadata={"finish_reason": "stop"})],
    ),
    "no first tag": (AIMessage(RAW.removeprefix("<think>")), chunks_of(RAW[7:])),
    "a field of its own": (
        AIMessage(f"<answer>{ANSWER}</answer>", additional_kwargs={"reasoning_content": THOUGHT}),
        [
            thinking(THOUGHT),
            *chunks_of(f"<answer>{ANSWER}</answer>"),
        ],
    ),
    "vLLM's newer field": (
        AIMessage(ANSWER, additional_kwargs={"reasoning": THOUGHT}),
        [thinking(THOUGHT, "reasoning"), *chunks_of(ANSWER)],
    ),
    "blocks": (
        AIMessage(
            [{"type": "reasoning", "reasoning": THOUGHT}, {"type": "text", "text": ANSWER}],
            response_metadata={"output_version": "v1"},
        ),
        [
            chunk([{"type": "reasoning", "reasoning": THOUGHT, "index": 0}]),
            chunk([{"type": "text", "text": ANSWER, "index": 1}]),
        ],
    ),
    "a string": (RAW, [RAW[at : at + 2] for at in range(0, len(RAW), 2)]),
}


# --- reasoning and answer ---


@pytest.mark.parametrize(("message", "chunks"), CLIENTS.values(), ids=CLIENTS)
async def test_reasoning_and_answer_of_any_client(message: Any, chunks: Sequence[Any]) -> None:
    wanted: Any = (
        ("answer", ANSWER),
        ("reasoning", THOUGHT),
        ("both", {"reasoning": THOUGHT, "answer": ANSWER}),
    )
    for returns, value in wanted:
        parser = ThinkAnswerOutputParser(returns=returns)
        assert parser.invoke(message) == await parser.ainvoke(message) == value
        pieces = await streamed(parser, chunks)
        whole = pieces[0]
        for piece in pieces[1:]:
            whole += piece
        assert whole == value


@given(
    st.text(alphabet="ab <>/\n", max_size=20),
    st.text(alphabet="ab <>/\n", max_size=20),
    st.integers(1, 9),
)
def test_a_stream_adds_up_to_the_whole(thought: str, answer: str, size: int) -> None:
    text = f"<think>{thought}</think><answer>{answer}</answer>"
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    parts: dict[str, str] = {}
    for part in ThinkAnswerOutputParser(returns="both").transform(iter(pieces)):
        for key, value in part.items():
            parts[key] = parts.get(key, "") + value

    assert parts == ThinkAnswerOutputParser(returns="both").parse(text)
    assert parts == {"reasoning": thought.strip(), "answer": answer.strip()}


def test_text_comes_as_soon_as_it_is_settled() -> None:
    read: list[str] = []

    def letters() -> Any:
        for letter in RAW:
            read.append(letter)
            yield letter

    stream = ThinkAnswerOutputParser().transform(letters())
    assert next(stream) == ANSWER[0]
    assert "".join(read) == RAW[: RAW.index(ANSWER) + 1]


def test_what_has_no_tags_is_the_answer() -> None:
    both = ThinkAnswerOutputParser(returns="both")

    assert both.parse("Yes.") == {"reasoning": "", "answer": "Yes."}
    assert list(both.transform(iter(["Y", "es."])))[-1] == {"reasoning": ""}
    # The answer of a message of ours is text, whatever it looks like.
    assert ThinkAnswerOutputParser().invoke(ours("<think>is a tag</think>")) == (
        "<think>is a tag</think>"
    )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("<think>I look", "it ends amid the thinking: allow more max_tokens"),
        (
            AIMessage("<think>I look", response_metadata={"finish_reason": "length"}),
            "max_tokens cut it off: allow more",
        ),
        (
            AIMessage(
                "",
                additional_kwargs={"reasoning_content": "I look"},
                response_metadata={**OURS, "finish_reason": "repetition"},
            ),
            "it repeated itself endlessly",
        ),
    ],
)
async def test_no_answer(output: Any, reason: str) -> None:
    for parser in (ThinkAnswerOutputParser(), JsonAnswerOutputParser(), BoxOutputParser()):
        for run in (parser.invoke, lambda it, parser=parser: list(parser.transform(iter([it])))):
            with pytest.raises(OutputParserException, match=reason) as caught:
                run(output)
            assert caught.value.llm_output == "I look"
    for returns in ("reasoning", "both"):
        got: Any = ThinkAnswerOutputParser(returns=returns).invoke(output)
        assert (got if returns == "reasoning" else got["reasoning"]) == "I look"
    partial = ThinkAnswerOutputParser().parse_result([Generation(text="<think>I")], partial=True)
    assert partial == ""


def test_an_answer_that_was_cut_is_still_a_text() -> None:
    message = AIMessage(RAW, response_metadata={"finish_reason": "length"})
    assert ThinkAnswerOutputParser().invoke(message) == ANSWER


def test_the_finish_reason_may_be_beside_the_message() -> None:
    generation = ChatGeneration(
        message=AIMessage('{"a":1}'), generation_info={"finish_reason": "length"}
    )
    with pytest.raises(OutputParserException, match="max_tokens cut it off"):
        JsonAnswerOutputParser().parse_result([generation])


# Name of a client -> what it says of an output that a limit cut off.
CUT_OFF: dict[str, dict[str, Any]] = {
    "OpenAI": {"finish_reason": "length"},
    "OpenAI, Responses": {
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
    },
    "Anthropic": {"stop_reason": "max_tokens"},
    "Anthropic, context": {"stop_reason": "model_context_window_exceeded"},
    "Bedrock": {"stopReason": "max_tokens"},
    "Cohere, Google": {"finish_reason": "MAX_TOKENS"},
    "Mistral": {"finish_reason": "model_length"},
    "Ollama": {"done_reason": "length"},
}


@pytest.mark.parametrize("metadata", CUT_OFF.values(), ids=CUT_OFF)
async def test_a_cut_is_seen_whoever_tells_it(metadata: dict[str, Any]) -> None:
    message = AIMessage('{"a": [1,2,3,4]}', response_metadata=metadata)
    pieces = [*chunks_of(str(message.text)), chunk("", response_metadata=metadata)]
    for parser in (JsonAnswerOutputParser(), BoxOutputParser()):
        with pytest.raises(OutputParserException, match="max_tokens cut it off"):
            parser.invoke(message)
        with pytest.raises(OutputParserException, match="max_tokens cut it off"):
            await streamed(parser, pieces)
    with pytest.raises(OutputParserException, match="max_tokens cut it off"):
        ThinkAnswerOutputParser().invoke(AIMessage("<think>I", response_metadata=metadata))


@pytest.mark.parametrize(
    "metadata",
    [
        {"stop_reason": "end_turn", "stop_sequence": None},
        {"finish_reason": "STOP"},
        {"done_reason": "stop"},
        {"finish_reason": "stop", "stop_reason": "length"},  # a stop string, as vLLM tells them
        {"stop_reason": 151348},
        {"incomplete_details": None, "status": "completed"},
    ],
)
def test_what_ended_by_itself_is_not_cut(metadata: dict[str, Any]) -> None:
    message = AIMessage('{"a": 1}', response_metadata=metadata)
    assert JsonAnswerOutputParser().invoke(message) == {"a": 1}


# --- boxes ---


@pytest.mark.parametrize(("message", "chunks"), CLIENTS.values(), ids=CLIENTS)
async def test_boxes_of_any_client(message: Any, chunks: Sequence[Any]) -> None:
    parser = BoxOutputParser()
    boxes = [Box(1, 2, 3, 4, "cat")]

    assert parser.invoke(message) == await parser.ainvoke(message) == boxes
    assert (await streamed(parser, chunks))[-1] == boxes


TAGGED = "beside [9,9,9,9], a dog <|begin_of_box|>[[1,2,3,4],[5,6,7,8]]<|end_of_box|>"
DOGS = [Box(1, 2, 3, 4, "dog"), Box(5, 6, 7, 8, "dog")]


def test_only_tagged_boxes_count() -> None:
    answer = TAGGED.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "")

    assert BoxOutputParser().parse(TAGGED) == DOGS
    assert BoxOutputParser().invoke(ours(answer, boxes=["[[1,2,3,4],[5,6,7,8]]"])) == DOGS
    assert len(BoxOutputParser().invoke(ours(answer))) == 3
    assert BoxOutputParser().parse("Nothing: <|begin_of_box|>[]<|end_of_box|>") == []


async def test_boxes_come_one_after_the_other() -> None:
    text = "<think>at 7,7,7,7?</think><answer>[[1,2,3,41],[5,6,7,81.25]]"
    boxes = [Box(1, 2, 3, 41), Box(5, 6, 7, 81.25)]

    assert await streamed(BoxOutputParser(), list(text)) == [boxes[:1], boxes]


@pytest.mark.parametrize(
    "lead", ["", "```json\n", " \n", "```\n[", '[{"label": "cat", "bbox_2d": ']
)
async def test_boxes_that_are_all_of_an_answer_come_before_its_end(lead: str) -> None:
    text = f"<think>?</think><answer>{lead}[1,2,3,4],"
    assert len(await streamed(BoxOutputParser(), [*text, " [5,6,7,8]"])) == 2


async def test_boxes_before_the_tagged_ones_are_not_shown() -> None:
    assert await streamed(BoxOutputParser(), list(TAGGED)) == [DOGS]
    answer = TAGGED.replace("<|begin_of_box|>", "").replace("<|end_of_box|>", "")
    pieces = chunks_of(answer, response_metadata=OURS)
    last = chunk("", additional_kwargs={"boxes": ["[[1,2,3,4],[5,6,7,8]]"]}, response_metadata=OURS)
    assert await streamed(BoxOutputParser(), [*pieces, last]) == [DOGS]


async def test_boxes_in_pixels() -> None:
    parser = BoxOutputParser(size=(2000, 500))
    text = "[[-10,20,30,40],[1001,0,1002,5],[500,500,1200,600]]"
    pixels = [(0, 10, 60, 20), (1000, 250, 2000, 300)]

    assert parser.parse(text) == pixels
    assert (await streamed(parser, list(text)))[-1] == pixels


@pytest.mark.parametrize("answer", ["", "[]", "[ ]", " [[\n]] ", "```json\n[]\n```"])
def test_no_boxes(answer: str) -> None:
    assert BoxOutputParser().parse(answer) == []


def test_what_is_no_box() -> None:
    with pytest.raises(OutputParserException, match="no four numbers stand together") as caught:
        BoxOutputParser().parse("<think>x</think><answer>I see none.")
    assert caught.value.llm_output == "I see none."


@pytest.mark.parametrize("kind", [BoxOutputParser, JsonAnswerOutputParser])
def test_streams_give_no_patches(kind: Any) -> None:
    with pytest.raises(ValueError, match="streams give whole values, no patches"):
        kind(diff=True)


# --- JSON ---

CAT: dict[str, Any] = {"name": "Tom", "age": 3}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(CAT),
        f"```json\n{json.dumps(CAT)}\n```",
        f"Here:\n```\n{json.dumps(CAT)}\n```\nDone.",
        f"<|begin_of_box|>{json.dumps(CAT)}<|end_of_box|>",
        f"It is <|begin_of_box|>1<|end_of_box|><|begin_of_box|>{json.dumps(CAT)}<|end_of_box|>.",
        f"It is <|begin_of_box|>```json\n{json.dumps(CAT)}\n```<|end_of_box|>.",
        str(CAT),
        f"{{{json.dumps(CAT)}}}",
    ],
)
@pytest.mark.parametrize("tags", ["{}", "<think>{{?</think><answer>{}", "{}</answer>"])
async def test_json(text: str, tags: str) -> None:
    text = tags.format(text)
    for schema, value in ((None, CAT), (Cat.model_json_schema(), CAT), (Cat, Cat(**CAT))):
        parser = JsonAnswerOutputParser(schema=schema)
        assert parser.parse(text) == parser.invoke(AIMessage(text)) == value
        assert (await streamed(parser, list(text)))[-1] == value


def test_a_box_within_json() -> None:
    text = '{"name": "<|begin_of_box|>10<|end_of_box|>"}'
    assert JsonAnswerOutputParser().parse(text) == {"name": "10"}


async def test_json_grows() -> None:
    text = f"<think>{{}}</think><answer>{json.dumps(CAT)}"

    values = await streamed(JsonAnswerOutputParser(), list(text))
    assert values[:3] == [{}, {"name": ""}, {"name": "T"}]
    assert values[-1] == CAT
    cats = await streamed(JsonAnswerOutputParser(schema=Cat), list(text))
    assert cats[0] == Cat(name="")
    assert cats[-1] == Cat(**CAT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I cannot tell.", "JSONDecodeError: Expecting value"),
        ('{"age": 1}', "ValidationError"),
        ('{"name": "a"', "JSONDecodeError"),
        ('{"name": "a"} and <|begin_of_box|>no JSON<|end_of_box|>', "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
    ],
)
async def test_what_is_no_json(text: str, reason: str) -> None:
    parser = JsonAnswerOutputParser(schema=Cat)
    with pytest.raises(OutputParserException, match=reason) as caught:
        parser.parse(text)
    assert len(str(caught.value)) < 1500
    with pytest.raises(OutputParserException, match=reason):
        await parser.ainvoke(text)
    with pytest.raises(OutputParserException, match=reason):
        await streamed(parser, chunks_of(text, 1000))


# --- in chains ---


async def test_in_a_chain() -> None:
    model: Runnable[Any, AIMessage] = RunnableLambda(
        lambda _: AIMessage(f"<think>…</think><answer>{json.dumps(CAT)}")
    )
    parser = JsonAnswerOutputParser(schema=Cat)
    prompt = ChatPromptTemplate([("system", "{form}"), ("user", "{question}")])
    asked = {"form": parser.get_format_instructions(), "question": "Which cat?"}
    chain = prompt | model | parser

    assert chain.invoke(asked) == await chain.ainvoke(asked) == Cat(**CAT)
    assert [*chain.stream(asked)] == [value async for value in chain.astream(asked)]


def test_format_instructions() -> None:
    assert "<think>" in ThinkAnswerOutputParser().get_format_instructions()
    assert "[[left,top,right,bottom],…]" in BoxOutputParser().get_format_instructions()
    told = JsonAnswerOutputParser(schema=Cat).get_format_instructions()
    schema = json.loads(told.splitlines()[-1])
    assert schema["required"] == ["name"]
    assert JsonAnswerOutputParser().get_format_instructions().endswith('{"type":"object"}')


def test_parsers_are_told_apart_in_traces() -> None:
    parsers: list[Any] = [ThinkAnswerOutputParser(), BoxOutputParser(), JsonAnswerOutputParser()]
    assert len({parser._type for parser in parsers}) == 3


MILLION = 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * (MILLION // 7),
        "<answer>" * (MILLION // 8),
        "<" * MILLION,
        "<think>" + "word " * (MILLION // 10) + "</think><answer>" + "word " * (MILLION // 10),
        "'\\" * (MILLION // 2),
        "{'a':'\\'" * (MILLION // 8),
        "```" * (MILLION // 3),
        "<|begin_of_box|>[" * (MILLION // 17),
    ],
    ids=range(8),
)
@pytest.mark.parametrize(
    "parser",
    [ThinkAnswerOutputParser(returns="both"), BoxOutputParser(), JsonAnswerOutputParser()],
    ids=["text", "boxes", "JSON"],
)
def test_no_text_takes_long(parser: Any, text: str) -> None:
    pieces = [text[at : at + 4000] for at in range(0, len(text), 4000)]
    outcomes = []
    for run in (lambda: parser.parse(text), lambda: list(parser.transform(iter(pieces)))):
        try:
            run()
            outcomes.append("")
        except OutputParserException as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
