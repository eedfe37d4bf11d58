"""Boxes around solutes: what does not fit is refused."""

import re

import numpy as np
import pytest
from openmm import app
from scipy.spatial import cKDTree

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.peptide import build_peptide
from trip_mm.simulation.solute import Solute
from trip_mm.simulation.solvation import solvate
from trip_mm.simulation.system_config import SolventConfig


def solvent(**settings):
    return SolventConfig.model_validate(settings)


def nearest_image(positions, box):
    """Smallest distance of an atom from an image of the solute, by explicit shifts; nm."""
    shifts = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), -1).reshape(-1, 3)
    shifts = shifts[np.any(shifts != 0, axis=1)] @ box
    tree = cKDTree(positions)
    return min(tree.query(positions + shift)[0].min() for shift in shifts)


@pytest.mark.parametrize("shape", ["cube", "dodecahedron", "octahedron"])
def test_solute_close_to_its_image_is_refused_with_an_edge_that_fits(shape):
    solute = build_peptide("AAAAA", "zwitterion", 7.0, 1)
    with pytest.raises(UnsupportedSystemError, match=r"solvent\.edge: .* edge 12 A") as raised:
        solvate(solute, solvent(shape=shape, edge="12 A"), 1)
    edge = float(re.search(r"enlarge it to ([\d.]+) A", str(raised.value)).group(1))
    assert 12.0 < edge < 26.0
    built = solvate(solute, solvent(shape=shape, edge=f"{edge} A"), 1)
    n_atoms = len(solute.positions)
    assert nearest_image(built.positions[:n_atoms], built.box_vectors) >= 0.48
    with pytest.raises(UnsupportedSystemError, match="an image of"):
        solvate(solute, solvent(shape=shape, edge=f"{edge - 0.2} A"), 1)


def test_distance_in_the_message_is_that_of_the_nearest_image():
    solute = build_peptide("AAAAA", "zwitterion", 7.0, 1)
    expected = nearest_image(solute.positions, 1.2 * np.eye(3)) * 10
    with pytest.raises(UnsupportedSystemError, match=f"are {expected:.2f} A apart"):
        solvate(solute, solvent(edge="12 A"), 1)


def test_padding_that_is_too_small_is_refused():
    solute = build_peptide("AAA", "zwitterion", 7.0, 1)
    with pytest.raises(UnsupportedSystemError, match=r"solvent\.padding: .* enlarge it to 4\.8 A"):
        solvate(solute, solvent(padding="1 A"), 1)


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ([0.0], "C1 of MOL 1 (atom 0) and an image of C1 of MOL 1 (atom 0) are 4.70 A apart"),
        ([0.0, 0.12], "are 3.50 A apart"),
        ([0.0, 0.30], "are 1.70 A apart"),
        ([0.0, 0.94], "are 0.00 A apart"),
    ],
)
def test_atoms_meet_images_only(distances, message):
    """Atoms of one molecule may be close; whole boxes away they may not, even on one another."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain("A"))
    for number in range(len(distances)):
        topology.addAtom(f"C{number + 1}", app.element.carbon, residue)
    solute = Solute(topology, np.array([[x, 0.0, 0.0] for x in distances]), 0)
    with pytest.raises(UnsupportedSystemError, match=re.escape(message)):
        solvate(solute, solvent(edge="4.7 A"), 1)
    assert len(solvate(solute, solvent(edge="18 A"), 1).positions) > 400
