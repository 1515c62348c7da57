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
# "3", "3 s", "1:02", "00:01:02.5"
TIME = r"(\d+(?::\d\d){0,2})(?:\.\d+)?\s*(?:s|sec|seconds?)?"
SCENE = re.compile(rf"[\[(]?{TIME}(?:\s*(?:[-\u2013\u2014]|to)\s*{TIME})?[\])]?\**:\**\s*(.+)")


class Scene(NamedTuple):
    """What is seen from one second to another, both included."""

    first: int
    last: int
    what: str


def described(model: ChatGLM4V, video: str | Path) -> str:
    """What happens in a video, in the model's words."""
    return str(model.invoke([question_about("List what happens, with seconds.", video)]).text)


def timeline(answer: str) -> list[Scene]:
    """The scenes that an answer names, in order; none if it is written in another way."""
    found = (SCENE.fullmatch(part.strip(" -*\t")) for part in re.split(r"[;\n]", answer))
    return [
        Scene(seconds(match[1]), seconds(match[2] or match[1]), match[3].strip())
        for match in found
        if match
    ]


def seconds(time: str) -> int:
    """The second that a clock shows: 62 for "1:02"."""
    total = 0
    for part in time.split(":"):
        total = total * 60 + int(part)
    return total


def main() -> None:
    """Print a timeline, and what one of its seconds shows."""
    video = sys.argv[1] if len(sys.argv) > 1 else FILM
    with ChatGLM4V.managed(os.environ.get("GLM4V_MODEL", "tiny"), temperature=0) as model:
        answer = described(model, video)
        scenes = timeline(answer)
        if not scenes:
            print(answer)
        for scene in scenes:
            print(f"{scene.first:>5} s to {scene.last} s  {scene.what}")
        # Only a part of the video is decoded and sent; its seconds stay those of the whole.
        part = {"type": "video", "path": str(video), "start": 2, "end": 5}
        question = "At which second does the word Bread appear?"
        print(question, model.invoke([question_about(question, part)]).text)


if __name__ == "__main__":
    main()
