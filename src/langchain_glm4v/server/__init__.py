"""A vLLM server for GLM-4.1V, started, checked and stopped by this package.

The names are imported when they are first used: `glm4v status` needs none of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_glm4v.server.options import ServerOptions
    from langchain_glm4v.server.process import GLM4VServer, find_leftovers

__all__ = ["GLM4VServer", "ServerOptions", "find_leftovers"]

if not TYPE_CHECKING:  # a checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = "options" if name == "ServerOptions" else "process"
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
