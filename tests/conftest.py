"""A skipped test must be one that is expected to be: anything else fails the run."""

import os

import hypothesis
import pytest

# A busy machine may be slow at any moment: no test is about time. New examples are sought on
# developers' machines; a change lands or not by the same ones.
hypothesis.settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("ours")

# Test name -> why it may be skipped.
EXPECTED_SKIPS = {
    "test_serdes": "a model that holds a server's key is not serializable; the test skips such",
    "test_audio_inputs": "the model does not hear",
    "test_stream_time": "it times a recorded stream; benchmarks/chat_overhead.py times real ones",
}

# Why any test may be skipped.
EXPECTED_REASONS = (
    "LibreOffice is not installed",
    # what no wheel brings
    "Chromium is not installed",
    "kubectl is not installed",
    "promtool is not installed",
    "systemd-analyze is not installed",
    "mounting a small disk needs root",
    "zsh is not installed",
    "fish is not installed",
)

_unexpected: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if (
        report.skipped
        and report.location[2].rpartition(".")[2] not in EXPECTED_SKIPS
        and not str(report.longrepr).rpartition("Skipped: ")[2].startswith(EXPECTED_REASONS)
    ):
        _unexpected.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unexpected:
        terminalreporter.write_line(f"unexpected skip: {line}", red=True)
