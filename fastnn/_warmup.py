"""Compile every kernel ahead of time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from .kernels.train import kernels


def warmup(dtypes: Iterable[DTypeLike] = ("float32", "float64")) -> dict[str, bool]:
    """Compile all kernels, or load them from the disk cache, so that no fit has to wait.

    Parameters
    ----------
    dtypes : iterable of {'float32', 'float64'}, or one of them
        The types of X to be ready for.

    Returns
    -------
    dict of str to bool
        For each dtype, whether everything was already in the cache.

    Raises
    ------
    ValueError
        If a dtype is neither float32 nor float64.

    See Also
    --------
    MLPClassifier : Compiles by its first fit what is not there yet.

    Notes
    -----
    ``python -m fastnn warmup`` does the same, for container images.

    Examples
    --------
    >>> import fastnn
    >>> ready = fastnn.warmup(["float64"])
    """
    wanted = [np.dtype(dtype) for dtype in ([dtypes] if isinstance(dtypes, str) else dtypes)]
    for dtype in wanted:
        if dtype not in (np.float32, np.float64):
            raise ValueError(f"dtypes must be 'float32' or 'float64', got {dtype.name!r}.")
    return {dtype.name: kernels.prepare(dtype) for dtype in wanted}
