"""Pictures: from a path, a URL or bytes to the URL that goes into a request.

A picture is judged by its bytes, never by its name or a stated type.
"""

import base64
import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media.budget import MAX_ASPECT
from langchain_glm4v.media.source import Source, decode_data_url, read, scheme, shown

if TYPE_CHECKING:
    from PIL import Image

ACCEPTED = "JPEG, PNG, WEBP, GIF, BMP, or another raster format that Pillow reads"

MAX_PIXELS = 89_478_485
"""Pixels of one picture, at most: Pillow's own limit against decompression bombs.

The model scales anything above 4.8 million pixels down, so larger pictures only cost memory.
"""

# Sent as they are. MPO is what many phones write: a JPEG with more pictures behind the first.
_MIME_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
# Pillow hands these to another program or to the operating system.
_UNSAFE_FORMATS = frozenset(("EPS", "WMF"))
_PNG_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))

_KIND = "picture"  # in error messages

# Enough base64 for the headers of most pictures; a whole number of groups of four.
_HEAD = 4 * 16_384


def to_url(source: Source) -> str:
    """Turn a picture into a URL that a server can be sent.

    Args:
        source: A path, a `file://` URL, a `data:` URL in base64, or an `http(s)://` URL.

    Returns:
        A `data:` URL with the type that the bytes have.

    Raises:
        MediaNotFoundError: If the path or URL leads nowhere.
        UnsupportedMediaError: If it leads to no picture, or `source` is a URL of another scheme.
        MediaError: If the picture has more than `MAX_PIXELS` pixels, is too long and narrow, or
            cannot be read or fetched.
    """
    inline = scheme(source) == "data"
    origin = _base64_origin(os.fspath(source)) if inline else shown(source)
    return from_bytes(read(source, _KIND), origin)


def from_bytes(data: bytes, origin: str) -> str:
    """Turn the bytes of a picture into a `data:` URL.

    JPEG, PNG, WEBP, GIF and BMP go as they are, other formats as PNG.

    Args:
        data: The picture.
        origin: Where it comes from, for error messages.

    Returns:
        A `data:` URL with the type that the bytes have.

    Raises:
        UnsupportedMediaError: If the bytes are no picture.
        MediaError: If the picture has more than `MAX_PIXELS` pixels, or is too long and narrow.
    """
    from PIL import Image  # noqa: PLC0415 - only requests with pictures pay for the import

    try:
        with _opened(data) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise _too_large(origin, f"{width}x{height}")
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise MediaError(
                    f"{origin} has {width}x{height} pixels: one side is more than {MAX_ASPECT} "
                    "times the other, which the model does not take; cut it into pieces"
                )
            picture.load()  # a file cut short shows only when it is decoded
            mime_type = _MIME_TYPES.get(picture.format or "")
            if mime_type is None:
                data, mime_type = _to_png(picture), "image/png"
    except Image.DecompressionBombError as error:
        raise _too_large(origin, "far more") from error
    except MediaError:
        raise
    # Pillow's readers raise whatever the bytes make them stumble over.
    except Exception as error:
        raise _not_a_picture(origin) from error
    return data_url(data, mime_type)


def data_url(data: bytes, mime_type: str) -> str:
    """Write bytes as a `data:` URL."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def size_of(url: str) -> tuple[int, int]:
    """Read the size of a picture from its header; no pixel is decoded.

    Args:
        url: A `data:` URL, as the other functions here return it.

    Returns:
        Width and height in pixels, as stored: a picture to be turned by its EXIF data is not.

    Raises:
        UnsupportedMediaError: If it holds no picture.
    """
    head, _, data = url.partition(",")
    for part in (data[:_HEAD], data):
        # Pillow's readers raise whatever the bytes make them stumble over.
        with suppress(Exception), _opened(decode_data_url(f"{head},{part}", _KIND)) as picture:
            return picture.size
    raise _not_a_picture(_base64_origin(url))


def _opened(data: bytes) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415 - only requests with pictures pay for the import

    Image.init()
    formats = [name for name in Image.OPEN if name not in _UNSAFE_FORMATS]
    return Image.open(io.BytesIO(data), formats=formats)


def _to_png(picture: "Image.Image") -> bytes:
    if picture.mode not in _PNG_MODES:
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    png = io.BytesIO()
    picture.save(png, "PNG")
    return png.getvalue()


def _too_large(origin: str, size: str) -> MediaError:
    return MediaError(
        f"{origin} has {size} pixels, more than the {MAX_PIXELS} that a picture may have: "
        "scale it down first"
    )


def _not_a_picture(origin: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(
        f"{origin} is not a picture, or a damaged one: accepted are {ACCEPTED}"
    )


def _base64_origin(data: str) -> str:
    return f"the picture of {len(data)} characters of base64"
