"""Error functions of one example, and the delta of the output layer.

Each loss comes with the output activation for which dC/dz = a - y (its canonical link):

=============  ==========  ===============================================
squared error  identity    1/2 (y - a)^2, averaged over the outputs
Poisson        exp         y log(y / a) - y + a, summed (half the deviance)
log loss       logistic    -y log a - (1 - y) log(1 - a), summed
cross-entropy  softmax     -log a_c for the class c
=============  ==========  ===============================================

The delta of the squared error with several outputs is that of the *sum* over outputs while the
reported loss is the mean, as in scikit-learn. To add a loss: a code, its name, its function of
(a, y), and one line in ``row_losses``.
"""

import numpy as np

from . import elementary
from .jit import leaf

SQUARED_ERROR, POISSON, LOG_LOSS, CROSS_ENTROPY = range(4)
LOSSES = {
    "squared_error": SQUARED_ERROR,
    "poisson": POISSON,
    "log_loss": LOG_LOSS,
    "cross_entropy": CROSS_ENTROPY,
}


@leaf
def _clip(p):
    """p within [eps, 1 - eps], so that its logarithm is finite; NaN stays."""
    T = type(p)
    low = np.finfo(T).eps
    high = T(1) - low
    return low if p < low else (high if p > high else p)


@leaf
def squared_error(a, y):
    return type(a)(0.5) * (y - a) * (y - a)


@leaf
def poisson(a, y):
    gain = y * elementary.log(y / a) if y != 0 else type(a)(0)
    return gain - y + a


@leaf
def log_loss(a, y):
    p = _clip(a)
    return -(y * elementary.log(p) + (type(a)(1) - y) * elementary.log(type(a)(1) - p))


def _in_terms(loss):
    """The loop terms[i] <- loss(a[i], y[i])."""

    @leaf
    def over(terms, a, y):
        for i in range(terms.size):
            terms[i] = loss(a[i], y[i])

    return over


_squared_error, _poisson, _log_loss = map(_in_terms, (squared_error, poisson, log_loss))


@leaf
def row_losses(loss, row_loss, terms, a, y, width):
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
        for i in range(row_loss.size):
            row_loss[i] = a[i * width + np.int64(y[i])]
        for i in range(row_loss.size):
            row_loss[i] = -elementary.log(_clip(row_loss[i]))
        return
    if loss == SQUARED_ERROR:
        _squared_error(terms, a, y)
    elif loss == POISSON:
        _poisson(terms, a, y)
    else:
        _log_loss(terms, a, y)
    divisor = T(width if loss == SQUARED_ERROR else 1)
    for i in range(row_loss.size):
        total = terms[i * width]
        for k in range(1, width):
            total += terms[i * width + k]
        row_loss[i] = total / divisor


@leaf
def output_delta(loss, d, a, y, width):
    """d <- dC/dz = a - y of the output layer; arguments as in ``row_losses``."""
    if loss == CROSS_ENTROPY:
        for i in range(d.size):
            d[i] = a[i]
        for i in range(d.size // width):
            d[i * width + np.int64(y[i])] -= a.dtype.type(1)
    else:
        for i in range(d.size):
            d[i] = a[i] - y[i]
