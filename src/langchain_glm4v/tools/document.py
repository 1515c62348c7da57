"""A tool that answers questions about documents, however long they are.

A request holds as many pages as fit. Where they do not fit into one, each group of pages is asked
for what it says of the question (map), and the answer is made of these findings (reduce): in one
request, or in several steps where they are too many for one.
"""

import itertools
import math
import re
from collections.abc import Collection, Generator, Sequence
from typing import Any, ClassVar, TypedDict

from langchain_core.tools import ArgsSchema
from pydantic import BaseModel, Field

from langchain_glm4v import profiles
from langchain_glm4v.media.budget import CELL
from langchain_glm4v.page_marks import find_marks
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import Brief, Named, PageNumbers, Question
from langchain_glm4v.tools.base import (
    EXPECTED,
    Answer,
    Reply,
    Request,
    Steps,
    answer_of,
    answers_of,
    explanation,
    filled,
    text_block,
    told,
    usage_of,
)
from langchain_glm4v.tools.pages import PagedTool, Pages, written
from langchain_glm4v.tools.sources import at_hand, check_kind, source
from langchain_glm4v.tools.texts import DOCUMENT, WORDS, Words

_ENGLISH = DOCUMENT["en"].fields

_ANSWER_TOKENS = 8192  # room for thinking and answer, where the model's `max_tokens` names none
_LABEL_TOKENS = 32  # of the text before a page, and the marks around it
_LEAST_ROOM = 1024  # tokens; where a question leaves less, the server's count tells
# In any language: prompts may be changed. Models write more than the one word; a sentence such as
# "Nothing forbids it." says something.
_WORD = "|".join(words.nothing for words in WORDS.values())
_NOTHING = re.compile(rf"[\W_]*+(?:(?:{_WORD})(?![a-zA-Z])|(?i:{_WORD})[\W_]*+\Z)")


class DocumentArguments(BaseModel):
    """Arguments of `DocumentTool`."""

    document: Named
    question: Question
    pages: PageNumbers = ""
    password: Brief = ""


class Finding(TypedDict):
    """What a group of pages says of a question.

    Attributes:
        pages: The group, counted from 1.
        cited: Those of them that it cites.
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
        cited: Those that the answer cites; if it cites none, those that the findings cite.
        findings: What each group of pages says, in the order of the pages.
    """

    document: str
    page_count: int
    pages: list[int]
    cited: list[int]
    findings: list[Finding]


class DocumentTool(PagedTool[DocumentArguments]):
    """Answers questions about PDFs, slides and texts, and cites the pages.

    Example:
        ```python
        tool = DocumentTool(llm=model, allowed_dirs=["/srv/files"])
        tool.invoke({"document": "/srv/files/report.pdf", "question": "What did 2025 cost?"})
        ```
    """

    _texts: ClassVar = DOCUMENT

    name: str = "ask_document"
    description: str = _ENGLISH["description"]
    args_schema: ArgsSchema | None = DocumentArguments

    prompt: str = _ENGLISH["prompt"]
    """What the model is asked about all pages at once."""

    find_prompt: str = _ENGLISH["find_prompt"]
    """What it is asked about a group of pages, where there are several. An answer that
    begins with `NOTHING`, or `无相关内容`, is none."""

    combine_prompt: str = _ENGLISH["combine_prompt"]
    """What it is asked about what was found; if that is too long for one request, about parts of
    it first."""

    page_label: str = _ENGLISH["page_label"]
    """Stands before the picture of each page; "" for nothing."""

    rests_on: str = _ENGLISH["rests_on"]
    """Tells the agent which pages are cited and which were read; "" for nothing."""

    pages_at_once: int | None = Field(default=None, ge=1)
    """Pages in a request, at most. Default: as many as fit."""

    combine: bool = True
    """Whether one answer is made of what several groups of pages say. If not, the agent gets what
    was found in each, to combine it itself."""

    def _steps(self, arguments: DocumentArguments, media: Preparation) -> Steps:
        found = source(arguments.document, self.allowed_dirs, self._words)
        with (
            at_hand(found, "document", allow_hosts=media.allow_hosts) as file,
            self._as_document(file) as here,
        ):
            check_kind(here, "document", self._words)
            pages = self._pages(here, arguments.pages, arguments.password)
            room = self._room(media, arguments.question)
            groups = self._groups(pages.wanted, room, media.max_pages)
            prompt = self.prompt if len(groups) == 1 else self.find_prompt
            replies = yield [
                Request(self._content(pages, group, prompt, arguments.question), here.folders)
                for group in groups
            ]
        said = answers_of(replies, self._words)
        answers = [one for one in said if not isinstance(one, str)]
        findings = [
            _finding(arguments.document, group, error=one)
            if isinstance(one, str)
            else _finding(arguments.document, group, one, told(one, self._words))
            for group, one in zip(groups, said, strict=True)
        ]
        final, more = yield from self._final(arguments.question, findings, answers, room)
        read = sorted(pages.wanted)
        noted = {page for finding in findings for page in finding["cited"]}
        cited = _cited(final["answer"], read, arguments.document) or sorted(noted)
        artifact = DocumentArtifact(
            answer=final["answer"],
            reasoning=final["reasoning"],
            finish_reason=final["finish_reason"],
            usage=usage_of([*answers, *more]),
            document=arguments.document,
            page_count=pages.count,
            pages=read,
            cited=cited,
            findings=findings,
        )
        words = self._words
        rests = {
            "cited": written(cited, words.comma) or words.no_pages,
            "pages": written(read, words.comma),
            "count": pages.count,
        }
        return f"{told(final, words)}\n\n{filled(self.rests_on, **rests)}".rstrip(), artifact

    def _room(self, media: Preparation, question: str) -> int:
        """Tokens of a request that are left for pages or findings."""
        profile = profiles.find(self.llm.model_name) or profiles.UNKNOWN
        context = media.context_tokens or profile.context_tokens
        answer = min(self.llm.max_tokens or _ANSWER_TOKENS, context // 2)
        prompts = (self.prompt, self.find_prompt, self.combine_prompt)
        # A text has no more tokens than bytes.
        asked = max(len(prompt.encode()) for prompt in prompts) + len(question.encode())
        return max(context - answer - asked, _LEAST_ROOM)

    def _groups(self, pages: Sequence[int], room: int, max_images: int) -> list[list[int]]:
        """The pages of each request, even in number."""
        largest = min(self.page_tokens, (self.longest_side // CELL) ** 2) + _LABEL_TOKENS
        most = max(1, min(room // largest, max_images, self.pages_at_once or len(pages)))
        count = math.ceil(len(pages) / most)
        ends = [len(pages) * number // count for number in range(count + 1)]
        return [[*pages[begin:end]] for begin, end in itertools.pairwise(ends)]

    def _content(
        self, pages: Pages, group: Sequence[int], prompt: str, question: str
    ) -> list[dict[str, Any]]:
        content = []
        for page in group:
            if self.page_label:
                content.append(text_block(filled(self.page_label, page=page)))
            content.append(pages.block(page))
        asked = filled(
            prompt, question=question, pages=written(group, self._words.comma), count=pages.count
        )
        return [*content, text_block(asked)]

    def _final(
        self, question: str, findings: Sequence[Finding], answers: Sequence[Answer], room: int
    ) -> Generator[Sequence[Request], Sequence[Reply], tuple[Answer, list[Answer]]]:
        """The answer of all findings, and those of the requests that were made for it."""
        if len(findings) == 1:
            return answers[0], []
        words = self._words
        telling = [one for one in findings if one["answer"] or one["error"]]
        if not any(one["answer"] for one in findings):
            return _made(f"{words.nothing_said}\n\n{_listed(telling, words)}".rstrip()), []
        if not self.combine:
            return _made(_listed(telling, words)), []
        combined: list[Answer] = []
        error = yield from self._combined(question, telling, room, combined)
        if error is not None:
            why = words.not_combined.format(error=explanation(error, words))
            return _made(f"{why}\n\n{_listed(telling, words)}"), combined
        return combined[-1], combined

    def _combined(
        self, question: str, findings: Sequence[Finding], room: int, answers: list[Answer]
    ) -> Generator[Sequence[Request], Sequence[Reply], Exception | None]:
        """Add the answers to each request that combines findings, that to the question last.

        Returns:
            Why a request has no answer, such as being cut off in thought; None if all have one.
        """
        # Two fit into a request, so that each round leaves about half as many.
        most = room // 2 - 1
        texts = [_clipped(_listed([finding], self._words), most) for finding in findings]
        while True:
            packed = _packed(texts, room)
            replies = yield [
                Request([text_block(asked)], may_fail=True)
                for asked in (
                    filled(self.combine_prompt, findings=one, question=question) for one in packed
                )
            ]
            try:
                found = [answer_of(reply, self._words) for reply in replies]
            except EXPECTED as error:
                return error
            answers += found
            if len(packed) == 1:
                return None
            texts = [_clipped(told(answer, self._words), most) for answer in found]


def _made(text: str) -> Answer:
    return Answer(answer=text, reasoning="", finish_reason="stop", usage=usage_of([]))


def _finding(
    document: str, group: list[int], answer: Answer | None = None, text: str = "", error: str = ""
) -> Finding:
    says = answer is not None and not _NOTHING.match(answer["answer"])
    text = text if says else ""
    return Finding(
        pages=group,
        cited=_cited(text, group, document),
        answer=text,
        reasoning=answer["reasoning"] if answer is not None else "",
        error=error,
    )


def _listed(findings: Sequence[Finding], words: Words) -> str:
    return "\n\n".join(
        words.pages.format(pages=written(one["pages"], words.comma))
        + "\n"
        + (one["answer"] or words.unread.format(error=one["error"]))
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


def _cited(answer: str, pages: Collection[int], document: str) -> list[int]:
    """The pages that an answer cites, of those of the document that were read."""
    spans = [span for mark in find_marks(answer, [document]) for span in mark.pages]
    return sorted({page for page in pages if any(page in span for span in spans)})
