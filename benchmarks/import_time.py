"""How long importing `ChatGLM4V` takes beside `ChatOpenAI`, which it builds on.

    python benchmarks/import_time.py [--json]

Fresh interpreters, the two in turn; the medians of their CPU seconds are compared, because a busy
machine stretches wall time.
"""

import os
import statistics
import subprocess
import sys

from figures import argument_parser, figure, report

ROUNDS = 11
GOAL = "<= 1.15"
IMPORTED = {"langchain_openai": "ChatOpenAI", "langchain_glm4v": "ChatGLM4V"}


def cpu_seconds(module: str) -> float:
    """CPU time of a fresh interpreter that imports the chat model of `module`."""
    before = os.times()
    program = f"from {module} import {IMPORTED[module]}"
    subprocess.run([sys.executable, "-c", program], check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def main() -> int:
    """Measure, print, and fail if the goal is missed."""
    as_json = argument_parser(__doc__).parse_args().json
    modules = tuple(IMPORTED)
    for module in modules:  # write the byte code once
        cpu_seconds(module)
    rounds = [{module: cpu_seconds(module) for module in modules} for _ in range(ROUNDS)]
    peer, ours = (statistics.median(r[module] for r in rounds) for module in modules)
    ratio = statistics.median(r["langchain_glm4v"] / r["langchain_openai"] for r in rounds)
    if not as_json:
        print(f"{'module':<18} {'CPU seconds, median of ' + str(ROUNDS):>28}")
        print(f"{'langchain_openai':<18} {peer:>28.3f}")
        print(f"{'langchain_glm4v':<18} {ours:>28.3f}")
    return report({"import_time_ratio": figure(ratio, GOAL)}, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
