"""Water and ions around a solute in a periodic box, reproducible for a seed.

The box is cut out of the equilibrated water that OpenMM ships, and molecules that touch the
solute or collide across the faces are taken out. Unlike `Modeller.addSolvent` this needs no force
field of the solute, so any molecule can be solvated, and it can reach an exact number of waters in
a fixed box.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit
from scipy.spatial import cKDTree

from trip_mm.errors import UnsupportedSystemError
from trip_mm.simulation.box import BOX_SHAPES
from trip_mm.simulation.contacts import cell_heights, close_pairs, images_near_cell, wrap
from trip_mm.simulation.solute import FloatArray, Solute, atom_label, positions_nm
from trip_mm.simulation.system_config import IonsConfig, SolventConfig
from trip_mm.units import ANGSTROM_TO_NM, NM_TO_ANGSTROM

_CONTACT_NM = {"H": 0.24, "C": 0.37, "N": 0.36, "O": 0.345, "S": 0.39}
"""Smallest distance of a water's oxygen from a solute atom (sums of Amber's radii)."""

_OTHER_CONTACT_NM = 0.40
_IMAGE_CONTACT_NM = 2.0 * min(_CONTACT_NM.values())
"""Smallest distance of a solute atom from an image of the solute: a water between touches both."""

_EDGE_STEP_NM = 0.01
_OVERLAP_NM, _OXYGEN_OVERLAP_NM = 0.07, 0.18
"""Smallest distances of any atoms and of the oxygens of two waters that relaxation can repair."""

_RELAXATION_CUTOFF_NM = 0.9
_RELAXATION_STEPS = 60
_SOLUTE_WELL_KJ_PER_MOL = 0.4
_N_CUTS = 8
_STRETCHES = tuple(1.0 + 0.005 * step for step in range(25))
"""Linear factors tried to fit an exact number of waters into a box (at most 12 %)."""

_WATERS_PER_MOL_PER_LITRE = 55.4
_WATER_ATOMS = 3


def solvate(solute: Solute, solvent: SolventConfig, seed: int) -> Solute:
    """Centres the solute in a box and fills the rest with water, then ions if asked for.

    Args:
        solute: may be empty (pure water).
        solvent: shape, size and number of waters.
        seed: decides which waters leave when more fit than asked for, and where ions go.

    Returns:
        Solute atoms first, in their order; waters after them; ions last.

    Raises:
        UnsupportedSystemError: the box does not hold the solute apart from its images, or the
            number of waters.
    """
    box = box_vectors(solute.positions, solvent)
    _refuse_close_images(solute, solvent, box)
    centre = box.sum(axis=0) / 2.0
    if len(solute.positions):
        middle = (solute.positions.max(axis=0) + solute.positions.min(axis=0)) / 2.0
        solute = Solute(solute.topology, solute.positions - middle + centre, solute.net_charge)
    rng = np.random.default_rng(seed)
    waters = _place_waters(solute, solvent, box, rng)
    solvated = app.Modeller(solute.topology, solute.positions * unit.nanometer)
    ions = [] if solvent.ions is None else _ion_names(solvent.ions, solute.net_charge, len(waters))
    sites = _ion_sites(waters, solute, box, len(ions), rng)
    keep = np.setdiff1d(np.arange(len(waters)), sites)
    if len(keep):
        solvated.add(_water_topology(len(keep)), waters[keep].reshape(-1, 3) * unit.nanometer)
    if ions:
        solvated.add(_ion_topology(ions), waters[sites, 0] * unit.nanometer)
    solvated.topology.setPeriodicBoxVectors(box * unit.nanometer)
    charge = solute.net_charge + sum(1 if name == "NA" else -1 for name in ions)
    return Solute(solvated.topology, positions_nm(solvated.positions), charge, box)


def box_vectors(positions: FloatArray, solvent: SolventConfig) -> FloatArray:
    """Returns the lattice vectors that a solvent asks for around a solute, nm `[3, 3]`."""
    if solvent.edge_angstrom is not None:
        edge = solvent.edge_angstrom * ANGSTROM_TO_NM
    else:
        assert solvent.padding_angstrom is not None
        padding = solvent.padding_angstrom * ANGSTROM_TO_NM
        diameter = 0.0
        if len(positions):
            middle = (positions.max(axis=0) + positions.min(axis=0)) / 2.0
            diameter = 2.0 * float(np.linalg.norm(positions - middle, axis=1).max())
        edge = max(diameter + padding, 2.0 * padding)
    vectors: FloatArray = BOX_SHAPES[solvent.shape] * edge
    return vectors


def _refuse_close_images(solute: Solute, solvent: SolventConfig, box: FloatArray) -> None:
    """Refuses a box in which no water fits between the solute and its image."""
    nearest = _nearest_image(solute.positions, box)
    if nearest is None:
        return
    atoms = list(solute.topology.atoms())
    distance, first, second = nearest
    if solvent.edge_angstrom is None:
        key, enough = "padding", _IMAGE_CONTACT_NM
    else:
        key, enough = "edge", _edge_that_fits(solute.positions, box, distance)
    raise UnsupportedSystemError(
        f"solvent.{key}: a box of edge {_edge(box)} is too small for the solute: "
        f"{atom_label(atoms[first])} and an image of {atom_label(atoms[second])} are "
        f"{distance * NM_TO_ANGSTROM:.2f} A apart, and water between them needs "
        f"{_IMAGE_CONTACT_NM * NM_TO_ANGSTROM:.4g} A; enlarge it to "
        f"{enough * NM_TO_ANGSTROM:.4g} A"
    )


def _nearest_image(positions: FloatArray, box: FloatArray) -> tuple[float, int, int] | None:
    """Finds the atom nearest to an image of the solute.

    Returns:
        Distance in nm, the atom and the one whose image it meets; None if none is too close.
    """
    if not len(positions):
        return None
    points, owners = images_near_cell(positions, box, _IMAGE_CONTACT_NM)
    pairs = cKDTree(points).query_pairs(_IMAGE_CONTACT_NM, output_type="ndarray")
    translations = points - positions[owners]
    apart = np.linalg.norm(translations[pairs[:, 0]] - translations[pairs[:, 1]], axis=1)
    pairs = pairs[apart > 0.5 * float(cell_heights(box).min())]  # others are within one molecule
    if not len(pairs):
        return None
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    nearest = int(distances.argmin())
    first, second = owners[pairs[nearest]]
    return float(distances[nearest]), int(first), int(second)


def _edge_that_fits(positions: FloatArray, box: FloatArray, distance: float) -> float:
    """Returns an edge in nm, in steps of 0.1 A, at which the solute is apart from its images.

    Args:
        positions: of the solute, nm `[n_atoms, 3]`.
        box: too small, nm `[3, 3]`.
        distance: of the solute from its image in that box, nm.
    """
    length = edge = float(np.linalg.norm(box[0]))
    nearest: tuple[float, int, int] | None = (distance, 0, 0)
    while nearest is not None:
        # Images next to the cell move by at most twice as much as the edge grows.
        grown = edge + max(_EDGE_STEP_NM, (_IMAGE_CONTACT_NM - nearest[0]) / 2.0)
        edge = math.ceil(grown / _EDGE_STEP_NM - 1e-6) * _EDGE_STEP_NM
        nearest = _nearest_image(positions, box * (edge / length))
    return edge


def _place_waters(
    solute: Solute, solvent: SolventConfig, box: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Returns waters that leave the solute room, nm `[n_waters, 3, 3]` (O, H, H).

    Without an exact number as many are placed as bulk water holds in the free volume. The number
    is reached by cutting from the equilibrated water at several places and, since some collide
    where the box meets its image, by compressing it a little; what is too much leaves at random,
    the rest relaxes around the fixed solute.
    """
    bulk = _equilibrated_water(solvent.model)
    n_waters = solvent.n_waters
    if n_waters is None:
        n_waters = len(_cut_waters(bulk, box, np.zeros(3), 1.0, solute))
    if not n_waters:
        raise UnsupportedSystemError(
            f"solvent: no water fits beside the solute in a box of edge {_edge(box)}; "
            "enlarge edge or padding"
        )
    origins = rng.random((_N_CUTS, 3))
    most = 0
    for stretch in _STRETCHES:
        for origin in origins:
            waters = _without_overlaps(_cut_waters(bulk, box, origin, stretch, solute), box)
            most = max(most, len(waters))
            if len(waters) >= n_waters:
                chosen = np.sort(rng.choice(len(waters), n_waters, replace=False))
                return _relax_waters(waters[chosen], solute, box)
    raise UnsupportedSystemError(
        f"solvent.n_waters: {n_waters} waters do not fit into a box of edge {_edge(box)} "
        f"(at most {most}); enlarge edge or ask for fewer"
    )


def _edge(box: FloatArray) -> str:
    return f"{float(np.linalg.norm(box[0])) * NM_TO_ANGSTROM:.4g} A"


def _equilibrated_water(model: str) -> tuple[FloatArray, FloatArray]:
    """Returns OpenMM's equilibrated water, nm `[n_waters, 3, 3]`, and its cubic box `[3, 3]`."""
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / f"{model}.pdb"))
    box = np.asarray(pdb.topology.getPeriodicBoxVectors().value_in_unit(unit.nanometer))
    return positions_nm(pdb.positions).reshape(-1, _WATER_ATOMS, 3), box


def _cut_waters(
    bulk: tuple[FloatArray, FloatArray],
    box: FloatArray,
    origin: FloatArray,
    stretch: float,
    solute: Solute,
) -> FloatArray:
    """Cuts the cell out of repeated water and takes out what collides.

    Args:
        bulk: equilibrated water and its box.
        box: cell to fill, nm `[3, 3]`.
        origin: corner of the cell, in fractions of the box of the bulk `[3]`.
        stretch: linear factor by which the cut is larger than the cell; molecules move together
            by it and stay rigid.
        solute: what the waters must leave room for.
    """
    molecules, bulk_box = bulk
    cut = box * stretch
    corners = np.array(list(itertools.product((0, 1), repeat=3))) @ cut
    repeats = np.ceil(np.ptp(corners, axis=0) / np.diag(bulk_box)).astype(int) + 1
    oxygens = wrap(molecules[:, 0] - origin @ bulk_box, bulk_box)
    tiles = np.array(list(itertools.product(*(range(n) for n in repeats)))) @ bulk_box
    tiled = (tiles[:, None] + corners.min(axis=0) + oxygens[None]).reshape(-1, 3)
    arms = np.tile(molecules - molecules[:, :1], (len(tiles), 1, 1))
    fractions = tiled @ np.linalg.inv(cut)
    inside = np.all((fractions >= 0.0) & (fractions < 1.0), axis=1)
    waters = (fractions[inside] @ box)[:, None] + arms[inside]
    return _free_of_solute(waters, solute, box)


def _free_of_solute(waters: FloatArray, solute: Solute, box: FloatArray) -> FloatArray:
    """Takes out waters whose oxygen is in contact with the solute or an image of it."""
    symbols = np.array([atom.element.symbol for atom in solute.topology.atoms()])
    free = np.ones(len(waters), dtype=bool)
    oxygens = wrap(waters[:, 0], box)
    for symbol in sorted(set(symbols.tolist())):
        reach = _CONTACT_NM.get(symbol, _OTHER_CONTACT_NM)
        images, _ = images_near_cell(solute.positions[symbols == symbol], box, reach)
        distances, _ = cKDTree(images).query(oxygens, distance_upper_bound=reach)
        free &= ~np.isfinite(distances)
    kept: FloatArray = waters[free]
    return kept


def _without_overlaps(waters: FloatArray, box: FloatArray) -> FloatArray:
    """Takes out one of two waters that are too close to relax, where the box meets its image."""
    collisions = [
        (first // _WATER_ATOMS, second // _WATER_ATOMS)
        for first, second, _ in close_pairs(waters.reshape(-1, 3), box, _OVERLAP_NM)
    ]
    collisions += [(i, j) for i, j, _ in close_pairs(waters[:, 0], box, _OXYGEN_OVERLAP_NM)]
    dropped: set[int] = set()
    for first, second in collisions:
        if first != second and first not in dropped:
            dropped.add(second)
    kept: FloatArray = np.delete(waters, sorted(dropped), axis=0)
    return kept


def _relax_waters(waters: FloatArray, solute: Solute, box: FloatArray) -> FloatArray:
    """Relaxes TIP3P waters around fixed solute atoms without charge, nm `[n_waters, 3, 3]`.

    One thread of the CPU platform, so that the result is the same each time.
    """
    topology = _water_topology(len(waters))
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    system = app.ForceField("amber14/tip3p.xml").createSystem(
        topology,
        nonbondedMethod=app.CutoffPeriodic,
        nonbondedCutoff=min(_RELAXATION_CUTOFF_NM, 0.49 * float(cell_heights(box).min())),
        rigidWater=False,
    )
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    for atom in solute.topology.atoms():
        system.addParticle(0.0)
        contact = _CONTACT_NM.get(atom.element.symbol, _OTHER_CONTACT_NM)
        nonbonded.addParticle(0.0, contact * 2.0 ** (-1.0 / 6.0), _SOLUTE_WELL_KJ_PER_MOL)
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.0), platform, {"Threads": "1"})
    context.setPositions(np.concatenate([waters.reshape(-1, 3), solute.positions]))
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=_RELAXATION_STEPS)
    relaxed = positions_nm(context.getState(positions=True).getPositions())
    return _rigid(relaxed[: _WATER_ATOMS * len(waters)].reshape(-1, _WATER_ATOMS, 3), waters[0])


def _rigid(waters: FloatArray, reference: FloatArray) -> FloatArray:
    """Gives each water the bond lengths and angle of `reference`, in its own plane."""
    arms = reference[1:] - reference[0]
    along = float(np.linalg.norm(arms.sum(axis=0))) / 2.0
    across = float(np.linalg.norm(arms[0] - arms[1])) / 2.0
    first, second = waters[:, 1] - waters[:, 0], waters[:, 2] - waters[:, 0]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    bisector, side = first + second, first - second  # perpendicular: both arms have length 1
    bisector *= along / np.linalg.norm(bisector, axis=1, keepdims=True)
    side *= across / np.linalg.norm(side, axis=1, keepdims=True)
    oxygens = waters[:, 0]
    return np.stack([oxygens, oxygens + bisector + side, oxygens + bisector - side], axis=1)


def _ion_names(ions: IonsConfig, net_charge: int, n_waters: int) -> list[str]:
    n_pairs = math.floor(n_waters * ions.concentration_mol_per_l / _WATERS_PER_MOL_PER_LITRE + 0.5)
    counter = ("CL" if net_charge > 0 else "NA") if ions.neutralize else ""
    return [counter] * (abs(net_charge) if counter else 0) + ["NA", "CL"] * n_pairs


def _ion_sites(
    waters: FloatArray, solute: Solute, box: FloatArray, n_ions: int, rng: np.random.Generator
) -> np.ndarray:
    """Chooses waters to replace by ions: at random, at least 5 A from solute and each other."""
    chosen: list[int] = []
    oxygens = wrap(waters[:, 0], box)
    blocked = solute.positions
    for candidate in rng.permutation(len(waters)):
        if len(chosen) == n_ions:
            break
        if len(blocked):
            images, _ = images_near_cell(blocked, box, 0.5)
            if cKDTree(images).query(oxygens[candidate])[0] < 0.5:
                continue
        chosen.append(int(candidate))
        blocked = np.concatenate([blocked, oxygens[candidate][None]])
    if len(chosen) < n_ions:
        raise UnsupportedSystemError(
            f"solvent.ions: {n_ions} ions do not fit into {len(waters)} waters; enlarge the box or "
            "lower the concentration"
        )
    return np.array(chosen, dtype=np.int64)


def _water_topology(n_waters: int) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("W")
    for index in range(n_waters):
        residue = topology.addResidue("HOH", chain, str(index + 1))
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
    return topology


def _ion_topology(names: list[str]) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain("I")
    elements = {"NA": app.element.sodium, "CL": app.element.chlorine}
    for index, name in enumerate(names):
        residue = topology.addResidue(name, chain, str(index + 1))
        topology.addAtom(name, elements[name], residue)
    return topology
