"""Activation functions, and their slopes.

To add one: a code, an entry in ``ACTIVATIONS``, its function and its slope, and one line each in
``activate`` and ``multiply_by_slope`` (or ``activate_with_slopes``). Or, if it is one of these
families with other constants, the entry alone::

    RECTIFIER   p z  where z > 0, otherwise  q z + r (exp(z) - 1)
    GATE        z logistic(c z + d z^3)

NORMAL_GATE is z times the normal distribution of z,
and LOGISTIC, TANH, EXP have slopes p + q a + r a^2.

Slopes are functions of the activation a = sigma(z) where that is possible, as then nothing need be
kept; those of the gates are functions of z, and computed beside the activation. The chains of
``if`` stand outside the loops: inside, they would keep the loops from being vectorised.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from numba import types
from numba.extending import intrinsic

from . import elementary
from .emit import emitted
from .jit import leaf, shared
from .matmul import address

(
    IDENTITY,
    LOGISTIC,
    TANH,
    RELU,
    EXP,
    SOFTMAX,
    STEP,
    RECTIFIER,
    GATE,
    SOFTPLUS,
    NORMAL_GATE,
) = range(11)
N_CONSTANTS = 4


class Activation(NamedTuple):
    """An activation function: its code, constants, and what its slope is computed from."""

    code: int
    constants: tuple = ()
    slope_from_input: bool = False
    with_k: Callable | None = None  # constants for a k that the user gives
    hidden: bool = True  # whether users may have it in hidden layers, and in the output layer
    output: bool = False


def _leaky(k):
    return (1.0, k, 0.0, 0.0)


def _elu(k):
    return (1.0, 0.0, k, 1.0)


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
_GELU = 2 * math.sqrt(2 / math.pi)

ACTIVATIONS = {
    "identity": Activation(IDENTITY, output=True),
    # k z, with k = 1 like the identity
    "linear": Activation(
        RECTIFIER, (1.0, 1.0, 0.0, 0.0), with_k=lambda k: (k, k, 0.0, 0.0), output=True
    ),
    # 1 where z >= k, otherwise 0
    "step": Activation(STEP, (0.0,), with_k=lambda k: (k,), output=True),
    "logistic": Activation(LOGISTIC, (0.0, 1.0, -1.0), output=True),
    "tanh": Activation(TANH, (1.0, 0.0, -1.0), output=True),
    "relu": Activation(RELU, output=True),
    # A softmax over hidden units, or exp of them, is not what anyone trains.
    "exp": Activation(EXP, (0.0, 1.0, 0.0), hidden=False, output=True),
    "softmax": Activation(SOFTMAX, hidden=False, output=True),
    "leaky_relu": Activation(RECTIFIER, _leaky(0.01), with_k=_leaky),  # Maas et al., 2013
    "elu": Activation(RECTIFIER, _elu(1.0), with_k=_elu),  # Clevert et al., 2016
    # Klambauer et al., 2017
    "selu": Activation(RECTIFIER, (_SELU_SCALE, 0.0, _SELU_SCALE * _SELU_ALPHA, 1.0)),
    # Hendrycks and Gimpel, 2016: 1/2 z (1 + erf(z / sqrt(2))); "gelu" is their approximation of it,
    # 1/2 z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3)))
    "gelu_erf": Activation(NORMAL_GATE, slope_from_input=True),
    "gelu": Activation(GATE, (_GELU, _GELU * 0.044715), slope_from_input=True),
    "silu": Activation(GATE, (1.0, 0.0), slope_from_input=True),  # z logistic(z)
    "softplus": Activation(SOFTPLUS, output=True),  # log(1 + exp(z))
}


@leaf
def logistic(z):
    return elementary.logistic(z)


@leaf
def tanh(z):
    return elementary.tanh(z)


@leaf
def normal_gate(z):
    return z * elementary.normal(z)


@leaf
def exp(z):
    return elementary.exp(z)


@leaf
def softplus(z):
    T = type(z)
    rest = elementary.log(T(1) + elementary.exp(-abs(z)))
    return rest if z < T(0) else z + rest


def _in_place(f):
    """The loop a[i] <- f(a[i])."""

    @leaf
    def over(a):
        for i in range(a.size):
            a[i] = f(a[i])

    return over


def _emit_relu(emit, a, n):
    """a <- max(a, 0); NaN passes, as in numpy.maximum."""
    builder, lanes = emit.builder, emit.integer(emit.lanes)

    def one_vector(values):
        emit.store(emit.positive(emit.load(values[0], 0)), values[0])
        return [emit.element(values[0], lanes)]

    (at,) = emit.loop(builder.sdiv(n, lanes), [a], one_vector)
    left = builder.srem(n, lanes)
    rest = emit.positive(emit.load(at, 0, emit.mask(0, left)))
    emit.store_part([[rest]], at, emit.integer(0), emit.integer(1), left)


_codegen_relu = emitted("relu", _emit_relu, 2)


@intrinsic
def _relu_of(typingctx, like, a, n):
    return types.void(like, types.intp, types.intp), _codegen_relu


@leaf
def _relu(a):
    _relu_of(a.dtype.type(0), address(a, 0), a.size)


@leaf
def _polynomial_slope(d, a, p, q, r):
    for i in range(d.size):
        d[i] *= p + a[i] * (q + r * a[i])


@leaf
def _softplus_slope(d, a):
    T = a.dtype.type
    for i in range(d.size):
        d[i] *= T(1) - elementary.exp(-a[i])


@leaf
def _relu_slope(d, a):
    # Not a product: 0 * inf would be NaN where scikit-learn has 0.
    zero = d.dtype.type(0)
    for i in range(d.size):
        d[i] = zero if a[i] == zero else d[i]


@leaf
def _step(a, k):
    T = a.dtype.type
    for i in range(a.size):
        a[i] = T(1) if a[i] >= k else T(0)


@leaf
def _rectifier(a, p, q, r):
    T = a.dtype.type
    for i in range(a.size):
        z = a[i]
        low = q * z + r * (elementary.exp(z) - T(1))
        a[i] = p * z if z > T(0) else low


@leaf
def _rectifier_slope(d, a, p, q, r, curved):
    # Where z <= 0 and q = 0, r exp(z) is a + r; ``curved`` is 0 where r is.
    T = a.dtype.type
    for i in range(d.size):
        d[i] *= p if a[i] > T(0) else q + curved * (a[i] + r)


@leaf
def _gate(a, c, d):
    for i in range(a.size):
        z = a[i]
        a[i] = z * elementary.logistic(z * (c + d * z * z))


@leaf
def _gate_with_slopes(a, slopes, c, d):
    T = a.dtype.type
    for i in range(a.size):
        z = a[i]
        square = z * z
        gate = elementary.logistic(z * (c + d * square))
        slopes[i] = gate * (T(1) + z * (T(1) - gate) * (c + T(3) * d * square))
        a[i] = z * gate


@leaf
def _normal_gate_with_slopes(a, slopes):
    T = a.dtype.type
    density = T(1 / math.sqrt(2 * math.pi))
    for i in range(a.size):
        z = a[i]
        gate = elementary.normal(z)
        slopes[i] = gate + z * (density * elementary.exp(-T(0.5) * z * z))
        a[i] = z * gate


_logistic, _tanh, _exp, _softplus = map(_in_place, (logistic, tanh, exp, softplus))
_normal_gate = _in_place(normal_gate)


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
def _softmax_slope(d, a, width):
    """d_k <- a_k (d_k - sum_j d_j a_j), row by row."""
    for start in range(0, a.size, width):
        row, delta = a[start : start + width], d[start : start + width]
        mean = row[0] * delta[0]
        for k in range(1, width):
            mean += row[k] * delta[k]
        for k in range(width):
            delta[k] = row[k] * (delta[k] - mean)


@shared
def activate(code, constants, a, width):
    """a <- sigma(a), rows of ``width`` units; ``constants`` of the function, ``(N_CONSTANTS,)``."""
    T = a.dtype.type
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
    elif code == RECTIFIER:
        _rectifier(a, T(constants[0]), T(constants[1]), T(constants[2]))
    elif code == GATE:
        _gate(a, T(constants[0]), T(constants[1]))
    elif code == NORMAL_GATE:
        _normal_gate(a)
    elif code == SOFTPLUS:
        _softplus(a)
    elif code == STEP:
        _step(a, T(constants[0]))


@shared
def multiply_by_slope(code, constants, d, a, width):
    """d <- d * sigma'(z), from dC/da to dC/dz, with ``a`` = sigma(z).

    For functions with ``slope_from_input`` there is ``activate_with_slopes``. The step function has
    no slope to learn from: nothing is done.
    """
    T = d.dtype.type
    if code == RELU:
        _relu_slope(d, a)
    elif code in (LOGISTIC, TANH, EXP):
        _polynomial_slope(d, a, T(constants[0]), T(constants[1]), T(constants[2]))
    elif code == SOFTMAX:
        _softmax_slope(d, a, width)
    elif code == RECTIFIER:
        p, q, r, curved = T(constants[0]), T(constants[1]), T(constants[2]), T(constants[3])
        _rectifier_slope(d, a, p, q, r, curved)
    elif code == SOFTPLUS:
        _softplus_slope(d, a)


@shared
def activate_with_slopes(code, constants, a, slopes, width):
    """a <- sigma(a), and slopes <- sigma' of what a was; not for softmax."""
    T = a.dtype.type
    if code == GATE:
        _gate_with_slopes(a, slopes, T(constants[0]), T(constants[1]))
    elif code == NORMAL_GATE:
        _normal_gate_with_slopes(a, slopes)
    else:
        activate(code, constants, a, width)
        for i in range(slopes.size):
            slopes[i] = T(1)
        multiply_by_slope(code, constants, slopes, a, width)
