"""How busy a server is, by what it tells Prometheus at `/metrics`.

Pure: text in, figures out. The names are those of vLLM 0.26 to 0.32.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Samples: TypeAlias = Mapping[str, list[tuple[Mapping[str, str], float]]]
"""Name of a metric -> labels and value of each of its samples."""

_LABELS = r'\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\}'
_SAMPLE = re.compile(rf"(?P<name>[a-zA-Z_:][\w:]*)(?:{_LABELS})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


def parse(text: str) -> Samples:
    """Read Prometheus' text format; what is no sample is passed over.

    Args:
        text: What `/metrics` answers.
    """
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None:
            continue
        try:
            value = float(sample["value"])
        except ValueError:
            continue
        pairs = _LABEL.findall(sample["labels"] or "")
        labels = {name: _ESCAPED.sub(_unescaped, written) for name, written in pairs}
        found.setdefault(sample["name"], []).append((labels, value))
    return found


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


@dataclass(frozen=True)
class Load:
    """What a server does, and has done since its start. None: it does not tell.

    Attributes:
        running: Requests that are being answered.
        waiting: Requests in the queue.
        kv_cache_usage: Share of the KV cache that is taken, 0 to 1; of several engines the fullest.
        requests: Requests that were answered.
        prompt_tokens: Tokens of prompts, those in the prefix cache included.
        generation_tokens: Tokens of answers.
        prefix_cache_hits: Share of the prompts' tokens that were in the prefix cache, 0 to 1.
        media_cache_hits: Share of the media that had been prepared already, 0 to 1.
    """

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None
    requests: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    prefix_cache_hits: float | None = None
    media_cache_hits: float | None = None


def load(samples: Samples) -> Load:
    """What the samples of a vLLM, of one engine or of several, come to."""
    usages = [value for _, value in samples.get("vllm:kv_cache_usage_perc", ())]
    return Load(
        running=_total(samples, "vllm:num_requests_running"),
        waiting=_total(samples, "vllm:num_requests_waiting"),
        kv_cache_usage=max(usages, default=None),
        requests=_total(samples, "vllm:request_success_total"),
        prompt_tokens=_total(samples, "vllm:prompt_tokens_total"),
        generation_tokens=_total(samples, "vllm:generation_tokens_total"),
        prefix_cache_hits=_share(samples, "vllm:prefix_cache"),
        media_cache_hits=_share(samples, "vllm:mm_cache"),
    )


def _total(samples: Samples, name: str) -> int | None:
    values = [value for _, value in samples.get(name, ())]
    return round(sum(values)) if values else None


def _share(samples: Samples, cache: str) -> float | None:
    """Hits of a cache by queries; None without queries."""
    queries, hits = (_total(samples, f"{cache}_{what}_total") for what in ("queries", "hits"))
    return hits / queries if queries and hits is not None else None
