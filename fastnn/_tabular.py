"""The estimators for tables as they come; what they share is in ``_members``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, overload

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import StrOptions

from ._classifier import MLPClassifier
from ._inputs import checked_labels
from ._members import BaseTabular
from ._parameters import set_parameters
from ._regressor import MLPRegressor
from ._targets import Classes
from ._typing import Array, Matrix, Seed, TableData, Units

_PARAMETERS = """n_members : int, default=5
        Number of networks, whose predictions are averaged. Each begins from other weights, and
        holds another part of the examples out.
    hidden_layer_sizes : int or array-like of int, default={hidden}
        Number of units of each hidden layer.
    max_iter : int, default=100
        Most epochs of each network; the weights of the best one are kept. A network ends before if
        its loss on what is held out was not lower for 25 epochs (a quarter of ``max_iter``, where
        that is more), without such with the last epoch.
    max_time : float or None, default=None
        Seconds of training, without encoding, after which it ends at the end of an epoch.
    numerical_embedding : {{'auto', 'piecewise_linear', 'periodic'}} or None, default='auto'
        What stands beside each number: an input for each bin between quantiles, so that the layer
        forms any piecewise linear function of it [1]_; cosines with fixed random frequencies
        (random Fourier features, not trained) [2]_; or nothing. 'auto' trains the first network
        with 'piecewise_linear' and with None; all have None if its loss on what is held out, or on
        ``X_val``, is lower by 2 %, else, or without such, 'piecewise_linear'.
    validation_fraction : float in [0, 0.5], default=0.125
        Part of the examples that each network holds out, to find its best epoch by their loss: one
        of ``round(1 / validation_fraction)`` parts in turn. With 0, or fewer than 100 examples,
        nothing is held out, and the last epoch is kept.{more_parameters}
    random_state : int, RandomState instance or None, default=None
        Seed of the parts, the initial weights, the order of examples and dropout.
    n_threads : int or None, default=None
        Number of threads, as in ``MLPClassifier``; None is one for each core. Networks are trained
        side by side if there are as many of them. The results do not depend on it.
    verbose : bool, int or 'progress', default=False
        Whether to print a line for each network, or show a progress bar (needs tqdm).

    Attributes
    ----------
    members_ : list of {member}
        The networks, fitted to the encoded table, with their ``validation_loss_curve_``,
        ``best_epoch_`` and so on.
    numerical_embedding_ : {{'piecewise_linear', 'periodic'}} or None
        What stands beside each number.
    n_iter_ : int
        The most epochs of a network.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any."""

_NOTES = """Notes
    -----
    Numbers are centred, scaled, clipped smoothly and cut into bins; categories have an input each;
    both have one for what is missing. The networks train by AdamW with a cosine schedule, dropout
    and a mini-batch that suits the number of examples, in float32 (float64 of fewer than 100
    examples). The results are the same to the last bit for any number of threads.

    References
    ----------
    .. [1] Gorishniy et al. (2022), On embeddings for numerical features in tabular deep learning.
    .. [2] Rahimi and Recht (2007), Random features for large-scale kernel machines."""


class TabularClassifier(ClassifierMixin, BaseTabular[MLPClassifier]):
    __doc__ = f"""Classifier for tables as they come, which needs no preprocessing.

    Numbers and categories, with missing values, are encoded, and several networks are trained on
    parts of the examples. Their probabilities are calibrated by one temperature [3]_,
    which minimises the log-loss of what each network says of the examples that it has held out,
    and averaged. Fewer than 100 examples are trained on as a whole, and not calibrated.

    Parameters
    ----------
    {
        _PARAMETERS.format(
            member="MLPClassifier",
            hidden=(128, 128),
            more_parameters='''
    class_weight : 'balanced', dict or None, default=None
        Weight >= 0 of the examples of each class, times ``sample_weight``: in training, in the
        choice of the best epoch and in the calibration.''',
        )
    }
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    temperature_ : float
        By which logits are divided; above 1 networks were too sure of themselves.

    See Also
    --------
    TabularRegressor : The same for numbers.
    MLPClassifier : Drop-in for scikit-learn's; takes numbers, dense or sparse.

    {_NOTES}
    .. [3] Guo et al. (2017), On calibration of modern neural networks.

    Examples
    --------
    >>> from fastnn import TabularClassifier
    >>> table = [["red", 1.0], ["blue", None], [None, 2.0], ["red", 3.0]]
    >>> classifier = TabularClassifier(random_state=0).fit(table, ["no", "yes", "yes", "no"])
    >>> classifier.predict([["red", 2.0], ["blue", 5.0]])
    array(['no', 'yes'], dtype='<U3')
    """

    class_weight: str | Mapping[Any, float] | None
    classes_: Array
    temperature_: float

    _parameter_constraints = {
        **BaseTabular._parameter_constraints,
        "class_weight": [None, StrOptions({"balanced"}), dict],
    }
    _member = MLPClassifier
    _preset = dict(activation="relu", learning_rate_init=4e-3, weight_decay=0.3, dropout=0.3)
    _bins = dict(n_bins=16, height=0.3)

    def __init__(
        self,
        n_members: int = 5,
        hidden_layer_sizes: Units = (128, 128),
        *,
        max_iter: int = 100,
        max_time: float | None = None,
        numerical_embedding: str | None = "auto",
        validation_fraction: float = 0.125,
        class_weight: str | Mapping[Any, float] | None = None,
        random_state: Seed | None = None,
        n_threads: int | None = None,
        verbose: bool | int | str = False,
    ) -> None:
        set_parameters(self, locals())

    def _learn_target(self, y: Array, weight: Array | None) -> Array:
        target_type, classes = checked_labels(y)
        if target_type == "multilabel-indicator":
            raise ValueError(
                "y must have one class for each example, got a matrix of labels: for these take "
                "MLPClassifier."
            )
        self.classes_ = classes
        self.temperature_ = 1.0
        return self._targets().encode(y)

    def _encode_more(self, y: Array) -> Array:
        _, classes = checked_labels(y, "y_val")
        targets = self._targets()
        targets.check_kind(y, "y_val", "y")
        if unknown := targets.unknown(classes):
            raise ValueError(f"y_val has labels that y has not: {unknown}.")
        return targets.encode(y)

    def _targets(self) -> Classes:
        return Classes(self, self.classes_)

    def _total_weight(self, target: Array, weight: Array | None) -> Array | None:
        return self._targets().training_weight(weight, target, incremental=False)

    def _splitter(
        self, target: Array, n_parts: int, rng: np.random.RandomState
    ) -> Iterator[tuple[Array, Array]]:
        by_class = np.bincount(target).min() >= n_parts
        splitter = StratifiedKFold if by_class else KFold
        return splitter(n_parts, shuffle=True, random_state=rng).split(target, target)

    def _calibrate(self, held: list[Any]) -> None:
        """Learn the temperature from what each member has held out."""
        if held[0] is None:
            return
        logits = np.concatenate(
            [_log(m.predict_proba(X)) for m, (X, _, _) in zip(self.members_, held, strict=True)]
        )
        target = np.concatenate([target for _, target, _ in held])
        weight = None if held[0][2] is None else np.concatenate([w for _, _, w in held])

        def loss(log_temperature: float) -> float:
            log_probability = log_softmax(logits / np.exp(log_temperature), axis=1)
            mean = -np.average(log_probability[np.arange(len(target)), target], weights=weight)
            # As if it were known to be 1 within a third: few examples are separated by chance.
            return mean + log_temperature**2 / (2 * 0.3**2) / len(target)

        found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        self.temperature_ = float(np.exp(found.x))

    def _output(self, member: MLPClassifier, encoded: Matrix) -> Array:
        return member._probabilities(member._outputs_of(encoded))

    def predict(self, X: TableData) -> Array:
        """Predict the most probable class.

        Parameters
        ----------
        X : table or array-like of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples,)
            Class labels.
        """
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: TableData) -> Array:
        """Predict class probabilities.

        Parameters
        ----------
        X : table or array-like of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probability of each class in the order of ``classes_``.
        """
        blocks = []
        for outputs in self._outputs(X):
            outputs = outputs[:, :, : len(self.classes_)]  # a network has two for one class
            blocks.append(np.exp(log_softmax(_log(outputs) / self.temperature_, axis=2)).mean(0))
        return np.concatenate(blocks)

    def predict_log_proba(self, X: TableData) -> Array:
        """Predict the logarithm of class probabilities.

        Parameters
        ----------
        X : table or array-like of shape (n_samples, n_features)
            Examples.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            ``log(predict_proba(X))``.
        """
        return np.log(self.predict_proba(X))


def _log(probability: Array) -> Array:
    """Logarithms, of 0 that of the least normal number."""
    return np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))


class TabularRegressor(RegressorMixin, BaseTabular[MLPRegressor]):
    __doc__ = f"""Regressor for tables as they come, which needs no preprocessing.

    Numbers and categories, with missing values, are encoded, and several networks are trained on
    parts of the examples, to the squared error of the standardised target. The mean of their
    predictions, each within the range of y, is what is predicted.

    Parameters
    ----------
    {_PARAMETERS.format(member="MLPRegressor", hidden=(128, 128, 128), more_parameters="")}
    n_outputs_ : int
        Number of targets.

    See Also
    --------
    TabularClassifier : The same for classes.
    MLPRegressor : Drop-in for scikit-learn's, with other losses; takes numbers, dense or sparse.

    {_NOTES}

    Examples
    --------
    >>> from fastnn import TabularRegressor
    >>> table = [["red", 1.0], ["blue", None], [None, 2.0], ["red", 3.0]]
    >>> regressor = TabularRegressor(random_state=0).fit(table, [0.0, 5.0, 4.0, 1.0])
    >>> mean, std = regressor.predict([["red", 2.0], ["blue", 5.0]], return_std=True)
    >>> mean.shape == std.shape == (2,)
    True
    """

    n_outputs_: int

    _member = MLPRegressor
    _preset = dict(activation="silu", learning_rate_init=1e-2, weight_decay=0.1, dropout=0.1)
    _bins = dict(n_bins=32, height=0.2)

    def __init__(
        self,
        n_members: int = 5,
        hidden_layer_sizes: Units = (128, 128, 128),
        *,
        max_iter: int = 100,
        max_time: float | None = None,
        numerical_embedding: str | None = "auto",
        validation_fraction: float = 0.125,
        random_state: Seed | None = None,
        n_threads: int | None = None,
        verbose: bool | int | str = False,
    ) -> None:
        set_parameters(self, locals())

    def _learn_target(self, y: Array, weight: Array | None) -> Array:
        y = y.astype(np.float64)
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        # In a unit of a power of two, in which no square becomes infinite or 0.
        self._exponent = np.frexp(np.abs(y).max(axis=0))[1]
        y = np.ldexp(y, -self._exponent)
        self._range = y.min(axis=0), y.max(axis=0)
        self._scaler = StandardScaler().fit(y.reshape(len(y), -1), sample_weight=weight)
        return self._standardized(y)

    def _standardized(self, y: Array) -> Array:
        return self._scaler.transform(y.reshape(len(y), -1)).reshape(y.shape)

    def _encode_more(self, y: Array) -> Array:
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        if n_outputs != self.n_outputs_:
            raise ValueError(f"y_val has {n_outputs} outputs, but y has {self.n_outputs_}.")
        return self._standardized(np.ldexp(y.astype(np.float64), -self._exponent))

    def _total_weight(self, target: Array, weight: Array | None) -> Array | None:
        return weight

    def _splitter(
        self, target: Array, n_parts: int, rng: np.random.RandomState
    ) -> Iterator[tuple[Array, Array]]:
        return KFold(n_parts, shuffle=True, random_state=rng).split(target)

    def _calibrate(self, held: list[Any]) -> None:
        """There is nothing to learn for a mean."""

    def _output(self, member: MLPRegressor, encoded: Matrix) -> Array:
        output = member._outputs_of(encoded)
        return output.ravel() if self.n_outputs_ == 1 else output

    @overload
    def predict(self, X: TableData, return_std: Literal[False] = False) -> Array: ...
    @overload
    def predict(self, X: TableData, return_std: Literal[True]) -> tuple[Array, Array]: ...
    def predict(self, X: TableData, return_std: bool = False) -> Array | tuple[Array, Array]:
        """Predict target values.

        Parameters
        ----------
        X : table or array-like of shape (n_samples, n_features)
            Examples.
        return_std : bool, default=False
            Whether to return as well how far the networks disagree.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Mean of the networks' predictions.
        std : ndarray of the same shape, only if ``return_std``
            Standard deviation of the networks' predictions. It grows where there were few examples,
            and says nothing of the noise of y itself.
        """
        means, deviations = [], []
        for outputs in self._outputs(X):
            flat = outputs.reshape(-1, self.n_outputs_).astype(np.float64)
            outputs = self._scaler.inverse_transform(flat).reshape(outputs.shape)
            outputs = np.clip(outputs, *self._range)
            means.append(np.ldexp(outputs.mean(axis=0), self._exponent))
            deviations.append(np.ldexp(outputs.std(axis=0), self._exponent))
        mean = np.concatenate(means)
        return (mean, np.concatenate(deviations)) if return_std else mean
