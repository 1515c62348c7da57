"""What can be done on a screen, whatever the wording of the model: plain data.

Places are in thousandths of the screen's sides, as the model writes them; what acts turns them into
pixels.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from langchain_glm4v.errors import ActionError
from langchain_glm4v.grounding import SIDE

Direction: TypeAlias = Literal["up", "down", "left", "right"]
Button: TypeAlias = Literal["left", "right", "middle"]


@dataclass(frozen=True, slots=True)
class Point:
    """A place on a screen.

    Attributes:
        x: Thousandths of the width, 0 to 1000, from the left.
        y: Thousandths of the height, 0 to 1000, from the top.

    Raises:
        ActionError: If it lies outside the screen, as pixels taken for thousandths do.
    """

    x: float
    y: float

    def __post_init__(self) -> None:
        if not (0 <= self.x <= SIDE and 0 <= self.y <= SIDE):
            raise ActionError(
                f"the point [{self.x:g},{self.y:g}] is outside the screen: both coordinates are "
                f"thousandths of its sides, 0 to {SIDE}, and no pixels"
            )

    def to_pixels(self, width: int, height: int) -> tuple[int, int]:
        """The pixel at this place, on a screen of `width` times `height` pixels."""
        return (
            min(width - 1, int(self.x * width / SIDE)),
            min(height - 1, int(self.y * height / SIDE)),
        )


@dataclass(frozen=True, slots=True)
class Click:
    """Click, or tap.

    Attributes:
        at: Where.
        button: Which button of the mouse.
        count: 2 for a double click.
        element: What is there, as the model says.
        sensitive: Why the user should consent first, as the model says; "" if it does not.
    """

    at: Point
    button: Button = "left"
    count: int = 1
    element: str = ""
    sensitive: str = ""


@dataclass(frozen=True, slots=True)
class LongPress:
    """Put a finger down, and leave it for a while."""

    at: Point


@dataclass(frozen=True, slots=True)
class Hover:
    """Move the pointer, without a click."""

    at: Point


@dataclass(frozen=True, slots=True)
class Drag:
    """Press at one point, release at another."""

    start: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Swipe:
    """Draw a finger over the screen.

    Attributes:
        direction: Where the finger goes; "up" shows what is further down.
        at: The middle of what is swiped; None: the screen.
    """

    direction: Direction
    at: Point | None = None


@dataclass(frozen=True, slots=True)
class Scroll:
    """Turn the wheel.

    Attributes:
        direction: Which end the view goes to.
        at: Where the pointer is; None: over the page.
        steps: Notches of the wheel.
    """

    direction: Direction
    at: Point | None = None
    steps: int = 5


@dataclass(frozen=True, slots=True)
class Type:
    """Write text; no Enter follows, for that is an action of its own.

    Attributes:
        text: What is written.
        at: The field to be clicked first; None: the one that has the focus.
        replace: Whether what is in the field goes.
    """

    text: str
    at: Point | None = None
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Press:
    """Press keys together: `("ctrl", "c")`, in lower case."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoBack:
    """Go to the page or view before."""


@dataclass(frozen=True, slots=True)
class GoHome:
    """Go to a phone's home screen."""


@dataclass(frozen=True, slots=True)
class OpenApp:
    """Start an app by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for a while, because something is loading."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the user something, and go on."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """End the task.

    Attributes:
        success: Whether it is done; False: it cannot be done.
        answer: What was asked for, if anything.
    """

    success: bool
    answer: str = ""


ScreenAction: TypeAlias = (
    Click
    | LongPress
    | Hover
    | Drag
    | Swipe
    | Scroll
    | Type
    | Press
    | GoBack
    | GoHome
    | OpenApp
    | Wait
)
"""What a `Screen` is asked to do."""

Action: TypeAlias = ScreenAction | Answer | Finish
"""What a model may want."""
