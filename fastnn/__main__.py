"""``python -m fastnn``: a fit, a cross-validation and a grid search, with both libraries."""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import joblib
import numba
import numpy as np
import sklearn
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import MLPClassifier, __version__, warmup
from ._typing import Array

DTYPES = ("float32", "float64")
LIBRARIES: dict[str, Any] = {"fastnn": MLPClassifier, "scikit-learn": neural_network.MLPClassifier}
GRID: dict[str, Any] = {
    "mlpclassifier__alpha": [1e-4, 1e-2, 1.0],
    "mlpclassifier__hidden_layer_sizes": [(50,), (100,)],
    "mlpclassifier__learning_rate_init": [1e-3, 3e-3],
}


class Outcome(NamedTuple):
    """What a job came to: seconds, a score, and words on it."""

    seconds: float
    score: float
    words: str = ""


def fit(model: Any, X: Array, y: Array) -> Outcome:
    """One fit to three of four digits, and the accuracy of the others."""
    X, X_test, y, y_test = train_test_split(X, y, random_state=0, stratify=y)
    started = time.perf_counter()
    model.fit(X, y)
    return Outcome(time.perf_counter() - started, model.score(X_test, y_test))


def cross_validate(model: Any, X: Array, y: Array) -> Outcome:
    """The mean accuracy of a 5-fold cross-validation."""
    started = time.perf_counter()
    scores = cross_val_score(model, X, y, cv=5)
    return Outcome(time.perf_counter() - started, scores.mean())


def search(model: Any, X: Array, y: Array) -> Outcome:
    """The best of 12 candidates in a 3-fold grid search on two processes."""
    started = time.perf_counter()
    found = GridSearchCV(model, GRID, cv=3, n_jobs=2).fit(X, y)
    best = {name.removeprefix("mlpclassifier__"): v for name, v in found.best_params_.items()}
    words = ", ".join(f"{name}={value}" for name, value in best.items())
    return Outcome(time.perf_counter() - started, found.best_score_, words)


JOBS = {
    "one fit": fit,
    "5-fold cross-validation": cross_validate,
    "grid search, 12 x 3 fits, n_jobs=2": search,
}


def compare(jobs: Sequence[str], max_iter: int, dtype: str) -> None:
    """Do the jobs with both libraries in turn and print what came out."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(dtype)
    print(
        f"fastnn {__version__}, scikit-learn {sklearn.__version__}, numba {numba.__version__}, "
        f"Python {platform.python_version()}, {joblib.cpu_count()} CPUs\n\n"
        f"{len(X)} handwritten digits of 8 x 8 pixels, {dtype}\n"
        f"make_pipeline(StandardScaler(), MLPClassifier(max_iter={max_iter}, random_state=0))\n",
        flush=True,
    )
    started = time.perf_counter()
    was_there = all(warmup([dtype]).values())
    compiling = time.perf_counter() - started
    # The processes of the search, which both libraries use, start before any of it is timed.
    joblib.Parallel(n_jobs=2)(joblib.delayed(np.mean)([0.0]) for _ in range(2))

    print(f"{'':36}{'fastnn':>10}{'scikit-learn':>15}{'ratio':>8}   accuracy of both")
    total = dict.fromkeys(LIBRARIES, 0.0)
    for name in jobs:
        outcomes = {}
        for library, MLP in LIBRARIES.items():
            model = make_pipeline(StandardScaler(), MLP(max_iter=max_iter, random_state=0))
            outcomes[library] = JOBS[name](model, X, y)
            total[library] += outcomes[library].seconds
        our, their = outcomes.values()
        print(
            f"{name:36}{our.seconds:8.2f} s{their.seconds:13.2f} s"
            f"{their.seconds / our.seconds:7.1f}x   {our.score:.4f}  {their.score:.4f}"
        )
        if our.words or their.words:
            print(f"{'':4}best with fastnn:        {our.words}")
            print(f"{'':4}best with scikit-learn:  {their.words}", flush=True)
    ours, theirs = total.values()
    print(f"{'all of it':36}{ours:8.2f} s{theirs:13.2f} s{theirs / ours:7.1f}x")
    if was_there:
        print(f"\nThe kernels were loaded from disk in {compiling:.2f} s.")
    else:
        print(
            f"\nThe kernels were compiled in {compiling:.1f} s, once: this time it was "
            f"{ours + compiling:.1f} s in all, {theirs / (ours + compiling):.1f}x. From now on "
            "they load from disk."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnn",
        description="Train scikit-learn's handwritten digits with fastnn and with scikit-learn, "
        "same settings, in turn: a fit, a cross-validation and a grid search; print times, their "
        "ratio, accuracies and the best parameters.",
    )
    parser.add_argument("--max-iter", type=int, default=100, help="epochs at most [100]")
    parser.add_argument("--dtype", choices=DTYPES, default="float64", help="type of X [float64]")
    parser.add_argument(
        "--quick", action="store_true", help="one fit, without validation or search"
    )
    parser.add_argument("--version", action="version", version=f"fastnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="[warmup]")
    warm = commands.add_parser(
        "warmup",
        help="compile all kernels into the disk cache, for container images",
        description="Compile all kernels into the disk cache (NUMBA_CACHE_DIR, or __pycache__ "
        "beside the kernels), so that no later process has to. Put it into a container image "
        "after the installation, on a CPU of the level that will run it: x86-64-v3, for example.",
    )
    warm.add_argument(
        "--dtype", choices=DTYPES, action="append", help="only this type of X; may be repeated"
    )
    options = parser.parse_args(arguments)
    if options.command == "warmup":
        for dtype, was_there in warmup(options.dtype or DTYPES).items():
            print(f"{dtype}: {'was in the cache already' if was_there else 'compiled'}")
        return 0
    if options.max_iter < 1:
        parser.error("--max-iter must be at least 1")
    # So few epochs are no reason to warn, in the processes of the search neither.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        compare(list(JOBS)[: 1 if options.quick else None], options.max_iter, options.dtype)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
