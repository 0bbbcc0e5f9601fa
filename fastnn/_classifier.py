"""The classifier: labels in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import unique_labels

from ._base import BaseMLP
from ._given_weights import with_weights
from ._inputs import checked_labels
from ._one_at_a_time import turn
from ._parameters import (
    CONSTRAINTS,
    NOTES,
    of_mini_batches,
    own_defaults,
    parameters,
    set_parameters,
)
from ._targets import Classes, Labels
from ._typing import (
    Activation,
    Array,
    ClassWeight,
    Data,
    Matrix,
    Schedule,
    Scoring,
    Seed,
    Units,
    Weights,
)

_MORE_PARAMETERS = """loss : {'log_loss', 'squared_error'}, default='log_loss'
        What is minimised.

        ===============  ==========================================================================
        'log_loss'       the cross-entropy; for probabilities
        'squared_error'  half the squared difference of outputs and 0 or 1
        ===============  ==========================================================================
    class_weight : 'balanced', dict or None, default=None
        Weight >= 0 of the examples of each class, times ``sample_weight``: None is 1,
        'balanced' is inverse to how often the class occurs. For multilabel targets a list of
        dicts, one for each label; the weights of an example's labels are multiplied. Scores, also
        those of ``early_stopping``, go by ``sample_weight`` alone.
    label_smoothing : float in [0, 1), default=0
        Part of each target that is spread evenly over the classes.
    threshold : float in [0, 1] or list of float, default=0.5
        Probability above which ``pos_label``, or a label of a multilabel target, is predicted. A
        list has one for each label. Of three classes or more the most probable is predicted, so
        another threshold than 0.5 is an error.
    pos_label : int, float, bool or str, default=None
        Which of two classes ``threshold`` is for; None is the second, ``classes_[1]``. Scorers of
        scikit-learn have a ``pos_label`` of their own."""


@own_defaults
class MLPClassifier(ClassifierMixin, BaseMLP):
    __doc__ = f"""Multilayer perceptron classifier, a drop-in for scikit-learn's.

    Minimises the cross-entropy: of a softmax over the classes, or of one logistic output for
    two classes and for each label of a multilabel target. With equal settings and
    ``random_state``, float64 results agree with ``sklearn.neural_network.MLPClassifier`` to
    rounding.

    Parameters
    ----------
    {parameters("accuracy", _MORE_PARAMETERS)}
    classes_ : ndarray of shape (n_classes,)
        Class labels.

    See Also
    --------
    MLPRegressor : The same for numbers.
    TabularClassifier : For tables as they come, with categories and missing values.
    LossCurveDisplay : A picture of the fit.
    Stream : Examples that are larger than memory.

    {NOTES}

    Examples
    --------
    >>> from fastnn import MLPClassifier
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(random_state=0, max_iter=500).fit(X, y)
    >>> classifier.predict(X[:2])
    array([0, 0])
    >>> classifier.score(X, y) > 0.95
    True
    """

    class_weight: ClassWeight | None
    label_smoothing: float
    threshold: float | Sequence[float]
    pos_label: float | str | None
    classes_: Array

    _parameter_constraints = {
        **CONSTRAINTS,
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "class_weight": [None, StrOptions({"balanced"}), dict, list],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "pos_label": [None, Real, str, "boolean"],
    }

    def __init__(
        self,
        hidden_layer_sizes: Units = (100,),
        activation: Activation | Sequence[Activation] = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Schedule = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Seed | None = None,
        tol: float = 1e-4,
        verbose: bool | int | str = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        n_threads: int | None = None,
        out_activation: Activation | None = None,
        init: str | tuple[Weights, Weights] = "glorot",
        standardize: bool = False,
        dropout: float | Sequence[float] = 0.0,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
        max_time: float | None = None,
        scoring: Scoring | None = None,
        weight_average: float | None = None,
        lazy_update: bool = False,
        loss: str = "log_loss",
        class_weight: ClassWeight | None = None,
        label_smoothing: float = 0.0,
        threshold: float | Sequence[float] = 0.5,
        pos_label: float | str | None = None,
    ) -> None:
        set_parameters(self, locals())

    _labels_are_sparse: bool = False  # unless learnt from y

    @classmethod
    def from_weights(
        cls, coefs: Weights, intercepts: Weights, *, classes: ArrayLike | None = None, **params: Any
    ) -> Self:
        """Make a fitted classifier from given weights, without training.

        Parameters
        ----------
        coefs : list of array-like of shape (n_in, n_out)
            Weights of each layer, copied; float32 if all arrays are. The last has one column for
            two classes, otherwise one for each class or label.
        intercepts : list of array-like of shape (n_out,)
            Biases of each layer.
        classes : array-like of shape (n_classes,), default=None
            Class labels in ascending order, as the outputs are. None is 0, 1, ... Several outputs
            without classes and with an ``out_activation`` other than 'softmax' are labels that
            may occur together (multilabel).
        **params : parameters of the estimator
            Such as ``activation``, ``out_activation``, ``threshold``. ``hidden_layer_sizes``
            follows from the weights.

        Returns
        -------
        MLPClassifier
            It predicts, and goes on with ``partial_fit`` or ``warm_start``.

        Raises
        ------
        ValueError
            If shapes do not fit or a parameter is not as described.

        Examples
        --------
        Exclusive or, by step units: the hidden ones are "or" and "and", the output is "the first,
        but not the second".

        >>> from fastnn import MLPClassifier
        >>> xor = MLPClassifier.from_weights(
        ...     coefs=[[[1, 1], [1, 1]], [[1], [-1]]],
        ...     intercepts=[[-0.5, -1.5], [0]],
        ...     activation="step",
        ...     out_activation=("step", 0.5),
        ... )
        >>> xor.predict([[0, 0], [0, 1], [1, 0], [1, 1]])
        array([0, 1, 1, 0])
        """
        return with_weights(cls, params, coefs, intercepts, classes)

    @of_mini_batches
    def partial_fit(
        self,
        X: Data,
        y: Data,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> Self:
        """Go through the given examples once, in mini-batches, from the present weights.

        Every parameter acts from the next call on. A new ``learning_rate_init``, or another
        schedule, sets the rate anew; another ``solver`` begins with a new state of its own
        (``nesterovs_momentum`` keeps the velocities). In scikit-learn none of them acts.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each example.
        classes : array-like of shape (n_classes,), default=None
            All classes of all calls; needed in the first call.

        Returns
        -------
        self : MLPClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If ``classes`` is missing in the first call or differs in a later one, or y has others.

        See Also
        --------
        fit : Train to the end, on all examples.

        Examples
        --------
        >>> from fastnn import MLPClassifier
        >>> model = MLPClassifier(random_state=0)
        >>> for X, y in [([[0.0], [1.0]], ["a", "b"]), ([[2.0]], ["b"])]:
        ...     model = model.partial_fit(X, y, classes=["a", "b"])
        """
        with turn(self, going_on=True) as warnings:
            if classes is None:
                if not hasattr(self, "classes_"):
                    raise ValueError("classes must be passed on the first call to partial_fit.")
            elif hasattr(self, "classes_"):
                if not np.array_equal(self.classes_, unique_labels(classes)):
                    raise ValueError(
                        f"`classes={classes!r}` is not the same as on last call to partial_fit, "
                        f"was: {self.classes_!r}"
                    )
            else:
                _, self.classes_ = checked_labels(np.asarray(classes), "classes")
            warnings += self._fit(X, y, sample_weight, incremental=True)
        return self

    def _learn_targets(
        self, settings: Any, y: Matrix, goes_on: bool, incremental: bool
    ) -> Classes | Labels:
        """As of ``BaseMLP``: the classes are those of y, or what is known of earlier calls."""
        target_type, classes = checked_labels(y)
        is_new = not (goes_on and hasattr(self, "classes_"))
        if is_new:
            self.classes_ = classes  # so that none of y's can be unknown
        if is_new or not hasattr(self, "_target_type"):  # the first of several partial_fit
            self._target_type = target_type
            # Predictions of labels are sparse where those of the first y were.
            self._labels_are_sparse = sp.issparse(y)
            targets = self._targets(settings, y.shape[1] if y.ndim == 2 else 1)
        else:
            targets = self._targets(settings, self.n_outputs_)
            targets.check_kind(y, "y", "what the network was fitted to")
        if not is_new:
            all_needed = settings.warm_start and not incremental
            self._check_classes(classes, targets.unknown(classes), all_needed)
        targets.decision_rule()
        return targets

    def _targets(self, settings: Any, n_outputs: int) -> Classes | Labels:
        if self._target_type == "multilabel-indicator":
            return Labels(settings, self.classes_, n_outputs)
        return Classes(settings, self.classes_)

    def _check_classes(self, classes: Array, unknown: list[Any], all_needed: bool) -> None:
        if all_needed and (unknown or len(classes) < len(self.classes_)):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the "
                f"previous call to fit. Previously got {self.classes_}, `y` has {classes}"
            )
        if unknown:
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _encode_more(self, targets: Any, y: Matrix) -> Array:
        _, classes = checked_labels(y, "y_val")
        targets.check_kind(y, "y_val", "y")
        if unknown := targets.unknown(classes):
            raise ValueError(f"y_val has labels that y has not: {unknown}.")
        return targets.encode(y)

    def predict(self, X: Data) -> Array:
        """Predict class labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            The most probable class, or of two by ``threshold``. For multilabel targets an indicator
            matrix, sparse if y was.

        Examples
        --------
        >>> from fastnn import MLPClassifier
        >>> model = MLPClassifier.from_weights([[[1.0]]], [[0.0]], classes=["no", "yes"])
        >>> model.predict([[-2.0], [2.0]]).tolist()
        ['no', 'yes']
        """
        output = self._outputs(X)
        decision = self._targets(self, self.n_outputs_).decide(output)
        if self._target_type != "multilabel-indicator":
            return self.classes_[decision]
        labels = decision.astype(int)
        if self._labels_are_sparse:
            # Whose type of sparse matrix is scikit-learn's.
            labels = LabelBinarizer().fit(sp.csr_array(labels)).inverse_transform(labels)
        return labels

    def predict_proba(self, X: Data) -> Array:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probability of each class in the order of ``classes_``; of each label on its own for
            multilabel targets.

        Examples
        --------
        >>> from fastnn import MLPClassifier
        >>> model = MLPClassifier.from_weights([[[1.0]]], [[0.0]], classes=["no", "yes"])
        >>> model.predict_proba([[0.0]])
        array([[0.5, 0.5]])
        """
        return self._probabilities(self._outputs(X))

    def _probabilities(self, output: Array) -> Array:
        """Of each class, by the network's outputs."""
        if self.n_outputs_ == 1:
            return np.concatenate([1 - output, output], axis=1)
        return output

    def predict_log_proba(self, X: Data) -> Array:
        """Predict the logarithm of class probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            ``log(predict_proba(X))``; -inf where a probability is 0.

        Examples
        --------
        >>> from fastnn import MLPClassifier
        >>> model = MLPClassifier.from_weights([[[1.0]]], [[0.0]], classes=["no", "yes"])
        >>> model.predict_log_proba([[0.0]]).round(3)
        array([[-0.693, -0.693]])
        """
        probability = self.predict_proba(X)
        return np.log(probability, out=probability)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
