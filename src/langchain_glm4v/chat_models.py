"""The chat model.

    messages -> messages.to_wire -> request -> vLLM -> raw text -> reasoning.Splitter -> AIMessage

Requests and replies travel through `BaseChatOpenAI`. What is ours: the clients (no variable or key
of OpenAI's is ever used), the messages of the request, vLLM's own fields, and the way from raw
text to reasoning and answer.
"""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, aclosing, closing
from types import TracebackType
from typing import Any, Self, cast

import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils import secret_from_env
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from langchain_glm4v import profiles
from langchain_glm4v._version import __version__
from langchain_glm4v.clients import Connection, LoopLocal, explained
from langchain_glm4v.content_blocks import PROVIDER
from langchain_glm4v.errors import MediaError, ServerUnreachableError
from langchain_glm4v.messages import to_wire
from langchain_glm4v.reasoning import Piece, Splitter, parse
from langchain_glm4v.server import registry
from langchain_glm4v.server.options import ServerOptions
from langchain_glm4v.server.registry import Lease

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
"""Where `vllm serve` listens unless told otherwise."""

# The tags of the output are special tokens, which vLLM leaves out by default.
_KEEP_TAGS = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
# Fields of a request that vLLM knows and OpenAI's client does not.
_VLLM_FIELDS = ("top_k", "repetition_penalty")
# Fields that a managed model gets from its server, under all their names.
_DECIDED_BY_SERVER = {"model_name", "base_url", "openai_api_base", "api_key", "openai_api_key"}
_REASONING = "reasoning_content"


class ChatGLM4V(BaseChatOpenAI):
    """GLM-4.1V-Thinking on a vLLM server, with reasoning and answer kept apart.

    Setup:
        Give the server's address and key, set `GLM4V_BASE_URL` and `GLM4V_API_KEY`, or let
        `ChatGLM4V.managed` start a server. Variables of OpenAI's (`OPENAI_API_KEY`,
        `OPENAI_BASE_URL` …) are never used or sent, and requests to this machine never take a
        proxy.

    Key init args:
        model: Name under which the server offers the model. Default:
            `"zai-org/GLM-4.1V-9B-Thinking"`.
        base_url: Address of the server, with `/v1`. Default: `$GLM4V_BASE_URL`, else
            `http://127.0.0.1:8000/v1`.
        api_key: Key of the server. Default: `$GLM4V_API_KEY`, else `"EMPTY"`, which vLLM without a
            key takes.
        temperature, top_p, top_k, repetition_penalty, max_tokens, stop, seed: Sampling. Default:
            the server's, which vLLM reads from the model's `generation_config.json`.
        timeout, max_retries: As for OpenAI's client.

    Invoke:
        ```python
        from langchain_core.messages import HumanMessage
        from langchain_glm4v import ChatGLM4V

        with ChatGLM4V.managed(model="tiny", temperature=0) as model:
            reply = model.invoke(
                [
                    HumanMessage(
                        [
                            {"type": "image", "path": "receipt.png"},
                            {"type": "text", "text": "What is the Total?"},
                        ]
                    )
                ]
            )
            reply.text  # the answer alone
            reply.additional_kwargs["reasoning_content"]  # the thinking
        ```

    Image input:
        `{"type": "image", …}` with `path`, `url` (`http(s)://`, `data:`, `file://` or a path) or
        `base64`, and OpenAI's `{"type": "image_url", …}` with the same kinds of URL. Local
        pictures travel in the request. `http(s)://` URLs stay for the server to fetch, which a
        managed server does not do.

    Output:
        `additional_kwargs["reasoning_content"]` and a `reasoning` block in `content_blocks` hold
        the thinking, `additional_kwargs["boxes"]` the text of each box of the answer, and
        `response_metadata` has `finish_reason`, vLLM's `stop_reason`, `model_name` and `id`. A
        message whose thinking was cut off by `max_tokens` has an empty text and the
        `finish_reason` `"length"`.

    Raises:
        MediaError: By every call, if a picture cannot be sent.
        ServerUnreachableError: By every call, if nothing answers at `base_url`, or after `close`.
        ServerTimeoutError: By every call, if the server took longer than `timeout`.
        openai.APIStatusError: By every call, if the server refuses the request.
    """

    model_name: str = Field(default=profiles.DEFAULT_MODEL, alias="model")
    """Name under which the server offers the model."""

    openai_api_base: str = Field(
        alias="base_url",
        default_factory=lambda: os.environ.get("GLM4V_BASE_URL") or DEFAULT_BASE_URL,
    )
    """Address of the server, with `/v1`."""

    openai_api_key: SecretStr = Field(
        alias="api_key", default_factory=secret_from_env("GLM4V_API_KEY", default="EMPTY")
    )
    """Key of the server."""

    top_k: int | None = None
    """How many of the likeliest tokens are drawn from; 0 or -1: all. None: the server's default."""

    repetition_penalty: float | None = None
    """Above 1, tokens that occurred already become less likely. None: the server's default."""

    stream_usage: bool | None = True
    """Whether a stream ends with the usage of tokens."""

    stream_chunk_timeout: float | None = Field(default=None, exclude=True)
    """Seconds between two chunks of an async stream, at most.

    None: no limit, because the server reads large pictures for long before the first chunk.
    """

    openai_proxy: str | None = None
    """Proxy for all requests. None: `HTTP_PROXY` and so on, except for servers on this machine."""

    use_responses_api: bool | None = False

    _lease: Lease | None = PrivateAttr(default=None)
    _closed: bool = PrivateAttr(default=False)

    @classmethod
    def managed(
        cls,
        model: str | os.PathLike[str] = "tiny",
        *,
        on_progress: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Self:
        """Give a model together with its server.

        Starts a vLLM server, or joins the one that this process runs already with the same options.
        `close` (or leaving a `with` block) lets go of it; the last to let go stops it.

        Args:
            model: `"tiny"` for the trained miniature, a repository such as
                `"zai-org/GLM-4.1V-9B-Thinking"`, or the path of a checkpoint.
            on_progress: Called with a short line whenever the start reaches a new stage.
            **options: Fields of this class, such as `temperature`; everything else is an option of
                `GLM4VServer`, such as `max_model_len`.

        Returns:
            A model that talks to the running server.

        Raises:
            ServerError: If the server cannot be started.
            TypeError: If an option is unknown, or one that the server decides, such as `base_url`.
        """
        names = {name for key, field in cls.model_fields.items() for name in (key, field.alias)}
        fields = {key: options.pop(key) for key in list(options) if key in names}
        if taken := sorted(_DECIDED_BY_SERVER & fields.keys()):
            raise TypeError(f"{', '.join(taken)} cannot be set: the managed server decides")
        lease = registry.acquire(ServerOptions(model=model, **options), on_progress)
        try:
            chat = cls(
                model=lease.server.served_model_name,
                base_url=lease.server.base_url,
                api_key=SecretStr(lease.server.api_key),
                **fields,
            )
        except BaseException:
            lease.release()
            raise
        chat._lease = lease
        return chat

    @model_validator(mode="after")
    def validate_environment(self) -> Self:
        """Build the HTTP clients. Replaces the parent's way, which reads variables of OpenAI's."""
        if self.n is not None and (self.n < 1 or (self.n > 1 and self.streaming)):
            raise ValueError(f"n is {self.n}: it must be at least 1, and 1 when streaming")
        connection = Connection(
            base_url=self.openai_api_base,
            api_key=self.openai_api_key.get_secret_value(),
            headers=self.default_headers,
            query=self.default_query,
            organization=self.openai_organization,
            timeout=self.request_timeout,
            max_retries=self.max_retries,
            proxy=self.openai_proxy,
        )
        if self.client is None:
            self.root_client = connection.client(self.http_client)
            self.client = self.root_client.chat.completions
        if self.async_client is None:
            self.root_async_client = LoopLocal(
                lambda: connection.async_client(self.http_async_client)
            )
            self.async_client = self.root_async_client.completions
        return self

    @model_validator(mode="after")
    def _set_glm4v_version(self) -> Self:
        self._add_version("langchain-glm4v", __version__)
        return self

    def close(self, *, drain: bool = True) -> None:
        """Close the connections and let go of the managed server, if there is one.

        May be called again. A copy of a managed model shares its server: the first of them that is
        closed lets go of it for all. A client passed in as `http_client` stays open: its owner
        closes it. Calls of a closed model fail. Connections of async calls are closed by `aclose`.

        Args:
            drain: Whether the server, if this was its last user, lets running requests finish.
        """
        self._closed = True
        if self.http_client is None and self.root_client is not None:
            self.root_client.close()
        if self._lease is not None:
            self._lease.release(drain=drain)

    async def aclose(self, *, drain: bool = True) -> None:
        """As `close`, for the connections of the running event loop's async calls too."""
        if self.http_async_client is None and self.root_async_client is not None:
            await self.root_async_client.close()
        # A server may take a while to stop.
        await asyncio.to_thread(self.close, drain=drain)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After Ctrl-C nobody waits for the answers that the server would finish.
        self.close(drain=kind is None or issubclass(kind, Exception))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose(drain=kind is None or issubclass(kind, Exception))

    @property
    def _llm_type(self) -> str:
        return "chat-glm4v"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, "base_url": self.openai_api_base}

    @property
    def _default_params(self) -> dict[str, Any]:
        own = {name: value for name in _VLLM_FIELDS if (value := getattr(self, name)) is not None}
        body = {**_KEEP_TAGS, **own, **(self.extra_body or {})}
        return {**super()._default_params, "extra_body": body}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return False: a running server and its key cannot be stored."""
        return False

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        profile = profiles.find(self.model_name)
        if profile is None:
            return None
        return ModelProfile(
            max_input_tokens=profile.context_tokens,
            text_inputs=True,
            image_inputs=True,
            image_url_inputs=True,
            text_outputs=True,
            reasoning_output=True,
            tool_calling=False,
            structured_output=False,
        )

    def _get_request_payload(
        self,
        input_: LanguageModelInput,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        defaults = self._default_params
        payload = {**defaults, **kwargs}
        if stop is not None:
            payload["stop"] = stop
        body = dict(defaults["extra_body"])
        body.update({name: payload.pop(name) for name in _VLLM_FIELDS if name in payload})
        # At the top level OpenAI's client would read the thinking as JSON and raise.
        if (response_format := payload.pop("response_format", None)) is not None:
            body["response_format"] = _response_format(response_format)
        body.update(kwargs.get("extra_body") or {})
        messages = to_wire(self._convert_input(input_).to_messages())
        if self._lease is not None:
            _refuse_remote_pictures(messages)
        return {**payload, "extra_body": body, "messages": messages}

    def _explained(self) -> AbstractContextManager[None]:
        """Around a request: errors say which server, and what to do."""
        if self._closed:
            message = f"this model of {self.openai_api_base} was closed; make a new one"
            raise ServerUnreachableError(message)
        if self._lease is None:
            remedy = (
                "set base_url or GLM4V_BASE_URL to where one listens, "
                "or start one with ChatGLM4V.managed"
            )
        else:
            remedy = (
                f"its log, {self._lease.server.log_path}, tells why it ended; "
                "close this model and start a new one with ChatGLM4V.managed"
            )
        return explained(self.openai_api_base, remedy)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._explained():
            return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._explained():
            return await super()._agenerate(messages, stop, run_manager, **kwargs)

    def _create_chat_result(
        self,
        response: dict[str, Any] | openai.BaseModel,
        generation_info: dict[str, Any] | None = None,
    ) -> ChatResult:
        if isinstance(response, openai.BaseModel):
            response = response.model_dump(warnings=False)
        result = super()._create_chat_result(response, generation_info)
        generations = [
            _split_generation(generation, choice)
            for generation, choice in zip(result.generations, response["choices"], strict=True)
        ]
        llm_output = {**(result.llm_output or {}), "model_provider": PROVIDER}
        return ChatResult(generations=generations, llm_output=llm_output)

    def _convert_chunk_to_generation_chunk(
        self,
        chunk: dict[str, Any],
        default_chunk_class: type,
        base_generation_info: dict[str, Any] | None,
    ) -> ChatGenerationChunk | None:
        """Convert one event of a stream; its text still holds the tags."""
        converted = super()._convert_chunk_to_generation_chunk(
            chunk, default_chunk_class, base_generation_info
        )
        if converted is None or not chunk.get("choices"):
            return converted
        choice = chunk["choices"][0]
        message = converted.message
        message.response_metadata["model_provider"] = PROVIDER
        if reasoning := _given_reasoning(choice["delta"]):
            message.additional_kwargs[_REASONING] = reasoning
        # Joining chunks joins their strings, so what belongs to the reply goes on one chunk alone.
        if choice.get("finish_reason"):
            ending = {"id": chunk.get("id"), "stop_reason": choice.get("stop_reason")}
            known = {key: value for key, value in ending.items() if value is not None}
            converted.generation_info = {**(converted.generation_info or {}), **known}
        return converted

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        # The parent gets no run manager: it would show callbacks the raw text with pieces of tags.
        events = cast("Generator[ChatGenerationChunk]", super()._stream(messages, stop, **kwargs))
        with self._explained(), closing(events):
            for chunk in _split_stream(events):
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        # As in `_stream`.
        events = cast(
            "AsyncGenerator[ChatGenerationChunk]", super()._astream(messages, stop, **kwargs)
        )
        with self._explained():
            async with aclosing(events):
                async for chunk in _asplit_stream(events):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk


def _split_generation(generation: ChatGeneration, choice: Mapping[str, Any]) -> ChatGeneration:
    """Take the raw text of a reply apart; `choice` is the reply as the server sent it."""
    given = _given_reasoning(choice["message"])
    ending = {
        "finish_reason": choice.get("finish_reason"),
        "stop_reason": choice.get("stop_reason"),
    }
    message = generation.message
    parsed = parse(str(message.text), **ending, eager=bool(given))
    message = message.model_copy(
        update={
            "content": parsed.answer,
            "additional_kwargs": {
                **message.additional_kwargs,
                **_extras(given + parsed.reasoning, parsed.boxes),
            },
            "response_metadata": {**message.response_metadata, "model_provider": PROVIDER},
        }
    )
    known = {key: value for key, value in ending.items() if value is not None}
    info = {**(generation.generation_info or {}), **known}
    return ChatGeneration(message=message, generation_info=info)


class _ChunkSplitter:
    """Takes the raw text in the chunks of one stream apart."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._begun = False
        self._ended = False

    def split(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        """Return the chunk with as much of the reasoning or answer as is certain by now."""
        message = chunk.message
        given = message.additional_kwargs.get(_REASONING, "")
        if given and not self._begun:
            self._splitter = Splitter(eager=True)  # this server splits by itself
        text = str(message.text)
        self._begun = self._begun or bool(given or text)
        pieces = self._splitter.feed(text)
        info = chunk.generation_info or {}
        boxes: tuple[str, ...] = ()
        if finish_reason := info.get("finish_reason"):
            pieces += self._flush(finish_reason, info.get("stop_reason"))
            boxes = self._splitter.boxes
        reasoning, answer = _joined(pieces)
        split = message.model_copy(
            update={
                "content": answer,
                "additional_kwargs": {
                    **message.additional_kwargs,
                    **_extras(given + reasoning, boxes),
                },
            }
        )
        return ChatGenerationChunk(message=split, generation_info=chunk.generation_info)

    def rest(self) -> Iterator[ChatGenerationChunk]:
        """What is still held back when a stream breaks off without a finish reason."""
        if self._ended:
            return
        reasoning, answer = _joined(self._flush(None, None))
        extras = _extras(reasoning, self._splitter.boxes)
        if answer or extras:
            message = AIMessageChunk(
                content=answer,
                additional_kwargs=extras,
                response_metadata={"model_provider": PROVIDER},
            )
            yield ChatGenerationChunk(message=message)

    def _flush(self, finish_reason: str | None, stop_reason: int | str | None) -> list[Piece]:
        self._ended = True
        return self._splitter.flush(finish_reason=finish_reason, stop_reason=stop_reason)


def _split_stream(chunks: Iterator[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    splitter = _ChunkSplitter()
    for chunk in chunks:
        yield splitter.split(chunk)
    yield from splitter.rest()


async def _asplit_stream(
    chunks: AsyncIterator[ChatGenerationChunk],
) -> AsyncIterator[ChatGenerationChunk]:
    splitter = _ChunkSplitter()
    async for chunk in chunks:
        yield splitter.split(chunk)
    for chunk in splitter.rest():
        yield chunk


def _joined(pieces: list[Piece]) -> tuple[str, str]:
    reasoning = "".join(text for kind, text in pieces if kind == "reasoning")
    return reasoning, "".join(text for kind, text in pieces if kind == "answer")


def _extras(reasoning: str, boxes: tuple[str, ...]) -> dict[str, Any]:
    """The entries of `additional_kwargs`; none for what the reply does not have."""
    entries = {_REASONING: reasoning, "boxes": list(boxes)}
    return {name: value for name, value in entries.items() if value}


def _given_reasoning(fields: Mapping[str, Any]) -> str:
    """The reasoning that the server split off itself; vLLM and hosts name the field differently."""
    return fields.get("reasoning") or fields.get("reasoning_content") or ""


def _refuse_remote_pictures(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise for a picture that the server would have to fetch; a managed one fetches nothing."""
    for message in messages:
        parts = message["content"] if isinstance(message["content"], list) else []
        for part in parts:
            url = part.get("image_url", {}).get("url", "")
            if url.lower().startswith(("http://", "https://")):
                raise MediaError(
                    f"a managed server fetches nothing from the network, so not {url[:200]!r}: "
                    "download the picture and give its path or base64"
                )


def _response_format(wanted: Mapping[str, Any] | type) -> dict[str, Any]:
    """The wire form of `response_format`, which may also be a class."""
    if isinstance(wanted, Mapping):
        return dict(wanted)
    schema = convert_to_json_schema(wanted)
    return {
        "type": "json_schema",
        "json_schema": {"name": wanted.__name__, "schema": schema},
    }
