"""The managed server on the real vLLM."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template
from waiting import wait_until

import tiny_glm4v
from langchain_glm4v.errors import TemplateError, WeightsError
from langchain_glm4v.server import GLM4VServer, find_leftovers
from langchain_glm4v.server.options import CHAT_TEMPLATE
from langchain_glm4v.server.probes import Client, check

# A program that starts a server, says how far it is, and asks for a very long answer.
# Programs that a shell runs in the background ignore Ctrl-C and so do their children: not this one.
PROGRAM = """
import http.client, json, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from langchain_glm4v.server import GLM4VServer

def report(stage):
    print(stage, flush=True)

server = GLM4VServer("tiny", on_progress=report)
report(server.id)
with server:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    body = {"model": "tiny", "stream": True, "max_tokens": 7000, "ignore_eos": True,
            "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Content-Type": "application/json", "Authorization": "Bearer " + server.api_key}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    for line in connection.getresponse():
        report("streaming")
"""


def post(server: GLM4VServer, path: str, body: object, key: str | None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    connection.request("POST", path, json.dumps(body), headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, json.loads(content)


def ask(server: GLM4VServer, content: object, **more: object) -> tuple[int, Any]:
    messages = [{"role": "user", "content": content}]
    body = {"model": server.served_model_name, "messages": messages, "max_tokens": 8, **more}
    return post(server, "/v1/chat/completions", body, server.api_key)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield started
    if started.poll() is None:
        started.kill()
    started.communicate()


def read_until(child: subprocess.Popen[str], wanted: str) -> None:
    assert child.stdout
    assert child.stderr
    if not any(line.startswith(wanted) for line in child.stdout):
        pytest.fail(child.stderr.read())


def server_id_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def test_answers_with_the_key_alone(server: GLM4VServer) -> None:
    status, reply = ask(server, "Hello")
    assert status == 200
    assert reply["model"] == server.served_model_name == "tiny"
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
    for key in (None, "", "EMPTY", server.api_key[:-1]):
        for path in ("/v1/chat/completions", "/tokenize", "/invocations", "/metrics", "/nothing"):
            assert post(server, path, body, key)[0] == 401


def test_key_shows_in_no_command_line_and_no_log(server: GLM4VServer) -> None:
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in find_leftovers(server.id)]
    assert any("EngineCore" in line for line in lines)
    assert server.api_key not in "".join(lines) + server.log_path.read_text() + repr(server)


def test_fetches_nothing(server: GLM4VServer) -> None:
    # a path of this very server: there is something to fetch, so only the refusal can stop it
    for url in (server.base_url.replace("/v1", "/docs"), CHAT_TEMPLATE.as_uri()):
        status, reply = ask(server, [{"type": "image_url", "image_url": {"url": url}}])
        assert status >= 400
        assert "allowed" in json.dumps(reply)


def test_thinking_budget_is_kept(server: GLM4VServer) -> None:
    def written(**more: object) -> list[int]:
        status, reply = ask(
            server, "Hello", temperature=0, max_tokens=100, return_token_ids=True, **more
        )
        assert status == 200
        tokens: list[int] = reply["choices"][0]["token_ids"]
        return tokens

    tags = {"model": "tiny", "prompt": "<think></think><answer>", "add_special_tokens": False}
    start, *end = post(server, "/tokenize", tags, server.api_key)[1]["tokens"]
    unlimited = written()
    assert unlimited[0] == start
    budget = unlimited.index(end[0]) // 2  # too little for the thinking
    limited = written(thinking_token_budget=budget)
    # vLLM forces the end of the thinking; the model then opens its answer by itself
    assert limited[: budget + 3] == [*unlimited[: budget + 1], *end]
    assert len(limited) > budget + 3


def test_renders_as_transformers_does(server: GLM4VServer) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look: "}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I see\n"}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks"},
    ]
    rendered: Any = render_jinja_template(
        conversations=[messages],
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        add_generation_prompt=True,
    )
    request = {"model": "tiny", "messages": messages}
    tokens = post(server, "/tokenize", request, server.api_key)[1]["tokens"]
    text = post(server, "/detokenize", {"model": "tiny", "tokens": tokens}, server.api_key)[1]
    assert [text["prompt"]] == rendered[0]


def test_self_check_tells_what_it_was_refused(server: GLM4VServer) -> None:
    client = Client("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]), server.api_key)
    check(client, server.served_model_name, has_images=True)
    with pytest.raises(TemplateError, match=r"/tokenize answered 404: .*other"):
        check(client, "other", has_images=True)


@pytest.mark.parametrize("moment", ["configuring engine", "streaming"])
def test_ctrl_c_leaves_nothing(child: subprocess.Popen[str], moment: str) -> None:
    server_id = server_id_of(child)
    read_until(child, moment)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate()
    assert errors.strip().endswith("KeyboardInterrupt")
    assert find_leftovers(server_id) == []


def test_kill_of_the_program_leaves_nothing(child: subprocess.Popen[str]) -> None:
    server_id = server_id_of(child)
    read_until(child, "streaming")
    child.kill()
    wait_until(lambda: not find_leftovers(server_id))


def test_stop_lets_an_answer_finish() -> None:
    server = GLM4VServer("tiny").start()
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "max_tokens": 200,
        "ignore_eos": True,
    }
    headers = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    lines = iter(connection.getresponse())
    assert next(lines).startswith(b"data: ")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert [line for line in lines if line.strip()][-1].strip() == b"data: [DONE]"
    stopping.join()
    assert find_leftovers(server.id) == []


def test_damaged_weights_are_reported_before_vllm_starts(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_glm4v.checkpoint_path(), folder)
    os.truncate(folder / "model.safetensors", 1_000_000)
    server = GLM4VServer(folder, log_path=tmp_path / "server.log")
    with pytest.raises(WeightsError, match="is damaged: it has 1000000 bytes and should have"):
        server.start()
    assert not server.log_path.exists()
