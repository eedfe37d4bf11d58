"""The operators on CUDA devices: dense stages in PyTorch, the stages between them in Triton.

Registered for the operators of `operators`, `attention` and `harmonics`, whose derivatives stay
as they are. No stage waits for the device. Triton is imported at the first call.
"""

import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from trip_mm.model.kernels import (
    attention,
    dense,
    dense_harmonics,
    devices,
    harmonics,
    operators,
)
from trip_mm.model.kernels.plan import make_plan

MATRIX_BYTES = 256 * 2**20
"""Sender matrices that are held at once, and their gradients."""


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _launches(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Runs a function where its first argument is: Triton launches on the current device."""

    @functools.wraps(function)
    def guarded(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Result:
        devices.require_triton()
        with torch.cuda.device_of(arguments[0]):
            return function(*arguments, **named)

    return guarded


def _chunks(n_atoms: int, layout: dense.Layout, element_size: int) -> Iterator[tuple[int, int]]:
    """Ranges of atoms whose sender matrices fit into `MATRIX_BYTES`."""
    step = max(1, MATRIX_BYTES // (layout.size * element_size))
    for first in range(0, n_atoms, step):
        yield first, min(first + step, n_atoms)


@_launches
def convolution(
    edge_features: Tensor,
    shifts: Tensor,
    features: Tensor,
    angular: Tensor,
    parameters: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> Tensor:
    """Computes `operators.fused_convolution`."""
    from trip_mm.model.kernels import triton_convolution

    plan = make_plan(tuple(spec), dense.NAMES[parameters.dtype])
    layout = dense.make_layout(tuple(spec), parameters.dtype, parameters.device)
    parameters = parameters.contiguous()
    x = edge_features + shifts.index_select(0, dense.atoms_of_edges(order, bounds))
    hidden, _ = dense.trunks_forward(x, parameters, plan)
    basis = angular @ layout.couplings
    weights = dense.radial_weights(parameters, plan, layout)
    inputs = triton_convolution.EdgeInputs(hidden, basis, order, bounds)
    messages = x.new_empty(x.shape[0], plan.n_messages)
    for first, last in _chunks(features.shape[0], layout, features.element_size()):
        z = dense.sender_matrices(features[first:last], weights, layout)
        triton_convolution.compute_messages(plan, layout, z, inputs, (first, last), messages)
    return messages


@_launches
def convolution_backward(
    gradient: Tensor,
    edge_features: Tensor,
    shifts: Tensor,
    features: Tensor,
    angular: Tensor,
    parameters: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
    parameters_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Computes `operators.fused_convolution_backward`."""
    from trip_mm.model.kernels import triton_convolution

    plan = make_plan(tuple(spec), dense.NAMES[parameters.dtype])
    layout = dense.make_layout(tuple(spec), parameters.dtype, parameters.device)
    parameters, gradient = parameters.contiguous(), gradient.contiguous()
    x = edge_features + shifts.index_select(0, dense.atoms_of_edges(order, bounds))
    hidden, states = dense.trunks_forward(x, parameters, plan)
    basis = angular @ layout.couplings
    weights = dense.radial_weights(parameters, plan, layout)
    inputs = triton_convolution.EdgeInputs(hidden, basis, order, bounds)
    d_parameters = torch.zeros_like(parameters[: None if parameters_wanted else 0])
    d_weights = [torch.zeros_like(weight) for weight in weights] if parameters_wanted else []
    d_hidden, d_basis = torch.zeros_like(hidden), torch.empty_like(basis)
    d_features = torch.empty_like(features, memory_format=torch.contiguous_format)
    for first, last in _chunks(features.shape[0], layout, features.element_size()):
        own = features[first:last]
        z = dense.sender_matrices(own, weights, layout)
        d_z = torch.empty_like(z)
        triton_convolution.compute_gradients(
            plan, layout, z, inputs, gradient, (first, last), (d_z, d_hidden, d_basis)
        )
        d_features[first:last] = dense.sender_gradients(d_z, weights, layout, last - first)
        if parameters_wanted:
            dense.add_weight_gradients(d_weights, own, d_z, layout)
    d_x = dense.trunks_backward(d_hidden, states, parameters, plan, d_parameters)
    if parameters_wanted:
        dense.add_radial_gradients(d_weights, d_parameters, plan, layout)
    d_shifts = triton_convolution.sum_rows(d_x, order, bounds)
    return d_x, d_shifts, d_features, d_basis @ layout.couplings.T, d_parameters


@_launches
def attend(
    messages: Tensor,
    query: Tensor,
    log_envelope: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> tuple[Tensor, Tensor]:
    """Computes `attention.attention`."""
    from trip_mm.model.kernels import triton_attention

    inputs = [t.contiguous() for t in (messages, query, log_envelope)]
    return triton_attention.attend(inputs[0], inputs[1], inputs[2], order, bounds, tuple(spec))


@_launches
def attend_backward(
    gradient: Tensor,
    messages: Tensor,
    query: Tensor,
    weights: Tensor,
    order: Tensor,
    bounds: Tensor,
    spec: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes `attention.attention_backward`."""
    from trip_mm.model.kernels import triton_attention

    inputs = [t.contiguous() for t in (gradient, messages, query, weights)]
    return triton_attention.attend_backward(
        inputs[0], inputs[1], inputs[2], inputs[3], order, bounds, tuple(spec)
    )


def register(device_type: str) -> None:
    """Makes these functions compute the operators on a type of device."""
    operators.sort_edges.register_kernel(device_type)(dense.sort_edges)
    operators.fused_convolution.register_kernel(device_type)(convolution)
    operators.fused_convolution_backward.register_kernel(device_type)(convolution_backward)
    attention.attention.register_kernel(device_type)(attend)
    attention.attention_backward.register_kernel(device_type)(attend_backward)
    harmonics.harmonics.register_kernel(device_type)(dense_harmonics.harmonics)
    harmonics.harmonics_backward.register_kernel(device_type)(dense_harmonics.harmonics_backward)


register("cuda")
