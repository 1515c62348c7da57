"""Finding out what a server can do, with the answers that real servers give."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from langchain_glm4v.abilities import (
    FAILED,
    Abilities,
    Answer,
    Question,
    Steps,
    arun,
    look_for_parser,
    look_up,
    run,
)
from langchain_glm4v.grammar import TAGS
from langchain_glm4v.profiles import HOSTS
from langchain_glm4v.server.probes import CONVERSATION

Ask = Callable[[Question], Answer]


def found(ask: Ask, model: str = "glm") -> Abilities:
    return run(look_up(model, None), ask)


def changed(ask: Ask, path: str, answer: Answer, field: str | None = None) -> Ask:
    """As `ask`, but for the questions of one path, or those of them with a field."""

    def changed_ask(question: Question) -> Answer:
        meant = question.path == path and (field is None or field in (question.body or {}))
        return answer if meant else ask(question)

    return changed_ask


def test_vllm_with_our_template(vllm: Ask) -> None:
    abilities = found(vllm)

    assert abilities.ids is not None
    assert list(abilities.ids) == list(TAGS)
    assert len(set(abilities.ids.values())) == len(TAGS)
    assert abilities == Abilities(
        context_tokens=8192,
        ids=abilities.ids,
        renders=True,
        is_vllm=True,
        continues=True,
        budget=True,
        frames=True,
    )


def test_vllm_with_the_template_that_comes_with_the_model(stock_vllm: Ask) -> None:
    abilities = found(stock_vllm)

    assert not abilities.renders
    assert not abilities.continues
    assert abilities.ids is not None
    assert abilities.is_vllm


@pytest.mark.parametrize(
    ("prompt", "renders"),
    [
        # GLM-4.5V's own template closes the thinking of earlier turns.
        (
            "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\n<think></think>\nHi."
            "<|user|>\nWho are you?<|assistant|>\n",
            True,
        ),
        ("<|user|>\nHello<|assistant|>\nHi.<|user|>\nWho are you?", False),  # no system prompt
        ('<|system|>\n[{"type": "text", "text": "Be brief."}]<|user|>\nHello Hi.', False),
        (None, False),
    ],
)
def test_other_templates(vllm: Ask, prompt: str | None, *, renders: bool) -> None:
    abilities = found(changed(vllm, "/detokenize", {"prompt": prompt}))

    assert abilities.renders is renders
    assert abilities.continues is renders


def test_tags_of_several_tokens_allow_no_grammar(vllm: Ask) -> None:
    split = {"tokens": [*range(len(TAGS) + 3)], "count": len(TAGS) + 3}

    assert found(changed(vllm, "/tokenize", split, "prompt")).ids is None
    assert found(changed(vllm, "/tokenize", None, "prompt")).ids is None


@pytest.mark.parametrize(
    "tokenize",
    [
        None,  # SGLang refuses messages there; most do not know the path
        {"tokens": []},  # llama.cpp's server
    ],
)
def test_a_server_that_is_no_vllm(vllm: Ask, tokenize: Answer) -> None:
    asked: list[Question] = []

    def ask(question: Question) -> Answer:
        asked.append(question)
        return tokenize if question.path == "/tokenize" else vllm(question)

    assert found(ask) == Abilities(context_tokens=8192)
    assert [question.path for question in asked] == ["/v1/models", "/tokenize"]


def test_known_services_are_not_asked() -> None:
    def ask(question: Question) -> Answer:
        raise AssertionError(question)

    for host in HOSTS.values():
        assert run(look_up("glm", host), ask) == Abilities()


@pytest.mark.parametrize(
    "models",
    [
        None,
        {},
        {"data": None},
        {"data": {"glm": 1}},
        {"data": ["glm", {"id": "glm"}, {"id": "other", "max_model_len": 7}]},
        {"data": [{"id": "glm", "max_model_len": None}]},
    ],
)
def test_a_server_that_does_not_tell_its_limit(vllm: Ask, models: Answer) -> None:
    assert found(changed(vllm, "/v1/models", models)).context_tokens is None


@pytest.mark.parametrize(
    ("reply", "parses"),
    [
        ({"choices": [{"message": {"content": None, "reasoning": "I"}}]}, True),
        ({"choices": [{"message": {"content": "<think>I look", "reasoning": None}}]}, False),
        ({"choices": [{"message": {"content": "Hi."}}]}, False),
        (None, False),
        (FAILED, None),
    ],
)
def test_a_server_that_parses_the_reasoning(
    vllm: Ask, reply: Answer, *, parses: bool | None
) -> None:
    ask = changed(vllm, "/v1/chat/completions", reply)

    assert run(look_for_parser("glm", Abilities()), ask) == Abilities(parses=parses)


async def test_async_callers_ask_the_same(vllm: Any) -> None:
    async def ask(question: Question) -> Answer:
        answer: Answer = vllm(question)
        return answer

    abilities = await arun(look_up("glm", None), ask)
    asked = list(vllm.asked)

    assert abilities == found(vllm)
    assert vllm.asked == asked * 2
    assert asked[1].body == {"model": "glm", "messages": CONVERSATION}


def test_what_the_asking_raises_reaches_the_caller() -> None:
    def steps() -> Steps[Mapping[str, Any]]:
        yield Question("/a")
        raise AssertionError

    def ask(question: Question) -> Answer:
        raise ConnectionError(question.path)

    with pytest.raises(ConnectionError, match="/a"):
        run(steps(), ask)
