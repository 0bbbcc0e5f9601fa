"""The parameter ``weight_average``: what to keep of the weights after each epoch."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from ._typing import Array


class WeightAverage:
    """Mean of the last k vectors added, or the exponential moving average of all of them.

    Parameters
    ----------
    kind : int or float
        An int is k (Izmailov et al., 2018). A float is the decay d: the average is
        ``(1 - d) * sum(d**age * vector)``, divided by the sum ``1 - d**n`` of these factors, so
        that it is unbiased from the first epoch on (as Adam's moments, Kingma and Ba, 2015).
    """

    def __init__(self, kind: float) -> None:
        self.n = 0
        self._decay = None if isinstance(kind, Integral) else float(kind)
        self._sum: Any = 0.0  # then a vector
        # Copies, not a running sum: which epochs are the last is known when training has ended.
        self._last: list[Array] = []
        self._most = int(kind) if self._decay is None else 0

    def add(self, theta: Array) -> None:
        self.n += 1
        if self._decay is None:
            self._last = [*self._last, theta.copy()][-self._most :]
        else:
            self._sum = self._decay * self._sum + (1 - self._decay) * theta.astype(np.float64)

    def value(self) -> Array:
        if self._decay is None:
            return np.asarray(self._last).mean(axis=0, dtype=np.float64)
        return self._sum / (1 - self._decay**self.n)
