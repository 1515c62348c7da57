"""The chat model.

    messages, options -> request.plan -> clients -> vLLM -> replies -> AIMessage
                          |     ^
                          v     |  what the server can do, and how long a conversation is
                         abilities

`BaseChatOpenAI` gives the settings and the binding of tools. What is ours: the clients (no variable
or key of OpenAI's is ever used), the requests, and the way from raw text to reasoning, answer and
tool calls.
"""

import asyncio
import os
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, aclosing, closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import openai
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils import secret_from_env
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import Field, PrivateAttr, SecretStr, model_validator

from langchain_glm4v import counting, output_parsers, profiles, structured
from langchain_glm4v._version import __version__
from langchain_glm4v.abilities import (
    Abilities,
    Answer,
    Question,
    Steps,
    arun,
    look_for_parser,
    look_up,
    run,
)
from langchain_glm4v.allowed import AllowedDirs, AllowedHosts
from langchain_glm4v.call_errors import ServerUnreachableError
from langchain_glm4v.calls import RunningStream, both, first, second
from langchain_glm4v.clients import (
    Connection,
    LoopLocal,
    aask,
    acomplete,
    ask,
    astream,
    complete,
    explained,
    stream,
)
from langchain_glm4v.content_blocks import PROVIDER
from langchain_glm4v.errors import (
    RequestError,
    UnsupportedByServerError,
)
from langchain_glm4v.media import stopping
from langchain_glm4v.preparation import Preparation
from langchain_glm4v.redaction import media_digest
from langchain_glm4v.replies import read_completion
from langchain_glm4v.request import Plan, count, preparation, read_options, without
from langchain_glm4v.request import Server as RequestServer
from langchain_glm4v.request import plan as plan_request
from langchain_glm4v.server.process import GLM4VServer
from langchain_glm4v.uploads import Uploads

Sent = TypeVar("Sent")

DEFAULT_BASE_URL = "http://127.0.0.1:8000/v1"
"""Where `vllm serve` listens unless told otherwise."""

# The tags of the output are special tokens, which vLLM leaves out by default.
_KEEP_TAGS = {"skip_special_tokens": False, "spaces_between_special_tokens": False}
# Fields of a request that OpenAI's client does not know.
_BODY_FIELDS = ("top_k", "repetition_penalty", "cache_salt", "request_id")
# Fields of this class that are `request.Options`.
_OPTION_FIELDS = (
    "sampling",
    "thinking",
    "thinking_budget",
    "repetition_guard",
    "max_images",
    "allow_hosts",
    "allowed_dirs",
)
# How often a request is made, at most, while its managed server dies and is started again. The
# server is started more often: it may be this request that kills it.
_ATTEMPTS = 3
# Fields that a managed model gets from its server, under all their names.
_DECIDED_BY_SERVER = {"model_name", "base_url", "openai_api_base", "api_key", "openai_api_key"}

# What servers can do, by address, key and model: found out at the first request.
_abilities: dict[tuple[str, str, str], Abilities] = {}
# The media that they have, likewise.
_uploads: dict[tuple[str, str, str], Uploads] = {}


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
        temperature, top_p, top_k: Sampling. Default: those of the preset `sampling`.
        sampling: `"default"` (0.8, 0.6, 2), `"deterministic"` or `"gui"`.
        thinking, thinking_budget, repetition_guard, max_images, allow_hosts, allowed_dirs: Also per
            call.
        repetition_penalty, max_tokens, stop, seed: Sampling. Default: the server's.
        timeout, max_retries: As for OpenAI's client.

    Invoke:
        ```python
        from langchain_glm4v import ChatGLM4V, question_about

        with ChatGLM4V.managed(model="tiny", temperature=0) as model:
            reply = model.invoke([question_about("What is the Total?", "receipt.png")])
            reply.text  # the answer alone
            reply.additional_kwargs["reasoning_content"]  # the thinking
        ```

    Image input:
        `{"type": "image", …}` with `path`, `url` (`http(s)://`, `data:`, `file://` or a path) or
        `base64`, and OpenAI's `{"type": "image_url", …}` with the same kinds of URL. Pictures
        travel in the request: those in the network are fetched here, from public addresses and
        those of `allow_hosts` alone. Services that fetch by themselves (`profiles.HOSTS`) get the
        URL instead. `question_about` writes such blocks.

    Video input:
        `{"type": "video", …}` with `path`, `url` or `base64`, and vLLM's
        `{"type": "video_url", …}`: one in a request, and no pictures beside it; in a conversation
        the later kind stays. Options beside them: `fps` (default 2), `num_frames`, `start` and
        `end` in seconds, `max_tokens` (default 30,000, and no more than half of the server's
        context). The model reads the second of each two frames, so ask it "at which second". See
        `media.video`.

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
    """How many of the likeliest tokens are drawn from; 0 or -1: all. None: the preset's."""

    repetition_penalty: float | None = None
    """Above 1, tokens that occurred already become less likely. None: the server's default."""

    sampling: Literal["default", "deterministic", "gui"] = "default"
    """Preset for what `temperature`, `top_p` and `top_k` leave open: see `profiles.SAMPLING`."""

    thinking: Literal["auto", "off"] = "auto"
    """"off": answer at once. Also per call."""

    thinking_budget: int | None = Field(default=None, ge=1)
    """Tokens of thinking, at most, after which the model must answer. Also per call."""

    repetition_guard: bool = True
    """Whether an output that repeats one pattern endlessly is cut, with the `finish_reason`
    `"repetition"`. Also per call."""

    max_images: int = Field(default=32, ge=1)
    """Pictures in a request, at most; those of the oldest turns are left out. Also per call."""

    allow_hosts: AllowedHosts = ()
    """Hosts that pictures and PDFs may be fetched from though their addresses are not public, such
    as a file server of the intranet: names, addresses or networks. Also per call."""

    allowed_dirs: AllowedDirs | None = None
    """Directories in or below which local files must lie, to be read. None: anywhere for human and
    system messages, nowhere for those of tools and models, whose words may be a stranger's. Also
    per call."""

    cache_salt: str | None = None
    """Keeps the prefix cache of vLLM apart from that of other salts, such as other tenants'."""

    stream_usage: bool | None = True
    """Whether a stream ends with the usage of tokens."""

    stream_chunk_timeout: float | None = Field(default=None, exclude=True)
    """Seconds between two chunks of an async stream, at most.

    None: no limit, because the server reads large pictures for long before the first chunk.
    """

    openai_proxy: str | None = None
    """Proxy for all requests. None: `HTTP_PROXY` and so on, except for servers on this machine."""

    use_responses_api: bool | None = False

    _managed_server: GLM4VServer | None = PrivateAttr(default=None)
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

        Starts a vLLM server, or joins one that this or another program of this user runs already
        with the same options, unless `share=False`. `close` (or leaving a `with` block) lets go of
        it; the last to let go stops it.

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
        server = GLM4VServer(model, on_progress=on_progress, **{"share": True, **options}).start()
        try:
            chat = cls(
                model=server.served_model_name,
                base_url=server.base_url,
                api_key=SecretStr(server.api_key),
                **fields,
            )
        except BaseException:
            server.stop()
            raise
        chat._managed_server = server
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
        if self.root_client is None or not connection.is_of(self.root_client):
            self.root_client = connection.client(self.http_client)
            self.client = self.root_client.chat.completions
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
        if self._managed_server is not None:
            self._managed_server.stop(drain=drain)

    async def aclose(self, *, drain: bool = True) -> None:
        """As `close`, for the connections of the running event loop's async calls too."""
        await self._aclose_loop()
        # A server may take a while to stop.
        await asyncio.to_thread(self.close, drain=drain)

    async def _aclose_loop(self) -> None:
        """Close the connections of the running event loop's calls, unless the user owns them."""
        if self.http_async_client is None and self.root_async_client is not None:
            await self.root_async_client.close()

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
        options = {name: getattr(self, name) for name in _OPTION_FIELDS}
        return {**super()._identifying_params, **options, "base_url": self.openai_api_base}

    @property
    def _default_params(self) -> dict[str, Any]:
        fields = {name: getattr(self, name, None) for name in _BODY_FIELDS}
        own = {name: value for name, value in fields.items() if value is not None}
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
            max_output_tokens=profile.output_tokens,
            text_inputs=True,
            image_inputs=True,
            image_url_inputs=True,
            text_outputs=True,
            reasoning_output=True,
            pdf_inputs=True,
            image_tool_message=True,
            pdf_tool_message=True,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            structured_output=True,
            video_inputs=True,
            audio_inputs=False,
        )

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Bind the answer to a form; the model still thinks first.

        Args:
            schema: A pydantic class, a TypedDict, a JSON schema or a tool as dict, or an enum or
                `Literal` of texts. Instances come back for classes and enums, else plain values.
            method: "json_schema": the schema stands in the prompt and binds the answer by a
                grammar. "json_mode": any JSON object; the prompt must say which.
                "function_calling": a tool call with the schema as arguments.
            include_raw: Whether to give a dict with `raw` (the message), `parsed` and
                `parsing_error`, which never raises for a bad answer, instead of the value alone.
            strict: As for `bind_tools`.
            **kwargs: Bound to the call, such as `thinking_budget`.

        Raises:
            RequestError: The method is none of these, or needs a schema.
            OutputParserException: By the calls of the result, for an answer that was cut off or
                does not fit, unless `include_raw`.
        """
        choices = structured.choices_of(schema)
        if choices is not None:
            return self._with_choices(choices, include_raw=include_raw, **kwargs)
        if method not in ("json_schema", "json_mode", "function_calling"):
            raise RequestError(
                f"method is {method!r}: accepted are 'json_schema', 'json_mode' and "
                "'function_calling'"
            )
        if schema is None and method != "json_mode":
            raise RequestError(f"{method} needs a schema: a class, a TypedDict or a dict")
        told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        kwargs["ls_structured_output_format"] = told
        if method == "function_calling":
            model = self.bind_tools(
                [schema],
                tool_choice=convert_to_openai_tool(schema)["function"]["name"],
                parallel_tool_calls=False,
                strict=strict,
                **kwargs,
            )
            parser: output_parsers.AnswerParser = output_parsers.CallParser(schema=schema)
        else:
            model = self.bind(response_format=structured.response_format(schema, method), **kwargs)
            parser = output_parsers.JsonAnswerOutputParser(schema=schema)
        return structured.chain(model, parser, include_raw=include_raw)

    def with_choices(
        self, choices: Sequence[str], *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Bind the answer to one of several texts, word for word; the model still thinks first.

        Args:
            choices: Two texts or more.
            include_raw: As for `with_structured_output`.
            **kwargs: Bound to the call.

        Raises:
            RequestError: There are fewer than two choices, or two alike.
        """
        named = structured.choices_from(choices)
        return self._with_choices(named, include_raw=include_raw, **kwargs)

    def _with_choices(
        self, choices: dict[str, Any], *, include_raw: bool, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        parser = output_parsers.ChoiceParser(choices=choices)
        model = self.bind(choices=list(choices), **kwargs)
        return structured.chain(model, parser, include_raw=include_raw)

    def with_boxes(
        self, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Bind the answer to boxes, for "Where is …?"; the model still thinks first.

        Args:
            include_raw: As for `with_structured_output`.
            **kwargs: Bound to the call.

        Returns:
            Gives a list of `Box`, in thousandths of the picture's sides.
        """
        model = self.bind(boxes=True, **kwargs)
        return structured.chain(model, output_parsers.BoxOutputParser(), include_raw=include_raw)

    def get_num_tokens(self, text: str) -> int:
        """Tokens of a text, as the server counts them."""
        return len(self.get_token_ids(text))

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, as the server has them.

        Raises:
            UnsupportedByServerError: The server does not tell them.
        """
        question = Question(
            "/tokenize", {"model": self.model_name, "prompt": text, "add_special_tokens": False}
        )
        with self._explained():
            reply = self._ask(question)
        if not reply or "tokens" not in reply:
            raise UnsupportedByServerError(
                f"the server at {self.openai_api_base} has no /tokenize, as vLLM has: "
                "it cannot tell tokens"
            )
        return list(reply["tokens"])

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None, **kwargs: Any
    ) -> int:
        """Tokens of a conversation as it would be sent, pictures and all; nothing is uploaded.

        Args:
            messages: The conversation.
            tools: Tools offered with it.
            **kwargs: Further fields of the call, such as `response_format`.

        Returns:
            The server's own count. From a server that does not count, an estimate that is never
            too low, with a warning.
        """
        fields = {**kwargs, **({"tools": list(tools)} if tools else {})}
        with self._explained():
            return run(self._counted(list(messages), fields), self._ask)

    def get_preparation(self) -> Preparation:
        """How media are made ready for this model's server; asks it once what it takes.

        Raises:
            ServerUnreachableError: Nothing answers at `base_url`.
        """
        with self._explained():
            return run(self._preparation(), self._ask)

    async def aget_preparation(self) -> Preparation:
        """As `get_preparation`."""
        with self._explained():
            return await arun(self._preparation(), self._aask)

    def _preparation(self) -> Steps[Preparation]:
        server = yield from self._server(self.model_name)
        return preparation(
            server,
            allow_hosts=self.allow_hosts,
            allowed_dirs=self.allowed_dirs,
            max_images=self.max_images,
        )

    def _counted(self, messages: list[BaseMessage], fields: Mapping[str, Any]) -> Steps[int]:
        plan = yield from self._plan(messages, None, fields, fit=False)
        server = yield from self._server(plan.payload["model"])
        try:
            return (yield from count(plan.payload, server))
        except UnsupportedByServerError as error:
            warnings.warn(f"{error}; the count is an estimate, never too low", stacklevel=4)
            return counting.upper_bound(plan.payload["messages"])

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return super()._generate_with_cache(
            messages, stop, run_manager, **self._with_digest(messages, kwargs)
        )

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        fields = await stopping.in_thread(self._with_digest, messages, kwargs)
        return await super()._agenerate_with_cache(messages, stop, run_manager, **fields)

    def _with_digest(
        self, messages: list[BaseMessage], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The fields of a call, with a hash of the files it names if there is a cache.

        LangChain's key is made of the messages, in which a file is but its path, and of the fields.
        """
        if self.cache is False or (self.cache is None and get_llm_cache() is None):
            return dict(kwargs)
        digest = media_digest(messages)
        return {**kwargs, "media_digest": digest} if digest else dict(kwargs)

    def _get_request_payload(
        self,
        input_: LanguageModelInput,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The request as it would be for a server of which nothing is known."""
        steps = self._plan(self._convert_input(input_).to_messages(), stop, kwargs, Abilities())
        return run(steps, lambda _: None).payload

    def _plan(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
        abilities: Abilities | None = None,
        *,
        fit: bool = True,
    ) -> Steps[Plan]:
        defaults = self._default_params
        fields = {**defaults, **kwargs}
        fields.pop("media_digest", None)
        fields.pop("ls_structured_output_format", None)
        wishes = {name: fields.pop(name, getattr(self, name)) for name in _OPTION_FIELDS}
        options = read_options(fields, wishes)
        if stop is not None:
            fields["stop"] = stop
        if (most := fields.pop("max_completion_tokens", None)) is not None:
            fields["max_tokens"] = most  # OpenAI's newer name
        if not isinstance(fields.get("extra_body") or {}, dict):
            raise RequestError(f"extra_body is {fields['extra_body']!r}: give a dict")
        given = {**(self.extra_body or {}), **(kwargs.get("extra_body") or {})}
        body = {**defaults["extra_body"], **given}
        body |= {name: fields.pop(name) for name in _BODY_FIELDS if fields.get(name) is not None}
        server = yield from self._server(fields["model"], abilities, for_form=options.has_form)
        fields["extra_body"] = body
        return (yield from plan_request(messages, options, fields, server, fit=fit, always=given))

    def _server(
        self, model: str, abilities: Abilities | None = None, *, for_form: bool = False
    ) -> Steps[RequestServer]:
        host = profiles.find_host(self.openai_api_base)
        if abilities is None:
            key = self._abilities_key(model)
            abilities = _abilities.get(key) or (yield from look_up(model, host))
            if for_form and abilities.ids is not None and abilities.parses is None:
                abilities = yield from look_for_parser(model, abilities)
            if abilities.settled:
                _abilities[key] = abilities
        profile = profiles.find(model) or profiles.UNKNOWN
        return RequestServer(model, profile, host, abilities)

    def _abilities_key(self, model: str) -> tuple[str, str, str]:
        # A managed server's key is its own: another one may get the same port later.
        return self.openai_api_base, self.openai_api_key.get_secret_value(), model

    def _learn(self, refusal: openai.BadRequestError, refused: Plan) -> Abilities:
        """What to plan a refused call with instead; raises again if the refusal tells nothing."""
        key = self._abilities_key(refused.payload["model"])
        learnt = without(str(refusal), refused)
        if learnt is None:
            raise refusal
        noted = _abilities.get(key)
        is_new = noted is None or refused.grammar not in noted.refused
        if noted is not None:  # other calls may have learnt more meanwhile
            learnt = replace(
                learnt,
                budget=learnt.budget and noted.budget,
                frames=learnt.frames and noted.frames,
                medium_tokens=min(
                    filter(None, (learnt.medium_tokens, noted.medium_tokens)), default=None
                ),
                refused=learnt.refused | noted.refused,
            )
        if is_new and refused.grammar in learnt.refused:
            warnings.warn(
                f"the server refuses the grammar of this answer, which is asked for in words now: "
                f"{refusal}",
                stacklevel=2,
            )
        if noted is not None:
            _abilities[key] = learnt
        return learnt

    def _begun(
        self,
        send: Callable[[openai.OpenAI, Mapping[str, Any]], Sent],
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
    ) -> tuple[Plan, Sent]:
        """Plan a call and send its first request, again in another way if the server refuses it."""
        abilities: Abilities | None = None
        while True:
            plan = run(self._plan(messages, stop, kwargs, abilities), self._ask)
            try:
                return plan, self._sent(send, first(plan))
            except openai.BadRequestError as error:
                abilities = self._learn(error, plan)

    async def _abegun(
        self,
        send: Callable[[openai.AsyncOpenAI, Mapping[str, Any]], Awaitable[Sent]],
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: Mapping[str, Any],
    ) -> tuple[Plan, Sent]:
        """As `_begun`."""
        abilities: Abilities | None = None
        # Reading and decoding media takes long, and other tasks of the event loop need not wait.
        has_media = any(not isinstance(message.content, str) for message in messages)
        while True:
            steps = self._plan(messages, stop, kwargs, abilities)
            plan = await arun(steps, self._aask, in_thread=has_media)
            try:
                return plan, await self._asent(send, first(plan))
            except openai.BadRequestError as error:
                abilities = self._learn(error, plan)

    def _sent(
        self,
        send: Callable[[openai.OpenAI, Mapping[str, Any]], Sent],
        payload: Mapping[str, Any],
    ) -> Sent:
        """Send a request, without the media that the server has already."""
        uploads = self._uploads(payload)
        client = self.root_client

        def attempt() -> Sent:
            light = uploads.without_known(payload)
            try:
                return send(client, light)
            except openai.APIError as error:
                if light is payload or not _may_miss_media(error):
                    raise
                reply = send(client, payload)
                uploads.note_missed(payload, str(error))
                return reply

        reply = self._outliving(attempt, uploads.forget)
        uploads.note_sent(payload)
        return reply

    async def _asent(
        self,
        send: Callable[[openai.AsyncOpenAI, Mapping[str, Any]], Awaitable[Sent]],
        payload: Mapping[str, Any],
    ) -> Sent:
        """As `_sent`."""
        uploads = self._uploads(payload)
        client = self.root_async_client.current

        async def attempt() -> Sent:
            light = uploads.without_known(payload)
            try:
                return await send(client, light)
            except openai.APIError as error:
                if light is payload or not _may_miss_media(error):
                    raise
                reply = await send(client, payload)
                uploads.note_missed(payload, str(error))
                return reply

        reply = await self._aoutliving(attempt, uploads.forget)
        uploads.note_sent(payload)
        return reply

    def _outliving(
        self, attempt: Callable[[], Sent], forget: Callable[[], None] = lambda: None
    ) -> Sent:
        """Make a request, and again when the managed server died meanwhile and is up again.

        Args:
            attempt: Makes the request.
            forget: Called before it is made again, of a server that knows nothing of the last one.
        """
        for _ in range(_ATTEMPTS - 1):
            pid = self._server_pid
            try:
                return attempt()
            except openai.APIError as error:
                if not self._is_up_again(error, pid):
                    raise
            forget()
        return attempt()

    async def _aoutliving(
        self, attempt: Callable[[], Awaitable[Sent]], forget: Callable[[], None] = lambda: None
    ) -> Sent:
        """As `_outliving`."""
        for _ in range(_ATTEMPTS - 1):
            pid = self._server_pid
            try:
                return await attempt()
            except openai.APIError as error:
                if not await stopping.in_thread(self._is_up_again, error, pid):
                    raise
            forget()
        return await attempt()

    @property
    def _server_pid(self) -> int | None:
        return None if self._managed_server is None else self._managed_server.pid

    def _is_up_again(self, error: openai.APIError, pid: int | None) -> bool:
        """Whether a request failed because the managed server died, which is up again now.

        Waits while it is started again. Nothing of the reply was handed out yet, so the request can
        be made again.

        Args:
            error: What the request failed with.
            pid: Of the server when the request was made.

        Raises:
            ServerStartError: The server has failed for good.
            ServerUnreachableError: This model was closed meanwhile.
        """
        server = self._managed_server
        if server is None or not _may_have_died(error):
            return False
        self._check_open()
        if not server.has_lost(pid) and not isinstance(error, openai.APIConnectionError):
            return False
        server.wait_until_ready()
        return True

    @contextmanager
    def _forgetting(self, plan: Plan) -> Iterator[None]:
        """Around a reply on its way: an error may be for a medium that the server has not."""
        try:
            yield
        except openai.APIError:
            self._uploads(plan.payload).forget()
            raise

    def _uploads(self, payload: Mapping[str, Any]) -> Uploads:
        return _uploads.setdefault(self._abilities_key(payload["model"]), Uploads())

    def _ask(self, question: Question) -> Answer:
        return self._outliving(lambda: ask(self.root_client, question))

    async def _aask(self, question: Question) -> Answer:
        client = self.root_async_client.current
        return await self._aoutliving(lambda: aask(client, question))

    def _check_open(self) -> None:
        if self._closed or (self.http_client is None and self.root_client.is_closed()):
            message = f"this model of {self.openai_api_base} was closed; make a new one"
            raise ServerUnreachableError(message)

    def _explained(self) -> AbstractContextManager[None]:
        """Around a request: errors say which server, and what to do."""
        self._check_open()
        if self._managed_server is None:
            remedy = (
                "set base_url or GLM4V_BASE_URL to where one listens, "
                "or start one with ChatGLM4V.managed"
            )
        else:
            remedy = (
                f"its log, {self._managed_server.log_path}, tells why it ended; "
                "close this model and start a new one with ChatGLM4V.managed"
            )
        return explained(self.openai_api_base, remedy)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        with self._explained():
            plan, (reply, headers) = self._begun(complete, messages, stop, kwargs)
            if (following := second(plan, reply)) is not None:
                reply = both(reply, self._sent(complete, following)[0])
        return read_completion(_named(reply, kwargs), plan.reading, headers=self._shown(headers))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: Any,
    ) -> ChatResult:
        with self._explained():
            plan, (reply, headers) = await self._abegun(acomplete, messages, stop, kwargs)
            if (following := second(plan, reply)) is not None:
                reply = both(reply, (await self._asent(acomplete, following))[0])
        return read_completion(_named(reply, kwargs), plan.reading, headers=self._shown(headers))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        kwargs = self._streaming(kwargs)
        with self._explained():
            plan, events = self._begun(stream, messages, stop, kwargs)
            running = RunningStream(plan, self._shown(events.response.headers))
            with self._forgetting(plan), closing(self._chunks(running, events, kwargs)) as chunks:
                for chunk in chunks:
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _chunks(
        self, running: RunningStream, events: openai.Stream[Any], kwargs: Mapping[str, Any]
    ) -> Generator[ChatGenerationChunk]:
        while True:
            with events:
                for event in events:
                    yield from running.read(_named(event, kwargs))
                    if running.is_over:
                        break
            if (following := running.second()) is None:
                break
            events = self._sent(stream, following)
        yield from running.rest()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        kwargs = self._streaming(kwargs)
        with self._explained():
            plan, events = await self._abegun(astream, messages, stop, kwargs)
            running = RunningStream(plan, self._shown(events.response.headers))
            with self._forgetting(plan):
                async with aclosing(self._achunks(running, events, kwargs)) as chunks:
                    async for chunk in chunks:
                        if run_manager:
                            await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                        yield chunk

    async def _achunks(
        self, running: RunningStream, events: openai.AsyncStream[Any], kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk]:
        while True:
            async with events:
                async for event in events:
                    for chunk in running.read(_named(event, kwargs)):
                        yield chunk
                    if running.is_over:
                        break
            if (following := running.second()) is None:
                break
            events = await self._asent(astream, following)
        for chunk in running.rest():
            yield chunk

    def _streaming(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a call that streams."""
        fields = dict(kwargs)
        if (n := fields.get("n") or self.n or 1) > 1:
            raise RequestError(f"n is {n}, and a stream carries one reply: leave n out, or invoke")
        usage = self._should_stream_usage(fields.pop("stream_usage", None), **fields)
        asked = {"stream_options": {"include_usage": True}} if usage else {}
        return {**fields, "stream": True, **asked}

    def _shown(self, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        return headers if self.include_response_headers else None


def _may_have_died(error: openai.APIError) -> bool:
    """Whether a server may fail so that dies."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code >= 500
    return not isinstance(error, openai.APITimeoutError)


def _may_miss_media(error: openai.APIError) -> bool:
    """Whether a server may say so that has forgotten a medium, or does not go by names."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (400, 404, 422) or error.status_code >= 500
    return not isinstance(error, openai.APIConnectionError)


def _named(reply: dict[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The reply under the name that the call asked for; vLLM tells the first of its names."""
    known = isinstance(reply, dict) and "model" in kwargs
    return {**reply, "model": kwargs["model"]} if known else reply
