"""How a network lies in memory.

All weights and biases are one contiguous vector ``theta``. Layer ``k`` (from ``n_in`` to ``n_out``
units) is a row-major block of shape ``(n_in + 1, n_out)`` that begins at ``layers[k].start``::

    row 0      b      the biases, theta_0k of the notes
    row 1..    W      the weights, row j from unit j

so its transpose is the notes' matrix Theta, ``(N_{l+1}, N_l + 1)`` with the bias column first,
and ``coefs_[k]``, ``intercepts_[k]`` are views of it. Gradients and optimiser state lie in the
same way.

``theta_t`` holds each of these transposes, the notes' own Theta, at the same offset: delta
propagation reads its rows, and so does the forward pass of a layer with few outputs. Nobody reads
that of a sparse first layer: sums of its rows lie in this place, if there are any, see ``inputs``.

A micro-batch of examples lies in ``work.a``, one layer of units after the other, one example per
row. The rows of all but the output units begin with a 1, the notes' a_0, so that biases need no
special case::

    a^(l)      1 | a_1 ... a_n        z^(l+1) = [1 a] [b; W]        d[b; W] = [1 a]^T delta

``work.d`` has the same rows for all but the input units; what lies below the 1 has no meaning.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from .activations import N_CONSTANTS
from .machine import CACHE_LINE, VECTOR_BYTES
from .matmul import few_outputs

# A layer of weights and the units that they lead to.
LAYER = np.dtype(
    [
        ("n_in", np.int64),
        ("n_out", np.int64),
        ("start", np.int64),  # where its [b; W] begins in theta
        ("activation", np.int64),  # code of the function, see activations
        ("constants", np.float64, N_CONSTANTS),  # of the function
        # Whether training saves the slopes, as activations do not tell them: those before dropout,
        # or the weighted inputs would.
        ("saves", np.int64),
        ("dropout", np.float64),  # probability of leaving a unit out; 0 for the output
    ]
)


class Net(NamedTuple):
    """A network: its shape and what happens in its units."""

    layers: np.ndarray  # (n_layers,) LAYER, the output last
    seed: int  # of dropout
    loss: int  # loss code
    loss_constants: np.ndarray  # float64, see losses
    canonical: int  # whether dC/dz = a - y

    @property
    def units(self):
        """Units from the inputs to the outputs, a list of ``n_layers + 1``; not for kernels."""
        return [int(self.layers["n_in"][0]), *self.layers["n_out"].tolist()]


class Data(NamedTuple):
    """Training examples. Exactly one of ``X`` and the CSR arrays holds rows."""

    X: np.ndarray  # (n, n_features), C-contiguous
    values: np.ndarray  # CSR: (nnz,)
    columns: np.ndarray  # CSR: (nnz,) int32, ascending within a row
    row_starts: np.ndarray  # CSR: (n + 1,) int64; empty: X is dense
    # CSR: (n_features,) bool: whether a feature goes on with the one before; empty: none does. An
    # entry of a row of such features is 1/2 for all up to its own and -1/2 for those behind it, so
    # that 1/2, ..., 1/2, f - 1/2, -1/2, ... becomes two entries, see inputs.
    continued: np.ndarray
    means: np.ndarray  # (n_features,): training sees (x - mean) / scale, of CSR x / scale
    scales: np.ndarray  # (n_features,); both empty: x itself
    codes: np.ndarray  # (n,) int32: class of each example; empty: see targets
    targets: np.ndarray  # (n, n_outputs): target values; empty: see codes
    weights: np.ndarray  # (n,): weight of each example, times weight_scale; empty: all 1
    weight_scale: float  # a power of two, by which the caller multiplies the penalty as well
    # CSR: how many features, from the first on, training takes as dense, as each row has an entry
    # for each of them. The results are the same.
    n_dense: int


class Params(NamedTuple):
    """What training changes. All flat, in the layout of this module."""

    theta: np.ndarray  # (n_params,)
    theta_t: np.ndarray  # (n_params,): each [b; W] transposed, where it is read
    gradient: np.ndarray  # (n_params,)
    state: np.ndarray  # (n_slots, n_params): the optimiser's memory


class Part(NamedTuple):
    """Examples i0..i1 of the micro-batch that begins at rows[first], and what is done with them."""

    rows: np.ndarray  # (n,) int64: the examples in their order
    first: int
    i0: int  # also their rows in the scratch
    i1: int
    t: int  # number of the update that they are trained for, from 1 on; 0: they are predicted
    thread: int
    losses: int  # where the loss of row 0 of the scratch is in ``Work.row_loss``


def layers_of(units):
    """Records of the layers between so many ``units``; the rest of each is zero."""
    layers = np.zeros(len(units) - 1, LAYER)
    layers["n_in"], layers["n_out"] = units[:-1], units[1:]
    layers["start"] = starts_of(units)[:-1]
    return layers


def starts_of(units):
    """Where the layers begin in theta, and behind these the number of parameters."""
    sizes = [(n_in + 1) * n_out for n_in, n_out in itertools.pairwise(map(int, units))]
    return [0, *itertools.accumulate(sizes)]


def shapes_of(units):
    """Shapes of coefs and of intercepts, two lists."""
    return list(itertools.pairwise(units)), [(n_out,) for n_out in units[1:]]


def empty_theta(n_params, dtype):
    """A vector theta from the beginning of a cache line on, not filled.

    Rows of W that are whole cache lines then are no more than that: a sum of such takes half the
    time.
    """
    size = n_params * np.dtype(dtype).itemsize
    buffer = np.empty(size + CACHE_LINE, np.uint8)
    first = -buffer.__array_interface__["data"][0] % CACHE_LINE
    # By way of a memoryview: what views of it are views of then is theta, not the buffer.
    return np.frombuffer(memoryview(buffer)[first : first + size], dtype)


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
    theta = empty_theta(starts_of(units)[-1], dtype)
    W, b = views(theta, units)
    for mine, given in zip([*W, *b], [*coefs, *intercepts], strict=True):
        mine[...] = given
    return theta


def vector_behind(coefs, intercepts):
    """The vector theta that ``coefs`` and ``intercepts`` are views of, or None if they are not."""
    theta = intercepts[0].base
    if not isinstance(theta, np.ndarray) or theta.ndim != 1:
        return None
    end, size = None, 0
    for pair in zip(intercepts, coefs, strict=True):
        for array in pair:
            if array.base is not theta or not array.flags.c_contiguous:
                return None
            address = array.__array_interface__["data"][0]
            if end is not None and address != end:
                return None
            end = address + array.nbytes
            size += array.nbytes
    return theta if size == theta.nbytes else None  # then the first begins where theta does


def transposed(theta, net, summing):
    """``theta_t``, filled where the forward pass reads it: layers of few outputs.

    ``theta`` itself if these have one output, whose transpose is the same, unless there are sums to
    be written into it: ``summing``.
    """
    layers = zip(net.layers["start"].tolist(), itertools.pairwise(net.units), strict=True)
    read = [
        (start, n_in + 1, n_out)
        for start, (n_in, n_out) in layers
        if few_outputs.py_func(n_in + 1, n_out, VECTOR_BYTES // theta.itemsize)
    ]
    if not summing and all(n_out == 1 for _, _, n_out in read):
        return theta
    theta_t = empty_theta(theta.size, theta.dtype)
    for start, n_rows, n_out in read:
        block = slice(start, start + n_rows * n_out)
        theta_t[block].reshape(n_out, n_rows)[...] = theta[block].reshape(n_rows, n_out).T
    return theta_t


def readonly(array):
    """A view of ``array`` that cannot be written: the one type under which inputs are compiled."""
    view = array.view()
    view.flags.writeable = False
    return view


@intrinsic(prefer_literal=True)
def nothing(typingctx, dtype, n_axes):
    """An array without elements, in a kernel."""
    array = types.Array(dtype.dtype, n_axes.literal_value, "C")

    def codegen(context, builder, signature, args):
        return context.get_constant_null(array)

    return array(dtype, n_axes), codegen


@functools.cache
def empty_data(dtype):
    """``Data`` without any rows: the arrays that are not used, under their compiled types."""
    return Data(
        X=readonly(np.empty((0, 0), dtype)),
        values=readonly(np.empty(0, dtype)),
        columns=readonly(np.empty(0, np.int32)),
        row_starts=readonly(np.empty(0, np.int64)),
        continued=readonly(np.empty(0, np.bool_)),
        means=readonly(np.empty(0, dtype)),
        scales=readonly(np.empty(0, dtype)),
        codes=readonly(np.empty(0, np.int32)),
        targets=readonly(np.empty((0, 0), dtype)),
        weights=readonly(np.empty(0, dtype)),
        weight_scale=1.0,
        n_dense=0,
    )
