"""Real scans and documents in the source packages of six projects, and what is known of them.

Some are damaged or locked on purpose, for the tests of those projects.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from langchain_glm4v.transcription.sources import SUFFIXES


@dataclass(frozen=True)
class Sdist:
    """A source package.

    Attributes:
        name: Its name.
        version: Its version.
        sha256: Of its file.
    """

    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        """What it unpacks to."""
        return f"{self.name.replace('-', '_')}-{self.version}"


SDISTS = (
    Sdist("img2table", "2.0.0", "584334b46c898d733a2a44941df96bed2fefb2cd5e89ae57830614e6119be06f"),
    Sdist(
        "ocrmypdf", "17.13.0", "151c35d810eb628fbc5cb9bbe80b834ecf094737efa0e7a2e9e1fac3c730ed49"
    ),
    Sdist("pikepdf", "10.17.0", "de4ccaae83628e86c1fd473b384c09c6ff1dd35a583a8dacbf61d2aa4bea843b"),
    Sdist("pypdf", "7.1.0", "ca3fa902369e98a6d2cb7b56396de902b72ef9bb3c1e8706c1bfc7d8bd0cf0d7"),
    Sdist(
        "python-pptx", "1.0.2", "479a8af0eaf0f0d76b6f00b0887732874ad2e3188230315290cd1f9dd9cc7095"
    ),
    Sdist(
        "tesserocr", "2.13.0", "475460f736e5ac23dfcfbd414435581fa6eb0e849e80c816da2ff1b4af7d88ed"
    ),
)
# Of the same projects, but not theirs to give away.
LEFT_OUT = frozenset({"pypdf-7.1.0/resources/issue-604.pdf"})
# File that nobody can read as it is -> what its failure must tell.
BROKEN: Mapping[str, str] = {
    "ocrmypdf-17.13.0/tests/resources/invalid.pdf": "damaged",
    "ocrmypdf-17.13.0/tests/resources/tagged.odt": "damaged",
    "pikepdf-10.17.0/tests/resources/cyclic-toc.pdf": "no pages",
    "pikepdf-10.17.0/tests/resources/newline-buffer-test.pdf": "no pages",
    "pikepdf-10.17.0/tests/resources/graph-encrypted.pdf": "needs a password",
    **{
        f"pypdf-7.1.0/resources/{name}.pdf": "needs a password"
        for name in (
            *("crazyones-encrypted-256", "encrypted-file", "libreoffice-writer-password"),
            *("encryption/r2-user-password", "encryption/r3-user-password"),
            *("encryption/r4-user-password", "encryption/r4-aes-user-password"),
            *("encryption/r5-user-password", "encryption/r6-user-password"),
            *("encryption/r6-both-passwords", "encryption/r6-cleartext-metadata"),
        )
    },
}
_EUROTEXT = """The (quick) [brown] {fox} jumps! Over the $43,456.78 <lazy> #90 dog & duck/goose, as
12.5% of E-mail from aspammer@website.com is spam. Der „schnelle” braune Fuchs springt über den
faulen Hund. Le renard brun «rapide» saute par-dessus le chien paresseux. La volpe marrone rapida
salta sopra il cane pigro. El zorro marrón rápido salta sobre el perro perezoso. A raposa marrom
rápida salta sobre o cão preguiçoso."""
_FRANCAIS = """Portez ce vieux whisky au juge blond qui fume sur son île intérieure, à côté de
l'alcôve ovoïde, où les bûches se consument dans l'âtre, ce qui lui permet de penser à la
cænogénèse de l'être dont il est question dans la cause ambiguë entendue à Moÿ, dans un capharnaüm
qui, pense-t-il, diminue çà et là la qualité de son œuvre."""
_LINN = Path("ocrmypdf-17.13.0/tests/resources/linn.txt")
_CRAZY = Path("pypdf-7.1.0/resources/crazyones.txt")
# File -> its text, or the file that has it, or None if the file has it itself, as a text layer.
# Another program read what stands in linn.txt and in the layer of the book.
TRUTHS: Mapping[str, str | Path | None] = {
    "ocrmypdf-17.13.0/tests/resources/linn.pdf": _LINN,
    "ocrmypdf-17.13.0/tests/resources/skew.pdf": _LINN,
    "ocrmypdf-17.13.0/tests/resources/rotated_skew.pdf": _LINN,
    "ocrmypdf-17.13.0/tests/resources/crom.png": "Covfefe is a perfectly cromulent word.",
    "ocrmypdf-17.13.0/tests/resources/kcs.pdf": "Kodak Capture Desktop Test",
    "ocrmypdf-17.13.0/tests/resources/francais.pdf": _FRANCAIS,
    "pypdf-7.1.0/resources/Seige_of_Vicksburg_Sample_OCR.pdf": None,
    "pypdf-7.1.0/resources/crazyones.pdf": _CRAZY,
    "tesserocr-2.13.0/tests/eurotext.png": _EUROTEXT,
}


def fetch(sdist: Sdist, folder: Path) -> Path:
    """The file of a source package, fetched if it is not there yet."""
    path = folder / f"{sdist.folder}.tar.gz"
    if not path.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
            # pip compares the hash before anything of a package runs, for it asks packages for
            # their metadata.
            wanted.write(f"{sdist.name}=={sdist.version} --hash=sha256:{sdist.sha256}\n")
            wanted.flush()
            subprocess.run(
                (
                    *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download"),
                    *("--quiet", "--no-deps", "--no-binary", sdist.name, "--require-hashes"),
                    *("--dest", str(folder), "--requirement", wanted.name),
                ),
                check=True,
                stdout=sys.stderr,
            )
    if hashlib.sha256(path.read_bytes()).hexdigest() != sdist.sha256:
        sys.exit(f"{path} is not what was pinned: delete it, and it is fetched again")
    return path


def unpack(folder: Path, into: Path) -> list[Path]:
    """Unpack all source packages, and find the files to be read: of equal ones, the first."""
    for sdist in SDISTS:
        with tarfile.open(fetch(sdist, folder)) as packed:
            packed.extractall(into, filter="data")
    found = {
        hashlib.sha256(path.read_bytes()).digest(): path
        for path in sorted(into.rglob("*"), reverse=True)
        if path.suffix.lower() in SUFFIXES and str(path.relative_to(into)) not in LEFT_OUT
    }
    return sorted(found.values())
