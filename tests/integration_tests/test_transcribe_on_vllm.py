"""`glm4v transcribe` on the real vLLM: scanned slips, as the miniature reads them."""

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from langchain_glm4v.server import GLM4VServer
from slips import slip

GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]
PAPER = (250, 249, 246)


def scan(path: Path, pictures: list[Image.Image]) -> None:
    """A PDF of the pictures, each in JPEG as a scanner has it."""
    first, *others = pictures
    first.save(path, "PDF", save_all=True, append_images=others, resolution=96.0, quality=92)


@pytest.fixture
def environment(server: GLM4VServer) -> Mapping[str, str]:
    told = {"GLM4V_BASE_URL": server.base_url, "GLM4V_API_KEY": server.api_key}
    return {**os.environ, **told, "GLM4V_MODEL": server.served_model_name}


def test_scans_become_records_and_nothing_is_read_twice(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    rng = random.Random(7)
    slips = [slip(rng) for _ in range(8)]
    pictures, texts = [list(of_all) for of_all in zip(*slips, strict=True)]
    blank = Image.new("RGB", (560, 784), PAPER)
    scan(tmp_path / "a.pdf", [*pictures[:4], blank])
    scan(tmp_path / "b.pdf", pictures[4:7])
    photo = io.BytesIO()
    pictures[7].save(photo, "JPEG", quality=92)
    (tmp_path / "c.jpg").write_bytes(photo.getvalue())

    def transcribe(out: str, *more: str) -> dict[str, int]:
        given = (".", "-o", out, *more, "--prompt", "Transcribe the text.", "--temperature", "0")
        command = [*GLM4V, "transcribe", *given, "--longest-side", "784", "--json"]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, int] = json.loads(done.stdout)
        return told

    told = transcribe("all.jsonl")
    assert (told["documents"], told["pages"], told["read"], told["blank"]) == (3, 9, 8, 1)
    lines = (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["text"] for record in records] == [*texts[:4], "", *texts[4:]]
    assert [record["page"] for record in records] == [0, 1, 2, 3, 4, 0, 1, 2, 0]
    assert all(record["confidence"] > 0.9 for record in records if record["text"])

    again = transcribe("all.jsonl")
    assert (again["read"], again["from_cache"], again["input_tokens"]) == (0, 8, 0)
    transcribe("texts", "--cache", ".glm4v-pages.sqlite")
    text = (tmp_path / "texts" / "b.md").read_text(encoding="utf-8")
    assert text.startswith(f"<!-- page 1 of 3: b.pdf -->\n\n{texts[4]}\n")
