"""How kernels are compiled: the flags, the cache key, and what happens when the cache fails.

Numba's disk cache only looks at the file that holds the cached function, so an edit to any other
kernel file would run stale machine code. Every entry point therefore closes over ``DIGEST``, a
checksum of all kernel sources: the value of a closure is part of Numba's cache key.
"""

import pickle
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
from numba import njit, typeof, types
from numba.core import cgutils
from numba.extending import intrinsic

# contract: fused multiply-add; reassoc: sums may use vector lanes; nsz: the sign of zero is free.
# NaN and infinity keep their meaning. error_model: division by zero gives inf, as in NumPy.
FLAGS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}

# For formulas whose rounding steps matter (elementary.py): no reassociation.
EXACT = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}

# Part of its caller: no call, whose arguments are every field of every array, and nothing to count.
leaf = njit(forceinline=True, **FLAGS)
# One copy that all callers share: for what is large and called from several places.
shared = njit(**FLAGS)

DIGEST = 0
for _source in sorted(Path(__file__).parent.glob("*.py")):
    DIGEST = zlib.crc32(_source.read_bytes(), DIGEST)

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class CacheWarning(UserWarning):
    """The disk cache of compiled kernels could not be used; kernels are compiled in memory."""


class Entry:
    """A kernel that Python calls: one function per dtype, each with exactly one signature.

    A separate function object (and cache index) per dtype, closed to any other signature, means
    that a cache index can never hand out machine code for other argument types.

    Parameters
    ----------
    make : callable
        ``make(digest)`` returns the Python function to compile, which must mention ``digest``.
    sample : callable
        ``sample(dtype)`` returns arguments of the types that the function takes.
    """

    def __init__(self, make, sample):
        self._make = make
        self._sample = sample
        self._compiled = {}
        self._lock = threading.Lock()

    def __getitem__(self, dtype):
        """Return the compiled function for ``dtype``, compiling or loading it the first time."""
        dtype = np.dtype(dtype)
        try:
            return self._compiled[dtype]
        except KeyError:
            with self._lock:
                if dtype not in self._compiled:
                    self._compiled[dtype] = self._compile(dtype)
                return self._compiled[dtype]

    def is_cached(self, dtype):
        """Whether the function for ``dtype`` is in memory or loads from disk without compiling."""
        if np.dtype(dtype) in self._compiled:
            return True
        return bool(self[dtype].stats.cache_hits)

    def _compile(self, dtype):
        function = self._make(DIGEST)
        # The name of the cache index: one per function and dtype.
        function.__qualname__ = f"{function.__name__}_{dtype.name}"
        signature = tuple(typeof(argument) for argument in self._sample(dtype))
        try:
            dispatcher = njit(cache=True, **FLAGS)(function)
            dispatcher.compile(signature)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            # No writable place, a full disk, a truncated or garbled file.
            warnings.warn(
                f"fastnn could not use Numba's disk cache ({type(error).__name__}: {error}); "
                "kernels are compiled again in every process. Set NUMBA_CACHE_DIR to a "
                "writable folder, or delete the damaged files there.",
                CacheWarning,
                stacklevel=2,
            )
            dispatcher = njit(**FLAGS)(function)
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher


def readonly(array):
    """A view of ``array`` that cannot be written: the one type under which inputs are compiled."""
    view = array.view()
    view.flags.writeable = False
    return view


@intrinsic
def borrowed(typingctx, value):
    """An array, or a NamedTuple with arrays, without ownership.

    Numba counts references to an array wherever one is handed on, with atomic instructions; in
    training on single examples that took a third of the time. The caller owns what it passes to
    an entry point, so the entry point begins with borrowing it.
    """

    def without_owner(context, builder, typ, array):
        struct = cgutils.create_struct_proxy(typ)(context, builder, value=array)
        for owner in ("meminfo", "parent"):
            setattr(struct, owner, cgutils.get_null_value(getattr(struct, owner).type))
        return struct._getvalue()

    def codegen(context, builder, signature, args):
        (typ,) = signature.args
        if isinstance(typ, types.Array):
            return without_owner(context, builder, typ, args[0])
        fields = cgutils.unpack_tuple(builder, args[0])
        fields = [
            without_owner(context, builder, field_type, field)
            if isinstance(field_type, types.Array)
            else field
            for field_type, field in zip(typ.types, fields, strict=True)
        ]
        return context.make_tuple(builder, typ, fields)

    return value(value), codegen
