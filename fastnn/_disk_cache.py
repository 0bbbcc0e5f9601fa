"""What a fit reads of a stream, kept on disk: ``Stream(..., cache=folder)``."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._typing import Array


class DiskCache:
    """Batches in temporary files, and later in their place the rows that are trained on.

    The files have no name in the folder, or lose it with the process, however that ends.

    Parameters
    ----------
    folder : str or path
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder, self._n_batches, self._n_bytes = folder, 0, 0
        with self._naming(), contextlib.ExitStack() as stack:
            # X, then targets and weights as kernels take them; the last for y and sample_weight.
            *self._columns, self._others = (
                stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(4)
            )
            self._opened = stack.pop_all()

    def add(self, X: Array, y: Any, weight: Array | None) -> None:
        """Add a batch: X in C order, with as many columns and of the same type as in all others."""
        with self._naming():
            self._columns[0].write(X.data)
            pickle.dump((y, weight), self._others)
        self._row, self._n_batches = X[:0], self._n_batches + 1
        self._n_bytes += X.nbytes

    def batches(self) -> Iterator[tuple[Array, Any, Array | None]]:
        """The batches as they were added."""
        with self._naming():
            self._others.seek(0)
        at = 0
        for _ in range(self._n_batches):
            with self._naming():
                y, weight = pickle.load(self._others)
                X = np.empty((y.shape[0], self._row.shape[1]), self._row.dtype)
                self._columns[0].seek(at)
                self._columns[0].readinto(X.data)
            at += X.nbytes
            yield X, y, weight

    def replace(self, row: int, *columns: Array | None) -> None:
        """Write rows of X (from number ``row`` on), targets and weights; None is as it is.

        X takes the place of batches that were read.
        """
        with self._naming():
            self._columns[0].seek(row * self._row.shape[1] * self._row.itemsize)
            for file, array in zip(self._columns, columns, strict=True):
                if array is not None:
                    file.write(array.data)

    def rewind(self) -> None:
        """Begin to read what was written by ``replace``."""
        with self._naming():
            for file in self._columns:
                file.seek(0)

    def read(self, *columns: Array | None) -> None:
        """Fill these arrays with the next rows; None stays None."""
        with self._naming():
            for file, array in zip(self._columns, columns, strict=True):
                if array is not None:
                    file.readinto(array.data)

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
