"""A tool that looks at pictures."""

from typing import Any, ClassVar

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel

from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import NamedSeveral, OptionalQuestion
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
from langchain_glm4v.tools.sources import check_kind, source
from langchain_glm4v.tools.texts import IMAGE

_ENGLISH = IMAGE["en"].fields


class ImageArguments(BaseModel):
    """Arguments of `ImageTool`."""

    images: NamedSeveral
    question: OptionalQuestion = ""


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

    _texts: ClassVar = IMAGE

    name: str = "look_at_images"
    description: str = _ENGLISH["description"]
    args_schema: ArgsSchema | None = ImageArguments

    prompt: str = _ENGLISH["prompt"]
    """What the model is asked."""

    label: str = _ENGLISH["label"]
    """Stands before each picture where there are several; "" for nothing."""

    def _steps(self, arguments: ImageArguments, media: Preparation) -> Steps:  # noqa: ARG002
        sources = [source(named, self.allowed_dirs, self._words) for named in arguments.images]
        for one in sources:
            check_kind(one, "picture", self._words)
        content: list[dict[str, Any]] = []
        for number, one in enumerate(sources, 1):
            if len(sources) > 1 and self.label:
                content.append(text_block(filled(self.label, number=number)))
            content.append({"type": "image", **one.fields})
        content.append(text_block(filled(self.prompt, question=arguments.question)))
        (reply,) = yield [Request(content, self.allowed_dirs)]
        answer = answer_of(reply, self._words)
        return told(answer, self._words), ImageArtifact(**answer, images=arguments.images)
