"""How many threads, and the helpers that run a kernel beside the calling thread."""

from __future__ import annotations

import itertools
import multiprocessing
import operator
import os
import threading
import weakref
from _thread import start_new_thread
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Self, TypeAlias, TypeVar

import joblib
import numba

from ._typing import Array
from .kernels.team import ABORT

Kernel: TypeAlias = Callable[..., Any]
Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Below this many floating-point operations per thread and mini-batch, waiting for each other costs
# more than a second thread brings.
WORTH_A_THREAD = 600_000


def choose_n_threads(n_threads: int | None, operations: float) -> int:
    """The number of threads for mini-batches of ``operations`` floating-point operations.

    Parameters
    ----------
    n_threads : int or None
        What the user asked for, of which there are as many as CPU affinity and the cgroup's quota
        leave cores. Below 0 it counts from these, as in joblib: -1 is all, -2 all but one. None: as
        many as pay off, also within NUMBA_NUM_THREADS (which joblib's process workers have set to
        their part); one in other threads than the main one and in child processes, where the caller
        is already parallel.
    operations : float

    Returns
    -------
    int >= 1
    """
    if n_threads == 1:
        return 1  # without counting cores, which takes longer than a few rows to predict
    if n_threads is not None:
        n_cores = joblib.cpu_count()
        wanted = int(n_threads) if n_threads >= 0 else n_cores + 1 + int(n_threads)
        return max(1, min(wanted, n_cores))
    worth = int(operations // WORTH_A_THREAD)
    if worth <= 1:
        return 1
    if threading.current_thread() is not threading.main_thread():
        return 1
    if multiprocessing.parent_process() is not None:
        return 1
    most: int = numba.config.NUMBA_NUM_THREADS  # pyright: ignore[reportAttributeAccessIssue]
    return max(1, min(worth, joblib.cpu_count(), most))


def _core_of(thread: int) -> int:
    """The core on which a thread of this process, by its native identifier, runs or ran last."""
    with open(f"/proc/self/task/{thread}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[36])


def _leave_to(caller: int) -> None:
    """Keep this thread, which lives for one fit, off the core on which the thread ``caller`` runs.

    Linux starts a thread on its parent's core and takes tens of milliseconds to spread them: as
    long as a fit, and long enough to find two threads slower than one. The ban holds for the
    whole fit: helpers that were allowed back at once did come back in half of the fits, while they
    waited for Python's lock.
    """
    try:
        cores = os.sched_getaffinity(0)  # 0 is this thread
        for _ in range(3):
            core = _core_of(caller)
            os.sched_setaffinity(0, cores - {core} or cores)
            if core == _core_of(caller):  # the caller may be moved just now
                break
    except (AttributeError, OSError):  # not Linux, or not allowed
        pass


def _help(
    kernel: Kernel,
    arguments: tuple[Any, ...],
    caller: int,
    sync: Array,
    errors: list[BaseException],
    gone: Lock,
) -> None:
    """What a helper thread does: a kernel, until it is done or ``sync[ABORT]`` is set."""
    try:
        _leave_to(caller)
        kernel(*arguments)
    except BaseException as error:
        errors.append(error)
        sync[ABORT] = 1  # the others may wait for this thread: let them go
    finally:
        gone.release()


class Helpers:
    """Threads 1 .. n_threads - 1 of a kernel, each of which calls ``kernel(*arguments, thread)``.

    A context manager: on leaving it, those that were started are told to go, by ``sync[ABORT]``,
    and awaited, whenever Ctrl-C comes. As it may come while a thread starts, when no one would know
    whether there is one, they are started and awaited by C functions alone, from ``list.extend`` to
    ``start_new_thread``: Python handles no signal between the start of a thread and the note of it.
    """

    def __init__(self, n_threads: int, kernel: Kernel, *arguments: Any, sync: Array) -> None:
        self._kernel, self._sync = kernel, sync
        self._arguments = [(*arguments, thread) for thread in range(1, n_threads)]
        # A lock for each helper, which it releases when it goes.
        self._present: list[threading.Lock] = []
        self._started: list[int] = []
        self._gone: list[bool] = []
        self._errors: list[BaseException] = []
        self._let_go: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them, if that has not been done. Inside the context, whatever interrupts it."""
        if self._let_go is not None:
            return
        # For a Ctrl-C that comes before the first line of __exit__.
        self._let_go = weakref.finalize(self, self._sync.__setitem__, ABORT, 1)
        caller = threading.get_native_id()
        self._present = [threading.Lock() for _ in self._arguments]
        for lock in self._present:
            lock.acquire()
        tasks = [
            (self._kernel, arguments, caller, self._sync, self._errors, lock)
            for arguments, lock in zip(self._arguments, self._present, strict=True)
        ]
        self._started.extend(map(start_new_thread, itertools.repeat(_help), tasks))

    def __exit__(self, *exception: object) -> None:
        self._sync[ABORT] = 1
        interrupt = None
        while len(self._gone) < len(self._started):
            waiting = self._present[len(self._gone) : len(self._started)]
            try:
                self._gone.extend(map(operator.methodcaller("acquire"), waiting))
            except BaseException as error:  # what a signal's handler raises: not before all is done
                interrupt = error
        if interrupt is not None:
            raise interrupt
        if self._let_go is not None:
            self._let_go.detach()

    def check(self) -> None:
        """Raise what a helper has raised."""
        if self._errors:
            raise self._errors[0]


_called = (
    threading.local()
)  # ``stop``, in a thread of ``results``: whether its caller wants no more


def go_on() -> None:
    """Raise KeyboardInterrupt in a thread of ``results`` whose caller was interrupted."""
    if hasattr(_called, "stop") and _called.stop.is_set():
        raise KeyboardInterrupt


def results(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], n_threads: int
) -> Iterator[Result]:
    """Yield ``function(argument)`` for each of the arguments, in order, from several threads.

    Ctrl-C in the calling thread interrupts those that are at work, as it would if they were called
    one after the other, and no more are called: what they return is still yielded. An exception of
    one, and closing the generator, interrupts the others.
    """
    if n_threads == 1:
        yield from map(function, arguments)
        return
    stop = threading.Event()

    def call(argument: Argument) -> Result:
        _called.stop = stop
        return function(argument)

    with ThreadPoolExecutor(n_threads) as pool:
        futures = [pool.submit(call, argument) for argument in arguments]
        try:
            while futures and not futures[0].cancelled():
                try:
                    result = futures[0].result()
                except KeyboardInterrupt:
                    if stop.is_set():  # the function does not return what it has come to
                        raise
                    stop.set()
                    for future in futures:
                        future.cancel()
                    continue
                del futures[0]
                yield result
        finally:
            stop.set()
            for future in futures:
                future.cancel()
