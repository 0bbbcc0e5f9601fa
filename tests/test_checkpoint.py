"""A fit that was killed goes on from its last checkpoint and ends with the identical model."""

import json
import signal
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from fastnn import MLPClassifier

pytest.importorskip("sklearn.callback")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)

SETTINGS = {
    "adam": {},
    "adaptive": dict(solver="sgd", learning_rate="adaptive", tol=0.1, n_iter_no_change=2),
    "invscaling": dict(solver="sgd", learning_rate="invscaling"),
    "early stopping": dict(early_stopping=True, learning_rate_init=0.01),
    "average": dict(weight_average=3, dropout=0.2, standardize=True, label_smoothing=0.1),
    "schedule": dict(learning_rate="one_cycle", solver="nadam", clip_norm=0.1),
}

# Fits with a callback that writes atomically after each epoch and kills the process after some.
# Each in a fork of one process: the imports take longer than a fit.
PROGRAM = """
import json, os, signal, sys, warnings
import joblib, numpy as np
from sklearn.datasets import load_digits
from fastnn import MLPClassifier

warnings.simplefilter("ignore")

class Checkpoint:
    def setup(self, estimator, context): pass
    def teardown(self, estimator, context): pass
    def on_fit_task_begin(self, estimator, context): pass
    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "epoch":
            joblib.dump(fitted_estimator.set_callbacks(), path + ".new")
            os.replace(path + ".new", path)
            if estimator.n_iter_ == stop:
                os.kill(os.getpid(), signal.SIGKILL)

X, y = load_digits(return_X_y=True)
for line in sys.stdin:
    path, settings, stop = json.loads(line)
    pid = os.fork()
    if pid == 0:
        MLPClassifier(**eval(settings)).set_callbacks(Checkpoint()).fit(X, y)
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def killed_fit():
    """``killed_fit(path, settings, stop)``: a fit that is killed after ``stop`` epochs."""
    command, pipe = [sys.executable, "-P", "-c", PROGRAM], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

        def run(*arguments):
            print(json.dumps(arguments), file=process.stdin, flush=True)
            assert int(process.stdout.readline()) == signal.SIGKILL

        yield run


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize(
    "name, random_state",
    [
        pytest.param(name, state, marks=() if (i + j) % 2 == 0 else pytest.mark.nightly)
        for i, name in enumerate(SETTINGS)
        for j, state in enumerate([3, "stream"])
    ],
)
def test_a_killed_fit_goes_on_to_the_identical_model(name, random_state, tmp_path, killed_fit):
    stream = "np.random.RandomState(3)" if random_state == "stream" else "3"
    settings = f"dict({SETTINGS[name]!r}, max_iter=14, random_state={stream})"
    expected = MLPClassifier(**eval(settings)).fit(X, Y)
    path = tmp_path / "checkpoint"
    stop = {3: 5, "stream": expected.n_iter_}[random_state]
    killed_fit(str(path), settings, stop)
    model = joblib.load(path)
    assert model.n_iter_ == stop
    model.set_params(warm_start=True).fit(X, Y)
    assert same(model, expected)
    assert model.loss_curve_ == expected.loss_curve_
    assert model.n_iter_ == expected.n_iter_
    assert not hasattr(model, "_progress")
    # What comes after is a fit of its own, as after one without a break.
    assert same(model.fit(X, Y), expected.set_params(warm_start=True).fit(X, Y))


@pytest.fixture
def halfway(after_epochs):
    """A fitted model, and the copy that a callback was given after four of its nine epochs."""
    kept = []

    def keep(estimator, fitted_estimator):
        if estimator.n_iter_ == 4:
            kept.append(fitted_estimator.set_callbacks())

    model = MLPClassifier(max_iter=9, random_state=0).set_callbacks(after_epochs(keep))
    return model.fit(X, Y), *kept


def test_a_copy_in_memory_is_of_its_epoch_and_goes_on(halfway):
    model, kept = halfway
    assert len(kept.loss_curve_) == 4
    assert same(kept.set_params(warm_start=True).fit(X, Y), model)


def test_a_resumed_fit_that_fails_can_be_resumed_again(halfway):
    """The state in the checkpoint went on to the epoch that failed, the weights did not."""
    model, resumed = halfway
    resumed.set_params(warm_start=True)

    def fails(epoch):
        if epoch == 6:
            raise OSError("on purpose")
        return 0.001

    with pytest.raises(OSError, match="on purpose"):
        resumed.set_params(learning_rate=fails).fit(X, Y)
    assert same(resumed.set_params(learning_rate="constant").fit(X, Y), model)


def test_without_warm_start_a_checkpoint_is_fitted_anew(halfway):
    model, kept = halfway
    refitted = kept.fit(X, Y)
    assert same(refitted, model)
    assert refitted.n_iter_ == 9


OTHERS = {
    "X": dict(X=X[::-1]),
    "y": dict(y=Y[::-1]),
    "X, y": dict(X=X[::2], y=Y[::2]),
    "sample_weight": dict(sample_weight=np.linspace(1, 2, len(Y))),
    "random_state": dict(random_state=1),
    "solver": dict(solver="nadam"),
    "batch_size": dict(batch_size=50),
    "shuffle": dict(shuffle=False),
    "X_val, y_val": dict(X_val=X[:50], y_val=Y[:50]),
}


@pytest.mark.parametrize("names", OTHERS)
def test_a_checkpoint_says_what_differs_and_begins_a_fit_of_its_own(names, halfway):
    _, kept = halfway
    expected = MLPClassifier.from_weights(kept.coefs_, kept.intercepts_, max_iter=9)
    expected.set_params(random_state=0, warm_start=True)
    changed, given = OTHERS[names], {"X": X, "y": Y}
    for name, value in changed.items():
        if name in ("random_state", "solver", "batch_size", "shuffle"):
            kept.set_params(**{name: value})
            expected.set_params(**{name: value})
        else:
            given[name] = value
    kept.set_params(warm_start=True)
    with pytest.warns(UserWarning, match=rf"after epoch 4 of a fit with other values of {names}\."):
        kept.fit(**given)
    assert same(kept, expected.fit(**given))
    assert kept.n_iter_ == 9


def test_what_does_not_decide_which_epochs_are_done_may_change(halfway):
    _, kept = halfway
    kept.set_params(warm_start=True, max_iter=12, tol=0, verbose=0, n_threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        kept.fit(X.tolist(), Y.tolist())
    assert same(kept, MLPClassifier(max_iter=12, tol=0, random_state=0).fit(X, Y))


def test_a_checkpoint_of_an_older_version_goes_on(halfway):
    model, kept = halfway
    del kept._progress.fit  # which it had not yet
    assert same(kept.set_params(warm_start=True).fit(X, Y), model)


def test_a_checkpoint_of_a_fit_that_had_stopped_keeps_the_reason(after_epochs):
    kept = []
    settings = dict(tol=10, n_iter_no_change=2, random_state=0)
    model = MLPClassifier(**settings)
    model.set_callbacks(after_epochs(lambda estimator, fitted: kept.append(fitted)))
    model.fit(X, Y)
    last = kept[-1].set_callbacks().set_params(warm_start=True).fit(X, Y)
    assert same(last, model)
    assert last.stop_reason_ == model.stop_reason_ == "no_improvement"
