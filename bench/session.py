"""Fair timing: every competitor in its own process, one at a time, in turn.

One process each, because thread pools disturb each other: OpenMP and OpenBLAS threads go on
spinning for milliseconds after their work, and XLA keeps its own.
"""

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from .peers import PEERS

# Long enough for the thread pools of the previous process to fall asleep.
PAUSE = 0.03
CHECK_EPOCHS = 2
# How far losses after a few epochs may be apart: fastnn draws the same random numbers as
# scikit-learn and differs by rounding only, the others draw their own.
TWINS, TWIN_FACTOR, LOSS_FACTOR = ("fastnn", "scikit-learn"), 1.01, 1.5


class Task:
    """A callable inside a worker."""

    def __init__(self, worker, number):
        self._worker, self._number = worker, number

    def run(self, *arguments):
        """Call it; returns ``(seconds, result)``."""
        time.sleep(PAUSE)
        return self._worker.ask("run", self._number, arguments)


class Worker:
    """A process of its own; a context manager.

    Not from ``multiprocessing``: in its children fastnn takes one thread, since their parent is
    already parallel.
    """

    def __init__(self):
        quiet = "ignore:Stochastic Optimizer,ignore:lbfgs failed to converge"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "PYTHONWARNINGS": quiet},
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def ask(self, *request):
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
            worked, result = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"A worker died with exit code {self._process.wait()}.") from None
        if not worked:
            raise RuntimeError(f"In a worker:\n{result}")
        return result

    def task(self, make, *arguments):
        """The callable that the module-level function ``make`` returns there."""
        return Task(self, self.ask("make", make, arguments))


def in_turn(labels, rounds):
    """Each label once per round.

    Every other round goes backwards, so that a machine that slows down favors nobody.
    """
    for i in range(rounds):
        yield from list(labels)[:: 1 if i % 2 == 0 else -1]


def alternate(tasks, rounds, *arguments):
    """Run each of ``{label: task}`` in turn: ``{label: [seconds]}``, ``{label: result}``."""
    seconds = {label: [] for label in tasks}
    results = {}
    for label in in_turn(tasks, rounds):
        elapsed, results[label] = tasks[label].run(*arguments)
        seconds[label].append(elapsed)
    return seconds, results


def check_learning(entries, curves):
    """Raise unless all loss curves fall, and those of one case to about the same loss."""
    for label, (peer, case) in entries.items():
        curve = curves[label]
        if len(curve) > 1 and curve[-1] >= curve[0]:
            raise RuntimeError(f"{label} does not learn: its loss went {curve}.")
        for other, (other_peer, other_case) in entries.items():
            factor = TWIN_FACTOR if peer in TWINS and other_peer in TWINS else LOSS_FACTOR
            same = case._replace(threads=None) == other_case._replace(threads=None)
            if same and curve[-1] > factor * curves[other][-1]:
                raise RuntimeError(f"{label} has loss {curve}, but {other} {curves[other]}.")


class Session:
    """The workers of one run of a script; a context manager.

    Parameters
    ----------
    rounds : int
        How often each competitor is timed.
    seconds : float
        About how long one timing takes in the slowest peer.
    """

    def __init__(self, rounds, seconds):
        self.rounds, self.seconds = rounds, seconds
        self._workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for worker in self._workers.values():
            worker.__exit__()

    def worker(self, name):
        """The worker ``name``, started when first asked for."""
        if name not in self._workers:
            self._workers[name] = Worker()
        return self._workers[name]

    def drop_tasks(self):
        """Free the memory of all tasks so far."""
        for worker in self._workers.values():
            worker.ask("drop")

    def time_fits(self, entries):
        """Check that all competitors learn, which warms them up, then time them in turn.

        Parameters
        ----------
        entries : {label: (peer, case)}
            Entries of one case, whatever its threads, have to reach about the same loss.

        Returns
        -------
        dict
            ``epochs`` of each timing, ``loss`` after a few epochs and ``seconds`` per label, one
            per round.
        """
        tasks = {
            label: self.worker(peer).task(PEERS[peer].prepare, case)
            for label, (peer, case) in entries.items()
        }
        curves = {label: task.run(CHECK_EPOCHS)[1] for label, task in tasks.items()}
        check_learning(entries, curves)
        epochs = min(case.epochs(self.seconds) for _, case in entries.values())
        seconds, _ = alternate(tasks, self.rounds, epochs)
        self.drop_tasks()
        return {
            "epochs": epochs,
            "loss": {label: float(curve[-1]) for label, curve in curves.items()},
            "seconds": seconds,
        }


def per_epoch(timing):
    """Median seconds per epoch of each label."""
    return {label: median(each) / timing["epochs"] for label, each in timing["seconds"].items()}
