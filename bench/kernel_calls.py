"""The only calls of the benchmarks into the kernels and their trainer: one adapter for each.

They take NumPy arrays and nothing else, so that a change inside ``kernels/`` is a change here.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numba import njit

from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels import activations, rules
from fastnn.kernels.jit import FLAGS
from fastnn.kernels.layout import flatten, views
from fastnn.kernels.matmul import OVERWRITE, matmul, matrix, scratch_of
from fastnn.kernels.plan import work_for
from fastnn.kernels.tiles import NOTHING

from .cases import ALPHA, LEARNING_RATE

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
_ADAM = rules.Rule(rules.ADAM, LEARNING_RATE, ALPHA, BETA_1, BETA_2, EPSILON)
_jit = njit(**FLAGS)


@_jit
def _product(C, A, a_row, a_column, B, buffers):
    M, N = C.shape
    K = B.shape[0]
    to, left, right = matrix(C, 0, N, 1), matrix(A, 0, a_row, a_column), matrix(B, 0, N, 1)
    matmul(scratch_of(buffers, 0), OVERWRITE, NOTHING, to, left, right, M, N, K)


def product(C, A, B):
    """The call C <- A B, ready to be made; C and B are C-contiguous, A or its transpose is."""
    buffers = work_for((1, 1), C.dtype, len(C), 1).packed
    if A.flags.c_contiguous:
        arguments = (C, A, A.shape[1], 1, B, buffers)
    else:
        arguments = (C, A.T, 1, A.shape[0], B, buffers)
    return lambda: _product(*arguments)


@contextmanager
def product_on_threads(C, A, B, n_threads):
    """The call C <- A B on blocks of rows, each on a thread of its own."""
    if n_threads == 1:
        yield product(C, A, B)
        return
    blocks = zip(*(np.array_split(each, n_threads) for each in (C, A)), strict=True)
    products = [product(c, a, B) for c, a in blocks]
    with ThreadPoolExecutor(n_threads) as pool:
        yield lambda: list(pool.map(lambda multiply: multiply(), products))


@_jit
def _activate(code, a):
    activations.activate(code, np.zeros(activations.N_CONSTANTS), a.ravel(), a.shape[1])


def activate(name, a):
    """a <- the activation function ``name`` of a, in place; a is ``(rows, units)``."""
    _activate(activations.ACTIVATIONS[name].code, a)


@_jit
def _update(rule, w, g, state, t):
    c = rules.coefficients(rule, t)
    rules.update(rule, c, w, g, state, 0, 1.0, False)


def adam(w, g, state, t):
    """Update ``t`` of the weights ``w`` in place, from the gradient ``g`` without its penalty.

    ``state`` is ``(2, w.size)``, the two moments.
    """
    _update(_ADAM, w, g, state, t)


@contextmanager
def training(case, X, y, weights):
    """A network in training with Adam, without the estimator around it.

    Parameters
    ----------
    case : Case
    X, y : its data
    weights : list of (W, b)
        The initial weights, copied.

    Yields
    ------
    epoch : callable
        ``epoch(rows)`` goes through the examples ``rows`` once and returns the mean loss.
    weights : list of (W, b)
        Views of the weights in training.
    """
    loss = "cross_entropy" if case.classes > 2 else "log_loss"
    net = make_net(case.units, case.activation, None, loss)
    theta = flatten(*zip(*weights, strict=True), X.dtype)
    state = np.zeros((rules.n_slots(rules.ADAM), theta.size), X.dtype)
    data = make_data(X, codes=y)
    with Trainer(net, theta, data, case.batch, case.threads, state) as trainer:
        views_of_theta = list(zip(*views(theta, case.units), strict=True))
        yield lambda rows: trainer.run_epoch(rows, _ADAM), views_of_theta
