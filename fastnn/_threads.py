"""How many threads, and the team that runs one kernel on all of them."""

import multiprocessing
import queue
import threading

import joblib
import numba

from .kernels.barrier import ABORT, new_sync

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


class Team:
    """Threads that run the same kernel side by side: this one and ``n_threads - 1`` helpers.

    A context manager: helpers live as long as the ``with`` block, whatever ends it.
    """

    def __init__(self, n_threads):
        self.n_threads = n_threads
        self.sync = new_sync()
        self._jobs = [queue.SimpleQueue() for _ in range(n_threads - 1)]
        self._done = queue.SimpleQueue()
        self._threads = []

    def __enter__(self):
        try:
            for number, jobs in enumerate(self._jobs, start=1):
                thread = threading.Thread(
                    target=self._help, args=(number, jobs), name="fastnn", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        for jobs in self._jobs[: len(self._threads)]:
            jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _help(self, number, jobs):
        while (job := jobs.get()) is not None:
            kernel, arguments = job
            error = None
            try:
                kernel(*arguments, number, self.n_threads)
            except BaseException as raised:
                self.sync[ABORT] = 1
                error = raised
            self._done.put(error)

    def run(self, kernel, *arguments):
        """Call ``kernel(*arguments, thread, n_threads)`` in every thread, and wait for all."""
        if self.n_threads == 1:
            kernel(*arguments, 0, 1)
            return
        self.sync[:] = 0
        handed_out = 0
        errors = []
        try:
            for jobs in self._jobs:
                jobs.put((kernel, arguments))
                handed_out += 1
            kernel(*arguments, 0, self.n_threads)
        except BaseException:
            self.sync[ABORT] = 1  # helpers may wait for this thread: let them go
            raise
        finally:
            for _ in range(handed_out):
                errors.append(self._done.get())
        for error in errors:
            if error is not None:
                raise error
