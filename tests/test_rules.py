"""The form ADAPTIVE of the updates, in vectors: at all lengths, and where numbers end."""

import numpy as np
import pytest
from numba import njit

from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels import rules
from fastnn.kernels.jit import FLAGS

CODES = [rules.ADAM, rules.ADAMW, rules.NADAM, rules.RMSPROP, rules.ADAGRAD]
SENTINEL = 7.5
each_dtype = pytest.mark.parametrize("T", [np.float32, np.float64])


@njit(**FLAGS)
def update(rule, t, w, g, state, first, scale, is_bias):
    return rules.update(rule, rules.coefficients(rule, t), w, g, state, first, scale, is_bias)


def rule_of(code, **constants):
    constants = {"alpha": 0.3, "epsilon": 1e-3, "weight_decay": 0.5} | constants
    return rules.Rule(code, learning_rate=0.1, momentum=0.9, beta_2=0.99, **constants)


def expected(rule, t, w, g, m, v, scale, is_bias):
    """The formula of the module, in float64: w, m, v."""
    c = rules.coefficients.py_func(rule, t)
    w, g, m, v = (np.asarray(each, float) for each in (w, g, m, v))
    g = (g + (0.0 if is_bias else rule.alpha) * w) * scale
    m = c.decay_1 * m + c.gain_1 * g
    v = c.decay_2 * v + (c.gain_2 * g) ** 2
    step = c.step * (m + c.ahead * g) / (np.sqrt(v) + c.epsilon)
    return (1.0 if is_bias else c.keep) * w - step, m, v


@each_dtype
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("is_bias", [False, True])
def test_update_of_any_length(code, is_bias, T):
    rng = np.random.default_rng(0)
    for n in [*range(1, 70), 200, 256]:
        first = 3
        w, g = rng.standard_normal((2, n + 6)).astype(T)
        state = abs(rng.standard_normal((2, n + 6))).astype(T)
        w[:first] = w[first + n :] = state[:, :first] = state[:, first + n :] = SENTINEL
        inside = slice(first, first + n)
        before = w[inside].astype(float)
        rule = rule_of(code)
        results = expected(rule, 5, w[inside], g[inside], *state[:, inside], 0.25, is_bias)
        squares = update(rule, 5, w[inside], g[inside], state, first, 0.25, is_bias)
        for found, wanted in zip((w, *state), results, strict=True):
            np.testing.assert_allclose(found[inside], wanted, rtol=0, atol=30 * np.finfo(T).eps)
            assert (found[:first] == SENTINEL).all() and (found[first + n :] == SENTINEL).all()
        assert squares == pytest.approx(before @ before, rel=float(100 * np.finfo(T).eps))


@each_dtype
def test_adam_is_that_of_the_paper(T):
    """Several updates, by the formula of Kingma and Ba with scikit-learn's epsilon."""
    rng = np.random.default_rng(0)
    rule = rules.Rule(rules.ADAM, 0.1, alpha=0.5, momentum=0.9, beta_2=0.99, epsilon=1e-8)
    w = rng.standard_normal(7).astype(T)
    state = np.zeros((2, 7), T)
    wide, m, v = w[2:6].astype(float), 0.0, 0.0
    for t in range(1, 4):
        g = rng.standard_normal(7).astype(T)
        squares = (w[2:6] ** 2).sum(dtype=T)
        complete = (g[2:6].astype(float) + 0.5 * wide) / 3.0
        m, v = 0.9 * m + 0.1 * complete, 0.99 * v + 0.01 * complete**2
        wide = wide - 0.1 * np.sqrt(1 - 0.99**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
        found = update(rule, t, w[2:6], g[2:6], state, 2, 1 / 3.0, False)
        assert found == pytest.approx(squares, rel=float(100 * np.finfo(T).eps))
        for actual, wanted in ((w[2:6], wide), (state[0, 2:6], m), (state[1, 2:6], v)):
            np.testing.assert_allclose(actual, wanted, rtol=100 * np.finfo(T).eps)


@each_dtype
def test_infinite_squares_stop_their_weight_and_spoil_no_other(T):
    n, infinite = 140, [0, 17, 139]
    rule, state = rule_of(rules.ADAM, alpha=0.0), np.zeros((2, n), T)
    w, g = np.ones(n, T), np.ones(n, T)
    g[infinite] = np.sqrt(np.finfo(T).max) * 100
    update(rule, 1, w, g, state, 0, 1.0, False)
    assert np.isinf(state[1, infinite]).all()
    assert (w[infinite] == 1).all()
    np.testing.assert_allclose(np.delete(w, infinite), 0.9, rtol=1e-2)


@each_dtype
@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 1e5, 1e12])
def test_denominators_whose_product_is_no_number_divide_alone(T, size):
    """Four weights share a quotient: beside others of any size, each moves as if it were alone."""
    rng, rule = np.random.default_rng(0), rule_of(rules.ADAM, alpha=0.0, epsilon=1e-12)
    g = (size * rng.standard_normal(256)).astype(T)
    g[rng.random(256) < 0.3] = 0
    w, state = np.ones(256, T), np.zeros((2, 256), T)
    wanted, _, _ = expected(rule, 1, w, g, *state, 1.0, False)
    update(rule, 1, w, g, state, 0, 1.0, False)
    np.testing.assert_allclose(w, wanted, rtol=1e-5 if T is np.float32 else 1e-12)


def test_nadam_without_momentum_is_the_gradient_alone():
    w, g, steps = np.ones(40), np.linspace(-1, 1, 40), []
    for momentum in (0.0, 1e-200, 1e-12):
        rule = rule_of(rules.NADAM)._replace(momentum=momentum)
        steps.append(w.copy())
        update(rule, 3, steps[-1], g, np.zeros((2, 40)), 0, 1.0, False)
    np.testing.assert_allclose(steps[1:], [steps[0]] * 2, rtol=1e-9)
    assert (steps[0] != w).all()


@each_dtype
def test_an_epsilon_too_small_for_the_dtype_gives_no_nan(T):
    rule, state = rule_of(rules.ADAM, alpha=0.0, epsilon=1e-300), np.zeros((2, 40), T)
    w, g = np.ones(40, T), np.zeros(40, T)  # no gradient, no squares
    g[5] = 1
    update(rule, 1, w, g, state, 0, 1.0, False)
    assert w[5] == pytest.approx(0.9, rel=1e-5)
    assert (np.delete(w, 5) == 1).all()


@pytest.mark.parametrize("clip_norm", [np.inf, 0.1])
@pytest.mark.parametrize("code", sorted(rules.SOLVERS.values()))
def test_a_given_gradient_is_applied_as_one_that_was_formed_here(code, clip_norm):
    units, rng = [7, 5, 3], np.random.default_rng(0)
    net = make_net(units, "tanh", "softmax", "cross_entropy")
    weights = rng.exponential(size=40)
    data = make_data(rng.normal(size=(40, 7)), codes=rng.integers(0, 3, 40), weights=weights)
    theta, rows, rule = rng.normal(size=58), np.arange(40), rule_of(code, clip_norm=clip_norm)
    ours, given = theta.copy(), theta.copy()
    states = [np.zeros((rules.n_slots(code), theta.size)) for _ in range(2)]
    one = make_data(np.empty((1, 0)))._replace(
        weights=np.array([data.weights.sum()]), weight_scale=data.weight_scale
    )
    one.weights.flags.writeable = False
    with (
        Trainer(net, ours, data, 40, 1, states[0]) as trainer,
        Trainer(net, theta, data, 40, 1) as elsewhere,
        Trainer(net, given, one, 1, 1, states[1], given=True) as updates,
    ):
        for _ in range(3):
            loss = trainer.run_epoch(rows, rule)
            of_examples, mean = elsewhere.loss_and_gradient(given, rows, 0.0)
            updates.gradient[...] = mean * data.weights.sum()
            penalty = updates.run_epoch(np.zeros(1, np.int64), rule)
            assert of_examples + penalty == pytest.approx(loss, rel=1e-12)
            np.testing.assert_allclose(given, ours, rtol=1e-9, atol=1e-12)
