"""The examples of a fit that are in memory.

Those of a stream and of Dask have the same methods: _stream_examples, _dask_examples.

::

    targets, dtype, n_features      what they are, from the first check on
    feature_scaler()                of all of them, for ``standardize``; target_scaler() likewise
    prepare(scaling, loss)          as training is to see them
    set_aside(settings, rng)        takes a part out of training, to validate on
    n                               how many are trained on
    data(batch_size)                ``Data`` of the kernels; no part of an epoch has more rows
    epoch(shuffled)                 the parts of an epoch one after the other: data, and rows of it
    close()                         when the fit has ended, however it did
    make_trainer, predict           ``Trainer`` and ``predict``, or what stands for them elsewhere
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import StandardScaler

from ._inputs import checked_data, checked_weight
from ._network import data_to_train, predict
from ._standardize import scaler_of
from ._trainer import Trainer
from ._typing import Array, Parameters
from ._validation import a_part, held_part
from .kernels.layout import Data

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._standardize import Standardization
    from ._stream_examples import Streamed
    from ._targets import Targets
    from ._validation import Held


Shuffled: TypeAlias = Callable[[Array], None]
Examples: TypeAlias = "Arrays | Streamed"


def in_codes(targets: Targets, loss: str) -> bool:
    """Whether kernels take a class as its number, not as what each output should be."""
    return targets.kind == "binary" or loss == "cross_entropy"


class Arrays:
    """Examples in memory.

    Parameters
    ----------
    estimator : BaseMLP
    settings : namespace of its parameters
    X, y, sample_weight : as the user gave them
    first_pass : bool
        Whether the estimator forgets earlier fits.
    incremental : bool
        Whether it is ``partial_fit``.
    """

    check: Callable[..., tuple[Any, Any]] = staticmethod(checked_data)
    make_data: Callable[..., Any] = staticmethod(data_to_train)
    make_trainer: Callable[..., Trainer] = Trainer
    predict: Callable[..., Array] = staticmethod(predict)

    def __init__(
        self,
        estimator: BaseMLP,
        settings: Parameters,
        X: Any,
        y: Any,
        sample_weight: Any,
        first_pass: bool,
        incremental: bool,
    ) -> None:
        self._given_X, self._incremental = X, incremental
        self._continued = estimator._continued
        self._X, self._y = self.check(estimator, X, y, reset=first_pass)
        goes_on = settings.warm_start or incremental
        self.targets = estimator._learn_targets(settings, self._y, goes_on, incremental)
        self._target = self.targets.encode(self._y)
        self._weight = checked_weight(sample_weight, self._X)
        self.n, self.n_features = self._X.shape
        self.dtype, self.is_sparse = self._X.dtype, sp.issparse(self._X)
        # What tells them from others, for checkpoints.
        self.described = {"X": self._X, "y": self._target, "sample_weight": self._weight}
        self._order = np.arange(self.n)

    def close(self) -> None:
        pass

    def feature_scaler(self) -> StandardScaler:
        return scaler_of(self._X)

    def target_scaler(self) -> StandardScaler:
        with np.errstate(over="ignore", invalid="ignore"):  # Standardization tells of it
            return StandardScaler().fit(self._target.reshape(self.n, -1))

    def prepare(self, scaling: Standardization, loss: str) -> None:
        self._target, targets = scaling.of_targets(self._target), self.targets
        as_codes = in_codes(targets, loss)
        self._data = self.make_data(
            self._X,
            standardized=scaling.of_features(self.is_sparse),
            continued=self._continued,
            codes=self._target if as_codes else None,
            targets=None if as_codes else targets.values(self._target, self.dtype),
            weights=targets.training_weight(self._weight, self._target, self._incremental),
        )

    def set_aside(self, settings: Parameters, rng: np.random.RandomState) -> Held:
        given = self._given_X, self._y
        rows, held = a_part(
            settings, self.targets, self._data, self._target, self._weight, *given, rng
        )
        self._order, self.n = rows.copy(), len(rows)
        return held

    def hold(self, rows: Array) -> Held:
        """Set these rows aside."""
        self._order = np.setdiff1d(self._order, rows, assume_unique=True)
        self.n = len(self._order)
        weight = None if self._weight is None else self._weight[rows]
        return held_part(self._data, rows, self._target[rows], weight, None, None)

    def data(self, batch_size: int) -> Data:
        return self._data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def skip(self, shuffled: Shuffled) -> None:
        """Do what ``epoch`` does with the order, for an epoch that was trained already."""
        shuffled(self._order)

    def epoch(self, shuffled: Shuffled) -> Iterable[tuple[Data, Array]]:
        shuffled(self._order)
        return [(self._data, self._order)]
