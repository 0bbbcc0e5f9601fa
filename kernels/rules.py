"""Update rules: how the gradient changes the weights.

Every rule first completes the gradient, g <- (g + alpha w) / W, with W the sum of the example
weights of the mini-batch (its size without weights); biases have alpha 0. It also sums the squares
of w for the penalty, in the same pass. Then there are two forms::

    MOMENTUM    v <- decay_1 v + gain_1 g
                w <- w + step_of_moment v + step_of_gradient g
    ADAPTIVE    m <- decay_1 m + gain_1 g
                v <- decay_2 v + gain_2 g^2
                w <- keep w - (step_of_moment m + step_of_gradient g) / (sqrt(v) + epsilon)

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
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .emit import Vector, emitted
from .jit import leaf, shared
from .machine import CACHE_LINE, VECTOR_BYTES, emit_prefetch
from .matmul import address

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


# Weights and moments are prefetched so many bytes before they are updated: where there are more
# than a cache holds, as of text, updates then take as long as memory does.
AHEAD = 2048


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
    lazy: bool = False  # of CSR rows, only the weights of features that a mini-batch has


class Coefficients(NamedTuple):
    """What the two forms take, for one update."""

    decay_1: float
    gain_1: float
    decay_2: float
    gain_2: float
    step_of_moment: float
    step_of_gradient: float
    epsilon: float
    keep: float


@leaf
def coefficients(rule, t):
    """The coefficients of update number ``t``, counted from 1."""
    eta, beta_1, beta_2 = rule.learning_rate, rule.momentum, rule.beta_2
    gain_1, decay_2, gain_2 = 1.0 - beta_1, beta_2, 1.0 - beta_2
    step_of_moment, step_of_gradient, epsilon, keep = 0.0, eta, rule.epsilon, 1.0
    if rule.code in (SGD, NESTEROV):
        gain_1 = -eta
        if rule.code == SGD:
            step_of_moment, step_of_gradient = 1.0, 0.0
        else:  # looks ahead by another step of the momentum
            step_of_moment, step_of_gradient = beta_1, -eta
    elif rule.code == ADAGRAD:
        decay_2, gain_2 = 1.0, 1.0
    elif rule.code in (ADAM, ADAMW, NADAM):
        # Both moments begin at zero: the corrections for it go into the step.
        second = np.sqrt(1.0 - beta_2**t)
        step_of_moment, step_of_gradient = eta * second / (1.0 - beta_1**t), 0.0
        if rule.code != ADAM:
            epsilon *= second
        if rule.code == ADAMW:
            keep = 1.0 - eta * rule.weight_decay
        elif rule.code == NADAM:
            step_of_gradient = step_of_moment * (1.0 - beta_1)
            step_of_moment = eta * second * beta_1 / (1.0 - beta_1 ** (t + 1))
    return Coefficients(
        beta_1, gain_1, decay_2, gain_2, step_of_moment, step_of_gradient, epsilon, keep
    )


@leaf
def _typed(c, T, is_bias):
    """The coefficients as numbers of type T; biases do not decay."""
    # Squares below the least normal number are 0, so roots below its root are: a smaller epsilon
    # would mean nothing, and the product of two denominators would be 0.
    least = np.sqrt(np.finfo(T).tiny)
    return Coefficients(
        T(c.decay_1),
        T(c.gain_1),
        T(c.decay_2),
        T(c.gain_2),
        T(c.step_of_moment),
        T(c.step_of_gradient),
        max(T(c.epsilon), least),
        T(1.0 if is_bias else c.keep),
    )


@leaf
def _complete(w, g, alpha, scale):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        g[i] = (g[i] + alpha * w[i]) * scale
    return squares


@leaf
def _momentum(w, g, v, c, alpha, scale):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        step = (g[i] + alpha * w[i]) * scale
        v[i] = c.decay_1 * v[i] + c.gain_1 * step
        w[i] += c.step_of_moment * v[i] + c.step_of_gradient * step
    return squares


def _adaptive_step(c, alpha, scale, w, g, m, v):
    """The formula of ADAPTIVE: new moments, numerator and denominator of the step."""
    step = (g + alpha * w) * scale
    m = c.decay_1 * m + c.gain_1 * step
    v = c.decay_2 * v + c.gain_2 * (step * step)
    return m, v, c.step_of_moment * m + c.step_of_gradient * step, v.sqrt() + c.epsilon


def _emit_adaptive(emit, w, g, m, v, n, *numbers):
    """Update n weights and their moments in place; returns the sum of squares of the weights.

    Two vectors share a quotient, 1/p = q / (p q), as square roots and quotients are most of it.
    """
    builder = emit.builder
    # Where squares are infinite, 1/(p q) is 0, and so are both steps; but not 0 times infinity.
    constants = [ir.Constant(emit.real, float(x)) for x in (1.0, np.finfo(f"f{emit.size}").max)]
    *c, alpha, scale, one, most = (
        Vector(emit, emit.splat(number)) for number in (*numbers, *constants)
    )
    c = Coefficients(*c)

    def two_vectors(offset, sums, count=None):
        places, pair = [builder.add(at, offset) for at in (w, g, m, v)], []
        if count is None:
            for at in (places[0], *places[2:]):
                for line in range(0, 2 * VECTOR_BYTES, CACHE_LINE):
                    emit_prefetch(builder, builder.add(at, emit.integer(AHEAD + line)))
        for j in range(2):
            mask = None if count is None else emit.mask(j, count)
            values = [Vector(emit, emit.load(at, j, mask)) for at in places]
            pair.append((values[0], *_adaptive_step(c, alpha, scale, *values)))
        (w_1, m_1, v_1, a, p), (w_2, m_2, v_2, b, q) = pair
        inverse = one / (p * q)
        results = {
            places[0]: (
                c.keep * w_1 - a * (q.at_most(most) * inverse),
                c.keep * w_2 - b * (p.at_most(most) * inverse),
            ),
            places[2]: (m_1, m_2),
            places[3]: (v_1, v_2),
        }
        for at, (first, second) in results.items():
            if count is None:
                emit.store(first.value, at, 0)
                emit.store(second.value, at, 1)
            else:
                emit.store_part(
                    [[first.value, second.value]], at, emit.integer(0), emit.integer(1), count
                )
        return [
            (Vector(emit, total) + x * x).value for total, x in zip(sums, (w_1, w_2), strict=True)
        ]

    size = emit.integer(2 * emit.lanes)
    step = emit.integer(2 * emit.lanes * emit.size)
    offset, *sums = emit.loop(
        builder.sdiv(n, size),
        [emit.integer(0), emit.zero, emit.zero],
        lambda values: [builder.add(values[0], step), *two_vectors(values[0], values[1:])],
    )
    left = builder.srem(n, size)
    sums = emit.choose(
        builder.icmp_signed(">", left, emit.integer(0)),
        lambda: two_vectors(offset, sums, left),
        sums,
    )
    return emit.sum_of_lanes(builder.fadd(*sums))


_codegen_adaptive = emitted("adaptive", _emit_adaptive, 5, len(Coefficients._fields) + 2)


@intrinsic
def _adaptive(typingctx, like, w, g, m, v, n, c, alpha, scale):
    signature = like(like, *[types.intp] * 5, c, like, like)

    def codegen(context, builder, signature, args):
        *addresses, c, alpha, scale = args
        numbers = cgutils.unpack_tuple(builder, c, len(Coefficients._fields))
        return _codegen_adaptive(context, builder, signature, [*addresses, *numbers, alpha, scale])

    return signature, codegen


@leaf
def update(rule, c, w, g, state, first, scale, is_bias):
    """Update the weights ``w`` from their gradient sums ``g``, both of ``theta[first:]``.

    Parameters
    ----------
    rule : Rule, or a record with its fields
    c : Coefficients
    w, g : of one size
    state : (n_slots, n_params)
    scale : what the completed gradient is multiplied with, 1 / W
    is_bias : whether ``w`` are biases, which are neither penalised nor decay

    Returns
    -------
    the sum of squares of the weights as they were, float64
    """
    T = w.dtype.type
    # Conversion once per chunk, so that loops over float32 have no float64 in them.
    c, scale, alpha = _typed(c, T, is_bias), T(scale), T(0.0 if is_bias else rule.alpha)
    stop = first + w.size
    if rule.code == GRADIENT:
        squares = _complete(w, g, alpha, scale)
    elif rule.code in (SGD, NESTEROV):
        squares = _momentum(w, g, state[0, first:stop], c, alpha, scale)
    else:
        at_w, at_g, m, v = address(w, 0), address(g, 0), state[0], state[1]
        at_m, at_v = address(m, first), address(v, first)
        squares = _adaptive(T(0), at_w, at_g, at_m, at_v, w.size, c, alpha, scale)
    return np.float64(squares)


@shared
def squared_norm(w, g, alpha):
    """Sum of squares of g + alpha w, for clipping."""
    total = w.dtype.type(0)
    for i in range(w.size):
        step = g[i] + alpha * w[i]
        total += step * step
    return np.float64(total)
