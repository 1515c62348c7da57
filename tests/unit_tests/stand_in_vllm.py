"""Stands in for vLLM where a fault is wanted that the real one cannot be brought to show.

Copied to where the server process looks for vLLM's command line; all else is real: processes,
signals, sockets, HTTP. GLM4V_STAND_IN names the fault.
"""

import contextlib
import http.server
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from jinja2 import Template

TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")
STAGES = {
    "loading engine": "",
    "configuring engine": "non-default args: {}",
    "loading weights": "Starting to load model",
    "warming up": "Loading weights took 1 s",
}
STREAMED = ("<think>", "I see", "</think>", "<answer>", "two\x1b words", "</answer>")
METRICS = """\
vllm:num_requests_running{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:generation_tokens_total{engine="0",model_name="m"} 30.0
"""
FAULT = os.environ.get("GLM4V_STAND_IN", "")


def is_time_for(fault: str) -> bool:
    """Whether the fault is to happen now: as often as there are files whose names begin so."""
    if not FAULT.startswith(fault):
        return False
    beginning = Path(FAULT.removeprefix(fault))
    for marker in beginning.parent.glob(f"{beginning.name}*"):
        with contextlib.suppress(FileNotFoundError):
            marker.unlink()  # of the threads that see it one takes it
            return True
    return False


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def render(messages: list[dict[str, Any]]) -> str:
    if FAULT == "garbles":
        return "".join(f"<|{message['role']}|>\n{message['content']!r}" for message in messages)
    template = Template(Path(option("--chat-template")).read_text())
    return str(template.render(messages=messages, add_generation_prompt=True))


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 2048  # as vLLM's


class Handler(http.server.BaseHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("X-GLM4V-Server", os.environ["GLM4V_SERVER_ID"])  # as the guard does
        super().end_headers()

    def reply(self, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))  # shows a reply that is cut short
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if is_time_for("unwell once "):
            self.send_error(503)
        elif self.path == "/metrics":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())
        elif self.path == "/v1/models":
            self.reply({"data": [{"id": option("--served-model-name"), "max_model_len": 8192}]})
        else:
            self.reply({})

    def reply_to_chat(self) -> None:
        if FAULT == "halts when checking":
            time.sleep(1000)
        if is_time_for("dies at once "):
            os.kill(os.getpid(), signal.SIGKILL)
        if is_time_for("dies slowly "):  # as vLLM does after its engine
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
            self.send_error(500)
            return
        content = "!" * 12 if FAULT == "babbles" else f"<answer>{os.getpid()}</answer>"
        message = {"role": "assistant", "content": content}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        self.reply({"id": "1", "object": "chat.completion", "model": "m", "choices": choices})

    def write_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def write_event(self, event: object) -> None:
        self.write_chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def reply_to_stream(self) -> None:
        """An answer of two words, its thinking before it; or the process's id, if it is to die."""
        if FAULT == "refuses":
            self.send_error(400)
            return
        self.protocol_version = "HTTP/1.1"  # shows where it ends, or is cut
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        if is_time_for("dies at once "):
            os.kill(os.getpid(), signal.SIGKILL)
        own = ("", f"<answer>{os.getpid()}</answer>")
        texts = own if FAULT.startswith("dies ") else STREAMED
        for number, text in enumerate(texts):
            choice: dict[str, Any] = {"index": 0, "delta": {"content": text}}
            if number == len(texts) - 1:
                choice["finish_reason"] = "length" if FAULT == "cuts off" else "stop"
            self.write_event({"id": "1", "choices": [choice]})
            if is_time_for("dies in a stream "):
                os.kill(os.getpid(), signal.SIGKILL)
        usage = {"prompt_tokens": 7, "completion_tokens": len(texts), "total_tokens": 12}
        self.write_event({"id": "1", "choices": [], "usage": usage})
        self.write_chunk(b"data: [DONE]\n\n")
        self.write_chunk(b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions" and body.get("stream"):
            self.reply_to_stream()
        elif self.path == "/v1/chat/completions":
            self.reply_to_chat()
        elif self.path == "/detokenize":
            self.reply({"prompt": "".join(map(chr, body["tokens"]))})
        elif "messages" in body:
            self.reply({"tokens": [ord(character) for character in render(body["messages"])]})
        elif self.path == "/tokenize":
            self.reply({"tokens": [TAGS.index(body["prompt"])] * (3 if FAULT == "splits" else 1)})
        else:
            hidden = FAULT == "hides"
            text = "" if hidden else TAGS[body["allowed_token_ids"][0]]
            self.reply({"choices": [{"text": text}]})


def main() -> None:
    for stage, line in STAGES.items():
        print(line, flush=True)
        if f"halts when {stage}" == FAULT:
            time.sleep(1000)
    if FAULT.startswith("waits while "):
        while Path(FAULT.removeprefix("waits while ")).exists():
            time.sleep(0.1)
    if FAULT == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "1000"])  # inherits the deafness
        subprocess.Popen(["setsid", "sleep", "1000"])
    if FAULT == "has an engine":
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,)).start()
    if FAULT == "stuck":
        time.sleep(1000)
    if FAULT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULT.startswith("says "):
        sys.exit(FAULT.removeprefix("says "))
    if FAULT.startswith("starts once ") and Path(FAULT.removeprefix("starts once ")).exists():
        sys.exit("RuntimeError: CUDA out of memory")
    if FAULT.startswith("port lost once "):
        seen = Path(FAULT.removeprefix("port lost once "))
        if not seen.exists():
            seen.write_text(option("--port"))
            sys.exit("OSError: [Errno 98] Address already in use")
    address = (option("--host"), int(option("--port")))
    Server(address, Handler).serve_forever()
