"""What scikit-learn expects of an estimator, and what fastnn promises beyond its MLPs."""

import _thread
import copy
import inspect
import itertools
import pickle
import threading
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import neural_network as sk
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_iris, make_multilabel_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastnn import MLPClassifier, MLPRegressor, _network, warmup

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X_IRIS, Y_IRIS = load_iris(return_X_y=True)
ESTIMATORS = [MLPClassifier, MLPRegressor]


@parametrize_with_checks([MLPClassifier(max_iter=30), MLPRegressor(max_iter=30)])
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("ours", ESTIMATORS)
def test_signatures_are_those_of_sklearn(ours):
    theirs = getattr(sk, ours.__name__)
    for method in ["__init__", "fit", "partial_fit", "predict", "score"]:
        mine = dict(inspect.signature(getattr(ours, method)).parameters)
        expected = inspect.signature(getattr(theirs, method)).parameters
        # What fastnn adds comes after, by keyword only.
        assert [name for name in mine if name in expected] == list(expected)
        added = [parameter for name, parameter in mine.items() if name not in expected]
        assert all(parameter.kind == inspect.Parameter.KEYWORD_ONLY for parameter in added)
        for name, parameter in expected.items():
            if (method, name) != ("fit", "y"):  # which a stream brings along
                assert mine[name].default == parameter.default
            assert mine[name].kind == parameter.kind


@pytest.mark.parametrize("ours", ESTIMATORS)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_fitted_attributes_are_those_of_sklearn(ours, solver, early_stopping):
    settings = dict(solver=solver, early_stopping=early_stopping, max_iter=3, random_state=0)
    mine = ours(**settings).fit(X_IRIS, Y_IRIS)
    theirs = getattr(sk, ours.__name__)(**settings).fit(X_IRIS, Y_IRIS)

    def public(estimator):
        return {n for n in vars(estimator) if n.endswith("_") and not n.startswith("_")}

    if solver != "lbfgs":  # what fastnn adds
        assert (vars(mine).pop("validation_loss_curve_") is None) == (not early_stopping)
        assert (vars(mine).pop("best_epoch_") is None) == (not early_stopping)
    assert vars(mine).pop("stop_reason_") == "max_iter"
    assert public(mine) == public(theirs)
    for name in public(mine):
        a, b = getattr(mine, name), getattr(theirs, name)
        assert (a is None) == (b is None), name
        assert np.shape(a if not isinstance(a, list) else len(a)) == np.shape(
            b if not isinstance(b, list) else len(b)
        ), name


def test_grid_search_with_processes_equals_sklearn():
    results = []
    for estimator in (MLPClassifier, sk.MLPClassifier):
        pipeline = Pipeline(
            [("scale", StandardScaler()), ("mlp", estimator(max_iter=50, random_state=0))]
        )
        grid = {"mlp__hidden_layer_sizes": [(5,), (10, 5)], "mlp__alpha": [0, 0.1]}
        search = GridSearchCV(pipeline, grid, n_jobs=2, cv=3).fit(X_IRIS, Y_IRIS)
        results.append(search.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*results)


def test_cross_val_score_equals_sklearn():
    settings = dict(max_iter=30, random_state=0)
    mine = cross_val_score(MLPClassifier(**settings), X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(
        mine, cross_val_score(sk.MLPClassifier(**settings), X_IRIS, Y_IRIS)
    )


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_copy_goes_on_training_as_the_original(copy_of, solver):
    original = MLPClassifier(solver=solver, random_state=0).partial_fit(
        X_IRIS, Y_IRIS, classes=[0, 1, 2]
    )
    other = copy_of(original)
    for estimator in (original, other):
        estimator.partial_fit(X_IRIS, Y_IRIS)
    for a, b in zip(original.coefs_, other.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pickle_holds_the_weights_once(tmp_path):
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier((200,), max_iter=1, random_state=0).fit(X, y)
    weights = sum(a.nbytes for a in model.coefs_ + model.intercepts_)
    joblib.dump(model, tmp_path / "model")
    # The weights, and Adam's two moments.
    assert (tmp_path / "model").stat().st_size < 3.1 * weights
    loaded = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_weights_given_by_hand_are_used():
    model = MLPRegressor(
        hidden_layer_sizes=(2,), activation="identity", max_iter=1, random_state=0
    ).fit([[0.0], [1.0]], [0, 1])
    model.coefs_ = [np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])]
    model.intercepts_ = [np.array([0.5, 0.25]), np.array([1.0])]
    np.testing.assert_allclose(model.predict([[2.0]]), [3 * 2.5 + 4 * 4.25 + 1])
    model.coefs_[0][0, 0] = 0.0
    np.testing.assert_allclose(model.predict([[2.0]]), [3 * 0.5 + 4 * 4.25 + 1])


def logits(model, X):
    """Of a network of ReLUs, by NumPy."""
    for W, b in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
        X = np.maximum(X @ W + b, 0)
    return X @ model.coefs_[-1] + model.intercepts_[-1]


@pytest.mark.parametrize("n_rows", [1, 2, 300])
@pytest.mark.parametrize("n_outputs", [1, 2, 10])
@pytest.mark.parametrize("hidden", [(), (30,), (7, 1, 9)])
def test_weights_that_change_in_place_change_the_next_prediction(hidden, n_outputs, n_rows):
    """What a prediction keeps for the next is nothing that depends on them."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 4)), rng.standard_normal((300, n_outputs))
    X = abs(X)  # and positive weights: no unit is off
    model = MLPRegressor(hidden_layer_sizes=hidden, max_iter=2, random_state=0)
    model.fit(X, y.squeeze())
    X = X[:n_rows]
    for array in [*model.coefs_, *model.intercepts_]:
        array[...] = abs(array)

    def check():
        expected = logits(model, X)
        found = model.predict(X).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
        return found

    before = check()
    for arrays in (model.coefs_, model.intercepts_):
        for i in range(len(arrays)):
            arrays[i] += 0.5  # in place
            assert not np.array_equal(check(), before)
            arrays[i] = given = arrays[i] + 0.5  # another array in its place
            check()
            given += 0.5
            before = check()
    model.coefs_, model.intercepts_ = model.coefs_[:], [b * 2 for b in model.intercepts_]
    check()
    if hidden:
        model.activation = "tanh"
        assert not np.allclose(model.predict(X).ravel(), logits(model, X).ravel())


def test_a_prediction_leaves_nothing_on_the_estimator():
    model = MLPClassifier((5,), max_iter=2, random_state=0).fit(X_IRIS, Y_IRIS)
    attributes, saved = dict(vars(model)), pickle.dumps(model)
    for rows in (X_IRIS[:1], X_IRIS, X_IRIS[:1].astype(np.float32)):
        model.predict_proba(rows)
    assert vars(model) == attributes and pickle.dumps(model) == saved
    deep = copy.deepcopy(model)
    deep.coefs_[0][...] = 0
    assert not np.array_equal(deep.predict_proba(X_IRIS[:1]), model.predict_proba(X_IRIS[:1]))


@pytest.mark.parametrize("shape", [(5, 100_000, 1), (3, 20_000, 20)])
def test_the_scratch_of_a_large_prediction_is_not_kept(shape):
    model = MLPRegressor.from_weights(
        [np.zeros(pair) for pair in itertools.pairwise(shape)], [np.zeros(n) for n in shape[1:]]
    )
    for n_rows in (1, 2, 300):
        model.predict(np.zeros((n_rows, shape[0])))
        _, work = _network._kept.scratch
        assert work is None or sum(a.nbytes for a in work if hasattr(a, "nbytes")) < 2**19


@pytest.mark.parametrize("ours", ESTIMATORS)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_float32_all_the_way(ours, solver):
    X = X_IRIS.astype(np.float32)
    weight = np.linspace(1, 2, len(X))
    model = ours(solver=solver, max_iter=5, random_state=0).fit(X, Y_IRIS, sample_weight=weight)
    assert {a.dtype for a in model.coefs_ + model.intercepts_} == {np.dtype(np.float32)}
    output = model.predict(X) if ours is MLPRegressor else model.predict_proba(X)
    assert output.dtype == np.float32
    # and it stays close to float64
    wide = ours(solver=solver, max_iter=5, random_state=0).fit(X_IRIS, Y_IRIS, sample_weight=weight)
    np.testing.assert_allclose(model.coefs_[0], wide.coefs_[0], atol=2e-2)


@pytest.mark.parametrize("container", [sp.csr_array, sp.csc_array, sp.csr_matrix, sp.coo_array])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sparse_equals_dense(container, early_stopping):
    X, y = load_digits(return_X_y=True)
    X = X[:300] / 16
    y = y[:300]
    settings = dict(max_iter=5, random_state=0, early_stopping=early_stopping)
    dense = MLPClassifier(**settings).fit(X, y)
    sparse = MLPClassifier(**settings).fit(container(X), y)
    np.testing.assert_allclose(dense.coefs_[0], sparse.coefs_[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        dense.predict_proba(X), sparse.predict_proba(container(X)), rtol=1e-9
    )


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor])
def test_lazy_updates_learn_what_exact_ones_do(make):
    X, y = load_digits(return_X_y=True)
    X = sp.csr_array(X / 16)
    settings = dict(max_iter=30, batch_size=32, random_state=0)
    exact, lazy = (make(lazy_update=lazy, **settings).fit(X, y) for lazy in (False, True))
    assert abs(lazy.score(X, y) - exact.score(X, y)) < 0.01
    assert (exact.coefs_[0] != lazy.coefs_[0]).any()


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_lazy_updates_of_dense_examples_are_an_error(method):
    model = MLPClassifier(max_iter=2, lazy_update=True)
    with pytest.raises(ValueError, match="lazy_update=True is for sparse X, but X is dense"):
        getattr(model, method)(X_IRIS, Y_IRIS, **({"classes": [0, 1, 2]} if "p" in method else {}))
    assert not hasattr(model, "coefs_")
    with pytest.raises(ValueError, match="lazy_update=True is for mini-batches"):
        model.set_params(solver="lbfgs").fit(sp.csr_array(X_IRIS), Y_IRIS)


def test_sparse_with_unsorted_and_duplicate_indices_is_left_alone():
    X = sp.csr_array(
        (np.array([1.0, 2.0, 3.0, 4.0]), np.array([2, 0, 1, 1]), np.array([0, 2, 4])), shape=(2, 3)
    )
    before = X.indices.copy()
    a = MLPRegressor(max_iter=2, random_state=0).fit(X, [0.0, 1.0])
    b = MLPRegressor(max_iter=2, random_state=0).fit(X.toarray(), [0.0, 1.0])
    np.testing.assert_allclose(a.coefs_[0], b.coefs_[0], rtol=1e-12)
    np.testing.assert_array_equal(X.indices, before)


def test_inputs_of_any_memory_layout():
    X = X_IRIS
    readonly = X.copy()
    readonly.flags.writeable = False
    wide = np.zeros((len(X), 8))
    wide[:, ::2] = X
    unaligned = np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(np.float64).reshape(X.shape)
    variants = [
        np.asfortranarray(X),
        readonly,
        wide[:, ::2],
        X.astype(">f8"),
        unaligned,
        X.tolist(),
        pd.DataFrame(X),
    ]
    expected = MLPRegressor(max_iter=2, random_state=0).fit(X, Y_IRIS)
    for variant in variants:
        model = MLPRegressor(max_iter=2, random_state=0).fit(variant, Y_IRIS)
        np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])
        np.testing.assert_array_equal(model.predict(variant), expected.predict(X))


def test_memory_map_is_not_copied_or_written(tmp_path):
    np.save(tmp_path / "X.npy", X_IRIS)
    X = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = MLPRegressor(max_iter=2, random_state=0).fit(X, Y_IRIS)
    expected = MLPRegressor(max_iter=2, random_state=0).fit(X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(model.coefs_[0], expected.coefs_[0])


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [False, True], [-1, 1], ["a", "b", "c"]])
def test_labels_come_back_as_given(labels):
    y = np.array(labels)[Y_IRIS % len(labels)]
    model = MLPClassifier(max_iter=3, random_state=0).fit(X_IRIS, y)
    theirs = sk.MLPClassifier(max_iter=3, random_state=0).fit(X_IRIS, y)
    np.testing.assert_array_equal(model.predict(X_IRIS), theirs.predict(X_IRIS))
    assert model.predict(X_IRIS).dtype == theirs.predict(X_IRIS).dtype
    np.testing.assert_array_equal(model.classes_, theirs.classes_)


def test_one_class():
    model = MLPClassifier(max_iter=2).fit(X_IRIS, ["only"] * 150)
    assert set(model.predict(X_IRIS)) == {"only"}


def test_multilabel_sparse_target():
    X, Y = make_multilabel_classification(n_samples=60, random_state=0)
    a = MLPClassifier(max_iter=5, random_state=0).fit(X, Y)
    b = MLPClassifier(max_iter=5, random_state=0).fit(X, sp.csr_array(Y))
    np.testing.assert_array_equal(a.coefs_[0], b.coefs_[0])
    assert a.predict(X).shape == Y.shape


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_plain_array_to_predict_is_checked_too(dtype, value):
    """It takes a short way round scikit-learn's validation."""
    model = MLPClassifier(max_iter=2, random_state=0).fit(X_IRIS.astype(dtype), Y_IRIS)
    X = X_IRIS.astype(dtype)
    X[70, 2] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        model.predict(X)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4"):
        model.predict(X_IRIS[:, :3].astype(dtype))
    X[...] = np.finfo(dtype).max  # finite, but its sum is not
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X)


# --- where fastnn differs from scikit-learn on purpose ------------------------------------------


def test_a_batch_without_weight_is_skipped():
    """scikit-learn divides by the sum of the batch's weights: ZeroDivisionError."""
    weight = np.r_[np.zeros(20), np.ones(130)]
    settings = dict(batch_size=10, shuffle=False, max_iter=3, random_state=0)
    model = MLPClassifier(**settings).fit(X_IRIS, Y_IRIS, sample_weight=weight)
    without = MLPClassifier(**settings).fit(X_IRIS[20:], Y_IRIS[20:])
    np.testing.assert_allclose(model.coefs_[0], without.coefs_[0], rtol=1e-12)


def test_partial_fit_is_hidden_with_lbfgs():
    """In scikit-learn the regressor has it, and runs L-BFGS."""
    for ours in ESTIMATORS:
        assert not hasattr(ours(solver="lbfgs"), "partial_fit")
        assert hasattr(ours(), "partial_fit")


def test_nan_validation_score_counts_as_no_progress():
    """In scikit-learn it resets the patience, and a diverged fit goes on to max_iter."""
    model = MLPRegressor(
        activation="identity",
        solver="sgd",
        learning_rate_init=1,
        early_stopping=True,
        n_iter_no_change=3,
        max_iter=100,
        random_state=0,
    )
    model.fit(X_IRIS, Y_IRIS)
    assert np.isnan(model.validation_scores_[-1])
    assert model.n_iter_ < 100


def test_going_on_with_other_sizes_is_refused():
    model = MLPClassifier((5,), warm_start=True, max_iter=2).fit(X_IRIS, Y_IRIS)
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=\(7,\)"):
        model.set_params(hidden_layer_sizes=(7,)).fit(X_IRIS, Y_IRIS)


@pytest.mark.parametrize(
    "parameter, value",
    [
        ("alpha", -1),
        ("n_threads", 0),
        ("n_threads", 1.5),
        ("activation", "mish"),
        ("batch_size", 0),
        ("momentum", 1.1),
        ("max_iter", 0),
        ("hidden_layer_sizes", 0),
        ("hidden_layer_sizes", (5, -1)),
        ("tol", "small"),
        ("solver", None),
        ("random_state", np.random.default_rng(0)),
    ],
)
@pytest.mark.parametrize("ours", ESTIMATORS)
def test_bad_parameters_are_named(ours, parameter, value):
    with pytest.raises(ValueError, match=parameter) as mine:
        ours(**{parameter: value}).fit(X_IRIS, Y_IRIS)
    assert repr(value).split("(")[0] in str(mine.value)
    if parameter not in ("n_threads", "batch_size", "activation", "solver"):  # more is allowed here
        with pytest.raises(type(mine.value), match=parameter) as theirs:
            getattr(sk, ours.__name__)(**{parameter: value}).fit(X_IRIS, Y_IRIS)
        # The order within a set of options differs from process to process, even from set to set.
        assert sorted(str(mine.value)) == sorted(str(theirs.value))


def test_convergence_warning():
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPClassifier(max_iter=2).fit(X_IRIS, Y_IRIS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier(max_iter=2).partial_fit(X_IRIS, Y_IRIS, classes=[0, 1, 2])


def test_verbose_prints_what_sklearn_prints(capsys):
    for settings in [
        dict(solver="sgd", learning_rate="adaptive", tol=10, n_iter_no_change=1, max_iter=50),
        dict(early_stopping=True, tol=1, n_iter_no_change=2),
    ]:
        MLPClassifier(verbose=True, random_state=0, **settings).fit(X_IRIS, Y_IRIS)
        mine = capsys.readouterr().out
        sk.MLPClassifier(verbose=True, random_state=0, **settings).fit(X_IRIS, Y_IRIS)
        assert mine == capsys.readouterr().out


def test_ctrl_c_leaves_a_usable_estimator(n_helpers):
    X, y = load_diabetes(return_X_y=True)
    model = MLPRegressor(
        hidden_layer_sizes=(200, 200), max_iter=100_000, tol=0, n_iter_no_change=10**9, n_threads=2
    )
    timer = threading.Timer(0.5, _thread.interrupt_main)
    timer.start()
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    timer.join()
    assert model.n_iter_ < 100_000
    assert np.isfinite(model.predict(X)).all()
    assert n_helpers() == 0


def test_clone_and_not_fitted():
    model = clone(MLPClassifier(n_threads=2, alpha=3))
    assert model.get_params()["n_threads"] == 2
    with pytest.raises(Exception, match="not fitted"):
        model.predict(X_IRIS)


@pytest.mark.parametrize("first, then", [(np.float32, np.float64), (np.float64, np.float32)])
@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_training_goes_on_with_data_of_another_type(way, first, then):
    """float64 counted as no type at all, and float32 weights met float64 data in the kernel."""
    X = X_IRIS.astype(first), X_IRIS.astype(then)
    model = MLPClassifier(max_iter=3, random_state=0, warm_start=way == "warm_start")
    if way == "warm_start":
        model.fit(X[0], Y_IRIS).fit(X[1], Y_IRIS)
    else:
        model.partial_fit(X[0], Y_IRIS, classes=np.unique(Y_IRIS)).partial_fit(X[1], Y_IRIS)
    assert {W.dtype for W in model.coefs_} == {np.dtype(then)}
    assert np.isfinite(model.predict_proba(X[1])).all()


def test_kernels_of_one_type_are_made_ready_by_its_name():
    assert list(warmup("float64")) == ["float64"]
