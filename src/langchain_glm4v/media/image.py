"""Pictures: from a path, a URL or bytes to the URL that goes into a request.

A picture is judged by its bytes, never by its name or a stated type.
"""

import base64
import binascii
import io
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError

if TYPE_CHECKING:
    from PIL import Image

ACCEPTED = "JPEG, PNG, WEBP, GIF, BMP, or another raster format that Pillow reads"

MAX_PIXELS = 89_478_485
"""Pixels of one picture, at most: Pillow's own limit against decompression bombs.

The model scales anything above 4.8 million pixels down, so larger pictures only cost memory.
"""

MAX_ASPECT = 200
"""Longer side by shorter side, at most: the model's image processor refuses more."""

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of the file of one picture, at most: what vLLM itself downloads at most."""

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

_SHOWN = 200  # characters of a path or URL in an error message

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def to_url(source: str | os.PathLike[str]) -> str:
    """Turn a picture into a URL that a server can be sent.

    Args:
        source: An `http(s)://` URL, which stays as it is; a `data:` URL in base64; a `file://`
            URL; or a path.

    Returns:
        The `http(s)://` URL, or a `data:` URL with the type that the bytes have.

    Raises:
        MediaNotFoundError: If the path leads nowhere.
        UnsupportedMediaError: If it leads to no picture, or `source` is a URL of another scheme.
        MediaError: If the picture has more than `MAX_PIXELS` pixels, is too long and narrow, or
            cannot be read.
    """
    text = os.fspath(source)
    scheme = _SCHEME.match(text) if isinstance(source, str) else None
    match scheme.group().lower() if scheme else "":
        case "http:" | "https:":
            return text
        case "data:":
            return _from_data_url(text)
        case "file:":
            return _from_path(_path_of(text))
        case "":
            return _from_path(text)
        case other if text.startswith("//", len(other)):
            raise UnsupportedMediaError(
                f"cannot read a picture from {_short(text)}: accepted are http://, https://, "
                "data:, file:// and local paths"
            )
        case _:  # a file name with a colon in it
            return _from_path(text)


def from_base64(data: str | bytes) -> str:
    """Turn a picture in base64 into a `data:` URL.

    Args:
        data: The picture's bytes in base64; line breaks are allowed.

    Returns:
        A `data:` URL with the type that the bytes have.

    Raises:
        UnsupportedMediaError: If `data` is not base64, or holds no picture.
        MediaError: If the picture has more than `MAX_PIXELS` pixels, or is too long and narrow.
    """
    origin = f"the image of {len(data)} characters of base64"
    try:
        compact = b"".join(data.split()) if isinstance(data, bytes) else "".join(data.split())
        picture = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnsupportedMediaError(
            f"{origin} is not valid base64 ({error}): "
            "encode the bytes of a picture with base64.b64encode"
        ) from error
    return from_bytes(picture, origin)


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

    Image.init()
    formats = [name for name in Image.OPEN if name not in _UNSAFE_FORMATS]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
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
        raise UnsupportedMediaError(
            f"{origin} is not a picture, or a damaged one: accepted are {ACCEPTED}"
        ) from error
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def _from_data_url(url: str) -> str:
    head, _, data = url.partition(",")
    if not head.lower().endswith(";base64"):
        raise UnsupportedMediaError(
            f"the URL {_short(url)} is not in base64: write it as data:image/png;base64,…"
        )
    return from_base64(unquote_to_bytes(data).decode("ascii", "replace"))


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UnsupportedMediaError(
            f"{_short(url)} names the host {parts.netloc!r}: "
            "a local file is file:///path, with three slashes"
        )
    return url2pathname(parts.path)


def _from_path(path: str) -> str:
    origin = _short(path)
    try:
        file = Path(path).expanduser()
        found = file.stat()
        # Devices and pipes may never end, so only regular files are read.
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedMediaError(f"{origin} is not a file: accepted are {ACCEPTED}")
        if found.st_size > MAX_BYTES:
            raise MediaError(
                f"{origin} has {found.st_size} bytes, more than the {MAX_BYTES} that a picture "
                "may have: save it smaller first"
            )
        data = file.read_bytes()
    except MediaError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFoundError(
            f"no picture at {origin}: "
            f"give the path of a file ({ACCEPTED}), or an http(s):// or data: URL"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: no such user as in ~user
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"cannot read the picture {origin}: {reason}") from error
    return from_bytes(data, origin)


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


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
