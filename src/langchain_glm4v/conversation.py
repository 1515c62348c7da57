"""Fits a conversation on the wire to what its server takes. Nothing given is changed."""

from collections.abc import Mapping, Sequence

from langchain_glm4v.errors import TooManyImagesError
from langchain_glm4v.turns import Part, Turn, is_picture, joined, parts_of, text_part

LEFT_OUT: Mapping[str, str] = {
    kind: f"[an earlier {kind} is left out]" for kind in ("picture", "document", "video")
}
"""What was shown -> the text that stands in its place."""

_SPEAKERS = {"user": "User: ", "assistant": "Assistant: "}


def prune_images(wire: Sequence[Turn], keep: int) -> list[Turn]:
    """Leave out the oldest pictures, so that a long conversation stays under the server's limit.

    Pictures behind the last reply are what the question is about: they always stay.

    Args:
        wire: Messages of a request, as `to_wire` returns them.
        keep: Pictures that stay, at most.

    Returns:
        The messages; each picture left out is a text that says so.

    Raises:
        TooManyImagesError: If more than `keep` pictures follow the last reply.
    """
    ended = _without_prefix(wire)
    replied = max((at for at, turn in enumerate(ended) if turn["role"] == "assistant"), default=-1)
    asked = sum(map(count_images, ended[replied + 1 :]))
    if asked > keep:
        raise TooManyImagesError(
            f"the last turn has {asked} pictures, and {keep} can be sent: ask about fewer at once",
            setting="raise max_images and the server's limit (GLM4VServer(images_per_prompt=…), "
            "vllm serve --limit-mm-per-prompt)",
        )
    excess = sum(map(count_images, wire)) - keep
    pruned = []
    for turn in wire:
        dropped = min(max(excess, 0), count_images(turn))
        excess -= dropped
        pruned.append({**turn, "content": _pruned(turn["content"], dropped)} if dropped else turn)
    return pruned


def count_images(turn: Turn) -> int:
    """Number of pictures in a turn."""
    return sum(map(is_picture, parts_of(turn)))


def fold(wire: Sequence[Turn]) -> list[Turn]:
    """Put a conversation into one user turn.

    For servers that still have the template that comes with the model: vLLM hands it every message
    as a list of parts, and it prints the list of a system or assistant turn as Python, but writes
    the text and pictures of a user turn as they should be.

    Args:
        wire: Messages of a request, as `to_wire` returns them for a model without native tools.

    Returns:
        One user turn: the texts of the system, then the turns in their order, each with its
        speaker in front if there is more than one, pictures in their places. A last assistant turn,
        which is to be continued, stays the last turn.
    """
    ended = _without_prefix(wire)
    prefix = list(wire[len(ended) :])
    system = [turn for turn in ended if turn["role"] == "system"]
    spoken = [turn for turn in ended if turn["role"] != "system"]
    if not ended or (len(spoken) == 1 and not system and spoken[0]["role"] == "user"):
        return list(wire)
    named = len(spoken) > 1
    folded: list[Part] = []
    for turn in (*system, *spoken):
        speaker = _SPEAKERS.get(turn["role"], "") if named else ""
        gap = "\n\n" if folded else ""
        folded += [text_part(gap + speaker), *parts_of(turn)]
    return [{"role": "user", "content": _compact(folded)}, *prefix]


def _without_prefix(wire: Sequence[Turn]) -> Sequence[Turn]:
    """The turns before a reply that is begun and to be continued."""
    return wire[:-1] if wire and wire[-1]["role"] == "assistant" else wire


def _pruned(parts: Sequence[Part], dropped: int) -> list[Part]:
    pruned: list[Part] = []
    for part in parts:
        drop = dropped > 0 and is_picture(part)
        dropped -= drop
        pruned.append(text_part(LEFT_OUT["picture"]) if drop else part)
    return joined(pruned)


def _compact(parts: Sequence[Part]) -> str | list[Part]:
    """One string where all is text."""
    match joined(part for part in parts if part != text_part("")):
        case [{"type": "text", "text": str(text)}]:
            return text
        case compact:
            return compact
