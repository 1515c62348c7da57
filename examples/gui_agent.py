"""An agent on a website: it follows a trail of coloured shapes, and asks before it sends anything.

    python examples/gui_agent.py                # offline, with the miniature
    GLM4V_MODEL=zai-org/GLM-4.1V-9B-Thinking python examples/gui_agent.py

The website is served by this program, on this machine, and drawn by a real Chromium without a
window (apt-get install chromium; pip install playwright). Which shapes and which code are on it is
made up anew each time, or by a seed: `python examples/gui_agent.py 7`. So the code that the agent
tells can only have been read from the screen; it is compared with the truth in the end.

What decides about the next step depends on the model. The real one is asked for actions, in the way
that it was trained for websites (`ModelPlanner`). The miniature was not trained for that. But it
can tell shapes from text, find a shape and read a page; so here a few lines of Python turn the
agent's one question into these (`GroundingPlanner`). Everything else is the same for both: screen,
consent, loop.

The second trail ends at a button that sends an order. The agent may not press it unless you
consent: on a terminal you are asked, otherwise nobody is there, and it is refused.

Exits with 1 if the miniature told a wrong code, or anything was sent without consent.
"""

import difflib
import http.server
import os
import random
import string
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from browser import BrowserScreen
from langchain_glm4v import ActionError, ChatGLM4V, GLM4VError, question_about
from langchain_glm4v.grounding import LOCATE_PROMPT, find_boxes
from langchain_glm4v.gui import (
    Approve,
    Click,
    Finish,
    GuiAgent,
    ModelPlanner,
    Outcome,
    Plan,
    Planner,
    Point,
    Proposal,
    Situation,
    Step,
    harmless,
)

COLOURS = {
    "red": "#d62828",
    "green": "#28a03c",
    "blue": "#2850d2",
    "yellow": "#f0c81e",
    "orange": "#f0821e",
    "purple": "#8c3caa",
}
# In a square of 100 units.
SHAPES = {
    "circle": '<circle cx="50" cy="50" r="50"/>',
    "square": '<rect width="100" height="100"/>',
    "triangle": '<polygon points="50,0 100,100 0,100"/>',
    "star": '<polygon points="50,0 61.8,33.8 97.6,34.5 69,56.2 79.4,90.5 50,70 20.6,90.5 31,56.2 '
    '2.4,34.5 38.2,33.8"/>',
    "cross": '<polygon points="33,0 67,0 67,33 100,33 100,67 67,67 67,100 33,100 33,67 0,67 0,33 '
    '33,33"/>',
}
NAMES = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
# Left and top of each place, in hundredths of the page.
PLACES = ((6, 8), (40, 12), (74, 6), (10, 58), (43, 60), (76, 56))
STATIONS = 3
SIZES = {"tiny": (448, 336)}  # others: 1280x720

PAGE = string.Template("""<!doctype html><meta charset="utf-8"><title>Trail</title><style>
body { margin: 0; background: #fffef8; font: 7vh/1.6 "DejaVu Sans", sans-serif; }
button { all: unset; }
.shape { position: absolute; width: 26vh; height: 26vh; }
.slip { display: block; height: 100vh; padding: 6vh; box-sizing: border-box; color: #111;
  text-decoration: none; white-space: pre; }
</style>$body""")


@dataclass
class Trail:
    """A website: stations with shapes, of which one leads on, and slips that name the next.

    Attributes:
        wanted: The right shape of each station.
        shown: All shapes of each station.
        code: What the last slip tells.
        sends: Whether the right shape of the last station sends an order.
        orders: How many orders came.
    """

    wanted: Sequence[str]
    shown: Sequence[Sequence[str]]
    code: str
    sends: bool
    orders: list[str] = field(default_factory=list)

    @classmethod
    def made_up(cls, seed: int, *, sends: bool) -> "Trail":
        """A trail of `STATIONS` stations, the same for the same seed."""
        rng = random.Random(seed)
        shown = [rng.sample(NAMES, len(PLACES)) for _ in range(STATIONS)]
        letters = "".join(rng.choices(string.ascii_uppercase, k=3))
        code = f"{letters}-{rng.randint(1000, 9999)}"
        return cls([rng.choice(shapes) for shapes in shown], shown, code, sends)

    def page(self, path: str) -> str | None:
        """The body of a page; None: there is none."""
        station, _, slip = path.strip("/").partition("/")
        if not station.isdecimal() or int(station) >= STATIONS:
            return None
        number = int(station)
        if slip:
            return self._slip(number)
        return "".join(
            self._shape(number, shape, place)
            for shape, place in zip(self.shown[number], PLACES, strict=True)
        )

    def _shape(self, number: int, name: str, place: tuple[int, int]) -> str:
        colour, shape = name.split()
        drawn = f'<svg viewBox="0 0 100 100">{SHAPES[shape]}</svg>'
        look = (
            f'class="shape" style="left: {place[0]}vw; top: {place[1]}vh; fill: {COLOURS[colour]}"'
        )
        if name != self.wanted[number]:
            return f'<a href="/{number}" {look}>{drawn}</a>'  # leads nowhere
        if self.sends and number == STATIONS - 1:
            button = f"<button {look}>{drawn}</button>"
            return f'<form method="post" action="/{number}/slip">{button}</form>'
        return f'<a href="/{number}/slip" {look}>{drawn}</a>'

    def _slip(self, number: int) -> str:
        if number == STATIONS - 1:
            return f'<div class="slip">The end\nCode: {self.code}</div>'
        text = f"Station {number + 1}\nNext: {self.wanted[number + 1]}\nClick to go on"
        return f'<a class="slip" href="/{number + 1}">{text}</a>'


@contextmanager
def served(trail: Trail) -> Iterator[str]:
    """Serve a trail on this machine; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = trail.page(self.path)
            if body is None:
                self.send_error(404)
                return
            content = PAGE.substitute(body=body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            trail.orders.append(self.path)
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/0"
        finally:
            server.shutdown()
            thread.join()


class GroundingPlanner:
    """Follows a trail with a model that knows nothing of agents, but sees and reads.

    The model says what is on the screen, where a shape is, and what is written. Python knows but
    this: a shape that is wanted is clicked, a slip is read for what is wanted next.

    Args:
        model: The miniature.
        start: The shape to begin with.
    """

    # If one wording finds nothing, or the wrong thing, another may.
    WORDINGS = ("Where is the {target}?", LOCATE_PROMPT, "Locate the {target}.")

    def __init__(self, model: ChatGLM4V, start: str) -> None:
        self._model = model
        self._start = start

    def plan(self, situation: Situation) -> Plan:
        """Ask what is there, then for the one thing that matters."""
        picture = situation.observation.picture
        plans = [step.plan for step in situation.steps if step.plan]
        wanted = plans[-1].memory if plans else self._start
        if situation.steps and situation.steps[-1].result == "refused":
            return Plan(Finish(success=False), reason="there is no other way", memory=wanted)
        if "page with" in self._ask("Describe this image.", picture):
            return self._read(self._ask("Transcribe the text.", picture))
        tries = sum(step.observation.picture == picture for step in situation.steps)
        question = self.WORDINGS[tries % len(self.WORDINGS)].format(target=wanted)
        boxes = find_boxes(self._ask(question, picture))
        if not boxes:
            raise ActionError(f"{question!r} was answered without a box")
        return Plan(Click(Point(*boxes[0].center)), reason=f"the {wanted} is there", memory=wanted)

    def _read(self, text: str) -> Plan:
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        if "Code" in fields:
            return Plan(Finish(success=True, answer=fields["Code"]), reason="the slip has the code")
        if "Next" not in fields:
            raise ActionError(f"a slip says neither Code nor Next, but {text!r}")
        # It misspells words that it was not trained on ("blue start"), and there are only so many.
        near = difflib.get_close_matches(fields["Next"].lower(), NAMES, 1)
        if not near:
            raise ActionError(f"{fields['Next']!r} on a slip is no shape")
        wanted = near[0]
        return Plan(Click(Point(500, 500)), reason=f"read: {fields['Next']}", memory=wanted)

    def _ask(self, question: str, picture: bytes) -> str:
        return str(self._model.invoke([question_about(question, picture)]).text)


def follow(
    trail: Trail,
    model: ChatGLM4V,
    name: str,
    *,
    approve: Approve = harmless,
    screenshots: Path | None = None,
) -> Outcome:
    """Let an agent follow a trail.

    Args:
        trail: The website.
        model: What sees.
        name: The model's name, which tells the planner that fits.
        approve: The human's consent.
        screenshots: Where to put a picture of each step; None: nowhere.
    """
    start = trail.wanted[0]
    planner: Planner = (
        GroundingPlanner(model, start) if name == "tiny" else ModelPlanner(model, "web")
    )
    task = (
        f"Click the {start}. The right shape leads to a slip that names the next shape to click; a "
        "click on the slip goes on to the next shapes. The last slip shows a code: tell it."
    )
    count = 0

    def report(step: Step) -> None:
        nonlocal count
        count += 1
        action = step.plan.action if step.plan else "nothing that can be understood"
        reason = f" ({step.plan.reason.strip()})" if step.plan and step.plan.reason.strip() else ""
        detail = f": {step.detail}" if step.detail else ""
        print(f"  {count}. {action}{reason}: {step.result}{detail}", flush=True)
        if screenshots is not None:
            (screenshots / f"{count}.png").write_bytes(step.observation.picture)

    with served(trail) as url, BrowserScreen(url, *SIZES.get(name, (1280, 720))) as screen:
        return GuiAgent(planner, screen, approve=approve).run(task, on_step=report)


def ask_the_user(proposal: Proposal) -> bool | str:
    """Consent to what is harmless; ask about the rest, if somebody is there."""
    if not proposal.risks or not sys.stdin.isatty():
        return harmless(proposal)
    listed = ", ".join(sorted(risk.value for risk in proposal.risks))
    print(f"  The agent wants {proposal.action} on {proposal.target}, which {listed}.")
    return input("  Do it? [y/N] ").strip().lower() == "y"


def main() -> int:
    """Follow two trails; return the exit status."""
    name = os.environ.get("GLM4V_MODEL", "tiny")
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.randrange(10_000)
    print(f"starting a vLLM server on {name!r}; on two CPU cores this takes about a minute")
    sampling = "deterministic" if name == "tiny" else "gui"
    with ChatGLM4V.managed(model=name, sampling=sampling) as model:
        free = Trail.made_up(seed, sends=False)
        print(f"trail {seed}:")
        found = follow(free, model, name)
        print(f"  {found.ending}: the agent says {found.answer!r}, the code is {free.code!r}")
        asking = Trail.made_up(seed + 1, sends=True)
        consents: list[bool] = []

        def approve(proposal: Proposal) -> bool | str:
            verdict = ask_the_user(proposal)
            if proposal.risks:
                consents.append(verdict is True)
            return verdict

        print(f"trail {seed + 1}, which ends at an order:")
        stopped = follow(asking, model, name, approve=approve)
        print(
            f"  {stopped.ending}; {len(asking.orders)} orders came, {sum(consents)} consents given"
        )
    if len(asking.orders) > sum(consents) or free.orders:
        return 1
    return int(name == "tiny" and found.answer != free.code)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (GLM4VError, FileNotFoundError) as error:
        sys.exit(f"gui_agent: {error}")
    except KeyboardInterrupt:
        sys.exit("gui_agent: stopped; the server is gone")
