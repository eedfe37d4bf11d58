"""Treats denormal numbers as zero while kernels run, on x86."""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
_I32 = ir.IntType(32)
_FLUSH_BITS = 0x8040  # MXCSR: flush results to zero, take denormal operands as zero


@intrinsic
def flush_denormals(typingctx: Any) -> Any:
    """Makes this thread treat denormal numbers as zero, on x86; returns the state to restore.

    The envelope makes them by the thousand at the cutoff, and each costs about 150 cycles.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if not _IS_X86:
            return ir.Constant(_I32, 0)
        state = cgutils.alloca_once(builder, _I32)
        old = _control_register(builder, "stmxcsr", state)
        builder.store(builder.or_(old, ir.Constant(_I32, _FLUSH_BITS)), state)
        _control_register(builder, "ldmxcsr", state)
        return old

    return types.int32(), codegen


@intrinsic
def restore_denormals(typingctx: Any, state: Any) -> Any:
    """Undoes `flush_denormals`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if _IS_X86:
            slot = cgutils.alloca_once(builder, _I32)
            builder.store(args[0], slot)
            _control_register(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.int32), codegen


def _control_register(builder: Any, instruction: str, slot: Any) -> Any:
    """Emits a load or store of MXCSR and returns what the slot holds afterwards."""
    byte_pointer = ir.IntType(8).as_pointer()
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte_pointer]),
        f"llvm.x86.sse.{instruction}",
    )
    builder.call(function, [builder.bitcast(slot, byte_pointer)])
    return builder.load(slot)
