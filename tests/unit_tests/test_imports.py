"""What importing the package costs, and what it offers."""

import subprocess
import sys

import langchain_glm4v

HEAVY = {"torch", "vllm", "transformers", "fitz", "pymupdf", "av", "PIL"}


def test_import_loads_nothing_heavy() -> None:
    # Whatever langchain_openai itself loads is not ours to avoid.
    program = (
        "import sys, langchain_openai; before = set(sys.modules); import langchain_glm4v; "
        f"print(*({HEAVY!r} & (sys.modules.keys() - before)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == ""


def test_public_names_are_sorted_and_there() -> None:
    names = langchain_glm4v.__all__

    assert names == sorted(names)
    assert all(hasattr(langchain_glm4v, name) for name in names)
