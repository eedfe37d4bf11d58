"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from trip_mm import files
from trip_mm.errors import RunDirectoryError
from trip_mm.files import make_directory, read_json, replacing, write_atomically, write_json


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunDirectoryError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="str"), replacing(path) as temporary:
        temporary.write_bytes(b"ne" + "w")  # type: ignore[operator]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="missing"),
        replacing(tmp_path / "file") as temporary,
    ):
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    with (
        pytest.raises(RunDirectoryError, match="file: cannot be written"),
        replacing(tmp_path / "no" / "file") as temporary,
    ):
        temporary.write_bytes(b"new")


@pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")
def test_files_have_the_mode_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o007)
    try:
        write_json(tmp_path / "file", {"name": "\u03c9B97x"})
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o660
    assert read_json(tmp_path / "file") == {"name": "\u03c9B97x"}


def test_a_file_in_the_place_of_a_directory_is_named(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    (tmp_path / "taken").touch()
    for path, message in (
        (tmp_path / "taken", r"taken: cannot be made a directory \(is a file\); choose"),
        (tmp_path / "taken" / "in", r"in: cannot be made a directory \(Not a directory\)"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            make_directory(path)


def test_a_command_refuses_a_file_as_its_directory_before_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trip_mm.cli import frequencies
    from trip_mm.geometry import frequencies as computing

    monkeypatch.setattr(computing, "relaxed_frequencies", lambda *arguments: pytest.fail("late"))
    (tmp_path / "taken").touch()
    with pytest.raises(RunDirectoryError, match="is a file"):
        frequencies.command("O", "gfn2", None, "auto", False, tmp_path / "taken")
