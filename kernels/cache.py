"""Entry points, compiled once for each dtype, and the files that keep their machine code.

Each file holds one entry point for one dtype and one level of CPU. A wheel may bring them along, in
``built`` beside this file; what is not there is compiled, and stored in the disk cache.
"""

import contextlib
import gc
import importlib.util
import logging
import os
import pickle
import pkgutil
import sys
import tempfile
import threading
import types
import uuid
import warnings
import zlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

import numba
import numpy as np
from numba import config, typeof
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from .jit import entry, entry_context
from .machine import CPU_FEATURES, CPU_NAME, LEVEL

# Everything that machine code depends on, in 32 bits. It is in the names of the files, which so
# belong to one version of all kernels, one Numba, one Python and one level of CPU.
_BUILT_BY = (
    EXTENSION_SUFFIXES[0],  # the Python and the system
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
            f"fastnn could not use the disk cache ({type(error).__name__}: {error}); "
            f"kernels are compiled again in every process. {advice}",
            CacheWarning,
            stacklevel=4,
        )


def _folders():
    """Where the disk cache may be, as Numba has it, but also of code that is in no file of its own.

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


def _write(path, content):
    """Write a file that is there as a whole or not at all, whoever reads or writes it meanwhile."""
    unfinished = path.with_name(f"{path.name}.tmp.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


class _Cache(NullCache):
    """What Numba asks for machine code, and gives it to: files ``name`` in several folders.

    Loading and saving end in no error, but in a warning: a kernel that cannot be loaded is
    compiled, and one that cannot be saved is compiled again in the next process.
    """

    def __init__(self, name):
        self._name = name

    def _place(self):
        """Where the file is stored: in the first folder that can be written, or has it already."""
        for folder in _folders():
            place = folder / self._name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError:
                if not place.is_file():
                    continue
            return place
        raise OSError(f"none of {[str(folder) for folder in _folders()]} can be written")

    def _places(self):
        """Where the file may be: what came with the package, then the disk cache."""
        yield Path(_PACKAGE.__path__[0], "built", self._name)
        with contextlib.suppress(OSError):  # of which saving will tell
            yield self._place()

    @property
    def is_empty(self):
        """Whether nothing is stored yet: what is, may still turn out to be damaged."""
        return not any(place.is_file() for place in self._places())

    @contextlib.contextmanager
    def alone(self):
        """A block that one process at a time runs: the others wait, and find what it has stored.

        The system lets go of the lock when its owner dies. Where there is none to be had, on a
        read-only disk or another system, the block is run without.
        """
        with contextlib.ExitStack() as stack:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a read-only or full disk, or without locks
                    path = self._place().with_suffix(".lock")
                    fcntl.flock(stack.enter_context(open(path, "ab")), fcntl.LOCK_EX)
            yield

    def _check(self, machine_code):
        """A sum by which a file is known to be whole, and to be the one that its name says."""
        return zlib.crc32(machine_code, zlib.crc32(self._name.encode())).to_bytes(4, "big")

    def load_overload(self, signature, target_context):
        for place in self._places():
            try:
                content = place.read_bytes()
            except OSError:  # as a rule, there is none
                continue
            try:
                check, machine_code = content[:4], content[4:]
                if check != self._check(machine_code):
                    raise ValueError(f"{place} is damaged")
                # Numba would first import all that it needs to compile, which takes far longer.
                result = CompileResult._rebuild(entry_context(), *pickle.loads(machine_code))
            except Exception as error:
                _warn_once(error)
            else:
                return result
        return None

    def save_overload(self, signature, result):
        try:
            if result.library.has_dynamic_globals:
                raise ValueError("machine code holds addresses of this process")
            # The last are Python objects of all functions within, which no kernel asks for; loading
            # them imported much of Numba.
            machine_code = dumps((*result._reduce()[:-1], ()))
            _write(self._place(), self._check(machine_code) + machine_code)
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


class Entry:
    """A kernel that Python calls: one function per dtype, each with exactly one signature.

    A separate function object and file per dtype, closed to any other signature, means that no
    file can hold machine code for other argument types.

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
        function.__qualname__ = f"{name}_{dtype.name}"  # two functions for Numba, too
        signature = tuple(typeof(argument) for argument in self._sample(dtype))
        dispatcher = entry(function)
        if DIGEST:
            dispatcher._cache = _Cache(f"{name.strip('_')}_{dtype.name}_{LEVEL}_{DIGEST}.nbc")
        else:
            _warn_once(_unreadable)
        collecting = gc.isenabled()
        gc.disable()  # compiling makes millions of objects: searching them took an eighth of it
        try:
            with contextlib.ExitStack() as stack:
                if not DIGEST or dispatcher._cache.is_empty:
                    stack.enter_context(_telling(dtype.name))
                if DIGEST and dispatcher._cache.is_empty:
                    stack.enter_context(dispatcher._cache.alone())
                dispatcher.compile(signature)  # or load what another process has stored by now
        finally:
            if collecting:
                gc.enable()
        dispatcher.disable_compile()
        return dispatcher
