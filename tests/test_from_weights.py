"""Estimators with given weights predict and go on like those that were fitted."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def data(n_classes=3, multilabel=False, n=30):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    if multilabel:
        return X, rng.integers(0, 2, (n, 3))
    return X, np.array(["blue", "green", "red"])[rng.integers(0, n_classes, n)]


def again(fitted, **params):
    """What from_weights makes of a fitted estimator."""
    if hasattr(fitted, "classes_") and fitted._target_type != "multilabel-indicator":
        params["classes"] = fitted.classes_
    params = {**fitted.get_params(), **params}
    return type(fitted).from_weights(fitted.coefs_, fitted.intercepts_, **params)


CASES = {
    "binary": (MLPClassifier, {}, data(2)),
    "multiclass": (MLPClassifier, {"activation": ["tanh", "gelu"]}, data(3)),
    "multilabel": (MLPClassifier, {"out_activation": "logistic"}, data(multilabel=True)),
    "regression": (MLPRegressor, {"loss": "poisson"}, (data()[0], np.arange(30.0))),
    "two outputs": (MLPRegressor, {}, (data()[0], np.arange(60.0).reshape(30, 2))),
}


@pytest.fixture(params=CASES)
def pair(request):
    """A fitted estimator, from_weights of its weights, and data."""
    kind, params, (X, y) = CASES[request.param]
    settings = {"hidden_layer_sizes": (5, 3), "max_iter": 3, "random_state": 0, "batch_size": 10}
    fitted = kind(**settings, **params).fit(X, y)
    return fitted, again(fitted), X, y


def test_it_predicts_as_the_fitted_one(pair):
    fitted, given, X, _ = pair
    np.testing.assert_array_equal(given.predict(X), fitted.predict(X))
    if hasattr(fitted, "predict_proba"):
        np.testing.assert_array_equal(given.predict_proba(X), fitted.predict_proba(X))
    for name in ("n_features_in_", "n_outputs_", "n_layers_", "out_activation_"):
        assert getattr(given, name) == getattr(fitted, name), name
    assert given.n_iter_ == given.t_ == 0
    fitted.coefs_[0][...] = 0  # copies
    assert (given.coefs_[0] != 0).all()


def test_pickles_and_clones(pair):
    _, given, X, _ = pair
    copy = pickle.loads(pickle.dumps(given))
    np.testing.assert_array_equal(copy.predict(X), given.predict(X))
    new = clone(given)
    assert new.get_params() == given.get_params()
    with pytest.raises(NotFittedError):
        new.predict(X)


def test_it_goes_on_like_a_fit_from_there(pair):
    """partial_fit and warm_start of both, with the optimiser's memory new in both."""
    fitted, given, X, y = pair
    for estimator in (fitted, given):
        estimator.set_params(warm_start=True, shuffle=False)
        estimator.fit(X, y)
    for a, b in zip(fitted.coefs_, given.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(given.loss_curve_) == given.n_iter_ == 3
    new = again(fitted)
    before = new.coefs_[0].copy()
    new.partial_fit(X, y).partial_fit(X, y)
    assert (new.coefs_[0] != before).any() and new.n_iter_ == 1


def test_partial_fit_follows_the_gradient():
    """One update of plain gradient descent from given weights, in the head."""
    line = MLPRegressor.from_weights(
        [[[1.0]]], [[0.0]], solver="sgd", momentum=0, alpha=0, learning_rate_init=0.5
    )
    line.partial_fit([[2.0]], [3.0])  # dC/dz = 2 - 3
    np.testing.assert_array_equal([line.intercepts_[0][0], line.coefs_[0][0, 0]], [0.5, 2.0])


def test_lbfgs_goes_on_from_given_weights():
    X, y = data()[0], np.arange(30.0)
    model = MLPRegressor.from_weights(
        [np.zeros((4, 1))], [[0.0]], solver="lbfgs", warm_start=True, alpha=0
    )
    model.fit(X, y)
    best = np.linalg.lstsq(np.column_stack([np.ones(30), X]), y, rcond=None)[0]
    np.testing.assert_allclose([*model.intercepts_[0], *model.coefs_[0][:, 0]], best, atol=1e-2)


SQUARE = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR = ([[[1, 1], [1, 1]], [[1], [-1]]], [[-0.5, -1.5], [0]])


@pytest.mark.parametrize("dtype", [int, np.float32, np.float64])
def test_xor_of_step_units(dtype):
    xor = MLPClassifier.from_weights(*XOR, activation="step", out_activation=("step", 0.5))
    X = np.array(SQUARE, dtype)
    np.testing.assert_array_equal(xor.predict(X), [0, 1, 1, 0])
    np.testing.assert_array_equal(xor.predict_proba(X)[:, 1], [0, 1, 1, 0])
    assert xor.hidden_layer_sizes == (2,)
    named = MLPClassifier.from_weights(
        *XOR, classes=["same", "two"], activation="step", out_activation=("step", 0.5)
    )
    assert named.predict(X).tolist() == ["same", "two", "two", "same"]
    with pytest.raises(ValueError, match="out_activation must be 'logistic'"):
        xor.partial_fit(X, [0, 1, 1, 0])
    xor.set_params(out_activation=None)
    with pytest.raises(ValueError, match="zero almost everywhere"):
        xor.partial_fit(X, [0, 1, 1, 0])


def test_a_step_at_one_half_decides_as_the_threshold_of_a_logistic_output_does():
    """The notes' use of the step function: z >= 1/2 of a linear output, or a decision on a."""
    rng = np.random.default_rng(1)
    X, W, b = rng.standard_normal((50, 4)), rng.standard_normal((4, 1)), [0.3]
    step = MLPClassifier.from_weights([W], [b], out_activation=("step", 0.5))
    np.testing.assert_array_equal(step.predict(X), (X @ W + b >= 0.5).ravel())
    logistic = MLPClassifier.from_weights([W], [b])
    at_zero = MLPClassifier.from_weights([W], [b], out_activation="step")
    np.testing.assert_array_equal(logistic.predict(X), at_zero.predict(X))


def test_several_step_outputs_are_labels():
    model = MLPClassifier.from_weights([np.eye(2)], [[0, 0]], out_activation=("step", 0.5))
    np.testing.assert_array_equal(model.predict([[0.2, 0.7]]), [[0, 1]])


@pytest.mark.parametrize("last", ["logistic", "identity", "softmax"])
def test_one_of_three_classes_is_predicted_whatever_the_output_activation(last):
    W, X = np.eye(3), [[0.1, 0.9, 0.2], [3.0, 0.8, 2.0]]
    model = MLPClassifier.from_weights(
        [W], [[0, 0, 0]], classes=["a", "b", "c"], loss="squared_error", out_activation=last
    )
    assert model.predict(X).tolist() == ["b", "a"]


def test_float32_is_kept_if_all_weights_are():
    W, b = np.ones((1, 1), np.float32), np.ones(1, np.float32)
    assert MLPRegressor.from_weights([W], [b]).coefs_[0].dtype == np.float32
    assert MLPRegressor.from_weights([W], [[1]]).coefs_[0].dtype == np.float64


W, V, b, c = np.zeros((2, 3)), np.zeros((3, 1)), np.zeros(3), np.zeros(1)
WRONG = {
    "one array for each layer, at least one: got 2 and 1": ([W, V], [b], {}),
    "at least one: got 0 and 0": ([], [], {}),
    r"coefs\[0\] must have shape \(n_in, n_out\), got \(3,\)": ([b], [c], {}),
    r"coefs\[1\] has shape \(2, 3\), but must have 3 rows": ([W, W], [b, b], {}),
    r"intercepts\[1\] has shape \(3,\), but must have \(1,\)": ([W, V], [b, b], {}),
    r"coefs\[0\] must be finite": ([W * np.nan, V], [b, c], {}),
    r"intercepts\[1\] must be finite": ([W, V], [b, ["a"]], {}),
    r"hidden_layer_sizes=\(4,\) differs from the \(3,\)": (
        [W, V],
        [b, c],
        {"hidden_layer_sizes": 4},
    ),
    "activation must be one of": ([W, V], [b, c], {"activation": ["exp"]}),
    "'alpha' parameter of MLPClassifier": ([W, V], [b, c], {"alpha": -1}),
    "2 labels in ascending order for 1 outputs": ([W, V], [b, c], {"classes": [0, 1, 2]}),
    "labels in ascending order": ([W, V], [b, c], {"classes": ["b", "a"]}),
    "two classes has one output": ([np.zeros((4, 2))], [np.zeros(2)], {}),
    "takes probabilities": ([W, V], [b, c], {"out_activation": "tanh"}),
}


@pytest.mark.parametrize("message", WRONG)
def test_errors_say_what_came_and_what_is_expected(message):
    coefs, intercepts, params = WRONG[message]
    with pytest.raises(ValueError, match=message):
        MLPClassifier.from_weights(coefs, intercepts, **params)


def test_several_quantiles_have_an_output_each():
    W, b = np.zeros((2, 3)), np.zeros(3)
    quantiles = {"loss": "quantile", "quantile": [0.1, 0.5, 0.9]}
    assert MLPRegressor.from_weights([W], [b], **quantiles).predict([[1, 2]]).shape == (1, 3)
    with pytest.raises(ValueError, match=r"an output for each quantile .* but .* has 4 columns"):
        MLPRegressor.from_weights([np.zeros((2, 4))], [np.zeros(4)], **quantiles)


def test_the_regressor_knows_no_classes():
    with pytest.raises(TypeError, match="classes"):
        MLPRegressor.from_weights([V], [c], classes=[0, 1])
