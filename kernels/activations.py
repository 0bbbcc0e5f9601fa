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
    def over(a):
        for i in range(a.size):
            a[i] = f(a[i])

    return over


def _slope_in_place(slope):
    """The loop d[i] <- d[i] * slope(a[i]), for deltas and activations of the same units."""

    @leaf
    def over(d, a):
        for i in range(d.size):
            d[i] *= slope(a[i])

    return over


@leaf
def _relu_slope(d, a):
    # Not a product: 0 * inf would be NaN where scikit-learn has 0.
    zero = d.dtype.type(0)
    for i in range(d.size):
        d[i] = zero if a[i] == zero else d[i]


_logistic, _tanh, _relu, _exp = map(_in_place, (logistic, tanh, relu, exp))
_logistic_slope, _tanh_slope = map(_slope_in_place, (logistic_slope, tanh_slope))


@leaf
def _softmax(a, width):
    """exp(a_k - max) / sum of them, row by row; exp in one loop over all, for narrow rows too."""
    for start in range(0, a.size, width):
        row = a[start : start + width]
        top = row[0]
        for k in range(1, width):
            # NaN wins, so that it shows in the whole row.
            top = row[k] if row[k] > top or row[k] != row[k] else top
        for k in range(width):
            row[k] -= top
    _exp(a)
    for start in range(0, a.size, width):
        row = a[start : start + width]
        total = row[0]
        for k in range(1, width):
            total += row[k]
        for k in range(width):
            row[k] /= total


@leaf
def activate(code, a, width):
    """a <- sigma(a), rows of ``width`` units."""
    if code == RELU:
        _relu(a)
    elif code == LOGISTIC:
        _logistic(a)
    elif code == TANH:
        _tanh(a)
    elif code == SOFTMAX:
        _softmax(a, width)
    elif code == EXP:
        _exp(a)


@leaf
def multiply_by_slope(code, d, a):
    """d <- d * sigma'(z), from dC/da to dC/dz, with sigma' expressed through a = sigma(z)."""
    if code == RELU:
        _relu_slope(d, a)
    elif code == LOGISTIC:
        _logistic_slope(d, a)
    elif code == TANH:
        _tanh_slope(d, a)
