"""Sections of the sweep about training time.

A section returns its tables, ``(title, header, rows)`` each, and all that the JSON file takes.
"""

from statistics import median

import numpy as np

from .cases import CASES, MAIN, Case
from .report import geometric_mean, number, times
from .session import in_turn, per_epoch
from .tasks import prepare_timed_fit

_SOME = "AE"  # for --quick
_BASE = ("fastnn", "scikit-learn")


def _main_cases(settings, **changes):
    names = _SOME if settings.quick else MAIN
    return {f"{name} {CASES[name].shape}": CASES[name]._replace(**changes) for name in names}


def _cells(seconds, peers):
    """Milliseconds of fastnn, then of each peer with the ratio to fastnn."""
    ours = seconds["fastnn"]
    others = [f"{number(seconds[p] * 1e3)} ({times(seconds[p] / ours)})" for p in peers[1:]]
    return [number(ours * 1e3), *others]


def _row(settings, label, case, peers):
    """The row of a case, and its times."""
    timing = settings.session.time_fits({peer: (peer, case) for peer in peers})
    return [label, *_cells(per_epoch(timing), peers)], timing


def _compare(settings, title, cases, peers):
    """One row for each of ``{label: case}``."""
    rows, raw = [], {}
    for label, case in cases.items():
        row, raw[label] = _row(settings, label, case, peers)
        rows.append(row)
    header = ["", *(f"{peer} ms" for peer in peers)]
    return [(title, header, rows)], raw


def dtype(settings):
    """float64 instead of float32, with the mean of the ratios."""
    cases, peers = _main_cases(settings, dtype="float64"), settings.peers
    [(title, header, rows)], raw = _compare(settings, "ms per epoch in float64", cases, peers)
    seconds = [per_epoch(timing) for timing in raw.values()]
    means = [geometric_mean([each[p] / each["fastnn"] for each in seconds]) for p in peers[1:]]
    rows.append(["geometric mean", "", *(f"({times(mean)})" for mean in means)])
    return [(title, header, rows)], raw


def activations(settings):
    """logistic and tanh against relu, on A and E."""
    peers, kinds = settings.peers, ("relu", "tanh", "logistic")
    rows, raw = [], {}
    for name in "AE":
        entries = {
            f"{peer}, {kind}": (peer, CASES[name]._replace(activation=kind))
            for kind in kinds
            for peer in peers
        }
        raw[name] = settings.session.time_fits(entries)
        seconds = per_epoch(raw[name])
        for kind in kinds:
            of_kind = {peer: seconds[f"{peer}, {kind}"] for peer in peers}
            to_relu = [of_kind[peer] / seconds[f"{peer}, relu"] for peer in peers]
            rows.append([f"{name} {kind}", *_cells(of_kind, peers), *map(times, to_relu)])
    header = ["", *(f"{peer} ms" for peer in peers), *(f"{peer} to relu" for peer in peers)]
    return [("ms per epoch, and time relative to relu", header, rows)], raw


def momentum(settings):
    """SGD with Nesterov momentum instead of Adam."""
    cases = _main_cases(settings, solver="sgd")
    return _compare(settings, "ms per epoch of SGD with momentum", cases, settings.peers)


def lbfgs(settings):
    """L-BFGS on the whole training set."""
    cases = {
        label: case._replace(batch=case.n)
        for label, case in _main_cases(settings, solver="lbfgs").items()
    }
    return _compare(settings, "ms per iteration of L-BFGS", cases, _BASE)


def regression(settings):
    """One real value instead of classes."""
    cases = {
        f"{case.name} {case.shape}": case for case in _main_cases(settings, classes=0).values()
    }
    return _compare(settings, "ms per epoch of regression", cases, settings.peers)


def batch(settings):
    """Mini-batches from one example to all."""
    case = CASES["A"]._replace(n=2_000 if settings.quick else 10_000)
    sizes = {str(size): size for size in (1, 8, 32, 200, 1024)} | {"all": case.n}
    cases = {f"batch of {name}": case._replace(batch=size) for name, size in sizes.items()}
    title = f"ms per epoch of {case.n}x20 (100) 2 by batch size"
    return _compare(settings, title, cases, settings.peers)


def shapes(settings):
    """A deep network, many classes, a wide input: H, I, J."""
    cases = {f"{name} {CASES[name].shape}": CASES[name] for name in "HIJ"}
    return _compare(settings, "ms per epoch of unusual shapes", cases, settings.peers)


def threads(settings):
    """fastnn with n_threads 1, 2 and its own choice, also after a product of BLAS, on A to G."""
    session, rows, raw = settings.session, [], {}
    for name in MAIN:
        case = CASES[name]
        tasks = {
            (label, after_blas): session.worker("fastnn").task(
                prepare_timed_fit, case._replace(threads=threads), after_blas
            )
            for after_blas in (False, True)
            for label, threads in {"1": 1, "2": 2, "own": None}.items()
        }
        for task in tasks.values():
            task.run(1)
        # Fits of about half of the session's seconds on one thread: its own choice takes a while.
        first = 5
        seconds = tasks["1", False].run(first)[1]
        epochs = max(1, round(first * session.seconds / 2 / seconds))
        times_of = {label: [] for label in tasks}
        for label in in_turn(tasks, session.rounds):
            times_of[label].append(tasks[label].run(epochs)[1])
        session.drop_tasks()
        raw[name] = {"epochs": epochs}
        row = [f"{name} {case.shape}"]
        for after_blas, key in ((False, "alone"), (True, "after BLAS")):
            each = {label: times_of[label, after_blas] for label in ("1", "2", "own")}
            raw[name][key] = each
            one, two, own = (median(seconds) / epochs for seconds in each.values())
            row += [*(number(1e3 * t) for t in (one, two, own)), f"{own / min(one, two):.2f}"]
        rows.append(row)
    columns = ["1 thread ms", "2 ms", "own ms", "own to best"]
    header = ["", *columns, *(f"BLAS: {column}" for column in columns)]
    title = "ms per epoch of fastnn by threads, alone and directly after np.dot; goal 1.05 at most"
    return [(title, header, rows)], raw


def growth(settings):
    """Time by number of examples, features and hidden units, with log-log slopes."""
    largest = 5 if settings.quick else 7 if settings.full else 6
    widths = (16, 64, 256) if settings.quick else (16, 64, 256, 1024, 4096)
    series = {
        "examples": {n: Case("n", n, 20, (100,), 2, 200) for n in 10 ** np.arange(3, largest + 1)},
        "features": {d: Case("d", 2_000, d, (100,), 2, 200) for d in widths},
        "hidden units": {w: Case("w", 2_000, 64, (w,), 2, 200) for w in widths},
    }
    tables, raw = [], {}
    for what, cases in series.items():
        title, rows, raw[what] = f"ms per epoch by number of {what}", [], {}
        points = {peer: [] for peer in _BASE}
        for size, case in cases.items():
            # With more, scikit-learn would take half an hour.
            peers = _BASE if case.n <= 1_000_000 else _BASE[:1]
            label = f"{size:,} {what}"
            row, raw[what][label] = _row(settings, label, case, peers)
            rows.append(row + [""] * (len(_BASE) - len(peers)))
            for peer, seconds in per_epoch(raw[what][label]).items():
                points[peer].append((size, seconds))
        slopes = [np.polyfit(*np.log(points[peer]).T, 1)[0] for peer in _BASE]
        rows.append(["log-log slope", *(f"{slope:.2f}" for slope in slopes)])
        header = ["", *(f"{peer} ms" for peer in _BASE)]
        tables.append((title, header, rows))
    return tables, raw
