"""A network and examples as kernels take them, and its outputs.

Strings become codes here, and no array is computed with except by a kernel.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._inputs import scaled_weight
from ._threads import Helpers, choose_n_threads
from ._typing import Activation, Array, Matrix
from .kernels.activations import ACTIVATIONS
from .kernels.layout import (
    Data,
    Net,
    empty_data,
    layers_of,
    readonly,
    transposed,
)
from .kernels.losses import LOSSES, loss_constants
from .kernels.plan import Work, work_to_predict
from .kernels.team import new_sync
from .kernels.train import for_predict, sums
from .kernels.train import predict as predict_kernel

PREDICT_ROWS = 256
# One call of the kernel predicts as many examples as training would spend so many operations on:
# some 20 ms, so that Ctrl-C and other threads of Python get their turn.
PREDICT_OPERATIONS = 2e9


def make_net(
    units: Sequence[int],
    activation: Activation | Sequence[Activation],
    out_activation: Activation | None,
    loss: str,
    dropout: float | Sequence[float] = 0.0,
    seed: int = 0,
    **loss_settings: Any,
) -> Net:
    """The kernels' description of a network.

    Parameters
    ----------
    units : sequence of int, the input layer first
    activation : str, (str, float) for functions with a parameter k, or a list of one of these for
        each hidden layer
    out_activation : str, (str, float) or None
        None: the one that belongs to the loss.
    loss : str, of kernels.losses.LOSSES
    dropout : float, or a list with one for each hidden layer
    seed : int
        Of dropout.
    **loss_settings : see kernels.losses.loss_constants
    """
    layers = layers_of(units)
    n_hidden = len(layers) - 1
    hidden: Any = activation if isinstance(activation, list) else [activation] * n_hidden
    rates = [*np.resize(dropout, n_hidden), 0.0]
    of_loss = LOSSES[loss]
    out_activation = out_activation or of_loss.activation
    for layer, function, dropped in zip(layers, [*hidden, out_activation], rates, strict=True):
        name, parameter = function if isinstance(function, tuple) else (function, None)
        entry = ACTIVATIONS[name]
        values = entry.constants if parameter is None else entry.with_k(float(parameter))
        layer["activation"], layer["dropout"] = entry.code, dropped
        layer["constants"][: len(values)] = values
        # Of ReLU, zeros say enough.
        layer["saves"] = entry.slope_from_input or (dropped > 0 and name != "relu")
    return Net(
        layers=layers,
        seed=seed,
        loss=of_loss.code,
        loss_constants=loss_constants(loss, int(layers["n_out"][-1]), **loss_settings),
        canonical=int(of_loss.canonical and out_activation == of_loss.activation),
    )


@functools.lru_cache
def net_to_predict(
    units: tuple[int, ...], activations: tuple[Activation, ...], out_activation: Activation
) -> Net:
    """``make_net`` for prediction, in which no loss plays a part; kept, as it takes long for a row.

    Parameters
    ----------
    units, activations : tuple
    out_activation : str or (str, float)
    """
    return make_net(units, list(activations), out_activation, "squared_error")


def make_data(
    X: Matrix,
    *,
    standardized: tuple[Array, Array] | None = None,
    continued: Array | None = None,
    codes: Array | None = None,
    targets: Array | None = None,
    weights: Array | None = None,
) -> Data:
    """The kernels' view of training examples; ``X`` C-contiguous or canonical CSR.

    ``standardized``: by these means and scales, None is not at all. ``continued``: which features
    of CSR rows go on with the one before, see ``kernels.layout.Data``; not for lazy updates.
    """
    data = {}
    if standardized is not None:
        for name, vector in zip(("means", "scales"), standardized, strict=True):
            data[name] = readonly(np.ascontiguousarray(vector, X.dtype))
    if hasattr(X, "indptr"):
        data["values"] = readonly(np.require(X.data, requirements=["C", "A"]))
        data["columns"] = readonly(np.ascontiguousarray(X.indices, np.int32))
        data["row_starts"] = readonly(np.ascontiguousarray(X.indptr, np.int64))
        if continued is not None:
            data["continued"] = readonly(np.ascontiguousarray(continued, np.bool_))
    else:
        data["X"] = readonly(np.require(X, requirements=["C", "A"]))
    if codes is not None:
        data["codes"] = readonly(np.ascontiguousarray(codes, np.int32))
    if targets is not None:
        data["targets"] = readonly(np.ascontiguousarray(targets, X.dtype))
    if weights is not None:
        weights, data["weight_scale"] = scaled_weight(weights, X.dtype)
        data["weights"] = readonly(weights)
    return empty_data(X.dtype)._replace(**data)


def data_to_train(X: Matrix, **fields: Any) -> Data:
    """``make_data`` with ``n_dense``, whose search pays off where examples come again and again."""
    data = make_data(X, **fields)
    if data.continued.size == 0 or data.scales.size > 0:
        return data
    return data._replace(n_dense=_in_all_rows(data))


def _in_all_rows(data: Data) -> int:
    """How many features, from the first on, have an entry in each of the CSR rows.

    Those before the first ones that go on with each other.
    """
    starts = data.row_starts[:-1]
    alone = int(np.append(data.continued[1:], True).argmax())
    most = min(alone, int(np.diff(data.row_starts).min()))
    for j in range(most):
        if (data.columns[starts + j] != j).any():
            return j
    return most


def operations_per_example(units: Sequence[int]) -> int:
    """Floating-point operations of one example in training, multiply and add counted apart."""
    products = [2 * a * b for a, b in itertools.pairwise(units)]
    return 3 * sum(products) - products[0]


class _Kept(threading.local):
    """Each thread keeps the scratch of its last prediction, and what it was for."""

    scratch: tuple[Any, Any] = None, None


_kept = _Kept()
KEPT_BYTES = 2**18


def _scratch(*shape: Any) -> Work:
    """``work_to_predict``, kept if it is small: for a single row it took longer than the rest."""
    known, work = _kept.scratch
    if known != shape:
        work = work_to_predict(*shape)
        if work.a.nbytes + work.packed.nbytes <= KEPT_BYTES:
            _kept.scratch = shape, work
    return work


def predict(net: Net, theta: Array, data: Data, rows: Array, n_threads: int | None = None) -> Array:
    """Outputs of the network for the examples ``rows``, ``(len(rows), n_outputs)``.

    Goes through in blocks: scratch memory does not grow with the number of rows.
    """
    n, units = len(rows), net.units
    out = np.empty((n, units[-1]), theta.dtype)
    if n <= PREDICT_ROWS:
        n_threads, step = 1, max(1, n)
    else:
        # Prediction has no barriers: a thread pays once it has some blocks to do.
        per_example = operations_per_example(units)
        n_threads = choose_n_threads(n_threads, per_example * n / 8)
        step = max(n_threads * PREDICT_ROWS, int(n_threads * PREDICT_OPERATIONS / per_example))
    capacity = n_threads * min(PREDICT_ROWS, max(1, n))
    work = _scratch(units, theta.dtype, capacity, n_threads, data.row_starts.size > 0)
    kernel, taken = predict_kernel[theta.dtype], for_predict(net, data, work)
    summing = data.continued.size > 0
    theta_t = transposed(theta, net, summing)
    if summing:
        of_first = slice((units[0] + 1) * units[1])
        sums[theta.dtype](theta[of_first], theta_t[of_first], data.continued)
    for first in range(0, n, step):
        part = slice(first, first + step)
        arguments = (*taken, theta, theta_t, rows[part], out[part], n_threads)
        if n_threads == 1:
            kernel(*arguments, 0)
            continue
        with Helpers(n_threads, kernel, *arguments, sync=new_sync(n_threads)) as helpers:
            helpers.start()
            kernel(*arguments, 0)
        helpers.check()
    return out
