"""How long `import langchain_glm4v` takes beside `import langchain_openai`, which it builds on.

    python benchmarks/import_time.py [--json]

Fresh interpreters, the two in turn; the medians of their CPU seconds are compared, because a busy
machine stretches wall time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

ROUNDS = 11
GOAL = 1.15  # at most this many times the peer


def cpu_seconds(module: str) -> float:
    """CPU time of a fresh interpreter that imports `module`."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def main() -> int:
    """Measure, print, and fail if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    modules = ("langchain_openai", "langchain_glm4v")
    for module in modules:  # write the byte code once
        cpu_seconds(module)
    rounds = [{module: cpu_seconds(module) for module in modules} for _ in range(ROUNDS)]
    peer, ours = (statistics.median(r[module] for r in rounds) for module in modules)
    ratio = statistics.median(r["langchain_glm4v"] / r["langchain_openai"] for r in rounds)
    ok = ratio <= GOAL
    if as_json:
        figure = {"value": round(ratio, 3), "goal": f"<= {GOAL}", "ok": ok}
        print(json.dumps({"figures": {"import_time_ratio": figure}}))
    else:
        print(f"{'module':<18} {'CPU seconds, median of ' + str(ROUNDS):>28}")
        print(f"{'langchain_openai':<18} {peer:>28.3f}")
        print(f"{'langchain_glm4v':<18} {ours:>28.3f}")
        print(f"ratio {ratio:.3f}, goal <= {GOAL}: {'ok' if ok else 'missed'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
