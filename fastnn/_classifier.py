"""The classifier: labels in, probabilities out."""

from numbers import Real

import numpy as np
import scipy.sparse as sp
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import unique_labels

from ._base import PARAMETERS, BaseMLP, own_defaults
from ._given_weights import with_weights
from ._inputs import checked_labels
from ._one_at_a_time import turn

_MORE_PARAMETERS = """loss : {'log_loss', 'squared_error'}, default='log_loss'
        The cross-entropy, or half the squared difference of outputs and 0 or 1.
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
    {PARAMETERS.format(score="accuracy", more_parameters=_MORE_PARAMETERS)}
    classes_ : ndarray of shape (n_classes,)
        Class labels.

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

    _parameter_constraints = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", "squared_error"})],
        "class_weight": [None, StrOptions({"balanced"}), dict, list],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both"), "array-like"],
        "pos_label": [None, Real, str, "boolean"],
    }

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        n_threads=None,
        out_activation=None,
        init="glorot",
        standardize=False,
        dropout=0.0,
        weight_decay=0.01,
        clip_norm=None,
        max_time=None,
        scoring=None,
        weight_average=None,
        loss="log_loss",
        class_weight=None,
        label_smoothing=0.0,
        threshold=0.5,
        pos_label=None,
    ):
        BaseMLP.__init__(
            self,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
            n_threads=n_threads,
            out_activation=out_activation,
            init=init,
            standardize=standardize,
            dropout=dropout,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            max_time=max_time,
            scoring=scoring,
            weight_average=weight_average,
        )
        self.loss = loss
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.threshold = threshold
        self.pos_label = pos_label

    _labels_are_sparse = False  # unless learnt from y

    @classmethod
    def from_weights(cls, coefs, intercepts, *, classes=None, **params):
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

    @available_if(lambda self: self._supports_partial_fit())
    def partial_fit(self, X, y, sample_weight=None, classes=None):
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
                checked_labels(np.asarray(classes), "classes")
                self.classes_ = unique_labels(classes)
            warnings += self._fit(X, y, sample_weight, incremental=True)
        return self

    def _learn_target(self, target_type, y):
        self._target_type = target_type
        # Predictions of labels are sparse where those of the first y were.
        self._labels_are_sparse = sp.issparse(y)

    def _encode(self, y, incremental):
        """Kind of target, and class codes ``(n,)`` or a label matrix ``(n, n_labels)``."""
        target_type = checked_labels(y)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._learn_target(target_type, y)
            self.classes_ = unique_labels(y)
        elif not hasattr(self, "_target_type"):  # the first of several calls of partial_fit
            self._learn_target(target_type, y)
        else:
            self._check_kind(target_type, y, "y", "what the network was fitted to")
        classes, unknown = unique_labels(y), self._unknown(y)
        if self.warm_start and not incremental:
            if unknown or len(classes) < len(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the "
                    f"previous call to fit. Previously got {self.classes_}, `y` has {classes}"
                )
        elif unknown:
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        kind, target = self._codes(y)
        self._decision_rule(kind, target.shape[1] if kind == "multilabel" else 1)
        return kind, target

    def _codes(self, y):
        if self._target_type == "multilabel-indicator":
            return "multilabel", (y.toarray() if sp.issparse(y) else y) != 0
        kind = "multiclass" if len(self.classes_) > 2 else "binary"
        return kind, np.searchsorted(self.classes_, y)

    def _check_kind(self, target_type, y, name, other):
        """Raise ValueError where a target is not like that of the training examples."""
        matrix = target_type == "multilabel-indicator"
        if matrix != (self._target_type == "multilabel-indicator"):
            kinds = ["one class for each example", "a matrix of labels"]
            raise ValueError(
                f"{name} is {kinds[matrix]}, but {other} is {kinds[not matrix]}. A fit, and all "
                "that goes on from it, has targets of one kind: for others make a new estimator."
            )
        if matrix and y.shape[1] != self.n_outputs_:
            raise ValueError(f"{name} has {y.shape[1]} labels, but {other} has {self.n_outputs_}.")

    def _unknown(self, y):
        """Classes of y that are none of the fit, as Python objects: NumPy takes "1" for 1."""
        return sorted(set(unique_labels(y).tolist()) - set(self.classes_.tolist()))

    def _training_weight(self, sample_weight, target, kind, incremental):
        if self.class_weight is None:
            return sample_weight
        if self.class_weight == "balanced":
            if incremental:
                raise ValueError(
                    "class_weight 'balanced' is not supported for partial_fit: one batch does not "
                    "tell how often a class occurs. Use compute_class_weight('balanced', "
                    "classes=classes, y=y) with a large enough sample y, and pass the weights as a "
                    "dict."
                )
            weight = compute_sample_weight("balanced", target)
        else:
            weight = self._given_class_weight(target, kind)
            if not incremental and not weight.any():
                raise ValueError(
                    f"class_weight={self.class_weight!r} gives no example a weight: at least one "
                    "class must have one > 0."
                )
        return weight if sample_weight is None else weight * sample_weight

    def _given_class_weight(self, target, kind):
        """Weight of each example by ``class_weight``; a batch need not have all the classes."""
        if kind == "multilabel":
            columns, classes, given = target.T.astype(int), np.arange(2), self.class_weight
            if not isinstance(given, list) or len(given) != len(columns):
                raise ValueError(
                    "For multilabel targets class_weight must be None, 'balanced' or a list with a "
                    f"dict for each of the {len(columns)} labels; got {given!r}."
                )
        else:
            columns, classes, given = [target], self.classes_, [self.class_weight]
            if not isinstance(self.class_weight, dict):
                raise ValueError(
                    "class_weight must be None, 'balanced' or a dict where an example has one "
                    f"label; got {self.class_weight!r}."
                )
        for of_class in given:
            for label, value in of_class.items() if isinstance(of_class, dict) else ():
                if not isinstance(value, Real) or not 0 <= value < np.inf:
                    raise ValueError(
                        f"class_weight must be finite numbers >= 0, got {value!r} for class "
                        f"{label!r}."
                    )
        weight = np.ones(len(target))
        for codes, of_class in zip(columns, given, strict=True):
            weight *= compute_class_weight(of_class, classes=classes, y=classes[codes])[codes]
        return weight

    def _loss_and_output(self, kind):
        """Name of the loss, output activation, settings of the loss."""
        default = "softmax" if kind == "multiclass" else "logistic"
        out_activation = self.out_activation or default
        if self.loss == "log_loss":
            if out_activation != default:
                raise ValueError(
                    f"loss='log_loss' takes probabilities: out_activation must be {default!r} or "
                    f"None for {kind} targets, got {out_activation!r}."
                )
            loss = "cross_entropy" if kind == "multiclass" else "log_loss"
            return loss, out_activation, {"smoothing": float(self.label_smoothing)}
        if self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} is for loss='log_loss', got "
                f"loss={self.loss!r}."
            )
        return self.loss, out_activation, {}

    def _encode_more(self, y):
        """Targets of other examples, encoded as those of the training examples."""
        self._check_kind(checked_labels(y, "y_val"), y, "y_val", "y")
        unknown = self._unknown(y)
        if unknown:
            raise ValueError(f"y_val has labels that y has not: {unknown}.")
        return self._codes(y)[1]

    def _n_outputs(self, kind, target):
        if kind == "multilabel":
            return target.shape[1]
        return len(self.classes_) if kind == "multiclass" else 1

    def _score_outputs(self, target, output, kind, weight):
        """Accuracy of network outputs against encoded targets."""
        return float(accuracy_score(target, self._decide(output, kind), sample_weight=weight))

    def _decide(self, output, kind):
        """Class codes, or a label matrix of bool, by network outputs."""
        threshold, first = self._decision_rule(kind, output.shape[1])
        if kind == "multiclass":
            return output.argmax(axis=1)
        if kind == "multilabel":
            return output > np.asarray(threshold, output.dtype)
        output = output.ravel()
        if first:
            return 1 - (1 - output > threshold)
        return np.minimum(output > threshold, len(self.classes_) - 1)

    def _decision_rule(self, kind, n_labels):
        """The threshold, or thresholds, and whether it is for the first of two classes.

        Raises ValueError where ``threshold`` or ``pos_label`` has no meaning for the target.
        """
        several = not isinstance(self.threshold, Real)
        thresholds = list(self.threshold) if several else [self.threshold]
        wrong = [t for t in thresholds if not isinstance(t, Real) or not 0 <= t <= 1]
        if wrong or (several and (kind != "multilabel" or len(thresholds) != n_labels)):
            raise ValueError(
                "threshold must be a number in [0, 1]; for multilabel targets it may be a list "
                f"with one for each label. Got {self.threshold!r} for {kind} targets"
                + (f" of {n_labels} labels." if kind == "multilabel" else ".")
            )
        if kind == "multiclass" and self.threshold != 0.5:
            raise ValueError(
                f"threshold={self.threshold!r} is for two classes or for labels. Of the "
                f"{len(self.classes_)} classes of y the most probable is predicted: leave it at "
                "0.5, or decide by predict_proba."
            )
        threshold = [float(t) for t in thresholds] if several else float(self.threshold)
        if self.pos_label is None:
            return threshold, False
        if kind != "binary":
            raise ValueError(
                f"pos_label={self.pos_label!r} is for two classes, but targets are {kind}: leave "
                "it at None."
            )
        classes = self.classes_.tolist()
        if self.pos_label not in classes:
            raise ValueError(
                f"pos_label={self.pos_label!r} is none of the classes of y, which are {classes}."
            )
        return threshold, len(classes) == 2 and self.pos_label == classes[0]

    def predict(self, X):
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
        """
        output = self._outputs(X)
        if self._target_type == "multilabel-indicator":
            labels = self._decide(output, "multilabel").astype(int)
            if self._labels_are_sparse:
                # Whose type of sparse matrix is scikit-learn's.
                labels = LabelBinarizer().fit(sp.csr_array(labels)).inverse_transform(labels)
            return labels
        kind = "multiclass" if self.n_outputs_ > 1 else "binary"
        return self.classes_[self._decide(output, kind)]

    def predict_proba(self, X):
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
        """
        output = self._outputs(X)
        if self.n_outputs_ == 1:
            return np.concatenate([1 - output, output], axis=1)
        return output

    def predict_log_proba(self, X):
        """Predict the logarithm of class probabilities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            ``log(predict_proba(X))``; -inf where a probability is 0.
        """
        probability = self.predict_proba(X)
        return np.log(probability, out=probability)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
