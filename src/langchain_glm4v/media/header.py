"""Size of a picture from its header, without a decoder: of the formats that are sent."""

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
# Markers of a JPEG that nothing follows, and those that look like the begin of a frame.
_LONE_MARKERS = frozenset((0x01, *range(0xD0, 0xD8)))
_NO_FRAMES = frozenset((0xC4, 0xC8, 0xCC))


def size_of(data: bytes) -> tuple[int, int] | None:
    """Read width and height of a JPEG, PNG or WEBP, as stored: nothing is turned.

    Args:
        data: The picture, or its begin.

    Returns:
        Pixels; None if `data` is of another format, or ends too early.
    """
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (IndexError, struct.error):
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = len(_JPEG)
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a marker may be preceded by any number of these
            at += 1
        elif marker in _LONE_MARKERS:
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b"VP8X":
            low, high, low_2, high_2 = struct.unpack_from("<HBHB", data, 24)
            return 1 + low + (high << 16), 1 + low_2 + (high_2 << 16)
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None
