"""What is asked of the CPU and of the operating system, each question in this one place.

The size of vectors and the number of their registers decide how products are tiled. The functions
are instructions and system calls that Numba does not offer: loads and additions that other threads
see in order, a hint for spin loops, prefetching, a clock, sleep, and what denormal numbers are.
"""

import platform
import sys
import time

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

_MACHINE = platform.machine().lower()
X86, _ARM = _MACHINE in ("x86_64", "amd64"), _MACHINE in ("aarch64", "arm64")

# Kernels are compiled for one of few kinds of CPU, a level, so that their machine code can be made
# elsewhere, and all machines of a level compute the same bits. Of x86-64 these are the levels that
# its ABI defines, each with what code has beyond the levels before it.
LEVELS = {
    "x86-64-v2": "+cx16,+popcnt,+sse3,+ssse3,+sse4.1,+sse4.2",
    "x86-64-v3": "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe",
    "x86-64-v4": "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl",
}


def _machine():
    """The level of this machine, and what LLVM calls it: a CPU and its features.

    What Numba is told to compile for, by NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, is this machine.
    """
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    if _ARM:
        return "aarch64", "generic", ""
    if not X86:
        return "host", config.CPU_NAME or llvm.get_host_cpu_name(), features
    level = "x86-64"
    for name, added in LEVELS.items():
        if not set(added.split(",")) <= set(features.split(",")):
            break
        level = name
    # LLVM would leave half of each vector unused, as was good for the first CPUs of this level.
    return level, level, "-prefer-256-bit" if level == "x86-64-v4" else ""


LEVEL, CPU_NAME, CPU_FEATURES = _machine()
# Bytes of a vector register, and how many of them there are.
VECTOR_BYTES, REGISTERS = {
    "x86-64-v4": (64, 32),
    "x86-64-v3": (32, 16),
    "aarch64": (16, 32),
}.get(LEVEL, (16, 16))
CACHE_LINE = 64  # bytes; where lines are longer, some prefetches are for nothing


def apart(size, dtype):
    """A vector of zeros with no other on its cache lines, nor on those that come along with them.

    What threads write often must not lie beside what they read: they would wait for the line.
    """
    dtype = np.dtype(dtype)
    margin = -(-2 * CACHE_LINE // dtype.itemsize)
    return np.zeros(size + 2 * margin, dtype)[margin : margin + size]


if sys.platform == "win32":
    _YIELD, _SLEEP, _SLEEP_UNIT = "SwitchToThread", "Sleep", 1000
else:
    _YIELD, _SLEEP, _SLEEP_UNIT = "sched_yield", "usleep", 1

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _call(builder, name, result, arguments):
    """Call the C function or LLVM intrinsic ``name``; returns its result."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


@intrinsic
def atomic_add(typingctx, address, value):
    """Add to the int64 at ``address``; returns what was there before."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "acq_rel")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at ``address``; what its writer wrote before it can be read after it."""

    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):
        if X86:
            _call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif _ARM:
            _call(builder, "llvm.aarch64.hint", ir.VoidType(), [ir.Constant(_I32, 1)])  # yield
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_core(typingctx):
    """Let another thread have the core, if one waits for it."""

    def codegen(context, builder, signature, args):
        _call(builder, _YIELD, _I32, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def sleep(typingctx, microseconds):
    """Sleep for about so many microseconds; on Windows for at least a millisecond."""

    def codegen(context, builder, signature, args):
        units = builder.sdiv(args[0], ir.Constant(_I64, _SLEEP_UNIT))
        none = builder.icmp_signed("<", units, ir.Constant(_I64, 1))
        units = builder.select(none, ir.Constant(_I64, 1), units)
        _call(builder, _SLEEP, _I32, [builder.trunc(units, _I32)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def nanoseconds(typingctx):
    """The time of a clock that never goes back; on Windows it advances in steps of some 16 ms."""

    def codegen(context, builder, signature, args):
        if sys.platform == "win32":
            milliseconds = _call(builder, "GetTickCount64", _I64, [])
            return builder.mul(milliseconds, ir.Constant(_I64, 1_000_000))
        timespec = cgutils.alloca_once(builder, _I64, 2)
        clock = ir.Constant(_I32, time.CLOCK_MONOTONIC)
        _call(builder, "clock_gettime", _I32, [clock, timespec])
        seconds = builder.load(timespec)
        rest = builder.load(builder.gep(timespec, [ir.Constant(_I32, 1)]))
        return builder.add(builder.mul(seconds, ir.Constant(_I64, 1_000_000_000)), rest)

    return types.int64(), codegen


def emit_prefetch(builder, address):
    """Build what ``prefetch`` does."""
    pointer = builder.inttoptr(address, ir.PointerType())
    read, all_caches, data = 0, 3, 1
    how = [ir.Constant(_I32, value) for value in (read, all_caches, data)]
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *how])


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at ``address``, so that it is near by the time it is read."""

    def codegen(context, builder, signature, args):
        emit_prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


# Denormal numbers are too small for a normal exponent. The second moments of Adam shrink into them
# once a network has learned, and square roots and quotients of them take ten times as long: an
# epoch of single examples half as much again. Training takes them as zero. Its results do not
# change: 1e-38 is lost beside any weight. The mode belongs to a thread, and the caller's is put
# back. Only x86 has it here; elsewhere nothing happens.
_FLUSH = 0x8040  # results and operands, in the register MXCSR


def _exchange_mode(builder, change):
    """Store ``change(mode)`` in MXCSR; returns the mode that was there."""
    if not X86:
        return ir.Constant(_I32, 0)
    place = cgutils.alloca_once(builder, _I32)
    _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), [place])
    before = builder.load(place)
    builder.store(change(before), place)
    _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), [place])
    return before


@intrinsic
def flush_denormals(typingctx):
    """Take denormal numbers as zero from now on; returns the mode to restore."""

    def codegen(context, builder, signature, args):
        flush = ir.Constant(_I32, _FLUSH)
        return _exchange_mode(builder, lambda mode: builder.or_(mode, flush))

    return types.int32(), codegen


@intrinsic
def restore_denormals(typingctx, mode):
    """Go back to a mode that ``flush_denormals`` returned."""

    def codegen(context, builder, signature, args):
        _exchange_mode(builder, lambda _: args[0])
        return context.get_dummy_value()

    return types.void(types.int32), codegen
