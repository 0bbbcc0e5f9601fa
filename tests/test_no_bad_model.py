"""A fit never ends, silently, with a model that is worse than it knows."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn import neural_network as sk
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    d2_absolute_error_score,
    d2_pinball_score,
    d2_tweedie_score,
    make_scorer,
    r2_score,
)
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from fastnn import MLPClassifier, MLPRegressor, d2_quantile_score

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
X_DIABETES, Y_DIABETES = load_diabetes(return_X_y=True)
X_DIABETES = scale(X_DIABETES)

RNG = np.random.RandomState(0)
X_SKEWED = RNG.randn(2000, 3)
Y_SKEWED = 0.1 + np.exp(X_SKEWED[:, 0] / 2) * RNG.standard_exponential(2000)
WEIGHT = RNG.uniform(0.5, 2, 2000)


# --- what a score measures -----------------------------------------------------------------------


@quiet
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("quantile", [0.05, 0.95, [0.05, 0.95], [0.9, 0.95, 0.99]])
def test_quantiles_by_early_stopping_cover_what_they_say(quantile, given):
    settings = dict(quantile=quantile, max_iter=100, learning_rate_init=0.003, random_state=0)
    model = MLPRegressor("quantile", early_stopping=True, **settings)
    examples = dict(X_val=X_SKEWED[1500:], y_val=Y_SKEWED[1500:]) if given else {}
    model.fit(X_SKEWED[:1500], Y_SKEWED[:1500], **examples)
    predicted = model.predict(X_SKEWED).reshape(2000, -1)
    covered = (Y_SKEWED[:, np.newaxis] < predicted).mean(axis=0)
    np.testing.assert_allclose(covered, np.atleast_1d(quantile), atol=0.025)


def d2_huber(y, a, w, delta):
    """By a fine search for the constant."""

    def loss(a):
        r = np.abs(y - a)
        return np.average(np.where(r < delta, r**2 / 2, delta * (r - delta / 2)), weights=w)

    return 1 - loss(a) / min(loss(c) for c in np.linspace(y.min(), y.max(), 20001))


MEASURES = {
    "squared_error": lambda y, a, w: r2_score(y, a, sample_weight=w),
    "rss": lambda y, a, w: r2_score(y, a, sample_weight=w),
    "poisson": lambda y, a, w: r2_score(y, a, sample_weight=w),  # scikit-learn's
    "absolute_error": lambda y, a, w: d2_absolute_error_score(y, a, sample_weight=w),
    "quantile": lambda y, a, w: d2_pinball_score(y, a, alpha=0.3, sample_weight=w),
    "gamma": lambda y, a, w: d2_tweedie_score(y, a, power=2, sample_weight=w),
    "huber": lambda y, a, w: d2_huber(y, a, w, 0.7),
}


@quiet
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", MEASURES)
def test_the_score_is_the_share_of_the_loss_that_is_explained(loss, weighted):
    weight = WEIGHT if weighted else None
    settings = dict(quantile=0.3) if loss == "quantile" else {}
    settings |= dict(huber_delta=0.7) if loss == "huber" else {}
    model = MLPRegressor(loss, max_iter=5, random_state=0, **settings)
    model.fit(X_SKEWED, Y_SKEWED, weight, X_val=X_SKEWED, y_val=Y_SKEWED, sample_weight_val=weight)
    expected = MEASURES[loss](Y_SKEWED, model.predict(X_SKEWED), weight)
    assert model.score(X_SKEWED, Y_SKEWED, weight) == pytest.approx(expected, abs=1e-6)
    assert model.validation_scores_[-1] == pytest.approx(expected, abs=1e-6)
    assert model.best_validation_score_ == max(model.validation_scores_)


@quiet
def test_the_score_of_standardised_targets_is_in_units_of_y():
    settings = dict(standardize_target=True, max_iter=5, random_state=0)
    y = 100 + 10 * Y_SKEWED
    for loss in ("huber", "absolute_error", "quantile"):
        model = MLPRegressor(loss, early_stopping=True, **settings)
        model.fit(X_SKEWED, y, X_val=X_SKEWED, y_val=y)
        assert model.score(X_SKEWED, y) == pytest.approx(model.best_validation_score_)
    model = MLPRegressor("huber", **settings).fit(X_SKEWED, y)
    expected = d2_huber(y, model.predict(X_SKEWED), None, np.std(y))
    assert model.score(X_SKEWED, y) == pytest.approx(expected, abs=1e-6)


@quiet
@pytest.mark.parametrize("loss", ["gamma", "huber", "absolute_error", "quantile"])
def test_the_score_of_several_targets_is_the_mean_of_their_scores(loss):
    Y = np.column_stack([Y_SKEWED, 3 * Y_SKEWED[::-1]])
    model = MLPRegressor(loss, max_iter=3, random_state=0).fit(X_SKEWED, Y)
    predicted = model.predict(X_SKEWED)
    measure = {
        **MEASURES,
        "quantile": lambda y, a, w: d2_pinball_score(y, a),
        "huber": lambda y, a, w: d2_huber(y, a, w, 1.0),
    }[loss]
    expected = np.mean([measure(Y[:, k], predicted[:, k], None) for k in (0, 1)])
    assert model.score(X_SKEWED, Y) == pytest.approx(expected, abs=1e-6)


@quiet
def test_a_search_without_a_scorer_finds_the_model_of_the_quantile():
    """By R^2 the constant network, which is closer to the mean, would have been chosen."""
    grid = {"learning_rate_init": [1e-2, 1e-6]}
    settings = dict(quantile=0.99, max_iter=40, random_state=0)
    search = GridSearchCV(MLPRegressor("quantile", (20,), **settings), grid, cv=2)
    search.fit(X_SKEWED, Y_SKEWED)
    assert search.best_params_["learning_rate_init"] == 1e-2
    assert search.best_score_ > 0.1


def test_the_metric_of_several_quantiles():
    quantiles = [0.1, 0.5]
    Y = np.column_stack([Y_SKEWED, -Y_SKEWED])
    P = RNG.randn(2000, 4)
    expected = [
        d2_pinball_score(Y[:, t], P[:, 2 * t + q], alpha=quantiles[q], sample_weight=WEIGHT)
        for t in (0, 1)
        for q in (0, 1)
    ]
    found = d2_quantile_score(Y, P, quantiles=quantiles, sample_weight=WEIGHT)
    assert found == pytest.approx(np.mean(expected))
    one = d2_quantile_score(Y_SKEWED, P[:, 0], quantiles=0.3)
    assert one == pytest.approx(d2_pinball_score(Y_SKEWED, P[:, 0], alpha=0.3))
    with pytest.raises(ValueError, match="2 quantiles of 2 targets, 4 in all, got 3"):
        d2_quantile_score(Y, P[:, :3], quantiles=quantiles)
    with pytest.raises(ValueError, match=r"quantiles must be in \(0, 1\), got \[0.1, 1.9\]"):
        d2_quantile_score(Y, P, quantiles=[0.1, 1.9])


@quiet
@pytest.mark.parametrize("loss", ["absolute_error", "huber", "quantile"])
def test_a_constant_target_has_the_score_1_if_it_is_met_and_0_otherwise(loss):
    model = MLPRegressor.from_weights([np.zeros((2, 1))], [[3.0]], loss=loss)
    assert model.score(np.ones((5, 2)), np.full(5, 3.0)) == 1
    assert model.score(np.ones((5, 2)), np.full(5, 3.5)) == 0


def test_the_metric_of_several_quantiles_as_a_scorer():
    quantiles = [0.1, 0.9]
    scorer = make_scorer(d2_quantile_score, quantiles=quantiles)
    model = MLPRegressor("quantile", quantile=quantiles, max_iter=5, random_state=0)
    by_scorer = cross_val_score(model, X_SKEWED, Y_SKEWED, cv=3, scoring=scorer)
    np.testing.assert_allclose(by_scorer, cross_val_score(model, X_SKEWED, Y_SKEWED, cv=3))


@quiet
def test_a_gamma_prediction_that_underflows_has_a_low_score_not_an_error():
    model = MLPRegressor.from_weights([[[1.0]]], [[0.0]], loss="gamma", out_activation="exp")
    X = np.array([[-2000.0], [0.0], [1.0]])
    assert model.predict(X)[0] == 0
    assert model.score(X, [1.0, 2.0, 3.0]) < -1e100


# --- a validation set without a score ------------------------------------------------------------


@pytest.mark.parametrize("early_stopping", [False, True])
def test_one_row_of_validation_has_no_r2(early_stopping):
    model = MLPRegressor(early_stopping=early_stopping, max_iter=30, random_state=0)
    words = r"validation score .* of the 1 validation examples cannot be computed.*scoring='loss'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of fewer than two samples
        for loss in ("squared_error", "absolute_error", "huber", "quantile"):
            model.set_params(loss=loss)
            with pytest.raises(ValueError, match=words):
                model.fit(X_DIABETES, Y_DIABETES, X_val=X_DIABETES[:1], y_val=Y_DIABETES[:1])
    assert not hasattr(model, "coefs_")
    with pytest.warns(ConvergenceWarning):
        model.set_params(scoring="loss", max_iter=3)
        model.fit(X_DIABETES, Y_DIABETES, X_val=X_DIABETES[:1], y_val=Y_DIABETES[:1])
    assert np.isfinite(model.best_validation_score_)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_one_class_in_validation_has_no_roc_auc(given):
    """Whether the user gave the examples or a part was set aside."""
    y = np.repeat([0, 1, 2], [80, 68, 2])
    if given:
        y = np.minimum(y, 1)
    examples = dict(X_val=X_IRIS[:9], y_val=np.zeros(9, int)) if given else {}
    scoring = "roc_auc" if given else "roc_auc_ovr"
    model = MLPClassifier(early_stopping=True, scoring=scoring, random_state=0)
    with pytest.raises(ValueError, match=rf"score \(scoring='{scoring}'\).*X_val and y_val"):
        model.fit(X_IRIS, y, **examples)
    assert not hasattr(model, "coefs_")


@quiet
@pytest.mark.parametrize("ours", [MLPClassifier, MLPRegressor])
def test_a_part_without_weight_has_no_score(ours):
    X, seen = X_IRIS.copy(), []
    X[:, 0] = np.arange(150)

    def rows_of(estimator, X, y):
        seen.append(X[:, 0].astype(int))
        return 0.0

    settings = dict(early_stopping=True, max_iter=1, random_state=0)
    ours(scoring=rows_of, **settings).fit(X, Y_IRIS)
    weight = np.ones(150)
    weight[seen[0]] = 0
    with pytest.raises(ValueError, match=r"sample_weight of the 15 examples .* adds up to zero"):
        ours(**settings).fit(X, Y_IRIS, weight)


# --- divergence ----------------------------------------------------------------------------------


def test_divergence_under_early_stopping_keeps_the_best_epoch_and_says_so():
    settings = dict(solver="sgd", learning_rate_init=10, early_stopping=True, random_state=0)
    model = MLPRegressor(**settings)
    with pytest.warns(ConvergenceWarning, match="diverged in epoch 3.* of epoch 1 are kept"):
        model.fit(X_DIABETES, Y_DIABETES)
    assert model.stop_reason_ == "diverged"
    assert model.best_epoch_ == 1
    assert np.isfinite(model.predict(X_DIABETES)).all()


@pytest.mark.parametrize("ours", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_fit_without_one_good_epoch_is_an_error(ours, early_stopping):
    settings = dict(solver="sgd", learning_rate_init=1e300, random_state=0)
    model = ours(early_stopping=early_stopping, **settings)
    with pytest.raises(ValueError, match=r"diverged in epoch \d, with a learning rate of 1e\+300"):
        model.fit(X_IRIS, Y_IRIS)
    assert not hasattr(model, "coefs_")


def test_a_warm_start_that_diverges_leaves_the_model_as_it_was():
    model = MLPRegressor(warm_start=True, early_stopping=True, max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning):
        model.fit(X_DIABETES, Y_DIABETES)
    before = [a.copy() for a in model.coefs_]
    model.set_params(solver="sgd", learning_rate_init=1e300)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(X_DIABETES, Y_DIABETES)
    assert all(np.array_equal(a, b) for a, b in zip(model.coefs_, before, strict=True))


def test_early_stopping_with_scores_far_below_a_constant_is_a_warning():
    y = 1e6 + Y_DIABETES
    model = MLPRegressor(early_stopping=True, tol=1e9, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"best validation score is -.*constant is 0"):
        model.fit(X_DIABETES, y)


@pytest.mark.parametrize("solver", ["adam", "adamw", "adagrad", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_loss_that_was_never_finite_is_an_error(solver, early_stopping, sparse):
    X = X_DIABETES.astype(np.float32)
    y = (1e20 * Y_DIABETES).astype(np.float32)
    model = MLPRegressor(solver=solver, early_stopping=early_stopping, random_state=0)
    words = "too large for float32: the loss is (inf|nan).*standardize_target, give X as float64"
    with (
        np.errstate(over="ignore"),
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=words),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)
        model.fit(sp.csr_array(X) if sparse else X, y)
    assert not hasattr(model, "coefs_")


@quiet
def test_the_same_targets_standardised_or_in_float64_are_learnt():
    y = 1e20 * Y_DIABETES
    model = MLPRegressor(standardize_target=True, random_state=0)
    assert model.fit(X_DIABETES.astype(np.float32), y).score(X_DIABETES, y) > 0.4
    assert np.isfinite(MLPRegressor(max_iter=2, random_state=0).fit(X_DIABETES, y).loss_)


def test_squares_of_the_gradient_that_overflow_are_a_warning():
    """Their weights would never move again, though the loss is finite."""
    X = 1e5 * X_DIABETES.astype(np.float32)
    y = (1e18 * scale(Y_DIABETES)).astype(np.float32)
    model = MLPRegressor(max_iter=3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="squares of the gradient are infinite"):
        model.fit(X, y)
    assert np.isfinite(model.loss_)


def test_partial_fit_with_an_infinite_loss_is_a_warning():
    X, y = X_DIABETES.astype(np.float32), (1e20 * Y_DIABETES).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="loss is inf after the last epoch"):
        MLPRegressor(random_state=0).partial_fit(X, y)


# --- settings that change between calls ----------------------------------------------------------

START = dict(hidden_layer_sizes=(8,), random_state=0)


def weights(model):
    return np.concatenate([a.ravel() for a in [*model.coefs_, *model.intercepts_]])


def after_two_calls(first, then):
    """The weights after partial_fit with the settings ``first``, then with ``then`` as well."""
    model = MLPRegressor(**START, **first).partial_fit(X_DIABETES, scale(Y_DIABETES))
    return weights(model.set_params(**then).partial_fit(X_DIABETES, scale(Y_DIABETES)))


@pytest.mark.parametrize(
    "first, then",
    [
        ({}, dict(learning_rate_init=0.1)),
        (dict(solver="sgd"), dict(learning_rate_init=0.1)),
        (dict(solver="sgd"), dict(nesterovs_momentum=False)),
        (dict(solver="sgd"), dict(momentum=0.1)),
        (dict(solver="sgd", learning_rate="invscaling"), dict(learning_rate="constant")),
        ({}, dict(learning_rate=lambda epoch: 0.1)),
        ({}, dict(beta_1=0.1)),
        ({}, dict(beta_2=0.1)),
        ({}, dict(epsilon=1.0)),
        ({}, dict(alpha=100.0)),
        ({}, dict(clip_norm=1e-3)),
        ({}, dict(solver="sgd")),
        (dict(solver="sgd"), dict(solver="adam")),
        ({}, dict(solver="adamw", weight_decay=1.0)),
        ({}, dict(batch_size=10)),
    ],
    ids=str,
)
def test_a_setting_acts_from_the_next_call_on(first, then):
    changed = after_two_calls(first, then)
    assert not np.array_equal(changed, after_two_calls(first, {}))


@pytest.mark.parametrize("settings", [{}, dict(solver="sgd", learning_rate="invscaling")])
def test_a_setting_that_is_set_to_what_it_was_changes_nothing(settings):
    same = dict(learning_rate_init=0.001, solver=settings.get("solver", "adam"))
    np.testing.assert_array_equal(after_two_calls(settings, same), after_two_calls(settings, {}))


@pytest.mark.parametrize("first", ["adam", "nadam", "adagrad"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_another_solver_begins_anew_with_its_own_state(first, momentum):
    sgd = dict(solver="sgd", momentum=momentum, learning_rate_init=0.01)
    found = after_two_calls(dict(solver=first), sgd)
    begun = MLPRegressor(**START, solver=first).partial_fit(X_DIABETES, scale(Y_DIABETES))
    given = MLPRegressor.from_weights(begun.coefs_, begun.intercepts_, **sgd, random_state=0)
    given.partial_fit(X_DIABETES, scale(Y_DIABETES))
    np.testing.assert_array_equal(found, weights(given))


def test_a_new_initial_rate_is_that_of_a_fit_that_had_it():
    """After plain gradient descent nothing but the weights is left of the first call."""
    plain = dict(solver="sgd", momentum=0.0, learning_rate_init=0.01)
    found = after_two_calls(plain, dict(learning_rate_init=0.05))
    begun = MLPRegressor(**START, **plain).partial_fit(X_DIABETES, scale(Y_DIABETES))
    settings = dict(plain, learning_rate_init=0.05, random_state=0)
    given = MLPRegressor.from_weights(begun.coefs_, begun.intercepts_, **settings)
    np.testing.assert_array_equal(found, weights(given.partial_fit(X_DIABETES, scale(Y_DIABETES))))


def test_an_optimizer_of_an_older_version_goes_on():
    model = MLPClassifier(random_state=0).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
    other = pickle.loads(pickle.dumps(model))
    del other._optimizer.given_rate  # which it had not yet
    a, b = (m.partial_fit(X_IRIS, Y_IRIS) for m in (model, other))
    np.testing.assert_array_equal(weights(a), weights(b))


# --- validation examples that are not what X is --------------------------------------------------


@quiet
def test_validation_examples_that_a_pipeline_has_not_transformed_are_noticed():
    X, y = load_wine_of_two_scales()
    model = make_pipeline(StandardScaler(), MLPRegressor(early_stopping=True, random_state=0))
    with pytest.warns(UserWarning, match=r"out of all proportion.*transform_input=\['X_val'\]"):
        model.fit(X, y, mlpregressor__X_val=X, mlpregressor__y_val=y)


def load_wine_of_two_scales():
    rng = np.random.RandomState(0)
    X = rng.randn(200, 2) * [1, 300] + [0, 1000]
    return X, X[:, 0]


@quiet
@pytest.mark.parametrize("ours", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("size", [5, 50])
def test_other_validation_examples_are_no_reason_to_warn(ours, size):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed in range(5):
            rows = np.random.RandomState(seed).permutation(150)
            train, test = rows[size:], rows[:size]
            model = ours(max_iter=3, random_state=seed)
            model.fit(X_IRIS[train], Y_IRIS[train], X_val=X_IRIS[test], y_val=Y_IRIS[test])


# --- why a fit stopped ---------------------------------------------------------------------------


@quiet
def test_the_reason_why_a_fit_stopped(after_epochs):
    data = X_IRIS, Y_IRIS
    settings = dict(random_state=0)
    assert MLPClassifier(max_iter=2, **settings).fit(*data).stop_reason_ == "max_iter"
    model = MLPClassifier(tol=10, n_iter_no_change=2, **settings).fit(*data)
    assert (model.stop_reason_, model.best_epoch_, model.n_iter_) == ("no_improvement", None, 4)
    assert MLPClassifier(max_time=1e-9, **settings).fit(*data).stop_reason_ == "max_time"
    model = MLPClassifier(**settings).partial_fit(*data, classes=[0, 1, 2])
    assert model.stop_reason_ == "partial_fit"
    lbfgs = dict(solver="lbfgs", **settings)
    assert MLPClassifier(**lbfgs).fit(*data).stop_reason_ == "converged"
    assert MLPClassifier(max_iter=2, **lbfgs).fit(*data).stop_reason_ == "max_iter"
    assert MLPClassifier(max_fun=2, **lbfgs).fit(*data).stop_reason_ == "max_fun"
    assert MLPClassifier(max_time=1e-9, **lbfgs).fit(*data).stop_reason_ == "max_time"

    def interrupt(estimator, fitted):
        raise KeyboardInterrupt

    for more in (settings, lbfgs):
        model = MLPClassifier(**more).set_callbacks(after_epochs(interrupt))
        with pytest.warns(UserWarning, match="interrupted by user"):
            model.fit(*data)
        assert model.stop_reason_ == "interrupted"


@quiet
def test_the_best_epoch_is_that_of_the_weights():
    settings = dict(early_stopping=True, learning_rate_init=0.02, random_state=0)
    model = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    assert model.stop_reason_ == "no_improvement"
    assert model.validation_scores_[model.best_epoch_ - 1] == max(model.validation_scores_)
    assert model.validation_scores_.index(max(model.validation_scores_)) == model.best_epoch_ - 1
    shorter = MLPClassifier(max_iter=model.best_epoch_, **settings)
    shorter.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    np.testing.assert_array_equal(weights(model), weights(shorter))


# --- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("library", ["fastnn", "scikit-learn"])
def test_a_convergence_warning_as_an_exception_leaves_a_model_that_predicts(solver, library):
    MLP = {"fastnn": MLPClassifier, "scikit-learn": sk.MLPClassifier}[library]
    model = MLP(solver=solver, max_iter=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning):
            model.fit(X_IRIS, Y_IRIS)
    assert model.predict(X_IRIS).shape == (150,)
    assert library == "scikit-learn" or (model.n_iter_ == 2 and model.loss_ < 1.2)


@pytest.mark.parametrize("way", ["fit", "callbacks", "pipeline", "search", "partial_fit", "super"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_warning_is_about_the_users_line(way, solver, after_epochs):
    class Own(MLPClassifier):
        pass

    model = Own(solver=solver, max_iter=2, random_state=0)
    if way == "callbacks":
        model.set_callbacks(after_epochs(lambda *a: None))
    if way == "pipeline":
        model = make_pipeline(StandardScaler(), model)
    if way == "search":
        model = GridSearchCV(model, {"alpha": [0.1]}, cv=2)
    if way == "partial_fit":
        if solver == "lbfgs":
            return
        model.set_params(batch_size=1000)
    with pytest.warns(UserWarning) as caught:
        if way == "partial_fit":
            model.partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])
        else:
            model.fit(X_IRIS, Y_IRIS)
    assert {warning.filename for warning in caught} == {__file__}


# --- lines on the screen -------------------------------------------------------------------------


@quiet
def test_verbose_tells_in_one_line_what_scikit_learn_has_no_line_for(capsys):
    settings = dict(verbose=True, max_iter=3, random_state=0)
    model = MLPClassifier(learning_rate="cosine", **settings)
    model.fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for k, line in enumerate(lines):
        found = dict(part.strip().rsplit(" ", 1) for part in line.split(": ")[1].split(",")[:-1])
        assert line.startswith(f"Epoch {k + 1}: ")
        assert float(found["loss"]) == pytest.approx(model.loss_curve_[k], rel=1e-5)
        assert float(found["validation loss"]) == pytest.approx(
            model.validation_loss_curve_[k], rel=1e-5
        )
        assert float(found["validation score"]) == pytest.approx(
            model.validation_scores_[k], rel=1e-5
        )
        assert float(found["learning rate"]) == pytest.approx(
            0.001 * (1 + np.cos(np.pi * k / 3)) / 2, rel=1e-2
        )
        assert line.endswith(" s")
    MLPClassifier(learning_rate="step", **settings).fit(X_IRIS, Y_IRIS)
    line = capsys.readouterr().out.splitlines()[0]
    assert "learning rate" in line and "validation" not in line
