"""Ask about pictures, a scanned page and a film, and check each answer against the truth.

Starts a vLLM server on the miniature, so it runs offline and without a GPU. With another model,
`python examples/demo.py zai-org/GLM-4.1V-9B-Thinking`, answers are shown and not checked: that one
words them in its own way. Exits with 1 if an answer is wrong.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_glm4v import ChatGLM4V, GLM4VError, question_about

MEDIA = Path(__file__).parent / "media"
SCAN_TEXT = """\
Blue Harbor Hotel
Guest: Maria Lopez
Room: 214
Date: 2026-03-08
City: Lisbon
Nights: 3
Rate: 85.00
Tax: 25.50
Total: 280.50"""


@dataclass(frozen=True)
class Question:
    """What is asked about which files, and the right answer."""

    files: Sequence[str]
    text: str
    truth: str


QUESTIONS = (
    Question(["receipt.png"], "What is the Total?", "10.45"),
    Question(["shapes.png"], "How many red circles are there?", "2"),
    Question(["shapes.png"], "图中有几个红色圆形?", "图中有2个红色圆形。"),
    Question(
        ["shapes.png", "more_shapes.png"],
        "What do the two pictures have in common?",
        "Both show a yellow star.",
    ),
    Question(["scan.pdf"], "Transcribe the text.", SCAN_TEXT),
    Question(["scan.pdf"], "What is the Total?", "280.50"),
    Question(["film.mp4"], "Describe the video.", "0-1: blue square; 2-4: Bread; 5: yellow screen"),
    Question(["film.mp4"], "At which second does the word Bread appear?", "At second 2."),
)


def medium(name: str) -> Path | dict[str, object]:
    """A file, with options where it needs them."""
    path = MEDIA / name
    # The miniature reads small pages.
    return {"type": "file", "path": str(path), "longest_side": 784} if name == "scan.pdf" else path


def ask(model: ChatGLM4V, question: Question) -> str:
    """Show the reasoning and then the answer as they come; return the answer."""
    asked = question_about(question.text, *map(medium, question.files))
    dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
    answer = ""
    print(f"\n{', '.join(question.files)}: {question.text}")
    for chunk in model.stream([asked]):
        reasoning = chunk.additional_kwargs.get("reasoning_content", "")
        if reasoning:
            print(f"{dim}{reasoning}{plain}", end="", flush=True)
        if chunk.text:
            print("" if answer else "\n", chunk.text, sep="", end="", flush=True)
        answer += chunk.text
    print()
    return answer


def main() -> int:
    """Start the server, ask everything, and count the wrong answers."""
    name = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    began = time.monotonic()

    def report(stage: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {stage}", flush=True)

    print(f"starting a vLLM server on {name!r}; on two CPU cores this takes about a minute")
    with ChatGLM4V.managed(model=name, temperature=0, on_progress=report) as model:
        answers = [ask(model, question) for question in QUESTIONS]
        report("stopping the server")
    if name != "tiny":
        return 0
    wrong = [q for q, a in zip(QUESTIONS, answers, strict=True) if a.strip() != q.truth]
    for question in wrong:
        print(f"WRONG: {question.text} The truth is: {question.truth}")
    report(f"{len(QUESTIONS) - len(wrong)} of {len(QUESTIONS)} answers are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GLM4VError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: stopped; the server is gone")
