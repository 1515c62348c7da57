"""Show a model's thinking, dimmed, while it comes, and then its answer.

    python examples/stream_reasoning.py [FILE QUESTION]

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import os
import sys
from pathlib import Path

from langchain_glm4v import ChatGLM4V, question_about

MEDIA = Path(__file__).parent / "media"
DIM, PLAIN = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")


def stream(model: ChatGLM4V, file: str, question: str) -> str:
    """Print a reply as it comes; returns the answer."""
    answer = ""
    for chunk in model.stream([question_about(question, file)]):
        for block in chunk.content_blocks:
            if block["type"] == "reasoning":
                print(f"{DIM}{block['reasoning']}{PLAIN}", end="", flush=True)
            elif block["type"] == "text":
                print("" if answer else "\n", block["text"], sep="", end="", flush=True)
                answer += block["text"]
    print()
    return answer


def main() -> None:
    """Ask one question."""
    file, question = sys.argv[1:] or (str(MEDIA / "receipt.png"), "What is the Total?")
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        stream(model, file, question)


if __name__ == "__main__":
    main()
