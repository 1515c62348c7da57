"""Writes `toolkit.json` anew from the package.

python -m training.write_toolkit
"""

import json
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V, GLM4VToolkit
from langchain_glm4v.tools import texts

from .toolkit import FILE


def current() -> dict[str, Any]:
    """Content of the file, as the package has it now."""
    nowhere = "http://127.0.0.1:1/v1"
    model = ChatGLM4V(base_url=nowhere, api_key=SecretStr("key"), model="glm")
    tools = GLM4VToolkit(llm=model).get_tools()
    words, image, video = texts.WORDS["en"], texts.IMAGE["en"].fields, texts.VIDEO["en"].fields
    document, read = texts.DOCUMENT["en"].fields, texts.READ["en"].fields
    wordings = {
        "image_label": image["label"],
        "watched": video["watched"],
        "document_prompt": document["prompt"],
        "find_prompt": document["find_prompt"],
        "combine_prompt": document["combine_prompt"],
        "page_label": document["page_label"],
        "rests_on": document["rests_on"],
        "read_prompt": read["prompt"],
        "found": words.found,
        "not_found": words.not_found,
        "pages": words.pages,
        "no_pages": words.no_pages,
        "nothing": words.nothing,
    }
    return {
        "tools": [convert_to_openai_tool(tool)["function"] for tool in tools],
        "texts": wordings,
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
