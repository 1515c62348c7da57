"""Videos: exact frames of a film, in the size that the model reads, with the seconds they show.

    source -> timeline (when which frame is shown) -> sample (which frames, how large) -> clip

A frame for the time t is the one that is shown at t: the last that begins at or before it. Its
pixels are those of a full decode, also where most of the film is skipped.

The server must know at which second a frame is shown, for that is what the model reads between the
frames. There are two forms to tell it:

    frames   JPEG pictures, and beside them the milliseconds of each: always right, but the server
             must allow it (`vllm serve --trust-request-mm-kwargs`)
    mp4      a small film whose rate is that of the samples, so that the server takes each frame
             and finds its second; it begins at 0, wherever in the film it was cut out

A file that is cut off or damaged is refused where the wanted part is concerned, and the message
says at which second: an answer about half a film would look like one about the whole.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import pool
from langchain_glm4v.media.budget import MAX_VIDEO_TOKENS, video_size, video_tokens
from langchain_glm4v.media.source import Source, local_file, name_of
from langchain_glm4v.media.video_frames import Job, encoded
from langchain_glm4v.media.video_timeline import Timeline, VideoInfo, read_timeline, told

Form: TypeAlias = Literal["frames", "mp4"]

FPS = 2.0
"""Frames a second, unless told otherwise: what the model's own processor takes (its `fps`)."""

MAX_FRAMES = 600
"""Frames of a clip, at most: 300 s (`max_duration` of the model's processor) at 2 a second.

Of what is longer, as many frames are taken at even distances.
"""

LEAST_FPS = 0.0001
"""Frames a second, at least: two in the longest film that is accepted."""

LEAST_STEP_TOKENS = 100
"""Tokens that two frames keep under a low `max_tokens`, unless they are smaller by nature.

It is what the model's own processor leaves them in its longest films: 30,000 for 300 steps. With
less room fewer frames are taken, for frames that show nothing are of no use.
"""

_KIND = "video"  # in error messages
_STEP = 2  # frames that share their tokens, and one second in the prompt
_MARKS = 2  # tokens around a step, and around the video
_HD = 1920 * 1080
# A rate of frames is a fraction with a denominator of this, at most, so that a film can have it.
_DENOMINATOR = 100_000
_LONG = 1000  # bits of a number that error messages do not show
_SHOWN = 80  # characters of a value in them


@dataclass(frozen=True, slots=True)
class Clip:
    """A video as it goes into a request.

    Attributes:
        url: What is sent, a `data:` URL.
        media_io_kwargs: What the request must say beside it, under "video" in its
            `media_io_kwargs`; empty for the form "mp4".
        width: Pixels, a multiple of 28, so that the server does not scale it again.
        height: Pixels, a multiple of 28.
        seconds: When each frame is shown, in seconds of the film it was taken from. A last one may
            come twice, for the model takes frames by twos.
        fps: Frames taken in a second; less than asked for where there are limits.
        offset: Seconds to add to those that the model reads: above 0 for a part of a film in the
            form "mp4", whose time begins with itself. A prompt may tell it.
        stamps: Whole seconds that the model reads, one behind each two frames.
        tokens: Tokens of the frames.
    """

    url: str
    media_io_kwargs: Mapping[str, Any]
    width: int
    height: int
    seconds: tuple[float, ...]
    fps: float
    offset: float
    stamps: tuple[int, ...]
    tokens: int

    @property
    def frames(self) -> int:
        """Frames that are sent."""
        return len(self.seconds)

    @property
    def step_tokens(self) -> int:
        """Tokens of each two frames."""
        return self.tokens // len(self.stamps)

    @property
    def prompt_tokens(self) -> int:
        """Tokens in the prompt: frames, the marks around them, and a token for each digit.

        A tokenizer that has tokens for numbers of several digits makes it fewer.
        """
        digits = sum(len(str(stamp)) for stamp in self.stamps)
        return self.tokens + _MARKS * (len(self.stamps) + 1) + digits

    @property
    def bytes(self) -> int:
        """Bytes that are sent, in base64."""
        return len(self.url)


def probe(source: Source | bytes) -> VideoInfo:
    """Find out what a film is; its first frame alone is decoded.

    Args:
        source: A path, a `file://`, `data:` or `http(s)://` URL, or the bytes.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If it is no video.
        MediaError: If it is damaged, or beyond `MAX_PIXELS` or `MAX_SECONDS`.
    """
    with _as_file(source) as (path, origin):
        return pool.call(read_timeline, path, origin, subject=origin).info


def clip(
    source: Source | bytes,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    max_tokens: int = MAX_VIDEO_TOKENS,
    form: Form = "frames",
) -> Clip:
    """Take frames out of a film, at even distances.

    An even number of frames is sent, two at least: of a film with one frame, this one twice. Frames
    that stand still between two samples are sent once in the form "frames".

    Args:
        source: A path, a `file://`, `data:` or `http(s)://` URL, or the bytes.
        fps: Frames a second, 0.0001 or more. Default: 2. The form "mp4" has 2 at most, because a
            server takes no more of a film. Where that makes more than `MAX_FRAMES`, as many are
            taken.
        num_frames: How many frames in all, instead of `fps`: 2 to 600.
        start: Second at which the part that is sent begins.
        end: Second before which it ends, 0.001 after `start` or later. Default: the end of the
            film.
        max_tokens: Tokens of the frames, at most, without marks: 100 to 30,000. The frames are
            made smaller, down to `LEAST_STEP_TOKENS` for two, and then fewer.
        form: How the server is told the seconds: see the module.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If it is no video.
        MediaError: If the file is cut off or damaged in the wanted part, has not that many seconds,
            or is beyond `MAX_PIXELS` or `MAX_SECONDS`; if decoding crashes or takes too long; if an
            option has a value that is not accepted.
    """
    wish = _Wish(fps, num_frames, start, end, max_tokens, form)
    with _as_file(source) as (path, origin):
        timeline = pool.call(read_timeline, path, origin, subject=origin)
        with told(origin):
            sample = _sampled(timeline, wish, origin)
        job = _job(path, origin, timeline, sample, wish)
        url = pool.call(encoded, job, subject=origin, timeout=_patience(timeline.info))
    return _clip(url, sample, form)


@dataclass(frozen=True, slots=True)
class _Wish:
    """The options of `clip`, checked."""

    fps: float | None
    num_frames: int | None
    start: float
    end: float | None
    max_tokens: int
    form: Form

    def __post_init__(self) -> None:
        if self.fps is not None and self.num_frames is not None:
            raise MediaError(
                f"a video is asked for with fps={_shown(self.fps)} and "
                f"num_frames={_shown(self.num_frames)}: give one of them"
            )
        accepted = {
            "fps": (
                self.fps is None or _is_number(self.fps, LEAST_FPS),
                f"a number, {LEAST_FPS} or above",
            ),
            "num_frames": (
                self.num_frames is None
                or (isinstance(self.num_frames, int) and _STEP <= self.num_frames <= MAX_FRAMES),
                f"a whole number from {_STEP} to {MAX_FRAMES}",
            ),
            "start": (_is_number(self.start, 0), "a second, 0 or later"),
            "end": (self.end is None or _is_number(self.end, 0.001), "a second, 0.001 or later"),
            "max_tokens": (
                isinstance(self.max_tokens, int)
                and LEAST_STEP_TOKENS <= self.max_tokens <= MAX_VIDEO_TOKENS,
                f"a whole number from {LEAST_STEP_TOKENS} to {MAX_VIDEO_TOKENS}",
            ),
            "form": (self.form in ("frames", "mp4"), "'frames' or 'mp4'"),
        }
        for name, (is_accepted, what) in accepted.items():
            if not is_accepted:
                value = _shown(getattr(self, name))
                raise MediaError(f"{name} of a video is {value}: it must be {what}")
        if self.end is not None and _exact(self.end) <= _exact(self.start):
            raise MediaError(
                f"a video is asked for from start={_shown(self.start)} s to "
                f"end={_shown(self.end)} s: the end must be 0.001 s later than the start, or more"
            )


def _is_number(value: Any, least: float) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and least <= value < math.inf


def _exact(second: float) -> Fraction:
    """A second as a user means it: 0.1 is one tenth."""
    return Fraction(second).limit_denominator(1000)


def _shown(value: Any) -> str:
    """A value as error messages show it; Python refuses to write the longest numbers."""
    is_long = isinstance(value, int) and value.bit_length() > _LONG
    return f"a number of {value.bit_length()} bits" if is_long else repr(value)[:_SHOWN]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Which frames are sent.

    Attributes:
        pts: Tick at which each is shown, in ascending order; the last may come twice.
        seconds: The time for which each was chosen, counted from the first frame of the film.
        rate: Frames a second.
        start: Second of the film with which the clip begins.
        width: Pixels.
        height: Pixels.
    """

    pts: tuple[int, ...]
    seconds: tuple[Fraction, ...]
    rate: Fraction
    start: Fraction
    width: int
    height: int


@contextmanager
def _as_file(source: Source | bytes) -> Iterator[tuple[str, str]]:
    """Path of a file with the film, and what error messages call it."""
    with local_file(source, _KIND) as path:
        yield str(path), name_of(source, _KIND)


def _patience(info: VideoInfo) -> int:
    """Seconds that decoding may take: the film's own time, and as often more as it is HD."""
    return pool.TIMEOUT + math.ceil(info.duration * (1 + info.width * info.height / _HD))


def _sampled(timeline: Timeline, wish: _Wish, origin: str) -> _Sample:
    """Choose frames and their size."""
    ticks, info = timeline.ticks, timeline.info
    start, end = _range(timeline, wish, origin)
    try:
        smallest = min(video_tokens(_STEP, info.width, info.height), LEAST_STEP_TOKENS)
    except MediaError as error:
        raise MediaError(f"{origin} has {error}") from error
    most = min(wish.max_tokens // smallest * _STEP, MAX_FRAMES)
    rate, count = _rate(wish, end - start, most)
    last = max(bisect_left(ticks, timeline.tick(end)) - 1, 0)
    chosen = []
    for number in range(count):
        second = start + number / rate
        at = max(bisect_right(ticks, timeline.tick(second)) - 1, 0)
        chosen.append((ticks[min(at, last)], second))
    if wish.form == "frames":  # what stands still is sent once
        chosen = [next(same) for _, same in groupby(chosen, key=itemgetter(0))]
        if len(chosen) % _STEP:
            chosen.append(chosen[-1])
    pts, seconds = zip(*chosen, strict=True)
    width, height = video_size(len(pts), info.width, info.height, max_tokens=wish.max_tokens)
    return _Sample(pts, seconds, rate, start, width, height)


def _range(timeline: Timeline, wish: _Wish, origin: str) -> tuple[Fraction, Fraction]:
    """Seconds at which the wanted part begins and ends, counted from the first frame."""
    length = timeline.length
    start = _exact(wish.start)
    end = length if wish.end is None else _exact(wish.end)
    if timeline.should_end is not None and (wish.end is None or end > length):
        there = math.floor(length * 1000) / 1000
        raise MediaError(
            f"{origin} ends after {float(length):.1f} of {timeline.should_end:.1f} s, for it was "
            f"cut off, or is damaged there: get the whole file, or pass end={there} to send what "
            "there is"
        )
    if start >= length:
        raise MediaError(
            f"{origin} has {float(length):.1f} s and is asked for from "
            f"start={_shown(wish.start)} s: start earlier"
        )
    return start, min(end, length)


def _rate(wish: _Wish, span: Fraction, most: int) -> tuple[Fraction, int]:
    """Frames a second, and how many: an even number."""
    rate = wish.num_frames / span if wish.num_frames else Fraction(wish.fps or FPS)
    if wish.form == "mp4":
        rate = min(rate, Fraction(FPS))
    count = math.floor(span * rate)
    if count > most:
        rate, count = most / span, most
    rate, count = rate.limit_denominator(_DENOMINATOR), max(_STEP, count + count % _STEP)
    if wish.form == "mp4" and any(int(n / float(rate)) != n // rate for n in range(count)):
        # As a float, the server's time of a frame would be just below a full second.
        rate = Fraction(rate.numerator * 1000, rate.denominator * 1000 + 1)
    return rate, count


def _job(path: str, origin: str, timeline: Timeline, sample: _Sample, wish: _Wish) -> Job:
    return Job(
        path=path,
        origin=origin,
        pts=sample.pts,
        width=sample.width,
        height=sample.height,
        rate=sample.rate if wish.form == "mp4" else None,
        pixels=timeline.info.width * timeline.info.height,
        first=timeline.ticks[0],
        time_base=timeline.time_base,
        order=timeline.order,
        keys=timeline.keys,
        mode=timeline.mode,
        turn=timeline.turn,
    )


def _clip(url: str, sample: _Sample, form: Form) -> Clip:
    if form == "mp4":
        # As the server reckons: by the number of a frame, and the rate as a float.
        rate, kwargs = float(sample.rate), {}
        stamps = [int(number / rate) for number in range(0, len(sample.pts), _STEP)]
    else:
        milliseconds = [round(second * 1000) for second in sample.seconds]
        stamps = [time // 1000 for time in milliseconds[::_STEP]]
        kwargs = {
            "num_frames": -1,  # else the server drops all but the first 32
            "fps": 1000,
            "frames_indices": milliseconds,
            "total_num_frames": max(milliseconds[-1] + 1, len(milliseconds)),
            "duration": (milliseconds[-1] + 1) / 1000,
            "do_sample_frames": False,
        }
    return Clip(
        url=url,
        media_io_kwargs=MappingProxyType(kwargs),
        width=sample.width,
        height=sample.height,
        seconds=tuple(map(float, sample.seconds)),
        fps=float(sample.rate),
        offset=float(sample.start) if form == "mp4" else 0.0,
        stamps=tuple(stamps),
        tokens=video_tokens(len(sample.pts), sample.width, sample.height),
    )
