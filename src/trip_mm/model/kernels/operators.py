"""The kernels as torch operators with first and second derivatives.

`trip_mm::convolution` runs the compiled kernels forward and backward, also inside a scripted
module. Where a gradient is itself differentiated (`create_graph=True`), its backward pass goes
through `plain_convolution`, the same mathematics in PyTorch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trip_mm.model.kernels import convolution, dense, threads, tiles
from trip_mm.model.kernels.plan import Plan, make_plan, trunk_size

_NAMES = {torch.float32: "float32", torch.float64: "float64"}


def _plan(spec: list[int], dtype: torch.dtype) -> Plan:
    """Tables for a specification, see `make_plan`."""
    return make_plan(tuple(spec), _NAMES[dtype])


@torch.library.custom_op("trip_mm::sort_edges", mutates_args=())
def sort_edges(ends: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """Sorts edges by their sender, or by their receiver.

    Args:
        ends: senders or receivers, int64 `[n_edges]`.
        n_atoms: number of atoms.

    Returns:
        edges in the order of these atoms, int64 `[n_edges]`, and where the edges of each atom
        start, int64 `[n_atoms + 1]`.
    """
    order = torch.empty_like(ends)
    bounds = torch.zeros(n_atoms + 1, dtype=torch.int64)
    tiles.sort_edges(threads.flat(ends), order.numpy(), bounds.numpy())
    return order, bounds


@torch.library.custom_op("trip_mm::convolution", mutates_args=())
def fused_convolution(
    edge_features: Tensor,
    shifts: Tensor,
    features: Tensor,
    harmonics: Tensor,
    parameters: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> Tensor:
    """Computes the messages of all edges.

    Args:
        edge_features: `[n_edges, n_edge_features]`.
        shifts: added to the features of every edge that leaves the atom,
            `[n_atoms, n_edge_features]`.
        features: `[n_atoms, C_in, (l_in_max + 1)**2]`.
        harmonics: spherical harmonics times the envelope, `[n_edges, n_harmonics]`.
        parameters: radial trunks, then the output layer of each output degree as
            `[path, C_in, C_out, hidden]`, hidden padded with zeros to whole vectors; flat.
        order: of `sort_edges`, by sender.
        bounds: of `sort_edges`, by sender.
        spec: see `make_plan`.

    Returns:
        `[n_edges, n_messages]`: per output degree `[C_out, 2 l + 1]`, one after the other.
    """
    plan = _plan(spec, parameters.dtype)
    threads.announce(_NAMES[parameters.dtype])
    messages = edge_features.new_empty(edge_features.shape[0], plan.n_messages)
    inputs = [threads.flat(t) for t in (edge_features, shifts, features, harmonics, parameters)]
    edges, starts, out = threads.flat(order), threads.flat(bounds), threads.flat(messages)

    def work(worker: int, first: int, last: int) -> None:
        convolution.forward(plan, first, last, edges, starts, *inputs, out)

    threads.run(work, starts)
    return messages


@torch.library.custom_op("trip_mm::convolution_backward", mutates_args=())
def fused_convolution_backward(
    gradient: Tensor,
    edge_features: Tensor,
    shifts: Tensor,
    features: Tensor,
    harmonics: Tensor,
    parameters: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
    parameters_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Computes the gradients of the first five inputs of `fused_convolution`.

    The gradient of the parameters is empty unless it is wanted.
    """
    plan = _plan(spec, parameters.dtype)
    starts = threads.flat(bounds)
    n_workers = threads.n_workers(starts)
    n_parameters = parameters.shape[0] if parameters_wanted else 0
    d_parameters = parameters.new_zeros(n_workers, n_parameters)
    outputs = (
        torch.empty_like(edge_features, memory_format=torch.contiguous_format),
        torch.zeros_like(shifts, memory_format=torch.contiguous_format),
        torch.zeros_like(features, memory_format=torch.contiguous_format),
        torch.empty_like(harmonics, memory_format=torch.contiguous_format),
    )
    inputs = [
        threads.flat(t) for t in (edge_features, shifts, features, harmonics, parameters, gradient)
    ]
    out = [threads.flat(t) for t in outputs]
    shares = d_parameters.numpy()
    edges = threads.flat(order)

    def work(worker: int, first: int, last: int) -> None:
        convolution.backward(plan, first, last, edges, starts, *inputs, *out, shares[worker])

    threads.run(work, starts)
    return (*outputs, d_parameters.sum(dim=0))


def _layer_norm_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.silu(functional.layer_norm(x, x.shape[-1:], weight, bias))


def plain_convolution(
    edge_features: Tensor,
    shifts: Tensor,
    features: Tensor,
    harmonics: Tensor,
    parameters: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> Tensor:
    """As `fused_convolution`, in PyTorch: differentiable any number of times."""
    plan = _plan(spec, parameters.dtype)
    n_e, n_h = plan.n_edge_features, plan.n_hidden
    senders = dense.atoms_of_edges(order, bounds)
    x = edge_features + shifts.index_select(0, senders)
    hidden: list[Tensor] = []
    for trunk in range(plan.n_trunks):
        start = trunk * trunk_size(n_e, n_h)
        values, y, n_in = parameters[start : start + trunk_size(n_e, n_h)], x, n_e
        for sizes in ([n_h * n_e, n_h, n_h, n_h], [n_h * n_h, n_h, n_h, n_h]):
            w, b, norm_w, norm_b = values[: sum(sizes)].split(sizes)
            y = _layer_norm_silu(functional.linear(y, w.reshape(n_h, n_in), b), norm_w, norm_b)
            values, n_in = values[sum(sizes) :], n_h
        hidden.append(y)
    layout = dense.make_layout(tuple(spec), parameters.dtype, parameters.device)
    basis = harmonics @ layout.couplings  # [n_edges, n_basis]
    paths = torch.as_tensor(plan.path).to(features.device)
    components = torch.as_tensor(plan.component).to(features.device)
    own = features.index_select(0, senders)  # [n_edges, C_in, components]
    messages: list[Tensor] = []
    for l_out in range(plan.n_degrees):
        size, n_columns = 2 * l_out + 1, int(plan.n_columns[l_out])
        n_out, n_paths = int(plan.n_channels_out[l_out]), int(plan.n_paths[l_out])
        start = int(plan.basis_start[l_out])
        angular = basis[:, start : start + size * n_columns].reshape(-1, size, n_columns)
        start = int(plan.column_start[l_out])
        columns = slice(start, start + n_columns)
        start = int(plan.weight_start[l_out])
        count = n_out * plan.n_channels_in * n_paths * plan.n_padded
        weight = parameters[start : start + count].reshape(n_paths, -1, n_out, plan.n_padded)
        weight = weight[..., :n_h].permute(2, 1, 0, 3).reshape(-1, n_h)
        radial = functional.linear(hidden[int(plan.trunk[l_out])], weight)
        radial = radial.reshape(-1, n_out, plan.n_channels_in, n_paths)
        one_hot = functional.one_hot(paths[columns], n_paths)
        sent = own.index_select(2, components[columns])
        terms = torch.einsum("emq,ecq,qp->ecpm", angular, sent, one_hot.to(sent.dtype))
        messages.append(torch.einsum("eocp,ecpm->eom", radial, terms).flatten(1))
    return torch.cat(messages, dim=1)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.spec = inputs[7]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient by the kernels, or in PyTorch where it will be differentiated again."""
    saved = ctx.saved_tensors
    order, bounds = saved[5:]
    needed = ctx.needs_input_grad[:5]
    if torch.is_grad_enabled():
        # Aliases: the gradient must not follow the history that the inputs share.
        inputs = [t.view_as(t) for t in saved[:5]]
        wanted = [t for t, need in zip(inputs, needed, strict=True) if need]
        messages = plain_convolution(
            inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], order, bounds, ctx.spec
        )
        found = iter(torch.autograd.grad(messages, wanted, gradient, create_graph=True))
        return (*(next(found) if need else None for need in needed), None, None, None)
    gradients = fused_convolution_backward(gradient, *saved, ctx.spec, needed[4])
    return (*(g if n else None for g, n in zip(gradients, needed, strict=True)), None, None, None)


fused_convolution.register_autograd(_backward, setup_context=_setup_context)
