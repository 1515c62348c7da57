"""The loop of an agent on a screen: look, plan, ask for consent, act, look again.

    Screen.observe -> Planner.plan -> Screen.risks, Screen.target -> approve -> Screen.target
    -> Screen.act -> Screen.observe …

It ends when the planner says so, after `max_steps`, or when nothing but refusals and failures comes
any more. Nothing is done that `approve` did not consent to, nor to anything else than what it was
shown, and the screen sees to it that no more is done than that.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from langchain_glm4v.errors import ActionError, RequestError
from langchain_glm4v.gui.actions import Action, Answer, Click, Finish, ScreenAction
from langchain_glm4v.gui.dialects import Plan
from langchain_glm4v.gui.screen import Observation, Risk, Screen

MAX_STEPS = 25
"""Steps of a run, at most, unless told otherwise."""

MOST_FAILURES = 3
"""Steps in a row that are refused, fail or cannot be understood, at most."""

MOST_REPEATS = 2
"""How often the same may be done on a screen that looks the same."""

Result: TypeAlias = Literal["done", "refused", "failed", "unusable"]
"""What became of a step; "unusable": the planner named no action that can be understood."""

Ending: TypeAlias = Literal["done", "impossible", "gave up", "step limit"]
"""Why a run ended: the planner said that it is done, or that it cannot be; too many failures in a
row; too many steps."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An action that waits for consent.

    Attributes:
        action: What is to be done.
        risks: What is known of its consequences; nothing: it is harmless.
        reason: Why, in the model's words, which may repeat what a page said.
        observation: The screen that the model saw.
        target: What it would be done to, as the screen tells by now; the words are the page's.
    """

    action: ScreenAction
    risks: frozenset[Risk]
    reason: str
    observation: Observation = field(repr=False)
    target: str = ""


Approve: TypeAlias = Callable[[Proposal], bool | str]
"""Says whether an action may be done. `True` alone is consent; `False` is a refusal, and a text is
one whose reason the model is told."""


def harmless(proposal: Proposal) -> bool | str:
    """Consent to what has no risks: the hook unless another is given.

    With a screen that cannot tell risks, everything is refused.
    """
    if not proposal.risks:
        return True
    listed = ", ".join(sorted(risk.value for risk in proposal.risks))
    return f"it {listed}, and nobody is here to consent to that"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a run.

    Attributes:
        observation: The screen before it.
        plan: What was to be done; None: it could not be understood.
        result: What became of it.
        detail: Why, if it was not done; else what else there is to know, such as that nothing
            changed.
    """

    observation: Observation
    plan: Plan | None
    result: Result
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a planner knows.

    Attributes:
        task: What the user wants.
        observation: The screen as it is.
        steps: What was done so far.
    """

    task: str
    observation: Observation
    steps: Sequence[Step] = ()


class Planner(Protocol):
    """Decides what to do next."""

    def plan(self, situation: Situation) -> Plan:
        """Name the next action.

        Raises:
            ActionError: What the model wrote cannot be understood; it is asked again, and told so.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        ending: Why it ended.
        answer: What the user asked for, as far as it is known; else "".
        steps: All steps.
    """

    ending: Ending
    answer: str
    steps: tuple[Step, ...]


class GuiAgent:
    """Works on a screen until a task is done.

    Args:
        planner: Decides what to do: `ModelPlanner`, or another.
        screen: What it is done on.
        approve: Called before each action, with what is known of its risks. Default: `harmless`,
            which refuses whatever has any.
        max_steps: Steps of a run, at most.

    Raises:
        RequestError: `max_steps` is less than 1.
    """

    def __init__(
        self,
        planner: Planner,
        screen: Screen,
        *,
        approve: Approve = harmless,
        max_steps: int = MAX_STEPS,
    ) -> None:
        if max_steps < 1:
            raise RequestError(f"max_steps is {max_steps}: give 1 or more")
        self._planner = planner
        self._screen = screen
        self._approve = approve
        self._max_steps = max_steps

    def run(self, task: str, *, on_step: Callable[[Step], None] | None = None) -> Outcome:
        """Work on a task.

        Args:
            task: What the user wants, in words.
            on_step: Called after each step.

        Returns:
            How it ended. A refused or failed action is no error: the model is told, and goes on.

        Raises:
            RequestError: `approve` is asynchronous.
            Exception: Whatever the model's server, the screen or a hook raises, except
                `ActionError`.
        """
        steps: list[Step] = []
        repeats: Counter[tuple[bytes, Action]] = Counter()
        failures = 0
        answer = ""
        observation = self._screen.observe()
        while len(steps) < self._max_steps and failures < MOST_FAILURES:
            step = self._step(Situation(task, observation, tuple(steps)), repeats)
            action = step.plan.action if step.plan and step.result == "done" else None
            if not isinstance(action, Finish | Answer):
                observation = self._screen.observe()
                if action and not step.detail and observation.picture == step.observation.picture:
                    step = replace(step, detail="nothing changed on the screen")
            steps.append(step)
            if on_step is not None:
                on_step(step)
            match action:
                case Finish(success=success, answer=text):
                    ending: Ending = "done" if success else "impossible"
                    return Outcome(ending, text or answer, tuple(steps))
                case Answer(text=text):
                    answer = text
            failures = failures + 1 if action is None else 0
        ending = "gave up" if failures >= MOST_FAILURES else "step limit"
        return Outcome(ending, answer, tuple(steps))

    def _step(self, situation: Situation, repeats: "Counter[tuple[bytes, Action]]") -> Step:
        """Plan, and do what was planned if that may be done."""
        seen = situation.observation
        try:
            plan = self._planner.plan(situation)
        except ActionError as error:
            return Step(seen, None, "unusable", str(error))
        if isinstance(plan.action, Finish | Answer):
            return Step(seen, plan, "done")
        repeats[seen.picture, plan.action] += 1
        if repeats[seen.picture, plan.action] > MOST_REPEATS:
            again = f"it was tried {MOST_REPEATS} times on this very screen: try another way"
            return Step(seen, plan, "failed", again)
        try:
            return Step(seen, plan, *self._act(plan.action, plan.reason, seen))
        except ActionError as error:
            return Step(seen, plan, "failed", str(error))

    def _act(self, action: ScreenAction, reason: str, seen: Observation) -> tuple[Result, str]:
        """Do an action if there is consent to it."""
        marked = {Risk.SENSITIVE} if isinstance(action, Click) and action.sensitive else set[Risk]()
        risks = frozenset(marked.union(self._screen.risks(action)))
        target = self._screen.target(action)
        consent = self._approve(Proposal(action, risks, reason, seen, target))
        if inspect.isawaitable(consent):
            if inspect.iscoroutine(consent):
                consent.close()  # else Python warns that it was never awaited
            raise RequestError("approve is asynchronous: give a function that returns True or not")
        # Nothing else is consent, whatever counts as true: a text is a refusal.
        if consent is not True:
            return "refused", consent if isinstance(consent, str) else "the user did not consent"
        # What has no risks may change: a clock on a button is no reason to refuse a click.
        if risks and self._screen.target(action) != target:
            raise ActionError("the screen changed meanwhile: consent was for something else")
        return "done", self._screen.act(action, risks)
