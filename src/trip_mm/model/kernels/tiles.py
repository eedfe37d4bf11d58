"""Rows of edges and atoms to and from `[value, lane]` scratch, LANES at a time."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from trip_mm.model.kernels.vector import (
    LANES,
    VECTORS,
    array_data,
    emit_load,
    emit_store,
    prefetch,
)

_I32 = ir.IntType(32)


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Emits the transpose of a square of LANES vectors."""
    rows = list(rows)
    mask_type = ir.VectorType(_I32, LANES)
    step = 1
    while step < LANES:
        low = [i if not i & step else LANES + i - step for i in range(LANES)]
        high = [i + step if not i & step else LANES + i for i in range(LANES)]
        for i in range(LANES):
            if not i & step:
                a, b = rows[i], rows[i + step]
                rows[i] = builder.shuffle_vector(a, b, ir.Constant(mask_type, low))
                rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(mask_type, high))
        step *= 2
    return rows


@intrinsic
def gather_tile(typingctx: Any, source: Any, rows: Any, start: Any, target: Any, index: Any) -> Any:
    """Transposes a square: `target[index + k * LANES + lane] = source[rows[lane] + start + k]`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, rows, start, target, index = args
        data = array_data(context, builder, signature.args[0], source)
        offsets = array_data(context, builder, signature.args[1], rows)
        out = array_data(context, builder, signature.args[3], target)
        vector = context.get_value_type(VECTORS[signature.args[0].dtype])
        lanes = [ir.Constant(start.type, i) for i in range(LANES)]
        loaded = [
            emit_load(
                builder, data, builder.add(builder.load(builder.gep(offsets, [i])), start), vector
            )
            for i in lanes
        ]
        for k, row in enumerate(_transposed(builder, loaded)):
            emit_store(builder, out, builder.add(index, ir.Constant(index.type, k * LANES)), row)
        return context.get_dummy_value()

    return types.void(source, rows, types.intp, target, types.intp), codegen


@intrinsic
def scatter_tile(
    typingctx: Any, source: Any, index: Any, target: Any, rows: Any, start: Any
) -> Any:
    """Transposes a square: `target[rows[lane] + start + k] = source[index + k * LANES + lane]`.

    Of lanes with equal rows the first one counts: rows are written from the last lane down.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, index, target, rows, start = args
        data = array_data(context, builder, signature.args[0], source)
        out = array_data(context, builder, signature.args[2], target)
        offsets = array_data(context, builder, signature.args[3], rows)
        vector = context.get_value_type(VECTORS[signature.args[0].dtype])
        loaded = [
            emit_load(builder, data, builder.add(index, ir.Constant(index.type, k * LANES)), vector)
            for k in range(LANES)
        ]
        lanes = list(enumerate(_transposed(builder, loaded)))
        for lane, row in reversed(lanes):
            offset = builder.load(builder.gep(offsets, [ir.Constant(index.type, lane)]))
            emit_store(builder, out, builder.add(offset, start), row)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, rows, types.intp), codegen


@njit(nogil=True)
def gather(source: Any, width: int, edges: Any, rows: Any, target: Any) -> None:
    """Loads rows of LANES edges: `target[k, lane] = source[edges[lane], k]`."""
    if width < LANES:
        for lane in range(LANES):
            row = edges[lane] * width
            for k in range(width):
                target[k * LANES + lane] = source[row + k]
        return
    for lane in range(LANES):
        rows[lane] = edges[lane] * width
    k = 0
    while k < width:
        first = min(k, width - LANES)
        gather_tile(source, rows, first, target, first * LANES)
        k += LANES


@njit(nogil=True)
def prefetch_rows(array: Any, width: int, order: Any, first: int, last: int) -> None:
    """Asks for the rows of at most LANES edges: they lie all over memory."""
    for i in range(first, min(first + LANES, last)):
        row = order[i] * width
        for k in range(0, width, LANES):
            prefetch(array, row + k)
        prefetch(array, row + width - 1)


@njit(nogil=True)
def scatter(source: Any, width: int, edges: Any, rows: Any, target: Any) -> None:
    """Stores rows of LANES edges; of equal edges the first lane counts."""
    if width < LANES:
        for lane in range(LANES - 1, -1, -1):
            row = edges[lane] * width
            for k in range(width):
                target[row + k] = source[k * LANES + lane]
        return
    for lane in range(LANES):
        rows[lane] = edges[lane] * width
    k = 0
    while k < width:
        first = min(k, width - LANES)
        scatter_tile(source, first * LANES, target, rows, first)
        k += LANES


@njit(nogil=True)
def edges_of(order: Any, first: int, last: int, edges: Any) -> int:
    """Fills `edges` with LANES edges from `first` on, the last one again in idle lanes."""
    count = min(LANES, last - first)
    for lane in range(LANES):
        edges[lane] = order[first + min(lane, count - 1)]
    return count


@njit(nogil=True, cache=True)
def sort_edges(ends: Any, order: Any, bounds: Any) -> None:
    """Stable counting sort of the edges by the atom at one end.

    `order` gets the edges, `bounds[u]` where those of atom u start; it comes in zeroed,
    `[n_atoms + 1]`.
    """
    for edge in range(ends.size):
        bounds[ends[edge] + 1] += 1
    for atom in range(1, bounds.size):
        bounds[atom] += bounds[atom - 1]
    fillers = bounds[:-1].copy()
    for edge in range(ends.size):
        atom = ends[edge]
        order[fillers[atom]] = edge
        fillers[atom] += 1
