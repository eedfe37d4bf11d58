"""Dense stages of the operators in PyTorch, forward and backward, on any device.

These are the stages that matrix products of a library do well: radial trunks, the contraction of
the radial output layer with the sender's features, couplings of the harmonics. On CUDA devices
the Triton kernels compute what lies between them. No autograd: a torch operator runs below it.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trip_mm.model.kernels.plan import Plan, make_plan, trunk_size
from trip_mm.model.kernels.radial import NORM_EPSILON
from trip_mm.model.so3 import n_paths

NAMES = {torch.float32: "float32", torch.float64: "float64"}


class Layout(NamedTuple):
    """Where the sender matrices z[q, c_out, h] of n atoms stand in one flat tensor.

    Input degree by input degree a matrix `[n, 2 l_in + 1, width]`, its columns in the order
    (output degree, J, c_out, h). Entry (c_out, h) of column q of atom u is at
    `n * table[0, q] + u * table[1, q] + table[2, q] + c_out * n_padded + h`.
    """

    size: int  # elements of an atom
    starts: list[int]  # of each input degree, elements of an atom
    widths: list[int]
    table: Tensor  # int64 [3, n_columns of all output degrees]
    couplings: Tensor  # [n_harmonics, n_basis]


@functools.cache
@torch.inference_mode(False)
def make_layout(spec: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Layout:
    """Layout and tables of a convolution, kept on the device; `spec` as of `make_plan`."""
    plan = make_plan(spec, NAMES[dtype])
    l_in_max = spec[0]
    blocks = [
        [
            n_paths(lo, li) * int(plan.n_channels_out[lo]) * plan.n_padded
            for lo in range(len(plan.n_paths))
        ]
        for li in range(l_in_max + 1)
    ]
    widths = [sum(block) for block in blocks]
    sizes = [(2 * li + 1) * width for li, width in enumerate(widths)]
    starts = [sum(sizes[:li]) for li in range(l_in_max + 1)]
    rows: list[tuple[int, int, int]] = []
    for lo in range(plan.n_degrees):
        first = int(plan.column_start[lo])
        for q in range(first, first + int(plan.n_columns[lo])):
            component = int(plan.component[q])
            li = math.isqrt(component)
            j = int(plan.path[q]) - sum(n_paths(lo, lower) for lower in range(li))
            column = sum(blocks[li][:lo]) + j * int(plan.n_channels_out[lo]) * plan.n_padded
            rows.append((starts[li], sizes[li], (component - li * li) * widths[li] + column))
    couplings = torch.zeros(plan.n_harmonics, plan.n_basis, dtype=dtype)
    entries = np.repeat(np.arange(plan.n_basis), np.diff(plan.basis_bounds))
    couplings[plan.basis_harmonic, entries] = torch.as_tensor(plan.basis_coefficient)
    table = torch.tensor(rows, dtype=torch.int64).T.contiguous()
    return Layout(sum(sizes), starts, widths, table.to(device), couplings.to(device))


def atoms_of_edges(order: Tensor, bounds: Tensor) -> Tensor:
    """Returns the atom by which each edge was sorted; the inverse of `sort_edges`."""
    atoms = torch.arange(bounds.shape[0] - 1, device=order.device)
    counts = bounds[1:] - bounds[:-1]
    ascending = torch.repeat_interleave(atoms, counts, output_size=order.shape[0])
    return torch.empty_like(order).scatter_(0, order, ascending)


def sort_edges(ends: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """As the operator `sort_edges`, without a transfer to the host."""
    ascending, order = torch.sort(ends, stable=True)
    atoms = torch.arange(n_atoms + 1, device=ends.device)
    return order, torch.searchsorted(ascending, atoms)


def radial_weights(parameters: Tensor, plan: Plan, layout: Layout) -> list[Tensor]:
    """Copies the radial output layers into one matrix per input degree, `[C_in, width]`."""
    parts: list[list[Tensor]] = [[] for _ in layout.widths]
    for lo in range(plan.n_degrees):
        weight = _weight_of_degree(parameters, plan, lo)  # [path, C_in, C_out, padded]
        for li, piece in enumerate(weight.split([n_paths(lo, li) for li in range(len(parts))])):
            parts[li].append(piece.transpose(0, 1).reshape(plan.n_channels_in, -1))
    return [torch.cat(pieces, dim=1) for pieces in parts]


def add_radial_gradients(
    gradients: list[Tensor], d_parameters: Tensor, plan: Plan, layout: Layout
) -> None:
    """Adds gradients of the matrices of `radial_weights` to those of the parameters."""
    starts = [0] * len(layout.widths)
    for lo in range(plan.n_degrees):
        weight = _weight_of_degree(d_parameters, plan, lo)
        pieces = weight.split([n_paths(lo, li) for li in range(len(starts))])
        for li, piece in enumerate(pieces):
            n, n_in, n_out, padded = piece.shape
            end = starts[li] + n * n_out * padded
            block = gradients[li][:, starts[li] : end].reshape(n_in, n, n_out, padded)
            piece.add_(block.transpose(0, 1))
            starts[li] = end


def _weight_of_degree(parameters: Tensor, plan: Plan, degree: int) -> Tensor:
    """View of a radial output layer, `[path, C_in, C_out, padded]`."""
    n_out, count = int(plan.n_channels_out[degree]), int(plan.n_paths[degree])
    start = int(plan.weight_start[degree])
    end = start + count * plan.n_channels_in * n_out * plan.n_padded
    return parameters[start:end].view(count, plan.n_channels_in, n_out, plan.n_padded)


def _rows(features: Tensor, l: int) -> Tensor:
    """Features of one degree with channels last, `[n_atoms * (2 l + 1), C_in]`."""
    degree = features[:, :, l * l : (l + 1) * (l + 1)]
    return degree.transpose(1, 2).reshape(-1, features.shape[1])


def _blocks(z: Tensor, n_atoms: int, layout: Layout) -> list[Tensor]:
    """Views of flat sender matrices per input degree, `[n_atoms * (2 l_in + 1), width]`."""
    blocks: list[Tensor] = []
    for l, (start, width) in enumerate(zip(layout.starts, layout.widths, strict=True)):
        block = z[n_atoms * start : n_atoms * (start + (2 * l + 1) * width)]
        blocks.append(block.view(-1, width))
    return blocks


def sender_matrices(features: Tensor, weights: list[Tensor], layout: Layout) -> Tensor:
    """Contracts the radial output layers with the features of some atoms.

    Args:
        features: `[n_atoms, C_in, (l_in_max + 1)**2]`.
        weights: of `radial_weights`.
        layout: of `make_layout`.

    Returns:
        z of these atoms, flat, see `Layout`.
    """
    n_atoms = features.shape[0]
    z = features.new_empty(n_atoms * layout.size)
    for l, block in enumerate(_blocks(z, n_atoms, layout)):
        torch.mm(_rows(features, l), weights[l], out=block)
    return z


def sender_gradients(d_z: Tensor, weights: list[Tensor], layout: Layout, n_atoms: int) -> Tensor:
    """Gradient of the features of some atoms from that of their matrices."""
    parts: list[Tensor] = []
    for l, block in enumerate(_blocks(d_z, n_atoms, layout)):
        rows = block @ weights[l].T  # [n_atoms * (2 l + 1), C_in]
        parts.append(rows.view(n_atoms, 2 * l + 1, -1).transpose(1, 2))
    return torch.cat(parts, dim=2)


def add_weight_gradients(
    d_weights: list[Tensor], features: Tensor, d_z: Tensor, layout: Layout
) -> None:
    """Adds the gradient of `radial_weights` from that of the matrices of some atoms."""
    for l, block in enumerate(_blocks(d_z, features.shape[0], layout)):
        d_weights[l].addmm_(_rows(features, l).T, block)


class LayerState(NamedTuple):
    """What the backward pass of Linear, LayerNorm, SiLU needs."""

    x: Tensor
    linear: Tensor
    normed: Tensor
    mean: Tensor
    scale: Tensor


def _layer_parameters(parameters: Tensor, plan: Plan, trunk: int) -> list[list[Tensor]]:
    """Views of weight, bias, norm weight, norm bias of the two layers of a trunk."""
    n, start = plan.n_hidden, trunk * trunk_size(plan.n_edge_features, plan.n_hidden)
    layers: list[list[Tensor]] = []
    for n_in in (plan.n_edge_features, n):
        values = parameters[start : start + n * (n_in + 3)]
        weight, bias, norm_weight, norm_bias = values.split([n * n_in, n, n, n])
        layers.append([weight.view(n, n_in), bias, norm_weight, norm_bias])
        start += n * (n_in + 3)
    return layers


def trunks_forward(x: Tensor, parameters: Tensor, plan: Plan) -> tuple[Tensor, list[LayerState]]:
    """Computes the hidden features of all radial trunks.

    Args:
        x: edge features plus those of the sender, `[n_edges, n_edge_features]`.
        parameters: see `operators.fused_convolution`.
        plan: of `make_plan`.

    Returns:
        hidden features `[n_trunks, n_edges, n_hidden]`; states, two layers a trunk.
    """
    hidden = x.new_empty(plan.n_trunks, x.shape[0], plan.n_hidden)
    states: list[LayerState] = []
    for trunk in range(plan.n_trunks):
        y = x
        for weight, bias, norm_weight, norm_bias in _layer_parameters(parameters, plan, trunk):
            linear = torch.addmm(bias, y, weight.T)
            normed, mean, scale = torch.native_layer_norm(
                linear, [plan.n_hidden], norm_weight, norm_bias, NORM_EPSILON
            )
            states.append(LayerState(y, linear, normed, mean, scale))
            y = torch.nn.functional.silu(normed)
        hidden[trunk] = y
    return hidden, states


def trunks_backward(
    d_hidden: Tensor,
    states: list[LayerState],
    parameters: Tensor,
    plan: Plan,
    d_parameters: Tensor,
) -> Tensor:
    """Gradient of the input of `trunks_forward`.

    Args:
        d_hidden: `[n_trunks, n_edges, n_hidden]`.
        states: of `trunks_forward`.
        parameters: likewise.
        plan: likewise.
        d_parameters: those of the trunks are set; empty if not wanted.
    """
    wanted = d_parameters.shape[0] > 0
    d_x = torch.zeros_like(states[0].x)
    for trunk in range(plan.n_trunks):
        layers = _layer_parameters(parameters, plan, trunk)
        outputs = _layer_parameters(d_parameters, plan, trunk) if wanted else [[], []]
        d = d_hidden[trunk]
        for layer in (1, 0):
            state, (weight, _, norm_weight, norm_bias) = states[2 * trunk + layer], layers[layer]
            d = torch.ops.aten.silu_backward(d, state.normed)
            d, d_norm_weight, d_norm_bias = torch.ops.aten.native_layer_norm_backward(
                d, state.linear, [plan.n_hidden], state.mean, state.scale, norm_weight, norm_bias,
                [True, wanted, wanted],
            )  # fmt: skip
            if wanted:
                found = (d.T @ state.x, d.sum(dim=0), d_norm_weight, d_norm_bias)
                for output, gradient in zip(outputs[layer], found, strict=True):
                    output.copy_(gradient)
            d = d @ weight
        d_x += d
    return d_x
