"""How messages of any client tell that their output was cut off."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Cut: TypeAlias = Literal["length", "repetition"]
"""What cut an output: its limit, or a guard against endless repetition."""

# Where clients put the reason. The first that is there counts: beside a `finish_reason`, a
# `stop_reason` of vLLM's is the text that ended the output.
_KEYS = (
    "finish_reason",  # OpenAI and the like, Google, Mistral, Cohere
    "stop_reason",  # Anthropic
    "stopReason",  # Bedrock
    "done_reason",  # Ollama
    "incomplete_details",  # OpenAI's Responses: in a dict, as `reason`
)
_CUTS: Mapping[str, Cut] = {
    "length": "length",
    "max_tokens": "length",  # in capitals too
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "repetition": "repetition",
}


def cut_of(metadata: Mapping[str, Any]) -> Cut | None:
    """Tell what cut an output off.

    Args:
        metadata: `response_metadata` of a message, or `generation_info` of a generation.

    Returns:
        None if nothing did, as far as is told.
    """
    told = next((metadata[key] for key in _KEYS if metadata.get(key)), None)
    reason = told.get("reason") if isinstance(told, Mapping) else told
    return _CUTS.get(str(reason).lower())
