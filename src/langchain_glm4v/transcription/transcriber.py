"""Reads pages, many at once, in their order.

    sources -> pages, as pictures -> text layer, cache, blank? -> gate -> model -> checks -> results
               (a few ahead)                                     (load)  (attempts)

Pages are rendered only as fast as the server takes them, and handed out only as fast as they are
taken, so the memory needed does not depend on how many there are.
"""

import asyncio
import atexit
import base64
import json
import math
import os
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import anyio
import openai
from anyio.from_thread import start_blocking_portal
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from langchain_glm4v.call_errors import ServerUnreachableError
from langchain_glm4v.chat_models import ChatGLM4V
from langchain_glm4v.clients import is_refusal, is_spent, retry_after, telling_refusals
from langchain_glm4v.errors import (
    GLM4VError,
    MediaError,
    RequestError,
    UnsupportedByServerError,
)
from langchain_glm4v.markdown import unfenced
from langchain_glm4v.media import scan, stopping
from langchain_glm4v.output_parsers import json_schema
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.structured import choices_of
from langchain_glm4v.transcription import attempts, checks, sources
from langchain_glm4v.transcription.attempts import Attempt, Reply
from langchain_glm4v.transcription.cache import PageCache, key_of
from langchain_glm4v.transcription.load import (
    INTERVAL,
    LONGEST_INTERVAL,
    PATIENCE,
    Pace,
    load_of,
)
from langchain_glm4v.transcription.records import NOTHING, PageResult, Reading
from langchain_glm4v.transcription.sources import Rendering, SourcePage, Sources

Item = TypeVar("Item")

PROMPT = "Convert this page to Markdown. Write tables as HTML and formulas as LaTeX."
"""What the model is asked about each page, unless told otherwise."""

JSON_PROMPT = "Read this page, and give what it says as JSON."
"""The same where a schema is given."""

# After these, no page would fare better: the run ends, and goes on from its cache another time.
_FATAL = (
    ServerUnreachableError,
    UnsupportedByServerError,
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
)
_DAMAGED = "its file is damaged, and a part of it is missing ({}): scan it again"
# Parameters that leave the text of a page as it is. Only readings without problems are kept, and a
# larger limit of tokens would have changed none of these.
_WITHOUT_EFFECT = frozenset(
    (
        *("max_tokens", "max_completion_tokens"),
        *("base_url", "stream", "stream_options", "logprobs", "top_logprobs", "store"),
        *("service_tier", "cache_salt", "request_id", "prompt_cache_options", "extra_body"),
        *("max_images", "allow_hosts", "allowed_dirs"),
    )
)
_END_OF_THINKING = "</think>"

_open: "weakref.WeakSet[Generator[PageResult]]" = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pages are read.

    Attributes:
        prompt: What the model is asked about each page. Default: `PROMPT`, or with a schema
            `JSON_PROMPT`.
        schema: What the answer about each page is bound to, as for
            `ChatGLM4V.with_structured_output`; the text is JSON then.
        rendering: Which pages, and how they are shown.
        text_layer: "auto": a page whose own text is good is not shown to the model: see
            `checks.is_good_layer`; not with a schema. "ignore": the model reads all.
        scripts: Scripts that are expected, such as "latin" or "cjk": see `checks.problems`.
        temperatures: Temperature of each attempt: see `attempts.TEMPERATURES`.
        finds_turn: Whether a page that is hard to read is tried on its head and sides too.
        max_concurrency: Requests at once, at most. As many are made as the server can answer. What
            it refuses for now is asked for again, later and less at once: see `load.Pace`.
        cache: File of the pages that were read already; None: none is kept.

    Raises:
        RequestError: A value is not accepted.
    """

    prompt: str | None = None
    schema: Any = None
    rendering: Rendering = field(default_factory=Rendering)
    text_layer: Literal["auto", "ignore"] = "ignore"
    scripts: Sequence[str] = ()
    temperatures: Sequence[float | None] = attempts.TEMPERATURES
    finds_turn: bool = True
    max_concurrency: int = 128
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name, is_accepted, accepted in (
            ("prompt", self.prompt is None or _is_text(self.prompt), "a text that is not empty"),
            ("text_layer", self.text_layer in ("auto", "ignore"), "'auto' or 'ignore'"),
            ("scripts", _are_scripts(self.scripts), "a list of names, such as ['cjk']"),
            ("temperatures", _are_temperatures(self.temperatures), "a list of numbers from 0 on"),
            ("max_concurrency", _is_count(self.max_concurrency), "a whole number above 0"),
        ):
            if not is_accepted:
                message = f"{name} is {getattr(self, name)!r}: it must be {accepted}"
                raise RequestError(message)
        if self.text_layer == "auto" and self.schema is not None:
            raise RequestError(
                "text_layer='auto' would give plain text where schema promises JSON: leave one out"
            )

    @property
    def asked(self) -> str:
        """What the model is asked about each page."""
        return self.prompt or (PROMPT if self.schema is None else JSON_PROMPT)


def _is_text(given: Any) -> bool:
    return isinstance(given, str) and bool(given.strip())


def _are_scripts(given: Any) -> bool:
    return _is_list(given) and all(
        isinstance(name, str) and checks.is_script(name) for name in given
    )


def _are_temperatures(given: Any) -> bool:
    """Whether there is one at least, and each is a number that is not negative, or None."""
    return (
        _is_list(given)
        and len(given) > 0
        and all(one is None or (isinstance(one, int | float) and 0 <= one < inf) for one in given)
    )


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _is_count(given: Any) -> bool:
    return isinstance(given, int) and given >= 1


class Transcriber:
    """Reads documents and pictures page by page.

    Args:
        llm: The model that reads.
        options: How.
    """

    def __init__(self, llm: ChatGLM4V, options: Options | None = None) -> None:
        self._llm = llm
        self._options = options or Options()

    def pages(self, given: Sources) -> Generator[PageResult]:
        """Read all pages; the next are read while one is dealt with.

        Args:
            given: What is to be read: see `sources.find`.

        Yields:
            What became of each page, in order. A page, or a file, that cannot be read is a result
            with an error.

        Raises:
            MediaError: A path leads to nothing.
            CacheError: The cache cannot be read or written.
            ServerUnreachableError: Nothing answers; what was read is in the cache.
            openai.APIStatusError: The server refuses every page: for its key, its address, a quota
                that is used up, or for as long as `load.PATIENCE`; likewise.
        """
        results = self._pages(given)
        _open.add(results)
        return results

    def _pages(self, given: Sources) -> Generator[PageResult]:
        taking = _Taking(self._all_pages(given))
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(aclosing(taking)):
            while (result := portal.call(taking.next)) is not None:
                yield result

    async def _all_pages(self, given: Sources) -> AsyncGenerator[PageResult]:
        """As `apages`, in an event loop that ends with it."""
        try:
            async with aclosing(self.apages(given)) as results:
                async for result in results:
                    yield result
        finally:
            with anyio.CancelScope(shield=True):
                await self._llm._aclose_loop()

    async def apages(self, given: Sources) -> AsyncGenerator[PageResult]:
        """As `pages`."""
        options = self._options
        cache = None if options.cache is None else PageCache(options.cache)
        run = _Run(self._llm, options, cache)
        try:
            async with aclosing(run.results(given)) as results:
                async for result in results:
                    yield result
        finally:
            if cache is not None:
                cache.close()


@atexit.register
def _close_all() -> None:
    """Close what a program keeps to its end: later, the threads that it waits for are gone."""
    for results in [*_open]:
        with suppress(ValueError):  # another thread waits for its next page
            results.close()


# In a forked child their threads are not there.
os.register_at_fork(after_in_child=_open.clear)


class _Taking:
    """Takes results out of an event loop, one by one, and closes them there.

    A loop that ends closes what is open too, but in any order, and complains. Ctrl-C comes at any
    point: while the next result is made, and between two.
    """

    def __init__(self, results: AsyncGenerator[PageResult]) -> None:
        self._results = results
        self._next: asyncio.Future[PageResult | None] | None = None

    async def next(self) -> PageResult | None:
        """The next result; None if there is no more."""
        self._next = asyncio.ensure_future(anext(self._results, None))
        return await self._next

    async def aclose(self) -> None:
        """Break off what is under way, and close the results."""
        # A portal that is interrupted cancels what runs in it again and again.
        with anyio.CancelScope(shield=True):
            if self._next is not None:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)
            await self._results.aclose()


class _Run:
    """One run over some sources, of one event loop."""

    def __init__(self, llm: ChatGLM4V, options: Options, cache: PageCache | None) -> None:
        self._llm = llm
        self._options = options
        self._cache = cache
        self._pace = Pace(options.max_concurrency)
        self._gate = anyio.CapacityLimiter(self._pace.limit)
        self._given_up: openai.APIStatusError | None = None
        self._puts: set[asyncio.Task[None]] = set()
        self._tells_confidence = True
        self._running: dict[bytes, asyncio.Task[PageResult]] = {}  # by key, if there is a cache
        # What a reading depends on beside the picture; the form of what is written here, too.
        self._depends_on = _depends_on(llm, options)

    async def results(self, given: Sources) -> AsyncGenerator[PageResult]:
        # Results that wait for those before them, or for being taken.
        window: asyncio.Queue[asyncio.Task[PageResult] | BaseException | None] = asyncio.Queue(
            2 * self._options.max_concurrency
        )
        tasks: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._produce(given, window)),
            asyncio.create_task(self._follow_load()),
        }
        try:
            while (task := await window.get()) is not None:
                if isinstance(task, BaseException):
                    raise task
                tasks.add(task)
                yield await task
                tasks.discard(task)
        finally:
            while not window.empty():
                task = window.get_nowait()
                if isinstance(task, asyncio.Task):
                    tasks.add(task)
            for running in tasks:
                running.cancel()
            # A portal that ends cancels again and again: it must not cut this short, or its event
            # loop would be closed while they still run.
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*self._puts, return_exceptions=True)

    async def _produce(
        self,
        given: Sources,
        window: asyncio.Queue[asyncio.Task[PageResult] | BaseException | None],
    ) -> None:
        """Put the reading of each page into the window as soon as there is room and a place."""
        try:
            media = await self._llm.aget_preparation()
            async with _in_thread(_all_pages(given, self._options.rendering, media)) as pages:
                async for page in pages:
                    await window.put(await self._begun(page))
        except Exception as error:
            await window.put(error)
        else:
            await window.put(None)

    async def _begun(self, page: SourcePage) -> asyncio.Task[PageResult]:
        """The reading of a page, begun; it waits for a place if the model must read."""
        if (known := self._by_itself(page)) is not None:
            return asyncio.create_task(_given(known))
        key = b"" if self._cache is None else key_of(page.picture, self._depends_on)
        if (known := await self._looked_up(page, key)) is not None:
            return asyncio.create_task(_given(known))
        if (first := self._running.get(key)) is not None:
            return asyncio.create_task(_as_read(first, page))
        holder = object()
        await self._gate.acquire_on_behalf_of(holder)
        task = asyncio.create_task(self._read(page, key, holder))
        if key:
            self._running[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: bytes, done: asyncio.Task[PageResult]) -> None:
        """Equal pages that come later are asked about, or in the cache, but for a bad text."""
        is_bad = not done.cancelled() and not done.exception() and done.result().reading.problems
        if not is_bad:
            del self._running[key]

    def _by_itself(self, page: SourcePage) -> PageResult | None:
        """What becomes of a page by what its document tells alone; None if that is not enough."""
        result = _Result(page)
        if page.error:
            return result(NOTHING, error=page.error)
        options = self._options
        if options.text_layer == "auto" and checks.is_good_layer(
            page.text, page.pictured, scripts=options.scripts
        ):
            return result(Reading(text=page.text, origin="text layer"))
        return None

    async def _looked_up(self, page: SourcePage, key: bytes) -> PageResult | None:
        """What becomes of a page that was read before, or is blank; None if the model must read."""
        result = _Result(page)
        if self._cache is not None:
            kept = await asyncio.to_thread(self._cache.get, key)
            if kept is not None:
                return result(kept, from_cache=True)
        try:
            is_blank = await stopping.in_thread(scan.is_blank, page.picture, page.name)
        except MediaError as error:
            return result(NOTHING, error=str(error))
        if is_blank:
            return result(NOTHING if page.damage else Reading(text="", origin="blank"))
        return None

    async def _read(self, page: SourcePage, key: bytes, holder: object) -> PageResult:
        """Let the model read a page, and give its place back."""
        result = _Result(page)
        try:
            reading, is_final = await self._attempted(page, holder)
        except (GLM4VError, openai.OpenAIError) as error:
            if _is_fatal(error):
                raise
            return result(NOTHING, error=" ".join(str(error).split()))
        finally:
            if holder in self._gate.statistics().borrowers:  # else it waits for a place again
                self._gate.release_on_behalf_of(holder)
        if is_final and not reading.problems and self._cache is not None:
            put = asyncio.create_task(asyncio.to_thread(self._cache.put, key, reading))
            self._puts.add(put)
            put.add_done_callback(self._puts.discard)
            await asyncio.shield(put)  # what was paid for is kept, though nobody waits any more
        return result(reading)

    async def _attempted(self, page: SourcePage, holder: object) -> tuple[Reading, bool]:
        """The reading of a page, and whether no attempt at it failed that might have changed it."""
        options = self._options
        steps = attempts.read(temperatures=options.temperatures, finds_turn=options.finds_turn)
        attempt = next(steps)
        reply: Reply | None = await self._asked(page, attempt, holder)
        while True:
            try:
                attempt = steps.send(reply)
            except StopIteration as over:
                return over.value, reply is not None
            try:
                reply = await self._asked(page, attempt, holder)
            except (GLM4VError, openai.OpenAIError) as error:
                if _is_fatal(error):
                    raise
                reply = None  # what was read before is of use all the same

    async def _asked(self, page: SourcePage, attempt: Attempt, holder: object) -> Reply:
        """The reply to an attempt, which is made again as often as the server refuses it."""
        while True:
            while (left := self._pace.resumes - time.monotonic()) > 0:
                await asyncio.sleep(left)
            if self._given_up is not None:
                raise self._given_up
            try:
                reply = await self._replied(page, attempt)
            except openai.APIStatusError as error:
                if not is_refusal(error.response):
                    raise
                self._slow_down(error)
            else:
                self._pace.answered()
                self._gate.total_tokens = self._pace.limit
                return reply
            # Those that were refused before it come first.
            self._gate.release_on_behalf_of(holder)
            await self._gate.acquire_on_behalf_of(holder)

    def _slow_down(self, refusal: openai.APIStatusError) -> None:
        """Ask for less at once, and later; raises the refusal if that is of no use."""
        if not is_spent(refusal):
            others = self._gate.borrowed_tokens - 1
            if self._pace.refused(time.monotonic(), others, retry_after(refusal.response)):
                self._gate.total_tokens = self._pace.limit
                return
            refusal.message += (
                f"; it answers nothing for more than {PATIENCE:.0f} s, so go on later: pages that "
                "were read are in the cache, if there is one"
            )
            refusal.args = (refusal.message,)
        self._given_up = refusal
        raise refusal

    async def _replied(self, page: SourcePage, attempt: Attempt) -> Reply:
        picture, mime_type = page.picture, page.mime_type
        if attempt.turn:
            picture = await stopping.in_thread(scan.turned, picture, attempt.turn, page.name)
            mime_type = "image/jpeg"
        encoded = base64.b64encode(picture).decode("ascii")
        question = HumanMessage(
            [
                {"type": "image", "base64": encoded, "mime_type": mime_type, "keep": False},
                {"type": "text", "text": self._options.asked},
            ]
        )
        sampling: dict[str, Any] = {"logprobs": True} if self._tells_confidence else {}
        if attempt.temperature is not None:
            sampling["temperature"] = attempt.temperature
        began = time.monotonic()
        try:
            with telling_refusals():
                text, message, fits = await self._answer(question, sampling)
        except openai.BadRequestError as error:
            if "logprobs" not in sampling or "logprobs" not in str(error):
                raise
            self._tells_confidence = False  # pages are not turned then
            return await self._replied(page, attempt)
        usage: Mapping[str, Any] = message.usage_metadata or {}
        reason = message.response_metadata.get("finish_reason")
        problems = checks.problems(text, reason, scripts=self._options.scripts)
        return Reply(
            text=text,
            problems=problems if fits else (*problems, "schema"),
            confidence=_confidence(message),
            model=str(message.response_metadata.get("model_name", self._llm.model_name)),
            input_tokens=usage.get("input_tokens", 0),
            output_tokens=usage.get("output_tokens", 0),
            seconds=time.monotonic() - began,
        )

    async def _answer(
        self, question: HumanMessage, sampling: Mapping[str, Any]
    ) -> tuple[str, AIMessage, bool]:
        """The answer, the message that it is from, and whether it fits the schema."""
        if self._options.schema is None:
            message = await self._llm.ainvoke([question], **sampling)
            return unfenced(message.text), message, True
        bound = self._llm.with_structured_output(self._options.schema, include_raw=True, **sampling)
        found = await bound.ainvoke([question])
        if found["parsing_error"] is not None:
            return found["raw"].text, found["raw"], False
        return _as_json(found["parsed"]), found["raw"], True

    async def _follow_load(self) -> None:
        """Let as many requests through as the server can answer, for as long as this runs."""
        pause = INTERVAL
        while True:
            load = await load_of(self._llm)
            if load is None:  # it is being started again, or of a kind that never tells
                pause = min(2 * pause, LONGEST_INTERVAL)
            else:
                pause = INTERVAL
                self._pace.told(load, self._gate.borrowed_tokens)
                self._gate.total_tokens = self._pace.limit
            await asyncio.sleep(pause)


@dataclass(frozen=True, slots=True)
class _Result:
    """Makes the result of a page, with what is wrong with the page and its text."""

    page: SourcePage

    def __call__(
        self, reading: Reading, *, error: str = "", from_cache: bool = False
    ) -> PageResult:
        # A text that is the document's own is whole without its pictures.
        damage = "" if reading.origin == "text layer" else self.page.damage
        told = (
            error,
            damage and _DAMAGED.format(damage),
            *(checks.EXPLAINED[problem] for problem in reading.problems),
        )
        return PageResult(
            document=self.page.document,
            number=self.page.number,
            reading=reading,
            error="; ".join(filter(None, told)),
            from_cache=from_cache,
        )


def _is_fatal(error: Exception) -> bool:
    """Whether no other page would fare better. A refusal that comes so far was one to the end."""
    return isinstance(error, _FATAL) or (
        isinstance(error, openai.APIStatusError) and (is_refusal(error.response) or is_spent(error))
    )


async def _given(result: PageResult) -> PageResult:
    return result


async def _as_read(first: asyncio.Task[PageResult], page: SourcePage) -> PageResult:
    """What becomes of a page that is equal to one which is being read."""
    result = await asyncio.shield(first)
    named = replace(result, document=page.document, number=page.number)
    if not result.error:
        return replace(named, from_cache=True)
    # What it has cost is told with the first.
    free = replace(result.reading, attempts=0, input_tokens=0, output_tokens=0, seconds=0.0)
    return replace(named, reading=free)


def _all_pages(given: Sources, rendering: Rendering, media: Preparation) -> Generator[SourcePage]:
    """The pages of all sources; a file that cannot be read is one page with an error."""
    for source in [*sources.find(given)]:  # that one leads to nothing is told before any is read
        with closing(sources.pages(source, rendering, media)) as pages:
            try:
                yield from pages
            except MediaError as error:
                facts = source.facts(total_pages=0)
                yield SourcePage(document=facts, number=None, error=str(error))


@asynccontextmanager
async def _in_thread(items: Iterator[Item]) -> AsyncGenerator[AsyncIterator[Item]]:
    """The items of an iterator that blocks, each made in a thread; what nobody takes stops."""
    end = object()
    scope = stopping.Scope()  # one for all, for an iterator may go on with what it began
    take = scope.bound(next)

    async def each() -> AsyncGenerator[Item]:
        try:
            while (item := await asyncio.to_thread(take, items, end)) is not end:
                yield cast("Item", item)
        finally:
            scope.stop()

    async with aclosing(each()) as made:
        yield made


def _depends_on(llm: ChatGLM4V, options: Options) -> dict[str, Any]:
    """What a reading depends on beside the picture, of JSON's types."""
    sent = llm._identifying_params  # what LangChain's own caches go by
    told = {**sent, **sent["extra_body"]}
    return {
        "model": {name: told[name] for name in told if name not in _WITHOUT_EFFECT},
        "prompt": options.asked,
        "schema": _plain(options.schema),
        "temperature": options.temperatures[0],
        "finds_turn": options.finds_turn,
        "scripts": [*options.scripts],
    }


def _plain(schema: Any) -> Any:
    """What a schema asks for, of JSON's types."""
    choices = choices_of(schema)
    if choices is not None:
        return [*choices]
    return None if schema is None else json_schema(schema)


def _as_json(value: Any) -> str:
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, ensure_ascii=False)


def _confidence(message: AIMessage) -> float | None:
    """Mean probability of the tokens of an answer, in the geometric sense."""
    told = message.response_metadata.get("logprobs") or {}
    tokens = [*(told.get("content") or ())]
    text = "".join(token["token"] for token in tokens)
    # The thinking is much less sure than what it leads to. Its end may be of several tokens.
    thinking = text.rfind(_END_OF_THINKING)
    begin = 0 if thinking < 0 else thinking + len(_END_OF_THINKING)
    ends = accumulate(len(token["token"]) for token in tokens)
    found = [
        token["logprob"]
        for token, end in zip(tokens, ends, strict=True)
        if end > begin and token["logprob"] is not None
    ]
    return math.exp(sum(found) / len(found)) if found else None
