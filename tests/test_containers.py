"""Tables and targets of any container: taken and given back as scikit-learn does, or refused."""

import datetime
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import sklearn.neural_network as sk

from fastnn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

rng = np.random.default_rng(0)
NAMES = ["a", "b", "c", "d"]
X = np.round(rng.standard_normal((40, 4)) * 8) / 8
Y = np.arange(40) % 3
L = (rng.random((40, 3)) < 0.5).astype(int)
Z = X @ [1.0, 2.0, -1.0, 0.5]
W = np.linspace(0.5, 1, 40)
SETTINGS = dict(hidden_layer_sizes=(3,), max_iter=2, random_state=0)
FRAME = pd.DataFrame(X, columns=NAMES)
TABLE = pa.table({name: X[:, j] for j, name in enumerate(NAMES)})


def weights(model):
    return np.concatenate([a.ravel() for a in [*model.coefs_, *model.intercepts_]])


def chunked(array):
    return pa.chunked_array([array[:7], array[7:]])


# --- X, y and weights of other libraries ---------------------------------------------------------

TABLES = {
    "pandas": (FRAME, pd.Series),
    "pandas on arrow": (
        FRAME.astype("float64[pyarrow]"),
        lambda y: pd.Series(y).convert_dtypes(dtype_backend="pyarrow"),
    ),
    "polars": (pl.DataFrame(X, schema=NAMES), pl.Series),
    "pyarrow Table": (TABLE, pa.array),
    "pyarrow RecordBatch": (TABLE.to_batches()[0], chunked),
}


@pytest.mark.parametrize("container", TABLES)
@pytest.mark.parametrize("make, y", [(MLPClassifier, Y), (MLPRegressor, Z)])
def test_a_table_is_the_array_with_names(container, make, y):
    """Those of pyarrow were an AttributeError."""
    table, series = TABLES[container]
    model, expected = make(**SETTINGS), make(**SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=sk._multilayer_perceptron.ConvergenceWarning)
        model.fit(table, series(y), series(W), X_val=table, y_val=series(y))
        model.partial_fit(table, series(y), series(W))
        predicted, score = model.predict(table), model.score(table, series(y), series(W))
    expected.fit(X, y, W, X_val=X, y_val=y).partial_fit(X, y, W)
    assert list(model.feature_names_in_) == NAMES
    np.testing.assert_array_equal(weights(model), weights(expected))
    assert model.validation_scores_ == expected.validation_scores_
    np.testing.assert_array_equal(predicted, expected.predict(X))
    assert score == pytest.approx(expected.score(X, y, W), rel=1e-12)
    if make is MLPClassifier:
        np.testing.assert_array_equal(model.predict_proba(table), expected.predict_proba(X))


@pytest.mark.parametrize("container", TABLES)
def test_a_part_of_a_table_is_set_aside_for_a_scorer(container):
    table, series = TABLES[container]
    settings = dict(**SETTINGS, early_stopping=True, scoring="accuracy")
    model, expected = MLPClassifier(**settings), MLPClassifier(**settings)
    model.fit(table, series(Y), series(W))
    expected.fit(X, Y, W)
    assert model.validation_scores_ == expected.validation_scores_


def test_batches_of_arrow_stream_into_partial_fit():
    """The loop over a Parquet file."""
    table = TABLE.append_column("y", pa.array(Y))
    model, expected = MLPClassifier(**SETTINGS), MLPClassifier(**SETTINGS)
    for batch in table.to_batches(max_chunksize=7):
        model.partial_fit(batch.select(NAMES), batch["y"], classes=pa.array([0, 1, 2]))
    for first in range(0, 40, 7):
        part = slice(first, first + 7)
        expected.partial_fit(X[part], Y[part], classes=[0, 1, 2])
    np.testing.assert_array_equal(weights(model), weights(expected))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model.predict(TABLE), expected.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.partial_fit(batch.select(["b", "a", "c", "d"]), batch["y"])


@pytest.mark.parametrize("make", [pa.table, pa.record_batch, pl.DataFrame, pd.DataFrame])
def test_several_targets_in_a_table(make):
    targets = make({"p": Z, "q": -Z})
    expected = MLPRegressor(**SETTINGS).fit(X, np.column_stack([Z, -Z]))
    model = MLPRegressor(**SETTINGS).fit(X, targets)
    np.testing.assert_array_equal(weights(model), weights(expected))
    labels = make({name: L[:, j] for j, name in enumerate("pqr")})
    expected, model = MLPClassifier(**SETTINGS).fit(X, L), MLPClassifier(**SETTINGS).fit(X, labels)
    np.testing.assert_array_equal(weights(model), weights(expected))


# --- sparse columns of pandas --------------------------------------------------------------------

GROUPS = pd.DataFrame({"g": np.array(["u", "v", "w"])[Y], "h": np.array(["s", "t"])[Y % 2]})


@pytest.mark.parametrize("make, y", [(MLPClassifier, Y), (MLPRegressor, Z)])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, float])
def test_sparse_dummies_are_dummies(make, y, dtype):
    """Those of bool were trained as bool: 'the estimator is damaged'."""
    dense = pd.get_dummies(GROUPS, dtype=dtype)
    sparse = pd.get_dummies(GROUPS, dtype=dtype, sparse=True)
    expected = make(**SETTINGS).fit(sp.csr_array(dense.to_numpy(float)), y)
    model = make(**SETTINGS).fit(sparse, y, X_val=sparse, y_val=y)
    assert model.coefs_[0].dtype == np.float64
    assert list(model.feature_names_in_) == list(dense.columns)
    np.testing.assert_array_equal(weights(model), weights(expected))
    np.testing.assert_array_equal(model.predict(sparse), expected.predict(dense.to_numpy(float)))
    expected.partial_fit(sp.csr_array(dense.to_numpy(float)), y)
    np.testing.assert_array_equal(weights(model.partial_fit(sparse, y)), weights(expected))
    joined = FRAME.join(sparse)
    plain = FRAME.join(dense).to_numpy(float)
    found, expected = make(**SETTINGS).fit(joined, y), make(**SETTINGS).fit(plain, y)
    np.testing.assert_array_equal(found.predict(joined), expected.predict(plain))


SPARSE_TARGETS = {
    "sparse column": lambda y: pd.Series(y).astype(pd.SparseDtype(y.dtype, 0)),
    "sparse table": lambda y: pd.DataFrame({"y": y}).astype(pd.SparseDtype(y.dtype, 0)),
    "sparse matrix": lambda y: sp.csr_array(y[:, None]),
}


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("container", SPARSE_TARGETS)
@pytest.mark.parametrize("make, y", [(MLPClassifier, Y), (MLPRegressor, Z)])
def test_sparse_targets(container, make, y):
    expected, model = make(**SETTINGS).fit(X, y), make(**SETTINGS)
    given = SPARSE_TARGETS[container](y)
    model.fit(X, given, X_val=X, y_val=given)
    np.testing.assert_array_equal(weights(model), weights(expected))


def test_several_sparse_targets_are_those_of_sklearn():
    given = sp.csr_array(np.column_stack([Z, -Z]))
    expected = sk.MLPRegressor(**SETTINGS).fit(X, given)
    np.testing.assert_allclose(
        MLPRegressor(**SETTINGS).fit(X, given).predict(X), expected.predict(X), rtol=1e-9
    )
    frame = pd.DataFrame({"p": Z, "q": -Z}).astype(pd.SparseDtype(float, 0))
    np.testing.assert_allclose(
        MLPRegressor(**SETTINGS).fit(X, frame).predict(X), expected.predict(X), rtol=1e-9
    )


# --- what is no number ---------------------------------------------------------------------------

DAY = datetime.date(2020, 1, 2)
VALUES = {
    "dates": [DAY] * 40,
    "datetimes": [datetime.datetime(2020, 1, 2)] * 40,
    "durations": [datetime.timedelta(1)] * 40,
    "times": [datetime.time(1)] * 40,
    "text": ["x"] * 40,
    "text among numbers": ["1.5"] * 39 + ["x"],
}


def table_of_objects(values):
    table = X.astype(object)
    table[:, 1] = values
    return table


MAKERS = {
    "NumPy": table_of_objects,
    "list": lambda values: table_of_objects(values).tolist(),
    "pandas": lambda values: FRAME.assign(b=values),
    "pandas objects": lambda values: FRAME.assign(b=np.array(values, object)),
    "pandas categories": lambda values: FRAME.assign(b=pd.Categorical(values)),
    "pandas on arrow": lambda values: FRAME.assign(
        b=pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values)))
    ),
    "polars": lambda values: pl.DataFrame(X, schema=NAMES).with_columns(b=pl.Series(values)),
    "Table": lambda values: TABLE.set_column(1, "b", pa.array(values)),
    "RecordBatch": lambda values: TABLE.set_column(1, "b", pa.array(values)).to_batches()[0],
    "dictionary": lambda values: TABLE.set_column(1, "b", pa.array(values).dictionary_encode()),
}


@pytest.mark.parametrize("method", ["fit", "predict", "X_val"])
@pytest.mark.parametrize("container", MAKERS)
@pytest.mark.parametrize("what", VALUES)
def test_a_column_that_is_no_number_is_named(what, container, method):
    """polars' dates were trained on as numbers; of text the column was not named."""
    given = MAKERS[container](VALUES[what])
    name = 1 if container in ("NumPy", "list") else "b"
    model = MLPClassifier(**SETTINGS)
    with pytest.raises(ValueError, match=f"X must be numbers, but column {name!r} "):
        if method == "fit":
            model.fit(given, Y)
        elif method == "predict":
            model.fit(X if name == 1 else FRAME, Y).predict(given)
        else:
            model.fit(X if name == 1 else FRAME, Y, X_val=given, y_val=Y)


@pytest.mark.parametrize("values", [np.arange(40).astype("M8[D]"), np.arange(40).astype("m8[ms]")])
def test_dates_of_numpy_among_objects_are_named(values):
    with pytest.raises(ValueError, match="X must be numbers, but column 1 holds np"):
        MLPClassifier(**SETTINGS).fit(table_of_objects(list(values)), Y)
    for whole in (np.stack([values] * 4, 1), pl.DataFrame({"b": values}), pa.table({"b": values})):
        with pytest.raises(ValueError, match=r"X must be numbers, but (column 'b' )?is of type"):
            MLPClassifier(**SETTINGS).fit(whole, Y)


ONE_TARGET = {
    "NumPy": lambda values: np.array(values, object),
    "list": list,
    "pandas": lambda values: pd.Series(values),
    "pandas objects": lambda values: pd.Series(values, dtype=object),
    "pandas categories": lambda values: pd.Series(values).astype("category"),
    "pandas on arrow": lambda values: pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values))),
    "polars": lambda values: pl.Series(values),
    "pyarrow": pa.array,
    "pyarrow chunks": lambda values: pa.chunked_array([values]),
    "dictionary": lambda values: pa.array(values).dictionary_encode(),
}


@pytest.mark.parametrize("container", ONE_TARGET)
@pytest.mark.parametrize("what", VALUES)
def test_a_regression_target_that_is_no_number_is_named(what, container):
    given = ONE_TARGET[container](VALUES[what])
    with pytest.raises(ValueError, match="y must be numbers, but "):
        MLPRegressor(**SETTINGS).fit(X, given)
    with pytest.raises(ValueError, match="y must be numbers, but "):
        MLPRegressor(**SETTINGS).partial_fit(X, given)
    with pytest.raises(ValueError, match=r"y_val.*y must be numbers, but "):
        MLPRegressor(**SETTINGS).fit(X, Z, X_val=X, y_val=given)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
@pytest.mark.parametrize("what", VALUES)
def test_a_column_of_several_regression_targets_is_named(what, make):
    with pytest.raises(ValueError, match="y must be numbers, but column 'q' "):
        MLPRegressor(**SETTINGS).fit(X, make({"p": Z, "q": VALUES[what]}))


DIGITS = [repr(value) for value in Z.tolist()]


@pytest.mark.parametrize("container", ["NumPy text", *ONE_TARGET])
def test_text_that_reads_as_numbers_is_numbers(container):
    """scikit-learn takes it from some containers, so all may have it."""
    given = {**ONE_TARGET, "NumPy text": np.array}[container](DIGITS)
    expected = MLPRegressor(**SETTINGS).fit(X, Z)
    model = MLPRegressor(**SETTINGS).fit(X, given)
    np.testing.assert_array_equal(weights(model), weights(expected))
    if container in MAKERS:
        x = X.copy()
        x[:, 1] = Z
        given, expected = MAKERS[container](DIGITS), MLPClassifier(**SETTINGS).fit(x, Y)
        model = MLPClassifier(**SETTINGS).fit(given, Y)
        np.testing.assert_array_equal(model.predict_proba(given), expected.predict_proba(x))


# --- what predict returns ------------------------------------------------------------------------

TARGETS = {
    "int8": Y.astype(np.int8),
    "uint64": Y.astype(np.uint64),
    "big-endian": Y.astype(">i4"),
    "bool": Y > 0,
    "float64": Y * 1.0,
    "float32": Y.astype(np.float32),
    "float16": Y.astype(np.float16),
    "text": Y.astype(str),
    "text as objects": Y.astype(str).astype(object),
    "dates": Y.astype("M8[D]"),
    "durations": Y.astype("m8[s]"),
    "list": Y.tolist(),
    "list of bool": (Y > 0).tolist(),
    "list of text": Y.astype(str).tolist(),
    "tuple": tuple(Y.tolist()),
    "column": Y[:, None],
    "column of text": Y.astype(str)[:, None],
    "list of columns": Y[:, None].tolist(),
    "Series": pd.Series(Y),
    "Series of text": pd.Series(Y.astype(str)),
    "Series of objects": pd.Series(Y.astype(str), dtype=object),
    "Series of categories": pd.Series(Y.astype(str)).astype("category"),
    "Categorical": pd.Categorical(Y),
    "Int64": pd.Series(Y).astype("Int64"),
    "boolean": pd.Series(Y > 0).astype("boolean"),
    "string": pd.Series(Y.astype(str)).astype("string"),
    "int of arrow in pandas": pd.Series(Y).astype("int64[pyarrow]"),
    "sparse Series": pd.Series(pd.arrays.SparseArray(Y)),
    "DataFrame": pd.DataFrame({"y": Y}),
    "polars": pl.Series(Y),
    "polars text": pl.Series(Y.astype(str)),
    "polars bool": pl.Series(Y > 0),
    "polars categories": pl.Series(Y.astype(str)).cast(pl.Categorical),
    "polars DataFrame": pl.DataFrame({"y": Y}),
    "pyarrow": pa.array(Y),
    "pyarrow text": pa.array(Y.astype(str)),
    "pyarrow bool": pa.array(Y > 0),
    "pyarrow chunks": chunked(Y),
    "pyarrow Table": pa.table({"y": Y}),
    "pyarrow dictionary": pa.array(Y.astype(str)).dictionary_encode(),
    "labels": L,
    "labels of bool": L > 0,
    "labels of float": L * 1.0,
    "labels of -1 and 1": 2 * L - 1,
    "labels in lists": L.tolist(),
    "labels in a frame": pd.DataFrame(L, columns=list("pqr")),
    "labels in polars": pl.DataFrame(L, schema=list("pqr")),
    "labels in pyarrow": pa.table({name: L[:, j] for j, name in enumerate("pqr")}),
    "sparse labels": sp.csr_array(L),
    "sparse labels in columns": sp.csc_matrix(L),
    "sparse labels in coordinates": sp.coo_array(L),
    "sparse labels of bool": sp.csr_matrix(L > 0),
    "sparse labels of pandas": pd.DataFrame(L).astype(pd.SparseDtype(int, 0)),
    "no labels": sp.csr_array(np.zeros_like(L)),
}


def dense(array):
    return array.toarray() if sp.issparse(array) else array


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", TARGETS)
def test_predictions_of_classes_are_of_the_type_of_sklearn(kind, dtype):
    y, x = TARGETS[kind], X.astype(dtype)
    model, theirs = MLPClassifier(**SETTINGS).fit(x, y), sk.MLPClassifier(**SETTINGS).fit(x, y)
    for found, expected in [
        (model.predict(x), theirs.predict(x)),
        (model.classes_, theirs.classes_),
        (model.predict_proba(x), theirs.predict_proba(x)),
        (model.predict_log_proba(x), theirs.predict_log_proba(x)),
    ]:
        assert type(found) is type(expected)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if found.dtype == dtype:
            np.testing.assert_allclose(found, expected, rtol=1e-4 if dtype == np.float32 else 1e-9)
        else:
            np.testing.assert_array_equal(dense(found), dense(expected))
    score = model.score(x, y)
    assert type(score) is type(theirs.score(x, y)) and score == theirs.score(x, y)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("T", [int, bool, object, np.float16, np.float32, float, ">f8"])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_predictions_of_numbers_are_of_the_type_of_sklearn(T, n_outputs, dtype):
    y = np.round(np.column_stack([Z, -Z])).astype(T)
    y, x = (y[:, 0] if n_outputs == 1 else y), X.astype(dtype)
    found = MLPRegressor(**SETTINGS).fit(x, y).predict(x)
    expected = sk.MLPRegressor(**SETTINGS).fit(x, y).predict(x)
    assert (type(found), found.dtype, found.shape) == (
        type(expected),
        expected.dtype,
        expected.shape,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_predictions_of_labels_are_sparse_where_those_of_the_first_y_were(method):
    for first, later in [(sp.csr_array(L), L), (L, sp.csr_array(L))]:
        models = MLPClassifier(**SETTINGS), sk.MLPClassifier(**SETTINGS)
        for model in models:
            if method == "partial_fit":
                model.partial_fit(X, first, classes=[0, 1, 2]).partial_fit(X, later)
            else:
                model.fit(X, first).fit(X, later)
        assert type(models[0].predict(X)) is type(models[1].predict(X))


def test_many_classes_are_as_silent_as_with_sklearn():
    y = np.r_[np.arange(30), np.arange(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (MLPClassifier, sk.MLPClassifier):
            make(**SETTINGS).partial_fit(X, y, classes=np.arange(30)).partial_fit(X, y)
