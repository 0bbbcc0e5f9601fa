"""Update rules: how the gradient changes the weights.

Every rule first completes the gradient, g <- (g + alpha w) / W, with W the sum of the example
weights of the mini-batch (its size without weights); biases have alpha 0. It also sums the squares
of w for the penalty, in the same pass. Then:

===========  =====================================================================
GRADIENT     nothing: for optimisers outside, such as L-BFGS
SGD          v <- momentum v - eta g;  w <- w + v
NESTEROV     v as SGD;  w <- w + momentum v - eta g
ADAM         m <- beta_1 m + (1 - beta_1) g;  v <- beta_2 v + (1 - beta_2) g^2;
             w <- w - eta sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
===========  =====================================================================

Adam is the form of section 2 of Kingma and Ba (2015) with epsilon outside the bias correction, as
in scikit-learn. To add a rule: a code, its slots, its loop, and a line in ``update``.
"""

from typing import NamedTuple

import numpy as np

from .jit import leaf
from .layout import ALPHA, BETA_2, CODE, EPSILON, LEARNING_RATE, MOMENTUM

GRADIENT, SGD, NESTEROV, ADAM = range(4)
SLOTS = {GRADIENT: 0, SGD: 1, NESTEROV: 1, ADAM: 2}  # vectors of optimiser state


class Rule(NamedTuple):
    """An update rule and its constants, float64; kernels convert them once per mini-batch."""

    code: int
    learning_rate: float
    alpha: float
    momentum: float  # beta_1 of Adam
    beta_2: float
    epsilon: float


def give(orders, rule):
    """Write the rule into the orders of a slice."""
    orders.integers[CODE] = rule.code
    orders.numbers[LEARNING_RATE : EPSILON + 1] = rule[1:]


@leaf
def rule_of(orders):
    """The rule that is to be found there."""
    numbers = orders.numbers
    return Rule(
        orders.integers[CODE],
        numbers[LEARNING_RATE],
        numbers[ALPHA],
        numbers[MOMENTUM],
        numbers[BETA_2],
        numbers[EPSILON],
    )


@leaf
def _complete(w, g, alpha, scale):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        g[i] = (g[i] + alpha * w[i]) * scale
    return squares


@leaf
def _sgd(w, g, v, alpha, scale, eta, momentum):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        v[i] = momentum * v[i] - eta * ((g[i] + alpha * w[i]) * scale)
        w[i] += v[i]
    return squares


@leaf
def _nesterov(w, g, v, alpha, scale, eta, momentum):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        step = eta * ((g[i] + alpha * w[i]) * scale)
        v[i] = momentum * v[i] - step
        w[i] += momentum * v[i] - step
    return squares


@leaf
def _adam(w, g, m, v, alpha, scale, eta, beta_1, rest_1, beta_2, rest_2, epsilon):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        step = (g[i] + alpha * w[i]) * scale
        m[i] = beta_1 * m[i] + rest_1 * step
        v[i] = beta_2 * v[i] + rest_2 * (step * step)
        w[i] -= eta * m[i] / (np.sqrt(v[i]) + epsilon)
    return squares


@leaf
def learning_rate(rule, t):
    """The step size of update number ``t``, counted from 1: with Adam's bias corrections."""
    if rule.code == ADAM:
        correction = np.sqrt(1.0 - rule.beta_2**t) / (1.0 - rule.momentum**t)
        return rule.learning_rate * correction
    return rule.learning_rate


@leaf
def update(rule, w, g, state, start, stop, alpha, total_weight, eta):
    """Update the weights ``w`` from their gradient sums ``g``, both of ``theta[start:stop]``.

    Returns the sum of squares of the weights as they were.
    """
    T = w.dtype.type
    scale = T(1.0 / total_weight)
    if rule.code == ADAM:
        squares = _adam(
            w,
            g,
            state[0, start:stop],
            state[1, start:stop],
            T(alpha),
            scale,
            T(eta),
            T(rule.momentum),
            T(1.0 - rule.momentum),
            T(rule.beta_2),
            T(1.0 - rule.beta_2),
            T(rule.epsilon),
        )
    elif rule.code == NESTEROV:
        v = state[0, start:stop]
        squares = _nesterov(w, g, v, T(alpha), scale, T(eta), T(rule.momentum))
    elif rule.code == SGD:
        v = state[0, start:stop]
        squares = _sgd(w, g, v, T(alpha), scale, T(eta), T(rule.momentum))
    else:
        squares = _complete(w, g, T(alpha), scale)
    return np.float64(squares)
