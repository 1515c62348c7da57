"""Invisible text in a PDF, over the print that it is: what search, selection and copying find.

Each word is as wide and high as its print, in a font without shapes whose characters are all half
as wide as high; a table in the PDF tells which characters they are, of whatever script. The PDF is
written in a decoding process (`pool`).
"""

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from langchain_glm4v.errors import MediaError
from langchain_glm4v.media import pool
from langchain_glm4v.media.document import import_pymupdf
from langchain_glm4v.media.scan import Turn

SECONDS_PER_PAGE = 2
"""Seconds that a page may take, beside those that any file may take."""

_FONT = "GLM4VText"
_HALF = 500  # thousandths of the height of a character: its width
_ASCENT = 800  # thousandths of its height above the line
_CODES = 0xFFFF  # at most
_IN_BLOCK = 100  # lines of a table that may stand together
_FIT = "FontDescriptor/Flags 4/ItalicAngle 0/StemV 80/CapHeight 800/FontBBox[0 -200 500 800]"

Point: TypeAlias = tuple[float, float]


class LayerWord(NamedTuple):
    """A word of a layer, with what is left and right of it in shares of the page, 0 to 1.

    Attributes:
        text: The word, and the space after it, if there is any.
        left: Left edge.
        top: Upper edge, in the middle of the word.
        right: Right edge.
        bottom: Lower edge, in the middle.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float


class Layer(NamedTuple):
    """The text of a page.

    Attributes:
        number: The page's number, counted from 0.
        turn: Degrees by which the page, as it is shown, is turned for the words to be upright.
        slope: By how much the lines fall, in shares of the turned page's height for its width.
        words: In the order in which they are read.
    """

    number: int
    turn: Turn
    slope: float
    words: Sequence[LayerWord]


def spool(layers: Iterable[Layer], path: Path) -> int:
    """Write layers into a file, for `write`; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for layer in layers:
            file.write(json.dumps(layer) + "\n")
            count += 1
    return count


def write(pdf: Path, layers: Path, *, password: str | None, name: str, pages: int) -> None:
    """Put layers into a PDF; what is on its pages stays as it is.

    The file grows by what is new. One that is damaged is written anew.

    Args:
        pdf: The PDF, which is changed.
        layers: The file that `spool` wrote.
        password: The password of an encrypted PDF, which it stays.
        name: What error messages call it.
        pages: How many layers there are: each adds to the time that it may take.

    Raises:
        MediaError: If it cannot be changed or written.
    """
    timeout = pool.TIMEOUT + SECONDS_PER_PAGE * pages
    pool.call(_write, str(pdf), str(layers), password, name, subject=name, timeout=timeout)


# What follows runs in a decoding process.


def _write(pdf: str, layers: str, password: str | None, name: str) -> None:
    pymupdf = import_pymupdf()
    try:
        with pymupdf.open(pdf, filetype="pdf") as document:
            if document.needs_pass:
                document.authenticate(password or "")
            _keep_key(document)
            _Writer(document).add(_spooled(layers))
            if document.can_save_incrementally():
                document.saveIncr()
                return
            anew = f"{pdf}.anew"
            document.save(anew, encryption=pymupdf.PDF_ENCRYPT_KEEP, deflate=True)
        Path(anew).replace(pdf)
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        raise MediaError(
            f"cannot add text to {name}: {' '.join(str(error).split())}; save the document anew"
        ) from error


def _keep_key(document: Any) -> None:
    """Give an encrypted document without an identifier an empty one.

    Keys are made of the identifier too, and MuPDF would make one up: nobody could open the file.
    """
    _, encryption = document.xref_get_key(-1, "Encrypt")
    _, identifier = document.xref_get_key(-1, "ID")
    if encryption != "null" and identifier == "null":
        document.xref_set_key(-1, "ID", "[<> <>]")


def _spooled(path: str) -> Iterator[Layer]:
    with Path(path).open(encoding="utf-8") as file:
        for line in file:
            number, turn, slope, words = json.loads(line)
            yield Layer(number, turn, slope, [LayerWord(*word) for word in words])


class _Writer:
    """Adds layers to a document of PyMuPDF's."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._codes: dict[str, int] = {}
        self._font = document.get_new_xref()

    def add(self, layers: Iterable[Layer]) -> None:
        for layer in layers:
            page = self._document[layer.number]
            self._add_before(page, self._content(page, layer))
            self._add_font(page)
            import_pymupdf().TOOLS.store_shrink(100)
        self._write_font()

    def _content(self, page: Any, layer: Layer) -> bytes:
        """The operators that write a layer."""
        origin, across, down = _axes(page, layer.turn)
        parts = [f"q BT 3 Tr /{_FONT} 1 Tf"]
        for text, left, top, right, bottom in layer.words:
            codes = [code for code in map(self._code, text) if code]
            if not codes:
                continue
            wide, high = right - left, bottom - top
            # The middle of a word is where it should be, and it falls as its line does.
            line = top + high * _ASCENT / 1000 - layer.slope * wide / 2
            each = 1000 * wide / _HALF / len(codes)
            matrix = (
                *(each * (a + layer.slope * d) for a, d in zip(across, down, strict=True)),
                *(-high * d for d in down),
                *(o + left * a + line * d for o, a, d in zip(origin, across, down, strict=True)),
            )
            numbers = " ".join(f"{number:.3f}" for number in matrix)
            parts.append(f"{numbers} Tm <{''.join(f'{code:04x}' for code in codes)}> Tj")
        return "\n".join([*parts, "ET Q", ""]).encode("ascii")

    def _code(self, character: str) -> int:
        """The number of a character in the font; 0 if there are too many."""
        if character not in self._codes and len(self._codes) < _CODES:
            self._codes[character] = len(self._codes) + 1
        return self._codes.get(character, 0)

    def _add_before(self, page: Any, content: bytes) -> None:
        """Put content before that of a page, where the page has moved or turned nothing yet."""
        document = self._document
        xref = self._stream(content)
        old = [f"{number} 0 R" for number in page.get_contents()]
        document.xref_set_key(page.xref, "Contents", f"[{' '.join([f'{xref} 0 R', *old])}]")

    def _add_font(self, page: Any) -> None:
        """Name the font in the resources of a page, which others may share."""
        document = self._document
        holder, path = page.xref, "Resources"
        while document.xref_get_key(holder, path)[0] == "null":
            kind, parent = document.xref_get_key(holder, "Parent")
            if kind != "xref":
                holder = page.xref
                break
            holder = int(parent.split()[0])
        for name in ("Font", _FONT):
            kind, value = document.xref_get_key(holder, path)
            if kind == "xref":
                holder, path = int(value.split()[0]), name
            else:
                path = f"{path}/{name}"
        document.xref_set_key(holder, path, f"{self._font} 0 R")

    def _write_font(self) -> None:
        """The font with the characters that were used: see PDF 32000-1, 9.7.4 and 9.10.3."""
        file = self._stream(_font_file())
        shapes = self._stream(bytes(2 * len(self._codes) + 2))  # each has the one shape there is
        table = self._stream(_table(self._codes))
        descriptor = self._object(
            f"/Type/{_FIT}/FontName/{_FONT}/Ascent {_ASCENT}/Descent {_ASCENT - 1000}"
            f"/FontFile2 {file} 0 R"
        )
        descendant = self._object(
            f"/Type/Font/Subtype/CIDFontType2/BaseFont/{_FONT}/DW {_HALF}"
            "/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
            f"/CIDToGIDMap {shapes} 0 R/FontDescriptor {descriptor} 0 R"
        )
        self._document.update_object(
            self._font,
            f"<</Type/Font/Subtype/Type0/BaseFont/{_FONT}/Encoding/Identity-H"
            f"/DescendantFonts[{descendant} 0 R]/ToUnicode {table} 0 R>>",
        )

    def _object(self, keys: str) -> int:
        xref: int = self._document.get_new_xref()
        self._document.update_object(xref, f"<<{keys}>>")
        return xref

    def _stream(self, data: bytes) -> int:
        xref = self._object("")
        self._document.update_stream(xref, data, new=True)
        return xref


def _axes(page: Any, turn: Turn) -> tuple[Point, Point, Point]:
    """The upper left corner of a page turned, and what its width and height are in the PDF."""
    media, crop = page.mediabox, page.cropbox  # which counts from the top of the other
    left, right = max(crop.x0, media.x0), min(crop.x1, media.x1)
    low, high = max(media.y1 - crop.y1, media.y0), min(media.y1 - crop.y0, media.y1)

    def at(across: float, down: float) -> Point:
        shown = {
            0: (across, down),
            90: (down, 1 - across),
            180: (1 - across, 1 - down),
            270: (1 - down, across),
        }[(turn + page.rotation) % 360]
        return left + shown[0] * (right - left), high - shown[1] * (high - low)

    corner, end, foot = at(0, 0), at(1, 0), at(0, 1)
    return (
        corner,
        (end[0] - corner[0], end[1] - corner[1]),
        (foot[0] - corner[0], foot[1] - corner[1]),
    )


def _table(codes: Mapping[str, int]) -> bytes:
    """Which characters codes are, as a CMap."""
    lines = [
        f"<{code:04x}><{character.encode('utf-16-be', 'replace').hex()}>"
        for character, code in codes.items()
    ]
    blocks = [lines[at : at + _IN_BLOCK] for at in range(0, len(lines), _IN_BLOCK)]
    parts = [
        "/CIDInit/ProcSet findresource begin 12 dict begin begincmap",
        "/CIDSystemInfo<</Registry(Adobe)/Ordering(UCS)/Supplement 0>>def",
        "/CMapName/Adobe-Identity-UCS def /CMapType 2 def",
        "1 begincodespacerange <0000><ffff> endcodespacerange",
        *(f"{len(block)} beginbfchar\n{chr(10).join(block)}\nendbfchar" for block in blocks),
        "endcmap CMapName currentdict/CMap defineresource pop end end",
    ]
    return "\n".join(parts).encode("ascii")


def _font_file() -> bytes:
    """A TrueType font of one glyph, which has no shape."""
    ascent, descent = _ASCENT, _ASCENT - 1000
    tables = {
        b"glyf": bytes(4),
        b"head": struct.pack(
            ">IIIIHHqqhhhhHHhhh",
            *(0x10000, 0x10000, 0, 0x5F0F3CF5, 0, 1000, 0, 0),
            *(0, descent, _HALF, ascent, 0, 8, 2, 0, 0),
        ),
        b"hhea": struct.pack(
            ">Ihhh H hhh hhh hhhh h H".replace(" ", ""),
            *(0x10000, ascent, descent, 0, _HALF, 0, 0, _HALF, 1, 0, 0, 0, 0, 0, 0, 0, 1),
        ),
        b"hmtx": struct.pack(">Hh", _HALF, 0),
        b"loca": struct.pack(">HH", 0, 0),
        b"maxp": struct.pack(">IH13H", 0x10000, 1, *(0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0)),
    }
    at = 12 + 16 * len(tables)
    directory, body = struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, 32), b""
    for tag, data in tables.items():
        padded = data + bytes(-len(data) % 4)
        total = sum(struct.unpack(f">{len(padded) // 4}I", padded)) & 0xFFFFFFFF
        directory += struct.pack(">4sIII", tag, total, at + len(body), len(data))
        body += padded
    return directory + body
