"""``Stream``: where batches of examples come from, and what is in one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ._inputs import as_table
from ._typing import Array, Data, Table

# Not a power of two: in the cache, columns would lie in each other's place.
_ROWS_AT_A_TIME = 2000

Result = TypeVar("Result")


class Dataset(Protocol):
    """A dataset of pyarrow."""

    def scanner(self) -> Any: ...


Batch: TypeAlias = tuple[Data, Data] | tuple[Data, Data, ArrayLike] | Table
Batches: TypeAlias = Iterable[Batch]
Source: TypeAlias = str | os.PathLike[str] | Dataset | Callable[[], Batches] | Batches


class Stream:
    """Examples in batches, as X of ``fit`` where they do not fit into memory.

    There is no method of its own for it, as all that ``fit`` says of parameters, validation
    examples, warm start and attributes is so for a stream. Each epoch reads all batches anew, in
    their order. Examples are shuffled within a buffer of ``buffer_rows``: a source whose examples
    come in an order that means something, such as class after class, has to be shuffled once
    before, or needs a buffer that holds all. With such a buffer ``fit(stream)`` gives the numbers
    of ``fit(X, y)``, to the last bit. See docs/streams.md.

    Parameters
    ----------
    source : str, path, pyarrow Dataset, callable or iterable
        A Parquet file, or a folder of them; any ``pyarrow.dataset.Dataset``; a function without
        arguments whose result, new in each call, gives one batch after the other, such as a
        generator function or one that opens a ``RecordBatchReader``; an object that can be gone
        through repeatedly, such as a list. A batch is a tuple ``(X, y)`` or
        ``(X, y, sample_weight)``, each as ``fit`` takes it, or a table of pyarrow, pandas or
        polars; X is sparse in all of them or in none. From the first epoch on a thread of its own
        calls the function and reads the batches, one buffer ahead of the training.
    features : list of str, default=None
        Columns of X, for tables. None: all but ``target`` and ``weight``.
    target : str or list of str, default=None
        Column of y, or several. Tables have to have it in ``fit``.
    weight : str, default=None
        Column of the weight of each example.
    buffer_rows : int, default=100_000
        Examples in a buffer; ``fit`` keeps two of these, rounded up to whole mini-batches.
    cache : str or path, default=None
        A folder for temporary files, in which a fit keeps what it trains on, decoded: 4 or 8 bytes
        for each number of all X, 8 or 12 for each entry of a sparse one. The source is then read
        only once, in the first pass, and the fit is the same to the last bit if the source always
        gives the same. The files are gone at the end of the fit, however it ends. None: the source
        is read in each epoch.

    See Also
    --------
    MLPClassifier.fit : Takes a stream as X.
    MLPClassifier.partial_fit : Goes through given examples once.

    Examples
    --------
    A function that makes the batches, here of arrays; each of its calls begins anew:

    >>> import numpy as np
    >>> from fastnn import MLPRegressor, Stream
    >>> def batches():
    ...     rng = np.random.default_rng(0)
    ...     for _ in range(10):
    ...         X = rng.standard_normal((500, 3))
    ...         yield X, X.sum(axis=1)
    >>> stream = Stream(batches, buffer_rows=1_000)
    >>> model = MLPRegressor(standardize=True, max_iter=500, random_state=0).fit(stream)
    >>> sum(len(y) for y in stream.map(model.predict))
    5000

    Parquet, read as it is needed: ``Stream("folder", target="price", weight="sold")``.
    """

    def __init__(
        self,
        source: Source,
        *,
        features: Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        weight: str | None = None,
        buffer_rows: int = 100_000,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(buffer_rows, Integral) or buffer_rows < 1:
            raise ValueError(f"buffer_rows must be an int >= 1, got {buffer_rows!r}.")
        if isinstance(source, Iterator):
            raise ValueError(
                f"{source!r} can be gone through only once, but a fit reads its source in each "
                "epoch: give the function that makes it."
            )
        if any(hasattr(type(source), name) for name in ("columns", "column_names")):
            raise TypeError(
                f"A {type(source).__name__} is one batch, not a source of batches: give a list of "
                "such, or a function that makes them one after the other."
            )
        a_source = isinstance(source, (str, os.PathLike)) or hasattr(source, "scanner")
        if not (a_source or callable(source) or _is_iterable(source)):
            raise TypeError(
                "source must be a path, a Dataset of pyarrow, a function or an iterable, got "
                f"{source!r}."
            )
        if isinstance(features, str):
            raise TypeError(f"features must be a list of names, got {features!r}.")
        both = {*_names(target), weight} & set(() if features is None else features)
        if both:
            raise ValueError(
                f"{sorted(map(str, both))} of target or weight must not be among the features."
            )
        if cache is not None and not os.path.isdir(cache):
            raise ValueError(f"cache must be a folder that exists, got {cache!r}.")
        self.source: Source = source
        self.features: Sequence[str] | None = features
        self.target: str | Sequence[str] | None = target
        self.weight: str | None = weight
        self.buffer_rows: int = int(buffer_rows)
        self.cache: str | os.PathLike[str] | None = cache

    def map(self, function: Callable[[Any], Result]) -> Iterator[Result]:
        """Apply a function to X of each batch, such as ``model.predict``.

        Parameters
        ----------
        function : callable
            ``function(X)``.

        Returns
        -------
        iterator
            What it returns, batch by batch.

        Examples
        --------
        >>> import numpy as np
        >>> from fastnn import Stream
        >>> stream = Stream([(np.ones((3, 2)), [0, 1, 0]), (np.ones((1, 2)), [1])])
        >>> list(stream.map(len))
        [3, 1]
        """
        return (function(self._parts(batch)[0]) for batch in self._opened())

    def __array__(self, *arguments: Any, **keywords: Any) -> Array:
        # For all that takes arrays: the error would be about a scalar otherwise.
        raise TypeError(
            "A Stream is for X and X_val of fit of MLPClassifier and MLPRegressor alone. "
            "Predictions are made batch by batch: stream.map(model.predict)."
        )

    def _opened(self) -> Iterable[Any]:
        """Begin a pass: an iterable of batches."""
        source: Any = self.source
        if isinstance(source, (str, os.PathLike)):
            from pyarrow import dataset

            return self._row_groups(dataset.dataset(source, format="parquet"))
        if hasattr(source, "scanner"):
            columns = self._wanted(source)
            return source.to_batches(columns=columns, batch_readahead=1, fragment_readahead=1)
        batches: Any = source() if callable(source) else source
        if not _is_iterable(batches):
            raise TypeError(f"The function of the stream must give batches, got {batches!r}.")
        return batches

    def _row_groups(self, dataset: Any) -> Iterator[Any]:
        """Batches of Parquet files, one row group after the other.

        A scanner of pyarrow would read ahead, up to 256 MB, and take longer, also of one row group.
        """
        from pyarrow.parquet import ParquetFile

        wanted, place = self._wanted(dataset), dataset.schema.names.index
        for file in dataset.get_fragments():
            # Its own columns, in the order of the first file's: a file that has others is an error.
            names = file.physical_schema.names
            known = sorted(set(names).intersection(dataset.schema.names), key=place)
            columns = known + [name for name in names if name not in known]
            if wanted is not None:
                columns = [name for name in columns if name in wanted]
            with file.open() as opened:
                reader = ParquetFile(opened, metadata=file.metadata)
                for group in range(reader.num_row_groups):
                    # With what is nested in a column, and perhaps in another order.
                    table = reader.read_row_group(group, columns).select(columns)
                    yield from table.to_batches(max_chunksize=2**15)

    def _wanted(self, dataset: Any) -> list[str] | None:
        """The columns to read; None is all."""
        if self.features is None:
            return None
        wanted = {*self.features, *_names(self.target), self.weight}
        return [name for name in dataset.schema.names if name in wanted]

    def _parts(self, batch: Any) -> tuple[Any, Any, Any]:
        """X, y and sample_weight of a batch; None for what it has not."""
        if isinstance(batch, tuple):
            if len(batch) > 3:
                raise ValueError(
                    f"A tuple has X, y and sample_weight, but this one has {len(batch)} entries."
                )
            X, y, weight = (*batch, None, None)[:3]
            return X, y, weight
        names = list(_columns(batch))
        targets = _names(self.target)
        features = self.features
        if features is None:
            features = [name for name in names if name not in (*targets, self.weight)]
        missing = {*features, *targets, self.weight} - {*names, None}
        if missing:
            raise ValueError(f"There is no column {sorted(map(str, missing))} in {names}.")
        y = None
        if targets:
            several = isinstance(self.target, (list, tuple))
            y = _select(batch, targets) if several else batch[self.target]
        weight = None if self.weight is None else batch[self.weight]
        return _select(batch, features), y, weight


def _is_iterable(source: object) -> bool:
    return hasattr(source, "__iter__") or hasattr(source, "__getitem__")


def _names(target: Any) -> list[str]:
    if target is None:
        return []
    return list(target) if isinstance(target, (list, tuple)) else [target]


def _columns(table: Any) -> Sequence[str]:
    if hasattr(table, "column_names"):  # pyarrow
        return table.column_names
    if hasattr(table, "columns"):
        return list(table.columns)
    raise TypeError(
        "A batch of a stream is a tuple (X, y) or (X, y, sample_weight), or a table of pyarrow, "
        f"pandas or polars; got {type(table).__name__}."
    )


def _select(table: Any, names: Sequence[str]) -> Any:
    return table.select(names) if hasattr(table, "select") else table[names]


def numbers_of(table: Any, room: Array | None = None) -> Array | None:
    """The numbers of a table of pyarrow by rows; None of anything else, or with other columns.

    In float32 if all columns are. In the rows of ``room``, an earlier result that is not needed any
    more, if there are enough: new memory takes longer than the rest.
    """
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is None or not isinstance(table, (pyarrow.Table, pyarrow.RecordBatch)):
        return None
    types, of = table.schema.types, pyarrow.types
    if not all(of.is_float32(t) or of.is_float64(t) or of.is_integer(t) for t in types):
        return None
    single = all(of.is_float32(each) for each in types)
    shape, dtype, first = (table.num_rows, len(types)), np.float32 if single else np.float64, 0
    if room is None or room.dtype != dtype or room.shape[1] != shape[1] or len(room) < shape[0]:
        room = np.empty(shape, dtype)
    numbers = room[: shape[0]]
    for part in as_table(table).to_batches(max_chunksize=_ROWS_AT_A_TIME):
        # By columns, which NumPy turns into rows in less time than pyarrow.
        columns = part.to_tensor(null_to_nan=True, row_major=False).to_numpy()
        numbers[first : first + len(columns)] = columns
        first += len(columns)
    return numbers
