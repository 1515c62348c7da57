"""Pictures that the real server has are not sent to it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.messages.ai import add_ai_message_chunks
from PIL import Image
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V, GLM4VServer, uploads
from langchain_glm4v.uploads import Uploads


@pytest.fixture
def sizes() -> list[int]:
    """Bytes of the chats sent so far."""
    return []


@pytest.fixture
def model(server: GLM4VServer, sizes: list[int]) -> ChatGLM4V:
    def note(request: httpx.Request) -> None:
        if request.url.path.endswith("/chat/completions"):
            sizes.append(len(request.read()))

    return ChatGLM4V(
        model=server.served_model_name,
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        sampling="deterministic",
        max_tokens=50,
        http_client=httpx.Client(event_hooks={"request": [note]}, trust_env=False, timeout=300),
    )


@pytest.fixture
def question(tmp_path: Path) -> HumanMessage:
    picture = tmp_path / "noise.png"
    Image.effect_noise((280, 280), 90).save(picture)
    return HumanMessage(
        [{"type": "image", "path": str(picture)}, {"type": "text", "text": "How many circles?"}]
    )


def test_the_second_question_sends_no_picture(
    model: ChatGLM4V, question: HumanMessage, sizes: list[int]
) -> None:
    answers = [model.invoke([question]) for _ in range(2)]
    answers.append(add_ai_message_chunks(*model.stream([question])))

    assert len({answer.text for answer in answers}) == 1
    assert len({str(answer.usage_metadata) for answer in answers}) == 1
    first, *later = sizes
    assert len(later) == 2
    assert max(later) < 0.02 * first


def test_a_server_that_has_forgotten_is_sent_it_again(
    model: ChatGLM4V,
    question: HumanMessage,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_known = Uploads.without_known

    def without_any(uploads: Uploads, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        uploads.note_sent(payload)
        return without_known(uploads, payload)

    answer = model.invoke([question])
    # Names that the server has never heard of, taken for known.
    monkeypatch.setattr(uploads, "_secret", lambda: b"another user's")
    monkeypatch.setattr(Uploads, "without_known", without_any)
    again = model.invoke([question])

    assert again.text == answer.text
    assert len(sizes) == 3
    assert sizes[1] < 0.02 * sizes[0] < sizes[2]
    assert again.usage_metadata == answer.usage_metadata
