"""What tells which code a run ran on."""

import json
from pathlib import Path

import pytest

from trip_mm.simulation import provenance


class Installed:
    """A distribution as pip leaves it."""

    def __init__(self, folder: Path, direct_url: dict[str, object] | None) -> None:
        self.folder = folder
        self.direct_url = direct_url

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.direct_url is None else json.dumps(self.direct_url)

    def locate_file(self, name: str) -> Path:
        return self.folder / name


FROM_GIT = {"url": "https://x.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "0123abc"}}


@pytest.mark.parametrize(
    ("direct_url", "elsewhere", "found"),
    [
        (FROM_GIT, False, {"commit": "0123abc", "modified": False}),
        (FROM_GIT, True, None),
        ({"url": "file:///x", "dir_info": {}}, False, None),
        ({"url": "x", "vcs_info": {"vcs": "hg", "commit_id": "1"}}, False, None),
        (None, False, None),
    ],
    ids=["git", "git-of-another-copy", "directory", "mercurial", "index"],
)
def test_an_installed_package_knows_its_commit_where_pip_does(
    direct_url: dict[str, object] | None,
    elsewhere: bool,
    found: dict[str, object] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = tmp_path / "lib" / "trip_mm"
    package.mkdir(parents=True)
    installed = Installed(tmp_path if elsewhere else package.parent, direct_url)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.setattr(provenance.importlib.metadata, "distribution", lambda _: installed)
    assert provenance.git_revision() == found


def test_the_checksum_of_the_code_follows_its_text_and_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checksum(files: dict[str, str]) -> str:
        package = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            (package / name).write_text(text)
        monkeypatch.setattr(provenance, "PACKAGE", package)
        return provenance.source_sha256()

    first = checksum({"a.py": "x = 1\n", "b/c.py": "y = 2\n"})
    assert first == checksum({"b/c.py": "y = 2\n", "a.py": "x = 1\n", "a.pyc": "0"})
    others = [
        checksum({"a.py": "x = 2\n", "b/c.py": "y = 2\n"}),
        checksum({"a.py": "x = 1\n", "c.py": "y = 2\n"}),
    ]
    assert len({first, *others}) == 3
