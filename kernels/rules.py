"""Update rules: how the gradient changes the weights.

Every rule first completes the gradient, g <- (g + alpha w) / W, with W the sum of the example
weights of the mini-batch (its size without weights); biases have alpha 0. It also sums the squares
of w for the penalty, in the same pass. Then there are two forms::

    MOMENTUM    v <- decay_1 v + gain_1 g
                w <- w + step v + ahead g
    ADAPTIVE    m <- decay_1 m + gain_1 g
                v <- decay_2 v + (gain_2 g)^2
                w <- keep w - step (m + ahead g) / (sqrt(v) + epsilon)

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

# With less of it, the gradient outweighs the moment beyond all digits, and NADAM's ``ahead`` would
# become infinite.
LEAST_MOMENTUM = 1e-30


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
    step: float
    ahead: float
    epsilon: float
    keep: float


@leaf
def coefficients(rule, t):
    """The coefficients of update number ``t``, counted from 1."""
    eta, beta_1, beta_2 = rule.learning_rate, rule.momentum, rule.beta_2
    # Without momentum m is the gradient itself.
    decay_1, gain_1, decay_2, gain_2 = 0.0, 1.0, beta_2, np.sqrt(1.0 - beta_2)
    step, ahead, epsilon, keep = eta, 0.0, rule.epsilon, 1.0
    if rule.code in (SGD, NESTEROV):
        decay_1, gain_1, step = beta_1, -eta, 1.0
        if rule.code == NESTEROV:  # looks ahead by another step of the momentum
            step, ahead = beta_1, -eta
    elif rule.code == ADAGRAD:
        decay_2, gain_2 = 1.0, 1.0
    elif rule.code in (ADAM, ADAMW, NADAM):
        decay_1, gain_1 = beta_1, 1.0 - beta_1
        # Both moments begin at zero: the corrections for it go into the step.
        second = np.sqrt(1.0 - beta_2**t)
        step = eta * second / (1.0 - beta_1**t)
        if rule.code != ADAM:
            epsilon *= second
        if rule.code == ADAMW:
            keep = 1.0 - eta * rule.weight_decay
        elif rule.code == NADAM and beta_1 > LEAST_MOMENTUM:
            of_gradient = step * gain_1
            step = eta * second * beta_1 / (1.0 - beta_1 ** (t + 1))
            ahead = of_gradient / step
    return Coefficients(decay_1, gain_1, decay_2, gain_2, step, ahead, epsilon, keep)


@leaf
def _typed(c, T, is_bias, scale):
    """The coefficients for gradients that lack a factor ``scale``, as numbers of type T.

    Biases do not decay.
    """
    # Squares below the least normal number are 0, so roots below its root are: a smaller epsilon
    # would mean nothing.
    least = np.sqrt(np.finfo(T).tiny)
    return Coefficients(
        T(c.decay_1),
        T(c.gain_1 * scale),
        T(c.decay_2),
        T(c.gain_2 * scale),
        T(c.step),
        T(c.ahead * scale),
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
def _momentum(w, g, v, c, alpha):
    squares = w.dtype.type(0)
    for i in range(w.size):
        squares += w[i] * w[i]
        complete = g[i] + alpha * w[i]
        v[i] = c.decay_1 * v[i] + c.gain_1 * complete
        w[i] += c.step * v[i] + c.ahead * complete
    return squares


def _adaptive_step(c, alpha, w, g, m, v):
    """The formula of ADAPTIVE: new moments, numerator and denominator of the step."""
    complete = g + alpha * w
    m = c.decay_1 * m + c.gain_1 * complete
    gained = c.gain_2 * complete
    v = c.decay_2 * v + gained * gained
    return m, v, m + c.ahead * complete, v.sqrt() + c.epsilon


def _emit_adaptive(emit, w, g, m, v, n, *numbers):
    """Update n weights and their moments in place; returns the sum of squares of the weights.

    Roots and quotients are most of it. Four vectors share a quotient, 1/p = q r s / (p q r s).
    """
    builder = emit.builder
    part = ir.Constant(emit.real, 2.0**-16)
    *c, alpha, part = (Vector(emit, emit.splat(number)) for number in (*numbers, part))
    c = Coefficients(*c)
    most = c.step * part

    def store(vector, at, j, count):
        if count is None:
            emit.store(vector.value, at, j)
        else:
            emit.store_part([[vector.value]], at, emit.integer(0), emit.integer(1), count)

    def step_of(offset, j=0, count=None):
        """New moments of vector j; its weights, numerator and denominator of their step."""
        places = [builder.add(at, offset) for at in (w, g, m, v)]
        mask = None if count is None else emit.mask(j, count)
        values = [Vector(emit, emit.load(at, j, mask)) for at in places]
        *moments, a, p = _adaptive_step(c, alpha, *values)
        for moment, at in zip(moments, places[2:], strict=True):
            store(moment, at, j, count)
        return values[0], a, p

    def new_weights(offset, weights, step, j=0, count=None):
        store(c.keep * weights - step, builder.add(w, offset), j, count)

    def four_vectors(values):
        offset, *sums = values
        for at in (w, m, v):
            for line in range(0, 4 * VECTOR_BYTES, CACHE_LINE):
                emit_prefetch(
                    builder, builder.add(at, builder.add(offset, emit.integer(AHEAD + line)))
                )
        weights, numerators, denominators = zip(
            *[step_of(offset, j) for j in range(4)], strict=True
        )
        p, q, r, s = denominators
        pq, rs = p * q, r * s
        product = pq * rs
        inverse = c.step / product
        of_pq, of_rs = inverse * rs, inverse * pq
        factors = q * of_pq, p * of_pq, s * of_rs, r * of_rs
        steps = [(a * factor).value for a, factor in zip(numerators, factors, strict=True)]
        # Where the product or its inverse leaves the normal numbers, each is divided for itself.
        good = builder.fcmp_ordered("<=", (product * inverse - c.step).size().value, most.value)
        flags = ir.IntType(emit.lanes)
        bad = builder.icmp_signed("!=", builder.bitcast(good, flags), ir.Constant(flags, -1))
        steps = emit.choose(
            bad,
            lambda: [(c.step * a / b).value for a, b in zip(numerators, denominators, strict=True)],
            steps,
        )
        for j, step in enumerate(steps):
            new_weights(offset, weights[j], Vector(emit, step), j)
        squares = [
            (Vector(emit, sum_j) + x * x).value for sum_j, x in zip(sums, weights, strict=True)
        ]
        return [builder.add(offset, emit.integer(4 * VECTOR_BYTES)), *squares]

    def one_vector(values, count=None):
        offset, total = values
        weights, a, p = step_of(offset, 0, count)
        new_weights(offset, weights, c.step * a / p, 0, count)
        total = (Vector(emit, total) + weights * weights).value
        return [builder.add(offset, emit.integer(VECTOR_BYTES)), total]

    in_four, in_one = emit.integer(4 * emit.lanes), emit.integer(emit.lanes)
    offset, *sums = emit.loop(
        builder.sdiv(n, in_four), [emit.integer(0), *[emit.zero] * 4], four_vectors
    )
    total = builder.fadd(builder.fadd(*sums[:2]), builder.fadd(*sums[2:]))
    values = emit.loop(builder.sdiv(builder.srem(n, in_four), in_one), [offset, total], one_vector)
    left = builder.srem(n, in_one)
    _, total = emit.choose(
        builder.icmp_signed(">", left, emit.integer(0)), lambda: one_vector(values, left), values
    )
    return emit.sum_of_lanes(total)


_codegen_adaptive = emitted("adaptive", _emit_adaptive, 5, len(Coefficients._fields) + 1)


@intrinsic
def _adaptive(typingctx, like, w, g, m, v, n, c, alpha):
    signature = like(like, *[types.intp] * 5, c, like)

    def codegen(context, builder, signature, args):
        *addresses, c, alpha = args
        numbers = cgutils.unpack_tuple(builder, c, len(Coefficients._fields))
        return _codegen_adaptive(context, builder, signature, [*addresses, *numbers, alpha])

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
    c, alpha = _typed(c, T, is_bias, scale), T(0.0 if is_bias else rule.alpha)
    stop = first + w.size
    if rule.code == GRADIENT:
        squares = _complete(w, g, alpha, T(scale))
    elif rule.code in (SGD, NESTEROV):
        squares = _momentum(w, g, state[0, first:stop], c, alpha)
    else:
        at_w, at_g, m, v = address(w, 0), address(g, 0), state[0], state[1]
        at_m, at_v = address(m, first), address(v, first)
        squares = _adaptive(T(0), at_w, at_g, at_m, at_v, w.size, c, alpha)
    return np.float64(squares)


@shared
def squared_norm(w, g, alpha):
    """Sum of squares of g + alpha w, for clipping."""
    total = w.dtype.type(0)
    for i in range(w.size):
        step = g[i] + alpha * w[i]
        total += step * step
    return np.float64(total)
