"""Tables as they come: read column by column, and encoded for a network.

A column is of numbers, float64 with NaN where one is missing, or of categories, an array of objects
that are text, or None where one is missing. Frames of pandas, polars and pyarrow that show the same
on paper are the same from here on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from numbers import Integral, Number
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from ._inputs import TIME_DTYPES, TIME_TYPES, as_table, is_missing, is_table_of_floats
from ._typing import Array, Matrix

# What pandas, polars and pyarrow call the types of categories, also of those that are numbers.
_CATEGORY_DTYPES = re.compile("category|Categorical|Enum|dictionary")
# What is a number among objects.
_NUMBERS = Number, np.bool_
# Integers of polars that NumPy has not.
_WIDE_DTYPES = "Int128", "UInt128"


def checked_columns(
    estimator: BaseEstimator, X: Any, reset: bool, in_fit: list[bool] | None = None
) -> tuple[list[Array], list[Any]]:
    """The columns of a table, and their names, or an error that names the column.

    Parameters
    ----------
    estimator : estimator of scikit-learn
    X : as the user gave it
    reset : bool
        Whether to note the features of X, instead of comparing them with those of the last fit.
    in_fit : list of bool, optional
        Which columns were of categories in the fit, and are so here, whatever their type.

    Returns
    -------
    list of ndarray of shape (n_samples,)
        Of float64, or of objects: see above.
    list
        Names, or numbers where there are none.
    """
    if np.ma.isMaskedArray(X):
        there, X = ~np.ma.getmaskarray(X), X.data
        X = np.where(there, X, None)
    X = as_table(X)
    if sp.issparse(X):
        raise TypeError(
            f"{type(estimator).__name__} takes tables of numbers and categories, got a sparse "
            "matrix. For sparse X take MLPClassifier or MLPRegressor, or give it as X.toarray()."
        )
    if hasattr(X, "column_names"):  # pyarrow
        pairs = list(zip(X.column_names, X.columns, strict=True))
    elif hasattr(X, "get_columns"):  # polars
        pairs = [(column.name, column) for column in X.get_columns()]
    elif hasattr(X, "iloc") and hasattr(X, "items") and X.ndim == 2:  # pandas
        pairs = list(X.items())
    else:
        pairs = None
    if pairs is None:
        if not hasattr(X, "__array__"):
            X = np.asarray(X, object)  # NumPy would turn numbers beside text into text
        known = not reset and not hasattr(estimator, "feature_names_in_")
        if not (known and is_table_of_floats(X, estimator.n_features_in_)):
            X = validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite=False)
        if X.dtype.kind in "fiub" and not any(in_fit or ()):
            numbers = X.astype(np.float64).T
            if not np.isinf(numbers).any():
                return list(numbers), list(range(len(numbers)))
        pairs = list(enumerate(X.T))
    else:
        validate_data(estimator, X, reset=reset, skip_check_array=True)
    if not pairs or len(pairs[0][1]) == 0:
        shape = len(pairs[0][1]) if pairs else 0, len(pairs)
        what = "sample(s)" if pairs else "feature(s)"
        raise ValueError(f"Found array with 0 {what} (shape={shape}): at least 1 is required.")
    in_fit = in_fit or [False] * len(pairs)
    columns = [_read(*pair, was) for pair, was in zip(pairs, in_fit, strict=True)]
    return columns, [name for name, _ in pairs]


def _read(name: Any, column: Any, was_category: bool) -> Array:
    """One column in one of the two forms; as categories if it was of categories in fit."""
    dtype = str(getattr(column, "dtype", getattr(column, "type", None)))
    if TIME_DTYPES.match(dtype):
        raise ValueError(_neither(name, f"is of type {dtype}"))
    is_category = was_category or _CATEGORY_DTYPES.match(dtype) is not None
    if is_category or dtype in _WIDE_DTYPES:
        # NumPy would round integers, or take the first category of pyarrow for what is missing.
        methods = [m for m in ("to_pylist", "to_list", "tolist") if hasattr(column, m)]
        values = getattr(column, methods[0])()
    else:
        array = np.asarray(column)
        if array.dtype.kind in "mM":
            raise ValueError(_neither(name, f"is of type {dtype}"))
        if array.dtype.kind in "fiub" and array.ndim == 1:
            return _finite(name, array.astype(np.float64))
        values = array.tolist()
    kinds = {type(value) for value in values}
    if any(kind.__hash__ is None for kind in kinds):
        found = next(value for value in values if type(value).__hash__ is None)
        what = f"holds {found!r}: argument must be a string or a number"
        raise TypeError(_neither(name, what))
    distinct = dict.fromkeys(values)
    present = [value for value in distinct if not is_missing(value)]
    for value in present:
        if isinstance(value, (*TIME_TYPES, complex, np.complexfloating)):
            raise ValueError(_neither(name, f"holds {value!r}"))
    if not is_category and all(isinstance(value, _NUMBERS) for value in present):
        distinct.update((value, _float(value)) for value in present)
        return _finite(name, np.array([distinct[value] for value in values], np.float64))
    distinct.update((value, _text(value)) for value in present)
    return np.array([distinct[value] for value in values], object)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # of an integer
        return np.inf if value > 0 else -np.inf


def _text(value: Any) -> str:
    """A category as text. Equal numbers are one category: 1, 1.0 beside what is missing, True."""
    if not isinstance(value, _NUMBERS):
        return str(value)
    if not isinstance(value, (Integral, np.bool_)):
        number = _float(value)
        return str(int(number)) if number.is_integer() else str(number)
    return str(int(value))


def _finite(name: Any, numbers: Array) -> Array:
    if np.isinf(numbers).any():
        raise ValueError(
            f"X must be finite numbers or missing (NaN), but column {name!r} holds "
            f"{numbers[np.isinf(numbers)][0]}. Put the largest that can be, or NaN, in its place."
        )
    return numbers


def _neither(name: Any, what: str) -> str:
    return (
        f"X must be numbers or categories, but column {name!r} {what}. Leave it out, or turn it "
        "into numbers: dates into days, for example."
    )


class FrameEncoder:
    """Numbers and categories as inputs of a network; plain data, pickled with the estimator.

    Numbers are centred at their median and divided by the distance of their quartiles (or half of
    the range, where that is 0), and clipped smoothly to (-3, 3). Beside that they are embedded:

    - 'piecewise_linear': an input for each bin between quantiles, which rises by ``height`` from
      one end of it to the other and is 0 in the middle. The first layer forms any function that is
      linear in each bin. For the quantiles, a value that n examples share counts as sqrt(n).
      Where rows are sparse, two entries say it for any number of bins: see ``continued``.
    - 'periodic': cosines of fixed random frequencies and phases.

    Missing numbers are 0 in all of this, with an indicator where there were some in training.
    Categories have an input each, also that of what is missing; unknown ones are 0 in all.

    Parameters
    ----------
    embedding : {'piecewise_linear', 'periodic'} or None
    n_bins : int
        Most bins of a number.
    height : float
        The less, the smoother the functions that are learned.
    dtype : float32 or float64
        Of what is encoded.

    Attributes
    ----------
    is_sparse : bool
        Whether rows are sparse: whether that has less than 1 / ``WORTH`` of the entries.
    continued : ndarray of shape (n_inputs,)
        Of sparse rows, which bins go on with the one before: an entry there stands for half of it
        in all up to its own and minus half of it behind, see ``kernels.layout.Data``.
    """

    WORTH = 5  # an entry takes the time of four numbers of dense rows, to 128 units
    N_FREQUENCIES, MOST_FREQUENCY = 8, 0.5

    def __init__(self, embedding: str | None, n_bins: int, height: float, dtype: DTypeLike) -> None:
        self.embedding, self.n_bins, self.height = embedding, n_bins, height
        self.dtype = np.dtype(dtype).name

    def fit(self, columns: list[Array], weight: Array | None, rng: np.random.RandomState) -> Self:
        """Learn what encoding needs.

        Parameters
        ----------
        columns : list of ndarray of shape (n_samples,)
        weight : ndarray of shape (n_samples,) or None
        rng : RandomState
            Of frequencies.
        """
        self.is_category = [column.dtype == object for column in columns]
        numbers, categories = self._split(columns)
        self.centre, self.scale = np.zeros(len(numbers)), np.full(len(numbers), np.inf)
        self.has_missing = np.zeros(len(numbers), bool)
        self.knots = []
        for j, x in enumerate(numbers):
            missing = np.isnan(x)
            self.has_missing[j] = missing.any()
            if missing.all():
                self.knots.append(np.zeros(0))
                continue
            x, w = x[~missing], None if weight is None else weight[~missing]
            low, self.centre[j], high = _quantiles(x, [0.25, 0.5, 0.75], w)
            # Halves: a difference of two huge numbers has to be finite.
            scale = high / 2 - low / 2
            scale = scale if scale > 0 else (x.max() / 2 - x.min() / 2) / 2
            self.scale[j] = scale if scale > 0 else np.inf
            self.knots.append(self._knots(self._standardize(x, j), w))
        if self.embedding == "periodic":
            shape = len(numbers), self.N_FREQUENCIES
            self.frequencies = rng.normal(0, self.MOST_FREQUENCY, shape)
            self.phases = rng.uniform(0, 1, shape)
        # The number of each category of a column, that of what is missing the last.
        self.categories = [
            {text: k for k, text in enumerate(sorted(set(c), key=lambda t: (t is None, t or "")))}
            for c in categories
        ]
        self.n_bins_of = np.array([max(0, len(knots) - 1) for knots in self.knots], int)
        n_known = [len(known) for known in self.categories]
        waves = self.N_FREQUENCIES * len(numbers) if self.embedding == "periodic" else 0
        first = len(numbers) + np.count_nonzero(self.has_missing)
        self.n_inputs = int(first + self.n_bins_of.sum() + waves + sum(n_known))
        n_stored = self.n_inputs - np.maximum(0, self.n_bins_of - 2).sum()
        n_stored -= sum(n_known) - len(n_known)
        # The same for every table, so that a row has the same bits in any.
        self.is_sparse = bool(self.WORTH * n_stored < self.n_inputs)
        self.continued = np.zeros(self.n_inputs, bool)
        for n in self.n_bins_of:
            self.continued[first + 1 : first + n] = True
            first += n
        return self

    def _knots(self, z: Array, weight: Array | None) -> Array:
        if self.embedding != "piecewise_linear":
            return np.zeros(0)
        knots, place = np.unique(z, return_inverse=True)
        if len(knots) > self.n_bins + 1:
            # Else a value that most examples have, as is often 0, would take most of the quantiles.
            mass = np.sqrt(np.bincount(place, weight))
            knots = np.unique(_quantiles(knots, np.linspace(0, 1, self.n_bins + 1), mass))
        # Of two values the standardised number itself says everything.
        return knots if len(knots) > 2 else np.zeros(0)

    def _split(self, columns: list[Array]) -> tuple[Array, list[Array]]:
        """Numbers, (n_numbers, n), and a list of the categories."""
        categories = [c for c, chosen in zip(columns, self.is_category, strict=True) if chosen]
        numbers = [c for c, other in zip(columns, self.is_category, strict=True) if not other]
        return np.array(numbers), categories

    def _standardize(self, x: Array, j: int | slice = slice(None)) -> Array:
        """Number j, or numbers that lie side by side."""
        with np.errstate(over="ignore"):
            return np.clip((x / 2 - self.centre[j] / 2) / self.scale[j], -1e150, 1e150)

    def transform(self, columns: list[Array], names: list[Any]) -> Matrix:
        """The inputs of a network for a table.

        Parameters
        ----------
        columns : list of ndarray of shape (n_samples,)
        names : list
            Of the columns, for errors.

        Returns
        -------
        ndarray or csr_array of shape (n_samples, n_inputs)
            In the form, dense or sparse, that was best for the table of the fit.
        """
        columns = list(columns)
        for j, (column, is_category) in enumerate(zip(columns, self.is_category, strict=True)):
            if not is_category and column.dtype == object:
                found = next((value for value in column if value is not None), None)
                if found is not None:
                    raise ValueError(
                        f"Column {names[j]!r} of X was one of numbers in fit, but now holds "
                        f"{found!r}."
                    )
                columns[j] = np.full(len(column), np.nan)
        blocks, places_of, n, first = [], [], len(columns[0]), 0
        for block, places, width in self._blocks(*self._split(columns)):
            blocks.append(block.astype(self.dtype))
            places_of.append(np.broadcast_to((first + places).astype(np.int32), block.shape))
            first += width
        values, inputs = np.hstack(blocks), np.hstack(places_of)
        if not self.is_sparse:
            X = np.zeros((n, self.n_inputs), self.dtype)
            X[np.arange(n)[:, np.newaxis], inputs] = values
            return X
        stored = values != 0
        stored[:, : len(self.centre)] = True  # the numbers themselves: see kernels.layout.Data
        row_starts = np.append(0, stored.sum(axis=1).cumsum())
        if row_starts[-1] < 2**31:  # int64 would make int64 of the inputs, too
            row_starts = row_starts.astype(np.int32)
        arrays = values[stored], inputs[stored], row_starts
        return sp.csr_array(arrays, shape=(n, self.n_inputs))

    def _blocks(
        self, numbers: Array, categories: list[Array]
    ) -> Iterator[tuple[Array, Array, int]]:
        """Yield values ``(n, n_values)``, which inputs of a block they are for, and its width."""
        if len(numbers):
            z = self._standardize(numbers.T)
            missing = np.isnan(z)
            z[missing] = 0
            clipped = z / np.sqrt(1 + (z / 3) ** 2)
            yield clipped, *_each(clipped)
            indicators = missing[:, self.has_missing]
            yield indicators, *_each(indicators)
            if self.embedding == "piecewise_linear" and self.is_sparse:
                yield self._falls(z, missing)
            elif self.embedding == "piecewise_linear":
                gone = self._gone(z, missing)
                yield gone, *_each(gone)
            if self.embedding == "periodic":
                turns = clipped.astype(self.dtype)[:, :, np.newaxis] * self.frequencies
                waves = np.cos(2 * np.pi * (turns + self.phases)) * ~missing[:, :, np.newaxis]
                waves = waves.reshape(len(z), -1)
                yield waves, *_each(waves)
        for known, column in zip(self.categories, categories, strict=True):
            codes = np.array([known.get(text, -1) for text in column.tolist()])[:, np.newaxis]
            yield codes >= 0, np.maximum(codes, 0), len(known)

    def _gone(self, z: Array, missing: Array) -> Array:
        """How far each number has gone through each of its bins, from -1/2 to 1/2."""
        blocks = [np.zeros((len(z), 0))]
        for j in np.flatnonzero(self.n_bins_of):
            knots = self.knots[j]
            gone = np.clip((z[:, j, np.newaxis] - knots[:-1]) / np.diff(knots), 0, 1) - 0.5
            blocks.append(gone * (self.height * ~missing[:, j, np.newaxis]))
        return np.hstack(blocks)

    def _falls(self, z: Array, missing: Array) -> tuple[Array, Array, int]:
        """What is left of that to store, as its product with W is that of its falls, from each bin
        to the next and from the last to minus the first, with sums of rows: before and behind the
        bin in which a number is, in the first one behind it and behind the last.
        """
        numbers = np.flatnonzero(self.n_bins_of)
        n_bins, z, present = self.n_bins_of[numbers], z[:, numbers], ~missing[:, numbers]
        bins = np.empty(z.shape, np.intp)
        for k, j in enumerate(numbers):
            bins[:, k] = np.searchsorted(self.knots[j][1:-1], z[:, k], side="right")
        knots = np.concatenate([self.knots[j] for j in numbers])
        ends = bins + (np.cumsum(n_bins + 1) - n_bins - 1)
        low, high = knots[ends], knots[ends + 1]
        gone = (np.clip((z - low) / (high - low), 0, 1) - 0.5) * (self.height * present)
        half, inside = 0.5 * self.height * present, bins > 0
        below, above = half - gone, gone + half
        values = np.stack([np.where(inside, below, above), np.where(inside, above, -below)], axis=2)
        places = np.stack(
            [np.where(inside, bins - 1, bins), np.where(inside, bins, n_bins - 1)], axis=2
        )
        places += (np.cumsum(n_bins) - n_bins)[:, np.newaxis]
        return values.reshape(len(z), -1), places.reshape(len(z), -1), n_bins.sum()


def _each(block: Array) -> tuple[Array, int]:
    """The places of a block's values, one for each input, and how many there are."""
    return np.arange(block.shape[1]), block.shape[1]


def _quantiles(x: Array, levels: Any, weight: Array | None) -> Any:
    """Weighted quantiles; an example of weight 2 counts as two of weight 1."""
    return np.quantile(x, levels, method="inverted_cdf", weights=weight)
