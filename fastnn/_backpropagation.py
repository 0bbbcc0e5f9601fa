"""The notes' back-propagation, laid open: z, a and all derivatives for given examples.

For learning and checking, not for training: elementwise functions, their slopes and the losses are
those of the kernels, the products are NumPy's. ``kernels.network`` does the same in blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import ArrayLike
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_is_fitted,
)

from ._activations import check_activations
from ._base import BaseMLP
from ._inputs import checked_data, checked_examples
from ._network import make_net
from ._state import shallow_copy
from ._typing import Activation, Array, Data, Matrix, Weights
from .kernels import activations, losses
from .kernels.activations import ACTIVATIONS
from .kernels.layout import SAVE_INPUTS, Net
from .kernels.losses import AVERAGED, CROSS_ENTROPY, LOG_LOSS, LOSSES


class Network(NamedTuple):
    """A network given by its matrices, for ``backpropagation``.

    Parameters
    ----------
    Theta : list of array-like of shape (n_out, n_in + 1)
        The weights of each layer in the layout of the notes: row k holds what goes into unit k,
        its bias first.
    activations : list of str or (str, float)
        The activation function of each layer but the input, such as ``"logistic"`` or
        ``("leaky_relu", 0.1)``.
    loss : str, default='squared_error'
        'squared_error', 'rss', 'huber', 'absolute_error', 'quantile', 'poisson', 'gamma';
        'log_loss' of logistic outputs, or 'cross_entropy' of a softmax.
    label_smoothing : float, default=0
        Of 'log_loss' and 'cross_entropy', as in ``MLPClassifier``.
    quantile : float or list of float, default=0.5
        Of 'quantile'; a list has one for each output.
    huber_delta : float, default=1.0
        Of 'huber'.

    Examples
    --------
    >>> from fastnn import Network, backpropagation
    >>> network = Network([[[0.0, 1.0, -1.0]]], ["logistic"])
    >>> backpropagation(network, [[2.0, 2.0]], [1.0]).a[-1]
    array([[0.5]])
    """

    Theta: Weights
    activations: Sequence[Activation]
    loss: str = "squared_error"
    label_smoothing: float = 0.0
    quantile: float | Sequence[float] = 0.5
    huber_delta: float = 1.0


class Backpropagation(NamedTuple):
    """What ``backpropagation`` returns; see there."""

    # "| Any": some are None, but those that a caller asked for are not.
    z: list[Array | Any]
    a: list[Array]
    dC_dz: list[Array | Any] | Any
    dC_da: list[Array] | Any
    dC_dTheta: list[Array] | Any
    C: Array | Any


def backpropagation(
    network: BaseMLP | Network,
    X: Data,
    y: Data | None,
    sample_weight: ArrayLike | None = None,
    average: bool = False,
) -> Backpropagation:
    """All weighted inputs, activations and error derivatives of a network, for given examples.

    The error C of an example is that of the notes: the sum over the outputs. (The loss that
    estimators report is, for the squared error, the mean over the outputs, as in scikit-learn; what
    they follow is the derivative of the sum.) The penalty ``alpha``, dropout and ``class_weight``
    are left out. The first calls take some seconds, in which functions are compiled.

    Parameters
    ----------
    network : MLPClassifier, MLPRegressor or Network
        A fitted estimator, with the loss it is trained with; or a network given by its matrices.
    X : array-like or sparse matrix of shape (n, n_features)
        Examples. Everything is computed in float64.
    y : array-like of shape (n,) or (n, n_outputs), or None
        Targets, for an estimator as in ``fit``. For a ``Network``, numbers for each output; for the
        'cross_entropy' a class 0, 1, ... for each example, or rows with a single 1. None: the
        forward pass alone.
    sample_weight : array-like of shape (n,), default=None
        Weight of each example: its C, and so all derivatives of that, are multiplied by it.
    average : bool, default=False
        Whether to return averages over the examples, weighted by ``sample_weight``, instead of
        arrays with an axis of examples. The average of dC_dTheta is the gradient that training
        follows, but for what is left out.

    Returns
    -------
    Backpropagation
        A NamedTuple. Layer 0 is the input, layer L the output; each list has an entry for each.

        z : list of ndarray of shape (n, n_units)
            Weighted inputs; ``z[0]`` is None.
        a : list of ndarray of shape (n, n_units)
            Activations; ``a[0]`` is X.
        dC_dz, dC_da : lists of ndarray of shape (n, n_units)
            Derivatives of C with respect to them; ``dC_dz[0]`` is None.
        dC_dTheta : list of ndarray of shape (n, n_out, n_in + 1)
            Derivatives with respect to the weights between layers l and l + 1, in the layout of the
            notes: the biases' in the first column.
        C : ndarray of shape (n,)
            Error of each example.

        With ``average`` all of them without the axis of examples. Without y, all but z and a are
        None.

    Raises
    ------
    ValueError
        If shapes do not fit, or derivatives through a step function are asked for: its own is zero
        almost everywhere, so that no error comes through.

    Examples
    --------
    One unit whose error we can do in the head: z = 0.5 * 2 = 1, a = z, C = (1 - 3)^2 / 2.

    >>> from fastnn import Network, backpropagation
    >>> network = Network([[[0.0, 0.5]]], ["identity"], loss="squared_error")
    >>> result = backpropagation(network, [[2.0]], [3.0])
    >>> result.z[1], result.dC_da[1], result.C
    (array([[1.]]), array([[-2.]]), array([2.]))
    >>> result.dC_dTheta[0]  # of the bias, and of the weight: dC/dz times the input 2
    array([[[-2., -4.]]])
    """
    if isinstance(network, Network):
        inputs, target = check_array(X, dtype=np.float64), None
        Theta, net = _of_network(network, inputs.shape[1], y)
        if y is not None:
            target = _target_matrix(net, y, len(inputs))
    else:
        inputs, target, Theta, net = _of_estimator(network, X, y)
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, inputs, dtype=np.float64)
    z, a = _feedforward(Theta, net, inputs)
    if target is None:
        result = Backpropagation(z, a, None, None, None, None)
        return _averages(result, weight) if average else result

    C, of_a, of_z = _output_error(net, z[-1], a[-1], target)
    if weight is not None:
        C *= weight
        of_a *= weight[:, None]
        of_z *= weight[:, None]
    dC_da: list[Array] = [of_a]
    dC_dz: list[Array | Any] = [of_z]
    dC_dTheta: list[Array] = []
    total = len(inputs) if weight is None else weight.sum()
    for l in reversed(range(len(Theta))):
        with_bias = np.column_stack([np.ones(len(inputs)), a[l]])  # a_0 = 1 of the notes
        if average:
            dC_dTheta.insert(0, dC_dz[0].T @ with_bias / total)
        else:
            dC_dTheta.insert(0, dC_dz[0][:, :, None] * with_bias[:, None, :])
        dC_da.insert(0, dC_dz[0] @ Theta[l][:, 1:])
        dC_dz.insert(0, _times_slope(net, l - 1, dC_da[0], z[l], a[l]) if l > 0 else None)
    result = Backpropagation(z, a, dC_dz, dC_da, dC_dTheta, C)
    return _averages(result, weight) if average else result


def _of_network(network: Network, n_features: int, y: Any) -> tuple[list[Array], Net]:
    """Checked matrices and the kernels' ``Net``."""
    Theta = [np.array(theta, np.float64, ndmin=2) for theta in network.Theta]
    if len(Theta) != len(network.activations) or not Theta:
        raise ValueError(
            "A network has one activation function for each matrix of Theta, at least one: got "
            f"{len(network.activations)} functions and {len(Theta)} matrices."
        )
    n_in = n_features
    for l, theta in enumerate(Theta):
        if theta.ndim != 2 or theta.shape[1] != n_in + 1:
            before = "features of X" if l == 0 else f"units that Theta[{l - 1}] leads to"
            raise ValueError(
                f"Theta[{l}] must have {n_in + 1} columns: one for the bias and one for each of "
                f"the {n_in} {before}. Its shape is {theta.shape}."
            )
        n_in = len(theta)
    if network.loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}, got {network.loss!r}.")
    functions: list[Activation] = [
        f if isinstance(f, str) else (f[0], float(f[1])) for f in network.activations
    ]
    for function in functions:
        name, k = (function, None) if isinstance(function, str) else function
        if name not in ACTIVATIONS or (k is not None and ACTIVATIONS[name].with_k is None):
            with_k = sorted(name for name, entry in ACTIVATIONS.items() if entry.with_k)
            raise ValueError(
                f"activations must be of {sorted(ACTIVATIONS)}, with a constant k only for "
                f"{with_k}; got {function!r}."
            )
    if y is not None:
        _check_derivatives(functions)
    needed = LOSSES[network.loss].activation
    if network.loss in ("log_loss", "cross_entropy") and y is not None and functions[-1] != needed:
        raise ValueError(
            f"loss={network.loss!r} takes probabilities: the last activation function must be "
            f"{needed!r}, got {functions[-1]!r}."
        )
    settings: dict[str, dict[str, Any]] = {  # what a loss has
        "log_loss": {"smoothing": network.label_smoothing},
        "cross_entropy": {"smoothing": network.label_smoothing},
        "quantile": {"quantiles": network.quantile},
        "huber": {"bend": network.huber_delta},
    }
    # Only those: the absolute error is a quantile loss inside.
    of_loss = settings.get(network.loss, {})
    units = [n_features, *(len(theta) for theta in Theta)]
    net = make_net(units, functions[:-1], functions[-1], network.loss, **of_loss)
    return Theta, net


def _check_derivatives(functions: Sequence[Activation]) -> None:
    if any(function == "step" or function[0] == "step" for function in functions):
        raise ValueError(
            "There are no derivatives through a step function: its own is zero almost everywhere, "
            "so that no error comes through. Pass y=None for z and a alone."
        )


def _target_matrix(net: Net, y: Any, n: int) -> Array:
    """Targets of a ``Network`` as ``(n, n_outputs)``."""
    n_outputs = int(net.layers["n_out"][-1])
    y = check_array(y, dtype=np.float64, ensure_2d=False)
    if net.loss == CROSS_ENTROPY:
        if y.ndim == 1 and not np.isin(y, np.arange(n_outputs)).all():
            raise ValueError(f"Classes must be 0 ... {n_outputs - 1}, got {np.unique(y)}.")
        if y.ndim == 1:
            y = np.eye(n_outputs)[y.astype(int)]
        elif not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise ValueError("A target of the cross-entropy is a class, or a row with a single 1.")
    elif y.ndim == 1:
        y = y[:, None]
    if y.shape != (n, n_outputs):
        raise ValueError(f"X and Theta ask for targets of shape {(n, n_outputs)}, got {y.shape}.")
    return y


def _of_estimator(
    estimator: BaseMLP, X: Any, y: Any
) -> tuple[Array, Array | None, list[Array], Net]:
    """X, targets ``(n, n_outputs)`` or None, matrices and ``Net`` of a fitted estimator."""
    check_is_fitted(estimator)
    estimator = shallow_copy(estimator)  # what validation and encoding may keep stays out of it
    coefs, intercepts = estimator.coefs_, estimator.intercepts_
    Theta = [np.vstack([b, W]).T.astype(np.float64) for W, b in zip(coefs, intercepts, strict=True)]
    units = [len(coefs[0]), *(len(theta) for theta in Theta)]
    out = estimator.out_activation_
    functions = check_activations(estimator.activation, len(units) - 2, out)
    if y is None:
        net = make_net(units, functions, out, "squared_error")
        return _dense(checked_examples(estimator, X)), None, Theta, net
    _check_derivatives([*functions, out])
    X, y = checked_data(estimator, X, y, reset=False)
    targets = estimator._learn_targets(estimator, y, goes_on=True, incremental=True)
    net = make_net(units, functions, **targets.network())
    target = np.asarray(targets.values(targets.encode(y), np.float64), np.float64)
    return _dense(X), target, Theta, net


def _dense(X: Matrix) -> Array:
    return np.asarray(X.toarray() if sp.issparse(X) else X, np.float64)


@functools.cache
def _from_python(kernel: Callable[..., Any]) -> Any:
    """A kernel for kernels with a way in from Python, compiled when it is first called."""
    return njit(lambda *arguments: kernel(*arguments))


def _feedforward(Theta: list[Array], net: Net, X: Array) -> tuple[list[Array | Any], list[Array]]:
    z: list[Array | Any] = [None]
    a = [X]
    for l, theta in enumerate(Theta):
        z.append(a[-1] @ theta[:, 1:].T + theta[:, 0])
        layer = z[-1].flatten()
        activate = _from_python(activations.activate)
        of_net = net.layers[l]
        activate(of_net["activation"], of_net["constants"], layer, len(theta))
        a.append(layer.reshape(z[-1].shape))
    return z, a


def _times_slope(net: Net, l: int, dC_da: Array, z: Array, a: Array) -> Array:
    """dC/dz of the units whose activation function is number ``l``."""
    d = dC_da.flatten()
    layer = net.layers[l]
    at = (z if layer["saves"] == SAVE_INPUTS else a).ravel()
    multiply = _from_python(activations.multiply_by_slope)
    multiply(layer["activation"], layer["constants"], d, at, a.shape[1])
    return d.reshape(a.shape)


def _output_error(net: Net, z: Array, a: Array, target: Array) -> tuple[Array, Array, Array]:
    """C ``(n,)``, dC/da and dC/dz of the output layer."""
    n, width = a.shape
    constants = net.loss_constants.copy()
    constants[AVERAGED] = 0  # the sum over the outputs
    smoothing = constants[losses.SMOOTHING]
    of_kernel = target.ravel()
    if net.loss == LOG_LOSS:
        target = target * (1 - smoothing) + smoothing / 2
        of_kernel = target.ravel()
    elif net.loss == CROSS_ENTROPY:
        of_kernel = target.argmax(axis=1).astype(np.float64)
        target = target * (1 - smoothing) + smoothing / width
    dC_da: Array
    C, dC_da, dC_dz = np.empty(n), np.empty(a.size), np.empty(a.size)
    row_losses = _from_python(losses.row_losses)
    row_losses(net.loss, constants, C, dC_da, a.ravel(), of_kernel, width)
    if net.loss == LOG_LOSS:
        dC_da = _quotient(1 - target, 1 - a) - _quotient(target, a)
    elif net.loss == CROSS_ENTROPY:
        dC_da = -_quotient(target, a)
    else:
        loss_slope = _from_python(losses.loss_slope)
        loss_slope(net.loss, constants, dC_da, a.ravel(), of_kernel, width)
        dC_da = dC_da.reshape(a.shape)
    if net.canonical:  # a - y: where outputs saturate, more exact than the product
        output_delta = _from_python(losses.output_delta)
        output_delta(net.loss, constants, dC_dz, a.ravel(), of_kernel, width)
        return C, dC_da, dC_dz.reshape(a.shape)
    return C, dC_da, _times_slope(net, len(net.layers) - 1, dC_da, z, a)


def _quotient(part: Array, whole: Array) -> Array:
    """part / whole, 0 where nothing is divided: a certain output may be right."""
    with np.errstate(divide="ignore"):
        return np.divide(part, whole, out=np.zeros_like(whole), where=part != 0)


def _averages(result: Backpropagation, sample_weight: Array | None) -> Backpropagation:
    """Averages over the examples; dC_dTheta is one already, and C and so on are weighted."""

    def mean(values: Array | None, weight: Array | None) -> Any:
        if values is None:
            return None
        if sample_weight is None:
            return values.mean(axis=0)
        values = values if weight is None else values * weight[:, None]
        return values.sum(axis=0) / sample_weight.sum()

    def means(layers: list[Array] | None, weight: Array | None = None) -> Any:
        return None if layers is None else [mean(layer, weight) for layer in layers]

    return result._replace(
        z=means(result.z, sample_weight),
        a=means(result.a, sample_weight),
        dC_dz=means(result.dC_dz),
        dC_da=means(result.dC_da),
        C=mean(result.C, None),
    )
