"""The batches of a stream, checked as ``fit`` checks X and y, in one pass after the other."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.base import is_classifier
from sklearn.utils.validation import validate_data

from ._disk_cache import DiskCache
from ._inputs import as_table, checked_data, checked_weight_of_part, errors_about, has_plain_form
from ._state import shallow_copy
from ._streams import numbers_of
from ._typing import Array, Matrix

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._streams import Stream

Piece: TypeAlias = tuple[Any, ...]  # X, target and weight of some rows; None for what is not there


class _Like(NamedTuple):
    """What is the same in all batches."""

    is_sparse: bool
    dtype: Any
    kind: str | None  # of labels
    y_ndim: int
    weighted: bool


_NAMES = (
    "Whether X is sparse",
    "The type of X",
    "The kind of the labels",
    "The number of dimensions of y",
    "Whether it has sample_weight",
)


class Passes:
    """Goes through the batches of a stream, again and again.

    Parameters
    ----------
    estimator : BaseMLP
        Whose attributes say what X must be like.
    stream : Stream
    name : str
        What errors call it.
    piece : int
        So many numbers of a dense batch come at once, but in the first pass and of a cache.

    Attributes
    ----------
    n_rows : int or None
        Examples in a pass; None in the first one. Later ones must have as many.
    like : _Like
        What all batches are like, from the first one on.
    """

    def __init__(self, estimator: BaseMLP, stream: Stream, name: str, piece: int) -> None:
        self._estimator, self._stream, self._name, self._piece = estimator, stream, name, piece
        self._of_classes = is_classifier(estimator)
        self.n_rows: Any = None
        self.like: Any = None
        self._names: Any = None
        self._nameless: Any = None
        self._room: Array | None = None
        self.cache: Any = None if stream.cache is None else DiskCache(stream.cache)

    def close(self) -> None:
        if self.cache is not None:
            self.cache.close()

    def batches(
        self, when: str, change: Callable[[Any, Array | None], Any], reset: bool = False
    ) -> Generator[tuple[int, Matrix, Any, Array | None], None, None]:
        """One pass: number of the first row, X, target and weight of each batch, as checked.

        ``change(y, sample_weight)`` gives the last two.
        """
        first, number, again = 0, -1, self.n_rows is not None
        cache = self.cache if again else None
        cached = cache is not None
        source: Any = self._stream._opened() if cache is None else cache.batches()
        for number, batch in enumerate(source):
            with self._naming(number, first, when):
                X, y, weight = batch if cached else self._stream._parts(batch)
                if (X.shape[0] if sp.issparse(X) else len(X)) == 0:
                    continue
                if not cached:
                    X, y, weight = self._checked(X, y, weight, reset and first == 0)
                    if self.cache is not None:
                        self.cache.add(X, y, weight)
                target, weight = change(y, weight)
                n = X.shape[0]
                if again and first + n > self.n_rows:
                    raise ValueError(
                        f"There are more examples than the {self.n_rows} of the first pass."
                    )
            if not again or cached or self.like.is_sparse:
                yield first, X, target, weight
            else:
                size = max(1, self._piece // X.shape[1])
                for start in range(0, n, size):
                    piece = rows_of((X, target, weight), slice(start, start + size))
                    yield first + start, *piece
                    # Now, as who used it has brought it into the cache of the CPU. einsum, as it
                    # sums by vectors and warns of nothing; a sum that overflows is left to the
                    # check.
                    if not np.isfinite(np.einsum("ij->", piece[0])):
                        with self._naming(number, first, when):
                            checked_data(self._nameless or self._estimator, X, y, reset=False)
            first += n
        name = self._name[0].upper() + self._name[1:]
        if again and first < self.n_rows:
            if first == 0:
                raise ValueError(
                    f"{name} yields nothing {when}: each call of its function must give the "
                    "batches anew."
                )
            raise ValueError(
                f"{name} ended after batch {number}, {when}: it had {first} examples, but "
                f"{self.n_rows} in the first pass."
            )
        if first == 0:
            raise ValueError(f"{name} yields no examples.")
        self.n_rows = first

    def _naming(
        self, number: int, first: int, when: str
    ) -> contextlib.AbstractContextManager[None]:
        """A block that reads a batch: an error names it."""
        return errors_about(
            f"Batch {number} of {self._name}, counted from 0, which begins with row {first}, {when}"
        )

    def _checked(
        self, X: Any, y: Any, weight: Any, reset: bool
    ) -> tuple[Matrix, Matrix, Array | None]:
        """X, y and weight of a batch, which are to be of the types of the first one."""
        if y is None:
            raise ValueError("It has no y: a tuple has X and y, and a table needs target=.")
        estimator, numbers = self._estimator, numbers_of(X, self._room)
        self._library = type(X).__module__.partition(".")[0]  # which makes tables, if it is one
        if numbers is not None:
            self._room = numbers.base
            if self._names != X.schema.names:
                validate_data(estimator, as_table(X), skip_check_array=True, reset=reset)
                # From here on names need not be known to who looks at the numbers.
                self._names, self._nameless = X.schema.names, _without_names(estimator)
            estimator, X, y, reset = self._nameless, numbers, np.asarray(y), False
        # Validation takes most of the time of a small batch.
        if self.n_rows is None or not self._is_plain(X, y):
            X, y = checked_data(estimator, X, y, reset)
        weight = checked_weight_of_part(weight, X)
        kind = y.dtype.kind if self._of_classes else None
        like = _Like(sp.issparse(X), X.dtype, kind, y.ndim, weight is not None)
        self.like = self.like or like
        for what, one, other in zip(_NAMES, like, self.like, strict=True):
            if one != other:
                raise ValueError(f"{what} is {one}, but {other} in the first batch.")
        return X, y, weight

    def _is_plain(self, X: Any, y: Any) -> bool:
        """Whether validation would give a batch of finite X back as it is."""
        estimator = self._estimator
        plain = "biuU" if self._of_classes else "biu"
        return (
            (self._nameless is not None or not hasattr(estimator, "feature_names_in_"))
            and has_plain_form(X, estimator.n_features_in_)
            and type(y) is np.ndarray
            and y.ndim == self.like.y_ndim
            and len(y) == len(X)
            and (y.dtype.kind in plain or (y.dtype.kind == "f" and bool(np.isfinite(y).all())))
        )

    def as_given(self, X: Matrix) -> Any:
        """Some rows as scorers are to see them: a table, if the batches were some with names."""
        names = getattr(self._estimator, "feature_names_in_", None)
        if names is None:
            return X
        library = sys.modules[self._library]
        if sp.issparse(X):  # of pandas
            return library.DataFrame.sparse.from_spmatrix(X, columns=names)
        make = library.table if self._library == "pyarrow" else library.DataFrame
        return make(dict(zip(names, X.T, strict=True)))


def rows_of(arrays: Iterable[Matrix | None], rows: Array | slice) -> Piece:
    """Some rows of each of the arrays, of which some are None."""
    return tuple(None if array is None else array[rows] for array in arrays)


def copies(arrays: Iterable[Matrix | None]) -> Piece:
    return tuple(None if array is None else array.copy() for array in arrays)


def joined(pieces: list[Piece]) -> Piece:
    """Pieces, tuples of arrays or None, as one."""
    return tuple(_stacked(column) for column in zip(*pieces, strict=True))


def _stacked(column: tuple[Any, ...]) -> Any:
    if column[0] is None:
        return None
    if sp.issparse(column[0]):
        return sp.vstack(column, format="csr")
    return np.concatenate(column)


def encoded(targets: Any, y: Matrix, name: str, other: str) -> Array:
    """The target of a batch, with no other labels than ``other`` has."""
    if targets.kind == "real":
        return targets.encode(y, name, other)
    targets.check_kind(y, name, other)
    target = targets.encode(y)
    if targets.kind != "multilabel":
        same = targets.classes[np.minimum(target, len(targets.classes) - 1)] == y
        if not np.all(same):
            raise ValueError(f"{name} has labels that {other} has not: {y[~same][:5].tolist()}.")
    return target


def _without_names(estimator: BaseMLP) -> BaseMLP:
    twin = shallow_copy(estimator)
    twin.__dict__.pop("feature_names_in_", None)
    return twin
