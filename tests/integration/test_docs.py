"""What README and docs show works: Python runs, YAML loads, commands exist."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from trip_mm.cli.main import app
from trip_mm.simulation.schema import load_protocol, load_system
from trip_mm.training.config import parse_training_config
from trip_mm.training.dataset import Dataset
from trip_mm.training.reach import describe_unreached

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_python_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests" / "data").mkdir(parents=True)
    shutil.copytree(ROOT / "tests" / "data" / "ala3", tmp_path / "tests" / "data" / "ala3")
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / "docs" / "python.md", "python")
    assert len(found) >= 4
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["result"].residues == ("ALA2",)  # type: ignore[attr-defined]


def test_yaml_of_the_running_page_loads(tmp_path: Path) -> None:
    system, protocol = blocks(ROOT / "docs" / "running.md", "yaml")
    (tmp_path / "system.yaml").write_text(system)
    (tmp_path / "protocol.yaml").write_text(protocol)
    assert load_system(tmp_path / "system.yaml").name == "trialanine"
    assert len(load_protocol(tmp_path / "protocol.yaml").stages) == 5
    assert yaml.safe_load(system)["structure"] == {"sequence": "AAA"}


def test_yaml_of_the_training_page_loads() -> None:
    whole, own, tuning = map(yaml.safe_load, blocks(ROOT / "docs" / "training.md", "yaml"))
    assert parse_training_config(whole, "whole").validation.early_stopping == 10
    found = parse_training_config({**whole, **own}, "own").data.lone_atom_energies_ev
    assert found["O"] == pytest.approx(-2042.009512)
    config = parse_training_config(tuning, "tuning")
    assert config.frozen == ("embedding", "blocks.0")
    assert config.budget.max_epochs is not None
    assert describe_unreached(config, 5 * config.budget.max_epochs) == []  # with data/quick.h5


def test_labels_with_names_of_other_programs_are_renamed_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ase", reason="extended XYZ is read by ASE")
    (tmp_path / "mace.xyz").write_text(
        '2\nProperties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-31.5 pbc="F F F"\n'
        "H 0 0 0 0.1 0 0\nH 0.74 0 0 -0.1 0 0\n"
    )
    monkeypatch.chdir(tmp_path)
    rename, *_ = blocks(ROOT / "docs" / "training.md", "python")
    exec(compile(rename, "docs/training.md", "exec"), {})
    (item,) = Dataset.open(tmp_path / "own.xyz")
    assert item.energy == pytest.approx(-31.5)
    assert item.forces[:, 0].tolist() == pytest.approx([0.1, -0.1])


def test_commands_that_are_shown_exist() -> None:
    shown = {
        match
        for page in PAGES
        for match in re.findall(
            r"(?:^|`|bin/)trip-mm ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.M
        )
    }
    assert {"run", "resume", "analyze", "models", "convert", "doctor"} <= shown
    for command in sorted(shown):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_options_that_are_shown_exist() -> None:
    groups = {group.name for group in app.registered_groups}
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"trip-mm ([\w-]+)(?: (\w+))?(.*?)(?:#|$)", line)
                if found is None:
                    continue
                words = [found[1], found[2]] if found[1] in groups and found[2] else [found[1]]
                help_text = CliRunner().invoke(app, [*words, "--help"], terminal_width=200).stdout
                for option in re.findall(r" (--[a-z-]+)", line.split("#")[0]):
                    assert option in help_text, f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_gives_exactly_one_command_to_run_and_one_to_test() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for marker in ("run", "test"):
        marked = re.findall(
            rf"<!-- {marker} command -->\n```bash\n(.*?)\n```\n<!-- end -->", text, re.S
        )
        assert len(marked) == 1
        assert "\n" not in marked[0]
        assert marked[0].startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_data_of_the_recipes_come_out_of_the_commands_of_the_recipes() -> None:
    recipes = {path: path.read_text() for path in sorted((ROOT / "recipes").glob("*/*.yaml"))}
    written = set(re.findall(r"--out (data/\S+)", "\n".join(recipes.values())))
    used = {
        f"data/{name}"
        for text in recipes.values()
        for name in re.findall(r"\.\./data/(\S+\.h5)", text)
    }
    assert len(used) >= 9
    assert used <= written
    for path, text in recipes.items():
        data = yaml.safe_load(text).get("data")
        beside = data.get("test_files", []) if isinstance(data, dict) else []
        assert all("/data/" in name or (path.parent / name).is_file() for name in beside), path
