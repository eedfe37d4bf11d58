"""Protons between a donor and an acceptor: where they are, whose they are, what is refused."""

from typing import Any

import numpy as np
import pytest

from trip_mm.errors import ConfigError
from trip_mm.training import sampling_protons
from trip_mm.training.sampling_protons import CLEARANCE, sample_proton_transfers
from trip_mm.training.sampling_recipe import ProtonTransfersSource

GLYCINE = "[NH3+]CC(=O)[O-]"


def source(**changes: Any) -> ProtonTransfersSource:
    given = {"kind": "proton-transfers", "class": "p", "pairs": [["O", GLYCINE]]}
    return ProtonTransfersSource.model_validate({**given, "conformations": 20, **changes})


def sampled(**changes: Any) -> list[Any]:
    fixed = {"displacement": [0.0, 0.0], **changes}
    return list(sample_proton_transfers(source(**fixed), np.random.default_rng(1)))


def lengths_of(positions: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(positions[:, None] - positions[None], axis=-1))


def on_its_way(positions: np.ndarray, n_first: int, distance: float) -> tuple[int, int, int]:
    """Returns donor, proton and acceptor: those that the drawn distance tells."""
    lengths = lengths_of(positions)
    pairs = np.argwhere(np.abs(lengths[:n_first, n_first:] - distance) < 1e-9)
    for donor, second in pairs:
        acceptor = int(second) + n_first
        for proton in range(n_first):
            through = lengths[donor, proton] + lengths[proton, acceptor]
            if proton != donor and abs(through - distance) < 1e-9:
                return int(donor), proton, acceptor
    raise AssertionError("no proton on a line between the molecules")


def test_a_proton_lies_on_the_line_at_its_progress() -> None:
    fractions = []
    for item in sampled(distance=[2.6, 2.6], acceptors=[8]):
        donor, proton, acceptor = on_its_way(item.positions, 3, 2.6)
        assert item.atomic_numbers[[donor, proton, acceptor]].tolist() == [8, 1, 8]
        lengths = lengths_of(item.positions)
        other = ({1, 2} - {proton}).pop()
        bond = lengths[donor, other]  # both O-H bonds of a relaxed water have one length
        fractions.append((lengths[donor, proton] - bond) / (2.6 - 2.0 * bond))
    assert min(fractions) > -0.01
    assert max(fractions) < 1.01
    assert np.ptp(fractions) > 0.6


def test_progress_is_one_where_the_acceptor_has_the_proton() -> None:
    for item in sampled(distance=[2.8, 2.8], progress=[1.0, 1.0], pairs=[["N", "O"]]):
        donor, proton, acceptor = on_its_way(item.positions, 4, 2.8)
        lengths = lengths_of(item.positions)
        others = [k for k in range(1, 4) if k != proton]
        np.testing.assert_allclose(lengths[proton, acceptor], lengths[donor, others], atol=1e-4)


def test_the_rest_keeps_clear() -> None:
    for item in sampled(distance=[2.4, 2.4], conformations=40):
        donor, proton, acceptor = on_its_way(item.positions, 3, 2.4)
        lengths = lengths_of(item.positions)[:3, 3:]
        lengths[[donor, proton], acceptor - 3] = np.inf
        assert lengths.min() >= CLEARANCE


def test_only_nitrogen_and_oxygen_give_and_only_acceptors_take() -> None:
    symbols = set()
    for item in sampled(distance=[2.7, 2.7], pairs=[[GLYCINE, "NC=O"]], conformations=40):
        donor, proton, acceptor = on_its_way(item.positions, 10, 2.7)
        symbols.add(tuple(item.atomic_numbers[[donor, proton, acceptor]].tolist()))
    assert symbols == {(7, 1, 7), (7, 1, 8)}


def test_displacements_come_on_top() -> None:
    still, moved = sampled()[0], sampled(displacement=[0.05, 0.05])[0]
    differences = moved.positions - still.positions
    assert 0.02 < differences.std() < 0.08


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": [["C", "O"]]}, r"\['C', 'O'\]: C has no hydrogen on N or O"),
        ({"pairs": [["O", "C"]]}, r"C has no atom of the elements \[7, 8\]"),
        ({"pairs": [["O", "N"]], "acceptors": [8]}, r"N has no atom of the elements \[8\]"),
        ({"pairs": [["O", "CC(=O)[O-]"]]}, r"carries a net charge of -1"),
    ],
)
def test_pairs_that_cannot_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sampled(**changes)


def test_a_pair_that_always_overlaps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_protons, "CLEARANCE", 9.0)
    with pytest.raises(ConfigError, match=r"1000 times in a row; .* longer distance than \[2.3, 3"):
        sampled(conformations=1)
