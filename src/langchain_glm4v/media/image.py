"""Pictures: from a path, a `data:` URL, bytes or a PIL image to what goes into a request.

A picture is judged by its bytes, never by its name or a stated type. Files are decoded in a
decoding process (`pool`), also those of which PIL has only read the begin; an image of PIL's whose
pixels are in this process already is scaled here.

What is sent is upright, has no transparency (it stands on white), 8 bits a channel, no animation,
and keeps to the budget. Where the file is like that already, its own bytes are sent, for they lose
nothing, but they are decoded all the same: damage must be found before the server does.
"""

import base64
import io
import math
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import pool
from langchain_glm4v.media.budget import (
    DEFAULT_IMAGE_TOKENS,
    check_count,
    check_limits,
    image_size,
    image_tokens,
)
from langchain_glm4v.media.source import (
    MAX_BYTES,
    Given,
    local_file,
    plain,
    read,
    scheme,
    shown,
)
from langchain_glm4v.media.source import name_of as source_name

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import TypeIs

ACCEPTED = "JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC, and other raster formats"

MAX_PIXELS = 89_478_485
"""Pixels decoded for one picture, at most: where Pillow itself begins to warn of bombs.

A JPEG may have more, because it is decoded at half its size or less where that is enough.
"""

MAX_PAGES = 32
"""Pages of one TIFF, at most, unless told otherwise: as many pictures as a managed server takes."""

CHOOSE_PAGES = "save those you want as files of their own"
RAISE_LIMIT = "raise the limit (max_images)"
"""What to do about a TIFF of too many pages."""

_KIND = "picture"  # in error messages

# Pillow reads more: formats that it hands to other programs (EPS, WMF), or that nobody sends.
_FORMATS = frozenset(
    (
        *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF"),
        *("JPEG2000", "ICO", "ICNS", "PPM", "PSD", "QOI", "PCX", "SGI"),
    )
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx")
_LOSSY_FORMATS = frozenset(("JPEG", "MPO", "HEIF", "AVIF"))

# What may be sent as it is. Not MPO, which many phones write: a JPEG with more pictures behind it.
_MIME_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_PLAIN_MODES = frozenset(("1", "L", "P", "RGB"))
_METADATA_BYTES = 65_536  # beside the pixels; a picture with more is written anew, without

# On small coloured print, 4:2:0 costs 7 dB of PSNR where 4:4:4 costs 17 % more bytes. Quality 95
# wins 5 dB more for a third more bytes.
JPEG: Mapping[str, Any] = {"format": "JPEG", "quality": 90, "subsampling": "4:4:4"}
"""How Pillow writes the JPEGs that are sent."""
# zlib's default level takes twice the time and wins nothing on print.
_PNG = {"format": "PNG", "compress_level": 3}
# What shows how well a picture compresses as PNG: so many bands, an eighth of its height together.
_BANDS = 4
_SMALL = 1 << 18  # pixels; a picture with no more is just tried

_SHADES = 1 << 16  # of 16-bit grey
_GREY = 128.0  # what becomes of a picture of one shade

_POINTS = 72  # an inch of a PDF
_A4_POINTS = 842  # the longer side of A4
_LEAST_DOTS, _MOST_DOTS = 100, 2400  # an inch; with 72 and 96, programs say that they know nothing

_ORIENTATION = 0x0112  # the tag of EXIF
_SUBFILE = 0x00FE  # the tag of TIFF: bit 0 for a thumbnail, bit 2 for a mask
_NO_PAGE = 0b101

# The file of an image of PIL's has one place at which it is read: two threads must not move it.
_loading = threading.Lock()


def _forget() -> None:
    """After a fork, the child waits for no thread of its parent."""
    global _loading  # noqa: PLW0603 - what is held cannot be freed
    _loading = threading.Lock()


os.register_at_fork(after_in_child=_forget)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it is sent.

    Attributes:
        data: A JPEG, PNG or WEBP.
        mime_type: Which of them.
        width: Pixels, upright.
        height: Pixels.
    """

    data: bytes = field(repr=False)
    mime_type: str
    width: int
    height: int

    @property
    def tokens(self) -> int:
        """What it costs in a prompt, without the two marks around it."""
        return image_tokens(self.width, self.height)

    @property
    def url(self) -> str:
        """Its `data:` URL, for an `image_url` block."""
        return data_url(self.data, self.mime_type)


def prepare(
    source: "Given | Image.Image",
    *,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    longest_side: int | None = None,
    at_most: int = MAX_PAGES,
) -> list[Picture]:
    """Make a picture ready to be sent.

    Transparent parts become white, 16-bit grey is reduced to 8 bits, 32-bit and float grey is
    stretched between its extremes (what has but one shade becomes grey), and of an animation the
    first frame is taken, of an image of PIL's the frame at which it is. ICC profiles are not
    applied: the server does not know of them either.

    Args:
        source: A path, a `file://`, `data:` or `http(s)://` URL, the bytes of a file, a `Blob` of
            LangChain's, or an image of PIL's.
        max_tokens: Tokens of a picture, at most: 16 to 6,144. Default: 6,084, which every server
            takes.
        longest_side: Pixels of the longer side, at most, 28 or more. Default: no limit.
        at_most: Pages of a TIFF, at most.

    Returns:
        One picture; of a TIFF one for each page.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If it is no picture, or a damaged one.
        MediaError: If the picture is too large to be decoded, too long and narrow, or has more
            than `at_most` pages; if it cannot be fetched; if decoding it crashes or does not end;
            if a limit is out of range.
    """
    if is_pil_image(source):
        check_limits(max_tokens, longest_side)
        return [_of_pil(source, _Limits(max_tokens, longest_side))]
    with pages(source, max_tokens=max_tokens, longest_side=longest_side) as found:
        check_count(found.name, found.count, at_most, CHOOSE_PAGES, RAISE_LIMIT)
        return [*pool.each(found.prepare, range(found.count))]


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages in a picture's file.

    Attributes:
        name: What error messages call the file.
        count: One; of a TIFF, its pages.
        prepare: Makes the page of a number, counted from 0, ready to be sent.
    """

    name: str
    count: int
    prepare: Callable[[int], Picture]


@contextmanager
def pages(
    source: Given,
    *,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    longest_side: int | None = None,
) -> Iterator[Pages]:
    """Open a picture's file, to make its pages ready one by one.

    Args:
        source: As for `prepare`, as are those below; no image of PIL's.
        max_tokens: Tokens of a picture, at most.
        longest_side: Pixels of the longer side, at most.

    Yields:
        The pages; `Pages.prepare` raises what is about one of them alone.

    Raises:
        MediaError: As for `prepare`.
    """
    check_limits(max_tokens, longest_side)
    limits = _Limits(max_tokens, longest_side)
    data, origin = _file(source)
    found = pool.call(_decoded, data, origin, limits, None, subject=origin)
    if isinstance(found, Picture):
        yield Pages(origin, 1, lambda _: found)
        return
    # As a file, so that not each page needs all of it sent.
    with local_file(data, _KIND) as path:

        def prepared(number: int) -> Picture:
            page = f"page {number + 1} of {origin}"
            return pool.call(_decoded_page, str(path), page, limits, found[number], subject=page)

        yield Pages(origin, len(found), prepared)


def upright(source: "Given | Image.Image") -> "Image.Image":
    """Decode a picture in full size: upright, in RGB, on white, as the boxes of answers count.

    Args:
        source: As for `prepare`; of a TIFF with several pages the first.

    Returns:
        A picture that shares nothing with the given one.

    Raises:
        MediaError: As for `prepare`, and if it has more than `MAX_PIXELS`.
    """
    from PIL import Image  # noqa: PLC0415

    if not is_pil_image(source):
        data, origin = _file(source)
        return Image.frombytes("RGB", *pool.call(_pixels, data, origin, None, subject=origin))
    origin = name_of(source)
    if (unread := _unread(source)) is not None:
        found = pool.call(_pixels, unread, origin, source.tell(), subject=origin)
        return Image.frombytes("RGB", *found)
    _load(source)
    with _named(origin):
        return _upright(source)


def write_pdf(source: Given, out: Path, *, timeout: int = pool.TIMEOUT) -> None:
    """Write a picture as a PDF: in full size, upright, each page of a TIFF as one of the PDF.

    A JPEG is in it as it is. A page is as large as the picture says, or else as A4.

    Args:
        source: A path, a `file://` or `data:` URL, the bytes of a file, or a `Blob`.
        out: The PDF; what is there is replaced.
        timeout: Whole seconds that it may take.

    Raises:
        MediaError: As for `prepare`.
    """
    origin = source_name(source, _KIND)
    with local_file(source, _KIND) as path:
        pool.call(_write_pdf, str(path), str(out), origin, subject=origin, timeout=timeout)


def is_pil_image(value: object) -> "TypeIs[Image.Image]":
    """Whether a value is an image of PIL's; nothing is imported to find out."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def name_of(picture: "Image.Image") -> str:
    """What error messages call an image of PIL's."""
    return f"the PIL image of {picture.width}x{picture.height} pixels"


def to_png(picture: "Image.Image") -> bytes:
    """Write an image of PIL's into a file, pixel by pixel.

    Raises:
        MediaError: If it cannot be decoded, or is too large for that.
    """
    _load(picture)
    return _saved(picture if picture.mode in _PLAIN_MODES else _flat(picture), _PNG)


def data_url(data: bytes, mime_type: str) -> str:
    """Write bytes as a `data:` URL."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def _file(source: Given) -> tuple[bytes, str]:
    """The bytes of a picture's file, and what error messages call it."""
    source = plain(source, _KIND)
    data = read(source, _KIND)
    if isinstance(source, bytes) or scheme(source) == "data":
        return data, f"the picture of {len(data)} bytes"
    return data, shown(source)


@dataclass(frozen=True, slots=True)
class _Limits:
    """How large a picture may be sent: as for `prepare`."""

    max_tokens: int
    longest_side: int | None


def _of_pil(picture: "Image.Image", limits: _Limits) -> Picture:
    """An image of PIL's as it is sent."""
    origin = name_of(picture)
    if (data := _unread(picture)) is not None:
        found = pool.call(_decoded, data, origin, limits, picture.tell(), subject=origin)
        if isinstance(found, Picture):
            return found
    _load(picture)
    with _named(origin):
        return _prepared(picture, None, origin, limits)


def _unread(picture: "Image.Image") -> bytes | None:
    """The file of an image of PIL's whose pixels were not read yet; None if there is none."""
    file = getattr(picture, "fp", None)
    if not _is_unread(picture) or picture.format not in _FORMATS or file is None:
        return None
    if getattr(picture, "decoderconfig", ()):  # `draft` was called, so it is to be another picture
        return None
    try:
        with _loading:
            place = file.tell()
            file.seek(0)
            data = bytes(file.read(MAX_BYTES + 1))
            file.seek(place)
    except (OSError, ValueError):  # the file was closed, say, which loading will tell
        return None
    return read(data, _KIND)


def _is_unread(picture: "Image.Image") -> bool:
    """Whether PIL has read the begin of the file alone."""
    return bool(getattr(picture, "tile", None)) or getattr(picture, "_im", picture) is None


def _load(picture: "Image.Image") -> None:
    """Read the pixels of an image of PIL's into this process, unless they are in it already."""
    origin = name_of(picture)
    if _is_unread(picture):
        _check_pixels(picture, origin)
    with _named(origin), _loading:
        picture.load()


# What follows runs in a decoding process, and for an image of PIL's where it is.


def _decoded(data: bytes, origin: str, limits: _Limits, frame: int | None) -> Picture | list[int]:
    """A picture as it is sent; of a TIFF with several pages, their numbers in the file instead.

    Args:
        data: The file.
        origin: What error messages call it.
        limits: How large it may be sent.
        frame: Which of several is wanted; None: of a TIFF all, else the first.
    """
    with _quiet(origin), _opened(io.BytesIO(data), origin) as picture:
        is_tiff = picture.format == "TIFF"
        if frame:
            picture.seek(frame)
        elif frame is None and is_tiff:
            numbers = _pages(picture, origin)
            if len(numbers) > 1:
                return numbers
            picture.seek(numbers[0])
        return _prepared(picture, None if frame or is_tiff else data, origin, limits)


def _decoded_page(path: str, origin: str, limits: _Limits, number: int) -> Picture:
    """A page of a TIFF as it is sent."""
    with (
        _quiet(origin),
        Path(path).open("rb") as file,
        _opened(file, origin) as picture,
    ):
        picture.seek(number)
        return _prepared(picture, None, origin, limits)


@contextmanager
def decoded(data: bytes, name: str) -> Iterator["Image.Image"]:
    """Open a picture, in a decoding process alone.

    Args:
        data: Its file.
        name: What error messages call it.

    Yields:
        The picture as Pillow opens it; what it raises becomes an error with the name.

    Raises:
        UnsupportedMediaError: If it is no picture, or a damaged one.
    """
    with _quiet(name), _opened(io.BytesIO(data), name) as picture:
        yield picture


def _write_pdf(path: str, out: str, origin: str) -> None:
    import pymupdf  # noqa: PLC0415 - in a decoding process alone

    data = Path(path).read_bytes()
    with (
        _quiet(origin),
        _opened(io.BytesIO(data), origin) as picture,
        pymupdf.open() as made,
    ):
        for number in _pages(picture, origin) if picture.format == "TIFF" else [0]:
            picture.seek(number)
            _check_pixels(picture, origin)
            dots, (width, height) = _dots(picture), picture.size
            if picture.format == "JPEG" and _can_go(picture, data):
                stream = data
            else:
                picture.load()
                whole = picture if picture.mode in ("1", "L") else _flat(picture)
                if (turn := _turn(picture)) is not None:
                    whole = whole.transpose(turn)
                width, height = whole.size
                stream = _saved(whole, JPEG if picture.format in _LOSSY_FORMATS else _PNG)
            scale = _POINTS / dots if dots else _A4_POINTS / max(width, height)
            page = made.new_page(width=width * scale, height=height * scale)
            page.insert_image(page.rect, stream=stream)
        made.save(out, deflate=True)


def _dots(picture: "Image.Image") -> float:
    """Dots per inch, as the picture says; 0 if it says none that can be meant."""
    try:
        dots = float(picture.info["dpi"][0])
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        return 0.0
    return dots if _LEAST_DOTS <= dots <= _MOST_DOTS else 0.0


def _pixels(data: bytes, origin: str, frame: int | None) -> tuple[tuple[int, int], bytes]:
    """Width and height of a picture, upright, and its pixels in RGB; arguments as `_decoded`."""
    with _quiet(origin), _opened(io.BytesIO(data), origin) as picture:
        if frame is None and picture.format == "TIFF":
            frame = _pages(picture, origin)[0]
        picture.seek(frame or 0)
        _check_pixels(picture, origin)
        whole = _upright(picture)
        return whole.size, whole.tobytes()


def _upright(picture: "Image.Image") -> "Image.Image":
    """The whole picture as `upright` gives it."""
    picture.load()
    turn = _turn(picture)
    whole = _flat(picture).convert("RGB")  # a copy at any rate
    if turn is not None:
        whole = whole.transpose(turn)
    whole.info.clear()  # of the source: its profile, its EXIF data with the turn
    return whole


@contextmanager
def _quiet(origin: str) -> Iterator[None]:
    with warnings.catch_warnings(), _named(origin):
        warnings.simplefilter("ignore")  # such as those of damaged metadata, to standard error
        yield


@contextmanager
def _named(origin: str) -> Iterator[None]:
    """Errors of Pillow with the name of the picture."""
    try:
        yield
    except (MediaError, MemoryError):
        raise
    # Pillow's readers raise whatever the bytes make them stumble over.
    except Exception as error:
        reason = "" if _is_unidentified(error) else f" ({' '.join(str(error).split())[:200]})"
        raise UnsupportedMediaError(
            f"{origin} is not a picture, or a damaged one{reason}: accepted are {ACCEPTED}"
        ) from error


def _is_unidentified(error: Exception) -> bool:
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    return isinstance(error, UnidentifiedImageError)


def _opened(file: BinaryIO, origin: str) -> Any:
    from PIL import Image  # noqa: PLC0415 - imported only where pictures are decoded

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # _prepared knows better how many will be decoded
    begin = file.read(48)
    file.seek(0)
    if begin[4:8] == b"ftyp" and any(brand in begin for brand in _HEIC_BRANDS):
        _register_heif(origin)
    return Image.open(file, formats=[name for name in Image.ID if name in _FORMATS])


def _register_heif(origin: str) -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnsupportedMediaError(
            f"{origin} is a HEIC picture, which needs pillow-heif: save it as a JPEG",
            setting="pip install 'langchain-glm4v[heif]'",
        ) from error
    pillow_heif.register_heif_opener()


def _pages(picture: Any, origin: str) -> list[int]:
    """Numbers of the pages of a TIFF among the pictures in it, from 0."""
    numbers = []
    for number in range(picture.n_frames):
        picture.seek(number)
        if not picture.tag_v2.get(_SUBFILE, 0) & _NO_PAGE:
            numbers.append(number)
    if not numbers:
        raise UnsupportedMediaError(
            f"{origin} is a TIFF with thumbnails and masks alone: give one with a page"
        )
    return numbers


def _prepared(picture: "Image.Image", data: bytes | None, origin: str, limits: _Limits) -> Picture:
    """The picture as it is sent; `data` is its file if that may be sent."""
    from PIL import Image  # noqa: PLC0415

    try:
        # As stored, so that a picture is turned when it is small: both sides go by the same rules.
        size = image_size(
            *picture.size, max_tokens=limits.max_tokens, longest_side=limits.longest_side
        )
    except MediaError as error:
        raise MediaError(f"{origin} has {error}") from error
    if data is not None and size == picture.size and _can_go(picture, data):
        return Picture(data, _MIME_TYPES[str(picture.format)], *size)
    if size != picture.size:
        picture.draft(None, size)  # a JPEG is decoded at half the size, or less, if that is enough
    _check_pixels(picture, origin)
    picture.load()
    lossless = picture.format not in _LOSSY_FORMATS
    turn = _turn(picture)
    if size != picture.size or picture.mode not in _PLAIN_MODES or picture.has_transparency_data:
        picture = _flat(picture)
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if turn is not None:
        picture = picture.transpose(turn)
    return _encoded(picture, lossless)


def _check_pixels(picture: "Image.Image", origin: str) -> None:
    if math.prod(picture.size) > MAX_PIXELS:
        raise MediaError(
            f"{origin} has {picture.width}x{picture.height} pixels, more than the {MAX_PIXELS} "
            "that a picture may have: scale it down first"
        )


def _can_go(picture: "Image.Image", data: bytes) -> bool:
    """Whether a file may be sent as it is, its size aside. It is decoded, to find damage."""
    if (
        picture.format not in _MIME_TYPES
        or picture.mode not in (*_PLAIN_MODES, "LA", "RGBA")
        or getattr(picture, "is_animated", False)
        or len(data) > 3 * math.prod(picture.size) + _METADATA_BYTES
    ):
        return False
    # A JPEG shows all its damage at an eighth of its size, in half the time. A PNG is loaded before
    # its EXIF data are looked for: that loads it too, and would hide the damage from a later one.
    if picture.format != "JPEG":
        picture.load()
    if _turn(picture) is not None:
        return False
    picture.draft(None, (1, 1))
    picture.load()
    if not picture.has_transparency_data:
        return True
    return picture.convert("RGBA").getchannel("A").getextrema() == (255, 255)


def _turn(picture: "Image.Image") -> "Image.Transpose | None":
    """How a picture is to be turned or mirrored, by its EXIF data."""
    from PIL import Image  # noqa: PLC0415

    try:
        orientation = picture.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata are none
        return None
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return turns.get(orientation) if isinstance(orientation, int) else None


def _flat(picture: "Image.Image") -> "Image.Image":
    """The picture in 8 bits of grey or colour, transparent parts white."""
    from PIL import Image  # noqa: PLC0415

    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture)
    if picture.has_transparency_data:
        white = Image.new("RGB", picture.size, "white")
        rgba = picture.convert("RGBA")
        white.paste(rgba, mask=rgba)
        return white
    return _grey_or_colour(picture)


def _grey_or_colour(picture: "Image.Image") -> "Image.Image":
    """The picture as JPEG can hold it; not a copy, which takes a while, where it is like that."""
    if picture.mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _eight_bits(picture: "Image.Image") -> "Image.Image":
    """Grey of more bits in 8. Pillow's own conversion makes all above 255 white."""
    wide = picture.convert("F")
    low, high = (0, 65_535) if picture.mode.startswith("I;16") else _extremes(wide)
    scale = 255 / (high - low) if high > low else 0.0
    offset = -low * scale if high > low else _GREY
    grey = wide.point(lambda value: value * scale + offset).convert("L")
    invisible = grey.info.pop("transparency", None)
    if isinstance(invisible, int) and 0 <= invisible < _SHADES:
        # By the shade that the file has, for others become the same one.
        mask = picture.convert("I").point([255 * (n == invisible) for n in range(_SHADES)], "L")
        grey.paste(255, mask=mask)
    return grey


def _extremes(picture: "Image.Image") -> tuple[float, float]:
    """The least and the greatest of float grey, without what is no number."""
    found: Any = picture.getextrema()
    if all(map(math.isfinite, found)):
        return float(found[0]), float(found[1])
    values = memoryview(picture.tobytes()).cast("f")
    least = min(filter(math.isfinite, values), default=0.0)
    return least, max(filter(math.isfinite, values), default=0.0)


def _encoded(picture: "Image.Image", lossless: bool) -> Picture:
    """Write as JPEG; or as PNG if that is smaller, which it can only be for a `lossless` source."""
    data = _saved(_grey_or_colour(picture), JPEG)
    if lossless and _may_be_smaller(picture, len(data)):
        png = _saved(picture, _PNG)
        if len(png) < len(data):
            return Picture(png, "image/png", *picture.size)
    return Picture(data, "image/jpeg", *picture.size)


def _may_be_smaller(picture: "Image.Image", jpeg_bytes: int) -> bool:
    """Whether a PNG may be, by a sample: a whole one takes ten times as long as the JPEG."""
    width, height = picture.size
    if width * height <= _SMALL:
        return True
    band = max(1, height // (8 * _BANDS))
    sample = picture.crop((0, 0, width, band * _BANDS))
    for place in range(_BANDS):
        top = height * (2 * place + 1) // (2 * _BANDS)
        sample.paste(picture.crop((0, top, width, top + band)), (0, place * band))
    return 8 * len(_saved(sample, _PNG)) < 1.5 * jpeg_bytes


def _saved(picture: "Image.Image", options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    # Without what belongs to the source: its profile, its EXIF data with the turn.
    picture.save(file, **options, exif=b"", icc_profile=None)
    return file.getvalue()
