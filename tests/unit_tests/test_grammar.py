"""What the grammars let a model write: with xgrammar itself and the miniature's tokenizer."""

import json
import re
from functools import cache
from typing import Any

import pytest
import xgrammar
from transformers import AutoTokenizer

from langchain_glm4v import grammar
from langchain_glm4v.tool_protocol import Choice, call
from tiny_glm4v import checkpoint_path

THOUGHT = "<think>I look.</think><answer>"
ADD: dict[str, Any] = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
}
CLOCK: dict[str, Any] = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
TOOLS = [ADD, CLOCK]
TOTAL: dict[str, Any] = {
    "title": "Total",
    "type": "object",
    "properties": {"total": {"type": "string"}, "paid": {"type": "boolean"}},
    "required": ["total"],
}
INTEGER = {"type": "integer"}
TAG_OR_LETTER = re.compile(f"({'|'.join(map(re.escape, grammar.TAGS))}|.)", re.DOTALL)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(checkpoint_path())


@cache
def compiler() -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(tokenizer()))


@cache
def ids() -> dict[str, int]:
    return {tag: tokenizer().convert_tokens_to_ids(tag) for tag in grammar.TAGS}


def encoded(text: str) -> list[int]:
    tokens: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return tokens


class Guard:
    """A grammar as the engine has it."""

    def __init__(
        self, answer: grammar.Format, *, thinking: bool = True, budget: int | None = None
    ) -> None:
        wanted = grammar.response_format(answer, ids(), thinking=thinking, budget=budget)
        self.compiled = compiler().compile_structural_tag(json.dumps(wanted))

    def allows(self, text: str) -> bool:
        """Whether a model can write all of the text, letter by letter, and end there.

        Of the longer tokens, xgrammar's mask leaves out some that reach across parts of a grammar.
        """
        stops = [ids()[token] for token in ("<|endoftext|>", "</answer>", "<|user|>")]
        matcher = xgrammar.GrammarMatcher(self.compiled, override_stop_tokens=stops)
        mask = xgrammar.allocate_token_bitmask(1, len(tokenizer()))
        pieces = [*filter(None, TAG_OR_LETTER.split(text)), "</answer>"]
        for token in (token for piece in pieces for token in encoded(piece)):
            matcher.fill_next_token_bitmask(mask)
            if not mask[0, token // 32] >> token % 32 & 1:
                return False
            assert matcher.accept_token(token)
        return True


def calls(choice: Any, *, parallel: bool = True) -> Guard:
    return Guard(grammar.calls_answer(TOOLS, Choice.read(choice), parallel=parallel))


ONE, OTHER = call("add", {"a": 3}), call("clock", {})


# --- thinking ---


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('<think>I look.</think><answer>{"total":"1"}', True),
        ('<think>I look.</think>\n<answer>{"total":"1"}', True),
        ('<think></think><answer>{"total":"1"}', True),
        ('<think>Is <b> < "{}"?\n天</think><answer>{"total":"1"}', True),
        ('<think>In <|begin_of_box|>1<|end_of_box|></think><answer>{"total":"1"}', True),
        ('{"total":"1"}', False),
        ('<answer>{"total":"1"}', False),
        ('<think>I look.</think>{"total":"1"}', False),
        ('<think>I <|image|> look.</think><answer>{"total":"1"}', False),
        ('<think>I <answer> look.</think><answer>{"total":"1"}', False),
        ("<think>I look.</think><answer>", False),
        ("<think>I look.", False),
    ],
)
def test_the_thinking_is_free_and_comes_first(text: str, *, allowed: bool) -> None:
    assert Guard(grammar.json_answer(TOTAL)).allows(text) is allowed


def test_without_thinking_the_answer_comes_at_once() -> None:
    guard = Guard(grammar.json_answer(TOTAL), thinking=False)

    assert guard.allows('{"total":"1"}')
    assert not guard.allows(THOUGHT + '{"total":"1"}')


@pytest.mark.parametrize("budget", [1, 2, 5, 50])
def test_budget(budget: int) -> None:
    guard = Guard(grammar.json_answer(TOTAL), budget=budget)
    for length in (budget, budget + 1):
        thought = "<" * length
        text = f'<think>{thought}</think><answer>{{"total":"1"}}'
        assert guard.allows(text) is (length <= budget)


def test_tags_spelled_in_letters_are_none() -> None:
    matcher = xgrammar.GrammarMatcher(Guard(grammar.json_answer(TOTAL)).compiled)
    (begin,) = encoded("<")

    assert not matcher.accept_token(begin)
    assert matcher.accept_token(ids()["<think>"])


# --- JSON ---


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        ('{"total":"1"}', True),
        ('{"total": "1", "paid": true}', True),
        ('{"total":"天 \\" \\n"}', True),
        ("{}", False),
        ('{"total":1}', False),
        ('{"total":"1","other":2}', False),
        ('{"total":"1"', False),
        ('{"total":"1"}.', False),
        ('{   "total":"1"}', False),  # a weak model would fill its context with blanks
        ('```json\n{"total":"1"}\n```', False),
    ],
)
def test_json(answer: str, *, allowed: bool) -> None:
    assert Guard(grammar.json_answer(TOTAL)).allows(THOUGHT + answer) is allowed


def test_any_object() -> None:
    guard = Guard(grammar.json_answer({"type": "object"}))

    assert guard.allows(THOUGHT + '{"a":[1,{"b":null}]}')
    assert guard.allows(THOUGHT + "{}")
    assert not guard.allows(THOUGHT + "[1]")


# --- calls ---


WORDS = {"", "Hi, 天 < b", "<tool"}
WORDS_AND_CALL = {f"I add.{ONE}"}
SINGLE, SEVERAL = {ONE}, {ONE + ONE}
OTHERS, MIXED = {OTHER}, {ONE + OTHER}
WORDS_BETWEEN = {f"{ONE}\n{OTHER}", f"{ONE}."}
ANSWERS = WORDS | WORDS_AND_CALL | SINGLE | SEVERAL | OTHERS | MIXED | WORDS_BETWEEN


@pytest.mark.parametrize(
    ("choice", "parallel", "allowed"),
    [
        ("auto", True, ANSWERS),
        ("auto", False, WORDS | WORDS_AND_CALL | SINGLE | OTHERS),
        ("any", True, SINGLE | SEVERAL | OTHERS | MIXED),
        ("any", False, SINGLE | OTHERS),
        ("add", True, SINGLE | SEVERAL),
        ("add", False, SINGLE),
    ],
)
def test_calls(choice: str, allowed: set[str], *, parallel: bool) -> None:
    guard = calls(choice, parallel=parallel)

    assert {answer for answer in ANSWERS if guard.allows(THOUGHT + answer)} == allowed


@pytest.mark.parametrize(
    "answer",
    [
        call("sub", {"a": 3}),
        call("add", {}),
        call("add", {"a": "3"}),
        call("add", {"a": 3, "c": 4}),
        '<tool_call>{"name":"add"}</tool_call>',
        ONE.removesuffix("</tool_call>"),
        "<tool_call>",
        f"{ONE}<|assistant|>",
        "<think>",
    ],
)
@pytest.mark.parametrize("choice", ["auto", "any", "add"])
def test_what_is_no_call_of_these_tools(answer: str, choice: str) -> None:
    assert not calls(choice).allows(THOUGHT + answer)


@pytest.mark.parametrize(
    ("schema", "allowed", "refused"),
    [
        (None, ["{}", '{"q":1}'], ["null", "[]"]),
        ({}, ["{}", '{"q":1}'], ["null", "1"]),
        ({"type": "object"}, ["{}", '{"q":1}'], ["null"]),
        ({"properties": {"a": INTEGER}, "required": ["a"]}, ['{"a":1}'], ["{}", "null"]),
        (
            {"type": ["object", "null"], "properties": {"a": INTEGER}, "required": ["a"]},
            ['{"a":1}'],
            ["null"],
        ),
        (
            {
                "description": None,
                "type": "object",
                "properties": {"a": {"description": None, **INTEGER}},
            },
            ['{"a":1}', "{}"],
            ['{"a":"1"}'],
        ),
        (
            {
                "$ref": "#/$defs/A",
                "$defs": {"A": {"type": "object", "properties": {"a": INTEGER}, "required": ["a"]}},
            },
            ['{"a":1}'],
            ["{}", "null"],
        ),
        (
            {
                "properties": {"a": {"$ref": "#/definitions/A"}},
                "required": ["a"],
                "definitions": {"A": INTEGER},
            },
            ['{"a":1}'],
            ['{"a":"1"}'],
        ),
        (
            {
                "properties": {"a": INTEGER, "next": {"$ref": "#"}},
                "required": ["a"],
            },
            ['{"a":1}', '{"a":1,"next":{"a":2}}'],
            ['{"a":1,"next":{}}'],
        ),
        (
            {"anyOf": [{"properties": {"a": INTEGER}, "required": ["a"]}, {"type": "null"}]},
            ['{"a":1}'],
            [],
        ),
    ],
)
def test_odd_schemas_of_tools(schema: Any, allowed: list[str], refused: list[str]) -> None:
    tools = [{"name": "f", "parameters": schema}]
    guard = Guard(grammar.calls_answer(tools, Choice("any"), parallel=True))

    def written(arguments: str) -> str:
        return f'{THOUGHT}<tool_call>{{"name":"f","arguments":{arguments}}}</tool_call>'

    assert [arguments for arguments in allowed if not guard.allows(written(arguments))] == []
    assert [arguments for arguments in refused if guard.allows(written(arguments))] == []


def test_a_tool_without_parameters() -> None:
    answer = grammar.calls_answer([{"name": "f"}], Choice("any"), parallel=True)
    assert Guard(answer).allows(THOUGHT + call("f", {}))


# --- other forms ---


def test_choices() -> None:
    choices = ["yes", "yes please", 'a "b"', "天", "<b>"]
    guard = Guard(grammar.choice_answer(choices))

    assert all(guard.allows(THOUGHT + choice) for choice in choices)
    for other in ("", "ye", "yes.", "no", "yes yes please", "Yes"):
        assert not guard.allows(THOUGHT + other)


@pytest.mark.parametrize(
    ("boxes", "allowed"),
    [
        ("[[1,2,3,4]]", True),
        ("[[0,0,1000,1000],[5,6,7,8]]", True),
        ("[]", True),
        ("[[1,2,3]]", False),
        ("[[1,2,3,4,5]]", False),
        ("[[1,2,3,1001]]", False),
        ("[[1,2,3,-4]]", False),
        ("[[1,2,3,4.5]]", False),
        ("[1,2,3,4]", False),
        ("", False),
    ],
)
def test_boxes(boxes: str, *, allowed: bool) -> None:
    guard = Guard(grammar.boxes_answer(ids()))

    assert guard.allows(f"{THOUGHT}<|begin_of_box|>{boxes}<|end_of_box|>") is allowed
    assert not guard.allows(THOUGHT + boxes)


def test_calls_or_json() -> None:
    tools = grammar.calls_answer(TOOLS, Choice("any"), parallel=True)
    guard = Guard(grammar.either(tools, grammar.json_answer(TOTAL)))

    for answer in ('{"total":"1"}', ONE, ONE + OTHER):
        assert guard.allows(THOUGHT + answer)
    for answer in ("Hi", "", ONE + '{"total":"1"}', '{"total":"1"}' + ONE):
        assert not guard.allows(THOUGHT + answer)
