"""What is asked of a server over HTTP: is it up, and does it render conversations rightly?

Uses `http.client`, which knows nothing of proxies.
"""

import http.client
import json
from dataclasses import dataclass, field
from typing import Any

from langchain_glm4v.errors import TemplateError
from langchain_glm4v.server.options import HOST

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "Who "}, {"type": "text", "text": "are you?"}],
    },
]
RENDERED = (
    "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHello<|assistant|>\nHi."
    "<|user|>\nWho are you?<|assistant|>\n"
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")


@dataclass(frozen=True)
class Client:
    """The few requests that this package itself makes of a server on this machine."""

    port: int
    api_key: str = field(repr=False)
    timeout: float = 30.0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send `body` as JSON and return the reply, itself a JSON object.

        Raises:
            OSError: The server cannot be reached, or did not reply in time.
            ValueError: It refused the request, or the reply is no JSON.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.api_key}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            message = f"{path} answered {reply.status}: {content[:200].decode(errors='replace')}"
            raise ValueError(message)
        parsed: dict[str, Any] = json.loads(content)
        return parsed


def check_rendering(client: Client, model: str) -> None:
    """Check that `model` gets system prompts and earlier turns as text, and has the tags as tokens.

    Raises:
        TemplateError: It does not; the message says what differs.
    """
    try:
        tokens = client.post("/tokenize", {"model": model, "messages": CONVERSATION})["tokens"]
        rendered = client.post("/detokenize", {"model": model, "tokens": tokens})["prompt"]
        lengths = {
            tag: client.post(
                "/tokenize", {"model": model, "prompt": tag, "add_special_tokens": False}
            )["count"]
            for tag in TAGS
        }
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        message = f"the chat template cannot be checked: {error!r}; see the server's log"
        raise TemplateError(message) from error
    if rendered != RENDERED:
        message = (
            f"the server renders a conversation as {rendered!r} instead of {RENDERED!r}; "
            "leave --chat-template and --chat-template-content-format out of extra_args"
        )
        raise TemplateError(message)
    split = [f"{tag} ({length})" for tag, length in lengths.items() if length != 1]
    if split:
        message = (
            f"the tokenizer splits tags that must be one token: {', '.join(split)}; "
            "the checkpoint is not a GLM-4.1V-Thinking one"
        )
        raise TemplateError(message)
