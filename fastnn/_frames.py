"""Tables as they come: read column by column, and encoded for a network.

A column is of numbers, float64 with NaN where one is missing, or of categories, an array of objects
that are text, or None where one is missing. Frames of pandas, polars and pyarrow that show the same
on paper are the same from here on.
"""

from __future__ import annotations

import re
from numbers import Number
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import DTypeLike
from sklearn.base import BaseEstimator
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.validation import validate_data

from ._inputs import TIME_DTYPES, TIME_TYPES, as_table, is_missing
from ._typing import Array, Matrix

# What pandas, polars and pyarrow call the types of categories, also of those that are numbers.
_CATEGORY_DTYPES = re.compile("category|Categorical|Enum|dictionary")


def checked_columns(estimator: BaseEstimator, X: Any, reset: bool) -> tuple[list[Array], list[Any]]:
    """The columns of a table, and their names, or an error that names the column.

    Parameters
    ----------
    estimator : estimator of scikit-learn
    X : as the user gave it
    reset : bool
        Whether to note the features of X, instead of comparing them with those of the last fit.

    Returns
    -------
    list of ndarray of shape (n_samples,)
        Of float64, or of objects: see above.
    list
        Names, or numbers where there are none.
    """
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
        if not hasattr(X, "__array__"):
            X = np.asarray(X, object)  # NumPy would turn numbers beside text into text
        array = validate_data(estimator, X, reset=reset, dtype=None, ensure_all_finite=False)
        return [_read(j, array[:, j]) for j in range(array.shape[1])], list(range(array.shape[1]))
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if not pairs or len(pairs[0][1]) == 0:
        shape = len(pairs[0][1]) if pairs else 0, len(pairs)
        what = "sample(s)" if pairs else "feature(s)"
        raise ValueError(f"Found array with 0 {what} (shape={shape}): at least 1 is required.")
    return [_read(*pair) for pair in pairs], [name for name, _ in pairs]


def _read(name: Any, column: Any) -> Array:
    """One column in one of the two forms."""
    dtype = str(getattr(column, "dtype", getattr(column, "type", None)))
    # NumPy would take the first category for what is missing in a dictionary of pyarrow.
    of_objects = dtype.startswith("dictionary") and hasattr(column, "to_pylist")
    values = np.array(column.to_pylist(), object) if of_objects else np.asarray(column)
    if TIME_DTYPES.match(dtype) or values.dtype.kind in "mM":
        raise ValueError(_neither(name, f"is of type {dtype}"))
    is_category = _CATEGORY_DTYPES.match(dtype) is not None
    if values.dtype.kind in "fiub" and not is_category:
        return _finite(name, values.astype(np.float64))
    values = values.tolist()
    kinds = {type(value) for value in values}
    if any(kind.__hash__ is None for kind in kinds):
        found = next(value for value in values if type(value).__hash__ is None)
        what = f"holds {found!r}: argument must be a string or a number"
        raise TypeError(_neither(name, what))
    distinct = dict.fromkeys(values)
    present = [value for value in distinct if not is_missing(value)]
    for value in present:
        if isinstance(value, (*TIME_TYPES, complex)):
            raise ValueError(_neither(name, f"holds {value!r}"))
    if not is_category and all(isinstance(value, Number) for value in present):
        distinct.update((value, float(value)) for value in present)
        return _finite(name, np.array([distinct[value] for value in values], np.float64))
    distinct.update((value, _text(value)) for value in present)
    return np.array([distinct[value] for value in values], object)


def _text(value: object) -> str:
    """A category as text: 1 and, where others of the column are missing, 1.0 are the same one."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


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
      linear in each bin.
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
        self.one_hot: Any = None
        if categories:
            self.one_hot = OneHotEncoder(handle_unknown="ignore", dtype=self.dtype)
            self.one_hot.fit(np.column_stack(categories))
        self.is_sparse = False
        blocks = self._blocks(*self._split([column[:1] for column in columns]))
        n_inputs = n_stored = sum(block.shape[1] for block in blocks)
        n_bins = [max(0, len(knots) - 1) for knots in self.knots]
        n_stored -= sum(max(0, n - 2) for n in n_bins)
        if categories:
            n_stored -= sum(len(known) - 1 for known in self.one_hot.categories_)
        # The same for every table, so that a row has the same bits in any.
        self.is_sparse = self.WORTH * n_stored < n_inputs
        self.continued = np.zeros(n_inputs, bool)
        first = len(numbers) + np.count_nonzero(self.has_missing)
        for n in n_bins:
            self.continued[first + 1 : first + n] = True
            first += n
        return self

    def _knots(self, z: Array, weight: Array | None) -> Array:
        if self.embedding != "piecewise_linear":
            return np.zeros(0)
        knots = np.unique(z)
        if len(knots) > self.n_bins + 1:
            knots = np.unique(_quantiles(z, np.linspace(0, 1, self.n_bins + 1), weight))
        # Of two values the standardised number itself says everything.
        return knots if len(knots) > 2 else np.zeros(0)

    def _split(self, columns: list[Array]) -> tuple[Array, list[Array]]:
        """Numbers, (n_numbers, n), and a list of the categories."""
        categories = [c for c, chosen in zip(columns, self.is_category, strict=True) if chosen]
        numbers = [c for c, other in zip(columns, self.is_category, strict=True) if not other]
        return np.array(numbers), categories

    def _standardize(self, x: Array, j: int) -> Array:
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
            if is_category and column.dtype != object:
                texts = [None if np.isnan(value) else _text(value) for value in column.tolist()]
                columns[j] = np.array(texts, object)
            elif not is_category and column.dtype == object:
                found = next(value for value in column if value is not None)
                raise ValueError(
                    f"Column {names[j]!r} of X was one of numbers in fit, but now holds {found!r}."
                )
        blocks = self._blocks(*self._split(columns))
        if self.is_sparse:
            return sp.hstack([sp.csr_array(block) for block in blocks], format="csr")
        blocks = [block.toarray() if sp.issparse(block) else block for block in blocks]
        return np.ascontiguousarray(np.hstack(blocks))

    def _blocks(self, numbers: Array, categories: list[Array]) -> list[Matrix]:
        """Blocks of columns, dense or CSR."""
        blocks = []
        if len(numbers):
            z = np.stack([self._standardize(x, j) for j, x in enumerate(numbers)], axis=1)
            missing = np.isnan(z)
            z[missing] = 0
            blocks.append((z / np.sqrt(1 + (z / 3) ** 2)).astype(self.dtype))
            blocks.append(missing[:, self.has_missing].astype(self.dtype))
            if self.embedding == "piecewise_linear":
                blocks.append(self._bins(z, missing))
            if self.embedding == "periodic":
                turns = blocks[0][:, :, np.newaxis] * self.frequencies + self.phases
                waves = np.cos(2 * np.pi * turns) * ~missing[:, :, np.newaxis]
                blocks.append(waves.reshape(len(z), -1).astype(self.dtype))
        if categories:
            blocks.append(sp.csr_array(self.one_hot.transform(np.column_stack(categories))))
        return blocks

    def _bins(self, z: Array, missing: Array) -> Matrix:
        """How far each number has gone through each of its bins, from -1/2 to 1/2."""
        n_inputs, blocks, entries = 0, [np.zeros((len(z), 0))], []
        for j, knots in enumerate(self.knots):
            if len(knots):
                gone = np.clip((z[:, j, np.newaxis] - knots[:-1]) / np.diff(knots), 0, 1) - 0.5
                gone *= self.height * ~missing[:, j, np.newaxis]
                if self.is_sparse:  # its product with W is that of its falls with sums of rows
                    falls = -np.diff(gone, axis=1, append=-gone[:, :1])
                    rows, bins = np.nonzero(falls)
                    entries.append((falls[rows, bins], rows, n_inputs + bins))
                else:
                    blocks.append(gone)
                n_inputs += gone.shape[1]
        if entries:
            values, *where = map(np.concatenate, zip(*entries, strict=True))
            return sp.csr_array((values.astype(self.dtype), where), shape=(len(z), n_inputs))
        return np.hstack(blocks).astype(self.dtype)


def _quantiles(x: Array, levels: Any, weight: Array | None) -> Any:
    """Weighted quantiles; an example of weight 2 counts as two of weight 1."""
    return np.quantile(x, levels, method="inverted_cdf", weights=weight)
