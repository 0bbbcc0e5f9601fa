"""Callbacks for fits: checkpoints, a rate that falls when progress stalls, a record of the epochs.

They are callbacks as scikit-learn 1.9 has them, for ``set_callbacks`` of an estimator of fastnn, or
of a Pipeline that ends in one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from ._base import BaseMLP

__all__ = ["Checkpoint", "History", "ReduceOnPlateau"]


class _Callback:
    """What a callback of scikit-learn has at least; handed down to the network at any depth."""

    max_propagation_depth = None

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    def teardown(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        pass

    def _check_is_one(self, estimator: Any) -> None:
        """Raise TypeError where there may be several fits: of folds, parameters, classes."""
        last = estimator
        while isinstance(last, Pipeline):
            last = last.steps[-1][1]
        if not isinstance(last, BaseMLP):
            raise TypeError(
                f"{type(self).__name__} is for the fit of one network: set it on an estimator of "
                f"fastnn or a Pipeline that ends in one, not on {type(estimator).__name__}."
            )


def _is_epoch(estimator: Any, context: Any) -> bool:
    """Whether the task is an epoch, or an iteration of L-BFGS: a Pipeline has others."""
    return isinstance(estimator, BaseMLP) and context.task_name in ("epoch", "iteration")


class Checkpoint(_Callback):
    """Writes the network to a file while it trains, to go on from after the process was killed.

    ``joblib.load(path)`` is an estimator that predicts by the weights of that epoch; with
    ``warm_start=True`` its ``fit`` on the same data goes on to the identical model. Of a Pipeline
    it is the last step. The file is always a whole one: it is written beside and then moved. If
    that fails, so does the fit.

    Parameters
    ----------
    path : str or path-like
        The file, which is overwritten.
    every : int, default=1
        Write after each so many epochs, and after the last one.

    Examples
    --------
    >>> import os, tempfile
    >>> import joblib
    >>> from sklearn.datasets import load_iris
    >>> from fastnn import MLPClassifier
    >>> from fastnn.callbacks import Checkpoint
    >>> X, y = load_iris(return_X_y=True)
    >>> path = os.path.join(tempfile.mkdtemp(), "iris.joblib")
    >>> model = MLPClassifier(max_iter=500, random_state=0)
    >>> model = model.set_callbacks(Checkpoint(path, every=50)).fit(X, y)
    >>> joblib.load(path).n_iter_ == model.n_iter_
    True
    """

    def __init__(self, path: str | os.PathLike[str], every: int = 1) -> None:
        self.path: str | os.PathLike[str] = path
        self.every: int = every

    def setup(self, estimator: Any, context: Any) -> None:
        self._check_is_one(estimator)
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be an int >= 1, got {self.every!r}.")

    # scikit-learn gives a hook what it has a parameter for.
    def on_fit_task_end(  # type: ignore[override]
        self, estimator: Any, context: Any, *, fitted_estimator: Any
    ) -> None:
        # An epoch that was interrupted is not one to go on from.
        if not _is_epoch(estimator, context) or estimator.stop_reason_ == "interrupted":
            return
        n = estimator.n_iter_
        is_last = estimator.stop_reason_ is not None or n == estimator.max_iter
        if n % self.every == 0 or is_last:
            self._write(fitted_estimator.set_callbacks())

    def _write(self, estimator: Any) -> None:
        path = os.fspath(self.path)
        beside = path + ".unfinished"
        try:
            with open(beside, "wb") as file:
                joblib.dump(estimator, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            if os.path.exists(beside):
                os.remove(beside)
            raise


class ReduceOnPlateau(_Callback):
    """Lowers the learning rate whenever progress stalls, for every solver but 'lbfgs'.

    The validation loss, or without validation examples the training loss, makes progress if it is
    lower than the best by ``tol`` of the estimator, as for ``n_iter_no_change``. After more than
    ``patience`` epochs without progress the rate is multiplied by ``factor``. What ends training
    stays ``n_iter_no_change``: have ``patience`` well below it. The rate follows from the curve of
    losses alone: a fit that goes on from a checkpoint has the same.

    Parameters
    ----------
    factor : float in (0, 1), default=0.5
    patience : int, default=5
    min_rate : float, default=1e-6
        The rate does not fall below it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn import MLPClassifier
    >>> from fastnn.callbacks import History, ReduceOnPlateau
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier(learning_rate_init=0.1, max_iter=500, random_state=0)
    >>> history = History()
    >>> model = model.set_callbacks(ReduceOnPlateau(patience=3), history).fit(X, y)
    >>> history.epochs[-1]["learning_rate"] < 0.1
    True
    """

    def __init__(self, factor: float = 0.5, patience: int = 5, min_rate: float = 1e-6) -> None:
        self.factor: float = factor
        self.patience: int = patience
        self.min_rate: float = min_rate

    def setup(self, estimator: Any, context: Any) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"factor must be in (0, 1), got {self.factor!r}.")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        if not _is_epoch(estimator, context):
            return
        if estimator.solver == "lbfgs" or estimator.learning_rate != "constant":
            raise ValueError(
                "ReduceOnPlateau takes the place of a schedule: it needs learning_rate='constant' "
                f"and another solver than 'lbfgs', got learning_rate={estimator.learning_rate!r} "
                f"and solver={estimator.solver!r}."
            )
        curve = estimator.validation_loss_curve_ or estimator.loss_curve_
        curve = curve[len(curve) - estimator.n_iter_ :]  # of this fit
        initial = float(estimator.learning_rate_init)
        rate = initial * self.factor ** self._n_plateaus(curve, estimator.tol)
        estimator._optimizer.learning_rate = max(rate, min(self.min_rate, initial))

    def _n_plateaus(self, curve: Sequence[float], tol: float) -> int:
        best, n_stalled, n = np.inf, 0, 0
        for loss in curve:
            n_stalled = 0 if loss <= best - tol else n_stalled + 1
            best = min(best, loss)
            if n_stalled > self.patience:
                n, n_stalled = n + 1, 0
        return n


class History(_Callback):
    """A record of each epoch of the last fit: losses, score, learning rate, seconds.

    Attributes
    ----------
    epochs : list of dict
        For each epoch its number ('epoch', from 1), 'loss', 'seconds', 'learning_rate' (not with
        'lbfgs'), and 'validation_loss' and 'validation_score' where there are validation examples.
        ``pandas.DataFrame(history.epochs)`` makes a table of it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fastnn import MLPClassifier
    >>> from fastnn.callbacks import History
    >>> history = History()
    >>> model = MLPClassifier(early_stopping=True, max_iter=500, learning_rate="cosine")
    >>> model = model.set_callbacks(history).fit(*load_iris(return_X_y=True))
    >>> len(history.epochs) == model.n_iter_
    True
    >>> sorted(history.epochs[0])
    ['epoch', 'learning_rate', 'loss', 'seconds', 'validation_loss', 'validation_score']
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self._check_is_one(estimator)
        self.epochs = []

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self._began = time.perf_counter()

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        # L-BFGS begins one iteration more than there are.
        if not _is_epoch(estimator, context) or estimator.n_iter_ == len(self.epochs):
            return
        row = {"epoch": estimator.n_iter_, "loss": estimator.loss_}
        if estimator.solver != "lbfgs":
            row["learning_rate"] = estimator._optimizer.used_rate
            if estimator.validation_scores_ is not None:
                row["validation_loss"] = estimator.validation_loss_curve_[-1]
                row["validation_score"] = estimator.validation_scores_[-1]
        row["seconds"] = time.perf_counter() - self._began
        self.epochs.append(row)
