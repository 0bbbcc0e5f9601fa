"""Where the threads of one mini-batch meet, and the only place where they talk to each other.

Every thread runs the same kernel on its part of the work (SPMD) and waits at the same barriers.
``sync`` is a shared int64 vector: ``sync[ARRIVALS]`` counts arrivals since the kernel call began,
``sync[ABORT]`` is set by Python when a thread did not get to run, and lets the others leave.

Waiting spins for a few microseconds, the usual length of a wait; then it gives the core away with
every look; then it sleeps. Cores may be oversubscribed or throttled by a quota: spinning on would
keep the very thread that is waited for from running.
"""

import platform
import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import leaf

ARRIVALS, ABORT = 0, 8  # on different cache lines
SYNC_SIZE = 16

_SPINS = 500
_YIELDS = 200
_SLEEP_MICROSECONDS = 50

if sys.platform == "win32":
    _YIELD, _SLEEP, _SLEEP_UNIT = "SwitchToThread", "Sleep", 1000
else:
    _YIELD, _SLEEP, _SLEEP_UNIT = "sched_yield", "usleep", 1
_SLEEP_TIME = max(1, _SLEEP_MICROSECONDS // _SLEEP_UNIT)
_MACHINE = platform.machine().lower()


def new_sync():
    """The vector that the threads of one team share."""
    return np.zeros(SYNC_SIZE, np.int64)


def _pointer(builder, address):
    return builder.inttoptr(address, ir.IntType(64).as_pointer())


@intrinsic
def _atomic_add(typingctx, address, value):
    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.intp, types.int64), codegen


@intrinsic
def _atomic_load(typingctx, address):
    def codegen(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def _pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):
        i32 = ir.IntType(32)
        if _MACHINE in ("x86_64", "amd64"):
            name, arguments = "llvm.x86.sse2.pause", []
        elif _MACHINE in ("aarch64", "arm64"):
            name, arguments = "llvm.aarch64.hint", [1]  # yield
        else:
            return context.get_dummy_value()
        function_type = ir.FunctionType(ir.VoidType(), [i32] * len(arguments))
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        builder.call(function, [ir.Constant(i32, value) for value in arguments])
        return context.get_dummy_value()

    return types.void(), codegen


def _system_call(name, arguments):
    @intrinsic
    def call(typingctx):
        def codegen(context, builder, signature, args):
            i32 = ir.IntType(32)
            function_type = ir.FunctionType(i32, [i32] * len(arguments))
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            builder.call(function, [ir.Constant(i32, value) for value in arguments])
            return context.get_dummy_value()

        return types.void(), codegen

    return call


_yield_core = _system_call(_YIELD, [])
_sleep = _system_call(_SLEEP, [_SLEEP_TIME])


@leaf
def wait_for_all(sync, arrivals):
    """Arrive, and wait until ``arrivals`` threads have in this kernel call; False means: leave."""
    counter = np.intp(sync.ctypes.data) + ARRIVALS * 8
    abort = np.intp(sync.ctypes.data) + ABORT * 8
    _atomic_add(counter, 1)
    looks = 0
    while _atomic_load(counter) < arrivals:
        looks += 1
        if looks < _SPINS:
            _pause()
        else:
            if _atomic_load(abort) != 0:
                return False
            if looks < _SPINS + _YIELDS:
                _yield_core()
            else:
                _sleep()
    return True
