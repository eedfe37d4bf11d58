"""Files that are never half-written."""

import json
import math
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trip_mm.errors import RunDirectoryError

_PARTIAL = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside a file; what is written there takes its place at the end.

    A reader sees the old or the new content, also after a power cut. After an exception what was
    there before is untouched.

    Args:
        path: the file to write or to replace; its directory must exist.

    Raises:
        RunDirectoryError: the file cannot be written (disk full, no permission).
        OSError: of another file, from within the block.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, path):
            raise
        raise RunDirectoryError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or fix the "
            "permissions, then continue with `trip-mm resume` or the same command"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Whether a file has the temporary name of `replacing`; after a power cut one may stay."""
    return name.startswith(".") and name.endswith(_PARTIAL)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file as `replacing` does.

    Args:
        path: the file to write or to replace; its directory must exist.
        content: all of the new content.

    Raises:
        RunDirectoryError: as `replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Writes plain JSON values as `replacing` does, with a final newline.

    Raises:
        RunDirectoryError: as `replacing`.
    """
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunDirectoryError: the file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RunDirectoryError(f"{path}: is not valid JSON ({error}); restore it") from error
    if not isinstance(content, dict):
        raise RunDirectoryError(f"{path}: holds no JSON object; restore it")
    return content


def json_number(value: float) -> float | None:
    """Returns a number for a JSON document: None in place of NaN and infinity, which JSON lacks."""
    return float(value) if math.isfinite(value) else None


def make_directory(path: Path) -> None:
    """Makes a directory for results, with those above it, unless it is there.

    Raises:
        RunDirectoryError: it cannot be made (a file of that name, no permission).
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if path.is_file() else (error.strerror or str(error))
        raise RunDirectoryError(
            f"{path}: cannot be made a directory ({reason}); choose another one"
        ) from error


def sync_file(path: Path) -> None:
    """Flushes what the operating system still holds of a file to the disk, if the file exists."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
