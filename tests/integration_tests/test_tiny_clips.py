"""The real vLLM lays a clip out just as the miniature's training does."""

import random

import httpx
import pytest
from tokenizers import Tokenizer

from langchain_glm4v import GLM4VServer
from tiny_glm4v import checkpoint_path
from training import evaluate, video_tasks, videos
from training.batches import CELL, Encoder


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("size", [(112, 112), (252, 140)])
def test_prompt_has_the_tokens_of_the_training(
    server: GLM4VServer, size: tuple[int, int], stride: int
) -> None:
    rng = random.Random(6)
    clip = videos.clip(rng, size, [])
    clip.seconds = [stride * k for k in range(len(clip.steps))]
    sample = video_tasks.describe(rng, clip)
    tokenizer = Tokenizer.from_file(str(checkpoint_path() / "tokenizer.json"))
    encoder = Encoder(tokenizer)
    row = encoder.row(sample, list(range(len(clip.steps))))
    batch = encoder.batch("video", [row], clip.steps, size)
    cells = size[0] * size[1] // CELL**2
    length = len(row.head) + (cells - 1) * len(clip.steps) + row.asked
    reply = httpx.post(
        f"{server.base_url}/chat/completions",
        headers={"Authorization": f"Bearer {server.api_key}"},
        json={
            "model": server.served_model_name,
            "messages": evaluate.wire(sample),
            "max_tokens": 1,
            "return_token_ids": True,
        },
        timeout=120,
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["prompt_token_ids"] == batch.ids[0, :length].tolist()
    assert reply.json()["usage"]["prompt_tokens"] == length
