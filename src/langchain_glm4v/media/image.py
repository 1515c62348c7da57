"""Pictures: from a path, a `data:` URL, bytes or a PIL image to what goes into a request.

A picture is judged by its bytes, never by its name or a stated type. Files are decoded in a
decoding process (`pool`); an image of PIL's is in this process already, so it is scaled here.

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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import pool
from langchain_glm4v.media.budget import (
    DEFAULT_IMAGE_TOKENS,
    check_limits,
    image_size,
    image_tokens,
)
from langchain_glm4v.media.source import Source, read, scheme, shown

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import TypeIs

ACCEPTED = "JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC, and other raster formats"

MAX_PIXELS = 89_478_485
"""Pixels decoded for one picture, at most: where Pillow itself begins to warn of bombs.

A JPEG may have more, because it is decoded at half its size or less where that is enough.
"""

MAX_PAGES = 32
"""Pages of one TIFF, at most: as many pictures as a managed server takes."""

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
_JPEG = {"format": "JPEG", "quality": 90, "subsampling": "4:4:4"}
# zlib's default level takes twice the time and wins nothing on print.
_PNG = {"format": "PNG", "compress_level": 3}
# What shows how well a picture compresses as PNG: so many bands, an eighth of its height together.
_BANDS = 4
_SMALL = 1 << 18  # pixels; a picture with no more is just tried

_ORIENTATION = 0x0112  # the tag of EXIF
_SUBFILE = 0x00FE  # the tag of TIFF: bit 0 for a thumbnail, bit 2 for a mask
_NO_PAGE = 0b101

# An image of PIL's reads its file on the first use, and two threads must not do so at once.
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
    source: "Source | bytes | Image.Image",
    *,
    max_tokens: int = DEFAULT_IMAGE_TOKENS,
    longest_side: int | None = None,
) -> list[Picture]:
    """Make a picture ready to be sent.

    Transparent parts become white, 16-bit grey is reduced to 8 bits, 32-bit and float grey is
    stretched between its extremes, and of an animation the first frame is taken. ICC profiles are
    not applied: the server does not know of them either.

    Args:
        source: A path, a `file://`, `data:` or `http(s)://` URL, the bytes of a file, or an
            image of PIL's.
        max_tokens: Tokens of a picture, at most: 16 to 6,144. Default: 6,084, which every server
            takes.
        longest_side: Pixels of the longer side, at most, 28 or more. Default: no limit.

    Returns:
        One picture; of a TIFF one for each page.

    Raises:
        MediaNotFoundError: If there is no file at `source`.
        UnsupportedMediaError: If it is no picture, or a damaged one.
        MediaError: If the picture is too large to be decoded, too long and narrow, or has more
            than `MAX_PAGES` pages; if it cannot be fetched; if decoding it crashes or does not end;
            if a limit is out of range.
    """
    check_limits(max_tokens, longest_side)
    if is_pil_image(source):
        origin = name_of(source)
        with _named(origin):
            with _loading:
                source.load()
            return [_prepared(source, None, origin, max_tokens, longest_side)]
    if isinstance(source, bytes):
        data, origin = source, f"the picture of {len(source)} bytes"
    else:
        data = read(source, _KIND)
        inline = scheme(source) == "data"
        origin = f"the picture of {len(data)} bytes" if inline else shown(source)
    return pool.call(_decoded, data, origin, max_tokens, longest_side, subject=origin)


def is_pil_image(value: object) -> "TypeIs[Image.Image]":
    """Whether a value is an image of PIL's; nothing is imported to find out."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def name_of(picture: "Image.Image") -> str:
    """What error messages call an image of PIL's."""
    return f"the PIL image of {picture.width}x{picture.height} pixels"


def to_png(picture: "Image.Image") -> bytes:
    """Write an image of PIL's into a file, pixel by pixel."""
    return _saved(picture if picture.mode in _PLAIN_MODES else _flat(picture), _PNG)


def data_url(data: bytes, mime_type: str) -> str:
    """Write bytes as a `data:` URL."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


# What follows runs in a decoding process, and for an image of PIL's where it is.


def _decoded(data: bytes, origin: str, max_tokens: int, longest_side: int | None) -> list[Picture]:
    with warnings.catch_warnings(), _named(origin):
        warnings.simplefilter("ignore")  # such as those of damaged metadata, to standard error
        with _opened(data, origin) as picture:
            if picture.format != "TIFF":
                return [_prepared(picture, data, origin, max_tokens, longest_side)]
            return [
                _prepared(picture, None, page, max_tokens, longest_side)
                for page in _pages(picture, origin)
            ]


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


def _opened(data: bytes, origin: str) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415 - imported only where pictures are decoded

    Image.init()
    Image.MAX_IMAGE_PIXELS = None  # _prepared knows better how many will be decoded
    if data[4:8] == b"ftyp" and any(brand in data[8:48] for brand in _HEIC_BRANDS):
        _register_heif(origin)
    return Image.open(io.BytesIO(data), formats=[name for name in Image.ID if name in _FORMATS])


def _register_heif(origin: str) -> None:
    try:
        import pillow_heif  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnsupportedMediaError(
            f"{origin} is a HEIC picture, which needs pillow-heif: pip install "
            "'langchain-glm4v[heif]', or save it as a JPEG"
        ) from error
    pillow_heif.register_heif_opener()


def _pages(picture: Any, origin: str) -> Iterator[str]:
    """Go to one page of a TIFF after the other; yields what to call it."""
    numbers = []
    for number in range(picture.n_frames):
        picture.seek(number)
        if not picture.tag_v2.get(_SUBFILE, 0) & _NO_PAGE:
            numbers.append(number)
    if not 0 < len(numbers) <= MAX_PAGES:
        raise MediaError(
            f"{origin} has {len(numbers)} pages, and 1 to {MAX_PAGES} can be sent at once: save "
            "those you want as files of their own"
        )
    for place, number in enumerate(numbers, 1):
        picture.seek(number)
        yield origin if len(numbers) == 1 else f"page {place} of {origin}"


def _prepared(
    picture: "Image.Image",
    data: bytes | None,
    origin: str,
    max_tokens: int,
    longest_side: int | None,
) -> Picture:
    """The picture as it is sent; `data` is its file if that may be sent."""
    from PIL import Image  # noqa: PLC0415

    try:
        # As stored, so that a picture is turned when it is small: both sides go by the same rules.
        size = image_size(*picture.size, max_tokens=max_tokens, longest_side=longest_side)
    except MediaError as error:
        raise MediaError(f"{origin} has {error}") from error
    if data is not None and size == picture.size and _can_go(picture, data):
        return Picture(data, _MIME_TYPES[str(picture.format)], *size)
    if size != picture.size:
        picture.draft(None, size)  # a JPEG is decoded at half the size, or less, if that is enough
    if math.prod(picture.size) > MAX_PIXELS:
        raise MediaError(
            f"{origin} has {picture.width}x{picture.height} pixels, more than the {MAX_PIXELS} "
            "that a picture may have: scale it down first"
        )
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
    extremes: Any = (0, 65_535) if picture.mode.startswith("I;16") else picture.getextrema()
    low, high = extremes
    scale = 255 / max(high - low, sys.float_info.epsilon)
    wide = picture.convert("F")
    return wide.point(lambda value: value * scale - low * scale).convert("L")


def _encoded(picture: "Image.Image", lossless: bool) -> Picture:
    """Write as JPEG; or as PNG if that is smaller, which it can only be for a `lossless` source."""
    data = _saved(_grey_or_colour(picture), _JPEG)
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
