"""Loss, gradient and updates of the compiled network against tests/reference.py."""

import itertools
import platform

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import grids
import reference
from fastnn._network import data_to_train, make_data, make_net, predict
from fastnn._trainer import Trainer, _plan_for
from fastnn.kernels.activations import ACTIVATIONS
from fastnn.kernels.layout import empty_theta, starts_of, vector_behind, views
from fastnn.kernels.plan import MICRO_BATCH, n_parts, work_for
from fastnn.kernels.rules import ADAM, GRADIENT, NESTEROV, SGD, Rule

HIDDEN = [name for name in ACTIVATIONS if name not in ("exp", "softmax", "step")]
# Loss and output activation: those that belong together first.
KINDS = {
    "squared_error": ("squared_error", "identity"),
    "poisson": ("poisson", "exp"),
    "multiclass": ("cross_entropy", "softmax"),
    "binary": ("log_loss", "logistic"),
    "multilabel": ("log_loss", "logistic"),
    "smoothed multiclass": ("cross_entropy", "softmax"),
    "smoothed binary": ("log_loss", "logistic"),
    "binary squared error": ("squared_error", "logistic"),
    "squared error of softmax": ("squared_error", "softmax"),
    "squared error of tanh": ("squared_error", "tanh"),
    "poisson of softplus": ("poisson", "softplus"),
    "rss": ("rss", "identity"),
    "rss of relu": ("rss", "relu"),
    "absolute_error": ("absolute_error", "identity"),
    "huber": ("huber", "identity"),
    "quantile": ("quantile", "linear"),
    "gamma": ("gamma", "exp"),
    "gamma of softplus": ("gamma", "softplus"),
}
SETTINGS = {"huber": {"bend": 0.7}, "quantile": {"quantiles": [0.3]}}


def problem(kind, units, activation, dtype=np.float64, n=11, seed=0, weighted=True):
    """A random network with data, as fastnn and the reference take them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, units[0])).astype(dtype)
    weight = rng.uniform(0.5, 2, n).astype(dtype) if weighted else None
    n_out = units[-1]
    loss, out_activation = KINDS[kind]
    smoothing = 0.2 if "smoothed" in kind else 0.0
    if loss == "cross_entropy":
        target = rng.integers(0, n_out, n)
        Y = np.eye(n_out)[target] * (1 - smoothing) + smoothing / n_out
        data = make_data(X, codes=target, weights=weight)
    elif "binary" in kind:
        target = rng.integers(0, 2, n)
        Y = target[:, None] * (1 - smoothing) + smoothing / 2
        data = make_data(X, codes=target, weights=weight)
    else:
        if loss == "log_loss":
            Y = rng.integers(0, 2, (n, n_out)).astype(float)
        elif loss in ("poisson", "gamma"):
            Y = rng.poisson(2, (n, n_out)) + float(loss == "gamma")
        else:
            Y = rng.standard_normal((n, n_out))
        data = make_data(X, targets=Y, weights=weight)
    settings = SETTINGS.get(loss, {})
    if smoothing:
        settings = {"smoothing": smoothing}
    net = make_net(units, activation, out_activation, loss, **settings)
    theta = (rng.standard_normal(starts_of(units)[-1]) * 0.5).astype(dtype)
    activations = [activation] * (len(units) - 2) + [out_activation]
    if weight is None:
        weight = np.ones(n)
    return net, theta, data, activations, loss, X.astype(float), Y, weight.astype(float)


def to_notes(theta, units):
    """The flat vector as the notes' matrices, copied."""
    starts = starts_of(units)
    return [
        theta[starts[k] : starts[k + 1]].reshape(units[k] + 1, units[k + 1]).T.astype(float).copy()
        for k in range(len(units) - 1)
    ]


def to_flat(Theta):
    return np.concatenate([theta.T.ravel() for theta in Theta])


def units_for(kind, hidden=(5, 3)):
    return [4, *hidden, 1 if "binary" in kind else 3]


TOLERANCE = {np.float64: 1e-12, np.float32: 2e-5}
ALL = list(itertools.product(HIDDEN, KINDS, [1, 2], TOLERANCE))


@pytest.mark.parametrize(
    "activation, kind, n_threads, dtype", grids.nightly_but(ALL, grids.covering(ALL, 2))
)
def test_loss_and_gradient(activation, kind, n_threads, dtype):
    tolerance = TOLERANCE[dtype]
    units = units_for(kind)
    net, theta, data, activations, loss, X, Y, weight = problem(kind, units, activation, dtype)
    with Trainer(net, theta, data, len(X), n_threads) as trainer:
        C, gradient = trainer.loss_and_gradient(theta.copy(), np.arange(len(X)), 0.3)
    Theta = to_notes(theta, units)
    expected = to_flat(reference.batch_gradient(Theta, activations, loss, X, Y, weight, 0.3))
    np.testing.assert_allclose(gradient, expected, rtol=tolerance, atol=tolerance)
    # The reported squared error is the mean over outputs, the gradient that of the sum.
    penalty = reference.batch_error(Theta, activations, loss, X, Y, weight, 0.3)
    bare = reference.batch_error(Theta, activations, loss, X, Y, weight, 0.0)
    outputs = units[-1] if loss == "squared_error" else 1
    np.testing.assert_allclose(C, bare / outputs + penalty - bare, rtol=max(tolerance, 1e-12))


@pytest.mark.parametrize("n", [11, 150])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_the_gradient_of_layers_whose_deltas_are_copied_in_panels(n_threads, n):
    """Of all rows, or of each of two parts of them."""
    units = [600, 70, 3]
    net, theta, data, activations, loss, X, Y, weight = problem("multiclass", units, "tanh", n=n)
    assert n_parts(units, n) == (2 if n > 11 else 0)
    assert work_for(units, theta.dtype, n, n_threads).panels.size > 0
    with Trainer(net, theta, data, n, n_threads) as trainer:
        _, gradient = trainer.loss_and_gradient(theta.copy(), np.arange(n), 0.3)
    Theta = to_notes(theta, units)
    expected = to_flat(reference.batch_gradient(Theta, activations, loss, X, Y, weight, 0.3))
    np.testing.assert_allclose(gradient, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_parts_with_data_of_their_own_train_as_parts_of_one(n_threads):
    net, theta, data, *_ = problem("binary", [4, 5, 1], "tanh")
    pieces = [slice(0, 6), slice(6, 11)]
    own = [
        data._replace(
            **{name: getattr(data, name)[rows] for name in ("X", "codes", "targets", "weights")}
        )
        for rows in pieces
    ]
    rule, found = Rule(ADAM, 0.01, 0.1, 0.9, 0.999, 1e-8), []
    for parts in (
        [(data, np.arange(11)[rows]) for rows in pieces],
        [(part, np.arange(len(part.X))) for part in own],
    ):
        weights = theta.copy()
        with Trainer(net, weights, data, 3, n_threads, np.zeros((2, theta.size))) as trainer:
            losses = [trainer.run_parts(parts, rule) for _ in range(3)]
        found.append([*losses, *weights])
    np.testing.assert_array_equal(*found)


def test_what_is_read_beside_training_has_a_pace_of_its_own(monkeypatch):
    paces = []

    def record(pace, n_threads, examples, seconds):
        paces.append(pace)

    monkeypatch.setattr("fastnn._pace.Pace.record", record)
    net, theta, data, *_ = problem("binary", [4, 5, 1], "tanh")
    rule, reads = Rule(ADAM, 0.01, 0.1, 0.9, 0.999, 1e-8), [True, False, True]
    state = np.zeros((2, theta.size))
    with Trainer(net, theta, data, 11, 2, state, reads=iter(reads).__next__) as trainer:
        for _ in reads:
            trainer.run_epoch(np.arange(11), rule)
    beside, alone, again = paces
    assert beside is again is not alone


PAIRS = list(itertools.product(HIDDEN, KINDS))


@pytest.mark.parametrize("activation, kind", grids.nightly_but(PAIRS, grids.covering(PAIRS, 1)))
def test_gradient_is_the_finite_difference_of_the_loss(activation, kind):
    # Of several outputs the reported squared error is the mean, the gradient that of the sum.
    units = [4, 5, 3, 1 if "binary" in kind or KINDS[kind][0] == "squared_error" else 3]
    net, theta, data, *_ = problem(kind, units, activation)
    rows = np.arange(11)
    with Trainer(net, theta, data, len(rows), 1) as trainer:
        at = theta.copy()
        _, gradient = trainer.loss_and_gradient(at, rows, 0.3)
        numeric = np.empty_like(gradient)
        for i in range(len(at)):
            step = np.zeros_like(at)
            step[i] = 1e-6
            above, _ = trainer.loss_and_gradient(at + step, rows, 0.3)
            below, _ = trainer.loss_and_gradient(at - step, rows, 0.3)
            numeric[i] = (above - below) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=2e-8)


def test_reference_is_the_finite_difference_of_its_error():
    """The reference too: it corrects the notes, so it must prove itself."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for activation in HIDDEN:
            units = units_for(kind, (3,))
            _, theta, _, activations, loss, X, Y, weight = problem(kind, units, activation, n=3)
            Theta = to_notes(theta, units)
            gradient = reference.batch_gradient(Theta, activations, loss, X, Y, weight, 0.1)
            for l, matrix in enumerate(Theta):
                k, j = rng.integers(matrix.shape[0]), rng.integers(matrix.shape[1])
                values = []
                for step in (1e-6, -2e-6):
                    matrix[k, j] += step
                    values.append(
                        reference.batch_error(Theta, activations, loss, X, Y, weight, 0.1)
                    )
                matrix[k, j] += 1e-6
                np.testing.assert_allclose(
                    (values[0] - values[1]) / 2e-6, gradient[l][k, j], atol=1e-8
                )


RULES = {
    "plain": (Rule(SGD, 0.1, 0.01, 0.0, 0.0, 0.0), lambda: reference.GradientDescent(0.1)),
    "momentum": (
        Rule(SGD, 0.1, 0.01, 0.9, 0.0, 0.0),
        lambda: reference.GradientDescent(0.1, 0.9),
    ),
    "nesterov": (
        Rule(NESTEROV, 0.1, 0.01, 0.9, 0.0, 0.0),
        lambda: reference.GradientDescent(0.1, 0.9, nesterov=True),
    ),
    "adam": (Rule(ADAM, 0.1, 0.01, 0.9, 0.999, 1e-8), lambda: reference.Adam(0.1)),
}


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_epochs_of_mini_batches(rule, batch_size, weighted, n_threads):
    units = [4, 5, 3]
    net, theta, data, activations, loss, X, Y, weight = problem(
        "multiclass", units, "tanh", weighted=weighted
    )
    Theta = to_notes(theta, units)
    compiled, make_reference = RULES[rule]
    naive = make_reference()
    rng = np.random.default_rng(1)
    with Trainer(net, theta, data, batch_size, n_threads, np.zeros((2, theta.size))) as trainer:
        for _ in range(3):
            rows = rng.permutation(11)
            C = trainer.run_epoch(rows, compiled)
            total = 0.0
            for first in range(0, 11, batch_size):
                D = rows[first : first + batch_size]
                arguments = (Theta, activations, loss, X[D], Y[D], weight[D], 0.01)
                total += reference.batch_error(*arguments) * len(D)
                naive.step(Theta, reference.batch_gradient(*arguments))
            np.testing.assert_allclose(C, total / 11, rtol=1e-10)
            np.testing.assert_allclose(theta, to_flat(Theta), rtol=1e-8, atol=1e-10)
    assert trainer.updates == 3 * -(-11 // batch_size)


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("n", [MICRO_BATCH - 1, MICRO_BATCH, 2 * MICRO_BATCH + 5])
def test_large_batches_in_micro_batches_equal_one(n, divided, monkeypatch):
    """Memory is bounded by going through a batch in micro-batches: not one bit depends on it.

    Where the gradient is formed in parts, micro-batches decide who is in which part.
    """
    if not divided:
        monkeypatch.setattr("fastnn.kernels.plan.MOST_PARAMS", 0)
    _plan_for.cache_clear()  # of another division
    results = []
    for rows in (MICRO_BATCH, 10 * MICRO_BATCH, 37):
        for module in ("fastnn.kernels.plan", "fastnn._trainer"):  # slices end with one
            monkeypatch.setattr(f"{module}.MICRO_BATCH", rows)
        net, theta, data, *_ = problem("squared_error", [4, 9, 2], "tanh", n=n)
        with Trainer(net, theta, data, n, 2) as trainer:
            results.append(trainer.loss_and_gradient(theta.copy(), np.arange(n), 0.1))
    for C, gradient in results[1:]:
        assert results[0][0] == C
        tolerance = 1e-13 if divided else 0
        np.testing.assert_allclose(gradient, results[0][1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_sparse_rows(n_threads):
    units = [70, 5, 3]
    net, theta, data, *_ = problem("multiclass", units, "relu")
    X = np.array(data.X)
    X[np.random.default_rng(2).random(X.shape) < 0.8] = 0
    X[3] = 0
    dense = make_data(X, codes=data.codes, weights=data.weights)
    sparse = make_data(sp.csr_array(X), codes=data.codes, weights=data.weights)
    results = []
    for version in (dense, sparse):
        with Trainer(net, theta.copy(), version, 11, n_threads) as trainer:
            results.append(trainer.loss_and_gradient(theta, np.arange(11), 0.1))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-13)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-11, atol=1e-14)


def bins(n_numbers, n_bins, continued, n=40, seed=0):
    """Numbers in bins as entries for the kernels, and the matrix that they stand for.

    Returns
    -------
    X : CSR, ``n_numbers * n_bins`` features, and a last one without bins
    continued : of each feature
    encoded : ndarray, X itself, or where rows continue each other 1/2, ..., f - 1/2, -1/2, ...
    """
    rng = np.random.default_rng(seed)
    X, encoded = [], []
    for _ in range(n_numbers):
        b, f = rng.integers(0, n_bins - 1, n), rng.random(n)
        hats = np.zeros((n, n_bins))
        hats[np.arange(n), b], hats[np.arange(n), b + 1] = 1 - f, f
        X.append(hats)
        # 1/2 for all knots up to b, the fraction f of the way to the next one, and -1/2
        encoded.append(np.cumsum(hats[:, ::-1], axis=1)[:, ::-1] - 0.5)
    category = (rng.random((n, 1)) < 0.5).astype(float)
    X, encoded = np.hstack([*X, category]), np.hstack([*encoded, category])
    each = np.arange(n_numbers * n_bins + 1) % n_bins > 0
    each[-1] = False
    return sp.csr_array(X), each & continued, encoded if continued else X


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("hidden", [(5,), (150, 8), ()])
@pytest.mark.parametrize("n_bins", [2, 9, 70])
def test_numbers_in_bins_are_the_product_with_their_code(n_bins, hidden, n_threads, continued):
    X, each, encoded = bins(3, n_bins, continued)
    units, n = [X.shape[1], *hidden, 3], X.shape[0]
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, n)
    net = make_net(units, "tanh", "softmax", "cross_entropy")
    theta = rng.standard_normal(starts_of(units)[-1]) * 0.3
    results = []
    for data in (
        make_data(X, continued=each if continued else None, codes=codes),
        make_data(encoded, codes=codes),
    ):
        mine, order = theta.copy(), np.random.default_rng(2)
        with Trainer(net, mine.copy(), data, n, n_threads) as trainer:
            loss, gradient = trainer.loss_and_gradient(theta, np.arange(n), 0.1)
        with Trainer(net, mine, data, 7, n_threads, np.zeros((2, theta.size))) as trainer:
            for clip_norm in (np.inf, 0.1):
                rule = Rule(NESTEROV, 0.05, 0.1, 0.9, 0.0, 0.0, clip_norm=clip_norm)
                losses = [trainer.run_epoch(order.permutation(n), rule) for _ in range(2)]
        outputs = predict(net, mine, data, np.arange(n), n_threads)
        results.append((loss, gradient, losses, mine, outputs))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("hidden", [(5,), (150, 8), (1,)])
def test_features_that_all_rows_have_are_trained_as_dense_with_the_same_bits(n_threads, hidden):
    in_bins, each, _ = bins(3, 9, True)
    rng = np.random.default_rng(1)
    n, d = in_bins.shape[0], 6
    numbers = sp.csr_array(rng.standard_normal((n, d)))
    numbers.data[::3] = 0
    X = sp.hstack([numbers, in_bins], format="csr")
    units, rows = [X.shape[1], *hidden, 2], rng.permutation(n)
    net = make_net(units, "tanh", "identity", "squared_error")
    theta = rng.standard_normal(starts_of(units)[-1])
    fields = dict(continued=np.append(np.zeros(d, bool), each), targets=rng.random((n, 2)))
    rule, results = Rule(ADAM, 0.01, 0.1, 0.9, 0.999, 1e-8), []
    for make, n_dense in ((data_to_train, d), (make_data, 0)):
        data, mine = make(X, **fields), theta.copy()
        assert data.n_dense == n_dense
        for batch_size in (n, 7):
            state = np.zeros((2, theta.size))
            with Trainer(net, mine, data, batch_size, n_threads, state) as trainer:
                trainer.run_epoch(rows, rule)
        results.append(mine)
    np.testing.assert_array_equal(*results)


LAZY = {
    "sgd": Rule(SGD, 0.1, 0.1, 0.9, 0.0, 0.0, lazy=True),
    "adam": Rule(ADAM, 0.01, 0.1, 0.9, 0.999, 1e-8, lazy=True),
    "clipped": Rule(ADAM, 0.01, 0.1, 0.9, 0.999, 1e-8, clip_norm=0.01, lazy=True),
}


def words(n=64, d=300, per_row=4, seed=0):
    """A network on sparse rows, and its weights: ``(net, theta, data, units)``."""
    rng = np.random.default_rng(seed)
    X = sp.random_array((n, d), density=per_row / d, random_state=rng, format="csr")
    units = [d, 20, 3]
    net = make_net(units, "tanh", "softmax", "cross_entropy")
    theta = rng.standard_normal(starts_of(units)[-1])
    return net, theta, make_data(X, codes=rng.integers(0, 3, n)), units


def run(net, theta, data, batch_size, rule, epochs=2, n_threads=1):
    """Losses, weights and state after so many epochs."""
    theta, state = theta.copy(), np.zeros((2, theta.size))
    rows = np.arange(len(data.row_starts) - 1)
    with Trainer(net, theta, data, batch_size, n_threads, state) as trainer:
        losses = [trainer.run_epoch(rows, rule) for _ in range(epochs)]
    return losses, theta, state


@pytest.mark.parametrize("rule", LAZY)
def test_a_lazy_update_is_the_exact_one_where_every_feature_is_in_every_mini_batch(rule):
    net, theta, data, _ = words(d=8, per_row=5)
    for part in np.split(data.columns, data.row_starts[16:64:16]):
        assert len(np.unique(part)) == 8
    lazy = run(net, theta, data, 16, LAZY[rule])
    exact = run(net, theta, data, 16, LAZY[rule]._replace(lazy=False))
    for found, expected in zip(lazy, exact, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_lazy_gradient_descent_without_penalty_and_momentum_is_exact():
    net, theta, data, _ = words()
    rule = Rule(SGD, 0.1, 0.0, 0.0, 0.0, 0.0, lazy=True)
    lazy, exact = (run(net, theta, data, 8, r) for r in (rule, rule._replace(lazy=False)))
    for found, expected in zip(lazy[:2], exact[:2], strict=True):  # but the velocities
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", LAZY)
def test_a_lazy_update_leaves_features_alone_that_the_mini_batch_lacks(rule):
    net, theta, data, units = words()
    _, after, state = run(net, theta, data, 64, LAZY[rule], epochs=1)
    has = np.zeros(units[0], bool)
    has[data.columns] = True
    assert 0.2 < has.mean() < 0.8
    W, W_after = (views(vector, units)[0][0] for vector in (theta, after))
    np.testing.assert_array_equal((W_after != W).any(axis=1), has)
    for moment in state[: 1 if rule == "sgd" else 2]:
        np.testing.assert_array_equal((views(moment, units)[0][0] != 0).any(axis=1), has)


@pytest.mark.parametrize("rule", LAZY)
def test_lazy_updates_of_large_batches_do_not_depend_on_micro_batches(rule, monkeypatch):
    net, theta, data, _ = words()
    expected = run(net, theta, data, 64, LAZY[rule])
    for module in ("fastnn.kernels.plan", "fastnn._trainer"):
        monkeypatch.setattr(f"{module}.MICRO_BATCH", 24)
    found = run(net, theta, data, 64, LAZY[rule], n_threads=2)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_a_lazy_update_leaves_out_is_bounded():
    """Of a feature that does not come again, exact Adam goes on with its momentum.

    Its steps are the last one times q, q^2, ..., with q = beta_1 / sqrt(beta_2): less than q / (1 -
    q) of it together, nine times as much by the defaults.
    """
    net, theta, data, units = words(n=200)
    rule = Rule(ADAM, 0.01, 0.0, 0.9, 0.999, 1e-12)
    its, others = data.columns[: data.row_starts[1]], []
    for i in range(1, 200):
        if not np.isin(data.columns[data.row_starts[i] : data.row_starts[i + 1]], its).any():
            others.append(i)
    assert len(others) > 100
    steps = []
    for lazy in (False, True):
        mine, state = theta.copy(), np.zeros((2, theta.size))
        with Trainer(net, mine, data, 1, 1, state) as trainer:
            trainer.updates = 100_000  # so that the correction for the first steps is over
            trainer.run_epoch(np.arange(1), rule._replace(lazy=lazy))
            first = mine.copy()
            trainer.run_epoch(np.array(others), rule._replace(lazy=lazy))
        before, then, last = (views(v, units)[0][0][its] for v in (theta, first, mine))
        steps += [then - before, last - then]
    step, more, same, none = steps
    np.testing.assert_allclose(step, same, rtol=1e-9)
    assert not none.any()
    q = 0.9 / np.sqrt(0.999)
    assert (np.abs(more) <= q / (1 - q) * np.abs(step) * (1 + 1e-9)).all()
    assert np.abs(more).max() > 0.9 * q / (1 - q) * np.abs(step).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_weights_are_whole_cache_lines(dtype):
    units = [7, 64, 3]
    theta = empty_theta(starts_of(units)[-1], dtype)
    coefs, intercepts = views(theta, units)
    assert all(row.ctypes.data % 64 == 0 for row in coefs[0])
    assert vector_behind(coefs, intercepts) is theta
    assert theta.flags.writeable
    assert len(theta) == starts_of(units)[-1]


def test_gradient_rule_leaves_the_weights_alone():
    net, theta, data, *_ = problem("squared_error", [4, 9, 2], "relu")
    before = theta.copy()
    with Trainer(net, theta, data, 4, 1) as trainer:
        trainer.run_epoch(np.arange(11), Rule(GRADIENT, 0.0, 0.1, 0.0, 0.0, 0.0))
    np.testing.assert_array_equal(theta, before)


def test_a_sparse_example_may_come_several_times_in_a_mini_batch():
    net, theta, data, _ = words()
    rows = np.arange(64)
    rows[:4] = np.argmax(np.diff(data.row_starts))
    X = sp.csr_array((data.values, data.columns, data.row_starts), shape=(64, 300))[rows]
    repeated = make_data(X, codes=data.codes[rows])
    _, expected, _ = run(net, theta, repeated, 4, LAZY["adam"], epochs=1)
    with Trainer(net, theta, data, 4, 1, np.zeros((2, theta.size))) as trainer:
        trainer.run_epoch(rows, LAZY["adam"])
    np.testing.assert_array_equal(theta, expected)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_denormals_are_zero_in_training_and_nowhere_else(n_threads):
    """Second moments that shrink into them made single-example training half as slow again."""
    tiny = np.finfo(np.float64).tiny
    net, theta, data, *_ = problem("squared_error", [4, 9, 2], "relu")
    state = np.full((2, theta.size), tiny / 2)
    with Trainer(net, theta, data, 4, n_threads, state) as trainer:
        rule = Rule(ADAM, 0.1, 0.0, 0.9, 1.0, 1e-8)  # beta_2 = 1: the second moment stays
        trainer.run_epoch(np.arange(11), rule)
    if platform.machine().lower() in ("x86_64", "amd64"):
        assert (state[1] == 0).all()
    assert np.array([tiny]) / 4 > 0


size = st.integers(1, 70)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    units=st.lists(size, min_size=2, max_size=4),
    n=size,
    batch_size=size,
    n_threads=st.integers(1, 3),
    sparse=st.booleans(),
    single=st.booleans(),
)
def test_random_shapes(units, n, batch_size, n_threads, sparse, single):
    """All edges of tiles: the gradient is the slope of the loss along a random direction."""
    net, theta, data, _, _, X, Y, _ = problem("squared error of tanh", [*units, 1], "tanh", n=n)
    if sparse:
        data = make_data(sp.csr_array(X * (X > 0)), targets=Y)
    rows, rng = np.arange(n), np.random.default_rng(0)
    direction = rng.standard_normal(theta.size)
    with Trainer(net, theta, data, n, n_threads) as trainer:
        at = theta.copy()
        _, gradient = trainer.loss_and_gradient(at, rows, 0.3)
        above, _ = trainer.loss_and_gradient(at + 1e-6 * direction, rows, 0.3)
        below, _ = trainer.loss_and_gradient(at - 1e-6 * direction, rows, 0.3)
    slope = gradient @ direction
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-5, atol=1e-6)
    T = np.float32 if single else np.float64
    net, theta, data, *_ = problem("multiclass", [*units, 3], "relu", T, n=n)
    rule = Rule(NESTEROV, 0.01, 1e-3, 0.9, 0.0, 0.0)
    with Trainer(net, theta, data, batch_size, n_threads, np.zeros((1, theta.size), T)) as trainer:
        for _ in range(2):
            assert np.isfinite(trainer.run_epoch(rng.permutation(n), rule))
    outputs = predict(net, theta, data, rows, n_threads)
    np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
