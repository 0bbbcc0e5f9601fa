"""Activation functions, and their slopes as functions of their own output.

To add one: a code, its name in ``ACTIVATIONS``, the function, its slope, and one line each in
``activate`` and ``multiply_by_slope``. The chains of ``if`` stand outside the loops: inside, they
would keep the loops from being vectorised.
"""

from . import elementary
from .jit import leaf

IDENTITY, LOGISTIC, TANH, RELU, EXP, SOFTMAX = range(6)
ACTIVATIONS = {
    "identity": IDENTITY,
    "logistic": LOGISTIC,
    "tanh": TANH,
    "relu": RELU,
    "exp": EXP,
    "softmax": SOFTMAX,
}


@leaf
def logistic(z):
    return elementary.logistic(z)


@leaf
def logistic_slope(a):
    return a * (type(a)(1) - a)


@leaf
def tanh(z):
    return elementary.tanh(z)


@leaf
def tanh_slope(a):
    return type(a)(1) - a * a


@leaf
def relu(z):
    # Written so that NaN passes, as in numpy.maximum.
    return type(z)(0) if z <= type(z)(0) else z


@leaf
def relu_slope(a):
    return type(a)(0) if a == type(a)(0) else type(a)(1)


@leaf
def exp(z):
    return elementary.exp(z)


def _in_place(f):
    """The loop a[i] <- f(a[i])."""

    @leaf
    def over(a, start, stop):
        for i in range(start, stop):
            a[i] = f(a[i])

    return over


def _slope_in_place(slope):
    """The loop d[i] <- d[i] * slope(a[i]), for deltas and activations of the same units."""

    @leaf
    def over(d, d_start, a, start, stop):
        for i in range(stop - start):
            d[d_start + i] *= slope(a[start + i])

    return over


@leaf
def _relu_slope(d, d_start, a, start, stop):
    # Not a product: 0 * inf would be NaN where scikit-learn has 0.
    for i in range(stop - start):
        if a[start + i] == 0:
            d[d_start + i] = 0


_logistic, _tanh, _relu, _exp = map(_in_place, (logistic, tanh, relu, exp))
_logistic_slope, _tanh_slope = map(_slope_in_place, (logistic_slope, tanh_slope))


@leaf
def _softmax(a, start, stop, width):
    """exp(a_k - max) / sum of them, row by row; exp in one loop over all, for narrow rows too."""
    for row in range(start, stop, width):
        top = a[row]
        for k in range(1, width):
            # NaN wins, so that it shows in the whole row.
            top = a[row + k] if a[row + k] > top or a[row + k] != a[row + k] else top
        for k in range(width):
            a[row + k] -= top
    _exp(a, start, stop)
    for row in range(start, stop, width):
        total = a[row]
        for k in range(1, width):
            total += a[row + k]
        for k in range(width):
            a[row + k] /= total


@leaf
def activate(code, a, start, stop, width):
    """a <- sigma(a) on ``a[start:stop]``, rows of ``width`` units."""
    if code == RELU:
        _relu(a, start, stop)
    elif code == LOGISTIC:
        _logistic(a, start, stop)
    elif code == TANH:
        _tanh(a, start, stop)
    elif code == SOFTMAX:
        _softmax(a, start, stop, width)
    elif code == EXP:
        _exp(a, start, stop)


@leaf
def multiply_by_slope(code, d, d_start, a, start, stop):
    """d <- d * sigma'(z), from dC/da to dC/dz, with sigma' expressed through a = sigma(z)."""
    if code == RELU:
        _relu_slope(d, d_start, a, start, stop)
    elif code == LOGISTIC:
        _logistic_slope(d, d_start, a, start, stop)
    elif code == TANH:
        _tanh_slope(d, d_start, a, start, stop)
