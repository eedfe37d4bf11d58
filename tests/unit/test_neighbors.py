"""The neighbour search against a sum over explicit replicas, against vesin, and against itself."""

import copy
import io
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from trip_mm import neighbors
from trip_mm.errors import (
    CellTooSmallError,
    ConfigError,
    DataError,
    TripError,
    UnstableSimulationError,
)
from trip_mm.lattice import prepare_lattice
from trip_mm.neighbors import (
    VerletList,
    batched_neighbor_list,
    check_cell,
    minimum_cell_height,
    neighbor_list,
)

CUTOFF = 4.6
L = 14.0

CELLS: dict[str, Tensor | None] = {
    "open": None,
    "cube": L * torch.eye(3, dtype=torch.float64),
    "cube just large enough": 9.2001 * torch.eye(3, dtype=torch.float64),
    "orthorhombic": torch.diag(torch.tensor([10.0, 13.5, 24.0], dtype=torch.float64)),
    "rhombic dodecahedron": L
    * torch.tensor([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]], dtype=torch.float64),
    "truncated octahedron": L
    * torch.tensor(
        [[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]], dtype=torch.float64
    ),
    "triclinic": torch.tensor(
        [[12.0, 0, 0], [4.1, 11.0, 0], [-3.3, 5.0, 10.5]], dtype=torch.float64
    ),
    "rotated, left-handed": torch.tensor(
        [[1.0, 11.0, 2.0], [12.0, -1.0, 3.0], [-2.0, 1.5, 13.0]], dtype=torch.float64
    ),
    "not reduced": torch.tensor(
        [[30.0, 0, 0], [75.0, 30.0, 0], [3.0, -10.0, 30.0]], dtype=torch.float64
    ),
}

scripted_neighbor_list = torch.jit.script(neighbor_list)


def scattered(cell: Tensor | None, n_atoms: int, seed: int = 0, images: int = 10) -> Tensor:
    """Atoms spread over the cell, each displaced by up to `images` lattice vectors."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64)
    if cell is None:
        return positions * L
    jumps = torch.randint(-images, images + 1, (n_atoms, 3), generator=generator)
    return (positions + jumps) @ cell


def water_density(n_atoms: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random positions in a cube with 0.1 atoms per cubic angstrom."""
    cell = (n_atoms / 0.1) ** (1 / 3) * torch.eye(3, dtype=torch.float64)
    return scattered(cell, n_atoms, seed, images=0), cell


def edge_vectors(positions: Tensor, cell: Tensor | None, edges: tuple[Tensor, ...]) -> Tensor:
    senders, receivers, shifts = edges
    vectors = positions[receivers] - positions[senders]
    return vectors if cell is None else vectors + shifts @ cell.to(shifts)


def replica_edges(
    positions: Tensor, cell: Tensor | None, cutoff: float
) -> dict[tuple[int, int], np.ndarray]:
    """Vectors of the pairs within a cutoff, by summing over replicas of the wrapped atoms."""
    points = positions.double().numpy()
    replicas = [np.zeros(3)]
    if cell is not None:
        rows = cell.double().numpy()
        points = points - np.floor(points @ np.linalg.inv(rows)) @ rows
        replicas = [np.array(n) @ rows for n in itertools.product(range(-2, 3), repeat=3)]
    found: dict[tuple[int, int], np.ndarray] = {}
    for replica in replicas:
        vectors = points[None] - points[:, None] + replica  # [senders, receivers, 3]
        for i, j in np.argwhere(np.linalg.norm(vectors, axis=-1) < cutoff):
            if i != j:
                assert (i, j) not in found, "two images of a pair within the cutoff"
                found[int(i), int(j)] = vectors[i, j]
    return found


def assert_same(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def assert_sorted(edges: tuple[Tensor, ...], n_atoms: int) -> None:
    keys = edges[1] * n_atoms + edges[0]
    assert bool((keys[1:] > keys[:-1]).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CELLS)
def test_edges_are_those_of_explicit_replicas(name: str, dtype: torch.dtype) -> None:
    cell = CELLS[name]
    positions = scattered(cell, 150).to(dtype)
    cell = None if cell is None else cell.to(dtype)
    edges = neighbor_list(positions, cell, CUTOFF)
    senders, receivers, shifts = edges
    assert senders.dtype == receivers.dtype == torch.int64
    assert shifts.dtype == dtype
    assert torch.equal(shifts, shifts.round())
    assert_sorted(edges, len(positions))
    vectors = edge_vectors(positions, cell, edges).double().numpy()
    found = dict(zip(zip(senders.tolist(), receivers.tolist(), strict=True), vectors, strict=True))
    expected = replica_edges(positions, cell, CUTOFF)
    # Single precision may decide differently only where a pair is at the cutoff to rounding.
    tolerance = 1e-10 if dtype == torch.float64 else 5e-4
    for pair in found.keys() ^ expected.keys():
        length = np.linalg.norm(found[pair] if pair in found else expected[pair])
        assert dtype == torch.float32, pair
        assert abs(length - CUTOFF) < tolerance
    common = found.keys() & expected.keys()
    assert len(common) > 100
    np.testing.assert_allclose(
        [found[pair] for pair in common], [expected[pair] for pair in common], atol=tolerance
    )


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("n_atoms", [150, 1200])
def test_scripted_equals_eager(name: str, n_atoms: int) -> None:
    positions = scattered(CELLS[name], n_atoms)
    eager = neighbor_list(positions, CELLS[name], CUTOFF)
    assert_same(scripted_neighbor_list(positions, CELLS[name], CUTOFF), eager)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [1.1, CUTOFF, 5.6, 9.0])
def test_cell_list_equals_all_pairs(name: str, dtype: torch.dtype, radius: float) -> None:
    # Radii beyond half the shortest height, and fewer than three bins in a direction, included.
    positions = scattered(CELLS[name], 200).to(dtype)
    lattice = prepare_lattice(positions, CELLS[name], CUTOFF)
    for chunk in (1000, 10_000_000):
        binned = neighbors._binned_pairs(positions, lattice, radius, chunk)
        assert_same(binned, neighbors._all_pairs(positions, lattice, radius, chunk))


@pytest.mark.parametrize("periodic", [True, False])
def test_cell_list_equals_all_pairs_for_thousands_of_atoms(periodic: bool) -> None:
    positions, cell = water_density(4000)
    box = cell if periodic else None
    lattice = prepare_lattice(positions, box, CUTOFF)
    edges = neighbor_list(positions, box, CUTOFF)
    assert_sorted(edges, 4000)
    assert_same(edges[:2], neighbors._all_pairs(positions, lattice, CUTOFF))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("n_atoms", [200, 1200])
def test_agrees_with_vesin(name: str, n_atoms: int) -> None:
    vesin = pytest.importorskip("vesin")
    cell = CELLS[name]
    positions = scattered(cell, n_atoms, seed=3)
    edges = neighbor_list(positions, cell, CUTOFF)
    i, j, vectors = vesin.NeighborList(cutoff=CUTOFF, full_list=True).compute(
        points=positions.numpy(),
        box=np.zeros((3, 3)) if cell is None else cell.numpy(),
        periodic=cell is not None,
        quantities="ijD",
    )
    order = np.lexsort((i, j))
    np.testing.assert_array_equal(edges[0].numpy(), i[order].astype(np.int64))
    np.testing.assert_array_equal(edges[1].numpy(), j[order].astype(np.int64))
    np.testing.assert_allclose(edge_vectors(positions, cell, edges), vectors[order], atol=1e-9)


@pytest.mark.parametrize("find", [neighbor_list, scripted_neighbor_list])
@pytest.mark.parametrize("cell", [None, CELLS["triclinic"]])
def test_no_atom_one_atom_two_atoms(find, cell: Tensor | None) -> None:
    for n_atoms in (0, 1):
        senders, receivers, shifts = find(torch.zeros(n_atoms, 3), cell, CUTOFF)
        assert senders.shape == receivers.shape == (0,)
        assert shifts.shape == (0, 3)
    near = torch.tensor([[0.0, 0.0, 0.0], [4.5999, 0.0, 0.0]])
    assert find(near, cell, CUTOFF)[0].tolist() == [1, 0]
    assert find(near, cell, CUTOFF)[1].tolist() == [0, 1]
    far = torch.tensor([[0.0, 0.0, 0.0], [4.6001, 0.0, 0.0]])
    assert find(far, cell, CUTOFF)[0].numel() == 0


def test_atoms_spread_over_a_huge_open_region() -> None:
    positions = scattered(None, 1500)
    positions[0] += 1e7
    positions[1] -= 1e7
    edges = neighbor_list(positions, None, CUTOFF)
    rest = neighbor_list(positions[2:], None, CUTOFF)
    assert torch.equal(edges[0], rest[0] + 2)
    assert torch.equal(edges[1], rest[1] + 2)


def test_all_atoms_in_one_place() -> None:
    positions = torch.zeros(1300, 3)
    senders, _, _ = neighbor_list(positions, None, CUTOFF)
    assert senders.numel() == 1300 * 1299


def test_records_no_gradient_and_writes_nothing() -> None:
    positions = scattered(CELLS["cube"], 60).requires_grad_()
    cell = CELLS["cube"].clone().requires_grad_()
    before = positions.detach().clone()
    for find in (VerletList(CUTOFF), torch.jit.script(VerletList(CUTOFF))):
        assert not find(positions, cell)[2].requires_grad
    assert not neighbor_list(positions, cell, CUTOFF)[2].requires_grad
    assert torch.equal(positions, before)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_verlet_list_along_a_walk_with_changing_cell(
    name: str, scripted: bool, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    cell = CELLS[name]
    module = VerletList(CUTOFF, skin=1.0)
    verlet = torch.jit.script(module) if scripted else module
    positions = scattered(cell, 120, images=1)
    n_steps = 40
    for _ in range(n_steps):
        positions = positions + 0.03 * torch.randn(positions.shape, generator=generator)
        if cell is not None:
            # Like a barostat: the cell is strained a little, the atoms follow it, some are wrapped.
            noise = 0.002 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
            strain = torch.eye(3) * (1.0 + noise[0, 0].abs()) + noise.tril(-1)
            positions, cell = positions @ strain, cell @ strain
            jumps = torch.randint(-2, 3, positions.shape, generator=generator)
            jumps = jumps * (torch.rand(len(positions), 1, generator=generator) < 0.1)
            positions = positions + jumps.double() @ cell
        now = None if cell is None else cell.to(dtype)
        expected = neighbor_list(positions.to(dtype), now, CUTOFF)
        assert_same(verlet(positions.to(dtype), now), expected)
    assert 1 < verlet.n_builds < n_steps


@pytest.mark.parametrize("cell", [None, 40.0 * torch.eye(3)])
def test_verlet_list_searches_exactly_when_an_atom_has_moved_half_the_skin(
    cell: Tensor | None,
) -> None:
    verlet = VerletList(CUTOFF, skin=1.0)
    positions = scattered(None, 50).float()
    for _ in range(3):
        verlet(positions, cell)
    assert verlet.n_builds == 1
    moved = positions.clone()
    moved[7, 1] += 0.499
    verlet(moved, cell)
    assert verlet.n_builds == 1
    moved[7, 1] += 0.002
    verlet(moved, cell)
    assert verlet.n_builds == 2
    verlet(moved, cell)
    assert verlet.n_builds == 2
    # Measured from the last search: back by less than half the skin is no reason to search.
    moved[7, 1] -= 0.499
    verlet(moved, cell)
    assert verlet.n_builds == 2


def test_half_the_skin_not_the_skin() -> None:
    # Two atoms just beyond cutoff + skin approach by 0.55 each: less than the skin, yet neighbours.
    verlet = VerletList(CUTOFF, skin=1.0)
    positions = torch.tensor([[0.0, 0.0, 0.0], [5.61, 0.0, 0.0]])
    assert verlet(positions, None)[0].numel() == 0
    closer = positions + torch.tensor([[0.55, 0.0, 0.0], [-0.55, 0.0, 0.0]])
    assert verlet(closer, None)[0].numel() == 2


def test_displacements_that_add_up_over_many_steps() -> None:
    verlet = VerletList(CUTOFF, skin=1.0)
    positions = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], dtype=torch.float64)
    for _ in range(60):
        positions[1, 0] -= 0.1  # in place: the list must not have kept this tensor
        assert_same(verlet(positions, None), neighbor_list(positions, None, CUTOFF))


def test_small_strain_is_free_and_large_strain_is_not() -> None:
    verlet = VerletList(CUTOFF, skin=1.0)
    cell = 30.0 * torch.eye(3, dtype=torch.float64)
    positions = scattered(cell, 300)
    verlet(positions, cell)
    for scale in (1.0005, 0.995, 1.01):
        edges = verlet(positions * scale, cell * scale)
        assert_same(edges, neighbor_list(positions * scale, cell * scale, CUTOFF))
        assert verlet.n_builds == 1
    for scale in (0.8, 1.3):
        edges = verlet(positions * scale, cell * scale)
        assert_same(edges, neighbor_list(positions * scale, cell * scale, CUTOFF))
    assert verlet.n_builds == 3


def test_strain_alone_can_make_neighbours() -> None:
    verlet = VerletList(CUTOFF, skin=1.0)
    cell = 30.0 * torch.eye(3, dtype=torch.float64)
    positions = torch.tensor([[0.0, 0.0, 0.0], [5.61, 0.0, 0.0]], dtype=torch.float64)
    assert verlet(positions, cell)[0].numel() == 0
    assert verlet(positions * 0.81, cell * 0.81)[0].numel() == 2


def test_cell_changes_while_positions_stay() -> None:
    # The pair is joined through the boundary, and only the cell moves it into range.
    verlet = VerletList(CUTOFF, skin=1.0)
    positions = torch.tensor([[0.0, 0.0, 0.0], [14.0, 0.0, 0.0]])
    for length in (20.0, 19.5, 19.0, 18.5, 18.0):
        cell = length * torch.eye(3)
        assert_same(verlet(positions, cell), neighbor_list(positions, cell, CUTOFF))


def test_a_jump_by_lattice_vectors_needs_no_search() -> None:
    cell = CELLS["triclinic"]
    verlet = VerletList(CUTOFF, skin=1.0)
    positions = scattered(cell, 100)
    verlet(positions, cell)
    jumped = positions + 0.1 + torch.tensor([2.0, -1.0, 5.0], dtype=torch.float64) @ cell
    jumped[::3] -= cell[0] + 3 * cell[2]
    assert_same(verlet(jumped, cell), neighbor_list(jumped, cell, CUTOFF))
    assert verlet.n_builds == 1


@pytest.mark.parametrize("scripted", [False, True])
def test_verlet_list_serves_any_sequence_of_systems(scripted: bool) -> None:
    module = VerletList(CUTOFF)
    verlet = torch.jit.script(module) if scripted else module
    cube = CELLS["cube"]
    positions = scattered(cube, 80, images=0)
    sequence = [
        (positions, cube),
        (positions.float(), cube.float()),
        (positions, cube),
        (positions, None),
        (positions.float(), None),
        (positions.float(), cube.float()),
        (positions[:70].float(), cube.float()),
        (positions[:0], cube),
        (positions[:0], cube),
        (positions[:1], cube),
        (positions.flip(0), cube),
        (positions, cube.roll(1, 0)),
    ]
    for some, cell in sequence:
        assert_same(verlet(some, cell), neighbor_list(some, cell, CUTOFF))


def test_a_float64_cell_with_float32_positions() -> None:
    positions = scattered(CELLS["cube"], 80).float()
    edges = neighbor_list(positions, CELLS["cube"], CUTOFF)
    assert_same(edges, neighbor_list(positions, CELLS["cube"].float(), CUTOFF))
    assert_same(edges, VerletList(CUTOFF)(positions, CELLS["cube"]))


def test_skin_that_reaches_beyond_half_the_cell() -> None:
    generator = torch.Generator().manual_seed(2)
    for name in ("cube just large enough", "not reduced", "orthorhombic"):
        cell = CELLS[name]
        verlet = VerletList(CUTOFF, skin=6.0)
        positions = scattered(cell, 60)
        for _ in range(60):
            positions = positions + 0.2 * torch.randn(positions.shape, generator=generator)
            assert_same(verlet(positions, cell), neighbor_list(positions, cell, CUTOFF))
        assert verlet.n_builds < 30


def test_state_is_private_to_each_list() -> None:
    verlet = VerletList(CUTOFF)
    first, second = scattered(CELLS["cube"], 50, seed=1), scattered(CELLS["cube"], 50, seed=2)
    verlet(first, CELLS["cube"])
    assert verlet.state_dict() == {}
    assert list(verlet.buffers()) == []
    for twin in (copy.deepcopy(verlet), copy.copy(verlet)):
        expected = neighbor_list(second, CELLS["cube"], CUTOFF)
        assert_same(twin(second, CELLS["cube"]), expected)
        assert (verlet.n_builds, twin.n_builds) == (1, 2)
        expected = neighbor_list(first, CELLS["cube"], CUTOFF)
        assert_same(verlet(first, CELLS["cube"]), expected)
        assert verlet.n_builds == 1


def test_results_are_not_the_cached_candidates() -> None:
    verlet = VerletList(CUTOFF, skin=0.0)
    positions = scattered(None, 50)
    for edges in verlet(positions, None):
        edges.zero_()
    assert_same(verlet(positions, None), neighbor_list(positions, None, CUTOFF))


def test_saved_and_frozen_modules_keep_working() -> None:
    positions, cell = scattered(CELLS["cube"], 80), CELLS["cube"]
    scripted = torch.jit.script(VerletList(CUTOFF).eval())
    scripted(positions, cell)
    stream = io.BytesIO()
    torch.jit.save(scripted, stream)
    stream.seek(0)
    moved = positions + torch.linspace(0, 2, 80, dtype=torch.float64)[:, None]
    for module in (torch.jit.load(stream), torch.jit.freeze(scripted)):
        for some in (positions, moved, positions):
            assert_same(module(some, cell), neighbor_list(some, cell, CUTOFF))


def test_settings_of_the_list_are_checked() -> None:
    for cutoff, skin in ((0.0, 1.0), (-1.0, 1.0), (4.6, -0.1), (float("nan"), 1.0)):
        with pytest.raises(ConfigError, match="cutoff"):
            VerletList(cutoff, skin)


@pytest.mark.parametrize(
    "cell", [9.19 * torch.eye(3), 9.19 * np.eye(3), (9.19 * np.eye(3)).tolist()]
)
def test_check_cell_names_heights_cutoff_and_smallest_allowed(cell) -> None:
    with pytest.raises(CellTooSmallError, match=r"9\.190, 9\.190 and 9\.190 A.*4\.600 A.*9\.200 A"):
        check_cell(cell, CUTOFF)


def test_check_cell_accepts_a_box_rounded_to_single_precision() -> None:
    check_cell(np.diag(np.array([9.2, 9.2, 9.2], dtype=np.float32)), CUTOFF)
    neighbor_list(torch.zeros(2, 3), 9.2 * torch.eye(3), CUTOFF)


def test_heights_are_perpendicular() -> None:
    # Lattice vectors longer than twice the cutoff, but layers that are too close.
    cell = np.array([[12.0, 0, 0], [11.0, 8.0, 0], [0, 0, 12.0]])
    assert float(minimum_cell_height(torch.tensor(cell))) == pytest.approx(
        min(8.0, 12.0 * 8.0 / np.hypot(11.0, 8.0))
    )
    with pytest.raises(CellTooSmallError, match="cell too small"):
        check_cell(cell, CUTOFF)
    expected = float(minimum_cell_height(torch.tensor(cell)))
    assert float(torch.jit.script(minimum_cell_height)(torch.tensor(cell))) == expected


NAN = float("nan")
BAD_INPUT = {
    "cell too small for the cutoff": (torch.zeros(3, 3), 9.0 * torch.eye(3)),
    "cell is singular": (torch.zeros(3, 3), torch.diag(torch.tensor([20.0, 20.0, 0.0]))),
    "cell is not finite": (torch.zeros(3, 3), torch.diag(torch.tensor([20.0, 20.0, NAN]))),
    "positions are not finite": (torch.tensor([[0.0, 0, 0], [NAN, 0, 0]]), None),
}


@pytest.mark.parametrize("text", BAD_INPUT)
def test_bad_input_is_refused(text: str) -> None:
    positions, cell = BAD_INPUT[text]
    for find in (lambda p, c: neighbor_list(p, c, CUTOFF), VerletList(CUTOFF)):
        with pytest.raises(TripError, match=f"^{text}"):
            find(positions, cell)
    for find in (
        lambda p, c: scripted_neighbor_list(p, c, CUTOFF),
        torch.jit.script(VerletList(CUTOFF)),
    ):
        with pytest.raises(torch.jit.Error, match=text):
            find(positions, cell)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("n_atoms", [30, 1500])
@pytest.mark.parametrize("cell", [None, 30.0 * torch.eye(3)])
def test_positions_that_turn_bad_are_refused_and_the_list_recovers(
    cell: Tensor | None, n_atoms: int, value: float
) -> None:
    verlet = VerletList(CUTOFF)
    positions = 2.0 * scattered(None, n_atoms).float()
    verlet(positions, cell)
    broken = positions.clone()
    broken[4, 2] = value
    for _ in range(2):
        with pytest.raises(UnstableSimulationError, match=r"positions are not finite: 1 .*index 4"):
            verlet(broken, cell)
    assert_same(verlet(positions, cell), neighbor_list(positions, cell, CUTOFF))


def test_cell_that_shrinks_below_the_cutoff_is_refused_without_a_search() -> None:
    verlet = VerletList(CUTOFF)
    positions = scattered(None, 30)
    verlet(positions, 9.3 * torch.eye(3))
    with pytest.raises(CellTooSmallError, match="cell too small for the cutoff"):
        verlet(positions, 9.19 * torch.eye(3))


def batch(names: list[str], sizes: list[int]) -> tuple[list[Tensor], Tensor, Tensor]:
    """Systems of given sizes in given cells: positions of each, system_idx, cells."""
    cells = [torch.zeros(3, 3).double() if CELLS[name] is None else CELLS[name] for name in names]
    systems = [
        scattered(CELLS[name], size, seed=i)
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    return systems, torch.repeat_interleave(torch.tensor(sizes)), torch.stack(cells)


@pytest.mark.parametrize("chunk", [50, 250_000])
def test_batch_equals_single_systems(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "_PAIRS_PER_CHUNK", chunk)
    names = [*CELLS, "open", "cube"]
    systems, system_idx, cells = batch(names, [10, 40, 0, 1, 100, 2, 33, 1, 64, 0, 7][: len(names)])
    positions = torch.cat(systems)
    for given in (cells, None):
        expected = []
        offset = 0
        for name, system in zip(names, systems, strict=True):
            single = neighbor_list(system, None if given is None else CELLS[name], CUTOFF)
            expected.append((single[0] + offset, single[1] + offset, single[2]))
            offset += len(system)
        found = batched_neighbor_list(positions, system_idx, given, CUTOFF)
        assert_same(found, tuple(torch.cat(parts) for parts in zip(*expected, strict=True)))


def test_batch_of_nothing() -> None:
    edges = batched_neighbor_list(
        torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), None, CUTOFF
    )
    assert [len(part) for part in edges] == [0, 0, 0]


def test_batch_refuses_what_it_cannot_mean() -> None:
    positions = torch.zeros(4, 3)
    in_order = torch.tensor([0, 0, 1, 1])
    with pytest.raises(DataError, match="sort the atoms"):
        batched_neighbor_list(positions, torch.tensor([0, 1, 0, 1]), None, CUTOFF)
    with pytest.raises(DataError, match="entries of system_idx"):
        batched_neighbor_list(positions, in_order[:3], None, CUTOFF)
    with pytest.raises(DataError, match="cells of shape"):
        batched_neighbor_list(positions, in_order, 20.0 * torch.eye(3)[None], CUTOFF)
    cells = torch.stack([20.0 * torch.eye(3), 9.0 * torch.eye(3)])
    with pytest.raises(CellTooSmallError, match="cell too small"):
        batched_neighbor_list(positions, in_order, cells, CUTOFF)
    with pytest.raises(UnstableSimulationError, match="positions are not finite"):
        batched_neighbor_list(positions * NAN, in_order, None, CUTOFF)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("n_atoms", [150, 1500])
def test_on_a_gpu_as_on_the_cpu(name: str, n_atoms: int) -> None:
    positions, cell = scattered(CELLS[name], n_atoms), CELLS[name]
    there = None if cell is None else cell.cuda()
    expected = neighbor_list(positions, cell, CUTOFF)
    for find in (VerletList(CUTOFF), torch.jit.script(VerletList(CUTOFF))):
        find(positions, cell)  # the state of a list may come from another device
        assert_same(tuple(part.cpu() for part in find(positions.cuda(), there)), expected)
