"""Speed of an epoch, of ``fit`` and ``predict``, each checked against NumPy before it is timed."""

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier as NumpyClassifier

from fastnn import MLPClassifier

from .cases import ALPHA, CASES, LEARNING_RATE, MAIN, initial_weights, make_data
from .kernel_calls import BETA_1, BETA_2, EPSILON, training
from .peers import parameters
from .report import note

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
each_case = pytest.mark.parametrize("name", MAIN)


def numpy_outputs(X, weights):
    """Activations of all layers of a ReLU network; the last are weighted inputs."""
    a = [X]
    for W, b in weights[:-1]:
        a.append(np.maximum(a[-1] @ W + b, 0))
    W, b = weights[-1]
    return [*a, a[-1] @ W + b]


def probabilities(z):
    """Of all classes, from the weighted inputs of the output layer; one is that of class 1."""
    if z.shape[1] == 1:
        z = np.hstack([np.zeros_like(z), z])
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def numpy_epoch(case, X, y, weights, rows):
    """Adam through the examples ``rows`` in float64; returns the mean loss and the weights."""
    weights = [[W.astype(float), b.astype(float)] for W, b in weights]
    moments = [[[0.0, 0.0], [0.0, 0.0]] for _ in weights]
    total = 0.0
    for t, first in enumerate(range(0, len(rows), case.batch), start=1):
        batch = rows[first : first + case.batch]
        a = numpy_outputs(X[batch].astype(float), weights)
        p = probabilities(a[-1])
        squares = sum(np.sum(W * W) for W, _ in weights)
        total -= np.log(p[np.arange(len(batch)), y[batch]]).sum() - ALPHA / 2 * squares
        d = p - np.eye(p.shape[1])[y[batch]]
        d = d[:, 1:] if a[-1].shape[1] == 1 else d
        rate = LEARNING_RATE * np.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        for k in reversed(range(len(weights))):
            W = weights[k][0]
            gradients = [(a[k].T @ d + ALPHA * W) / len(batch), d.sum(axis=0) / len(batch)]
            d = (d @ W.T) * (a[k] > 0)
            for which, g in enumerate(gradients):
                m, v = moments[k][which]
                m, v = BETA_1 * m + (1 - BETA_1) * g, BETA_2 * v + (1 - BETA_2) * g * g
                moments[k][which] = m, v
                weights[k][which] = weights[k][which] - rate * m / (np.sqrt(v) + EPSILON)
    return total / len(rows), weights


def check_epoch(case, X, y, weights):
    """A few mini-batches give NumPy's loss, and its weights almost everywhere.

    Where a gradient is almost zero, Adam makes a step of its rounding errors.
    """
    rows = np.arange(4 * case.batch)
    loss, expected = numpy_epoch(case, X, y, weights, rows)
    with training(case, X, y, weights) as (epoch, trained):
        np.testing.assert_allclose(epoch(rows), loss, rtol=1e-4)
        for ours, theirs in zip(trained, expected, strict=True):
            for mine, right in zip(ours, theirs, strict=True):
                assert np.abs(mine - right).mean() < 0.01 * LEARNING_RATE


@each_case
def test_epoch(benchmark, name):
    case = CASES[name]
    X, y = make_data(case)
    weights = initial_weights(case, case.units)
    check_epoch(case, X, y, weights)
    rows = np.random.default_rng(0).permutation(case.n)
    with training(case, X, y, weights) as (epoch, _):
        benchmark(epoch, rows)
    note(benchmark, flops=case.flops, examples=case.n)


@each_case
def test_fit(benchmark, name):
    case = CASES[name]
    X, y = make_data(case)
    ours, theirs = (
        make(max_iter=2, **parameters(case)).fit(X, y) for make in (MLPClassifier, NumpyClassifier)
    )
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-2)
    epochs = case.epochs(0.5)
    model = MLPClassifier(max_iter=epochs, **parameters(case))
    benchmark(model.fit, X, y)
    benchmark.extra_info["epochs"] = epochs
    note(benchmark, flops=epochs * case.flops, examples=epochs * case.n)


@pytest.mark.parametrize("n_rows", [1, 1_000, 100_000])
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize("name", "AF")
def test_predict(benchmark, name, method, n_rows):
    case = CASES[name]
    model = MLPClassifier(max_iter=1, **parameters(case)).fit(*make_data(case._replace(n=1_000)))
    X = np.random.default_rng(1).standard_normal((n_rows, case.d), np.float32)
    z = numpy_outputs(X, list(zip(model.coefs_, model.intercepts_, strict=True)))[-1]
    np.testing.assert_allclose(model.predict_proba(X), probabilities(z), rtol=1e-3, atol=1e-5)
    agree = model.predict(X) == model.classes_[probabilities(z).argmax(axis=1)]
    assert agree.mean() > 0.999  # but for ties within rounding
    benchmark(getattr(model, method), X)
    products = sum(2 * a.size for a in model.coefs_)
    note(benchmark, flops=n_rows * products, examples=n_rows)
