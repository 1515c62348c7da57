"""`glm4v pull`."""

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from langchain_glm4v.cli.terminal import clock, say
from langchain_glm4v.server.weights import SOURCES, Progress, fetch

BAR = 30  # characters
LINE_EVERY = 5  # percent, where the output is no terminal


def _add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="id of a repository on a model hub")
    parser.add_argument("--revision", help="branch, tag or commit. Default: the main branch")
    parser.add_argument(
        "--source",
        choices=list(SOURCES),
        help="model hub. Default: modelscope if VLLM_USE_MODELSCOPE=1, else huggingface",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare checksums of what is there already too"
    )


def _pull(args: argparse.Namespace) -> int:
    bar = Bar()
    try:
        folder = fetch(
            args.model,
            revision=args.revision,
            source=args.source,
            verify=args.verify,
            on_progress=bar.show,
        )
    finally:
        bar.end()
    print(folder)
    return 0


class Bar:
    """A progress bar on standard error; lines now and then where that is no terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._began: tuple[str, float, int] | None = None
        self._shown = -LINE_EVERY

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        now = time.monotonic()
        if self._began is None or self._began[0] != progress.stage:
            self._began = (progress.stage, now, progress.done_bytes)
            self._shown = -LINE_EVERY
        _, began, at_first = self._began
        share = progress.done_bytes / (progress.total_bytes or 1)
        speed = (progress.done_bytes - at_first) / max(now - began, 1.0)
        left = (progress.total_bytes - progress.done_bytes) / speed if speed else 0.0
        line = f"{progress}, {share:.0%}, {speed / 1e6:.1f} MB/s, {clock(left)} left"
        if self._is_terminal:
            filled = round(BAR * share)
            sys.stderr.write(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {line}\033[K")
            sys.stderr.flush()
        elif 100 * share >= self._shown + LINE_EVERY:
            self._shown = int(100 * share)
            say(line)

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._is_terminal and self._began:
            say("")


COMMANDS: Mapping[str, Any] = {"pull": (_add_pull, _pull)}
