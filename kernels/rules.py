"""Update rules: how the gradient changes the weights.

Every rule first completes the gradient, g <- (g + alpha w) / W, with W the sum of the example
weights of the mini-batch (its size without weights); biases have alpha 0. It also sums the squares
of w for the penalty, in the same pass. Then there are two forms::

    MOMENTUM    v <- b1 v + c1 g;                              w <- w + s1 v + s2 g
    ADAPTIVE    m <- b1 m + c1 g;  v <- b2 v + c2 g^2;
                w <- keep w - (s1 m + s2 g) / (sqrt(v) + epsilon)

and the rules are coefficients for them, which ``coefficients`` computes for each update:

* SGD, NESTEROV (with momentum)
* ADAM: section 2 of Kingma and Ba (2015), with epsilon outside the bias correction, as in
  scikit-learn
* ADAMW: Loshchilov and Hutter (2019); NADAM: Dozat (2016). Epsilon inside the bias correction
* RMSPROP: Tieleman and Hinton (2012); ADAGRAD: Duchi et al. (2011)
* GRADIENT: nothing; for optimisers outside, such as L-BFGS

To add a rule: a code, an entry in ``SOLVERS``, its form, and its coefficients.
"""

from typing import NamedTuple

import numpy as np

from .jit import leaf, shared

GRADIENT, SGD, NESTEROV, ADAM, ADAMW, NADAM, RMSPROP, ADAGRAD = range(8)
SOLVERS = {
    "sgd": SGD,
    "adam": ADAM,
    "adamw": ADAMW,
    "nadam": NADAM,
    "rmsprop": RMSPROP,
    "adagrad": ADAGRAD,
}


def n_slots(code):
    """Number of vectors of optimiser state."""
    return 0 if code == GRADIENT else (1 if code in (SGD, NESTEROV) else 2)


class Rule(NamedTuple):
    """An update rule and its constants, float64; kernels convert them once per mini-batch."""

    code: int
    learning_rate: float
    alpha: float
    momentum: float  # beta_1 of the adaptive rules
    beta_2: float
    epsilon: float
    weight_decay: float = 0.0
    clip_norm: float = np.inf


class Coefficients(NamedTuple):
    """What the two forms take, for one update."""

    b1: float
    c1: float
    b2: float
    c2: float
    s1: float
    s2: float
    epsilon: float
    keep: float


@leaf
def coefficients(rule, t):
    """The coefficients of update number ``t``, counted from 1."""
    eta, b1, b2 = rule.learning_rate, rule.momentum, rule.beta_2
    c1, c2, s1, s2, epsilon, keep = 1.0 - b1, 1.0 - b2, 0.0, eta, rule.epsilon, 1.0
    if rule.code in (SGD, NESTEROV):
        c1, s1, s2 = -eta, 1.0, 0.0
        if rule.code == NESTEROV:
            s1, s2 = b1, -eta
    elif rule.code == ADAGRAD:
        b2, c2 = 1.0, 1.0
    elif rule.code in (ADAM, ADAMW, NADAM):
        second = np.sqrt(1.0 - b2**t)
        s1, s2 = eta * second / (1.0 - b1**t), 0.0
        if rule.code != ADAM:
            epsilon *= second
        if rule.code == ADAMW:
            keep = 1.0 - eta * rule.weight_decay
        elif rule.code == NADAM:
            s2 = s1 * (1.0 - b1)
            s1 = eta * second * b1 / (1.0 - b1 ** (t + 1))
    return Coefficients(b1, c1, b2, c2, s1, s2, epsilon, keep)


@leaf
def _complete(w, g, alpha, scale):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        g[i] = (g[i] + alpha * w[i]) * scale
    return squares


@leaf
def _momentum(w, g, v, alpha, scale, b1, c1, s1, s2):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        step = (g[i] + alpha * w[i]) * scale
        v[i] = b1 * v[i] + c1 * step
        w[i] += s1 * v[i] + s2 * step
    return squares


@leaf
def _adaptive(w, g, m, v, alpha, scale, b1, c1, b2, c2, s1, s2, epsilon, keep):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        step = (g[i] + alpha * w[i]) * scale
        m[i] = b1 * m[i] + c1 * step
        v[i] = b2 * v[i] + c2 * (step * step)
        w[i] = keep * w[i] - (s1 * m[i] + s2 * step) / (np.sqrt(v[i]) + epsilon)
    return squares


@leaf
def update(code, c, w, g, state, start, stop, alpha, scale, is_bias):
    """Update the weights ``w`` from their gradient sums ``g``, both of ``theta[start:stop]``.

    Parameters
    ----------
    code : of the rule
    c : Coefficients
    alpha : of the penalty, 0 for biases
    scale : what the completed gradient is multiplied with, 1 / W

    Returns
    -------
    the sum of squares of the weights as they were
    """
    T = w.dtype.type
    if code == GRADIENT:
        squares = _complete(w, g, T(alpha), T(scale))
    elif code in (SGD, NESTEROV):
        v = state[0, start:stop]
        squares = _momentum(w, g, v, T(alpha), T(scale), T(c.b1), T(c.c1), T(c.s1), T(c.s2))
    else:
        squares = _adaptive(
            w,
            g,
            state[0, start:stop],
            state[1, start:stop],
            T(alpha),
            T(scale),
            T(c.b1),
            T(c.c1),
            T(c.b2),
            T(c.c2),
            T(c.s1),
            T(c.s2),
            T(c.epsilon),
            T(1.0 if is_bias else c.keep),
        )
    return np.float64(squares)


@shared
def squared_norm(w, g, alpha):
    """Sum of squares of g + alpha w, for clipping."""
    total = w.dtype.type(0)
    for i in range(w.size):
        step = g[i] + alpha * w[i]
        total += step * step
    return np.float64(total)
