"""Fits from batches that are read again and again: the numbers of fit, and its errors."""

import itertools
import os
import signal
import sys
import threading
import time
import tracemalloc

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from sklearn.metrics import accuracy_score

from fastnn import MLPClassifier, MLPRegressor, Stream, TabularClassifier, _stream_examples
from fastnn._streams import numbers_of
from fastnn._trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D = 1234, 5
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D)) * [1, 2, 3, 1e3, 1] + [0, 0, 5, 1e3, 0]
SCORE = X[:, 0] + X[:, 1] / 2 + 0.3 * RNG.standard_normal(N)
WEIGHT = RNG.uniform(0, 2, N)
WEIGHT[:150] = 0  # a whole batch
COLUMNS = [f"x{i}" for i in range(D)]
TARGETS = {
    "two classes": (MLPClassifier, np.where(SCORE > 0.5, "yes", "no")),
    "three classes": (MLPClassifier, np.digitize(SCORE, [-0.5, 1.5]) * 10),
    "labels": (MLPClassifier, np.column_stack([SCORE > 0, SCORE > 1, X[:, 2] > 5]).astype(int)),
    "numbers": (MLPRegressor, SCORE),
    "several numbers": (MLPRegressor, np.column_stack([SCORE, X[:, 3]])),
}
SETTINGS = dict(hidden_layer_sizes=(7,), batch_size=32, max_iter=4, random_state=0)


def batches(*arrays, size=100):
    """A function that gives pieces of these arrays, one after the other, in each of its calls."""
    n = len(arrays[-1])

    def give():
        for first in range(0, n, size):
            yield tuple(array[first : first + size] for array in arrays)

    return give


def assert_same(found, expected):
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_", "n_iter_", "t_"):
        assert getattr(found, name) == getattr(expected, name), name
    for mine, theirs in zip(
        [*found.coefs_, *found.intercepts_], [*expected.coefs_, *expected.intercepts_], strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"standardize": True, "early_stopping": True},
        {"early_stopping": True, "scoring": "loss", "shuffle": False},
        {"dropout": 0.2, "solver": "sgd", "batch_size": "auto", "clip_norm": 1.0},
        {"weight_average": 2, "standardize": True},
    ],
    ids=lambda more: "+".join(more),
)
def test_a_buffer_that_holds_everything_gives_the_numbers_of_fit(kind, weighted, more):
    make, y = TARGETS[kind]
    arrays = (X, y, WEIGHT) if weighted else (X, y)
    expected = make(**{**SETTINGS, **more}).fit(*arrays)
    found = make(**{**SETTINGS, **more}).fit(Stream(batches(*arrays)))
    assert_same(found, expected)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))


@pytest.mark.parametrize("more", [{"loss": "quantile", "quantile": [0.1, 0.9]}, {"loss": "huber"}])
def test_standardised_targets_are_those_of_fit(more):
    settings = dict(SETTINGS, standardize_target=True, early_stopping=True, **more)
    stream = Stream(batches(X, SCORE))
    assert_same(MLPRegressor(**settings).fit(stream), MLPRegressor(**settings).fit(X, SCORE))


@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_class_weights_are_those_of_fit(kind, weighted, balanced):
    y = TARGETS[kind][1]
    given = [{0: 0.5, 1: 2}] * 3 if kind == "labels" else dict.fromkeys(np.unique(y)[:1], 3.0)
    settings = dict(SETTINGS, class_weight="balanced" if balanced else given)
    arrays = (X, y, WEIGHT) if weighted else (X, y)
    found = MLPClassifier(**settings).fit(Stream(batches(*arrays)))
    assert_same(found, MLPClassifier(**settings).fit(*arrays))


def test_given_validation_examples_are_those_of_fit():
    make, y = TARGETS["three classes"]
    settings = dict(SETTINGS, early_stopping=True, standardize=True)
    more = dict(X_val=X[:300], y_val=y[:300], sample_weight_val=WEIGHT[:300] + 1)
    found = make(**settings).fit(Stream(batches(X, y)), **more)
    assert_same(found, make(**settings).fit(X, y, **more))


def test_warm_start_goes_on_as_fit_does():
    make, y = TARGETS["two classes"]
    found, expected = (make(**SETTINGS, warm_start=True, standardize=True) for _ in range(2))
    stream = Stream(batches(X, y))
    for _ in range(2):
        assert_same(found.fit(stream), expected.fit(X, y))


@pytest.mark.parametrize("scoring", ["accuracy", "neg_log_loss"])
def test_scorers_see_the_examples_that_fit_shows_them(scoring):
    make, y = TARGETS["two classes"]
    settings = dict(SETTINGS, early_stopping=True, scoring=scoring)
    assert_same(make(**settings).fit(Stream(batches(X, y))), make(**settings).fit(X, y))


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_how_the_source_cuts_its_batches_does_not_matter(T, n_threads):
    """Nor do threads, where there are several buffers and what is held out is in all of them."""
    make, y = TARGETS["three classes"]
    settings = dict(SETTINGS, early_stopping=True, standardize=True)
    fits = [
        make(**settings, n_threads=n).fit(Stream(batches(X.astype(T), y, size=s), buffer_rows=150))
        for n, s in ((1, 1000), (n_threads, 37))
    ]
    assert_same(*fits)
    assert fits[0].coefs_[0].dtype == T


def test_without_shuffling_a_small_buffer_gives_the_numbers_of_fit():
    make, y = TARGETS["numbers"]
    settings = dict(SETTINGS, shuffle=False)
    for buffer_rows in (32, 500, 1233, 1234):
        found = make(**settings).fit(Stream(batches(X, y), buffer_rows=buffer_rows))
        assert_same(found, make(**settings).fit(X, y))


def test_examples_are_shuffled_within_a_buffer_and_anew_in_each_epoch():
    """Seen by the order in which a linear unit would have to be told: all losses are of one row."""
    n, rows = 60, 20
    order = []

    class Told(MLPRegressor):
        pass

    x = np.arange(n, dtype=float).reshape(-1, 1)
    run = Trainer._run

    def noted(self, data, rows):
        order.append(data.X[rows, 0].tolist())
        return run(self, data, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_run", noted)
        settings = dict(hidden_layer_sizes=(), batch_size=10, max_iter=3, random_state=0)
        Told(**settings).fit(Stream(batches(x, np.zeros(n), size=7), buffer_rows=rows))
    assert len(order) == 9
    for number, part in enumerate(order):
        first = number % 3 * rows
        assert sorted(part) == list(range(first, first + rows))
        assert part != sorted(part)
    assert len({tuple(part) for part in order}) == 9


TABLE = pa.table({**dict(zip(COLUMNS, X.T, strict=True)), "y": SCORE, "w": WEIGHT})


def stream_of(form, folder):
    """A stream of TABLE, and whether it has the columns' names."""
    columns = dict(target="y", weight="w")
    if form == "file":
        pq.write_table(TABLE, folder / "all.parquet", row_group_size=300)
        return Stream(folder / "all.parquet", **columns)
    if form == "folder":
        for i, first in enumerate(range(0, N, 500)):
            pq.write_table(TABLE.slice(first, 500), folder / f"{i}.parquet")
        return Stream(str(folder), **columns)
    if form == "dataset":
        from pyarrow import dataset

        pq.write_table(TABLE, folder / "all.parquet")
        return Stream(dataset.dataset(folder), features=COLUMNS, **columns)
    tables = [TABLE.slice(first, 200) for first in range(0, N, 200)]
    if form == "reader":
        some = [batch for table in tables for batch in table.to_batches()]
        return Stream(lambda: pa.RecordBatchReader.from_batches(TABLE.schema, some), **columns)
    if form == "pandas":
        return Stream(lambda: (table.to_pandas() for table in tables), **columns)
    if form == "polars":
        return Stream(lambda: map(pl.from_arrow, tables), **columns)
    return Stream(tables, features=COLUMNS, **columns)


FORMS = ["file", "folder", "dataset", "reader", "pandas", "polars", "list"]


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_any_kind_give_the_numbers_of_arrays(form, tmp_path):
    stream = stream_of(form, tmp_path)
    found = MLPRegressor(**SETTINGS, standardize=True).fit(stream)
    expected = MLPRegressor(**SETTINGS, standardize=True).fit(X, SCORE, WEIGHT)
    assert_same(found, expected)
    assert found.feature_names_in_.tolist() == COLUMNS
    parts = list(stream.map(found.predict))
    assert len(parts) > 1 or form in ("file", "dataset")
    np.testing.assert_array_equal(np.concatenate(parts), expected.predict(X))


def test_columns_of_float32_are_trained_on_in_float32(tmp_path):
    table = pa.table({**dict(zip(COLUMNS, X.T.astype(np.float32), strict=True)), "y": SCORE})
    pq.write_table(table, tmp_path / "all.parquet")
    found = MLPRegressor(**SETTINGS).fit(Stream(tmp_path / "all.parquet", target="y"))
    assert_same(found, MLPRegressor(**SETTINGS).fit(X.astype(np.float32), SCORE))


def test_a_column_is_told_from_others_whose_names_begin_with_its_name(tmp_path):
    """Parquet calls what is nested in a column "a" "a.b"."""
    table = pa.table({"a.b": [{"c": 1.0}, {"c": 2.0}], "a": [3.0, 4.0], "y": [0, 1]})
    pq.write_table(table, tmp_path / "all.parquet")
    stream = Stream(tmp_path / "all.parquet", features=["a"], target="y")
    np.testing.assert_array_equal(list(stream.map(lambda X: X["a"].to_pylist())), [[3.0, 4.0]])


def test_several_columns_may_be_the_target(tmp_path):
    table = TABLE.append_column("z", pa.array(X[:, 0]))
    pq.write_table(table, tmp_path / "all.parquet")
    stream = Stream(tmp_path / "all.parquet", features=COLUMNS, target=["y", "z"])
    found = MLPRegressor(**SETTINGS).fit(stream)
    assert_same(found, MLPRegressor(**SETTINGS).fit(X, np.column_stack([SCORE, X[:, 0]])))


def test_a_scorer_of_tables_does_not_warn_of_names(recwarn):
    tables = [TABLE.slice(first, 200) for first in range(0, N, 200)]
    settings = dict(SETTINGS, early_stopping=True, scoring="r2")
    MLPRegressor(**settings).fit(Stream(tables, features=COLUMNS, target="y"))
    assert not [w for w in recwarn if "feature names" in str(w.message)]


def test_columns_of_pandas_may_have_numbers_for_names():
    frame = pd.DataFrame(np.column_stack([X, SCORE]))
    found = MLPRegressor(**SETTINGS).fit(Stream([frame[:500], frame[500:]], target=D))
    assert_same(found, MLPRegressor(**SETTINGS).fit(X, SCORE))


def test_text_and_integers_of_tables_are_labels(tmp_path):
    make, y = TARGETS["two classes"]
    frame = pd.DataFrame(X, columns=COLUMNS).assign(y=y)
    frame.to_parquet(tmp_path / "all.parquet")
    found = make(**SETTINGS).fit(Stream(tmp_path / "all.parquet", target="y", buffer_rows=400))
    assert found.classes_.tolist() == ["no", "yes"]
    assert accuracy_score(y, found.predict(frame[COLUMNS])) > 0.4


def files_in(folder):
    """What this process has open or mapped there, of files with a name and without."""
    if sys.platform != "linux":
        return os.listdir(folder)
    found = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    opened = [os.readlink(path) for path in found if os.path.lexists(path)]
    with open("/proc/self/maps") as file:
        opened += [line.split(maxsplit=5)[-1] for line in file]
    return os.listdir(folder) + [path for path in opened if path.startswith(str(folder))]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("buffer_rows, mapped", [(150, 160), (150, 400), (150, N), (2000, 1)])
def test_a_cache_on_disk_changes_no_bit(
    kind, weighted, early_stopping, buffer_rows, mapped, tmp_path, monkeypatch
):
    """However many buffers are mapped at once."""
    monkeypatch.setattr(_stream_examples, "_AHEAD", mapped * D)
    make, y = TARGETS[kind]
    arrays = (X, y, WEIGHT) if weighted else (X, y)
    settings = dict(SETTINGS, standardize=True, early_stopping=early_stopping)
    n_passes = itertools.count()

    def give():
        next(n_passes)
        return batches(*arrays)()

    found = make(**settings).fit(Stream(give, buffer_rows=buffer_rows, cache=tmp_path))
    assert next(n_passes) == 1
    assert not files_in(tmp_path)
    assert_same(found, make(**settings).fit(Stream(batches(*arrays), buffer_rows=buffer_rows)))


@pytest.mark.parametrize(
    "more",
    [
        {"class_weight": "balanced"},
        {"class_weight": {"yes": 3.0}, "early_stopping": True},
        {"max_iter": 1},
        {"shuffle": False, "max_iter": 7},
    ],
    ids=str,
)
def test_a_cache_goes_with_labels_of_text_and_columns_of_float32(more, tmp_path):
    y = TARGETS["two classes"][1].astype(object)
    columns = dict(zip(COLUMNS, X.T.astype(np.float32), strict=True))
    pq.write_table(pa.table({**columns, "y": y}), tmp_path / "all.parquet", row_group_size=300)
    fits = [
        MLPClassifier(**{**SETTINGS, **more}).fit(
            Stream(tmp_path / "all.parquet", target="y", buffer_rows=150, cache=cache)
        )
        for cache in (None, tmp_path)
    ]
    assert_same(*fits)
    assert fits[0].coefs_[0].dtype == np.float32


@pytest.mark.parametrize("early_stopping", [False, True])
def test_cached_epochs_train_on_the_file_some_rows_at_a_time(early_stopping, tmp_path, monkeypatch):
    monkeypatch.setattr(_stream_examples, "_AHEAD", 1)
    run, trained, n_mapped = Trainer._run, [], []

    def noted(self, data, rows):
        for array in (data.X, data.targets, data.weights):
            while array.base is not None and not isinstance(array, np.memmap):
                array = array.base
            assert isinstance(array, np.memmap)
        assert len(rows) <= len(data.X) < 200
        trained.extend(data.X[rows, 0])
        n_mapped.append(sum("/" in path for path in files_in(tmp_path)))
        return run(self, data, rows)

    monkeypatch.setattr(Trainer, "_run", noted)
    settings = dict(SETTINGS, early_stopping=early_stopping, max_iter=3)
    model = MLPRegressor(**settings)
    model.fit(Stream(batches(X, SCORE, WEIGHT), buffer_rows=96, cache=tmp_path))
    assert len(trained) == model.t_
    of_epochs = np.sort(np.reshape(trained, (3, -1)), axis=1)
    assert (of_epochs == of_epochs[0]).all()
    assert len(set(of_epochs[0])) == model.t_ / 3
    if sys.platform == "linux":  # 6 files; 3 windows of each of 3, opened and mapped
        assert max(n_mapped) <= 6 + 3 * 3 * 2
    assert not files_in(tmp_path)


@pytest.mark.parametrize("cached", [False, True])
def test_numbers_whose_sum_is_too_large_are_trained_on(cached, tmp_path):
    large = X.copy()
    large[:, 0] = 1.5e308
    settings = dict(SETTINGS, activation="tanh")
    stream = Stream(batches(large, SCORE), cache=tmp_path if cached else None)
    assert_same(MLPRegressor(**settings).fit(stream), MLPRegressor(**settings).fit(large, SCORE))


def test_a_cache_is_removed_where_a_fit_fails(tmp_path, after_epochs):
    bad = Stream(failing((0, 4), with_nan), cache=tmp_path)
    model = MLPRegressor(**SETTINGS)
    with pytest.raises(ValueError, match="Batch 4"):
        model.fit(bad)
    assert not files_in(tmp_path)
    stream = Stream(batches(X, SCORE), cache=tmp_path, buffer_rows=64)
    with pytest.raises(ValueError, match="activation") as kept:
        MLPRegressor(**SETTINGS, activation=["relu", "tanh"]).fit(stream)
    assert not files_in(tmp_path), kept
    if hasattr(model, "set_callbacks"):  # scikit-learn 1.9

        def interrupt(estimator, fitted):
            assert files_in(tmp_path) or sys.platform != "linux"
            signal.raise_signal(signal.SIGINT)

        with pytest.warns(UserWarning, match="interrupted"):
            model.set_callbacks(after_epochs(interrupt)).fit(stream)
        assert model.n_iter_ == 1
        assert not files_in(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of a file")
def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path):
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    model = MLPRegressor(**SETTINGS, warm_start=True).fit(X, SCORE)
    before = joblib.hash(vars(model))
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
    try:
        with pytest.raises(OSError, match=f"cache of the stream in '{tmp_path}'.*more room"):
            model.fit(Stream(batches(X, SCORE), cache=tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert joblib.hash(vars(model)) == before
    assert not files_in(tmp_path)
    with pytest.raises(ValueError, match="cache must be a folder"):
        Stream(batches(X, SCORE), cache=tmp_path / "nowhere")


def failing(where, replace, y=SCORE):
    """Batches of which number ``where[1]`` is another from pass ``where[0]`` on."""
    passes = itertools.count()

    def give():
        current = next(passes)
        for number, batch in enumerate(batches(X, y)()):
            if (current, number) == where:
                batch = replace(*batch)
                if batch is None:
                    return
            yield batch

    return give


def with_nan(x, y):
    x = x.copy()
    x[3, 2] = np.nan
    return x, y


BAD = {
    "NaN": (with_nan, "NaN"),
    "infinite y": (lambda x, y: (x, np.where(y == y[0], np.inf, y)), "infinity"),
    "columns": (lambda x, y: (x[:, 1:], y), "4 features"),
    "type": (lambda x, y: (x.astype(np.float32), y), "float32"),
    "length": (lambda x, y: (x, y[1:]), "inconsistent"),
    "dimensions": (lambda x, y: (x, np.column_stack([y, y])), "dimensions"),
    "weights": (lambda x, y: (x, y, np.ones(len(y))), "sample_weight"),
    "sparse": (lambda x, y: (sp.csr_array(x), y), "Whether X is sparse is True, but False"),
    "text": (lambda x, y: (x.astype(str) + np.array("a"), y), "numbers"),
    "no y": (lambda x, y: (x,), "no y"),
    "no batch": (lambda x, y: x, "tuple"),
}


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("bad", BAD)
def test_bad_batches_are_named_and_leave_the_estimator_as_it_was(bad, first):
    replace, match = BAD[bad]
    model = MLPRegressor(**SETTINGS, warm_start=True).fit(X, SCORE)
    before = joblib.hash(vars(model))
    stream = Stream(failing((first, 4), replace), buffer_rows=64)
    with pytest.raises((ValueError, TypeError), match=f"(?s)Batch 4 .*row 400.*{match}"):
        model.fit(stream)
    assert joblib.hash(vars(model)) == before
    fresh = MLPRegressor(**SETTINGS)
    with pytest.raises((ValueError, TypeError), match="Batch 4"):
        fresh.fit(Stream(failing((first, 4), replace)))
    assert vars(fresh) == vars(MLPRegressor(**SETTINGS))
    assert not [thread for thread in threading.enumerate() if "fastnn" in thread.name]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    "more", [{}, {"early_stopping": True, "standardize": True}, {"scoring": "loss"}], ids=str
)
def test_validation_examples_in_batches_are_those_of_arrays(kind, weighted, cached, more, tmp_path):
    make, y = TARGETS[kind]
    held = tuple(array[:400] for array in ((X, y, WEIGHT) if weighted else (X, y)))
    settings = dict(SETTINGS, **more)
    names = "X_val", "y_val", "sample_weight_val"
    expected = make(**settings).fit(X, y, **dict(zip(names, held, strict=False)))
    for given, size in (((X, y), 37), ((Stream(batches(X, y)),), 1000)):
        X_val = Stream(batches(*held, size=size), cache=tmp_path if cached else None)
        assert_same(make(**settings).fit(*given, X_val=X_val), expected)
    assert not files_in(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_validation_examples_may_be_tables(form, tmp_path):
    settings = dict(SETTINGS, standardize=True, standardize_target=True, early_stopping=True)
    expected = MLPRegressor(**settings)
    expected.fit(
        TABLE.select(COLUMNS),
        SCORE,
        X_val=TABLE.select(COLUMNS),
        y_val=SCORE,
        sample_weight_val=WEIGHT,
    )
    found = MLPRegressor(**settings)
    found.fit(TABLE.select(COLUMNS), SCORE, X_val=stream_of(form, tmp_path))
    assert_same(found, expected)


def test_validation_examples_are_read_once_in_each_epoch_and_to_learn_of_them():
    """And the first row once more, so that all is compiled before the first epoch."""
    read = []

    def give():
        for number, batch in enumerate(batches(X, SCORE)()):
            read.append(number)
            yield batch

    MLPRegressor(**SETTINGS).fit(X, SCORE, X_val=Stream(give))
    each = list(range(13))
    assert read == [*each, 0, 1] + each * SETTINGS["max_iter"]


def test_ctrl_c_while_validation_examples_are_read_ends_the_fit():
    closed, passes = [], itertools.count()

    def give():
        number = next(passes)
        try:
            for i, batch in enumerate(batches(X, SCORE)()):
                if (number, i) == (3, 5):  # of the second epoch
                    signal.raise_signal(signal.SIGINT)
                yield batch
        finally:
            closed.append(number)

    settings = dict(SETTINGS, early_stopping=True)
    with pytest.warns(UserWarning, match="interrupted"):
        model = MLPRegressor(**settings).fit(X, SCORE, X_val=Stream(give))
    assert model.stop_reason_ == "interrupted"
    assert len(model.loss_curve_) == len(model.validation_scores_) == model.n_iter_ == 2
    assert np.isnan(model.validation_scores_[1])
    assert model.best_epoch_ == 1
    assert closed == [0, 1, 2, 3]


VALIDATION_BAD = {
    "NaN": (with_nan, "NaN"),
    "columns": (lambda x, y: (x[:, 1:], y), "4 features"),
    "outputs": (lambda x, y: (x, np.column_stack([y, y])), "dimensions"),
    "sparse": (lambda x, y: (sp.csr_array(x), y), "sparse"),
    "infinite y": (lambda x, y: (x, np.where(y == y[0], np.inf, y)), "infinity"),
    "no y": (lambda x, y: (x,), "no y"),
}


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("bad", VALIDATION_BAD)
def test_bad_batches_of_validation_examples_are_named(bad, first, tmp_path):
    replace, match = VALIDATION_BAD[bad]
    model = MLPRegressor(**SETTINGS, warm_start=True).fit(X, SCORE)
    before = joblib.hash(vars(model))
    for cache in (None, tmp_path) if first == 0 else (None,):
        X_val = Stream(failing((first, 4), replace), cache=cache)
        with pytest.raises(ValueError, match=f"(?s)Batch 4 of X_val.*row 400.*{match}"):
            model.fit(X, SCORE, X_val=X_val)
        assert joblib.hash(vars(model)) == before
        assert not files_in(tmp_path)


def test_validation_examples_that_change_or_cannot_be_used_are_errors():
    ends = failing((3, 9), lambda x, y: None)
    with pytest.raises(ValueError, match=r"X_val ended after batch 8, in validation: .* 900"):
        MLPRegressor(**SETTINGS).fit(X, SCORE, X_val=Stream(ends))
    with pytest.raises(ValueError, match="X_val yields no examples"):
        MLPRegressor(**SETTINGS).fit(X, SCORE, X_val=Stream([]))
    with pytest.raises(ValueError, match="X_val: sample_weight must not add up to zero"):
        MLPRegressor(**SETTINGS).fit(X, SCORE, X_val=Stream(batches(X, SCORE, np.zeros(N))))
    make, y = TARGETS["two classes"]
    other = failing((0, 1), lambda x, y: (x, np.full(len(y), "maybe")), y)
    with pytest.raises(ValueError, match=r"Batch 1 of X_val.*y_val has labels that y has not.*may"):
        make(**SETTINGS).fit(X, y, X_val=Stream(other))
    with pytest.raises(ValueError, match="y_val has 2 labels, but y has 3"):
        make, y = TARGETS["labels"]
        make(**SETTINGS).fit(X, y, X_val=Stream(batches(X, y[:, :2])))
    with pytest.raises(ValueError, match="X_val: standardize=True has learned from a dense X"):
        sparse = Stream([(sp.csr_array(X), SCORE)])
        MLPRegressor(**SETTINGS, standardize=True).fit(X, SCORE, X_val=sparse)


def test_a_checkpoint_goes_on_with_its_validation_stream(after_epochs):
    model, kept = MLPRegressor(**SETTINGS, early_stopping=True), []
    if not hasattr(model, "set_callbacks"):
        pytest.skip("needs the callbacks of scikit-learn 1.9")
    X_val = Stream(batches(X, SCORE))
    model.set_callbacks(after_epochs(lambda _, fitted: kept.append(fitted)))
    model.fit(X, SCORE, X_val=X_val)
    resumed = kept[1].set_callbacks().set_params(warm_start=True)
    assert_same(resumed.fit(X, SCORE, X_val=X_val), model)


def test_a_stream_that_ends_early_or_goes_on_longer_is_an_error():
    ends = failing((2, 9), lambda x, y: None)
    with pytest.raises(ValueError, match=r"ended after batch 8, in epoch 2: .* 900 .* 1234"):
        MLPRegressor(**SETTINGS).fit(Stream(ends))
    longer = failing((1, 12), lambda x, y: (X, SCORE))
    with pytest.raises(ValueError, match=r"Batch 12 .*in epoch 1: .*more examples than the 1234"):
        MLPRegressor(**SETTINGS).fit(Stream(longer, buffer_rows=100))


def test_a_stream_without_examples_is_an_error():
    for source in ([], lambda: iter(()), [(X[:0], SCORE[:0])]):
        with pytest.raises(ValueError, match="yields no examples"):
            MLPRegressor().fit(Stream(source))
    with pytest.raises(ValueError, match="only once"):
        Stream(batches(X, SCORE)())


def test_labels_that_are_new_in_a_later_epoch_are_an_error():
    make, y = TARGETS["two classes"]
    for label in ("maybe", "zzz"):
        new = failing((2, 1), lambda x, y, label=label: (x, np.full(len(y), label)), y)
        with pytest.raises(ValueError, match=f"Batch 1 .*in epoch 2.*labels.*{label}"):
            make(**SETTINGS).fit(Stream(new))


def test_a_batch_with_other_labels_than_the_first_is_an_error():
    make, y = TARGETS["labels"]
    fewer = failing((0, 4), lambda x, y: (x, y[:, :2]), y)
    with pytest.raises(ValueError, match=r"(?s)Batch 4 .*y has 2 labels, but 3 in the first batch"):
        make(**SETTINGS).fit(Stream(fewer))


def test_columns_of_truth_values_are_zeros_and_ones():
    flags = X > 0
    table = pa.table({**dict(zip(COLUMNS, flags.T, strict=True)), "y": SCORE})
    found = MLPRegressor(**SETTINGS).fit(Stream([table], target="y"))
    assert_same(found, MLPRegressor(**SETTINGS).fit(flags.astype(float), SCORE))


def test_columns_that_change_are_an_error():
    renamed = TABLE.rename_columns([*COLUMNS[:-1], "other", "y", "w"])
    tables = [TABLE.slice(0, 500), renamed.slice(500)]
    with pytest.raises(ValueError, match=r"(?s)Batch 1 .*feature names.*other"):
        MLPRegressor(**SETTINGS).fit(Stream(tables, target="y", weight="w"))
    with pytest.raises(ValueError, match=r"Batch 0 .*no column.*price"):
        MLPRegressor(**SETTINGS).fit(Stream(tables, target="price"))


FRAME = pd.DataFrame({"a": [0.0, 1.0], "b": [1.0, 0.0], "t": [0, 1]})
MISTAKES = [
    (FRAME, {}, TypeError, "A DataFrame is one batch"),
    (pa.table({"a": [1.0]}), {}, TypeError, "A Table is one batch"),
    (pl.LazyFrame({"a": [1.0]}), {}, TypeError, "A LazyFrame is one batch"),
    (None, {}, TypeError, "source must be a path, .* got None"),
    (3, {}, TypeError, "source must be a path, .* got 3"),
    ([FRAME], {"features": "ab"}, TypeError, "features must be a list of names, got 'ab'"),
    ([FRAME], {"features": ["a", "t"], "target": "t"}, ValueError, r"\['t'\] of target or weight"),
    ([FRAME], {"features": ["a", "b"], "weight": "b"}, ValueError, r"\['b'\] of target or weight"),
    (lambda: None, {}, TypeError, "must give batches, got None"),
    ([(np.eye(2), [0, 1], [1, 1], [0, 0])], {}, ValueError, "this one has 4 entries"),
]


@pytest.mark.parametrize("source, arguments, error, message", MISTAKES)
def test_a_source_that_cannot_be_one_says_why(source, arguments, error, message):
    with pytest.raises(error, match=message):
        MLPClassifier(batch_size=2).fit(Stream(source, **arguments))


def test_a_function_that_gives_its_batches_only_once_is_an_error():
    once = iter([(np.eye(2), [0, 1])])
    with pytest.raises(ValueError, match="each call of its function must give the batches anew"):
        MLPClassifier(batch_size=2).fit(Stream(lambda: once))


def test_what_takes_arrays_says_how_a_stream_is_predicted():
    stream = Stream([(np.eye(2), [0, 1])])
    model = MLPClassifier(max_iter=1).fit(np.eye(2), [0, 1])
    for method in (model.predict, model.predict_proba, lambda X: model.score(X, [0, 1])):
        with pytest.raises(TypeError, match=r"stream\.map\(model\.predict\)"):
            method(stream)
    alone = "for X and X_val of fit of MLPClassifier and MLPRegressor alone"
    with pytest.raises(TypeError, match=alone):
        TabularClassifier().fit(stream, [0, 1])
    with pytest.raises(TypeError, match=alone):
        TabularClassifier().fit(np.eye(2), [0, 1], X_val=stream, y_val=[0, 1])


def test_files_with_other_columns_are_an_error(tmp_path):
    def written(features, n_columns=D, **changed):
        columns = {name: X[:100, i] for i, name in enumerate(COLUMNS[:n_columns])} | changed
        pq.write_table(pa.table({**columns, "y": SCORE[:100]}), tmp_path / "1.parquet")
        return Stream(tmp_path, target="y", features=features)

    pq.write_table(TABLE.drop_columns("w"), tmp_path / "0.parquet")
    for features in (None, COLUMNS):
        with pytest.raises(ValueError, match=r"(?s)Batch 1 .*row 1234.*x4"):
            MLPRegressor(**SETTINGS).fit(written(features, D - 1))
        with pytest.raises(ValueError, match=r"(?s)Batch 1 .*row 1234.*x2.*of type"):
            dates = np.zeros(100, "datetime64[us]")
            MLPRegressor(**SETTINGS).fit(written(features, x2=dates))
        with pytest.raises(ValueError, match=r"(?s)Batch 1 .*row 1234.*could not convert"):
            MLPRegressor(**SETTINGS).fit(written(features, x2=["a"] * 100))
        expected = MLPRegressor(**SETTINGS).fit(
            np.vstack([X, X[:100, ::-1]]), np.append(SCORE, SCORE[:100])
        )
        found = MLPRegressor(**SETTINGS).fit(
            written(features, **{name: X[:100, -1 - i] for i, name in enumerate(COLUMNS)})
        )
        assert_same(found, expected)
    with pytest.raises(ValueError, match=r"(?s)Batch 1 .*row 1234.*other"):
        MLPRegressor(**SETTINGS).fit(written(None, other=X[:100, 0]))


def test_numbers_of_tables_are_those_of_their_columns():
    """Integers of all sizes, columns in several chunks, missing numbers."""
    n = 5000
    rng = np.random.default_rng(0)
    columns = {
        "a": rng.integers(-(2**62), 2**62, n),
        "b": rng.integers(0, 2**63, n).astype(np.uint64) * 2,
        "c": rng.standard_normal(n).astype(np.float32),
        "d": rng.integers(-100, 100, n).astype(np.int8),
        "e": rng.standard_normal(n),
    }
    for names in ("abcde", "ab", "cd", "ad", "bc", "d"):
        table = pa.concat_tables(
            [pa.table({c: columns[c][i : i + 1700] for c in names}) for i in range(0, n, 1700)]
        )
        expected = np.column_stack([columns[name].astype(np.float64) for name in names])
        np.testing.assert_array_equal(numbers_of(table), expected)
    assert np.isnan(numbers_of(pa.table({"a": [1, None], "b": [1, 2]}))).sum() == 1


def test_what_goes_with_arrays_alone_is_an_error():
    stream = Stream(batches(X, SCORE))
    for arguments in ((stream, SCORE), (stream, None, WEIGHT)):
        with pytest.raises(ValueError, match="in its batches"):
            MLPRegressor().fit(*arguments)
    with pytest.raises(ValueError, match=r"solver='lbfgs' .*Stream.*'adam'"):
        MLPRegressor(solver="lbfgs").fit(stream)
    with pytest.raises(ValueError, match="partial_fit"):
        MLPRegressor().partial_fit(stream, None)
    with pytest.raises(ValueError, match="does not fit into buffer_rows=100"):
        MLPRegressor(batch_size="full").fit(Stream(batches(X, SCORE), buffer_rows=100))
    with pytest.raises(TypeError, match=r"Stream is for X and X_val of fit of MLP.*stream\.map"):
        MLPRegressor(**SETTINGS).fit(X, SCORE).predict(stream)
    for more in ({"y_val": SCORE}, {"sample_weight_val": WEIGHT}):
        with pytest.raises(ValueError, match=r"X_val is a Stream, .*leave y_val and sample_weight"):
            MLPRegressor().fit(X, SCORE, X_val=stream, **more)
    with pytest.raises(ValueError, match="X_val and y_val are not used by solver='lbfgs'"):
        MLPRegressor(solver="lbfgs").fit(X, SCORE, X_val=stream)
    with pytest.raises(ValueError, match="scoring='r2' takes all validation examples at once"):
        MLPRegressor(scoring="r2").fit(X, SCORE, X_val=stream)
    with pytest.raises(ValueError, match="buffer_rows must be"):
        Stream(batches(X, SCORE), buffer_rows=0)
    with pytest.raises(ValueError, match="requires y"):
        MLPRegressor().fit(X)


def test_an_error_of_the_source_is_raised_as_it_is():
    def give():
        yield X, SCORE
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        MLPRegressor(**SETTINGS).fit(Stream(give))


def test_weights_that_add_up_to_zero_are_an_error():
    with pytest.raises(ValueError, match="sample_weight must not add up to zero"):
        MLPRegressor(**SETTINGS).fit(Stream(batches(X, SCORE, np.zeros(N))))


def test_a_source_is_closed_also_if_training_stops_in_the_middle(after_epochs):
    """By callbacks, time or an error; what it opened is closed in the thread that read it."""
    opened, closed = [], []

    def give():
        opened.append(threading.get_ident())
        try:
            yield from batches(X, SCORE)()
        finally:
            closed.append(threading.get_ident())

    MLPRegressor(**{**SETTINGS, "max_iter": 1000}, max_time=0.05).fit(Stream(give, buffer_rows=64))
    assert len(opened) > 2
    assert opened == closed
    model = MLPRegressor(**SETTINGS)
    if hasattr(model, "set_callbacks"):  # scikit-learn 1.9

        def stop(estimator, fitted):
            raise RuntimeError("enough")

        model.set_callbacks(after_epochs(stop))
        with pytest.raises(RuntimeError, match="enough"):
            model.fit(Stream(give, buffer_rows=64))
        assert opened == closed


def test_a_source_may_fill_the_same_arrays_again():
    def give():
        x, y = np.empty((100, D)), np.empty(100)
        for some in batches(X[:1200], SCORE[:1200])():
            x[...], y[...] = some
            yield x, y

    for more in ({}, {"standardize": True, "standardize_target": True, "early_stopping": True}):
        for buffer_rows in (130, 10_000):
            found, expected = (
                MLPRegressor(**SETTINGS, **more).fit(Stream(source, buffer_rows=buffer_rows))
                for source in (give, batches(X[:1200], SCORE[:1200]))
            )
            assert_same(found, expected)


def test_ctrl_c_does_not_wait_for_a_buffer():
    read = itertools.count()
    passes = itertools.count()
    n_read = []

    def give():
        slow = next(passes) > 0
        for number, batch in enumerate(batches(X, SCORE, size=4)()):
            n_read.append(next(read))
            if slow:
                time.sleep(0.01)
                if number == 3:
                    n_read.clear()
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            yield batch

    with pytest.warns(UserWarning, match="interrupted"):
        model = MLPRegressor(**SETTINGS).fit(Stream(give))
    assert model.stop_reason_ == "interrupted"
    assert len(n_read) < 200  # of the 305 that are left of the pass


def test_the_last_epoch_reads_nothing_ahead():
    calls = []

    def give():
        calls.append(1)
        return batches(X, SCORE)()

    MLPRegressor(**SETTINGS).fit(Stream(give, buffer_rows=64))
    assert len(calls) == 1 + SETTINGS["max_iter"]


def test_a_checkpoint_goes_on_with_its_stream(after_epochs):
    make, y = TARGETS["two classes"]
    settings = dict(SETTINGS, early_stopping=True, max_iter=6, dropout=0.1)
    model, kept = make(**settings), []
    if not hasattr(model, "set_callbacks"):
        pytest.skip("needs the callbacks of scikit-learn 1.9")
    stream = Stream(batches(X, y), buffer_rows=200)
    model.set_callbacks(after_epochs(lambda _, fitted: kept.append(fitted))).fit(stream)
    resumed = kept[2].set_callbacks().set_params(warm_start=True)
    assert_same(resumed.fit(stream), model)


def test_the_source_is_read_while_kernels_train():
    """Each batch and each buffer sleep: one after the other would take the sum of both."""
    n, pause = 8, 0.05
    x, y = np.zeros((n * 200, 3)), np.arange(n * 200.0)

    def give():
        for batch in batches(x, y, size=200)():
            time.sleep(pause)
            yield batch

    run = Trainer._run

    def slow(self, data, rows):
        time.sleep(pause)
        return run(self, data, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_run", slow)
        started = time.perf_counter()
        MLPRegressor(hidden_layer_sizes=2, max_iter=5).fit(Stream(give, buffer_rows=200))
        seconds = time.perf_counter() - started
    assert seconds < (1 + 5 + 0.7 * 5) * n * pause  # the sum: 1 + 5 + 5


WORDS = 60
COUNTS = sp.random_array((N, WORDS), density=0.1, rng=RNG, format="csr")
COUNTS = sp.vstack([COUNTS[:200], 0 * COUNTS[200:330], COUNTS[330:]], format="csr")
COUNTS.eliminate_zeros()


def with_duplicates(X):
    """CSR whose entries are halved, each there twice, and in descending order of columns."""
    X = X.tocsr()
    data, columns = (np.repeat(a[::-1], 2) for a in (X.data / 2, X.indices))
    return sp.csr_array((data, columns, 2 * (X.nnz - X.indptr[::-1])), X.shape)[::-1]


def with_long_indices(X):
    X = sp.csr_array(X)
    X.indices, X.indptr = X.indices.astype(np.int64), X.indptr.astype(np.int64)
    return X


def in_blocks_of_columns(X):
    return pd.DataFrame.sparse.from_spmatrix(X, columns=[f"w{i}" for i in range(WORDS)])


SPARSE = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc_array": sp.csc_array,
    "csc_matrix": sp.csc_matrix,
    "coo_array": sp.coo_array,
    "lil_matrix": sp.lil_matrix,
    "int64 indices": with_long_indices,
    "duplicates": with_duplicates,
    "pandas": in_blocks_of_columns,
}


def sparse_batches(form, *arrays, T=float, size=100):
    """A function like ``batches``, whose first arrays are sparse and of this form."""

    def give():
        for x, *others in batches(COUNTS.astype(T), *arrays, size=size)():
            yield SPARSE[form](x), *others

    return give


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"standardize": True, "early_stopping": True},
        {"early_stopping": True, "scoring": "r2", "shuffle": False},
        {"lazy_update": True, "dropout": 0.2},
    ],
    ids=lambda more: "+".join(more),
)
def test_sparse_batches_give_the_numbers_of_fit(form, more):
    stream = Stream(sparse_batches(form, SCORE, WEIGHT))
    found = MLPRegressor(**SETTINGS, **more).fit(stream)
    given = SPARSE["csr_array" if form == "duplicates" else form](COUNTS)
    expected = MLPRegressor(**SETTINGS, **more).fit(given, SCORE, WEIGHT)
    assert_same(found, expected)
    parts = list(stream.map(found.predict))
    np.testing.assert_array_equal(np.concatenate(parts), expected.predict(given))


@pytest.mark.parametrize("kind", ["two classes", "three classes", "labels"])
def test_sparse_batches_go_with_classes(kind):
    make, y = TARGETS[kind]
    settings = dict(SETTINGS, class_weight="balanced", early_stopping=True)
    found = make(**settings).fit(Stream(sparse_batches("csr_matrix", y)))
    assert_same(found, make(**settings).fit(COUNTS, y))


@pytest.mark.parametrize("T", [np.float32, np.float64])
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("more", [{}, {"lazy_update": True}, {"early_stopping": True}], ids=str)
def test_neither_threads_nor_a_cache_nor_the_cut_change_bits_of_sparse_batches(
    T, n_threads, cached, more, tmp_path, monkeypatch
):
    monkeypatch.setattr(_stream_examples, "_AHEAD", 3000)
    make, y = TARGETS["three classes"]
    settings = dict(SETTINGS, standardize=True, **more)
    fits = [
        make(**settings, n_threads=n).fit(
            Stream(sparse_batches(form, y, T=T, size=size), buffer_rows=150, cache=cache)
        )
        for n, form, size, cache in (
            (1, "csr_array", 1000, None),
            (n_threads, "csc_matrix", 37, tmp_path if cached else None),
        )
    ]
    assert_same(*fits)
    assert fits[0].coefs_[0].dtype == T
    assert not files_in(tmp_path)


def test_without_shuffling_sparse_rows_in_a_small_buffer_give_the_numbers_of_fit():
    """Also where buffers have more entries than the first ones had."""
    settings = dict(SETTINGS, shuffle=False)
    growing = sp.vstack([COUNTS * 0, COUNTS, np.ones((200, WORDS))], format="csr")
    growing.eliminate_zeros()
    y = np.resize(SCORE, growing.shape[0])
    expected = MLPRegressor(**settings).fit(growing, y)
    for buffer_rows in (32, 500, 10_000):
        stream = Stream(batches(growing, y), buffer_rows=buffer_rows)
        assert_same(MLPRegressor(**settings).fit(stream), expected)


def test_cached_sparse_rows_are_trained_on_where_they_are(tmp_path, monkeypatch):
    run, sizes = Trainer._run, []

    def noted(self, data, rows):
        for array in (data.values, data.columns):
            while array.base is not None and not isinstance(array, np.memmap):
                array = array.base
            assert isinstance(array, np.memmap)
        sizes.append(len(data.row_starts) - 1)
        return run(self, data, rows)

    monkeypatch.setattr(Trainer, "_run", noted)
    monkeypatch.setattr(_stream_examples, "_AHEAD", 1)
    stream = Stream(sparse_batches("csr_array", SCORE), buffer_rows=96, cache=tmp_path)
    MLPRegressor(**SETTINGS).fit(stream)
    assert sizes == ([96] * 12 + [N - 12 * 96]) * 4


SPARSE_BAD = {
    "NaN": (lambda x, y: (x * np.nan, y), "NaN"),
    "columns": (lambda x, y: (x[:, 1:], y), "59 features"),
    "dense": (lambda x, y: (x.toarray(), y), "Whether X is sparse is False, but True"),
    "type": (lambda x, y: (x.astype(np.float32), y), "float32"),
    "length": (lambda x, y: (x, y[1:]), "inconsistent"),
    "weights": (lambda x, y: (x, y, np.ones(3)), r"shape \(3,\)"),
}


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize("bad", SPARSE_BAD)
def test_bad_sparse_batches_are_named_and_leave_the_estimator_as_it_was(bad, first):
    replace, match = SPARSE_BAD[bad]
    model = MLPRegressor(**SETTINGS, warm_start=True).fit(COUNTS, SCORE)
    before = joblib.hash(vars(model))
    passes = itertools.count()

    def give():
        current = next(passes)
        for number, batch in enumerate(sparse_batches("csr_array", SCORE)()):
            yield replace(*batch) if (current, number) == (first, 4) else batch

    with pytest.raises(ValueError, match=f"(?s)Batch 4 .*row 400.*{match}"):
        model.fit(Stream(give, buffer_rows=64))
    assert joblib.hash(vars(model)) == before
    assert not [thread for thread in threading.enumerate() if "fastnn" in thread.name]


def test_lazy_updates_of_dense_batches_are_an_error():
    with pytest.raises(ValueError, match="lazy_update=True is for sparse X"):
        MLPRegressor(**SETTINGS, lazy_update=True).fit(Stream(batches(X, SCORE)))


def test_a_source_may_fill_the_same_sparse_arrays_again():
    given = COUNTS[:1200]
    full = sp.csr_array(np.ones((100, WORDS)))

    def give():
        x, y = full.copy(), np.empty(100)
        for some, of_some in batches(given, SCORE[:1200])():
            x.data[...], y[...] = some.toarray().ravel(), of_some
            yield x, y

    for more in ({}, {"standardize": True, "standardize_target": True, "early_stopping": True}):
        for buffer_rows in (130, 10_000):
            found, expected = (
                MLPRegressor(**SETTINGS, **more).fit(Stream(source, buffer_rows=buffer_rows))
                for source in (give, batches(given, SCORE[:1200]))
            )
            np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_)


def test_a_checkpoint_goes_on_with_sparse_batches(after_epochs):
    model, kept = MLPRegressor(**SETTINGS, early_stopping=True, standardize=True), []
    if not hasattr(model, "set_callbacks"):
        pytest.skip("needs the callbacks of scikit-learn 1.9")
    stream = Stream(sparse_batches("csr_array", SCORE), buffer_rows=200)
    model.set_callbacks(after_epochs(lambda _, fitted: kept.append(fitted))).fit(stream)
    resumed = kept[1].set_callbacks().set_params(warm_start=True)
    assert_same(resumed.fit(stream), model)


def test_memory_is_two_buffers_of_entries():
    d, peaks = 2_000, []

    def give(n):
        def batches():
            rng = np.random.default_rng(0)
            for _ in range(n):
                columns = np.sort(rng.integers(0, d, (1000, 50)), axis=1)
                columns[:, 1:] += columns[:, 1:] == columns[:, :-1]
                entries = np.ones(columns.size, np.float32), columns.ravel() % d
                x = sp.csr_array((*entries, np.arange(1001) * 50), (1000, d))
                yield x, columns[:, 0].astype(float)

        return batches

    settings = dict(hidden_layer_sizes=1, max_iter=2, lazy_update=True, batch_size=1000)
    MLPRegressor(**settings).fit(Stream(give(2)))  # compiles
    for n in (20, 60):
        tracemalloc.start()
        model = MLPRegressor(**settings).fit(Stream(give(n), buffer_rows=8_000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert model.t_ == 2 * n * 1000
    two_buffers = 2 * 8_000 * 50 * 8
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 2 * two_buffers


@pytest.mark.parametrize("cached", [False, True])
def test_memory_is_two_buffers_whatever_the_stream_has(cached, tmp_path):
    d, peaks, cache = 50, [], tmp_path if cached else None

    def give(n):
        def batches():
            rng = np.random.default_rng(0)
            for _ in range(n):
                x = rng.standard_normal((1000, d), np.float32)
                yield x, x[:, 0]

        return batches

    settings = dict(hidden_layer_sizes=3, max_iter=2, standardize=True)
    MLPRegressor(**settings).fit(Stream(give(2)))  # compiles
    for n in (100, 300):
        tracemalloc.start()
        model = MLPRegressor(**settings).fit(Stream(give(n), buffer_rows=40_000, cache=cache))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert model.t_ == 2 * n * 1000
    two_buffers = 2 * 40_000 * (d + 1) * 4
    assert peaks[1] < 1.02 * peaks[0]
    assert peaks[1] < 1.5 * two_buffers
