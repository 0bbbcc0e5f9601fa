"""Signals, exceptions and lack of memory during a fit: a clean end, and no thread left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from _thread import start_new_thread

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from fastnn import MLPClassifier, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX"),
]

X, Y = load_digits(return_X_y=True)
X, Y = X[:400] / 16, Y[:400]

START = """
import os, signal, sys, threading, time, warnings
import numpy as np
import fastnn
from fastnn import MLPClassifier
fastnn.warmup(["float32"])
rng = np.random.default_rng(0)
X = rng.standard_normal((100_000, 100), dtype=np.float32)
y = X[:, 0] > 0

sent = []

def hit(seconds):
    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    threading.Timer(seconds, send).start()
"""

CTRL_C_IN_FIT = (
    START
    + """
settings = eval(sys.argv[1])
model = MLPClassifier((200, 200), max_iter=10**6, random_state=0, **settings)

class AfterTheFirstIteration:
    def setup(self, estimator, context): pass
    def teardown(self, estimator, context): pass
    def on_fit_task_begin(self, estimator, context): pass
    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name == "iteration" and context.task_id == 0:
            hit(0.1)

def rate(epoch):
    if epoch == 1:
        hit(0.1)
    return 0.001

# However slow the machine is, the fit has begun, and the kernel is at work when the signal comes.
if model.solver == "lbfgs":
    model.set_callbacks(AfterTheFirstIteration())
else:
    model.set_params(learning_rate=rate)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.fit(X, y)
print(time.perf_counter() - sent[0])
assert [str(w.message) for w in caught] == ["Training interrupted by user."], caught
assert np.isfinite(model.predict_proba(X[:10])).all()
# No thread is left, but one that is done may have to wait before it can return.
assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500))
"""
)

CTRL_C_IN_PREDICT = (
    START
    + """
model = MLPClassifier((500, 500), max_iter=1, n_threads=int(sys.argv[1])).fit(X[:500], y[:500])
try:
    hit(0.5)
    while True:
        model.predict(np.repeat(X, 5, axis=0))
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
# No thread is left, but one that is done may have to wait before it can return.
assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500))
"""
)

# Measured are 0.005 to 0.05 s, the goal is 0.5 s; a machine that runs other tests is slower.
ANSWER_SECONDS = 2.0


QUIET = ["-W", "ignore", "-c"]


nightly = pytest.mark.nightly


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(dict(), marks=nightly),
        pytest.param(dict(n_threads=2), marks=nightly),
        dict(early_stopping=True, validation_fraction=0.5),
        pytest.param(dict(batch_size="full", n_threads=1), marks=nightly),
        pytest.param(dict(batch_size="full", n_threads=2), marks=nightly),
        pytest.param(dict(solver="lbfgs", n_threads=1), marks=nightly),
        dict(solver="lbfgs", n_threads=2),
    ],
    ids=str,
)
def test_ctrl_c_is_answered_at_once_and_leaves_a_usable_estimator(settings, run_python):
    if "solver" in settings and not hasattr(MLPClassifier, "set_callbacks"):
        pytest.skip("callbacks need scikit-learn 1.9")
    result = run_python(*QUIET, CTRL_C_IN_FIT, repr(settings), timeout=200)
    assert float(result.stdout) < ANSWER_SECONDS


@pytest.mark.parametrize("n_threads", [pytest.param("1", marks=nightly), "2"])
def test_ctrl_c_ends_a_prediction(n_threads, run_python):
    result = run_python(*QUIET, CTRL_C_IN_PREDICT, n_threads, timeout=200)
    assert float(result.stdout) < ANSWER_SECONDS


def test_sigterm_ends_the_process_at_once():
    program = START + "print('ready', flush=True)\nMLPClassifier((500,), max_iter=10**6).fit(X, y)"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    sent = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert time.perf_counter() - sent < ANSWER_SECONDS


MEMORY = """
import resource, sys, time, warnings
import numpy as np
import fastnn
from fastnn import MLPClassifier
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((3000, 1000))
y = X[:, 0] > 0
small = MLPClassifier((5,), max_iter=2, random_state=0).fit(X, y)
expected = small.predict_proba(X)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 150 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
tried = 0
for hidden in [(30_000,), (9000, 9000), (20_000, 20_000)]:
    for settings in ({}, {"solver": "lbfgs"}, {"n_threads": 2}):
        model = MLPClassifier(hidden, **settings)
        try:
            model.fit(X, y)
        except MemoryError:
            tried += 1
        assert not hasattr(model, "coefs_")
assert tried == 9
# Few weights, but a mini-batch that needs 1024 rows of scratch for each of these layers.
model = MLPClassifier([7] + [30_000, 3] * 20, batch_size="full")
try:
    model.fit(X, y)
except MemoryError:
    tried += 1
assert tried == 10 and not hasattr(model, "coefs_")
# No thread is left, but one that is done may have to wait before it can return.
assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500))
assert (small.predict_proba(X) == expected).all()
small.fit(X, y)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_memory_that_cannot_be_had_is_a_clean_error(run_python):
    run_python(*QUIET, MEMORY, timeout=200)


def fails(*arguments, **settings):
    raise OSError("on purpose")


def late(epoch):
    return fails() if epoch % 5 == 3 else 0.01


def in_epoch_3(estimator, fitted_estimator):
    if estimator.n_iter_ == 3:
        fails()


def with_rate(model, after_epochs):
    return model.set_params(learning_rate=late)


def with_scorer(model, after_epochs):
    return model.set_params(scoring=fails, early_stopping=True)


def with_callback(model, after_epochs):
    if not hasattr(model, "set_callbacks"):
        pytest.skip("callbacks need scikit-learn 1.9")
    return model.set_callbacks(after_epochs(in_epoch_3))


def state(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k not in model.get_params()})


@pytest.mark.parametrize("before", ["unfitted", "fitted", "partly fitted", "warm"])
@pytest.mark.parametrize("with_fault", [with_rate, with_scorer, with_callback])
def test_an_exception_leaves_the_estimator_as_it_was(with_fault, before, after_epochs, n_helpers):
    model = MLPClassifier((9,), max_iter=8, random_state=0, n_threads=2, batch_size=20)
    if before == "partly fitted":
        model.partial_fit(X, Y, classes=np.arange(10))
    elif before != "unfitted":
        model.set_params(warm_start=before == "warm").fit(X, Y)
    with_fault(model, after_epochs)
    expected = state(model)
    with pytest.raises(OSError, match="on purpose"):
        model.fit(X, Y)
    assert state(model) == expected
    if before == "unfitted":
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
    assert n_helpers() == 0


def test_a_failed_partial_fit_changes_nothing():
    model = MLPClassifier((9,), random_state=0).partial_fit(X, Y, classes=np.arange(10))
    expected, weights = state(model), model.coefs_[0]
    with pytest.raises(ValueError, match="finite"):
        model.set_params(learning_rate=lambda epoch: 1e300).partial_fit(X, Y)
    assert state(model.set_params(learning_rate="constant")) == expected
    assert model.coefs_[0] is weights
    fresh = MLPClassifier((9,), learning_rate=late)
    with pytest.raises(ValueError):
        fresh.partial_fit(X[:, :0], Y, classes=np.arange(10))
    assert not hasattr(fresh, "classes_")


def test_threads_that_cannot_be_started(monkeypatch):
    def start(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("fastnn._threads.start_new_thread", start)
    model = MLPClassifier((9,), n_threads=2, max_iter=3)
    with pytest.raises(RuntimeError, match="start new thread"):
        model.fit(X, Y)
    assert not hasattr(model, "coefs_")


def test_a_helper_that_cannot_be_started_does_not_leave_the_others_behind(monkeypatch, n_helpers):
    started = []

    def start_one(function, arguments):
        started.append(function)
        if len(started) % 2 == 0:
            raise RuntimeError("can't start new thread")
        return start_new_thread(function, arguments)

    fitted = MLPClassifier((9,), n_threads=3, max_iter=3, random_state=0).fit(X, Y)
    expected, weights = fitted.predict_proba(X), state(fitted)
    model = MLPClassifier((9,), n_threads=3, max_iter=3)
    with monkeypatch.context() as patched:
        patched.setattr("fastnn._threads.start_new_thread", start_one)
        for failing in (lambda: model.fit(X, Y), lambda: fitted.predict_proba(X)):
            with pytest.raises(RuntimeError, match="start new thread"):
                failing()
            assert n_helpers() == 0
    assert len(started) == 4 and not hasattr(model, "coefs_")
    assert state(fitted) == weights
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)
    model.fit(X, Y)


@pytest.mark.parametrize("solver", ["adam", "sgd", "rmsprop"])
def test_a_rate_that_raises_in_the_fourth_partial_fit(solver, n_helpers):
    model = MLPClassifier((9,), solver=solver, random_state=0, learning_rate=late, n_threads=2)
    for _ in range(3):
        model.partial_fit(X, Y, classes=np.arange(10))
    expected = state(model)
    for _ in range(2):
        with pytest.raises(OSError, match="on purpose"):
            model.partial_fit(X, Y)
        assert state(model) == expected
    assert n_helpers() == 0


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_callback_that_raises_in_lbfgs(warm_start, after_epochs):
    model = MLPClassifier((9,), solver="lbfgs", max_iter=8, random_state=0, warm_start=warm_start)
    expected = state(with_callback(model.fit(X, Y), after_epochs))
    with pytest.raises(OSError, match="on purpose"):
        model.fit(X, Y)
    assert state(model) == expected


STORM = """
import pickle, random, signal, sys, time, traceback, warnings
import joblib
import numpy as np
import fastnn
from fastnn import MLPClassifier
joblib.cpu_count = lambda *_, **__: 8
fastnn.warmup(["float64"])
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((4000, 20))
y = X[:, 0] > 0
came = answered = 0

def interrupt(signum, frame):
    global came
    came += 1
    raise KeyboardInterrupt

def not_raised(unraisable):  # in a finaliser, from which Python lets nothing out
    global answered
    answered += issubclass(unraisable.exc_type, KeyboardInterrupt)

# As Ctrl-C is handled, but from a timer: it hits preparations and the end of a fit, too.
signal.signal(signal.SIGALRM, interrupt)
sys.unraisablehook = not_raised

def state(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k not in model.get_params()})

interrupted = 0
for i in range(int(sys.argv[1])):
    draw = random.Random(i)
    model = MLPClassifier(
        (30,),
        solver=draw.choice(["adam", "sgd", "lbfgs"]),
        n_threads=draw.choice([1, 2, 3]),
        max_iter=draw.choice([3, 50]),
        standardize=draw.random() < 0.5,
        batch_size=draw.choice(["auto", "full"]),
        early_stopping=draw.random() < 0.5,
        warm_start=draw.random() < 0.7,
        random_state=0,
    )
    if draw.random() < 0.5:
        model.fit(X, y)
    before = state(model)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, 0.03))
            model.fit(X, y)
            signal.setitimer(signal.ITIMER_REAL, 0)
        answered += any("interrupted" in str(w.message) for w in caught)
    except KeyboardInterrupt as error:
        answered += 1
        if "_fit" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]:
            interrupted += 1
            assert state(model) == before, i
    if hasattr(model, "coefs_"):
        assert np.isfinite(model.predict_proba(X[:10])).all(), i
    assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500)), i
    assert came == answered, (i, came, answered)  # none is lost
assert interrupted > i / 60
"""


@pytest.mark.parametrize("n_fits", [75, pytest.param(300, marks=nightly)])
def test_ctrl_c_at_any_moment_leaves_the_old_state_or_a_usable_one(n_fits, run_python):
    run_python(*QUIET, STORM, n_fits)


AT_EACH_CALL = """
import itertools, pickle, sys, time, warnings
import joblib
import numpy as np
import fastnn
from fastnn import MLPClassifier, Stream, TabularClassifier, _trainer
joblib.cpu_count = lambda *_, **__: 8
fastnn.warmup(["float64"])
X = np.random.default_rng(0).standard_normal((400, 20))
y = X[:, 0] > 0
at, not_raised = [], []
sys.unraisablehook = not_raised.append  # in a finaliser, from which Python lets nothing out

def state(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k not in model.get_params()})

def interrupt(number):
    calls = itertools.count(1)

    def profile(frame, event, argument):
        if event == "call" and next(calls) == number:
            at.append((number, frame.f_code))
            sys.setprofile(None)
            raise KeyboardInterrupt

    return profile

kind, before, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = dict(n_threads=2, max_iter=1, random_state=0)
examples = X, y
if kind == "tabular":
    model = TabularClassifier(hidden_layer_sizes=(8,), n_members=2, **settings)
elif kind == "stream":
    model = MLPClassifier((8,), **settings)
    examples = (Stream(lambda: iter([(X[:200], y[:200]), (X[200:], y[200:])])),)
else:
    model = MLPClassifier((30,), solver=kind, warm_start=before == "warm", **settings)
if before == "warm":
    model.fit(*examples)
saved = pickle.dumps(model)

def interrupted_fit(number):
    model = pickle.loads(saved)
    before = state(model)
    _trainer._plan_for.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sys.setprofile(interrupt(number))
            model.fit(*examples)
        except KeyboardInterrupt:
            # At last the fit warns, and is done.
            assert state(model) == before or np.isfinite(model.predict_proba(X)).all(), at
            return "before" if state(model) == before else "done"
        finally:
            sys.setprofile(None)
    assert any("interrupted" in str(w.message) for w in caught) or not_raised or not at, at
    return "usable" if at else "all of it"

ends = {}
while "all of it" not in ends:
    at.clear()
    not_raised.clear()
    end = interrupted_fit(1 + step * sum(ends.values()))
    ends[end] = 1 + ends.get(end, 0)
# No thread is left, but one that is done may have to wait before it can return.
assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500))
assert ends["before"] > 300 and ends.get("done", 0) < 20, ends
"""


@nightly
@pytest.mark.parametrize("before", ["cold", "warm"])
@pytest.mark.parametrize("kind, step", [("adam", 1), ("lbfgs", 1), ("stream", 3), ("tabular", 5)])
def test_ctrl_c_at_each_call_of_a_fit(kind, step, before, run_python):
    run_python(*QUIET, AT_EACH_CALL, kind, before, step)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_divergence_names_the_epoch_or_keeps_good_weights(solver, early_stopping):
    model = MLPRegressor(
        activation="identity",
        solver=solver,
        learning_rate_init={"sgd": 1e8, "adam": 1e120}[solver],
        max_iter=60,
        early_stopping=early_stopping,
        random_state=0,
    )
    words = r"non-finite .* epoch \d+, with a learning rate of"
    if early_stopping and solver == "sgd":  # its first epoch has a finite score, if a bad one
        with pytest.warns(ConvergenceWarning, match=f"{words}.*weights of epoch 1 are kept"):
            model.fit(X, Y)
        assert all(np.isfinite(W).all() for W in model.coefs_)
    else:
        with pytest.raises(ValueError, match=words):
            model.fit(X, Y)
        assert not hasattr(model, "coefs_")
