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
from queue import SimpleQueue
from threading import Lock
from typing import Any, Generic, Self, TypeAlias, TypeVar

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
    # Not by current_thread, which keeps an object for each thread that it is called in.
    if threading.get_ident() != threading.main_thread().ident:
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


def _call(function: Callable[..., object], arguments: tuple[Any, ...], present: Lock) -> None:
    """What a thread does."""
    try:
        function(*arguments)
    finally:
        present.release()


class _Threads:
    """Threads that call ``function``, each with arguments of its own.

    They are awaited whenever Ctrl-C comes. As it may come while a thread starts, when no one would
    know whether there is one, they are started and awaited by C functions alone, from
    ``list.extend`` to ``start_new_thread``: Python handles no signal between the start of a thread
    and the note of it.
    """

    def __init__(
        self, function: Callable[..., object], arguments: Iterable[tuple[Any, ...]]
    ) -> None:
        # A lock for each thread, which it releases when it goes.
        self._tasks = [(function, each, Lock()) for each in arguments]
        self._started: list[int] = []
        self._gone: list[bool] = []

    def start(self) -> None:
        for _, _, present in self._tasks:
            present.acquire()
        self._started.extend(map(start_new_thread, itertools.repeat(_call), self._tasks))

    def wait(self) -> None:
        """Until those that were started are done, and only then raise what interrupted it."""
        interrupt = None
        while len(self._gone) < len(self._started):
            waiting = self._tasks[len(self._gone) : len(self._started)]
            locks = [present for _, _, present in waiting]
            try:
                self._gone.extend(map(operator.methodcaller("acquire"), locks))
            except BaseException as error:  # what a signal's handler raises
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _help(
    kernel: Kernel,
    arguments: tuple[Any, ...],
    caller: int,
    sync: Array,
    errors: list[BaseException],
) -> None:
    """What a helper thread does: a kernel, until it is done or ``sync[ABORT]`` is set."""
    try:
        _leave_to(caller)
        kernel(*arguments)
    except BaseException as error:
        errors.append(error)
        sync[ABORT] = 1  # the others may wait for this thread: let them go


class Helpers:
    """Threads 1 .. n_threads - 1 of a kernel, each of which calls ``kernel(*arguments, thread)``.

    A context manager: on leaving it, those that were started are told to go, by ``sync[ABORT]``,
    and awaited.
    """

    def __init__(self, n_threads: int, kernel: Kernel, *arguments: Any, sync: Array) -> None:
        self._sync = sync
        self._errors: list[BaseException] = []
        caller = threading.get_native_id()
        tasks = [
            (kernel, (*arguments, thread), caller, sync, self._errors)
            for thread in range(1, n_threads)
        ]
        self._threads = _Threads(_help, tasks)
        self._let_go: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them, if that has not been done. Inside the context, whatever interrupts it."""
        if self._let_go is not None:
            return
        # For a Ctrl-C that comes before the first line of __exit__.
        self._let_go = weakref.finalize(self, self._sync.__setitem__, ABORT, 1)
        self._threads.start()

    def __exit__(self, *exception: object) -> None:
        self._sync[ABORT] = 1
        self._threads.wait()
        if self._let_go is not None:
            self._let_go.detach()

    def check(self) -> None:
        """Raise what a helper has raised."""
        if self._errors:
            raise self._errors[0]


class Outcome(Generic[Result]):
    """What a call by one of ``Workers`` returns or raises, once it is done."""

    def __init__(self) -> None:
        self._returned: list[Result] = []
        self._raised: list[BaseException] = []
        self._coming = Lock()
        self._coming.acquire()

    def of(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> None:
        """Make the call."""
        coming = self._coming
        try:
            self._returned.append(function(*arguments))
        except BaseException as error:
            self._raised.append(error)
            del self  # which the exception would keep, by way of the traceback
        coming.release()

    def done(self) -> bool:
        return bool(self._returned or self._raised)

    def result(self) -> Result:
        """Wait for it."""
        while not (self._returned or self._raised):
            # Not for ever: where polars has been imported, Ctrl-C does not end a wait.
            self._coming.acquire(timeout=0.05)
        if self._returned:
            return self._returned[0]
        try:
            raise self._raised[0]
        finally:
            del self


def _work(calls: SimpleQueue[Any]) -> None:
    """What a thread of ``Workers`` does: calls, until one is None, which the next finds as well."""
    while (call := calls.get()) is not None:
        function, arguments, outcome = call
        outcome.of(function, arguments)
        del call, function, arguments, outcome  # nothing is kept while it waits
    calls.put(None)


class Workers:
    """Threads that make calls, one after the other as they come.

    A context manager, which is left when all calls are made. concurrent.futures does much of this
    in Python, where Ctrl-C can leave its locks as no one expects them, and threads that never end.
    """

    def __init__(self, n_threads: int) -> None:
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self._threads = _Threads(_work, [(self._calls,)] * n_threads)

    def __enter__(self) -> Self:
        # For a Ctrl-C that comes before the first line of __exit__.
        self._let_go = weakref.finalize(self, self._calls.put, None)
        self._threads.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._calls.put(None)
        self._threads.wait()
        self._let_go.detach()

    def call(self, function: Callable[..., Result], *arguments: Any) -> Outcome[Result]:
        """Have ``function(*arguments)`` called."""
        outcome = Outcome[Result]()
        self._calls.put((function, arguments, outcome))
        return outcome


# ``stop``, in a thread of ``results``: not empty when its caller wants no more.
_called = threading.local()


def go_on() -> None:
    """Raise KeyboardInterrupt in a thread of ``results`` whose caller was interrupted."""
    if getattr(_called, "stop", None):
        raise KeyboardInterrupt


def results(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], n_threads: int
) -> Iterator[tuple[Result, bool]]:
    """Yield ``function(argument)`` for each of the arguments, in order, from several threads.

    Ctrl-C in the calling thread interrupts those that are at work, as it would if they were called
    one after the other, and no more are called: what they return is still yielded, beside True. An
    exception of one, and closing the generator, interrupts the others.
    """
    if n_threads == 1:
        for argument in arguments:
            yield function(argument), False
        return
    stop: list[bool] = []
    told = False

    def call(argument: Argument) -> list[Result]:
        _called.stop = stop
        return [] if stop else [function(argument)]

    with Workers(n_threads) as workers:
        try:
            outcomes = [workers.call(call, argument) for argument in arguments]
            while outcomes:
                try:
                    result = outcomes[0].result()
                except KeyboardInterrupt:
                    if stop:  # the function does not return what it has come to
                        raise
                    stop.append(True)
                    continue
                del outcomes[0]
                for each in result:
                    told = bool(stop)
                    yield each, told
            if stop and not told:
                raise KeyboardInterrupt
        finally:
            stop.append(True)
