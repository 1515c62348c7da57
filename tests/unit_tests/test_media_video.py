"""Videos on their way into a request. Every frame of the films here shows its own number."""

import base64
import importlib
import io
import math
import os
import random
import struct
import wave
from array import array
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import video, video_frames
from langchain_glm4v.media.video import Clip, clip, probe
from langchain_glm4v.media.video_frames import encoded
from langchain_glm4v.media.video_timeline import Timeline, VideoInfo, read_timeline

# Parts of its type hints want NumPy's of another version.
av: Any = importlib.import_module("av")

SIZE = (160, 96)
BITS = 10  # two rows of five tiles


def picture(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    image = Image.new("RGB", size, (40, 40, 40))
    width, height = size[0] // 5, size[1] // 2
    for bit in range(BITS):
        if number >> bit & 1:
            left, top = bit % 5 * width, bit // 5 * height
            image.paste((220, 220, 220), (left, top, left + width, top + height))
    return image


def number_of(image: Image.Image) -> int:
    grey = image.convert("L")
    width, height = image.width / 5, image.height / 2
    bits = [
        int(grey.getpixel((int((bit % 5 + 0.5) * width), int((bit // 5 + 0.5) * height))) > 128)  # type: ignore[operator]
        for bit in range(BITS)
    ]
    return sum(bit << place for place, bit in enumerate(bits))


def film(
    path: Path,
    count: int = 60,
    *,
    rate: int | Fraction = 30,
    codec: str = "libx264",
    form: str | None = None,
    pixels: str = "yuv420p",
    times: list[int] | None = None,
    turn: tuple[float, bool, bool] | None = None,
    squeezed: int = 1,
    size: tuple[int, int] = SIZE,
    gop: int = 12,
    b_frames: int = 2,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a film; `times` are milliseconds."""
    with av.open(str(path), "w", format=form, options=muxer or {}) as container:
        stream = container.add_stream(codec, Fraction(rate), options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.gop_size = gop
        if codec in ("libx264", "libx265", "mpeg4", "mpeg2video", "mpeg1video"):
            stream.max_b_frames = b_frames
        if turn is not None:
            stream.set_display_rotation(*turn)
        if squeezed > 1:
            stream.codec_context.sample_aspect_ratio = Fraction(squeezed)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_image(picture(number, size))
            frame.time_base = Fraction(1, 1000) if times else 1 / Fraction(rate)
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pictures(sent: Clip) -> list[Image.Image]:
    head, _, data = sent.url.partition(",")
    if head == "data:video/jpeg;base64":
        return [Image.open(io.BytesIO(base64.b64decode(part))) for part in data.split(",")]
    assert head == "data:video/mp4;base64"
    with av.open(io.BytesIO(base64.b64decode(data))) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def numbers(sent: Clip) -> list[int]:
    return [number_of(image) for image in pictures(sent)]


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("films") / "film.mp4", 300)


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("film.mp4", {}),
    ("film.mov", {}),
    ("film.m4v", {}),
    ("film.mkv", {}),
    ("film.flv", {}),
    ("film.ts", {}),
    ("open.mp4", {"options": {"x264-params": "open-gop=1:b-pyramid=2"}, "b_frames": 3}),
    ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
    ("vp9.webm", {"codec": "libvpx-vp9"}),
    ("vp8.webm", {"codec": "libvpx"}),
    ("live.webm", {"codec": "libvpx-vp9", "muxer": {"live": "1"}}),
    ("mpeg4.avi", {"codec": "mpeg4"}),
    ("h264.avi", {}),
    ("film.wmv", {"codec": "wmv2"}),
    ("film.mpeg", {"codec": "mpeg2video", "form": "mpeg"}),
    ("mpeg1.mpg", {"codec": "mpeg1video", "form": "mpeg"}),
    ("mpeg2.ts", {"codec": "mpeg2video"}),
    ("bare.m1v", {"codec": "mpeg1video", "form": "mpeg1video"}),
    ("film.gif", {"codec": "gif", "pixels": "rgb8", "rate": 10}),
]


@pytest.mark.parametrize(("name", "kind"), FORMATS, ids=[name for name, _ in FORMATS])
def test_each_frame_is_the_one_shown_at_its_second(
    tmp_path: Path, name: str, kind: dict[str, Any]
) -> None:
    path = film(tmp_path / name, **kind)
    rate = kind.get("rate", 30)

    info = probe(path)
    assert (info.width, info.height, info.frames) == (*SIZE, 60)
    assert info.duration == pytest.approx(60 / rate, abs=0.002)
    assert info.fps == pytest.approx(rate, rel=0.002)

    sparse, every = clip(path, fps=7), clip(path, fps=rate)
    assert sparse.fps == 7
    assert sparse.seconds == tuple(number / 7 for number in range(math.floor(60 / rate * 7)))
    assert numbers(sparse) == [math.floor(second * rate + 1e-6) for second in sparse.seconds]
    assert numbers(every) == [*range(60)]


def test_pixels_are_those_of_a_full_decode(ten_seconds: Path) -> None:
    sent = clip(ten_seconds, fps=3)
    expected = []
    with av.open(str(ten_seconds)) as container:
        for frame in container.decode(video=0):
            if frame.pts * frame.time_base * 30 % 10 == 0:
                scaled = frame.reformat(sent.width, sent.height, "rgb24", interpolation="BICUBIC")
                data = io.BytesIO()
                scaled.to_image().save(data, "JPEG", quality=90)
                expected.append(base64.b64encode(data.getvalue()).decode())

    assert sent.url == "data:video/jpeg;base64," + ",".join(expected)


@pytest.mark.parametrize("threads", [1, 3])
def test_seeking_and_threads_change_nothing(
    ten_seconds: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(video_frames, "_THREADS", threads)
    timeline = read_timeline(str(ten_seconds), "film")
    wish = video._Wish(None, 17, 0.0, None, 30_000, "frames")
    job = video._job(
        str(ten_seconds), "film", timeline, video._sampled(timeline, wish, "film"), wish
    )

    assert job.mode == "seek"
    assert encoded(job) == encoded(replace(job, mode="pts"))


def test_a_packet_that_is_no_frame_leads_to_a_full_decode(ten_seconds: Path) -> None:
    timeline = read_timeline(str(ten_seconds), "film")
    wish = video._Wish(1.0, None, 0.0, None, 30_000, "frames")
    ticks = sorted(timeline.ticks)
    between = ticks[40] + 1
    with_ghost = array("q", [*timeline.order, between])
    job = video._job(
        str(ten_seconds), "film", timeline, video._sampled(timeline, wish, "film"), wish
    )
    exact = encoded(replace(job, pts=(ticks[0], ticks[40])))

    assert encoded(replace(job, pts=(ticks[0], between), order=with_ghost)) == exact


def test_a_variable_rate(tmp_path: Path) -> None:
    times = [number * number * 3 for number in range(60)]  # ever slower, 10.4 s
    path = film(tmp_path / "slower.mp4", times=times)

    sent = clip(path)

    shown = [max(n for n, time in enumerate(times) if time <= 500 * half) for half in range(22)]
    assert numbers(sent) == shown
    assert sent.stamps == tuple(range(11))


def test_what_stands_still_is_sent_once(tmp_path: Path) -> None:
    path = film(tmp_path / "slides.mp4", 4, times=[0, 3000, 6000, 9000])

    frames = clip(path, end=9.5)
    assert numbers(frames) == [0, 1, 2, 3]
    assert frames.seconds == (0, 3, 6, 9)
    assert frames.stamps == (0, 6)

    small_film = clip(path, end=9.5, form="mp4")  # its rate is constant
    assert numbers(small_film) == [min(second // 3, 3) for second in range(10) for _ in "12"][:20]


@pytest.mark.parametrize(
    ("turn", "upright"),
    [
        ((0, False, False), lambda image: image),
        ((90, False, False), lambda image: image.transpose(Image.Transpose.ROTATE_90)),
        ((-90, False, False), lambda image: image.transpose(Image.Transpose.ROTATE_270)),
        ((180, False, False), lambda image: image.transpose(Image.Transpose.ROTATE_180)),
        ((0, True, False), ImageOps.mirror),
        ((0, False, True), ImageOps.flip),
        ((90, True, False), lambda i: ImageOps.mirror(i.transpose(Image.Transpose.ROTATE_90))),
        ((-90, True, False), lambda i: ImageOps.mirror(i.transpose(Image.Transpose.ROTATE_270))),
    ],
)
@pytest.mark.parametrize("form", ["frames", "mp4"])
def test_films_of_phones_are_upright(
    tmp_path: Path,
    turn: tuple[float, bool, bool],
    upright: Callable[[Image.Image], Image.Image],
    form: video.Form,
) -> None:
    path = film(tmp_path / "phone.mp4", 30, turn=turn)
    expected = upright(picture(15))

    info = probe(path)
    assert (info.width, info.height) == expected.size
    shown = pictures(clip(path, form=form))[1]
    assert (shown.width > shown.height) == (expected.width > expected.height)
    for x, y in [(0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9), (0.5, 0.25), (0.5, 0.75)]:
        values = [
            image.convert("L").getpixel((int(x * image.width), int(y * image.height)))
            for image in (shown, expected)
        ]
        assert abs(values[0] - values[1]) < 40  # type: ignore[operator]


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = film(tmp_path / "wide.mp4", 30, squeezed=2)

    info, sent = probe(path), clip(path)

    assert (info.width, info.height) == (320, 96)
    assert (sent.width, sent.height) == (308, 84)
    assert numbers(sent) == [0, 15]


def test_pixels_that_are_hardly_there(tmp_path: Path) -> None:
    path = film(tmp_path / "narrow.mp4", 30, squeezed=2)
    wide, narrow = (b"pasp" + struct.pack(">II", *sides) for sides in [(2, 1), (1, 100_000)])
    path.write_bytes(path.read_bytes().replace(wide, narrow))

    assert probe(path).width == 1
    assert clip(path).frames == 2


def test_colours(tmp_path: Path) -> None:
    path = tmp_path / "colours.mp4"
    colours = [(200, 30, 40), (30, 160, 60), (40, 60, 190)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 1, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 112, 112, "yuv420p"
        for colour in colours:
            container.mux(
                stream.encode(av.VideoFrame.from_image(Image.new("RGB", (112, 112), colour)))
            )
        container.mux(stream.encode(None))

    for form in ("frames", "mp4"):
        shown = pictures(clip(path, fps=1, form=form))
        for image, colour in zip(shown, colours, strict=False):
            got = image.getpixel((56, 56))
            assert isinstance(got, tuple)
            assert max(abs(a - b) for a, b in zip(got, colour, strict=True)) < 10


@pytest.mark.parametrize(
    ("options", "shown", "stamps"),
    [
        ({}, range(0, 300, 15), range(10)),
        ({"fps": 1}, range(0, 300, 30), range(0, 10, 2)),
        ({"num_frames": 5}, [0, 60, 120, 180, 240, 299], [0, 4, 8]),
        ({"start": 3.25}, range(97, 293, 15), [3, 4, 5, 6, 7, 8, 9]),
        ({"start": 2, "end": 4}, [60, 75, 90, 105], [2, 3]),
        ({"start": 2, "end": 3.6}, [60, 75, 90, 105], [2, 3]),
        ({"end": 99}, range(0, 300, 15), range(10)),
        ({"start": 9.99}, [299, 299], [9]),
        ({"start": 5, "end": 5.001}, [150, 150], [5]),
        ({"fps": 5, "start": 2, "end": 4}, range(60, 120, 6), [2, 2, 2, 3, 3]),
        ({"fps": 0.3}, [0, 100], [0]),
        ({"fps": 0.0001}, [0, 299], [0]),
        ({"fps": 10**400}, range(300), [n // 30 for n in range(0, 300, 2)]),
        ({"end": 0.001, "num_frames": 600}, [0, 0], [0]),
        ({"end": 10**400}, range(0, 300, 15), range(10)),
    ],
)
def test_which_part_is_sent(
    ten_seconds: Path, options: dict[str, Any], shown: Any, stamps: Any
) -> None:
    sent = clip(ten_seconds, **options)

    assert numbers(sent) == [*shown]
    assert sent.stamps == (*stamps,)
    assert sent.frames == len(sent.seconds) == len([*shown])
    assert sent.offset == 0


def test_what_the_server_is_told_of_frames(ten_seconds: Path) -> None:
    sent = clip(ten_seconds, start=8, fps=1.5)

    assert dict(sent.media_io_kwargs) == {
        "num_frames": -1,
        "fps": 1000,
        "frames_indices": [8000, 8667, 9333, 10000],
        "total_num_frames": 10001,
        "duration": 10.001,
        "do_sample_frames": False,
    }
    assert sent.stamps == (8, 9)


@pytest.mark.parametrize(
    ("options", "rate", "shown", "stamps"),
    [
        ({}, 2, range(0, 300, 15), range(10)),
        ({"fps": 1}, 1, range(0, 300, 30), range(0, 10, 2)),
        ({"fps": 5}, 2, range(0, 300, 15), range(10)),
        ({"num_frames": 100}, 2, range(0, 300, 15), range(10)),
        ({"num_frames": 4}, 0.4, [0, 75, 150, 225], [0, 5]),
        ({"start": 3.25}, 2, range(97, 293, 15), range(7)),
        ({"end": 0.001, "num_frames": 600}, 2, [0, 0], [0]),
    ],
)
def test_a_small_film(
    ten_seconds: Path, options: dict[str, Any], rate: float, shown: Any, stamps: Any
) -> None:
    sent = clip(ten_seconds, form="mp4", **options)

    assert numbers(sent) == [*shown]
    assert (sent.fps, sent.offset) == (rate, options.get("start", 0))
    assert sent.stamps == (*stamps,)
    assert not sent.media_io_kwargs
    with av.open(io.BytesIO(base64.b64decode(sent.url.partition(",")[2]))) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.start_time) == (Fraction(rate).limit_denominator(99), 0)
        assert (stream.width, stream.height) == (sent.width, sent.height)


@pytest.mark.parametrize("fps", [0.07, 0.7, 1.1, 1.9, 0.3])
def test_no_second_is_lost_to_rounding(tmp_path: Path, fps: float) -> None:
    path = film(tmp_path / "long.mp4", 300, rate=1, gop=100)

    sent = clip(path, fps=fps, form="mp4")

    exact = Fraction(fps).limit_denominator(1000)
    assert sent.stamps == tuple(int(n / exact) for n in range(0, sent.frames, 2))


@pytest.mark.parametrize("form", ["frames", "mp4"])
def test_a_single_frame_is_sent_twice(tmp_path: Path, form: video.Form) -> None:
    path = film(tmp_path / "one.mp4", 1)

    sent = clip(path, form=form)

    assert numbers(sent) == [0, 0]
    assert sent.stamps == (0,)


def test_long_films_have_no_more_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "long.mkv", 450, rate=1, gop=50)

    sent = clip(path, end=400)

    # 600 samples at even distances, of which those that show the same are one
    assert sent.fps == 1.5
    assert numbers(sent) == [*range(400)]
    whole = clip(path, form="mp4")
    assert (whole.frames, round(whole.fps, 4)) == (600, 1.3333)


@pytest.mark.parametrize(
    ("limit", "frames", "size"),
    [
        (30_000, 120, (812, 448)),
        (4_000, 80, (364, 196)),
        (1_000, 20, (364, 196)),
        (100, 2, (364, 196)),
    ],
)
def test_small_budgets_take_size_first_and_then_frames(
    limit: int, frames: int, size: tuple[int, int]
) -> None:
    info = VideoInfo(1920, 1080, 60.0, 30.0, "h264", "mp4", 1800)
    ticks = array("q", range(1800))
    timeline = Timeline(info, Fraction(1, 30), ticks, 1800, None, ticks, ticks[:1], "seek", None)
    for form in ("frames", "mp4"):
        wish = video._Wish(None, None, 0.0, None, limit, form)
        sample = video._sampled(timeline, wish, "film")
        sent = video._clip("", sample, form)

        assert (sent.frames, (sent.width, sent.height)) == (frames, size)
        assert sent.tokens <= limit
        assert sent.fps == frames / 60
        assert sent.step_tokens == size[0] * size[1] // 784
        digits = sum(len(str(stamp)) for stamp in sent.stamps)
        assert sent.prompt_tokens == sent.tokens + frames + 2 + digits


def test_small_pictures_keep_their_frames(ten_seconds: Path) -> None:
    assert clip(ten_seconds, max_tokens=180).frames == 20  # of 18 tokens for two


def test_all_forms_of_a_source(ten_seconds: Path) -> None:
    data = ten_seconds.read_bytes()
    expected = clip(ten_seconds)

    assert clip(data) == clip(str(ten_seconds)) == clip(f"file://{ten_seconds}") == expected
    assert clip(f"data:video/mp4;base64,{base64.b64encode(data).decode()}") == expected
    assert probe(data) == probe(ten_seconds)


def test_paths_are_no_urls_of_ffmpeg(
    tmp_path: Path, ten_seconds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "concat:a|100% größer #1.mp4"
    Path(name).write_bytes(ten_seconds.read_bytes())

    assert probe(name).frames == 300


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.webm", "cut.flv"])
def test_a_file_that_was_cut_off(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec = "libvpx-vp9" if name == "cut.webm" else "libx264"
    muxer = {"movflags": "faststart"} if name == "cut.mp4" else None
    film(path, 120, codec=codec, muxer=muxer)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])

    with pytest.raises(MediaError) as error:
        clip(path)

    text = one_line(error)
    assert name in text
    assert "of 4." in text
    assert "s, for it was cut off" in text
    there = float(text.partition("pass end=")[2].split()[0])
    assert 0.3 < there < 4
    assert numbers(clip(path, end=there, num_frames=2))[0] == 0


def test_a_damaged_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "damaged.mp4", 120, b_frames=0)
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts * p.time_base == 2)
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)

    with pytest.raises(MediaError, match=r"damaged\.mp4' is damaged at 2\.0 s: pass start= and"):
        clip(path)
    assert numbers(clip(path, end=2)) == [0, 15, 30, 45]
    assert numbers(clip(path, start=2.5)) == [75, 90, 105, 119]


def test_a_recording_that_begins_between_keyframes(tmp_path: Path) -> None:
    path = film(tmp_path / "late.ts", 60, b_frames=0)
    with av.open(str(path)) as container:
        second = [p.pos for p in container.demux(video=0) if p.size][1]
    path.write_bytes(path.read_bytes()[second:])

    assert numbers(clip(path, fps=10))[:3] == [12, 15, 18]


def test_a_film_that_names_no_keyframe(tmp_path: Path) -> None:
    # Of this codec, FFmpeg does not look for keyframes itself.
    path = film(tmp_path / "film.flv", gop=99, codec="flv")
    with av.open(str(path)) as container:
        kind = next(container.demux(video=0)).pos + 11  # behind the header of its tag
    data = bytearray(path.read_bytes())
    assert data[kind] == 0x12
    data[kind] = 0x22
    path.write_bytes(data)

    timeline = read_timeline(str(path), "film")
    assert (len(timeline.keys), timeline.mode) == (0, "pts")
    assert numbers(clip(path)) == [0, 15, 30, 45]


def test_what_stumbles_is_told(ten_seconds: Path) -> None:
    timeline = read_timeline(str(ten_seconds), "film")
    wish = video._Wish(1.0, None, 0.0, None, 30_000, "frames")
    sample = video._sampled(timeline, wish, "film")
    job = video._job(str(ten_seconds), "film", timeline, sample, wish)

    with pytest.raises(MediaError, match=r"film is damaged, .* \(KeyError: 7\): write it anew"):
        encoded(replace(job, pts=(7, 7)))


FUZZED: list[tuple[str, dict[str, Any]]] = [
    ("film.mp4", {}),
    ("film.mkv", {}),
    ("film.ts", {}),
    ("film.flv", {}),
    ("film.mpeg", {"codec": "mpeg2video", "form": "mpeg"}),
    ("film.avi", {"codec": "mpeg4"}),
    ("film.gif", {"codec": "gif", "pixels": "rgb8"}),
    ("film.webm", {"codec": "libvpx"}),
]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A file with some of it changed, put in or left out."""
    changed, place = bytearray(data), chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            del changed[place:]
        case 1:
            changed[place:place] = chance.randbytes(chance.randrange(1, 40))
        case 2:
            del changed[place : place + chance.randrange(1, 300)]
        case _:
            for _ in range(chance.choice([1, 3, 20])):
                changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize(("name", "kind"), FUZZED, ids=[name for name, _ in FUZZED])
def test_what_damage_leads_to_is_told(tmp_path: Path, name: str, kind: dict[str, Any]) -> None:
    data = film(tmp_path / name, 24, size=(80, 48), **kind).read_bytes()
    chance = random.Random(name)
    raised = []
    for _ in range(20):
        try:
            clip(damaged(data, chance), start=chance.choice([0, 0.5]))
        except Exception as error:
            raised.append(error)

    # All of ours are `ValueError`s, and so are many that are not.
    assert {type(one).__module__ for one in raised} == {MediaError.__module__}
    for one in raised:
        assert "the video of" in str(one)
        assert "glm4v-" not in str(one)


def test_what_is_no_video(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", 8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=800)
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(UnsupportedMediaError, match=r"sound\.mkv' has no video in it"):
        probe(sound)
    with wave.open(str(tmp_path / "a.mp4"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    (tmp_path / "b.mp4").write_bytes(b"no film at all")
    (tmp_path / "c.mp4").write_bytes(b"")
    picture(1).save(tmp_path / "d.png")
    film(tmp_path / "e.mp4")
    (tmp_path / "e.mp4").write_bytes((tmp_path / "e.mp4").read_bytes()[:2000])  # no index
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.png", "e.mp4"):
        with pytest.raises(UnsupportedMediaError, match=f"{name}' is not a video, or a damaged"):
            clip(tmp_path / name)
    with pytest.raises(UnsupportedMediaError, match="the video of 9 bytes is not a video"):
        clip(b"also none")


def test_no_playlist_is_followed(tmp_path: Path, ten_seconds: Path) -> None:
    with av.open(str(ten_seconds)) as container:
        assert container.format.name.startswith("mov")
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{ten_seconds}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{ten_seconds}'\n",
    ):
        path = tmp_path / "list.mp4"
        path.write_text(text)
        with pytest.raises(UnsupportedMediaError, match="is not a video"):
            clip(path)


def test_where_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFoundError, match=r"no video at '.*no\.mp4'"):
        clip(tmp_path / "no.mp4")
    with pytest.raises(UnsupportedMediaError, match="is not a file: give the path of a video"):
        clip(tmp_path)
    with pytest.raises(UnsupportedMediaError, match="cannot read a video from 'ftp://host/a"):
        clip("ftp://host/a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnsupportedMediaError, match="is not a file"):
        probe(tmp_path / "pipe.mp4")


def test_bombs(tmp_path: Path) -> None:
    large = film(tmp_path / "large.mov", 1, codec="png", pixels="rgb24", size=(6000, 6000))
    with pytest.raises(MediaError, match=r"large\.mov' has 6000x6000 pixels, more than the 35651"):
        clip(large)
    long = film(tmp_path / "long.mp4", 3, times=[0, 15_000_000, 30_000_000])
    with pytest.raises(MediaError, match=r"has 45000 s, more than the 21600"):
        clip(long)
    thin = film(tmp_path / "thin.mkv", 2, size=(3600, 16))
    with pytest.raises(
        MediaError, match=r"thin\.mkv' has 3600x16 pixels: one side is more than 200"
    ):
        clip(thin)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, r"fps of a video is 0: it must be a number, 0\.0001 or above"),
        ({"fps": 1e-7}, "fps of a video is 1e-07"),
        ({"fps": math.inf}, "fps of a video is inf"),
        ({"fps": math.nan}, "fps of a video is nan"),
        ({"fps": True}, "fps of a video is True"),
        ({"num_frames": 1}, "num_frames of a video is 1: it must be a whole number from 2 to 600"),
        ({"num_frames": 601}, "num_frames of a video is 601"),
        ({"num_frames": 2.5}, r"num_frames of a video is 2\.5"),
        ({"fps": 1, "num_frames": 8}, "fps=1 and num_frames=8: give one of them"),
        ({"start": -1}, "start of a video is -1: it must be a second, 0 or later"),
        ({"num_frames": 10**5000}, "num_frames of a video is a number of 16610 bits"),
        ({"start": "1"}, "start of a video is '1'"),
        ({"start": "1" * 5000}, "start of a video is '1{79}: it must"),
        ({"start": math.nan}, "start of a video is nan"),
        ({"start": -(10**5000)}, "start of a video is a number of 16610 bits"),
        ({"start": 10**400}, "asked for from start=a number of 1329 bits s: start earlier"),
        ({"start": 1e308}, r"asked for from start=1e\+308 s: start earlier"),
        ({"end": 0}, r"end of a video is 0: it must be a second, 0\.001 or later"),
        ({"end": 1e-5, "num_frames": 3}, "end of a video is 1e-05"),
        ({"start": 3, "end": 2}, "start=3 s to end=2 s"),
        ({"start": 5, "end": 5.00001}, r"end=5\.00001 s: the end must be 0\.001 s later than"),
        ({"start": 10}, r"film\.mp4' has 10\.0 s and is asked for from start=10 s: start earlier"),
        (
            {"max_tokens": 99},
            "max_tokens of a video is 99: it must be a whole number from 100",
        ),
        ({"max_tokens": 30_001}, "max_tokens of a video is 30001"),
        ({"form": "gif"}, "form of a video is 'gif': it must be 'frames' or 'mp4'"),
    ],
)
def test_options_that_are_refused(ten_seconds: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MediaError, match=message) as error:
        clip(ten_seconds, **options)
    one_line(error)
