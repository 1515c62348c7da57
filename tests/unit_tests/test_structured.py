"""Answers of a wanted form, from a server that writes what the test says."""

import enum
import json
from collections.abc import Callable
from itertools import pairwise, product
from typing import Any, Literal

import pydantic.v1
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from langchain_glm4v import ChatGLM4V
from langchain_glm4v.abilities import Answer, Question
from langchain_glm4v.grounding import Box
from langchain_glm4v.output_parsers import (
    AnswerParser,
    BoxOutputParser,
    ChoiceParser,
    JsonAnswerOutputParser,
)
from langchain_glm4v.structured import choices_from, choices_of, response_format
from langchain_glm4v.tool_protocol import call

Ask = Callable[[Question], Answer]
Model = Callable[..., ChatGLM4V]


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str | None = None


class OldJoke(pydantic.v1.BaseModel):
    """A joke."""

    setup: str
    punchline: str


class JokeDict(TypedDict):
    """A joke."""

    setup: str
    punchline: str


class Kind(enum.Enum):
    """Kinds of pages."""

    RECEIPT = "receipt"
    LETTER = "a letter."
    ONE = 1


JOKE = {"setup": 'Why "did" the cat…', "punchline": "天 }, because."}
SCHEMA = Joke.model_json_schema()
NOT_WHOLE = '{"setup":"Why'


def thought(answer: str) -> str:
    return f"<think>I look.</think><answer>{answer}"


@pytest.fixture
def model(writer: type[Any], vllm: Ask) -> Model:
    """A model that answers a text, thinking first."""
    return lambda answer, **fields: writer(vllm, thought(answer)).model(**fields)


@pytest.fixture
def wordy(writer: type[Any]) -> Model:
    """As `model`, on a server without grammars."""
    return lambda answer, **fields: writer(lambda _: None, thought(answer)).model(**fields)


async def in_every_way(chain: Runnable[Any, Any]) -> list[Any]:
    """What a chain gives, whole and as the end of a stream."""
    return [
        chain.invoke("Hi"),
        await chain.ainvoke("Hi"),
        list(chain.stream("Hi"))[-1],
        [value async for value in chain.astream("Hi")][-1],
    ]


# --- JSON ---


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Joke, Joke(**JOKE)),
        (OldJoke, OldJoke(**JOKE)),
        (JokeDict, JOKE),
        (SCHEMA, JOKE),
    ],
)
async def test_values(model: Model, wordy: Model, schema: Any, value: Any, method: Any) -> None:
    answer = json.dumps(JOKE, ensure_ascii=False)
    if method == "function_calling":
        answer = call("JokeDict" if schema is JokeDict else schema_name(schema), JOKE)
    for made, output_version in product((model, wordy), ("v0", "v1")):
        chat = made(answer, output_version=output_version)
        chain = chat.with_structured_output(schema, method=method)
        assert await in_every_way(chain) == [value] * 4
        raw = chat.with_structured_output(schema, method=method, include_raw=True).invoke("Hi")
        assert raw["parsed"] == value
        assert raw["parsing_error"] is None
        assert raw["raw"].content_blocks[0] == {"type": "reasoning", "reasoning": "I look."}


def schema_name(schema: Any) -> str:
    return str(schema["title"] if isinstance(schema, dict) else schema.__name__)


@pytest.mark.parametrize(
    "answer",
    [
        f"```json\n{json.dumps(JOKE)}\n```",
        f"Here it is:\n```\n{json.dumps(JOKE, indent=2)}\n```\nEnjoy.",
        f"\n {json.dumps(JOKE)}\n",
        f"<|begin_of_box|>{json.dumps(JOKE)}<|end_of_box|>",
    ],
)
async def test_json_as_models_without_a_grammar_write_it(wordy: Model, answer: str) -> None:
    assert await in_every_way(wordy(answer).with_structured_output(SCHEMA)) == [JOKE] * 4


def test_a_string_may_hold_line_breaks(wordy: Model) -> None:
    found = wordy('{"setup":"one\ntwo"}').with_structured_output(Joke).invoke("Hi")
    assert found == Joke(setup="one\ntwo")


def test_any_json_in_json_mode(model: Model) -> None:
    assert model('{"a":[1]}').with_structured_output(method="json_mode").invoke("Hi") == {"a": [1]}


UNUSABLE = [
    "",
    "I cannot tell.",
    NOT_WHOLE,
    '{"setup":"a"} and more',
    '{"setup":"a"}}',
    '```json\n{"setup":"a"\n```',
    '{"punchline":"a"}',
    '{"setup":1}',
    "[" * 20_000,
]


@pytest.mark.parametrize("answer", UNUSABLE, ids=range(len(UNUSABLE)))
async def test_what_is_no_answer(wordy: Model, answer: str) -> None:
    chain = wordy(answer, repetition_guard=False).with_structured_output(Joke)
    for run in (chain.invoke, lambda text: list(chain.stream(text))):
        with pytest.raises(OutputParserException, match="is unusable: ") as caught:
            run("Hi")
        assert caught.value.llm_output == answer
        assert len(str(caught.value)) < 1500
    with pytest.raises(OutputParserException, match="is unusable: "):
        await chain.ainvoke("Hi")


class Picky(BaseModel):
    """Has a check with a bug."""

    a: int

    @field_validator("a")
    @classmethod
    def check(cls, value: int) -> int:
        """Divide by zero."""
        return 1 // (value - value)


@pytest.mark.parametrize(
    ("schema", "answer", "max_tokens", "message"),
    [
        (Joke, json.dumps(JOKE), 10, "max_tokens cut it off: allow more"),
        # All of it is there, but who knows?
        (SCHEMA, '{"a":1}', 14, "max_tokens cut it off"),
        (Joke, NOT_WHOLE, None, "JSONDecodeError: Unterminated string"),
        (Joke, '{"setup":1}', None, "ValidationError"),
        (Picky, '{"a":1}', None, "ZeroDivisionError"),
        (Literal["yes", "no"], "maybe", None, "none of 'yes', 'no'"),
        (Literal["yes", "no"], "yes", 7, "max_tokens cut it off"),
    ],
)
async def test_errors_are_told_beside_the_raw_message(
    model: Model, schema: Any, answer: str, max_tokens: int | None, message: str
) -> None:
    chain = model(answer + "." if max_tokens else answer, max_tokens=max_tokens)
    told = chain.with_structured_output(schema, include_raw=True)
    values = [told.invoke("Hi"), await told.ainvoke("Hi")]
    for chunks in (list(told.stream("Hi")), [chunk async for chunk in told.astream("Hi")]):
        assert all(isinstance(chunk["raw"], AIMessageChunk) for chunk in chunks[:-1])
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        values.append(whole)

    for value in values:
        assert value.keys() == {"raw", "parsed", "parsing_error"}
        assert isinstance(value["raw"], AIMessage)
        assert value["raw"].additional_kwargs["reasoning_content"] == "I look."
        assert value["parsed"] is None
        assert isinstance(value["parsing_error"], OutputParserException)
        assert message in str(value["parsing_error"])
    with pytest.raises(OutputParserException, match=message):
        list(chain.with_structured_output(schema).stream("Hi"))


@pytest.mark.parametrize("schema", [Joke, SCHEMA])
def test_a_call_that_was_cut_off_is_none(model: Model, schema: Any) -> None:
    chain = model(call("Joke", JOKE)).with_structured_output(
        schema, method="function_calling", max_tokens=35
    )
    with pytest.raises(OutputParserException, match="max_tokens cut it off"):
        chain.invoke("Hi")
    with pytest.raises(OutputParserException, match="max_tokens cut it off"):
        list(chain.stream("Hi"))
    never = model("No.").with_structured_output(schema, method="function_calling")
    with pytest.raises(OutputParserException, match="no valid tool call"):
        never.invoke("Hi")


def test_a_repetition_is_no_answer() -> None:
    message = AIMessage('{"a":1}', response_metadata={"finish_reason": "repetition"})
    with pytest.raises(OutputParserException, match="it repeated itself endlessly"):
        JsonAnswerOutputParser().invoke(message)


# --- streams ---


def grows(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return all(key in after and grows(before[key], after[key]) for key in before)
    return before is None or str(after).startswith(str(before))


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_a_stream_grows(model: Model, method: Any) -> None:
    answer = call("Joke", JOKE) if method == "function_calling" else json.dumps(JOKE)
    chain = model(answer).with_structured_output(SCHEMA, method=method)
    for values in (list(chain.stream("Hi")), [value async for value in chain.astream("Hi")]):
        assert len(values) > 5
        assert values[-1] == JOKE
        assert all(map(grows, values, values[1:]))
        assert all(one != other for one, other in pairwise(values))


def test_a_stream_of_instances(model: Model) -> None:
    values = list(model(json.dumps(JOKE)).with_structured_output(Joke).stream("Hi"))

    assert len(values) > 2
    assert all(isinstance(value, Joke) for value in values)


def test_strings_are_parsed_too() -> None:
    parser = JsonAnswerOutputParser()

    assert parser.parse('{"a": 1}') == {"a": 1}
    assert parser.invoke('{"a": 1}') == {"a": 1}
    assert list(parser.transform(iter(['{"a"', ": [1", ", 2]}"])))[-1] == {"a": [1, 2]}


LONG = 150_000


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": ["word"] * (LONG // 8)}),
        json.dumps({"a": "word " * (LONG // 5)}),
        '{"a": x' + "y" * LONG,  # LangChain's parser of partial JSON takes hours for this
        "```json" + "\n" * LONG,
        '{"a":' * (LONG // 5),
        "I cannot " * (LONG // 9),
    ],
    ids=range(6),
)
def test_long_answers_take_linear_time(text: str) -> None:
    pieces = [text[at : at + 8] for at in range(0, len(text), 8)]
    values: list[Any] = []
    try:
        values += JsonAnswerOutputParser().transform(iter(pieces))
    except OutputParserException:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(text)
    else:
        assert values[-1] == json.loads(text)


# --- choices ---


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("receipt", Kind.RECEIPT),
        (" Receipt.\n", Kind.RECEIPT),
        ("a letter.", Kind.LETTER),
        ("A letter", Kind.LETTER),
        ("1", Kind.ONE),
        ("<|begin_of_box|>receipt<|end_of_box|>", Kind.RECEIPT),
    ],
)
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_an_enum(wordy: Model, answer: str, value: Kind, method: Any) -> None:
    chain = wordy(answer).with_structured_output(Kind, method=method)
    assert await in_every_way(chain) == [value] * 4


async def test_a_literal_and_choices(model: Model) -> None:
    literal = Literal["yes", 2]
    assert await in_every_way(model("2").with_structured_output(literal)) == [2] * 4
    assert await in_every_way(model("no").with_choices(["yes", "no"])) == ["no"] * 4
    raw = model("no").with_choices(["yes", "no"], include_raw=True).invoke("Hi")
    assert (raw["parsed"], raw["parsing_error"]) == ("no", None)


def test_the_choices_reach_the_server(writer: type[Any], vllm: Ask) -> None:
    server = writer(vllm, thought("receipt"))
    server.model().with_structured_output(Kind, thinking_budget=9).invoke("Hi")
    (body,) = server.bodies

    *_, bound = body["response_format"]["format"]["elements"]
    assert [element["value"] for element in bound["elements"]] == ["receipt", "a letter.", "1"]
    assert body["messages"][0]["content"].endswith("\nreceipt\na letter.\n1")


@pytest.mark.parametrize("answer", ["", "receipt letter", "letters", "READ"])
def test_no_choice(answer: str) -> None:
    with pytest.raises(OutputParserException, match="none of 'read', 'Read', 'letter'"):
        ChoiceParser(choices={"read": 1, "Read": 2, "letter": 3}).parse(answer)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "two or more texts"),
        (["a"], "two or more texts"),
        (["a", "a"], "all different"),
        ("yes", "two or more texts"),
        (["a", " "], "not empty"),
        (["a", 1], "each must be a text"),
        ([["a"], ["b"]], "each must be a text"),
    ],
)
def test_choices_that_are_none(model: Model, choices: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model("a").with_choices(choices)


def test_what_has_choices() -> None:
    assert choices_of(Kind) == {"receipt": Kind.RECEIPT, "a letter.": Kind.LETTER, "1": Kind.ONE}
    assert choices_of(Literal["a", 1]) == {"a": "a", "1": 1}
    assert choices_of(Joke) is choices_of(SCHEMA) is choices_of(None) is None
    assert choices_from(("a", "b")) == {"a": "a", "b": "b"}


# --- boxes ---


@pytest.mark.parametrize(
    ("answer", "boxes"),
    [
        ("<|begin_of_box|>[[1,2,3,4],[5,6,7,8]]<|end_of_box|>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (
            "A cat <|begin_of_box|>[[1,2,3,4]]<|end_of_box|> and, beside 9,9,9,9, a dog "
            "<|begin_of_box|>[[5,6,7,8]]<|end_of_box|>.",
            [(1, 2, 3, 4), (5, 6, 7, 8)],
        ),
        ("The cat is at [1, 2, 3, 4].", [(1, 2, 3, 4)]),
        ("<|begin_of_box|>[]<|end_of_box|>", []),
        ("[]", []),
        ("", []),
    ],
)
async def test_boxes(model: Model, answer: str, boxes: list[Any]) -> None:
    values = await in_every_way(model(answer).with_boxes())

    assert [[tuple(box) for box in value] for value in values] == [boxes] * 4
    assert all(isinstance(box, Box) for value in values for box in value)


def test_no_boxes(model: Model) -> None:
    with pytest.raises(OutputParserException, match="no four numbers stand together"):
        model("There is no cat.").with_boxes().invoke("Hi")
    found = model("Nowhere, 12.").with_boxes(include_raw=True).invoke("Hi")
    assert found["parsed"] is None
    assert "no four numbers" in str(found["parsing_error"])


# --- what LangChain sees ---


class Starts(BaseCallbackHandler):
    """Notes the options of every start."""

    def __init__(self) -> None:
        self.options: list[Any] = []

    def on_chat_model_start(self, *_: Any, **kwargs: Any) -> None:
        self.options.append(kwargs["options"])


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Joke, JokeDict, SCHEMA])
def test_one_call_with_the_callers_own_schema(model: Model, schema: Any, method: Any) -> None:
    answer = json.dumps(JOKE)
    if method == "function_calling":
        answer = call("JokeDict" if schema is JokeDict else "Joke", JOKE)
    for include_raw in (False, True):
        starts = Starts()
        chain = model(answer).with_structured_output(
            schema, method=method, include_raw=include_raw, strict=True
        )
        chain.invoke("Hi", {"callbacks": [starts]})
        list(chain.stream("Hi", {"callbacks": [starts]}))
        told = [options["ls_structured_output_format"] for options in starts.options]

        assert (
            told
            == [
                {
                    "kwargs": {"method": method, "strict": True},
                    "schema": convert_to_json_schema(schema),
                }
            ]
            * 2
        )


def test_parsers_are_told_apart_in_traces() -> None:
    parsers: list[AnswerParser] = [
        JsonAnswerOutputParser(),
        ChoiceParser(choices={"a": 1}),
        BoxOutputParser(),
    ]
    assert len({parser._type for parser in parsers}) == 3


def test_methods_and_schemas_that_are_none(model: Model) -> None:
    chat = model("a")
    with pytest.raises(ValueError, match="method is 'xml': accepted are 'json_schema', 'json_mo"):
        chat.with_structured_output(Joke, method="xml")  # type: ignore[arg-type]
    for method in ("json_schema", "function_calling"):
        with pytest.raises(ValueError, match=f"{method} needs a schema"):
            chat.with_structured_output(method=method)


def test_a_generation_without_a_message() -> None:
    assert JsonAnswerOutputParser().parse_result([Generation(text="[1]")]) == [1]
    generation = ChatGeneration(message=AIMessage("[1,2,3,4]"))
    assert BoxOutputParser().parse_result([generation]) == [Box(1, 2, 3, 4)]


@pytest.mark.parametrize(
    "schema",
    [
        {"title": "L", "type": "array", "items": {"type": "string"}},
        {"title": "X", "anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "object", "properties": {"a": {"type": "integer"}}},
    ],
)
def test_a_json_schema_stays_whole(schema: dict[str, Any]) -> None:
    wanted = response_format(schema, "json_schema")
    assert wanted["json_schema"]["schema"] == schema
