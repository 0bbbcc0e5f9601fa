"""Estimators for tables as they come: encoding, several networks, and what they predict together.

Each member is an ``MLPClassifier`` or ``MLPRegressor`` of the encoded table. It holds another part
of the rows out of its training, by which its best epoch is found: together they have seen them all.
"""

import time
from abc import ABC
from numbers import Integral

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ._callbacks import Followed, MembersReport, Tasks, with_callbacks
from ._classifier import MLPClassifier
from ._frames import FrameEncoder, checked_columns
from ._inputs import checked_labels, checked_target, checked_weight, hidden_units
from ._loops import INTERRUPTED
from ._one_at_a_time import turn
from ._parameters import CONSTRAINTS
from ._regressor import MLPRegressor
from ._targets import Classes
from ._threads import choose_n_threads, results
from ._validation import check_together

# The settings of all members, chosen by the mean over 16 tables, see bench/quality.py.
PRESET = dict(
    activation="silu",
    solver="adamw",
    alpha=0.0,
    learning_rate="cosine",
    scoring="loss",
    tol=0.0,
)
# Below so many examples a part held out says less than it costs, and dropout and mini-batches are
# noise: all are trained on, in one batch, in float64, until the loss stalls. A weight of 2 is then
# the same as an example given twice.
FEW = 100
OF_FEW = dict(batch_size="full", dropout=0.0, tol=1e-4, n_iter_no_change=10)
# Examples that are encoded for prediction at a time.
BLOCK = 2**14

_PARAMETERS = """n_members : int, default=5
        Number of networks, whose predictions are averaged. Each begins from other weights, and
        holds another part of the examples out.
    hidden_layer_sizes : int or array-like of int, default={hidden}
        Number of units of each hidden layer.
    max_iter : int, default=100
        Number of epochs of each network; the weights of the best one are kept.
    max_time : float or None, default=None
        Seconds of training, without encoding, after which it ends at the end of an epoch.
    numerical_embedding : {{'piecewise_linear', 'periodic'}} or None, default='piecewise_linear'
        What stands beside each number: an input for each bin between quantiles, so that the layer
        forms any piecewise linear function of it (Gorishniy et al., 2022); cosines with fixed
        random frequencies (random Fourier features, not trained); or nothing.
    validation_fraction : float in [0, 1), default=0.2
        Part of the examples that each network holds out, to find its best epoch by their loss: one
        of ``round(1 / validation_fraction)`` parts in turn. With 0, or less than 100 examples,
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
    n_iter_ : int
        The most epochs of a network.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had any."""


class BaseTabular(Followed, BaseEstimator, ABC):
    """What both share: everything but the target."""

    _parameter_constraints = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
        "max_iter": CONSTRAINTS["max_iter"],
        "max_time": CONSTRAINTS["max_time"],
        "numerical_embedding": [None, StrOptions({"piecewise_linear", "periodic"})],
        "validation_fraction": CONSTRAINTS["validation_fraction"],
        "random_state": CONSTRAINTS["random_state"],
        "n_threads": CONSTRAINTS["n_threads"],
        "verbose": CONSTRAINTS["verbose"],
    }

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        """Fit the networks to a table as it comes.

        Parameters
        ----------
        X : table of pandas, polars or pyarrow, or array-like of shape (n_samples, n_features)
            Examples. Numbers may be missing (NaN, None), but not infinite. Columns of text, of
            objects that are no numbers, and those of a type of categories hold categories, which
            are told apart by how they read as text. Dates are an error.
        y : array-like of shape (n_samples,) or, for regression, (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight >= 0 of each example; 0 is as if it were not there.
        X_val : table or array-like of shape (n_validation, n_features), default=None
            Examples by which all networks find their best epoch; then they train on all of X.
        y_val : array-like of shape (n_validation,) or (n_validation, n_outputs), default=None
            Their targets.
        sample_weight_val : array-like of shape (n_validation,), default=None
            Their weights.

        Returns
        -------
        self : estimator
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If a parameter or an input is not as described; the estimator is as it was before.

        Warns
        -----
        UserWarning
            If Ctrl-C has ended the training: what was learned by then predicts.
        """
        run = BaseTabular._fit
        if "_skl_callbacks" in vars(self):
            run = with_callbacks(run)
        with turn(self, going_on=False) as warnings:
            warnings += run(self, X, y, sample_weight, (X_val, y_val, sample_weight_val))
        return self

    def _fit(self, X, y, sample_weight, validation):
        """Train, from the first check to the fitted attributes; returns warnings."""
        validate_parameter_constraints(
            self._parameter_constraints, self.get_params(deep=False), type(self).__name__
        )
        hidden_units(self.hidden_layer_sizes)
        check_together(*validation)
        columns, names, encoded_y, weight = self._checked(X, y, sample_weight, reset=True)
        target = self._learn_target(encoded_y, weight)
        weight = self._total_weight(target, weight)
        few = len(target) < FEW
        rng = check_random_state(self.random_state)
        dtype = np.float64 if few else np.float32
        self._encoder = FrameEncoder(self.numerical_embedding, **self._bins, dtype=dtype)
        encoded = self._encoder.fit(columns, weight, rng).transform(columns, names)
        examples = self._checked_validation(*validation)
        parts = [None] * self.n_members
        if examples is None and self.validation_fraction > 0 and not few:
            parts = self._parts(target, rng)

        data = encoded, target, weight
        report = MembersReport(self)
        fit_member, n_workers = self._plan(data, parts, examples, report, rng)
        self.members_, self.n_iter_ = [], 0
        held, interrupted = [], False
        with report, self._tasks(X, y, sample_weight) as tasks:
            for i, member in enumerate(results(fit_member, range(self.n_members), n_workers)):
                interrupted |= member.stop_reason_ == "interrupted"
                if member.n_iter_ > 0:
                    self.members_.append(member)
                    held.append(examples or _rows(data, parts[i]))
                report.end(member)
                tasks.begin()
                if tasks.end() or (interrupted and n_workers == 1):
                    break
        if not self.members_:
            raise KeyboardInterrupt
        self._calibrate(held)
        return [INTERRUPTED] if interrupted else []

    def _plan(self, data, parts, examples, report, rng):
        """A function that fits a member by its number, and in how many threads to call it."""
        n_workers = choose_n_threads(self.n_threads, 1e15)
        n_workers = n_workers if self.n_members >= n_workers else 1
        n_examples = len(data[1])
        settings = PRESET | self._preset | dict(n_iter_no_change=self.max_iter)
        # Some 16 updates for each epoch, as far as mini-batches of 32 to 256 make them.
        settings["batch_size"] = int(np.clip(2 ** round(np.log2(n_examples / 16)), 32, 256))
        if n_examples < FEW:
            settings |= OF_FEW
        settings |= dict(
            hidden_layer_sizes=self.hidden_layer_sizes,
            max_iter=self.max_iter,
            early_stopping=examples is not None or parts[0] is not None,
            n_threads=1 if n_workers > 1 else self.n_threads,
        )
        seeds = rng.randint(2**31, size=self.n_members).tolist()
        ends = None if self.max_time is None else time.monotonic() + self.max_time

        def fit_member(i):
            member = self._member(**settings, random_state=seeds[i])
            member._continued = self._encoder.continued
            if ends is not None:
                turns = -(-(self.n_members - i) // n_workers)  # this one and those after it
                member.max_time = max(1e-9, (ends - time.monotonic()) / turns)
            member._fit(
                *data,
                incremental=False,
                validation=examples or (None, None, None),
                held_out=parts[i],
                report=report.of_member(),
            )
            member.set_params(n_threads=self.n_threads, max_time=None)
            del member._optimizer  # which is twice the size of the weights
            return member

        return fit_member, n_workers

    def _checked(self, X, y, sample_weight, reset):
        """Columns, their names, y and weights, without the examples of weight 0."""
        y = checked_target(self, y)
        columns, names = checked_columns(self, X, reset)
        check_consistent_length(columns[0], y)
        weight = checked_weight(sample_weight, np.empty((len(y), 1)))
        if weight is not None:
            if weight.min() < 0:
                raise ValueError(f"sample_weight must be >= 0, but the least is {weight.min()}.")
            there = weight > 0
            columns, y, weight = [c[there] for c in columns], y[there], weight[there]
        return columns, names, y, weight

    def _checked_validation(self, X, y, sample_weight):
        """X_val, encoded, y_val and sample_weight_val; None if they were not given."""
        if X is None:
            return None
        try:
            columns, names, y, weight = self._checked(X, y, sample_weight, reset=False)
            target = self._encode_more(y)
            weight = self._total_weight(target, weight)
            return self._encoder.transform(columns, names), target, weight
        except (TypeError, ValueError) as error:
            make = TypeError if isinstance(error, TypeError) else ValueError
            raise make(f"X_val, y_val or sample_weight_val: {error}") from error

    def _parts(self, target, rng):
        """The rows that each member holds out."""
        n_parts = max(2, round(1 / self.validation_fraction))
        parts = [part for _, part in self._splitter(target, n_parts, rng)]
        return [parts[i % n_parts] for i in range(self.n_members)]

    def _tasks(self, X, y, sample_weight):
        """The fit and its members as scikit-learn's callbacks see them."""

        def publish():
            self.n_iter_ = max([member.n_iter_ for member in self.members_], default=0)

        def attributes():
            return {"members_": list(self.members_), "n_iter_": self.n_iter_}

        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        return Tasks(
            *(self, "member", self.n_members, publish, attributes, True),
            **dict(X=X, y=y, metadata=metadata),
        )

    def _outputs(self, X, method):
        """What the members say, for some rows after the others: (n_members, n_rows, ...) each."""
        check_is_fitted(self)
        columns, names = checked_columns(self, X, reset=False)
        for rows in gen_batches(len(columns[0]), BLOCK):
            encoded = self._encoder.transform([column[rows] for column in columns], names)
            yield np.stack([getattr(member, method)(encoded) for member in self.members_])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def _rows(data, rows):
    """Some rows of X, y and weights; None for no rows."""
    return None if rows is None else [None if array is None else array[rows] for array in data]


class TabularClassifier(ClassifierMixin, BaseTabular):
    __doc__ = f"""Classifier for tables as they come, which needs no preprocessing.

    Numbers and categories, with missing values, are encoded, and several networks are trained on
    parts of the examples. Their probabilities are calibrated by one temperature (Guo et al., 2017),
    which minimises the log-loss of what each network says of the examples that it has held out,
    and averaged. Less than 100 examples are trained on as a whole, and not calibrated.

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
    MLPClassifier : Drop-in for scikit-learn's; takes numbers, dense or sparse.

    Examples
    --------
    >>> from fastnn import TabularClassifier
    >>> table = [["red", 1.0], ["blue", None], [None, 2.0], ["red", 3.0]]
    >>> classifier = TabularClassifier(random_state=0).fit(table, ["no", "yes", "yes", "no"])
    >>> classifier.predict([["red", 2.0], ["blue", 5.0]])
    array(['no', 'yes'], dtype='<U3')
    """

    _parameter_constraints = {
        **BaseTabular._parameter_constraints,
        "class_weight": [None, StrOptions({"balanced"}), dict],
    }
    _member = MLPClassifier
    _preset = dict(learning_rate_init=4e-3, weight_decay=0.3, dropout=0.2)
    _bins = dict(n_bins=16, height=0.3)

    def __init__(
        self,
        n_members=5,
        hidden_layer_sizes=(128, 128),
        *,
        max_iter=100,
        max_time=None,
        numerical_embedding="piecewise_linear",
        validation_fraction=0.2,
        class_weight=None,
        random_state=None,
        n_threads=None,
        verbose=False,
    ):
        self.n_members = n_members
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.max_time = max_time
        self.numerical_embedding = numerical_embedding
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def _learn_target(self, y, weight):
        target_type = checked_labels(y)
        if target_type == "multilabel-indicator":
            raise ValueError(
                "y must have one class for each example, got a matrix of labels: for these take "
                "MLPClassifier."
            )
        self.classes_ = np.unique(y)
        self.temperature_ = 1.0
        return self._targets().encode(y)

    def _encode_more(self, y):
        checked_labels(y, "y_val")
        targets = self._targets()
        targets.check_kind(y, "y_val", "y")
        if unknown := targets.unknown(y):
            raise ValueError(f"y_val has labels that y has not: {unknown}.")
        return targets.encode(y)

    def _targets(self):
        return Classes(self, self.classes_)

    def _total_weight(self, target, weight):
        return self._targets().training_weight(weight, target, incremental=False)

    def _splitter(self, target, n_parts, rng):
        by_class = np.bincount(target).min() >= n_parts
        splitter = StratifiedKFold if by_class else KFold
        return splitter(n_parts, shuffle=True, random_state=rng).split(target, target)

    def _calibrate(self, held):
        """Learn the temperature from what each member has held out."""
        if held[0] is None:
            return
        logits = np.concatenate(
            [_log(m.predict_proba(X)) for m, (X, _, _) in zip(self.members_, held, strict=True)]
        )
        target = np.concatenate([target for _, target, _ in held])
        weight = None if held[0][2] is None else np.concatenate([w for _, _, w in held])

        def loss(log_temperature):
            log_probability = log_softmax(logits / np.exp(log_temperature), axis=1)
            mean = -np.average(log_probability[np.arange(len(target)), target], weights=weight)
            # As if it were known to be 1 within a third: few examples are separated by chance.
            return mean + log_temperature**2 / (2 * 0.3**2) / len(target)

        found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
        self.temperature_ = float(np.exp(found.x))

    def predict(self, X):
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

    def predict_proba(self, X):
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
        for outputs in self._outputs(X, "predict_proba"):
            outputs = outputs[:, :, : len(self.classes_)]  # a network has two for one class
            blocks.append(np.exp(log_softmax(_log(outputs) / self.temperature_, axis=2)).mean(0))
        return np.concatenate(blocks)

    def predict_log_proba(self, X):
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


def _log(probability):
    """Logarithms, of 0 that of the least normal number."""
    return np.log(np.maximum(probability, np.finfo(probability.dtype).tiny))


class TabularRegressor(RegressorMixin, BaseTabular):
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
    MLPRegressor : Drop-in for scikit-learn's, with other losses; takes numbers, dense or sparse.

    Examples
    --------
    >>> from fastnn import TabularRegressor
    >>> table = [["red", 1.0], ["blue", None], [None, 2.0], ["red", 3.0]]
    >>> regressor = TabularRegressor(random_state=0).fit(table, [0.0, 5.0, 4.0, 1.0])
    >>> mean, std = regressor.predict([["red", 2.0], ["blue", 5.0]], return_std=True)
    >>> mean.shape == std.shape == (2,)
    True
    """

    _member = MLPRegressor
    _preset = dict(learning_rate_init=1e-2, weight_decay=0.1, dropout=0.1)
    _bins = dict(n_bins=32, height=0.2)

    def __init__(
        self,
        n_members=5,
        hidden_layer_sizes=(128, 128, 128),
        *,
        max_iter=100,
        max_time=None,
        numerical_embedding="piecewise_linear",
        validation_fraction=0.2,
        random_state=None,
        n_threads=None,
        verbose=False,
    ):
        self.n_members = n_members
        self.hidden_layer_sizes = hidden_layer_sizes
        self.max_iter = max_iter
        self.max_time = max_time
        self.numerical_embedding = numerical_embedding
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.n_threads = n_threads
        self.verbose = verbose

    def _learn_target(self, y, weight):
        y = y.astype(np.float64)
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]
        self._range = y.min(axis=0), y.max(axis=0)
        self._scaler = StandardScaler().fit(y.reshape(len(y), -1), sample_weight=weight)
        return self._encode(y)

    def _encode(self, y):
        return self._scaler.transform(y.reshape(len(y), -1)).reshape(y.shape)

    def _encode_more(self, y):
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        if n_outputs != self.n_outputs_:
            raise ValueError(f"y_val has {n_outputs} outputs, but y has {self.n_outputs_}.")
        return self._encode(y.astype(np.float64))

    def _total_weight(self, target, weight):
        return weight

    def _splitter(self, target, n_parts, rng):
        return KFold(n_parts, shuffle=True, random_state=rng).split(target)

    def _calibrate(self, held):
        """There is nothing to learn for a mean."""

    def predict(self, X, return_std=False):
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
        for outputs in self._outputs(X, "predict"):
            flat = outputs.reshape(-1, self.n_outputs_).astype(np.float64)
            outputs = self._scaler.inverse_transform(flat).reshape(outputs.shape)
            outputs = np.clip(outputs, *self._range)
            means.append(outputs.mean(axis=0))
            deviations.append(outputs.std(axis=0))
        mean = np.concatenate(means)
        return (mean, np.concatenate(deviations)) if return_std else mean
