"""A tool that answers questions about documents, however long they are.

A request holds as many pages as fit. Where they do not fit into one, each group of pages is asked for
what it says of the question (map), and the answer is made of these findings (reduce): in one request,
or in several steps where they are too many for one.
"""

import math
import re
from collections.abc import Collection, Generator, Sequence
from typing import Any, TypedDict

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v import profiles
from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import document
from langchain_glm4v.media.budget import CELL, check_count
from langchain_glm4v.media.source import shown
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.base import (
    Answer,
    Reply,
    Request,
    Steps,
    VisionTool,
    answer_of,
    filled,
    text_block,
    told,
    usage_of,
)
from langchain_glm4v.tools.image import MAX_QUESTION
from langchain_glm4v.tools.sources import Named, Source, source

PAGE_TOKENS = 2145
"""Tokens of a page, at most: what one of A4 has in the default size."""

_ANSWER_TOKENS = 8192  # room for thinking and answer, where the model's `max_tokens` names none
_LABEL_TOKENS = 32  # of the text before a page, and the marks around it
_NOTHING = "NOTHING"
_DASH = r"\s?[-–—]\s?"
# "[page 3]", "[pages 3-5, 7]", "[第3页]", brackets of other kinds
_CITED = re.compile(
    rf"[\[(【(]\s?(?:pages?|pp?\.|第)\s?((?:\d{{1,6}}|{_DASH}|,\s?|\sand\s){{1,60}})\s?页?\s?[\])】)]",
    re.IGNORECASE,
)
_RANGE = re.compile(rf"(\d+)(?:{_DASH}(\d+))?")


class DocumentArguments(BaseModel):
    """Arguments of `DocumentTool`."""

    document: Named = Field(
        description="Path or http(s) URL of the document, exactly as the user gave it."
    )
    question: str = Field(
        min_length=1,
        max_length=MAX_QUESTION,
        description="What to find out, in one clear sentence that makes sense on its own.",
    )
    pages: str | None = Field(
        default=None,
        max_length=1000,
        description='Which pages to read, counted from 1, such as "1,3,5-7". Leave it out to read '
        "all.",
    )
    password: str | None = Field(
        default=None,
        max_length=200,
        description="Password of the document, only if the user gave one.",
    )


class Finding(TypedDict):
    """What a group of pages says of a question.

    Attributes:
        pages: The group, counted from 1.
        cited: Those of them on which it rests; empty if they say nothing of it.
        answer: What the model found there; "" if nothing.
        reasoning: Its thinking.
        error: Why the pages could not be read; "" if they could.
    """

    pages: list[int]
    cited: list[int]
    answer: str
    reasoning: str
    error: str


class DocumentArtifact(Answer):
    """Artifact of `DocumentTool`.

    Attributes:
        document: Path or URL, as the agent gave it.
        page_count: Pages of the document.
        pages: Those that were read, counted from 1.
        cited: Those on which the answer rests.
        findings: What each group of pages says, in the order of the pages.
    """

    document: str
    page_count: int
    pages: list[int]
    cited: list[int]
    findings: list[Finding]


class DocumentTool(VisionTool[DocumentArguments]):
    """Answers questions about PDFs, slides and texts, and cites the pages.

    Example:
        ```python
        tool = DocumentTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"document": "/srv/files/report.pdf", "question": "What did 2025 cost?"})
        ```
    """

    name: str = "ask_document"
    description: str = (
        "Answer a question from the pages of a document: PDF, PPTX, PPT, DOCX, DOC, ODT, ODP. "
        "Scans, tables, charts and pictures on the pages are seen. Answers cite pages as [page 3]."
    )
    args_schema: ArgsSchema | None = DocumentArguments

    prompt: str = (
        "These are pages of a document. Answer the question from them alone, and cite the page of "
        "each fact, as in [page 3].\n\nQuestion: {question}"
    )
    """What the model is asked about all pages at once."""

    find_prompt: str = (
        "These are pages {pages} of a document with {count} pages. Write down all that they say "
        "that helps to answer the question, and cite the page of each fact, as in [page 3]. If "
        f"they say nothing of it, answer only: {_NOTHING}\n\nQuestion: {{question}}"
    )
    """What it is asked about a group of pages, where there are several. An answer of the one word
    `NOTHING` is none."""

    combine_prompt: str = (
        "These are notes that were taken from the pages of a document.\n\n{findings}\n\nAnswer the "
        "question from them alone, and cite the page of each fact, as in [page 3].\n\n"
        "Question: {question}"
    )
    """What it is asked about what was found; if that is too long for one request, about parts of
    it first."""

    page_label: str = "Page {page}:"
    """Stands before the picture of each page; "" for nothing."""

    rests_on: str = "(Pages: {cited}. Read: {pages} of {count}.)"
    """Tells the agent on which pages the answer rests; "" for nothing."""

    pages_at_once: int | None = Field(default=None, ge=1)
    """Pages in a request, at most. Default: as many as fit."""

    combine: bool = True
    """Whether one answer is made of what several groups of pages say. If not, the agent gets what
    was found in each, to combine it itself."""

    longest_side: int = document.LONGEST_SIDE
    """Pixels of the longer side of a page."""

    page_tokens: int = PAGE_TOKENS
    """Tokens of a page, at most; more are scaled down."""

    max_pages: int = Field(default=200, ge=1)
    """Pages that may be asked about in a call."""

    def _steps(self, arguments: DocumentArguments, media: Preparation) -> Steps:
        found = source(arguments.document, self.allowed_dirs)
        name = shown(found.given)
        password = arguments.password
        with found.at_hand("document", allow_hosts=media.allow_hosts) as path:
            count = document.info(path, password=password, name=found.given).page_count
            numbers = document.page_numbers(arguments.pages, count, name)
            check_count(name, len(numbers), self.max_pages, document.CHOOSE_PAGES)
            room = self._room(media, arguments.question)
            groups = self._groups([number + 1 for number in dict.fromkeys(numbers)], room, media)
            replies = yield [
                Request(self._content(path, found, arguments, group, groups, count), [path])
                for group in groups
            ]
            return (yield from self._result(arguments, groups, replies, count, room))

    def _room(self, media: Preparation, question: str) -> int:
        """Tokens of a request that are left for pages or findings."""
        profile = profiles.find(self.llm.model_name) or profiles.UNKNOWN
        context = media.context_tokens or profile.context_tokens
        answer = min(self.llm.max_tokens or _ANSWER_TOKENS, context // 2)
        prompts = (self.prompt, self.find_prompt, self.combine_prompt)
        # A text has no more tokens than bytes.
        asked = max(len(filled(prompt, question=question).encode()) for prompt in prompts)
        return context - answer - asked

    def _groups(self, pages: list[int], room: int, media: Preparation) -> list[list[int]]:
        """The pages of each request, even in number."""
        largest = min(self.page_tokens, (self.longest_side // CELL) ** 2) + _LABEL_TOKENS
        most = max(1, min(room // largest, media.max_pages, self.pages_at_once or len(pages)))
        count = math.ceil(len(pages) / most)
        ends = [len(pages) * number // count for number in range(count + 1)]
        return [pages[begin:end] for begin, end in zip(ends, ends[1:], strict=False)]

    def _content(
        self,
        path: Any,
        found: Source,
        arguments: DocumentArguments,
        group: Sequence[int],
        groups: Sequence[Sequence[int]],
        count: int,
    ) -> list[dict[str, Any]]:
        content = []
        for page in group:
            if self.page_label:
                content.append(text_block(filled(self.page_label, page=page)))
            content.append(
                page_block(
                    path,
                    found.given,
                    page,
                    longest_side=self.longest_side,
                    max_tokens=self.page_tokens,
                    password=arguments.password,
                )
            )
        prompt = self.prompt if len(groups) == 1 else self.find_prompt
        values = {"question": arguments.question, "pages": written(group), "count": count}
        return [*content, text_block(filled(prompt, **values))]

    def _result(
        self,
        arguments: DocumentArguments,
        groups: Sequence[list[int]],
        replies: Sequence[Reply],
        count: int,
        room: int,
    ) -> Steps:
        answers = []
        findings = []
        for group, reply in zip(groups, replies, strict=True):
            if isinstance(reply, MediaError) and len(groups) > 1:
                findings.append(_unread(group, reply))
                continue
            answer = answer_of(reply)
            answers.append(answer)
            findings.append(_finding(group, answer))
        if not answers:
            raise MediaError(findings[0]["error"])
        telling = [finding for finding in findings if finding["answer"] or finding["error"]]
        if len(groups) == 1:
            final = answers[0]
        elif not any(finding["answer"] for finding in findings):
            final = _made("The pages say nothing of it.")
        elif self.combine:
            more = yield from self._combined(arguments.question, telling, room)
            answers += more
            final = more[-1]
        else:
            final = _made(_listed(telling))
        pages = sorted(page for group in groups for page in group)
        cited = _cited(final["answer"], pages) or sorted(
            {page for finding in findings for page in finding["cited"]}
        )
        artifact = DocumentArtifact(
            **{**final, "usage": usage_of(answers)},
            document=arguments.document,
            page_count=count,
            pages=pages,
            cited=cited,
            findings=findings,
        )
        rests = filled(
            self.rests_on, cited=written(cited) or "none", pages=written(pages), count=count
        )
        return f"{told(final)}\n\n{rests}".rstrip(), artifact

    def _combined(
        self, question: str, findings: Sequence[Finding], room: int
    ) -> Generator[Sequence[Request], Sequence[Reply], list[Answer]]:
        """The answers to each request that combines findings, that to the question last."""
        answers: list[Answer] = []
        # Two fit into a request, so that each round leaves half as many.
        texts = [_clipped(_listed([finding]), room // 2) for finding in findings]
        while True:
            packed = _packed(texts, room)
            replies = yield [
                Request(
                    [
                        text_block(
                            filled(self.combine_prompt, findings=findings_, question=question)
                        )
                    ]
                )
                for findings_ in packed
            ]
            found = [answer_of(reply) for reply in replies]
            answers += found
            if len(packed) == 1:
                return answers
            texts = [_clipped(told(answer), room // 2) for answer in found]


def page_block(path: Any, given: str, page: int, **options: Any) -> dict[str, Any]:
    """Write a content block with a page of a document.

    Args:
        path: The file.
        given: What error messages call it.
        page: Counted from 1.
        **options: Of the block; those that are None are left out.
    """
    stated = {name: value for name, value in options.items() if value is not None}
    return {"type": "file", "path": str(path), "filename": given, "pages": str(page), **stated}


def written(pages: Sequence[int]) -> str:
    """Write page numbers in short: "1-3, 7"."""
    spans: list[list[int]] = []
    for page in pages:
        if spans and page == spans[-1][1] + 1:
            spans[-1][1] = page
        else:
            spans.append([page, page])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans)


def _made(text: str) -> Answer:
    return Answer(answer=text, reasoning="", finish_reason="stop", usage=usage_of([]))


def _finding(group: list[int], answer: Answer) -> Finding:
    is_nothing = answer["answer"].strip(" .*\"'").upper() == _NOTHING
    return Finding(
        pages=group,
        # One that cites none rests on all that it was shown.
        cited=[] if is_nothing else _cited(answer["answer"], group) or group,
        answer="" if is_nothing else told(answer),
        reasoning=answer["reasoning"],
        error="",
    )


def _unread(group: list[int], error: MediaError) -> Finding:
    return Finding(pages=group, cited=[], answer="", reasoning="", error=str(error))


def _listed(findings: Sequence[Finding]) -> str:
    return "\n\n".join(
        f"Pages {written(one['pages'])}:\n" + (one["answer"] or f"could not be read: {one['error']}")
        for one in findings
    )


def _clipped(text: str, most: int) -> str:
    """A text of at most so many bytes."""
    data = text.encode()
    return text if len(data) <= most else f"{data[: max(most - 4, 0)].decode(errors='ignore')} …"


def _packed(texts: Sequence[str], room: int) -> list[str]:
    """Texts together, of at most so many bytes each."""
    packed: list[str] = []
    for text in texts:
        joined = f"{packed[-1]}\n\n{text}" if packed else text
        if packed and len(joined.encode()) <= room:
            packed[-1] = joined
        else:
            packed.append(text)
    return packed


def _cited(answer: str, pages: Collection[int]) -> list[int]:
    """The pages that an answer cites, of those that were read."""
    cited = set()
    for place in _CITED.finditer(answer):
        for span in _RANGE.finditer(place[1]):
            first, last = int(span[1]), int(span[2] or span[1])
            cited.update(page for page in pages if first <= page <= last)
    return sorted(cited)
