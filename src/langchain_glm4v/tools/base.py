"""What all tools have in common: how they ask the model, and what becomes of errors.

    arguments -> steps: requests -> replies -> (text for the agent, artifact)

The steps of a tool are a generator that yields the requests it wants answered, which may be asked
at once, and is sent the replies. So sync and async calls share all but the asking.
"""

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar

import openai
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.tools import ArgsSchema, BaseTool, ToolException
from pydantic import BaseModel, Field, ValidationError, model_validator

from langchain_glm4v.abilities import arun, run
from langchain_glm4v.allowed import AllowedDirs
from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.errors import GLM4VError, MediaError, ReplyError, RequestError, ServerError
from langchain_glm4v.media import stopping
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.tools.arguments import described
from langchain_glm4v.tools.texts import WORDS, Language, ToolTexts, Words

Arguments = TypeVar("Arguments", bound=BaseModel)

_logger = logging.getLogger(__name__)

NOT_CUT = ("stop", "tool_calls", None)
"""Reasons to finish of a reply that is whole."""

EXPECTED = (GLM4VError, openai.OpenAIError)
"""What a call may fail with through no fault of the program. A refusal of the server's is OpenAI's.
"""

# What agents are told of errors of the server: by the first kind that fits, words of `Words`.
_SERVER_FAULTS: Mapping[type[Exception], str] = {
    openai.APITimeoutError: "server_slow",
    openai.RateLimitError: "server_busy",
    openai.BadRequestError: "server_refuses",
    openai.UnprocessableEntityError: "server_refuses",
    Exception: "server_fails",
}


class Answer(TypedDict):
    """What the artifact of every tool has.

    Attributes:
        answer: What the model answered, without what the tool adds for the agent.
        reasoning: Its thinking.
        finish_reason: "stop", or why it was cut off, such as "length".
        usage: Tokens of all requests: `input_tokens`, `output_tokens`, `total_tokens` and details.
    """

    answer: str
    reasoning: str
    finish_reason: str
    usage: UsageMetadata


@dataclass(frozen=True, slots=True)
class Request:
    """A question to the model.

    Attributes:
        content: Content blocks.
        folders: Directories in or below which local files may be read for it.
        may_fail: Whether the steps go on without a reply, whatever the reason. Else they do so only
            where its media cannot be sent.
    """

    content: Sequence[Mapping[str, Any]]
    folders: Sequence[str | os.PathLike[str]] = ()
    may_fail: bool = False


Reply: TypeAlias = AIMessage | GLM4VError | openai.OpenAIError
"""The reply to a request, or why there is none."""

Result: TypeAlias = tuple[str, Any]
"""The text for the agent, and the artifact."""

Steps: TypeAlias = Generator[Sequence[Request], Sequence[Reply], Result]


def _explained(error: ValidationError, words: Words = WORDS["en"]) -> str:
    """What is wrong with arguments, for a model to put right; what it wrote is not repeated."""
    wrong = [
        f"{'.'.join(map(str, one['loc'])) or words.all_arguments}: {one['msg']}"
        for one in error.errors()
    ]
    return words.wrong_arguments.format(wrong="; ".join(wrong[:10]))


class VisionTool(BaseTool, ABC, Generic[Arguments]):
    """Base of the tools by which an agent sees, through a `ChatGLM4V`.

    A call returns a text for the agent, and beside it, as `artifact`, a dict of plain values that
    JSON and msgpack can hold: see `Answer`. Expected errors (of media, of the server, of arguments)
    come back as a text that says what to do, with the status "error"; others are raised.

    Local files are read in or below `allowed_dirs` alone, whoever names them. URLs are fetched as
    `ChatGLM4V` does: from public addresses, and from the model's own `allow_hosts`.

    All that a tool says to agents and to the model is in its `language`, but for its name, those of
    its arguments, and errors of what lies below it (files, network), which are in English.
    A text that is given as a field, or by a subclass, stays as it is.
    """

    _texts: ClassVar[Mapping[Language, ToolTexts]]
    """Texts of this kind of tool, in each language."""

    llm: ChatGLM4V
    """The model that sees."""

    allowed_dirs: AllowedDirs = ()
    """Directories in or below which local files may be read. Default: no local file is read."""

    language: Language = Field(default="en", frozen=True)
    """Language of descriptions, prompts and of what the tool itself writes: English ("en") or
    Chinese ("zh"). It cannot be changed afterwards."""

    timeout: float | None = Field(default=None, gt=0)
    """Seconds that a call may take, all in all; then it is stopped, and the server does not go on
    with it. Default: no limit but those of the model's own requests."""

    max_concurrency: int = Field(default=4, ge=1)
    """Requests of one call that are made at once, at most."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = _explained
    args_schema: ArgsSchema | None = None

    @model_validator(mode="after")
    def _in_its_language(self) -> Self:
        """Give what was not given, nor changed by a subclass, the texts of the language."""
        given = self.model_fields_set.copy()
        english = self._texts["en"].fields
        for name, text in self._texts[self.language].fields.items():
            if name not in given and getattr(self, name) == english[name]:
                setattr(self, name, text)
        if "args_schema" not in given:
            self.args_schema = self._schema
        if self.handle_validation_error is _explained:
            self.handle_validation_error = partial(_explained, words=self._words)
        return self

    @property
    def _words(self) -> Words:
        return WORDS[self.language]

    @property
    def _schema(self) -> type[BaseModel]:
        """The class's own arguments; an instance may show models a narrower schema."""
        schema: Any = type(self).model_fields["args_schema"].default
        return described(schema, self._texts[self.language])

    @abstractmethod
    def _steps(self, arguments: Arguments, media: Preparation) -> Steps:
        """What a call does.

        Args:
            arguments: An instance of `args_schema`.
            media: How media are made ready for the model's server; it allows no local file.
        """

    def _run(self, *args: Any, **kwargs: Any) -> Result:
        arguments = self._arguments(args, kwargs)
        scope = stopping.Scope(self.timeout)
        with self._told():
            try:
                return scope.bound(self._worked)(arguments)
            except (CancelledError, openai.APITimeoutError) as error:
                if scope.left <= 0:
                    raise self._too_long() from error
                raise

    async def _arun(self, *args: Any, **kwargs: Any) -> Result:
        arguments = self._arguments(args, kwargs)
        limit = asyncio.timeout(self.timeout)
        with self._told():
            try:
                async with limit:
                    media = replace(await self.llm.aget_preparation(), allowed_dirs=())
                    with _ended(self._steps(arguments, media)) as steps:
                        return await arun(steps, self._aanswers, in_thread=True)
            except TimeoutError as error:
                if limit.expired():
                    raise self._too_long() from error
                raise

    def _worked(self, arguments: Arguments) -> Result:
        media = replace(self.llm.get_preparation(), allowed_dirs=())
        with _ended(self._steps(arguments, media)) as steps:
            return run(steps, self._answers)

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        # LangChain has checked them, but hands on no instance; of a single text, as it came.
        named = dict(zip(self._schema.model_fields, args, strict=False))
        return self._schema.model_validate({**named, **kwargs})

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Around a call: expected errors as LangChain's, which become texts for the agent."""
        try:
            yield
        except EXPECTED as error:
            raise ToolException(explanation(error, self._words)) from error

    def _too_long(self) -> ToolException:
        return ToolException(self._words.too_long.format(tool=self.name, seconds=self.timeout))

    def _answers(self, requests: Sequence[Request]) -> list[Reply]:
        scope = stopping.Scope()
        with ThreadPoolExecutor(self.max_concurrency, thread_name_prefix="glm4v-tool") as threads:
            try:
                futures = [threads.submit(scope.bound(self._ask), one) for one in requests]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()  # raises the first error
                return [future.result() for future in futures]
            except BaseException:  # after an error, or Ctrl-C, nobody waits for the others
                scope.stop()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, request: Request) -> Reply:
        try:
            return self.llm.invoke(_messages(request), allowed_dirs=request.folders)
        except EXPECTED as error:
            return _failed(request, error)

    async def _aanswers(self, requests: Sequence[Request]) -> list[Reply]:
        slots = asyncio.Semaphore(self.max_concurrency)

        async def asked(request: Request) -> Reply:
            async with slots:
                return await self._aask(request)

        tasks = [asyncio.ensure_future(asked(request)) for request in requests]
        try:
            return await asyncio.gather(*tasks)
        finally:  # after an error, nobody waits for the others
            for task in tasks:
                task.cancel()

    async def _aask(self, request: Request) -> Reply:
        try:
            return await self.llm.ainvoke(_messages(request), allowed_dirs=request.folders)
        except EXPECTED as error:
            return _failed(request, error)


@contextmanager
def _ended(steps: Steps) -> Iterator[Steps]:
    """Around the use of steps: what they hold is let go of at once, also after an error."""
    try:
        yield steps
    finally:
        # After a cancelled call, a thread may still run them; it ends them soon.
        with suppress(ValueError):
            steps.close()


def _failed(request: Request, error: GLM4VError | openai.OpenAIError) -> Reply:
    """The reply that an error is; raises it if the steps do not go on."""
    stopping.left()  # raises if the call was stopped, which such an error may come from
    if request.may_fail or isinstance(error, MediaError):
        return error
    raise error


def _messages(request: Request) -> list[HumanMessage]:
    return [HumanMessage([dict(block) for block in request.content])]


class NoAnswerError(ReplyError):
    """A reply says nothing; the text is for agents."""


def explanation(error: Exception, words: Words) -> str:
    """What an error says to an agent, in one line; what only programmers can do is logged."""
    is_own = isinstance(error, GLM4VError) and not isinstance(error, ServerError)
    if is_own or isinstance(error, NoAnswerError):
        told = str(error.args[0]) if error.args else ""
    else:
        kinds = (kind for kind in _SERVER_FAULTS if isinstance(error, kind))
        told = getattr(words, _SERVER_FAULTS[next(kinds)])
    if told != str(error):
        _logger.warning("%s", error)
    return " ".join(told.split()) or type(error).__name__


def filled(template: str, **values: object) -> str:
    """Fill the places of a prompt, such as `{question}`, as `str.format` does.

    Raises:
        RequestError: If it has other places.
    """
    try:
        return template.format(**values)
    except (LookupError, ValueError, AttributeError) as error:
        raise RequestError(
            f"the prompt {template!r} cannot be filled ({error!r}): its places are "
            f"{', '.join(f'{{{name}}}' for name in values)}, and other braces are written twice"
        ) from error


def text_block(text: str) -> dict[str, Any]:
    """Write a content block with a text."""
    return {"type": "text", "text": text}


def answer_of(reply: Reply, words: Words) -> Answer:
    """What a reply says.

    Args:
        reply: The reply.
        words: For the error if it says nothing.

    Raises:
        MediaError: If its media could not be sent.
        NoAnswerError: If it has no answer.
        Exception: Why else there is no reply, of `EXPECTED`.
    """
    if not isinstance(reply, AIMessage):
        raise reply
    reason = reply.response_metadata.get("finish_reason")
    text = str(reply.text).strip()
    if not text and not reply.additional_kwargs.get("boxes"):
        what = words.no_answer if reason in NOT_CUT else words.cut_in_thought
        raise NoAnswerError(what.format(reason=reason))
    return Answer(
        answer=text,
        reasoning=str(reply.additional_kwargs.get("reasoning_content", "")),
        finish_reason=str(reason or "stop"),
        usage=reply.usage_metadata or add_usage(None, None),
    )


def answers_of(replies: Sequence[Reply], words: Words) -> list[Answer | str]:
    """What each reply says of its pages, or why it says nothing.

    Raises:
        MediaError: If none says anything.
        Exception: As `answer_of`, if it is the only one.
    """
    if len(replies) == 1:
        return [answer_of(replies[0], words)]
    found: list[Answer | str] = []
    for reply in replies:
        try:
            found.append(answer_of(reply, words))
        except (MediaError, ReplyError) as error:
            found.append(explanation(error, words))
    if all(isinstance(one, str) for one in found):
        raise MediaError(words.all_unread.format(error=found[0]))
    return found


def told(answer: Answer, words: Words) -> str:
    """The answer for the agent; one that was cut off says so."""
    return answer["answer"] + ("" if answer["finish_reason"] in NOT_CUT else words.cut_off)


def usage_of(answers: Sequence[Answer]) -> UsageMetadata:
    """Tokens of several requests together."""
    total: UsageMetadata | None = None
    for answer in answers:
        total = add_usage(total, answer["usage"])
    return add_usage(total, None)
