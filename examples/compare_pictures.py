"""Ask about two pictures at once, and about the same two again, which costs nearly nothing.

    python examples/compare_pictures.py

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from langchain_core.language_models import LanguageModelInput

from langchain_glm4v import ChatGLM4V, question_about

MEDIA = Path(__file__).parent / "media"
PICTURES = (MEDIA / "shapes.png", MEDIA / "more_shapes.png")
QUESTIONS = (
    "Which picture has more stars?",
    "Which picture has more circles?",
    "What do the two pictures have in common?",
)


def compare(model: ChatGLM4V, pictures: Sequence[Path], questions: Sequence[str]) -> list[str]:
    """Ask all questions at once; the pictures go to the server a single time."""
    asked: list[LanguageModelInput] = [[question_about(text, *pictures)] for text in questions]
    return [reply.text for reply in model.batch(asked)]


def main() -> None:
    """Ask, and print question and answer."""
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        for question, answer in zip(QUESTIONS, compare(model, PICTURES, QUESTIONS), strict=True):
            print(f"{question:42} {answer}")


if __name__ == "__main__":
    main()
