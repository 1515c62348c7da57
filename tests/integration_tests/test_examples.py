"""The examples do what they say, with the miniature."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

import compare_pictures
import page_workflow
import receipt_to_json
import stream_reasoning
import video_timeline
from langchain_glm4v import ChatGLM4V

CONFIG: RunnableConfig = {"configurable": {"thread_id": "one"}}
RECEIPT, SHAPES = map(str, page_workflow.PICTURES)


def test_stream_reasoning(model: ChatGLM4V, capsys: pytest.CaptureFixture[str]) -> None:
    assert stream_reasoning.stream(model, RECEIPT, "What is the Total?") == "10.45"
    assert capsys.readouterr().out == 'The line reads "Total: 10.45".\n10.45\n'


def test_compare_pictures(model: ChatGLM4V) -> None:
    answers = compare_pictures.compare(model, compare_pictures.PICTURES, compare_pictures.QUESTIONS)
    assert answers == ["Both have the same number.", "The first.", "Both show a yellow star."]


def test_receipt_to_json(model: ChatGLM4V) -> None:
    receipt = receipt_to_json.read(model, RECEIPT)
    assert {item.name: item.price for item in receipt.items} == {
        "Bread": Decimal("3.20"),
        "Coffee": Decimal("2.50"),
        "Cake": Decimal("4.75"),
    }
    assert len(receipt.items) == 3
    assert receipt.is_sound
    twice = receipt.model_copy(update={"items": receipt.items * 2, "total": Decimal("20.90")})
    assert twice.is_sound
    assert not receipt.model_copy(update={"total": Decimal("10.46")}).is_sound


def test_video_timeline(model: ChatGLM4V) -> None:
    answer = video_timeline.described(model, video_timeline.FILM)
    assert video_timeline.timeline(answer) == [
        (0, 1, "blue square"),
        (2, 4, "Bread"),
        (5, 5, "yellow screen"),
    ]


@pytest.mark.parametrize(
    "written",
    [
        "0-2: a cat; 63: a dog",
        "0-2 s: a cat\n63 s: a dog",
        "00:00-00:02: a cat\n01:03: a dog",
        "- 0s - 2s: a cat\n- 63s: a dog",
        "**0-2s**: a cat\n**1:03:** a dog",
        "[0:00 to 0:02.5]: a cat\n(63 seconds): a dog",
    ],
)
def test_times_of_a_timeline(written: str) -> None:
    assert video_timeline.timeline(written) == [(0, 2, "a cat"), (63, 63, "a dog")]


@pytest.mark.parametrize("decision", [{"Total": "10.45", "Date": "today"}, {}])
def test_page_workflow_writes_what_a_human_says(
    model: ChatGLM4V, tmp_path: Path, decision: dict[str, str]
) -> None:
    graph = page_workflow.build(model, tmp_path)
    state: dict[str, Any] = graph.invoke({"picture": RECEIPT}, CONFIG)
    (stop,) = state["__interrupt__"]
    assert stop.value["fields"] == {"Total": "10.45", "Date": "2026-11-22"}
    assert stop.value["doubts"] == {}
    assert [*tmp_path.iterdir()] == []
    state = graph.invoke(Command(resume=decision), CONFIG)
    written = [json.loads(path.read_text()) for path in tmp_path.iterdir()]
    assert written == ([decision] if decision else [])


def test_page_workflow_leaves_out_what_has_no_text(model: ChatGLM4V, tmp_path: Path) -> None:
    state = page_workflow.build(model, tmp_path).invoke({"picture": SHAPES}, CONFIG)
    assert state["kind"] == page_workflow.SHAPES
    assert "fields" not in state
