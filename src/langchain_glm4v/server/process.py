"""A vLLM server for one program, or for several: started, joined, checked and let go of.

The server runs under a keeper, a small process that stops it once nobody holds it any more: after
`stop`, an exit of the interpreter, or any death of the program, `kill -9` included (see `keeper`).
"""

import atexit
import contextlib
import fcntl
import http
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

from langchain_glm4v.errors import PortInUseError, ServerError, ServerStartError
from langchain_glm4v.server import checks, keeper, log, sharing
from langchain_glm4v.server.addresses import in_url
from langchain_glm4v.server.checks import Ready
from langchain_glm4v.server.fit import fitted
from langchain_glm4v.server.hold import Hold
from langchain_glm4v.server.keeper import Facts, Status, Task
from langchain_glm4v.server.options import (
    LOOPBACK,
    REACHED_AT,
    ServerOptions,
    command,
    environment,
)
from langchain_glm4v.server.preflight import (
    check_port,
    find_engine,
    free_port,
    port_in_use,
    resolve_model,
)
from langchain_glm4v.server.probes import Client, check
from langchain_glm4v.server.weights import local_checkpoint

POLL_INTERVAL = 0.2  # seconds between two looks at a starting server's log
PORT_ATTEMPTS = 3  # a free port may be taken before the server listens on it, seconds later
DRAIN_MARGIN = 15.0  # seconds that vLLM takes beyond its shutdown timeout, at most 13 seen
ABORT_GRACE = 5.0  # seconds for a server that is not to finish its requests
RESTART_DELAYS = (5.0, 10.0, 20.0, 30.0)  # seconds before each further start, then no more
LOG_LIFETIME = 7 * 24 * 3600.0  # seconds
KEEPER_GRACE = 10.0  # seconds for the keeper to end what the server leaves
DEATH_THROES = 2.0  # seconds from the first request that a dying server fails until it shows
KEEPER = Path(keeper.__file__)

_running: "set[GLM4VServer]" = set()


class GLM4VServer:
    """A vLLM server for GLM-4.1V-Thinking, as a child process on a loopback port.

    Usable as a context manager, or with `start` and `stop`:

        with GLM4VServer("tiny") as server:
            print(server.base_url, server.served_model_name)

    The API key is known to the server and this object alone, and shows in no command line, log or
    repr. All endpoints but the health check ask for it.

    A server that dies, or hangs, is started again, after 5, 10, 20 and 30 seconds; then it has
    failed. It keeps its address and key.

    Args:
        model: "tiny" for the miniature, the folder of a checkpoint, or the id of a repository on a
            model hub, which is downloaded first, as far as it is not in the hub's cache.
        revision: Branch, tag or commit of the repository; None takes the main branch.
        source: Model hub, "huggingface" or "modelscope"; None takes ModelScope if the environment
            has `VLLM_USE_MODELSCOPE=1`, else Hugging Face.
        port: Port to listen on; None chooses a free one.
        host: Address to listen on: the loopback interface, so that only this machine reaches the
            server; "0.0.0.0" for all. What leaves the machine should go through a proxy with TLS:
            see `serve/`.
        api_key: What requests must carry as bearer token; None makes a random one.
        served_model_name: What requests call the model; None takes "tiny", the folder's name or the
            repository id.
        dtype: Number type that vLLM computes in, such as "bfloat16" or "float32". "auto" is the
            checkpoint's own, but float32 on CPUs without bfloat16 instructions.
        max_model_len: Longest prompt and answer together, in tokens. None takes the model's limit,
            or on GPUs that are too small for it, the longest that fits.
        tensor_parallel: Number of GPUs that the model is divided among: 1, 2 or 4. None takes more
            than one only where fewer cannot hold so long a context.
        quantization: "fp8" makes the weights half as large while they load, "none" leaves them, and
            other names are vLLM's. None takes fp8 where it allows a longer context.
        gpu_memory_utilization: Share of each GPU's memory that vLLM takes, above 0 and up to 1.
            None takes 0.9, more where memory is tight, less where other programs hold some.
        images_per_prompt: Most pictures in one request.
        startup_timeout: Seconds the server may take to become ready. A download from a model hub
            does not count.
        shutdown_timeout: Whole seconds that `stop` lets requests finish in.
        hang_timeout: Seconds without an answer to a health check after which a server is taken for
            hung, and started again. The same goes for its engine, which answers between two steps;
            on a CPU it has three times as long.
        share: Whether to join the server that this or another program of this user runs with the
            same options, and to let others join. It ends when its last user stops it.
        idle_timeout: Seconds that the server stays after its last user; infinity, `float("inf")`:
            until `glm4v stop`.
        sleep_after: Seconds without requests after which the server frees the GPU, its weights kept
            in the machine's memory; the next request wakes it. None: never. Needs a GPU.
        log_path: File for the server's output, overwritten at each start. From 16 MiB on, and when
            the server is started again, earlier output goes to "….1" to "….3". None makes a
            temporary file, which stays only if the server fails. Starts remove such files of this
            user after 7 days.
        extra_args: Further arguments of `vllm serve`; they win over those that this class gives.
        on_progress: Called with a short line whenever the start reaches a new stage.

    Raises:
        ServerOptionError: An option has a value that is not accepted.

    Attributes:
        options: What the server was asked for.
        id: Marks the server's processes: their environment holds it as GLM4V_SERVER_ID. Of a server
            that was joined, it is known once that is done; so are `api_key` and `log_path`.
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
        host: str = LOOPBACK,
        api_key: str | None = None,
        served_model_name: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = None,
        tensor_parallel: int | None = None,
        quantization: str | None = None,
        gpu_memory_utilization: float | None = None,
        images_per_prompt: int = 32,
        startup_timeout: float = 600.0,
        shutdown_timeout: float = 30.0,
        hang_timeout: float = 120.0,
        share: bool = False,
        idle_timeout: float = 0.0,
        sleep_after: float | None = None,
        log_path: str | os.PathLike[str] | None = None,
        extra_args: Sequence[str] = (),
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.options = ServerOptions(
            model=model,
            revision=revision,
            source=source,
            port=port,
            host=host,
            api_key=api_key,
            served_model_name=served_model_name,
            dtype=dtype,
            max_model_len=max_model_len,
            tensor_parallel=tensor_parallel,
            quantization=quantization,
            gpu_memory_utilization=gpu_memory_utilization,
            images_per_prompt=images_per_prompt,
            startup_timeout=startup_timeout,
            shutdown_timeout=shutdown_timeout,
            hang_timeout=hang_timeout,
            share=share,
            idle_timeout=idle_timeout,
            sleep_after=sleep_after,
            log_path=log_path,
            extra_args=extra_args,
        )
        self._name()
        self._on_progress = on_progress or (lambda _: None)
        self._told_to_stop = threading.Event()  # since the last start began
        self._port: int | None = None
        self._served_model_name = served_model_name
        self._host = REACHED_AT.get(host, host)
        self._hold: Hold | None = None
        self._use: IO[str] | None = None  # if it is shared
        self._keeper: subprocess.Popen[bytes] | None = None  # if this program started it
        self._ending = threading.RLock()  # a signal handler may stop the server amid a stop

    def _name(self) -> None:
        """Give the server that this object may start what tells it from all others."""
        self._named_in = os.getpid()
        self._starting = threading.RLock()
        self.id = secrets.token_hex(8)
        self.api_key = self.options.api_key or secrets.token_urlsafe(32)
        self.log_path = Path(self.options.log_path or _temporary_log(self.id))
        self._own = (self.id, self.api_key, self.log_path)

    def __repr__(self) -> str:
        state = f"base_url={self.base_url!r}, pid={self.pid}" if self._hold else "not running"
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
        return f"http://{in_url(self._host)}:{self._port}/v1"

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
        """Process id of the API server, also that of its process group; None while not running."""
        hold = self._hold  # which another thread may let go of meanwhile
        status = hold and hold.status
        return status.pid if status and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the server is there, or is being started again."""
        hold = self._hold
        return hold is not None and hold.is_open and not _is_over(hold.status)

    @property
    def is_healthy(self) -> bool:
        """Whether the server answers, and its engine is alive. Asks it."""
        hold = self._hold  # which another thread may let go of meanwhile
        facts = hold.facts if hold and self.is_running else None
        return facts is not None and (
            keeper.health(facts, keeper.HEALTH_TIMEOUT) == http.HTTPStatus.OK
        )

    def start(self) -> Self:
        """Start the server, or join a shared one, and wait until it answers.

        Does nothing if it is running.

        Raises:
            EngineNotInstalledError: There is no vLLM for this machine in this environment.
            ModelNotFoundError: `model` names no GLM-4.1V checkpoint.
            WeightsError: The checkpoint cannot be fetched, or is damaged.
            PortInUseError: `port` is taken.
            GpuError: The GPUs do not work, or the model does not fit them.
            ServerOptionError: The options state what this model or machine cannot do, or a
                revision of a folder.
            ServerStartError: The start lacks something else that it needs; or the server ended, or
                was not ready in time, or its log cannot be written.
            TemplateError: The server would garble conversations.
            SelfCheckError: What it answers is of no use.
        """
        if self._named_in != os.getpid():  # in a forked child
            self._name()
        with self._starting:
            if self.is_running:
                return self
            self._told_to_stop.clear()  # first: a stop while it lets go ends this start too
            self._let_go(drain=True, keep_log=False)
            if not self.options.share:
                self._start(self._own[0])
                return self
            # Whether it would fit this machine does not matter where it runs already.
            checkpoint = resolve_model(os.fspath(self.options.model))
            name = sharing.name(self.options, checkpoint, find_engine())
            with sharing.alone(name, self._report):
                if not self._join(name):
                    self._start(name)
            return self

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until the server answers, as when it is being started again.

        Args:
            timeout: Seconds, at most; None for as long as there is hope.

        Raises:
            ServerStartError: It was not started, it failed for good, or is not ready in time.
        """
        hold = self._hold
        if hold is None:
            message = "the server is not running; call start() first"
            raise ServerStartError(message)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_healthy:  # asked too, for the keeper may not have seen its end yet
            left = deadline - time.monotonic()
            hold.wait(lambda status: status.state == "ready" or _is_over(status), min(left, 3600.0))
            status = hold.status
            if not hold.is_open or _is_over(status):
                raise self._failure(status)
            if left <= 0:
                message = f"{self!r} is still being started again after {timeout:g} s; wait longer"
                raise ServerStartError(message)
            time.sleep(POLL_INTERVAL)

    def has_lost(self, pid: int | None) -> bool:
        """Whether the server's process `pid` has died, or is about to.

        An engine that dies fails its requests a moment before the server shows it, so this takes
        two seconds to say no.

        Args:
            pid: What `pid` was before a request that failed.
        """
        deadline = time.monotonic() + DEATH_THROES
        while self.pid == pid and self.is_healthy:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True

    def stop(self, *, drain: bool = True) -> None:
        """Let go of the server. Its last user's stop ends it, and everything it started.

        Does nothing if it is not running. A start under way in another thread ends with a
        `ServerStartError`, before its next stage.

        Args:
            drain: Whether requests may finish, for up to the shutdown timeout.
        """
        self._told_to_stop.set()  # first: a start has taken hold already, or sees this
        self._let_go(drain=drain, keep_log=False)

    def _let_go(self, *, drain: bool, keep_log: bool, do: str = "release") -> None:
        hold, child, use = self._hold, None, self._use
        if hold is None:
            return
        patience = self._drain_patience if drain else ABORT_GRACE
        hold.tell(do, drain=drain, keep_log=keep_log)
        server_id = self.id
        try:
            hold.wait(lambda _: False, patience + KEEPER_GRACE)
        finally:  # also when a second Ctrl-C ends the wait
            with self._ending:
                is_first = self._hold is hold  # of the threads that stop it at once
                if is_first:
                    child = self._keeper  # only now: it may have been on its way
                    self._hold = self._keeper = self._use = None
                    _running.discard(self)
            status = hold.status
            # Else its keeper hangs, or was killed, maybe while it stopped the server.
            has_ended = _is_over(status) and status is not None and status.pid is None
            is_left = hold.is_open or not has_ended
            if is_first and is_left and (use is None or sharing.is_last(use)):
                keeper.kill_marked(server_id)
                sharing.remove_dead()
            hold.close()
            if use is not None:
                use.close()
            if child is not None and status != Status("released"):
                with contextlib.suppress(subprocess.TimeoutExpired):  # the system cannot end it
                    child.wait(KEEPER_GRACE)

    @property
    def _drain_patience(self) -> float:
        return self.options.shutdown_timeout + DRAIN_MARGIN

    def _join(self, name: str) -> bool:
        """Join the server of this name, if there is one that is well."""
        connection = sharing.join(name)
        if connection is None:
            return False
        hold = Hold(connection)
        try:
            hold.tell("hold")
            facts, status = hold.facts, hold.status
            if facts is not None and _is_over(status) and hold.is_open:
                self._report("waiting until the one before has ended")
                hold.wait(lambda _: False, self._drain_patience + KEEPER_GRACE)
            if facts is None or _is_over(status) or not hold.is_open:
                hold.close()
                return False
            self._take(hold, facts, sharing.use(name, is_new=False))
            if status and status.state != "ready":
                self._report("waiting until it is started again")
            self.wait_until_ready()
            self._report("ready")
        except BaseException as error:
            self._let_go(drain=False, keep_log=False)
            hold.close()
            if isinstance(error, ServerStartError):
                return False
            raise
        return True

    def _start(self, name: str) -> None:
        self._go_on()
        found = self._prepared()
        self.id, self.api_key, self.log_path = self._own  # one that was joined before had its own
        self._report("; ".join(found.fit.reasons))
        _remove_old_logs()
        sharing.remove_dead()
        for attempt in range(PORT_ATTEMPTS):
            try:
                self._wait_until_ready(self._launch(found, name))
                self._report("ready")
                return
            except BaseException as error:
                # Told to stop, not let go of: it would stay for its idle timeout.
                keep_log = isinstance(error, ServerError)
                self._let_go(drain=False, keep_log=keep_log, do="stop")
                lost_race = isinstance(error, PortInUseError) and self.options.port is None
                if not lost_race or attempt == PORT_ATTEMPTS - 1:
                    raise

    def _prepared(self) -> Ready:
        """What the start needs, the checkpoint on this machine included."""
        found = checks.require(self.options)
        checkpoint = local_checkpoint(
            os.fspath(self.options.model),
            revision=self.options.revision,
            source=self.options.source,
            report=self._report,
        )
        if not found.checkpoint.is_local:  # of which only now the sizes are known
            found = replace(
                found,
                checkpoint=checkpoint,
                fit=fitted(self.options, checkpoint, found.engine),
            )
        return found

    def _launch(self, found: Ready, name: str) -> Hold:
        if self.options.port is not None:
            check_port(self.options.host, self.options.port)
        port = self.options.port or free_port(self.options.host)
        facts = Facts(
            id=self.id,
            host=self._host,
            port=port,
            api_key=self.api_key,
            served_model_name=self.options.served_model_name or found.checkpoint.name,
            model=os.fspath(self.options.model),
            log_path=str(self.log_path.absolute()),
        )
        self._report(f"loading engine ({found.engine.description})")
        arguments = command(self.options, found.checkpoint, found.engine, port, found.fit)
        use = sharing.use(name, is_new=True) if self.options.share else None
        ours, theirs = socket.socketpair()
        door, path = sharing.open_door(name)
        with _inheritable(door) as door, _inheritable(theirs) as theirs:
            task = Task(
                facts=facts,
                command=arguments,
                starter=theirs.fileno(),
                door=door.fileno(),
                door_path=str(path),
                startup_timeout=self.options.startup_timeout,
                hang_timeout=self.options.hang_timeout,
                drain_patience=self._drain_patience,
                abort_patience=ABORT_GRACE,
                idle_timeout=self.options.idle_timeout,
                restart_delays=RESTART_DELAYS,
                keep_log=self.options.log_path is not None,
            )
            variables = environment(
                os.environ,
                self.options,
                found.checkpoint,
                found.engine,
                found.fit,
                server_id=self.id,
                api_key=self.api_key,
            )
            try:
                # First, so that a `stop` of another thread finds it whenever there is a server.
                hold = self._take(Hold(ours), facts, use)
                self._keeper = self._run_keeper(task, variables)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return hold

    def _run_keeper(self, task: Task, variables: dict[str, str]) -> "subprocess.Popen[bytes]":
        """Start the keeper of a server, in a session of its own, so that Ctrl-C spares it."""
        with self._open_log() as output:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(KEEPER)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,
                    pass_fds=(task.starter, task.door),
                )
            except OSError as error:
                status = Status("failed", problem="cannot be run", detail=str(error))
                raise self._failure(status) from error
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it ended: told by its silence
            process.stdin.write(task.written())
        return process

    def _take(self, hold: Hold, facts: Facts, use: IO[str] | None) -> Hold:
        self.id, self.api_key, self.log_path = facts.id, facts.api_key, Path(facts.log_path)
        self._port, self._served_model_name = facts.port, facts.served_model_name
        self._hold, self._use = hold, use
        _running.add(self)
        self._go_on()
        return hold

    def _report(self, line: str) -> None:
        self._go_on()
        self._on_progress(line)

    def _go_on(self) -> None:
        """End a start that another thread stopped."""
        if self._told_to_stop.is_set():
            message = (
                f"the vLLM server for {self.options.model!r} was not started: {log.TOLD_TO_STOP}"
            )
            raise ServerStartError(message)

    def _open_log(self) -> BinaryIO:
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            self.log_path.touch(mode=0o600)
            self.log_path.write_bytes(b"")
            return self.log_path.open("ab")  # as the keeper does, so that both add at the end
        except OSError as error:
            message = (
                f"the server's log cannot be written: {error}; "
                "give as log_path a file in a folder that you may write to"
            )
            raise ServerStartError(message) from error

    def _wait_until_ready(self, hold: Hold) -> None:
        """Wait for a start, and check what came of it."""
        reported = log.FIRST_STAGE
        while not hold.wait(lambda status: status.state != "starting", POLL_INTERVAL):
            stage = log.stage(self.log_path)
            if stage != reported:
                self._report(stage)
                reported = stage
        status = hold.status
        if status is None or status.state != "checking" or not hold.is_open:
            raise self._failure(status, " while starting")
        client = Client(self._host, self._port or 0, self.api_key)
        self._report("checking")
        check(
            client,
            self.served_model_name,
            has_images=self.options.images_per_prompt > 0,
            is_trained=not any(
                part.rpartition("=")[2] == "dummy" for part in self.options.extra_args
            ),
        )
        hold.tell("vouch")
        # Until the keeper knows, it takes whoever joins for one that should start another.
        hold.wait(lambda status: status.state != "checking", KEEPER_GRACE)

    def _failure(self, status: Status | None, when: str = "") -> ServerError:
        """The error for a server that has ended, and why."""
        if log.lost_port(self.log_path) and self._port is not None:
            return PortInUseError(port_in_use(self.options.host, self._port))
        what = f"ended{when}"
        if status is None or not _is_over(status):
            cause = "its keeper was killed"
        elif status.exit_code is not None:
            what = f"ended with {_describe(status.exit_code)}{when}"
            cause = log.likely_cause(self.log_path, status.exit_code)
        elif status.problem:
            what, cause = self._problem(status)
        else:
            cause = log.TOLD_TO_STOP
        message = (
            f"the vLLM server for {self.options.model!r} {what}: {cause}; its log: {self.log_path}"
        )
        return ServerStartError(message, log.tail(self.log_path))

    def _problem(self, status: Status) -> tuple[str, str]:
        """What is wrong with a server that did not end by itself, and why or what to do."""
        match status.problem:
            case "cannot be run":
                remedy = "free memory or processes, or give shorter extra_args"
                return "cannot be run", f"{status.detail}; {remedy}"
            case "not ready in time":
                stage = log.stage(self.log_path)
                return (
                    f"was not ready after {self.options.startup_timeout:g} s, still {stage}",
                    "raise startup_timeout",
                )
            case "hung":
                return (
                    f"did not answer for {self.options.hang_timeout:g} s",
                    "raise hang_timeout if it was only busy",
                )
        return f"answered {status.detail} to its health check", "its engine has died"


def find_leftovers(server_id: str | None = None) -> list[int]:
    """Process ids of everything that a `GLM4VServer` of this user started and that still runs.

    Args:
        server_id: `id` of one server; None finds those of any server, of any program.
    """
    return keeper.marked(server_id)


def _inheritable(ours: socket.socket) -> socket.socket:
    """The same socket under a number that no standard stream of a child takes.

    In a program that closed its own, a new socket may be number 0.
    """
    with ours:
        return socket.socket(fileno=fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 3))


def _is_over(status: Status | None) -> bool:
    return status is not None and status.state in ("stopping", "failed", "released")


def _describe(exit_code: int) -> str:
    if exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _temporary_log(server_id: str) -> Path:
    return Path(tempfile.gettempdir()) / log.FILE_NAME.format(server_id)


def _remove_old_logs() -> None:
    """Remove temporary logs that nobody came for: of servers that failed or whose program died."""
    oldest = time.time() - LOG_LIFETIME
    pattern = _temporary_log("*")
    for path in pattern.parent.glob(f"{pattern.name}*"):  # with those that were put aside
        with contextlib.suppress(OSError):  # another server's start removed it
            found = path.stat()
            server_id = path.name.rpartition("-")[2].partition(".")[0]
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
        if server._hold is not None:
            server._hold.disown()
        if server._use is not None:
            server._use.close()  # the parent's lock stays
        server._hold = server._keeper = server._use = None
    _running.clear()


os.register_at_fork(after_in_child=_disown_all)
