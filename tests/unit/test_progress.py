"""What a run says of how far it is where there is no terminal."""

import pytest

from trip_mm.simulation import progress
from trip_mm.simulation.progress import LineProgress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], LineProgress]:
    """Lines of a listener that finds 30 s gone each time it looks at the clock."""
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    written: list[str] = []
    return written, LineProgress(written.append)


def test_lines_say_how_long_a_stage_still_takes(lines: tuple[list[str], LineProgress]) -> None:
    written, listener = lines
    listener.stage_started("nvt", 1000, 100)
    listener.stage_advanced(200, 1.5, "")
    listener.stage_advanced(300, 0.0, "298 K")
    assert written[1:] == [
        "nvt: step 200/1000, 1.5 ns/day, 4 min left",
        "nvt: step 300/1000, 298 K, 4 min left",
    ]


@pytest.mark.parametrize(("n_steps", "unit"), [(0, "steps"), (1000, "iterations")])
def test_a_stage_without_a_known_end_has_no_time_left(
    lines: tuple[list[str], LineProgress], n_steps: int, unit: str
) -> None:
    written, listener = lines
    listener.stage_started("minimize", n_steps, 0, unit)
    listener.stage_advanced(10, 0.0, "")
    assert "left" not in written[-1]
