"""The measured peak of the machine: the fastest float32 matrix product on all cores."""

import time

import joblib
import numpy as np

from .kernel_calls import product_on_threads

SIZE = 2048
REPEATS = 5


def prepare_peak():
    """Returns ``run() -> {name: GF/s}``: NumPy's BLAS, and fastnn's product on blocks of rows."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, SIZE, SIZE), np.float32)
    C, expected = np.empty_like(A), A @ B

    def run():
        with product_on_threads(C, A, B, joblib.cpu_count()) as tiles:
            tiles()
            np.testing.assert_allclose(C, expected, rtol=1e-3, atol=1e-2)
            return {
                "np.dot": _gflops(lambda: np.dot(A, B, out=expected)),
                "fastnn's product": _gflops(tiles),
            }

    return run


def _gflops(multiply):
    best = np.inf
    for _ in range(REPEATS):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2 * SIZE**3 / best / 1e9
