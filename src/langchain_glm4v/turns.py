"""Turns of a conversation on the wire: messages of a chat-completions request."""

from collections.abc import Iterable
from typing import Any, TypeAlias

from langchain_glm4v.media.video import Clip

Turn: TypeAlias = dict[str, Any]
Part: TypeAlias = dict[str, Any]


def text_part(text: str) -> Part:
    """Write a text."""
    return {"type": "text", "text": text}


def picture_part(url: str) -> Part:
    """Write a picture that the server fetches."""
    return {"type": "image_url", "image_url": {"url": url}}


class PicturePart(dict[str, Any]):
    """A picture on the wire, which also knows its size.

    Attributes:
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, url: str, width: int, height: int) -> None:
        super().__init__(picture_part(url))
        self.width = width
        self.height = height


class VideoPart(dict[str, Any]):
    """A video on the wire, which also knows what it costs and what the request must say of it.

    Attributes:
        clip: The video that is sent.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(video_part(clip.url))
        self.clip = clip


def video_part(url: str) -> Part:
    """Write a video that the server knows how to read, or fetches."""
    return {"type": "video_url", "video_url": {"url": url}}


def parts_of(turn: Turn) -> list[Part]:
    """Content of a turn as a list, also where it is a string."""
    content = turn["content"]
    return [text_part(content)] if isinstance(content, str) else content


def is_picture(part: Part) -> bool:
    """Whether a part is a picture."""
    return bool(part["type"] == "image_url")


def is_video(part: Part) -> bool:
    """Whether a part is a video."""
    return bool(part["type"] == "video_url")


def is_medium(part: Part) -> bool:
    """Whether a part is a picture or a video."""
    return is_picture(part) or is_video(part)


def size_of(part: Part) -> int:
    """Bytes that a part takes in a request, about."""
    return len(part[part["type"]]["url"] if is_medium(part) else part["text"])


def joined(parts: Iterable[Part]) -> list[Part]:
    """The same with neighbouring texts as one."""
    result: list[Part] = []
    for part in parts:
        if result and result[-1]["type"] == part["type"] == "text":
            result[-1] = text_part(result[-1]["text"] + part["text"])
        else:
            result.append(part)
    return result
