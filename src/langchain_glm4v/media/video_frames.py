"""Chosen frames of a film, upright and in the size to be sent, made in a decoding process.

The pixels are those of a full decode, also where most of the film is skipped.
"""

import base64
import io
import os
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media.video_timeline import MAX_PIXELS, SIDEWAYS, Mode, opened, told

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from PIL import Image

_JPEG_QUALITY = 90
_CRF = "20"  # quality of the small film; 23 is x264's default, lower is better
_THREADS = min(4, os.cpu_count() or 1)
# Pixels that all decoders hold together, about: each keeps some 16 frames, in 4 GiB of memory.
_PIXELS_AT_ONCE = 2 * MAX_PIXELS
_REORDERED = 32  # packets by which decoding runs ahead of showing, at most
_NOWHERE = -2
# Codecs whose every packet is one frame, which may be skipped if no other depends on it.
_SKIPPABLE = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "av1"})


@dataclass(frozen=True, slots=True)
class Job:
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


class _NoFrameError(Exception):
    """A packet is no frame of its own, or cannot be sought."""


def encoded(job: Job) -> str:
    """The frames as a `data:` URL.

    Raises:
        MediaError: If the file is damaged where they are.
    """
    with told(job.origin):
        return _encoded(job)


def _encoded(job: Job) -> str:
    try:
        kept = _sought(job) if job.mode == "seek" else _passed(job)
    except _NoFrameError:
        kept = _passed(replace(job, mode="pts"))
    sent = [kept[tick] for tick in job.pts]
    if job.rate is None:
        frames = ",".join(base64.b64encode(jpeg).decode("ascii") for jpeg in sent)
        return f"data:video/jpeg;base64,{frames}"
    return f"data:video/mp4;base64,{base64.b64encode(_film(sent, job)).decode('ascii')}"


def _sought(job: Job) -> dict[int, Any]:
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


def _stops(job: Job, places: Mapping[int, int]) -> list[_Stop]:
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
    job: Job, stops: Sequence[_Stop], places: Mapping[int, int], threads: int
) -> list[tuple[int, Any]]:
    """Ticks and frames of a share."""
    keep = _keeper(job)
    kept: list[tuple[int, Any]] = []
    missing = {tick for stop in stops for tick in stop.pts}
    with opened(job.path, job.origin, threads) as (container, stream):
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
    import av  # noqa: PLC0415 - only decoding processes need it

    for target in (order[key], order[max(key - _REORDERED, 0)], order[0]):
        try:
            container.seek(target, stream=stream)
        except av.error.FFmpegError as error:
            raise _NoFrameError from error
        packets = container.demux(stream)
        for packet in packets:
            place = places.get(packet.pts, -1)
            if place > key:
                break
            if place == key:
                return chain([packet], packets)
    raise _NoFrameError


def _passed(job: Job) -> dict[int, Any]:
    """The frames, from a decode of the whole film up to the last of them."""
    keep = _keeper(job)
    kept: dict[int, Any] = {}
    waiting = deque(sorted(set(job.pts)))
    with opened(job.path, job.origin, _THREADS) as (container, stream):
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
    import av  # noqa: PLC0415 - only decoding processes need it

    if not packet.is_corrupt:
        with suppress(av.error.FFmpegError):
            return packet.decode(), False
    with suppress(av.error.FFmpegError):
        return packet.stream.codec_context.decode(None), True
    return [], True


def _sound(frame: "VideoFrame", job: Job) -> "VideoFrame":
    if frame.is_corrupt:
        raise _damaged(job, frame.pts)
    return frame


def _damaged(job: Job, tick: int | None) -> MediaError:
    second = float(((tick or job.first) - job.first) * job.time_base)
    return MediaError(
        f"{job.origin} is damaged at {second:.1f} s: pass start= and end= to leave that part out, "
        "or give a file that is whole"
    )


def _keeper(job: Job) -> "Callable[[VideoFrame], Any]":
    """What is kept of a frame: its JPEG, or itself for a film; upright, in the size to be sent."""
    import av  # noqa: PLC0415 - only decoding processes need it
    from PIL import Image  # noqa: PLC0415 - only decoding processes need it

    scaler = av.video.reformatter.VideoReformatter()
    upright = (job.width, job.height)
    width, height = upright[::-1] if job.turn in SIDEWAYS else upright

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


def _film(frames: "Sequence[VideoFrame]", job: Job) -> bytes:
    """A film of H.264 with a constant rate, in an MP4."""
    import av  # noqa: PLC0415 - only decoding processes need it

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
