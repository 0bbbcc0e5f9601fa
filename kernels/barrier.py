"""Where the threads of one fit meet, and the only place where they talk to each other.

Every thread runs the same kernel on its part of the work (SPMD). ``sync`` is a shared int64 vector:

================  ============================================================================
``ARRIVALS``      arrivals at barriers since the threads began; a barrier waits for its number
``STARTED``       slices of an epoch begun so far; helpers wait for the next
``ABORT``         set by Python when a thread failed or is done: every wait ends, with False
``TIME_OVER``     set by thread 0 before a barrier: behind it, all threads end the slice
================  ============================================================================

Waiting spins for a few microseconds, the usual length of a wait; then it gives the core away with
every look; then it sleeps, ever longer. Cores may be oversubscribed or throttled by a quota:
spinning on would keep the very thread that is waited for from running. There each barrier may take
as long as another program may keep a core, which is why slices end when their time is over.
"""

import platform
import sys
import time

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import leaf, shared

ARRIVALS, STARTED, ABORT, TIME_OVER = 0, 16, 32, 33  # on different pairs of cache lines
SYNC_SIZE = 48

_SPINS = 500
_YIELDS = 1000
_SLEEP_MICROSECONDS, _LONGEST_SLEEP = 50, 1000

if sys.platform == "win32":
    _YIELD, _SLEEP, _SLEEP_UNIT = "SwitchToThread", "Sleep", 1000
else:
    _YIELD, _SLEEP, _SLEEP_UNIT = "sched_yield", "usleep", 1
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


def _system_call(name):
    """A C function that takes an int32, or nothing as far as it cares."""

    @intrinsic
    def call(typingctx, argument):
        def codegen(context, builder, signature, args):
            i32 = ir.IntType(32)
            function_type = ir.FunctionType(i32, [i32])
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            builder.call(function, [builder.trunc(args[0], i32)])
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return call


_yield_core = _system_call(_YIELD)
_sleep = _system_call(_SLEEP)


@intrinsic
def nanoseconds(typingctx):
    """The time of a clock that never goes back; on Windows it advances in steps of some 16 ms."""

    def codegen(context, builder, signature, args):
        i32, i64 = ir.IntType(32), ir.IntType(64)
        if sys.platform == "win32":
            function_type, name = ir.FunctionType(i64, []), "GetTickCount64"
            function = cgutils.get_or_insert_function(builder.module, function_type, name)
            return builder.mul(builder.call(function, []), ir.Constant(i64, 1_000_000))
        function_type = ir.FunctionType(i32, [i32, i64.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, function_type, "clock_gettime")
        timespec = cgutils.alloca_once(builder, i64, 2)
        builder.call(function, [ir.Constant(i32, time.CLOCK_MONOTONIC), timespec])
        seconds = builder.load(timespec)
        rest = builder.load(builder.gep(timespec, [ir.Constant(i32, 1)]))
        return builder.add(builder.mul(seconds, ir.Constant(i64, 1_000_000_000)), rest)

    return types.int64(), codegen


@leaf
def _at(sync, index):
    return np.intp(sync.ctypes.data) + np.intp(index * 8)


@shared
def _wait(sync, index, value):
    """Wait until ``sync[index]`` is at least ``value``; False means: leave."""
    looks = 0
    microseconds = _SLEEP_MICROSECONDS
    while _atomic_load(_at(sync, index)) < value:
        looks += 1
        if looks < _SPINS:
            _pause()
        else:
            if _atomic_load(_at(sync, ABORT)) != 0:
                return False
            if looks < _SPINS + _YIELDS:
                _yield_core(0)
            else:
                _sleep(max(1, microseconds // _SLEEP_UNIT))
                microseconds = min(2 * microseconds, _LONGEST_SLEEP)
    return True


@leaf
def meet(sync, n_threads):
    """Wait for the other threads of a team; False means: leave.

    Each arrival draws the next ticket, from 0 on; a round is full once ``n_threads`` tickets are
    drawn. All rounds of one ``sync`` have the same size: a slice runs on one thread, which does not
    wait, or on all threads of the fit.
    """
    if n_threads == 1:
        return True
    ticket = _atomic_add(_at(sync, ARRIVALS), 1)
    return _wait(sync, ARRIVALS, (ticket // n_threads + 1) * n_threads)


@leaf
def start_slice(sync):
    """Let the helpers go on: what they are to do is written."""
    sync[TIME_OVER] = 0
    _atomic_add(_at(sync, STARTED), 1)


@leaf
def wait_for_slice(sync, number):
    """Wait until slice ``number``, counted from 1, has begun; False means: leave."""
    return _wait(sync, STARTED, number)
