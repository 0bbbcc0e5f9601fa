"""Sections of the sweep about everything but training time.

A section returns its tables, ``(title, header, rows)`` each, and all that the JSON file takes.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import joblib

from .cases import CASES, MAIN, Case
from .peers import PEERS
from .report import number, times
from .session import Worker, alternate
from .tasks import (
    SOURCES,
    TEXT,
    prepare_grid,
    prepare_memory,
    prepare_on_one_core,
    prepare_predict,
    prepare_stream,
    save_data,
)

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


def one_row(settings):
    """predict_proba of a single row: features, classes and number types."""
    session, rows, raw = settings.session, [], {}
    for d, classes, dtype in itertools.product((20, 100), (2, 10), ("float32", "float64")):
        changes = {"d": d, "classes": classes, "dtype": dtype}
        tasks = {
            library: session.worker(library).task(
                prepare_predict, library, "predict_proba", 1, changes
            )
            for library in _BASE
        }
        _check_equal({library: task.run(1)[1] for library, task in tasks.items()}, 1e-3)
        # Many short rounds: beside other programs the least disturbed one tells most.
        seconds, _ = alternate(tasks, 20 * session.rounds, 50)
        session.drop_tasks()
        label = f"{d} features, {classes} classes, {dtype}"
        raw[label] = {"repeats": 50, "seconds": seconds}
        ours, theirs = (min(seconds[library]) / 50 * 1e6 for library in _BASE)
        rows.append([label, number(ours), number(theirs), f"{ours / theirs:.2f}"])
    header = ["", *(f"{library} µs" for library in _BASE), "ratio"]
    return [("µs per call, the fastest round, 100 hidden units", header, rows)], raw


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


def streams(settings):
    """fit from batches, of arrays, of text and from Parquet, against fit from memory."""
    session, tables, raw = settings.session, [[], [], []], {}
    cases = [CASES[name]._replace(n=40_000 if settings.quick else 200_000) for name in "AEG"]
    for case in [*cases, TEXT._replace(n=1_600) if settings.quick else TEXT]:
        is_text = case.name == TEXT.name
        sources = [name for name in SOURCES if not (is_text and name.startswith("Parquet"))]
        tasks = {
            source: session.worker(source).task(prepare_stream, source, case) for source in sources
        }
        losses = {source: task.run(2)[1] for source, task in tasks.items()}
        _check_equal(losses, 0.1 * losses["memory"])
        epochs = max(2, case.epochs(session.seconds))
        one, _ = alternate(tasks, session.rounds, 1)
        whole, _ = alternate(tasks, session.rounds, epochs)
        session.drop_tasks()
        raw[case.name] = {"epochs": epochs, "seconds of one": one, "seconds": whole}
        first = {source: median(one[source]) for source in sources}
        fit = {source: median(whole[source]) for source in sources}
        each = {source: (fit[source] - first[source]) / (epochs - 1) for source in sources}
        label = f"{case.name} {case.shape}"
        tables[0].append([label, str(epochs), *_throughput(fit)])
        tables[1].append([label, str(epochs - 1), *_throughput(each)])
        tables[2].append([label, "1", *_throughput(first)])
    header = ["", "epochs", *(f"{source} ms" for source in SOURCES)]
    header += [f"{source} / memory" for source in SOURCES[1:]]
    titles = (
        "ms of whole fits, buffers of a tenth of the examples, and throughput; goal: 0.8",
        "ms of each further epoch, what a long fit comes to",
        "ms of a fit of one epoch, with the first pass",
    )
    return [(title, header, rows) for title, rows in zip(titles, tables, strict=True)], raw


def _throughput(seconds):
    """Cells of milliseconds by source, and of what memory takes over what each other takes."""
    cells = [number(1e3 * seconds[source]) if source in seconds else "" for source in SOURCES]
    for source in SOURCES[1:]:
        cells.append(f"{seconds['memory'] / seconds[source]:.2f}" if source in seconds else "")
    return cells


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
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return time.perf_counter() - started


@contextlib.contextmanager
def _busy_processes(n):
    """A block beside which ``n`` processes compute without end."""
    spin = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]
    processes = []
    try:
        for _ in range(n):
            processes.append(subprocess.Popen(spin, stdout=subprocess.PIPE))
        for process in processes:
            process.stdout.readline()  # until it spins
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def contention(settings):
    """Fits beside four busy processes per core, and eight threads on one core."""
    case = Case("n", 10_000, 100, (100,), 2, 200)
    epochs = case.epochs(settings.session.seconds)
    beside, raw_beside = _beside_busy_processes(settings.session, case, epochs)
    tables, raw = [beside], {"epochs": epochs, "busy processes": raw_beside}
    if hasattr(os, "sched_setaffinity"):
        on_one_core, raw["one core"] = _on_one_core(settings.session, case, epochs)
        tables.append(on_one_core)
    return tables, raw


def _beside_busy_processes(session, case, epochs):
    labels = {"1 thread": 1, "own choice": None}
    tasks = {
        label: session.worker(label).task(PEERS["fastnn"].prepare, case._replace(threads=threads))
        for label, threads in labels.items()
    }
    for task in tasks.values():
        task.run(1)  # compiles
    cores = joblib.cpu_count()
    n_busy = 4 * cores
    alone, beside = _alone_and_beside(session, tasks, n_busy, epochs)
    session.drop_tasks()
    # One thread of n_busy + 1 gets so much of the cores.
    fair = median(alone["1 thread"]) * (n_busy + 1) / cores
    rows = [
        [label, *(number(1e3 * t / epochs) for t in (solo, busy, fair)), times(busy / fair)]
        for label, solo, busy in ((x, median(alone[x]), median(beside[x])) for x in tasks)
    ]
    header = ["", "alone ms", "beside ms", "fair ms", "of the fair share"]
    title = f"ms per epoch of {case.shape} beside {n_busy} busy processes, {cores} cores; goal 1.5x"
    return (title, header, rows), {"n": n_busy, "cores": cores, "alone": alone, "beside": beside}


def beside(settings):
    """fastnn and JAX on A to G, alone and beside one busy process."""
    session, rows, raw = settings.session, [], {}
    jax = [peer for peer in ("JAX", "JAX 1 core") if peer in PEERS and PEERS[peer].installed]
    peers = ["fastnn", *jax]
    for name in "AE" if settings.quick else MAIN:
        case = CASES[name]
        tasks = {peer: session.worker(peer).task(PEERS[peer].prepare, case) for peer in peers}
        for task in tasks.values():
            task.run(1)
        epochs = case.epochs(session.seconds)
        both = _alone_and_beside(session, tasks, 1, epochs)
        session.drop_tasks()
        raw[name] = {"epochs": epochs, **dict(zip(("alone", "beside"), both, strict=True))}
        seconds = [{peer: median(each[peer]) / epochs for peer in peers} for each in both]
        row = [f"{name} {case.shape}"]
        row += [number(1e3 * each[peer]) for peer in peers for each in seconds]
        if jax:
            leads = [min(each[peer] for peer in jax) / each["fastnn"] for each in seconds]
            row += [*map(times, leads), f"{leads[1] / leads[0]:.2f}"]
        rows.append(row)
    header = ["", *(f"{peer} {when} ms" for peer in peers for when in ("alone", "beside"))]
    if jax:
        header += ["lead alone", "lead beside", "of it"]
    title = (
        "ms per epoch alone and beside one busy process, and the lead over the faster JAX; goal: "
        "half of it beside"
    )
    return [(title, header, rows)], raw


def _alone_and_beside(session, tasks, n_busy, epochs):
    """``{label: [seconds]}`` twice: without and with ``n_busy`` busy processes, in turn."""
    alone, beside = ({label: [] for label in tasks} for _ in range(2))
    for _ in range(session.rounds):
        _add_times(alone, tasks, epochs)
        with _busy_processes(n_busy):
            _add_times(beside, tasks, epochs)
    return alone, beside


def _add_times(seconds, tasks, *arguments):
    for label, each in alternate(tasks, 1, *arguments)[0].items():
        seconds[label] += each


def _on_one_core(session, case, epochs):
    tasks = {
        f"n_threads={threads}": session.worker(f"one core, {threads}").task(
            prepare_on_one_core, case._replace(threads=threads)
        )
        for threads in (1, 8)
    }
    for task in tasks.values():
        task.run(1)
    seconds, _ = alternate(tasks, session.rounds, epochs)
    session.drop_tasks()
    one, eight = (median(each) for each in seconds.values())
    row = [case.shape, *(number(1e3 * t / epochs) for t in (one, eight)), times(eight / one)]
    title = "ms per epoch in a process that may use one core only; goal 1.3x"
    return (title, ["", *(f"{label} ms" for label in tasks), "8 to 1"], [row]), seconds
