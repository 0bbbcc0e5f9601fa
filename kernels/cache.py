"""Entry points, compiled once for each dtype, and the disk cache that keeps their machine code."""

import contextlib
import gc
import importlib.util
import logging
import os
import pkgutil
import sys
import threading
import types
import warnings
import zlib
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

import numba
import numpy as np
from numba import config, njit, typeof
from numba.core import caching
from numba.misc.appdirs import AppDirs

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
_PACKAGE = sys.modules[__package__]
# Of a code object: what it does, but not the folder in which it was compiled.
_MEANING = (
    "co_code",
    "co_consts",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_flags",
    "co_exceptiontable",
)


def _in_words(value):
    """A text that is the same in every process, of a code object or a constant in it."""
    if isinstance(value, types.CodeType):
        return _in_words(tuple(getattr(value, name) for name in _MEANING))
    if isinstance(value, tuple):
        return f"({','.join(map(_in_words, value))})"
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_in_words, value)))}}}"
    return repr(value)


def _digest():
    """The digest of the code that Python runs, be it in files, an archive or an application."""
    digest = zlib.crc32(repr(_BUILT_BY).encode())
    prefix = f"{__package__}."
    names = sorted(module.name for module in pkgutil.iter_modules(_PACKAGE.__path__, prefix))
    if __name__ not in names:
        raise ImportError(f"no list of the modules of {__package__}")
    for name in (__package__, *names):
        code = importlib.util.find_spec(name).loader.get_code(name)
        if code is None:
            raise ImportError(f"no code of {name}")
        digest = zlib.crc32(_in_words(code).encode(), digest)
    return digest


try:
    DIGEST, _unreadable = f"{_digest():08x}", None
except Exception as error:  # importers of other packagers may lack anything
    DIGEST, _unreadable = "", error

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
        advice = (
            "Set NUMBA_CACHE_DIR to a writable folder, or delete the damaged files there."
            if DIGEST
            else "The code of the kernels cannot be read, so their machine code could be taken for "
            "that of another version. Store fastnn as files, in a zip archive or by PyInstaller."
        )
        warnings.warn(
            f"fastnn could not use Numba's disk cache ({type(error).__name__}: {error}); "
            f"kernels are compiled again in every process. {advice}",
            CacheWarning,
            stacklevel=4,
        )


def _folders():
    """Where the cache may be, as Numba has it, but also of code that is in no file of its own.

    Files are the same wherever the package lies: an application in one file unpacks itself into
    another folder each time.
    """
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR, "fastnn")
    package = Path(_PACKAGE.__path__[0])
    # An application's own folder may be gone when it ends.
    if package.is_dir() and not getattr(sys, "frozen", False):
        yield package / "__pycache__"
    yield Path(AppDirs(appname="numba", appauthor=False).user_cache_dir, "fastnn")


class _Locator(caching._CacheLocator):
    """The first folder that can be written, or that holds this version of a kernel."""

    def __init__(self, py_func, folder):
        self._py_func, self._folder = py_func, folder

    @classmethod
    def from_function(cls, py_func, py_file):
        for folder in _folders():
            locator = cls(py_func, folder)
            try:
                locator.ensure_cache_path()
            except OSError:
                if not any(folder.glob(f"*.{py_func.__qualname__}-*.nbi")):
                    continue
            return locator
        raise OSError(f"none of {[str(folder) for folder in _folders()]} can be written")

    def get_cache_path(self):
        return str(self._folder)

    def get_source_stamp(self):
        return DIGEST

    def get_disambiguator(self):
        return str(self._py_func.__code__.co_firstlineno)


class _CacheImpl(caching.CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache):
    """Numba's disk cache, which looks into folders that it cannot write too, and may fail.

    Loading and saving end in no error, but in a warning: a kernel that cannot be loaded is
    compiled, and one that cannot be saved is compiled again in the next process.
    """

    _impl_class = _CacheImpl

    @property
    def is_empty(self):
        """Whether nothing is stored yet: what is, may still turn out to be damaged."""
        name = self._py_func.__qualname__
        return not any(Path(self.cache_path).glob(f"*.{name}-*.nbi"))

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


TELL_AFTER = 1.0  # seconds
_told = set()


@contextlib.contextmanager
def _telling(dtype):
    """A block that compiles for ``dtype``: the logger 'fastnn' says so once, if it takes long."""

    def tell():
        if dtype not in _told:
            _told.add(dtype)
            logging.getLogger("fastnn").warning(
                "fastnn is compiling its kernels for %s, once: later processes load them from "
                "disk. `python -m fastnn warmup` does it ahead of time.",
                dtype,
            )

    timer = threading.Timer(TELL_AFTER, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


@contextlib.contextmanager
def _alone(path):
    """A block that one process at a time runs: the others wait, and find what it has stored.

    The system lets go of the lock when its owner dies. Where there is none to be had, on a
    read-only disk or another system, the block is run without.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a read-only disk, or a network disk without locks
                fcntl.flock(stack.enter_context(open(path, "ab")), fcntl.LOCK_EX)
        yield


def _cache_of(function):
    """The disk cache of a function; one that stores nothing where there is no place for it."""
    try:
        if _unreadable is not None:
            raise _unreadable
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
        function.__qualname__ = f"{name}_{dtype.name}_{DIGEST}"
        signature = tuple(typeof(argument) for argument in self._sample(dtype))
        dispatcher = njit(**OWNS_NOTHING, **FLAGS)(function)
        dispatcher._cache = cache = _cache_of(function)
        collecting = gc.isenabled()
        gc.disable()  # compiling makes millions of objects: searching them took an eighth of it
        try:
            with contextlib.ExitStack() as stack:
                if not isinstance(cache, _Cache) or cache.is_empty:
                    stack.enter_context(_telling(dtype.name))
                if isinstance(cache, _Cache) and cache.is_empty:
                    lock = Path(cache.cache_path, f"{function.__qualname__}.lock")
                    stack.enter_context(_alone(lock))
                dispatcher.compile(signature)  # or load what another process has stored by now
        finally:
            if collecting:
                gc.enable()
        dispatcher.disable_compile()
        return dispatcher
