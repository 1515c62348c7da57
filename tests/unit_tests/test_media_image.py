"""Pictures on their way into a request."""

import base64
import importlib.util
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents.base import Blob
from PIL import Image, ImageDraw

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media import image, pool, source
from langchain_glm4v.media.image import MAX_PAGES, Picture, prepare

Colour = tuple[int, int, int]
RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Orientation in EXIF data -> how a scene lies in the file."""


def saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def picture(kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
    return saved(Image.new(mode, size, 3), kind)


def scene(width: int = 120, height: int = 80) -> Image.Image:
    """Red in the upper left quarter, blue in the lower left, white on the right."""
    drawn = Image.new("RGB", (width, height), "white")
    drawn.paste(RED, (0, 0, width // 2, height // 2))
    drawn.paste(BLUE, (0, height // 2, width // 2, height))
    return drawn


def noise(width: int, height: int) -> Image.Image:
    return Image.merge("RGB", [Image.effect_noise((width, height), 60) for _ in range(3)])


def only(source: Any, **limits: Any) -> Picture:
    [prepared] = prepare(source, **limits)
    return prepared


def opened(sent: Picture) -> Image.Image:
    found = Image.open(io.BytesIO(sent.data))
    assert found.size == (sent.width, sent.height)
    assert found.get_format_mimetype() == sent.mime_type
    assert found.mode in ("1", "L", "P", "RGB")
    assert not found.has_transparency_data
    return found


def corners(sent: Picture) -> list[Colour]:
    """Colours near the corners: upper left, upper right, lower left, lower right."""
    found = opened(sent).convert("RGB")
    right, bottom = found.width - 5, found.height - 5
    return [_rounded(found, at) for at in ((5, 5), (right, 5), (5, bottom), (right, bottom))]


def _rounded(found: Image.Image, at: tuple[int, int]) -> Colour:
    """A colour whose parts are 0, 128 or 255 if they are near that, as JPEG leaves them."""
    parts: Any = found.getpixel(at)
    red, green, blue = (min((0, 128, 255), key=lambda value: abs(value - part)) for part in parts)
    return red, green, blue


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")],
)
def test_what_fits_goes_as_it_is(tmp_path: Path, kind: str, mime_type: str) -> None:
    path = tmp_path / "named.wrongly"
    path.write_bytes(picture(kind))

    assert prepare(path) == [Picture(picture(kind), mime_type, 8, 6)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_png_of_any_plain_mode_goes_as_it_is(mode: str) -> None:
    drawn = scene().convert(mode)  # where there is an alpha channel, it is opaque
    assert only(saved(drawn)).data == saved(drawn)


def test_a_picture_has_a_url_and_tokens() -> None:
    sent = only(picture(size=(640, 480)))

    assert sent.tokens == 391
    assert sent.url == f"data:image/png;base64,{base64.b64encode(sent.data).decode()}"
    assert "data=" not in repr(sent)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (120, 80))]}),
        ("AVIF", {}),
        ("JPEG2000", {}),
        ("ICO", {"sizes": [(120, 80)]}),
        ("PPM", {}),
        # The first frame of an animation:
        ("GIF", {"save_all": True, "append_images": [Image.new("RGB", (120, 80))]}),
        ("PNG", {"save_all": True, "append_images": [Image.new("RGB", (120, 80))]}),
        ("WEBP", {"save_all": True, "append_images": [Image.new("RGB", (120, 80))]}),
    ],
)
def test_other_files_become_jpeg_or_png(kind: str, options: dict[str, Any]) -> None:
    given = saved(scene(), kind, **options)
    sent = only(given)

    assert sent.data != given
    assert corners(sent) == [RED, WHITE, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind: str) -> None:
    assert corners(only(saved(scene().convert("CMYK"), kind))) == [RED, WHITE, BLUE, WHITE]


def grey(value: float, mode: str) -> Image.Image:
    """Black, the value, and the white of 16 bits."""
    drawn = Image.new("F", (90, 60))
    drawn.paste(value, (30, 0, 60, 60))
    drawn.paste(65_535, (60, 0, 90, 60))
    return drawn if mode == "F" else drawn.convert("I").convert(mode)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "F")])
def test_grey_of_more_bits_keeps_its_shades(kind: str, mode: str) -> None:
    sent = opened(only(saved(grey(0.5 * 65_535, mode), kind))).convert("L")

    shades: list[Any] = [sent.getpixel((x, 30)) for x in (10, 45, 80)]
    assert [round(shade / 16) for shade in shades] == [0, 8, 16]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_grey_that_makes_no_sense(value: float) -> None:
    opened(only(saved(Image.new("F", (30, 30), value), "TIFF")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_grey_with_some_values_that_are_no_numbers(value: float) -> None:
    drawn = grey(0.5 * 65_535, "F")
    drawn.paste(value, (0, 0, 10, 10))
    sent = opened(only(saved(drawn, "TIFF"))).convert("L")

    shades: list[Any] = [sent.getpixel((x, 30)) for x in (10, 45, 80)]
    assert [round(shade / 16) for shade in shades] == [0, 8, 16]


@pytest.mark.parametrize(("mode", "value"), [("F", 0.25), ("F", 1e9), ("I", 7), ("I", 0)])
def test_grey_of_one_shade_is_grey(mode: str, value: float) -> None:
    sent = opened(only(saved(Image.new(mode, (30, 30), value), "TIFF"))).convert("L")

    assert sent.getpixel((9, 9)) == 128


def test_a_shade_of_16_bits_that_is_invisible() -> None:
    """The shade itself becomes white, and not those that are the same in 8 bits."""
    rows = b"".join(
        b"\0" + b"".join(struct.pack(">H", shade) * 30 for shade in (1000, 1001, 40_000))
        for _ in range(30)
    )
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 90, 30, 16, 0, 0, 0, 0))
    chunks = (chunk(b"tRNS", struct.pack(">H", 1000)), chunk(b"IDAT", zlib.compress(rows)))
    data = b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")
    sent = opened(only(data)).convert("L")

    assert [sent.getpixel((x, 15)) for x in (10, 40, 70)] == [255, 3, 155]


def transparent(mode: str) -> bytes:
    """The scene, its red invisible."""
    drawn = scene()
    if mode == "P":
        palette = drawn.quantize(4)
        return saved(palette, transparency=palette.getpixel((0, 0)))
    if mode == "RGB":
        return saved(drawn, transparency=RED)
    mask = Image.new("L", drawn.size, 255)
    mask.paste(0, (0, 0, 60, 40))
    drawn.putalpha(mask)
    return saved(drawn, mode)


@pytest.mark.parametrize("mode", ["P", "RGB", "PNG", "WEBP", "TIFF", "AVIF"])
def test_what_is_transparent_is_white(mode: str) -> None:
    assert corners(only(transparent(mode))) == [WHITE, WHITE, BLUE, WHITE]
    assert corners(only(transparent(mode), longest_side=56)) == [WHITE, WHITE, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", TURNS)
def test_the_model_sees_it_upright(kind: str, orientation: int) -> None:
    turn = TURNS[orientation]
    lying = scene() if turn is None else scene().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(lying, kind, exif=exif)

    for limits, size in (({}, (120, 80)), ({"longest_side": 84}, (84, 56))):
        sent = only(data, **limits)
        assert (sent.width, sent.height) == size
        assert corners(sent) == [RED, WHITE, BLUE, WHITE]
        assert opened(sent).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 99])
def test_damaged_exif_data(exif: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert corners(only(saved(scene(), "JPEG", exif=exif))) == [RED, WHITE, BLUE, WHITE]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({}, (2520, 1876)),
        ({"max_tokens": 1000}, (1008, 756)),
        ({"longest_side": 1540}, (1540, 1148)),
        ({"longest_side": 1567}, (1540, 1148)),
        ({"longest_side": 1540, "max_tokens": 1000}, (1008, 756)),
        ({"longest_side": 5000, "max_tokens": 1000}, (1008, 756)),
        ({"longest_side": 28}, (28, 28)),
    ],
)
def test_scaled_to_whole_cells(limits: dict[str, int], size: tuple[int, int]) -> None:
    sent = only(saved(scene(4000, 3000), "JPEG"), **limits)

    assert (sent.width, sent.height) == size
    if min(size) > 28:
        assert corners(sent) == [RED, WHITE, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["1", "P", "L", "I;16", "RGBA", "CMYK"])
def test_every_mode_can_be_scaled(mode: str) -> None:
    drawn = scene(1000, 600).convert("I" if mode == "I;16" else mode).convert(mode)
    sent = only(saved(drawn, "TIFF"), longest_side=560)

    assert (sent.width, sent.height) == (560, 336)
    assert opened(sent).mode in ("L", "RGB")


@pytest.mark.parametrize(
    "limits",
    [{"max_tokens": 15}, {"max_tokens": 6145}, {"longest_side": 27}, {"longest_side": "big"}],
)
def test_limits_out_of_range(limits: dict[str, Any]) -> None:
    with pytest.raises(MediaError, match=f"{next(iter(limits))} is "):
        prepare(picture(), **limits)


def drawing(width: int, height: int) -> Image.Image:
    """Lines and print, as on a screen."""
    drawn = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(drawn)
    for y in range(10, height, 20):
        pen.text((10, y), f"{y} The quick brown fox jumps over the lazy dog", fill=(200, 0, 0))
        pen.line((0, y, width, y))
    return drawn


def test_a_drawing_stays_exact() -> None:
    sent = only(saved(drawing(1000, 900), "BMP"))

    assert sent.mime_type == "image/png"
    assert opened(sent).tobytes() == drawing(1000, 900).tobytes()


@pytest.mark.parametrize("limits", [{}, {"longest_side": 560}])
def test_what_png_makes_large_becomes_jpeg(limits: dict[str, int]) -> None:
    for given in (saved(noise(900, 700), "BMP"), saved(drawing(900, 700), "JPEG2000")):
        sent = only(given, **limits)
        png = saved(opened(sent))
        assert (sent.mime_type == "image/png") == (len(sent.data) >= len(png))


def test_coloured_print_keeps_its_colour() -> None:
    """With 4:2:0 the red of thin lines would be lost."""
    thin = Image.new("RGB", (600, 600), "white")
    for x in range(0, 600, 3):
        thin.paste(RED, (x, 0, x + 1, 600))
    sent = opened(only(saved(thin, "AVIF", subsampling="4:4:4", quality=100)))

    pixels: list[Any] = [sent.convert("RGB").getpixel((300 + x, 300)) for x in range(3)]
    assert max(abs(part - 255 * (x > 0)) for x in range(3) for part in pixels[x][1:]) < 40


def test_a_tiff_is_its_pages() -> None:
    pages = [scene(), scene().rotate(180), noise(64, 48).convert("1")]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    first, second, third = prepare(data)

    assert corners(first) == [RED, WHITE, BLUE, WHITE]
    assert corners(second) == [WHITE, BLUE, WHITE, RED]
    assert (third.width, third.height, opened(third).mode) == (64, 48, "1")


def test_thumbnails_in_a_tiff_are_no_pages() -> None:
    thumbnail = scene(30, 20)
    thumbnail.encoderinfo = {"tiffinfo": {0x00FE: 1}}
    data = saved(scene(), "TIFF", save_all=True, append_images=[thumbnail])
    with Image.open(io.BytesIO(data)) as written:
        assert written.n_frames == 2  # type: ignore[attr-defined]

    assert corners(only(data)) == [RED, WHITE, BLUE, WHITE]


def test_too_many_pages(tmp_path: Path) -> None:
    path = tmp_path / "fax.tiff"
    page = Image.new("1", (30, 30))
    page.save(path, save_all=True, append_images=[page] * (MAX_PAGES - 1))
    assert len(prepare(path)) == MAX_PAGES
    page.save(path, save_all=True, append_images=[page] * MAX_PAGES)

    with pytest.raises(MediaError, match="has 33 pages to be sent, and 32 can be") as error:
        prepare(path)
    assert str(path) in one_line(error)
    assert len(prepare(path, at_most=33)) == 33
    with pytest.raises(MediaError, match="has 33 pages to be sent, and 2 can be"):
        prepare(path, at_most=2)


def test_a_page_that_is_damaged() -> None:
    pages = [noise(60, 60), noise(60, 60)]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    begin, end = len(data) * 5 // 8, len(data) * 7 // 8
    ruined = data[:begin] + b"\xff" * (end - begin) + data[end:]

    with pytest.raises(UnsupportedMediaError, match=r"page 2 of .* is not a picture"):
        prepare(ruined)


def test_a_page_may_take_long_but_not_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page has a limit of time of its own."""
    subjects = []
    call = pool.call

    def noting(*args: Any, subject: str, **options: Any) -> Any:
        subjects.append(subject)
        return call(*args, subject=subject, **options)

    monkeypatch.setattr(pool, "call", noting)
    data = saved(scene(), "TIFF", save_all=True, append_images=[scene(), scene()])
    prepare(data)
    whole = f"the picture of {len(data)} bytes"

    assert subjects[0] == whole
    assert sorted(subjects[1:]) == [f"page {number} of {whole}" for number in (1, 2, 3)]


@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_an_image_of_pils(mode: str) -> None:
    drawn = scene().convert("I" if mode == "I;16" else mode).convert(mode)
    before = drawn.tobytes()
    sent = only(drawn)

    assert (sent.width, sent.height) == (120, 80)
    assert (drawn.tobytes(), drawn.mode) == (before, mode)
    with Image.open(io.BytesIO(image.to_png(drawn))) as written:
        assert (written.format, written.size) == ("PNG", (120, 80))


def test_an_image_of_pils_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x0112] = 8
    scene(600, 400).transpose(Image.Transpose.ROTATE_270).save(path, exif=exif)

    with Image.open(path) as lazy:
        sent = only(lazy, longest_side=84)
        assert lazy.size == (400, 600)  # not decoded at a smaller scale
    assert corners(sent) == [RED, WHITE, BLUE, WHITE]
    path.write_bytes(path.read_bytes()[:900])
    with (
        Image.open(path) as cut,
        pytest.raises(UnsupportedMediaError, match="the PIL image of 400x600 pixels is not"),
    ):
        prepare(cut)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_an_image_that_pil_has_not_read_is_read_elsewhere(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(saved(scene(), kind))

    with Image.open(path) as lazy:
        place = lazy.fp.tell()  # type: ignore[union-attr]
        assert corners(only(lazy)) == [RED, WHITE, BLUE, WHITE]
        assert lazy._im is None
        assert lazy.fp.tell() == place  # type: ignore[union-attr]
        lazy.load()  # it still can
        assert corners(only(lazy)) == [RED, WHITE, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_the_frame_at_which_an_image_of_pils_is(kind: str) -> None:
    frames = [scene(), scene().rotate(180)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as lazy:
        assert corners(only(lazy)) == [RED, WHITE, BLUE, WHITE]
        lazy.seek(1)
        assert corners(only(lazy)) == [WHITE, BLUE, WHITE, RED]


def test_an_image_of_pils_that_was_asked_to_be_another_one() -> None:
    with Image.open(io.BytesIO(saved(scene(1200, 800), "JPEG"))) as lazy:
        lazy.draft("L", (300, 200))
        sent = only(lazy)

    assert (sent.width, sent.height, opened(sent).mode) == (300, 200, "L")


@pytest.mark.parametrize("use", [prepare, image.to_png])
def test_a_bomb_that_pil_has_not_read(
    use: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    bomb = png_of(35_000, 35_000, chunk(b"IDAT", zlib.compress(bytes(100_000))))
    with (
        Image.open(io.BytesIO(bomb)) as lazy,
        pytest.raises(MediaError, match="the PIL image of 35000x35000 pixels has 35000x35000 pix"),
    ):
        use(lazy)


def test_an_image_of_pils_that_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    scene().save(path)
    closed = Image.open(path)
    closed.close()

    for use in (prepare, image.to_png):
        with pytest.raises(MediaError, match="the PIL image of 120x80 pixels"):
            use(closed)


@pytest.mark.parametrize("given", [bytearray, memoryview, Blob.from_data])
def test_content_of_any_class(given: Callable[[bytes], Any]) -> None:
    data = picture()

    assert prepare(given(data)) == prepare(data)


@pytest.mark.parametrize("given", [None, 7, ["a.png"], {}])
def test_nothing_that_leads_to_a_picture(given: Any) -> None:
    with pytest.raises(UnsupportedMediaError, match="cannot be sent as a picture"):
        prepare(given)


def test_pillow_stays_out_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture("BMP", size=(640, 480)))
    program = (
        "import sys\n"
        "from langchain_glm4v.media import image\n"
        f"[sent] = image.prepare({str(path)!r})\n"
        "print((sent.width, sent.height), 'PIL' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("(640, 480) False\n", "")


@pytest.mark.parametrize("start", ["file://", "file://localhost", "FILE://"])
def test_all_forms_of_a_path(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a picture, 100% größer: #1.png"
    path.write_bytes(picture())

    for given in (path, str(path), path.as_uri().replace("file://", start)):
        assert only(given).data == picture()


def test_a_relative_path_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page:1.png").write_bytes(picture())

    assert only("page:1.png").data == picture()


def test_a_url_on_this_machine_is_not_fetched(web: Any) -> None:
    with pytest.raises(MediaError, match=r"/cat.png\?…' leads to an address that is not public"):
        prepare(f"{web.url}/cat.png?key=secret")

    assert web.connections == 0


def test_base64_and_data_urls_get_the_type_that_the_bytes_have() -> None:
    data = base64.b64encode(picture("JPEG")).decode()
    expected = Picture(picture("JPEG"), "image/jpeg", 8, 6)

    assert only(f"data:image/png;base64,{data}") == expected
    assert only(f"data:;base64,{data[:9]}\n{data[9:]}\n") == expected
    assert only(f"data:;base64,{data.replace('+', '%2B')}") == expected


def test_nothing_at_the_path(tmp_path: Path) -> None:
    path = tmp_path / "missing.png"
    with pytest.raises(MediaNotFoundError) as error:
        prepare(path)

    assert str(path) in one_line(error)
    assert isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize("data", [b"", b"just text", b"%PDF-1.7\n", picture()[:30], b"GIF89a"])
def test_not_a_picture(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(data)
    with pytest.raises(UnsupportedMediaError) as error:
        prepare(path)

    assert str(path) in one_line(error)
    assert "JPEG, PNG" in one_line(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("limits", [{}, {"longest_side": 28}])
def test_a_picture_cut_short(tmp_path: Path, kind: str, limits: dict[str, int]) -> None:
    path = tmp_path / "half.jpg"
    whole = saved(noise(200, 200), kind)
    assert only(whole, **limits)

    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UnsupportedMediaError, match=r"half.jpg' is not a picture, or a damaged one"
    ):
        prepare(path, **limits)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damage_is_found_wherever_pillow_finds_it(kind: str) -> None:
    whole = saved(noise(120, 90), kind)
    ends = [len(whole) * part // 20 for part in range(1, 20)]
    damaged = [whole[:end] for end in (*ends, *(len(whole) - cut for cut in range(1, 25)))]
    for at in range(40, len(whole), len(whole) // 20):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])

    for data in damaged:
        readable = is_readable(decoded_by_pillow, data, OSError, SyntaxError, ValueError)
        assert readable == is_readable(prepare, data, UnsupportedMediaError)


def decoded_by_pillow(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def is_readable(read: Callable[[bytes], object], data: bytes, *refusals: type[Exception]) -> bool:
    try:
        read(data)
    except refusals:
        return False
    return True


def test_a_strip_that_is_too_narrow() -> None:
    assert only(picture(size=(2000, 10))).tokens == 200
    with pytest.raises(
        MediaError, match=r"bytes has 2001x10 pixels: one side is more than 200 tim"
    ):
        prepare(picture(size=(2001, 10)))


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(picture())

    assert only("~/cat.png").data == picture()
    with pytest.raises(MediaError, match="cannot read the picture '~nobody-here"):
        prepare("~nobody-here/cat.png")


def test_postscript_is_not_run() -> None:
    with pytest.raises(UnsupportedMediaError):
        prepare(picture("EPS"))


def test_a_folder_and_a_pipe_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UnsupportedMediaError, match="is not a file"):
            prepare(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match="cannot read the picture") as error:
        prepare(f"{tmp_path}/{name}")

    assert len(one_line(error)) < 600


def test_a_file_that_is_far_too_large(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with path.open("wb") as file:
        file.truncate(source.MAX_BYTES + 1)

    with pytest.raises(MediaError, match="bytes, more than the"):
        prepare(path)


def test_a_url_of_another_scheme() -> None:
    with pytest.raises(UnsupportedMediaError, match="cannot read a picture from") as error:
        prepare("ftp://host/cat.png")

    assert "ftp://host/cat.png" in one_line(error)


def test_a_file_of_another_host() -> None:
    with pytest.raises(UnsupportedMediaError, match="three slashes"):
        prepare("file://server/share/cat.png")


def test_bad_base64() -> None:
    for url in ("data:image/png;base64,###", "data:image/png,raw"):
        with pytest.raises(UnsupportedMediaError, match="base64"):
            prepare(url)
    with pytest.raises(UnsupportedMediaError, match="not valid base64"):
        prepare("data:;base64,é")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 35_000, 60_000])
def test_more_pixels_than_can_be_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side, chunk(b"IDAT", zlib.compress(bytes(100_000)))))

    with pytest.raises(MediaError, match=f"{side}x{side} pixels, more than the 89478485") as error:
        prepare(path)
    assert str(path) in one_line(error)


def test_other_formats_with_too_many_pixels() -> None:
    bmp = struct.pack("<HIIIIIIHHIIIIII", 0x4D42, 0, 0, 54, 40, 35_000, 35_000, 1, 24, *[0] * 6)
    tiff = bytearray(picture("TIFF"))
    for tag in (0x0100, 0x0101):  # width and height
        at = tiff.index(struct.pack("<HHI", tag, 4, 1))
        tiff[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 35_000)
    for data in (bmp, bytes(tiff)):
        with pytest.raises(MediaError, match="35000x35000 pixels, more than"):
            prepare(data)


def test_a_large_jpeg_is_decoded_small() -> None:
    """Like one of a phone's camera: more pixels than are ever decoded at once."""
    sent = only(saved(Image.new("L", (12_000, 9_000), 200), "JPEG"))

    assert (sent.width, sent.height) == (2520, 1876)
    assert opened(sent).getpixel((1000, 1000)) == 200


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_bombs_in_metadata(kind: bytes) -> None:
    bomb = zlib.compress(bytes(1 << 27), 1)
    head = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[kind]
    pixels = chunk(b"IDAT", zlib.compress(bytes((1 + 3 * 30) * 30)))
    data = png_of(30, 30, chunk(kind, head + bomb), pixels)

    with pytest.raises(MediaError, match=r"is not a picture, or a damaged one \(Decompressed data"):
        prepare(data)


def test_huge_metadata_are_left_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 3000
    data = saved(scene(), "JPEG", exif=exif, icc_profile=b"x" * 1_000_000)
    sent = only(data)

    assert len(sent.data) < 20_000
    assert corners(sent) == [RED, WHITE, BLUE, WHITE]


def test_a_profile_of_other_colours_is_left_behind() -> None:
    sent = only(saved(scene().convert("CMYK"), "TIFF", icc_profile=b"x" * 600))
    assert "icc_profile" not in opened(sent).info


# One of 60x40 pixels, written by libheif.
HEIC = Path(__file__).parent / "data" / "scene.heic"


def test_heic() -> None:
    if importlib.util.find_spec("pillow_heif"):
        assert corners(only(HEIC)) == [RED, WHITE, BLUE, WHITE]
    else:
        with pytest.raises(UnsupportedMediaError, match=r"pip install 'langchain-glm4v\[heif\]'"):
            prepare(HEIC)
