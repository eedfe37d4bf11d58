"""Rotation group: real spherical harmonics, couplings, and the angular kernel basis of an edge.

Packed layout: a feature of degrees 0 ... l_max has `(l_max + 1)**2` components, degree l at
`[l * l, (l + 1)**2)`, in e3nn's order of m (polar axis y).
"""

import functools
from itertools import permutations

import torch
from torch import Tensor, nn

# e3nn before 0.5.1 reads its constants with a torch.load that needs `slice` allowed.
with torch.serialization.safe_globals([slice]):
    from e3nn import o3

_REFERENCE_ELEMENTS: dict[tuple[int, int, int], tuple[tuple[int, int, int], float]] = {
    (0, 0, 0): ((0, 0, 0), 1.0),
    (0, 1, 1): ((0, 0, 0), 1.0),
    (0, 2, 2): ((0, 0, 0), 1.0),
    (1, 1, 1): ((0, 1, 2), 1.0),
    (1, 1, 2): ((1, 1, 2), 1.0),
    (1, 2, 2): ((0, 0, 1), 1.0),
    (1, 2, 3): ((1, 2, 3), 1.0),
    (2, 2, 2): ((0, 0, 2), -1.0),
    (2, 2, 3): ((0, 1, 0), 1.0),
    (2, 2, 4): ((0, 0, 4), 1.0),
}
"""Element of each coupling of ascending degrees whose sign fixes the coupling's sign.

e3nn changed the sign of some couplings between releases; a checkpoint must not depend on the
release that is installed. Triples that are not listed take a positive first non-zero element.
"""


@functools.cache
def _ascending_coupling(l1: int, l2: int, l3: int) -> Tensor:
    """Wigner 3j of ascending degrees with our sign, float64 `[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]`."""
    coupling: Tensor = o3.wigner_3j(l1, l2, l3, dtype=torch.float64).clone()
    element = _REFERENCE_ELEMENTS.get((l1, l2, l3))
    if element is None:
        index = tuple((coupling.abs() > 1e-6).nonzero()[0].tolist())
        sign = 1.0
    else:
        index, sign = element
    return coupling * (sign * torch.sign(coupling[index]))


def wigner_3j(l1: int, l2: int, l3: int) -> Tensor:
    """Real Wigner 3j coupling of unit Frobenius norm, with a sign that no e3nn release changes.

    An even permutation of the degrees permutes the axes; an odd one also multiplies by
    `(-1)**(l1 + l2 + l3)`, as 3j symbols do.

    Args:
        l1: first degree.
        l2: second degree.
        l3: third degree, between `|l1 - l2|` and `l1 + l2`.

    Returns:
        float64 `[2 l1 + 1, 2 l2 + 1, 2 l3 + 1]`.
    """
    degrees = (l1, l2, l3)
    order = sorted(range(3), key=lambda axis: degrees[axis])
    ascending = _ascending_coupling(*(degrees[axis] for axis in order))
    even = tuple(order) in {(0, 1, 2), (1, 2, 0), (2, 0, 1)}
    sign = 1.0 if even or sum(degrees) % 2 == 0 else -1.0
    inverse = next(p for p in permutations(range(3)) if tuple(order[i] for i in p) == (0, 1, 2))
    return sign * ascending.permute(*inverse).contiguous()


def n_paths(l_out: int, l_in: int) -> int:
    """Number of degrees J = |l_out - l_in| ... l_out + l_in that couple the two degrees."""
    return 2 * min(l_out, l_in) + 1


def kernel_couplings(l_in: int, l_out: int) -> Tensor:
    """Couplings Q of TrIP thesis Eq. 5 for one pair of degrees.

    Returns:
        float64 `[(l_in + l_out + 1)**2, 2 l_in + 1, n_paths, 2 l_out + 1]`: the component of the
        edge's spherical harmonics (packed from degree 0), m_in, path (J ascending), m_out.
    """
    paths = range(abs(l_in - l_out), l_in + l_out + 1)
    couplings = torch.zeros(
        (l_in + l_out + 1) ** 2, 2 * l_in + 1, len(paths), 2 * l_out + 1, dtype=torch.float64
    )
    for path, degree in enumerate(paths):
        components = slice(degree**2, (degree + 1) ** 2)
        couplings[components, :, path, :] = wigner_3j(degree, l_in, l_out)
    return couplings


def harmonics_of(vectors: Tensor, degree: int) -> Tensor:
    """Returns the harmonics of degrees 0 ... `degree` of vectors `[n, 3]`, `[n, (degree + 1)**2]`.

    Homogeneous polynomials of the components, in e3nn's "integral" normalisation on unit vectors.
    """
    found: Tensor = o3.spherical_harmonics(
        list(range(degree + 1)), vectors, normalize=False, normalization="integral"
    )
    return found


class KernelBasis(nn.Module):
    """Angular part of the weight kernels of an edge, envelope included (TrIP thesis Eq. 5, 18).

    B^{l_out l_in J}[m_out, m_in] = phi sum_m Y_Jm Q^{l_out l_in}_{Jm}. Everything that has the
    same input degree stands in one matrix, so that one product per input degree contracts it
    with the features.
    """

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        self.spherical_harmonics = o3.SphericalHarmonics(
            list(range(2 * l_max + 1)), normalize=False, normalization="integral"
        )
        n_harmonics = (2 * l_max + 1) ** 2
        columns: list[Tensor] = []
        widths: list[int] = []
        for l_in in range(l_max + 1):
            group = torch.zeros(n_harmonics, 2 * l_in + 1, 0, dtype=torch.float64)
            for l_out in range(l_max + 1):
                couplings = kernel_couplings(l_in, l_out)
                padded = torch.zeros(
                    n_harmonics, 2 * l_in + 1, n_paths(l_out, l_in) * (2 * l_out + 1),
                    dtype=torch.float64,
                )  # fmt: skip
                padded[: couplings.shape[0]] = couplings.flatten(2)
                group = torch.cat([group, padded], dim=2)
            widths.append(group.shape[2])
            columns.append(group.flatten(1))
        self.widths = widths
        self.register_buffer("couplings", torch.cat(columns, dim=1), persistent=False)
        self.couplings: Tensor

    @torch.jit.export
    def harmonics(self, directions: Tensor, envelope: Tensor) -> Tensor:
        """Returns phi Y of unit vectors `[n_edges, 3]`, `[n_edges, (2 l_max + 1)**2]`."""
        harmonics: Tensor = self.spherical_harmonics(directions) * envelope.unsqueeze(1)
        return harmonics

    def forward(
        self, directions: Tensor, envelope: Tensor, senders: Tensor, n_atoms: int
    ) -> list[Tensor]:
        """Computes the basis of every edge.

        Args:
            directions: unit vectors `[n_edges, 3]`.
            envelope: `[n_edges]`.
            senders: `[n_edges]`; for other implementations of the convolution.
            n_atoms: number of atoms; likewise.

        Returns:
            one tensor per input degree, `[n_edges, 2 l_in + 1, width]`; the columns run over
            l_out, then J, then m_out.
        """
        harmonics = self.harmonics(directions, envelope)
        flat = harmonics @ self.couplings.to(harmonics.dtype)  # [n_edges, sum of all blocks]
        basis: list[Tensor] = []
        start = 0
        for l_in, width in enumerate(self.widths):
            size = (2 * l_in + 1) * width
            block = flat[:, start : start + size]
            basis.append(block.reshape(-1, 2 * l_in + 1, width))  # [n_edges, 2 l_in + 1, width]
            start += size
        return basis

    @torch.jit.export
    def with_bare_scalars(self, angular: list[Tensor]) -> list[Tensor]:
        """Returns the basis of scalar inputs with 1 in place of phi Y_00."""
        columns = angular[0]
        return [torch.cat([torch.ones_like(columns[:, :, :1]), columns[:, :, 1:]], dim=2)]
