"""Make a timeline of a video, and ask what happens when.

    python examples/video_timeline.py [VIDEO]

The model reads the second of each two frames, so its answers can name seconds.

Runs offline, on the miniature. `GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking` takes the real model.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from langchain_glm4v import ChatGLM4V, question_about

FILM = Path(__file__).parent / "media" / "film.mp4"
SCENE = re.compile(r"(\d+)(?:\s*[-\u2013]\s*(\d+))?\s*s?:\s*(.+)")


class Scene(NamedTuple):
    """What is seen from one second to another, both included."""

    first: int
    last: int
    what: str


def timeline(model: ChatGLM4V, video: str | Path) -> list[Scene]:
    """The scenes of a video, in order."""
    answer = model.invoke([question_about("List what happens, with seconds.", video)]).text
    found = (SCENE.fullmatch(part.strip(" -*\t")) for part in re.split(r"[;\n]", answer))
    return [
        Scene(int(match[1]), int(match[2] or match[1]), match[3].strip())
        for match in found
        if match
    ]


def main() -> None:
    """Print a timeline, and what one of its seconds shows."""
    video = sys.argv[1] if len(sys.argv) > 1 else FILM
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        scenes = timeline(model, video)
        for scene in scenes:
            print(f"{scene.first:>5} s to {scene.last} s  {scene.what}")
        # Only a part of the video is decoded and sent; its seconds stay those of the whole.
        part = {"type": "video", "path": str(video), "start": 2, "end": 5}
        question = "At which second does the word Bread appear?"
        print(question, model.invoke([question_about(question, part)]).text)


if __name__ == "__main__":
    main()
