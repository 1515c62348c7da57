"""A vLLM server as a child process: started, watched, checked, and stopped without leftovers.

Nothing outlives the program that started it. The server leads a process group of its own, so a
Ctrl-C in the terminal reaches only the program, which then stops the server; an exit of the
interpreter stops it too. Against deaths that run no code (SIGTERM, kill -9) each process of the
server watches its parent and ends the group when that is gone.
"""

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from langchain_glm4v.errors import PortInUseError, ServerError, ServerStartError
from langchain_glm4v.server import log
from langchain_glm4v.server.options import (
    HOST,
    MARKER_VARIABLE,
    ServerOptions,
    command,
    environment,
)
from langchain_glm4v.server.preflight import (
    Checkpoint,
    Engine,
    check_port,
    find_engine,
    folder_hint,
    free_port,
    port_in_use,
)
from langchain_glm4v.server.probes import Client, check_rendering
from langchain_glm4v.server.weights import local_checkpoint

POLL_INTERVAL = 0.2  # seconds between two looks at a starting server
PORT_ATTEMPTS = 3  # a free port may be taken before the server listens on it, seconds later
DRAIN_MARGIN = 15.0  # seconds that vLLM takes beyond its shutdown timeout, at most 13 seen
ABORT_GRACE = 5.0  # seconds for a server that is not to finish its requests
LOG_LIFETIME = 7 * 24 * 3600.0  # seconds
HELPER_GRACE = 2.0  # seconds for helper processes to follow the server by themselves

_running: "set[GLM4VServer]" = set()


class GLM4VServer:
    """A vLLM server for GLM-4.1V-Thinking, as a child process on a loopback port.

    Usable as a context manager, or with `start` and `stop`:

        with GLM4VServer("tiny") as server:
            print(server.base_url, server.served_model_name)

    The API key is random, is known to the server and this object alone, and shows in no command
    line, log or repr.

    Args:
        model: "tiny" for the miniature, the folder of a checkpoint, or the id of a repository on a
            model hub, which is downloaded first, as far as it is not in the hub's cache.
        revision: Branch, tag or commit of the repository; None takes the main branch.
        source: Model hub, "huggingface" or "modelscope"; None takes ModelScope if the environment
            has `VLLM_USE_MODELSCOPE=1`, else Hugging Face.
        port: Port to listen on; None chooses a free one.
        served_model_name: What requests call the model; None takes "tiny", the folder's name or the
            repository id.
        dtype: Number type that vLLM computes in, such as "bfloat16" or "float32". "auto" is the
            checkpoint's own, but float32 on CPUs without bfloat16 instructions.
        max_model_len: Longest prompt and answer together, in tokens; None takes the checkpoint's
            limit.
        images_per_prompt: Most pictures in one request.
        startup_timeout: Seconds the server may take to become ready. A download from a model hub
            does not count.
        shutdown_timeout: Whole seconds that `stop` lets requests finish in.
        log_path: File for the server's output, overwritten at each start; None makes a temporary
            file, which stays only if the server fails, or if this program is killed. Starts
            remove such files of this user after 7 days.
        extra_args: Further arguments of `vllm serve`; they win over those that this class gives.
        on_progress: Called with a short line whenever the start reaches a new stage.

    Raises:
        ServerOptionError: An option has a value that is not accepted.

    Attributes:
        options: What the server was asked for.
        id: Marks the server's processes: their environment holds it as GLM4V_SERVER_ID.
        api_key: What requests must carry as bearer token.
        log_path: File with the server's output.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        source: str | None = None,
        port: int | None = None,
        served_model_name: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        images_per_prompt: int = 32,
        startup_timeout: float = 600.0,
        shutdown_timeout: float = 30.0,
        log_path: str | os.PathLike[str] | None = None,
        extra_args: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.options = ServerOptions(
            model=model,
            revision=revision,
            source=source,
            port=port,
            served_model_name=served_model_name,
            dtype=dtype,
            max_model_len=max_model_len,
            images_per_prompt=images_per_prompt,
            startup_timeout=startup_timeout,
            shutdown_timeout=shutdown_timeout,
            log_path=log_path,
            extra_args=extra_args,
        )
        self.id = secrets.token_hex(8)
        self.api_key = secrets.token_urlsafe(32)
        self.log_path = Path(self.options.log_path or _temporary_log(self.id))
        self._report = on_progress or (lambda _: None)
        self._port: int | None = None
        self._served_model_name = served_model_name
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False
        self._ending = threading.RLock()  # a signal handler may stop the server amid a stop

    def __repr__(self) -> str:
        state = f"base_url={self.base_url!r}, pid={self.pid}" if self._process else "not running"
        return f"GLM4VServer({self.options.model!r}, {state})"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After Ctrl-C nobody waits for the answers that the server would finish.
        self.stop(drain=kind is None or issubclass(kind, Exception))

    @property
    def base_url(self) -> str:
        """Where the OpenAI-compatible API is, such as "http://127.0.0.1:41234/v1".

        Raises:
            RuntimeError: The server was never started, so it has no port yet.
        """
        if self._port is None:
            message = "the server has no address yet; call start() first"
            raise RuntimeError(message)
        return f"http://{HOST}:{self._port}/v1"

    @property
    def served_model_name(self) -> str:
        """What requests call the model.

        Raises:
            RuntimeError: It follows from the checkpoint, and the server was never started.
        """
        if self._served_model_name is None:
            message = "the server has no model name yet; call start() first"
            raise RuntimeError(message)
        return self._served_model_name

    @property
    def pid(self) -> int | None:
        """Process id, which is also the id of the process group; None while not running."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        """Whether the server process is there; it may have stopped answering all the same."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and wait until it answers. Does nothing if it is running.

        Raises:
            EngineNotInstalledError: There is no vLLM for this machine in this environment.
            ModelNotFoundError: `model` names no GLM-4.1V checkpoint.
            WeightsError: The checkpoint cannot be fetched, or is damaged.
            ServerOptionError: A revision is given for a folder.
            PortInUseError: `port` is taken.
            ServerStartError: The server ended, or was not ready in time, or its log cannot be
                written.
            TemplateError: The server would garble conversations.
        """
        if self.is_running:
            return self
        self.stop()
        engine = find_engine()
        checkpoint = local_checkpoint(
            os.fspath(self.options.model),
            revision=self.options.revision,
            source=self.options.source,
            report=self._report,
        )
        _remove_old_logs()
        self._served_model_name = self.options.served_model_name or checkpoint.name
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._wait_until_ready(*self._launch(checkpoint, engine))
                self._report("ready")
            except BaseException as error:
                self._failed = isinstance(error, ServerError)
                self.stop(drain=False)
                lost_race = isinstance(error, PortInUseError) and self.options.port is None
                if not lost_race or attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                self._failed = False
                break
        return self

    def stop(self, *, drain: bool = True) -> None:
        """Stop the server and everything it started. Does nothing if it is not running.

        Args:
            drain: Whether requests may finish, for up to the shutdown timeout.
        """
        process = self._process
        if process is None:
            return
        failed = self._failed or process.poll() is not None
        patience = self.options.shutdown_timeout + DRAIN_MARGIN if drain else ABORT_GRACE
        try:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        finally:  # also when a second Ctrl-C ends the wait
            with self._ending:
                if self._process is process:  # no other thread was first, and started it again
                    _kill_what_is_left(process, self.id)
                    self._let_go()
                    if self.options.log_path is None and not failed:
                        self.log_path.unlink(missing_ok=True)

    def _launch(
        self, checkpoint: Checkpoint, engine: Engine
    ) -> tuple[subprocess.Popen[bytes], Client]:
        if self.options.port is not None:
            check_port(HOST, self.options.port)
        self._port = self.options.port or free_port(HOST)
        variables = environment(
            os.environ, checkpoint, engine, server_id=self.id, api_key=self.api_key
        )
        self._report(f"loading engine ({engine.description})")
        with self._open_log() as output:
            try:
                self._process = subprocess.Popen(
                    command(self.options, checkpoint, engine, self._port),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,
                )
            except OSError as error:
                message = (
                    f"the vLLM server for {self.options.model!r} cannot be run: {error}; free "
                    "memory or processes, or give shorter extra_args"
                )
                raise ServerStartError(message) from error
        _running.add(self)
        return self._process, Client(self._port, self.api_key)

    def _open_log(self) -> BinaryIO:
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log_path.touch(mode=0o600)
            return self.log_path.open("wb")
        except OSError as error:
            message = (
                f"the server's log cannot be written: {error}; "
                "give as log_path a file in a folder that you may write to"
            )
            raise ServerStartError(message) from error

    def _wait_until_ready(self, process: subprocess.Popen[bytes], client: Client) -> None:
        deadline = time.monotonic() + self.options.startup_timeout
        reported = log.FIRST_STAGE
        while not client.is_healthy():
            stage = log.stage(self.log_path)
            if process.poll() is not None:
                raise self._failure(
                    f"ended with {_describe(process.returncode)} while starting",
                    log.likely_cause(self.log_path, process.returncode),
                )
            if time.monotonic() > deadline:
                raise self._failure(
                    f"was not ready after {self.options.startup_timeout:g} s, still {stage}",
                    "raise startup_timeout",
                )
            if stage != reported:
                self._report(stage)
                reported = stage
            time.sleep(POLL_INTERVAL)
        check_rendering(client, self.served_model_name)

    def _failure(self, what: str, cause: str) -> ServerError:
        if log.lost_port(self.log_path) and self._port is not None:
            return PortInUseError(port_in_use(HOST, self._port))
        if cause in {log.HUB_REFUSES, log.HUB_IS_AWAY}:
            cause += folder_hint(os.fspath(self.options.model))
        message = (
            f"the vLLM server for {self.options.model!r} {what}: {cause}; its log: {self.log_path}"
        )
        return ServerStartError(message, log.tail(self.log_path))

    def _let_go(self) -> None:
        self._process = None
        _running.discard(self)


def find_leftovers(server_id: str | None = None) -> list[int]:
    """Process ids of everything that a `GLM4VServer` of this user started and that still runs.

    Args:
        server_id: `id` of one server; None finds those of any server, of any program.
    """
    wanted = f"{MARKER_VARIABLE}={server_id or ''}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            variables = entry.read_bytes().split(b"\0")
            if any(v == wanted or (server_id is None and v.startswith(wanted)) for v in variables):
                found.append(int(entry.parent.name))
    return sorted(found)


def _kill_what_is_left(process: subprocess.Popen[bytes], server_id: str) -> None:
    """Kill the server if it still runs, and its helpers if they do not follow it by themselves."""
    deadline = time.monotonic() + HELPER_GRACE
    while process.poll() is not None and find_leftovers(server_id) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL / 4)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + HELPER_GRACE
    while (left := find_leftovers(server_id)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_INTERVAL / 4)


def _describe(exit_code: int) -> str:
    if exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _temporary_log(server_id: str) -> Path:
    return Path(tempfile.gettempdir()) / f"glm4v-server-{server_id}.log"


def _remove_old_logs() -> None:
    """Remove temporary logs that nobody came for: of servers that failed or whose program died."""
    oldest = time.time() - LOG_LIFETIME
    pattern = _temporary_log("*")
    for path in pattern.parent.glob(pattern.name):
        with contextlib.suppress(OSError):  # another server's start removed it
            found = path.stat()
            server_id = path.stem.rpartition("-")[2]
            if (
                found.st_mtime < oldest
                and found.st_uid == os.getuid()
                and not find_leftovers(server_id)
            ):
                path.unlink()


@atexit.register
def _stop_all() -> None:
    for server in list(_running):
        server.stop(drain=False)


def _disown_all() -> None:
    """In a forked child: leave the servers to the parent."""
    for server in list(_running):
        server._let_go()


os.register_at_fork(after_in_child=_disown_all)
