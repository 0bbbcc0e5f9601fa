"""The callbacks that come with fastnn: checkpoints, a rate that follows progress, a record."""

import pickle
import signal

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastnn import MLPClassifier, MLPRegressor, TabularClassifier
from fastnn.callbacks import Checkpoint, History, ReduceOnPlateau

pytest.importorskip("sklearn.callback")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:300] / 16, Y[:300]
SETTINGS = dict(hidden_layer_sizes=(12,), max_iter=9, random_state=0)


def weights(model):
    return [*model.coefs_, *model.intercepts_]


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


# --- Checkpoint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("every, written", [(1, [1, 2, 3, 4, 5, 6, 7, 8, 9]), (4, [4, 8, 9])])
def test_it_is_written_after_so_many_epochs_and_after_the_last(every, written, path, after_epochs):
    found = []

    def look(estimator, fitted):
        n = joblib.load(path).n_iter_ if path.exists() else None
        if n == estimator.n_iter_:
            found.append(n)

    model = MLPClassifier(**SETTINGS)
    model.set_callbacks(Checkpoint(path, every=every), after_epochs(look)).fit(X, Y)
    assert found == written
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint"]
    last = joblib.load(path)
    assert same(last, model)
    assert not hasattr(last, "_skl_callbacks")


def test_the_epoch_that_early_stopping_ended_is_written(path):
    model = MLPClassifier(early_stopping=True, n_iter_no_change=2, tol=1, random_state=0)
    model.set_callbacks(Checkpoint(path, every=100)).fit(X, Y)
    assert model.n_iter_ < 10
    last = joblib.load(path).set_params(warm_start=True)
    assert same(last.fit(X, Y), model)
    assert last.stop_reason_ == "no_improvement"


KILLED = """
import os, signal, sys, warnings
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from fastnn import MLPClassifier
from fastnn.callbacks import Checkpoint, ReduceOnPlateau

warnings.simplefilter("ignore")

class Kill(Checkpoint):
    def _write(self, estimator):
        super()._write(estimator)
        if estimator.n_iter_ == 5:
            os.kill(os.getpid(), signal.SIGKILL)

X, y = load_digits(return_X_y=True)
X, y = X[:300] / 16, y[:300]
settings, in_pipeline = eval(sys.argv[2]), sys.argv[3] == "pipeline"
model = MLPClassifier(**settings)
if in_pipeline:
    model = make_pipeline(StandardScaler(), model)
model.set_callbacks(Kill(sys.argv[1]), ReduceOnPlateau(patience=1)).fit(X, y)
"""


@pytest.mark.parametrize("where", ["alone", "pipeline"])
def test_a_killed_fit_goes_on_to_the_identical_model(where, path, run_python):
    """With a rate that falls in the first epochs already, of which the callback keeps nothing."""
    settings = {**SETTINGS, "tol": 1.0}
    run_python("-c", KILLED, path, repr(settings), where, code=-signal.SIGKILL)
    model, resumed = MLPClassifier(**settings), joblib.load(path).set_params(warm_start=True)
    assert resumed.n_iter_ == 5
    if where == "pipeline":
        model = make_pipeline(StandardScaler(), model)
        resumed = make_pipeline(StandardScaler(), resumed)
    model.set_callbacks(ReduceOnPlateau(patience=1)).fit(X, Y)
    resumed.set_callbacks(ReduceOnPlateau(patience=1)).fit(X, Y)
    if where == "pipeline":
        model, resumed = model[-1], resumed[-1]
    assert same(model, resumed)
    assert model._optimizer.used_rate == resumed._optimizer.used_rate < 0.0005


def test_what_cannot_be_written_leaves_the_checkpoint_and_the_estimator(path, monkeypatch):
    model = MLPClassifier(**SETTINGS).set_callbacks(Checkpoint(path)).fit(X, Y)
    before, content = [a.copy() for a in weights(model)], path.read_bytes()

    def fail(estimator, file):
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(joblib, "dump", fail)
    with pytest.raises(OSError, match="disk full"):
        model.fit(X, Y)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint"]
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_an_interrupted_epoch_is_no_checkpoint(path):
    class Interrupt(History):
        def on_fit_task_begin(self, estimator, context):
            super().on_fit_task_begin(estimator, context)
            if context.task_name == "epoch" and estimator.n_iter_ == 4:
                raise KeyboardInterrupt

    model = MLPClassifier(**SETTINGS).set_callbacks(Checkpoint(path), Interrupt())
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, Y)
    resumed = joblib.load(path)
    assert resumed.n_iter_ == 4
    assert same(resumed.set_params(warm_start=True).fit(X, Y), MLPClassifier(**SETTINGS).fit(X, Y))


def test_of_lbfgs_it_has_the_weights(path):
    model = MLPRegressor(solver="lbfgs", max_iter=7, random_state=0)
    model.set_callbacks(Checkpoint(path)).fit(X, X[:, 20])
    np.testing.assert_array_equal(joblib.load(path).predict(X), model.predict(X))


@pytest.mark.parametrize("make", [lambda path: Checkpoint(path), lambda path: History()])
def test_several_fits_are_an_error(make, path):
    search = GridSearchCV(MLPClassifier(**SETTINGS), {"alpha": [0, 1]}, cv=2)
    with pytest.raises(TypeError, match=r"is for the fit of one network: .* not on GridSearchCV"):
        search.set_callbacks(make(path)).fit(X, Y)
    assert not path.exists()


@pytest.mark.parametrize("every", [0, 1.5])
def test_every_is_checked(every, path):
    with pytest.raises(ValueError, match="every must be an int >= 1"):
        MLPClassifier().set_callbacks(Checkpoint(path, every)).fit(X, Y)


@pytest.mark.parametrize("make", [lambda path: path, lambda path: path.parent / "none" / "file"])
def test_a_folder_or_a_file_in_none_is_an_error_before_the_first_epoch(make, path):
    path.mkdir()
    history = History()
    with pytest.raises(ValueError, match="path must be a file in a folder that exists"):
        MLPClassifier().set_callbacks(Checkpoint(make(path), every=9), history).fit(X, Y)
    assert history.epochs == []


def test_fits_of_a_cross_validation_do_not_disturb_each_other(path):
    model = MLPClassifier(**SETTINGS).set_callbacks(Checkpoint(path))
    with joblib.parallel_config(backend="threading", n_jobs=2):
        scores = cross_val_score(model, X, Y, cv=4, error_score="raise")
    assert np.isfinite(scores).all()
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint"]
    assert joblib.load(path).predict(X).shape == Y.shape


# --- ReduceOnPlateau -----------------------------------------------------------------------------


def rates(model, *callbacks, **data):
    history = History()
    model.set_callbacks(*callbacks, history).fit(X, Y, **data)
    return [row["learning_rate"] for row in history.epochs]


@pytest.mark.parametrize("solver", ["adam", "sgd", "adamw", "nadam", "rmsprop", "adagrad"])
def test_the_rate_falls_whenever_progress_has_stalled_for_longer_than_patience(solver):
    model = MLPClassifier(**SETTINGS, solver=solver, tol=10, learning_rate_init=0.008)
    expected = [0.008] * 4 + [0.004] * 3 + [0.002] * 2  # the first epoch is progress
    assert rates(model, ReduceOnPlateau(patience=2)) == pytest.approx(expected)
    assert rates(model, ReduceOnPlateau(patience=2, min_rate=0.004))[-1] == 0.004
    assert rates(model, ReduceOnPlateau(patience=2, min_rate=1))[-1] == 0.008


def test_a_lower_rate_acts_at_once():
    """The same as training on by a schedule that has these rates."""
    settings = {**SETTINGS, "tol": 10}
    model = MLPClassifier(**settings)
    seen = rates(model, ReduceOnPlateau(patience=1, factor=0.1))
    assert len(set(seen)) > 3
    assert same(model, MLPClassifier(**settings, learning_rate=seen.__getitem__).fit(X, Y))
    steady = MLPClassifier(**{**settings, "tol": 1e-4})
    assert set(rates(steady, ReduceOnPlateau(patience=1))) == {0.001}


def test_the_rate_goes_by_the_validation_loss():
    given = dict(X_val=X[::-1], y_val=(Y + 1) % 10)  # wrong ones: it rises
    model = MLPClassifier(**{**SETTINGS, "max_iter": 60}, n_iter_no_change=60)
    seen = rates(model, ReduceOnPlateau(patience=3), **given)
    losses = model.validation_loss_curve_
    assert losses[-1] > min(losses) and seen[-1] < 0.001
    first = next(i for i, rate in enumerate(seen) if rate < 0.001)
    assert first >= np.argmin(losses) + 4 or min(losses[:first]) == losses[first - 5]


def test_each_fit_begins_with_the_initial_rate():
    model = MLPClassifier(**SETTINGS, tol=10, warm_start=True, n_iter_no_change=20)
    first = rates(model, ReduceOnPlateau(patience=2))
    assert rates(model, ReduceOnPlateau(patience=2)) == first


def test_in_a_search_each_fit_has_its_own_rate():
    search = GridSearchCV(MLPClassifier(**SETTINGS, tol=10), {"alpha": [0, 1]}, cv=2, n_jobs=2)
    search.set_callbacks(ReduceOnPlateau(patience=2)).fit(X, Y)
    assert search.best_estimator_._optimizer.used_rate == 0.00025


@pytest.mark.parametrize("params", [dict(learning_rate="cosine"), dict(solver="lbfgs")])
def test_a_schedule_or_lbfgs_beside_it_is_an_error(params):
    model = make_pipeline(StandardScaler(), MLPClassifier(**SETTINGS, **params))
    with pytest.raises(ValueError, match="ReduceOnPlateau takes the place of a schedule"):
        model.set_callbacks(ReduceOnPlateau()).fit(X, Y)


@pytest.mark.parametrize(
    "name, value",
    [
        *[("factor", value) for value in (0, 2, "half", None, np.nan)],
        *[("patience", value) for value in (-1, 1.5, "long", None)],
        *[("min_rate", value) for value in (-1, "low", None, np.nan)],
    ],
)
def test_what_it_is_given_is_checked(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        MLPClassifier().set_callbacks(ReduceOnPlateau(**{name: value})).fit(X, Y)


def test_estimators_for_tables_have_a_schedule_of_their_own():
    model = TabularClassifier(max_iter=2).set_callbacks(ReduceOnPlateau())
    with pytest.raises(TypeError, match="TabularClassifier has a schedule of its own"):
        model.fit(X, Y)


# --- History -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params, rates",
    [
        (dict(learning_rate="step"), [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3),
        (
            dict(solver="sgd", learning_rate="invscaling"),
            [1e-3, *(1e-3 / (300 * n + 1) ** 0.5 for n in range(1, 9))],
        ),
        (
            dict(solver="sgd", learning_rate="adaptive", tol=10, n_iter_no_change=2),
            [1e-3] * 4 + [2e-4] * 3 + [4e-5] * 2,
        ),
    ],
    ids=["step", "invscaling", "adaptive"],
)
def test_it_has_the_rate_of_each_epoch_its_loss_and_seconds(params, rates):
    history = History()
    model = make_pipeline(StandardScaler(), MLPClassifier(**SETTINGS, **params))
    model.set_callbacks(history).fit(X, Y)
    table = {name: [row[name] for row in history.epochs] for name in history.epochs[0]}
    assert table["epoch"] == list(range(1, 10))
    assert table["learning_rate"] == pytest.approx(rates)
    assert table["loss"] == model[-1].loss_curve_
    assert min(table["seconds"]) > 0
    assert list(table) == ["epoch", "loss", "learning_rate", "seconds"]


def test_it_has_the_validation():
    history = History()
    model = MLPRegressor(**SETTINGS, early_stopping=True).set_callbacks(history)
    for _ in range(2):  # the last fit alone
        model.fit(X, X[:, 20])
    assert [row["validation_loss"] for row in history.epochs] == model.validation_loss_curve_
    assert [row["validation_score"] for row in history.epochs] == model.validation_scores_
    assert [row["loss"] for row in history.epochs] == model.loss_curve_


def test_it_has_the_iterations_of_lbfgs():
    history = History()
    model = MLPRegressor(**SETTINGS, solver="lbfgs").set_callbacks(history).fit(X, X[:, 20])
    assert [row["epoch"] for row in history.epochs] == list(range(1, model.n_iter_ + 1))
    assert history.epochs[-1]["loss"] == model.loss_
    assert list(history.epochs[0]) == ["epoch", "loss", "seconds"]


def test_callbacks_change_nothing_and_can_be_pickled(path):
    callbacks = Checkpoint(path), History(), ReduceOnPlateau(patience=100)
    model = MLPClassifier(**SETTINGS).set_callbacks(*callbacks).fit(X, Y)
    assert same(model, MLPClassifier(**SETTINGS).fit(X, Y))
    assert same(pickle.loads(pickle.dumps(model)), model)
