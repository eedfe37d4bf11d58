"""One process at a time in a directory of results."""

import errno
import fcntl
import logging
import multiprocessing
import os
from pathlib import Path

import pytest

from trip_mm.errors import RunDirectoryError
from trip_mm.locking import locked


def _try_to_lock(path: str, answers: "multiprocessing.Queue[str]") -> None:
    try:
        with locked(Path(path)):
            answers.put("locked")
    except RunDirectoryError as error:
        answers.put(str(error))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()  # type: ignore[assignment]
    child = context.Process(target=_try_to_lock, args=(str(tmp_path), answers))
    with locked(tmp_path):
        child.start()
        answer = answers.get(timeout=30)
        child.join()
    assert f"{tmp_path}: is in use by process {os.getpid()}" in answer
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING, logger="trip_mm"), locked(tmp_path):
        pass
    assert "has no locks" in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(RunDirectoryError, match="cannot be written"), locked(tmp_path):
        pass


def test_a_full_disk_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(RunDirectoryError, match="No space left") as error, locked(tmp_path):
            pass
    assert str(tmp_path) in str(error.value)
    with locked(tmp_path):
        pass
