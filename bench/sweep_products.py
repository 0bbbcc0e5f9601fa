"""Section of the sweep about matrix products alone; returns what ``sweep_training`` says."""

import time
from statistics import median
from typing import NamedTuple

from .report import number
from .session import alternate, in_turn
from .tasks import prepare_product

_LIBRARIES = ("fastnn", "np.dot")
# Seconds before each timing: the threads of a BLAS go on spinning after a call, on a core that the
# next one needs.
_REST = 0.2


class _Product(NamedTuple):
    """C (M, N) <- A (M, K) B (K, N)."""

    M: int
    K: int
    N: int
    transposed: bool = False  # A is the transpose of an array in memory, as for a gradient
    two_threads: bool = False  # also

    @property
    def label(self):
        return f"{self.M}x{self.K}x{self.N}{' A^T' if self.transposed else ''}"

    @property
    def flops(self):
        return 2 * self.M * self.K * self.N


_PRODUCTS = (
    _Product(256, 785, 512),
    _Product(256, 513, 512),
    _Product(200, 785, 100),
    _Product(785, 200, 100, transposed=True),
    _Product(256, 257, 128),
    _Product(1, 785, 512),
    _Product(200, 21, 100),
    _Product(1000, 2000, 2000, two_threads=True),
    _Product(1024, 1024, 1024, two_threads=True),
    _Product(2048, 2048, 2048, two_threads=True),
)


def products(settings):
    """Matrix products alone, fastnn's against np.dot, on 1 and 2 threads."""
    session, rows, raw = settings.session, [], {}
    for dtype in ("float32", "float64"):
        for each in _PRODUCTS:
            for n_threads in (1, 2) if each.two_threads else (1,):
                tasks = {
                    library: session.worker(library).task(
                        prepare_product, library, *each[:4], dtype, n_threads
                    )
                    for library in _LIBRARIES
                }
                # A tenth of the time of a fit, at some 50 GF/s: there are many.
                repeats = max(1, round(session.seconds / 10 * 50e9 / each.flops))
                alternate(tasks, 1, repeats)
                seconds = {library: [] for library in _LIBRARIES}
                for library in in_turn(_LIBRARIES, session.rounds):
                    time.sleep(_REST)
                    seconds[library].append(tasks[library].run(repeats)[0])
                session.drop_tasks()
                label = f"{each.label} {dtype}, {n_threads} thread{'s' * (n_threads > 1)}"
                raw[label] = {"repeats": repeats, "flops": each.flops, "seconds": seconds}
                ours, theirs = (
                    each.flops * repeats / median(seconds[library]) / 1e9 for library in _LIBRARIES
                )
                rows.append([label, number(ours), number(theirs), f"{ours / theirs:.2f}"])
    header = ["M x K x N", *(f"{library} GF/s" for library in _LIBRARIES), "ratio"]
    return [("GF/s of matrix products, the same operands each time", header, rows)], raw
