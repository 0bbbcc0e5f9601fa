"""Tables as they come: any container and any column, what members are, and what they predict."""

import datetime
import decimal
import os
import pickle
import threading
import time
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import skops.io
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris, make_classification
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastnn import (
    MLPClassifier,
    MLPRegressor,
    TabularClassifier,
    TabularRegressor,
    _members,
    skops_types,
)
from fastnn._frames import FrameEncoder, checked_columns
from fastnn._monitor import Monitor
from fastnn._trainer import Trainer

SMALL = dict(n_members=2, hidden_layer_sizes=(16,), max_iter=4, random_state=0)
ESTIMATORS = [TabularClassifier, TabularRegressor]
X_IRIS, Y_IRIS = load_iris(return_X_y=True)


@parametrize_with_checks([TabularClassifier(n_members=2), TabularRegressor(n_members=2)])
def test_check_estimator(estimator, check):
    check(estimator)


# --- one frame with everything wrong in it -------------------------------------------------------

N = 240
rng = np.random.default_rng(0)
NUMBER = rng.standard_normal(N)
LETTER = rng.choice(list("abc"), N)
MISSING = np.arange(N) % 7 == 0
Y = (NUMBER + 2 * (LETTER == "a") > 0.7).astype(int)


def some(values, where=MISSING):
    return [None if missing else value for value, missing in zip(values, where, strict=True)]


COLUMNS = {
    "number": NUMBER.tolist(),
    "gaps": some(NUMBER.tolist()),
    "whole": some((NUMBER * 10).astype(int).tolist()),
    "flag": (NUMBER > 0).tolist(),
    "flag with gaps": some((NUMBER > 0).tolist()),
    "text": LETTER.tolist(),
    "text with gaps": some(LETTER.tolist()),
    "category": some(LETTER.tolist()),
    "one value": [3.5] * N,
    "one word": ["x"] * N,
    "nothing": [None] * N,
    "huge": (np.sign(NUMBER) * 10.0 ** (300 * np.abs(NUMBER) / 4)).tolist(),
    "skewed": np.exp(5 * NUMBER).tolist(),
    "mostly zero": np.where(NUMBER > 1, NUMBER, 0.0).tolist(),
    "identity": [f"customer {i}" for i in range(N)],
}


def in_pandas(columns):
    frame = pd.DataFrame(columns)
    frame["category"] = frame["category"].astype("category")
    frame["whole"] = frame["whole"].astype("Int64")
    frame["flag with gaps"] = frame["flag with gaps"].astype("boolean")
    return frame


def in_objects(columns):
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def in_pandas_on_arrow(columns):
    return pd.DataFrame(
        {
            name: pd.Series(pd.arrays.ArrowExtensionArray(pa.array(values)))
            for name, values in columns.items()
        }
    )


def in_polars(columns):
    return pl.DataFrame(columns, strict=False).with_columns(pl.col("category").cast(pl.Categorical))


def in_arrow(columns):
    table = pa.table(columns)
    i = table.schema.get_field_index("category")
    return table.set_column(i, "category", table.column(i).dictionary_encode())


def in_record_batch(columns):
    return in_arrow(columns).combine_chunks().to_batches()[0]


MAKERS = [in_pandas, in_objects, in_pandas_on_arrow, in_polars, in_arrow, in_record_batch]
UNSEEN = {
    **COLUMNS,
    "number": some(COLUMNS["number"]),  # of which none was missing
    "text": ["unheard of"] * N,
    "category": ["new", None] * (N // 2),
    "nothing": [1.0] * N,
    "one value": [-1e300] * N,
    "identity": [f"client {i}" for i in range(N)],
}


WRONG = SMALL | dict(hidden_layer_sizes=(32,), max_iter=30)


@pytest.fixture(scope="module")
def expected():
    frame, unseen = in_pandas(COLUMNS), in_pandas(UNSEEN)
    model = TabularClassifier(**WRONG).fit(frame, Y)
    assert model.score(frame, Y) > 0.9
    assert np.isfinite(model.predict_proba(unseen)).all()
    return model.predict_proba(frame), model.predict_proba(unseen)


@pytest.mark.parametrize("make", MAKERS)
def test_a_frame_with_everything_wrong_predicts_the_same_in_any_container(make, expected):
    model = TabularClassifier(**WRONG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(make(COLUMNS), Y)
        probabilities = model.predict_proba(make(COLUMNS)), model.predict_proba(make(UNSEEN))
    assert list(model.feature_names_in_) == list(COLUMNS)
    assert model.n_features_in_ == len(COLUMNS)
    np.testing.assert_array_equal(probabilities, expected)


DAY = datetime.date(2020, 1, 2)
TIMES = [DAY, datetime.datetime(2020, 1, 2), datetime.timedelta(1), datetime.time(1)]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("value", TIMES, ids=lambda value: type(value).__name__)
def test_a_column_of_dates_is_refused_by_its_name(make, value):
    model = TabularRegressor(**SMALL).fit(in_pandas(COLUMNS), NUMBER)
    before = model.predict(in_pandas(COLUMNS))
    with pytest.raises(ValueError, match="numbers or categories, but column 'text' "):
        model.predict(make(COLUMNS | {"text": [value] * N}))
    with pytest.raises(ValueError, match="numbers or categories, but column 'when' "):
        model.fit(make(COLUMNS | {"when": some([value] * N)}), NUMBER)
    np.testing.assert_array_equal(model.predict(in_pandas(COLUMNS)), before)


def test_errors_name_the_column():
    model = TabularClassifier(**SMALL).fit(in_pandas(COLUMNS), Y)
    for name, values, error, message in [
        ("skewed", [np.inf] * N, ValueError, "column 'skewed' holds inf"),
        ("number", ["high"] * N, ValueError, "Column 'number' of X was one of numbers in fit"),
        ("text", [[1]] * N, TypeError, r"column 'text' holds \[1\]"),
    ]:
        with pytest.raises(error, match=message):
            model.predict(in_objects(COLUMNS | {name: values}))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(in_pandas(COLUMNS)[list(COLUMNS)[::-1]])
    with pytest.raises(ValueError, match=r"0 sample\(s\) \(shape=\(0, \d+\)\)"):
        model.predict(in_pandas(COLUMNS)[:0])
    with pytest.raises(ValueError, match=r"0 feature\(s\) \(shape=\(0, 0\)\)"):
        TabularClassifier(**SMALL).fit(pd.DataFrame(index=range(N)), Y)


def test_whole_numbers_of_a_type_of_categories_are_categories():
    kinds = {
        "category": pd.Categorical([1, 2, 3, 1] * 30),
        "with gaps": pd.Categorical([1, 2, None, 1] * 30),
        "number": [1, 2, 3, 1] * 30,
    }
    columns, names = checked_columns(TabularClassifier(), pd.DataFrame(kinds), reset=True)
    assert [column.dtype == object for column in columns] == [True, True, False]
    assert columns[0][:3].tolist() == ["1", "2", "3"]
    assert columns[1][:3].tolist() == ["1", "2", None]
    encoder = FrameEncoder("piecewise_linear", 16, 1, np.float32).fit(columns, None, None)
    estimator = TabularClassifier()
    estimator.n_features_in_ = 3
    later = np.array([[1.0, np.nan, 1.0], [9.0, 2.0, 2.0]])
    encoded = encoder.transform(
        checked_columns(estimator, later, False, encoder.is_category)[0], names
    )[:, -6:]
    np.testing.assert_array_equal(np.asarray(encoded), [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]])


def test_equal_numbers_are_one_category_in_any_column_and_any_order():
    """What a row predicts depends on no other row, nor on the type of the column it comes in."""
    values = [np.True_, 1, True, 1.0, decimal.Decimal("1.0"), np.float32(1)]
    others = ["x", 2.5]
    column = np.array([*values, *others, None] * 30, object)
    y = [0, 0, 0, 0, 0, 0, 1, 1, 2] * 30
    model = TabularClassifier(**SMALL).fit(column[:, None], y)
    assert list(model._encoder.categories[0]) == ["1", "2.5", "x", None]
    expected = model.predict_proba(column[:1, None])
    for one in [
        [True],
        [np.True_, 2.5],
        [1],
        [1.0],
        [decimal.Decimal(1)],
        ["1"],
        [True, "x"],
        ["x", np.int8(1)],
    ]:
        found = model.predict_proba(np.array(one, object)[:, None])
        assert (found == expected).all(axis=1).any(), one
    flags = pd.DataFrame({"flag": pd.Categorical([True, False] * 100)})
    model = TabularClassifier(**SMALL).fit(flags, flags["flag"].astype(bool))
    plain = flags.astype(bool)
    np.testing.assert_array_equal(model.predict_proba(plain), model.predict_proba(flags))


def test_categories_of_whole_numbers_are_told_apart_beyond_53_bits():
    numbers = 2**60 + np.arange(200) % 3
    gaps = pd.Categorical(some(numbers.tolist(), MISSING[:200]))
    model = TabularClassifier(**SMALL).fit(pd.DataFrame({"id": gaps}), np.arange(200) % 3)
    known = [str(2**60), str(2**60 + 1), str(2**60 + 2), None]
    assert list(model._encoder.categories[0]) == known
    whole = pd.DataFrame({"id": pd.Categorical(numbers)})
    expected = model.predict_proba(whole)
    assert len(np.unique(expected, axis=0)) == 3
    for column in (whole["id"].astype(int), pl.Series(numbers), pa.array(numbers)):
        if isinstance(column, pd.Series):
            table = pd.DataFrame({"id": column})
        else:
            table = (pl.DataFrame if isinstance(column, pl.Series) else pa.table)({"id": column})
        np.testing.assert_array_equal(model.predict_proba(table), expected)


def test_masked_numbers_are_missing():
    X = np.ma.masked_array(X_IRIS, mask=X_IRIS > 5)
    gaps = np.where(X_IRIS > 5, np.nan, X_IRIS)
    masked, missing = (TabularClassifier(**SMALL).fit(x, Y_IRIS) for x in (X, gaps))
    assert_same(masked, missing)
    np.testing.assert_array_equal(masked.predict_proba(X), missing.predict_proba(gaps))


def test_integers_of_128_bits_are_numbers():
    wide = pl.DataFrame({"n": pl.Series([2**70 * y for y in Y_IRIS.tolist()], dtype=pl.Int128)})
    model = TabularClassifier(**SMALL | dict(max_iter=20)).fit(wide, Y_IRIS)
    assert model._encoder.is_category == [False]
    assert model.score(wide, Y_IRIS) > 0.9
    with pytest.raises(ValueError, match="column 0 holds inf"):
        TabularClassifier(**SMALL).fit([[10**400], [1]], [0, 1])


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([{"a": 1}, {"a": 2}]),
        pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        pa.array([[1, 2], [3, 4]]),
        pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
    ],
    ids=lambda column: type(column).__module__ + str(getattr(column, "dtype", "")),
)
def test_columns_with_several_values_in_a_row_are_refused_by_name(column):
    table = (pl.DataFrame if isinstance(column, pl.Series) else pa.table)({"nested": column})
    with pytest.raises(TypeError, match="numbers or categories, but column 'nested' holds"):
        TabularClassifier(**SMALL).fit(table, [0, 1])


def test_a_number_that_is_missing_everywhere_may_come_in_any_column():
    frame = pd.DataFrame({"n": some(X_IRIS[:, 0].tolist(), MISSING[:150]), "m": X_IRIS[:, 1]})
    model = TabularClassifier(**SMALL).fit(frame, Y_IRIS)
    expected = model.predict_proba(frame.assign(n=np.nan))
    for nothing in (None, pd.Categorical([None] * 150), pd.array([None] * 150, dtype="string")):
        np.testing.assert_array_equal(model.predict_proba(frame.assign(n=nothing)), expected)


def test_lists_of_numbers_and_text_are_numbers_and_categories():
    rows = [[1.0, "a"], [2.0, "b"], [None, "a"], [4.0, None]] * 10
    table = pd.DataFrame(rows, columns=["p", "q"])
    y = [0, 1, 0, 1] * 10
    model = TabularClassifier(**SMALL).fit(rows, y)
    expected = TabularClassifier(**SMALL).fit(table, y).predict_proba(table)
    np.testing.assert_array_equal(model.predict_proba(rows), expected)
    np.testing.assert_array_equal(model.predict_proba(np.array(rows, object)), expected)


def test_sparse_tables_are_refused():
    with pytest.raises(TypeError, match="sparse matrix"):
        TabularClassifier(**SMALL).fit(sp.csr_array(X_IRIS), Y_IRIS)


# --- encoding ------------------------------------------------------------------------------------


def encoded(embedding, x, weight=None, later=None):
    encoder = FrameEncoder(embedding, 32, 1.0, np.float64).fit(
        [x], weight, np.random.RandomState(0)
    )
    matrix = encoder.transform([x if later is None else later], ["x"])
    if not sp.issparse(matrix):
        return matrix
    # The first layer takes an entry times a sum of rows: it stands in all that are summed.
    code = matrix.toarray()
    for j in np.flatnonzero(encoder.continued)[::-1]:
        code[:, j - 1] += code[:, j]
    code[:, 1:] -= code[:, 1:2] / 2
    return code


def test_bins_between_quantiles_form_any_function_linear_in_each():
    x = np.exp(rng.standard_normal(1000))
    later = np.linspace(-1, 30, 500)
    bins = encoded("piecewise_linear", x, later=later)[:, 1:]
    assert bins.shape[1] == 32
    knots = np.unique(np.quantile(x, np.linspace(0, 1, 33), method="inverted_cdf"))
    expected = np.interp(later, knots, knots**2)
    middle = (knots[0] ** 2 + knots[-1] ** 2) / 2
    np.testing.assert_allclose(bins @ np.diff(knots**2) + middle, expected, rtol=1e-9)


def test_a_value_of_most_examples_leaves_bins_to_the_others():
    x = np.append(np.zeros(920), np.exp(rng.standard_normal(80)))
    bins = encoded("piecewise_linear", x)
    assert bins.shape[1] >= 24
    weight = np.append(920.0, np.ones(80))
    np.testing.assert_array_equal(encoded("piecewise_linear", x[919:], weight, later=x), bins)


@pytest.mark.parametrize("make", [TabularClassifier, TabularRegressor])
def test_entries_of_bins_are_the_product_with_their_code(make, monkeypatch, tmp_path):
    """Dropout, mini-batches, validation, prediction and a pickle; in float64."""
    X = rng.standard_normal((300, 4))
    X[::9, 1] = np.nan
    X[:, 2] = X[:, 2].round()  # a few bins
    y = (np.sin(3 * X[:, 0]) + X[:, 3] > 0).astype(int)
    monkeypatch.setattr(_members, "FEW", 1000)
    monkeypatch.setattr(_members, "OF_FEW", {})
    monkeypatch.setattr(make, "_bins", dict(n_bins=32, height=0.3))
    settings = dict(n_members=2, hidden_layer_sizes=(9, 5), max_iter=3, random_state=0)
    models = []
    for worth in (1.5, np.inf):
        monkeypatch.setattr(FrameEncoder, "WORTH", worth)
        model = make(**settings, numerical_embedding="piecewise_linear")
        models.append(model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:]))
    bins, matrix = models
    assert bins._encoder.is_sparse and not matrix._encoder.is_sparse
    columns, names = list(X.T), range(4)
    entries = bins._encoder.transform(columns, names)
    assert np.diff(entries.indptr).max() <= 1 + 4 * 3
    assert entries.shape == matrix._encoder.transform(columns, names).shape
    close = dict(rtol=1e-10, atol=1e-12)
    for one, other in zip(bins.members_, matrix.members_, strict=True):
        assert one.coefs_[0].dtype == np.float64
        for name in ("coefs_", "intercepts_", "loss_curve_", "validation_loss_curve_"):
            for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
                np.testing.assert_allclose(a, b, **close)
    predict = "predict_proba" if make is TabularClassifier else "predict"
    found, expected = (getattr(model, predict)(X) for model in models)
    np.testing.assert_allclose(found, expected, **close)
    saved = pickle.loads(pickle.dumps(bins))
    np.testing.assert_array_equal(getattr(saved, predict)(X), found)


def test_encoding_counts_a_weight_as_repetition():
    x, weight = rng.standard_normal(100), rng.integers(0, 4, 100).astype(float)
    x[::9] = np.nan
    for embedding in ("piecewise_linear", "periodic", None):
        there = weight > 0
        weighted = encoded(embedding, x[there], weight[there], later=x)
        repeated = encoded(embedding, np.repeat(x, weight.astype(int)), later=x)
        np.testing.assert_array_equal(weighted, repeated)


def test_numbers_of_any_size_are_encoded_in_bounds():
    for x in [
        np.array([-1.7e308, 0.0, 1.7e308, 1e-320]),
        np.array([5e-324, 0.0, 1.0, 1e308]),
        np.array([1e-300, 2e-300, 3e-300, 1e300]),
        np.array([7.0, 7.0, 7.0, np.nan]),
    ]:
        for embedding in ("piecewise_linear", "periodic", None):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                matrix = encoded(embedding, x, later=np.array([*x, -1.7e308, 1.7e308]))
            assert np.isfinite(matrix).all() and np.abs(matrix).max() <= 3


# --- members -------------------------------------------------------------------------------------

X_TABLE, Y_TABLE = make_classification(300, 6, n_informative=4, n_classes=3, random_state=0)
CASES = {"classes": (TabularClassifier, Y_TABLE), "numbers": (TabularRegressor, X_TABLE[:, 0])}
each_case = pytest.mark.parametrize("make, y", CASES.values(), ids=CASES)


def arrays(model):
    return [array for m in model.members_ for array in (*m.coefs_, *m.intercepts_)]


def assert_same(first, second):
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(a, b)


@each_case
def test_a_member_is_the_network_fitted_alone(make, y, monkeypatch):
    """With its seed, to the rows that it does not hold out, validated on those."""
    parts = []
    learn = make._parts
    monkeypatch.setattr(
        make, "_parts", lambda *arguments: parts.append(learn(*arguments)) or parts[0]
    )
    settings = SMALL | dict(n_members=5, validation_fraction=0.2)
    model = make(**settings, n_threads=2).fit(X_TABLE, y)
    columns, names = checked_columns(make(), X_TABLE, reset=True)
    table = model._encoder.transform(columns, names)
    target = (
        np.searchsorted([0, 1, 2], y)
        if make is TabularClassifier
        else model._standardized(np.ldexp(y, -model._exponent))
    )
    np.testing.assert_array_equal(np.sort(np.concatenate(parts[0])), np.arange(300))
    for member, held in zip(model.members_, parts[0], strict=True):
        assert type(member) in (MLPClassifier, MLPRegressor)
        rest = np.setdiff1d(np.arange(300), held)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alone = clone(member)
            alone._continued = member._continued
            alone.fit(table[rest], target[rest], X_val=table[held], y_val=target[held])
        assert alone.validation_loss_curve_ == member.validation_loss_curve_
        for name in ("coefs_", "intercepts_"):
            for a, b in zip(getattr(alone, name), getattr(member, name), strict=True):
                np.testing.assert_array_equal(a, b)


noise = np.random.default_rng(1)
WIDE = noise.standard_normal((600, 20))
OF_BINS = np.sin(4 * WIDE[:, 0])
OF_LINES = WIDE.sum(axis=1) + 4 * noise.standard_normal(600)


@pytest.mark.parametrize("make", ESTIMATORS)
@pytest.mark.parametrize("of_user", [False, True])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_the_embedding_is_what_suits_the_first_network_best(make, of_user, n_threads):
    """The estimator is then the same as with that embedding from the start."""
    settings = SMALL | dict(hidden_layer_sizes=(32,), max_iter=30, n_threads=n_threads)
    for signal, chosen in [(OF_BINS, "piecewise_linear"), (OF_LINES, None)]:
        y = signal > 0 if make is TabularClassifier else signal
        given = dict(X_val=WIDE[400:], y_val=y[400:]) if of_user else {}
        first = [
            make(**settings | dict(n_members=1, numerical_embedding=embedding))
            .fit(WIDE[:400], y[:400], **given)
            .members_[0]
            for embedding in ("piecewise_linear", None)
        ]
        with_bins, without = (min(member.validation_loss_curve_) for member in first)
        assert chosen == (None if without < 0.98 * with_bins else "piecewise_linear")
        model = make(**settings).fit(WIDE[:400], y[:400], **given)
        assert model.numerical_embedding == "auto" and model.numerical_embedding_ == chosen
        settings_too = settings | dict(numerical_embedding=chosen)
        expected = make(**settings_too).fit(WIDE[:400], y[:400], **given)
        assert_same(model, expected)
        np.testing.assert_array_equal(model.predict(WIDE), expected.predict(WIDE))


def test_there_is_nothing_to_choose_without_a_loss_to_go_by_or_without_bins(capsys):
    letters = LETTER[:, np.newaxis].astype(object)
    for X, settings in [
        (WIDE[:N], dict(validation_fraction=0)),
        (WIDE[:90], {}),
        (letters, {}),
        (WIDE[:N] > 0, {}),
    ]:
        model = TabularClassifier(**SMALL, **settings, verbose=True).fit(X, Y[: len(X)])
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert model.numerical_embedding_ == "piecewise_linear"


@pytest.mark.parametrize("which", [0, 1])
def test_ctrl_c_while_choosing_keeps_the_better_network(which, monkeypatch):
    note, begun = Monitor.note, []

    def noted(self, *arguments):
        note(self, *arguments)
        if self.history.n_iter == 1:
            begun.append(self)
        if len(begun) == which + 1 and self.history.n_iter == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Monitor, "note", noted)
    model = TabularRegressor(**SMALL | dict(max_iter=30, hidden_layer_sizes=(32,)), n_threads=1)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(WIDE, OF_LINES)
    assert len(begun) == which + 1
    [member] = model.members_
    assert member.stop_reason_ == ("interrupted" if which == 0 else "max_iter")
    assert model.numerical_embedding_ == "piecewise_linear"
    assert np.isfinite(model.predict(WIDE)).all()


@each_case
def test_bits_do_not_depend_on_threads(make, y):
    models = [
        make(**SMALL | dict(n_members=3), n_threads=n_threads).fit(X_TABLE, y)
        for n_threads in (1, 2, 3, 4, None)
    ]
    predictions = [
        model.predict_proba(X_TABLE) if make is TabularClassifier else model.predict(X_TABLE)
        for model in models
    ]
    for model, prediction in zip(models[1:], predictions[1:], strict=True):
        assert_same(model, models[0])
        np.testing.assert_array_equal(prediction, predictions[0])


@each_case
@pytest.mark.parametrize("embedding", ["piecewise_linear", "periodic", None])
def test_a_row_is_predicted_the_same_alone(make, y, embedding):
    model = make(**SMALL, numerical_embedding=embedding).fit(X_TABLE, y)
    alone = np.concatenate([model.predict(X_TABLE[i : i + 1]) for i in range(20)])
    np.testing.assert_array_equal(alone, model.predict(X_TABLE)[:20])


def test_several_members_are_better_than_one_and_disagree_where_there_was_nothing():
    X, y = load_diabetes(return_X_y=True)
    model = TabularRegressor(hidden_layer_sizes=(32,), max_iter=20, random_state=0)
    model.fit(X[:300], y[:300])
    mean, std = model.predict(X[300:], return_std=True)
    np.testing.assert_array_equal(mean, model.predict(X[300:]))
    alone = [
        (m.predict(model._encoder.transform(list(X[300:].T), range(10))), m) for m in model.members_
    ]
    scale, centre = model._scaler.scale_[0], model._scaler.mean_[0]
    alone = np.clip([a[0] * scale + centre for a in alone], *model._range)
    alone = np.ldexp(alone, model._exponent)
    np.testing.assert_allclose(mean, alone.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, alone.std(axis=0), rtol=1e-3)
    errors = ((alone - y[300:]) ** 2).mean(axis=1)
    assert ((mean - y[300:]) ** 2).mean() < errors.mean()
    one = TabularRegressor(**SMALL | dict(n_members=1)).fit(X, y)
    assert (one.predict(X, return_std=True)[1] == 0).all()


def test_several_targets_are_kept_within_their_ranges():
    X, y = load_diabetes(return_X_y=True)
    two = np.column_stack([y, 1e6 + 1e3 * X[:, 2]])
    model = TabularRegressor(**SMALL | dict(max_iter=20)).fit(X, two)
    mean, std = model.predict(X * 1e6, return_std=True)
    assert mean.shape == std.shape == two.shape
    assert (mean >= two.min(axis=0)).all() and (mean <= two.max(axis=0)).all()
    assert (model.predict(X).std(axis=0) > 0).all()
    assert model.score(X, two) > 0.3


def test_targets_of_any_size_are_learned_alike():
    X, y = load_diabetes(return_X_y=True)
    y = np.column_stack([y, -y])
    mean, std = TabularRegressor(**SMALL).fit(X, y).predict(X, return_std=True)
    for factors in ([2.0**1000, 2.0**-1000], [2.0**700, 1.0]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = TabularRegressor(**SMALL).fit(X, y * factors)
            scaled = model.predict(X, return_std=True)
        np.testing.assert_array_equal(scaled, [mean * factors, std * factors])
    largest = np.finfo(float).max
    extremes = np.where(np.arange(len(X)) % 2, largest, -largest)
    model = TabularRegressor(**SMALL).fit(X, extremes, X_val=X, y_val=extremes)
    assert np.isfinite(model.predict(X)).all()


# --- probabilities -------------------------------------------------------------------------------


X_NOISY = rng.standard_normal((600, 3))
Y_NOISY = (X_NOISY[:, 0] > 0) ^ (rng.random(600) < 0.25)


def test_networks_that_are_too_sure_of_themselves_are_calibrated(monkeypatch):
    """Logits times 4 get a higher temperature, and much the same probabilities."""
    settings = SMALL | dict(max_iter=20)
    expected = TabularClassifier(**settings).fit(X_NOISY, Y_NOISY)
    calibrate = TabularClassifier._calibrate

    def of_surer_members(self, held):
        for member in self.members_:
            member.coefs_[-1][...] *= 4
            member.intercepts_[-1][...] *= 4
        calibrate(self, held)

    monkeypatch.setattr(TabularClassifier, "_calibrate", of_surer_members)
    model = TabularClassifier(**settings).fit(X_NOISY, Y_NOISY)
    assert model.temperature_ > 2 * expected.temperature_
    probability = model.predict_proba(X_NOISY)
    np.testing.assert_allclose(probability, expected.predict_proba(X_NOISY), atol=0.1)
    model.temperature_ = 1.0
    uncalibrated = log_loss(Y_NOISY, model.predict_proba(X_NOISY))
    assert log_loss(Y_NOISY, probability) < uncalibrated - 0.1


def test_class_weights_are_repetitions_of_the_class():
    X, y = X_IRIS[::2], Y_IRIS[::2]
    weighted = TabularClassifier(**SMALL, class_weight={0: 1, 1: 2, 2: 3}).fit(X, y)
    repeated = TabularClassifier(**SMALL).fit(X, y, sample_weight=y + 1)
    assert_same(weighted, repeated)


def test_labels_of_any_kind():
    text = np.array(list("cab"))
    for labels in (text, text.astype(object), np.array([3, 1, 2]), np.array([True, False, True])):
        y = labels[Y_IRIS]
        model = TabularClassifier(**SMALL | dict(max_iter=20)).fit(X_IRIS, y)
        np.testing.assert_array_equal(model.classes_, np.unique(labels))
        assert model.predict(X_IRIS).dtype == np.array(labels.tolist()).dtype
        assert model.score(X_IRIS, y) > 0.8
        probability = model.predict_proba(X_IRIS)
        np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    one = TabularClassifier(**SMALL).fit(X_IRIS, ["only"] * 150)
    assert (one.predict(X_IRIS) == "only").all()
    np.testing.assert_array_equal(one.predict_proba(X_IRIS), np.ones((150, 1)))
    with pytest.raises(ValueError, match="one class for each example"):
        TabularClassifier(**SMALL).fit(X_IRIS, np.eye(3, dtype=int)[Y_IRIS])


# --- weights, validation, time -------------------------------------------------------------------


@each_case
def test_examples_of_weight_zero_are_not_there(make, y):
    weight = np.arange(300) % 3 * 1.0
    model = make(**SMALL).fit(X_TABLE, y, weight)
    expected = make(**SMALL).fit(X_TABLE[weight > 0], y[weight > 0], weight[weight > 0])
    assert_same(model, expected)
    with pytest.raises(ValueError, match="sample_weight must be >= 0"):
        make(**SMALL).fit(X_TABLE, y, weight - 0.5)


@each_case
def test_given_validation_examples_are_those_of_all_members(make, y):
    given = dict(X_val=X_TABLE[200:], y_val=y[200:], sample_weight_val=np.ones(100))
    model = make(**SMALL).fit(X_TABLE[:200], y[:200], **given)
    for member in model.members_:
        assert member.t_ == 200 * member.n_iter_
        assert len(member.validation_loss_curve_) == member.n_iter_
        assert member.best_epoch_ == np.argmin(member.validation_loss_curve_) + 1
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        make(**SMALL).fit(X_TABLE, y, X_val=X_TABLE)
    with pytest.raises(ValueError, match=r"X_val, y_val or sample_weight_val: X has 5 features"):
        make(**SMALL).fit(X_TABLE, y, X_val=X_TABLE[:, :5], y_val=y)
    if make is TabularClassifier:
        with pytest.raises(ValueError, match=r"labels that y has not: \[7\]"):
            make(**SMALL).fit(X_TABLE, y, X_val=X_TABLE, y_val=y + 7 * (y == 1) - (y == 1))
    else:
        with pytest.raises(ValueError, match="y_val has 2 outputs, but y has 1"):
            make(**SMALL).fit(X_TABLE, y, X_val=X_TABLE, y_val=np.column_stack([y, y]))


@pytest.mark.parametrize("max_iter, patience", [(60, 25), (120, 30)])
def test_a_network_ends_when_what_it_holds_out_has_not_gained_for_a_quarter_of_all(
    max_iter, patience
):
    settings = SMALL | dict(hidden_layer_sizes=(64,), max_iter=max_iter)
    model = TabularRegressor(**settings).fit(WIDE, noise.permutation(OF_LINES))
    for member in model.members_:
        assert member.n_iter_ == member.best_epoch_ + patience + 1 < max_iter
    model.set_params(validation_fraction=0).fit(WIDE, OF_LINES)
    assert model.n_iter_ == max_iter


def test_without_a_part_held_out_all_is_trained_on():
    for X, settings in [(X_IRIS, dict(validation_fraction=0)), (X_IRIS[::2], {})]:
        model = TabularClassifier(**SMALL, **settings).fit(X, X[:, 0] > 5.5)
        for member in model.members_:
            assert member.t_ == len(X) * member.n_iter_ and member.best_epoch_ is None
        assert model.temperature_ == 1


@pytest.mark.parametrize("n_threads", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_training_ends_in_time(n_threads):
    X = rng.standard_normal((3000, 5))
    model = TabularRegressor(max_iter=10**6, max_time=1, n_members=3, n_threads=n_threads)
    model.fit(X[:200], X[:200, 0])  # everything is compiled
    started = time.perf_counter()
    model.fit(X, X[:, 0])
    assert time.perf_counter() - started < 6
    assert len(model.members_) == 3
    assert all(member.stop_reason_ == "max_time" for member in model.members_)


# --- what scikit-learn and users do with an estimator --------------------------------------------


@each_case
def test_copies_predict_the_same(make, y):
    frame = pd.DataFrame(X_TABLE, columns=list("abcdef")).assign(letter=LETTER[np.arange(300) % N])
    model = make(**SMALL).fit(frame, y)
    saved = skops.io.dumps(model)
    types = skops_types()
    for copy in (pickle.loads(pickle.dumps(model)), skops.io.loads(saved, trusted=types)):
        np.testing.assert_array_equal(copy.predict(frame), model.predict(frame))
    fresh = clone(model)
    with pytest.raises(NotFittedError):
        fresh.predict(frame)
    assert_same(fresh.fit(frame, y), model)


def test_a_grid_search_finds_the_better_setting():
    x = rng.uniform(-1, 1, (400, 1))
    grid = {"numerical_embedding": [None, "periodic", "piecewise_linear"]}
    search = GridSearchCV(TabularRegressor(**SMALL | dict(max_iter=40)), grid, cv=2)
    search.fit(x, np.sign(np.sin(12 * x[:, 0])))
    assert search.best_params_["numerical_embedding"] is not None
    assert search.best_score_ > search.cv_results_["mean_test_score"][0] + 0.2


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_members", 0),
        ("hidden_layer_sizes", (0,)),
        ("max_iter", 0),
        ("max_time", -1),
        ("numerical_embedding", "quantile"),
        ("validation_fraction", 0.51),
        ("validation_fraction", 1e-3),  # less than one example
        ("n_threads", 0),
        ("verbose", "loud"),
        ("class_weight", "equal"),
    ],
)
def test_a_wrong_parameter_is_named_and_changes_nothing(name, value):
    model = TabularClassifier(**SMALL).fit(X_IRIS, Y_IRIS)
    before = model.predict_proba(X_IRIS)
    with pytest.raises(ValueError, match=name):
        model.set_params(**{name: value}).fit(X_IRIS, Y_IRIS)
    np.testing.assert_array_equal(model.predict_proba(X_IRIS), before)


def test_progress_is_told(capsys):
    """Also of the network that was trained only to choose the embedding."""
    for embedding, n_fits in [("auto", 3), (None, 2)]:
        settings = SMALL | dict(numerical_embedding=embedding)
        TabularClassifier(**settings, verbose=True).fit(X_IRIS, Y_IRIS)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == n_fits
        assert lines[-1].startswith(f"Network {n_fits} of {n_fits}, 4 epochs, loss ")
        settings |= dict(verbose="progress", n_threads=2)
        TabularRegressor(**settings).fit(X_IRIS, X_IRIS[:, 0])
        assert f"{4 * n_fits}/{4 * n_fits}" in capsys.readouterr().err


@pytest.mark.parametrize("n_threads", [1, 2])
def test_callbacks_hear_of_each_member_and_may_stop(n_threads):
    if not hasattr(TabularClassifier, "set_callbacks"):
        pytest.skip("callbacks need scikit-learn 1.9")
    heard = []

    class Callback:
        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
            heard.append((context.task_name, context.task_id, threading.current_thread()))
            assert X is X_IRIS
            assert len(fitted_estimator.members_) == min(len(heard), 2)
            fitted_estimator.predict(X_IRIS)
            return context.task_id == 1

    model = TabularClassifier(**SMALL | dict(n_members=4), n_threads=n_threads)
    model.set_callbacks(Callback()).fit(X_IRIS, Y_IRIS)
    here = threading.main_thread()
    assert heard == [("member", 0, here), ("member", 1, here), ("fit", 0, here)]
    assert len(model.members_) == 2
    assert len(pickle.loads(pickle.dumps(model.set_callbacks())).members_) == 2


def test_an_error_in_training_changes_nothing(monkeypatch):
    model = TabularClassifier(**SMALL, n_threads=2).fit(X_IRIS, Y_IRIS)
    before = dict(vars(model))
    monkeypatch.setattr("fastnn._monitor.Monitor.note", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(X_IRIS, Y_IRIS)
    assert vars(model) == before


CTRL_C = """
import os, signal, sys, threading, time, warnings
import numpy as np
import fastnn
from fastnn import TabularRegressor, _monitor
fastnn.warmup(["float32"])
X = np.random.default_rng(0).standard_normal((30_000, 10))
n_epochs, sent = int(sys.argv[2]), []
begin, note = _monitor.Monitor.__init__, _monitor.Monitor.note

def send():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

def interrupt_next_epoch(self):
    if self.history.n_iter == n_epochs and not sent:
        sent.append(0)
        threading.Timer(0.1, send).start()

def begun(self, *arguments):
    begin(self, *arguments)
    interrupt_next_epoch(self)

def noted(self, *arguments):
    note(self, *arguments)
    interrupt_next_epoch(self)

_monitor.Monitor.__init__, _monitor.Monitor.note = begun, noted
model = TabularRegressor(n_threads=int(sys.argv[1]), hidden_layer_sizes=(512, 512), max_iter=10**5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        model.fit(X, X[:, 0])
    except KeyboardInterrupt:
        print("as before", time.perf_counter() - sent[-1])
        assert not hasattr(model, "members_")
    else:
        print("usable", time.perf_counter() - sent[-1])
        assert [str(w.message) for w in caught] == ["Training interrupted by user."], caught
        assert np.isfinite(model.predict(X[:10])).all() and len(model.members_) >= 1
# No thread is left, but one that is done may have to wait before it can return.
assert any(len(sys._current_frames()) == 1 or time.sleep(0.01) for _ in range(500))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("n_threads", [pytest.param("1", marks=pytest.mark.nightly), "2"])
def test_ctrl_c_leaves_what_was_learned(n_threads, run_python):
    found, seconds = run_python("-c", CTRL_C, n_threads, "1").stdout.split(maxsplit=1)
    assert found == "usable" and float(seconds) < 4


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_before_the_first_epoch_leaves_the_estimator_as_it_was(run_python):
    *found, seconds = run_python("-c", CTRL_C, "2", "0").stdout.split()
    assert found == ["as", "before"] and float(seconds) < 4


def test_a_fit_begins_with_the_data_that_it_goes_on_with(monkeypatch):
    # Those of an array are not exchanged, by which their dense features would be forgotten.
    def fails(trainer, data):
        raise AssertionError("other data")

    def noted(trainer, data, rows):
        n_dense.add(data.n_dense)
        return run(trainer, data, rows)

    run, n_dense = Trainer._run, set()
    monkeypatch.setattr(Trainer, "_take", fails)
    monkeypatch.setattr(Trainer, "_run", noted)
    X = np.random.default_rng(0).standard_normal((300, 3))
    settings = dict(numerical_embedding="piecewise_linear", n_members=1, max_iter=2)
    TabularRegressor(**settings, random_state=0).fit(X, X[:, 0])
    assert n_dense == {3}
