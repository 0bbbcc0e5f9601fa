"""Sections of the sweep about what 32 bits cannot count; returns what ``sweep_training`` says."""

import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

ROWS, ENTRIES, STEP = 10_000, 200, 20  # of a block of sparse X: an entry in each 20 columns
BATCH = 32


def large(settings):
    """Weights of more than 2**31 bytes, sparse X of more than 2**31 entries, with --full."""
    features, hidden = (60_000, 9_500) if settings.full else (600, 95)
    blocks = 1_075 if settings.full else 3
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
        error = 0.0
        for rows, theta in expected():
            mine = model.coefs_[0][rows] if rows is not None else next(parts)
            error = max(error, abs(mine - theta).max())
        a = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0)
        output = a @ model.coefs_[1] + model.intercepts_[1]
        error = max(error, abs(model.predict(given) - output.ravel()).max())
        weights = model.coefs_[0]
        return dict(
            n=weights.size,
            bytes=weights.nbytes,
            memory=memory.most,
            seconds=seconds,
            error=f"{error:.1e} (of steps of {rate:g})",
        )

    return run


def prepare_entries(blocks, folder):
    """Returns ``run()``: a fit to one block of rows again and again, in files, and its targets.

    Compared with ``partial_fit`` of one after the other, from memory.
    """
    from fastnn import MLPRegressor

    rng = np.random.default_rng(0)
    columns = np.arange(0, ENTRIES * STEP, STEP) + rng.integers(0, STEP, (ROWS, ENTRIES))
    values = rng.standard_normal((ROWS, ENTRIES), np.float32)
    starts = np.arange(0, ROWS * ENTRIES + 1, ENTRIES)
    block = sp.csr_array((values.ravel(), columns.ravel(), starts), shape=(ROWS, ENTRIES * STEP))
    of_block = block @ rng.standard_normal(block.shape[1], np.float32) / np.sqrt(ENTRIES)
    y = np.concatenate([of_block * np.float32(np.cos(i)) for i in range(blocks)])
    for name, array in (("values", values), ("columns", columns.astype(np.int64))):
        with open(folder / name, "wb") as file:
            for _ in range(blocks):
                array.tofile(file)
    n = blocks * ROWS
    X = sp.csr_array(
        (
            np.memmap(folder / "values", np.float32, "r"),
            np.memmap(folder / "columns", np.int64, "r"),
            np.arange(0, n * ENTRIES + 1, ENTRIES),
        ),
        shape=(n, block.shape[1]),
    )
    settings = dict(hidden_layer_sizes=4, batch_size=1_000, shuffle=False, random_state=0)

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
