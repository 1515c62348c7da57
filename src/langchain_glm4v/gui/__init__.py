"""Agents that work on screens: websites, phones and computers.

    from langchain_glm4v.gui import GuiAgent, ModelPlanner

    agent = GuiAgent(ModelPlanner(model, "web"), screen, approve=ask_the_user)
    agent.run("Find the opening hours").answer

`Screen` is what a browser, a phone or a desktop must offer for that; `examples/browser.py` has one
for browsers.
"""

from langchain_glm4v.gui.actions import (
    Action,
    Answer,
    Click,
    Drag,
    Finish,
    GoBack,
    GoHome,
    Hover,
    LongPress,
    OpenApp,
    Point,
    Press,
    ScreenAction,
    Scroll,
    Swipe,
    Type,
    Wait,
)
from langchain_glm4v.gui.agent import (
    Approve,
    GuiAgent,
    Outcome,
    Planner,
    Proposal,
    Situation,
    Step,
    harmless,
)
from langchain_glm4v.gui.dialects import DIALECTS, Dialect, Form, Plan
from langchain_glm4v.gui.planner import ModelPlanner
from langchain_glm4v.gui.screen import Observation, Risk, Screen

__all__ = [
    "DIALECTS",
    "Action",
    "Answer",
    "Approve",
    "Click",
    "Dialect",
    "Drag",
    "Finish",
    "Form",
    "GoBack",
    "GoHome",
    "GuiAgent",
    "Hover",
    "LongPress",
    "ModelPlanner",
    "Observation",
    "OpenApp",
    "Outcome",
    "Plan",
    "Planner",
    "Point",
    "Press",
    "Proposal",
    "Risk",
    "Screen",
    "ScreenAction",
    "Scroll",
    "Situation",
    "Step",
    "Swipe",
    "Type",
    "Wait",
    "harmless",
]
