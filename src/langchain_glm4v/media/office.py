"""Slides and text documents of office programs: LibreOffice makes PDFs of them.

LibreOffice is a program of its own, and its formats let a file name pictures, texts and programs
that it wants to have loaded. So each conversion runs with a profile of its own in which macros are
off and links are not followed, may write to its own folder only, and is sent into a void when it
asks for a URL. Where the kernel has Landlock, it can read nothing but its own files and the
system's programs, libraries and fonts (see `confinement`); where not, only the formats are taken of
which LibreOffice follows no link to a file.
"""

import contextlib
import hashlib
import lzma
import os
import posixpath
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import confinement, pool, source, stopping

ACCEPTED = "PPTX, PPT, ODP, DOCX, DOC, ODT"

SECONDS = 120
"""Seconds for the conversion of a document, at most."""

MAX_UNPACKED = 1024**3
"""Bytes of all the files packed in a document, at most."""

INSTALL = (
    "install it: apt-get install --no-install-recommends libreoffice-impress-nogui "
    "libreoffice-writer-nogui fonts-noto-cjk"
)


@dataclass(frozen=True, slots=True)
class Format:
    """A format of documents.

    Attributes:
        name: As people call it.
        suffix: Of its files' names.
        is_safe: Whether LibreOffice loads nothing that such a document links to.
        has_notes: Whether `notes` reads it.
    """

    name: str
    suffix: str
    is_safe: bool = False
    has_notes: bool = False


_PPTX = Format("PPTX", ".pptx", is_safe=True, has_notes=True)
_DOCX = Format("DOCX", ".docx", is_safe=True)
_PPT, _DOC = Format("PPT", ".ppt"), Format("DOC", ".doc")

_ZIP, _OLE = b"PK\x03\x04", bytes.fromhex("d0cf11e0a1b11ae1")
# Where the parts are -> the format. A macro's presence changes nothing.
_OPEN_XML = {"ppt/": _PPTX, "word/": _DOCX}
# What the file `mimetype` holds -> the format.
_OPEN_DOCUMENT = {
    b"application/vnd.oasis.opendocument.presentation": Format("ODP", ".odp"),
    b"application/vnd.oasis.opendocument.text": Format("ODT", ".odt"),
}
# Name of a stream within -> the format.
_STREAMS = {"PowerPoint Document": _PPT, "WordDocument": _DOC}

_MAX_FILES = 100_000  # packed in a document
_MAX_XML = 32 * 1024**2  # bytes of one XML file that is read here
_KEPT = 4  # converted documents

# Values of LibreOffice's settings, by path and name: share/registry/main.xcd describes them.
_SETTINGS = {
    "Office.Common/Security/Scripting": {
        "BlockUntrustedRefererLinks": "true",
        "DisableMacrosExecution": "true",
        "MacroSecurityLevel": "3",
    },
    "Office.Writer/Content/Update": {"Link": "0"},
    # Blocked links are loaded all the same from drawings, so nobody is at the other end.
    "Inet/Settings": {
        "ooInetProxyType": "1",
        "ooInetHTTPProxyName": "127.0.0.1",
        "ooInetHTTPProxyPort": "9",
        "ooInetHTTPSProxyName": "127.0.0.1",
        "ooInetHTTPSProxyPort": "9",
        "ooInetFTPProxyName": "127.0.0.1",
        "ooInetFTPProxyPort": "9",
        "ooInetNoProxy": "",
    },
    # Else the pages would not be numbered as the slides are.
    "Office.Common/Filter/PDF/Export": {"ExportHiddenSlides": "true"},
}
_USUAL_PLACES = (
    "/usr/bin/soffice",
    "/usr/lib/libreoffice/program/soffice",
    "/opt/libreoffice*/program/soffice",
    "/snap/bin/libreoffice",
)

_OFFICE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_PACKAGE = "{http://schemas.openxmlformats.org/package/2006/relationships}"
_SLIDES = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
# What reading a damaged package raises: `zipfile`, `zlib` and expat have errors of their own.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, ElementTree.ParseError),
    *(EOFError, LookupError, NotImplementedError, OSError, RuntimeError, ValueError),
)
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"


class Converted:
    """A PDF made of a document; its file is removed when nothing refers to this any more.

    Attributes:
        path: Where it is.
    """

    def __init__(self, made: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix="glm4v-"))
        self.path = folder / "document.pdf"
        shutil.move(made, self.path)
        weakref.finalize(self, _remove, folder, os.getpid())


def to_pdf(path: Path, kind: Format, name: str) -> Converted:
    """Convert a document; the last ones are kept, so that each is converted once.

    Args:
        path: Where it is.
        kind: Its format.
        name: What error messages call it.

    Returns:
        The PDF: a page for each slide, hidden ones too.

    Raises:
        MediaError: LibreOffice is not installed, could not convert the document, needed more than
            `SECONDS`, or cannot be confined on this machine; or the file has too many bytes.
    """
    if (size := path.stat().st_size) > source.MAX_BYTES:
        raise MediaError(
            f"{name} has {size} bytes, more than the {source.MAX_BYTES} that a {kind.name} may "
            "have: save it as a PDF first"
        )
    if not kind.is_safe and confinement.landlock_version() == 0:
        raise MediaError(
            f"{name} is a {kind.name}, which could show other files of this machine, and this "
            "kernel has no Landlock to prevent it: save it as a PDF, PPTX or DOCX first"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    with _lock:
        known = _converted.pop(digest, None)
    if known is None:
        with pool.free(_slots), _folder() as folder:
            known = Converted(_convert(path, kind, name, folder))
    with _lock:
        _converted[digest] = known
        while len(_converted) > _KEPT:
            del _converted[next(iter(_converted))]
    return known


def soffice() -> str:
    """Find LibreOffice.

    Raises:
        MediaError: It is not installed.
    """
    for name in ("soffice", "libreoffice"):
        if found := shutil.which(name):
            return found
    for pattern in _USUAL_PLACES:
        for place in sorted(Path("/").glob(pattern[1:]), reverse=True):
            if os.access(place, os.X_OK):
                return str(place)
    raise MediaError(
        "reading slides and office documents needs LibreOffice, which is not installed: save it as "
        "a PDF first",
        setting=INSTALL,
    )


def _convert(path: Path, kind: Format, name: str, folder: Path) -> Path:
    """The PDF, in the folder."""
    program = soffice()
    document = folder / f"document{kind.suffix}"
    shutil.copyfile(path, document)
    profile = folder / "profile"
    (profile / "user").mkdir(parents=True)
    (profile / "user" / "registrymodifications.xcu").write_text(_registry(), encoding="utf-8")
    life, lifeline = pool.lifeline()
    command = [
        sys.executable,
        *("-I", "-S", confinement.__file__, str(folder), str(SECONDS), str(life.fileno())),
        program,
        f"-env:UserInstallation={profile.as_uri()}",
        *("--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck"),
        *("--convert-to", "pdf", "--outdir", str(folder), str(document)),
    ]
    kept = {key: os.environ[key] for key in ("HOME", "LANG", "PATH") if key in os.environ}
    places = dict.fromkeys(("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(folder))
    with life:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=kept | places,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[life.fileno()],
            start_new_session=True,
        )
    try:
        stopping.wait(lambda seconds: _has_ended(process, seconds), SECONDS)
    except TimeoutError as error:
        raise MediaError(
            f"converting {name} took LibreOffice more than {SECONDS} s and was stopped: save it "
            "as a PDF first"
        ) from error
    finally:
        # Its script starts a program, which starts another: all are of one group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        lifeline.close()
        _socket(profile).unlink(missing_ok=True)
    made = document.with_suffix(".pdf")
    # The exit status is 0 also where nothing could be read.
    if not made.is_file() or not made.stat().st_size:
        raise MediaError(
            f"LibreOffice could not convert {name}: the {kind.name} is damaged, has a password, or "
            f"needs more than {confinement.MEMORY // 1024**2} MiB of memory; save it as a PDF first"
        )
    return made


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _socket(profile: Path) -> Path:
    """Where LibreOffice listens for others of its profile; one that is killed leaves it behind."""
    digest = hashlib.md5(profile.as_uri().encode("utf-16-le"), usedforsecurity=False).digest()
    name = f"OSL_PIPE_{os.getuid()}_SingleOfficeIPC_{''.join(f'{byte:x}' for byte in digest)}"
    return Path(confinement.SOCKETS, name)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    # A program that has just been killed may still be writing.
    with tempfile.TemporaryDirectory(prefix="glm4v-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _registry() -> str:
    items = (
        f'<item oor:path="/org.openoffice.{path}"><prop oor:name="{name}" oor:op="fuse">'
        f"<value>{value}</value></prop></item>"
        for path, values in _SETTINGS.items()
        for name, value in values.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<oor:items xmlns:oor="http://openoffice.org/2001/registry">{"".join(items)}</oor:items>'
    )


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


_converted: dict[bytes, Converted] = {}
_lock = threading.Lock()
_slots = threading.BoundedSemaphore(pool.SIZE)


def _forget() -> None:
    """After a fork, the child has its own documents."""
    global _converted, _lock, _slots
    _converted, _lock, _slots = {}, threading.Lock(), threading.BoundedSemaphore(pool.SIZE)


os.register_at_fork(after_in_child=_forget)


# What follows runs in a decoding process.


def detect(path: str, name: str) -> Format | None:
    """Find the format of an office document by its content.

    Args:
        path: Where it is.
        name: What error messages call it.

    Returns:
        The format; None if it is no package of an office program, such as a PDF.

    Raises:
        UnsupportedMediaError: It is a spreadsheet or another kind of package, or damaged.
        MediaError: It is encrypted, or would unpack to more than `MAX_UNPACKED` bytes.
    """
    with Path(path).open("rb") as file:
        head = file.read(8)
        if head == _OLE:
            return _of_streams(file.read(source.MAX_BYTES), name)
    return _of_package(path, name) if head.startswith(_ZIP) else None


def notes(path: str, name: str) -> list[str]:
    """Read the speaker's notes of a PPTX.

    Args:
        path: Where it is.
        name: What error messages call it.

    Returns:
        The text for each slide, in their order, hidden ones included; "" where there is none.

    Raises:
        UnsupportedMediaError: It is damaged.
        MediaError: One of its files has more than 32 MiB.
    """
    try:
        with zipfile.ZipFile(path) as package:
            presentation = _target(package, "", "officeDocument", name)[0]
            order = _xml(package, presentation, name).iter(f"{_SLIDES}sldId")
            slides = _relations(package, presentation, name)
            return [
                _notes(package, slides[slide.attrib[f"{_OFFICE}id"]][1], name) for slide in order
            ]
    except MediaError:
        raise
    except _DAMAGED as error:
        raise UnsupportedMediaError(
            f"{name} is a damaged PPTX ({error!r}): open it in an office program and save it anew"
        ) from error


def _of_streams(data: bytes, name: str) -> Format:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise _encrypted(name)
    for stream, kind in _STREAMS.items():
        if stream.encode("utf-16-le") in data:
            return kind
    raise _unsupported(name)


def _of_package(path: str, name: str) -> Format:
    try:
        with zipfile.ZipFile(path) as package:
            files = package.infolist()
            unpacked = sum(file.file_size for file in files)
            if unpacked > MAX_UNPACKED or len(files) > _MAX_FILES:
                raise MediaError(
                    f"{name} would unpack to {len(files)} files of {unpacked} bytes, and "
                    f"{_MAX_FILES} of {MAX_UNPACKED} are accepted: save it as a PDF first"
                )
            for start, kind in _OPEN_XML.items():
                if any(file.filename.startswith(start) for file in files):
                    return kind
            kind_of = _OPEN_DOCUMENT.get(_read(package, "mimetype", name).strip())
            if kind_of is None:
                raise _unsupported(name)
            if b"encryption-data" in _read(package, "META-INF/manifest.xml", name):
                raise _encrypted(name)
            return kind_of
    except MediaError:
        raise
    except _DAMAGED as error:
        raise _unsupported(name) from error


def _notes(package: zipfile.ZipFile, slide: str, name: str) -> str:
    texts = []
    for page in _target(package, slide, "notesSlide", name):
        for shape in _xml(package, page, name).iter(f"{_SLIDES}sp"):
            # The others hold the picture of the slide, its number and the date.
            if any(place.get("type") == "body" for place in shape.iter(f"{_SLIDES}ph")):
                texts += [_text(paragraph) for paragraph in shape.iter(f"{_DRAWING}p")]
    return "\n".join(texts).strip()


def _text(paragraph: ElementTree.Element) -> str:
    breaks = f"{_DRAWING}br"
    parts = (part for part in paragraph.iter() if part.tag in (f"{_DRAWING}t", breaks))
    return "".join("\n" if part.tag == breaks else part.text or "" for part in parts)


def _target(package: zipfile.ZipFile, part: str, kind: str, name: str) -> list[str]:
    """Names of the parts that a part is in a relation of a kind with."""
    found = _relations(package, part, name).values()
    return [target for relation, target in found if relation == kind]


def _relations(package: zipfile.ZipFile, part: str, name: str) -> dict[str, tuple[str, str]]:
    """Id of a part's relation -> its kind, and the name of the other part."""
    folder, _, file = part.rpartition("/")
    path = posixpath.join(folder, "_rels", f"{file}.rels")
    if path not in package.NameToInfo:
        return {}
    relations = _xml(package, path, name).iter(f"{_PACKAGE}Relationship")
    return {
        relation.attrib["Id"]: (
            relation.attrib["Type"].rpartition("/")[2],
            posixpath.normpath(posixpath.join("/", folder, relation.attrib["Target"])).lstrip("/"),
        )
        for relation in relations
    }


def _xml(package: zipfile.ZipFile, part: str, name: str) -> ElementTree.Element:
    # Expat itself stops entities that grow, and this process has a limit of memory and time.
    return ElementTree.fromstring(_read(package, part, name))


def _read(package: zipfile.ZipFile, part: str, name: str) -> bytes:
    with package.open(part) as file:
        data = file.read(_MAX_XML + 1)
    if len(data) > _MAX_XML:
        raise MediaError(
            f"{part} in {name} has more than {_MAX_XML} bytes: save the document as a PDF first"
        )
    return data


def _unsupported(name: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(
        f"{name} is not a document that can be read, or a damaged one: accepted are PDF, "
        f"{ACCEPTED}; save it as a PDF first"
    )


def _encrypted(name: str) -> MediaError:
    return MediaError(
        f"{name} is encrypted, and only PDFs can be opened with a password: save it without one"
    )
