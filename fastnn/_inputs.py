"""What users give: as the kernels take it, or an error that says what came and what is allowed."""

from numbers import Integral

import numpy as np
import scipy.sparse as sp
from sklearn.base import is_classifier
from sklearn.utils import column_or_1d
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    validate_data,
)


def hidden_units(hidden_layer_sizes):
    """The sizes as a list of int."""
    sizes = hidden_layer_sizes
    sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
    if not all(isinstance(size, Integral) for size in sizes):
        raise ValueError(
            "hidden_layer_sizes must be an int or a list of int, one for each hidden layer, got "
            f"{hidden_layer_sizes!r}."
        )
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return [int(size) for size in sizes]


def checked_data(estimator, X, y, reset):
    """X and y of a fit, X in C order or canonical CSR, in float32 or float64.

    Parameters
    ----------
    estimator : BaseMLP
    X, y : as the user gave them
    reset : bool
        Whether to note the features of X, instead of comparing them with those of the last fit.
    """
    # Which validation would take for numbers, and for a target.
    _refuse_kinds("X", X, "mM")
    if not is_classifier(estimator):
        _refuse_kinds("y", y, "mMUS")
    X, y = validate_data(
        estimator,
        X,
        y,
        accept_sparse=["csr", "csc"],
        multi_output=True,
        y_numeric=not is_classifier(estimator),
        dtype=(np.float64, np.float32),
        order="C",
        reset=reset,
    )
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    if not is_classifier(estimator):
        assert_all_finite(y, input_name="y")  # None among objects became NaN just now
    return _canonical(X), y


def checked_examples(estimator, X):
    """X of a prediction, in C order or canonical CSR, in float32 or float64."""
    if _needs_no_validation(estimator, X):
        return X
    check_is_fitted(estimator)
    _refuse_kinds("X", X, "mM")
    X = validate_data(
        estimator,
        X,
        accept_sparse=["csr", "csc"],
        dtype=(np.float64, np.float32),
        order="C",
        reset=False,
    )
    return _canonical(X)


def checked_weight(sample_weight, X):
    """Weight of each example as a vector of float64, or None."""
    if sample_weight is None:
        return None
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if scaled_weight(weight, X.dtype)[0].sum(dtype=np.float64) == 0:
        raise ValueError("sample_weight must not add up to zero: no mean of the loss would exist.")
    return weight


def scaled_weight(weight, dtype):
    """Weights times a power of two, by which the largest is in [1, 2), and that power.

    Otherwise float32 would make zero or infinity of them, or of their products with gradients.
    """
    if weight is None:
        return None, 1.0
    exponent = int(np.frexp(abs(weight).max())[1])
    scale = float(np.ldexp(1.0, min(1 - exponent, 1021)))
    return (weight * scale).astype(dtype), scale


def _needs_no_validation(estimator, X):
    """Whether validation would give X back as it is, without a warning.

    It takes most of the time that a few rows take to predict.
    """
    if not (
        type(X) is np.ndarray
        and X.ndim == 2
        and X.dtype in (np.float64, np.float32)
        and X.flags.c_contiguous
        and X.size > 0
        and X.shape[1] == getattr(estimator, "n_features_in_", None)
        and not hasattr(estimator, "feature_names_in_")
        and hasattr(estimator, "coefs_")
    ):
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(X.sum()))  # a sum that overflows is left to the validation


def _refuse_kinds(name, array, kinds):
    """Raise ValueError where ``array``, of any container, holds one of NumPy's kinds of data."""
    if isinstance(array, (list, tuple)):
        try:
            array = np.asarray(array)
        except ValueError:  # rows of different length: validation says so
            return
    dtypes = array.dtypes if hasattr(array, "columns") else [getattr(array, "dtype", None)]
    if isinstance(array, np.ndarray) and array.dtype == object:
        dtypes = {getattr(value, "dtype", None) for value in array.flat}
    for dtype in dtypes:
        if getattr(dtype, "kind", "f") in kinds:
            raise ValueError(f"{name} must be numbers, got an array of {dtype}.")


def _canonical(X):
    """CSR with ascending, unique column indices (a copy if need be), or X itself if dense."""
    if not sp.issparse(X):
        return X
    if X.shape[1] > 2**31:
        raise ValueError(
            f"A sparse X may have up to 2**31 columns, whose indices are int32; got {X.shape[1]}."
        )
    X = sp.csr_array(X) if X.format == "csr" else X.tocsr()
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return X
