"""What users give: as the kernels take it, or an error that says what came and what is allowed."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import date, time, timedelta
from numbers import Integral, Number
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target, unique_labels
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_array,
    check_is_fitted,
    validate_data,
)

from ._typing import Array, Matrix, Units

# What NumPy, pandas, polars and pyarrow call the types of dates, times and durations, and what they
# are among objects.
TIME_TYPES = np.datetime64, np.timedelta64, date, time, timedelta
TIME_DTYPES = re.compile(
    r"(sparse\[|dictionary<values=)?(date|time|duration|period|month_day)", re.I
)


def hidden_units(hidden_layer_sizes: Units) -> list[int]:
    """The sizes as a list of int."""
    sizes: Any = hidden_layer_sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if not all(isinstance(size, Integral) for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an int or a list of int, one for each hidden layer, got "
            f"{hidden_layer_sizes!r}."
        )
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(size) for size in sizes]


def as_table(X: Any) -> Any:
    """A RecordBatch of pyarrow as a Table, whose column names scikit-learn reads."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(X, pyarrow.RecordBatch):
        return pyarrow.Table.from_batches([X])
    return X


def checked_data(estimator: BaseEstimator, X: Any, y: Any, reset: bool) -> tuple[Matrix, Matrix]:
    """X and y of a fit, X in C order or canonical CSR, in float32 or float64.

    Parameters
    ----------
    estimator : BaseMLP
    X, y : as the user gave them
    reset : bool
        Whether to note the features of X, instead of comparing them with those of the last fit.
    """
    X = as_table(X)
    numeric = not is_classifier(estimator)
    _refuse_times("X", X)
    _refuse_masks("X", X)
    _refuse_masks("y", y)
    if numeric:
        _refuse_times("y", y)
    else:
        y = _exact_labels(y)
    with _naming(X, y, numeric):
        X, y = validate_data(
            estimator,
            X,
            y,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            y_numeric=numeric,
            dtype=(np.float64, np.float32),
            order="C",
            reset=reset,
        )
        y = _as_numbers(y) if numeric else y
    return _canonical(X), _as_target(y, numeric)


def checked_target(estimator: BaseEstimator, y: Any) -> Matrix:
    """y of a fit, where X is checked elsewhere."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    numeric = not is_classifier(estimator)
    _refuse_masks("y", y)
    if numeric:
        _refuse_times("y", y)
    else:
        y = _exact_labels(y)
    with _naming([], y, numeric):
        y = check_array(
            y, input_name="y", accept_sparse="csr", ensure_2d=False, dtype=None, estimator=estimator
        )
        y = _as_numbers(y) if numeric else y
    return _as_target(y, numeric)


def _exact_labels(y: Any) -> Any:
    """y, but whole numbers of a nullable type of pandas as NumPy has them, where they are large.

    Validation makes floats of these types, by which several labels beyond 2**53 become one.
    """
    dtype = getattr(y, "dtype", None)
    nullable = hasattr(y, "isna") and not isinstance(dtype, np.dtype)
    if nullable and getattr(dtype, "kind", "O") in "iu" and not y.isna().any():
        exact = y.to_numpy()
        if exact.size and max(exact.max(), -int(exact.min())) > 2**53:
            return exact
    return y


def _as_numbers(y: Matrix) -> Matrix:
    """Objects and text that are numbers as such."""
    return y.astype(np.float64) if y.dtype.kind in "USO" else y


def _as_target(y: Matrix, numeric: bool) -> Matrix:
    """y dense unless it is a matrix of labels, and one column as a vector."""
    if sp.issparse(y) and (numeric or y.shape[1] == 1):
        y = y.toarray()
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if numeric:
        assert_all_finite(y, input_name="y")  # None among objects became NaN just now
    return y


def checked_examples(estimator: BaseEstimator, X: Any) -> Matrix:
    """X of a prediction, in C order or canonical CSR, in float32 or float64."""
    if _needs_no_validation(estimator, X):
        return X
    check_is_fitted(estimator)
    X = as_table(X)
    _refuse_times("X", X)
    _refuse_masks("X", X)
    with _naming(X):
        X = validate_data(
            estimator,
            X,
            accept_sparse=["csr", "csc"],
            dtype=(np.float64, np.float32),
            order="C",
            reset=False,
        )
    return _canonical(X)


def checked_labels(y: Matrix, name: str = "y") -> tuple[str, Array]:
    """What scikit-learn calls the type of a target, and its classes; an error if it has none.

    Parameters
    ----------
    y : ndarray or sparse matrix, validated
    name : str
    """
    _refuse_missing(y, name)
    kinds = {type(label) for label in y.flat} if y.dtype == object else set()
    names = " and ".join(sorted(kind.__name__ for kind in kinds))
    families = {
        next((family for family in (Number, str) if issubclass(kind, family)), kind)
        for kind in kinds
    }
    if len(families) > 1:
        raise ValueError(
            f"Unknown label type: {name} mixes labels of the types {names}. Make them all of one, "
            "for example by y.astype(str)."
        )
    if families == {Number}:
        raise ValueError(
            f"Unknown label type: {name} holds numbers ({names}) in an array of dtype object. Give "
            "them a type of numbers, for example by y.astype(int)."
        )
    if y.dtype.kind == "S" or kinds == {bytes}:
        raise TypeError(
            f"{name} has bytes as labels. Make them text, for example by y.astype(str)."
        )
    classes = None
    if y.ndim == 1 and y.dtype.isnative and (y.dtype.kind in "biU" or families == {str}):
        # One search for them, of the several that scikit-learn's functions make.
        if y.dtype.kind in "bi":
            # Asked to count, NumPy sorts whole numbers, in a tenth of the time that hashing takes.
            classes = np.unique(y, return_counts=True)[0]
        else:
            classes = np.array(np.unique(y).tolist())  # as long as the longest
        if 0 < len(classes) <= len(y) // 2:  # more may be no classes, of which it warns
            return "binary" if len(classes) <= 2 else "multiclass", classes
    target_type = str(type_of_target(y, input_name=name))
    if target_type.startswith("continuous"):
        values = y.data if sp.issparse(y) else y.ravel()
        part = values[values != np.floor(values)][0]
        raise ValueError(
            f"Unknown label type: {target_type}. {name} holds real numbers such as {part}, not "
            "classes: cut them into classes, or use MLPRegressor."
        )
    if target_type == "multiclass-multioutput":
        raise ValueError(
            f"Multioutput target data is not supported: {name} is a matrix with more than two "
            "different values. It must be a vector of classes, or have a column of 0 and 1 for "
            "each label."
        )
    if target_type == "unknown":
        raise ValueError(
            f"Unknown label type: {name} has labels of the type {names}. They must be numbers, "
            "text or bool."
        )
    if target_type == "multilabel-indicator":
        classes = np.arange(y.shape[1])
    return target_type, unique_labels(y) if classes is None else classes


def checked_weight(sample_weight: ArrayLike | None, X: Matrix) -> Array | None:
    """Weight of each example as a vector of float64, or None."""
    if sample_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    refuse_no_weight(scaled_weight(weight, X.dtype)[0].sum(dtype=np.float64))
    return weight


def checked_weight_of_part(sample_weight: ArrayLike | None, X: Matrix) -> Array | None:
    """``checked_weight`` of some of the examples, whose weights may all be 0."""
    if sample_weight is None:
        return None
    weight = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weight.shape != X.shape[:1]:
        raise ValueError(f"sample_weight has shape {weight.shape}, expected {X.shape[:1]}.")
    return weight


def refuse_no_weight(total: float) -> None:
    if total == 0:
        raise ValueError("sample_weight must not add up to zero: no mean of the loss would exist.")


def scaled_weight(weight: Array | None, dtype: DTypeLike) -> tuple[Array | Any, float]:
    """Weights times a power of two, by which the largest is in [1, 2), and that power.

    Otherwise float32 would make zero or infinity of them, or of their products with gradients.
    """
    if weight is None:
        return None, 1.0
    scale = weight_scale(abs(weight).max())
    return (weight * scale).astype(dtype), scale


def weight_scale(largest: float) -> float:
    """The power of two by which the largest weight is in [1, 2)."""
    exponent = int(np.frexp(largest)[1])
    return float(np.ldexp(1.0, min(1 - exponent, 1021)))


def _needs_no_validation(estimator: BaseEstimator, X: Any) -> bool:
    """Whether validation would give X back as it is, without a warning.

    It takes most of the time that a few rows take to predict.
    """
    return (
        not hasattr(estimator, "feature_names_in_")
        and hasattr(estimator, "coefs_")
        and not hasattr(estimator, "__sklearn_is_fitted__")  # a subclass has its own say
        and is_plain(X, getattr(estimator, "n_features_in_", None))
    )


def has_plain_form(X: Any, n_features: int | None) -> bool:
    """Whether X is an array of numbers as kernels take them, with so many columns."""
    return is_table_of_floats(X, n_features) and bool(X.flags.c_contiguous)


def is_plain(X: Any, n_features: int | None) -> bool:
    """``has_plain_form``, and of finite numbers."""
    if not has_plain_form(X, n_features):
        return False
    if X.size < 1000:
        return bool(np.isfinite(X).all())
    with np.errstate(over="ignore", invalid="ignore"):  # without an array of its size
        return bool(np.isfinite(X.sum()))  # a sum that overflows is left to the validation


def is_table_of_floats(X: Any, n_features: int | None) -> bool:
    """Whether X is an array of rows of so many float32 or float64."""
    return (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype in (np.float64, np.float32)
        and X.size > 0
        and X.shape[1] == n_features
    )


def _columns(array: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Names and types of the columns of a table, one of each for anything else.

    Of categories the type is that of what they are.
    """
    if hasattr(array, "column_names"):  # pyarrow
        return array.column_names, array.schema.types
    if hasattr(array, "columns"):
        names, types = list(array.columns), list(array.dtypes)
    else:
        names = [getattr(array, "name", None)]
        types = [getattr(array, "dtype", getattr(array, "type", None))]
    return names, [getattr(getattr(t, "categories", None), "dtype", t) for t in types]


def _refuse_times(name: str, array: Any) -> None:
    """Raise ValueError for dates, times and durations, which validation may take for numbers."""
    if isinstance(array, (list, tuple)):
        try:
            array = np.asarray(array)
        except ValueError:  # rows of different length: validation says so
            return
    names, types = _columns(array)
    for column, dtype in zip(names, types, strict=True):
        if TIME_DTYPES.match(str(dtype)):
            raise ValueError(_no_numbers(name, column, f"is of type {dtype}"))
    if "object" in map(str, types):
        found = _first(array, lambda value: isinstance(value, TIME_TYPES))
        if found is not None:
            raise ValueError(_no_numbers(name, found[0], f"holds {found[1]!r}"))


def _refuse_masks(name: str, array: Any) -> None:
    """Raise ValueError where values are masked: validation would take what is below the mask."""
    n_masked = np.ma.getmaskarray(array).sum() if np.ma.isMaskedArray(array) else 0
    if n_masked > 0:
        raise ValueError(
            f"{name} is a masked array, of which {n_masked} values are masked. Leave their rows "
            "out, or fill them, such as by filled(0)."
        )


@contextlib.contextmanager
def errors_about(what: str) -> Iterator[None]:
    """A block that looks at ``what`` a user gave: its errors begin with that."""
    try:
        yield
    except (TypeError, ValueError) as error:
        make = TypeError if isinstance(error, TypeError) else ValueError
        raise make(f"{what}: {error}") from error


@contextlib.contextmanager
def _naming(X: Any, y: Any = None, numeric: bool = False) -> Iterator[None]:
    """A block that validates X and y: an error names the column of what is no number.

    Or of labels the row that has none.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        make = TypeError if isinstance(error, TypeError) else ValueError
        for name, array in [("X", X), ("y", y)][: 1 + numeric]:
            found = _first(array, lambda value: not (_is_number(value) or is_missing(value)))
            if found is not None:
                message = _no_numbers(name, found[0], f"holds {found[1]!r}")
                raise make(f"{message} ({error})") from error
        if y is not None and not numeric:
            _refuse_missing(y, "y", error)
        raise


def _refuse_missing(y: Any, name: str, cause: Exception | None = None) -> None:
    """Raise ValueError where labels are objects, and one of them is missing."""
    if sp.issparse(y) or _first(y, is_missing) is None:
        return
    rows = [i for i, label in enumerate(np.asarray(y).ravel()) if is_missing(label)]
    raise ValueError(
        f"{name} contains NaN or None in place of a label, {len(rows)} times, first in row "
        f"{rows[0]}. Leave these examples out, or call it a class by a name of its own."
    ) from cause


def _no_numbers(name: str, column: object, what: str) -> str:
    where = f"column {column!r} " if column not in (None, "") else ""
    return (
        f"{name} must be numbers, but {where}{what}. Turn it into numbers: dates into days, for "
        "example, or categories into columns of 0 and 1."
    )


def _first(array: Any, is_wanted: Callable[[Any], bool]) -> tuple[Any, Any] | None:
    """Column and value of the first that is wanted in an array of objects or text, or None."""
    try:
        values = np.asarray(array)
    except (TypeError, ValueError):
        return None
    if values.dtype.kind not in "OUST" or values.ndim not in (1, 2):
        return None
    columns = values[:, np.newaxis].T if values.ndim == 1 else values.T
    names = _columns(array)[0]
    if len(names) != len(columns):  # those of a matrix have none
        names = range(len(columns))
    for column, of_column in zip(names, columns, strict=True):
        for value in of_column:
            if is_wanted(value):
                return column, value
    return None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def is_missing(value: Any) -> bool:
    """Whether a value among objects is None, NaN or the NA of pandas."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return np.ndim(value) == 0 and bool(value != value)


def _canonical(X: Matrix) -> Matrix:
    """CSR with ascending, unique column indices (a copy if need be), or X itself if dense."""
    if not sp.issparse(X):
        return X
    if X.shape[1] > 2**31:
        raise ValueError(
            f"A sparse X may have up to 2**31 columns, whose indices are int32; got {X.shape[1]}."
        )
    X = sp.csr_array(X) if X.format == "csr" else X.tocsr()
    if X.dtype.kind != "f":  # validation leaves the bool of sparse columns of pandas
        X = X.astype(np.float64)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X
