"""The example of an agent on a website: the real vLLM sees, a real Chromium shows."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from browser import find_chromium
from gui_agent import Trail, follow
from langchain_glm4v import ChatGLM4V
from langchain_glm4v.gui import Click, Finish, Proposal, Risk
from langchain_glm4v.server import GLM4VServer

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="Chromium is not installed: apt-get install chromium"
)


@pytest.fixture(scope="module")
def model(server: GLM4VServer) -> Iterator[ChatGLM4V]:
    with ChatGLM4V(
        base_url=server.base_url,
        api_key=SecretStr(server.api_key),
        model=server.served_model_name,
        sampling="deterministic",
    ) as chat:
        yield chat


def test_agent_follows_the_trail_and_reads_the_code(model: ChatGLM4V) -> None:
    trail = Trail.made_up(1, sends=False)

    outcome = follow(trail, model, "tiny")

    assert (outcome.ending, outcome.answer) == ("done", trail.code)
    assert len({step.observation.place for step in outcome.steps}) == 6


def test_agent_sends_nothing_without_consent(model: ChatGLM4V) -> None:
    trail = Trail.made_up(2, sends=True)

    outcome = follow(trail, model, "tiny")

    assert (outcome.ending, outcome.answer, trail.orders) == ("impossible", "", [])
    *_, asked, last = outcome.steps
    assert asked.result == "refused"
    assert last.plan is not None
    assert last.plan.action == Finish(success=False)


def test_agent_sends_with_consent(model: ChatGLM4V) -> None:
    trail = Trail.made_up(2, sends=True)
    asked: list[Proposal] = []

    def consent(proposal: Proposal) -> bool:
        asked.append(proposal)
        return True

    outcome = follow(trail, model, "tiny", approve=consent)

    assert (outcome.ending, outcome.answer) == ("done", trail.code)
    assert len(trail.orders) == 1
    (order,) = [proposal for proposal in asked if proposal.risks]
    assert order.risks == {Risk.SUBMIT}
    assert isinstance(order.action, Click)
