"""Sections of the sweep about what 32 bits cannot count; returns what ``sweep_training`` says."""

import ctypes
import mmap
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

# Of a block of sparse X, whole pages of memory: an entry in each 20 columns.
ROWS, ENTRIES, STEP = 10_240, 200, 20
BATCH = 32


def large(settings):
    """Weights of more than 2**31 bytes, sparse X of more than 2**31 entries, with --full."""
    features, hidden = (60_000, 9_500) if settings.full else (600, 95)
    blocks = 1_050 if settings.full else 3
    rows, raw = [], {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            "weights, dense X": (prepare_weights, features, hidden, False),
            "weights, sparse X": (prepare_weights, features, hidden, True),
            "sparse X in files": (prepare_entries, blocks, Path(folder)),
        }
        for label, kind in kinds.items():
            _, raw[label] = settings.session.worker(label).task(*kind).run()
            settings.session.drop_tasks()
            of_kind = raw[label]
            gigabytes = [f"{of_kind[name] / 1e9:.2f}" for name in ("bytes", "memory")]
            seconds = f"{of_kind['seconds']:.1f}"
            rows.append([label, f"{of_kind['n']:,}", *gigabytes, seconds, of_kind["error"]])
    header = ["", "numbers", "GB", "memory of its own, GB", "CPU seconds", "largest error"]
    return [("one epoch of fit, and its result by other means", header, rows)], raw


class OwnMemory:
    """The most memory that a process has for itself in a block, beside what it had: not what it
    maps of files. A context manager."""

    def __enter__(self):
        self._before, self.most, self._ended = self._now(), 0, threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    @staticmethod
    def _now():
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    def _look(self):
        while not self._ended.wait(0.05):
            self.most = max(self.most, self._now() - self._before)

    def __exit__(self, *exception):
        self._ended.set()
        self._watch.join()


def _initial_weights(features, hidden, seed):
    """Those of ``MLPRegressor``, from the first layer on: some of its rows at a time."""
    rng, step = np.random.RandomState(seed), 1_000
    bound = np.sqrt(6 / (features + hidden))
    for first in range(0, features, step):
        shape = min(step, features - first), hidden
        yield slice(first, first + shape[0]), rng.uniform(-bound, bound, shape).astype(np.float32)
    yield None, rng.uniform(-bound, bound, hidden).astype(np.float32)
    bound = np.sqrt(6 / (hidden + 1))
    yield None, rng.uniform(-bound, bound, (hidden, 1)).astype(np.float32)
    yield None, rng.uniform(-bound, bound, 1).astype(np.float32)


def prepare_weights(features, hidden, sparse):
    """Returns ``run()``: a step of Adam with one hidden layer, compared with that of NumPy."""
    from fastnn import MLPRegressor

    rng = np.random.default_rng(0)
    X = rng.standard_normal((BATCH, features), np.float32)
    if sparse:
        X *= rng.random(X.shape) < 200 / features
        X[:, -1] = 1
    y = rng.standard_normal((BATCH, 1), np.float32)
    given = sp.csr_array(X) if sparse else X
    rate, epsilon = 1e-3, 1e-2  # an epsilon by which small errors of the gradient stay small
    settings = dict(batch_size=BATCH, alpha=0.0, epsilon=epsilon, random_state=0)
    settings["hidden_layer_sizes"] = hidden

    def expected():
        """The weights after the step, piece by piece."""
        z = np.zeros((BATCH, hidden))
        for rows, theta in _initial_weights(features, hidden, 0):
            if rows is not None:
                z += X[:, rows] @ theta
            else:
                break
        *_, (_, b), (_, W), (_, b_out) = _initial_weights(features, hidden, 0)
        a = np.maximum(z + b, 0)
        d_out = (a @ W + b_out - y) / BATCH
        d = (d_out @ W.T) * (a > 0)
        gradients = iter([d.sum(axis=0), a.T @ d_out, d_out.sum(axis=0)])
        for rows, theta in _initial_weights(features, hidden, 0):
            g = X[:, rows].T @ d if rows is not None else next(gradients)
            step = rate * np.sqrt(0.001) * g / (np.sqrt(0.001) * abs(g) + epsilon)
            yield rows, theta - step

    def run():
        with OwnMemory() as memory:
            started = time.process_time()
            model = MLPRegressor(max_iter=1, **settings).fit(given, y.ravel())
            seconds = time.process_time() - started
        parts = iter([model.intercepts_[0], model.coefs_[1], model.intercepts_[1]])
        of_weights = 0.0
        for rows, theta in expected():
            mine = model.coefs_[0][rows] if rows is not None else next(parts)
            of_weights = max(of_weights, abs(mine - theta).max())
        a = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0)
        output = a @ model.coefs_[1] + model.intercepts_[1]
        of_prediction = abs(model.predict(given) / output.ravel() - 1).max()
        weights = model.coefs_[0]
        return dict(
            n=weights.size,
            bytes=weights.nbytes,
            memory=memory.most,
            seconds=seconds,
            error=f"{of_weights / rate:.1e} of a step, {of_prediction:.1e} of a prediction",
        )

    return run


def _mapped(path, array, times):
    """A file of ``array``, mapped so many times in a row: as one of that size, without the disk."""
    array.tofile(path)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    reserved = mmap.mmap(-1, times * array.nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ)
    whole = np.frombuffer(reserved, array.dtype)
    with open(path, "rb") as file:
        for i in range(times):
            at = whole.ctypes.data + i * array.nbytes
            private_fixed = mmap.MAP_PRIVATE | 0x10
            if libc.mmap(at, array.nbytes, mmap.PROT_READ, private_fixed, file.fileno(), 0) != at:
                raise OSError(ctypes.get_errno(), "mmap failed")
    return whole


def prepare_entries(blocks, folder):
    """Returns ``run()``: a fit to one block of rows again and again, in files, and its targets.

    Compared with ``partial_fit`` of one after the other, from memory.
    """
    from fastnn import MLPRegressor

    rng, n = np.random.default_rng(0), blocks * ROWS
    columns = np.arange(0, ENTRIES * STEP, STEP) + rng.integers(0, STEP, (ROWS, ENTRIES))
    values = rng.standard_normal((ROWS, ENTRIES), np.float32)
    starts = np.arange(0, n * ENTRIES + 1, ENTRIES)
    shape = ROWS, ENTRIES * STEP
    block = sp.csr_array((values.ravel(), columns.ravel(), starts[: ROWS + 1]), shape=shape)
    of_block = block @ rng.standard_normal(shape[1], np.float32) / np.sqrt(ENTRIES)
    y = np.concatenate([of_block * np.float32(np.cos(i)) for i in range(blocks)])
    X = sp.csr_array(
        (
            _mapped(folder / "values", values, blocks),
            _mapped(folder / "columns", columns, blocks),
            starts,
        ),
        shape=(n, shape[1]),
    )
    settings = dict(hidden_layer_sizes=4, batch_size=1_024, shuffle=False, random_state=0)

    def run():
        with OwnMemory() as memory:
            started = time.process_time()
            model = MLPRegressor(max_iter=1, **settings).fit(X, y)
            seconds = time.process_time() - started
        again = MLPRegressor(**settings)
        for i in range(blocks):
            again.partial_fit(block, y[i * ROWS : (i + 1) * ROWS])
        pairs = zip(model.coefs_, again.coefs_, strict=True)
        return dict(
            n=X.nnz,
            bytes=X.data.nbytes + X.indices.nbytes + X.indptr.nbytes,
            memory=memory.most,
            seconds=seconds,
            error=f"{max(abs(mine - other).max() for mine, other in pairs):.1e}",
        )

    return run
