"""The same numbers as scikit-learn: float64, equal settings and seed, whole default fits.

scikit-learn's own results move by some 1e-15 when X does, so 1e-8 leaves room for rounding and for
nothing else. L-BFGS's line search amplifies rounding: its first iterations are compared closely,
and those from the point that fastnn has come to, but its final loss less closely.

Run ``python tests/test_parity.py`` to see the largest deviation over the grid.
"""

import itertools
import warnings

import numpy as np
import pytest
from sklearn import neural_network as sk
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning

import fastnn
import grids

TOLERANCE = 1e-8

_RNG = np.random.RandomState(0)
_X, _Y = load_digits(return_X_y=True)
_X = _X[:230, 10:40] / 16
_Y = _Y[:230]
_X_LABELS, _LABELS = make_multilabel_classification(230, 30, n_classes=4, random_state=0)
_REAL = _X @ _RNG.standard_normal((30, 3)) / 3 + 0.1 * _RNG.standard_normal((230, 3))

TARGETS = {
    "binary": ("MLPClassifier", _X, _Y % 2, {}),
    "multiclass": ("MLPClassifier", _X, _Y, {}),
    "multilabel": ("MLPClassifier", _X_LABELS / 10, _LABELS, {}),
    "regression": ("MLPRegressor", _X, _REAL[:, 0], {}),
    "multioutput": ("MLPRegressor", _X, _REAL, {}),
    "poisson": ("MLPRegressor", _X, _RNG.poisson(np.exp(_REAL[:, 0])), {"loss": "poisson"}),
}
SOLVERS = {
    "adam": {"solver": "adam"},
    "sgd constant": {"solver": "sgd"},
    "sgd invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.05},
    "sgd adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "tol": 0.01,
        "n_iter_no_change": 2,
        "learning_rate_init": 0.05,
    },
    "sgd no momentum": {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False},
}
ACTIVATIONS = ["identity", "logistic", "tanh", "relu"]
CALLS = ["fit", "warm_start", "partial_fit"]


def combinations():
    for target, activation, solver, weighted, early, call in itertools.product(
        TARGETS, ACTIVATIONS, SOLVERS, [False, True], [False, True], CALLS
    ):
        if not (early and call == "partial_fit"):  # scikit-learn refuses
            yield target, activation, solver, weighted, early, call


def fitted_pair(target, activation, solver, weighted, early, call, **settings):
    """(fastnn's estimator, scikit-learn's), after the same calls."""
    name, X, y, extra = TARGETS[target]
    settings = {
        "activation": activation,
        "early_stopping": early,
        "random_state": 3,
        "warm_start": call == "warm_start",
        **SOLVERS.get(solver, {"solver": solver}),
        **extra,
        **settings,
    }
    if target in ("regression", "multioutput", "poisson") and solver.startswith("sgd"):
        # At the classifiers' rates these diverge, in scikit-learn as here.
        settings["learning_rate_init"] = 0.002
    weight = np.random.RandomState(1).uniform(0, 2, len(X)) if weighted else None
    pair = []
    for module in (fastnn, sk):
        estimator = getattr(module, name)(**settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if call == "partial_fit":
                classes = {"classes": np.arange(y.max() + 1)} if name == "MLPClassifier" else {}
                if target == "multilabel":
                    classes = {"classes": np.arange(y.shape[1])}
                for first in (0, 60, 120, 0):
                    part = slice(first, first + 110)
                    w = None if weight is None else weight[part]
                    estimator.partial_fit(X[part], y[part], sample_weight=w, **classes)
            else:
                estimator.fit(X, y, sample_weight=weight)
                if call == "warm_start":
                    estimator.fit(X, y, sample_weight=weight)
        pair.append(estimator)
    return pair


def relative(a, b):
    """Largest difference, relative to the largest value."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert a.shape == b.shape
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


def deviation(mine, theirs, X):
    """The largest relative deviation of anything a fit leaves."""
    assert mine.n_iter_ == theirs.n_iter_
    assert mine.t_ == theirs.t_
    assert mine._no_improvement_count == theirs._no_improvement_count
    found = [relative(mine.loss_curve_, theirs.loss_curve_)]
    found += [relative(a, b) for a, b in zip(mine.coefs_, theirs.coefs_, strict=True)]
    found += [relative(a, b) for a, b in zip(mine.intercepts_, theirs.intercepts_, strict=True)]
    if mine.early_stopping:
        found.append(relative(mine.validation_scores_, theirs.validation_scores_))
    else:
        found.append(relative(mine.best_loss_, theirs.best_loss_))
    if hasattr(mine, "predict_proba"):
        found.append(relative(mine.predict_proba(X), theirs.predict_proba(X)))
        assert np.array_equal(mine.predict(X), theirs.predict(X))
    else:
        found.append(relative(mine.predict(X), theirs.predict(X)))
    return max(found)


ALL = list(combinations())
# Every two of the factors meet in all their values each time, all six at night.
SOME = grids.nightly_but(ALL, grids.covering(ALL, 2))


@pytest.mark.parametrize("target, activation, solver, weighted, early, call", SOME)
def test_same_numbers(target, activation, solver, weighted, early, call):
    mine, theirs = fitted_pair(target, activation, solver, weighted, early, call)
    assert deviation(mine, theirs, TARGETS[target][1]) < TOLERANCE


VARIANTS = [
    {"hidden_layer_sizes": ()},
    {"hidden_layer_sizes": (7, 5, 3)},
    {"hidden_layer_sizes": 33},
    {"shuffle": False},
    {"batch_size": 1, "max_iter": 5},
    {"batch_size": 7, "max_iter": 20},
    {"batch_size": 230},
    {"alpha": 0.0},
    {"alpha": 1.0},
    {"beta_1": 0.0, "beta_2": 0.9, "epsilon": 1e-3},
    {"n_iter_no_change": np.inf, "max_iter": 30},
    {"tol": 0.1},
    {"validation_fraction": 0.4, "early_stopping": True},
    {"learning_rate_init": 0.02},
]


@pytest.mark.parametrize(
    "settings, target",
    [
        pytest.param(
            settings,
            target,
            marks=() if i % len(TARGETS) == j else pytest.mark.nightly,
            id=f"{target}-{settings}",
        )
        for i, settings in enumerate(VARIANTS)
        for j, target in enumerate(TARGETS)
    ],
)
def test_same_numbers_with(settings, target):
    early = settings.get("early_stopping", False)
    mine, theirs = fitted_pair(target, "relu", "adam", False, early, "fit", **settings)
    assert deviation(mine, theirs, TARGETS[target][1]) < TOLERANCE


OF_LBFGS = list(itertools.product(TARGETS, ACTIVATIONS, [False, True]))


@pytest.mark.parametrize(
    "target, activation, weighted", grids.nightly_but(OF_LBFGS, grids.covering(OF_LBFGS, 1))
)
def test_lbfgs(target, activation, weighted):
    mine, theirs = fitted_pair(target, activation, "lbfgs", weighted, False, "fit", max_iter=5)
    assert relative(mine.loss_, theirs.loss_) < TOLERANCE
    for a, b in zip(mine.coefs_, theirs.coefs_, strict=True):
        assert relative(a, b) < 1e-7
    mine, theirs = fitted_pair(target, activation, "lbfgs", weighted, False, "fit", max_iter=50)
    assert relative(mine.loss_, theirs.loss_) < 0.01  # measured is 3e-6
    _, X, y, _ = TARGETS[target]
    weight = np.random.RandomState(1).uniform(0, 2, len(X)) if weighted else None
    theirs.coefs_ = [W.copy() for W in mine.coefs_]
    theirs.intercepts_ = [b.copy() for b in mine.intercepts_]
    for estimator in (mine, theirs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.set_params(max_iter=5, warm_start=True).fit(X, y, sample_weight=weight)
    assert mine.n_iter_ == theirs.n_iter_
    assert relative(mine.loss_, theirs.loss_) < TOLERANCE
    for a, b in zip(mine.coefs_, theirs.coefs_, strict=True):
        assert relative(a, b) < TOLERANCE


def test_a_shared_random_state_is_left_as_scikit_learn_leaves_it():
    name, X, y, _ = TARGETS["multiclass"]
    left = []
    for module in (fastnn, sk):
        rng = np.random.RandomState(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            getattr(module, name)(max_iter=7, random_state=rng, early_stopping=True).fit(X, y)
        left.append(rng.random_sample())
    assert left[0] == left[1]


if __name__ == "__main__":
    worst = {}
    for combination in combinations():
        value = deviation(*fitted_pair(*combination), TARGETS[combination[0]][1])
        worst[combination] = value
    print(f"{len(worst)} combinations; the five largest relative deviations:")
    for combination in sorted(worst, key=worst.get)[-5:]:
        print(f"{worst[combination]:.1e}", *combination)
