"""How commands end."""

import signal
from collections.abc import Mapping

FAILED = 1
MISUSED = 2
NONE_RUNS = 3
CUT_OFF = 4
PAGES_FAILED = 5
INTERRUPTED = 128 + signal.SIGINT
PIPE_BROKEN = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM

EXITS: Mapping[int, str] = {
    0: "done",
    FAILED: "failed; the last line on standard error says why, and what to do",
    MISUSED: "misused: see --help",
    NONE_RUNS: "no server runs",
    CUT_OFF: "the answer was cut off, by --max-tokens or because it repeated itself",
    PAGES_FAILED: "pages could not be read, or not well; standard error names each",
    INTERRUPTED: "stopped by Ctrl-C",
    PIPE_BROKEN: "nobody reads the output any more",
    TERMINATED: "stopped by SIGTERM, before the server was ready",
}
"""Exit code -> what it means."""
