"""backpropagation() against the notes' formulas, tests/reference.py and finite differences."""

import subprocess
import sys
from math import exp

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import make_multilabel_classification
from sklearn.exceptions import NotFittedError

import reference
from fastnn import MLPClassifier, MLPRegressor, Network, backpropagation
from fastnn.kernels.activations import ACTIVATIONS


def finite_differences(network, X, y, sample_weight=None, step=1e-6):
    """dC/dTheta of each example from C alone."""
    numeric = []
    for l, theta in enumerate(network.Theta):
        of_layer = np.empty((len(X), *theta.shape))
        for place in np.ndindex(theta.shape):
            C = []
            for sign in (1, -1):
                moved = [matrix.copy() for matrix in network.Theta]
                moved[l][place] += sign * step
                C.append(backpropagation(network._replace(Theta=moved), X, y, sample_weight).C)
            of_layer[(slice(None), *place)] = (C[0] - C[1]) / (2 * step)
        numeric.append(of_layer)
    return numeric


def figure_5():
    """The notes' example: 4 inputs, 2 and 3 hidden units, 1 output, all logistic."""
    rng = np.random.default_rng(0)
    Theta = [rng.standard_normal(shape) for shape in ((2, 5), (3, 3), (1, 4))]
    return Theta, rng.standard_normal(4), 0.3


def test_the_worked_example_of_the_notes():
    """By hand, number by number, with the corrections of docs/from_the_notes_to_the_code.md."""

    def sigma(z):
        return 1 / (1 + exp(-z))

    def slope(z):
        return sigma(z) * (1 - sigma(z))

    (Theta1, Theta2, Theta3), x, y = figure_5()
    x1, x2, x3, x4 = x
    z2 = [t0 + t1 * x1 + t2 * x2 + t3 * x3 + t4 * x4 for t0, t1, t2, t3, t4 in Theta1]
    a2 = [sigma(z) for z in z2]
    z3 = [t0 + t1 * a2[0] + t2 * a2[1] for t0, t1, t2 in Theta2]
    a3 = [sigma(z) for z in z3]
    t0, t1, t2, t3 = Theta3[0]
    z4 = t0 + t1 * a3[0] + t2 * a3[1] + t3 * a3[2]
    a4 = sigma(z4)
    C = (y - a4) ** 2 / 2
    dC_da4 = a4 - y  # the notes: y - a4
    dC_dz4 = slope(z4) * dC_da4
    dC_dTheta3 = [dC_dz4, dC_dz4 * a3[0], dC_dz4 * a3[1], dC_dz4 * a3[2]]  # once sigma'
    dC_da3 = [dC_dz4 * t1, dC_dz4 * t2, dC_dz4 * t3]  # where the notes got lost
    dC_dz3 = [dC_da3[k] * slope(z3[k]) for k in range(3)]
    dC_dTheta2 = [[d, d * a2[0], d * a2[1]] for d in dC_dz3]
    dC_da2 = [
        dC_dz3[0] * Theta2[0, 1] + dC_dz3[1] * Theta2[1, 1] + dC_dz3[2] * Theta2[2, 1],
        dC_dz3[0] * Theta2[0, 2] + dC_dz3[1] * Theta2[1, 2] + dC_dz3[2] * Theta2[2, 2],
    ]
    dC_dz2 = [dC_da2[k] * slope(z2[k]) for k in range(2)]
    dC_dTheta1 = [[d, d * x1, d * x2, d * x3, d * x4] for d in dC_dz2]

    network = Network([Theta1, Theta2, Theta3], ["logistic"] * 3, "squared_error")
    found = backpropagation(network, [x], [y])
    expected = {
        "z": [None, z2, z3, [z4]],
        "a": [x, a2, a3, [a4]],
        "dC_dz": [None, dC_dz2, dC_dz3, [dC_dz4]],
        "dC_da": [None, dC_da2, dC_da3, [dC_da4]],
        "dC_dTheta": [dC_dTheta1, dC_dTheta2, [dC_dTheta3]],
    }
    np.testing.assert_allclose(found.C, [C], rtol=1e-13)
    for name, layers in expected.items():
        assert len(getattr(found, name)) == len(layers)
        for actual, layer in zip(getattr(found, name), layers, strict=True):
            if layer is not None:
                np.testing.assert_allclose(actual, [layer], rtol=1e-12, err_msg=name)
    assert found.z[0] is None and found.dC_dz[0] is None


def test_the_worked_example_equals_finite_differences():
    Theta, x, y = figure_5()
    network = Network(Theta, ["logistic"] * 3, "squared_error")
    found = backpropagation(network, [x], [y])
    for actual, numeric in zip(found.dC_dTheta, finite_differences(network, [x], [y]), strict=True):
        np.testing.assert_allclose(actual, numeric, atol=1e-10)
    for j in range(4):  # dC/da of the input layer, where there is no formula in the notes
        e = np.eye(4)[j] * 1e-6
        C = [backpropagation(network, [at], [y]).C[0] for at in (x + e, x - e)]
        np.testing.assert_allclose(found.dC_da[0][0, j], (C[0] - C[1]) / 2e-6, atol=1e-10)


@pytest.mark.parametrize(
    "loss, last", [("squared_error", "tanh"), ("cross_entropy", "softmax"), ("gamma", "exp")]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_examples_and_averages_equal_the_reference(loss, last, weighted):
    rng = np.random.default_rng(1)
    Theta = [rng.standard_normal(shape) / 2 for shape in ((5, 4), (2, 6), (3, 3))]
    functions = ["gelu", "elu", last]
    X = rng.standard_normal((7, 3))
    Y = np.eye(3)[rng.integers(0, 3, 7)] if loss == "cross_entropy" else rng.uniform(1, 2, (7, 3))
    weight = rng.uniform(0.5, 2, 7) if weighted else None
    w = np.ones(7) if weight is None else weight
    network = Network(Theta, functions, loss)
    found = backpropagation(network, X, Y, weight)
    for i in range(7):
        for actual, expected in zip(
            found.dC_dTheta,
            reference.backpropagate(Theta, functions, loss, X[i], Y[i]),
            strict=True,
        ):
            np.testing.assert_allclose(actual[i], w[i] * expected, rtol=1e-10, atol=1e-14)
        error = reference.error(loss, Y[i], found.a[-1][i])
        np.testing.assert_allclose(found.C[i], w[i] * error, rtol=1e-12)
    mean = backpropagation(network, X, Y, weight, average=True)
    for actual, expected in zip(
        mean.dC_dTheta,
        reference.batch_gradient(Theta, functions, loss, X, Y, w, 0.0),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(mean.C, found.C.sum() / w.sum())
    for l in range(1, 4):
        assert mean.a[l].shape == (len(Theta[l - 1]),)
        np.testing.assert_allclose(mean.a[l], np.average(found.a[l], axis=0, weights=w))
        np.testing.assert_allclose(mean.z[l], np.average(found.z[l], axis=0, weights=w))
        np.testing.assert_allclose(mean.dC_dz[l], found.dC_dz[l].sum(axis=0) / w.sum())
        np.testing.assert_allclose(mean.dC_da[l], found.dC_da[l].sum(axis=0) / w.sum())


def of_estimator(estimator, loss, last, **settings):
    """The ``Network`` with an estimator's weights."""
    Theta = [
        np.vstack([b, W]).T for W, b in zip(estimator.coefs_, estimator.intercepts_, strict=True)
    ]
    return Network(Theta, [estimator.activation] * (len(Theta) - 1) + [last], loss, **settings)


def assert_same(found, expected):
    for name in found._fields:
        for a, b in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15, err_msg=name)


CLASSIFIERS = {
    "binary": (2, {}, "log_loss", "logistic", {}),
    "smoothed": (2, {"label_smoothing": 0.2}, "log_loss", "logistic", {"label_smoothing": 0.2}),
    "multiclass": (3, {}, "cross_entropy", "softmax", {}),
    "smoothed multiclass": (
        3,
        {"label_smoothing": 0.2},
        "cross_entropy",
        "softmax",
        {"label_smoothing": 0.2},
    ),
    "squared": (3, {"loss": "squared_error"}, "squared_error", "softmax", {}),
}


@pytest.mark.parametrize("case", CLASSIFIERS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_classifiers(case):
    n_classes, params, loss, last, settings = CLASSIFIERS[case]
    rng = np.random.default_rng(2)
    X, codes = rng.standard_normal((20, 4)), rng.integers(0, n_classes, 20)
    y = np.array(["blue", "green", "red"])[codes]
    warm = MLPClassifier((5, 3), "tanh", max_iter=3, warm_start=True, random_state=0, **params)
    warm.fit(X, y)
    targets = np.eye(3)[codes] if n_classes == 3 else codes
    network = of_estimator(warm, loss, last, **settings)
    before = warm.__dict__.copy()
    # Not every class need be there, not even with warm_start.
    found = backpropagation(warm, X[:2], y[:2])
    assert_same(found, backpropagation(network, X[:2], targets[:2]))
    assert before.keys() == warm.__dict__.keys() and warm.warm_start
    all_sparse = backpropagation(warm, sp.csr_array(X), y)
    assert_same(all_sparse, backpropagation(network, X, targets))
    with pytest.raises(ValueError, match="classes not in"):
        backpropagation(warm, X[:1], ["yellow"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_multilabel_classifier():
    X, Y = make_multilabel_classification(20, 4, n_classes=3, random_state=0)
    X = X - X.mean()
    model = MLPClassifier((5,), max_iter=3, random_state=0).fit(X, Y)
    network = of_estimator(model, "log_loss", "logistic")
    assert_same(backpropagation(model, X, Y), backpropagation(network, X, Y))


REGRESSORS = {
    "squared_error": ({}, "identity", {}),
    "rss": ({}, "identity", {}),
    "absolute_error": ({"out_activation": "tanh"}, "tanh", {}),
    "huber": ({"huber_delta": 0.3}, "identity", {"huber_delta": 0.3}),
    "quantile": ({"quantile": 0.2}, "identity", {"quantile": 0.2}),
    "poisson": ({}, "exp", {}),
    "gamma": ({"out_activation": "softplus"}, "softplus", {}),
}


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("loss", REGRESSORS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_regressors(loss, n_outputs):
    params, last, settings = REGRESSORS[loss]
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((20, 4)), rng.uniform(0.5, 2, (20, n_outputs))
    y = Y.ravel() if n_outputs == 1 else Y
    model = MLPRegressor(loss, (5,), "silu", max_iter=3, random_state=0, **params).fit(X, y)
    network = of_estimator(model, loss, last, **settings)
    found = backpropagation(model, X, y)
    assert_same(found, backpropagation(network, X, Y))
    np.testing.assert_allclose(found.a[-1].reshape(y.shape), model.predict(X), rtol=1e-10)


def test_the_squared_error_is_the_sum_over_outputs():
    network = Network([[[0.0, 1.0], [0.0, 1.0]]], ["identity"])
    found = backpropagation(network, [[1.0]], [[2.0, 4.0]])
    assert found.C == (2 - 1) ** 2 / 2 + (4 - 1) ** 2 / 2
    np.testing.assert_array_equal(found.dC_da[-1], [[-1, -3]])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_float32_estimators_are_shown_in_float64():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 4)).astype(np.float32), rng.standard_normal(20)
    model = MLPRegressor(hidden_layer_sizes=(5,), solver="lbfgs", max_iter=3).fit(X, y)
    found = backpropagation(model, X, y)
    assert found.C.dtype == found.a[1].dtype == np.float64
    np.testing.assert_allclose(found.a[-1].ravel(), model.predict(X), rtol=1e-4, atol=1e-5)


def test_certain_outputs_give_finite_derivatives_where_they_are_right():
    network = Network([[[0.0, 1.0]]], ["logistic"], "log_loss")
    found = backpropagation(network, [[800.0], [800.0]], [1.0, 0.0])
    np.testing.assert_array_equal(found.dC_da[-1].ravel(), [-1, np.inf])
    np.testing.assert_array_equal(found.dC_dz[-1].ravel(), [0, 1])


@pytest.mark.parametrize("place", [0, 1])
def test_step_units_have_a_forward_pass_but_no_derivatives(place):
    functions = ["identity", "identity"]
    functions[place] = ("step", 0.5)
    network = Network([[[0.0, 1.0]], [[0.0, 1.0]]], functions)
    found = backpropagation(network, [[0.4], [0.5]], None)
    np.testing.assert_array_equal(found.a[-1].ravel(), [0, 1])
    assert found.C is None and found.dC_dTheta is None
    mean = backpropagation(network, [[0.4], [0.5]], None, average=True)
    np.testing.assert_array_equal(mean.a[-1], [0.5])
    with pytest.raises(ValueError, match="zero almost everywhere"):
        backpropagation(network, [[0.4]], [1.0])
    model = MLPClassifier.from_weights([[[1.0]]], [[0.0]], out_activation="step")
    np.testing.assert_array_equal(backpropagation(model, [[-1.0]], None).a[-1], [[0]])
    with pytest.raises(ValueError, match="zero almost everywhere"):
        backpropagation(model, [[1.0]], [1])


WRONG = {
    "one activation function for each": dict(activations=["relu"]),
    "must have 4 columns": dict(Theta=[np.zeros((2, 3)), np.zeros((1, 3))]),
    "units that Theta\\[0\\] leads to": dict(Theta=[np.zeros((2, 4)), np.zeros((1, 4))]),
    "loss must be one of": dict(loss="mse"),
    "activations must be of": dict(activations=["sigmoid", "identity"]),
    "with a constant k only for": dict(activations=[("relu", 2.0), "identity"]),
    "takes probabilities": dict(loss="log_loss"),
}


@pytest.mark.parametrize("message", WRONG)
def test_errors_of_networks(message):
    network = Network([np.zeros((2, 4)), np.zeros((1, 3))], ["relu", "identity"])
    with pytest.raises(ValueError, match=message):
        backpropagation(network._replace(**WRONG[message]), np.zeros((2, 3)), np.zeros(2))


def test_errors_of_targets():
    network = Network([np.zeros((3, 2))], ["softmax"], "cross_entropy")
    for y, message in [
        ([0, 3], "Classes must be 0 ... 2"),
        ([[0, 1, 1], [1, 0, 0]], "single 1"),
        ([0], "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            backpropagation(network, [[1.0], [2.0]], y)
    with pytest.raises(NotFittedError):
        backpropagation(MLPRegressor(), [[1.0]], [1.0])


def test_a_step_is_the_only_activation_without_derivatives():
    for name in ACTIVATIONS:
        network = Network([np.full((2, 2), 0.3)], [name], "squared_error")
        if name != "step":
            assert np.isfinite(backpropagation(network, [[1.0]], [[1.0, 0.0]]).dC_dTheta[0]).all()


def test_nothing_is_compiled_by_the_import():
    code = (
        "import fastnn\n"
        "from fastnn._backpropagation import _from_python\n"
        "assert _from_python.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=300)
