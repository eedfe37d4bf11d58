"""The network with matrix products of reduced precision: bfloat16 or TF32 operands, fp32 sums.

`reduced_model` returns a twin of a `TripModel` that shares its parameters. What it computes in
reduced precision, and what not, stands in `docs/precision.md`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from trip_mm.errors import BackendError, ConfigError
from trip_mm.model.layers import Convolution, DegreeLinear
from trip_mm.model.radial import RadialTrunk
from trip_mm.model.trip import TripModel
from trip_mm.model.twin import twin_of

ReducedPrecision = Literal["tf32", "bf16"]
REDUCED_PRECISIONS: tuple[str, ...] = get_args(ReducedPrecision)


_TF32_CAPABILITY = (8, 0)
"""Compute capability of the first GPUs with TF32 (Ampere)."""


def check_available(precision: str) -> None:
    """Refuses a precision that does not exist, or not here.

    Raises:
        ConfigError: another name than `tf32` and `bf16`.
        BackendError: `tf32` where torch finds no GPU that has it.
    """
    if precision not in REDUCED_PRECISIONS:
        known = ", ".join(REDUCED_PRECISIONS)
        raise ConfigError(f"reduced precision {precision!r} is unknown; there are {known}")
    if precision != "tf32":
        return
    if not torch.cuda.is_available():
        raise BackendError(
            "tf32 is arithmetic of NVIDIA GPUs, and torch finds none here; leave precision out "
            "(float32), or run on a GPU with a CUDA build of torch"
        )
    capability = torch.cuda.get_device_capability()
    if capability < _TF32_CAPABILITY:
        raise BackendError(
            f"{torch.cuda.get_device_name()} (compute capability {capability[0]}.{capability[1]}) "
            "has no tf32, which came with 8.0; leave precision out (float32)"
        )


@contextmanager
def _tf32() -> Iterator[None]:
    """Lets CUDA multiply in TF32 meanwhile."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


@torch.library.custom_op("trip_mm::reduced_product", mutates_args=())
def reduced_product(left: Tensor, right: Tensor, precision: str) -> Tensor:
    """Multiplies float32 matrices whose elements are rounded first; sums are float32.

    On CPUs rounded operands are multiplied in float32: the numbers of a GPU, not its speed.

    Args:
        left: `[n, i, k]`.
        right: `[n, k, j]`.
        precision: `bf16` (8 bits of mantissa) or `tf32` (11 bits, on CUDA only).

    Returns:
        float32 `[n, i, j]`.

    Raises:
        RuntimeError: TF32 on a device that does not have it.
    """
    if precision == "tf32":
        if not left.is_cuda:
            raise RuntimeError(f"tf32 products run on CUDA only, not on {left.device}")
        with _tf32():
            return torch.bmm(left, right)
    rounded = left.to(torch.bfloat16), right.to(torch.bfloat16)
    if left.is_cuda:
        return torch.bmm(*rounded, out_dtype=torch.float32)
    return torch.bmm(rounded[0].to(left.dtype), rounded[1].to(right.dtype))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])
    ctx.precision = inputs[2]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    left, right = ctx.saved_tensors
    d_left = d_right = None
    if ctx.needs_input_grad[0]:
        d_left = reduced_product(gradient, right.transpose(1, 2), ctx.precision)
    if ctx.needs_input_grad[1]:
        d_right = reduced_product(left.transpose(1, 2), gradient, ctx.precision)
    return d_left, d_right, None


reduced_product.register_autograd(_backward, setup_context=_setup_context)


class ReducedProduct(nn.Module):
    """`Product` in reduced precision."""

    def __init__(self, precision: ReducedPrecision) -> None:
        super().__init__()
        self.precision: str = precision

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Maps `[n, i, k]` and `[n, k, j]` to `[n, i, j]`."""
        product: Tensor = torch.ops.trip_mm.reduced_product(left, right, self.precision)
        return product


class ReducedLinear(nn.Module):
    """`nn.Linear` in reduced precision; the same parameters under the same names."""

    def __init__(self, linear: nn.Linear, precision: ReducedPrecision) -> None:
        super().__init__()
        self.weight = linear.weight
        self.register_parameter("bias", linear.bias)
        self.bias: nn.Parameter | None
        self.precision: str = precision

    def forward(self, values: Tensor) -> Tensor:
        """Maps `[..., n_in]` to `[..., n_out]`."""
        rows = values.reshape(1, -1, values.shape[-1])
        columns = self.weight.t().unsqueeze(0)
        product: Tensor = torch.ops.trip_mm.reduced_product(rows, columns, self.precision)
        product = product.reshape(values.shape[:-1] + product.shape[2:])
        bias = self.bias
        return product if bias is None else product + bias


def _reduced_linears(linears: nn.ModuleList, precision: ReducedPrecision) -> nn.ModuleList:
    return nn.ModuleList(ReducedLinear(cast(nn.Linear, linear), precision) for linear in linears)


def _reduced_maps(linear: DegreeLinear, precision: ReducedPrecision) -> DegreeLinear:
    twin = twin_of(linear)
    twin.add_module("maps", _reduced_linears(linear.maps, precision))
    return twin


def _reduced_trunk(trunk: RadialTrunk, precision: ReducedPrecision) -> RadialTrunk:
    """The first layer stays as it is: it reads distances, where rounding moves atoms."""
    twin, net = twin_of(trunk), twin_of(trunk.net)
    net.add_module("3", ReducedLinear(cast(nn.Linear, trunk.net[3]), precision))
    twin.add_module("net", net)
    return twin


def _reduced_convolution(convolution: Convolution, precision: ReducedPrecision) -> Convolution:
    twin = twin_of(convolution)
    trunks = (_reduced_trunk(cast(RadialTrunk, t), precision) for t in convolution.trunks)
    twin.add_module("trunks", nn.ModuleList(trunks))
    twin.add_module("weights", _reduced_linears(convolution.weights, precision))
    twin.add_module("product", ReducedProduct(precision))
    return twin


def reduced_model(model: TripModel, precision: ReducedPrecision) -> TripModel:
    """Returns a twin of the network that multiplies matrices of its blocks in reduced precision.

    Parameters and buffers are shared: training or loading one changes the other. The layers after
    the blocks stay as they are: two thirds of the error of the forces would come from there.

    Args:
        model: in float32, with `Convolution` layers as `TripModel` makes them.
        precision: of the products.

    Raises:
        ConfigError: a network with compiled kernels.
    """
    twin, blocks = twin_of(model), twin_of(model.blocks)
    for i, block in enumerate(model.blocks):
        twin_block, convolution = twin_of(block), block.convolution
        if not isinstance(convolution, Convolution):
            raise ConfigError(f"there are no compiled kernels for {precision}; use the plain form")
        twin_block.add_module("convolution", _reduced_convolution(convolution, precision))
        for name in ("query", "project"):
            maps = getattr(block, name, None)
            if maps is not None:
                twin_block.add_module(name, _reduced_maps(maps, precision))
        blocks[i] = twin_block
    twin.add_module("blocks", blocks)
    return twin
