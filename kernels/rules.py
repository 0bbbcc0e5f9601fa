"""Update rules: how the gradient changes the weights.

Every rule first completes the gradient, g <- (g + alpha w) / W, with W the sum of the example
weights of the mini-batch (its size without weights); biases have alpha 0. Then:

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

GRADIENT, SGD, NESTEROV, ADAM = range(4)
SLOTS = {GRADIENT: 0, SGD: 1, NESTEROV: 1, ADAM: 2}  # vectors of optimiser state


class Rule(NamedTuple):
    """An update rule and its constants, float64; kernels convert them once per call."""

    code: int
    learning_rate: float
    alpha: float
    momentum: float  # beta_1 of Adam
    beta_2: float
    epsilon: float


@leaf
def _complete(w, g, start, stop, alpha, scale):
    for i in range(start, stop):
        g[i] = (g[i] + alpha * w[i]) * scale


@leaf
def _sgd(w, g, state, start, stop, alpha, scale, eta, momentum):
    for i in range(start, stop):
        v = momentum * state[0, i] - eta * ((g[i] + alpha * w[i]) * scale)
        state[0, i] = v
        w[i] += v


@leaf
def _nesterov(w, g, state, start, stop, alpha, scale, eta, momentum):
    for i in range(start, stop):
        step = eta * ((g[i] + alpha * w[i]) * scale)
        v = momentum * state[0, i] - step
        state[0, i] = v
        w[i] += momentum * v - step


@leaf
def _adam(w, g, state, start, stop, alpha, scale, eta, beta_1, rest_1, beta_2, rest_2, epsilon):
    for i in range(start, stop):
        step = (g[i] + alpha * w[i]) * scale
        m = beta_1 * state[0, i] + rest_1 * step
        v = beta_2 * state[1, i] + rest_2 * (step * step)
        state[0, i] = m
        state[1, i] = v
        w[i] -= eta * m / (np.sqrt(v) + epsilon)


@leaf
def update(rule, w, g, state, start, stop, alpha, total_weight, t):
    """Update ``w[start:stop]`` from its gradient sums ``g``; ``t`` counts updates from 1."""
    T = w.dtype.type
    scale = T(1.0 / total_weight)
    eta = T(rule.learning_rate)
    if rule.code == ADAM:
        correction = np.sqrt(1.0 - rule.beta_2**t) / (1.0 - rule.momentum**t)
        _adam(
            w,
            g,
            state,
            start,
            stop,
            T(alpha),
            scale,
            T(rule.learning_rate * correction),
            T(rule.momentum),
            T(1.0 - rule.momentum),
            T(rule.beta_2),
            T(1.0 - rule.beta_2),
            T(rule.epsilon),
        )
    elif rule.code == NESTEROV:
        _nesterov(w, g, state, start, stop, T(alpha), scale, eta, T(rule.momentum))
    elif rule.code == SGD:
        _sgd(w, g, state, start, stop, T(alpha), scale, eta, T(rule.momentum))
    else:
        _complete(w, g, start, stop, T(alpha), scale)
