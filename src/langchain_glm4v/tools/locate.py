"""A tool that tells where things are in a picture."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, TypedDict

from langchain_core.messages import AIMessage
from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v.drawing import draw, pixels
from langchain_glm4v.errors import MediaError
from langchain_glm4v.grounding import Box, find_boxes
from langchain_glm4v.media import image
from langchain_glm4v.media.source import shown
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import Named, Question
from langchain_glm4v.tools.base import (
    NOT_CUT,
    Answer,
    Reply,
    Request,
    Steps,
    VisionTool,
    answer_of,
    filled,
    text_block,
)
from langchain_glm4v.tools.sources import at_hand, check_kind, source, tiff_pages
from langchain_glm4v.tools.texts import LOCATE, Words

_ENGLISH = LOCATE["en"].fields
_SEVERAL = re.compile(r"[,;，；、\n]")


class LocateArguments(BaseModel):
    """Arguments of `LocateTool`."""

    image: Named
    target: Question


class FoundBox(TypedDict):
    """Where a thing is.

    Attributes:
        label: What it is.
        pixels: Left, top, right and bottom in pixels of the upright picture.
        thousandths: The same in thousandths of its sides.
    """

    label: str
    pixels: list[int]
    thousandths: list[float]


class LocateArtifact(Answer):
    """Artifact of `LocateTool`.

    Attributes:
        image: Path or URL, as the agent gave it.
        width: Pixels of the upright picture.
        height: Pixels.
        boxes: What was found.
        picture: The picture with the boxes drawn, a PNG in base64; "" if nothing was found.
    """

    image: str
    width: int
    height: int
    boxes: list[FoundBox]
    picture: str


class LocateTool(VisionTool[LocateArguments]):
    """Tells where things are in a picture: boxes in pixels, and the picture with the boxes drawn.

    Example:
        ```python
        tool = LocateTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"image": "/srv/files/photo.jpg", "target": "the red car"})
        ```
    """

    _texts: ClassVar = LOCATE

    name: str = "locate_in_image"
    description: str = _ENGLISH["description"]
    args_schema: ArgsSchema | None = LocateArguments

    prompt: str = _ENGLISH["prompt"]
    """What the model is asked about one thing."""

    label_prompt: str = _ENGLISH["label_prompt"]
    """What it is asked about several, which commas part."""

    picture_side: int = Field(default=1024, ge=28)
    """Pixels of the longer side of the picture in the artifact, at most."""

    def _steps(self, arguments: LocateArguments, media: Preparation) -> Steps:
        found = source(arguments.image, self.allowed_dirs, self._words)
        several = _SEVERAL.search(arguments.target)
        prompt = self.label_prompt if several else self.prompt
        question = text_block(filled(prompt, target=arguments.target))
        with at_hand(found, "picture", allow_hosts=media.allow_hosts) as here:
            check_kind(here, "picture", self._words)
            if (count := tiff_pages(here)) > 1:
                several_pages = self._words.several_pages
                raise MediaError(several_pages.format(named=shown(found.given), count=count))
            picture_block = {"type": "image", **here.fields}
            (reply,) = yield [Request([picture_block, question], here.folders)]
            answer = answer_of(reply, self._words)
            whole = image.upright(here.path)
        width, height = whole.size
        boxes = [*_visible(_boxes(reply))]
        if not several:  # all are the same thing, so the picture shows their numbers
            boxes = [replace(box, label="") for box in boxes]
        drawn = draw(whole, boxes)
        drawn.thumbnail((self.picture_side, self.picture_side))
        picture = base64.b64encode(image.to_png(drawn)).decode() if boxes else ""
        artifact = LocateArtifact(
            **answer,
            image=arguments.image,
            width=width,
            height=height,
            boxes=[
                FoundBox(
                    label=box.label if several else arguments.target,
                    pixels=[*pixels(box, (width, height))],
                    thousandths=[*box],
                )
                for box in boxes
            ],
            picture=picture,
        )
        return _listed(artifact, arguments.target, self._words), artifact


def _boxes(reply: Reply) -> list[Box]:
    """The boxes of a reply: those of its box tags, or of the whole text if it has none."""
    if not isinstance(reply, AIMessage):
        return []
    return find_boxes(str(reply.text), reply.additional_kwargs.get("boxes", ()))


def _visible(boxes: list[Box]) -> Iterator[Box]:
    """What of each box is in the picture, without those of no area."""
    for box in boxes:
        inside = box.clipped()
        if inside is not None and inside.left < inside.right and inside.top < inside.bottom:
            yield inside


def _listed(artifact: LocateArtifact, target: str, words: Words) -> str:
    size = {"width": artifact["width"], "height": artifact["height"]}
    cut = "" if artifact["finish_reason"] in NOT_CUT else words.cut_off
    if not artifact["boxes"]:
        return words.not_found.format(**size, target=target, answer=artifact["answer"]) + cut
    lines = [
        f"{number}. {box['label'] or words.unlabelled}: {', '.join(map(str, box['pixels']))}"
        for number, box in enumerate(artifact["boxes"], 1)
    ]
    return "\n".join([words.found.format(**size), *lines]) + cut
