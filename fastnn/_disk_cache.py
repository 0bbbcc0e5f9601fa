"""What a fit reads of a stream, kept on disk: ``Stream(..., cache=folder)``."""

import contextlib
import math
import os
import pickle
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp

from ._typing import Array, Matrix


class _Rows:
    """Rows in a file: written once, one after the other, and then seen where they are."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._like: Array | None = None

    def add(self, rows: Array) -> int:
        """Returns the number of bytes."""
        self._file.write(rows.data)
        self._like = rows[:0]
        return rows.nbytes

    def mapped(self, first: int, last: int) -> Array | None:
        """Rows ``first`` to ``last``; None if there are none of this kind."""
        if self._like is None:
            return None
        self._file.flush()
        dtype, of_row = self._like.dtype, self._like.shape[1:]
        if first == last:  # nothing to map
            return np.empty((0, *of_row), dtype)
        at = first * math.prod(of_row) * dtype.itemsize
        rows = np.memmap(self._file, dtype, "r", at, (last - first, *of_row))
        return rows.view(np.ndarray)


class _SparseRows:
    """CSR rows in three files: values, their columns, and where each row begins."""

    def __init__(self, files: list[Any]) -> None:
        self._values, self._columns, self._starts = map(_Rows, files)
        self._starts.add(np.zeros(1, np.int64))
        self._n_entries = 0
        self._n_features: int | None = None

    def add(self, X: Matrix) -> int:
        starts = X.indptr[1:] + np.int64(self._n_entries)
        self._n_entries += X.nnz
        self._n_features = X.shape[1]
        columns = X.indices[: X.nnz].astype(np.int32, copy=False)
        return (
            self._values.add(X.data[: X.nnz])
            + self._columns.add(columns)
            + self._starts.add(starts)
        )

    def mapped(self, first: int, last: int) -> Matrix:
        starts: Any = self._starts.mapped(first, last + 1)
        begin, end = int(starts[0]), int(starts[-1])
        values, columns = (one.mapped(begin, end) for one in (self._values, self._columns))
        # Of the type of columns, where it holds them: SciPy would copy columns otherwise.
        starts = (starts - begin).astype(np.int32 if end - begin < 2**31 else np.int64)
        return sp.csr_array((values, columns, starts), shape=(last - first, self._n_features))


class DiskCache:
    """Batches in temporary files, and beside them the targets and weights that are trained on.

    The files have no name in the folder, or lose it with the process, however that ends. Arrays
    that are seen in them are to be gone before ``close``.

    Parameters
    ----------
    folder : str or path
    """

    _X: Any

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder, self._n_batches, self._n_bytes = folder, 0, 0
        with self._naming(), contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(6)]
            self._opened = stack.pop_all()
        self._of_X, self._X = files[:3], None
        self._target, self._weight = map(_Rows, files[3:5])
        self._others = files[5]  # y and sample_weight

    def add(self, X: Matrix, y: Any, weight: Array | None) -> None:
        """Add a batch: X in C order, with as many columns and of the same type as in all others."""
        with self._naming():
            if self._X is None:
                self._X = _SparseRows(self._of_X) if sp.issparse(X) else _Rows(self._of_X[0])
            self._n_bytes += self._X.add(X)
            pickle.dump((y, weight), self._others)
        self._n_batches += 1

    def batches(self) -> Iterator[tuple[Matrix, Any, Array | None]]:
        """The batches as they were added."""
        first = 0
        with self._naming():
            self._others.seek(0)
        for _ in range(self._n_batches):
            with self._naming():
                y, weight = pickle.load(self._others)
                last = first + y.shape[0]
                X = self._X.mapped(first, last)
            yield X, y, weight
            first = last

    def add_targets(self, target: Array, weight: Array | None) -> None:
        """Add what the rows of a batch are trained to give, and their weights."""
        with self._naming():
            self._target.add(target)
            if weight is not None:
                self._weight.add(weight)

    def rows(self, first: int, last: int) -> tuple[Matrix | None, ...]:
        """Rows ``first`` to ``last`` of X, targets and weights."""
        with self._naming():
            return tuple(one.mapped(first, last) for one in (self._X, self._target, self._weight))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what could not be written
            self._opened.close()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """A block that uses the files: an error names the folder."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"The cache of the stream in {str(self._folder)!r}, with {self._n_bytes / 1e9:.3g} "
                f"GB of X until now, cannot be used: {error.strerror}. Name a folder with more "
                "room, or leave cache out",
            ) from error
