"""Validation examples that come in batches: ``fit(..., X_val=Stream(...))``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from ._inputs import errors_about, refuse_no_weight, scaled_weight
from ._network import make_data, predict
from ._stream_batches import Passes, copies, encoded, joined
from ._typing import Array, Matrix, Parameters
from ._validation import Held
from .kernels.layout import Net

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._standardize import Standardization
    from ._streams import Stream
    from ._targets import Targets


class StreamedValidation:
    """Targets and weights of validation examples; X is read anew whenever it is predicted.

    Parameters
    ----------
    estimator : BaseMLP
    settings : namespace of its parameters
    targets : see _targets
    stream : Stream
    dtype : dtype
        Of the fit.
    """

    _target: Array
    _weight: Array | None

    def __init__(
        self,
        estimator: BaseMLP,
        settings: Parameters,
        targets: Targets,
        stream: Stream,
        dtype: DTypeLike,
    ) -> None:
        if settings.scoring not in (None, "loss"):
            raise ValueError(
                f"scoring={settings.scoring!r} takes all validation examples at once, but X_val is "
                "a Stream: give X_val and y_val as arrays, or take scoring=None or 'loss'."
            )
        self._passes, self._dtype = Passes(estimator, stream, "X_val", sys.maxsize), dtype
        try:
            self._learn(targets)
        except BaseException:
            self.close()
            raise
        shape = len(self._target), estimator.n_features_in_
        self.described = {"X_val": shape, "y_val": self._target, "sample_weight_val": self._weight}

    def close(self) -> None:
        self._passes.close()

    def _learn(self, targets: Any) -> None:
        """The first pass: targets and weights."""

        def encode(y: Matrix, weight: Array | None) -> tuple[Array, Array | None]:
            return encoded(targets, y, "y_val", "y"), weight

        batches = self._passes.batches("in the first pass", encode)
        # The source may reuse its arrays.
        self._target, self._weight = joined([copies(batch[2:]) for batch in batches])
        if self._weight is not None:
            scaled, _ = scaled_weight(self._weight, self._dtype)
            with errors_about("X_val"):
                refuse_no_weight(scaled.sum(dtype=np.float64))

    def held(self, scaling: Standardization) -> Held:
        """These examples as ``Validation`` takes them, with ``predict``."""
        with errors_about("X_val"):
            self._standardized = scaling.of_features(self._passes.like.is_sparse)
        rows = np.arange(len(self._target))
        target = scaling.of_targets(self._target)
        return Held(self, rows, target, self._weight, None, None, given=True)

    def predict(
        self, net: Net, theta: Array, data: Any, rows: Array, n_threads: int | None = None
    ) -> Array:
        """Outputs of the network for the examples ``rows``, the first ones, batch by batch."""
        n = len(rows)
        out = np.empty((n, net.units[-1]), theta.dtype)
        batches = self._passes.batches("in validation", lambda y, weight: (y, weight))
        with contextlib.closing(batches):
            for first, X, _, _ in batches:
                if first >= n:
                    break
                X = X.astype(self._dtype, copy=False)
                of_batch = out[first : first + X.shape[0]]
                data = make_data(X, standardized=self._standardized)
                of_batch[...] = predict(net, theta, data, np.arange(len(of_batch)), n_threads)
        return out
