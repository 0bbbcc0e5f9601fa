"""Wrong input is an error that names it; unusual input gives the usual result; inputs are kept."""

import itertools
import re
import tempfile
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn.neural_network as sk
from sklearn.exceptions import NotFittedError

from fastnn import MLPClassifier, MLPRegressor, Stream, TabularClassifier

pytestmark = pytest.mark.filterwarnings("ignore")

rng = np.random.default_rng(0)
X = np.round(rng.standard_normal((40, 4)) * 8) / 8  # exact in float16
Y = np.arange(40) % 3
Z = X @ [1.0, 2.0, -1.0, 0.5]
SETTINGS = dict(hidden_layer_sizes=(3,), max_iter=2, random_state=0)


def classifier(**settings):
    return MLPClassifier(**{**SETTINGS, **settings})


def regressor(**settings):
    return MLPRegressor(**{**SETTINGS, **settings})


NUMBERS = [None, "much", [1], 1j, np.nan]
OUTSIDE = {
    "hidden_layer_sizes": [
        *(0, -1, (3, 0), (-2,), "wide", None, 3.5, (3.5,), (3.0,), ("3",), ((3, 3),), (None,)),
        *((np.nan,), {"a": 1}),
    ],
    "activation": ["rely", None, 3, ["relu", "relu"], ("relu", 2), ("elu", "k")],
    "solver": ["newton", None, 1, ["adam"]],
    "alpha": [-1e-9, *NUMBERS],
    "batch_size": [0, -5, 1.5, "half", None],
    "learning_rate": ["fast", None, 0.1],
    "learning_rate_init": [0, -1.0, *NUMBERS],
    "power_t": [-0.1, *NUMBERS],
    "max_iter": [0, -1, 2.5, None, "many"],
    "shuffle": ["yes", 2, None],
    "random_state": [-1, "seed", 1.5],
    "tol": [-1e-9, *NUMBERS],
    "verbose": ["loud", -1],
    "warm_start": ["yes", 2, None],
    "momentum": [-0.1, 1.1, *NUMBERS],
    "nesterovs_momentum": ["yes", 2, None],
    "early_stopping": ["yes", 2, None],
    "validation_fraction": [-0.1, 1.0, *NUMBERS],
    "beta_1": [-0.1, 1.0, *NUMBERS],
    "beta_2": [-0.1, 1.0, *NUMBERS],
    "epsilon": [0.0, -1e-8, *NUMBERS],
    "n_iter_no_change": [0, -1, 1.5, None, "few"],
    "max_fun": [0, -1, 1.5, None, "few"],
    "n_threads": [0, 1.5, "all"],
    "out_activation": ["rely", 3],
    "init": ["best", 3, None],
    "standardize": ["yes", 2, None],
    "dropout": [-0.1, 1.0, "some", [0.1, 0.1], None],
    "weight_decay": [-0.1, *NUMBERS],
    "clip_norm": [0.0, -1.0, "short", [1]],
    "max_time": [0.0, -1.0, "short", [1]],
    "scoring": ["applause", 3],
    "weight_average": [0, -1, 0.0, 1.0, 1.5, "all"],
    "lazy_update": ["yes", 2, None],
}
OF_THE_CLASSIFIER = {
    "loss": ["hinge", "poisson", None, 3],
    "class_weight": ["fair", 3, (1, 2)],
    "label_smoothing": [-0.1, 1.0, *NUMBERS],
    "threshold": [-0.1, 1.1, *NUMBERS],
    "pos_label": [[1], (1,), 1j],
}
OF_THE_REGRESSOR = {
    "loss": ["hinge", "log_loss", "cross_entropy", None, 3],
    "quantile": [0.0, 1.0, -0.5, "median", None, [0.9, 0.1], [0.5, 0.5], [], [[0.5]]],
    "huber_delta": [0.0, -1.0, *NUMBERS],
    "standardize_target": ["yes", 2, None],
}
PARAMETERS = [
    (make, name, value)
    for make, own in ((classifier, OF_THE_CLASSIFIER), (regressor, OF_THE_REGRESSOR))
    for name, values in {**OUTSIDE, **own}.items()
    for value in values
]


@pytest.mark.parametrize(
    "make, name, value",
    PARAMETERS,
    ids=[f"{make.__name__}-{name}-{value!r}" for make, name, value in PARAMETERS],
)
def test_a_parameter_out_of_range_or_of_another_type(make, name, value):
    settings = {name: value, **({"early_stopping": True} if name == "scoring" else {})}
    if name == "quantile":
        settings["loss"] = "quantile"
    with pytest.raises((ValueError, TypeError)) as error:
        make(**settings).fit(X, Y)
    message = str(error.value)
    assert name in message
    shown = [repr(value)]
    if isinstance(value, tuple):
        shown.append(repr(list(value)))
    if name in ("activation", "scoring"):  # which name the function that is wrong
        shown += [str(value)]
        shown += [repr(part) for part in value] if isinstance(value, (list, tuple)) else []
    assert any(text in message for text in shown)


def broken(value, at=(3, 1)):
    changed = X.copy()
    changed[at] = value
    return changed


def as_objects(array):
    """With NumPy's own scalars."""
    found = np.empty(array.shape, object)
    for place in np.ndindex(array.shape):
        found[place] = array[place]
    return found


WEIGHT = np.ones(40)
FRAME = pd.DataFrame(X, columns=list("abcd"))
DATES = np.arange(160).reshape(40, 4).astype("M8[s]")
FITS = {
    "NaN": (classifier(), broken(np.nan), Y, {}, "X contains NaN"),
    "infinity": (classifier(), broken(np.inf), Y, {}, "X contains infinity"),
    "no rows": (classifier(), X[:0], Y[:0], {}, "0 sample"),
    "no columns": (classifier(), X[:, :0], Y, {}, "0 feature"),
    "a vector": (classifier(), X[:, 0], Y, {}, "Expected 2D array"),
    "three dimensions": (classifier(), X[None], Y, {}, "dim"),
    "a number": (classifier(), 3.0, Y, {}, "Expected 2D array"),
    "text": (classifier(), np.full((40, 4), "a"), Y, {}, "could not convert string"),
    "objects": (classifier(), np.full((40, 4), object()), Y, {}, "float"),
    "dates": (classifier(), X.astype("M8[D]"), Y, {}, "X must be numbers"),
    "time spans": (classifier(), X.astype("m8[s]"), Y, {}, "X must be numbers.*timedelta64"),
    "dates in a list": (classifier(), X.astype("M8[D]").tolist(), Y, {}, "X must be numbers"),
    "NumPy dates in a list": (classifier(), [list(r) for r in DATES], Y, {}, "X must be numbers"),
    "NumPy dates as objects": (classifier(), as_objects(DATES), Y, {}, "X must be numbers"),
    "a column of dates": (classifier(), FRAME.assign(a=DATES[:, 0]), Y, {}, "X must be numbers"),
    "columns of dates": (classifier(), pd.DataFrame(DATES), Y, {}, "X must be numbers"),
    "dates of a zone": (
        classifier(),
        FRAME.assign(a=pd.date_range("2020", periods=40, tz="UTC")),
        Y,
        {},
        "X must be numbers.*UTC",
    ),
    "a column of text": (classifier(), FRAME.assign(a="x"), Y, {}, "could not convert string"),
    "missing values": (
        classifier(),
        FRAME.astype("Float64").where(FRAME > -1),
        Y,
        {},
        "X contains NaN",
    ),
    "rows of different lengths": (classifier(), [[1, 2], [3]], [0, 1], {}, "inhomogeneous"),
    "sparse NaN": (classifier(), sp.csr_array(broken(np.nan)), Y, {}, "X contains NaN"),
    "sparse infinity": (regressor(), sp.csc_array(broken(np.inf)), Z, {}, "X contains infinity"),
    "sparse complex": (classifier(), sp.csr_array(X * 1j), Y, {}, "Complex data not supported"),
    "complex": (classifier(), X * 1j, Y, {}, "Complex data not supported"),
    "None": (classifier(), None, Y, {}, "Expected 2D array|None"),
    "y of other length": (classifier(), X, Y[:-1], {}, "inconsistent numbers of samples"),
    "y is None": (classifier(), X, None, {}, "y cannot be None|requires y"),
    "y of NaN": (regressor(), X, np.full(40, np.nan), {}, "y contains NaN"),
    "y of infinity": (regressor(), X, np.full(40, np.inf), {}, "y contains infinity"),
    "y of text": (regressor(), X, np.full(40, "a"), {}, "y must be numbers"),
    "y of text in a list": (regressor(), X, ["a"] * 40, {}, "y must be numbers"),
    "y of text as objects": (regressor(), X, np.full(40, "a", object), {}, "y must be numbers"),
    "y of bytes": (regressor(), X, np.full(40, b"a"), {}, "y must be numbers"),
    "y of dates": (regressor(), X, DATES[:, 0], {}, "y must be numbers"),
    "y of dates in a series": (regressor(), X, pd.Series(DATES[:, 0]), {}, "y must be numbers"),
    "y of None": (regressor(), X, [None] * 40, {}, "y contains NaN"),
    "y of complex": (regressor(), X, Z * 1j, {}, "Complex data not supported"),
    "y without columns": (regressor(), X, np.zeros((40, 0)), {}, "0 feature"),
    "y of three dimensions": (regressor(), X, np.zeros((40, 2, 2)), {}, "dim 3"),
    "labels of NaN": (classifier(), X, np.full(40, np.nan), {}, "y contains NaN"),
    "labels of two types": (
        classifier(),
        X,
        np.array([1, "a"] * 20, object),
        {},
        "y mixes labels of the types int and str",
    ),
    "labels of numbers as objects": (
        classifier(),
        X,
        Y.astype(object),
        {},
        r"y holds numbers \(int\) in an array of dtype object",
    ),
    "a label matrix of objects": (
        classifier(),
        X,
        np.eye(3, dtype=int)[Y].astype(object),
        {},
        "y holds numbers .* dtype object",
    ),
    "labels of None": (
        classifier(),
        X,
        np.array(["a", None] * 20, object),
        {},
        "y contains NaN or None .* 20 times, first in row 1",
    ),
    "labels of text and NaN": (
        classifier(),
        X,
        pd.Series(["a", "b", np.nan, "a"] * 10),
        {},
        "y contains NaN or None .* 10 times, first in row 2",
    ),
    "labels of bytes": (classifier(), X, np.array([b"a", b"b"] * 20), {}, "y has bytes"),
    "sets of labels": (classifier(), X, np.array([{1}, {1, 2}] * 20), {}, "y has .* type set"),
    "real numbers in a label matrix": (
        classifier(),
        X,
        np.stack([Z, Z], 1),
        {},
        "Unknown label type: continuous-multioutput. y holds real numbers such as",
    ),
    "y_val of two types": (
        classifier(),
        X,
        Y.astype(str),
        {"X_val": X, "y_val": np.array([1, "a"] * 20, object)},
        "y_val mixes labels of the types int and str",
    ),
    "several labels of classes": (classifier(), X, np.stack([Y, Y], 1), {}, "Multioutput"),
    "continuous classes": (classifier(), X, Z, {}, "label type: continuous. y holds real numbers"),
    "negative counts": (regressor(loss="poisson"), X, Z, {}, "(?i)poisson|negative|>="),
    "weights of other length": (classifier(), X, Y, {"sample_weight": [1, 2]}, "sample_weight"),
    "weights of NaN": (
        classifier(),
        X,
        Y,
        {"sample_weight": WEIGHT * np.nan},
        "sample_weight contains NaN",
    ),
    "weights of infinity": (
        classifier(),
        X,
        Y,
        {"sample_weight": WEIGHT * np.inf},
        "sample_weight contains inf",
    ),
    "weights in a table": (classifier(), X, Y, {"sample_weight": X}, "Sample weights must be 1D"),
    "no weight at all": (
        classifier(),
        X,
        Y,
        {"sample_weight": WEIGHT * 0},
        "non-zero|add up to zero",
    ),
    "weights of X_val of NaN": (
        classifier(),
        X,
        Y,
        {"X_val": X, "y_val": Y, "sample_weight_val": WEIGHT * np.nan},
        "sample_weight contains NaN",
    ),
    "weights of X_val alone": (classifier(), X, Y, {"sample_weight_val": WEIGHT}, "X_val"),
    "y_val alone": (classifier(), X, Y, {"y_val": Y}, "X_val and y_val"),
    "X_val of NaN": (classifier(), X, Y, {"X_val": broken(np.nan), "y_val": Y}, "X_val.*NaN"),
    "y_val of other length": (classifier(), X, Y, {"X_val": X, "y_val": Y[1:]}, "y_val"),
    "X_val alone": (classifier(), X, Y, {"X_val": X}, "X_val and y_val"),
    "X_val of other width": (classifier(), X, Y, {"X_val": X[:, :2], "y_val": Y}, "X_val"),
    "y_val of other labels": (classifier(), X, Y, {"X_val": X, "y_val": Y + 9}, "y_val"),
    "too few to set aside": (
        regressor(early_stopping=True),
        X[:8],
        Z[:8],
        {},
        "validation set is too small.*validation_fraction",
    ),
    "no part to set aside for a classifier": (
        classifier(early_stopping=True, validation_fraction=0),
        X,
        Y,
        {},
        "validation set is too small.*validation_fraction=0.* aside.* X_val and y_val",
    ),
    "no part to set aside for a regressor": (
        regressor(early_stopping=True, validation_fraction=0.0),
        X,
        Z,
        {"sample_weight": WEIGHT},
        "validation set is too small.*validation_fraction=0.* aside.* X_val and y_val",
    ),
    "one row to set aside": (
        regressor(early_stopping=True),
        X[:1],
        Z[:1],
        {},
        "validation set is too small.*validation_fraction=0.1 of the 1 examples aside.*X_val",
    ),
    "too few of a class to set aside": (
        classifier(early_stopping=True),
        X[:3],
        [0, 0, 1],
        {},
        "class 1 of y has only one.*X_val",
    ),
    "no place for all classes in the part set aside": (
        classifier(early_stopping=True),
        X[:4],
        [0, 0, 1, 1],
        {},
        "both parts must have at least one of each of the 2 classes",
    ),
    "all set aside": (
        regressor(early_stopping=True, validation_fraction=0.9),
        X[:4],
        Z[:4],
        {},
        "no example would be left to train on",
    ),
    "smooth labels of another loss": (
        classifier(loss="squared_error", label_smoothing=0.1),
        X,
        Y,
        {},
        "label_smoothing=0.1 is for loss='log_loss', got loss='squared_error'",
    ),
    "two billion columns": (
        classifier(),
        sp.csr_array(([1.0], ([0], [2**31 + 5])), shape=(40, 2**31 + 9)),
        Y,
        {},
        "2\\*\\*31 columns.*int32; got 2147483657",
    ),
    "two billion columns and no hidden layer": (
        regressor(hidden_layer_sizes=()),
        sp.coo_array(([1.0], ([0], [2**31])), shape=(40, 2**31 + 1)).tocsr(),
        Z,
        {},
        "int32; got 2147483649",
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_a_fit_that_cannot_be_says_why(case):
    model, X, y, given, message = FITS[case]
    with pytest.raises((ValueError, TypeError, MemoryError), match=message):
        model.fit(X, y, **given)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize("make, y", [(classifier, Y), (regressor, Z)])
def test_no_part_to_set_aside_is_no_error_where_none_is_needed(make, y):
    make(validation_fraction=0).fit(X, y).partial_fit(X, y)
    make(validation_fraction=0, early_stopping=True, solver="lbfgs").fit(X, y)
    model = make(validation_fraction=0, early_stopping=True).fit(X, y, X_val=X, y_val=y)
    assert len(model.validation_scores_) == model.n_iter_


@pytest.mark.nightly
def test_offsets_beyond_32_bits():
    """Of 8.6 GB of zeros, which take no memory as long as no one writes them."""
    rows, width, n = 2**31 // 64 + 2048, 64, 1024
    try:
        many = np.zeros((rows, width), np.float32)
    except MemoryError:
        pytest.skip("no 8.6 GB of addresses")
    few = np.random.default_rng(0).standard_normal((n, width), dtype=np.float32)
    y, weight = np.zeros((2, rows), np.float32)
    many[-n:], y[-n:], weight[-n:] = few, few[:, 0], 1.0
    settings = {"hidden_layer_sizes": (3,), "batch_size": n, "shuffle": False, "random_state": 0}
    alone = MLPRegressor(**settings).partial_fit(few, few[:, 0], sample_weight=weight[-n:])
    for n_threads in (1, 2):
        model = MLPRegressor(**settings, n_threads=n_threads)
        model.partial_fit(many, y, sample_weight=weight)
        np.testing.assert_array_equal(weights(model), weights(alone))
    np.testing.assert_array_equal(model.predict(many)[-n:], alone.predict(few))


@pytest.mark.parametrize("size", [2**40, 10**12])
def test_layers_that_no_memory_holds(size):
    model = classifier(hidden_layer_sizes=(size,))
    with pytest.raises(MemoryError, match="TiB"):
        model.fit(X, Y)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize(
    "sizes", [(2**62,), (2**63,), (2**64,), 10**30, (2**31, 2**31), (2**32, 2**32)], ids=str
)
def test_the_number_of_weights_does_not_wrap(sizes):
    """It did: 2**62 units made three weights."""
    model = classifier(hidden_layer_sizes=sizes)
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=.* weights, but at most"):
        model.fit(X, Y)
    assert not hasattr(model, "coefs_")


def test_wide_layers_and_wide_sparse_rows():
    rows = sp.csr_array(([1.0, 2.0], ([0, 1], [5, 69_999])), shape=(2, 70_000))
    model = regressor().fit(rows, [1.0, -1.0])
    alone = regressor().fit(rows.toarray(), [1.0, -1.0])
    np.testing.assert_allclose(weights(model), weights(alone), rtol=1e-12, atol=1e-15)
    wide = regressor(hidden_layer_sizes=(70_000,)).fit(X[:2], Z[:2])
    assert np.isfinite(wide.predict(X)).all()


FITTED = {
    "fewer features": (X[:, :3], "3 features"),
    "more features": (np.hstack([X, X]), "8 features"),
    "NaN": (broken(np.nan), "NaN"),
    "no rows": (X[:0], "0 sample"),
    "a vector": (X[0], "Expected 2D array"),
    "other sparse width": (sp.csr_array(X[:, :2]), "2 features"),
}


@pytest.mark.parametrize("method", ["predict", "predict_proba", "partial_fit"])
@pytest.mark.parametrize("case", FITTED)
def test_a_fitted_estimator_takes_only_what_it_was_fitted_to(case, method):
    given, message = FITTED[case]
    model = classifier().fit(X, Y)
    n = given.shape[0] if given.ndim == 2 else 1
    arguments = (given, Y[:n]) if method == "partial_fit" else (given,)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(*arguments)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "score"])
def test_what_is_not_fitted_does_not_predict(method):
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(classifier(), method)(*((X, Y) if method == "score" else (X,)))


def test_other_feature_names_and_classes():
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = classifier().fit(frame, Y)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="classes"):
        classifier().partial_fit(X, Y)
    model = classifier().partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="classes"):
        model.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="classes"):
        model.partial_fit(X, Y, classes=[0, 1, 2, 3])


REPLACED = {
    "fewer rows": lambda W, b: ([W[0][:-1], W[1]], b),
    "layers that do not meet": lambda W, b: ([W[0][:, :-1], W[1]], b),
    "short biases": lambda W, b: (W, [b[0][:-1], b[1]]),
    "one bias for all": lambda W, b: (W, [b[0][:1], b[1]]),
    "fewer outputs": lambda W, b: ([W[0], W[1][:, :2]], [b[0], b[1][:2]]),
    "a layer less": lambda W, b: (W[:1], b[:1]),
    "a vector": lambda W, b: ([W[0][0], W[1]], b),
}


@pytest.mark.parametrize("case", REPLACED)
def test_replaced_weights_are_looked_at_before_a_kernel_reads_them(case):
    """They led it out of bounds."""
    model = classifier().partial_fit(X, Y, classes=[0, 1, 2])
    model.coefs_, model.intercepts_ = REPLACED[case](model.coefs_, model.intercepts_)
    for call in (lambda: model.predict(X), lambda: model.partial_fit(X, Y)):
        with pytest.raises((ValueError, IndexError), match=r"coefs_|tuple"):
            call()


def test_a_damaged_optimizer_is_looked_at():
    model = classifier().partial_fit(X, Y, classes=[0, 1, 2])
    model._optimizer.state = model._optimizer.state[:, :-3]
    with pytest.raises(ValueError, match="state of the optimizer"):
        model.partial_fit(X, Y)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def memory_mapped(array):
    with tempfile.NamedTemporaryFile() as file:
        file.write(array.tobytes())
        file.flush()
        return np.memmap(file.name, array.dtype, "r", shape=array.shape)


def unsorted(array):
    rows = sp.csr_array(array)
    for first, last in itertools.pairwise(rows.indptr):
        rows.indices[first:last] = rows.indices[first:last][::-1].copy()
        rows.data[first:last] = rows.data[first:last][::-1].copy()
    rows.has_sorted_indices = False
    return rows


def duplicated(array):
    rows = sp.coo_array(array)
    twice = np.concatenate([rows.coords[0]] * 2), np.concatenate([rows.coords[1]] * 2)
    values = np.concatenate([rows.data / 2] * 2)
    order = np.argsort(twice[0], kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(twice[0], minlength=len(array)))])
    return sp.csr_array((values[order], twice[1][order], ends), shape=array.shape)


def explicit_zeros(array):
    rows = sp.csr_array(np.ones_like(array))
    rows.data = array.ravel().copy()
    return rows


def wide_indices(array):
    rows = sp.csr_array(array)
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return rows


CONTAINERS = {
    "list": lambda X: X.tolist(),
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "every second column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "read-only": read_only,
    "other byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "memory-mapped": memory_mapped,
    "float16": lambda X: X.astype(np.float16),
    "longdouble": lambda X: X.astype(np.longdouble),
    "objects": lambda X: X.astype(object),
    "data frame": pd.DataFrame,
    "matrix of a subclass": lambda X: np.ma.masked_array(X),
}
SPARSE = {
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "csr matrix": sp.csr_matrix,
    "lil": sp.lil_array,
    "unsorted": unsorted,
    "duplicates": duplicated,
    "64-bit indices": wide_indices,
    "explicit zeros": explicit_zeros,
}


def weights(model):
    return np.concatenate([a.ravel() for a in [*model.coefs_, *model.intercepts_]])


@pytest.mark.parametrize("make", [classifier, regressor])
@pytest.mark.parametrize("container", [*CONTAINERS, *SPARSE])
def test_any_container_gives_the_same_network(container, make):
    y = Y if make is classifier else Z
    given = {**CONTAINERS, **SPARSE}[container](X)
    plain = sp.csr_array(X) if container in SPARSE else X
    expected, model = make().fit(plain, y), make().fit(given, y)
    np.testing.assert_array_equal(weights(model), weights(expected))
    np.testing.assert_array_equal(model.predict(given), expected.predict(plain))


@pytest.mark.parametrize("T", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64, bool])
def test_integers_are_numbers(T):
    counts = (np.abs(X) > 1).astype(T)
    expected = classifier().fit(counts.astype(float), Y)
    np.testing.assert_array_equal(weights(classifier().fit(counts, Y)), weights(expected))
    sparse = classifier().fit(sp.csr_array(counts), Y)
    np.testing.assert_allclose(weights(sparse), weights(expected), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "labels",
    [
        list,
        lambda y: y.astype(str),
        lambda y: y.astype(str).astype(object),
        lambda y: y.astype(np.int8),
        lambda y: y.astype(float),
        lambda y: y[:, None],
        lambda y: y.astype(">i8"),
        pd.Series,
        lambda y: pd.Categorical(y),
        read_only,
    ],
)
def test_any_labels_give_the_same_network(labels):
    model = classifier().fit(X, labels(Y))
    np.testing.assert_array_equal(weights(model), weights(classifier().fit(X, Y)))
    assert model.score(X, np.ravel(labels(Y))) == classifier().fit(X, Y).score(X, Y)


@pytest.mark.parametrize("scale", [1e-310, 1e-40, 1e40, 1e150, 1e300])
@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_tiny_and_huge_numbers_give_finite_weights_or_an_error(scale, T):
    with np.errstate(over="ignore"):
        given, target = (X * scale).astype(T), Z * scale
    for model in (regressor(), regressor(solver="sgd"), regressor(solver="lbfgs")):
        try:
            model.fit(given, target)
        except ValueError as error:
            assert re.search("non-finite|infinity|too large", str(error))
            assert not hasattr(model, "coefs_")
        else:
            assert np.isfinite(weights(model)).all()


@pytest.mark.parametrize("weight", [WEIGHT.tolist(), WEIGHT.astype(int), 1, read_only(WEIGHT)])
def test_weights_of_one_are_no_weights(weight):
    found = classifier().fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(weights(found), weights(classifier().fit(X, Y)), rtol=1e-12)


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("sign", [np.where(np.arange(40) == 3, -1.0, 1.0), -WEIGHT])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_negative_weights_are_those_of_sklearn(make, sign, solver):
    y = Y if make is classifier else Z
    theirs = sk.MLPClassifier if make is classifier else sk.MLPRegressor
    expected = theirs(**SETTINGS, solver=solver).fit(X, y, sample_weight=sign)
    model = make(solver=solver).fit(X, y, sample_weight=sign)
    np.testing.assert_allclose(weights(model), weights(expected), rtol=1e-6, atol=1e-9)


def test_examples_without_weight_do_not_count():
    weight = (np.arange(40) < 30).astype(float)
    model = classifier(batch_size="full", shuffle=False).fit(X, Y, sample_weight=weight)
    alone = classifier(batch_size="full", shuffle=False).fit(X[:30], Y[:30])
    np.testing.assert_allclose(weights(model), weights(alone), rtol=1e-9)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("weight", [np.zeros(40), np.resize([1.0, -1.0], 40)], ids=["0", "1 - 1"])
def test_weights_without_a_sum_have_no_mean(weight, solver):
    """scikit-learn before 1.8 takes zeros; of weights that cancel there is a ZeroDivisionError."""
    model = classifier(solver=solver)
    with pytest.raises(ValueError, match=r"(?i)sample.weights? must (not add up to zero|contain)"):
        model.fit(X, Y, sample_weight=weight)
    assert not hasattr(model, "coefs_")


def test_one_row_and_one_class():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert regressor().fit(X[:1], Z[:1]).predict(X[:1]).shape == (1,)
        model = classifier().fit(X, np.full(40, 7))
        assert (model.predict(X) == 7).all()
        theirs = sk.MLPClassifier(**SETTINGS).fit(X, np.full(40, 7))
        np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), rtol=1e-12)


def contents(*arrays):
    parts = []
    for array in arrays:
        if sp.issparse(array) and array.format in ("csr", "csc"):
            parts += [array.data, array.indices, array.indptr]
        else:
            parts.append(array.toarray() if sp.issparse(array) else array)
    return [part.tobytes() for part in parts]


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("container", [np.array, np.asfortranarray, *SPARSE.values()])
def test_inputs_are_never_written_to(container, standardize):
    given, y, weight = container(X), Z.copy(), np.linspace(0.5, 1, 40)
    inputs = given, y, weight
    before = contents(*inputs)
    model = regressor(standardize=standardize, standardize_target=standardize, dropout=0.1)
    model.fit(given, y, sample_weight=weight, X_val=given, y_val=y, sample_weight_val=weight)
    model.partial_fit(given, y, sample_weight=weight).predict(given)
    regressor(solver="lbfgs", standardize=standardize).fit(given, y, sample_weight=weight)
    assert contents(*inputs) == before


@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_given_weights_are_never_written_to(T):
    model = regressor().fit(X, Z)
    coefs, intercepts = ([a.astype(T) for a in b] for b in (model.coefs_, model.intercepts_))
    before = contents(*coefs, *intercepts)
    regressor(init=(coefs, intercepts), standardize=True).fit(X.astype(T), Z)
    given = MLPRegressor.from_weights(coefs, intercepts, random_state=0)
    given.partial_fit(X.astype(T), Z).predict(X)
    given.set_params(warm_start=True, max_iter=2).fit(X.astype(T), Z)
    assert contents(*coefs, *intercepts) == before


@pytest.mark.parametrize(
    "labels", [Y, Y.astype(str), Y.astype(str).astype(object), np.eye(3, dtype=int)[Y]]
)
def test_labels_are_never_written_to(labels):
    before = labels.tolist()
    classifier(label_smoothing=0.1).fit(X, labels, X_val=X, y_val=labels).predict(X)
    assert labels.tolist() == before


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_a_float32_network_goes_on_with_float64(method):
    model = regressor(warm_start=True).fit(X.astype(np.float32), Z)
    getattr(model, method)(X, Z)
    assert model.coefs_[0].dtype == np.float64


@pytest.mark.parametrize("given", [DATES, as_objects(DATES), pd.DataFrame(DATES)])
def test_dates_are_refused_by_predict_as_by_fit(given):
    model = classifier().fit(X, Y)
    with pytest.raises(ValueError, match="X must be numbers"):
        model.predict(given)


MASKED = np.ma.masked_array(X, mask=X > 1)


@pytest.mark.parametrize("make, y", [(classifier, Y), (regressor, Z)])
def test_masked_values_are_refused(make, y):
    """Validation would take what is below the mask."""
    model = make().fit(X, y)
    with pytest.raises(ValueError, match=f"X is a masked array, of which {(X > 1).sum()} values"):
        make().fit(MASKED, y)
    with pytest.raises(ValueError, match="X is a masked array"):
        model.predict(MASKED)
    with pytest.raises(ValueError, match="y is a masked array"):
        make().fit(X, np.ma.masked_array(y, mask=y == y[0]))
    with pytest.raises(ValueError, match="X_val, y_val or sample_weight_val: X is a masked array"):
        make().fit(X, y, X_val=MASKED, y_val=y)
    nothing = np.ma.masked_array(X, mask=False)
    np.testing.assert_array_equal(make().fit(nothing, y).predict(nothing), model.predict(X))


@pytest.mark.parametrize("make", [classifier, TabularClassifier])
def test_large_labels_of_nullable_types_are_told_apart(make):
    """scikit-learn makes them floats, by which they become one class."""
    numbers = np.arange(40) % 2
    for labels in (
        pd.Series(2**60 + numbers, dtype="Int64"),
        pd.array(2**63 + numbers.astype(np.uint64), dtype="UInt64"),
        pd.Series(numbers - 2**62, dtype="Int64"),
        pd.Series(2**60 + numbers, dtype="int64[pyarrow]"),
    ):
        model = make(max_iter=2, random_state=0).fit(X, labels)
        expected = np.asarray(labels.to_numpy())
        np.testing.assert_array_equal(model.classes_, np.unique(expected), strict=True)
        assert model.predict(X).dtype == expected.dtype
    with pytest.raises(ValueError, match="NaN"):
        make().fit(X, pd.Series([None, *numbers[1:]], dtype="Int64"))


@pytest.mark.parametrize("factor, size", [(1e170, "large"), (1e-170, "small")])
def test_numbers_whose_squares_are_lost_are_not_standardised(factor, size):
    standardised = X.copy()
    standardised[:, 2] *= factor
    match = f"standardize=True: the numbers of column 2 of X are so {size}"
    for container in (standardised, sp.csr_array(standardised)):
        with pytest.raises(ValueError, match=match):
            classifier(standardize=True).fit(container, Y)
    with pytest.raises(ValueError, match=match):
        classifier(standardize=True).fit(Stream([(standardised, Y)]))
    with pytest.raises(ValueError, match=f"standardize_target=True: .* of y are so {size}"):
        regressor(standardize_target=True).fit(X, Z * factor)
    standardised[:, 2] = 0  # nothing is lost
    classifier(standardize=True).fit(standardised, Y)
