"""Numbers too small for a normal exponent, taken as zero while training.

The second moments of Adam shrink into them once a network has learned, and square roots and
quotients of them take ten times as long: an epoch of single examples half as much again. Other
results do not change: 1e-38 is lost beside any weight. The mode belongs to a thread; the caller's
is put back. On x86; elsewhere nothing happens.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_X86 = platform.machine().lower() in ("x86_64", "amd64")
_FLUSH = 0x8040  # results and operands, in the register MXCSR


def _exchange(builder, change):
    """Store ``change(mode)`` in MXCSR; returns the mode that was there."""
    i32 = ir.IntType(32)
    if not _X86:
        return ir.Constant(i32, 0)
    place = cgutils.alloca_once(builder, i32)
    function_type = ir.FunctionType(ir.VoidType(), [ir.PointerType()])
    read, write = (
        cgutils.get_or_insert_function(builder.module, function_type, f"llvm.x86.sse.{name}mxcsr")
        for name in ("st", "ld")
    )
    builder.call(read, [place])
    before = builder.load(place)
    builder.store(change(before), place)
    builder.call(write, [place])
    return before


@intrinsic
def flush_denormals(typingctx):
    """Take denormal numbers as zero from now on; returns the mode to restore."""

    def codegen(context, builder, signature, args):
        return _exchange(builder, lambda mode: builder.or_(mode, ir.Constant(mode.type, _FLUSH)))

    return types.int32(), codegen


@intrinsic
def restore_denormals(typingctx, mode):
    """Go back to a mode that ``flush_denormals`` returned."""

    def codegen(context, builder, signature, args):
        _exchange(builder, lambda _: args[0])
        return context.get_dummy_value()

    return types.void(types.int32), codegen
