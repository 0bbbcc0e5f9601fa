"""No kernel reads or writes beside its arrays: pages that fault around them, and marks.

Run as a program, in processes of their own, as what is looked for ends the process.
"""

import ctypes
import itertools
import mmap
import os
import signal
import sys

import numpy as np
import pytest
import scipy.sparse as sp

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
pytestmark = pytest.mark.skipif(not hasattr(_libc, "mprotect"), reason="needs mprotect")


def guarded(array, side):
    """A copy that ends right before a page that must not be touched, or begins right after one."""
    pages = -(-array.nbytes // PAGE)
    region = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(region))
    for page in (0, pages + 1):
        assert _libc.mprotect(ctypes.c_void_p(address + page * PAGE), PAGE, 0) == 0
    offset = PAGE if side == "start" else (pages + 1) * PAGE - array.nbytes
    copy = np.frombuffer(region, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


MARK = 90  # bytes before and after
marked_buffers = []


def marked(array):
    """A copy between bytes that are looked at again by ``assert_marks``."""
    buffer = np.full(array.nbytes + 2 * 64 * MARK, MARK, np.uint8)
    inside = buffer[64 * MARK : 64 * MARK + array.nbytes]
    copy = inside.view(array.dtype).reshape(array.shape)
    copy[...] = array
    marked_buffers.append((buffer, array.nbytes))
    return copy


def assert_marks():
    assert marked_buffers
    for buffer, size in marked_buffers:
        assert (buffer[: 64 * MARK] == MARK).all()
        assert (buffer[64 * MARK + size :] == MARK).all()
    marked_buffers.clear()


def protect(value, side):
    """``value``, an array or a tuple of such, in protected memory."""
    if isinstance(value, tuple):
        items = [protect(item, side) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if not isinstance(value, np.ndarray) or value.size == 0:
        return value
    copy = marked(value) if side == "marks" else guarded(value, side)
    copy.flags.writeable = value.flags.writeable
    return copy


def products():
    """The three raw-pointer kernels, callable from Python, by their operands' arrays."""
    from numba import njit

    from fastnn.kernels.matmul import Matrix, Scratch, dot_products, matmul, transpose
    from fastnn.kernels.tiles import NOTHING

    @njit
    def matrix(view):
        size = view.itemsize
        return Matrix(np.intp(view.ctypes.data), view.strides[0] // size, view.strides[1] // size)

    @njit
    def multiply(C, add, A, B, packed, M, N, K):
        scratch = Scratch(C.dtype.type(0), C.itemsize, np.intp(packed.ctypes.data), 0)
        matmul(scratch, add, NOTHING, matrix(C), matrix(A), matrix(B), M, N, K)

    @njit
    def multiply_by_dots(C, add, A, B_t, packed, M, N, K):
        scratch = Scratch(C.dtype.type(0), C.itemsize, np.intp(packed.ctypes.data), 0)
        dot_products(scratch, add, matrix(C), matrix(A), matrix(B_t), M, N, K)

    @njit
    def turn(B, A, packed, M, N):
        scratch = Scratch(A.dtype.type(0), A.itemsize, np.intp(packed.ctypes.data), 0)
        transpose(scratch, matrix(B), matrix(A), M, N)

    return multiply, multiply_by_dots, turn


def packed_operand(T, rows, side):
    from fastnn.kernels.matmul import packed_bytes

    return protect(np.zeros(packed_bytes(T().itemsize, rows), np.uint8), side)


def close(found, expected, T):
    np.testing.assert_allclose(found, expected, rtol=0, atol=2000 * np.finfo(T).eps)


def check_products(n_shapes):
    """Every product with all operands between forbidden pages, for random shapes."""
    multiply, multiply_by_dots, turn = products()
    rng = np.random.default_rng(0)
    far_apart = [(40, 140, 600), (600, 140, 40)]  # rows of A, its columns: they are copied
    for M, N, K in [*far_apart, *rng.integers(1, 71, (n_shapes, 3)).tolist()]:
        for T, side in itertools.product((np.float32, np.float64), ("start", "end")):
            packed, add = packed_operand(T, M, side), int(rng.integers(2))
            A, B = rng.standard_normal((M, K)).astype(T), rng.standard_normal((K, N)).astype(T)
            C = rng.standard_normal((M, N)).astype(T)
            expected = A @ B + add * C
            C1, C2, C3, A_, A_t, B_, B_t = protect((C, C, C, A, A.T.copy(), B, B.T.copy()), side)
            multiply(C1, add, A_, B_, packed, M, N, K)
            multiply(C2, add, A_t.T, B_, packed, M, N, K)
            multiply_by_dots(C3, add, A_, B_t, packed, M, N, K)
            for found in (C1, C2, C3):
                close(found, expected, T)
            turn(B_t, B_, packed, K, N)
            np.testing.assert_array_equal(B_t, B.T)


def check_that_one_too_many_faults():
    """The counterpart: a row, column or term more than there are, or one element before."""
    multiply, multiply_by_dots, turn = products()
    M, N, K = 9, 21, 13
    for T, side in itertools.product((np.float32, np.float64), ("start", "end")):
        A, B, B_t, C = protect(
            (np.ones((M, K), T), np.ones((K, N), T), np.ones((N, K), T), np.ones((M, N), T)), side
        )
        packed = packed_operand(T, M, side)
        for function, operands, sizes in [
            (multiply, [C, 0, A, B, packed], [M, N, K]),
            (multiply_by_dots, [C, 0, A, B_t, packed], [M, N, K]),
            (turn, [B_t, B, packed], [K, N]),
        ]:
            function(*operands, *sizes)
            if side == "end":
                for place in range(len(sizes)):
                    more = [size + (i == place) for i, size in enumerate(sizes)]
                    assert_faults(function, *operands, *more)
            else:
                for place, operand in enumerate(operands):
                    if operand is not packed and isinstance(operand, np.ndarray):
                        earlier = [*operands]
                        earlier[place] = one_before(operand)
                        assert_faults(function, *earlier, *sizes)


def assert_faults(function, *arguments):
    child = os.fork()
    if child == 0:
        function(*arguments)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) in (signal.SIGSEGV, signal.SIGBUS)


def one_before(array):
    """The same array, one element earlier."""
    address = array.ctypes.data - array.itemsize
    memory = (ctypes.c_char * array.nbytes).from_address(address)
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


SETTINGS = [
    dict(units=[7, 5, 3], loss="cross_entropy", batch_size=10),
    dict(units=[33, 70, 1], loss="log_loss", batch_size=33, activation="tanh", standardized=True),
    dict(units=[20, 17, 9, 4], loss="squared_error", batch_size=1),
    dict(units=[5, 130, 2], loss="squared_error", batch_size=150, dropout=0.3, activation="gelu"),
    dict(units=[70, 8, 11], loss="cross_entropy", batch_size=141, clip=0.1, activation="logistic"),
    dict(units=[70, 131, 1], loss="log_loss", batch_size=5, lazy=True, standardized=True),
    dict(units=[3, 1], loss="poisson", batch_size=7, standardized=True),
    dict(units=[101, 100, 10], loss="cross_entropy", batch_size=64, dropout=0.5),
    dict(units=[70, 40, 3], loss="cross_entropy", batch_size=128),
]


def train(settings, T, sparse, n_threads, side):
    """Weights after some epochs, and outputs, with everything that kernels touch protected."""
    from fastnn import _network
    from fastnn._threads import Helpers
    from fastnn._trainer import Trainer, fields_of
    from fastnn.kernels.layout import starts_of
    from fastnn.kernels.rules import ADAM, Rule

    others = dict(activation="relu", dropout=0.0, clip=np.inf, standardized=False, lazy=False)
    settings = dict(others, **settings)
    units, loss, n = settings["units"], settings["loss"], 141
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, units[0])).astype(T)
    if sparse:
        X = sp.csr_array(np.where(X > 0.5, X, 0))
    targets = dict(codes=rng.integers(units[-1], size=n))
    if loss != "cross_entropy":
        targets = dict(targets=rng.uniform(0, 1, (n, units[-1])).astype(T))
    if settings["standardized"]:
        targets["standardized"] = rng.uniform(-1, 1, units[0]), rng.uniform(1, 2, units[0])
    data = protect(_network.make_data(X, weights=rng.uniform(0, 2, n), **targets), side)
    activation = settings["activation"]
    net = _network.make_net(units, activation, None, loss, settings["dropout"], 5)
    theta = 0.3 * rng.standard_normal(starts_of(units)[-1]).astype(T)
    state = np.zeros((2, theta.size), T)
    rule = Rule(ADAM, 0.01, 1e-3, 0.9, 0.999, 1e-8)._replace(
        clip_norm=settings["clip"], lazy=settings["lazy"] and sparse
    )
    with Trainer(net, theta, data, settings["batch_size"], n_threads, state) as trainer:
        trainer._arguments = arguments = protect(trainer._arguments, side)
        _, params, _, trainer._rows, _, _, team = arguments
        trainer._orders, trainer._sync = fields_of(team.orders), team.sync
        kernel = trainer._kernel
        trainer._helpers = Helpers(n_threads, kernel, *arguments, sync=trainer._sync)
        for _ in range(3):
            trainer.run_epoch(rng.permutation(n), rule)
    outputs = []
    predict = _network.predict_kernel

    class Protected:
        def __getitem__(self, dtype):
            def call(*arguments):
                arguments = protect(arguments, side)
                predict[dtype](*arguments)
                outputs.append(arguments[-3].copy())

            return call

    _network.predict_kernel = Protected()
    try:
        _network.predict(net, params.theta, data, np.arange(n), 1)
    finally:
        _network.predict_kernel = predict
    return params.theta.copy(), outputs[0]


def check_training(side):
    import joblib

    joblib.cpu_count = lambda: 8
    for settings, T in itertools.product(SETTINGS, (np.float32, np.float64)):
        for sparse, n_threads in itertools.product((False, True), (1, 2)):
            found = train(settings, T, sparse, n_threads, side)
            if side == "marks":
                assert_marks()
            for array in found:
                assert np.isfinite(array).all()


CHECKS = {
    "products": lambda: check_products(300),
    "faults": check_that_one_too_many_faults,
    "training, pages before": lambda: check_training("start"),
    "training, pages after": lambda: check_training("end"),
    "training, marks": lambda: check_training("marks"),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=() if "pages" in check else pytest.mark.nightly)
        for check in CHECKS
    ],
)
def test_kernels_stay_inside_their_arrays(check, run_python):
    run_python(__file__, check)


if __name__ == "__main__":
    CHECKS[sys.argv[1]]()
