"""SIMD vectors for numba: a register type, and blocks of registers that stay in registers.

numba's own loops leave accumulators in memory, because LLVM cannot prove that arrays do not
overlap. These intrinsics emit LLVM vector instructions directly, and `fma_scalars` and its
companions update a tuple of accumulators. The inner loops then run like C++ with vector
extensions (69 billion fused multiply-adds a second on one Sapphire Rapids core in either), while
users need no compiler and every machine gets code for its own instruction set.

A vector has `LANES` elements of float32 or float64. Indices count elements of a flat array; no
bounds are checked.
"""

import math
import operator
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model


def _host_lanes() -> int:
    """Floats in a register of this processor: 16 with AVX-512, else 8."""
    return 16 if llvmlite.binding.get_host_cpu_features().get("avx512f", False) else 8


LANES = _host_lanes()

_I32 = ir.IntType(32)
_EXP_TERMS = {32: 7, 64: 13}


class VectorType(types.Type):
    """numba type of a vector."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


VECTORS = {types.float32: VectorType(types.float32), types.float64: VectorType(types.float64)}


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    """Represents a vector by an LLVM vector."""

    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        element = ir.FloatType() if fe_type.dtype == types.float32 else ir.DoubleType()
        super().__init__(dmm, fe_type, ir.VectorType(element, LANES))


def _splat(builder: Any, vector: ir.VectorType, scalar: Any) -> Any:
    """Emits a vector of equal elements."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    mask = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, mask)


def _constant(vector: ir.VectorType, value: float | int) -> ir.Constant:
    """Vector constant of equal elements."""
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * LANES)


def _bits(vector: ir.VectorType) -> int:
    """Bits of an element."""
    return 32 if isinstance(vector.element, ir.FloatType) else 64


def _call(builder: Any, name: str, arguments: list[Any]) -> Any:
    """Emits a call of an LLVM intrinsic whose arguments and result have one vector type."""
    vector = arguments[0].type
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * len(arguments)),
        f"llvm.{name}.v{LANES}f{_bits(vector)}",
    )
    return builder.call(function, arguments)


def array_data(context: Any, builder: Any, array_type: Any, array: Any) -> Any:
    """Pointer to the first element of an array."""
    return context.make_array(array_type)(context, builder, value=array).data


def emit_load(builder: Any, data: Any, index: Any, vector: ir.VectorType) -> Any:
    """Emits an unaligned vector load."""
    pointer = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    loaded = builder.load(pointer)
    loaded.align = _bits(vector) // 8
    return loaded


def emit_store(builder: Any, data: Any, index: Any, value: Any) -> None:
    """Emits an unaligned vector store."""
    pointer = builder.bitcast(builder.gep(data, [index]), value.type.as_pointer())
    builder.store(value, pointer).align = _bits(value.type) // 8


def _offset(builder: Any, index: Any, stride: Any, i: int) -> Any:
    """Emits index + i * stride."""
    return builder.add(index, builder.mul(stride, ir.Constant(stride.type, i)))


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Returns `array[index : index + LANES]`."""
    result = VECTORS[array.dtype]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        return emit_load(builder, data, args[1], context.get_value_type(result))

    return result(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Sets `array[index : index + LANES]`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        emit_store(builder, data, args[1], args[2])
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTORS[array.dtype]), codegen


@intrinsic
def splat(typingctx: Any, array: Any, index: Any) -> Any:
    """Returns `array[index]` in every lane."""
    result = VECTORS[array.dtype]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        scalar = builder.load(builder.gep(data, [args[1]]))
        return _splat(builder, context.get_value_type(result), scalar)

    return result(array, types.intp), codegen


@intrinsic
def fill(typingctx: Any, array: Any, value: Any) -> Any:
    """Returns a float64 scalar in every lane, in the dtype of the array."""
    result = VECTORS[array.dtype]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = context.get_value_type(result)
        scalar = args[1]
        if _bits(vector) == 32:
            scalar = builder.fptrunc(scalar, vector.element)
        return _splat(builder, vector, scalar)

    return result(array, types.float64), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Returns a * b + c."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "fma", list(args))

    return a(a, a, a), codegen


def _arithmetic(instruction: str) -> Any:
    """Intrinsic for one arithmetic instruction on two vectors."""

    @intrinsic
    def function(typingctx: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args, flags=("contract",))

        return a(a, b), codegen

    return function


_add, _sub, _mul, _div = (_arithmetic(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


def _overload_operator(symbol: Any, function: Any) -> None:
    """Gives two vectors an arithmetic operator."""

    def declare(a: Any, b: Any) -> Any:
        def implementation(a: Any, b: Any) -> Any:
            return function(a, b)

        both = isinstance(a, VectorType) and isinstance(b, VectorType)
        return implementation if both else None

    overload(symbol, inline="always")(declare)


_overload_operator(operator.add, _add)
_overload_operator(operator.sub, _sub)
_overload_operator(operator.mul, _mul)
_overload_operator(operator.truediv, _div)


@intrinsic
def sqrt(typingctx: Any, a: Any) -> Any:
    """Returns the square roots."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "sqrt", list(args))

    return a(a), codegen


@intrinsic
def exp(typingctx: Any, a: Any) -> Any:
    """Returns the exponentials, to about one unit in the last place; saturates, never inf.

    x = n ln 2 + r with |r| <= ln 2 / 2; Taylor series of exp(r); n goes into the exponent bits.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        bits = _bits(vector)
        limit, mantissa, bias = (87.0, 23, 127) if bits == 32 else (708.0, 52, 1023)
        high = 0.693359375 if bits == 32 else 0.693147180369123816490
        low = -2.12194440e-4 if bits == 32 else 1.90821492927058770002e-10
        x = _call(builder, "minnum", [args[0], _constant(vector, limit)])
        x = _call(builder, "maxnum", [x, _constant(vector, -limit)])
        n = _call(builder, "rint", [builder.fmul(x, _constant(vector, 1.0 / math.log(2.0)))])
        r = _call(builder, "fma", [n, _constant(vector, -high), x])
        r = _call(builder, "fma", [n, _constant(vector, -low), r])
        terms = _EXP_TERMS[bits]
        total = _constant(vector, 1.0 / math.factorial(terms))
        for power in reversed(range(terms)):
            coefficient = _constant(vector, 1.0 / math.factorial(power))
            total = _call(builder, "fma", [total, r, coefficient])
        integers = ir.VectorType(ir.IntType(bits), LANES)
        exponent = builder.add(builder.fptosi(n, integers), _constant(integers, bias))
        power_of_two = builder.bitcast(builder.shl(exponent, _constant(integers, mantissa)), vector)
        return builder.fmul(total, power_of_two)

    return a(a), codegen


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """Returns the larger of a and b, lane by lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _call(builder, "maxnum", list(args))

    return a(a, a), codegen


@intrinsic
def total(typingctx: Any, a: Any) -> Any:
    """Returns the sum of the lanes, a scalar."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, width = args[0], LANES
        while width > 1:
            width //= 2
            mask = [min(i + width, LANES - 1) for i in range(LANES)]
            shifted = builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(_I32, LANES), mask)
            )
            value = builder.fadd(value, shifted)
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return a.dtype(a), codegen


@intrinsic(prefer_literal=True)
def zeros(typingctx: Any, array: Any, count: Any) -> Any:
    """Returns a tuple of `count` (a literal) zero vectors of the dtype of the array."""
    vector_type = VECTORS[array.dtype]
    result = types.UniTuple(vector_type, count.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = _constant(context.get_value_type(vector_type), 0.0)
        block = context.get_constant_undef(result)
        for i in range(result.count):
            block = builder.insert_value(block, zero, i)
        return block

    return result(array, count), codegen


@intrinsic
def fma_scalars(typingctx: Any, block: Any, a: Any, array: Any, index: Any, stride: Any) -> Any:
    """Returns the block with `a * array[index + i * stride]` added to its i-th vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block, a, array, index, stride = args
        data = array_data(context, builder, signature.args[2], array)
        for i in range(signature.args[0].count):
            scalar = builder.load(builder.gep(data, [_offset(builder, index, stride, i)]))
            old = builder.extract_value(block, i)
            new = _call(builder, "fma", [_splat(builder, a.type, scalar), a, old])
            block = builder.insert_value(block, new, i)
        return block

    return block(block, a, array, types.intp, types.intp), codegen


@intrinsic
def fma_vectors(typingctx: Any, block: Any, a: Any, array: Any, index: Any, stride: Any) -> Any:
    """Returns the block with `a * load(array, index + i * stride)` added to its i-th vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block, a, array, index, stride = args
        data = array_data(context, builder, signature.args[2], array)
        for i in range(signature.args[0].count):
            loaded = emit_load(builder, data, _offset(builder, index, stride, i), a.type)
            old = builder.extract_value(block, i)
            block = builder.insert_value(block, _call(builder, "fma", [loaded, a, old]), i)
        return block

    return block(block, a, array, types.intp, types.intp), codegen


@intrinsic
def fma_block(typingctx: Any, block: Any, a: Any, factors: Any) -> Any:
    """Returns the block with a times the i-th factor added to its i-th vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block, a, factors = args
        for i in range(signature.args[0].count):
            pair = builder.extract_value(factors, i), builder.extract_value(block, i)
            block = builder.insert_value(block, _call(builder, "fma", [pair[0], a, pair[1]]), i)
        return block

    return block(block, a, factors), codegen


@intrinsic(prefer_literal=True)
def load_block(typingctx: Any, array: Any, index: Any, stride: Any, count: Any) -> Any:
    """Returns a tuple of `count` (a literal) vectors from `index + i * stride`."""
    vector_type = VECTORS[array.dtype]
    result = types.UniTuple(vector_type, count.literal_value)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        vector = context.get_value_type(vector_type)
        block = context.get_constant_undef(result)
        for i in range(result.count):
            loaded = emit_load(builder, data, _offset(builder, args[1], args[2], i), vector)
            block = builder.insert_value(block, loaded, i)
        return block

    return result(array, types.intp, types.intp, count), codegen


@intrinsic
def store_block(typingctx: Any, array: Any, index: Any, stride: Any, block: Any) -> Any:
    """Stores the i-th vector of the block at `index + i * stride`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        for i in range(signature.args[3].count):
            value = builder.extract_value(args[3], i)
            emit_store(builder, data, _offset(builder, args[1], args[2], i), value)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, block), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Asks for the cache line of `array[index]`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = array_data(context, builder, signature.args[0], args[0])
        byte_pointer = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte_pointer, _I32, _I32, _I32]),
            "llvm.prefetch.p0i8",
        )
        pointer = builder.bitcast(builder.gep(data, [args[1]]), byte_pointer)
        read, keep, into_data_cache = (ir.Constant(_I32, value) for value in (0, 3, 1))
        builder.call(function, [pointer, read, keep, into_data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen
