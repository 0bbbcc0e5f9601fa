"""LossCurveDisplay draws what the fits have kept, and says what is missing."""

import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn import neural_network as sk
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import BaggingClassifier, VotingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

import fastnn
import grids
from fastnn import LossCurveDisplay, MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def plain():
    return MLPClassifier((5,), max_iter=4, random_state=0).fit(X, Y)


@pytest.fixture(scope="module")
def stopped():
    return MLPClassifier((5,), max_iter=6, early_stopping=True, random_state=0).fit(X, Y)


def drawn(display):
    """x and y of each line, by its label."""
    return {line.get_label(): np.array(line.get_data()).tolist() for line in display.lines_}


def curve(values):
    return [list(range(1, len(values) + 1)), list(values)]


def legend(display):
    return [text.get_text() for text in (display.score_ax_ or display.ax_).get_legend().texts]


def test_the_loss_alone(plain):
    display = LossCurveDisplay.from_estimator(plain)
    assert drawn(display) == {"MLPClassifier: Training loss": curve(plain.loss_curve_)}
    assert display.figure_ is display.ax_.figure
    assert display.figure_.axes == [display.ax_]
    assert display.score_ax_ is None
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Epoch", "Loss")
    assert display.ax_.get_yscale() == "linear"
    assert legend(display) == ["Training loss"]
    assert display.ax_.get_legend().get_title().get_text() == "MLPClassifier"


def test_scores_have_their_own_axis_and_the_best_epoch_is_marked(stopped):
    display = LossCurveDisplay.from_estimator(stopped, name="iris")
    best = stopped.validation_scores_.index(stopped.best_validation_score_) + 1
    assert drawn(display) == {
        "iris: Training loss": curve(stopped.loss_curve_),
        "iris: Validation loss": curve(stopped.validation_loss_curve_),
        "iris: Validation score": curve(stopped.validation_scores_),
        "iris: Best epoch": [[best, best], [0, 1]],
    }
    *losses, score, mark = display.lines_
    assert all(line.axes is display.ax_ for line in [*losses, mark])
    assert score.axes is display.score_ax_ is not display.ax_
    assert display.score_ax_.get_ylabel() == "Validation score"
    kinds = ["Training loss", "Validation loss", "Validation score", f"Best epoch ({best})"]
    assert legend(display) == kinds
    assert plt.gca() is display.ax_


def test_the_validation_loss_where_present():
    model = sk.MLPClassifier((5,), max_iter=3).fit(X, Y)
    model.validation_loss_curve_ = [3.0, 2.0, 2.5]
    display = LossCurveDisplay.from_estimator(model, name="m")
    assert drawn(display) == {
        "m: Training loss": curve(model.loss_curve_),
        "m: Validation loss": curve([3.0, 2.0, 2.5]),
    }
    assert {line.axes for line in display.lines_} == {display.ax_}
    assert legend(display) == ["Training loss", "Validation loss"]


@pytest.mark.parametrize(
    "scores, best",
    [([0.1, 0.5, 0.5], 2), ([np.nan, 0.1, 0.0], 2), ([-3, -2, -1], 3), ([np.nan] * 3, None)],
)
def test_the_best_epoch_is_the_first_of_the_highest_score(scores, best):
    display = LossCurveDisplay({"m": {"loss": [3, 2, 1], "validation_scores": scores}}).plot()
    marks = [x for label, (x, _) in drawn(display).items() if label == "m: Best epoch"]
    assert marks == ([] if best is None else [[best, best]])


def test_several_estimators_have_one_colour_each(plain, stopped):
    display = LossCurveDisplay.from_estimators({"A": plain, "B": stopped})
    a, *b = display.lines_
    assert drawn(display)["A: Training loss"] == curve(plain.loss_curve_)
    assert drawn(display)["B: Training loss"] == curve(stopped.loss_curve_)
    assert len({line.get_color() for line in b}) == 1
    assert a.get_color() != b[0].get_color()
    assert len({line.get_linestyle() for line in b}) == len(b) == 4
    kinds = ["Training loss", "Validation loss", "Validation score", "Best epoch"]
    assert legend(display) == ["A", "B", *kinds]


def test_estimators_of_a_list_are_numbered(plain, stopped):
    pipeline = make_pipeline(StandardScaler(), stopped)
    display = LossCurveDisplay.from_estimators([plain, pipeline])
    assert list(display.curves) == ["MLPClassifier 1", "MLPClassifier 2"]


FALLING = {"loss": [3.0, 1.0, 0.3, 0.1], "validation_loss": [3.0, 1.5, 1.0, 0.9]}
CURVES = {
    "loss": {"m": {"loss": [3, 2, 1]}},
    "scores": {"m": FALLING | {"validation_scores": [0.1, 0.5, 0.9, 0.95]}},
    "falling scores": {"m": FALLING | {"validation_scores": [-1, -2, -9, -99]}},
    "all the same": {"m": {"loss": [1, 1], "validation_scores": [1, 1]}},
    "one epoch": {"m": {"loss": [0.5], "validation_scores": [0.5]}},
    "negative losses": {"m": {"loss": [1.0, 0.1, -1.0], "validation_loss": [2.0, 1.0, 0.5]}},
    "not finite": {"m": {"loss": [2.0, np.inf, np.nan], "validation_loss": [np.nan] * 3}},
    "several": {
        name: FALLING | {"validation_scores": [0.1, 0.5, 0.9, 0.95]}
        for name in ("one", "two", "a third with a longer name", "four")
    },
    "many": {f"model {i}": FALLING for i in range(12)},
}


FIGURES = {
    "of its own": None,
    "given": {},
    "smaller": {"figsize": (9, 7)},
    "constrained": {"layout": "constrained"},
}
ALL = list(itertools.product(CURVES, [False, True], FIGURES))


@pytest.mark.parametrize("case, log, figure", grids.nightly_but(ALL, grids.covering(ALL, 1)))
def test_the_legend_hides_no_curve(case, log, figure):
    given = FIGURES[figure]
    ax = None if given is None else plt.subplots(2, 2, **{"figsize": (10, 8), **given})[1][0, 1]
    display = LossCurveDisplay(CURVES[case]).plot(ax, log=log)
    display.figure_.canvas.draw()
    box = (display.score_ax_ or display.ax_).get_legend().get_window_extent()
    for line in display.lines_:
        if line.get_label().endswith("Best epoch"):
            continue
        # Finely enough that no part of a line between two points is left out.
        x, y = line.axes.transData.transform(line.get_xydata()).T
        at = np.linspace(0, len(x) - 1, 500)
        x, y = np.interp(at, range(len(x)), x), np.interp(at, range(len(y)), y)
        inside = (box.x0 <= x) & (x <= box.x1) & (box.y0 <= y) & (y <= box.y1)
        assert not inside.any(), line.get_label()
    whole = display.ax_.get_window_extent()
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


def test_limits_that_the_caller_has_fixed_stay(stopped):
    _, ax = plt.subplots()
    ax.set_ylim(0, 3)
    LossCurveDisplay.from_estimator(stopped, ax=ax)
    assert ax.get_ylim() == (0, 3)


MODELS = {
    "grid": lambda m: GridSearchCV(m, {"alpha": [0.1, 1]}, cv=2),
    "random": lambda m: RandomizedSearchCV(m, {"alpha": [0.1, 1]}, n_iter=1, cv=2),
    "halving": lambda m: HalvingGridSearchCV(m, {"alpha": [0.1, 1]}, cv=2),
    "target": lambda m: TransformedTargetRegressor(m, transformer=StandardScaler()),
    "pipeline": lambda m: make_pipeline(StandardScaler(), m),
    "pipeline in a search": lambda m: GridSearchCV(make_pipeline(m), {}, cv=2),
    "search in a pipeline": lambda m: make_pipeline(GridSearchCV(m, {}, cv=2)),
    "target in a search in a pipeline": lambda m: make_pipeline(
        StandardScaler(), GridSearchCV(TransformedTargetRegressor(make_pipeline(m)), {}, cv=2)
    ),
    "frozen": lambda m: FrozenEstimator(m.fit(X, Y)),
    "threshold": lambda m: FixedThresholdClassifier(m),
    "tuned threshold": lambda m: TunedThresholdClassifierCV(m, cv=2),
    "self-training": lambda m: SelfTrainingClassifier(m),
    "calibrated": lambda m: CalibratedClassifierCV(m, ensemble=False, cv=2),
    "one of several": lambda m: MultiOutputRegressor(m),
    "one voice": lambda m: VotingRegressor([("a", m)]),
}
OF_CLASSES = ("threshold", "tuned threshold", "self-training", "calibrated")


@pytest.mark.parametrize("library", [fastnn, sk])
@pytest.mark.parametrize("case", MODELS)
def test_the_one_model_inside_of_others(case, library):
    make = library.MLPClassifier if case in OF_CLASSES else library.MLPRegressor
    y = Y > 0 if case in OF_CLASSES else Y * 1.0
    y = y[:, None] if case == "one of several" else y
    model = MODELS[case](make(hidden_layer_sizes=(5,), max_iter=3, random_state=0)).fit(X, y)
    display = LossCurveDisplay.from_estimator(model)
    ((label, (epochs, losses)),) = drawn(display).items()
    assert label in (f"{make.__name__}: Training loss", "FrozenEstimator: Training loss")
    assert epochs == [1, 2, 3] and losses == sorted(losses, reverse=True)
    assert list(LossCurveDisplay.from_estimators({"m": model, "n": model}).curves) == ["m", "n"]


@pytest.mark.parametrize("case", [case for case in MODELS if case != "frozen"])
def test_others_that_are_not_fitted(case):
    make = MLPClassifier if case in OF_CLASSES else MLPRegressor
    with pytest.raises(NotFittedError, match="instance is not fitted yet"):
        LossCurveDisplay.from_estimator(MODELS[case](make()))


@pytest.mark.parametrize(
    "model, attribute, count",
    [
        (BaggingClassifier(MLPClassifier((5,), max_iter=3), 4), "estimators_", 4),
        (OneVsRestClassifier(MLPClassifier((5,), max_iter=3)), "estimators_", 3),
        (CalibratedClassifierCV(MLPClassifier((5,), max_iter=3), cv=2), "calibrated_", 2),
        (make_pipeline(BaggingClassifier(MLPClassifier((5,), max_iter=3), 2)), "estimators_", 2),
    ],
)
def test_several_models_inside_are_an_error_that_names_them(model, attribute, count):
    with pytest.raises(ValueError, match=rf"but {count} fitted models in {attribute}.*from_est"):
        LossCurveDisplay.from_estimator(model.fit(X, Y), name="m")


def test_several_models_inside_are_drawn_one_by_one():
    bagging = BaggingClassifier(MLPClassifier((5,), max_iter=3), 4).fit(X, Y)
    assert len(LossCurveDisplay.from_estimators(bagging.estimators_).lines_) == 4


def test_a_search_that_keeps_no_model():
    search = GridSearchCV(MLPClassifier((5,), max_iter=3), {}, cv=2, refit=False).fit(X, Y)
    with pytest.raises(ValueError, match="GridSearchCV has no loss curve: with refit=False"):
        LossCurveDisplay.from_estimator(search)


def test_pipelines_and_the_best_estimator_of_a_search():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=3))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 1]}, cv=2).fit(X, Y)
    for model in (search.best_estimator_, make_pipeline(search.best_estimator_)):
        display = LossCurveDisplay.from_estimator(model)
        expected = curve(search.best_estimator_[-1].loss_curve_)
        assert drawn(display) == {"MLPClassifier: Training loss": expected}


@pytest.mark.parametrize("model", [MLPRegressor(max_iter=3), sk.MLPRegressor(max_iter=3)])
def test_regressors_and_those_of_sklearn(model):
    model.set_params(early_stopping=True).fit(*load_diabetes(return_X_y=True))
    display = LossCurveDisplay.from_estimator(model)
    assert drawn(display)["MLPRegressor: Validation score"] == curve(model.validation_scores_)


def test_given_axes_scale_and_style(stopped):
    figure, (left, right) = plt.subplots(1, 2)
    display = LossCurveDisplay.from_estimator(stopped, ax=right, log=True, line_kw={"lw": 5})
    assert display.ax_ is right
    assert display.figure_ is figure
    assert (right.get_yscale(), display.score_ax_.get_yscale()) == ("log", "linear")
    assert [line.get_linewidth() for line in display.lines_[:2]] == [5, 5]
    assert not left.lines
    assert display.plot(left) is display
    assert display.ax_ is left and left.get_yscale() == "linear"


def test_ticks_are_whole_epochs_unless_chosen_by_the_caller(plain):
    display = LossCurveDisplay.from_estimator(plain)
    assert all(tick == int(tick) for tick in display.ax_.get_xticks())
    _, ax = plt.subplots()
    ax.set_xticks([1.5, 3])
    LossCurveDisplay.from_estimator(plain, ax=ax)
    assert list(ax.get_xticks()) == [1.5, 3]


def test_one_epoch_is_seen():
    (line,) = LossCurveDisplay({"m": {"loss": [0.5]}}).plot().lines_
    assert line.get_marker() == "o"


@pytest.mark.parametrize(
    "model", [MLPClassifier(), make_pipeline(StandardScaler(), MLPClassifier())]
)
def test_not_fitted(model):
    with pytest.raises(NotFittedError, match="MLPClassifier instance is not fitted"):
        LossCurveDisplay.from_estimator(model)


def test_lbfgs_has_no_loss_curve():
    model = MLPClassifier((5,), solver="lbfgs", max_iter=3).fit(X, Y)
    with pytest.raises(ValueError, match=r"^B has no loss curve: solver='lbfgs' keeps none"):
        LossCurveDisplay.from_estimators({"B": model})
    # Nor has it the one of an earlier fit with another solver, which stays.
    model = MLPClassifier((5,), max_iter=3).fit(X, Y).set_params(solver="lbfgs").fit(X, Y)
    with pytest.raises(ValueError, match="solver='lbfgs' keeps none"):
        LossCurveDisplay.from_estimator(model)


def test_an_estimator_without_loss_curve():
    model = LogisticRegression().fit(X, Y)  # its solver is called 'lbfgs', too
    with pytest.raises(ValueError, match="LogisticRegression has no loss curve"):
        LossCurveDisplay.from_estimator(model)
    model = StandardScaler().fit(X)
    with pytest.raises(ValueError, match=r"StandardScaler has no loss curve: .* loss_curve_"):
        LossCurveDisplay.from_estimator(model)


def test_without_matplotlib(monkeypatch):
    display = LossCurveDisplay({"m": {"loss": [2, 1]}})
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="needs matplotlib to draw: pip install matplotlib"):
        display.plot()


def test_fastnn_does_not_import_matplotlib():
    code = "import sys, fastnn; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
