"""The examples of a fit that come in batches, again and again, with the methods of ``Arrays``.

A fit goes through the source once to learn what the examples are (``Streamed.__init__``), once more
if it sets some aside, and then once for each epoch. A thread of its own reads: it fills one half of
a buffer while kernels train on the other.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import scipy.sparse as sp
import sklearn
from numpy.typing import DTypeLike
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler

from ._examples import Shuffled, in_codes
from ._inputs import checked_labels, refuse_no_weight, weight_scale
from ._network import make_data, predict
from ._standardize import scaler_of
from ._stream_batches import Passes, Piece, copies, encoded, joined, rows_of
from ._threads import Workers
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
# Numbers of the cache on disk that are read ahead in one go. Buffers with fewer are seen together.
_AHEAD = 2**23


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
    _seen: Any
    _features: Any
    _held: Array | None
    _by_class: list[Array] | None
    _rooms: Any
    _buffers: Any
    _reading: Any

    predict = staticmethod(predict)

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
        self._held = self.targets = None
        self._passes = Passes(estimator, stream, "the stream", _PIECE)
        try:
            self._learn(first_pass)
        except BaseException:
            self.close()
            raise
        self.n, self.n_features = self._passes.n_rows, estimator.n_features_in_
        self.dtype, self.is_sparse = self._passes.like.dtype, self._passes.like.is_sparse
        described = stream.buffer_rows, self.n, self.n_features, self.dtype.str
        self.described = {"X": described, "y": None, "sample_weight": None}

    def close(self) -> None:
        self._passes.close()

    def _learn(self, first_pass: bool) -> None:
        """The first pass: what the examples are."""
        estimator, settings = self._estimator, self._settings
        self._features, self._targets, self._seen = None, StandardScaler(), None
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
                part.append(copies(piece))  # the source may reuse its arrays
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
        X, target = joined(part)
        self._features = scaler_of(X, self._features)
        if target is not None:
            self._targets.partial_fit(target.reshape(len(target), -1))

    def _examined(self, first_pass: bool) -> Iterator[tuple[Matrix, Array | None]]:
        """X and target of each batch, for the first time."""
        self._total, self._largest, self._n_numbers = 0.0, 1.0, 0
        seen = self._seen

        def examine(y: Matrix, weight: Array | None) -> tuple[Array | None, Array | None]:
            return self.targets.encode(y) if seen is None else seen.add(y), weight

        batches = self._passes.batches("in the first pass", examine, first_pass)
        for first, X, target, weight in batches:
            self._n_numbers += X.nnz if sp.issparse(X) else X.size
            if weight is not None:
                self._total += weight.sum()
                self._largest = max(abs(weight).max(), self._largest if first > 0 else 0.0)
            yield X, target

    def _learn_weights(self) -> None:
        """The weights of classes, by which those of examples are multiplied."""
        settings: Any = self._settings
        self._by_class = None
        self._weighted = has_weight = self._passes.like.weighted
        if has_weight:
            refuse_no_weight(self._total)
        if self._seen is None or settings.class_weight is None:
            return
        self._weighted = True
        if isinstance(settings.class_weight, str):
            self._by_class = self._seen.balanced(self._passes.n_rows)
        elif self._seen.labels.ndim == 1:
            codes = np.arange(len(self.targets.classes))
            self._by_class = [self.targets.training_weight(None, codes, incremental=False)]
        for weights in self._by_class or ():
            self._largest *= weights.max()

    def _encode(self, y: Matrix) -> Array:
        return encoded(self.targets, y, "y", "the first pass")

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
        labels = np.broadcast_to(0, self.n)
        if self.targets.kind == "binary":
            labels = self.targets.encode(np.concatenate(self._seen.kept))
            self._seen.kept = None
        train, test = divided(settings, self.targets, labels, rng)
        held = np.zeros(self.n, bool)
        held[test] = True
        part = []
        for first, X, y, weight in self._passes.batches(
            "while some are set aside", lambda y, w: (_dense(y), w)
        ):
            part.append(rows_of((X, y, weight), held[first : first + X.shape[0]]))
        places = np.searchsorted(np.flatnonzero(held), test)  # in the order in which fit has them
        X, y, weight = rows_of(joined(part), places)
        target = self._scaling.of_targets(self._encode(y))
        self._held, self.n = held, len(train)
        if self.n <= self._stream.buffer_rows:
            self._order = np.searchsorted(np.flatnonzero(~held), train)
        data = make_data(X, standardized=self._scaling.of_features(self.is_sparse))
        given: tuple[Any, Any] = None, None
        if settings.scoring not in (None, "loss"):
            given = self._passes.as_given(X), y
        return held_part(data, np.arange(len(y)), target, weight, *given)

    def data(self, batch_size: int) -> Data:
        """Room for two buffers, or the first rows of the cache."""
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
        numbers_of_row = max(1.0, self._n_numbers / self._passes.n_rows)
        cache = self._passes.cache
        if cache is not None:
            for _, _, target, weight in self._passes.batches("when all are known", self._to_train):
                cache.add_targets(target, weight)
            held = self._held
            starts = np.arange(self.n) if held is None else np.flatnonzero(~held)
            self._bounds = [*starts[::size].tolist(), self._passes.n_rows]
            self._at_once = max(1, int(_AHEAD / (size * numbers_of_row)))
            return self._window(0)
        if self.is_sparse:
            entries = int(1.1 * size * numbers_of_row)
            self._rooms = [
                (self._room(SparseRows(size, entries, self.dtype), size), 0) for _ in range(2)
            ]
        else:  # kernels see both as one array, and need not be told of another one each time
            both = self._room(np.zeros((2 * size, self.n_features), self.dtype), 2 * size)
            self._rooms = [(both, 0), (both, size)]
        return self._rooms[0][0].data()

    def _room(self, X: Any, n: int) -> _Room:
        if self._as_codes:
            y = np.zeros(n, np.int32)
        else:
            y = np.zeros((n, self.targets.n_outputs), self.dtype)
        return _Room(X, y, np.zeros(n, self.dtype) if self._weighted else None, self._as_data)

    def _as_data(self, X: Any, y: Array, weights: Array | None) -> Data:
        data = make_data(
            X,
            standardized=self._scaling.of_features(self.is_sparse),
            codes=y if self._as_codes else None,
            targets=None if self._as_codes else y,
        )
        if weights is None:
            return data
        return data._replace(weights=readonly(weights), weight_scale=self._scale)

    def make_trainer(self, *arguments: Any) -> Trainer:
        return Trainer(*arguments, reads=lambda: not self._reading.done())

    def __enter__(self) -> Self:
        self._config = sklearn.get_config()  # which threads have each of its own
        self._n_begun, self._buffers, self._leaving = 0, None, False
        self._reader = Workers(1)
        self._reader.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._leaving = True
        if self._buffers is not None:
            self._reader.call(self._buffers.close)  # what the source has opened, in its thread
        self._reader.__exit__(*exception)
        self._buffers = self._reading = None  # and what is seen of the cache

    def skip(self, shuffled: Shuffled) -> None:
        self._n_begun += 1
        for size in self._sizes:
            shuffled(self._orders[size])

    def epoch(self, shuffled: Shuffled) -> Iterator[tuple[Data, Array]]:
        """One buffer after the other, while the next is read."""
        self._n_begun += 1
        if self._buffers is None:
            cached = self._passes.cache is not None
            self._buffers = self._mapped() if cached else self._filled(self._n_begun)
            self._read()
        for number, size in enumerate(self._sizes, 1):
            order = self._orders[size]
            shuffled(order)
            yield self._next(order, number == len(self._sizes))

    def _next(self, order: Array, is_last: bool) -> tuple[Data, Array]:
        """The buffer that is being read, with its rows in this order; begins to read another."""
        data, rows = self._reading.result()
        if not is_last or self._n_begun < self._settings.max_iter:
            self._read()
        return data, rows[order]

    def _read(self) -> None:
        self._reading = self._reader.call(next, self._buffers)

    def _filled(self, epoch: int) -> Iterator[tuple[Data, Array]]:
        """Fill both buffers in turn, from this epoch on."""
        rooms = itertools.cycle(self._rooms)
        with sklearn.config_context(**self._config):
            for number in itertools.count(epoch):
                batches = self._passes.batches(f"in epoch {number}", self._to_train)
                (room, start), written = next(rooms), 0
                for at, piece in _cut(map(self._left, batches), self._size):
                    if self._leaving:
                        return
                    if at == 0 and written:
                        yield room.data(), np.arange(start, start + written)
                        room, start = next(rooms)
                    written = at + piece[0].shape[0]
                    room.write(slice(start + at, start + written), piece)
                yield room.data(), np.arange(start, start + written)

    def _mapped(self) -> Iterator[tuple[Data, Array]]:
        """One buffer after the other as the cache has it, again and again."""
        window = None
        while True:
            for number, (first, last) in enumerate(itertools.pairwise(self._bounds)):
                if number % self._at_once == 0:
                    begin = first
                    if window is None or self._at_once < len(self._sizes):
                        window = self._window(number)
                        for numbers in (window.X.ravel(), window.values, window.columns):
                            # To look at one of each page reads it ahead, in this thread.
                            for at in range(0, len(numbers), _AHEAD):
                                if self._leaving:
                                    return
                                step = mmap.PAGESIZE // numbers.itemsize
                                numbers[at : at + _AHEAD : step].max()
                kept = np.arange(last - first)
                if self._held is not None:
                    kept = np.flatnonzero(~self._held[first:last])
                yield window, kept + (first - begin)

    def _window(self, number: int) -> Data:
        """What the cache has of this buffer and of those that are seen at once with it."""
        last = min(number + self._at_once, len(self._sizes))
        bounds = self._bounds[number], self._bounds[last]
        return self._as_data(*self._passes.cache.rows(*bounds))

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

    def _left(self, piece: tuple[int, Matrix, Array, Array | None]) -> Piece:
        """What is trained on of a piece of a batch."""
        first, X, target, weight = piece
        if self._held is None:
            return X, target, weight
        return rows_of((X, target, weight), ~self._held[first : first + X.shape[0]])


class SparseRows:
    """Room for ``n`` CSR rows, which are written one after the other.

    It grows where they have more than ``n_entries`` entries. What is written last, and all before
    it, has the names of a ``csr_array``.
    """

    def __init__(self, n: int, n_entries: int, dtype: DTypeLike) -> None:
        self._n, self._starts = n, np.zeros(n + 1, np.int64)
        self._columns, self._values = np.empty(n_entries, np.int32), np.empty(n_entries, dtype)
        self.dtype = self._values.dtype

    def __setitem__(self, rows: slice, X: Matrix) -> None:
        begin = int(self._starts[rows.start])
        end = begin + X.nnz
        if end > len(self._values):
            self._columns, self._values = (
                np.concatenate([array[:begin], np.empty(end + end // 4 - begin, array.dtype)])
                for array in (self._columns, self._values)
            )
        self._n = rows.stop
        self._starts[rows.start : rows.stop + 1] = X.indptr
        self._starts[rows.start : rows.stop + 1] += begin
        self._columns[begin:end], self._values[begin:end] = X.indices[: X.nnz], X.data[: X.nnz]

    @property
    def indptr(self) -> Array:
        return self._starts[: self._n + 1]

    @property
    def indices(self) -> Array:
        return self._columns[: self._starts[self._n]]

    @property
    def data(self) -> Array:
        return self._values[: self._starts[self._n]]


class _Room:
    """Room for the examples of a buffer or two."""

    def __init__(
        self, X: Any, y: Array, weights: Array | None, as_data: Callable[..., Data]
    ) -> None:
        self._arrays, self._as_data = (X, y, weights), as_data
        self._data = as_data(*self._arrays)

    def write(self, rows: slice, piece: Piece) -> None:
        for array, part in zip(self._arrays, piece, strict=True):
            if array is not None:
                array[rows] = part

    def data(self) -> Data:
        """What is written, as kernels see it."""
        if isinstance(self._arrays[0], SparseRows):  # which may be elsewhere by now
            self._data = self._as_data(*self._arrays)
        return self._data


def _cut(batches: Iterable[Piece], size: int) -> Iterator[tuple[int, Piece]]:
    """Pieces of batches, so that some of them make up a part of ``size`` rows.

    Yields the place of a piece in its part, 0 for the first one, and the piece. The last part may
    have fewer rows.
    """
    at = 0
    for batch in batches:
        first, n = 0, batch[0].shape[0]
        while first < n:
            last = min(n, first + size - at)
            yield at, rows_of(batch, slice(first, last))
            at = (at + last - first) % size
            first = last


def _dense(y: Matrix) -> Array:
    return y.toarray() if sp.issparse(y) else y
