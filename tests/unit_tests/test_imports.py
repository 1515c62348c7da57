"""What importing the package costs, and what it offers."""

import subprocess
import sys

import pytest

import langchain_glm4v

HEAVY = {"torch", "vllm", "transformers", "fitz", "pymupdf", "av", "PIL"}
LANGCHAIN = {"langchain_core", "langchain_openai", "openai", "pydantic"}


def loaded(program: str, of: set[str]) -> str:
    """Which of some modules a program has loaded in the end."""
    told = f"print(*({of!r} & (sys.modules.keys() - before)))"
    program = "\n".join(["import sys; before = set()", program, told])
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    # Whatever langchain_openai itself loads is not ours to avoid.
    program = "import langchain_openai; before = set(sys.modules); from langchain_glm4v import *"

    assert loaded(program, HEAVY) == ""


def test_import_without_a_name_loads_no_langchain() -> None:
    assert loaded("import langchain_glm4v.server", HEAVY | LANGCHAIN) == ""
    assert loaded("import langchain_glm4v; langchain_glm4v.ChatGLM4V", LANGCHAIN)


def test_import_of_agents_loads_nothing_heavy() -> None:
    program = "import langchain_openai; before = set(sys.modules); import langchain_glm4v.gui"

    assert loaded(program, HEAVY | {"playwright"}) == ""


def test_no_other_name_is_offered() -> None:
    with pytest.raises(AttributeError, match="no attribute 'ChatGLM5V'"):
        _ = langchain_glm4v.ChatGLM5V  # type: ignore[attr-defined]
    assert set(langchain_glm4v.__all__) <= set(dir(langchain_glm4v))


def test_public_names_are_sorted_and_there() -> None:
    names = langchain_glm4v.__all__

    assert names == sorted(names)
    assert all(hasattr(langchain_glm4v, name) for name in names)
