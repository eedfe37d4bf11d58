"""Pairs of atoms within a cutoff: open, orthorhombic and triclinic cells, Verlet lists, batches.

The search runs inside a scripted module that OpenMM loads without Python, on whichever device
holds the positions. vesin (NumPy, or a binary tied to one torch version) and mlipops (custom
operators) cannot be part of a self-contained TorchScript archive, so the search is written here in
vectorised torch operations, and vesin is the independent reference of the tests.

No gradient is recorded here: compute edge vectors from the positions and the returned shifts.
"""

import torch
from torch import Tensor

from trip_mm.errors import ConfigError, DataError, UnstableSimulationError
from trip_mm.lattice import (
    Lattice,
    batched_inverses,
    cell_geometry,
    check_cell,
    minimum_cell_height,
    minimum_image,
    prepare_lattice,
)

__all__ = [
    "VerletList",
    "batched_neighbor_list",
    "check_cell",
    "minimum_cell_height",
    "neighbor_list",
]

# From how many atoms binning is quicker than comparing all pairs. Measured at the density of water
# on one CPU thread: 600 atoms 10 against 7 ms, 1000 atoms 21 against 17, 1500 atoms 23 against 41.
_CELL_LIST_MIN_ATOMS: int = 1200
# Pairs looked at in one go, about 200 bytes each: bounds the memory, and stays in the CPU's cache.
_PAIRS_PER_CHUNK: int = 250_000


def _check_positions(positions: Tensor) -> None:
    """Refuses positions that are not finite."""
    if not bool(torch.isfinite(positions).all()):
        bad = torch.nonzero(~torch.isfinite(positions).all(dim=-1)).view(-1)
        raise UnstableSimulationError(
            f"positions are not finite: {bad.numel()} atoms, the first of index {int(bad[0])}"
        )


def _expand_ranges(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenates integer ranges: which range each element belongs to, and its value.

    Args:
        starts: first value of each range, int64 [n_ranges].
        counts: length of each range, int64 [n_ranges].

    Returns:
        Index of the range and value, each int64 [sum of counts].
    """
    owners = torch.repeat_interleave(counts)
    first = starts - (counts.cumsum(0) - counts)
    return owners, torch.arange(owners.numel(), device=starts.device) + first.index_select(
        0, owners
    )


def _chunk_end(cumulative: Tensor, start: int, budget: int) -> int:
    """End of the chunk of rows from `start` whose counts (given summed up) stay in the budget."""
    done = int(cumulative[start - 1]) if start > 0 else 0
    end = int(torch.searchsorted(cumulative, done + budget, right=True))
    return max(end, start + 1)


def _near(vectors: Tensor, lattice: Lattice | None, radius: float) -> Tensor:
    """Indices of the pairs, given by their differences [n, 3], that may be within a radius.

    Exact while the radius is at most half the shortest height. Beyond that another image may be
    nearer than the one found by rounding; then the bound |v| >= |f_i| h_i, which holds for every
    image, keeps a superset.
    """
    nearest, _ = minimum_image(vectors, lattice)
    if lattice is not None and 2.0 * radius > lattice.shortest:
        bounds = (nearest @ lattice.inverse).abs() * lattice.heights
        return torch.nonzero((bounds < radius).all(dim=-1)).view(-1)
    return torch.nonzero((nearest * nearest).sum(dim=-1) < radius * radius).view(-1)


def _all_pairs(
    positions: Tensor, lattice: Lattice | None, radius: float, chunk: int = _PAIRS_PER_CHUNK
) -> tuple[Tensor, Tensor]:
    """Pairs within a radius by comparing all pairs, in chunks of receivers.

    Returns:
        Senders and receivers, int64 [n_pairs], sorted by receiver, then sender.
    """
    n_atoms = positions.shape[0]
    rows = max(1, chunk // max(1, n_atoms))
    senders = [torch.zeros(0, dtype=torch.int64, device=positions.device)]
    receivers = [torch.zeros(0, dtype=torch.int64, device=positions.device)]
    for start in range(0, n_atoms, rows):
        vectors = positions[start : start + rows, None] - positions[None]  # [rows, n_atoms, 3]
        found = _near(vectors.reshape(-1, 3), lattice, radius)
        receiver = torch.div(found, n_atoms, rounding_mode="floor")
        sender = found - receiver * n_atoms
        receiver = receiver + start
        distinct = torch.nonzero(sender != receiver).view(-1)
        senders.append(sender[distinct])
        receivers.append(receiver[distinct])
    return torch.cat(senders), torch.cat(receivers)


def _bins(positions: Tensor, lattice: Lattice | None, radius: float) -> tuple[Tensor, list[int]]:
    """Bins at least one radius high: index triple of each atom [n_atoms, 3], numbers of bins.

    Float64 throughout, so that rounding cannot move an atom past a neighbouring bin. There are
    never many more bins than atoms, however thin the system is spread.
    """
    precise = positions.to(torch.float64)
    if lattice is not None:
        inverse, extents = cell_geometry(lattice.cell)
        fractional = precise @ inverse
        fractional = fractional - torch.floor(fractional)
    else:
        lowest = precise.amin(dim=0)
        extents = (precise.amax(dim=0) - lowest).clamp(min=radius)
        fractional = (precise - lowest) / extents
    n_bins = [1, 1, 1]
    for i in range(3):
        n_bins[i] = int(min(max(float(extents[i]) / (radius * (1.0 + 1e-6)), 1.0), 1e6))
    while n_bins[0] * n_bins[1] * n_bins[2] > 2 * positions.shape[0] + 1:
        largest = n_bins.index(max(n_bins))
        n_bins[largest] = (n_bins[largest] + 1) // 2
    counts = torch.tensor(n_bins, device=positions.device)
    index = torch.floor(fractional * counts).to(torch.int64)
    return torch.minimum(index.clamp(min=0), counts - 1), n_bins


def _neighbor_bins(index: Tensor, n_bins: list[int], periodic: bool) -> Tensor:
    """Linear indices of the distinct bins around each atom's own, -1 where there is none.

    Args:
        index: bin triples, int64 [n_atoms, 3].
        n_bins: numbers of bins along the three directions.
        periodic: whether the bins wrap around.

    Returns:
        Linear bin indices, int64 [n_atoms, n_neighbor_bins].
    """
    lists: list[Tensor] = []
    for i in range(3):
        # With one or two bins around a period, -1 and +1 are the same bin: count it once.
        first = -1 if n_bins[i] > 2 or not periodic else 0
        last = 1 if n_bins[i] > 1 or not periodic else 0
        offsets = torch.arange(first, last + 1, device=index.device)
        moved = index[:, i, None] + offsets
        if periodic:
            lists.append(torch.remainder(moved, n_bins[i]))
        else:
            lists.append(torch.where((moved < 0) | (moved >= n_bins[i]), -1, moved))
    x, y, z = lists[0][:, :, None, None], lists[1][:, None, :, None], lists[2][:, None, None, :]
    linear = (x * n_bins[1] + y) * n_bins[2] + z
    outside = (x < 0) | (y < 0) | (z < 0)
    return torch.where(outside, -1, linear).flatten(1)


def _binned_pairs(
    positions: Tensor, lattice: Lattice | None, radius: float, chunk: int = _PAIRS_PER_CHUNK
) -> tuple[Tensor, Tensor]:
    """Pairs within a radius by a cell list: linear cost, each pair looked at once.

    Returns:
        Senders and receivers, int64 [n_pairs], sorted by receiver, then sender.
    """
    n_atoms = positions.shape[0]
    index, n_bins = _bins(positions, lattice, radius)
    own = (index[:, 0] * n_bins[1] + index[:, 1]) * n_bins[2] + index[:, 2]
    own, order = torch.sort(own, stable=True)
    ordered = positions[order]
    occupancy = torch.bincount(own, minlength=n_bins[0] * n_bins[1] * n_bins[2])
    begins = occupancy.cumsum(0) - occupancy
    around = _neighbor_bins(index[order], n_bins, lattice is not None)  # [n_atoms, n_neighbor_bins]
    inside = around.clamp(min=0)
    # Of two bins the one with the lower index looks; within a bin the atom that comes first.
    place = torch.arange(n_atoms, device=positions.device)[:, None]
    starts = torch.where(around == own[:, None], place + 1, begins[inside])
    counts = begins[inside] + occupancy[inside] - starts
    counts = torch.where(around < own[:, None], 0, counts)
    cumulative = counts.sum(dim=1).cumsum(0)
    firsts = [torch.zeros(0, dtype=torch.int64, device=positions.device)]
    seconds = [torch.zeros(0, dtype=torch.int64, device=positions.device)]
    start = 0
    while start < n_atoms:
        end = _chunk_end(cumulative, start, chunk)
        owners, second = _expand_ranges(
            starts[start:end].reshape(-1), counts[start:end].reshape(-1)
        )
        first = torch.div(owners, around.shape[1], rounding_mode="floor") + start
        vectors = ordered.index_select(0, second) - ordered.index_select(0, first)
        found = _near(vectors, lattice, radius)
        firsts.append(order[first[found]])
        seconds.append(order[second[found]])
        start = end
    first, second = torch.cat(firsts), torch.cat(seconds)
    keys = torch.cat([first * n_atoms + second, second * n_atoms + first])
    keys = torch.sort(keys)[0]
    receivers = torch.div(keys, n_atoms, rounding_mode="floor")
    return keys - receivers * n_atoms, receivers


def _candidates(
    positions: Tensor,
    lattice: Lattice | None,
    radius: float,
    cell_list_min_atoms: int = _CELL_LIST_MIN_ATOMS,
) -> tuple[Tensor, Tensor]:
    """Sorted senders and receivers [n_pairs] of all pairs that may be within a radius."""
    _check_positions(positions)
    if positions.shape[0] < cell_list_min_atoms:
        return _all_pairs(positions, lattice, radius)
    return _binned_pairs(positions, lattice, radius)


def _edges(
    positions: Tensor, lattice: Lattice | None, senders: Tensor, receivers: Tensor, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of the candidate pairs that are within the cutoff now, with their shifts."""
    # index_select is three times as fast as indexing with brackets here.
    vectors = positions.index_select(0, receivers) - positions.index_select(0, senders)
    vectors, shifts = minimum_image(vectors, lattice)
    kept = torch.nonzero((vectors * vectors).sum(dim=-1) < cutoff * cutoff).view(-1)
    return senders[kept], receivers[kept], shifts.index_select(0, kept)


def neighbor_list(
    positions: Tensor, cell: Tensor | None, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Every ordered pair of atoms whose minimum-image distance is below the cutoff.

    `edge_vectors = positions[receivers] - positions[senders] + shifts @ cell` holds for the
    positions as given, wherever they are: nothing needs to be wrapped. At most one image of a pair
    is listed, and no atom is its own neighbour.

    Args:
        positions: A, [n_atoms, 3].
        cell: lattice vectors as rows, A, [3, 3]; None for open boundaries.
        cutoff: interaction range, A; at most half the shortest height of the cell.

    Returns:
        Senders and receivers, int64 [n_edges], sorted by receiver, then sender; integer-valued
        shifts, [n_edges, 3], in the dtype of the positions.

    Raises:
        CellTooSmallError: the cell is too small for the cutoff, singular or not finite.
        UnstableSimulationError: positions are not finite.
            (In scripted code either is a torch.jit.Error that ends with the same text.)
    """
    positions = positions.detach()
    lattice = prepare_lattice(positions, cell, cutoff)
    senders, receivers = _candidates(positions, lattice, cutoff)
    return _edges(positions, lattice, senders, receivers, cutoff)


class VerletList(torch.nn.Module):
    """Neighbour list that searches only when an atom may have come through the skin.

    A search keeps the pairs within cutoff + skin as candidates; each call measures the candidates
    with the positions and the cell of that call, so the edges are always those of `neighbor_list`.

    When to search again. With x0, H0 (positions, cell) of the last search, x, H of now, the strain
    A = H0^-1 H and any integers k_i, let u_i = x_i - x0_i A - k_i H: the displacement that is
    neither strain nor a jump by lattice vectors. A pair that is no candidate had |v0| >= cutoff +
    skin in every image, and now has v = v0 A + u_j - u_i in some image, hence

        |v| >= (cutoff + skin) (1 - |A - 1|) - 2 max|u|.

    The candidates suffice while the right-hand side is at least the cutoff: for a constant cell,
    while no atom has moved by more than half the skin. The Frobenius norm bounds |A - 1|.

    Attributes:
        cutoff: interaction range, A.
        skin: additional range of the candidates, A.
        n_builds: number of searches so far.
    """

    def __init__(self, cutoff: float, skin: float = 1.0) -> None:
        super().__init__()
        if not (cutoff > 0.0 and skin >= 0.0):
            raise ConfigError(
                f"neighbour list: cutoff {cutoff} A and skin {skin} A: the cutoff must be positive "
                "and the skin must not be negative"
            )
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.n_builds = 0
        # Plain attributes, replaced and never written into: not in state_dict, safe to copy.
        self._reference_positions = torch.zeros(0, 3)
        self._reference_cell = torch.zeros(0, 3)  # empty for open boundaries
        self._reference_inverse = torch.zeros(0, 3)
        self._senders = torch.zeros(0, dtype=torch.int64)
        self._receivers = torch.zeros(0, dtype=torch.int64)

    def forward(
        self, positions: Tensor, cell: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `neighbor_list` with this list's cutoff: same arguments, results and errors."""
        positions = positions.detach()
        lattice = prepare_lattice(positions, cell, self.cutoff)
        if self._must_search(positions, lattice):
            radius = self.cutoff + self.skin
            self._senders, self._receivers = _candidates(positions, lattice, radius)
            # A caller may write into its tensors (an integrator does): keep copies.
            self._reference_positions = positions.clone()
            if lattice is not None:
                self._reference_cell = lattice.cell.clone()
                self._reference_inverse = lattice.inverse
            else:
                self._reference_cell = positions.new_zeros(0, 3)
            self.n_builds += 1
        return _edges(positions, lattice, self._senders, self._receivers, self.cutoff)

    def _must_search(self, positions: Tensor, lattice: Lattice | None) -> bool:
        """Whether the candidates of the last search may miss a pair (False only if proven)."""
        reference = self._reference_positions
        same_kind = (
            self.n_builds > 0
            and positions.dtype == reference.dtype
            and positions.device == reference.device
            and positions.shape[0] == reference.shape[0]
            and (lattice is None) == (self._reference_cell.shape[0] == 0)
        )
        if not same_kind:
            return True
        if positions.shape[0] == 0:
            return False
        moved = positions - reference
        lost = torch.zeros(1, dtype=positions.dtype, device=positions.device)
        if lattice is not None:
            strain = self._reference_inverse @ (lattice.cell - self._reference_cell)
            moved = moved - reference @ strain
            moved, _ = minimum_image(moved, lattice)
            lost = (self.cutoff + self.skin) * torch.linalg.norm(strain)
        farthest = torch.linalg.norm(moved, dim=-1).max()
        # NaN compares false: positions that are not finite are searched, and refused there.
        return not bool(2.0 * farthest + lost <= self.skin)


def batched_neighbor_list(
    positions: Tensor, system_idx: Tensor, cells: Tensor | None, cutoff: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`neighbor_list` of many small systems at once; no edge joins two systems.

    Compares all pairs within each system, in chunks: meant for batches of molecules.
    `edge_vectors = positions[receivers] - positions[senders] + shifts @ cells[system of edge]`.

    Args:
        positions: A, [n_atoms, 3].
        system_idx: system of each atom, int64 [n_atoms], not decreasing.
        cells: lattice vectors as rows, A, [n_systems, 3, 3], all zero for a system with open
            boundaries; None if all are open.
        cutoff: interaction range, A.

    Returns:
        Senders, receivers and shifts as `neighbor_list`.

    Raises:
        DataError: the atoms of a system are not contiguous, or the shapes do not fit.
        CellTooSmallError: a cell is too small for the cutoff, singular or not finite.
        UnstableSimulationError: positions are not finite.
    """
    positions = positions.detach()
    n_atoms = positions.shape[0]
    if system_idx.shape[0] != n_atoms:
        raise DataError(f"{system_idx.shape[0]} entries of system_idx for {n_atoms} atoms")
    if bool((system_idx[1:] < system_idx[:-1]).any()):
        raise DataError("system_idx decreases: sort the atoms of a batch by system")
    _check_positions(positions)
    sizes = torch.bincount(system_idx)
    counts = sizes[system_idx]
    begins = (sizes.cumsum(0) - sizes)[system_idx]
    none = torch.zeros(0, dtype=torch.int64, device=positions.device)
    parts: list[tuple[Tensor, Tensor, Tensor]] = [(none, none, positions.new_zeros(0, 3))]
    inverses = None if cells is None else batched_inverses(cells, sizes.numel(), cutoff)
    start = 0
    while start < n_atoms:
        end = _chunk_end(counts.cumsum(0), start, _PAIRS_PER_CHUNK)
        rows, senders = _expand_ranges(begins[start:end], counts[start:end])
        receivers = rows + start
        vectors = positions.index_select(0, receivers) - positions.index_select(0, senders)
        shifts = torch.zeros_like(vectors)
        if cells is not None and inverses is not None:
            system = system_idx[receivers]
            fractional = torch.einsum("ni,nij->nj", vectors, inverses.to(positions)[system])
            shifts = -torch.round(fractional)
            lattices = cells.detach().to(positions)[system]  # [n_pairs, 3, 3]
            vectors = vectors + torch.einsum("ni,nij->nj", shifts, lattices)
        near = ((vectors * vectors).sum(dim=-1) < cutoff * cutoff) & (senders != receivers)
        kept = torch.nonzero(near).view(-1)
        parts.append((senders[kept], receivers[kept], shifts[kept]))
        start = end
    found = [torch.cat(part) for part in zip(*parts, strict=True)]
    return found[0], found[1], found[2]
