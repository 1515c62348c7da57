"""Local paths that a model or an agent supplies: only below directories that were allowed."""

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

from langchain_glm4v.errors import MediaError, MediaNotFoundError, UnsupportedMediaError
from langchain_glm4v.media.source import path_of, scheme, shown


def local_path(
    text: str | os.PathLike[str], allowed_dirs: Collection[str | os.PathLike[str]]
) -> Path:
    """Find the file that a path means, if it is one to be read.

    Guaranteed when this returns: the path is absolute, has neither `..` nor symbolic links, lies in
    or below one of the directories, and is a regular file. A path outside is refused the same way
    whether there is a file or not, so nobody can learn which there are.

    Not guaranteed: that it is still so when the file is opened. Whoever can rename files in an
    allowed directory may put a link in its place in between; a model that can only name paths may
    not. So open what is returned, never `text`, and allow no directory that others write links to.
    Hard links are files like others.

    Args:
        text: A path, with `~` for a home; or a `file://` URL. One that is not absolute is looked
            for in the working directory, and then in each of the directories.
        allowed_dirs: Directories; themselves, they may be reached over links. A single path is one
            directory.

    Raises:
        MediaNotFoundError: No file is there.
        UnsupportedMediaError: It is a directory, device, pipe or socket, or a URL of another kind.
        MediaError: It lies elsewhere, or cannot be reached.
    """
    name = shown(text)
    kind = scheme(text)
    if kind not in ("", "file"):
        raise UnsupportedMediaError(f"{name} is not a local path: give one, or a file:// URL")
    given = path_of(str(text)) if kind else text
    try:
        roots = _roots(allowed_dirs)
        path = Path(given).expanduser()
        bases = [Path()] if path.is_absolute() else [Path(), *roots]
        places = [(base / path).resolve() for base in bases]
        inside = [place for place in places if any(map(place.is_relative_to, roots))]
        if not inside:
            raise MediaError(
                f"{name} is outside the allowed directories, which are "
                f"{', '.join(map(str, roots)) or 'none'}: give a path in one of them",
                setting="name its directory in allowed_dirs",
            )
        path = next((place for place in inside if place.exists()), inside[0])
        # Opened, a device may act and a pipe may wait, so both are told by their kind alone.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UnsupportedMediaError(f"{name} is not a file: give the path of one")
    except MediaError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFoundError(
            f"no file at {name}: give the path of one in {', '.join(map(str, roots))}"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # such as a null byte, or no such ~user
        reason = error.strerror if isinstance(error, OSError) else error
        raise MediaError(f"cannot reach {name} ({reason}): give another path") from error
    return path


def _roots(allowed_dirs: Collection[str | os.PathLike[str]]) -> list[Path]:
    # The characters of a single path would be directories too, and the first of them is "/".
    single = isinstance(allowed_dirs, str | os.PathLike)
    roots: Any = [allowed_dirs] if single else allowed_dirs
    if not (isinstance(roots, Collection) and all(map(_is_path, roots))):
        raise MediaError(f"allowed_dirs is {allowed_dirs!r}: give a list of paths of directories")
    return [Path(root).expanduser().resolve() for root in roots]


def _is_path(root: object) -> bool:
    return isinstance(root, str | os.PathLike) and os.fspath(root) != ""
