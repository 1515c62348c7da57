"""A tool that looks at pictures."""

from typing import Any

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import NamedSeveral, Question
from langchain_glm4v.tools.base import (
    Answer,
    Request,
    Steps,
    VisionTool,
    answer_of,
    filled,
    text_block,
    told,
)
from langchain_glm4v.tools.sources import source


class ImageArguments(BaseModel):
    """Arguments of `ImageTool`."""

    images: NamedSeveral = Field(
        description="Paths or http(s) URLs of the images, exactly as the user gave them. "
        "Give all that are to be compared in one call.",
    )
    question: Question = Field(
        default="Describe this image.",
        description="What to find out, in one clear sentence. Of several images, say which one is "
        "meant: the first, the second.",
    )


class ImageArtifact(Answer):
    """Artifact of `ImageTool`.

    Attributes:
        images: Path or URL of each image, as the agent gave it.
    """

    images: list[str]


class ImageTool(VisionTool[ImageArguments]):
    """Answers questions about pictures: describes, reads, counts, compares.

    Example:
        ```python
        tool = ImageTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"images": ["/srv/files/receipt.png"], "question": "What is the Total?"})
        ```
    """

    name: str = "look_at_images"
    description: str = (
        "Look at one or several images and answer a question about them: what they show, what is "
        "written in them, how many things there are, how they differ. Not for PDFs or videos."
    )
    args_schema: ArgsSchema | None = ImageArguments

    prompt: str = "{question}"
    """What the model is asked."""

    label: str = "Image {number}:"
    """Stands before each picture where there are several; "" for nothing."""

    def _steps(self, arguments: ImageArguments, media: Preparation) -> Steps:  # noqa: ARG002
        sources = [source(named, self.allowed_dirs) for named in arguments.images]
        content: list[dict[str, Any]] = []
        for number, one in enumerate(sources, 1):
            if len(sources) > 1 and self.label:
                content.append(text_block(filled(self.label, number=number)))
            content.append({"type": "image", **one.fields})
        content.append(text_block(filled(self.prompt, question=arguments.question)))
        (reply,) = yield [Request(content, self.allowed_dirs)]
        answer = answer_of(reply)
        return told(answer), ImageArtifact(**answer, images=arguments.images)
