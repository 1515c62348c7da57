"""Office documents: found by their content, their notes, and what LibreOffice makes of them."""

import http.server
import io
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from waiting import wait_for_end

from langchain_glm4v.errors import MediaError, UnsupportedMediaError
from langchain_glm4v.media import confinement, document, office, pool

DOCUMENTS = Path(__file__).parents[1] / "documents"
DECK = DOCUMENTS / "deck.pptx"

OLE = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)
ODF = "application/vnd.oasis.opendocument."
MANIFEST = "META-INF/manifest.xml"
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"

needs_libreoffice = pytest.mark.skipif(
    not (shutil.which("soffice") or shutil.which("libreoffice")),
    reason="LibreOffice is not installed",
)
needs_landlock = pytest.mark.skipif(
    confinement.landlock_version() == 0, reason="this kernel has no Landlock"
)


def package(files: dict[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return packed.getvalue()


def changed(path: Path, part: str, old: bytes, new: bytes) -> bytes:
    """A package with a text in one of its parts replaced."""
    with zipfile.ZipFile(path) as given:
        files: dict[str, str | bytes] = {name: given.read(name) for name in given.namelist()}
    content = files[part]
    assert isinstance(content, bytes)
    assert old in content
    return package({**files, part: content.replace(old, new)})


def odf(kind: str, body: str, **parts: str) -> bytes:
    spaces = (
        "".join(
            f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{uri}:1.0"'
            for name, uri in {
                **{name: name for name in ("office", "text", "style", "script")},
                "draw": "drawing",
                "svg": "svg-compatible",
            }.items()
        )
        + ' xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    kinds = {"content.xml": "text/xml", "Basic/": "", "/": ODF + kind}
    entries = "".join(
        f'<m:file-entry m:full-path="{path}" m:media-type="{mime}"/>'
        for path, mime in {**kinds, **dict.fromkeys(parts, "text/xml")}.items()
    )
    space = "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"
    return package(
        {
            "mimetype": ODF + kind,
            MANIFEST: f'<m:manifest xmlns:m="{space}" m:version="1.2">{entries}</m:manifest>',
            "content.xml": f'<office:document-content{spaces} office:version="1.2">{body}'
            "</office:document-content>",
            **parts,
        }
    )


def frame(inner: str) -> str:
    box = 'svg:width="9cm" svg:height="9cm" svg:x="1cm" svg:y="1cm"'
    return f"<draw:frame {box}>{inner}</draw:frame>"


def odp(link: str) -> bytes:
    """A slide with a picture and an object that are elsewhere."""
    page = frame(f'<draw:image xlink:href="{link}"/>') + frame(
        f'<draw:object xlink:href="{link}"/>'
    )
    return odf(
        "presentation",
        f'<office:body><office:presentation><draw:page draw:name="p">{page}</draw:page>'
        "</office:presentation></office:body>",
    )


def odt(link: str) -> bytes:
    text = (
        f"<text:p>Hello{frame(f'<draw:image xlink:href={link!r}/>')}</text:p>"
        f'<text:section text:name="s"><text:section-source xlink:href="{link}"/></text:section>'
    )
    return odf("text", f"<office:body><office:text>{text}</office:text></office:body>")


def relations(*given: tuple[str, str, str]) -> str:
    items = "".join(
        f'<Relationship Id="{name}" Type="{REL}/{kind}" Target="{target}"'
        f"{' TargetMode=' + repr('External') if '://' in target else ''}/>"
        for name, kind, target in given
    )
    return f'<Relationships xmlns="{RELATIONS}">{items}</Relationships>'


def docx(link: str) -> bytes:
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    word = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    xml = "application/vnd.openxmlformats-package.relationships+xml"
    main = "http://schemas.openxmlformats.org/drawingml/2006"
    shape = (
        f'<pic:pic xmlns:pic="{main}/picture"><pic:nvPicPr><pic:cNvPr id="0" name="p"/>'
        '<pic:cNvPicPr/></pic:nvPicPr><pic:blipFill><a:blip r:link="i"/><a:stretch>'
        '<a:fillRect/></a:stretch></pic:blipFill><pic:spPr><a:xfrm><a:off x="0" y="0"/>'
        '<a:ext cx="990000" cy="990000"/></a:xfrm><a:prstGeom prst="rect"/></pic:spPr></pic:pic>'
    )
    drawing = (
        f'<w:drawing><wp:inline xmlns:wp="{main}/wordprocessingDrawing">'
        '<wp:extent cx="990000" cy="990000"/><wp:docPr id="1" name="p"/>'
        f'<a:graphic xmlns:a="{main}/main"><a:graphicData uri="{main}/picture">{shape}'
        "</a:graphicData></a:graphic></wp:inline></w:drawing>"
    )
    return package(
        {
            "[Content_Types].xml": f'<Types xmlns="{types}">'
            f'<Default Extension="rels" ContentType="{xml}"/>'
            f'<Override PartName="/word/document.xml" ContentType="{word}.document.main+xml"/>'
            "</Types>",
            "_rels/.rels": relations(("r", "officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": relations(("i", "image", link)),
            "word/document.xml": '<w:document xmlns:w="http://schemas.openxmlformats.org/'
            f'wordprocessingml/2006/main" xmlns:r="{REL}"><w:body><w:p><w:r><w:t>Hello</w:t>'
            f"{drawing}</w:r></w:p></w:body></w:document>",
        }
    )


def pptx(link: str) -> bytes:
    """The deck, with a movie's picture on its last slide that is elsewhere."""
    rels = "ppt/slides/_rels/slide3.xml.rels"
    extra = relations(("rIdX", "image", link)).partition(">")[2]
    with zipfile.ZipFile(DECK) as given:
        files: dict[str, str | bytes] = {name: given.read(name) for name in given.namelist()}
    shape = (
        '<p:pic><p:nvPicPr><p:cNvPr id="98" name="x"/><p:cNvPicPr/><p:nvPr/></p:nvPicPr>'
        '<p:blipFill><a:blip r:link="rIdX"/><a:stretch><a:fillRect/></a:stretch></p:blipFill>'
        '<p:spPr><a:xfrm><a:off x="0" y="0"/><a:ext cx="990000" cy="990000"/></a:xfrm>'
        '<a:prstGeom prst="rect"/></p:spPr></p:pic></p:spTree>'
    )
    for part, old, new in (
        (rels, "</Relationships>", extra),
        ("ppt/slides/slide3.xml", "</p:spTree>", shape),
    ):
        content = files[part]
        assert isinstance(content, bytes)
        files[part] = content.replace(old.encode(), new.encode())
    return package(files)


@pytest.fixture(autouse=True)
def nothing_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "_converted", {})


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (DECK.read_bytes(), "PPTX"),
        ((DOCUMENTS / "report.doc").read_bytes(), "DOC"),
        (OLE + "PowerPoint Document".encode("utf-16-le"), "PPT"),
        (docx("x"), "DOCX"),
        (odp("x"), "ODP"),
        (odt("x"), "ODT"),
    ],
)
def test_formats_are_found_by_content(tmp_path: Path, data: bytes, name: str) -> None:
    path = tmp_path / "name.pdf"
    path.write_bytes(data)
    found = pool.call(office.detect, str(path), "'x'", subject="x")

    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("data", [b"", b"%PDF-1.7", b"PK", b"text"])
def test_what_is_no_package(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "name.pptx"
    path.write_bytes(data)
    assert pool.call(office.detect, str(path), "'x'", subject="x") is None


def encrypted_odf() -> bytes:
    with zipfile.ZipFile(io.BytesIO(odt("x"))) as given:
        files: dict[str, str | bytes] = {name: given.read(name) for name in given.namelist()}
    return package({**files, MANIFEST: "<m><manifest:encryption-data/></m>"})


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (package({"xl/workbook.xml": ""}), r"accepted are PDF, PPTX, .*save it as a PDF"),
        (package({"mimetype": ODF + "spreadsheet"}), "accepted are"),
        (package({"a.txt": "x"}), "accepted are"),
        (OLE + "Workbook".encode("utf-16-le"), "accepted are"),
        (DECK.read_bytes()[:9_000], "or a damaged one"),
        (odt("x").replace(b"mimetype", b"mimetyqe", 1), "or a damaged one"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "is encrypted"),
        (encrypted_odf(), "is encrypted, and only PDFs .*: save it without one"),
        (package({f"ppt/{i}": "" for i in range(100_001)}), "unpack to 100001 files"),
        (package({"mimetype": bytes(33 * 1024**2)}), "mimetype in 'x.odt' has more than 33554432"),
    ],
)
def test_what_is_refused(data: bytes, hint: str) -> None:
    with pytest.raises(MediaError, match=hint) as error:
        document.info(data, name="x.odt")
    assert str(error.value).startswith(("'x.odt'", "mimetype"))


def test_a_bomb() -> None:
    """A package whose list of contents says that it unpacks to 1.1 GB."""
    piece = bytes(11 * 1024**2)
    data = package({f"ppt/{number}": piece for number in range(100)})
    assert len(data) < 6_000_000
    with pytest.raises(MediaError, match="unpack to 100 files of 1153433600 bytes"):
        document.info(data)


def test_notes() -> None:
    assert pool.call(office.notes, str(DECK), "x", subject="x") == [
        "Say hello first.\nThen the numbers.",
        "Skip this one.",
        "",
    ]


LAUGHS = (
    '<!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 40}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    + "]><l>&i;</l>"
)


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("_rels/.rels", b"ppt/presentation.xml", b"../../../etc/passwd"),
        ("_rels/.rels", b'officeDocument"', b'other"'),
        ("ppt/_rels/presentation.xml.rels", b"Id=", b"Ib="),
        ("ppt/presentation.xml", b"<p:", b"<q:"),
        ("ppt/notesSlides/notesSlide1.xml", b"</p:notes>", b""),
        ("ppt/notesSlides/notesSlide1.xml", b"<?xml", LAUGHS.encode() + b"<?xml"),
    ],
)
def test_notes_of_a_damaged_deck(tmp_path: Path, part: str, old: bytes, new: bytes) -> None:
    path = tmp_path / "deck.pptx"
    path.write_bytes(changed(DECK, part, old, new))
    with pytest.raises(UnsupportedMediaError, match=r"'x' is a damaged PPTX .*save it anew"):
        pool.call(office.notes, str(path), "'x'", subject="x")


def test_notes_that_are_too_long(tmp_path: Path) -> None:
    path = tmp_path / "deck.pptx"
    part = "ppt/notesSlides/notesSlide1.xml"
    path.write_bytes(changed(DECK, part, b"Say hello", b"a" * 33 * 1024**2))
    with pytest.raises(MediaError, match=f"{part} in 'x' has more than 33554432 bytes"):
        pool.call(office.notes, str(path), "'x'", subject="x")


# What does not depend on LibreOffice: a program in its place.


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a script can be written that is taken for LibreOffice."""
    path = tmp_path / "office" / "program" / "soffice"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_no_libreoffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(office, "_USUAL_PLACES", (str(tmp_path / "*/soffice"),))
    with pytest.raises(
        MediaError, match=r"needs LibreOffice.*, or install it: apt-get install .*nogui"
    ):
        next(document.pages(DECK))
    (tmp_path / "7.4").mkdir()
    write_script(tmp_path / "7.4" / "soffice", "true")
    assert office.soffice() == str(tmp_path / "7.4" / "soffice")


def test_the_file_counts_and_not_the_exit_status(program: Path) -> None:
    write_script(program, "exit 0")
    with pytest.raises(MediaError, match=r"could not convert '.*deck.pptx': the PPTX is damaged"):
        next(document.pages(DECK))


def test_a_conversion_that_hangs(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(program, "sleep 1234 & echo $! > $TMPDIR/../child; sleep 1234")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    # So that it can tell of its child.
    monkeypatch.setattr(confinement, "__file__", str(tmp_path / "unconfined.py"))
    (tmp_path / "unconfined.py").write_text("import os, sys\nos.execv(sys.argv[4], sys.argv[4:])")
    monkeypatch.setattr(office, "SECONDS", 5)  # in which it begins, on a busy machine too
    with pytest.raises(MediaError, match=r"converting '.*deck.pptx' took .* more than 5 s"):
        next(document.pages(DECK))

    wait_for_end(int((folder / "child").read_text()))
    assert [path.name for path in folder.iterdir()] == ["child"]


def test_a_conversion_ends_with_this_process(program: Path, tmp_path: Path) -> None:
    write_script(program, "sleep 1234 & echo $! > $TMPDIR/child; sleep 1234")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from langchain_glm4v.media import office\n"
        f"office.to_pdf(Path({str(DECK)!r}), office._PPTX, 'x')\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as process:
        while not (found := [*tmp_path.glob("glm4v-*/child")]) or not found[0].read_text():
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()

    wait_for_end(int(found[0].read_text()))


def test_a_conversion_that_nobody_waits_for(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    write_script(program, "echo > $TMPDIR/started; sleep 1234")

    def fail_at_last(number: int) -> None:
        if number:
            office.to_pdf(DECK, office._PPTX, "x")
        while not [*tmp_path.glob("glm4v-*/started")]:
            time.sleep(0.05)
        raise MediaError("first")

    with pytest.raises(MediaError, match="first"):
        list(pool.each(fail_at_last, range(2), at_once=2))
    assert not [*tmp_path.glob("glm4v-*")]


def test_a_document_is_converted_once(program: Path) -> None:
    pdf = program.parent / "made.pdf"
    shutil.copyfile(DOCUMENTS / "rotated_skew.pdf", pdf)
    write_script(program, f'cp {pdf} "${{TMPDIR}}/document.pdf"')
    first = document.info(DECK)
    assert (first.format, first.page_count, first.created) == ("PPTX", 1, None)
    write_script(program, "exit 1")

    (page,) = document.pages(DECK.read_bytes())
    # Three notes, but one page: they cannot be placed.
    assert (page.rotation, page.notes) == (90, "")
    with pytest.raises(MediaError, match="could not convert"):
        document.info(DOCUMENTS / "report.doc")


def test_what_was_converted_is_removed(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pdf = program.parent / "made.pdf"
    shutil.copyfile(DOCUMENTS / "rotated_skew.pdf", pdf)
    write_script(program, f'cp {pdf} "${{TMPDIR}}/document.pdf"')
    made = office.to_pdf(DECK, office._PPTX, "x")
    path = made.path
    assert path.stat().st_size == pdf.stat().st_size
    monkeypatch.setattr(office, "_KEPT", 0)
    office.to_pdf(DECK, office._PPTX, "x")

    assert path.exists()
    del made
    assert not path.parent.exists()


def test_formats_that_could_show_other_files(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need Landlock."""
    write_script(program, "exit 0")
    monkeypatch.setattr(confinement, "landlock_version", lambda: 0)
    for data in (odp("x"), odt("x"), (DOCUMENTS / "report.doc").read_bytes()):
        with pytest.raises(MediaError, match=r"kernel has no Landlock .*: save it as a PDF, PPTX"):
            document.info(data)
    for data in (docx("x"), DECK.read_bytes()):
        with pytest.raises(MediaError, match="could not convert"):
            document.info(data)


# The confinement.


def confined(folder: Path, command: str) -> str:
    """What a shell prints that may write to the folder only."""
    life, lifeline = pool.lifeline()
    descriptor = life.fileno()
    script = [sys.executable, "-I", "-S", confinement.__file__, str(folder), "9", str(descriptor)]
    with lifeline, life:
        return subprocess.run(
            [*script, "/bin/bash", "-c", command],
            check=False,
            capture_output=True,
            text=True,
            pass_fds=[descriptor],
        ).stdout


@needs_landlock
def test_confinement_of_files(tmp_path: Path) -> None:
    folder, secret = tmp_path / "folder", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("secret\n")

    assert confined(folder, f"cd {folder}; echo yes > a; cat a; echo no > ../b; cat {secret}") == (
        "yes\n"
    )
    assert confined(folder, f"ls {tmp_path}; ls /home; ls /root; ls /proc") == ""
    assert confined(folder, "ls / /etc /opt /usr /usr/share /usr/local; cat /etc/passwd") == ""
    assert confined(folder, f"echo no > {secret}; ln {secret} {folder}; mv {secret} {folder}") == ""
    assert secret.read_text() == "secret\n"
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert confined(folder, "echo /usr/bin/basenam?") == "/usr/bin/basename\n"


@pytest.mark.skipif(
    confinement.landlock_version() < 4, reason="this kernel's Landlock knows no network"
)
def test_confinement_of_the_network(tmp_path: Path, server: "Server") -> None:
    connect = f"echo > /dev/tcp/127.0.0.1/{server.port} && echo connected"
    assert confined(tmp_path, connect) == ""
    done = subprocess.run(["/bin/bash", "-c", connect], check=False, capture_output=True)
    assert done.stdout == b"connected\n"


def test_limits_of_a_confined_program(tmp_path: Path) -> None:
    limits = confined(tmp_path, "ulimit -v; ulimit -c; ulimit -f; ulimit -t")
    assert limits.split() == ["4194304", "0", "1048576", "9"]


# LibreOffice itself.


class Server:
    """Sees who asks for what, and answers with a picture."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        asked = self.asked
        png = io.BytesIO()
        Image.new("RGB", (9, 9), "red").save(png, "PNG")

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "image/png")
                self.send_header("Content-Length", str(len(png.getvalue())))
                self.end_headers()
                self.wfile.write(png.getvalue())

            do_HEAD = do_OPTIONS = do_PROPFIND = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.http = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def unprotected(folder: Path, *paths: Path) -> None:
    """Convert documents as LibreOffice does by itself."""
    profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
    command = [shutil.which("soffice") or "libreoffice", profile, "--headless", "--convert-to"]
    subprocess.run(
        [*command, "pdf", "--outdir", folder / "made", *paths], check=True, capture_output=True
    )


def redness(page: document.Page) -> float:
    """Part of a page that is red."""
    with Image.open(io.BytesIO(page.data)) as picture:
        red, green, _ = picture.split()
        marked = Image.composite(
            red, Image.new("L", red.size), green.point(lambda g: 255 * (g < 60))
        )
        return sum(marked.histogram()[200:]) / (picture.width * picture.height)


@needs_libreoffice
def test_a_deck() -> None:
    before = [*Path(confinement.SOCKETS).glob("OSL_PIPE_*")]
    made = list(document.pages(DECK))

    assert [(page.width, page.height) for page in made] == [(1540, 1148)] * 3
    assert made[0].text.startswith("Harbour figures 港口数据\nQ1\n")
    assert made[1].text.startswith("Hidden slide\n")
    assert [page.notes.partition("\n")[0] for page in made] == [
        "Say hello first.",
        "Skip this one.",
        "",
    ]
    assert document.info(DECK) == document.DocumentInfo(
        "PPTX", 3, False, "Quarterly review", "A. Example", "", "", "", None, None
    )
    (last,) = document.pages(DECK, pages="3", longest_side=560)
    assert last.text.startswith("Last slide\n")
    assert [*Path(confinement.SOCKETS).glob("OSL_PIPE_*")] == before


@needs_libreoffice
def test_a_deck_without_slides() -> None:
    part = "ppt/presentation.xml"
    with zipfile.ZipFile(DECK) as deck:
        listed = re.search(rb"<p:sldIdLst>.*</p:sldIdLst>", deck.read(part))
    assert listed
    data = changed(DECK, part, listed[0], b"")
    assert document.info(data).page_count == 0
    with pytest.raises(MediaError, match="has no pages"):
        next(document.pages(data))


@needs_libreoffice
@needs_landlock
def test_texts() -> None:
    assert (
        next(document.pages(DOCUMENTS / "report.doc")).text == "Harbour report\nTotal ships: 38\n"
    )
    for data in (docx("http://127.0.0.1:9/"), odt("http://127.0.0.1:9/")):
        assert next(document.pages(data)).text.startswith("Hello")


@needs_libreoffice
def test_what_libreoffice_cannot_read() -> None:
    broken = changed(DECK, "ppt/presentation.xml", b"<p:", b"<q:")
    with pytest.raises(MediaError, match=r"LibreOffice could not convert 'a.pptx'"):
        document.info(broken, name="a.pptx")


@needs_libreoffice
def test_nothing_is_fetched(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with Landlock nor, by the profile alone, without."""
    url = f"http://127.0.0.1:{server.port}"
    makers = {"pptx": pptx, "docx": docx, "odp": odp, "odt": odt}
    paths = [tmp_path / f"{name}.{name}" for name in makers]
    for path, make in zip(paths, makers.values(), strict=True):
        path.write_bytes(make(f"{url}/{path.name}"))
    unprotected(tmp_path, *paths)
    # All four do make LibreOffice fetch something.
    assert {asked.strip("/") for asked in server.asked} == {path.name for path in paths}

    server.asked.clear()
    for path in paths:
        if confinement.landlock_version() or path.suffix in (".pptx", ".docx"):
            assert next(document.pages(path)).number == 0
    monkeypatch.setattr(office, "_converted", {})
    (tmp_path / "unconfined.py").write_text("import os, sys\nos.execv(sys.argv[4], sys.argv[4:])")
    monkeypatch.setattr(confinement, "__file__", str(tmp_path / "unconfined.py"))
    monkeypatch.setattr(confinement, "landlock_version", lambda: 1)
    for path in paths:
        assert next(document.pages(path)).number == 0
    assert not server.asked


@needs_libreoffice
@needs_landlock
def test_no_other_file_is_shown(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret.png", tmp_path / "slide.odp"
    Image.new("RGB", (99, 99), "red").save(secret)
    path.write_bytes(odp(secret.as_uri()))
    unprotected(tmp_path, path)
    assert redness(next(document.pages(tmp_path / "made" / "slide.pdf"))) > 0.01

    assert redness(next(document.pages(path))) == 0


@needs_libreoffice
def test_safe_formats_show_no_other_file_without_landlock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (99, 99), "red").save(secret)
    (tmp_path / "unconfined.py").write_text("import os, sys\nos.execv(sys.argv[4], sys.argv[4:])")
    monkeypatch.setattr(confinement, "__file__", str(tmp_path / "unconfined.py"))
    for make in (pptx, docx):
        for page in document.pages(make(secret.as_uri())):
            assert redness(page) == 0
