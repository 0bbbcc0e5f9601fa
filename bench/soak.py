"""Random fits, predictions, clones and round trips in threads for minutes: does anything grow?

``python -m bench.soak --minutes 10``; ends with exit code 1 if memory, files or threads grow.
"""

import argparse
import contextlib
import gc
import io
import os
import pickle
import random
import sys
import threading
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import scipy.sparse as sp
from sklearn.base import clone

from fastnn import MLPClassifier, MLPRegressor, warmup

SOLVERS = ["adam", "sgd", "adamw", "nadam", "rmsprop", "adagrad", "lbfgs"]
# Megabytes per minute that count as growth, beside twice the error of the slope.
MOST_GROWTH = 0.5


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def one_round(draw, X, y, shared):
    """One estimator's life, and a bit of that of ``shared``, which all threads train."""
    # A new fit now and then, as losses are kept.
    (shared.fit if draw.random() < 0.02 else shared.partial_fit)(X, y)
    assert np.isfinite(shared.predict_proba(X)).all()
    make = draw.choice([MLPClassifier, MLPRegressor])
    solver = draw.choice(SOLVERS)
    model = make(
        hidden_layer_sizes=draw.choice([(), (5,), (60, 30)]),
        activation=draw.choice(["relu", "tanh", "gelu"]),
        solver=solver,
        max_iter=draw.randint(1, 5),
        n_threads=draw.choice([None, 1, 2]),
        early_stopping=solver != "lbfgs" and draw.random() < 0.3,
        dropout=0.2 if solver != "lbfgs" and draw.random() < 0.3 else 0.0,
        standardize=draw.random() < 0.3,
    )
    X = X.astype(draw.choice([np.float32, np.float64]))
    if draw.random() < 0.3:
        X = draw.choice([sp.csr_array, sp.csc_array])(X * (X > 0))
    model = clone(model).fit(X, y)
    expected = model.predict(X)
    model = draw.choice([by_pickle, by_joblib])(model)
    assert np.array_equal(model.predict(X), expected)
    if solver != "lbfgs" and not model.early_stopping:
        model.partial_fit(X, y)
    for fault in ({"alpha": -1}, {"learning_rate_init": 1e300}):
        with contextlib.suppress(ValueError, TypeError):
            clone(model).set_params(**fault, early_stopping=False).fit(X, y)


def resources():
    """Resident megabytes, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, files, n_threads()


def n_threads():
    """Of Python, with those that help a fit, which ``threading`` does not know."""
    return len(sys._current_frames())


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    warmup(["float32", "float64"])
    rng = np.random.default_rng(0)
    X, errors, rounds = rng.standard_normal((600, 20)), [], [0] * options.threads
    y = (X[:, 0] > 0).astype(int)
    shared = MLPClassifier((20,), max_iter=3, random_state=0).fit(X, y)
    seconds = 60 * options.minutes
    end = time.monotonic() + seconds

    def work(i):
        draw = random.Random(i)
        try:
            while time.monotonic() < end and not errors:
                one_round(draw, X, y, shared)
                rounds[i] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(options.threads)]
    for thread in threads:
        thread.start()
    samples, shown = [], 0.0
    while any(thread.is_alive() for thread in threads):
        time.sleep(seconds / 200)
        now = seconds - (end - time.monotonic())
        gc.collect()
        samples.append((now / 60, *resources()))
        if now - shown > seconds / 10:
            shown = now
            memory, files, running = samples[-1][1:]
            print(
                f"{now:5.0f} s  {sum(rounds):7d} rounds  {memory:7.1f} MB  "
                f"{files:3d} files  {running:3d} threads",
                flush=True,
            )
    if errors:
        raise errors[0]
    # The first third fills caches and pools.
    minutes, memory, files, _ = np.array(samples[len(samples) // 3 :]).T
    (slope, _), covariance = np.polyfit(minutes, memory, 1, cov=True)
    noise = 2 * float(np.sqrt(covariance[0, 0]))
    # A short run cannot tell a slope from the noise; then it is the growth that counts.
    allowed = max(MOST_GROWTH + noise, 8 / options.minutes)
    left = n_threads()
    print(
        f"{sum(rounds)} rounds: memory {slope:+.2f} +- {noise:.2f} MB a minute (at most "
        f"{allowed:.2f}), files {files.min():.0f} to {files.max():.0f}, threads left {left}"
    )
    # A file that a thread is just reading is counted as well: a leak is what stays.
    grown = files[-20:].min() > files[:20].min()
    return int(slope > allowed or grown or left > 1)


if __name__ == "__main__":
    sys.exit(main())
