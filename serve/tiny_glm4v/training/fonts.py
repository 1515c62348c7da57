"""Fonts that the pictures are printed in: trained on, and never trained on.

All are free fonts from Debian packages: `apt-get install` the names in `PACKAGES`, or unpack them
anywhere and point the environment variable `TINY_GLM4V_FONTS` at that folder.
"""

import os
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

PACKAGES = """
fonts-anonymous-pro fonts-b612 fonts-cabin fonts-cantarell fonts-comic-neue fonts-courier-prime
fonts-crosextra-caladea fonts-dejavu-core fonts-dejavu-extra fonts-firacode fonts-freefont-ttf
fonts-hack fonts-inconsolata fonts-jetbrains-mono fonts-lato fonts-liberation fonts-linuxlibertine
fonts-noto-core fonts-open-sans fonts-oxygen fonts-paratype fonts-quicksand fonts-roboto-unhinted
fonts-sil-andika fonts-sil-charis fonts-stix fonts-tuffy fonts-urw-base35 fonts-vollkorn
fonts-play fonts-ebgaramond fonts-mononoki fonts-dosis
""".split()
TRAINED = """
Andika-Regular.ttf Andika-Bold.ttf|Anonymous Pro.ttf|B612-Regular.otf B612-Bold.otf
C059-Roman.otf C059-Bold.otf|Caladea-Regular.ttf Caladea-Bold.ttf
Cantarell-Regular.otf Cantarell-Bold.otf|CharisSIL-Regular.ttf CharisSIL-Bold.ttf
ComicNeue-Regular.otf ComicNeue-Bold.otf|Courier Prime.otf Courier Prime Bold.otf
DejaVuSans.ttf DejaVuSans-Bold.ttf DejaVuSansCondensed.ttf DejaVuSansMono.ttf
DejaVuSerif.ttf DejaVuSerif-Bold.ttf|Dosis-Medium.otf Dosis-Bold.otf|EBGaramond12-Regular.otf
FiraCode-Regular.ttf FiraCode-Bold.ttf|FreeMono.ttf FreeMonoBold.ttf|FreeSans.ttf FreeSansBold.ttf
FreeSerif.ttf FreeSerifBold.ttf|Hack-Regular.ttf Hack-Bold.ttf|Inconsolata.otf
Lato-Regular.ttf Lato-Bold.ttf Lato-Medium.ttf
LiberationMono-Regular.ttf LiberationMono-Bold.ttf LiberationSans-Regular.ttf
LiberationSans-Bold.ttf LiberationSansNarrow-Regular.ttf LiberationSerif-Regular.ttf
LiberationSerif-Bold.ttf|LinBiolinum_R.otf LinBiolinum_RB.otf|LinLibertine_R.otf LinLibertine_RB.otf
NimbusMonoPS-Bold.otf|P052-Roman.otf P052-Bold.otf|Oxygen-Sans.ttf Oxygen-Sans-Bold.ttf
OxygenMono-Regular.ttf|PTS55F.ttf PTS75F.ttf|PTM55F.ttf|Play-Regular.ttf Play-Bold.ttf
Quicksand-Medium.ttf Quicksand-Bold.ttf|Roboto-Regular.ttf Roboto-Bold.ttf Roboto-Medium.ttf
RobotoCondensed-Regular.ttf|STIXGeneral-Regular.otf STIXGeneral-Bold.otf|tuffy_regular.ttf
URWBookman-Light.otf URWGothic-Book.otf URWGothic-Demi.otf|Vollkorn-Regular.ttf
mononoki-Regular.ttf mononoki-Bold.ttf
"""
HELD_OUT = """
Cabin-Regular.otf Cabin-Bold.otf|JetBrainsMono-Regular.ttf JetBrainsMono-Bold.ttf
NotoSerif-Regular.ttf NotoSerif-Bold.ttf|OpenSans-Regular.ttf OpenSans-Bold.ttf
PTF55F.ttf PTF75F.ttf
"""
FOLDERS = (Path(os.environ.get("TINY_GLM4V_FONTS", "/usr/share/fonts")),)


def _names(table: str) -> list[str]:
    """File names of a table above; names may hold blanks, so the ending marks where each stops."""
    names = table.replace("|", "\n").replace(".ttf", ".ttf\n").replace(".otf", ".otf\n")
    return [name.strip() for name in names.splitlines() if name.strip()]


def paths(*, held_out: bool = False) -> list[Path]:
    """Font files to train on, or those kept for the evaluation.

    Raises:
        FileNotFoundError: A font is not installed.
    """
    wanted = _names(HELD_OUT if held_out else TRAINED)
    found = {path.name: path for folder in FOLDERS for path in sorted(folder.rglob("*.?tf"))}
    missing = [name for name in wanted if name not in found]
    if missing:
        some = ", ".join(missing[:3])
        msg = f"{len(missing)} fonts are missing ({some}, …): install {' '.join(PACKAGES)}"
        raise FileNotFoundError(msg)
    return [found[name] for name in wanted]


@lru_cache(maxsize=4096)
def load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels; kept, because opening one costs more than printing a line."""
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


class Advances(dict[str, float]):
    """Widths of single characters of one font in pixels, measured once each."""

    def __init__(self, font: ImageFont.FreeTypeFont) -> None:
        super().__init__()
        self._font = font

    def __missing__(self, char: str) -> float:
        self[char] = width = self._font.getlength(char)
        return width

    def width(self, text: str) -> float:
        """Width of `text`, kerning left aside."""
        return sum(map(self.__getitem__, text))


@lru_cache(maxsize=4096)
def advances(path: Path, size: int) -> Advances:
    return Advances(load(path, size))
