"""One process at a time in a directory that receives results."""

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trip_mm.errors import RunDirectoryError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = ".lock"

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_logger = logging.getLogger("trip_mm")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds a directory for this process alone; the lock vanishes with the process.

    Some network file systems are mounted without locks. There the directory is used unlocked, and
    a warning says so.

    Args:
        directory: that exists.

    Raises:
        RunDirectoryError: another process works in the directory, or it cannot be written.
    """
    with _opened(directory) as stream:
        if not _try_lock(stream, directory):
            stream.seek(0)
            holder = stream.read().strip() or "another process"
            raise RunDirectoryError(
                f"{directory}: is in use by {holder}; wait until it ends, or stop it first"
            )
        stream.seek(0)
        stream.truncate()
        _note_holder(stream, directory)
        yield
        stream.seek(0)
        stream.truncate()


def occupants(directory: Path) -> list[str]:
    """Returns the names of what a directory holds besides a lock; nothing where there is none.

    A lock stays behind where something was refused before it began.

    Args:
        directory: that may not exist.
    """
    if not directory.is_dir():
        return []
    return [item.name for item in directory.iterdir() if item.name != LOCK_FILE]


def _opened(directory: Path) -> IO[str]:
    try:
        return (directory / LOCK_FILE).open("a+", encoding="utf-8")
    except OSError as error:
        raise RunDirectoryError(
            f"{directory}: cannot be written ({error.strerror}); fix the permissions"
        ) from error


def _note_holder(stream: IO[str], directory: Path) -> None:
    """Writes past the buffer, which would fail once more when the file is closed."""
    try:
        os.write(stream.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    except OSError as error:
        raise RunDirectoryError(
            f"{directory}: cannot be written ({error.strerror}); free some space"
        ) from error


def _try_lock(stream: IO[str], directory: Path) -> bool:
    """Takes an exclusive lock that dies with the process; False where another process has it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        _logger.warning(
            "%s: its file system has no locks (%s); let no other process work there",
            directory,
            error.strerror,
        )
    return True
