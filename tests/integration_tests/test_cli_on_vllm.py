"""The command `glm4v` and curl, as a person uses them, on the real vLLM."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from langchain_glm4v.server import find_leftovers
from langchain_glm4v.server.probes import Client

GLM4V = [sys.executable, "-m", "langchain_glm4v.cli"]
MEDIA = Path(__file__).parents[2] / "examples" / "media"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Of a user that has no other servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GLM4V_")}
    return {**kept, "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime"))}


@pytest.fixture(scope="module")
def served(
    environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """What `glm4v serve` tells of its server, which ends on SIGTERM."""
    key = tmp_path_factory.mktemp("key") / "server_key"
    key.write_text("integration-key\n")
    command = [*GLM4V, "serve", "tiny", "--port", "0", "--json", "--api-key-file", str(key)]
    # The seed's spelling of an option, one of vLLM's, and one behind `--`
    command += ["--max_model_len", "8192", "--limit-mm-per-prompt", '{"image": 8, "video": 1}']
    command += ["--", "--max-num-seqs", "16"]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout
    line = child.stdout.readline()
    try:
        if not line:
            pytest.fail(child.communicate()[1])
        told = json.loads(line)
        yield told
    finally:
        child.send_signal(signal.SIGTERM)
        errors = child.communicate()[1]
    assert (child.returncode, "Traceback" in errors) == (0, False), errors
    assert find_leftovers(told["id"]) == []


def glm4v(
    environment: Mapping[str, str], *given: str, text: str = ""
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*GLM4V, *given],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def curl(served: Mapping[str, Any], path: str, body: dict[str, Any] | None = None) -> Any:
    """What a shell gets, as guides to vLLM have it, with the key from the file."""
    key = Path(served["api_key_file"]).read_text().strip()
    if shutil.which("curl") is None:
        at = urlsplit(f"{served['base_url']}{path}")
        client = Client(at.hostname or "", at.port or 0, key)
        return json.loads(client.get(at.path)) if body is None else client.post(at.path, body)
    command = ["curl", "-sS", f"{served['base_url']}{path}", "-H", f"Authorization: Bearer {key}"]
    if body is not None:
        command += ["-H", "Content-Type: application/json", "-d", "@-"]
    done = subprocess.run(
        command,
        input=None if body is None else json.dumps(body),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def data_url(name: str, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode((MEDIA / name).read_bytes()).decode()}"


def chat(served: Mapping[str, Any], question: str, *media: object) -> str:
    content = [*media, {"type": "text", "text": question}]
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "skip_special_tokens": False,
    }
    return str(curl(served, "/chat/completions", body)["choices"][0]["message"]["content"])


def picture(name: str) -> object:
    return {"type": "image_url", "image_url": {"url": data_url(name, "image/png")}}


def test_curl_models(served: dict[str, Any]) -> None:
    (model,) = curl(served, "/models")["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", 8192)


def test_curl_completions(served: dict[str, Any]) -> None:
    prompt = "456*123等于多少?<think>\n"
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 16, "temperature": 0}
    reply = curl(served, "/completions", body)
    assert reply["choices"][0]["text"]
    assert reply["usage"]["completion_tokens"] <= 16


def test_curl_one_picture(served: dict[str, Any]) -> None:
    assert "10.45" in chat(served, "What is the Total?", picture("receipt.png"))


def test_curl_several_pictures(served: dict[str, Any]) -> None:
    media = (picture("shapes.png"), picture("more_shapes.png"))
    answer = chat(served, "What do the two pictures have in common?", *media)
    assert "Both show a yellow star." in answer


def test_curl_video(served: dict[str, Any]) -> None:
    url = data_url("film.mp4", "video/mp4")
    video = {"type": "video_url", "video_url": {"url": url}}
    assert "<answer>" in chat(served, "Describe the video.", video)


def test_ask(served: dict[str, Any], environment: Mapping[str, str]) -> None:
    given = ("ask", "--temperature", "0", str(MEDIA / "receipt.png"))
    done = glm4v(environment, *given, "What is the Total?")
    assert (done.returncode, done.stdout, done.stderr) == (0, "10.45\n", "")
    done = glm4v(environment, *given, "--json", "-", text="What is the Total?")
    told = json.loads(done.stdout)
    assert told["reasoning"] == 'The line reads "Total: 10.45".'
    assert told["model"] == served["model"]


def test_ask_about_a_film_and_a_scan(
    served: dict[str, Any], environment: Mapping[str, str]
) -> None:
    assert served["model"] == "tiny"
    given = ("ask", "--temperature", "0", "--base-url", served["base_url"])
    keyed = {**environment, "GLM4V_API_KEY": "integration-key"}
    film = glm4v(
        keyed, *given, str(MEDIA / "film.mp4"), "At which second does the word Bread appear?"
    )
    assert film.stdout == "At second 2.\n"
    scan = glm4v(
        keyed, *given, "--longest-side", "784", str(MEDIA / "scan.pdf"), "What is the Total?"
    )
    assert scan.stdout == "280.50\n"
    refused = glm4v(environment, *given, "Hello")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "401" in refused.stderr


def test_status_tells_what_was_done(served: dict[str, Any], environment: Mapping[str, str]) -> None:
    # What `glm4v ask` sends is named by a secret of its own, so that no other process hits upon it.
    for question in ("What is the Total?", "What is the Date?"):
        assert chat(served, question, picture("receipt.png"))
    (told,) = json.loads(glm4v(environment, "status", "--json").stdout)
    assert told["id"] == served["id"]
    assert (told["state"], told["running"], told["waiting"]) == ("ready", 0, 0)
    assert told["generation_tokens"] > 0
    assert 0 < told["prefix_cache_hits"] < 1
    assert 0 < told["media_cache_hits"] < 1
    assert served["id"][:8] in glm4v(environment, "status").stdout


def test_logs_and_env(served: dict[str, Any], environment: Mapping[str, str]) -> None:
    logs = glm4v(environment, "logs", served["id"], "-n", "1000").stdout
    assert "max_num_seqs" in logs
    assert "integration-key" not in logs
    env = glm4v(environment, "env").stdout
    program = f'{env}\nexec "$@" ask "Hello"'
    done = subprocess.run(
        ["sh", "-c", program, "-", *GLM4V],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip()


def test_bench(served: dict[str, Any], environment: Mapping[str, str]) -> None:
    given = ("--requests", "4", "--concurrency", "2", "--tokens", "8", "--picture", "112x84")
    told = json.loads(glm4v(environment, "bench", "--json", *given).stdout)
    assert (told["requests"], told["failed"], told["output_tokens"]) == (4, 0, 8)
    assert told["base_url"] == served["base_url"]
