"""How a network lies in memory.

All weights and biases are one contiguous vector ``theta``. Layer ``k`` (from ``n_in`` to ``n_out``
units) is a row-major block of shape ``(n_in + 1, n_out)`` that starts at ``starts[k]``::

    row 0      b      the biases, theta_0k of the notes
    row 1..    W      the weights, row j from unit j

so its transpose is the notes' matrix Theta, ``(N_{l+1}, N_l + 1)`` with the bias column first,
and ``coefs_[k]``, ``intercepts_[k]`` are views of it. Gradients and optimiser state lie in the
same way.

``theta_t`` holds each of these transposes, the notes' own Theta, at the same offset: delta
propagation reads its rows, and so does the forward pass of a layer with few outputs.

A block of examples lies in ``work.a`` layer after layer, one example per row. The rows of every
layer but the output begin with a 1, the notes' a_0, so that biases need no special case::

    a^(l)      1 | a_1 ... a_n        z^(l+1) = [1 a] [b; W]        d[b; W] = [1 a]^T delta

``work.d`` has the same rows for layers 1..; what lies below the 1 in it has no meaning.
"""

import itertools
from typing import NamedTuple

import numpy as np

from .jit import leaf, readonly
from .matmul import PACKED_BYTES, TILE_ROWS, VECTOR_BYTES


class Net(NamedTuple):
    """A network: its shape and what happens in its units."""

    units: np.ndarray  # (n_layers + 1,) int64: units per layer, the input layer first
    starts: np.ndarray  # (n_layers + 1,) int64: where layer k begins in theta; last: its size
    activations: np.ndarray  # (n_layers,) int64: activation code of each layer, the output last
    loss: int  # loss code


class Data(NamedTuple):
    """Training examples. Exactly one of ``X`` and the CSR arrays holds rows."""

    X: np.ndarray  # (n, n_features), C-contiguous
    values: np.ndarray  # CSR: (nnz,)
    columns: np.ndarray  # CSR: (nnz,) int32, ascending within a row
    row_starts: np.ndarray  # CSR: (n + 1,) int64; empty: X is dense
    codes: np.ndarray  # (n,) int32: class of each example; empty: see targets
    targets: np.ndarray  # (n, n_outputs): target values; empty: see codes
    weights: np.ndarray  # (n,): weight of each example; empty: all 1


class Params(NamedTuple):
    """What training changes. All flat, in the layout of this module."""

    theta: np.ndarray  # (n_params,)
    theta_t: np.ndarray  # (n_params,): W of each layer transposed
    gradient: np.ndarray  # (n_params,)
    state: np.ndarray  # (n_slots, n_params): the optimiser's memory


class Work(NamedTuple):
    """Scratch of one fit. A block is the part of a mini-batch that goes through at once."""

    a: np.ndarray  # activations of a block
    d: np.ndarray  # deltas of a block
    y: np.ndarray  # (capacity * n_outputs,): targets of a block
    widths: np.ndarray  # (n_layers + 1,) int64: length of a row of layer k in a and d
    offsets: np.ndarray  # (n_layers + 1,) int64: where layer k begins in a, for capacity 1
    capacity: int  # rows of a block
    row_loss: np.ndarray  # (capacity,) loss of each example
    row_weight: np.ndarray  # (capacity,) weight of each example
    cursors: np.ndarray  # (n_threads, capacity) int64: position in each CSR row
    chunks: np.ndarray  # (n_chunks, 3) int64: layer, first and last row of [b; W]: see phase 2
    shares: np.ndarray  # int64: of T threads, thread t takes chunks shares[T, t]..shares[T, t+1]
    squares: np.ndarray  # (n_chunks,) float64: sum of squared weights of each chunk
    packed: np.ndarray  # (n_threads, ...): scratch of matrix products and gradients


class Orders(NamedTuple):
    """What a slice of an epoch is to do, and what came of it; the names below are the places."""

    integers: np.ndarray  # int64
    numbers: np.ndarray  # float64


# The slice: examples rows[FIRST:LAST] in mini-batches, on so many threads.
FIRST, LAST, BATCH_SIZE, THREADS = range(4)
# Both ways: number of updates, and of arrivals at barriers, so far.
UPDATES, ARRIVED = 4, 5
# The update rule, see rules.Rule. And both ways: sum of the loss of each example.
CODE, N_INTEGERS = 6, 7
LEARNING_RATE, ALPHA, MOMENTUM, BETA_2, EPSILON, LOSS, N_NUMBERS = range(7)


def new_orders(batch_size):
    """``Orders`` for the mini-batches of one fit, before its first slice."""
    orders = Orders(np.zeros(N_INTEGERS, np.int64), np.zeros(N_NUMBERS))
    orders.integers[BATCH_SIZE] = batch_size
    return orders


def starts_of(units):
    """Offsets of the layers in theta, ``(n_layers + 1,)``; the last is the number of parameters."""
    units = np.asarray(units, np.int64)
    return np.concatenate(([0], np.cumsum((units[:-1] + 1) * units[1:])))


def views(theta, units):
    """``(coefs, intercepts)``: lists of views of ``theta``, ``(n_in, n_out)`` and ``(n_out,)``."""
    starts = starts_of(units)
    blocks = [
        theta[starts[k] : starts[k + 1]].reshape(units[k] + 1, units[k + 1])
        for k in range(len(units) - 1)
    ]
    return [block[1:] for block in blocks], [block[0] for block in blocks]


def flatten(coefs, intercepts, dtype):
    """A new vector theta that holds copies of ``coefs`` and ``intercepts``."""
    units = [coef.shape[0] for coef in coefs] + [coefs[-1].shape[1]]
    theta = np.empty(starts_of(units)[-1], dtype)
    W, b = views(theta, units)
    for mine, given in zip([*W, *b], [*coefs, *intercepts], strict=True):
        mine[...] = given
    return theta


def vector_behind(coefs, intercepts):
    """The vector theta that ``coefs`` and ``intercepts`` are views of, or None if they are not."""
    theta = intercepts[0].base
    if not isinstance(theta, np.ndarray) or theta.ndim != 1:
        return None
    address = theta.__array_interface__["data"][0]
    for W, b in zip(coefs, intercepts, strict=True):
        where = b.__array_interface__["data"][0]
        at_W = W.__array_interface__["data"][0]
        if (
            W.base is not theta
            or b.base is not theta
            or where != address
            or at_W != address + b.nbytes
            or not W.flags.c_contiguous
            or not b.flags.c_contiguous
        ):
            return None
        address += b.nbytes + W.nbytes
    if address != theta.__array_interface__["data"][0] + theta.nbytes:
        return None
    return theta


def transpose_into(theta_t, theta, units):
    """Fill ``theta_t`` from ``theta``."""
    starts = starts_of(units)
    for k in range(len(units) - 1):
        block = theta[starts[k] : starts[k + 1]].reshape(units[k] + 1, units[k + 1])
        theta_t[starts[k] : starts[k + 1]].reshape(block.T.shape)[...] = block.T


# A block of this many rows keeps memory flat for any batch size; results do not depend on it.
BLOCK_ROWS = 1024


def work_for(units, dtype, batch_size, n_threads, sparse):
    """Allocate the scratch that training takes, and divide phase 2 over the threads."""
    units, dtype = np.asarray(units, np.int64), np.dtype(dtype)
    capacity = min(batch_size, BLOCK_ROWS)
    widths = units + 1
    widths[-1] -= 1
    if sparse:
        widths[0] = 0  # its rows are not copied
    offsets = np.concatenate(([0], np.cumsum(widths)[:-1]))
    a = _aligned_zeros(capacity * widths.sum(), dtype)
    a[: capacity * widths[0]].reshape(capacity, widths[0])[:, :1] = 1
    chunks = np.array(
        [
            (k, first, min(n_in + 1, first + rows))
            for k, (n_in, n_out) in enumerate(itertools.pairwise(units))
            for rows in (_rows_per_chunk(n_in, n_out),)
            for first in range(0, n_in + 1, rows)
        ],
        np.int64,
    )
    sizes = (chunks[:, 2] - chunks[:, 1]) * units[chunks[:, 0] + 1]
    # Of T threads, thread t ends where the running cost, the number of weights, passes its part.
    cost = np.cumsum(sizes)
    shares = np.zeros((n_threads + 1, n_threads + 1), np.int64)
    for T in range(1, n_threads + 1):
        shares[T, 1:T] = np.searchsorted(cost - sizes / 2, cost[-1] * np.arange(1, T) / T)
        shares[T, T] = len(chunks)
    # For packed operands, a chunk's gradient turned, and its gradient.
    scratch = PACKED_BYTES + 2 * VECTOR_BYTES * -(-sizes.max() * a.itemsize // VECTOR_BYTES)
    return Work(
        a=a,
        d=_aligned_zeros(capacity * widths[1:].sum(), dtype),
        y=np.zeros(capacity * units[-1], dtype),
        widths=widths,
        offsets=offsets,
        capacity=capacity,
        row_loss=np.zeros(capacity, dtype),
        row_weight=np.zeros(capacity, dtype),
        cursors=np.zeros((n_threads, capacity if sparse else 0), np.int64),
        chunks=chunks,
        shares=shares,
        squares=np.zeros(len(chunks)),
        packed=_aligned_zeros(n_threads * scratch // a.itemsize, dtype).reshape(n_threads, -1),
    )


def _aligned_zeros(size, dtype):
    """Zeros from the beginning of a vector register's worth of bytes on."""
    lanes = VECTOR_BYTES // dtype.itemsize
    buffer = np.zeros(size + lanes, dtype)
    first = -buffer.ctypes.data % VECTOR_BYTES // dtype.itemsize
    return buffer[first : first + size]


def _rows_per_chunk(n_in, n_out):
    """Rows of [b; W] in a chunk: whole tiles, worth a call, and enough chunks to share out."""
    rows = max(-(-512 // n_out), min(64, -(-n_in // 8)))
    return int(-(-rows // TILE_ROWS) * TILE_ROWS)


def empty_data(dtype):
    """``Data`` without any rows: the arrays that are not used, under their compiled types."""
    return Data(
        X=readonly(np.empty((0, 0), dtype)),
        values=readonly(np.empty(0, dtype)),
        columns=readonly(np.empty(0, np.int32)),
        row_starts=readonly(np.empty(0, np.int64)),
        codes=readonly(np.empty(0, np.int32)),
        targets=readonly(np.empty((0, 0), dtype)),
        weights=readonly(np.empty(0, dtype)),
    )


@leaf
def is_sparse(data):
    return data.row_starts.size > 0


@leaf
def a_start(work, k):
    """Where the rows of layer k begin in ``work.a``."""
    return work.offsets[k] * work.capacity


@leaf
def d_start(work, k):
    """Where the rows of layer k >= 1 begin in ``work.d``."""
    return (work.offsets[k] - work.offsets[1]) * work.capacity
