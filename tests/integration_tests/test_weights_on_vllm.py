"""A real vLLM on a checkpoint that comes from a hub, which is on this machine."""

import json
import subprocess
import sys
from pathlib import Path

from stub_hub import Fetcher, running

MODEL = "example/GLM-4.1V-miniature"  # of a known one, the size would be foreseen, and refused
PROGRAM = f"""
import json
from langchain_glm4v.server import GLM4VServer
from langchain_glm4v import ChatGLM4V

said = []
with GLM4VServer({MODEL!r}, on_progress=said.append) as server:
    model = ChatGLM4V(
        base_url=server.base_url, api_key=server.api_key, model=server.served_model_name
    )
    answer = model.invoke("How many shapes are there?", max_tokens=20)
told = {{"said": said, "name": server.served_model_name, "usage": answer.usage_metadata}}
print(json.dumps(told))
"""


def test_repository_is_fetched_and_served_by_its_name(tmp_path: Path) -> None:
    with running() as hub:
        hub.add(MODEL)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=Fetcher(hub, tmp_path).environment,
            capture_output=True,
            text=True,
            check=False,
        )
        asked = [seen.headers["User-Agent"] for seen in hub.seen]
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["name"] == MODEL
    assert told["said"][0].startswith("downloading ")
    assert told["said"][-1] == "ready"
    assert told["usage"]["output_tokens"] > 0
    # vLLM itself asked nothing.
    assert all("vllm" not in agent.lower() and "transformers" not in agent for agent in asked)
