"""What the miniature learns of planning is what agents with the package's tools send."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import transformers
from langchain.agents import create_agent
from vision_server import Body, Serve, text_of

from langchain_glm4v import GLM4VToolkit
from tiny_glm4v import checkpoint_path
from training import batches, planning, toolkit, write_toolkit
from training.planning import Errand
from training.sample import Sample

MEDIA = Path(__file__).parents[2] / "examples/media"
AMOUNT = Errand(
    said="What is the Total of receipt.png?",
    file="receipt.png",
    call=("look_at_images", {"images": ["receipt.png"], "question": "What is the Total?"}),
    result="10.45",
    answer="The Total of receipt.png is 10.45.",
)
GUEST = Errand(
    said="What is the Guest of scan.pdf?",
    file="scan.pdf",
    call=("ask_document", {"document": "scan.pdf", "question": "What is the Guest?"}),
    result="Maria Lopez [page 1]\n\n(Pages cited: 1. Pages read: 1 of 1.)",
    answer="The Guest of scan.pdf is Maria Lopez (page 1).",
)
PLACE = Errand(
    said="Where is the blue square in shapes.png?",
    file="shapes.png",
    call=("locate_in_image", {"image": "shapes.png", "target": "the blue square"}),
    result="In the image of 336x224 pixels, as left, top, right, bottom:\n"
    "1. the blue square: 34, 45, 67, 67",
    answer="The blue square is at 34, 45, 67, 67 in shapes.png.",
)
NOWHERE = Errand(
    said="Where is the red star in shapes.png?",
    file="shapes.png",
    call=("locate_in_image", {"image": "shapes.png", "target": "the red star"}),
    result="Not found in the image of 336x224 pixels: the red star. The answer was: I see none.",
    answer="I did not find the red star in shapes.png.",
)
SECOND = Errand(
    said="When does the word Bread appear in film.mp4?",
    file="film.mp4",
    call=(
        "watch_video",
        {"video": "film.mp4", "question": "At which second does the word Bread appear?"},
    ),
    result="At second 2.\n(Watched second 0 to 5.5, a frame every 0.5 s.)",
    answer="The word Bread appears in film.mp4 at second 2.",
)
TEXT = Errand(
    said="Read page 1 of scan.pdf.",
    file="scan.pdf",
    call=("read_text", {"source": "scan.pdf", "pages": "1"}),
    result="Blue Harbor Hotel\nGuest: Maria Lopez",
    answer="Blue Harbor Hotel\nGuest: Maria Lopez",
)
MISSING = Errand(
    said="What is the Total of bill.png?",
    file="bill.png",
    call=("look_at_images", {"images": ["bill.png"], "question": "What is the Total?"}),
    result=f"no file at 'bill.png': give the path of one in {MEDIA}",
    answer="That failed: no file at 'bill.png'.",
)
EYES = {
    "What is the Total?": "10.45",
    "What is the Guest?": "Maria Lopez [page 1]",
    "locate the blue square": "<|begin_of_box|>[[100,200,200,300]]<|end_of_box|>",
    "locate the red star": "I see none.",
    "the word Bread": "At second 2.",
    "Convert this page": "Blue Harbor Hotel\nGuest: Maria Lopez",
}


def session(*steps: list[Errand]) -> list[Sample]:
    """The exercises of a session that the user begins with all that is asked in it."""
    errands = [errand for step in steps for errand in step]
    said, answer = (
        " ".join(texts) for texts in zip(*((e.said, e.answer) for e in errands), strict=True)
    )
    return planning.session("plan", said, steps, "I have the answer.", answer)


def test_the_file_holds_what_the_tools_say() -> None:
    assert write_toolkit.current() == {"tools": toolkit.TOOLS, "texts": toolkit.TEXTS}


@pytest.mark.parametrize(
    "steps",
    [
        *([[errand]] for errand in (AMOUNT, GUEST, PLACE, NOWHERE, SECOND, TEXT, MISSING)),
        [[AMOUNT, GUEST, SECOND]],
        [[GUEST], [TEXT]],
    ],
    ids=lambda steps: " then ".join(" and ".join(e.call[0] for e in step) for step in steps),
)
def test_an_agent_sends_what_was_trained(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, steps: list[list[Errand]]
) -> None:
    exercises = [planning.under_toolkit(sample) for sample in session(*steps)]
    targets = iter(exercises)
    requests = []

    def say(body: Body) -> str:
        if body["messages"][0]["role"] == "system":  # the planner's
            requests.append(body["messages"])
            return next(targets).target
        found = [said for asked, said in EYES.items() if asked in text_of(body)]
        return f"<think></think><answer>{found[0] if found else 'Hello!'}</answer>"  # to a probe

    model = serve(say).model()
    monkeypatch.chdir(MEDIA)
    tools = GLM4VToolkit(llm=model, allowed_dirs=(MEDIA,)).get_tools()
    agent: Any = create_agent(model, tools)
    said = exercises[0].messages[1]["content"]
    *_, last = agent.invoke({"messages": [{"role": "user", "content": said}]})["messages"]

    template = transformers.AutoTokenizer.from_pretrained(checkpoint_path())
    template.chat_template = (checkpoint_path() / "chat_template.jinja").read_text()
    rendered = [
        template.apply_chat_template(one, add_generation_prompt=True, tokenize=False)
        for one in requests
    ]
    assert rendered == [batches.render(exercise.messages) for exercise in exercises]
    assert last.text == exercises[-1].answer


@pytest.mark.parametrize("seed", range(30))
def test_calls_fit_the_schemas(seed: int) -> None:
    schemas = {tool["name"]: tool["parameters"] for tool in toolkit.TOOLS}
    types = {"string": str, "array": list, "number": int}
    for sample in planning.group(random.Random(seed)):
        system, *_ = sample.messages
        for text in sample.answer.split("<tool_call>")[1:]:
            call = json.loads(text.removesuffix("</tool_call>"))
            schema = schemas[call["name"]]
            assert f'"name":"{call["name"]}"' in system["content"]
            assert set(schema["required"]) <= set(call["arguments"]) <= set(schema["properties"])
            for name, value in call["arguments"].items():
                assert isinstance(value, types[schema["properties"][name]["type"]])


def test_held_out_sessions_are_never_trained_on() -> None:
    def said(*, held_out: bool) -> set[str]:
        rng = random.Random(1)
        made = [s for _ in range(40) for s in planning.group(rng, held_out=held_out)]
        return {s.messages[1]["content"] for s in made if s.skill != "plan talk"}

    trained, kept = said(held_out=False), said(held_out=True)
    assert len(trained) > 100
    assert len(kept) > 100
    assert not trained & kept


@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [
        ("2.50", "0.70", "2.50 + 0.70: 0+0=0, 5+7=12, 2+0+1=3."),
        ("0.04", "0.01", "0.04 + 0.01: 4+1=5, 0+0=0, 0+0=0."),
        ("98.48", "3.52", "98.48 + 03.52: 8+2=10, 4+5+1=10, 8+3+1=12, 9+0+1=10."),
    ],
)
def test_amounts_are_added_from_the_last_digit_on(a: str, b: str, steps: str) -> None:
    assert planning.added(Decimal(a), Decimal(b)) == steps
