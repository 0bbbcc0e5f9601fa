"""Error functions of one example, and the delta of the output layer.

==============  =================================================================================
RESIDUAL        s H(a - y), with H(r) = r^2 / 2 where |r| <= h, otherwise h (|r| - h / 2)
QUANTILE        q (y - a) where y > a, otherwise (1 - q) (a - y); q for each output
POISSON         y log(y / a) - y + a: half the deviance
GAMMA           log(a / y) + y / a - 1: half the deviance
LOG_LOSS        -y log a - (1 - y) log(1 - a)
CROSS_ENTROPY   -log a_c for the class c
==============  =================================================================================

Each is summed over the outputs; the squared error is averaged over them, while its delta is that of
the *sum*, as in scikit-learn. With the output activation that belongs to a loss, dC/dz = a - y;
with any other, dC/da times its slope. A part of each target of the last two may be spread over the
classes (label smoothing, Szegedy et al., 2016).

To add a loss: a code, an entry in ``LOSSES``, its value and its slope dC/da, and one line each in
``row_losses`` and ``loss_slope``.
"""

import math
from typing import NamedTuple

import numpy as np

from . import elementary
from .jit import leaf, shared

RESIDUAL, QUANTILE, POISSON, GAMMA, LOG_LOSS, CROSS_ENTROPY = range(6)

# Places in a vector of constants: s and h of RESIDUAL, whether to average over outputs, the part
# of the target that is spread, and where the quantiles begin, one for each output.
SCALE, BEND, AVERAGED, SMOOTHING, QUANTILES = range(5)


class Loss(NamedTuple):
    """An error function: its code, the constants it has, and the output activation."""

    code: int
    activation: str  # the output activation that belongs to it
    canonical: bool = False  # whether dC/dz = a - y with that
    scale: float = 1.0
    bend: float = math.inf
    averaged: bool = False


LOSSES = {
    "squared_error": Loss(RESIDUAL, "identity", canonical=True, averaged=True),
    "rss": Loss(RESIDUAL, "identity", scale=2.0),
    "huber": Loss(RESIDUAL, "identity", bend=1.0),
    "absolute_error": Loss(QUANTILE, "identity", scale=2.0),
    "quantile": Loss(QUANTILE, "identity"),
    "poisson": Loss(POISSON, "exp", canonical=True),
    "gamma": Loss(GAMMA, "exp"),
    "log_loss": Loss(LOG_LOSS, "logistic", canonical=True),
    "cross_entropy": Loss(CROSS_ENTROPY, "softmax", canonical=True),
}


def loss_constants(loss, n_outputs, quantiles=(0.5,), bend=None, smoothing=0.0):
    """The constants of ``LOSSES[loss]`` as kernels take them; quantiles repeat over outputs."""
    entry = LOSSES[loss]
    constants = np.empty(QUANTILES + n_outputs)
    constants[SCALE] = entry.scale
    constants[BEND] = entry.bend if bend is None else bend
    constants[AVERAGED] = entry.averaged
    constants[SMOOTHING] = smoothing
    constants[QUANTILES:] = np.resize(quantiles, n_outputs)
    return constants


@leaf
def _clip(p):
    """p within [eps, 1 - eps], so that its logarithm is finite; NaN stays."""
    T = type(p)
    low = np.finfo(T).eps
    high = T(1) - low
    return low if p < low else (high if p > high else p)


@leaf
def log_loss(a, y):
    p = _clip(a)
    return -(y * elementary.log(p) + (type(a)(1) - y) * elementary.log(type(a)(1) - p))


@leaf
def smooth(loss, constants, y):
    """Spread a part of targets 0 and 1; that of classes is in the cross-entropy itself."""
    T = y.dtype.type
    smoothing = T(constants[SMOOTHING])
    if loss == LOG_LOSS and smoothing > T(0):
        for i in range(y.size):
            y[i] = y[i] * (T(1) - smoothing) + T(0.5) * smoothing


@leaf
def _log_loss(terms, a, y):
    for i in range(terms.size):
        terms[i] = log_loss(a[i], y[i])


@leaf
def _deviance(terms, a, y, is_gamma):
    """Half the deviance of Poisson's distribution, or of the gamma distribution."""
    T = a.dtype.type
    for i in range(terms.size):
        ratio = y[i] / a[i]
        log = elementary.log(ratio) if y[i] != T(0) else T(0)
        terms[i] = ratio - T(1) - log if is_gamma else y[i] * log - y[i] + a[i]


@leaf
def _deviance_slope(d, a, y, is_gamma):
    T = a.dtype.type
    for i in range(d.size):
        d[i] = (a[i] - y[i]) / (a[i] * (a[i] if is_gamma else T(1)))


@leaf
def _residual(terms, a, y, scale, bend):
    T = a.dtype.type
    for i in range(terms.size):
        r = abs(a[i] - y[i])
        square = T(0.5) * r * r
        terms[i] = scale * (square if r <= bend else bend * (r - T(0.5) * bend))


@leaf
def _residual_slope(d, a, y, scale, bend):
    for i in range(d.size):
        r = a[i] - y[i]
        r = bend if r > bend else r
        d[i] = scale * (-bend if r < -bend else r)


@leaf
def _quantile(terms, a, y, constants, width):
    T = a.dtype.type
    for start in range(0, terms.size, width):
        for k in range(width):
            q = T(constants[QUANTILES + k])
            r = y[start + k] - a[start + k]
            terms[start + k] = T(constants[SCALE]) * (q * r if r > T(0) else (q - T(1)) * r)


@leaf
def _quantile_slope(d, a, y, constants, width):
    T = a.dtype.type
    for start in range(0, d.size, width):
        for k in range(width):
            q = T(constants[QUANTILES + k])
            r = y[start + k] - a[start + k]
            slope = -q if r > T(0) else (T(1) - q if r < T(0) else T(0))
            d[start + k] = T(constants[SCALE]) * slope


@leaf
def _cross_entropy(row_loss, terms, a, y, width, smoothing):
    T = a.dtype.type
    for i in range(row_loss.size):
        row_loss[i] = a[i * width + np.int64(y[i])]
    for i in range(row_loss.size):
        row_loss[i] = -elementary.log(_clip(row_loss[i]))
    if smoothing > T(0):
        for i in range(terms.size):
            terms[i] = -elementary.log(_clip(a[i]))
        for i in range(row_loss.size):
            total = T(0)
            for k in range(width):
                total += terms[i * width + k]
            row_loss[i] = (T(1) - smoothing) * row_loss[i] + smoothing / T(width) * total


@shared
def row_losses(loss, constants, row_loss, terms, a, y, width):
    """Loss of each example.

    Parameters
    ----------
    row_loss : (n,), written
    terms : (n * width,), scratch
    a : (n * width,), output activations
    y : (n * width,), targets; for the cross-entropy the class of example i at ``y[i]``
    """
    T = a.dtype.type
    if loss == CROSS_ENTROPY:
        _cross_entropy(row_loss, terms, a, y, width, T(constants[SMOOTHING]))
        return
    if loss == RESIDUAL:
        _residual(terms, a, y, T(constants[SCALE]), T(constants[BEND]))
    elif loss == LOG_LOSS:
        _log_loss(terms, a, y)
    elif loss == QUANTILE:
        _quantile(terms, a, y, constants, width)
    else:
        _deviance(terms, a, y, loss == GAMMA)
    divisor = T(width if constants[AVERAGED] > 0 else 1)
    for i in range(row_loss.size):
        total = terms[i * width]
        for k in range(1, width):
            total += terms[i * width + k]
        row_loss[i] = total / divisor


@shared
def loss_slope(loss, constants, d, a, y, width):
    """d <- dC/da of the output layer; arguments as in ``row_losses``.

    Not for LOG_LOSS and CROSS_ENTROPY, which come with the activation that belongs to them.
    """
    T = a.dtype.type
    if loss == RESIDUAL:
        _residual_slope(d, a, y, T(constants[SCALE]), T(constants[BEND]))
    elif loss == QUANTILE:
        _quantile_slope(d, a, y, constants, width)
    else:
        _deviance_slope(d, a, y, loss == GAMMA)


@leaf
def output_delta(loss, constants, d, a, y, width):
    """d <- dC/dz = a - y of the output layer with the activation that belongs to the loss."""
    T = a.dtype.type
    if loss == CROSS_ENTROPY:
        smoothing = T(constants[SMOOTHING])
        spread = smoothing / T(width)
        for i in range(d.size):
            d[i] = a[i] - spread
        for i in range(d.size // width):
            d[i * width + np.int64(y[i])] -= T(1) - smoothing
    else:
        for i in range(d.size):
            d[i] = a[i] - y[i]
