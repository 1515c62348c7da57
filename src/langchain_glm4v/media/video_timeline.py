"""When which frame of a film is shown: the packets of a file, read in a decoding process."""

import math
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from langchain_glm4v.errors import GLM4VError, MediaError, UnsupportedMediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

ACCEPTED = "MP4, MOV, M4V, MKV, WEBM, AVI, WMV, FLV, MPEG, TS, or an animated GIF"

MAX_PIXELS = 35_651_584
"""Pixels of one frame of a film, at most: the largest picture of H.265 (levels 6 to 6.2)."""

MAX_SECONDS = 6 * 3600
"""Seconds of a film, at most."""

# A file that ends so much before the time that it states was cut off: seconds, and a share of all.
_SLACK, _SLACK_SHARE = 0.5, 0.02
_MICROSECONDS = 1_000_000
_ROUNDING = Fraction(1, 2000)  # seconds: formats with coarser ticks than milliseconds are exact

# FFmpeg's names; all others, such as playlists that lead to other files, are not opened.
_CONTAINERS = "mov,matroska,avi,asf,flv,mpeg,mpegvideo,mpegts,gif,ogg"
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "fflags": "+genpts"}
# Their packets do not tell when a frame is shown.
_UNTIMED = frozenset({"avi", "mpegvideo"})
_REASON = 200  # characters of what another library says, in error messages
_ASSUMED_RATE = 2  # frames a second, of a film that does not tell

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
SIDEWAYS = frozenset({"ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE"})


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
        frames: How many there are.
    """

    width: int
    height: int
    duration: float
    fps: float
    codec: str
    container: str
    frames: int


Mode: TypeAlias = Literal["seek", "pts", "count"]
"""How frames are found: by seeking; by decoding all, and their times; or by their number."""


@dataclass(frozen=True, slots=True)
class Timeline:
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


@contextmanager
def told(origin: str) -> Iterator[None]:
    """Whatever damage makes FFmpeg, PyAV or the reckoning with its figures stumble, as one error.

    Args:
        origin: What error messages call the film.
    """
    try:
        yield
    except (GLM4VError, ImportError):
        raise
    except Exception as error:
        if type(error) is MemoryError:  # and not FFmpeg's, which has sizes in damaged files too
            raise
        # The text of FFmpeg's own errors has a path, which may be that of a temporary file.
        text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        reason = " ".join(text.split())[:_REASON]
        raise MediaError(
            f"{origin} is damaged, or of a kind that cannot be decoded ({reason}): write it anew "
            "with a video editor, as an MP4"
        ) from error


@contextmanager
def opened(path: str, origin: str, threads: int = 1) -> "Iterator[tuple[InputContainer, Any]]":
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


def read_timeline(path: str, origin: str) -> Timeline:
    """Read all packets, and decode the first frame alone.

    Raises:
        MediaError: If it is damaged.
    """
    with told(origin):
        return _timeline(path, origin)


def _timeline(path: str, origin: str) -> Timeline:
    packets: list[_Packet] = []
    first: VideoFrame | None = None
    covered = 0.0
    with opened(path, origin) as (container, stream):
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
        step = 1 / (stream.time_base * (stream.average_rate or _ASSUMED_RATE))
        mode, order, ticks = _times(packets, container.format.name, step)
        last = _duration_at(ticks[-1], packets)
        end = ticks[-1] + (last if last > 0 else math.ceil(step))
        length = float((end - ticks[0]) * stream.time_base)
        if length > MAX_SECONDS:
            raise MediaError(
                f"{origin} has {length:.0f} s, more than the {MAX_SECONDS} that a video may have: "
                "cut it into pieces"
            )
        size = (max(1, round(first.width * (stream.sample_aspect_ratio or 1))), first.height)
        turn = _turn(first)
        width, height = size[::-1] if turn in SIDEWAYS else size
        info = VideoInfo(
            width=width,
            height=height,
            duration=length,
            fps=len(ticks) / length,
            codec=stream.codec.canonical_name,
            container=container.format.name,
            frames=len(ticks),
        )
        return Timeline(
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
    import av  # noqa: PLC0415 - only decoding processes need it

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
    first_key = next((at for at, packet in enumerate(packets) if packet.is_key), None)
    known_from = first_key or 0
    pts = [packet.pts for packet in packets if packet.pts is not None]
    if container not in _UNTIMED and len(pts) == len(packets):
        order = array("q", pts)
        # What is shown before the first keyframe needs frames that are not there.
        shown_pts = {
            tick
            for tick, packet in zip(pts[known_from:], packets[known_from:], strict=True)
            if not packet.is_hidden and tick >= pts[known_from]
        }
        if shown_pts:
            is_one_each = len(set(pts)) == len(pts)
            can_seek = is_one_each and first_key is not None
            return "seek" if can_seek else "pts", order, array("q", sorted(shown_pts))
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
    from av.sidedata.sidedata import Type  # noqa: PLC0415 - only decoding processes need it

    data: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if data is None:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", data)
    return _TURNS.get(tuple((value > 0) - (value < 0) for value in (a, b, c, d)))
