"""What happens between epochs: schedules, validation, scorers, callbacks, limits, averages."""

import io
import itertools
import pickle
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from sklearn import neural_network as sk
from sklearn.base import clone
from sklearn.datasets import (
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    make_scorer,
    mean_poisson_deviance,
    mean_squared_error,
)
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler, scale

from fastnn import MLPClassifier, MLPRegressor, _loops, warmup
from fastnn import _callbacks as callbacks
from fastnn._averaging import WeightAverage
from fastnn._schedules import SCHEDULES, rate

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
DIGITS = load_digits(return_X_y=True)
X_DIGITS, X_DIGITS_VAL, Y_DIGITS, Y_DIGITS_VAL = train_test_split(
    DIGITS[0][:900] / 16, DIGITS[1][:900], test_size=0.3, random_state=0
)
X_DIABETES, X_DIABETES_VAL, Y_DIABETES, Y_DIABETES_VAL = train_test_split(
    *(scale(a) for a in load_diabetes(return_X_y=True)), test_size=0.3, random_state=0
)
ESTIMATORS = [MLPClassifier, MLPRegressor]
# Gradient descent that does not settle at a constant rate.
NOISY = dict(
    activation="tanh",
    solver="sgd",
    learning_rate_init=0.02,
    batch_size=5,
    max_iter=60,
    n_iter_no_change=np.inf,
    alpha=0,
    random_state=0,
)


def assert_same_weights(a, b):
    for mine, other in zip(a.coefs_ + a.intercepts_, b.coefs_ + b.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, other)


def weights(model):
    return np.concatenate([a.ravel() for a in model.coefs_ + model.intercepts_])


def after_each_epoch(n, X=X_IRIS, y=Y_IRIS, **settings):
    """The weights after each of the first n epochs, each from a fit of its own."""
    return [weights(MLPClassifier(max_iter=k + 1, **settings).fit(X, y)) for k in range(n)]


# --- learning rates ------------------------------------------------------------------------------


def rates(name, max_iter, initial=1.0):
    return np.array([rate(name, epoch, initial, max_iter) for epoch in range(max_iter)])


def test_cosine():
    expected = 0.3 * (1 + np.cos(np.pi * np.arange(40) / 40)) / 2
    np.testing.assert_allclose(rates("cosine", 40, 0.3), expected)
    assert rates("cosine", 40)[-1] > 0


def test_one_cycle():
    found = rates("one_cycle", 101)
    assert found[0] == pytest.approx(1 / 25)
    assert found.argmax() == 30
    assert found[30] == 1
    assert found[-1] == pytest.approx(1e-4)
    assert (np.diff(found[:31]) > 0).all()
    assert (np.diff(found[30:]) < 0).all()
    assert found[15] == pytest.approx((1 + 1 / 25) / 2)  # half way up a cosine


def test_step():
    np.testing.assert_allclose(rates("step", 9), np.repeat([1, 0.1, 0.01], 3))
    np.testing.assert_allclose(rates("step", 4), [1, 1, 0.1, 0.01])


def test_there_are_kernels_for_floats_alone():
    with pytest.raises(ValueError, match="dtypes must be 'float32' or 'float64', got 'int32'"):
        warmup(["float64", "int32"])


def test_warmup():
    np.testing.assert_allclose(rates("warmup", 100)[:7], [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    np.testing.assert_allclose(rates("warmup", 20)[:3], [1 / 2, 1, 1])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("max_iter", [1, 2, 3, 7, 200])
def test_every_rate_is_positive_and_at_most_the_initial_one(name, max_iter):
    found = rates(name, max_iter, 0.5)
    assert (found > 0).all()
    assert (found <= 0.5).all()
    assert rate(name, max_iter + 5, 0.5, max_iter) == found[-1]


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_constant_function_is_constant(solver):
    settings = dict(solver=solver, learning_rate_init=0.01, max_iter=5, random_state=0)
    constant = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    function = MLPClassifier(learning_rate=lambda epoch: 0.01, **settings).fit(X_IRIS, Y_IRIS)
    assert_same_weights(constant, function)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_function_with_its_values(solver, name):
    settings = dict(solver=solver, learning_rate_init=0.01, max_iter=6, random_state=0)
    named = MLPClassifier(learning_rate=name, **settings).fit(X_IRIS, Y_IRIS)
    values = rates(name, 6, 0.01)
    asked = []

    def function(epoch):
        asked.append(epoch)
        return values[epoch]

    by_value = MLPClassifier(learning_rate=function, **settings).fit(X_IRIS, Y_IRIS)
    assert asked == [0, 1, 2, 3, 4, 5]
    assert_same_weights(named, by_value)
    constant = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    assert not np.array_equal(named.coefs_[0], constant.coefs_[0])


def test_the_rate_of_sgd_is_the_size_of_its_step():
    """One step without momentum from the same weights: proportional to the rate."""
    settings = dict(solver="sgd", momentum=0, batch_size="full", max_iter=1, random_state=0)
    start = weights(
        MLPRegressor(learning_rate=lambda epoch: 1e-300, **settings).fit(X_DIABETES, Y_DIABETES)
    )
    steps = [
        weights(
            MLPRegressor(learning_rate=lambda epoch, r=r: r, **settings).fit(X_DIABETES, Y_DIABETES)
        )
        - start
        for r in (0.01, 0.03)
    ]
    np.testing.assert_allclose(3 * steps[0], steps[1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "step"])
def test_a_falling_rate_ends_quieter_and_lower_than_a_constant_high_one(name):
    constant = MLPClassifier((20,), **NOISY).fit(X_IRIS, Y_IRIS)
    falling = MLPClassifier((20,), learning_rate=name, **NOISY).fit(X_IRIS, Y_IRIS)
    assert np.std(falling.loss_curve_[-10:]) < np.std(constant.loss_curve_[-10:]) / 2
    assert falling.loss_ < np.mean(constant.loss_curve_[-10:])


def test_partial_fit_counts_epochs_on_and_fit_begins_anew():
    asked = []

    def function(epoch):
        asked.append(epoch)
        return 0.01

    model = MLPClassifier(learning_rate=function, max_iter=2, warm_start=True, random_state=0)
    model.fit(X_IRIS, Y_IRIS)
    model.partial_fit(X_IRIS, Y_IRIS)
    model.partial_fit(X_IRIS, Y_IRIS)
    model.fit(X_IRIS, Y_IRIS)
    assert asked == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), None, "fast"])
def test_a_bad_rate_is_named(value):
    model = MLPClassifier(learning_rate=lambda epoch: 0.1 if epoch < 2 else value)
    with pytest.raises(ValueError, match=rf"learning_rate .* epoch 2 .*{value!r}"):
        model.fit(X_IRIS, Y_IRIS)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="learning_rate"):
        MLPClassifier(learning_rate="cosinus").fit(X_IRIS, Y_IRIS)


# --- a given validation set ----------------------------------------------------------------------


def test_early_stopping_on_given_examples_keeps_the_best():
    model = MLPClassifier(
        early_stopping=True, learning_rate_init=0.01, n_iter_no_change=5, random_state=0
    )
    model.fit(X_DIGITS, Y_DIGITS, X_val=X_DIGITS_VAL, y_val=Y_DIGITS_VAL)
    assert model.n_iter_ < 200
    scores = model.validation_scores_
    assert len(scores) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.score(X_DIGITS_VAL, Y_DIGITS_VAL) == max(scores) == model.best_validation_score_
    best = int(np.argmax(scores))
    assert best < model.n_iter_ - 1
    loss = log_loss(Y_DIGITS_VAL, model.predict_proba(X_DIGITS_VAL))
    assert model.validation_loss_curve_[best] == pytest.approx(loss)
    assert model.best_loss_ is None


def test_early_stopping_on_the_validation_loss():
    model = MLPRegressor(
        early_stopping=True,
        scoring="loss",
        learning_rate_init=0.01,
        n_iter_no_change=5,
        random_state=0,
    )
    model.fit(X_DIABETES, Y_DIABETES, X_val=X_DIABETES_VAL, y_val=Y_DIABETES_VAL)
    assert model.n_iter_ < 200
    np.testing.assert_array_equal(
        model.validation_scores_, np.negative(model.validation_loss_curve_)
    )
    error = mean_squared_error(Y_DIABETES_VAL, model.predict(X_DIABETES_VAL)) / 2
    assert min(model.validation_loss_curve_) == pytest.approx(error)
    assert np.argmin(model.validation_loss_curve_) < model.n_iter_ - 1


@pytest.mark.parametrize("ours", ESTIMATORS)
def test_given_examples_without_early_stopping_are_only_looked_at(ours):
    settings = dict(max_iter=15, tol=10, n_iter_no_change=5, random_state=0)
    with_them = ours(**settings).fit(X_IRIS, Y_IRIS, X_val=X_IRIS[::3], y_val=Y_IRIS[::3])
    without = ours(**settings).fit(X_IRIS, Y_IRIS)
    assert_same_weights(with_them, without)
    assert with_them.n_iter_ == without.n_iter_ == 7
    assert with_them.best_loss_ == without.best_loss_
    assert len(with_them.validation_scores_) == with_them.n_iter_
    assert with_them.validation_scores_[-1] == pytest.approx(
        with_them.score(X_IRIS[::3], Y_IRIS[::3])
    )
    assert with_them.best_validation_score_ == max(with_them.validation_scores_)
    assert without.validation_scores_ is without.validation_loss_curve_ is None


def test_no_random_numbers_are_drawn_for_given_examples():
    settings = dict(max_iter=3, random_state=0)
    stopping = MLPClassifier(early_stopping=True, **settings)
    stopping.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    plain = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    assert stopping.loss_curve_ == plain.loss_curve_


def test_the_split_has_a_loss_curve_and_scikit_learns_scores():
    settings = dict(early_stopping=True, max_iter=5, random_state=0)
    model = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    theirs = sk.MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(model.validation_scores_, theirs.validation_scores_)
    assert len(model.validation_loss_curve_) == 5
    assert model.validation_loss_curve_[-1] < model.validation_loss_curve_[0]


def mean_losses():
    """Estimator, targets, and the mean loss of predictions from scikit-learn or by hand."""
    rng = np.random.default_rng(0)
    _, labels = make_multilabel_classification(n_samples=150, n_features=4, random_state=0)
    labels = labels[:, :3]
    both = np.c_[Y_IRIS, X_IRIS[:, 0]]

    def of_labels(model, X, y, w):
        p = model.predict_proba(X)
        return np.average(-np.where(y, np.log(p), np.log(1 - p)).sum(axis=1), weights=w)

    def of_classes(model, X, y, w):
        return log_loss(y, model.predict_proba(X), sample_weight=w)

    def of_numbers(model, X, y, w):
        return mean_squared_error(y, model.predict(X), sample_weight=w) / 2

    def of_counts(model, X, y, w):
        return mean_poisson_deviance(y, model.predict(X), sample_weight=w) / 2

    yield "binary", MLPClassifier, {}, np.array(["no", "yes"])[Y_IRIS % 2], of_classes
    yield "multiclass", MLPClassifier, {}, np.array(list("cab"))[Y_IRIS], of_classes
    yield "multilabel", MLPClassifier, {}, labels, of_labels
    yield "one output", MLPRegressor, {}, X_IRIS[:, 2] ** 2, of_numbers
    yield "two outputs", MLPRegressor, {}, both, of_numbers
    yield "poisson", MLPRegressor, {"loss": "poisson"}, rng.poisson(3, 150), of_counts


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", list(mean_losses()), ids=lambda case: case[0])
def test_the_validation_loss_is_the_training_loss_without_penalty(case, weighted):
    _, ours, settings, y, mean_loss = case
    weight = np.linspace(0, 3, 50) if weighted else None
    model = ours(max_iter=4, alpha=100, random_state=0, **settings)
    X_val, y_val = X_IRIS[::3], y[::3]
    model.fit(X_IRIS, y, X_val=X_val, y_val=y_val, sample_weight_val=weight)
    assert model.validation_loss_curve_[-1] == pytest.approx(mean_loss(model, X_val, y_val, weight))
    assert model.validation_scores_[-1] == pytest.approx(model.score(X_val, y_val, weight))


def test_float32_and_sparse_validation_examples():
    dense = MLPClassifier(max_iter=3, random_state=0).fit(
        X_DIGITS.astype(np.float32), Y_DIGITS, X_val=X_DIGITS_VAL, y_val=Y_DIGITS_VAL
    )
    sparse = MLPClassifier(max_iter=3, random_state=0).fit(
        X_DIGITS.astype(np.float32),
        Y_DIGITS,
        X_val=sp.coo_array(X_DIGITS_VAL),
        y_val=Y_DIGITS_VAL.tolist(),
    )
    assert dense.coefs_[0].dtype == np.float32
    np.testing.assert_allclose(
        dense.validation_loss_curve_, sparse.validation_loss_curve_, rtol=1e-5
    )


def test_frames_with_other_columns_are_refused():
    frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
    MLPClassifier(max_iter=2).fit(frame, Y_IRIS, X_val=frame[:20], y_val=Y_IRIS[:20])
    with pytest.raises(ValueError, match=r"X_val.*feature names"):
        MLPClassifier().fit(frame, Y_IRIS, X_val=frame[list("dcba")], y_val=Y_IRIS)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_validation_arguments_that_do_not_fit_are_refused(early_stopping):
    model = MLPClassifier(early_stopping=early_stopping)
    regressor = MLPRegressor(early_stopping=early_stopping)
    for alone in [dict(X_val=X_IRIS), dict(y_val=Y_IRIS), dict(sample_weight_val=np.ones(150))]:
        with pytest.raises(ValueError, match="X_val and y_val must be given together"):
            model.fit(X_IRIS, Y_IRIS, **alone)
    with pytest.raises(ValueError, match=r"X_val.*3 features, but MLPClassifier is expecting 4"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS[:, :3], y_val=Y_IRIS)
    with pytest.raises(ValueError, match=r"y_val has labels that y has not: \[3, 7\]"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS[:3], y_val=[0, 7, 3])
    with pytest.raises(ValueError, match=r"y_val has labels that y has not: \['0', '1'\]"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS[:3], y_val=["0", "1", "1"])
    with pytest.raises(ValueError, match="y_val is a matrix of labels"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS[:2], y_val=[[0, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"y_val.*inconsistent numbers of samples"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS[:3])
    with pytest.raises(ValueError, match=r"X_val.*NaN"):
        model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS * np.nan, y_val=Y_IRIS)
    with pytest.raises(ValueError, match="y_val has 4 outputs, but y has 1"):
        regressor.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=X_IRIS)
    with pytest.raises(ValueError, match=r"X_val and y_val are not used by solver='lbfgs'"):
        clone(model).set_params(solver="lbfgs").fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)


def test_a_pipeline_transforms_the_validation_set():
    with sklearn.config_context(enable_metadata_routing=True):
        network = MLPClassifier(early_stopping=True, max_iter=50, random_state=0)
        network.set_fit_request(X_val=True, y_val=True)
        pipeline = Pipeline(
            [("scale", StandardScaler()), ("mlp", network)], transform_input=["X_val"]
        )
        pipeline.fit(X_DIGITS, Y_DIGITS, X_val=X_DIGITS_VAL, y_val=Y_DIGITS_VAL)
        scaler = StandardScaler().fit(X_DIGITS)
        by_hand = MLPClassifier(early_stopping=True, max_iter=50, random_state=0).fit(
            scaler.transform(X_DIGITS),
            Y_DIGITS,
            X_val=scaler.transform(X_DIGITS_VAL),
            y_val=Y_DIGITS_VAL,
        )
    assert_same_weights(pipeline["mlp"], by_hand)
    assert pipeline["mlp"].validation_scores_ == by_hand.validation_scores_
    assert pipeline.score(X_DIGITS_VAL, Y_DIGITS_VAL) == max(by_hand.validation_scores_)


def test_warm_start_with_a_validation_set_goes_on():
    settings = dict(warm_start=True, max_iter=3, random_state=0)
    model = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS)
    model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    assert len(model.loss_curve_) == 9
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == 6
    model.partial_fit(X_IRIS, Y_IRIS)
    assert len(model.validation_scores_) == 6


# --- scoring -------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [False, True])
def test_a_scorer_by_name(given):
    X, y = pd.DataFrame(X_DIGITS).add_prefix("pixel"), np.array(list("abcdefghij"))[Y_DIGITS]
    model = MLPClassifier(
        early_stopping=True, scoring="balanced_accuracy", max_iter=30, random_state=0
    )
    X_val, y_val = X[:100], y[:100]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # about feature names
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y, **(dict(X_val=X_val, y_val=y_val) if given else {}))
    assert len(model.validation_scores_) == model.n_iter_
    if given:
        found = balanced_accuracy_score(y_val, model.predict(X_val))
        assert max(model.validation_scores_) == pytest.approx(found)


def test_a_scorer_gets_the_original_rows_and_weights():
    calls = []
    y = np.array(list("cab"))[Y_IRIS]
    weight = np.linspace(1, 2, 150)

    def scorer(estimator, X, y, sample_weight):
        calls.append((X, y, sample_weight))
        return accuracy_score(y, estimator.predict(X), sample_weight=sample_weight)

    settings = dict(early_stopping=True, max_iter=20, random_state=0)
    model = MLPClassifier(scoring=scorer, **settings).fit(X_IRIS, y, weight)
    plain = MLPClassifier(**settings).fit(X_IRIS, y, weight)
    assert model.validation_scores_ == plain.validation_scores_
    assert_same_weights(model, plain)
    assert len(calls) == model.n_iter_
    for X_rows, labels, weights_of_rows in calls:
        for row, label, w in zip(X_rows, labels, weights_of_rows, strict=True):
            (i,) = np.flatnonzero(weight == w)
            np.testing.assert_array_equal(X_IRIS[i], row)
            assert y[i] == label


@pytest.mark.parametrize(
    "container", [sp.csr_array, sp.coo_array, sp.csc_matrix, np.ndarray.tolist]
)
def test_a_scorer_and_a_split_of_any_container(container):
    settings = dict(early_stopping=True, max_iter=5, random_state=0)
    model = MLPRegressor(scoring="r2", **settings).fit(container(X_IRIS), Y_IRIS)
    plain = MLPRegressor(**settings).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(model.validation_scores_, plain.validation_scores_)


def test_a_scorer_of_multilabel_targets_in_a_sparse_matrix():
    X, y = make_multilabel_classification(n_samples=60, random_state=0)
    settings = dict(early_stopping=True, max_iter=5, random_state=0)
    model = MLPClassifier(scoring="accuracy", **settings).fit(X, sp.csr_array(y))
    assert model.validation_scores_ == MLPClassifier(**settings).fit(X, y).validation_scores_


def test_the_loss_as_score_of_a_split():
    model = MLPClassifier(early_stopping=True, scoring="loss", max_iter=20, random_state=0)
    model.fit(X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(
        model.validation_scores_, np.negative(model.validation_loss_curve_)
    )


def test_a_weighted_scorer_with_metadata_routing():
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        settings = dict(early_stopping=True, max_iter=5, random_state=0)
        weight = np.linspace(1, 2, 150)
        model = MLPClassifier(scoring=scorer, **settings).fit(X_IRIS, Y_IRIS, weight)
        plain = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS, weight)
    assert model.validation_scores_ == plain.validation_scores_


def test_a_diverged_network_ends_with_the_usual_error_or_its_best_weights():
    model = MLPRegressor(
        activation="identity",
        solver="sgd",
        learning_rate_init=1,
        early_stopping=True,
        scoring="neg_mean_squared_error",
        n_iter_no_change=3,
        random_state=0,
    ).fit(X_IRIS, Y_IRIS)
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ < 200


def test_an_unknown_scorer_is_refused_before_training():
    model = MLPClassifier(scoring="beauty", early_stopping=True)
    with pytest.raises(ValueError, match="scoring"):
        model.fit(X_IRIS, Y_IRIS)


# --- scikit-learn's callbacks --------------------------------------------------------------------


class Recorder:
    """Notes what it is called with, and asks to stop after ``last`` epochs."""

    def __init__(self, last=None, propagated=False):
        self.events, self.weights, self.last = [], [], last
        if propagated:
            self.max_propagation_depth = None

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        self.data = X, y, metadata
        if context.task_name in ("epoch", "iteration"):
            self.weights.append(weights(fitted_estimator))
            return context.task_id + 1 == self.last
        return False


needs_callbacks = pytest.mark.skipif(
    not hasattr(callbacks.CallbackSupportMixin, "set_callbacks"), reason="scikit-learn before 1.9"
)


@needs_callbacks
@pytest.mark.parametrize("ours", ESTIMATORS)
def test_callbacks_are_called_once_per_epoch_with_its_weights(ours):
    recorder = Recorder()
    model = ours(max_iter=4, random_state=0).set_callbacks(recorder)
    weight = np.ones(150)
    model.fit(X_IRIS, Y_IRIS, sample_weight=weight)
    epochs = ["begin epoch", "end epoch"] * 4
    assert recorder.events == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert recorder.data[0] is X_IRIS
    assert recorder.data[1] is Y_IRIS
    assert recorder.data[2] == {"sample_weight": weight}
    for k, found in enumerate(recorder.weights):
        expected = ours(max_iter=k + 1, random_state=0).fit(X_IRIS, Y_IRIS, sample_weight=weight)
        np.testing.assert_array_equal(found, weights(expected))
    assert_same_weights(model, expected)


@needs_callbacks
@pytest.mark.parametrize("solver, task", [("adam", "epoch"), ("lbfgs", "iteration")])
def test_a_callback_stops_training(solver, task):
    recorder = Recorder(last=3)
    model = MLPClassifier(solver=solver, random_state=0).set_callbacks(recorder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X_IRIS, Y_IRIS)
    assert model.n_iter_ == 3
    assert recorder.events.count(f"end {task}") == 3
    assert recorder.events[-2:] == ["end fit", "teardown"]
    np.testing.assert_array_equal(weights(model), recorder.weights[-1])


@needs_callbacks
def test_callbacks_of_lbfgs_begin_as_often_as_they_end():
    recorder = Recorder()
    model = MLPRegressor(solver="lbfgs", max_iter=5, random_state=0).set_callbacks(recorder)
    model.fit(X_IRIS, Y_IRIS)
    assert recorder.events.count("begin iteration") == recorder.events.count("end iteration") == 6
    assert_same_weights(model, clone(model).set_callbacks().fit(X_IRIS, Y_IRIS))


@needs_callbacks
def test_callbacks_are_torn_down_after_an_error():
    recorder = Recorder()
    model = MLPClassifier(learning_rate=lambda epoch: 1 / (1 - epoch)).set_callbacks(recorder)
    with pytest.raises(ZeroDivisionError):
        model.fit(X_IRIS, Y_IRIS)
    assert recorder.events[-1] == "teardown"
    assert not hasattr(model, "_callback_fit_ctx")


@needs_callbacks
def test_partial_fit_calls_no_callbacks():
    recorder = Recorder()
    model = MLPClassifier().set_callbacks(recorder)
    model.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert recorder.events == []


@needs_callbacks
def test_pipeline_and_grid_search_hand_callbacks_down():
    recorder = Recorder(propagated=True)
    pipeline = Pipeline([("scale", StandardScaler()), ("mlp", MLPClassifier(max_iter=3))])
    pipeline.set_callbacks(recorder).fit(X_IRIS, Y_IRIS)
    assert recorder.events.count("end epoch") == 3
    assert not hasattr(pipeline["mlp"], "_skl_callbacks")
    recorder = Recorder(propagated=True)
    search = GridSearchCV(MLPClassifier(max_iter=3), {"alpha": [0, 1]}, cv=2, refit=False)
    search.set_callbacks(recorder).fit(X_IRIS, Y_IRIS)
    assert recorder.events.count("end epoch") == 3 * 2 * 2


@needs_callbacks
def test_scikit_learns_own_callbacks():
    from sklearn.callback import ProgressBar, ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    y = np.array(list("abc"))[Y_IRIS]
    model = MLPClassifier(max_iter=3, random_state=0).set_callbacks(monitor).fit(X_IRIS, y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 3
    assert scores[-1] == model.score(X_IRIS, y)
    pytest.importorskip("rich")
    model.set_callbacks(ProgressBar()).fit(X_IRIS, y)


@needs_callbacks
def test_clone_and_pickle_with_callbacks():
    model = MLPClassifier(max_iter=2, random_state=0).set_callbacks(Recorder())
    other = clone(model).fit(X_IRIS, Y_IRIS)
    loaded = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(loaded.predict(X_IRIS), other.predict(X_IRIS))


# --- progress bar, time limit, batches -----------------------------------------------------------


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    model = MLPClassifier(verbose="progress", max_iter=5, early_stopping=True, random_state=0)
    model.fit(X_IRIS, Y_IRIS)
    shown = capsys.readouterr()
    assert "MLPClassifier" in shown.err
    assert "5/5" in shown.err
    assert f"loss={model.loss_:.4g}" in shown.err
    assert f"validation score={model.validation_scores_[-1]:.4g}" in shown.err
    assert shown.out == ""
    plain = clone(model).set_params(verbose=False).fit(X_IRIS, Y_IRIS)
    assert_same_weights(model, plain)
    MLPRegressor(verbose="progress", solver="lbfgs", max_iter=3).fit(X_IRIS, Y_IRIS)
    assert "3/3" in capsys.readouterr().err


def test_progress_bar_is_closed_after_an_error(monkeypatch, capsys):
    tqdm = pytest.importorskip("tqdm.auto")
    bars = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            bars.append(self)
            super().__init__(*args, file=io.StringIO(), **kwargs)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    model = MLPClassifier(verbose="progress", learning_rate=lambda epoch: 1 / (1 - epoch))
    with pytest.raises(ZeroDivisionError):
        model.fit(X_IRIS, Y_IRIS)
    (bar,) = bars
    assert bar.n == 1
    assert bar not in tqdm.tqdm._instances


def test_progress_bar_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"verbose='progress' needs tqdm: `pip install tqdm`"):
        MLPClassifier(verbose="progress").fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize("value", ["loud", -1])
def test_other_values_of_verbose_are_refused(value):
    with pytest.raises(ValueError, match="verbose"):
        MLPClassifier(verbose=value).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_max_time_ends_training(early_stopping):
    model = MLPClassifier(
        max_time=0.3,
        early_stopping=early_stopping,
        max_iter=10**6,
        n_iter_no_change=np.inf,
        random_state=0,
    ).set_params(hidden_layer_sizes=(10,))
    model.fit(X_IRIS[:, :2], Y_IRIS)  # compiles
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X_IRIS, Y_IRIS)
    assert 0.3 <= time.perf_counter() - started < 10
    assert 1 <= model.n_iter_ < 10**6
    assert len(model.loss_curve_) == model.n_iter_


def test_max_time_ends_lbfgs():
    model = MLPClassifier(solver="lbfgs", max_time=1e-9, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X_DIGITS, Y_DIGITS)
    assert model.n_iter_ == 1
    other = MLPClassifier(solver="lbfgs", max_iter=1, random_state=0).fit(X_DIGITS, Y_DIGITS)
    assert_same_weights(model, other)
    assert model.loss_ == other.loss_


def test_ample_time_changes_nothing():
    for solver in ("adam", "lbfgs"):
        settings = dict(solver=solver, max_iter=5, random_state=0)
        limited = MLPClassifier(max_time=1e6, **settings)
        with pytest.warns(ConvergenceWarning):
            limited.fit(X_IRIS, Y_IRIS)
        assert_same_weights(limited, MLPClassifier(**settings).fit(X_IRIS, Y_IRIS))


def test_full_batches():
    settings = dict(max_iter=4, random_state=0)
    model = MLPClassifier(batch_size="full", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X_DIGITS, Y_DIGITS)
    assert model._optimizer.t == 4  # updates
    by_size = MLPClassifier(batch_size=len(X_DIGITS), **settings).fit(X_DIGITS, Y_DIGITS)
    assert_same_weights(model, by_size)


# --- averages of the weights ---------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_the_mean_of_the_last_epochs(k):
    steps = after_each_epoch(5, random_state=0)
    model = MLPClassifier(weight_average=k, max_iter=5, random_state=0).fit(X_IRIS, Y_IRIS)
    np.testing.assert_allclose(weights(model), np.mean(steps[-k:], axis=0), rtol=1e-12)


def test_the_exponential_moving_average():
    steps = after_each_epoch(4, random_state=0)
    model = MLPClassifier(weight_average=0.7, max_iter=4, random_state=0).fit(X_IRIS, Y_IRIS)
    expected = np.average(steps, axis=0, weights=0.7 ** np.arange(3, -1, -1))
    np.testing.assert_allclose(weights(model), expected, rtol=1e-12)


def test_the_average_has_the_type_of_the_weights():
    for kind in (2, 0.5):
        model = MLPClassifier(weight_average=kind, max_iter=3, random_state=0)
        model.fit(X_IRIS.astype(np.float32), Y_IRIS)
        assert model.coefs_[0].dtype == np.float32
        average = WeightAverage(kind)
        average.add(np.float32([1, 2]))
        np.testing.assert_array_equal(average.value(), [1, 2])


def test_the_average_of_a_noisy_end_has_a_lower_loss():
    losses = []
    for seed in range(8):
        model = MLPClassifier((20,), **(NOISY | {"random_state": seed}))
        last = clone(model).fit(X_IRIS, Y_IRIS)
        mean = clone(model).set_params(weight_average=20).fit(X_IRIS, Y_IRIS)
        losses.append([log_loss(Y_IRIS, m.predict_proba(X_IRIS)) for m in (last, mean)])
    last, mean = np.mean(losses, axis=0)
    assert mean < last


def test_partial_fit_and_warm_start_with_an_average():
    settings = dict(weight_average=3, max_iter=4, random_state=0)
    model = MLPClassifier(**settings).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    plain = MLPClassifier(random_state=0).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    assert_same_weights(model, plain)
    # A warm start goes on from the average.
    model = MLPClassifier(warm_start=True, **settings).fit(X_IRIS, Y_IRIS)
    other = MLPClassifier(warm_start=True, max_iter=4, random_state=0).fit(X_IRIS, Y_IRIS)
    other.coefs_ = [a.copy() for a in model.coefs_]
    other.intercepts_ = [a.copy() for a in model.intercepts_]
    other.set_params(weight_average=3).fit(X_IRIS, Y_IRIS)
    model.fit(X_IRIS, Y_IRIS)
    assert_same_weights(model, other)


def test_the_average_and_early_stopping_exclude_each_other():
    with pytest.raises(ValueError, match="weight_average cannot be combined with early_stopping"):
        MLPClassifier(weight_average=3, early_stopping=True).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize("value", [0, 1.0, -0.5, "mean"])
def test_other_averages_are_refused(value):
    with pytest.raises(ValueError, match="weight_average"):
        MLPClassifier(weight_average=value).fit(X_IRIS, Y_IRIS)


TINY_AND_HUGE = [
    *itertools.product([np.float32], [2.0**-126, 1e-38, 1e-30, 1e30, 2.0**120]),
    *itertools.product([np.float64], [2.0**-1000, 1e-300, 1e-38, 1e300, 2.0**1000]),
]


@pytest.mark.parametrize(("T", "scale"), TINY_AND_HUGE)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "sgd"},
        {"solver": "lbfgs"},
        {"solver": "adamw", "clip_norm": 0.05, "batch_size": 40},
        {"early_stopping": True, "scoring": "loss"},
        {"early_stopping": True, "class_weight": "balanced"},
    ],
    ids=str,
)
def test_the_scale_of_weights_and_of_alpha_does_not_matter(T, scale, settings):
    """float32 made zeros of weights of 1e-38: nothing was trained, and nothing said."""
    settings = dict(dict(random_state=0, max_iter=5, tol=0), **settings)
    X, weight = X_IRIS.astype(T), np.linspace(0, 1, 150)
    make = MLPClassifier if "class_weight" in settings else MLPRegressor
    expected = make(**settings, alpha=3.0).fit(X, Y_IRIS, sample_weight=weight)
    scaled = make(**settings, alpha=3.0 * scale).fit(X, Y_IRIS, sample_weight=weight * scale)
    tolerance = 0.0 if np.frexp(scale)[0] == 0.5 else float(100 * np.finfo(T).eps)
    for name in ("loss_curve_", "validation_loss_curve_", "validation_scores_"):
        found, there = (getattr(model, name, None) for model in (scaled, expected))
        if there is not None:
            np.testing.assert_allclose(found, there, rtol=tolerance, atol=tolerance)
    assert scaled.loss_ == pytest.approx(expected.loss_, rel=tolerance, abs=0)
    for found, there in zip(scaled.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(found, there, rtol=1e3 * tolerance, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_alpha_counts_against_weights_as_in_sklearn(T, solver, scale):
    settings = dict(random_state=0, max_iter=5, tol=0, solver=solver, alpha=scale)
    theirs = sk.MLPRegressor(**settings)
    weight = np.linspace(0.5, 1, 150) * scale
    expected = theirs.fit(X_IRIS, Y_IRIS, sample_weight=weight)
    found = MLPRegressor(**settings).fit(X_IRIS.astype(T), Y_IRIS, sample_weight=weight)
    assert found.loss_ == pytest.approx(expected.loss_, rel=float(1e3 * np.finfo(T).eps))


@pytest.mark.parametrize("scale", [1e-38, 1e30])
def test_the_scale_of_weights_does_not_matter_in_steps(scale):
    X, weight = X_IRIS.astype(np.float32), np.linspace(0.5, 1, 150)
    models = []
    for factor in (1.0, scale):
        model = MLPRegressor(random_state=0, alpha=3.0 * factor)
        for part in (slice(0, 50), slice(50, 150), slice(100, 101)):
            model.partial_fit(X[part], Y_IRIS[part], sample_weight=weight[part] * factor)
        model.set_params(warm_start=True, max_iter=2)
        models.append(model.fit(X, Y_IRIS, sample_weight=weight * factor))
    np.testing.assert_allclose(models[1].loss_curve_, models[0].loss_curve_, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-38, 1e30])
def test_the_scale_of_validation_weights_does_not_matter(scale):
    X, weight = X_IRIS.astype(np.float32), np.linspace(0, 1, 150)
    given = []

    def scorer(estimator, X, y, sample_weight):
        given.append(sample_weight)
        return 0.0

    for scoring in (None, "loss", scorer):
        curves = []
        for factor in (1.0, scale):
            model = MLPRegressor(random_state=0, max_iter=3, scoring=scoring)
            few = dict(X_val=X, y_val=Y_IRIS, sample_weight_val=weight * factor)
            model.fit(X, Y_IRIS, **few)
            curves.append(model.validation_scores_ + model.validation_loss_curve_)
        np.testing.assert_allclose(*curves, rtol=1e-5)
    np.testing.assert_array_equal(given[-1], weight * scale)  # a scorer sees the user's own


def test_weights_that_cancel_in_float32_are_an_error():
    """No mini-batch was trained on, as its weights added up to 0, and nothing said."""
    weight = np.resize([1.0, -1.0], 150)
    weight[0] += 1e-9
    model = MLPRegressor(random_state=0).fit(X_IRIS, Y_IRIS, sample_weight=weight)
    assert model.n_iter_ > 0
    with pytest.raises(ValueError, match="sample_weight must not add up to zero"):
        MLPRegressor().fit(X_IRIS.astype(np.float32), Y_IRIS, sample_weight=weight)


def test_moments_beyond_float32_are_a_warning():
    """Adam made no more steps, and the fit ended as any other."""
    weight = np.full(150, 1e-38)  # next to which alpha, and so the gradient, is large
    model = MLPRegressor(random_state=0, max_iter=3)
    with pytest.warns(ConvergenceWarning, match="squares of the gradient are infinite"):
        model.fit(X_IRIS.astype(np.float32), Y_IRIS, sample_weight=weight)
    model.fit(X_IRIS, Y_IRIS, sample_weight=weight)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64, np.random.SFC64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 1000, 65536, 65537])
def test_examples_are_shuffled_as_numpy_does(n, generator, known, monkeypatch):
    """Also if NumPy should keep the state of its Mersenne twister in another form one day."""
    assert _loops._state_is_known()
    monkeypatch.setattr(_loops, "_state_is_known", lambda: known)
    ours, numpys = (np.random.RandomState(generator(0)) for _ in range(2))
    order, expected = np.arange(n), np.arange(n)
    for _ in range(2):
        _loops._shuffle(order, ours, np.float32)
        numpys.shuffle(expected)
        np.testing.assert_array_equal(order, expected)
    assert ours.randint(2**31) == numpys.randint(2**31)  # as many numbers were drawn
