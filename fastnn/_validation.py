"""Validation after each epoch: the loss and the score of examples that are not trained on."""

import math

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import indexable

from ._inputs import scaled_weight
from ._network import make_data, predict
from ._state import shallow_copy
from ._warn import warn
from .kernels.losses import CROSS_ENTROPY
from .kernels.train import losses

# Times the training loss of the first epoch, from which on the loss of X_val must be a mistake.
OUT_OF_PROPORTION = 10


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
    return float(np.dot(weight, row_loss) / weight.sum(dtype=np.float64))


class Validation:
    """The examples, and how they are scored.

    Parameters
    ----------
    net, theta, data : see kernels.layout
    rows : (n,) int64, the examples of ``data``
    values : targets as ``validation_loss`` takes them
    weight : (n,) float64 or None
    score : callable or None
        ``score(outputs)`` of the network for these examples; None is minus the loss.
    n_threads : as for the estimator
    given : bool
        Whether the user has given the examples for validation.
    is_share : bool
        Whether the score is that of a regressor, 0 for the best constant.
    """

    def __init__(self, net, theta, data, rows, values, weight, score, n_threads, given, is_share):
        self._net, self._theta, self._data, self._rows = net, theta, data, rows
        self._values, self._score = values, score
        self._weight, _ = scaled_weight(weight, theta.dtype)
        self._n_threads, self._given, self.is_share = n_threads, given, is_share
        # Compile what validation needs before the clock of ``max_time`` starts.
        validation_loss(net, self._outputs(), values, self._weight)

    def _outputs(self):
        """Outputs of the network for these examples, with its present weights."""
        return predict(self._net, self._theta, self._data, self._rows, self._n_threads)

    def evaluate(self):
        """Score and loss with the present weights; NaN where an output is not finite."""
        outputs = self._outputs()
        loss = validation_loss(self._net, outputs, self._values, self._weight)
        if not np.isfinite(outputs).all():  # most scorers would raise an error
            return float("nan"), loss
        return (-loss if self._score is None else self._score(outputs)), loss

    def compare(self, training_loss, loss):
        """Warn where the first losses show that X_val is not what X is."""
        if self._given and not loss <= OUT_OF_PROPORTION * training_loss:
            warn(
                f"The validation loss after the first epoch, {loss:g}, is out of all proportion "
                f"to the training loss, {training_loss:g}. A Pipeline does not transform the X_val "
                "that is passed to one of its steps: make it with "
                "transform_input=['X_val'], as shown in the docstring of fit."
            )


def scores(estimator, targets, target, weight, X, y, theta):
    """The function of the network's outputs that scores examples, or None for minus the loss.

    Parameters
    ----------
    estimator : BaseMLP
    targets, target : the kind of target, and encoded targets
    weight : (n,) or None
    X, y : the examples as the user gave them, for scikit-learn's scorers
    theta : (n_params,), as it will be at the time of scoring

    Raises
    ------
    ValueError
        By the function, where there is no score for these examples.
    """
    scoring = estimator.scoring
    if isinstance(scoring, str) and scoring == "loss":
        return None
    scorer = None if scoring is None else check_scoring(estimator, scoring=scoring)
    weights = {} if weight is None else {"sample_weight": weight}

    def score(outputs):
        reason = "it is not a number"
        try:
            if scorer is None:
                value = targets.score(target, outputs, weight)
            else:
                present = shallow_copy(estimator)
                for name, value in estimator._fitted_weights(theta).items():
                    object.__setattr__(present, name, value)  # a subclass may have its own
                value = float(scorer(present, X, y, **weights))
        except ValueError as error:
            value, reason = np.nan, error
        if np.isnan(value):
            raise ValueError(
                f"The validation score (scoring={scoring!r}) of the {len(outputs)} validation "
                f"examples cannot be computed: {reason}. Give examples that have one as X_val and "
                "y_val, or take scoring='loss'."
            ) from (reason if isinstance(reason, ValueError) else None)
        return value

    return score


def by_given_examples(estimator, targets, net, theta, examples, given):
    """The ``Validation`` by the examples that were given to ``fit`` for it.

    Parameters
    ----------
    examples : (X, target, weight), checked
    given : (X, y) as the user gave them
    """
    X, target, weight = examples
    target = estimator._scaling.of_targets(target)
    try:
        standardized = estimator._scaling.of_features(X)
    except ValueError as error:
        raise ValueError(f"X_val: {error}") from error
    data = make_data(X, standardized=standardized)
    score = scores(estimator, targets, target, weight, *given, theta)
    rows = np.arange(X.shape[0])
    return _validation(
        estimator, targets, net, theta, data, rows, target, weight, score, given=True
    )


def by_a_part(estimator, targets, net, theta, data, target, sample_weight, X, y, rng):
    """Set training examples aside; returns the others' rows and the ``Validation`` by these."""
    _check_part(estimator, targets, target)
    train, test = train_test_split(
        np.arange(len(target)),
        random_state=rng,
        test_size=estimator.validation_fraction,
        stratify=target if targets.kind == "binary" else None,
    )
    weight = None if sample_weight is None else sample_weight[test]
    if weight is not None and weight.sum(dtype=np.float64) == 0:
        raise ValueError(
            f"The sample_weight of the {len(test)} examples that early_stopping=True sets aside "
            "for validation adds up to zero, so that they have no score. Increase "
            "validation_fraction, or give validation examples as X_val and y_val."
        )
    if estimator.scoring in (None, "loss"):
        X = y = None
    else:
        X, y = (_safe_indexing(a, test) for a in indexable(X, y))
    target = target[test]
    score = scores(estimator, targets, target, weight, X, y, theta)
    return train, _validation(
        estimator, targets, net, theta, data, test, target, weight, score, given=False
    )


def _validation(estimator, targets, net, theta, data, rows, target, weight, score, given):
    values = target
    if net.loss != CROSS_ENTROPY:
        values = targets.values(target, theta.dtype)
    is_share = targets.kind == "real" and estimator.scoring is None
    n_threads = estimator.n_threads
    return Validation(net, theta, data, rows, values, weight, score, n_threads, given, is_share)


def _check_part(estimator, targets, target):
    """Raise ValueError where the examples cannot be divided."""
    n, fraction = len(target), estimator.validation_fraction
    n_test = math.ceil(fraction * n)
    reason = None
    if targets.kind == "binary":  # both parts are to have the classes in proportion
        counts = np.bincount(target)
        rare = np.flatnonzero(counts == 1)
        n_classes = np.count_nonzero(counts)
        if rare.size:
            label = targets.classes[rare[0]]
            reason = (
                f"class {label.item() if hasattr(label, 'item') else label!r} of y has only one"
            )
        elif min(n_test, n - n_test) < n_classes:
            reason = f"both parts must have at least one of each of the {n_classes} classes"
    if reason is None and n_test < 2:
        raise ValueError(
            f"The validation set is too small: early_stopping=True sets validation_fraction="
            f"{fraction} of the {n} examples aside. Increase 'validation_fraction', give more "
            "examples, or give those for validation as X_val and y_val."
        )
    if reason is None and n_test >= n:
        reason = "no example would be left to train on"
    if reason is not None:
        raise ValueError(
            f"early_stopping=True cannot set validation_fraction={fraction} of the {n} examples "
            f"aside: {reason}. Validation examples can also be given, as X_val and y_val."
        )
