"""Fits and predictions in many threads and processes at once: the same bits as one at a time."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
SETTINGS = dict(hidden_layer_sizes=(12,), max_iter=3, random_state=0)

CASES = [
    (MLPClassifier(**SETTINGS), X, Y),
    (MLPClassifier(**SETTINGS, n_threads=2), sp.csr_array(X.astype(np.float32)), Y),
    (MLPRegressor(**SETTINGS, early_stopping=True), X, Y.astype(float)),
    (MLPRegressor(**SETTINGS, solver="lbfgs"), X.astype(np.float32), Y.astype(float)),
]


def bits(model, X):
    arrays = [*model.coefs_, *model.intercepts_, model.predict(X)]
    return b"".join(a.tobytes() for a in arrays)


def fit_case(i):
    model, X, y = CASES[i % len(CASES)]
    return bits(clone(model).fit(X, y), X)


def in_16_threads(work, n):
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(work, range(n)))


def test_200_rounds_in_16_threads_give_the_serial_bits(n_helpers):
    serial = [fit_case(i) for i in range(len(CASES))]
    fitted = [clone(model).fit(X, y) for model, X, y in CASES]

    def work(i):
        if i % 2:
            return fit_case(i)
        return bits(fitted[i % len(CASES)], CASES[i % len(CASES)][1])

    assert in_16_threads(work, 200) == [serial[i % len(CASES)] for i in range(200)]
    assert n_helpers() == 0


def test_fits_of_one_estimator_take_turns():
    """They shared their counters and curves, so that each stopped by the losses of the other."""
    expected = MLPClassifier(**SETTINGS).fit(X, Y)
    shared = MLPClassifier(**SETTINGS)
    in_16_threads(lambda i: shared.fit(X, Y), 48)
    assert bits(shared, X) == bits(expected, X)
    assert shared.loss_curve_ == expected.loss_curve_


def test_partial_fits_of_one_estimator_take_turns():
    expected, shared = MLPClassifier(**SETTINGS), MLPClassifier(**SETTINGS)
    for _ in range(48):
        expected.partial_fit(X, Y, classes=np.arange(10))
    in_16_threads(lambda i: shared.partial_fit(X, Y, classes=np.arange(10)), 48)
    assert bits(shared, X) == bits(expected, X)


def test_single_rows_in_16_threads_give_the_serial_bits():
    """Each thread keeps the scratch of its last prediction, of a network of whatever shape."""
    models = [
        make(hidden_layer_sizes=sizes, max_iter=2, random_state=seed).fit(X.astype(dtype), Y)
        for make in (MLPClassifier, MLPRegressor)
        for sizes in ((12,), (40, 7), ())
        for dtype in (np.float32, np.float64)
        for seed in (0, 1)
    ]

    def predictions(i):
        rows = [X[i + k : i + k + 1 + k % 3] for k in range(20)]
        return [model.predict(row).tobytes() for row in rows for model in models]

    serial = [predictions(i) for i in range(40)]
    assert in_16_threads(predictions, 40) == serial


def test_predictions_while_the_estimator_is_fitted_to_other_data():
    """Outputs of the one model or the other, of one on its way, or an error that says so."""
    wide = np.hstack([X, X, X])
    expected = {
        sizes: MLPClassifier(**SETTINGS | {"hidden_layer_sizes": sizes}).fit(X, Y).predict_proba(X)
        for sizes in ((12,), (40, 7))
    }
    model = MLPClassifier(**SETTINGS).fit(X, Y)
    names = {outputs.tobytes(): sizes for sizes, outputs in expected.items()}
    stop = time.perf_counter() + 2

    def work(i):
        found = Counter()
        while time.perf_counter() < stop:
            if i == 0:
                for sizes in expected:
                    model.fit(wide, Y).set_params(hidden_layer_sizes=sizes).fit(X, Y)
                    time.sleep(0.01)  # in which nothing is on its way
                continue
            try:
                outputs = model.predict_proba(X)
            except ValueError as error:
                said = "features, but|the estimator was fitted with|fitted to other data while"
                assert re.search(said, str(error))
                continue
            found[names.get(outputs.tobytes(), "on its way")] += 1
            assert outputs.shape == (300, 10)
            np.testing.assert_allclose(outputs.sum(axis=1), 1)
        return found

    found = sum(in_16_threads(work, 8), Counter())
    assert all(found[sizes] > 0 for sizes in expected)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_a_grid_search_in_parallel_finds_the_same(backend):
    grid = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(5,), (12,)]}
    expected = GridSearchCV(MLPClassifier(**SETTINGS), grid, cv=3).fit(X, Y)
    with joblib.parallel_backend(backend, n_jobs=2):
        found = GridSearchCV(MLPClassifier(**SETTINGS), grid, cv=3).fit(X, Y)
    np.testing.assert_array_equal(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert bits(found.best_estimator_, X) == bits(expected.best_estimator_, X)


FIT = """
import hashlib, multiprocessing, os, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from fastnn import MLPClassifier

def fit(seed):
    warnings.simplefilter("ignore")
    X = np.random.default_rng(seed).standard_normal((200, 5))
    model = MLPClassifier((7,), max_iter=3, random_state=0, n_threads=1 + seed % 2)
    model.fit(X, X[:, 0] > 0)
    return hashlib.sha1(b"".join(a.tobytes() for a in model.coefs_)).hexdigest()
"""

POOL = """
if __name__ == "__main__":
    expected = [fit(seed) for seed in range(6)]
    for method in sys.argv[1:]:
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            assert list(pool.map(fit, range(6))) == expected, method
    assert [fit(seed) for seed in range(6)] == expected
"""


@pytest.fixture
def run_script(tmp_path, run_python):
    """Run ``FIT`` and what follows from a file, which new processes can import."""

    def run(text, *arguments):
        path = tmp_path / "script.py"
        path.write_text(FIT + text)
        run_python(path, *arguments)

    return run


nightly = pytest.mark.nightly


@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(m, marks=nightly) for m in ("spawn", "forkserver"))]
)
def test_process_pools(method, run_script):
    run_script(POOL, method)


DASK = """
if __name__ == "__main__":
    import dask
    expected = [fit(seed) for seed in range(6)]
    for scheduler in ("threads", "processes"):
        tasks = [dask.delayed(fit)(seed) for seed in range(6)]
        assert list(dask.compute(*tasks, scheduler=scheduler, num_workers=2)) == expected
"""


@nightly
def test_dask_in_threads_and_processes(run_script):
    run_script(DASK)


FORK = """
def fork_and_fit(expected, seed):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if fit(seed) == expected else 1)
    same = fit(seed) == expected
    assert same and os.waitpid(pid, 0)[1] == 0

pid = os.fork()  # before any kernel is compiled or loaded
if pid == 0:
    os._exit(0 if len(fit(0)) == 40 else 1)
assert os.waitpid(pid, 0)[1] == 0

# While another thread loads or compiles its first kernel, and then while it trains.
stop = threading.Event()
def others():
    while not stop.is_set():
        fit(1)
thread = threading.Thread(target=others)
thread.start()
pid = os.fork()
if pid == 0:
    os._exit(0 if len(fit(0)) == 40 else 1)
assert os.waitpid(pid, 0)[1] == 0
expected = [fit(0), fit(1)]
for i in range(10):
    fork_and_fit(expected[i % 2], i % 2)
stop.set()
thread.join()
for i in range(10):
    fork_and_fit(expected[i % 2], i % 2)
"""


def test_forks_before_fits_between_fits_and_during_fits(run_script):
    run_script(FORK)


def runnable_threads(pid):
    """Number of threads of a process and its descendants that run or want to."""
    n = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            n += (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
            children = (task / "children").read_text().split()
        except OSError:  # gone meanwhile
            continue
        n += sum(runnable_threads(int(child)) for child in children)
    return n


SEARCH = """
import sys, warnings
import joblib, numpy as np
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from fastnn import MLPClassifier
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((4000, 100)).astype(np.float32)
y = X[:, 0] > 0
model = MLPClassifier((256, 256), max_iter=6, tol=0)
model.fit(X[:500], y[:500])
print("ready", flush=True)
if sys.argv[1] == "one fit":
    model.set_params(max_iter=30).fit(X, y)
elif sys.argv[1] == "dask":
    import dask
    tasks = [dask.delayed(model.fit)(X, y) for model in [clone(model) for _ in range(9)]]
    dask.compute(*tasks, scheduler="threads", num_workers=joblib.cpu_count())
else:
    with joblib.parallel_backend(sys.argv[1], n_jobs=joblib.cpu_count()):
        GridSearchCV(model, {"alpha": [1e-5, 1e-4, 1e-3]}, cv=3).fit(X, y)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("one fit", marks=nightly),
        pytest.param("loky", marks=nightly),
        "threading",
        pytest.param("multiprocessing", marks=nightly),
        pytest.param("dask", marks=nightly),
    ],
)
def test_no_more_threads_run_than_there_are_cores_and_one(backend, tmp_path):
    path = tmp_path / "search.py"
    path.write_text(SEARCH)
    process = subprocess.Popen(
        [sys.executable, "-P", path, backend], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    counts = []
    while process.poll() is None:
        time.sleep(0.02)
        try:
            counts.append(runnable_threads(process.pid))
        except OSError:
            break
    assert process.wait() == 0
    busy = [count for count in counts if count > 0]
    assert len(busy) > 10
    assert np.median(busy) <= len(os.sched_getaffinity(0)) + 1
