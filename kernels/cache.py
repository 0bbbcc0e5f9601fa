"""Entry points, compiled once for each dtype, and the disk cache that keeps their machine code."""

import gc
import os
import threading
import types
import warnings
import zlib
from pathlib import Path

import numba
import numpy as np
from numba import config, njit, typeof
from numba.core import caching

from .jit import FLAGS, OWNS_NOTHING
from .machine import CPU_FEATURES, CPU_NAME

# Everything that machine code depends on, in 32 bits. Numba's disk cache looks at no more than the
# file that holds the cached function, and numbers its files anew when that changes: an edit to any
# other kernel, or a full disk at the wrong moment, would run stale code. With the digest in their
# names, files belong to one version of all kernels, one Numba and one kind of CPU.
_BUILT_BY = (
    numba.__version__,
    config.OPT,
    config.BOUNDSCHECK,
    CPU_NAME,
    CPU_FEATURES,
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
    """Numba's disk cache, which looks into folders that it cannot write too, and may fail.

    Loading and saving end in no error, but in a warning: a kernel that cannot be loaded is
    compiled, and one that cannot be saved is compiled again in the next process.
    """

    _impl_class = _CacheImpl

    def __init__(self, py_func):
        super().__init__(py_func)
        # Numba before 0.68 compares the time of the source, which images of containers round.
        self._cache_file._source_stamp = DIGEST

    def load_overload(self, signature, target_context):
        try:
            return super().load_overload(signature, target_context)
        except Exception as error:  # damaged files raise anything
            _warn_once(error)
            return None

    def save_overload(self, signature, data):
        try:
            super().save_overload(signature, data)
        except Exception as error:  # a full disk
            _warn_once(error)


def _cache_of(function):
    """The disk cache of a function; one that stores nothing where there is no place for it."""
    try:
        return _Cache(function)
    except Exception as error:
        _warn_once(error)
        return caching.NullCache()


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

    def prepare(self, dtype):
        """Load the function for ``dtype`` or compile it; returns whether it was there already."""
        in_memory = np.dtype(dtype) in self._compiled
        return bool(self[dtype].stats.cache_hits) or in_memory

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
        dispatcher = njit(**OWNS_NOTHING, **FLAGS)(function)
        dispatcher._cache = _cache_of(function)
        collecting = gc.isenabled()
        gc.disable()  # compiling makes millions of objects: searching them took an eighth of it
        try:
            dispatcher.compile(signature)
        finally:
            if collecting:
                gc.enable()
        dispatcher.disable_compile()
        return dispatcher
