"""How many threads, and the helpers that run a kernel beside the calling thread."""

import multiprocessing
import threading

import joblib
import numba

from .kernels.barrier import ABORT

# Below this many floating-point operations per thread and mini-batch, waiting for each other costs
# more than a second thread brings.
WORTH_A_THREAD = 600_000


def choose_n_threads(n_threads, operations):
    """The number of threads for mini-batches of ``operations`` floating-point operations.

    Parameters
    ----------
    n_threads : int or None
        What the user asked for. None: as many as pay off, within CPU affinity, the cgroup's quota
        and NUMBA_NUM_THREADS (which joblib's process workers have set to their part); one in other
        threads than the main one and in child processes, where the caller is already parallel.
    operations : float

    Returns
    -------
    int >= 1
    """
    if n_threads is not None:
        return int(n_threads)
    worth = int(operations // WORTH_A_THREAD)
    if worth <= 1:
        return 1
    if threading.current_thread() is not threading.main_thread():
        return 1
    if multiprocessing.parent_process() is not None:
        return 1
    return max(1, min(worth, joblib.cpu_count(), numba.config.NUMBA_NUM_THREADS))


class Pace:
    """Finds by trying on how many threads slices of an epoch go fastest, and how long they last.

    A second core may be taken by another program, or by another fit. As results do not depend on
    the number of threads, it can change from slice to slice.

    Parameters
    ----------
    choices : list of int
        The numbers of threads to choose from: one, or two.
    guess : float
        Examples per second, until the first slice is timed.
    """

    SLICE_SECONDS = 0.05  # so that Ctrl-C and messages stay alive
    TRIAL_SECONDS = 0.002
    SECONDS_BETWEEN_TRIALS = 0.2

    def __init__(self, choices, guess):
        self._speeds = dict.fromkeys(choices, guess)
        self._trials = sorted(choices, reverse=True) if len(choices) > 1 else []
        self._tried = None  # examples and seconds of the trial that goes on, after its first slice
        self._since_trials = 0.0

    def next_slice(self):
        """Number of threads, and of examples, of the next slice."""
        best = max(self._speeds, key=self._speeds.get)
        if self._since_trials > self.SECONDS_BETWEEN_TRIALS and len(self._speeds) > 1:
            self._trials = [n_threads for n_threads in self._speeds if n_threads != best]
            self._since_trials = 0.0
        if self._trials:
            n_threads = self._trials[0]
            return n_threads, self._speeds[n_threads] * self.TRIAL_SECONDS
        return best, self._speeds[best] * self.SLICE_SECONDS

    def record(self, n_threads, examples, seconds):
        """Note how long a slice took."""
        speed = examples / max(seconds, 1e-9)
        if self._trials and self._tried is None:
            # In the first slice memory and caches are cold, and helpers have to wake: it only
            # tells how long the next should be.
            self._speeds[n_threads] = speed
            self._tried = [0, 0.0]
        elif self._trials:
            self._tried[0] += examples
            self._tried[1] += seconds
            self._speeds[n_threads] = self._tried[0] / max(self._tried[1], 1e-9)
            if self._tried[1] > self.TRIAL_SECONDS / 2:
                self._trials.pop(0)
                self._tried = None
        else:
            # Half of the news: a single slice may have been interrupted.
            self._speeds[n_threads] = (self._speeds[n_threads] + speed) / 2
            self._since_trials += seconds


class Helpers:
    """Threads 1 .. n_threads - 1 of a kernel, each of which calls ``kernel(*arguments, thread)``.

    A context manager: on leaving it they are told to go, by ``sync[ABORT]``, and awaited.
    """

    def __init__(self, n_threads, kernel, *arguments, sync):
        self._sync = sync
        self._error = None
        self._threads = [
            threading.Thread(
                target=self._help, args=(kernel, *arguments, thread), name="fastnn", daemon=True
            )
            for thread in range(1, n_threads)
        ]

    def __enter__(self):
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:  # no more threads to be had, say
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        self._sync[ABORT] = 1
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _help(self, kernel, *arguments):
        try:
            kernel(*arguments)
        except BaseException as error:
            self._error = error
            self._sync[ABORT] = 1  # the others may wait for this thread: let them go

    def check(self):
        """Raise what a helper has raised."""
        if self._error is not None:
            raise self._error
