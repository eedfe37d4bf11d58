"""Several processes, one compact copy of the data: the first writes it, the others wait for it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trip_mm.errors import DataError
from trip_mm.training.spool_identity import (
    FORCES,
    HEADER,
    INDEX,
    POSITIONS,
    SpoolSettings,
    content_of,
    local_fingerprint,
    partial_folders,
    read_header,
)
from trip_mm.training.streaming import StreamedStore, open_spool

_POLL_S = 0.5


@contextmanager
def failure_told(folder: Path) -> Iterator[None]:
    """Leaves word for the waiting processes if the copy cannot be written.

    Args:
        folder: of the copy.
    """
    failure = _failure_file(folder)
    failure.unlink(missing_ok=True)
    try:
        yield
    except (DataError, OSError) as error:
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(str(error), encoding="utf-8")
        raise


@dataclass(frozen=True)
class Patience:
    """How long a process waits for the copy that another one writes.

    Attributes:
        settle_s: a failure, or a copy of files with other times, may be left by an earlier run; it
            is believed when nothing has changed for so long.
        timeout_s: without any change for so long, waiting ends.
    """

    settle_s: float = 30.0
    timeout_s: float = 600.0


def wait_for_spool(
    files: Sequence[Path], settings: SpoolSettings, folder: Path, patience: Patience | None = None
) -> StreamedStore:
    """Opens the copy that another process of the same run writes, when it is complete.

    The files may be another machine's own copies of the data, with other times: name, size and
    some blocks of each then tell that they are the same.

    Args:
        files: the data files, as this process sees them.
        settings: what else decides the content.
        folder: of the copy.
        patience: how long to wait.

    Raises:
        DataError: the other process has failed, has copied other data, or shows no progress.
    """
    patience = patience or Patience()
    fingerprint, content = local_fingerprint(files, settings), content_of(files, settings)
    seen, since = _traces(folder), time.monotonic()
    while True:
        header = read_header(folder)
        if header.get("fingerprint") == fingerprint:
            return open_spool(folder)
        quiet = time.monotonic() - since
        if quiet >= patience.settle_s:
            if _failure_file(folder).is_file():
                reason = _failure_file(folder).read_text(encoding="utf-8")
                raise DataError(f"the first process could not copy the data: {reason}")
            if header.get("content") == content and not partial_folders(folder):
                return open_spool(folder)
        if quiet >= patience.timeout_s:
            raise DataError(_gave_up(folder, header, patience.timeout_s))
        time.sleep(_POLL_S)
        now = _traces(folder)
        if now != seen:
            seen, since = now, time.monotonic()


def _gave_up(folder: Path, header: Mapping[str, Any], timeout_s: float) -> str:
    waited = f"{folder}: waited for the copy of the data that the first process writes"
    if header:
        return (
            f"{waited}, but the one that lies there is of other files or settings; give all "
            "processes the same data files and configuration, or remove the copy"
        )
    return (
        f"{waited}, and nothing was written for {timeout_s:.0f} s; look at the output of the first "
        "process, and give --out on a directory that all machines share"
    )


def _failure_file(folder: Path) -> Path:
    """Why the first process could not write the copy."""
    return folder.with_name(f".{folder.name}.failed")


def _traces(folder: Path) -> list[tuple[str, int, int]]:
    """Sizes and times of all that the first process writes: they change while it lives."""
    places = [_failure_file(folder), folder / HEADER]
    for partial in partial_folders(folder):
        places += [partial, *(partial / name for name in (POSITIONS, FORCES, INDEX))]
    found = []
    for path in places:
        try:
            status = path.stat()
        except FileNotFoundError:  # not yet, or not any more
            continue
        found.append((path.name, status.st_size, status.st_mtime_ns))
    return found
