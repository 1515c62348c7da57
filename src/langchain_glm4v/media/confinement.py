"""Runs LibreOffice so that it writes to one folder only, reads no one's files, and has no network.

What it may read beside that folder is what every machine has: programs, libraries, fonts, data on
languages, countries and time zones, and LibreOffice's own tree and settings. It is what `strace`
saw LibreOffice 7.4 open, and the same of other distributions.

Run as a script: `confinement.py FOLDER SECONDS LIFE PROGRAM [ARGUMENT …]`, where LIFE is the
descriptor of a pipe with whose other end the program ends. Linux's Landlock does it,
which needs no privileges, and binds the program's children too. Landlock is in most kernels since
5.13; it also forbids TCP since 6.7, and abstract sockets and signals to others since 6.12.
Constants: `linux/landlock.h`.
"""

import ctypes
import fcntl
import os
import resource
import select
import signal
import stat
import struct
import sys
from collections.abc import Iterable

MEMORY = 4 * 1024**3
"""Bytes of address space of a process, at most."""

FILE_SIZE = 1024**3
"""Bytes of a file that the program writes, at most."""

# The same numbers on all processors.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38  # of prctl

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER = 1, 2, 4, 8
_REMOVE_FILE, _MAKE_SOCKET = 1 << 5, 1 << 9
_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
# Version of Landlock -> how many rights to files it knows; the newest known counts for later ones.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_CONNECT_AND_BIND = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3

_PROGRAMS = ("/bin", "/usr/bin")  # LibreOffice is started by a shell script
_LIBRARIES = (
    *("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/nix/store"),
    "/etc/ld.so.cache",
)
_LANGUAGES = (
    *("/etc/localtime", "/usr/share/zoneinfo"),
    *("/usr/share/icu", "/usr/share/liblangtag", "/usr/share/locale"),
    *("/usr/share/hunspell", "/usr/share/hyphen", "/usr/share/mythes"),
)
_FONTS = (
    *("/etc/fonts", "/usr/share/fontconfig", "/var/cache/fontconfig"),
    *("/usr/share/fonts", "/usr/local/share/fonts", "/var/lib/fonts"),
    *("~/.fonts", "~/.local/share/fonts"),
)
_LIBREOFFICE = (
    *("/etc/libreoffice", "/usr/share/libreoffice"),
    *("/var/lib/libreoffice", "/var/spool/libreoffice"),  # where Debian keeps extensions
)
_LIBREOFFICE_PROGRAMS = "program"  # name of the folder in its tree
SOCKETS = "/tmp"
"""Where sockets may be made, and files removed, but not read or written.

LibreOffice does not start without a socket of its own there, whatever TMPDIR is, and replaces it.
"""

_DEVICES = ("/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(life: int) -> None:
    """Have this process's group killed once the other end of a pipe, which may be now, is closed.

    The kernel does it, whatever the processes are at, and also if they have become other programs.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:  # it is closed already
        sys.exit()


def landlock_version() -> int:
    """Version of Landlock in this kernel; 0 if there is none."""
    version: int = _libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    return max(0, version)


def confine(folder: str, program: str) -> None:
    """Confine this process and its children, for good, as far as this kernel can.

    Args:
        folder: The only one that can be written to.
        program: If it is in a tree of LibreOffice's, as in /opt, the tree may be read too.

    Raises:
        OSError: If the kernel refuses.
    """
    if (version := landlock_version()) == 0:
        return
    everything = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    rules = struct.pack(
        "=QQQ",
        everything,
        _CONNECT_AND_BIND if version >= 4 else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if version >= 6 else 0,
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, rules, size, 0))
    _allow(ruleset, (*_PROGRAMS, *_LIBRARIES, *_LANGUAGES, *_FONTS), _READ)
    _allow(ruleset, (*_LIBREOFFICE, *_tree(program)), _READ)
    _allow(ruleset, _DEVICES, _READ_FILE | _WRITE_FILE)
    _allow(ruleset, (SOCKETS,), _MAKE_SOCKET | _REMOVE_FILE)
    _allow(ruleset, (folder,), everything)
    _checked(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _tree(program: str) -> Iterable[str]:
    folder, _, name = os.path.realpath(program).rpartition("/")[0].rpartition("/")
    return [folder] if name == _LIBREOFFICE_PROGRAMS else []


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in map(os.path.expanduser, paths):
        if not os.path.exists(path):  # noqa: PTH110 - pathlib would slow the start
            continue
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        is_folder = stat.S_ISDIR(os.fstat(beneath).st_mode)
        rule = struct.pack("=Qi", rights if is_folder else rights & ~_READ_FOLDER, beneath)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0))
        os.close(beneath)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def main() -> None:
    """Become the program."""
    folder, seconds, life, *command = sys.argv[1:]
    die_with(int(life))
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: FILE_SIZE,
        resource.RLIMIT_CPU: int(seconds),
    }
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lower, lower))
    confine(folder, command[0])
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
