"""The proxy of `serve/`: the real Caddy before the real server."""

import contextlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from langchain_glm4v import ChatGLM4V, clients
from langchain_glm4v.server import GLM4VServer
from langchain_glm4v.server.preflight import free_port

CADDYFILE = Path(__file__).parents[2] / "serve" / "proxy" / "Caddyfile"
HOST = "127.0.0.1"
MIB = 1024 * 1024
QUESTION = {"model": "tiny", "prompt": "456*123等于多少?<think>\n", "max_tokens": 4}


def headers(key: str | None) -> dict[str, str]:
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    return {"Content-Type": "application/json", **authorization}


@dataclass(frozen=True)
class Proxy:
    port: int
    authority: Path
    log: Path

    def connect(self) -> http.client.HTTPSConnection:
        trust = ssl.create_default_context(cafile=self.authority)
        return http.client.HTTPSConnection("localhost", self.port, timeout=60, context=trust)

    def ask(
        self, method: str, path: str, body: object = None, key: str | None = "key-of-alice"
    ) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers(key))
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


@contextlib.contextmanager
def running_proxy(folder: Path, upstream: str, server_key: str) -> Iterator[Proxy]:
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    caddy = shutil.which("caddy", path=search)
    if caddy is None:
        pytest.skip("caddy is not installed")
    (folder / "server_key").write_text(f"{server_key}\n")
    (folder / "client_keys").write_text('"Bearer key-of-alice" alice\n"Bearer key-of-bob" bob\n')
    port = free_port(HOST)
    environment = {
        **os.environ,
        "GLM4V_UPSTREAM": upstream,
        "GLM4V_SECRETS": str(folder),
        "GLM4V_HTTP_PORT": str(free_port(HOST)),
        "GLM4V_HTTPS_PORT": str(port),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    proxy = Proxy(port, authority, folder / "log")
    command = [caddy, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"]
    with proxy.log.open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                proxy.ask("GET", "/")
                break
            assert process.poll() is None and time.monotonic() < deadline, proxy.log.read_text()
            time.sleep(0.1)
        yield proxy
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def proxy(server: GLM4VServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with running_proxy(folder, server.base_url.split("/")[2], server.api_key) as running:
        yield running


def running_requests(server: GLM4VServer) -> float:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    connection.request("GET", "/metrics", headers=headers(server.api_key))
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("vllm:num_requests_running{")
    )


@pytest.mark.parametrize("key", ["key-of-alice", "key-of-bob"])
def test_every_client_has_a_key(proxy: Proxy, key: str) -> None:
    assert proxy.ask("GET", "/v1/models", key=key)[0] == 200
    assert proxy.ask("POST", "/v1/completions", QUESTION, key)[0] == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/tokenize"])
@pytest.mark.parametrize("key", [None, "", "key-of-", "alice"])
def test_without_a_key_nothing_is_answered(proxy: Proxy, path: str, key: str | None) -> None:
    method, body = ("GET", None) if path == "/v1/models" else ("POST", QUESTION)
    status, reply = proxy.ask(method, path, body, key)
    assert status == 401
    assert "Authorization: Bearer KEY" in json.loads(reply)["error"]["message"]


def test_the_servers_own_key_is_no_clients_key(proxy: Proxy, server: GLM4VServer) -> None:
    assert proxy.ask("GET", "/v1/models", key=server.api_key)[0] == 401


def test_health_needs_no_key(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/health", key=None) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("GET", "/v1/../metrics"),
        ("GET", "/v1/models/../../metrics"),
        ("GET", "/v1/models/%2e%2e/%2e%2e/metrics"),
        ("GET", "/v1%2f..%2fmetrics"),
        ("GET", "//metrics"),
        ("GET", "/health/../metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/version"),
        ("POST", "/invocations"),
        ("POST", "/v1/responses"),
        ("POST", "/health"),
        ("GET", "/v1/chat/completions"),
        ("GET", "/"),
    ],
)
def test_other_paths_are_not_there(proxy: Proxy, method: str, path: str) -> None:
    assert proxy.ask(method, path)[0] == 404


def test_streams_are_passed_on_as_they_come_and_end_with_their_reader(
    proxy: Proxy, server: GLM4VServer
) -> None:
    body = {**QUESTION, "max_tokens": 7000, "ignore_eos": True, "stream": True}
    connection = proxy.connect()
    connection.request("POST", "/v1/completions", json.dumps(body), headers("key-of-alice"))
    reply = connection.getresponse()
    assert reply.readline().startswith(b"data: ")
    assert running_requests(server) == 1  # the first words are here, the last not yet written
    reply.close()
    connection.close()
    deadline = time.monotonic() + 60
    while running_requests(server):
        assert time.monotonic() < deadline, "the server goes on with what nobody waits for"
        time.sleep(0.1)


def test_large_requests_pass(proxy: Proxy) -> None:
    assert proxy.ask("POST", "/v1/completions", {**QUESTION, "user": "x" * 32 * MIB})[0] == 200


def test_too_large_requests_are_refused(proxy: Proxy) -> None:
    connection = proxy.connect()
    pieces = (b"x" * MIB for _ in range(257))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/v1/completions", pieces, headers("key-of-alice"))
    assert connection.getresponse().status == 413
    connection.close()


def test_the_log_names_clients_and_not_their_keys(proxy: Proxy) -> None:
    proxy.ask("GET", "/v1/models", key="key-of-bob")
    log = proxy.log.read_text()
    assert '"client":"bob"' in log
    assert "key-of-bob" not in log


def test_the_chat_model_works_behind_it(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.authority))
    # Other models of this process have read the usual authorities, which are kept.
    monkeypatch.setattr(clients, "_tls", clients._tls.__wrapped__)
    model = ChatGLM4V(
        base_url=f"https://localhost:{proxy.port}/v1",
        api_key=SecretStr("key-of-alice"),
        model="tiny",
    )
    assert model.get_num_tokens("Hello") > 0
    reply: Any = model.invoke("Hello", thinking_budget=8, max_tokens=32)
    assert reply.usage_metadata["output_tokens"] > 0


def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with running_proxy(tmp_path, f"{HOST}:{free_port(HOST)}", "unused") as proxy:
        status, reply = proxy.ask("GET", "/v1/models")
    assert status == 502
    assert "does not answer" in json.loads(reply)["error"]["message"]
