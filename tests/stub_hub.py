"""A model hub on this machine that speaks as Hugging Face's does, and as ModelScope's.

It has what a test gives it, notes what it is asked, and breaks as a test says. Weights are on
another host than the rest, by a redirect, as they are on Hugging Face.
"""

import email.utils
import hashlib
import http.server
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import langchain_glm4v
import tiny_glm4v

SOURCES = Path(langchain_glm4v.__file__).parent
CHUNK = 1 << 16

# Fetches what it is told, and prints what came of it and each progress as JSON.
FETCHER = """
import dataclasses, json, sys, types

# What the package imports first takes seconds; an empty stand-in takes its place.
package = types.ModuleType("langchain_glm4v")
package.__path__ = [sys.argv[2]]
sys.modules["langchain_glm4v"] = package

from langchain_glm4v.errors import GLM4VError
from langchain_glm4v.server.weights import fetch

def say(**what):
    print(json.dumps(what), flush=True)

try:
    folder = fetch(**json.loads(sys.argv[1]), on_progress=lambda p: say(**dataclasses.asdict(p)))
except GLM4VError as error:
    say(error=type(error).__name__, message=str(error))
except KeyboardInterrupt:
    say(error="KeyboardInterrupt", message="")
else:
    say(folder=str(folder))
"""


def checkpoint() -> dict[str, bytes]:
    """The files of the miniature, and others that no start needs."""
    folder = Path(tiny_glm4v.checkpoint_path())
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {
        **files,
        "README.md": b"# GLM",
        "pytorch_model.bin": b"x" * 999,
        "figures/a.json": b"{}",
    }


def weights(size: int, seed: int = 0) -> bytes:
    """A file of weights with `size` bytes of numbers."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    block = hashlib.sha256(b"%d" % seed).digest()
    return struct.pack("<Q", len(header)) + header + (block * (size // 32 + 1))[:size]


@dataclass
class Repository:
    """A repository.

    Attributes:
        commits: Commit -> its files.
        names: Branch or tag -> commit.
        gated: Who asks without the token "good" is turned away.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], name: str = "main") -> str:
        """Let a branch or tag mean these files from now on."""
        digest = hashlib.sha1(repr(sorted(files)).encode() + b"".join(files.values())).hexdigest()
        self.commits[digest] = dict(files)
        self.names[name] = digest
        return digest

    def find(self, revision: str) -> str | None:
        commit = self.names.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class Seen:
    """A request and what was sent for it."""

    method: str
    path: str
    headers: Message
    sent: int = 0


class StubHub(http.server.ThreadingHTTPServer):
    """A running hub.

    Attributes:
        repositories: Id -> repository.
        seen: All requests.
        faults: What goes wrong with the next transfers of weights, one each: ("cut", bytes) and
            ("reset", bytes) end the connection after so many, ("alter", 0) changes a byte,
            ("whole", 0) ignores that a part was asked for, ("unwell", 0) answers 503.
        lies: Name of a file -> what the hub announces of it otherwise than it is.
        swapped: Name of a small file -> what is sent instead of it.
        pace: Bytes a second of a transfer, at most.
        status: Status that every request gets, if any.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.seen: list[Seen] = []
        self.faults: deque[tuple[str, int]] = deque()
        self.lies: dict[str, dict[str, Any]] = {}
        self.swapped: dict[str, bytes] = {}
        self.pace = float("inf")
        self.status = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repository: str, files: Mapping[str, bytes] | None = None) -> Repository:
        added = self.repositories.setdefault(repository, Repository())
        added.commit(checkpoint() if files is None else files)
        return added

    def transfers(self, name: str = "") -> list[Seen]:
        """Transfers of weights, those of a name."""
        return [seen for seen in self.seen if seen.path.startswith("/cdn/") and name in seen.path]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up at any moment."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: StubHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.noted = Seen(self.command, self.path, self.headers)
        self.server.seen.append(self.noted)
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        if self.server.status:
            self.answer(self.server.status)
        elif found := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree)/(.+))?", path):
            self.tell(found[1], found[3] or "main", as_tree=found[2] == "tree")
        elif found := re.fullmatch(r"/(cdn/)?(.+)/resolve/([^/]+)/(.+)", path):
            self.give(found[2], found[3], found[4], on_cdn=bool(found[1]))
        elif found := re.fullmatch(r"/api/v1/models/(.+?)/repo/files", path):
            self.tell_as_modelscope(found[1], query)
        elif found := re.fullmatch(r"/api/v1/models/(.+?)/repo", path):
            self.give_as_modelscope(found[1], query)
        else:
            self.answer(404)

    def find(self, name: str, revision: str, *, gate: bool) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files; answers itself where there are none."""
        repository = self.server.repositories.get(name)
        allowed = self.headers["Authorization"] == "Bearer good"
        if repository is None:
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif gate and repository.gated and not allowed:
            self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif (commit := repository.find(revision)) is None:
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev")
        else:
            return commit, repository.commits[commit]
        return None

    def tell(self, name: str, revision: str, *, as_tree: bool) -> None:
        if found := self.find(name, revision, gate=False):  # what there is, anybody may know
            commit, files = found
            siblings = [
                {
                    "rfilename": file,
                    "size": len(content),
                    "blobId": git_digest(content),
                    **({"lfs": lfs(content)} if is_lfs(file) else {}),
                    **self.server.lies.get(file, {}),
                }
                for file, content in files.items()
            ]
            tree = [
                {"type": "file", "path": s["rfilename"], "oid": s["blobId"], **s} for s in siblings
            ]
            model = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
            self.answer(200, json.dumps(tree if as_tree else model).encode())

    def give(self, name: str, revision: str, file: str, *, on_cdn: bool) -> None:
        if on_cdn:  # as by a signed address: whoever has it needs no more
            repository = self.server.repositories[name]
            self.send(repository.commits[revision][file])
        elif found := self.find(name, revision, gate=True):
            commit, files = found
            if file not in files:
                self.answer(404, X_Error_Code="EntryNotFound")
                return
            content = files[file]
            about = {"X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
            if is_lfs(file):
                about |= {
                    "X_Linked_Size": str(len(content)),
                    "X_Linked_ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                    "Location": f"http://localhost:{self.server.server_port}/cdn/"
                    f"{name}/resolve/{commit}/{quote(file)}",
                }
                self.answer(302, b"", **about)
            else:
                sent = self.server.swapped.get(file, content)
                self.answer(200, sent, ETag=f'"{git_digest(content)}"', **about)

    def tell_as_modelscope(self, name: str, query: Mapping[str, str]) -> None:
        if files := self.find_as_modelscope(name, query):
            entries = [
                {
                    "Path": file,
                    "Name": file.rpartition("/")[2],
                    "Type": "blob",
                    "Size": len(content),
                    "Sha256": hashlib.sha256(content).hexdigest(),
                }
                for file, content in files.items()
            ]
            body = {"Code": 200, "Success": True, "Data": {"Files": entries}}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def give_as_modelscope(self, name: str, query: Mapping[str, str]) -> None:
        if files := self.find_as_modelscope(name, query):
            self.send(files[query["FilePath"]])

    def find_as_modelscope(self, name: str, query: Mapping[str, str]) -> dict[str, bytes] | None:
        repository = self.server.repositories.get(name)
        revision = {"master": "main"}.get(query["Revision"], query["Revision"])
        if repository and (commit := repository.find(revision)):
            return repository.commits[commit]
        body = {"Code": 10010205001, "Success": False, "Message": "record not found"}
        self.answer(404, json.dumps(body).encode(), Content_Type="application/json")
        return None

    def send(self, content: bytes) -> None:
        """Send weights, or the part of them that is asked for, as far as no fault is due."""
        start, end = 0, len(content)
        fault, after = ("", end)
        if self.command == "GET" and self.server.faults:
            fault, after = self.server.faults.popleft()
        if fault == "unwell":
            self.answer(503)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if asked and fault != "whole":
            start = int(asked[1])
            end = min(end, int(asked[2]) + 1 if asked[2] else end)
        part = content[start:end]
        if fault == "alter":
            part = bytes([part[0] ^ 1]) + part[1:]
        self.send_response(206 if asked and fault != "whole" else 200)
        self.send_header("Content-Length", str(len(part)))
        if asked and fault != "whole":
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = fault in {"cut", "reset"}
        for at in range(0, min(len(part), after) if breaks else len(part), CHUNK):
            block = part[at : min(at + CHUNK, after)] if breaks else part[at : at + CHUNK]
            self.wfile.write(block)
            self.noted.sent += len(block)
            time.sleep(len(block) / self.server.pace)
        if breaks:
            self.close_connection = True
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """In names of headers, an underscore stands for a hyphen."""
        self.send_response(status)
        fields = {"Content_Length": str(len(body)), "Date": email.utils.formatdate(), **headers}
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.noted.sent += len(body)

    def log_message(self, *_: Any) -> None:
        pass


def is_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def lfs(content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"oid": digest, "sha256": digest, "size": len(content), "pointerSize": 134}


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Fetched:
    """What came of a fetch in a process of its own."""

    folder: Path | None
    error: str
    message: str
    progress: list[dict[str, Any]]
    stderr: str


class Fetcher:
    """Fetches in processes of their own: the hubs' libraries read the environment at import.

    Attributes:
        environment: What the processes get.
        largest_file: Largest file that they may write, in KiB; 0 for any.
    """

    def __init__(self, hub: StubHub, folder: Path) -> None:
        self.cache = folder / "hf" / "hub"
        self.largest_file = 0
        strange = re.compile(r"HF_|HUGGING|MODELSCOPE|VLLM_USE|.*_proxy$", re.IGNORECASE)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not strange.match(name)},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "MODELSCOPE_ENDPOINT": hub.url,
            "MODELSCOPE_CACHE": str(folder / "ms"),
            "MODELSCOPE_HOME": str(folder / "ms-home"),
            "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def start(self, model: str, **options: Any) -> subprocess.Popen[str]:
        arguments = json.dumps({"model_id": model, **options})
        limit = f"ulimit -f {self.largest_file}; " if self.largest_file else ""
        return subprocess.Popen(
            [
                *("env", "--default-signal=INT"),  # which a shell's background ignores
                *("bash", "-c", f'{limit}exec "$@"', "-"),
                *(sys.executable, "-c", FETCHER, arguments, str(SOURCES)),
            ],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(self, process: subprocess.Popen[str], signal_: int, after: int) -> None:
        """Send a signal once so many bytes have arrived."""
        assert process.stdout
        for line in process.stdout:
            if json.loads(line)["done_bytes"] >= after:
                break
        process.send_signal(signal_)

    def finish(self, process: subprocess.Popen[str]) -> Fetched:
        stdout, stderr = process.communicate()
        said = [json.loads(line) for line in stdout.splitlines()]
        assert said, stderr
        end = said.pop()
        folder = Path(end["folder"]) if "folder" in end else None
        return Fetched(folder, end.get("error", ""), end.get("message", ""), said, stderr)

    def __call__(self, model: str, **options: Any) -> Fetched:
        return self.finish(self.start(model, **options))


@contextmanager
def running() -> Iterator[StubHub]:
    with StubHub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
