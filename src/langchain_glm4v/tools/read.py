"""A tool that reads what is written: pictures and pages as Markdown."""

from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v.errors import UnsupportedMediaError
from langchain_glm4v.markdown import unfenced
from langchain_glm4v.media.source import shown
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import Brief, Named, PageNumbers
from langchain_glm4v.tools.base import (
    NOT_CUT,
    Answer,
    Reply,
    Request,
    Result,
    Steps,
    answers_of,
    filled,
    text_block,
    usage_of,
)
from langchain_glm4v.tools.pages import PagedTool
from langchain_glm4v.tools.sources import at_hand, source
from langchain_glm4v.tools.texts import READ

_ENGLISH = READ["en"].fields


class ReadArguments(BaseModel):
    """Arguments of `ReadTool`."""

    source: Named
    pages: PageNumbers = ""
    password: Brief = ""


class PageText(TypedDict):
    """What is written on a page.

    Attributes:
        page: Its number, counted from 1; of a picture 1.
        text: Markdown, tables as HTML.
        finish_reason: "stop", or why the text was cut off, such as "length".
        error: Why the page could not be read; "" if it could.
    """

    page: int
    text: str
    finish_reason: str
    error: str


class ReadArtifact(Answer):
    """Artifact of `ReadTool`; its `answer` is the whole text.

    Attributes:
        source: Path or URL, as the agent gave it.
        page_count: Pages of the document; of a picture 1.
        pages: What is written on each page that was read, in the order asked for.
    """

    source: str
    page_count: int
    pages: list[PageText]


class ReadTool(PagedTool[ReadArguments]):
    """Reads the text of pictures and documents, scans among them, as Markdown.

    Example:
        ```python
        tool = ReadTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"source": "/srv/files/scan.pdf", "pages": "1-3"})
        ```
    """

    _texts: ClassVar = READ

    name: str = "read_text"
    description: str = _ENGLISH["description"]
    args_schema: ArgsSchema | None = ReadArguments

    prompt: str = _ENGLISH["prompt"]
    """What the model is asked about each page."""

    heading: str = _ENGLISH["heading"]
    """Stands above each page of a document that has several; "" for nothing."""

    max_pages: int = Field(default=50, ge=1)
    """Pages that may be read in a call."""

    def _steps(self, arguments: ReadArguments, media: Preparation) -> Steps:
        found = source(arguments.source, self.allowed_dirs, self._words)
        with (
            at_hand(found, "medium", allow_hosts=media.allow_hosts) as file,
            self._as_document(file) as here,
        ):
            match media.recognised(here.path).kind:
                case "picture":
                    count, pages = 1, [1]
                    blocks: list[dict[str, Any]] = [{"type": "image", **here.fields}]
                case "document":
                    asked = self._pages(here, arguments.pages, arguments.password)
                    count, pages = asked.count, [*asked.wanted]
                    blocks = [*map(asked.block, pages)]
                case "video":
                    told = self._words.is_video.format(named=shown(found.given))
                    raise UnsupportedMediaError(told)
            prompt = text_block(self.prompt)
            replies = yield [Request([block, prompt], here.folders) for block in blocks]
            return self._result(arguments, count, pages, replies)

    def _result(
        self,
        arguments: ReadArguments,
        count: int,
        pages: Sequence[int],
        replies: Sequence[Reply],
    ) -> Result:
        said = answers_of(replies, self._words)
        answers = [one for one in said if not isinstance(one, str)]
        found = [_page(page, one) for page, one in zip(pages, said, strict=True)]
        text = "\n\n".join(self._written(one, alone=count == 1) for one in found)
        cut = [one["finish_reason"] for one in answers if one["finish_reason"] not in NOT_CUT]
        artifact = ReadArtifact(
            answer=text,
            reasoning="\n\n".join(filter(None, (one["reasoning"] for one in answers))),
            finish_reason=cut[0] if cut else "stop",
            usage=usage_of(answers),
            source=arguments.source,
            page_count=count,
            pages=found,
        )
        return text, artifact

    def _written(self, page: PageText, *, alone: bool) -> str:
        words = self._words
        text = page["text"] if not page["error"] else words.unread.format(error=page["error"])
        if not page["error"] and page["finish_reason"] not in NOT_CUT:
            text += words.cut_off
        heading = "" if alone or not self.heading else filled(self.heading, page=page["page"])
        return "\n\n".join(filter(None, (heading, text)))


def _page(page: int, said: Answer | str) -> PageText:
    if isinstance(said, str):
        return PageText(page=page, text="", finish_reason="", error=said)
    text = unfenced(said["answer"])
    return PageText(page=page, text=text, finish_reason=said["finish_reason"], error="")
