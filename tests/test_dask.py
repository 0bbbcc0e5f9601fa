"""A fit to a Dask array is one machine's, on any number of workers, and outlives them."""

import contextlib
import functools
import logging
import os
import pickle
import signal

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from dask.distributed import Client
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.model_selection import GridSearchCV

import fastnn
import fastnn.dask
from fastnn._dask_examples import Rows
from fastnn._threads import choose_n_threads

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Sending large graph"),
]

X, Y = make_classification(
    600, 12, n_informative=6, n_classes=3, random_state=0, scale=3.0, shift=2.0
)
WEIGHT = np.random.RandomState(1).exponential(size=len(X))
WEIGHT[:150] = 0  # all of the first partition, and mini-batches without any
X_REAL, Y_REAL = load_diabetes(return_X_y=True)

CLASSIFIER = {
    "adam": dict(batch_size=64),
    "clipped": dict(solver="sgd", clip_norm=0.1, learning_rate="invscaling", shuffle=False),
    "early stopping": dict(
        early_stopping=True, n_iter_no_change=2, class_weight="balanced", standardize=True, tol=0.01
    ),
    "average": dict(solver="adamw", weight_average=3, hidden_layer_sizes=(9, 8), activation="tanh"),
    "full": dict(solver="nadam", batch_size="full", label_smoothing=0.1),
    "lbfgs": dict(solver="lbfgs", standardize=True),
}


def on_dask(array, size=150):
    chunks = (size, -1) if array.ndim == 2 else size
    return da.from_array(array, chunks=chunks)


@contextlib.contextmanager
def cluster(n_workers, **more):
    """A client of workers of one thread each; in this process unless ``processes`` says so."""
    settings = dict(threads_per_worker=1, processes=False, dashboard_address=":0") | more
    settings["silence_logs"] = logging.CRITICAL
    with Client(n_workers=n_workers, direct_to_workers=True, **settings) as client:
        yield client


@pytest.fixture(scope="module")
def processes():
    with cluster(2, processes=True) as client:
        yield client


@pytest.fixture(scope="module", params=[1, 2, 4])
def workers(request):
    if request.param == 2:
        yield request.getfixturevalue("processes")
    else:
        with cluster(request.param) as client:
            yield client


@pytest.fixture
def client(processes):
    with processes.as_current():
        yield processes


def assert_same(remote, local, tolerance=1e-8):
    for name in ("coefs_", "intercepts_"):
        for mine, other in zip(getattr(remote, name), getattr(local, name), strict=True):
            np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_", "n_iter_", "t_"):
        mine, other = getattr(remote, name, None), getattr(local, name, None)
        assert (mine is None) == (other is None), name
        if other is not None:
            np.testing.assert_allclose(mine, other, rtol=tolerance, err_msg=name)
    assert remote.stop_reason_ == local.stop_reason_


@pytest.mark.parametrize("name", CLASSIFIER)
def test_a_classifier_is_that_of_one_process(workers, name):
    settings = dict(max_iter=5, random_state=0) | CLASSIFIER[name]
    with workers.as_current():
        remote = fastnn.dask.MLPClassifier(**settings)
        remote.fit(on_dask(X), on_dask(Y), on_dask(WEIGHT))
    assert_same(remote, fastnn.MLPClassifier(**settings).fit(X, Y, WEIGHT))


def test_a_regressor_is_that_of_one_process(workers):
    settings = dict(max_iter=5, random_state=0, loss="huber", scoring="r2", early_stopping=True)
    settings |= dict(standardize=True, standardize_target=True)
    train, held = slice(0, 350), slice(350, None)
    validation = dict(X_val=X_REAL[held], y_val=Y_REAL[held])
    with workers.as_current():
        remote = fastnn.dask.MLPRegressor(**settings).fit(
            on_dask(X_REAL[train], 60),
            on_dask(Y_REAL[train], 60),
            **{name: on_dask(array, 30) for name, array in validation.items()},
        )
        score = remote.score(on_dask(X_REAL, 60), on_dask(Y_REAL, 60))
    local = fastnn.MLPRegressor(**settings).fit(X_REAL[train], Y_REAL[train], **validation)
    assert_same(remote, local)
    assert score == pytest.approx(local.score(X_REAL, Y_REAL))


def test_validation_examples_in_batches_are_read_by_this_process(workers):
    settings = dict(early_stopping=True, max_iter=5, random_state=0, standardize=True)
    held = slice(400, None)
    parts = [(X[400:450], Y[400:450], 1 + WEIGHT[400:450]), (X[450:], Y[450:], 1 + WEIGHT[450:])]
    with workers.as_current():
        remote = fastnn.dask.MLPClassifier(**settings)
        remote.fit(on_dask(X[:400], 80), on_dask(Y[:400], 80), X_val=fastnn.Stream(parts))
    validation = dict(X_val=X[held], y_val=Y[held], sample_weight_val=1 + WEIGHT[held])
    assert_same(remote, fastnn.MLPClassifier(**settings).fit(X[:400], Y[:400], **validation))


def test_float32_stays_float32(client):
    settings = dict(max_iter=3, random_state=0)
    X32 = X.astype(np.float32)
    remote = fastnn.dask.MLPClassifier(**settings).fit(on_dask(X32), on_dask(Y))
    assert remote.coefs_[0].dtype == np.float32
    assert_same(remote, fastnn.MLPClassifier(**settings).fit(X32, Y), 1e-4)


def test_several_threads_of_a_worker_change_no_bit():
    settings = dict(max_iter=2, random_state=0, hidden_layer_sizes=(300, 300), batch_size=300)
    fits = []
    for n_threads in (1, 2):
        with cluster(1, threads_per_worker=2):
            remote = fastnn.dask.MLPClassifier(n_threads=n_threads, **settings)
            fits.append(remote.fit(on_dask(X), on_dask(Y)))
    assert_same(*fits, tolerance=0)


def test_dropout_is_the_same_each_time_and_not_in_all_workers_the_same(client):
    remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0, dropout=0.5)
    once = clone(remote).fit(on_dask(X), on_dask(Y))
    assert_same(clone(remote).fit(on_dask(X), on_dask(Y)), once, tolerance=0)
    # Twice the same examples would have twice the same gradient.
    X_twice, y_twice = on_dask(np.concatenate([X, X]), 600), on_dask(np.concatenate([Y, Y]), 600)
    remote.set_params(batch_size="full", solver="sgd").fit(X_twice, y_twice)
    alone = clone(remote).fit(on_dask(X, 600), on_dask(Y, 600))
    assert not np.allclose(remote.coefs_[0], alone.coefs_[0])


def test_a_dataframe_has_names_and_partitions_of_unknown_length(client):
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    frame["y"] = np.array(["a", "b", "c"])[Y]
    table = dd.from_pandas(frame, npartitions=5)
    table = table[table["x0"] > -1]  # of unknown length
    first = table.partitions[0]
    table = dd.concat([table, first[first["x0"] < -1]])  # and one without rows
    features = table.drop(columns="y")
    remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(features, table["y"])
    kept = frame[frame["x0"] > -1]
    names = kept.drop(columns="y")
    local = fastnn.MLPClassifier(max_iter=3, random_state=0).fit(names, kept["y"])
    assert_same(remote, local)
    assert remote.feature_names_in_.tolist() == names.columns.tolist()
    assert np.array_equal(remote.predict(features).compute(), local.predict(names))
    assert remote.score(features, table["y"]) == local.score(names, kept["y"])
    with pytest.raises(ValueError, match="feature names"):
        remote.set_params(warm_start=True).fit(features.rename(columns={"x0": "z"}), table["y"])


def test_the_partitions_make_no_difference(client):
    local = fastnn.MLPClassifier(max_iter=3, random_state=0, batch_size=64).fit(X, Y)
    frame = dd.from_pandas(pd.DataFrame(X), npartitions=4)
    halves = [on_dask(X[:300].astype(np.float32)), on_dask(X[300:])]
    in_float32 = np.concatenate([X[:300].astype(np.float32), X[300:]])
    for examples, expected in [
        (on_dask(X, 600), local),
        (da.from_array(X, chunks=((0, 1, 2, 500, 0, 97), 12)), local),
        (da.from_array(X, chunks=(150, 5)), local),
        (frame.values, local),  # of unknown length
        (da.concatenate(halves), clone(local).fit(in_float32, Y)),
    ]:
        rows = (150,) * 4 if np.isnan(examples.chunks[0]).any() else examples.chunks[0]
        y = da.from_array(Y, chunks=(rows,))
        remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0, batch_size=64)
        assert_same(remote.fit(examples, y), expected)
        probability = remote.predict_proba(examples).compute()
        np.testing.assert_allclose(probability, expected.predict_proba(X), rtol=1e-4, atol=1e-6)


def test_a_class_may_be_missing_in_a_partition(client):
    order = np.argsort(Y, kind="stable")
    remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0)
    remote.fit(on_dask(X[order]), on_dask(Y[order]))
    assert_same(remote, fastnn.MLPClassifier(max_iter=3, random_state=0).fit(X[order], Y[order]))


@pytest.mark.parametrize("batch_size", [64, "full"])
def test_weights_of_a_group_may_cancel(client, batch_size):
    weight = np.where(np.arange(len(X)) % 2, 1.0, -1.0)
    weight[300:] = 2.0
    settings = dict(max_iter=3, random_state=0, batch_size=batch_size)
    remote = fastnn.dask.MLPClassifier(**settings).fit(on_dask(X), on_dask(Y), on_dask(weight))
    assert_same(remote, fastnn.MLPClassifier(**settings).fit(X, Y, weight))


def test_predictions_are_lazy_and_those_of_the_local_estimator(client):
    remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(on_dask(X), on_dask(Y))
    local = remote.to_local()
    assert type(local) is fastnn.MLPClassifier
    assert b"dask" not in pickle.dumps(local)
    for name in ("predict", "predict_proba", "predict_log_proba"):
        expected = getattr(local, name)(X)
        lazy = getattr(remote, name)(on_dask(X))
        assert isinstance(lazy, da.Array)
        assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(lazy.compute(), expected)
        assert np.array_equal(getattr(remote, name)(X), expected)  # what is here is predicted here


def test_what_is_no_dask_collection_is_fitted_here():
    remote = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(X, Y)
    assert_same(remote, fastnn.MLPClassifier(max_iter=3, random_state=0).fit(X, Y), 0)


def test_warm_start_and_partial_fit_go_on(client):
    remote = fastnn.dask.MLPClassifier(max_iter=2, random_state=0, warm_start=True)
    local = fastnn.MLPClassifier(max_iter=2, random_state=0, warm_start=True)
    for _ in range(2):
        remote.fit(on_dask(X), on_dask(Y))
        local.fit(X, Y)
    remote.partial_fit(on_dask(X), on_dask(Y))
    local.partial_fit(X, Y)
    assert_same(remote, local)


def in_the_middle(monkeypatch, step, act):
    """Call ``act()`` before step number ``step`` of the next fit."""
    steps, gradient = [], Rows.gradient

    def acting(*arguments):
        steps.append(len(steps))
        if len(steps) == step:
            act()
        return gradient(*arguments)

    monkeypatch.setattr(Rows, "gradient", acting)
    return steps


@pytest.mark.parametrize("solver", ["adam", pytest.param("lbfgs", marks=pytest.mark.nightly)])
def test_a_worker_that_dies_in_the_middle_of_an_epoch_changes_nothing(monkeypatch, solver):
    remote = fastnn.dask.MLPClassifier(
        solver=solver, max_iter=4, batch_size=90, random_state=0, early_stopping=True
    )
    with cluster(2, processes=True) as client:
        expected = clone(remote).fit(on_dask(X), on_dask(Y))
        victim, process = sorted(client.run(os.getpid).items())[0]
        kill = functools.partial(os.kill, process, signal.SIGKILL)
        steps = in_the_middle(monkeypatch, 9 if solver == "adam" else 5, kill)
        remote.fit(on_dask(X), on_dask(Y))
        assert victim not in client.nthreads()
    assert len(steps) == (4 * 6 if solver == "adam" else len(steps))  # none was made twice
    assert_same(remote, expected, tolerance=0)


@pytest.mark.nightly  # starting workers takes long
def test_workers_that_are_restarted_in_the_middle_of_an_epoch_change_nothing(monkeypatch):
    remote = fastnn.dask.MLPClassifier(max_iter=3, batch_size=100, random_state=0)
    with cluster(2, processes=True) as client:
        expected = clone(remote).fit(on_dask(X), on_dask(Y))
        in_the_middle(monkeypatch, 9, client.restart)
        remote.fit(on_dask(X), on_dask(Y))
    assert_same(remote, expected, tolerance=0)


def test_a_group_that_kills_its_workers_is_an_error(client, monkeypatch):
    model = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(on_dask(X), on_dask(Y))
    before = vars(model).copy()
    ask = Rows._ask

    def fails(rows, method, arguments):
        if method == "gradient":
            rows._lost.update(arguments)
            return {}
        return ask(rows, method, arguments)

    monkeypatch.setattr(Rows, "_ask", fails)
    with pytest.raises(RuntimeError, match="lost 4 times in one step"):
        model.fit(on_dask(X), on_dask(Y))
    assert vars(model) == before


def test_ctrl_c_ends_a_fit_with_the_weights_of_the_last_step(client, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    in_the_middle(monkeypatch, 8, interrupt)
    model = fastnn.dask.MLPClassifier(random_state=0)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(on_dask(X), on_dask(Y))
    local = fastnn.MLPClassifier(random_state=0, max_iter=3).fit(X, Y)
    assert model.n_iter_ == 2
    assert model.loss_curve_ == pytest.approx(local.loss_curve_[:2])


def test_callbacks_see_each_epoch_and_their_checkpoints_go_on(client, after_epochs):
    pytest.importorskip("sklearn.callback")
    kept = []
    model = fastnn.dask.MLPClassifier(max_iter=4, random_state=0)
    keep = after_epochs(lambda _, fitted: kept.append(pickle.dumps(fitted.set_callbacks())))
    model.set_callbacks(keep).fit(on_dask(X), on_dask(Y))
    assert len(kept) == 4
    halfway = pickle.loads(kept[1]).set_params(warm_start=True)
    assert halfway.n_iter_ == 2
    assert_same(halfway.fit(on_dask(X), on_dask(Y)), model, tolerance=0)
    assert halfway.n_iter_ == 4


def broken(name):
    """Arrays of which partition 2 is bad, and what the error says."""
    X_bad, y_bad, weight_bad = X.copy(), np.array(["a", "b", "c"], object)[Y], WEIGHT.copy()
    if name == "X":
        X_bad[310, 3] = np.nan
        return X_bad, Y, None, "Partition 2 .*X contains NaN"
    if name == "y":
        y_bad[310] = None
        return X, y_bad, None, "Partition 2 .*y contains NaN or None in place of a label"
    if name == "weight":
        weight_bad[310] = np.inf
        return X, Y, weight_bad, "Partition 2 .*sample_weight contains infinity"
    if name == "times":
        X_bad = X_bad.astype("M8[s]")
        return X_bad, Y, None, r"Partition \d .*X must be numbers, but is of type"
    return X, Y[:-1], None, "Partition 3 .*inconsistent numbers of samples"


@pytest.mark.parametrize("name", ["X", "y", "weight", "times", "length"])
def test_an_error_names_the_partition_and_leaves_the_estimator_as_it_was(client, name):
    model = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(on_dask(X), on_dask(Y))
    before = vars(model).copy()
    *arrays, message = broken(name)
    arrays = [None if array is None else on_dask(array) for array in arrays]
    with pytest.raises(ValueError, match=message):
        model.fit(*arrays)
    assert vars(model) == before


def test_categories_are_the_error_that_they_are_on_one_machine(client):
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    frame["c"] = pd.Categorical(np.array(["a", "b", "c"])[Y])
    with pytest.raises(ValueError) as local:
        fastnn.MLPClassifier().fit(frame[:150], Y[:150])
    with pytest.raises(ValueError, match="Partition 0 of X, y or sample_weight: ") as remote:
        fastnn.dask.MLPClassifier().fit(dd.from_pandas(frame, npartitions=1), on_dask(Y, 600))
    assert str(remote.value).endswith(str(local.value))


def test_sparse_blocks_and_weights_without_rows_name_their_partition(client):
    model = fastnn.dask.MLPClassifier(max_iter=3)
    sparse = on_dask(X).map_blocks(sp.csr_array, dtype=float)
    with pytest.raises(TypeError, match=r"Partition \d of .* It is sparse"):
        model.fit(sparse, on_dask(Y))
    rows, shifted = ((0, 300, 300),), ((10, 290, 300),)
    X_parts, y_parts = da.from_array(X, chunks=(*rows, 12)), da.from_array(Y, chunks=rows)
    # Two do not fit, and one of them is looked at first.
    wrong = r"Partition (0 of .* 0 sample|1 of .* expected \(300,\))"
    with pytest.raises(ValueError, match=wrong):
        model.fit(X_parts, y_parts, da.from_array(WEIGHT, chunks=shifted))


def test_what_does_not_go_together_is_an_error(client):
    model = fastnn.dask.MLPClassifier(max_iter=3, random_state=0)
    with pytest.raises(TypeError, match="y must be a Dask array or dataframe"):
        model.fit(on_dask(X), Y)
    with pytest.raises(ValueError, match="must have the same partitions, but have 4, 6"):
        model.fit(on_dask(X), on_dask(Y, 100))
    with pytest.raises(ValueError, match="two dimensions"):
        model.fit(on_dask(Y), on_dask(Y))
    with pytest.raises(ValueError, match="no rows in any of its partitions"):
        model.fit(da.zeros((0, 12)), da.zeros(0))
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(on_dask(X), None)
    for other in (dask.delayed(X), dask.bag.from_sequence([1, 2])):
        with pytest.raises(TypeError, match="X must be an array or a dataframe"):
            model.fit(other, on_dask(Y))
        with pytest.raises(TypeError, match="y must be a Dask array or dataframe"):
            model.fit(on_dask(X), other)
    with pytest.raises(ValueError, match="needs X_val and y_val"):
        clone(model).set_params(early_stopping=True, scoring="f1_macro").fit(on_dask(X), on_dask(Y))
    with pytest.raises(ValueError, match="diverged"):
        clone(model).set_params(solver="sgd", learning_rate_init=1e300).fit(on_dask(X), on_dask(Y))


def test_only_examples_in_rows_are_predicted(client):
    model = fastnn.dask.MLPClassifier(max_iter=3, random_state=0).fit(on_dask(X), on_dask(Y))
    with pytest.raises(ValueError, match="two dimensions"):
        model.predict(on_dask(Y))
    with pytest.raises(TypeError, match="X must be an array or a dataframe"):
        model.predict(dask.delayed(X))
    with pytest.raises(ValueError, match="has 3 features"):
        model.predict(on_dask(X[:, :3])).compute()


def test_searches_run_on_workers_with_one_thread_each(client, monkeypatch):
    X_iris, y_iris = load_iris(return_X_y=True)
    scattered, scatter = [], Client.scatter

    def noting(client, data, *arguments, **more):
        scattered.extend(data)
        return scatter(client, data, *arguments, **more)

    monkeypatch.setattr(Client, "scatter", noting)
    search = GridSearchCV(
        fastnn.MLPClassifier(max_iter=20, random_state=0), {"alpha": [1e-4, 1.0]}, cv=2
    )
    expected = clone(search).fit(X_iris, y_iris).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend="dask", scatter=[X_iris, y_iris]):
        search.fit(X_iris, y_iris)
    assert np.array_equal(search.cv_results_["mean_test_score"], expected)
    for array in (X_iris, y_iris):  # once for all fits
        assert sum(np.shape(a) == array.shape for a in scattered) == 1
    # A network that is worth many threads, in a task.
    assert client.submit(choose_n_threads, None, 1e12).result() == 1
