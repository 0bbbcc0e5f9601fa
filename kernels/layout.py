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

import functools
import itertools
from typing import NamedTuple

import numpy as np

from .machine import VECTOR_BYTES
from .matmul import PACKED_BYTES, few_outputs
from .tiles import TILE_ROWS


class Net(NamedTuple):
    """A network: its shape and what happens in its units."""

    units: np.ndarray  # (n_layers + 1,) int64: units per layer, the input layer first
    starts: np.ndarray  # (n_layers + 1,) int64: where layer k begins in theta; last: its size
    activations: np.ndarray  # (n_layers,) int64: activation code of each layer, the output last
    constants: np.ndarray  # (n_layers, N_CONSTANTS) float64: of the activations
    saves: np.ndarray  # (n_layers,) int64: what the slopes need, see below
    dropout: np.ndarray  # (n_layers,) float64: probability of leaving a unit out; the output's 0
    seed: int  # of dropout
    loss: int  # loss code
    loss_constants: np.ndarray  # float64, see losses
    canonical: int  # whether dC/dz = a - y


# What slopes are computed from: the activations as they are, or what they were before dropout, or
# the weighted inputs z. The last two are saved in training.
SAVE_NOTHING, SAVE_ACTIVATIONS, SAVE_INPUTS = range(3)


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
    theta_t: np.ndarray  # (n_params,): each [b; W] transposed, where it is read
    gradient: np.ndarray  # (n_params,)
    state: np.ndarray  # (n_slots, n_params): the optimiser's memory


class Work(NamedTuple):
    """Scratch of one fit. A block is the part of a mini-batch that goes through at once."""

    a: np.ndarray  # activations of a block
    d: np.ndarray  # deltas of a block
    saved: np.ndarray  # laid out as d, or empty: what slopes are computed from, see Net.saves
    y: np.ndarray  # (capacity * n_outputs,): targets of a block
    widths: np.ndarray  # (n_layers + 1,) int64: length of a row of layer k in a and d
    a_starts: np.ndarray  # (n_layers + 1,) int64: where the rows of layer k begin in a
    d_starts: np.ndarray  # (n_layers + 1,) int64: and in d, for k >= 1
    capacity: int  # rows of a block
    row_loss: np.ndarray  # (capacity,) loss of each example
    cursors: np.ndarray  # (n_threads, capacity) int64: position in each CSR row
    chunks: np.ndarray  # (n_chunks,) CHUNK: parts of theta, see phase 2
    shares: np.ndarray  # int64: of T threads, thread t takes chunks shares[T, t]..shares[T, t+1]
    squares: np.ndarray  # (n_chunks,) float64: sum of squared weights of each chunk
    norms: np.ndarray  # (n_chunks,) float64: of the squared gradient, where it is clipped
    parts: np.ndarray  # (n_parts, n_params): gradients of parts of a mini-batch, see phase 2
    packed: np.ndarray  # (n_threads, ...): scratch of matrix products and gradients


# A part of theta: rows first_row..last_row of [b; W] of a layer; where it begins there, where its
# weights begin, after its biases if it has any, and where it ends.
CHUNK = np.dtype(
    [(name, np.int64) for name in ["layer", "first_row", "last_row", "start", "weights", "stop"]]
)

# What a slice of an epoch is to do, and what came of it.
ORDERS = np.dtype(
    [
        ("first", np.int64),  # examples rows[first:last] of the epoch's rows[:end]. Mini-batches
        ("last", np.int64),  # begin at multiples of batch_size; a slice begins and ends with one,
        ("end", np.int64),  # or with a block in one. last is also where it has ended: on several
        ("batch_size", np.int64),  # threads after about so many seconds
        ("n_threads", np.int64),
        ("seconds", np.float64),
        ("updates", np.int64),  # both ways: so far
        ("loss", np.float64),  # both ways: sum over examples
        ("batch_loss", np.float64),  # both ways: of the mini-batch that is not complete,
        ("batch_weight", np.float64),  # and the weight of all its examples
        ("code", np.int64),  # the update rule, see rules.Rule
        ("learning_rate", np.float64),
        ("alpha", np.float64),
        ("momentum", np.float64),
        ("beta_2", np.float64),
        ("epsilon", np.float64),
        ("weight_decay", np.float64),
        ("clip_norm", np.float64),
    ]
)


def starts_of(units):
    """Offsets of the layers in theta, ``(n_layers + 1,)``; the last is the number of parameters."""
    units = np.asarray(units, np.int64)
    return np.concatenate(([0], np.cumsum((units[:-1] + 1) * units[1:])))


def shapes_of(units):
    """Shapes of coefs and of intercepts, two lists."""
    return list(itertools.pairwise(units)), [(n_out,) for n_out in units[1:]]


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
    end = address + theta.nbytes
    for pair in zip(intercepts, coefs, strict=True):
        for array in pair:
            if array.base is not theta or not array.flags.c_contiguous:
                return None
            if array.__array_interface__["data"][0] != address:
                return None
            address += array.nbytes
    return theta if address == end else None


def transposed(theta, net):
    """A new vector ``theta_t``, filled where the forward pass reads it: layers of few outputs."""
    theta_t = np.empty_like(theta)
    starts = net.starts.tolist()
    for start, stop, n_out in zip(starts, starts[1:], net.units[1:].tolist(), strict=False):
        n_in = (stop - start) // n_out
        if few_outputs.py_func(n_in, n_out, VECTOR_BYTES // theta.itemsize):
            block = theta[start:stop].reshape(n_in, n_out)
            theta_t[start:stop].reshape(n_out, n_in)[...] = block.T
    return theta_t


# A block of this many rows keeps memory flat for any batch size; results do not depend on it.
BLOCK_ROWS = 1024

# Small networks form the gradient of each part of a mini-batch on its own and add these up: less
# moves between cores than when all threads read all examples. The number of parts depends on the
# network and the size of its mini-batches, never on the threads, and so do the results.
PARTS, LEAST_PART, MOST_PARAMS = 2, 64, 8192


def n_parts(units, batch_size):
    """Number of parts of a mini-batch that have gradients of their own; 0: not divided."""
    small = starts_of(units)[-1] <= MOST_PARAMS
    return PARTS if small and batch_size >= PARTS * LEAST_PART else 0


def work_for(units, dtype, batch_size, n_threads, sparse, saving=False):
    """Allocate the scratch that training takes, and divide phase 2 over the threads."""
    units, dtype = [int(size) for size in units], np.dtype(dtype)
    capacity = min(batch_size, BLOCK_ROWS)
    chunks, start = [], 0
    for k, (n_in, n_out) in enumerate(itertools.pairwise(units)):
        rows = _rows_per_chunk(n_in, n_out)
        for first in range(0, n_in + 1, rows):
            last = min(n_in + 1, first + rows)
            stop = start + (last - first) * n_out
            chunks.append((k, first, last, start, start if first else start + n_out, stop))
            start = stop
    chunks = np.array(chunks, CHUNK)
    sizes = chunks["stop"] - chunks["start"]
    # Of T threads, thread t ends where the running cost, the number of weights, passes its part.
    cost = np.cumsum(sizes)
    shares = np.zeros((n_threads + 1, n_threads + 1), np.int64)
    for T in range(1, n_threads + 1):
        shares[T, 1:T] = np.searchsorted(cost - sizes / 2, cost[-1] * np.arange(1, T) / T)
        shares[T, T] = len(chunks)
    # Beside packed operands: a chunk's gradient turned, and its gradient.
    chunk_bytes = VECTOR_BYTES * -(-int(sizes.max()) * dtype.itemsize // VECTOR_BYTES)
    work = work_to_predict(units, dtype, capacity, n_threads, sparse, 2 * chunk_bytes)
    below = capacity * int(work.widths[1:].sum())
    return work._replace(
        d=_aligned_zeros(below, dtype),
        saved=_aligned_zeros(below if saving else 0, dtype),
        y=np.zeros(capacity * units[-1], dtype),
        row_loss=np.zeros(capacity, dtype),
        cursors=np.zeros((n_threads, capacity if sparse else 0), np.int64),
        chunks=chunks,
        shares=shares,
        squares=np.zeros(len(chunks)),
        norms=np.zeros(len(chunks)),
        parts=np.zeros((n_parts(units, batch_size), starts_of(units)[-1]), dtype),
    )


def work_to_predict(units, dtype, capacity, n_threads, sparse, more_bytes=0):
    """Allocate the scratch that the forward pass takes, for blocks of ``capacity`` rows."""
    # Python's integers: with a few rows to predict, time goes into this and the like.
    widths = [size + 1 for size in units]
    widths[-1] -= 1
    if sparse:
        widths[0] = 0  # its rows are not copied
    offsets = [0, *itertools.accumulate(widths)]
    a_starts = np.array(offsets[:-1], np.int64) * capacity
    a = _aligned_zeros(capacity * offsets[-1], dtype)
    a[: capacity * widths[0] : widths[0] or 1] = 1
    packed = _aligned_zeros(n_threads * (PACKED_BYTES + more_bytes) // dtype.itemsize, dtype)
    none, no_integers = np.empty(0, dtype), np.empty((0, 0), np.int64)
    return Work(
        a=a,
        d=none,
        saved=none,
        y=none,
        widths=np.array(widths, np.int64),
        a_starts=a_starts,
        d_starts=a_starts - a_starts[1],
        capacity=capacity,
        row_loss=none,
        cursors=no_integers,
        chunks=np.empty(0, CHUNK),
        shares=no_integers,
        squares=np.empty(0),
        norms=np.empty(0),
        parts=np.empty((0, 0), dtype),
        packed=packed.reshape(n_threads, -1),
    )


def _aligned_zeros(size, dtype):
    """Zeros from the beginning of a vector register's worth of bytes on."""
    lanes = VECTOR_BYTES // dtype.itemsize
    buffer = np.zeros(size + lanes, dtype)
    first = -buffer.__array_interface__["data"][0] % VECTOR_BYTES // dtype.itemsize
    return buffer[first : first + size]


def _rows_per_chunk(n_in, n_out):
    """Rows of [b; W] in a chunk: whole tiles, worth a call, and enough chunks to share out."""
    rows = max(-(-2048 // n_out), min(64, -(-n_in // 8)))
    return int(-(-rows // TILE_ROWS) * TILE_ROWS)


def readonly(array):
    """A view of ``array`` that cannot be written: the one type under which inputs are compiled."""
    view = array.view()
    view.flags.writeable = False
    return view


@functools.cache
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
