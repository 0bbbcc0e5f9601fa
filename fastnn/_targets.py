"""Targets: from what a user gives as y to what kernels take, and from outputs back to predictions.

There are three kinds of target, each with the same methods::

    Classes    one class for each example     codes (n,)
    Labels     any of several labels          bool (n, n_labels)
    Reals      numbers                        (n,) or (n, n_outputs)

    encode(y)                   y of training or validation, checked, in that form
    network(...)                loss, output activation and settings of the loss, for ``make_net``
    values(target, dtype)       (n, n_outputs), as the outputs should be
    decide(output)              predictions, in the form of encoded targets
    score(target, output, w)    what the estimator's ``score`` is
    training_weight(...)        sample_weight, times that of the classes
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from ._scores import score
from ._typing import Array, Matrix
from .kernels.losses import LOSSES

Weighted: TypeAlias = tuple[Any, Array, Any]


class _Classified(ABC):
    """What classes and labels share.

    Parameters
    ----------
    settings : whatever has the estimator's parameters as attributes
    classes : ndarray
        ``classes_``.
    n_outputs : int
    """

    kind: str

    def __init__(self, settings: Any, classes: Array, n_outputs: int) -> None:
        self.settings, self.classes, self.n_outputs = settings, classes, n_outputs

    def check_kind(self, y: Matrix, name: str, other: str) -> None:
        """Raise ValueError where y is not like the targets of training."""
        matrix, is_matrix = self.kind == "multilabel", y.ndim == 2
        if is_matrix != matrix:
            kinds = ["one class for each example", "a matrix of labels"]
            raise ValueError(
                f"{name} is {kinds[is_matrix]}, but {other} is {kinds[matrix]}. A fit, and all "
                "that goes on from it, has targets of one kind: for others make a new estimator."
            )
        if matrix and y.shape[1] != self.n_outputs:
            raise ValueError(f"{name} has {y.shape[1]} labels, but {other} has {self.n_outputs}.")

    def unknown(self, classes: Array) -> list[Any]:
        """Those that are none of the fit, as Python objects: NumPy takes "1" for 1."""
        return sorted(set(classes.tolist()) - set(self.classes.tolist()))

    def network(self) -> dict[str, Any]:
        settings = self.settings
        default = "softmax" if self.kind == "multiclass" else "logistic"
        out_activation = settings.out_activation or default
        if settings.loss == "log_loss":
            if out_activation != default:
                raise ValueError(
                    f"loss='log_loss' takes probabilities: out_activation must be {default!r} or "
                    f"None for {self.kind} targets, got {out_activation!r}."
                )
            loss = "cross_entropy" if self.kind == "multiclass" else "log_loss"
            smoothing = float(settings.label_smoothing)
            return dict(loss=loss, out_activation=out_activation, smoothing=smoothing)
        if settings.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing={settings.label_smoothing} is for loss='log_loss', got "
                f"loss={settings.loss!r}."
            )
        return dict(loss=settings.loss, out_activation=out_activation)

    @abstractmethod
    def decide(self, output: Array) -> Array:
        """Predictions, in the form of encoded targets."""

    @abstractmethod
    def _weighted_columns(self, target: Array) -> Weighted:
        """Codes, their classes and the weights of these, for each column of a target."""

    def score(self, target: Array, output: Array, weight: Array | None) -> float:
        """Accuracy."""
        return float(accuracy_score(target, self.decide(output), sample_weight=weight))

    def training_weight(
        self, sample_weight: Array | None, target: Array, incremental: bool
    ) -> Array | None:
        """Weight of each example in the loss; that of scores is ``sample_weight``."""
        class_weight = self.settings.class_weight
        if class_weight is None:
            return sample_weight
        if isinstance(class_weight, str):  # 'balanced'
            if incremental:
                raise ValueError(
                    "class_weight 'balanced' is not supported for partial_fit: one batch does not "
                    "tell how often a class occurs. Use compute_class_weight('balanced', "
                    "classes=classes, y=y) with a large enough sample y, and pass the weights as a "
                    "dict."
                )
            weight = compute_sample_weight("balanced", target)
        else:
            weight = self._given_class_weight(target)
            if not incremental and not weight.any():
                raise ValueError(
                    f"class_weight={class_weight!r} gives no example a weight: at least one "
                    "class must have one > 0."
                )
        return weight if sample_weight is None else weight * sample_weight

    def _given_class_weight(self, target: Array) -> Array:
        """Weight of each example by ``class_weight``; a batch need not have all the classes."""
        columns, classes, given = self._weighted_columns(target)
        for of_class in given:
            for label, value in of_class.items() if isinstance(of_class, dict) else ():
                if not isinstance(value, Real) or not 0 <= value < np.inf:  # type: ignore[operator]
                    raise ValueError(
                        f"class_weight must be finite numbers >= 0, got {value!r} for class "
                        f"{label!r}."
                    )
        weight = np.ones(len(target))
        for codes, of_class in zip(columns, given, strict=True):
            weight *= compute_class_weight(of_class, classes=classes, y=classes[codes])[codes]
        return weight

    def _thresholds(self, several_allowed: bool) -> float | list[float]:
        """``threshold`` as a float or a list of float, checked."""
        threshold = self.settings.threshold
        several = not isinstance(threshold, Real)
        thresholds = list(threshold) if several else [threshold]
        wrong = [t for t in thresholds if not isinstance(t, Real) or not 0 <= t <= 1]  # type: ignore[operator]
        if wrong or (several and not (several_allowed and len(thresholds) == self.n_outputs)):
            raise ValueError(
                "threshold must be a number in [0, 1]; for multilabel targets it may be a list "
                f"with one for each label. Got {threshold!r} for {self.kind} targets"
                + (f" of {self.n_outputs} labels." if several_allowed else ".")
            )
        return [float(t) for t in thresholds] if several else float(threshold)


class Classes(_Classified):
    """One class for each example: a softmax over them, or one output for two."""

    kind: Literal["binary", "multiclass"]

    def __init__(self, settings: Any, classes: Array) -> None:
        self.kind = "multiclass" if len(classes) > 2 else "binary"
        super().__init__(settings, classes, len(classes) if self.kind == "multiclass" else 1)

    def encode(self, y: Array) -> Array:
        if len(self.classes) == 2:  # a search takes ten times as long: it guesses, in vain
            return (y == self.classes[1]).astype(np.intp)
        return np.searchsorted(self.classes, y)

    def values(self, target: Array, dtype: DTypeLike) -> Array:
        if self.kind == "multiclass":
            return np.eye(self.n_outputs, dtype=dtype)[target]
        return target.reshape(-1, 1)

    def decide(self, output: Array) -> Array:
        threshold, of_first = self.decision_rule()
        if self.kind == "multiclass":
            return output.argmax(axis=1)
        output = output.ravel()
        if of_first:
            return 1 - (1 - output > threshold)
        return np.minimum(output > threshold, len(self.classes) - 1)

    def decision_rule(self) -> tuple[float | list[float], bool]:
        """The threshold, and whether it is for the first of two classes.

        Raises ValueError where ``threshold`` or ``pos_label`` has no meaning for the target.
        """
        threshold, pos_label = self._thresholds(several_allowed=False), self.settings.pos_label
        if self.kind == "multiclass" and threshold != 0.5:
            raise ValueError(
                f"threshold={threshold!r} is for two classes or for labels. Of the "
                f"{len(self.classes)} classes of y the most probable is predicted: leave it at "
                "0.5, or decide by predict_proba."
            )
        if pos_label is None:
            return threshold, False
        if self.kind == "multiclass":
            raise ValueError(_no_pos_label(pos_label, self.kind))
        classes = self.classes.tolist()
        if pos_label not in classes:
            raise ValueError(
                f"pos_label={pos_label!r} is none of the classes of y, which are {classes}."
            )
        return threshold, len(classes) == 2 and pos_label == classes[0]

    def _weighted_columns(self, target: Array) -> Weighted:
        if not isinstance(self.settings.class_weight, dict):
            raise ValueError(
                "class_weight must be None, 'balanced' or a dict where an example has one "
                f"label; got {self.settings.class_weight!r}."
            )
        return [target], self.classes, [self.settings.class_weight]


class Labels(_Classified):
    """Any of several labels for each example: a logistic output for each."""

    kind: Literal["multilabel"] = "multilabel"

    def encode(self, y: Matrix) -> Array:
        return (y.toarray() if sp.issparse(y) else y) != 0

    def values(self, target: Array, dtype: DTypeLike) -> Array:
        return target

    def decide(self, output: Array) -> Array:
        return output > np.asarray(self.decision_rule(), output.dtype)

    def decision_rule(self) -> float | list[float]:
        """The threshold, or that of each label; ValueError where there is none."""
        threshold = self._thresholds(several_allowed=True)
        if self.settings.pos_label is not None:
            raise ValueError(_no_pos_label(self.settings.pos_label, self.kind))
        return threshold

    def _weighted_columns(self, target: Array) -> Weighted:
        given = self.settings.class_weight
        if not isinstance(given, list) or len(given) != target.shape[1]:
            raise ValueError(
                "For multilabel targets class_weight must be None, 'balanced' or a list with a "
                f"dict for each of the {target.shape[1]} labels; got {given!r}."
            )
        return target.T.astype(int), np.arange(2), given


def _no_pos_label(pos_label: object, kind: str) -> str:
    return f"pos_label={pos_label!r} is for two classes, but targets are {kind}: leave it at None."


class Reals:
    """Numbers, one or several for each example; each several times where quantiles are several.

    Parameters
    ----------
    settings : whatever has the estimator's parameters as attributes
    quantiles : ndarray or None
        Of the loss 'quantile', in ascending order.
    n_outputs : int or None
        None is that of the first y.
    """

    kind: Literal["real"] = "real"

    def __init__(
        self, settings: Any, quantiles: Array | None, n_outputs: int | None = None
    ) -> None:
        self.settings, self.quantiles, self.n_outputs = settings, quantiles, n_outputs

    def encode(
        self, y: Array, name: str = "y", other: str = "what the network was fitted to"
    ) -> Array:
        loss, least = self.settings.loss, y.min()
        if (loss == "poisson" and least < 0) or (loss == "gamma" and least <= 0):
            sign = ">= 0" if loss == "poisson" else "> 0"
            raise ValueError(f"loss={loss!r} needs y {sign}, but the least of y is {least}.")
        if self.quantiles is not None and np.ndim(self.settings.quantile) == 1:
            # Column t * n_quantiles + q is quantile q of target t.
            y = np.repeat(y.reshape(len(y), -1), len(self.quantiles), axis=1)
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        if self.n_outputs is None:
            self.n_outputs = n_outputs
        if n_outputs != self.n_outputs:
            quantile = self.settings.quantile
            quantiles = f", by quantile={quantile!r}" if self.n_quantiles > 1 else ""
            raise ValueError(
                f"{name} has {n_outputs} outputs{quantiles}, but {other} has {self.n_outputs}."
            )
        return y

    def network(self) -> dict[str, Any]:
        settings = self.settings
        for name, value in (("quantile", 0.5), ("huber_delta", 1.0)):
            given, loss = getattr(settings, name), name.split("_")[0]
            if settings.loss != loss and (np.ndim(given) > 0 or given != value):
                raise ValueError(
                    f"{name}={given!r} is for loss={loss!r}, got loss={settings.loss!r}."
                )
        more: dict[str, Any] = {}
        if settings.loss == "huber":
            more["bend"] = float(settings.huber_delta)
        if settings.loss == "quantile":
            more["quantiles"] = self.quantiles
        out_activation = settings.out_activation or LOSSES[settings.loss].activation
        return dict(loss=settings.loss, out_activation=out_activation, **more)

    def values(self, target: Array, dtype: DTypeLike) -> Array:
        return target.reshape(len(target), -1)

    def training_weight(
        self, sample_weight: Array | None, target: Array, incremental: bool
    ) -> Array | None:
        return sample_weight

    def decide(self, output: Array) -> Array:
        """Outputs with the quantiles of each target in ascending order: they do not cross."""
        if self.n_quantiles > 1:
            shape = len(output), -1, self.n_quantiles
            output = np.sort(output.reshape(shape), axis=2).reshape(output.shape)
        return output.ravel() if output.shape[1] == 1 else output

    def score(self, target: Array, output: Array, weight: Array | None) -> float:
        """R^2 or D^2 of outputs, in the units in which training sees targets."""
        if self.n_quantiles > 1:  # each target was repeated
            target = target[:, :: self.n_quantiles]
        # In float64: squares of what float32 holds may be infinite.
        target, prediction = (a.astype(np.float64) for a in (target, self.decide(output)))
        return self.measure(target, prediction, weight)

    def measure(
        self, y: Any, prediction: Array, weight: ArrayLike | None, unit: float = 1.0
    ) -> float:
        """``score`` of predictions; ``huber_delta`` is in multiples of ``unit``."""
        return score(
            self.settings.loss,
            y,
            prediction,
            weight,
            quantiles=self.quantiles,
            huber_delta=float(self.settings.huber_delta) * unit,
        )

    @property
    def n_quantiles(self) -> int:
        """Number of quantiles of each target."""
        return 1 if self.quantiles is None else len(self.quantiles)


Targets: TypeAlias = Classes | Labels | Reals


def checked_quantiles(quantile: float | Sequence[float]) -> Array:
    """The quantiles as a vector, for a number or a list."""
    quantiles = np.atleast_1d(np.asarray(quantile, np.float64))
    inside = (quantiles > 0) & (quantiles < 1)
    if quantiles.ndim != 1 or not (
        quantiles.size and inside.all() and (np.diff(quantiles) > 0).all()
    ):
        raise ValueError(
            f"quantile must be in (0, 1), or a list of such numbers in ascending order; "
            f"got {quantile!r}."
        )
    return quantiles
