"""``python -m fastnn``: the same fit with fastnn and with scikit-learn, side by side."""

import argparse
import platform
import statistics
import threading
import time

import joblib
import numba
import numpy as np
import sklearn
from sklearn import neural_network
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import MLPClassifier, __version__, warmup

DTYPES = ("float32", "float64")


def compile_kernels(dtypes):
    """Compile or load the kernels, and say so if it takes long enough to be noticed."""
    started = time.perf_counter()
    message = threading.Timer(
        1.0,
        print,
        ["Compiling the kernels, once: later runs load them from disk ..."],
        {"flush": True},
    )
    message.start()
    try:
        cached = warmup(dtypes)
    finally:
        message.cancel()
    if not all(cached.values()):
        print(f"Compiled in {time.perf_counter() - started:.1f} s.\n", flush=True)
    return cached


def compare(rounds, max_iter, dtype):
    """Fit the handwritten digits with both libraries in turn and print what came out."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X.astype(dtype), y, random_state=0, stratify=y
    )
    classes = {"fastnn": MLPClassifier, "scikit-learn": neural_network.MLPClassifier}
    print(
        f"fastnn {__version__}, scikit-learn {sklearn.__version__}, numba {numba.__version__}, "
        f"Python {platform.python_version()}, {joblib.cpu_count()} CPUs\n\n"
        f"{len(X)} handwritten digits of 8 x 8 pixels, {len(X_test)} of them held out, {dtype}\n"
        f"make_pipeline(StandardScaler(), MLPClassifier(max_iter={max_iter}, random_state=0))\n"
    )
    compile_kernels([dtype])

    seconds = {name: [] for name in classes}
    models = {}
    for _ in range(rounds):
        for name, MLP in classes.items():
            model = make_pipeline(StandardScaler(), MLP(max_iter=max_iter, random_state=0))
            started = time.perf_counter()
            model.fit(X_train, y_train)
            seconds[name].append(time.perf_counter() - started)
            models[name] = model

    print(f"{'':14}{'accuracy':>9}{'epochs':>8}{'fit time':>12}{'examples/s':>14}")
    for name, model in models.items():
        mlp = model[-1]
        median = statistics.median(seconds[name])
        print(
            f"{name:14}{model.score(X_test, y_test):9.4f}{mlp.n_iter_:8}{median:10.4f} s"
            f"{mlp.n_iter_ * len(X_train) / median:14,.0f}"
        )
    ratio = statistics.median(
        theirs / ours
        for ours, theirs in zip(seconds["fastnn"], seconds["scikit-learn"], strict=True)
    )
    ours, theirs = (np.array(model[-1].loss_curve_) for model in models.values())
    epochs = min(len(ours), len(theirs))
    deviation = np.abs(ours[:epochs] / theirs[:epochs] - 1).max()
    rounds_ = f"median of {rounds} alternating rounds" if rounds > 1 else "one round"
    print(f"\nfastnn trains {ratio:.1f} times as fast ({rounds_}).")
    print(f"The two loss curves differ by at most {deviation:.0e} of their value.")


def main(arguments=None):
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnn",
        description="Train scikit-learn's handwritten digits with fastnn and with scikit-learn, "
        "same settings, in turn; print accuracy, time, examples per second and the ratio.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed [5]")
    parser.add_argument("--max-iter", type=int, default=300, help="epochs at most [300]")
    parser.add_argument("--dtype", choices=DTYPES, default="float64", help="type of X [float64]")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--version", action="version", version=f"fastnn {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="[warmup]")
    warm = commands.add_parser(
        "warmup",
        help="compile all kernels into Numba's cache, for container images",
        description="Compile all kernels into Numba's disk cache (NUMBA_CACHE_DIR, or __pycache__ "
        "beside the kernels), so that no later process has to. Put it into a container image "
        "after the installation, on the CPU type that will run it.",
    )
    warm.add_argument(
        "--dtype", choices=DTYPES, action="append", help="only this type of X; may be repeated"
    )
    options = parser.parse_args(arguments)
    if options.command == "warmup":
        for dtype, was_there in compile_kernels(options.dtype or DTYPES).items():
            print(f"{dtype}: {'was in the cache already' if was_there else 'compiled'}")
        return 0
    for name in ("rounds", "max_iter"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    compare(1 if options.quick else options.rounds, options.max_iter, options.dtype)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
