"""Several networks of one table: encoding, training side by side, outputs.

Each member is an ``MLPClassifier`` or ``MLPRegressor`` of the encoded table. It holds another part
of the rows out of its training, by which its best epoch is found.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ._base import BaseMLP
from ._callbacks import Followed, MembersReport, Tasks, with_callbacks
from ._documented import Documented
from ._frames import FrameEncoder, checked_columns
from ._inputs import checked_target, checked_weight, errors_about, hidden_units
from ._loops import INTERRUPTED
from ._one_at_a_time import turn
from ._parameters import CONSTRAINTS
from ._threads import choose_n_threads, results
from ._typing import Array, Data, Matrix, Seed, TableData, Units, Warnings
from ._validation import check_together

Member = TypeVar("Member", bound=BaseMLP)

# The settings of all members, chosen by the mean over 16 tables, see bench/quality.py.
PRESET = dict(
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
# By how much the loss of a network must be lower without bins for all to do without. The part held
# out tells small differences badly, and bins that are missed cost more than needless ones.
IN_DOUBT = 0.02
# A network is done after so many epochs without a lower loss of what is held out, or a quarter of
# all if those are more: the schedule may still bring it down.
PATIENCE = 25
# Examples that are encoded for prediction at a time.
BLOCK = 2**14


class Encoded(NamedTuple):
    """A table as the inputs of networks."""

    encoder: FrameEncoder
    data: tuple[Matrix, Array, Array | None]  # X, y and weights
    examples: tuple[Matrix, Array, Array | None] | None  # to validate on, where they were given


class BaseTabular(Followed, Documented, BaseEstimator, ABC, Generic[Member]):
    """What both share: everything but the target."""

    n_members: int
    hidden_layer_sizes: Units
    max_iter: int
    max_time: float | None
    numerical_embedding: str | None
    validation_fraction: float
    random_state: Seed | None
    n_threads: int | None
    verbose: bool | int | str

    members_: list[Member]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: Array

    _member: type[Member]
    _preset: dict[str, Any]
    _bins: dict[str, Any]

    _parameter_constraints = {
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": CONSTRAINTS["hidden_layer_sizes"],
        "max_iter": CONSTRAINTS["max_iter"],
        "max_time": CONSTRAINTS["max_time"],
        "numerical_embedding": [None, StrOptions({"auto", "piecewise_linear", "periodic"})],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="both")],
        "random_state": CONSTRAINTS["random_state"],
        "n_threads": CONSTRAINTS["n_threads"],
        "verbose": CONSTRAINTS["verbose"],
    }

    def fit(
        self,
        X: TableData,
        y: Data,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: TableData | None = None,
        y_val: Data | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> Self:
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

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation: tuple[Any, Any, Any]
    ) -> Warnings:
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
        holds_out = validation[0] is None and self.validation_fraction > 0 and not few
        judged = holds_out or validation[0] is not None
        tables = []
        for encoder in self._encoders(columns, weight, few, judged, rng):
            encoded = encoder.transform(columns, names)
            examples = self._checked_validation(encoder, *validation)
            tables.append(Encoded(encoder, (encoded, target, weight), examples))
        parts = self._parts(target, rng) if holds_out else [None] * self.n_members

        n_fits = self.n_members + len(tables) - 1
        report = MembersReport(self, n_fits)
        fit_member, n_workers = self._plan(len(target), parts, judged, n_fits, report, rng)
        self.members_, self.n_iter_ = [], 0
        held, interrupted = [], False
        with report, self._tasks(X, y, sample_weight) as tasks:
            for i, (member, table, stopped) in enumerate(
                _fitted(fit_member, tables, self.n_members, n_workers, report)
            ):
                interrupted = stopped
                if member.n_iter_ > 0:
                    self._encoder = table.encoder
                    self.numerical_embedding_ = table.encoder.embedding
                    self.members_.append(member)
                    held.append(table.examples or _rows(table.data, parts[i]))
                tasks.begin()
                if tasks.end():
                    break
        if not self.members_:
            raise KeyboardInterrupt
        self._calibrate(held)
        return [INTERRUPTED] if interrupted else []

    def _encoders(
        self,
        columns: Any,
        weight: Array | None,
        few: bool,
        judged: bool,
        rng: np.random.RandomState,
    ) -> list[FrameEncoder]:
        """The encoders to try; there are several only if a loss can judge them."""
        dtype = np.float64 if few else np.float32
        auto = self.numerical_embedding == "auto"
        first = FrameEncoder(
            "piecewise_linear" if auto else self.numerical_embedding, **self._bins, dtype=dtype
        )
        encoders = [first.fit(columns, weight, rng)]
        if auto and judged and first.continued.any():  # there are bins to leave out
            plain = FrameEncoder(None, **self._bins, dtype=dtype)
            encoders.append(plain.fit(columns, weight, rng))
        return encoders

    @abstractmethod
    def _learn_target(self, y: Matrix, weight: Array | None) -> Array:
        """The encoded target of training examples, with what is to be known of it."""

    @abstractmethod
    def _encode_more(self, y: Matrix) -> Array:
        """The encoded target of other examples."""

    @abstractmethod
    def _total_weight(self, target: Array, weight: Array | None) -> Array | None:
        """Weight of each example, times that of its class."""

    @abstractmethod
    def _splitter(
        self, target: Array, n_parts: int, rng: np.random.RandomState
    ) -> Iterator[tuple[Array, Array]]:
        """Rows to train on and rows to hold out, for each part."""

    @abstractmethod
    def _calibrate(self, held: list[Any]) -> None:
        """Learn from what each member has held out."""

    def _plan(
        self,
        n_examples: int,
        parts: Sequence[Array | None],
        judged: bool,
        n_fits: int,
        report: MembersReport,
        rng: np.random.RandomState,
    ) -> tuple[Callable[[int, Encoded], Member], int]:
        """A function that fits a member by its number to a table, and in how many threads."""
        n_workers = choose_n_threads(self.n_threads, 1e15)
        n_workers = n_workers if self.n_members >= n_workers else 1
        patience = max(PATIENCE, self.max_iter // 4) if judged else self.max_iter
        settings = PRESET | self._preset | dict(n_iter_no_change=patience)
        # Some 16 updates for each epoch, as far as mini-batches of 32 to 256 make them.
        settings["batch_size"] = int(np.clip(2 ** round(np.log2(n_examples / 16)), 32, 256))
        if n_examples < FEW:
            settings |= OF_FEW
        settings |= dict(
            hidden_layer_sizes=self.hidden_layer_sizes,
            max_iter=self.max_iter,
            early_stopping=judged,
            n_threads=1 if n_workers > 1 else self.n_threads,
        )
        seeds = rng.randint(2**31, size=self.n_members).tolist()
        ends = None if self.max_time is None else time.monotonic() + self.max_time
        begun = itertools.count()

        def fit_member(i: int, table: Encoded) -> Member:
            member = self._member(**settings, random_state=seeds[i])
            if table.encoder.is_sparse:
                member._continued = table.encoder.continued
            if ends is not None:
                turns = -(-(n_fits - next(begun)) // n_workers)  # this one and those after it
                member.max_time = max(1e-9, (ends - time.monotonic()) / turns)
            member._fit(
                *table.data,
                incremental=False,
                validation=table.examples or (None, None, None),
                held_out=parts[i],
                report=report.of_member(),
            )
            member.set_params(n_threads=self.n_threads, max_time=None)
            del member._optimizer  # which is twice the size of the weights
            return member

        return fit_member, n_workers

    def _checked(
        self, X: Any, y: Any, sample_weight: Any, reset: bool, in_fit: list[bool] | None = None
    ) -> tuple[list[Array], list[Any], Array, Array | None]:
        """Columns, their names, y and weights, without the examples of weight 0."""
        y = checked_target(self, y)
        columns, names = checked_columns(self, X, reset, in_fit)
        check_consistent_length(columns[0], y)
        weight = checked_weight(sample_weight, np.empty((len(y), 1)))
        if weight is not None:
            if weight.min() < 0:
                raise ValueError(f"sample_weight must be >= 0, but the least is {weight.min()}.")
            there = weight > 0
            columns, y, weight = [c[there] for c in columns], y[there], weight[there]
        return columns, names, y, weight

    def _checked_validation(
        self, encoder: FrameEncoder, X: Any, y: Any, sample_weight: Any
    ) -> tuple[Matrix, Array, Array | None] | None:
        """X_val, encoded, y_val and sample_weight_val; None if they were not given."""
        if X is None:
            return None
        with errors_about("X_val, y_val or sample_weight_val"):
            is_category = encoder.is_category
            columns, names, y, weight = self._checked(X, y, sample_weight, False, is_category)
            target = self._encode_more(y)
            weight = self._total_weight(target, weight)
            return encoder.transform(columns, names), target, weight

    def _parts(self, target: Array, rng: np.random.RandomState) -> list[Array]:
        """The rows that each member holds out."""
        n_parts = round(1 / self.validation_fraction)
        if n_parts > len(target):
            raise ValueError(
                f"validation_fraction={self.validation_fraction} of the {len(target)} examples is "
                "less than one. Increase it, set it to 0, or give X_val and y_val."
            )
        parts = [part for _, part in self._splitter(target, n_parts, rng)]
        return [parts[i % n_parts] for i in range(self.n_members)]

    def _tasks(self, X: Any, y: Any, sample_weight: Any) -> Tasks:
        """The fit and its members as scikit-learn's callbacks see them."""

        def publish() -> None:
            self.n_iter_ = max([member.n_iter_ for member in self.members_], default=0)

        def attributes() -> dict[str, Any]:
            return {"members_": list(self.members_), "n_iter_": self.n_iter_}

        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        data = dict(X=X, y=y, metadata=metadata)
        return Tasks(self, "member", self.n_members, publish, attributes, called=True, **data)

    def _outputs(self, X: Any) -> Iterator[Array]:
        """What the members say, for some rows after the others: (n_members, n_rows, ...) each."""
        check_is_fitted(self)
        columns, names = checked_columns(self, X, False, self._encoder.is_category)
        for rows in gen_batches(len(columns[0]), BLOCK):
            encoded = self._encoder.transform([column[rows] for column in columns], names)
            yield np.stack([self._output(member, encoded) for member in self.members_])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def _rows(data: Sequence[Any], rows: Array | None) -> list[Any] | None:
    """Some rows of X, y and weights; None for no rows."""
    return None if rows is None else [None if array is None else array[rows] for array in data]


def _fitted(
    fit_member: Callable[[int, Encoded], Member],
    tables: list[Encoded],
    n_members: int,
    n_workers: int,
    report: MembersReport,
) -> Iterator[tuple[Member, Encoded, bool]]:
    """Yield each member, its table, and whether the fit was interrupted.

    Of several tables, all members have the one that the first is better on.
    """

    def fit(pair: tuple[int, Encoded]) -> tuple[Member, Encoded]:
        return fit_member(*pair), pair[1]

    def told(pairs: list[tuple[int, Encoded]]) -> Iterator[tuple[Member, Encoded, bool]]:
        interrupted = False
        for (member, table), stopped in results(fit, pairs, n_workers):
            report.end(member)
            interrupted |= stopped or member.stop_reason_ == "interrupted"
            yield member, table, interrupted
            if interrupted and n_workers == 1:
                return

    first = 0
    if len(tables) > 1:
        chosen, *others = told([(0, table) for table in tables])
        interrupted = [chosen, *others][-1][2]
        for other in others:
            if _validation_loss(other[0]) < (1 - IN_DOUBT) * _validation_loss(chosen[0]):
                chosen = other
        member, table, _ = chosen
        yield member, table, interrupted
        if interrupted:
            return
        first, tables = 1, [table]
    yield from told([(i, tables[0]) for i in range(first, n_members)])


def _validation_loss(member: BaseMLP) -> float:
    """That of the weights that are kept; infinite before the end of an epoch."""
    epoch, losses = member.best_epoch_, member.validation_loss_curve_
    return np.inf if epoch is None or losses is None else losses[epoch - 1]
