"""The named workloads, their data and their cost: one list for every script."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

ALPHA = 1e-4
LEARNING_RATE = 1e-3


class Case(NamedTuple):
    """A network, its training set and how it is trained."""

    name: str
    n: int  # examples
    d: int  # features
    hidden: tuple  # units of each hidden layer
    classes: int  # 0: regression on one value
    batch: int
    dtype: str = "float32"
    activation: str = "relu"
    solver: str = "adam"
    threads: int | None = None  # of fastnn; None: its own choice

    @property
    def units(self):
        """Units of each layer; two classes, like one value, take one output."""
        return (self.d, *self.hidden, self.classes if self.classes > 2 else 1)

    @property
    def flops(self):
        """Floating-point operations of the matrix products of one epoch.

        A product of (m, k) and (k, n) counts 2 m k n. Each layer has three, forward, backward and
        gradient; the first layer has no backward product.
        """
        products = [2 * a * b for a, b in pairwise(self.units)]
        return self.n * (3 * sum(products) - products[0])

    @property
    def shape(self):
        """Features, hidden units and outputs in words."""
        hidden = ",".join(map(str, self.hidden))
        if len(self.hidden) > 2 and len(set(self.hidden)) == 1:
            hidden = f"{len(self.hidden)}x{self.hidden[0]}"
        return f"{self.n}x{self.d} ({hidden}) {self.classes or 'value'}, {self.batch}"

    def epochs(self, seconds):
        """How many epochs take about ``seconds`` in the slowest peer, at most 100.

        A rough model, the same on every machine: 250 µs for each update and 60 GF/s. From a second
        on at least 10, as fits have: what comes before the first epoch counts in a ``fit``.
        """
        updates = -(-self.n // self.batch)
        epochs = round(seconds / (updates * 250e-6 + self.flops / 60e9))
        return max(10 if seconds >= 1 else 1, min(100, epochs))


CASES = {
    case.name: case
    for case in (
        Case("A", 10_000, 20, (100,), 2, 200),
        Case("B", 10_000, 20, (100,), 2, 32),
        Case("C", 2_000, 20, (100,), 2, 1),
        Case("D", 10_000, 64, (64, 64), 10, 32),
        Case("E", 20_000, 54, (256, 128), 7, 256),
        Case("F", 20_000, 784, (512, 512), 10, 256),
        Case("G", 8_000, 784, (100,), 10, 200),
        Case("H", 10_000, 64, (64,) * 8, 10, 200),  # deep
        Case("I", 20_000, 64, (128,), 1000, 256),  # many classes
        Case("J", 4_000, 4096, (128,), 10, 200),  # wide
    )
}
MAIN = "ABCDEFG"


def make_data(case):
    """Examples of a case: a noisy linear map, or the class where it is largest.

    Returns
    -------
    X : (n, d), standard normal, C-contiguous
    y : (n,), int64 classes, all of which occur, or values of X's dtype
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((case.n, case.d), np.float32)
    W = rng.standard_normal((case.d, max(1, case.classes)), np.float32)
    W /= np.linalg.norm(W, axis=0)
    Z = X @ W
    Z += 0.1 * rng.standard_normal(Z.shape, np.float32)
    X = X.astype(case.dtype, copy=False)
    if case.classes == 0:
        return X, Z.ravel().astype(case.dtype)
    y = Z.argmax(axis=1)
    y[: case.classes] = np.arange(case.classes)
    return X, y


def initial_weights(case, units):
    """Glorot-uniform weights as in scikit-learn, ``[(W, b), ...]`` with W ``(n_in, n_out)``."""
    rng = np.random.default_rng(0)
    weights = []
    for n_in, n_out in pairwise(units):
        bound = np.sqrt((2 if case.activation == "logistic" else 6) / (n_in + n_out))
        W, b = rng.uniform(-bound, bound, (n_in, n_out)), rng.uniform(-bound, bound, n_out)
        weights.append((W.astype(case.dtype), b.astype(case.dtype)))
    return weights
