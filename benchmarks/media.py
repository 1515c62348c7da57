"""All figures of media: what it costs to make them ready, and to ask about them again.

    python benchmarks/media.py [--json]

Runs `media_document.py`, `media_image.py`, `media_video.py` and `media_repeat.py`, one after the
other in a process of its own each, and puts their figures together; each of them tells how it
measures. Takes about half an hour on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

SCRIPTS = ("media_document", "media_image", "media_video", "media_repeat")

Figures: TypeAlias = dict[str, dict[str, Any]]


def measured(script: str) -> Figures:
    """The figures of a script, which fails where one misses its goal.

    Raises:
        CalledProcessError: It failed without any.
    """
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        done.check_returncode()
    found: Figures = json.loads(done.stdout.splitlines()[-1])["figures"]
    return found


def verdict(figure: dict[str, Any]) -> str:
    """What a figure's goal is, and whether it was reached."""
    if "goal" not in figure:
        return ""
    outcome = {True: "ok", False: "missed", None: "not measured"}[figure["ok"]]
    return f"goal {figure['goal']}: {outcome}"


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    found: Figures = {}
    for script in SCRIPTS:
        new = measured(script)
        found |= new
        if not as_json:
            for name, figure in new.items():
                value = "-" if figure["value"] is None else f"{figure['value']:.4g}"
                print(f"{name:<42}{value:>9}  {verdict(figure)}".rstrip(), flush=True)
    if as_json:
        print(json.dumps({"figures": found}))
    return 0 if all(figure.get("ok") is not False for figure in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
