"""What differs between the models of the family, as data.

Figures of GLM-4.1V-9B-Thinking: `config.json` (65,536 positions) and `tokenizer_config.json` of
the published model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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


@dataclass(frozen=True, slots=True)
class Profile:
    """What the client knows of a model without asking its server.

    Attributes:
        context_tokens: Prompt and output together, at most.
    """

    context_tokens: int


# Keyed by a part of the model's name, in lower case: served names differ in owner and suffix.
_PROFILES: Mapping[str, Profile] = MappingProxyType({"glm-4.1v": Profile(context_tokens=65_536)})


def find(model: str) -> Profile | None:
    """Find the profile of a model.

    Args:
        model: The name under which a server offers the model.

    Returns:
        The profile, or None for a name that tells nothing.
    """
    name = model.lower()
    return next((profile for part, profile in _PROFILES.items() if part in name), None)
