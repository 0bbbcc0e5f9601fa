"""Sections of the sweep about everything but training time.

A section returns its tables, ``(title, header, rows)`` each, and all that the JSON file takes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from .cases import Case
from .report import number, times
from .session import Worker, alternate
from .tasks import prepare_grid, prepare_memory, prepare_predict, save_data

_BASE = ("fastnn", "scikit-learn")


def _check_equal(results, tolerance):
    if max(results.values()) - min(results.values()) > tolerance:
        raise RuntimeError(f"The results differ: {results}.")


def predict(settings):
    """predict and predict_proba of 1, 1,000 and 1,000,000 rows."""
    peers, session = settings.peers, settings.session
    rows, raw = [], {}
    for method in ("predict", "predict_proba"):
        for n_rows, repeats in ((1, 300), (1_000, 100), (1_000_000, 1)):
            tasks = {
                peer: session.worker(peer).task(prepare_predict, peer, method, n_rows)
                for peer in peers
            }
            _check_equal({peer: task.run(1)[1] for peer, task in tasks.items()}, 1e-3)
            seconds, _ = alternate(tasks, session.rounds, repeats)
            session.drop_tasks()
            label = f"{method}, {n_rows:,} rows"
            raw[label] = {"repeats": repeats, "seconds": seconds}
            each = {peer: median(seconds[peer]) / repeats for peer in peers}
            others = [
                f"{number(each[peer] * 1e6)} ({times(each[peer] / each['fastnn'])})"
                for peer in peers[1:]
            ]
            rows.append([label, number(each["fastnn"] * 1e6), *others])
    return [("µs per call, 20 features", ["", *(f"{peer} µs" for peer in peers)], rows)], raw


def grid(settings):
    """GridSearchCV, 20 candidates, 5 folds, 2 jobs: loky and threading."""
    session = settings.session
    rows, raw = [], {}
    for backend in ("loky", "threading"):
        tasks = {
            library: session.worker(library).task(
                prepare_grid, library, backend, 10 if settings.quick else 50
            )
            for library in _BASE
        }
        _check_equal({library: task.run()[1] for library, task in tasks.items()}, 0.02)
        raw[backend], _ = alternate(tasks, session.rounds)
        ours, theirs = (median(raw[backend][library]) for library in _BASE)
        rows.append([backend, number(ours), f"{number(theirs)} ({times(theirs / ours)})"])
    return [("seconds per search", ["", *(f"{library} s" for library in _BASE)], rows)], raw


def memory(settings):
    """Peak memory of fit on a large X, and with 1,000 classes."""
    cases = {
        "large X": Case("X", 50_000 if settings.quick else 500_000, 1_000, (100,), 10, 200),
        "1,000 classes": Case("k", 20_000 if settings.quick else 100_000, 64, (128,), 1_000, 256),
    }
    rows, raw = [], {}
    for label, case in cases.items():
        for library, use in _memory_of(case).items():
            raw[f"{label}, {library}"] = use
            sizes = (*use.values(), use["peak"] - use["before"])
            ratio = (use["peak"] - use["libraries"]) / (use["data"] + use["model"])
            rows.append(
                [f"{label}, {library}", *(f"{size / 1e6:,.1f}" for size in sizes), times(ratio)]
            )
    header = ["", "data", "model", "libraries", "before fit", "peak", "fit adds", "ratio"]
    title = (
        "peak resident memory in MB, float32, C-contiguous; "
        "ratio: (peak - libraries) / (data + model)"
    )
    return [(title, header, rows)], raw


def _memory_of(case):
    """Bytes used by each library; a peak is never forgotten, so each has a new process."""
    uses = {}
    with tempfile.TemporaryDirectory() as folder:
        with Worker() as worker:
            worker.task(save_data, case, Path(folder)).run()
        for library in _BASE:
            with Worker() as worker:
                uses[library] = worker.task(prepare_memory, library, case, Path(folder)).run()[1]
    return uses


_FIT = """
import warnings
import numpy as np
from {module} import MLPClassifier
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((200, 20), np.float32)
MLPClassifier(max_iter=1, random_state=0).fit(X, X[:, 0] > 0)
"""


def coldstart(settings):
    """A new process until the end of its first fit, with cold and warm cache."""
    programs = {
        "import scikit-learn": "import sklearn.neural_network",
        "scikit-learn, first fit": _FIT.format(module="sklearn.neural_network"),
        "fastnn, first fit, warm cache": _FIT.format(module="fastnn"),
        "fastnn, first fit, cold cache": _FIT.format(module="fastnn"),
    }
    seconds = {label: [] for label in programs}
    with tempfile.TemporaryDirectory() as warm:
        _run_python(programs["fastnn, first fit, warm cache"], warm)
        for _ in range(settings.session.rounds):
            for label, program in programs.items():
                with tempfile.TemporaryDirectory() as cold:
                    cache = cold if label.endswith("cold cache") else warm
                    seconds[label].append(_run_python(program, cache))
    imports = median(seconds["import scikit-learn"])
    rows = [
        [label, number(median(each)), f"{median(each) - imports:+.2f}"]
        for label, each in seconds.items()
    ]
    header = ["", "s", "to the import"]
    return [
        ("seconds from the start of a process, and beyond importing scikit-learn", header, rows)
    ], seconds


def _run_python(program, cache):
    program += "\nimport os; os._exit(0)"  # until the fit is there, not until all is freed
    started = time.perf_counter()
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return time.perf_counter() - started
