"""A LangGraph workflow over pages: classify, extract, verify, ask a human, write.

    python examples/page_workflow.py [PICTURE ...] [--yes]

Each picture goes through the graph by itself. A page with text is read twice, by two questions:
what differs is wrong at least once, so a human decides. Nothing is written that a human has not
seen, unless both readings agree and `--yes` is given. A picture without text is left out.

    pip install '.[agents]'

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from langchain_glm4v import ChatGLM4V, question_about

MEDIA = Path(__file__).parent / "media"
PICTURES = (MEDIA / "receipt.png", MEDIA / "shapes.png")
TEXT, SHAPES = "I see text.", "I see shapes."


class Fields(BaseModel):
    """What is wanted of a page."""

    Total: str
    Date: str


class State(TypedDict, total=False):
    """What is known of a page."""

    picture: str
    kind: str
    fields: dict[str, str]
    doubts: dict[str, str]
    written: str


def build(model: ChatGLM4V, out: Path) -> CompiledStateGraph[State, None, State, State]:
    """Make the graph.

    Args:
        model: Looks at the pages.
        out: Folder in which each page's fields are written as JSON.
    """
    classifier = model.with_choices([TEXT, SHAPES])
    reader = model.with_structured_output(Fields)

    def classify(state: State) -> State:
        question = question_about("What do you see?", state["picture"])
        return {"kind": classifier.invoke([question])}

    def route(state: State) -> Literal["extract", "__end__"]:
        return "extract" if state["kind"] == TEXT else "__end__"

    def extract(state: State) -> State:
        found = reader.invoke([question_about("Extract the fields.", state["picture"])])
        return {"fields": found.model_dump()}

    def verify(state: State) -> State:
        """Read each field again, alone; keep those that come out otherwise."""
        names = list(state["fields"])
        asked: list[LanguageModelInput] = [
            [question_about(f"What is the {n}?", state["picture"])] for n in names
        ]
        again = {n: r.text for n, r in zip(names, model.batch(asked), strict=True)}
        return {"doubts": {n: again[n] for n in names if again[n] != state["fields"][n]}}

    def review(state: State) -> State:
        """Ask a human, who answers with the right fields, or with no fields to refuse."""
        return {"fields": interrupt({key: state[key] for key in ("picture", "fields", "doubts")})}

    def write(state: State) -> State:
        if not state["fields"]:
            return {}
        picture = Path(state["picture"]).resolve()
        which = hashlib.sha256(bytes(picture)).hexdigest()[:8]  # others may have the same name
        path = out / f"{picture.stem}-{which}.json"
        path.write_text(json.dumps(state["fields"], indent=2) + "\n", encoding="utf-8")
        return {"written": str(path)}

    graph = StateGraph(State)
    for node in (classify, extract, verify, review, write):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "classify")
    graph.add_conditional_edges("classify", route)
    for one, next_one in ("extract", "verify"), ("verify", "review"), ("review", "write"):
        graph.add_edge(one, next_one)
    graph.add_edge("write", END)
    return graph.compile(checkpointer=InMemorySaver())


def ask_human(asked: dict[str, Any], *, says_yes: bool) -> dict[str, str]:
    """Show what was read; returns what shall be written."""
    print(json.dumps(asked, indent=2, ensure_ascii=False))
    if says_yes and not asked["doubts"]:
        return dict(asked["fields"])
    reply = input("write these fields? [y/N] ") if sys.stdin.isatty() else "n"
    return dict(asked["fields"]) if reply.strip().lower() == "y" else {}


def main() -> None:
    """Take each picture through the graph."""
    says_yes = "--yes" in sys.argv
    pictures = [name for name in sys.argv[1:] if name != "--yes"] or [*map(str, PICTURES)]
    out = Path("page_workflow_out")
    out.mkdir(exist_ok=True)
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        graph = build(model, out)
        for picture in pictures:
            config: RunnableConfig = {"configurable": {"thread_id": picture}}
            state = graph.invoke({"picture": picture}, config)
            for stop in state.get("__interrupt__", ()):
                decision = ask_human(stop.value, says_yes=says_yes)
                state = graph.invoke(Command(resume=decision), config)
            print(f"{picture}: {state['kind']} {state.get('written', 'nothing was written')}")


if __name__ == "__main__":
    main()
