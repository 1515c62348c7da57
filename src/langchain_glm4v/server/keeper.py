"""The process between a vLLM server and the programs that use it.

Run as a script, with a task on standard input and the standard library alone. It starts the server,
watches it, starts it again if it dies, and stops it once nobody uses it. Each user holds a
connection to it, which the system closes however the user ends: so no server outlives its users,
`kill -9` included. If the keeper itself is killed, the server's processes see that their parent is
gone (`entrypoint.end_with_parent`).

Both sides write lines of JSON. Whoever connects first writes one of these, and is told what there
is (`Facts`), once, then the `Status`, and each new one:

    {"do": "hold"}                                      be counted as a user, as the starter is
    {"do": "look"}                                      be none

Then it may write:

    {"do": "vouch"}                                     by the starter: it answers as it should
    {"do": "release", "drain": bool, "keep_log": bool}  be none any more
    {"do": "stop", "drain": bool, "keep_log": bool}     stop the server, whoever uses it
"""

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

POLL_INTERVAL = 0.2  # seconds between two looks at a server that starts
HELPER_GRACE = 2.0  # seconds for helper processes to follow the server by themselves
LOG_PATIENCE = 5.0  # seconds for the last lines of a server that has ended
STEADY_SECONDS = 600.0  # a server that was ready for so long begins with the first delay again
LOG_BYTES = 16 * 1024**2  # of one log file
OLD_LOGS = 3

HEALTH_INTERVAL = 1.0  # seconds between two health checks of a server that is ready
HEALTH_TIMEOUT = 5.0  # seconds
WRITE_TIMEOUT = 5.0  # seconds
MARKER_VARIABLE = "GLM4V_SERVER_ID"
ID_HEADER = "X-GLM4V-Server"  # of the reply to a health check, see `guard`
PARENT_VARIABLE = "GLM4V_SERVER_PARENT"

State = Literal["starting", "checking", "ready", "restarting", "stopping", "failed", "released"]

Problem = Literal["", "cannot be run", "not ready in time", "hung", "unwell"]


@dataclass(frozen=True)
class Facts:
    """What a user must know of a server.

    Attributes:
        id: Marks its processes: their environment holds it as GLM4V_SERVER_ID.
        host: Where it listens.
        port: Where it listens.
        api_key: What requests must carry as bearer token.
        served_model_name: What requests call the model.
        model: What it was asked to serve.
        log_path: File with its output.
    """

    id: str
    host: str
    port: int
    api_key: str = dataclasses.field(repr=False)
    served_model_name: str
    model: str
    log_path: str


@dataclass(frozen=True)
class Status:
    """How a server is.

    Attributes:
        state: "starting", "checking" (it answers, and its starter looks whether as it should),
            "ready", "restarting" (it died, and is started again after a while), "stopping", or
            "failed", after which nothing follows. "released" is told to a user who let go of a
            server that stays.
        pid: Of its API process, which leads a process group; None if there is none.
        exit_code: With which it ended last, negative for a signal; None if it did not by itself.
        problem: What is wrong with it, if it did not end by itself.
        detail: Of the problem: the system's error, or the HTTP status of the health check.
        restarts: How often it was started again.
    """

    state: State
    pid: int | None = None
    exit_code: int | None = None
    problem: Problem = ""
    detail: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class Task:
    """What a keeper is to do.

    Attributes:
        facts: What it hands to users.
        command: Starts the server.
        starter: File descriptor of the connection to the program that starts it.
        door: File descriptor of a socket at which others may join.
        door_path: Where that socket is.
        startup_timeout: Seconds a start may take.
        hang_timeout: Seconds without an answer after which a server is hung.
        drain_patience: Seconds for a server to end that may finish its requests.
        abort_patience: Seconds for a server to end that may not.
        idle_timeout: Seconds that a server without users stays.
        restart_delays: Seconds before each further start of a server that died; then no more.
        keep_log: Whether the log stays after a server that was well.
    """

    facts: Facts
    command: list[str]
    starter: int
    door: int
    door_path: str
    startup_timeout: float
    hang_timeout: float
    drain_patience: float
    abort_patience: float
    idle_timeout: float
    restart_delays: Sequence[float]
    keep_log: bool

    def written(self) -> bytes:
        """The task as a keeper reads it."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def read(cls, data: bytes) -> "Task":
        """The reverse of `written`."""
        fields = json.loads(data)
        return cls(**{**fields, "facts": Facts(**fields["facts"])})


def health(facts: Facts, timeout: float) -> int | None:
    """HTTP status of a server's health check; None if it, and no other, does not answer."""
    connection = http.client.HTTPConnection(facts.host, facts.port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        return reply.status if reply.headers[ID_HEADER] == facts.id else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def marked(server_id: str | None = None) -> list[int]:
    """Ids of the running processes of this user that carry the mark of a server, or of any."""
    wanted = f"{MARKER_VARIABLE}={server_id or ''}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            variables = entry.read_bytes().split(b"\0")
            if any(v == wanted or (server_id is None and v.startswith(wanted)) for v in variables):
                found.append(int(entry.parent.name))
    return sorted(found)


def kill_marked(server_id: str, *, after: float = 0.0) -> None:
    """Kill all processes that carry the mark of a server, this one aside.

    Args:
        server_id: The mark.
        after: Seconds that they have to end by themselves.
    """
    began = time.monotonic()
    while True:
        left: list[int] | None = None
        with contextlib.suppress(OSError):  # too many files are open, for now
            left = [pid for pid in marked(server_id) if pid != os.getpid()]
        waited = time.monotonic() - began
        if left == [] or waited > after + HELPER_GRACE:  # or the system cannot end them
            return
        if waited >= after:
            for pid in left or ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_INTERVAL / 4)


class Log:
    """The file that a server's output goes to; a full one makes room for a new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)

    def follow(self, output: IO[bytes]) -> None:
        """Write down what comes until it ends. A full disk loses lines, and stops nobody."""
        while data := output.read1():  # type: ignore[attr-defined]  # it is buffered
            with self._lock, contextlib.suppress(OSError):
                if self._file.tell() + len(data) > LOG_BYTES:
                    self._begin_anew()
                self._file.write(data)

    def begin_anew(self) -> None:
        """Put what there is aside, as "….1" and so on, and begin with an empty file."""
        with self._lock, contextlib.suppress(OSError):
            self._begin_anew()

    def _begin_anew(self) -> None:
        paths = [self.path, *self.old_paths()]
        for older, newer in zip(paths[:0:-1], paths[-2::-1], strict=True):
            with contextlib.suppress(FileNotFoundError):
                newer.replace(older)
        self.path.touch(mode=0o600)
        fresh = self.path.open("ab", buffering=0)
        self._file.close()
        self._file = fresh

    def old_paths(self) -> list[Path]:
        """Where earlier output is, the latest first."""
        return [Path(f"{self.path}.{number}") for number in range(1, OLD_LOGS + 1)]

    def remove(self) -> None:
        """Remove it, and the earlier ones."""
        for path in (self.path, *self.old_paths()):
            path.unlink(missing_ok=True)


class Keeper:
    """One server and its users."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._log = Log(Path(task.facts.log_path))
        self._changed = threading.Condition()  # guards all that follows
        self._status = Status("starting")
        self._connections: set[socket.socket] = set()
        self._users: set[socket.socket] = set()
        self._checking: socket.socket | None = None  # the starter, until it vouches for the server
        self._unused_since: float | None = None
        self._stop: Literal["", "drain", "abort"] = ""
        self._wish: Literal["drain", "abort"] = "abort"  # of the user that left last
        self._keep_log = task.keep_log
        self._door_path = Path(task.door_path)
        self._door_number: int | None = self._door_path.stat().st_ino

    def run(self) -> None:
        """Keep the server until nobody needs it or it fails."""
        starter = socket.socket(fileno=self._task.starter)
        self._checking = starter
        self._hold(starter)  # before it is listened to: it may have died already
        self._hear(starter)
        door = socket.socket(fileno=self._task.door)
        threading.Thread(target=self._admit, args=(door,), daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: self._want_stop("drain"))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        ended = self._keep()
        self._close_door()
        was_well = not (ended.problem or ended.restarts) and ended.exit_code is None
        if was_well and not self._keep_log:
            self._log.remove()
        self._tell(ended)

    def _keep(self) -> Status:
        """Run the server as often as needed; returns how it ended for good."""
        delays = iter(self._task.restart_delays)
        restarts = 0
        while True:
            ended, ready_for = self._serve(restarts)
            if ended.state == "stopping":
                return ended
            if ready_for is not None and ready_for > STEADY_SECONDS:
                delays = iter(self._task.restart_delays)
            is_hopeless = ready_for is None and restarts == 0
            delay = None if is_hopeless else next(delays, None)
            if delay is None:
                return dataclasses.replace(ended, state="failed")
            self._tell(ended)
            if self._stopped(within=delay):
                return dataclasses.replace(ended, state="stopping")
            restarts += 1
            self._log.begin_anew()

    def _serve(self, restarts: int) -> tuple[Status, float | None]:
        """Run the server once.

        Returns:
            How it ended, and for how many seconds it had been ready; None if it never was.
        """
        try:
            process = subprocess.Popen(
                self._task.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            )
        except OSError as error:
            problem: Problem = "cannot be run"
            return Status("restarting", problem=problem, detail=str(error), restarts=restarts), None
        follower = threading.Thread(target=self._log.follow, args=(process.stdout,), daemon=True)
        follower.start()
        running = Status("starting", process.pid, restarts=restarts)
        self._tell(running)
        try:
            ready_at, ended = self._watch(process, running)
        finally:
            self._end(process)
            follower.join(LOG_PATIENCE)  # users look there why it ended, once they are told
        ended = dataclasses.replace(ended, restarts=restarts)
        if self._stop:
            return dataclasses.replace(ended, state="stopping"), None
        if not ended.problem:
            ended = dataclasses.replace(ended, exit_code=process.returncode)
        return ended, None if ready_at is None else time.monotonic() - ready_at

    def _watch(
        self, process: "subprocess.Popen[bytes]", running: Status
    ) -> tuple[float | None, Status]:
        """Wait until the server ends, has to be ended, or nobody needs it.

        Returns:
            Since when it was ready, if it ever was, and what is wrong with it.
        """
        facts, task = self._task.facts, self._task
        ready_at: float | None = None
        answered = time.monotonic()
        while process.poll() is None:
            if self._stopped(within=POLL_INTERVAL if ready_at is None else HEALTH_INTERVAL):
                break
            found = health(facts, HEALTH_TIMEOUT)
            now = time.monotonic()
            if found == http.HTTPStatus.OK:
                answered = now
                if ready_at is None:
                    ready_at = now
                    self._tell_ready(running)
            elif ready_at is None:
                if now - answered > task.startup_timeout:
                    return None, Status("restarting", problem="not ready in time")
            elif found is not None:
                return ready_at, Status("restarting", problem="unwell", detail=str(found))
            elif now - answered > task.hang_timeout:
                return ready_at, Status("restarting", problem="hung")
        return ready_at, Status("restarting")

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        """End the server, gently if that is wanted, and all that is left of it."""
        if self._stop and process.poll() is None:
            self._tell(Status("stopping", process.pid))
            process.terminate()
            began = time.monotonic()
            while process.poll() is None and time.monotonic() - began < self._patience():
                time.sleep(POLL_INTERVAL / 4)
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kill_marked(self._task.facts.id, after=HELPER_GRACE)

    def _patience(self) -> float:
        task = self._task
        return task.drain_patience if self._stop == "drain" else task.abort_patience

    def _stopped(self, within: float) -> bool:
        """Wait so many seconds, less if the server is not needed any more; whether it is not."""
        deadline = time.monotonic() + within
        with self._changed:
            while not self._stop:
                now = time.monotonic()
                ends = [deadline]
                if self._unused_since is not None:
                    ends.append(self._unused_since + self._task.idle_timeout)
                    if ends[1] <= now:
                        self._stop = self._wish
                        break
                if deadline <= now:
                    break
                self._changed.wait(min(ends) - now)
            return bool(self._stop)

    def _want_stop(self, how: Literal["drain", "abort"]) -> None:
        with self._changed:
            if self._stop != "abort":
                self._stop = how
            self._changed.notify_all()

    def _tell(self, status: Status) -> None:
        with self._changed:
            self._status = status
            for connection in list(self._connections):
                self._write(connection, dataclasses.asdict(status))

    def _tell_ready(self, running: Status) -> None:
        with self._changed:
            state: State = "ready" if self._checking is None else "checking"
            self._tell(dataclasses.replace(running, state=state))

    def _vouch(self) -> None:
        """Let others join from now on. That the status changes tells the starter so."""
        with self._changed:
            self._checking = None
            if self._status.state == "checking":
                self._tell_ready(self._status)

    def _write(self, connection: socket.socket, message: Mapping[str, Any]) -> None:
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # it is gone, or does not read
            self._drop(connection)

    def _admit(self, door: socket.socket) -> None:
        """Let others join, if they are this user's."""
        while True:
            try:
                connection, _ = door.accept()
                if _user_of(connection) == os.getuid():
                    self._hear(connection)
                else:
                    connection.close()
            except (OSError, RuntimeError):  # too many files or threads, for now
                time.sleep(POLL_INTERVAL)

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(WRITE_TIMEOUT)  # for writing to one that does not read
        threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _welcome(self, connection: socket.socket, status: Status) -> None:
        self._connections.add(connection)
        self._write(connection, dataclasses.asdict(self._task.facts))
        self._write(connection, dataclasses.asdict(status))

    def _listen(self, connection: socket.socket) -> None:
        """Do what a user writes, until it is gone."""
        received = b""
        while True:
            try:
                data = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if not data:
                break
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                    self._obey(connection, json.loads(line))
        self._drop(connection)

    def _obey(self, connection: socket.socket, message: Mapping[str, Any]) -> None:
        how: Literal["drain", "abort"] = "drain" if message.get("drain") else "abort"
        self._keep_log |= bool(message.get("keep_log"))
        match message["do"]:
            case "hold":
                self._hold(connection)
            case "look":
                with self._changed:
                    self._welcome(connection, self._status)
            case "vouch":
                self._vouch()
            case "release":
                self._release(connection, how)
            case "stop":
                self._want_stop(how)

    def _hold(self, connection: socket.socket) -> None:
        """Count one more user, unless the server ends, or is not known to be well."""
        with self._changed:
            if self._stop or self._checking not in (None, connection):
                self._welcome(connection, dataclasses.replace(self._status, state="stopping"))
                return
            self._users.add(connection)
            self._unused_since = None
            self._welcome(connection, self._status)

    def _release(self, connection: socket.socket, how: Literal["drain", "abort"]) -> None:
        """Note that a user needs the server no more; the last one waits until it has stopped."""
        with self._changed:
            if connection not in self._users:
                # It waits for the end, which may not have begun yet, and no longer patiently.
                if how == "abort" and connection in self._connections:
                    self._wish = how
                    if self._stop:
                        self._want_stop(how)
                return
            self._count_out(connection, how)
            if self._users or self._task.idle_timeout:
                self._write(connection, dataclasses.asdict(Status("released")))
                self._drop(connection)

    def _count_out(self, connection: socket.socket, how: Literal["drain", "abort"]) -> None:
        if connection in self._users:
            self._users.discard(connection)
            if not self._users:
                self._unused_since, self._wish = time.monotonic(), how
                self._changed.notify_all()
            if connection is self._checking:  # who joined meanwhile must start one that is checked
                self._want_stop("abort")

    def _drop(self, connection: socket.socket) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._count_out(connection, "abort")
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _close_door(self) -> None:
        """Let nobody connect any more: whoever comes next starts a server anew."""
        with self._changed:
            with contextlib.suppress(OSError):
                # else the next server has its own there
                if self._door_path.stat().st_ino == self._door_number:
                    self._door_path.unlink()
            self._door_number = None


def _user_of(connection: socket.socket) -> int:
    """Id of the user at the other end."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    user: int = struct.unpack("3i", credentials)[1]
    return user


def main() -> None:
    """Do the task on standard input."""
    # Of what the starter set for itself, these would come down to the server.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    Keeper(Task.read(sys.stdin.buffer.read())).run()


if __name__ == "__main__":
    main()
