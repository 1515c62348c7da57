"""`glm4v mcp`."""

import argparse
import asyncio
import importlib.util
import os
import secrets
import socket
from collections.abc import Mapping
from typing import Any

from langchain_glm4v.cli.model import add_allow_host, add_model, asked_model
from langchain_glm4v.cli.terminal import say
from langchain_glm4v.cli.values import folder, number, whole
from langchain_glm4v.errors import GLM4VError
from langchain_glm4v.server.addresses import in_url
from langchain_glm4v.server.options import LOOPBACK

KEY_VARIABLE = "GLM4V_MCP_KEY"
KEY_BYTES = 32
HTTP_TIMEOUT = 600.0


def _add(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--allowed-dir",
        action="append",
        default=[],
        type=folder,
        metavar="DIR",
        help="local files in or below it may be read; may be given again. Default: none is read",
    )
    add_allow_host(parser)
    parser.add_argument(
        "--timeout",
        type=number,
        metavar="SECONDS",
        help=f"that a call may take. Default: any; over HTTP {HTTP_TIMEOUT:g}, because "
        "nobody tells when a client dies",
    )
    parser.add_argument(
        "--language",
        choices=("en", "zh"),
        default="en",
        help="of what the tools say to agents and ask the model. Default: %(default)s",
    )
    group = parser.add_argument_group("over HTTP, instead of standard input and output")
    group.add_argument("--port", type=whole(1), metavar="PORT", help="port to listen on")
    group.add_argument(
        "--host",
        default=LOOPBACK,
        help=f"address to listen on; clients send ${KEY_VARIABLE} as bearer token, "
        "or the key that is printed. Default: %(default)s",
    )


def _run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("mcp") is None:
        raise GLM4VError('the MCP SDK is missing: pip install "langchain-glm4v[mcp]"')
    from langchain_glm4v import mcp  # noqa: PLC0415
    from langchain_glm4v.tools import GLM4VToolkit  # noqa: PLC0415

    with asked_model(args, {"allow_hosts": tuple(args.allow_host)}) as model:
        no_timeout = None if args.port is None else HTTP_TIMEOUT
        toolkit = GLM4VToolkit(
            llm=model,
            allowed_dirs=tuple(args.allowed_dir),
            timeout=no_timeout if args.timeout is None else args.timeout,
            language=args.language,
        )
        server = mcp.new_server(toolkit.get_tools())
        if args.port is None:
            asyncio.run(mcp.serve_stdio(server))
        else:
            _serve_http(server, args.host, args.port)
    return 0


def _serve_http(server: Any, host: str, port: int) -> None:
    import uvicorn  # noqa: PLC0415

    from langchain_glm4v.mcp import HTTP_PATH, http_app  # noqa: PLC0415

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        key = os.environ.get(KEY_VARIABLE)
        say(f"MCP at http://{in_url(host)}:{port}{HTTP_PATH}")
        if not key:
            key = secrets.token_urlsafe(KEY_BYTES)
            say(f"bearer token: {key}")
        config = uvicorn.Config(http_app(server, key, host=host), log_level="warning")
        uvicorn.Server(config).run([listening])


COMMANDS: Mapping[str, Any] = {"mcp": (_add, _run)}
