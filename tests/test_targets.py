"""Initial weights, class weights, thresholds, standardisation, several quantiles."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_linnerud,
    make_multilabel_classification,
)
from sklearn.metrics import (
    accuracy_score,
    d2_pinball_score,
    mean_pinball_loss,
    r2_score,
    recall_score,
)
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.multiclass import unique_labels

from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_CANCER, Y_CANCER = load_breast_cancer(return_X_y=True)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True, scaled=False)
SOLVERS = ["sgd", "adam", "lbfgs"]


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def assert_same_network(a, b, **tolerance):
    for mine, other in zip(weights(a), weights(b), strict=True):
        np.testing.assert_allclose(mine, other, **(tolerance or dict(rtol=0, atol=0)))


# --- init ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("init, variance, bias", [("he", 2, 0), ("notes", 1, 1)])
def test_init_draws_the_documented_distribution(init, variance, bias):
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(
        (300, 200), init=init, solver="sgd", learning_rate_init=1e-300, max_iter=1, random_state=0
    ).fit(X, y)
    for W, b in zip(model.coefs_, model.intercepts_, strict=True):
        np.testing.assert_allclose(b, bias, atol=1e-200)
        assert W.var() == pytest.approx(variance / W.shape[0], rel=0.1)
        assert abs(W.mean()) < 5 * W.std() / np.sqrt(W.size)
    again = clone(model).fit(X, y)
    assert_same_network(model, again)


@pytest.mark.parametrize("init", ["he", "notes"])
def test_init_learns(init):
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier(init=init, max_iter=50, random_state=0).fit(X / 16, y)
    assert model.score(X / 16, y) > 0.95


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_starts_from_given_weights(solver, dtype):
    X, y = scale(X_IRIS).astype(dtype), Y_IRIS
    settings = dict(hidden_layer_sizes=(6, 5), solver=solver, shuffle=False, random_state=0)
    first = MLPClassifier(max_iter=1, **settings).fit(X, y)
    given = [c.copy() for c in first.coefs_], [b.copy() for b in first.intercepts_]
    for array in (*given[0], *given[1]):
        array.flags.writeable = False  # training writes to copies
    model = MLPClassifier(max_iter=5, init=given, **settings).fit(X, y)
    assert all(c.dtype == dtype for c in weights(model))
    # What goes on from the same weights goes the same way; warm_start begins a new optimiser too.
    assert_same_network(first.set_params(warm_start=True, max_iter=5).fit(X, y), model)
    # and again: fit begins at init anew
    assert_same_network(clone(model).fit(X, y), model.fit(X, y))


def test_given_weights_in_clone_and_grid_search():
    inits = []
    for seed in (0, 1):
        model = MLPClassifier((4,), max_iter=1, random_state=seed).fit(X_IRIS, Y_IRIS)
        inits.append((model.coefs_, model.intercepts_))
    search = GridSearchCV(
        MLPClassifier((4,), max_iter=3, random_state=0), {"init": ["glorot", *inits]}, cv=2
    ).fit(X_IRIS, Y_IRIS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_
    assert_same_network(clone(best).fit(X_IRIS, Y_IRIS), best)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda W, b: (W[:1], b), r"coefs of shapes \[\(4, 3\)\].*expected are \[\(4, 3\), \(3, 3"),
        (lambda W, b: ([W[0].T, W[1]], b), r"shapes \[\(3, 4\).*expected are \[\(4, 3\)"),
        (lambda W, b: (W, [b[0][:, None], b[1]]), r"intercepts of shapes \[\(3, 1\)"),
        (lambda W, b: ([W[0] * np.nan, W[1]], b), "NaN or infinity"),
        (lambda W, b: (W,), r"got \(\[array"),
        (lambda W, b: (["x"], b), r"got \(\['x'\]"),
        (lambda W, b: "ones", "ones"),
    ],
)
def test_wrong_init_is_named(change, message):
    W, b = [np.ones((4, 3)), np.ones((3, 3))], [np.ones(3), np.ones(3)]
    with pytest.raises(ValueError, match=f"(?s)init.*{message}"):
        MLPClassifier((3,), init=change(W, b)).fit(X_IRIS, Y_IRIS)


# --- Theta_ -------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(), (7,), (7, 5)])
def test_Theta_is_the_matrix_of_the_notes(hidden):
    model = MLPRegressor(hidden_layer_sizes=hidden, activation="tanh", max_iter=3, random_state=0)
    assert not hasattr(model, "Theta_")
    model.fit(X_IRIS, Y_IRIS)
    a = X_IRIS
    for l, Theta in enumerate(model.Theta_):
        assert Theta.shape == (model.coefs_[l].shape[1], model.coefs_[l].shape[0] + 1)
        z = np.column_stack([np.ones(len(a)), a]) @ Theta.T
        a = np.tanh(z) if l < len(hidden) else z
        assert not Theta.flags.writeable
        assert np.shares_memory(Theta, model.coefs_[l])
        assert np.shares_memory(Theta, model.intercepts_[l])
        with pytest.raises(ValueError, match="read-only"):
            Theta[0, 0] = 1
    np.testing.assert_allclose(a.ravel(), model.predict(X_IRIS), rtol=1e-10)


def test_Theta_shows_what_becomes_of_the_weights():
    model = MLPRegressor(max_iter=2, random_state=0).fit(X_IRIS, Y_IRIS)
    Theta = model.Theta_[0]
    model.coefs_[0][1, 2], model.intercepts_[0][2] = 7.0, 8.0
    assert (Theta[2, 2], Theta[2, 0]) == (7.0, 8.0)
    model.coefs_[0] = np.ones_like(model.coefs_[0])  # replaced, and made a view again
    assert (model.Theta_[0][:, 1:] == 1).all()
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.Theta_[1], model.Theta_[1])
    assert "Theta_" not in vars(model)


# --- class_weight -------------------------------------------------------------------------------


def rare_digit():
    """Tell 8 from 1, with 20 of the former in training."""
    X, y = load_digits(return_X_y=True)
    X, y = X[np.isin(y, [1, 8])] / 16, y[np.isin(y, [1, 8])]
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.5, random_state=0, stratify=y)
    keep = np.r_[np.flatnonzero(y == 1), np.flatnonzero(y == 8)[:6]]
    return X[keep], y[keep], X_test, y_test


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_balanced_weights_find_a_rare_class(solver):
    X, y, X_test, y_test = rare_digit()
    settings = dict(hidden_layer_sizes=(), solver=solver, max_iter=60, random_state=0)
    recall = {
        class_weight: recall_score(
            y_test,
            MLPClassifier(class_weight=class_weight, **settings).fit(X, y).predict(X_test),
            pos_label=8,
        )
        for class_weight in (None, "balanced")
    }
    assert recall["balanced"] > recall[None] + 0.2


def test_class_weight_times_sample_weight():
    weight = np.linspace(1, 2, 150)
    by_class = np.array([3.0, 1.0, 0.5])
    settings = dict(max_iter=5, random_state=0)
    model = MLPClassifier(class_weight={0: 3, 2: 0.5}, **settings)
    expected = MLPClassifier(**settings)
    assert_same_network(
        model.fit(X_IRIS, Y_IRIS, weight),
        expected.fit(X_IRIS, Y_IRIS, weight * by_class[Y_IRIS]),
    )
    names = np.array(["a", "b", "c"])[Y_IRIS]
    model.set_params(class_weight={"a": 3, "c": 0.5}).fit(X_IRIS, names, weight)
    assert_same_network(model, expected)
    balanced = MLPClassifier(class_weight="balanced", **settings).fit(X_IRIS[:120], Y_IRIS[:120])
    by_class = 120 / (3 * np.bincount(Y_IRIS[:120]))
    expected.fit(X_IRIS[:120], Y_IRIS[:120], by_class[Y_IRIS[:120]])
    assert_same_network(balanced, expected)


def test_class_weight_of_labels_is_multiplied():
    X, Y = make_multilabel_classification(n_samples=80, n_classes=3, random_state=0)
    settings = dict(max_iter=5, random_state=0)
    given = [{0: 1, 1: 5}, {1: 2}, {0: 0.5}]
    weight = np.where(Y[:, 0], 5, 1) * np.where(Y[:, 1], 2, 1) * np.where(Y[:, 2], 1, 0.5)
    expected = MLPClassifier(**settings).fit(X, Y, weight)
    assert_same_network(MLPClassifier(class_weight=given, **settings).fit(X, Y), expected)
    frequency = Y.mean(axis=0)
    weight = np.where(Y, 1 / (2 * frequency), 1 / (2 * (1 - frequency))).prod(axis=1)
    expected = MLPClassifier(**settings).fit(X, Y, weight)
    model = MLPClassifier(class_weight="balanced", **settings).fit(X, sp.csr_array(Y))
    assert_same_network(model, expected, rtol=1e-9, atol=1e-12)
    for wrong in ({0: 1, 1: 5}, given[:2]):
        with pytest.raises(ValueError, match=r"class_weight must be .* each of the 3 labels"):
            MLPClassifier(class_weight=wrong).fit(X, Y)
    with pytest.raises(ValueError, match=r"class_weight must be .* one label"):
        MLPClassifier(class_weight=given).fit(X, Y[:, 0])


def test_class_weight_in_partial_fit():
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        MLPClassifier(class_weight="balanced").partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    model = MLPClassifier(class_weight={0: 3}, random_state=0)
    expected = MLPClassifier(random_state=0)
    for part in (slice(0, 75), slice(75, 150)):  # there are no zeros in the second
        y = Y_IRIS[part]
        model.partial_fit(X_IRIS[part], y, classes=[0, 1, 2])
        expected.partial_fit(X_IRIS[part], y, np.where(y == 0, 3, 1), classes=[0, 1, 2])
    assert_same_network(model, expected)


def test_class_weight_of_an_unknown_class_is_an_error():
    with pytest.raises(ValueError, match="not in class_weight"):
        MLPClassifier(class_weight={"setosa": 2}).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("wrong", [-1, -1e-9, np.nan, np.inf, -np.inf, "2", None])
def test_class_weights_are_finite_and_not_negative(wrong, method):
    """They were taken: training went away from the examples of the class."""
    X, Y = make_multilabel_classification(n_samples=80, n_classes=3, random_state=0)
    message = f"class_weight must be finite numbers >= 0, got {wrong!r} for class 1"
    for y, class_weight in [
        (Y_IRIS, {0: 1, 1: wrong}),
        (Y_IRIS > 0, {1: wrong}),
        (Y, [{0: 1}, {1: wrong}, {}]),
    ]:
        x = X if y is Y else X_IRIS
        given = {"classes": unique_labels(y)} if method == "partial_fit" else {}
        with pytest.raises(ValueError, match=message):
            getattr(MLPClassifier(class_weight=class_weight), method)(x, y, **given)


def test_class_weights_of_zero_leave_examples_out():
    keep = Y_IRIS != 1
    settings = dict(shuffle=False, batch_size="full", max_iter=5, random_state=0)
    model = MLPClassifier(class_weight={1: 0}, **settings).fit(X_IRIS, Y_IRIS)
    expected = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS, keep.astype(float))
    assert_same_network(model, expected)
    with pytest.raises(ValueError, match=r"class_weight=\{0: 0, 1: 0, 2: 0\} gives no example"):
        MLPClassifier(class_weight={0: 0, 1: 0, 2: 0}).fit(X_IRIS, Y_IRIS)


def test_class_weight_does_not_weigh_the_validation_score():
    X, y = scale(X_CANCER), Y_CANCER
    settings = dict(early_stopping=True, max_iter=5, random_state=0)
    model = MLPClassifier(class_weight={0: 10}, **settings).fit(X, y)
    scores = np.array(model.validation_scores_) * 57  # of 569 examples, 57 are set aside
    np.testing.assert_allclose(scores, scores.round(), atol=1e-9)


# --- threshold ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("multilabel", [False, True])
def test_threshold_decides(dtype, multilabel):
    X, y = scale(X_CANCER).astype(dtype), Y_CANCER
    if multilabel:
        X, y = make_multilabel_classification(n_samples=200, random_state=0)
    model = MLPClassifier(max_iter=10, random_state=0).fit(X.astype(dtype), y)
    probability = model.predict_proba(X.astype(dtype))
    probability = probability if multilabel else probability[:, 1]
    ones = []
    for threshold in (0, 0.2, 0.5, np.float64(0.9), 1):
        decision = model.set_params(threshold=threshold).predict(X.astype(dtype))
        np.testing.assert_array_equal(decision, probability > float(threshold))
        ones.append(decision.sum())
    assert sorted(ones, reverse=True) == ones and ones[0] > ones[-1] == 0


@pytest.mark.parametrize("out_activation", ["softmax", "logistic", "identity", "tanh"])
def test_of_several_classes_the_largest_output_wins(out_activation):
    """Outputs other than a softmax were taken for labels."""
    model = MLPClassifier(
        loss="squared_error", out_activation=out_activation, max_iter=100, random_state=0
    ).fit(scale(X_IRIS), Y_IRIS)
    assert model.score(scale(X_IRIS), Y_IRIS) > 0.85


def test_threshold_in_early_stopping():
    model = MLPClassifier(early_stopping=True, max_iter=5, threshold=1, random_state=0)
    model.fit(scale(X_CANCER), Y_CANCER)
    # All are called 0: the accuracy is the part of zeros.
    assert len(set(model.validation_scores_)) == 1
    assert model.validation_scores_[0] == pytest.approx((Y_CANCER == 0).mean(), abs=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_threshold_for_each_label(dtype):
    X, Y = make_multilabel_classification(n_samples=200, n_classes=3, random_state=0)
    X = X.astype(dtype)
    thresholds = [0.2, 0.5, 0.9]
    for given in (thresholds, tuple(thresholds), np.array(thresholds)):
        model = MLPClassifier(threshold=given, early_stopping=True, max_iter=5, random_state=0)
        model.fit(X, Y)
        probability = model.predict_proba(X)
        np.testing.assert_array_equal(model.predict(X), probability > np.array(given, dtype))
        # The validation score is by the same thresholds.
        model.set_params(early_stopping=False).fit(X, Y, X_val=X, y_val=Y)
        assert model.validation_scores_[-1] == model.score(X, Y)
    clone(model).set_params(threshold=thresholds).fit(X, sp.csr_array(Y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "labels", [(0, 1), ("no", "yes"), (False, True), (1.0, 2.0), (-1, 1)], ids=str
)
def test_pos_label_is_what_the_threshold_is_for(labels, dtype):
    X, y = scale(X_CANCER).astype(dtype), np.array(labels)[Y_CANCER]
    for threshold in (0, 0.2, 0.5, np.float32(0.9), 1):
        settings = dict(threshold=threshold, max_iter=3, random_state=0)
        plain = MLPClassifier(**settings).fit(X, y)
        for column, label in enumerate(labels):
            model = MLPClassifier(**settings, pos_label=label).fit(X, y, X_val=X, y_val=y)
            probability = model.predict_proba(X)
            np.testing.assert_array_equal(probability, plain.predict_proba(X))
            positive = probability[:, column] > float(threshold)
            expected = np.where(positive, label, labels[1 - column])
            np.testing.assert_array_equal(model.predict(X), expected)
            assert model.predict(X).dtype == plain.predict(X).dtype
            assert model.validation_scores_[-1] == model.score(X, y)
        np.testing.assert_array_equal(model.predict(X), plain.predict(X))  # of the second


def test_pos_label_in_early_stopping():
    """All are called 1: the accuracy is the part of ones."""
    model = MLPClassifier(early_stopping=True, max_iter=5, threshold=1, pos_label=0)
    model.fit(scale(X_CANCER), Y_CANCER)
    assert model.validation_scores_[0] == pytest.approx((Y_CANCER == 1).mean(), abs=0.01)


Y_LABELS = np.column_stack([Y_IRIS > 0, Y_IRIS > 1, Y_IRIS == 1]).astype(int)
NO_MEANING = [
    (dict(threshold=0.3), Y_IRIS, "threshold=0.3 is for two classes or for labels. Of the 3"),
    (dict(threshold=[0.5, 0.5, 0.5]), Y_IRIS, r"threshold must be .* Got \[0.5, 0.5, 0.5\]"),
    (dict(threshold=[0.5]), Y_IRIS > 0, r"threshold must be .* Got \[0.5\] for binary"),
    (dict(threshold=[0.5, 0.5]), Y_LABELS, "threshold must be .* targets of 3 labels"),
    (dict(threshold=[0.5, 0.5, 1.5]), Y_LABELS, "threshold must be .* 1.5"),
    (dict(threshold=[0.5, 0.5, np.nan]), Y_LABELS, "threshold must be .* nan"),
    (dict(threshold=[0.5, 0.5, "a"]), Y_LABELS, "threshold must be .* 'a'"),
    (dict(threshold=[[0.5, 0.5, 0.5]]), Y_LABELS, "threshold must be "),
    (dict(pos_label=0), Y_IRIS, "pos_label=0 is for two classes, but targets are multiclass"),
    (dict(pos_label=0), Y_LABELS, "pos_label=0 is for two classes, but targets are multilabel"),
    (dict(pos_label=2), (Y_IRIS > 0) * 1, r"pos_label=2 is none of the classes .* \[0, 1\]"),
    (dict(pos_label="1"), (Y_IRIS > 0) * 1, "pos_label='1' is none of the classes"),
    (dict(pos_label=[1]), (Y_IRIS > 0) * 1, "The 'pos_label' parameter"),
]


@pytest.mark.parametrize("settings, y, message", NO_MEANING)
def test_thresholds_without_a_meaning_are_errors(settings, y, message):
    """They were ignored."""
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).fit(X_IRIS, y)
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).partial_fit(X_IRIS, y, classes=unique_labels(y))
    if settings != dict(pos_label=[1]):
        model = MLPClassifier(max_iter=2).fit(X_IRIS, y).set_params(**settings)
        with pytest.raises(ValueError, match=message):
            model.predict(X_IRIS)


# --- going on -----------------------------------------------------------------------------------

OF_EACH_KIND = {
    "classes": Y_IRIS,
    "two classes": (Y_IRIS > 0) * 1,
    "text": Y_IRIS.astype(str),
    "labels": Y_LABELS,
    "two labels": Y_LABELS[:, :2],
    "sparse labels": sp.csr_array(Y_LABELS),
}
MATRICES = {"labels": 3, "two labels": 2, "sparse labels": 3}


@pytest.mark.parametrize("way", ["warm_start", "partial_fit", "partial_fit all the way", "X_val"])
@pytest.mark.parametrize("first", OF_EACH_KIND)
@pytest.mark.parametrize("later", OF_EACH_KIND)
def test_going_on_with_a_target_of_another_kind_says_so(first, later, way):
    """It was an IndexError, or the types of a kernel's arguments."""
    y, other = OF_EACH_KIND[first], OF_EACH_KIND[later]
    model = MLPClassifier((3,), max_iter=1, random_state=0, warm_start=way == "warm_start")
    if way == "partial_fit all the way":
        model.partial_fit(X_IRIS, y, classes=unique_labels(y))
    else:
        model.fit(X_IRIS, y)

    def go_on():
        if way == "X_val":
            return clone(model).fit(X_IRIS, y, X_val=X_IRIS, y_val=other)
        return (model.fit if way == "warm_start" else model.partial_fit)(X_IRIS, other)

    name = "y_val" if way == "X_val" else "y"
    if (first in MATRICES) != (later in MATRICES):
        with pytest.raises(ValueError, match=rf"{name} is (a matrix|one class) .* but .* is "):
            go_on()
    elif MATRICES.get(first) != MATRICES.get(later):
        with pytest.raises(ValueError, match=f"{name} has {MATRICES[later]} labels, but .* has"):
            go_on()
    elif first in MATRICES or first == later:
        go_on()
    elif (first, later) == ("classes", "two classes") and way != "warm_start":
        go_on()  # some of the classes
    else:
        with pytest.raises(ValueError, match=r"classes|labels that y has not"):
            go_on()
    model.predict(X_IRIS)


@pytest.mark.parametrize("way", ["warm_start", "partial_fit", "X_val"])
def test_going_on_with_another_number_of_outputs_says_so(way):
    Y = np.column_stack([Y_IRIS, -Y_IRIS]) * 1.0
    name = "y_val" if way == "X_val" else "y"
    for first, later in [(Y, Y[:, 0]), (Y[:, 0], Y), (Y, np.column_stack([Y, Y]))]:
        model = MLPRegressor("huber", (3,), max_iter=1, warm_start=True).fit(X_IRIS, first)
        came, had = (y.size // len(y) for y in (later, first))
        with pytest.raises(ValueError, match=f"{name} has {came} outputs, but .* has {had}"):
            if way == "X_val":
                clone(model).fit(X_IRIS, first, X_val=X_IRIS, y_val=later)
            else:
                (model.fit if way == "warm_start" else model.partial_fit)(X_IRIS, later)
    model = MLPRegressor("quantile", (3,), quantile=[0.1, 0.9], max_iter=1).fit(X_IRIS, Y_IRIS)
    with pytest.raises(ValueError, match=r"y has 3 outputs, by quantile=\[.*, but .* has 2"):
        model.set_params(quantile=[0.1, 0.5, 0.9]).partial_fit(X_IRIS, Y_IRIS)


def test_given_weights_go_on_with_their_kind_of_target_only():
    coefs, intercepts = [np.ones((4, 3))], [np.zeros(3)]
    labels = MLPClassifier.from_weights(coefs, intercepts, out_activation="logistic")
    with pytest.raises(ValueError, match="y is one class for each example, but"):
        labels.partial_fit(X_IRIS, Y_IRIS)
    with pytest.raises(ValueError, match="y is a matrix of labels, but"):
        MLPClassifier.from_weights(coefs, intercepts).partial_fit(X_IRIS, Y_LABELS)


@pytest.mark.parametrize("labels", [int, str])
def test_partial_fit_takes_a_batch_without_a_class_with_warm_start_too(labels):
    """It spoke of the previous call to fit."""
    y = Y_IRIS.astype(labels)
    models = [MLPClassifier((3,), warm_start=w, random_state=0) for w in (True, False)]
    for model in models:
        for part in (slice(0, 60), slice(100, 150), slice(0, 1)):
            model.partial_fit(X_IRIS[part], y[part], classes=unique_labels(y))
        with pytest.raises(ValueError, match=r"`y` has classes not in `self.classes_`"):
            model.partial_fit(X_IRIS, np.where(y == y[0], y[0] * 2 + y[-1] * 4, y))
    assert_same_network(*models)


def test_classes_that_are_none_are_named():
    with pytest.raises(ValueError, match=r"classes holds real numbers such as 0\.5"):
        MLPClassifier().partial_fit(X_IRIS, Y_IRIS, classes=[0, 0.5, 1])
    with pytest.raises(ValueError, match=r"classes holds numbers .* dtype object"):
        MLPClassifier().partial_fit(X_IRIS, Y_IRIS, classes=np.arange(3).astype(object))


# --- standardize --------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("hidden", [(), (20, 10)])
def test_standardize_is_a_pipeline_in_one_network(solver, dtype, early_stopping, hidden):
    X, y = X_CANCER.astype(dtype), Y_CANCER
    settings = dict(solver=solver, early_stopping=early_stopping, max_iter=15, random_state=0)
    settings["hidden_layer_sizes"] = hidden
    model = MLPClassifier(standardize=True, **settings).fit(X, y)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**settings)).fit(X, y)
    assert model.loss_ == pipeline[-1].loss_
    assert getattr(model, "loss_curve_", 0) == getattr(pipeline[-1], "loss_curve_", 0)
    assert getattr(model, "validation_scores_", 0) == getattr(pipeline[-1], "validation_scores_", 0)
    tolerance = dict(rtol=1e-9, atol=1e-11) if dtype == np.float64 else dict(rtol=0, atol=1e-3)
    np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), **tolerance)
    assert model.coefs_[0].dtype == dtype
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_standardize_makes_raw_features_trainable():
    X, X_test, y, y_test = train_test_split(X_CANCER, Y_CANCER, random_state=0)
    settings = dict(max_iter=200, random_state=0)
    for solver, least in [("sgd", 0.95), ("adam", 0.96)]:
        standardised = MLPClassifier(solver=solver, standardize=True, **settings).fit(X, y)
        raw = MLPClassifier(solver=solver, **settings).fit(X, y)
        assert standardised.score(X_test, y_test) > max(least, 0.03 + raw.score(X_test, y_test))


def test_constant_features_are_left_as_they_are():
    X = np.column_stack([X_IRIS, np.full(150, 3.0), np.zeros(150)])
    model = MLPClassifier(standardize=True, max_iter=20, random_state=0).fit(X, Y_IRIS)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=20, random_state=0))
    np.testing.assert_allclose(
        model.predict_proba(X), pipeline.fit(X, Y_IRIS).predict_proba(X), rtol=1e-10
    )


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_matrix])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sparse_features_are_scaled_only(container, early_stopping):
    X, y = load_digits(return_X_y=True)
    X, y = container(X[:300]), y[:300]
    before = X.copy()
    settings = dict(max_iter=40, early_stopping=early_stopping, random_state=0)
    model = MLPClassifier(standardize=True, **settings).fit(X, y)
    pipeline = make_pipeline(StandardScaler(with_mean=False), MLPClassifier(**settings)).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), pipeline.predict_proba(X), rtol=1e-8)
    assert (before != X).nnz == 0
    # Going on with dense rows is possible, and the other way round.
    dense = MLPClassifier(standardize=True, **{**settings, "early_stopping": False})
    dense.fit(X.toarray(), y)
    for first, other in [(model, X.toarray()), (dense, X)]:
        first.set_params(early_stopping=False).partial_fit(other, y)
        assert first.score(X, y) > 0.9


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("target", [False, True])
def test_going_on_is_in_standardised_space(solver, target):
    """As a pipeline of which only the last step goes on."""
    X, y = X_DIABETES, Y_DIABETES
    settings = dict(solver=solver, max_iter=10, warm_start=True, random_state=0, tol=0)
    if solver == "sgd":
        settings["learning_rate_init"] = 1e-3 if target else 1e-6
    X_scaler, y_scaler = StandardScaler().fit(X), StandardScaler().fit(y[:, None])
    x = X_scaler.transform(X)
    t = y_scaler.transform(y[:, None]).ravel() if target else y
    model = MLPRegressor(standardize=True, standardize_target=target, **settings)
    plain = MLPRegressor(**settings)
    for _ in range(3):
        model.fit(X, y)
        plain.fit(x, t)
    if solver != "lbfgs":
        for part in (slice(0, 200), slice(200, 400)):  # means and scales stay those of the first
            model.partial_fit(X[part], y[part])
            plain.partial_fit(x[part], t[part])
        np.testing.assert_allclose(model.loss_curve_, plain.loss_curve_, rtol=1e-6)
    expected = plain.predict(x)
    if target:
        expected = y_scaler.inverse_transform(expected[:, None]).ravel()
    # L-BFGS magnifies rounding.
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-2 if solver == "lbfgs" else 1e-7)


def test_partial_fit_keeps_the_first_mean_and_scale():
    model = MLPClassifier(standardize=True, random_state=0)
    plain = MLPClassifier(random_state=0)
    scaler = StandardScaler().fit(X_CANCER[:200])
    for part in (slice(0, 200), slice(200, 569)):
        model.partial_fit(X_CANCER[part], Y_CANCER[part], classes=[0, 1])
        plain.partial_fit(scaler.transform(X_CANCER[part]), Y_CANCER[part], classes=[0, 1])
        model = pickle.loads(pickle.dumps(model))
    np.testing.assert_allclose(
        model.predict_proba(X_CANCER), plain.predict_proba(scaler.transform(X_CANCER)), rtol=1e-8
    )


def test_standardize_can_be_turned_on_and_off_between_fits():
    X, y = X_IRIS * [1, 10, 100, 0.1], Y_IRIS
    settings = dict(warm_start=True, max_iter=1, solver="sgd", random_state=0)
    model = MLPClassifier(**settings).fit(X, y)
    before = model.predict_proba(X)
    # At no learning rate, what goes on is the same function.
    for standardize in (True, False, True):
        model.set_params(standardize=standardize, learning_rate_init=1e-300).fit(X, y)
        np.testing.assert_allclose(model.predict_proba(X), before, rtol=1e-10)


def test_given_weights_are_those_of_X_as_it_is():
    settings = dict(standardize=True, standardize_target=True, solver="sgd", random_state=0)
    first = MLPRegressor(max_iter=20, **settings).fit(X_DIABETES, Y_DIABETES)
    model = MLPRegressor(
        init=(first.coefs_, first.intercepts_), learning_rate_init=1e-300, max_iter=1, **settings
    ).fit(X_DIABETES, Y_DIABETES)
    np.testing.assert_allclose(model.predict(X_DIABETES), first.predict(X_DIABETES), rtol=1e-9)


def test_an_interrupted_fit_takes_X_as_it_is(monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    settings = dict(standardize=True, solver="lbfgs", warm_start=True, max_iter=20, random_state=0)
    model = MLPClassifier(**settings).fit(X_CANCER, Y_CANCER)
    before = model.predict_proba(X_CANCER)
    monkeypatch.setattr("fastnn._base.fit_lbfgs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X_CANCER, Y_CANCER)
    np.testing.assert_allclose(model.predict_proba(X_CANCER), before, rtol=1e-6, atol=1e-9)


def test_non_finite_weights_are_reported_without_warnings():
    model = MLPRegressor(
        activation="identity", standardize=True, solver="sgd", learning_rate_init=1e10, max_iter=50
    )
    with pytest.raises(ValueError, match="non-finite parameter weights"):
        model.fit(X_DIABETES, Y_DIABETES)


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
@pytest.mark.parametrize("form", ["array", "memmap", "csr", "float64"])
def test_standardize_takes_no_memory_of_the_size_of_X(form, fit, tmp_path):
    """X was copied, of a memmap twice, and as much again while means and scales were learned."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((100_000, 40), dtype=np.float32) * 3 + 5
    y = X[:, 0].copy()
    if form == "memmap":
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    elif form == "csr":
        X = sp.csr_array(X)
    elif form == "float64":
        X = X.astype(np.float64)
    size = X.data.nbytes
    half = slice(0, 50_000)
    peaks = []
    for standardize in (False, True):
        model = MLPRegressor(hidden_layer_sizes=4, max_iter=1, standardize=standardize)
        more = {"X_val": X[half], "y_val": y[half]} if fit == "fit" else {}
        getattr(model, fit)(X[:2000], y[:2000])  # compiles
        tracemalloc.start()
        getattr(clone(model), fit)(X, y, **more).predict(X)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + size / 10


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("n_features", [1, 7, 3000])
def test_standardize_learns_in_parts_what_StandardScaler_learns(T, n_features):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2**21 // n_features + 1, n_features)) * 10.0 ** rng.uniform(-3, 3)
    X = np.column_stack([X + rng.uniform(-1e4, 1e4, n_features), np.full(len(X), 1e6 + 0.1)])
    X = X.astype(T)
    y = np.zeros(len(X))
    model = MLPRegressor(hidden_layer_sizes=1, standardize=True, max_iter=1).fit(X, y)
    with np.errstate(invalid="ignore"):
        expected, found = StandardScaler().fit(X), model._scaling.features
    np.testing.assert_allclose(found.mean_, expected.mean_, rtol=1e-9)
    np.testing.assert_allclose(found.scale_, expected.scale_, rtol=1e-9)
    assert found.scale_[-1] == 1  # of a constant


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_standardize_is_a_pipeline_to_the_last_bit(solver, T):
    """On rows that are validated on, too; far from 0; with weights; on several threads."""
    X = (X_CANCER + 1e6).astype(T)
    settings = dict(solver=solver, max_iter=8, random_state=0, hidden_layer_sizes=(70, 5))
    weight = np.linspace(0.5, 1, len(Y_CANCER))
    x, validation, plain = StandardScaler().fit_transform(X), {}, {}
    if solver == "adam":
        validation = dict(X_val=X[300:], y_val=Y_CANCER[300:])
        plain = dict(X_val=x[300:], y_val=Y_CANCER[300:])
    model = MLPClassifier(standardize=True, n_threads=3, **settings)
    model.fit(X, Y_CANCER, weight, **validation)
    expected = MLPClassifier(**settings).fit(x, Y_CANCER, weight, **plain)
    for name in ("loss_", "loss_curve_", "validation_loss_curve_", "validation_scores_"):
        assert getattr(model, name, None) == getattr(expected, name, None)


def test_sparse_validation_rows_of_centred_features_are_an_error():
    few = dict(X_val=sp.csr_array(X_IRIS), y_val=Y_IRIS)
    with pytest.raises(ValueError, match=r"X_val.*standardize=True .* dense X .* same form"):
        MLPClassifier(standardize=True).fit(X_IRIS, Y_IRIS, **few)
    few = dict(X_val=X_IRIS, y_val=Y_IRIS)
    model = MLPClassifier(standardize=True, max_iter=3, random_state=0)
    model.fit(sp.csr_array(X_IRIS), Y_IRIS, **few)  # these are scaled only, too
    x = X_IRIS / X_IRIS.std(axis=0)
    plain = MLPClassifier(max_iter=3, random_state=0).fit(x, Y_IRIS, X_val=x, y_val=Y_IRIS)
    found = model.validation_loss_curve_
    np.testing.assert_allclose(found, plain.validation_loss_curve_, rtol=1e-9)


# --- standardize_target -------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_standardised_target(solver, dtype, early_stopping):
    X, y = X_DIABETES.astype(dtype), Y_DIABETES.astype(dtype)
    settings = dict(solver=solver, early_stopping=early_stopping, max_iter=20, random_state=0)
    model = MLPRegressor(standardize=True, standardize_target=True, **settings).fit(X, y)
    scaler = StandardScaler().fit(y[:, None])
    target = scaler.transform(y[:, None]).ravel()
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(**settings)).fit(X, target)
    expected = scaler.inverse_transform(pipeline.predict(X)[:, None]).ravel()
    tolerance = dict(rtol=1e-9) if dtype == np.float64 else dict(rtol=1e-3)
    np.testing.assert_allclose(model.predict(X), expected, **tolerance)
    assert model.loss_ == pipeline[-1].loss_
    assert r2_score(y, model.predict(X)) > 0.3
    assert model.predict(X).dtype == dtype


@pytest.mark.parametrize("hidden", [(), (50,)])
def test_standardised_targets_of_several_outputs(hidden):
    X, Y = load_linnerud(return_X_y=True)
    settings = dict(hidden_layer_sizes=hidden, max_iter=50, learning_rate_init=0.01, random_state=0)
    model = MLPRegressor(standardize=True, standardize_target=True, **settings).fit(X, Y)
    scaler = StandardScaler().fit(Y)
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(**settings)).fit(X, scaler.transform(Y))
    expected = scaler.inverse_transform(pipeline.predict(X))
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-10)


def test_a_large_target_becomes_learnable():
    X, y = scale(X_DIABETES), 1e4 + 100 * Y_DIABETES
    assert MLPRegressor(max_iter=100, random_state=0).fit(X, y).score(X, y) < 0
    model = MLPRegressor(standardize_target=True, max_iter=100, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.45
    assert model.loss_ < 1  # in units of the variance


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "quantile", "rss"])
def test_standardised_target_with_other_losses(loss):
    X, y = X_DIABETES, Y_DIABETES
    settings = dict(loss=loss, max_iter=100, random_state=0)
    model = MLPRegressor(standardize=True, standardize_target=True, **settings).fit(X, y)
    scaler = StandardScaler().fit(y[:, None])
    target = scaler.transform(y[:, None]).ravel()
    pipeline = make_pipeline(StandardScaler(), MLPRegressor(**settings)).fit(X, target)
    expected = scaler.inverse_transform(pipeline.predict(X)[:, None]).ravel()
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-9)
    assert model.score(X, y) > 0.4


def test_standardize_target_needs_an_identity():
    with pytest.raises(ValueError, match=r"standardize_target=True needs .* loss='poisson'"):
        MLPRegressor("poisson", standardize_target=True).fit(X_DIABETES, Y_DIABETES)
    with pytest.raises(ValueError, match=r"standardize_target=True .* out_activation='tanh'"):
        MLPRegressor(out_activation="tanh", standardize_target=True).fit(X_DIABETES, Y_DIABETES)


# --- targets of the losses ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    "loss, least, message", [("poisson", -1.0, "y >= 0"), ("gamma", 0.0, "y > 0")]
)
def test_targets_outside_of_the_domain_of_the_loss(method, loss, least, message):
    y = np.where(np.arange(150) == 20, least, 1.0)
    with pytest.raises(ValueError, match=f"loss='{loss}' needs {message}, but the least of y is"):
        getattr(MLPRegressor(loss), method)(X_IRIS, y)


def test_poisson_takes_zeros():
    MLPRegressor("poisson", max_iter=2).fit(X_IRIS, np.arange(150) % 2)


@pytest.mark.parametrize(
    "quantile", [[], [0.5, 0.1], [0.1, 0.1], [0, 0.5], [0.5, 1], [[0.1, 0.9]], [0.1, np.nan]]
)
def test_bad_quantiles_are_named(quantile):
    with pytest.raises(ValueError, match=r"quantile must be in \(0, 1\), or a list .* ascending"):
        MLPRegressor("quantile", quantile=quantile).fit(X_DIABETES, Y_DIABETES)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    "loss, settings",
    [
        *((loss, dict(quantile=0.9)) for loss in ("squared_error", "huber", "poisson")),
        ("absolute_error", dict(quantile=[0.1, 0.9])),
        ("squared_error", dict(quantile=[0.5])),
        ("squared_error", dict(huber_delta=2.0)),
        ("quantile", dict(huber_delta=0.5)),
    ],
)
def test_settings_of_another_loss_are_errors(loss, settings, method):
    """They were ignored, and one column came back for two quantiles."""
    ((name, value),) = settings.items()
    message = re.escape(f"{name}={value!r} is for loss='{name.split('_')[0]}', got loss='{loss}'")
    with pytest.raises(ValueError, match=message):
        getattr(MLPRegressor(loss, **settings), method)(X_IRIS, Y_IRIS)
    with pytest.raises(ValueError, match=message):
        MLPRegressor.from_weights([[[2.0]]], [[1.0]], loss=loss, **settings)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_quantiles_of_one_target(early_stopping):
    X, y, quantiles = X_DIABETES, Y_DIABETES, [0.1, 0.4, 0.9]
    settings = dict(standardize=True, standardize_target=True, max_iter=200, random_state=0)
    settings["learning_rate_init"] = 0.01
    model = MLPRegressor(
        "quantile", (), quantile=quantiles, early_stopping=early_stopping, **settings
    ).fit(X, y)
    predicted = model.predict(X)
    assert model.n_outputs_ == 3 and predicted.shape == (len(X), 3)
    assert (np.diff(predicted, axis=1) >= 0).all()
    shares = [
        d2_pinball_score(y, column, alpha=quantile)
        for column, quantile in zip(predicted.T, quantiles, strict=True)
    ]
    assert model.score(X, y) == pytest.approx(np.mean(shares))
    np.testing.assert_allclose((y[:, None] <= predicted).mean(axis=0), quantiles, atol=0.1)
    for column, quantile in zip(predicted.T, quantiles, strict=True):
        constant = np.full(len(y), np.quantile(y, quantile))
        loss = mean_pinball_loss(y, column, alpha=quantile)
        assert loss < mean_pinball_loss(y, constant, alpha=quantile)


def test_quantiles_of_several_targets():
    X, quantiles = X_DIABETES, [0.2, 0.5]
    Y = np.column_stack([Y_DIABETES, 1000 - Y_DIABETES])
    model = MLPRegressor(
        "quantile",
        (),
        quantile=quantiles,
        standardize=True,
        standardize_target=True,
        max_iter=200,
        learning_rate_init=0.01,
        random_state=0,
    ).fit(X, Y)
    predicted = model.predict(X)
    assert predicted.shape == (len(X), 4)
    covered = (np.repeat(Y, 2, axis=1) <= predicted).mean(axis=0)
    np.testing.assert_allclose(covered, [0.2, 0.5, 0.2, 0.5], atol=0.1)
    shares = [d2_pinball_score(Y, predicted[:, k::2], alpha=quantiles[k]) for k in (0, 1)]
    assert model.score(X, Y) == pytest.approx(np.mean(shares))


def test_a_list_of_one_quantile_is_that_quantile():
    settings = dict(max_iter=3, random_state=0)
    one = MLPRegressor("quantile", quantile=0.3, **settings).fit(X_IRIS, Y_IRIS)
    listed = MLPRegressor("quantile", quantile=[0.3], **settings).fit(X_IRIS, Y_IRIS)
    assert_same_network(one, listed)
    assert listed.predict(X_IRIS).shape == (150,)


def test_the_only_class_is_always_right():
    """The validation score was 0: there is no second class that an output could mean."""
    y = np.full(150, 7)
    model = MLPClassifier(max_iter=3, random_state=0).fit(X_IRIS, y, X_val=X_IRIS, y_val=y)
    assert model.validation_scores_ == [1.0] * 3


def test_score_of_the_classifier_is_still_the_accuracy():
    model = MLPClassifier(max_iter=3, random_state=0).fit(X_IRIS, Y_IRIS)
    assert model.score(X_IRIS, Y_IRIS) == accuracy_score(Y_IRIS, model.predict(X_IRIS))
