"""What dashboard, alerts and autoscaler of `serve/` ask for is what the real server tells."""

import http.client
import json
import re
from pathlib import Path

from langchain_glm4v.server import GLM4VServer

SERVE = Path(__file__).parents[2] / "serve"
ASKING = [
    SERVE / "grafana" / "dashboard.json",
    SERVE / "prometheus" / "alerts.yml",
    SERVE / "kubernetes" / "optional" / "keda.yaml",
]
# What begins like a metric's name and is followed by a selector of labels
NAME = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{\w+=")
OF_PROMETHEUS = {"up"}


def test_every_metric_that_is_asked_for_is_told(server: GLM4VServer) -> None:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    headers = {"Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"}
    # HTTP's own metrics begin with the first request.
    connection.request("POST", "/tokenize", json.dumps({"prompt": "Hello"}), headers)
    connection.getresponse().read()
    connection.request("GET", "/metrics", headers=headers)
    told = connection.getresponse().read().decode()
    connection.close()
    asked = {path.name: set(NAME.findall(path.read_text())) for path in ASKING}
    assert all(asked.values())
    there = {re.split(r"[{ ]", line)[0] for line in told.splitlines() if line[:1] != "#"}
    missing = {name: names - there - OF_PROMETHEUS for name, names in asked.items()}
    assert not any(missing.values()), missing


def test_repetition_is_among_the_reasons_to_finish(server: GLM4VServer) -> None:
    connection = http.client.HTTPConnection(server.base_url.split("/")[2])
    headers = {"Authorization": f"Bearer {server.api_key}"}
    connection.request("GET", "/metrics", headers=headers)
    told = connection.getresponse().read().decode()
    connection.close()
    assert 'finished_reason="repetition"' in told
