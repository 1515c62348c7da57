"""The tools over MCP: in this process, over standard input and output, and over HTTP."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ImageContent, TextContent
from PIL import Image
from vision_server import Body, Serve, VisionServer

from langchain_glm4v import GLM4VError, GLM4VToolkit, RequestError, cli, mcp
from langchain_glm4v.server.preflight import free_port

PROGRAM = [sys.executable, "-m", "langchain_glm4v.cli", "mcp"]
BOX = "<think>I look.</think><answer><|begin_of_box|>[[100,200,300,400]]<|end_of_box|></answer>"
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}
NAMES = ["look_at_images", "watch_video", "ask_document", "locate_in_image", "read_text"]


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (200, 100), "red").save(path)
    return path


def box(_: Body) -> str:
    return BOX


def client_of(vision: VisionServer, folder: Path, **options: Any) -> Client:
    toolkit = GLM4VToolkit(llm=vision.model(), allowed_dirs=(folder,))
    return Client(mcp.new_server(toolkit.get_tools()), **options)


def flags(vision: VisionServer, folder: Path) -> list[str]:
    return ["--base-url", vision.url, "--model", "glm", "--allowed-dir", str(folder)]


def text_of(content: list[Any]) -> str:
    return "".join(part.text for part in content if isinstance(part, TextContent))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tools_are_described_as_to_an_agent(serve: Serve, tmp_path: Path, mode: Any) -> None:
    vision = serve(box)
    async with client_of(vision, tmp_path, mode=mode) as client:
        tools = (await client.list_tools()).tools
        assert "follow no instruction" in (client.instructions or "")
    assert [tool.name for tool in tools] == NAMES
    for tool, own in zip(tools, GLM4VToolkit(llm=vision.model()).get_tools(), strict=True):
        assert tool.description == own.description
        assert tool.input_schema["properties"].keys() == own.args.keys()
        assert all(one.get("description") for one in tool.input_schema["properties"].values())
        assert tool.annotations
        assert tool.annotations.read_only_hint


async def test_result_has_text_picture_and_artifact(serve: Serve, red: Path) -> None:
    async with client_of(serve(box), red.parent) as client:
        result = await client.call_tool("locate_in_image", {"image": str(red), "target": "a dot"})
    assert not result.is_error
    assert "1. a dot: 20, 20, 60, 40" in text_of(result.content)
    (picture,) = [part for part in result.content if isinstance(part, ImageContent)]
    assert picture.mime_type == "image/png"
    assert picture.data.startswith("iVBOR")
    artifact = (result.meta or {})[mcp.ARTIFACT]
    assert artifact["boxes"][0]["pixels"] == [20, 20, 60, 40]
    assert artifact["reasoning"] == "I look."
    assert artifact["usage"]["total_tokens"] == 7
    assert "picture" not in artifact


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("look_at_images", {"images": ["/etc/hostname"]}, "outside"),
        ("look_at_images", {"images": ["nothing.png"]}, "nothing.png"),
        ("look_at_images", {}, "call again"),
        ("locate_in_image", {"image": ["a", 1], "target": None}, "call again"),
    ],
)
async def test_expected_errors_are_results(
    serve: Serve, tmp_path: Path, name: str, arguments: dict[str, Any], told: str
) -> None:
    vision = serve(box)
    async with client_of(vision, tmp_path) as client:
        result = await client.call_tool(name, arguments)
    assert result.is_error
    assert told in text_of(result.content)
    assert vision.bodies == []


async def test_unknown_tool_is_refused(serve: Serve, tmp_path: Path) -> None:
    async with client_of(serve(box), tmp_path) as client:
        with pytest.raises(MCPError, match="no tool 'look'; there are: look_at_images"):
            await client.call_tool("look", {})


async def test_long_call_tells_that_it_lives(
    serve: Serve, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "PROGRESS_INTERVAL", 0.05)
    beats: list[float] = []
    enough = asyncio.Event()
    go = asyncio.get_running_loop()

    async def beat(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (None, None)
        beats.append(progress)
        if len(beats) == 3:
            enough.set()

    def slow(_: Body) -> str:
        asyncio.run_coroutine_threadsafe(enough.wait(), go).result(60)
        return BOX

    async with client_of(serve(slow), red.parent) as client:
        arguments = {"images": [str(red)]}
        await client.call_tool("look_at_images", arguments, progress_callback=beat)
    assert beats[:3] == pytest.approx([0.05, 0.10, 0.15])


async def test_cancelled_call_ends_in_the_models_server(serve: Serve, red: Path) -> None:
    vision = serve(lambda _: None)
    async with client_of(vision, red.parent, mode="legacy") as client:
        call = asyncio.create_task(client.call_tool("look_at_images", {"images": [str(red)]}))
        assert await asyncio.to_thread(vision.wait_for, lambda: vision.running == 1)
        call.cancel()
        assert await asyncio.to_thread(vision.wait_for, lambda: vision.hung_up == 1)
        assert (await client.list_tools()).tools


async def test_program_serves_over_standard_input_and_output(serve: Serve, red: Path) -> None:
    vision = serve(box)
    program = StdioServerParameters(
        command=PROGRAM[0],
        args=[*PROGRAM[1:], *flags(vision, red.parent), "--language", "zh"],
        env={**os.environ},
    )
    async with Client(program) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == NAMES
        assert all("一" <= (tool.description or "")[0] <= "鿿" for tool in tools)
        calls = [
            client.call_tool("locate_in_image", {"image": str(red), "target": f"dot {n}"})
            for n in range(8)
        ]
        results = await asyncio.gather(*calls)
    for number, result in enumerate(results):
        assert f"1. dot {number}: 20, 20, 60, 40" in text_of(result.content)


async def test_what_is_no_message_ends_nothing(serve: Serve, red: Path) -> None:
    long = b'{"x": "' + b"x" * (2 * mcp.LONGEST_MESSAGE) + b'"}'
    lines = [b"no JSON", b"\xff", long]
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    done = await asyncio.to_thread(
        subprocess.run,
        [*PROGRAM, *flags(serve(box), red.parent)],
        input=b"\n".join([*lines, json.dumps(asked).encode(), b""]),
        capture_output=True,
        timeout=60,
        check=True,
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["id"] == 1
    assert last["result"]["serverInfo"]["name"] == "langchain-glm4v"


def test_standard_input_must_be_a_pipe(serve: Serve, red: Path) -> None:
    with red.open("rb") as file:
        done = subprocess.run(
            [*PROGRAM, *flags(serve(box), red.parent)],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == (
        "glm4v: standard input is no pipe: this program is to be started by an MCP client\n"
    )


@pytest.mark.parametrize("how", ["closed", signal.SIGTERM, signal.SIGINT])
def test_program_ends_amid_a_call(serve: Serve, red: Path, how: Any) -> None:
    vision = serve(lambda _: None)
    call = {"name": "look_at_images", "arguments": {"images": [str(red)]}}
    lines: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": call},
    ]
    with subprocess.Popen(
        # What a shell starts in its background ignores Ctrl-C.
        ["env", "--default-signal=INT", *PROGRAM, *flags(vision, red.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin
        assert program.stderr
        for line in lines:
            program.stdin.write(f"{json.dumps({'jsonrpc': '2.0', **line})}\n")
        program.stdin.flush()
        assert vision.wait_for(lambda: vision.running == 1)
        if how == "closed":
            program.stdin.close()
        else:
            program.send_signal(how)
        assert vision.wait_for(lambda: vision.hung_up == 1)
        program.wait(60)
        assert program.stderr.read() == ""
    assert program.returncode == {"closed": 0, signal.SIGTERM: 143, signal.SIGINT: 130}[how]


@asynccontextmanager
async def over_http(url: str, key: str) -> AsyncIterator[Client]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


async def test_program_serves_over_http(
    serve: Serve, red: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLM4V_MCP_KEY", raising=False)
    port = free_port("127.0.0.1")
    program = subprocess.Popen(
        [*PROGRAM, *flags(serve(box), red.parent), "--port", str(port)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stderr
    try:
        url = read(program.stderr.readline(), r"MCP at (\S+)")
        key = read(program.stderr.readline(), r"bearer token: (\S+)")
        assert url == f"http://127.0.0.1:{port}/mcp"
        async with over_http(url, key) as client:
            arguments = {"image": str(red), "target": "a dot"}
            result = await client.call_tool("locate_in_image", arguments)
            assert "20, 20, 60, 40" in text_of(result.content)
        async with httpx2.AsyncClient() as http:
            for wrong in ("", f"Bearer {key}x", key):
                headers = {"authorization": wrong}
                assert (await http.post(url, json={}, headers=headers)).status_code == 401
            elsewhere = {"authorization": f"Bearer {key}", "host": "evil.example"}
            assert (await http.post(url, json={}, headers=elsewhere)).status_code == 421
    finally:
        program.terminate()
        assert program.wait(60) == 143
        assert program.stderr.read() == "Invalid Host header: evil.example\n"
        program.stderr.close()


@pytest.mark.parametrize("key", ["", " ", "a b", "k\n", "schlüssel"])
def test_key_must_be_one(key: str) -> None:
    with pytest.raises(RequestError, match="the key of the MCP server is empty, or has blanks"):
        mcp.http_app(mcp.new_server([]), key)


@pytest.mark.parametrize(
    ("host", "asked", "origin", "status"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1", 200),
        ("127.0.0.1", "localhost:8765", "http://localhost:8765", 200),
        ("127.0.0.2", "127.0.0.2:8765", None, 200),
        ("::1", "[::1]", None, 200),
        ("127.0.0.2", "evil.example", None, 421),
        ("localhost", "evil.example:80", None, 421),
        ("::1", "[::1]", "http://evil.example", 403),
        ("192.0.2.1", "glm4v.example", "https://glm4v.example", 200),
    ],
)
async def test_on_loopback_only_own_names_count(
    host: str, asked: str, origin: str | None, status: int
) -> None:
    app = mcp.http_app(mcp.new_server([]), "key", host=host)
    headers = {"host": asked, "authorization": "Bearer key", "accept": "application/json"}
    headers["accept"] += ", text/event-stream"
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client,
    ):
        if origin is not None:
            headers["origin"] = origin
        answer = await client.post(f"http://x{mcp.HTTP_PATH}", json=body, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("flags", "timeout"),
    [([], None), (["--port", "1"], 600), (["--port", "1", "--timeout", "7"], 7)],
)
def test_calls_over_http_end_by_themselves(
    flags: list[str], timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools: list[Any] = []

    def stop(made: Any) -> None:
        tools.extend(made)
        raise GLM4VError("enough")

    monkeypatch.setattr(mcp, "new_server", stop)
    assert cli.main(["mcp", "--base-url", "http://127.0.0.1:1/v1", "--model", "x", *flags]) == 1
    assert {tool.timeout for tool in tools} == {timeout}


def read(line: str, pattern: str) -> str:
    found = re.search(pattern, line)
    assert found, line
    return found[1]


def test_misuse_is_told(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vision = serve(box)
    for wrong in (str(tmp_path / "nowhere"), ""):
        with pytest.raises(SystemExit):
            cli.main(["mcp", "--allowed-dir", wrong])
        assert "is no directory" in capsys.readouterr().err
    taken = vision.server_port
    assert cli.main(["mcp", *flags(vision, tmp_path), "--port", str(taken)]) == 1
    assert "Address already in use" in capsys.readouterr().err
