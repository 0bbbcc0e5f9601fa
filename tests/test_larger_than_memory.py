"""X on disk, larger than the memory that a process may use. Run as a program, in its own process.

A limit on the address space would count X as well, which is mapped to it. ``RLIMIT_DATA`` counts
what a process has for itself (private memory that it may write): a copy of X is beyond it, also one
that is never looked at, and so is a part of such a size. Pages of a file that is only read are not
counted, and the system takes them away from a process whenever it needs them for something else.
"""

import os
import resource
import sys
import warnings

import numpy as np
import pytest

FREE = 40 * 2**20  # what a fit may take beside what the process has before it
# BLAS keeps memory for each of its threads.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, needs RLIMIT_DATA")


def _in_use():
    """Bytes that RLIMIT_DATA counts."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmData"))


def _random_rows(n, d):
    rng = np.random.default_rng(0)
    for _ in range(0, n, 10_000):
        yield rng.standard_normal((10_000, d), np.float32)


def check_memmap(folder):
    from fastnn import MLPClassifier

    n, d = 200_000, 500
    path = os.path.join(folder, "X.npy")
    X = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, d))
    for first, rows in zip(range(0, n, 10_000), _random_rows(n, d), strict=True):
        X[first : first + 10_000] = rows
    del X
    X = np.load(path, mmap_mode="r")
    y = X[:, 0] > 0
    settings = dict(hidden_layer_sizes=20, max_iter=2, standardize=True, early_stopping=True)
    model = MLPClassifier(**settings, random_state=0)
    model.fit(X[:2000], y[:2000]).predict(X[:2000])  # loads all code

    limit = _in_use() + FREE
    assert X.nbytes > limit
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    with pytest.raises(MemoryError):
        np.array(X)
    with pytest.raises(MemoryError):  # the limit counts what is not touched, too
        np.empty(X.size // 8, X.dtype)
    model.fit(X, y, sample_weight=np.ones(n, np.float32))
    assert model.score(X, y) > 0.9
    assert np.array_equal(model.predict(X), model.predict_proba(X)[:, 1] > 0.5)
    model.set_params(early_stopping=False).partial_fit(X, y)


def check_parquet(folder):
    """By resident memory, whose peak a fit to five times as many rows hardly raises."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fastnn import MLPRegressor, Stream

    n, d = 100_000, 100
    names = [f"x{i}" for i in range(d)]
    path = os.path.join(folder, "0.parquet")
    with pq.ParquetWriter(path, pa.schema([*((name, "f4") for name in names), ("y", "f4")])) as to:
        for rows in _random_rows(n, d):
            to.write(pa.table([*np.ascontiguousarray(rows.T), rows[:, 0]], schema=to.schema))
    model = MLPRegressor(hidden_layer_sizes=20, max_iter=1, standardize=True, random_state=0)

    def peak():
        """Of this process, after a fit to all that is in the folder."""
        stream = Stream(folder, target="y", buffer_rows=20_000)
        rows = model.fit(stream).t_
        assert sum(len(part) for part in stream.map(model.predict)) == rows
        return rows, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert peak()[0] == n
    _, before = peak()
    for i in range(1, 5):
        os.link(path, os.path.join(folder, f"{i}.parquet"))
    rows, after = peak()
    assert rows == 5 * n
    assert after - before < 0.2 * rows * d * 4


PROGRAMS = {"memmap": check_memmap, "parquet": check_parquet}


# That memory does not grow with a stream, tests/test_streams.py says each time.
@pytest.mark.parametrize("program", ["memmap", pytest.param("parquet", marks=pytest.mark.nightly)])
def test_fit_and_predict_take_little_of_what_X_takes(program, run_python, tmp_path):
    run_python(__file__, program, tmp_path, **ENVIRONMENT)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    PROGRAMS[sys.argv[1]](sys.argv[2])
