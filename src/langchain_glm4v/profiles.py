"""What differs between the models of the family, as data.

Figures of GLM-4.1V-9B-Thinking: `config.json` (65,536 positions) and `tokenizer_config.json` of
the published model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

DEFAULT_MODEL = "zai-org/GLM-4.1V-9B-Thinking"
"""The name under which `vllm serve` offers the model unless told otherwise."""

CONTROL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
)
"""Strings that the tokenizer turns into tokens with a meaning of their own, wherever they stand.

The box tokens are not among them: prompts may ask for boxes by name, and a box in a prompt opens
no turn.
"""


BOX, BOX_END = "<|begin_of_box|>", "<|end_of_box|>"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; every request states all three.

    Attributes:
        temperature: 0 draws the likeliest token always.
        top_p: Share of the probability that is drawn from.
        top_k: How many of the likeliest tokens are drawn from.
    """

    temperature: float
    top_p: float
    top_k: int


SAMPLING: Mapping[str, Sampling] = MappingProxyType(
    {
        "default": Sampling(0.8, 0.6, 2),
        "deterministic": Sampling(0.0, 1.0, 1),
        "gui": Sampling(0.001, 0.6, 2),
    }
)
"""Presets: "default" is the `generation_config.json` of the released model, "gui" has the
temperature of its makers' example of an agent on screens."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What the client knows of a model without asking its server.

    Attributes:
        context_tokens: Prompt and output together, at most.
        output_tokens: Output of one reply, at most.
        answer_tag: Whether the output holds `<answer>` behind the thinking. With the tags known,
            one grammar can leave the thinking free and bind the answer.
        native_tools: Whether the model has tool calls of its own, which its server understands.
        thinking_off: How thinking is turned off: "prefill" continues `<think></think><answer>`,
            "template" asks the chat template, None: it cannot be.
    """

    context_tokens: int
    output_tokens: int
    answer_tag: bool = True
    native_tools: bool = False
    thinking_off: Literal["prefill", "template"] | None = "prefill"


# Keyed by a part of the model's name, in lower case: served names differ in owner and suffix. The
# first that fits counts. Figures: `config.json` of each model (positions), the makers' documents
# (output, switches, tools).
_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "glm-4.1v": Profile(context_tokens=65_536, output_tokens=16_384),
        "glm-4.5v": Profile(
            context_tokens=65_536,
            output_tokens=16_384,
            answer_tag=False,
            native_tools=True,
            thinking_off="template",
        ),
        "glm-4.6v": Profile(
            context_tokens=131_072,
            output_tokens=32_768,
            answer_tag=False,
            native_tools=True,
            thinking_off="template",
        ),
        # Trained from GLM-4.1V for phones; it thinks always.
        "autoglm-phone": Profile(context_tokens=65_536, output_tokens=16_384, thinking_off=None),
    }
)
UNKNOWN = Profile(context_tokens=65_536, output_tokens=16_384)
"""For names that tell nothing, such as the folder of a checkpoint: those are GLM-4.1V's kin."""


def find(model: str) -> Profile | None:
    """Find the profile of a model.

    Args:
        model: The name under which a server offers the model.

    Returns:
        The profile, or None for a name that tells nothing.
    """
    name = model.lower()
    return next((profile for part, profile in _PROFILES.items() if part in name), None)


@dataclass(frozen=True, slots=True)
class Host:
    """A service that offers models of the family and is no vLLM of one's own.

    Attributes:
        accepts: Fields beyond OpenAI's that it takes; others are left out of requests.
        refuses: Fields of OpenAI's that it does not take.
        thinking_field: Whether `thinking: {"type": …}` turns the thinking of newer models off.
        splits: Whether it sends the reasoning in a field of its own, so that text without tags is
            the answer.
    """

    accepts: frozenset[str] = frozenset()
    refuses: frozenset[str] = frozenset()
    thinking_field: bool = False
    splits: bool = False


_BIGMODEL = Host(
    accepts=frozenset({"thinking", "request_id"}),
    refuses=frozenset({"seed", "n", "logprobs", "top_logprobs", "logit_bias", "stream_options"}),
    thinking_field=True,
    splits=True,
)
_SAMPLERS = frozenset({"top_k", "repetition_penalty"})
# Keyed by the name of the host.
HOSTS: Mapping[str, Host] = MappingProxyType(
    {
        "open.bigmodel.cn": _BIGMODEL,
        "api.z.ai": _BIGMODEL,
        "openrouter.ai": Host(accepts=_SAMPLERS),
        "api.siliconflow.cn": Host(accepts=_SAMPLERS),
        "api.siliconflow.com": Host(accepts=_SAMPLERS),
    }
)
"""Known services. Sources: their API references, and clients that use them."""


def find_host(base_url: str) -> Host | None:
    """Find the service behind an address; None for one that is not known, such as a vLLM."""
    return HOSTS.get(urlsplit(base_url).hostname or "")
