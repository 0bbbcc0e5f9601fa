"""Entry points, compiled once for each dtype, and the files that keep their machine code.

Each file holds entry points for one dtype and one level of CPU. A wheel may bring them along, in
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
from numba.core.compiler_lock import global_compiler_lock
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from .jit import Function, add_function, entry, load_machine_code, machine_code
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


class _File:
    """Where machine code is kept: a file ``name`` in one of several folders.

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

    def _check(self, content):
        """A sum by which a file is known to be whole, and to be the one that its name says."""
        return zlib.crc32(content, zlib.crc32(self._name.encode())).to_bytes(4, "big")

    def load(self):
        """A library and its functions, as they were saved; None if they were not."""
        for place in self._places():
            try:
                content = place.read_bytes()
            except OSError:  # as a rule, there is none
                continue
            try:
                check, content = content[:4], content[4:]
                if check != self._check(content):
                    raise ValueError(f"{place} is damaged")
                serialized, functions = pickle.loads(content)
                return load_machine_code(serialized), functions
            except Exception as error:
                _warn_once(error)
        return None

    def save(self, library, functions):
        try:
            if library.has_dynamic_globals:
                raise ValueError("machine code holds addresses of this process")
            content = dumps((library.serialize_using_object_code(), functions))
            _write(self._place(), self._check(content) + content)
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


class Library:
    """Kernels that Python calls, compiled together for each dtype: what they share is there once.

    Parameters
    ----------
    name : str
        How the files begin that keep their machine code.
    """

    def __init__(self, name):
        self._name = name
        self._entries = []
        self._ready = set()

    def entry(self, function, sample):
        """An ``Entry``: the Python ``function``, compiled for arguments of the types that
        ``sample(dtype)`` returns."""
        self._entries.append(Entry(self, function, sample))
        return self._entries[-1]

    def prepare(self, dtype):
        """Load the kernels for ``dtype`` or compile them; returns whether they were there."""
        dtype = np.dtype(dtype)
        with _compiling:
            there = dtype in self._ready or self._prepare(dtype)
            self._ready.add(dtype)
        return there

    def _prepare(self, dtype):
        if config.DISABLE_JIT:
            raise RuntimeError(
                "NUMBA_DISABLE_JIT is set, but the matrix products of fastnn are compiled code "
                "and have no Python form: unset it to fit or predict."
            )
        file = None
        if DIGEST:
            file = _File(f"{self._name}_{dtype.name}_{LEVEL}_{DIGEST}.nbc")
        else:
            _warn_once(_unreadable)
        collecting = gc.isenabled()
        gc.disable()  # compiling makes millions of objects: searching them took an eighth of it
        try:
            with contextlib.ExitStack() as stack:
                if file is None or file.is_empty:
                    stack.enter_context(_telling(dtype.name))
                if file is not None and file.is_empty:
                    stack.enter_context(file.alone())
                found = file and file.load()  # perhaps what another process has stored by now
                library, functions = found or self._compile(dtype)
                if file is not None and found is None:
                    file.save(library, functions)
        finally:
            if collecting:
                gc.enable()
        for entry_, function in zip(self._entries, functions, strict=True):
            entry_.take(dtype, library, function)
        return found is not None

    def _compile(self, dtype):
        """Machine code for all of the kernels, and what there is to know of each of them."""
        results = [entry_.compile(dtype) for entry_ in self._entries]
        functions = [Function(r.fndesc, r.environment, r.signature) for r in results]
        for function in functions:  # what it knows of each variable, no one asks for any more
            function.description.typemap = function.description.calltypes = None
        with global_compiler_lock:
            return machine_code(f"{self._name}_{dtype.name}", results), functions


class Entry:
    """A kernel that Python calls: one function per dtype, each with exactly one signature.

    A separate function object and file per dtype, closed to any other signature, means that no
    file can hold machine code for other argument types.
    """

    def __init__(self, library, function, sample):
        self._library = library
        self._function = function
        self._sample = sample
        self._compiled = {}

    def __getitem__(self, dtype):
        """Return the compiled function for ``dtype``, compiling or loading it the first time."""
        dtype = np.dtype(dtype)
        try:
            return self._compiled[dtype]
        except KeyError:
            self._library.prepare(dtype)
            return self._compiled[dtype]

    def _dispatcher(self, dtype):
        name = self._function.__name__
        function = types.FunctionType(self._function.__code__, self._function.__globals__, name)
        function.__qualname__ = f"{name}_{dtype.name}"  # two functions for Numba, too
        return entry(function)

    def compile(self, dtype):
        """What Numba makes of the function, without machine code."""
        dispatcher = self._dispatcher(dtype)
        arguments = tuple(typeof(argument) for argument in self._sample(dtype))
        dispatcher.compile(arguments)
        return dispatcher.overloads[arguments]

    def take(self, dtype, library, function):
        """From now on, run this function of the library for ``dtype``."""
        dispatcher = self._dispatcher(dtype)
        add_function(dispatcher, library, function)
        dispatcher.disable_compile()
        self._compiled[dtype] = dispatcher
