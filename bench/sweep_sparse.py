"""Sections of the sweep about rows that are mostly zeros; returns what ``sweep_training`` says."""

import tempfile
from pathlib import Path
from statistics import mean, median

from .report import number, times
from .session import alternate, in_turn
from .tasks import (
    prepare_bins,
    prepare_docstrings,
    prepare_scaling,
    prepare_tabular,
    prepare_text,
    save_docstrings,
)


def text(settings):
    """Text of 59,000 terms, 71 in a row: exact and lazy updates, and the share of the memory."""
    session, rows, raw = settings.session, [], {}
    n = 1_600 if settings.quick else 16_000
    for batch in (200, 32):
        tasks = {
            "fastnn": session.worker("fastnn").task(prepare_text, "fastnn", n, batch, False),
            "lazy": session.worker("fastnn").task(prepare_text, "fastnn", n, batch, True),
            "memory": session.worker("fastnn").task(prepare_scaling),
            "scikit-learn": session.worker("scikit-learn").task(
                prepare_text, "scikit-learn", n, batch, False
            ),
        }
        # Each returns seconds for each update, which are 90 MB of weights and moments, both ways.
        alternate(tasks, 1)
        seconds = {name: [] for name in tasks}
        for _ in range(session.rounds):
            for name, task in tasks.items():
                seconds[name].append(task.run()[1])
        session.drop_tasks()
        raw[batch] = seconds
        ours, lazy, memory, theirs = (median(each) for each in seconds.values())
        rows.append(
            [
                f"batch of {batch}",
                number(ours * 1e3),
                f"{number(theirs * 1e3)} ({times(theirs / ours)})",
                f"{number(lazy * 1e3)} ({times(theirs / lazy)})",
                f"{memory / ours:.2f}",
            ]
        )
    header = ["", "fastnn ms", "scikit-learn ms", "fastnn, lazy ms", "share of memory bandwidth"]
    title = f"ms per update of Adam, {n} x 59,000 (64) 20, one thread, float32"
    return [(title, header, rows)], raw


def docstrings(settings):
    """Real texts, docstrings and the packages they are of: accuracy on others, and time."""
    session, epochs = settings.session, 5
    n = 1_600 if settings.quick else 16_000
    kinds = {
        "fastnn, batch of 200": ("fastnn", 200, False),
        "scikit-learn, batch of 200": ("scikit-learn", 200, False),
        "fastnn, batch of 32": ("fastnn", 32, False),
        "fastnn, batch of 32, lazy": ("fastnn", 32, True),
        "scikit-learn, batch of 32": ("scikit-learn", 32, False),
        "logistic regression (SGD)": ("logistic regression", None, False),
    }
    with tempfile.TemporaryDirectory() as folder:
        _, shape = session.worker("fastnn").task(save_docstrings, n, Path(folder)).run()
        tasks = {
            label: session.worker("fastnn" if kind[0] == "fastnn" else "scikit-learn").task(
                prepare_docstrings, *kind, epochs, Path(folder)
            )
            for label, kind in kinds.items()
        }
        raw = {label: [] for label in kinds}
        for seed in range(session.rounds):
            for label in in_turn(tasks, 1):
                raw[label].append(tasks[label].run(seed)[1])
        session.drop_tasks()
    rows = []
    for label, (_, batch, _) in kinds.items():
        seconds, scores = zip(*raw[label], strict=True)
        row = [label, f"{mean(scores):.4f}", f"{min(scores):.4f} to {max(scores):.4f}"]
        row.append(number(median(seconds)))
        if batch is not None:
            theirs = median(seconds for seconds, _ in raw[f"scikit-learn, batch of {batch}"])
            row.append(times(theirs / median(seconds)))
        rows.append(row + [""] * (5 - len(row)))
    header = ["", "accuracy", f"of {session.rounds} seeds", "CPU seconds", "faster"]
    title = f"{epochs} epochs of {shape[0]:,} x {shape[1]:,} (64) 10, one thread, float32"
    return [(title, header, rows)], raw


def bins(settings):
    """Numbers in bins as two entries each, against the product with their code, and no bins."""
    session, rows, raw = settings.session, [], {}
    for hidden in ((256,), (256, 128)):
        kinds = [("dense", 1)]
        kinds += [(kind, T) for T in (8, 32, 128) for kind in ("knots", "sums", "matrix")]
        tasks = {each: session.worker("fastnn").task(prepare_bins, *each, hidden) for each in kinds}
        alternate(tasks, 1)
        seconds, _ = alternate(tasks, session.rounds)
        session.drop_tasks()
        each = {kind: median(times) for kind, times in seconds.items()}
        raw[str(hidden)] = {f"{kind}, {T} bins": t for (kind, T), t in seconds.items()}
        for T in (8, 32, 128):
            of_bins = [each[kind, T] for kind in ("knots", "sums", "matrix")]
            relative = [f"{number(t * 1e3)} ({each['dense', 1] / t:.2f})" for t in of_bins]
            rows.append([f"{hidden}, {T} bins", number(each["dense", 1] * 1e3), *relative])
    header = ["", "no bins ms", "values at knots ms", "sums of rows ms", "product with the code ms"]
    title = "ms per epoch of 10,240 x 20, 256, one thread; in parentheses speed relative to no bins"
    return [(title, header, rows)], raw


def tabular(settings):
    """An epoch and a row of the tabular preset, beside those of a plain network."""
    session, rows, raw = settings.session, [], {}
    for classes in (True, False):
        task = session.worker("fastnn").task(prepare_tabular, classes)
        runs = [task.run()[1] for _ in range(session.rounds)]
        session.drop_tasks()
        raw["classes" if classes else "numbers"] = runs
        for what, number_of in (("epoch", 0), ("row", 1)):
            plain, preset = (
                median(run[number_of][name] for run in runs) for name in ("plain", "tabular")
            )
            label = f"{'classes' if classes else 'numbers'}, {what}"
            rows.append(
                [label, *(number(t * 1e3) for t in (plain, preset)), f"{plain / preset:.2f}"]
            )
    header = ["", "plain ms", "tabular ms", "speed relative to plain"]
    title = "CPU ms per epoch of one network of 10,000 x 20, and to predict a row by five"
    return [(title, header, rows)], raw
