"""What an agent looks at and acts on: a browser, a phone, a desktop."""

import enum
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from langchain_glm4v.grounding import Box
from langchain_glm4v.gui.actions import ScreenAction


class Risk(enum.Enum):
    """What an action may do that a human should know of before it is done."""

    SECRET = "writes into a field for passwords, codes or card numbers"
    SUBMIT = "sends data"
    LEAVE = "leaves the site or the app"
    DOWNLOAD = "saves a file"
    UPLOAD = "gives a file away"
    SENSITIVE = "is what the model itself wants consent to"
    UNKNOWN = "does what the screen cannot tell beforehand"


@dataclass(frozen=True, slots=True)
class Observation:
    """A screen as it is now.

    Attributes:
        picture: A PNG or JPEG of the whole screen, without marks.
        width: Pixels of the picture.
        height: Pixels of the picture.
        marks: What can be acted on by its number, from 1, labelled with what it is, such as
            `button "Send"`. Only websites are worked on this way.
        place: The URL or the app that is shown, if that is known.
    """

    picture: bytes = field(repr=False)
    width: int
    height: int
    marks: tuple[Box, ...] = ()
    place: str = ""


class Screen(Protocol):
    """A screen, as an agent needs it.

    Whatever is on a screen may have been put there to mislead the model, so a screen keeps its own
    limits: what `act` was not allowed must not happen, whatever it looked like beforehand.
    """

    def observe(self) -> Observation:
        """Show the screen, when it has come to rest."""

    def risks(self, action: ScreenAction) -> Collection[Risk]:
        """Tell what an action would do, without doing it.

        Returns:
            Nothing for what is harmless; `Risk.UNKNOWN` where the screen cannot tell.

        Raises:
            ActionError: The action makes no sense here.
        """

    def target(self, action: ScreenAction) -> str:
        """Tell what an action would be done to, such as a button and where its form goes.

        Returns:
            A text that a human is shown before consenting, and that is another as soon as that
            consent would be for something else; "" where the screen cannot tell.

        Raises:
            ActionError: As for `risks`.
        """

    def act(self, action: ScreenAction, allowed: Collection[Risk]) -> str:
        """Do an action.

        Args:
            action: What to do.
            allowed: Risks that were approved; what turns out to have others must not happen.

        Returns:
            What the model should know of it, such as that something was stopped; else "".

        Raises:
            ActionError: It was not done, because it cannot be, or has further risks by now.
        """
