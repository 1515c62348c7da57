"""All figures of media: what it costs to make them ready, and to ask about them again.

    python benchmarks/media.py [--json]

Runs `media_document.py`, `media_image.py`, `media_video.py` and `media_repeat.py`, one after the
other in a process of its own each, and puts their figures together; each of them tells how it
measures. Takes about half an hour on two cores.
"""

import json
import subprocess
import sys
from pathlib import Path

from figures import Figure, argument_parser, report

SCRIPTS = ("media_document", "media_image", "media_video", "media_repeat")


def measured(script: str) -> dict[str, Figure]:
    """The figures of a script, which fails where one misses its goal.

    Raises:
        CalledProcessError: It failed without any.
    """
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        done.check_returncode()
    found: dict[str, Figure] = json.loads(done.stdout.splitlines()[-1])["figures"]
    return found


def main() -> int:
    """Measure, print, and fail if a goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    found: dict[str, Figure] = {}
    for script in SCRIPTS:
        print(f"{script}.py …", file=sys.stderr, flush=True)
        found |= measured(script)
    return report(found, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
