"""Compile every kernel ahead of time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from .kernels.shuffle import shuffle
from .kernels.train import losses, predict, train

_ENTRIES = train, predict, losses, shuffle


def warmup(dtypes: Iterable[DTypeLike] = ("float32", "float64")) -> dict[str, bool]:
    """Compile all kernels, or load them from the disk cache, so that no fit has to wait.

    Parameters
    ----------
    dtypes : iterable of {'float32', 'float64'}
        The types of X to be ready for.

    Returns
    -------
    dict of str to bool
        For each dtype, whether everything was already in the cache.

    Raises
    ------
    ValueError
        If a dtype is neither float32 nor float64.

    Examples
    --------
    >>> import fastnn
    >>> ready = fastnn.warmup(["float64"])
    """
    wanted = [np.dtype(dtype) for dtype in dtypes]
    for dtype in wanted:
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtypes must be 'float32' or 'float64', got {dtype.name!r}.")
    # A list, not a generator: all of them are compiled even if the first was not cached.
    cached = {dtype.name: [entry.prepare(dtype) for entry in _ENTRIES] for dtype in wanted}
    return {name: all(entries) for name, entries in cached.items()}
