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

import base64
import io
import math
import os
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, groupby
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import pool
from langchain_glm4v.media.budget import MAX_VIDEO_TOKENS, video_size, video_tokens
from langchain_glm4v.media.source import Source, local_file, name_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from PIL import Image

Form: TypeAlias = Literal["frames", "mp4"]

ACCEPTED = "MP4, MOV, M4V, MKV, WEBM, AVI, WMV, FLV, MPEG, TS, or an animated GIF"

FPS = 2.0
"""Frames a second, unless told otherwise: what the model's own processor takes (its `fps`)."""

MAX_FRAMES = 600
"""Frames of a clip, at most: 300 s (`max_duration` of the model's processor) at 2 a second.

Of what is longer, as many frames are taken at even distances.
"""

MAX_PIXELS = 35_651_584
"""Pixels of one frame of a film, at most: the largest picture of H.265 (levels 6 to 6.2)."""

MAX_SECONDS = 6 * 3600
"""Seconds of a film, at most."""

LEAST_STEP_TOKENS = 100
"""Tokens that two frames keep under a low `max_tokens`, unless they are smaller by nature.

It is what the model's own processor leaves them in its longest films: 30,000 for 300 steps. With
less room fewer frames are taken, for frames that show nothing are of no use.
"""

_KIND = "video"  # in error messages
_STEP = 2  # frames that share their tokens, and one second in the prompt
_MARKS = 2  # tokens around a step, and around the video
_JPEG_QUALITY = 90
_CRF = "20"  # quality of the small film; 23 is x264's default, lower is better
_THREADS = min(4, os.cpu_count() or 1)
# Pixels that all decoders hold together, about: each keeps some 16 frames, in 4 GiB of memory.
_PIXELS_AT_ONCE = 2 * MAX_PIXELS
# A file that ends so much before the time that it states was cut off: seconds, and a share of all.
_SLACK, _SLACK_SHARE = 0.5, 0.02
_MICROSECONDS = 1_000_000
_ROUNDING = Fraction(1, 2000)  # seconds: formats with coarser ticks than milliseconds are exact
_REORDERED = 32  # packets by which decoding runs ahead of showing, at most
_NOWHERE = -2
_HD = 1920 * 1080
# A rate of frames is a fraction with a denominator of this, at most, so that a film can have it.
_DENOMINATOR = 100_000

# FFmpeg's names; all others, such as playlists that lead to other files, are not opened.
_CONTAINERS = "mov,matroska,avi,asf,flv,mpeg,mpegts,gif,ogg"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "fflags": "+genpts"}
# Codecs whose every packet is one frame, which may be skipped if no other depends on it.
_SKIPPABLE = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "av1"})
# Its packets do not tell when a frame is shown.
_UNTIMED = "avi"

# Signs of a, b, c, d of a display matrix -> Pillow's name of what makes a frame upright.
_TURNS: Mapping[tuple[int, ...], str] = MappingProxyType(
    {
        (-1, 0, 0, 1): "FLIP_LEFT_RIGHT",
        (1, 0, 0, -1): "FLIP_TOP_BOTTOM",
        (-1, 0, 0, -1): "ROTATE_180",
        (0, -1, 1, 0): "ROTATE_90",
        (0, 1, -1, 0): "ROTATE_270",
        (0, 1, 1, 0): "TRANSPOSE",
        (0, -1, -1, 0): "TRANSVERSE",
    }
)
_SIDEWAYS = frozenset({"ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE"})


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a film is.

    Attributes:
        width: Pixels, upright and with square pixels: as a player shows it.
        height: Pixels.
        duration: Seconds from the begin of the first frame to the end of the last.
        fps: Frames a second, on average.
        codec: FFmpeg's name: "h264".
        container: FFmpeg's name: "mp4" is "mov,mp4,m4a,3gp,3g2,mj2".
        frames: How many there are; None if only a full decode would tell.
    """

    width: int
    height: int
    duration: float
    fps: float
    codec: str
    container: str
    frames: int | None


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
        return pool.call(_read_timeline, path, origin, subject=origin).info


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
        fps: Frames a second. Default: 2. The form "mp4" has 2 at most, because a server takes no
            more of a film. Where that makes more than `MAX_FRAMES`, as many are taken.
        num_frames: How many frames in all, instead of `fps`: 2 to 600.
        start: Second at which the part that is sent begins.
        end: Second before which it ends. Default: the end of the film.
        max_tokens: Tokens of the frames, at most, without marks; at least 100. The frames are made
            smaller, down to `LEAST_STEP_TOKENS` for two, and then fewer.
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
        timeline = pool.call(_read_timeline, path, origin, subject=origin)
        sample = _sampled(timeline, wish, origin)
        job = _job(path, origin, timeline, sample, wish)
        url = pool.call(_encoded, job, subject=origin, timeout=_patience(timeline.info))
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
                f"a video is asked for with fps={self.fps!r} and num_frames={self.num_frames!r}: "
                "give one of them"
            )
        end = math.inf if self.end is None else self.end
        accepted = {
            "fps": (self.fps is None or _is_number(self.fps, 0), "a number above 0"),
            "num_frames": (
                self.num_frames is None
                or (isinstance(self.num_frames, int) and _STEP <= self.num_frames <= MAX_FRAMES),
                f"a whole number from {_STEP} to {MAX_FRAMES}",
            ),
            "start": (_is_number(self.start, -1) and self.start >= 0, "a second, 0 or later"),
            "end": (
                self.end is None or _is_number(self.end, 0),
                "a second later than 0",
            ),
            "max_tokens": (
                isinstance(self.max_tokens, int) and self.max_tokens >= LEAST_STEP_TOKENS,
                f"a whole number, {LEAST_STEP_TOKENS} or above",
            ),
            "form": (self.form in ("frames", "mp4"), "'frames' or 'mp4'"),
        }
        for name, (is_accepted, what) in accepted.items():
            if not is_accepted:
                raise MediaError(f"{name} of a video is {getattr(self, name)!r}: it must be {what}")
        if self.start >= end:
            raise MediaError(
                f"a video is asked for from start={self.start} s to end={self.end} s: the end must "
                "be later than the start"
            )


def _is_number(value: Any, above: float) -> bool:
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value) and value > above


Mode: TypeAlias = Literal["seek", "pts", "count"]
"""How frames are found: by seeking; by decoding all, and their times; or by their number."""


@dataclass(frozen=True, slots=True)
class _Timeline:
    """When which frame of a film is shown.

    Attributes:
        info: What it is.
        time_base: Seconds of a tick.
        ticks: When each frame is shown, in ascending order.
        end: When the last frame ends.
        should_end: Seconds that the film should have, if it was cut off before; else None.
        order: When the frame of each packet is shown, packets as they are stored; frames that are
            never shown, only needed for others, are among them. In the mode "count" as `ticks`.
        keys: Which of the packets are keyframes.
        mode: How frames are found.
        turn: What makes frames upright: the name of a transposition of Pillow's.
    """

    info: VideoInfo
    time_base: Fraction
    ticks: "array[int]"
    end: int
    should_end: float | None
    order: "array[int]"
    keys: "array[int]"
    mode: Mode
    turn: str | None

    @property
    def length(self) -> Fraction:
        """Seconds."""
        return (self.end - self.ticks[0]) * self.time_base

    def tick(self, second: Fraction) -> int:
        """The last tick until a time; times of frames are rounded to ticks, so later by as much."""
        rounding = min(Fraction(1, 2), _ROUNDING / self.time_base)
        return self.ticks[0] + math.floor(second / self.time_base + rounding)


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


@dataclass(frozen=True, slots=True)
class _Job:
    """What a decoding process is to do: the frames at `pts`, in this size, as JPEG or as a film.

    Attributes:
        rate: Frames a second of the film that is made; None: JPEG.
        pixels: Of a frame as it is stored.
        first: Tick of the first frame.
    """

    path: str
    origin: str
    pts: tuple[int, ...]
    width: int
    height: int
    rate: Fraction | None
    pixels: int
    first: int
    time_base: Fraction
    order: "array[int]"
    keys: "array[int]"
    mode: Mode
    turn: str | None


# ---- in the caller's process: numbers, no byte of a film ----


@contextmanager
def _as_file(source: Source | bytes) -> Iterator[tuple[str, str]]:
    """Path of a file with the film, and what error messages call it."""
    with local_file(source, _KIND) as path:
        yield str(path), name_of(source, _KIND)


def _patience(info: VideoInfo) -> int:
    """Seconds that decoding may take: the film's own time, and as often more as it is HD."""
    return pool.TIMEOUT + math.ceil(info.duration * (1 + info.width * info.height / _HD))


def _sampled(timeline: _Timeline, wish: _Wish, origin: str) -> _Sample:
    """Choose frames and their size."""
    ticks, info = timeline.ticks, timeline.info
    start, end = _range(timeline, wish, origin)
    smallest = min(video_tokens(_STEP, info.width, info.height), LEAST_STEP_TOKENS)
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


def _range(timeline: _Timeline, wish: _Wish, origin: str) -> tuple[Fraction, Fraction]:
    """Seconds at which the wanted part begins and ends, counted from the first frame."""
    length = timeline.length
    start = Fraction(wish.start).limit_denominator(1000)
    end = length if wish.end is None else Fraction(wish.end).limit_denominator(1000)
    if timeline.should_end is not None and (wish.end is None or end > length):
        there = math.floor(length * 10) / 10
        raise MediaError(
            f"{origin} ends after {float(length):.1f} of {timeline.should_end:.1f} s, for it was "
            f"cut off, or is damaged there: get the whole file, or pass end={there} to send what "
            "there is"
        )
    if start >= length:
        raise MediaError(
            f"{origin} has {float(length):.1f} s and is asked for from start={wish.start} s: "
            "start earlier"
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


def _job(path: str, origin: str, timeline: _Timeline, sample: _Sample, wish: _Wish) -> _Job:
    return _Job(
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


# ---- in a decoding process ----


@dataclass(frozen=True, slots=True)
class _Packet:
    """What is kept of a packet: its times in ticks, and flags."""

    pts: int | None
    dts: int | None
    duration: int
    is_key: bool
    is_hidden: bool

    @classmethod
    def of(cls, packet: Any) -> "_Packet":
        return cls(
            pts=packet.pts,
            dts=packet.dts,
            duration=packet.duration or 0,
            is_key=packet.is_keyframe,
            is_hidden=packet.is_discard,
        )


class _NoFrameError(Exception):
    """A packet is no frame of its own, or cannot be sought."""


@contextmanager
def _opened(path: str, origin: str, threads: int = 1) -> "Iterator[tuple[InputContainer, Any]]":
    """The container, and the film in it.

    Args:
        path: The file.
        origin: What error messages call it.
        threads: Threads of the decoder.
    """
    import av  # noqa: PLC0415 - heavy, and only decoding processes need it

    try:
        # As a URL, so that no path is taken for one of another protocol.
        container = av.open(f"file:{path}", options=_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise UnsupportedMediaError(
            f"{origin} is not a video, or a damaged one: accepted are {ACCEPTED}"
        ) from error
    with container:
        cover = av.stream.Disposition.attached_pic
        stream = next((s for s in container.streams.video if not s.disposition & cover), None)
        if stream is None:
            raise UnsupportedMediaError(f"{origin} has no video in it, only sound or other data")
        if stream.codec_context is None:
            raise UnsupportedMediaError(f"{origin} has a video of a kind that FFmpeg cannot decode")
        if stream.width * stream.height > MAX_PIXELS:
            raise MediaError(
                f"{origin} has {stream.width}x{stream.height} pixels, more than the {MAX_PIXELS} "
                "that a video may have: scale it down first"
            )
        stream.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "SLICE"
        yield container, stream


def _read_timeline(path: str, origin: str) -> _Timeline:
    """Read all packets, and decode the first frame alone."""
    packets: list[_Packet] = []
    first: VideoFrame | None = None
    covered = 0.0
    with _opened(path, origin) as (container, stream):
        for packet in container.demux():
            ours = packet.stream_index == stream.index
            if ours and first is None:
                first = _first_frame(packet)
            if packet.size and packet.pts is not None:
                ends = (packet.pts + (packet.duration or 0)) * packet.time_base
                covered = max(covered, float(ends))
            # FFmpeg says so of the part of a packet that is left where a file is cut off.
            if ours and packet.size and not packet.is_corrupt:
                packets.append(_Packet.of(packet))
        if first is None or not packets:
            raise MediaError(f"{origin} has no frame that can be decoded: it is damaged")
        stated = (container.duration or 0) / _MICROSECONDS
        missing = stated - (covered - (container.start_time or 0) / _MICROSECONDS)
        step = 1 / (stream.time_base * (stream.average_rate or Fraction(FPS)))
        mode, order, ticks = _times(packets, container.format.name, step)
        end = ticks[-1] + (_duration_at(ticks[-1], packets) or math.ceil(step))
        length = float((end - ticks[0]) * stream.time_base)
        if length > MAX_SECONDS:
            raise MediaError(
                f"{origin} has {length:.0f} s, more than the {MAX_SECONDS} that a video may have: "
                "cut it into pieces"
            )
        size = (round(first.width * (stream.sample_aspect_ratio or 1)), first.height)
        turn = _turn(first)
        width, height = size[::-1] if turn in _SIDEWAYS else size
        info = VideoInfo(
            width=width,
            height=height,
            duration=length,
            fps=len(ticks) / length,
            codec=stream.codec.canonical_name,
            container=container.format.name,
            frames=len(ticks),
        )
        return _Timeline(
            info=info,
            time_base=stream.time_base,
            ticks=ticks,
            end=end,
            should_end=stated if missing > max(_SLACK, _SLACK_SHARE * stated) else None,
            order=order,
            keys=array("q", (at for at, packet in enumerate(packets) if packet.is_key)),
            mode=mode,
            turn=turn,
        )


def _first_frame(packet: Any) -> "VideoFrame | None":
    import av  # noqa: PLC0415 - as above

    # What stands before the first keyframe, as in a recording, cannot be decoded.
    with suppress(av.error.FFmpegError):
        return next(iter(packet.decode()), None)
    return None


def _times(
    packets: Sequence[_Packet], container: str, step: Fraction
) -> "tuple[Mode, array[int], array[int]]":
    """How frames are found, the time of each packet's frame, and the times at which one is shown.

    Args:
        packets: As they are stored.
        container: FFmpeg's name of the format.
        step: Ticks between two frames, on average.
    """
    first_key = next((at for at, packet in enumerate(packets) if packet.is_key), 0)
    pts = [packet.pts for packet in packets if packet.pts is not None]
    if container != _UNTIMED and len(pts) == len(packets):
        order = array("q", pts)
        # What is shown before the first keyframe needs frames that are not there.
        shown_pts = {
            tick
            for tick, packet in zip(pts[first_key:], packets[first_key:], strict=True)
            if not packet.is_hidden and tick >= pts[first_key]
        }
        if shown_pts:
            is_one_each = len(set(pts)) == len(pts)
            return "seek" if is_one_each else "pts", order, array("q", sorted(shown_pts))
    dts = {packet.dts for packet in packets if packet.dts is not None}
    if len(dts) < len(packets):
        dts = {round(number * step) for number in range(len(packets))}
    ticks = array("q", sorted(dts))
    return "count", ticks, ticks


def _duration_at(tick: int, packets: Iterable[_Packet]) -> int:
    return next((packet.duration for packet in packets if packet.pts == tick), 0)


def _turn(frame: "VideoFrame") -> str | None:
    """What makes frames upright; of one frame alone, for a frame that was asked is kept for long.

    Its side data and the frame refer to each other, until Python looks for such circles.
    """
    from av.sidedata.sidedata import Type  # noqa: PLC0415 - as above

    data: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", data)
    return _TURNS.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))


def _encoded(job: _Job) -> str:
    """The frames as a `data:` URL."""
    try:
        kept = _sought(job) if job.mode == "seek" else _passed(job)
    except _NoFrameError:
        kept = _passed(replace(job, mode="pts"))
    sent = [kept[tick] for tick in job.pts]
    if job.rate is None:
        frames = ",".join(base64.b64encode(jpeg).decode("ascii") for jpeg in sent)
        return f"data:video/jpeg;base64,{frames}"
    return f"data:video/mp4;base64,{base64.b64encode(_film(sent, job)).decode('ascii')}"


def _sought(job: _Job) -> dict[int, Any]:
    """The frames, in threads with a part of the film each; PyAV lets go of Python's lock.

    Raises:
        _NoFrameError: If a packet is no frame of its own.
    """
    places = {tick: at for at, tick in enumerate(job.order)}
    stops = _stops(job, places)
    at_once = max(1, min(_THREADS, _PIXELS_AT_ONCE // job.pixels))
    shares = _shares(stops, min(at_once, len(stops)))
    with ThreadPoolExecutor(len(shares)) as threads:
        parts = threads.map(
            lambda share: _stopped(job, share, places, at_once // len(shares)), shares
        )
        return dict(chain.from_iterable(parts))


@dataclass(frozen=True, slots=True)
class _Stop:
    """Frames that are decoded from one keyframe.

    Attributes:
        key: Place of the packet of the keyframe.
        pts: Ticks of the frames, in ascending order.
        cost: Packets that are read for them.
    """

    key: int
    pts: tuple[int, ...]
    cost: int


def _stops(job: _Job, places: Mapping[int, int]) -> list[_Stop]:
    def key_of(tick: int) -> int:
        at = bisect_right(job.keys, places[tick]) - 1
        # Frames that are stored behind a keyframe and shown before it need the one before.
        while at > 0 and job.order[job.keys[at]] > tick:
            at -= 1
        return job.keys[at]

    wanted = sorted(set(job.pts))
    grouped = ((key, tuple(ticks)) for key, ticks in groupby(wanted, key=key_of))
    return [
        _Stop(key, ticks, max(places[tick] for tick in ticks) - key + 1) for key, ticks in grouped
    ]


def _shares(stops: Sequence[_Stop], count: int) -> list[list[_Stop]]:
    """Neighbouring stops together, so that each share costs about the same."""
    shares: list[list[_Stop]] = [[] for _ in range(count)]
    total = sum(stop.cost for stop in stops)
    before = 0
    for stop in stops:
        shares[count * (2 * before + stop.cost) // (2 * total)].append(stop)
        before += stop.cost
    return [share for share in shares if share]


def _stopped(
    job: _Job, stops: Sequence[_Stop], places: Mapping[int, int], threads: int
) -> list[tuple[int, Any]]:
    """Ticks and frames of a share."""
    keep = _keeper(job)
    kept: list[tuple[int, Any]] = []
    missing = {tick for stop in stops for tick in stop.pts}
    with _opened(job.path, job.origin, threads) as (container, stream):
        skippable = stream.codec.canonical_name in _SKIPPABLE
        packets: Iterator[Any] = container.demux(stream)
        last = -1  # place of the packet that was read last
        for stop in stops:
            if stop.key > last + 1:
                packets = _from_key(container, stream, job.order, places, stop.key)
            while not missing.isdisjoint(stop.pts):
                packet = next(packets, None)
                if packet is None:
                    raise _NoFrameError
                last = places.get(packet.pts, last)
                skips = skippable and packet.pts not in missing
                stream.codec_context.skip_frame = "NONREF" if skips else "DEFAULT"
                frames, is_broken = _decoded(packet)
                for frame in frames:
                    if frame.pts in missing:
                        missing.remove(frame.pts)
                        kept.append((frame.pts, keep(_sound(frame, job))))
                if is_broken:
                    if not missing.isdisjoint(stop.pts):
                        raise _damaged(job, min(missing.intersection(stop.pts)))
                    last = _NOWHERE
    return kept


def _from_key(
    container: Any, stream: Any, order: Sequence[int], places: Mapping[int, int], key: int
) -> Iterator[Any]:
    """The packets from that of a keyframe on.

    Raises:
        _NoFrameError: If the container cannot be sought so.
    """
    # Some containers look for the time at which a packet is decoded, which comes earlier than that
    # at which it is shown, and so find a keyframe too late.
    for target in (order[key], order[max(key - _REORDERED, 0)], order[0]):
        container.seek(target, stream=stream)
        packets = container.demux(stream)
        for packet in packets:
            place = places.get(packet.pts, -1)
            if place > key:
                break
            if place == key:
                return chain([packet], packets)
    raise _NoFrameError


def _passed(job: _Job) -> dict[int, Any]:
    """The frames, from a decode of the whole film up to the last of them."""
    keep = _keeper(job)
    kept: dict[int, Any] = {}
    waiting = deque(sorted(set(job.pts)))
    with _opened(job.path, job.origin, _THREADS) as (container, stream):
        ticks = iter(job.order)
        previous: VideoFrame | None = None
        for packet in container.demux(stream):
            frames, is_broken = _decoded(packet)
            for frame in frames:
                tick = next(ticks, None) if job.mode == "count" else frame.pts
                while tick is not None and waiting and waiting[0] < tick:
                    if previous is None:
                        raise _damaged(job, waiting[0])
                    # Shown until now is the frame before.
                    kept[waiting.popleft()] = keep(_sound(previous, job))
                previous = frame
            if is_broken and previous is not None and waiting:
                raise _damaged(job, waiting[0])
            if not waiting:
                break
        if previous is None:
            raise _damaged(job, waiting[0])
        for tick in waiting:
            kept[tick] = keep(_sound(previous, job))
    return kept


def _decoded(packet: Any) -> "tuple[list[VideoFrame], bool]":
    """Frames that come with a packet, and whether it is broken: then all that were held back."""
    import av  # noqa: PLC0415 - as above

    if not packet.is_corrupt:
        with suppress(av.error.FFmpegError):
            return packet.decode(), False
    with suppress(av.error.FFmpegError):
        return packet.stream.codec_context.decode(None), True
    return [], True


def _sound(frame: "VideoFrame", job: _Job) -> "VideoFrame":
    if frame.is_corrupt:
        raise _damaged(job, frame.pts)
    return frame


def _damaged(job: _Job, tick: int | None) -> MediaError:
    second = float(((tick or job.first) - job.first) * job.time_base)
    return MediaError(
        f"{job.origin} is damaged at {second:.1f} s: pass start= and end= to leave that part out, "
        "or give a file that is whole"
    )


def _keeper(job: _Job) -> "Callable[[VideoFrame], Any]":
    """What is kept of a frame: its JPEG, or itself for a film; upright, in the size to be sent."""
    import av  # noqa: PLC0415 - as above
    from PIL import Image  # noqa: PLC0415 - as above

    scaler = av.video.reformatter.VideoReformatter()
    upright = (job.width, job.height)
    width, height = upright[::-1] if job.turn in _SIDEWAYS else upright

    def keep(frame: "VideoFrame") -> Any:
        # In one step, as the model's processor has it; a thread has one core, not all.
        scaled = scaler.reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
        plane: Any = scaled.planes[0]
        picture = Image.frombuffer("RGB", (width, height), plane, "raw", "RGB", plane.line_size, 1)
        if job.turn is not None:
            picture = picture.transpose(Image.Transpose[job.turn])
        if job.rate is None:
            return _jpeg(picture)
        return av.VideoFrame.from_image(picture).reformat(format="yuv420p")

    return keep


def _jpeg(picture: "Image.Image") -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_JPEG_QUALITY)
    return data.getvalue()


def _film(frames: "Sequence[VideoFrame]", job: _Job) -> bytes:
    """A film of H.264 with a constant rate, in an MP4."""
    import av  # noqa: PLC0415 - as above

    assert job.rate is not None
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        # No frame waits for a later one, so that times begin at 0.
        options = {"preset": "veryfast", "crf": _CRF, "bf": "0"}
        stream = container.add_stream("libx264", job.rate, options=options)
        stream.width, stream.height, stream.pix_fmt = job.width, job.height, "yuv420p"
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / job.rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()
