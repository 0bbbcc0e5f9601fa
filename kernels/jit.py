"""How kernels are compiled and cached, and what happens when the cache fails."""

import gc
import os
import threading
import types
import warnings
import zlib
from pathlib import Path

import numba
import numpy as np
from llvmlite import binding as llvm
from numba import config, njit, typeof
from numba.core import caching

# contract: fused multiply-add; reassoc: sums may use vector lanes; nsz: the sign of zero is free.
# NaN and infinity keep their meaning. error_model: division by zero gives inf, as in NumPy.
FLAGS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}
# For formulas whose rounding steps matter: no reassociation.
EXACT = {**FLAGS, "fastmath": {"contract"}}

# Functions that only kernels call: without a way in from Python, which took a third of the time to
# compile. From Python, call them through an njit function.
# No kernel allocates: arrays belong to the caller, and no one counts who uses them.
_OWNS_NOTHING = {"_nrt": False}
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OWNS_NOTHING}
# Part of its caller: no call, whose arguments are every field of every array, and nothing to count.
leaf = njit(forceinline=True, **_INNER, **FLAGS)
# Part of its caller before types are inferred: for the large pieces of an entry point. A leaf is
# also optimised and emitted on its own, which for these took a quarter of the time to compile.
section = njit(inline="always", **_INNER, **FLAGS)
# One copy that all callers share: for what is large and called from several places.
shared = njit(**_INNER, **FLAGS)
exact = njit(**_INNER, **EXACT)

# Everything that machine code depends on, in 32 bits. Numba's disk cache looks at no more than the
# file that holds the cached function, and numbers its files anew when that changes: an edit to any
# other kernel, or a full disk at the wrong moment, would run stale code. With the digest in their
# names, files belong to one version of all kernels, one Numba and one kind of CPU.
_BUILT_BY = (
    numba.__version__,
    config.OPT,
    config.BOUNDSCHECK,
    config.CPU_NAME or llvm.get_host_cpu_name(),
    config.CPU_FEATURES or llvm.get_host_cpu_features().flatten(),
)
DIGEST = zlib.crc32(repr(_BUILT_BY).encode())
for _source in sorted(Path(__file__).parent.glob("*.py")):
    DIGEST = zlib.crc32(_source.read_bytes(), DIGEST)

_warned = False

# Held while a kernel is compiled or loaded, and during a fork: a child process must not begin with
# a lock, Numba's own among them, of a thread that it has not.
_compiling = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_compiling.acquire,
        after_in_parent=_compiling.release,
        after_in_child=_compiling.release,
    )


class CacheWarning(UserWarning):
    """The disk cache of compiled kernels could not be used; kernels are compiled in memory."""


def _warn_once(error):
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"fastnn could not use Numba's disk cache ({type(error).__name__}: {error}); "
            "kernels are compiled again in every process. Set NUMBA_CACHE_DIR to a writable "
            "folder, or delete the damaged files there.",
            CacheWarning,
            stacklevel=4,
        )


class _ReadOnly:
    """A folder that cannot be written, but holds this version of a kernel."""

    @classmethod
    def from_function(cls, py_func, py_file):
        locator = cls(py_func, py_file)
        indices = Path(locator.get_cache_path()).glob(f"*.{py_func.__qualname__}-*.nbi")
        return locator if any(indices) else None


class _ReadOnlyInTree(_ReadOnly, caching.InTreeCacheLocator):
    pass


class _ReadOnlyUserProvided(_ReadOnly, caching.UserProvidedCacheLocator):
    @classmethod
    def from_function(cls, py_func, py_file):
        return super().from_function(py_func, py_file) if config.CACHE_DIR else None


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (
        caching.UserProvidedCacheLocator,
        _ReadOnlyUserProvided,
        caching.InTreeCacheLocator,
        _ReadOnlyInTree,
        caching.UserWideCacheLocator,
    )


class _Cache(caching.FunctionCache):
    """Numba's disk cache, which by itself does not look into folders that it cannot write."""

    _impl_class = _CacheImpl

    def __init__(self, py_func):
        super().__init__(py_func)
        # Numba before 0.68 compares the time of the source, which images of containers round.
        self._cache_file._source_stamp = DIGEST


class Entry:
    """A kernel that Python calls: one function per dtype, each with exactly one signature.

    A separate function object (and cache index) per dtype, closed to any other signature, means
    that a cache index can never hand out machine code for other argument types.

    Parameters
    ----------
    function : callable
        The Python function to compile.
    sample : callable
        ``sample(dtype)`` returns arguments of the types that the function takes.
    """

    def __init__(self, function, sample):
        self._function = function
        self._sample = sample
        self._compiled = {}

    def __getitem__(self, dtype):
        """Return the compiled function for ``dtype``, compiling or loading it the first time."""
        dtype = np.dtype(dtype)
        try:
            return self._compiled[dtype]
        except KeyError:
            with _compiling:
                if dtype not in self._compiled:
                    self._compiled[dtype] = self._compile(dtype)
                return self._compiled[dtype]

    def is_cached(self, dtype):
        """Whether the function for ``dtype`` is in memory or loads from disk without compiling."""
        if np.dtype(dtype) in self._compiled:
            return True
        return bool(self[dtype].stats.cache_hits)

    def _compile(self, dtype):
        if config.DISABLE_JIT:
            raise RuntimeError(
                "NUMBA_DISABLE_JIT is set, but the matrix products of fastnn are compiled code "
                "and have no Python form: unset it to fit or predict."
            )
        name = self._function.__name__
        function = types.FunctionType(self._function.__code__, self._function.__globals__, name)
        # The name of the cache files.
        function.__qualname__ = f"{name}_{dtype.name}_{DIGEST:08x}"
        signature = tuple(typeof(argument) for argument in self._sample(dtype))
        dispatcher = njit(**_OWNS_NOTHING, **FLAGS)(function)
        collecting = gc.isenabled()
        gc.disable()  # compiling makes millions of objects: searching them took an eighth of it
        try:
            dispatcher._cache = _Cache(function)
            dispatcher.compile(signature)
        except Exception as error:  # no writable place, a full disk; damaged files raise anything
            _warn_once(error)
            if not dispatcher.overloads:  # otherwise only saving has failed
                dispatcher = njit(**_OWNS_NOTHING, **FLAGS)(function)
                dispatcher.compile(signature)
        finally:
            if collecting:
                gc.enable()
        dispatcher.disable_compile()
        return dispatcher


def readonly(array):
    """A view of ``array`` that cannot be written: the one type under which inputs are compiled."""
    view = array.view()
    view.flags.writeable = False
    return view
