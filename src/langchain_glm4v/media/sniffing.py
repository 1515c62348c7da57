"""What kind of file some bytes are, judged by their magic numbers and never by a name.

Nothing is decoded: a file that looks like a picture may still be none, which its decoder says.
"""

import re
from typing import Literal

UNKNOWN = "application/octet-stream"
HTML = "text/html"

HEAD = 1024
"""Bytes among which a PDF or a web page shows itself."""

_DIRECTORY = 1024**2  # bytes at the end of an archive that hold the names in it

# The first that fits the beginning of a file counts.
_BEGINNINGS = [
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF....WEBP", "image/webp"),
        (rb"BM....\0{4}", "image/bmp"),
        (rb"II[*+]\0|MM\0[*+]", "image/tiff"),
        # ISO's base media files tell by the brand what they are; most are films.
        (rb"....ftypavi[fs]", "image/avif"),
        (rb"....ftyp(hei[cmx]|hevc|mif1|msf1)", "image/heic"),
        (rb"....(ftypqt  |moov|mdat|wide|free|skip|pnot)", "video/quicktime"),
        (rb"....ftyp", "video/mp4"),
        (rb"\x1aE\xdf\xa3.{0,60}webm", "video/webm"),
        (rb"\x1aE\xdf\xa3", "video/x-matroska"),
        (rb"RIFF....AVI ", "video/x-msvideo"),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-asf"),
        (rb"FLV\x01", "video/x-flv"),
        (rb"\0\0\x01[\xb3\xba]", "video/mpeg"),
        (rb"G.{187}G", "video/mp2t"),  # packets of 188 bytes
        (
            rb"(\xef\xbb\xbf)?\s*(<\?xml.{,200}?\?>\s*)?(<!--.*?-->\s*)?"
            rb"(?i:<(!doctype\s+html|html|head|body|script)\b)",
            HTML,
        ),
        (rb".{,1019}%PDF-", "application/pdf"),
    )
]
# The first entry of such an archive is not packed.
_OPEN_DOCUMENT = re.compile(
    rb"PK\x03\x04.{26}mimetype(application/vnd\.oasis\.opendocument\.[a-z-]+)", re.DOTALL
)
_ARCHIVE = b"PK\x03\x04"
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# Names in the directories of archives and compound files, which tell one document from another.
_OPEN_XML = "application/vnd.openxmlformats-officedocument"
_ENTRIES = {
    b"ppt/presentation.xml": f"{_OPEN_XML}.presentationml.presentation",
    b"word/document.xml": f"{_OPEN_XML}.wordprocessingml.document",
    b"xl/workbook.xml": f"{_OPEN_XML}.spreadsheetml.sheet",
}
_STREAMS = {
    "PowerPoint Document".encode("utf-16-le"): "application/vnd.ms-powerpoint",
    "WordDocument".encode("utf-16-le"): "application/msword",
    "Workbook".encode("utf-16-le"): "application/vnd.ms-excel",
}


def mime_type(data: bytes) -> str:
    """Tell the MIME type of a picture, video, PDF, office document or web page.

    Args:
        data: The whole file: what tells office documents apart may stand at its end.

    Returns:
        The type; `UNKNOWN` for everything else, pictures of rare formats among it.
    """
    head = data[:HEAD]
    if document := _OPEN_DOCUMENT.match(head):
        return document[1].decode("ascii")
    if head.startswith(_ARCHIVE):
        names = data[-_DIRECTORY:]
        return next((kind for name, kind in _ENTRIES.items() if name in names), UNKNOWN)
    if head.startswith(_COMPOUND):
        return next((kind for name, kind in _STREAMS.items() if name in data), UNKNOWN)
    return next((kind for pattern, kind in _BEGINNINGS if pattern.match(head)), UNKNOWN)


def medium_kind(begin: bytes) -> Literal["picture", "document", "video"] | None:
    """Tell whether a file is a picture, a document or a video; None if neither shows.

    Args:
        begin: Its first `HEAD` bytes. Of what office documents are packed in, they do not tell
            which is inside, so all such files count as documents.
    """
    if begin.startswith((_ARCHIVE, _COMPOUND)):
        return "document"
    return kind_of_mime_type(mime_type(begin))


def kind_of_mime_type(
    mime_type: str | None,
) -> Literal["picture", "document", "video"] | None:
    """Tell of what kind a MIME type is; None if it is none that can be sent."""
    match (mime_type or "").lower().split("/"):
        case ["image", _]:
            return "picture"
        case ["video", _]:
            return "video"
        case ["application", "pdf"]:
            return "document"
        case _:
            return None
