"""The products C = A B at all tile edges: values, bits, staying inside their operands."""

import itertools

import numpy as np
import pytest
from numba import float32, float64, int64, njit, void

from fastnn.kernels.jit import EXACT, FLAGS
from fastnn.kernels.machine import VECTOR_BYTES
from fastnn.kernels.matmul import (
    Matrix,
    Scratch,
    dot_products,
    matmul,
    pack_panels,
    packed_bytes,
    panel_columns,
    transpose,
)
from fastnn.kernels.tiles import NOTHING, RECTIFY

# Around one, two and more tiles, which have up to 8 rows and 3 vectors of 2 to 16 columns.
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 34, 48, 65]
# The products of a network, and how their operands lie in memory: see ``operands``.
PRODUCTS = ["forward", "backward", "gradient", "added gradient"]
SENTINEL = -777.25
INSIDE = np.s_[1:-8, 3:-17]  # of the larger matrix around an operand: a tile too many fits in it

each_dtype = pytest.mark.parametrize("T", [np.float32, np.float64])
each_product = pytest.mark.parametrize("product", [*PRODUCTS, "dots", "added dots"])


def _compile(function, flags, *more):
    signatures = [
        void(real[:, :], int64, *more, real[:, :], real[:, :]) for real in (float32, float64)
    ]
    return njit(signatures, **flags)(function)


MOST_BYTES = packed_bytes(8, 1024) + VECTOR_BYTES


@njit
def _matrix(view):
    size = view.itemsize
    return Matrix(np.intp(view.ctypes.data), view.strides[0] // size, view.strides[1] // size)


@njit
def _scratch(C, buffer):
    first = (np.intp(buffer.ctypes.data) + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES
    return Scratch(C.dtype.type(0), C.itemsize, first, 0)


def _multiply_then(C, add, then, A, B):
    """C <- A B, or C + A B, with the strides of these views, and what comes ``then``."""
    buffer = np.empty(MOST_BYTES, np.uint8)
    scratch = _scratch(C, buffer)
    matmul(
        scratch,
        add,
        then,
        _matrix(C),
        _matrix(A),
        _matrix(B),
        C.shape[0],
        C.shape[1],
        A.shape[1],
    )


def _multiply_in_panels(C, add, panels, A, B):
    """C <- A B, or C + A B, with a copy of B in ``panels``."""
    scratch = _scratch(C, np.empty(MOST_BYTES, np.uint8))
    at, (M, K), N = np.intp(panels.ctypes.data), A.shape, C.shape[1]
    pack_panels(scratch, at, _matrix(B), K, N)
    scratch = Scratch(scratch.like, scratch.size, scratch.packed, at)
    matmul(scratch, add, NOTHING, _matrix(C), _matrix(A), _matrix(B), M, N, K)


def _multiply_by_dots(C, add, A, B):
    """The same; A and the transpose of B must have contiguous rows."""
    scratch = _scratch(C, np.empty(1, np.uint8))
    B_t = B.T
    dot_products(
        scratch, add, _matrix(C), _matrix(A), _matrix(B_t), C.shape[0], C.shape[1], A.shape[1]
    )


def _turn(B, A):
    transpose(_scratch(A, np.empty(1, np.uint8)), _matrix(B), _matrix(A), A.shape[0], A.shape[1])


def _chain(C, add, A, B):
    """What matmul promises: each element one chain of multiply-adds in the order of k."""
    for i in range(C.shape[0]):
        for j in range(C.shape[1]):
            total = C[i, j] if add == 1 else C.dtype.type(0)
            for k in range(A.shape[1]):
                total += A[i, k] * B[k, j]
            C[i, j] = total


multiply_then = _compile(_multiply_then, FLAGS, int64)
multiply_by_dots = _compile(_multiply_by_dots, FLAGS)
multiply_in_panels = njit(
    [void(*[real[:, :], int64], real[:], *[real[:, :]] * 2) for real in (float32, float64)], **FLAGS
)(_multiply_in_panels)
chain = _compile(_chain, EXACT)


def multiply(C, add, A, B):
    multiply_then(C, add, NOTHING, A, B)


turn = njit([void(real[:, :], real[:, :]) for real in (float32, float64)], **FLAGS)(_turn)
KERNELS = dict.fromkeys(PRODUCTS, multiply) | {
    "dots": multiply_by_dots,
    "added dots": multiply_by_dots,
}


def padded(values, T, around=np.nan):
    """A copy of a matrix that lies inside a larger one, its ``base``, filled with ``around``."""
    rows, columns = values.shape
    larger = np.full((rows + 9, columns + 20), around, T)
    view = larger[INSIDE]
    view[...] = values
    return view


def operands(product, T, draw, M, N, K):
    """``C, add, A, B`` of one product, drawn by ``draw(shape)``, with NaN around A and B."""
    C = padded(np.full((M, N), np.nan), T, around=SENTINEL)
    A = padded(draw((M, K)), T)
    B = padded(draw((K, N)), T)
    if product == "backward":  # D W^T, with W^T copied
        B = padded(draw((N, K)).T.copy(), T)
    elif product.endswith("gradient"):  # A^T D
        A = padded(draw((K, M)), T).T
    elif product.endswith("dots"):  # A W, with W^T at hand
        B = padded(draw((N, K)), T).T
    add = int(product.startswith("added"))
    if add:
        C[...] = draw((M, N))
    return C, add, A, B


def only_inside_written(C):
    expected = np.full_like(C.base, SENTINEL)
    expected[INSIDE] = C
    return np.array_equal(expected, C.base, equal_nan=True)


def shapes(seed=0):
    """Every pair of M and N, with some K; and some that are packed, in more than one block."""
    rng = np.random.default_rng(seed)
    for M, N in itertools.product(SIZES, SIZES):
        yield M, N, int(rng.choice(SIZES))
    yield from [(200, 70, 300), (133, 33, 129), (48, 32, 128), (10, 100, 200), (300, 2, 101)]
    # A row on its own, and a wide B.
    yield from [(1, 256, 33), (1, 300, 7), (9, 515, 20)]
    # Rows of A, or its columns, so far apart that they are copied.
    yield from [(300, 150, 600), (600, 150, 40), (9, 145, 530)]


def normal(seed=0):
    return np.random.default_rng(seed).standard_normal


def integers(seed=0):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-9, 10, shape)


@each_dtype
@each_product
def test_writes_c_and_nothing_else(product, T):
    draw = integers()
    for M, N, K in shapes():
        C, add, A, B = operands(product, T, draw, M, N, K)
        inputs = A.copy(), B.copy()
        KERNELS[product](C, add, A, B)
        assert np.isfinite(C).all(), (M, N, K)  # all written, no NaN from around A and B
        assert only_inside_written(C), (M, N, K)
        assert (inputs[0] == A).all() and (inputs[1] == B).all(), (M, N, K)


@each_dtype
@each_product
def test_equals_numpy(product, T):
    draw = normal()
    for M, N, K in shapes():
        C, add, A, B = operands(product, T, draw, M, N, K)
        start = C.astype(float) if add else np.zeros((M, N))
        exact = start + A.astype(float) @ B.astype(float)
        scale = abs(start) + abs(A.astype(float)) @ abs(B.astype(float))
        KERNELS[product](C, add, A, B)
        assert (abs(C - exact) <= (K + 1) * np.finfo(T).eps * scale).all(), (M, N, K)


@each_dtype
@each_product
def test_integers_are_exact(product, T):
    draw = integers()
    for M, N, K in shapes():
        C, add, A, B = operands(product, T, draw, M, N, K)
        expected = A.astype(int) @ B.astype(int) + (C.astype(int) if add else 0)
        KERNELS[product](C, add, A, B)
        assert (expected == C).all(), (M, N, K)


@each_dtype
@pytest.mark.parametrize("product", PRODUCTS)
def test_each_element_is_one_chain_in_the_order_of_k(product, T):
    """To the last bit: whatever tile an element falls in."""
    draw = normal()
    for M, N, K in shapes():
        C, add, A, B = operands(product, T, draw, M, N, K)
        expected = C.copy()
        chain(expected, add, A, B)
        multiply(C, add, A, B)
        assert (expected == C).all(), (M, N, K)


@each_dtype
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_copy_in_panels_gives_the_same_bits(product, T):
    draw, size = normal(), T().itemsize
    for M, N, K in shapes():
        columns = panel_columns.py_func(N, size) or 2 * VECTOR_BYTES // size
        C, add, A, B = operands(product, T, draw, M, N, K)
        expected = C.copy()
        multiply(expected, add, A, B)
        panels = np.full(K * columns + 100, SENTINEL, T)
        multiply_in_panels(C, add, panels, A, B)
        assert (expected == C).all(), (M, N, K)
        assert only_inside_written(C)
        assert (panels[K * columns :] == SENTINEL).all(), (M, N, K)


@each_dtype
@each_product
@pytest.mark.parametrize("M, N, K", [(19, 70, 33), (8, 33, 65), (13, 5, 7), (60, 40, 150)])
def test_bits_do_not_depend_on_how_rows_and_columns_are_divided(product, T, M, N, K):
    whole, add, A, B = operands(product, T, normal(), M, N, K)
    before = whole.copy()
    KERNELS[product](whole, add, A, B)
    halves = [(np.s_[:m, :], np.s_[m:, :]) for m in range(M + 1)]
    halves += [(np.s_[:, :n], np.s_[:, n:]) for n in range(N + 1)]
    for parts in halves:
        C = padded(before, T, around=SENTINEL)
        for rows, columns in parts:
            KERNELS[product](C[rows, columns], add, A[rows], B[:, columns])
        assert (whole == C).all() and only_inside_written(C), parts


@each_dtype
@each_product
def test_a_sum_of_no_terms_is_zero(product, T):
    for M, N, _ in shapes():
        C, add, A, B = operands(product, T, normal(), M, N, 0)
        expected = C.copy() if add else np.zeros((M, N))
        KERNELS[product](C, add, A, B)
        assert (expected == C).all(), (M, N)


@each_dtype
@each_product
@pytest.mark.parametrize("M, N", [(0, 5), (5, 0), (0, 0)])
def test_no_rows_or_no_columns_write_nothing(M, N, product, T):
    C, add, A, B = operands(product, T, normal(), M, N, 7)
    KERNELS[product](C, add, A, B)
    assert only_inside_written(C)


@each_dtype
@pytest.mark.parametrize("product", ["forward", "dots"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_reach_their_row_or_column_only(value, product, T):
    for M, N, K in [(19, 70, 33), (8, 33, 65), (13, 5, 7)]:
        C, add, A, B = operands(product, T, normal(), M, N, K)
        A[M - 2, K - 1] = value
        B[0, N - 2] = value
        KERNELS[product](C, add, A, B)
        expected = np.zeros((M, N), bool)
        expected[M - 2] = expected[:, N - 2] = True
        np.testing.assert_array_equal(~np.isfinite(C), expected)


@each_dtype
def test_transpose(T):
    for M, N in itertools.product(SIZES, SIZES):
        A = padded(normal()((M, N)), T)
        B = padded(np.zeros((N, M)), T, around=SENTINEL)
        turn(B, A)
        np.testing.assert_array_equal(A.T, B)
        assert only_inside_written(B), (M, N)


@each_dtype
@pytest.mark.parametrize("product", PRODUCTS)
def test_what_comes_then_is_done_to_the_sums_of_all_terms(product, T):
    """To be rectified, or to be 0 where a matrix with the same strides is; NaN passes."""
    draw = normal(1)
    for M, N, K in shapes():
        C, add, A, B = operands(product, T, draw, M, N, K)
        A[0, K // 2] = np.nan
        before = C.copy()
        multiply(C, add, A, B)
        sums = C.copy()
        assert np.isnan(sums[0]).all()

        C[...] = before
        multiply_then(C, add, RECTIFY, A, B)
        np.testing.assert_array_equal(C, np.maximum(sums, 0))
        assert only_inside_written(C)

        C[...] = before
        gate = padded(draw((M, N)).round(), T)
        gate[-1, -1], gate[-1, 0] = np.nan, -0.0
        distance = gate.__array_interface__["data"][0] - C.__array_interface__["data"][0]
        multiply_then(C, add, distance, A, B)
        np.testing.assert_array_equal(C, np.where(gate == 0, 0, sums))
        assert only_inside_written(C)
