"""Validation after each epoch: the loss and the score of examples that are not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import indexable

from ._inputs import scaled_weight
from ._network import make_data
from ._typing import Array, Matrix, Parameters
from ._warn import warn
from .kernels.layout import Data, Net
from .kernels.losses import CROSS_ENTROPY
from .kernels.train import losses

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._standardize import Standardization
    from ._targets import Targets

# Times the training loss of the first epoch, from which on the loss of X_val must be a mistake.
OUT_OF_PROPORTION = 10


def validation_loss(net: Net, outputs: Array, target: Array, weight: Array | None = None) -> float:
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


class Held(NamedTuple):
    """Examples that are held out of training, to validate on."""

    data: Any  # Data of kernels.layout, or what ``predict`` takes in its place
    rows: np.ndarray  # (n,) int64: which of the data
    target: np.ndarray  # encoded
    weight: np.ndarray | None  # (n,) float64
    X: object  # as the user gave them, for scikit-learn's scorers
    y: object
    given: bool  # by the user, for validation


class Validation:
    """What held examples tell of the network after each epoch.

    Parameters
    ----------
    settings : namespace of the estimator's parameters
    targets : see _targets
    net, theta : see kernels.layout
    held : Held
    present : callable
        ``present()`` is a fitted copy of the estimator with the present weights, for scorers.
    predict : callable
        ``predict``, or what does the same for data that are elsewhere.
    """

    def __init__(
        self,
        settings: Parameters,
        targets: Targets,
        net: Net,
        theta: Array,
        held: Held,
        present: Callable[[], BaseMLP],
        predict: Callable[..., Array],
    ) -> None:
        self._settings, self._targets, self._held = settings, targets, held
        self._net, self._theta, self._present = net, theta, present
        self._predict = predict
        self._values = held.target
        if net.loss != CROSS_ENTROPY:
            self._values = targets.values(held.target, theta.dtype)
        self._weight, _ = scaled_weight(held.weight, theta.dtype)
        self._scorer = None
        if settings.scoring not in (None, "loss"):
            self._scorer = check_scoring(present(), scoring=settings.scoring)
        # Whether the score is that of a regressor, 0 for the best constant.
        self.is_share = targets.kind == "real" and settings.scoring is None
        # Compile what validation needs before the clock of ``max_time`` starts.
        validation_loss(net, self._outputs(held.rows[:1]), self._values[:1])

    def _outputs(self, rows: Array) -> Array:
        """Outputs of the network for these of the examples, with its present weights."""
        n_threads = self._settings.n_threads
        return self._predict(self._net, self._theta, self._held.data, rows, n_threads)

    def evaluate(self) -> tuple[float, float]:
        """Score and loss with the present weights; NaN where an output is not finite.

        Raises
        ------
        ValueError
            Where there is no score for these examples.
        """
        outputs = self._outputs(self._held.rows)
        loss = validation_loss(self._net, outputs, self._values, self._weight)
        if not np.isfinite(outputs).all():  # most scorers would raise an error
            return float("nan"), loss
        if self._settings.scoring == "loss":
            return -loss, loss
        reason: str | ValueError = "it is not a number"
        try:
            score = self._score(outputs)
        except ValueError as error:
            score, reason = np.nan, error
        if np.isnan(score):
            raise ValueError(
                f"The validation score (scoring={self._settings.scoring!r}) of the {len(outputs)} "
                f"validation examples cannot be computed: {reason}. Give examples that have one as "
                "X_val and y_val, or take scoring='loss'."
            ) from (reason if isinstance(reason, ValueError) else None)
        return score, loss

    def _score(self, outputs: Array) -> float:
        held = self._held
        if self._scorer is None:
            return self._targets.score(held.target, outputs, held.weight)
        weight = {} if held.weight is None else {"sample_weight": held.weight}
        return float(self._scorer(self._present(), held.X, held.y, **weight))

    def compare(self, training_loss: float, loss: float) -> None:
        """Warn where the first losses show that X_val is not what X is."""
        if self._held.given and not loss <= OUT_OF_PROPORTION * training_loss:
            warn(
                f"The validation loss after the first epoch, {loss:g}, is out of all proportion "
                f"to the training loss, {training_loss:g}. A Pipeline does not transform the X_val "
                "that is passed to one of its steps: make it with "
                "transform_input=['X_val'], as shown in the docstring of fit."
            )


def check_together(X_val: Any, y_val: Any, sample_weight_val: Any) -> None:
    """Raise ValueError where validation examples are incomplete."""
    alone = X_val is None and sample_weight_val is not None
    if alone or (X_val is None) != (y_val is None):
        raise ValueError(
            "X_val and y_val must be given together, and sample_weight_val only with them."
        )


def given_examples(
    examples: tuple[Matrix, Array, Array | None],
    scaling: Standardization,
    continued: Array | None,
    X: Any,
    y: Any,
) -> Held:
    """``Held`` of the examples that were given to ``fit`` for it.

    Parameters
    ----------
    examples : (X, target, weight), checked
    scaling : Standardization
    continued : (n_features,) bool or None
    X, y : as the user gave them
    """
    checked_X, target, weight = examples
    try:
        standardized = scaling.of_features(sp.issparse(checked_X))
    except ValueError as error:
        raise ValueError(f"X_val: {error}") from error
    data = make_data(checked_X, standardized=standardized, continued=continued)
    rows = np.arange(checked_X.shape[0])
    return Held(data, rows, scaling.of_targets(target), weight, X, y, given=True)


def a_part(
    settings: Parameters,
    targets: Targets,
    data: Data,
    target: Array,
    sample_weight: Array | None,
    X: Any,
    y: Any,
    rng: np.random.RandomState,
) -> tuple[Array, Held]:
    """Set training examples aside; returns the others' rows, and ``Held`` of these."""
    train, test = divided(settings, targets, target, rng)
    weight = None if sample_weight is None else sample_weight[test]
    if settings.scoring in (None, "loss"):
        X = y = None
    else:
        X, y = (_safe_indexing(a, test) for a in indexable(X, y))
    return train, held_part(data, test, target[test], weight, X, y)


def divided(
    settings: Parameters, targets: Targets, target: Array, rng: np.random.RandomState
) -> tuple[Array, Array]:
    """The rows to train on and those to hold out, of examples with these targets."""
    _check_part(settings, targets, target)
    return train_test_split(
        np.arange(len(target)),
        random_state=rng,
        test_size=settings.validation_fraction,
        stratify=target if targets.kind == "binary" else None,
    )


def held_part(data: Data, rows: Array, target: Array, weight: Array | None, X: Any, y: Any) -> Held:
    """``Held`` of training examples, if these have a score."""
    if weight is not None and weight.sum(dtype=np.float64) == 0:
        raise ValueError(
            f"The sample_weight of the {len(rows)} examples that early_stopping=True sets aside "
            "for validation adds up to zero, so that they have no score. Increase "
            "validation_fraction, or give validation examples as X_val and y_val."
        )
    return Held(data, rows, target, weight, X, y, given=False)


def _check_part(settings: Parameters, targets: Targets, target: Array) -> None:
    """Raise ValueError where the examples cannot be divided."""
    n, fraction = len(target), settings.validation_fraction
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
