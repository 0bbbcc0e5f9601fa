"""The examples of a fit that come in batches, again and again, with the methods of ``Arrays``.

A fit goes through the source once to learn what the examples are (``Streamed.__init__``), once more
if it sets some aside, and then once for each epoch. A thread of its own reads: it fills one half of
a buffer while kernels train on the other.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
import sklearn
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.validation import validate_data

from ._disk_cache import DiskCache
from ._examples import Shuffled, in_codes
from ._inputs import (
    as_table,
    checked_data,
    checked_labels,
    checked_weight_of_part,
    errors_about,
    has_plain_form,
    refuse_no_weight,
    weight_scale,
)
from ._network import make_data, predict
from ._standardize import scaler_of
from ._state import shallow_copy
from ._streams import numbers_of
from ._trainer import Trainer
from ._typing import Array, Matrix, Parameters
from ._validation import divided, held_part
from .kernels.layout import Data, readonly

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._standardize import Standardization
    from ._streams import Stream
    from ._validation import Held

# Numbers of X of a source that are copied and checked in one go: they stay in the CPU's cache.
_PIECE = 2**17
# And of the cache on disk, that are read ahead in one go. Buffers with fewer are seen together.
_AHEAD = 2**23

Piece: TypeAlias = tuple[Any, ...]  # X, target and weight of some rows; None for what is not there

# What is the same in all batches, see ``_checked``.
_KINDS = (
    "The type of X",
    "The kind of the labels",
    "The number of dimensions of y",
    "Whether it has sample_weight",
)


def _naming(number: int, first: int, when: str) -> contextlib.AbstractContextManager[None]:
    """A block that reads a batch: an error names it."""
    return errors_about(
        f"Batch {number} of the stream, counted from 0, which begins with row {first}, {when}"
    )


class _Seen:
    """The labels of a classifier's stream: which there are, and how often each occurs.

    Parameters
    ----------
    keeps : bool
        Whether to keep those of all examples, as long as there are no more than two.
    """

    labels: Any
    counts: Any

    def __init__(self, keeps: bool) -> None:
        self.labels = self.counts = None  # of a matrix of labels: its first batch, and of each 1
        self.kept: list[Array] | None = [] if keeps else None

    def add(self, y: Matrix) -> None:
        if y.ndim == 2 or y.dtype.kind not in "biuU":  # these are labels, whatever they are
            checked_labels(y)
        counts: Array
        if y.ndim == 2:
            counts = np.asarray((y != 0).sum(axis=0), np.float64).ravel()
            if self.labels is None:
                self.labels, self.counts, self.kept = y.copy(), np.zeros_like(counts), None
            if len(counts) != len(self.counts):
                raise ValueError(
                    f"y has {len(counts)} labels, but {len(self.counts)} in the first batch."
                )
            self.counts += counts
            return
        labels, counts = np.unique(y, return_counts=True)
        if self.labels is not None:
            labels = np.concatenate([self.labels, labels])
            counts = np.concatenate([self.counts, counts])
        self.labels, place = np.unique(labels, return_inverse=True)
        self.counts = np.bincount(place, weights=counts)
        if len(self.labels) > 2:
            self.kept = None
        if self.kept is not None:
            self.kept.append(y.copy())  # y may be a view of more

    def balanced(self, n: int) -> list[Array]:
        """The weights that ``class_weight='balanced'`` gives to the classes, or to 0 and 1."""
        if np.ndim(self.labels) == 1:
            return [n / (len(self.labels) * self.counts)]
        return [
            np.array([n / (2 * (n - count)), n / (2 * count)] if 0 < count < n else [1.0, 1.0])
            for count in self.counts
        ]


class Streamed:
    """The examples of a stream, with the methods of ``Arrays``; parameters as there."""

    targets: Any  # Targets, once they are known; so with the others
    n: int
    _n_rows: Any
    _like: Any
    _seen: Any
    _nameless: Any
    _held: Array | None
    _room: Array | None
    _cache: Any
    _weights: Any
    _by_class: list[Array] | None
    _buffers: Any
    _reading: Any

    is_sparse = False
    make_trainer, predict = Trainer, staticmethod(predict)

    def __init__(
        self,
        estimator: BaseMLP,
        settings: Parameters,
        stream: Stream,
        y: Any,
        sample_weight: Any,
        first_pass: bool,
        incremental: bool,
    ) -> None:
        if y is not None or sample_weight is not None:
            raise ValueError("A stream has y and sample_weight in its batches: leave them out.")
        if incremental:
            raise ValueError("A stream is for fit: partial_fit takes one batch.")
        if settings.solver == "lbfgs":
            raise ValueError(
                "solver='lbfgs' needs all examples at once, but X is a Stream: set solver='adam' "
                "or another one, or give X and y as arrays."
            )
        self._estimator, self._stream, self._settings = estimator, stream, settings
        self._like = self._names = self._nameless = self._n_rows = self._held = self.targets = None
        self._room = None
        self._cache = None if stream.cache is None else DiskCache(stream.cache)
        try:
            self._learn(first_pass)
        except BaseException:
            self.close()
            raise
        self.n, self.n_features, self.dtype = self._n_rows, estimator.n_features_in_, self._like[0]
        described = stream.buffer_rows, self.n, self.n_features, self.dtype.str
        self.described = {"X": described, "y": None, "sample_weight": None}

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _learn(self, first_pass: bool) -> None:
        """The first pass: what the examples are."""
        estimator, settings = self._estimator, self._settings
        self._features, self._targets, self._seen = StandardScaler(), StandardScaler(), None
        if is_classifier(estimator):
            self._seen = _Seen(keeps=settings.early_stopping)
        else:
            self.targets = estimator._learn_targets(settings, None, settings.warm_start, False)
        batches = self._examined(first_pass)
        if settings.standardize or getattr(settings, "standardize_target", False):
            part: list[Piece] = []
            for at, piece in _cut(batches, self._stream.buffer_rows):
                if at == 0 and part:
                    self._add(part)
                    part = []
                part.append(_copies(piece))  # the source may reuse its arrays
            self._add(part)
        else:
            for _ in batches:
                pass
        if self._seen is not None:
            labels = self._seen.labels
            self.targets = estimator._learn_targets(settings, labels, settings.warm_start, False)
        self._learn_weights()

    def _add(self, part: list[Piece]) -> None:
        """Let the scalers learn of examples that would fill a buffer, as ``Arrays`` does of all."""
        X, target = _joined(part)
        scaler_of(X, self._features)
        if target is not None:
            self._targets.partial_fit(target.reshape(len(target), -1))

    def _examined(self, first_pass: bool) -> Iterator[tuple[Array, Array | None]]:
        """X and target of each batch, for the first time."""
        n, self._total, self._largest = 0, 0.0, 1.0
        seen = self._seen

        def examine(y: Matrix, weight: Array | None) -> tuple[Array | None, Array | None]:
            return self.targets.encode(y) if seen is None else seen.add(y), weight

        for first, X, target, weight in self._batches("in the first pass", examine, first_pass):
            n = first + len(X)
            if weight is not None:
                self._total += weight.sum()
                self._largest = max(abs(weight).max(), self._largest if first > 0 else 0.0)
            yield X, target
        if n == 0:
            raise ValueError("The stream yields no examples.")
        self._n_rows = n

    def _learn_weights(self) -> None:
        """The weights of classes, by which those of examples are multiplied."""
        settings: Any = self._settings
        self._by_class = None
        self._weighted = has_weight = self._like[-1]
        if has_weight:
            refuse_no_weight(self._total)
        if self._seen is None or settings.class_weight is None:
            return
        self._weighted = True
        if isinstance(settings.class_weight, str):
            self._by_class = self._seen.balanced(self._n_rows)
        elif self._seen.labels.ndim == 1:
            codes = np.arange(len(self.targets.classes))
            self._by_class = [self.targets.training_weight(None, codes, incremental=False)]
        for weights in self._by_class or ():
            self._largest *= weights.max()

    def _batches(
        self, when: str, change: Callable[[Any, Array | None], Any], reset: bool = False
    ) -> Iterator[tuple[int, Array, Any, Array | None]]:
        """One pass: number of the first row, X, target and weight of each batch, as checked.

        ``change(y, sample_weight)`` gives the last two. After the first pass a batch of the source
        comes in pieces, which are copied while they are in the cache of the CPU.
        """
        first, number, again = 0, -1, self._n_rows is not None
        cache = self._cache if again else None
        cached = cache is not None
        source: Any = self._stream._opened() if cache is None else cache.batches()
        for number, batch in enumerate(source):
            with _naming(number, first, when):
                X, y, weight = batch if cached else self._stream._parts(batch)
                if sp.issparse(X):
                    raise TypeError("X is sparse, but a stream takes dense X alone.")
                if len(X) == 0:
                    continue
                if not cached:
                    X, y, weight = self._checked(X, y, weight, reset and first == 0)
                    if self._cache is not None:
                        self._cache.add(X, y, weight)
                target, weight = change(y, weight)
                if again and first + len(X) > self._n_rows:
                    raise ValueError(
                        f"There are more examples than the {self._n_rows} of the first pass."
                    )
            size = max(1, _PIECE // X.shape[1]) if again and not cached else len(X)
            for rows in gen_batches(len(X), size):
                piece = _of((X, target, weight), rows)
                yield first + rows.start, *piece
                # Now, as the copy of it has brought it into the cache of the CPU. einsum, as it
                # sums by vectors and warns of nothing; a sum that overflows is left to the check.
                if again and not cached and not np.isfinite(np.einsum("ij->", piece[0])):
                    with _naming(number, first, when):
                        checked_data(self._nameless or self._estimator, X, y, reset=False)
            first += len(X)
        if again and first < self._n_rows:
            if first == 0:
                raise ValueError(
                    f"The stream yields nothing {when}: each call of its function must give the "
                    "batches anew."
                )
            raise ValueError(
                f"The stream ended after batch {number}, {when}: it had {first} examples, but "
                f"{self._n_rows} in the first pass."
            )

    def _checked(
        self, X: Any, y: Any, weight: Any, reset: bool
    ) -> tuple[Array, Matrix, Array | None]:
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
        if self._n_rows is None or not self._is_plain(X, y):
            X, y = checked_data(estimator, X, y, reset)
        weight = checked_weight_of_part(weight, X)
        kind = y.dtype.kind if is_classifier(self._estimator) else None
        like = X.dtype, kind, y.ndim, weight is not None
        self._like = self._like or like
        for what, one, other in zip(_KINDS, like, self._like, strict=True):
            if one != other:
                raise ValueError(f"{what} is {one}, but {other} in the first batch.")
        return X, y, weight

    def _is_plain(self, X: Any, y: Any) -> bool:
        """Whether validation would give a batch of finite X back as it is."""
        plain = "biu" if self.targets.kind == "real" else "biuU"
        return (
            (self._nameless is not None or not hasattr(self._estimator, "feature_names_in_"))
            and has_plain_form(X, self.n_features)
            and type(y) is np.ndarray
            and y.ndim == self._like[2]
            and len(y) == len(X)
            and (y.dtype.kind in plain or (y.dtype.kind == "f" and bool(np.isfinite(y).all())))
        )

    def _encode(self, y: Matrix) -> Array:
        """The target of a batch, with no other labels than there were in the first pass."""
        targets = self.targets
        if targets.kind == "real":
            return targets.encode(y)
        targets.check_kind(y, "y", "the first pass")
        target = targets.encode(y)
        if targets.kind != "multilabel":
            same = targets.classes[np.minimum(target, len(targets.classes) - 1)] == y
            if not np.all(same):
                raise ValueError(f"y has labels that it had not in the first pass: {y[~same][:5]}.")
        return target

    def _training_weight(self, weight: Array | None, target: Array) -> Array | None:
        if self._by_class is None:
            return self.targets.training_weight(weight, target, incremental=True)
        columns = [target] if target.ndim == 1 else target.T.astype(int)
        of_class = np.ones(len(target))
        for codes, weights in zip(columns, self._by_class, strict=True):
            of_class *= weights[codes]
        return of_class if weight is None else of_class * weight

    def feature_scaler(self) -> StandardScaler:
        return self._features

    def target_scaler(self) -> StandardScaler:
        return self._targets

    def prepare(self, scaling: Standardization, loss: str) -> None:
        self._scaling, self._as_codes = scaling, in_codes(self.targets, loss)

    def set_aside(self, settings: Parameters, rng: np.random.RandomState) -> Held:
        """Hold out the rows that a fit of arrays holds out; in memory, after one pass more."""
        labels = np.broadcast_to(0, self._n_rows)
        if self.targets.kind == "binary":
            labels = self.targets.encode(np.concatenate(self._seen.kept))
            self._seen.kept = None
        train, test = divided(settings, self.targets, labels, rng)
        held = np.zeros(self._n_rows, bool)
        held[test] = True
        part = []
        for first, X, y, weight in self._batches(
            "while some are set aside", lambda y, w: (_dense(y), w)
        ):
            part.append(_of((X, y, weight), held[first : first + len(X)]))
        places = np.searchsorted(np.flatnonzero(held), test)  # in the order in which fit has them
        X, y, weight = _of(_joined(part), places)
        target = self._scaling.of_targets(self._encode(y))
        self._held, self.n = held, len(train)
        if self.n <= self._stream.buffer_rows:
            self._order = np.searchsorted(np.flatnonzero(~held), train)
        data = make_data(X, standardized=self._scaling.of_features(X))
        given = (None, None) if settings.scoring in (None, "loss") else (self._as_table(X), y)
        return held_part(data, np.arange(len(X)), target, weight, *given)

    def _as_table(self, X: Array) -> Any:
        """X as scorers are to see it: with names, if the batches had some."""
        names = getattr(self._estimator, "feature_names_in_", None)
        if names is None:
            return X
        library = sys.modules[self._library]
        make = library.table if self._library == "pyarrow" else library.DataFrame
        return make(dict(zip(names, X.T, strict=True)))

    def data(self, batch_size: int) -> Data:
        """Room for two buffers; kernels see both as one array. Or the first rows of the cache."""
        most = self._stream.buffer_rows
        if batch_size > max(most, 1) and self.n > most:
            raise ValueError(
                f"A mini-batch of {batch_size} examples does not fit into buffer_rows={most}."
            )
        self._size = size = min(self.n, -(-most // batch_size) * batch_size)
        self._sizes = [size] * (self.n // size)
        if self.n % size:
            self._sizes.append(self.n % size)
        self._orders = {size: np.arange(size) for size in self._sizes}
        if self.n == size and self._held is not None:
            self._orders[self.n] = self._order
        self._scale = weight_scale(self._largest)
        if self._cache is not None:
            for _, _, target, weight in self._batches("when all are known", self._to_train):
                self._cache.add_targets(target, weight)
            starts = np.arange(self.n) if self._held is None else np.flatnonzero(~self._held)
            self._bounds = [*starts[::size].tolist(), self._n_rows]
            self._at_once = max(1, _AHEAD // (size * self.n_features))
            return self._window(0)
        n, width, dtype = 2 * size, self.targets.n_outputs, self.dtype
        self._X = np.zeros((n, self.n_features), dtype)
        self._y = np.zeros(n, np.int32) if self._as_codes else np.zeros((n, width), dtype)
        self._weights = np.zeros(n, dtype) if self._weighted else None
        return self._as_data(self._X, self._y, self._weights)

    def _as_data(self, X: Array, y: Array, weights: Array | None) -> Data:
        data = make_data(
            X,
            standardized=self._scaling.of_features(X),
            codes=y if self._as_codes else None,
            targets=None if self._as_codes else y,
        )
        if weights is None:
            return data
        return data._replace(weights=readonly(weights), weight_scale=self._scale)

    def __enter__(self) -> Self:
        self._config = sklearn.get_config()  # which threads have each of its own
        self._n_begun, self._buffers, self._leaving = 0, None, False
        self._reader = ThreadPoolExecutor(1, "fastnn-reader")
        return self

    def __exit__(self, *exception: object) -> None:
        self._leaving = True
        if self._buffers is not None:
            self._reader.submit(self._buffers.close)  # what the source has opened, in its thread
        self._reader.shutdown()
        self._buffers = self._reading = None  # and what is seen of the cache

    def skip(self, shuffled: Shuffled) -> None:
        self._n_begun += 1
        for size in self._sizes:
            shuffled(self._orders[size])

    def epoch(self, shuffled: Shuffled) -> Iterator[tuple[Data, Array]]:
        """One buffer after the other, while the next is read."""
        self._n_begun += 1
        if self._buffers is None:
            cached = self._cache is not None
            self._buffers = self._mapped() if cached else self._filled(self._n_begun)
            self._read()
        for number, size in enumerate(self._sizes, 1):
            order = self._orders[size]
            shuffled(order)
            yield self._next(order, number == len(self._sizes))

    def _next(self, order: Array, is_last: bool) -> tuple[Data, Array]:
        """The buffer that is being read, with its rows in this order; begins to read another."""
        # Ctrl-C does not end a wait where polars has been imported.
        while not wait([self._reading], timeout=0.05).done:
            pass
        data, rows = self._reading.result()
        if not is_last or self._n_begun < self._settings.max_iter:
            self._read()
        return data, rows[order]

    def _read(self) -> None:
        self._reading = self._reader.submit(next, self._buffers)

    def _filled(self, epoch: int) -> Iterator[tuple[Data, Array]]:
        """Fill both buffers in turn, from this epoch on."""
        data = self._as_data(self._X, self._y, self._weights)
        everything, start = np.arange(2 * self._size), self._size
        with sklearn.config_context(**self._config):
            for number in itertools.count(epoch):
                batches = self._batches(f"in epoch {number}", self._to_train)
                written = 0
                for at, piece in _cut(map(self._left, batches), self._size):
                    if self._leaving:
                        return
                    if at == 0:
                        if written:
                            yield data, everything[start:]
                        start = self._size - start
                    written = at + len(piece[0])
                    self._write(slice(start + at, start + written), *piece)
                yield data, everything[start:]

    def _mapped(self) -> Iterator[tuple[Data, Array]]:
        """One buffer after the other as the cache has it, again and again."""
        window = None
        while True:
            for number, (first, last) in enumerate(itertools.pairwise(self._bounds)):
                if number % self._at_once == 0:
                    begin = first
                    if window is None or self._at_once < len(self._sizes):
                        window = self._window(number)
                        # To look at a number of each page reads it ahead, in this thread.
                        for rows in gen_batches(len(window.X), max(1, _AHEAD // self.n_features)):
                            if self._leaving:
                                return
                            window.X[rows].ravel()[:: mmap.PAGESIZE // window.X.itemsize].max()
                kept = np.arange(last - first)
                if self._held is not None:
                    kept = np.flatnonzero(~self._held[first:last])
                yield window, kept + (first - begin)

    def _window(self, number: int) -> Data:
        """What the cache has of this buffer and of those that are seen at once with it."""
        last = min(number + self._at_once, len(self._sizes))
        return self._as_data(*self._cache.rows(self._bounds[number], self._bounds[last]))

    def _to_train(self, y: Matrix, weight: Array | None) -> tuple[Array, Array | None]:
        """Target and weight of a batch, as kernels take them."""
        target = self._encode(y)
        weight = self._training_weight(weight, target)
        target = self._scaling.of_targets(target)
        if self._as_codes:
            target = target.astype(np.int32)
        else:
            target = self.targets.values(target, self.dtype)
        return target, None if weight is None else (weight * self._scale).astype(self.dtype)

    def _left(self, piece: tuple[int, Array, Array, Array | None]) -> Piece:
        """What is trained on of a piece of a batch."""
        first, X, target, weight = piece
        if self._held is None:
            return X, target, weight
        return _of((X, target, weight), ~self._held[first : first + len(X)])

    def _write(self, rows: slice, X: Array, target: Array, weight: Array | None) -> None:
        self._X[rows], self._y[rows] = X, target
        if weight is not None:
            self._weights[rows] = weight


def _cut(batches: Iterable[Piece], size: int) -> Iterator[tuple[int, Piece]]:
    """Pieces of batches, so that some of them make up a part of ``size`` rows.

    Yields the place of a piece in its part, 0 for the first one, and the piece. The last part may
    have fewer rows.
    """
    at = 0
    for batch in batches:
        first, n = 0, len(batch[0])
        while first < n:
            last = min(n, first + size - at)
            yield at, _of(batch, slice(first, last))
            at = (at + last - first) % size
            first = last


def _of(arrays: Iterable[Array | None], rows: Array | slice) -> Piece:
    """Some rows of each of the arrays, of which some are None."""
    return tuple(None if array is None else array[rows] for array in arrays)


def _copies(arrays: Iterable[Array | None]) -> Piece:
    return tuple(None if array is None else array.copy() for array in arrays)


def _joined(pieces: list[Piece]) -> Piece:
    """Pieces, tuples of arrays or None, as one."""
    return tuple(
        None if column[0] is None else np.concatenate(column)
        for column in zip(*pieces, strict=True)
    )


def _without_names(estimator: BaseMLP) -> BaseMLP:
    twin = shallow_copy(estimator)
    twin.__dict__.pop("feature_names_in_", None)
    return twin


def _dense(y: Matrix) -> Array:
    return y.toarray() if sp.issparse(y) else y
