"""Validation after each epoch: the loss and the score of examples that are not trained on."""

import copy

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import indexable

from ._inputs import checked_data, checked_weight
from ._training import make_data, predict
from .kernels.losses import CROSS_ENTROPY
from .kernels.train import losses


def validation_loss(net, outputs, target, weight=None):
    """Mean loss of a network's outputs: the training loss without the penalty.

    Parameters
    ----------
    net : see kernels.layout
    outputs : (n, n_outputs) ndarray
    target : (n,) class codes for the cross-entropy, otherwise (n, n_outputs) target values
    weight : (n,) or None

    Returns
    -------
    float
    """
    dtype = outputs.dtype
    row_loss = np.empty(len(outputs), dtype)
    y = np.array(target, dtype).ravel()  # a copy: label smoothing changes it
    losses[dtype](net, row_loss, np.empty(outputs.size, dtype), outputs.ravel(), y)
    if weight is None:
        return float(row_loss.mean(dtype=np.float64))
    total = weight.sum(dtype=np.float64)
    # A split may happen to have no weight at all.
    return float(np.dot(weight, row_loss) / total) if total else float("nan")


class Validation:
    """The examples, and how they are scored.

    Parameters
    ----------
    estimator : BaseMLP
    net, theta, data : see kernels.layout
    rows : (n,) int64, the examples of ``data``
    kind, target : what the estimator's ``_encode`` returned
    weight : (n,) or None
    X, y : the examples as the user gave them, for scikit-learn's scorers
    """

    def __init__(self, estimator, net, theta, data, rows, kind, target, weight, X, y):
        self._estimator, self._kind = estimator, kind
        self._net, self._theta, self._data, self._rows = net, theta, data, rows
        self._target, self._weight, self._X, self._y = target, weight, X, y
        self._scorer = None
        if estimator.scoring not in (None, "loss"):
            self._scorer = check_scoring(estimator, scoring=estimator.scoring)
        self._values = target
        if net.loss != CROSS_ENTROPY:
            self._values = estimator._target_values(kind, target, theta.dtype)
        # Compile what validation needs before the clock of ``max_time`` starts.
        validation_loss(net, self._outputs(), self._values, weight)

    def _outputs(self):
        """Of the network for these examples, with its present weights."""
        n_threads = self._estimator.n_threads
        return predict(self._net, self._theta, self._data, self._rows, n_threads)

    def evaluate(self):
        """Score and loss with the present weights."""
        estimator, outputs = self._estimator, self._outputs()
        loss = validation_loss(self._net, outputs, self._values, self._weight)
        if estimator.scoring is None:
            return estimator._score_outputs(self._target, outputs, self._kind, self._weight), loss
        if self._scorer is None:
            return -loss, loss
        if not np.isfinite(outputs).all():  # most scorers would raise an error
            return float("nan"), loss
        weight = {} if self._weight is None else {"sample_weight": self._weight}
        present = copy.copy(estimator)
        vars(present).update(estimator._fitted_weights(self._theta))
        return float(self._scorer(present, self._X, self._y, **weight)), loss


def by_given_examples(estimator, net, theta, kind, X, y, sample_weight):
    """The ``Validation`` by the examples that were given to ``fit`` for it."""
    given = X, y
    try:
        X, y = checked_data(estimator, X, y, reset=False)
        target = estimator._encode_more(y)
        X = X.astype(theta.dtype, copy=False)
        sample_weight = checked_weight(sample_weight, X)
        X, target = estimator._scaling.transform(X, target)
    except ValueError as error:
        raise ValueError(f"X_val, y_val or sample_weight_val: {error}") from error
    rows = np.arange(X.shape[0])
    return Validation(
        estimator, net, theta, make_data(X), rows, kind, target, sample_weight, *given
    )


def by_a_part(estimator, net, theta, data, kind, target, sample_weight, X, y, rng):
    """Set training examples aside; returns the others' rows and the ``Validation`` by these."""
    # A column, so that an error names the classes as scikit-learn's does.
    stratify = target.astype(bool).reshape(-1, 1) if kind == "binary" else None
    train, test = train_test_split(
        np.arange(len(target)),
        random_state=rng,
        test_size=estimator.validation_fraction,
        stratify=stratify,
    )
    if len(test) < 2:
        raise ValueError(
            "The validation set is too small. Increase 'validation_fraction' or the size of "
            "your dataset."
        )
    weight = None if sample_weight is None else sample_weight[test]
    if estimator.scoring in (None, "loss"):
        X = y = None
    else:
        X, y = (_safe_indexing(a, test) for a in indexable(X, y))
    return train, Validation(estimator, net, theta, data, test, kind, target[test], weight, X, y)
