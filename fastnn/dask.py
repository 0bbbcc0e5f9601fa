"""Fits to Dask arrays and dataframes, whose rows are on several machines (extra ``dask``).

The client has y, the weights of the examples and those of the network, and does what a fit on one
machine does: the same checks, shuffles, schedules, early stopping. X stays on the workers, which
sum gradients over its rows: ``_dask_examples`` says how.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

import dask
import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score

from . import _classifier, _regressor
from ._base import BaseMLP
from ._dask_examples import Distributed, check_dask, in_rows
from ._state import restore, state_of
from ._typing import Array, DaskCollection, Data

if TYPE_CHECKING:
    from ._examples import Examples
    from ._streams import Stream


Local = TypeVar("Local", bound=BaseMLP)


class OnDask(BaseMLP, Generic[Local]):
    """What the two estimators add to those of one machine."""

    _local: type[Local]

    def fit(
        self,
        X: Data | Stream | DaskCollection,
        y: Data | DaskCollection | None = None,
        sample_weight: ArrayLike | DaskCollection | None = None,
        *,
        X_val: Data | Stream | DaskCollection | None = None,
        y_val: Data | DaskCollection | None = None,
        sample_weight_val: ArrayLike | DaskCollection | None = None,
    ) -> Self:
        """Fit the network to X and y.

        Parameters
        ----------
        X : Dask array or dataframe of shape (n_samples, n_features)
            Training examples: dense, and with one partition or more for each worker. Anything else
            is fitted in this process.
        y : Dask array, series or dataframe of shape (n_samples,) or (n_samples, n_outputs)
            Targets, in the same partitions. They come to this process.
        sample_weight : Dask array or series of shape (n_samples,), default=None
            Weight of each example, in the same partitions.
        X_val : array-like, Stream, Dask collection of (n_validation, n_features), default=None
            Validation examples. These and their targets come to this process, where they are
            predicted; a share of X that ``early_stopping`` sets aside stays on the workers. A
            ``Stream`` is read in this process, one batch at a time.
        y_val : array-like or Dask collection, default=None
            Their targets.
        sample_weight_val : array-like or Dask collection, default=None
            Their weights.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError
            As from ``fit`` on one machine; what is wrong in X, y or the weights names the
            partition.
        RuntimeError
            If a step was not made because it lost one worker after the other.
        """
        here = X_val is not None or not dask.is_dask_collection(X)
        if self.early_stopping and self.scoring not in (None, "loss") and not here:
            raise ValueError(
                f"With scoring={self.scoring!r}, early_stopping=True needs X_val and y_val where X "
                "is a Dask collection: the scorer takes examples that are in this process."
            )
        validation = dask.compute(X_val, y_val, sample_weight_val)
        names = "X_val", "y_val", "sample_weight_val"
        given: tuple[Any, Any, Any] = X, y, sample_weight
        return super().fit(*given, **dict(zip(names, validation, strict=True)))

    @staticmethod
    def _examples(X: Any) -> type[Examples]:
        return Distributed if dask.is_dask_collection(X) else BaseMLP._examples(X)

    def to_local(self) -> Local:
        """The same estimator for one machine, which needs no Dask.

        Returns
        -------
        fastnn.MLPClassifier or fastnn.MLPRegressor
            With the same parameters and, if this one is fitted, the same weights.
        """
        local = object.__new__(self._local)
        restore(local, state_of(self))
        return local

    @overload
    def predict(self, X: DaskCollection) -> Any: ...
    @overload
    def predict(self, X: Data) -> Array: ...
    def predict(self, X: Any) -> Any:
        """Predict as on one machine; of a Dask X lazily, one partition at a time.

        Parameters
        ----------
        X : array-like, Dask array or dataframe of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray, or Dask array for a Dask X
            As of the estimator of one machine.
        """
        return self._by_partitions("predict", X)

    def _by_partitions(self, name: str, X: Any) -> Any:
        method = getattr(self.to_local(), name)
        if not dask.is_dask_collection(X):
            return method(X)
        check_dask(X)
        if hasattr(X, "columns"):
            return X.map_partitions(_of_partition, method, meta=method(X._meta_nonempty)[:0])
        like = method(np.zeros((1, self.n_features_in_), X.dtype))[:0]
        chunks = {} if like.ndim == 1 else {"chunks": (X.chunks[0], like.shape[1:])}
        dropped = {"drop_axis": 1} if like.ndim == 1 else {}
        return in_rows(X).map_blocks(
            _of_partition, method, meta=like, dtype=like.dtype, **chunks, **dropped
        )


def _of_partition(X: Any, method: Callable[[Any], Array]) -> Array:
    return method(X) if len(X) > 0 else method(np.zeros((1, X.shape[1])))[:0]


class MLPClassifier(OnDask[_classifier.MLPClassifier], _classifier.MLPClassifier):
    """``fastnn.MLPClassifier`` for Dask arrays and dataframes.

    Parameters, fitted attributes and methods are those of ``fastnn.MLPClassifier``; predictions of
    a Dask X are Dask arrays. With the same ``random_state`` the loss curve and the weights are
    those of one machine, to rounding, on any number of workers; but for ``dropout``, whose units
    depend on the number of workers.

    A ``dask.distributed.Client`` must be there. Make it with ``direct_to_workers=True`` where this
    process can reach the workers: a step then takes a fifth of the time.

    See Also
    --------
    fastnn.MLPClassifier : The estimator of one machine, with all parameters.
    MLPRegressor : The same for numbers.

    Examples
    --------
    >>> import dask.array
    >>> from dask.distributed import Client
    >>> from fastnn.dask import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = (dask.array.from_array(a, chunks=50) for a in load_iris(return_X_y=True))
    >>> workers = dict(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    >>> with Client(**workers, direct_to_workers=True):
    ...     classifier = MLPClassifier(solver="lbfgs", random_state=0).fit(X, y)
    >>> classifier.to_local().predict([[5.0, 3.5, 1.5, 0.2]])
    array([0])
    """

    _local = _classifier.MLPClassifier

    @overload
    def predict_proba(self, X: DaskCollection) -> Any: ...
    @overload
    def predict_proba(self, X: Data) -> Array: ...
    def predict_proba(self, X: Any) -> Any:
        """Predict class probabilities; of a Dask X lazily.

        Parameters
        ----------
        X : array-like, Dask array or dataframe of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray, or Dask array for a Dask X, of shape (n_samples, n_classes)
            As of ``fastnn.MLPClassifier``.
        """
        return self._by_partitions("predict_proba", X)

    @overload
    def predict_log_proba(self, X: DaskCollection) -> Any: ...
    @overload
    def predict_log_proba(self, X: Data) -> Array: ...
    def predict_log_proba(self, X: Any) -> Any:
        """Predict the logarithm of class probabilities; of a Dask X lazily.

        Parameters
        ----------
        X : array-like, Dask array or dataframe of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray, or Dask array for a Dask X, of shape (n_samples, n_classes)
            ``log(predict_proba(X))``; -inf where a probability is 0.
        """
        return self._by_partitions("predict_log_proba", X)

    def score(
        self,
        X: Data | DaskCollection,
        y: Data | DaskCollection,
        sample_weight: ArrayLike | DaskCollection | None = None,
    ) -> float:
        """Accuracy of the predictions.

        Parameters
        ----------
        X : array-like, Dask array or dataframe of shape (n_samples, n_features)
            Examples.
        y : array-like or Dask collection
            Their labels.
        sample_weight : array-like or Dask collection of shape (n_samples,), default=None
            Weight of each example.

        Returns
        -------
        float
            The share of the examples, by weight, that are predicted right.
        """
        prediction, (y, weight) = dask.compute(self.predict(X))[0], dask.compute(y, sample_weight)
        return float(accuracy_score(y, prediction, sample_weight=weight))


class MLPRegressor(OnDask[_regressor.MLPRegressor], _regressor.MLPRegressor):
    """``fastnn.MLPRegressor`` for Dask arrays and dataframes.

    See ``MLPClassifier`` of this module; all that is said there holds here.

    See Also
    --------
    fastnn.MLPRegressor : The estimator of one machine, with all parameters.
    MLPClassifier : The same for classes.

    Examples
    --------
    >>> import dask.array
    >>> from dask.distributed import Client
    >>> from fastnn.dask import MLPRegressor
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = (dask.array.from_array(a, chunks=200) for a in load_diabetes(return_X_y=True))
    >>> workers = dict(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    >>> with Client(**workers, direct_to_workers=True):
    ...     regressor = MLPRegressor(
    ...         solver="lbfgs", standardize=True, standardize_target=True, tol=0.01, random_state=0
    ...     ).fit(X, y)
    ...     regressor.score(X, y) > 0.5
    True
    """

    _local = _regressor.MLPRegressor

    def score(
        self,
        X: Data | DaskCollection,
        y: Data | DaskCollection,
        sample_weight: ArrayLike | DaskCollection | None = None,
    ) -> float:
        """Share of the loss that the predictions explain, as of ``fastnn.MLPRegressor``.

        Parameters
        ----------
        X : array-like, Dask array or dataframe of shape (n_samples, n_features)
            Examples.
        y : array-like or Dask collection
            Their targets.
        sample_weight : array-like or Dask collection of shape (n_samples,), default=None
            Weight of each example.

        Returns
        -------
        float
            R^2 or D^2, by the loss.
        """
        return self._score_of(*dask.compute(self.predict(X)), *dask.compute(y, sample_weight))
