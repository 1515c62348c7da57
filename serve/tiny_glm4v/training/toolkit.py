"""What the package's tools say, as data: training happens where the package is not installed.

`TOOLS` are the schemas of `GLM4VToolkit` as an agent sends them, `TEXTS` the wordings of the tools'
prompts and results. `training.write_toolkit` writes the file; a test compares it with the package.
"""

import json
from pathlib import Path
from typing import Any

from .protocol import Schema

FILE = Path(__file__).with_name("toolkit.json")
_DATA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
TOOLS: list[Schema] = _DATA["tools"]
TEXTS: dict[str, str] = _DATA["texts"]
