"""How tools, their calls and results, and wanted JSON are written in a prompt.

GLM-4.1V has no tool calling of its own, so both are plain text. One call is one
`<tool_call>{"name":…,"arguments":{…}}</tool_call>` in the answer; several follow each other.
"""

import json
from collections.abc import Sequence
from typing import Any

Schema = dict[str, Any]

TOOLS_HEAD = "# Tools\nYou may call these tools. Each line is one tool:"
TOOLS_HOW = 'To call a tool, answer with only: <tool_call>{"name":"…","arguments":{…}}</tool_call>'
CHOICES = {
    "auto": "Call a tool if it helps, else answer in words.",
    "any": "You must call a tool.",
    "named": "You must call the tool {name}.",
}
FORMAT = "# Format\nAnswer with only one JSON object that fits this schema:\n{schema}"


def dumps(value: Any) -> str:
    """JSON as it stands in prompts and answers: no blanks, no escapes for other scripts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def tools_prompt(tools: Sequence[Schema], choice: str = "auto", name: str = "") -> str:
    """System text that offers `tools` (name, description, parameters each)."""
    listed = "\n".join(map(dumps, tools))
    return f"{TOOLS_HEAD}\n{listed}\n{TOOLS_HOW}\n{CHOICES[choice].format(name=name)}"


def format_prompt(schema: Schema) -> str:
    """System text that asks for JSON by a schema."""
    return FORMAT.format(schema=dumps(schema))


def call(name: str, arguments: dict[str, Any]) -> str:
    """One tool call as the model writes it."""
    return f"<tool_call>{dumps({'name': name, 'arguments': arguments})}</tool_call>"


def result(text: str) -> str:
    """A tool's result as the next user turn shows it."""
    return f"<tool_response>{text}</tool_response>"
