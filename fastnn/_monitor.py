"""What a fit has come to after each epoch, and the rule by which it stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike
from sklearn.exceptions import ConvergenceWarning

from ._typing import Parameters, Warnings

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._callbacks import MemberReport, Report
    from ._loops import Progress
    from ._optimizer import Optimizer
    from ._validation import Validation


class History:
    """The record of a fit, which becomes fitted attributes of the estimator.

    Parameters
    ----------
    **fields
        What earlier fits have left, where this one goes on: see ``going_on``.
    """

    # Field, and the attribute that it becomes.
    ATTRIBUTES = {
        "n_iter": "n_iter_",
        "t": "t_",
        "loss": "loss_",
        "loss_curve": "loss_curve_",
        "best_loss": "best_loss_",
        "validation_scores": "validation_scores_",
        "validation_loss_curve": "validation_loss_curve_",
        "best_validation_score": "best_validation_score_",
        "n_stalled": "_no_improvement_count",
        "stop_reason": "stop_reason_",
    }

    n_iter: int
    t: int
    n_stalled: int
    loss_curve: list[float]
    stop_reason: str | None
    # "| Any": None where there is none, but who asks for it knows that there is one.
    loss: float | Any
    best_loss: float | Any
    validation_scores: list[float] | Any
    validation_loss_curve: list[float] | Any
    best_validation_score: float | Any

    def __init__(self, **fields: Any) -> None:
        self.n_iter = self.t = self.n_stalled = 0
        self.loss = self.best_loss = self.stop_reason = None
        self.loss_curve = []
        self.validation_scores = self.validation_loss_curve = self.best_validation_score = None
        vars(self).update(fields)

    @classmethod
    def going_on(cls, estimator: BaseMLP) -> Self:
        """The history of a fitted estimator; empty if it kept no curve."""
        kept = {
            field: getattr(estimator, name)
            for field, name in cls.ATTRIBUTES.items()
            if hasattr(estimator, name)
        }
        return cls(**kept) if "loss_curve" in kept else cls(t=kept.get("t", 0))

    def begin(self, progress: Progress, early_stopping: bool, validated: bool) -> None:
        """Begin a fit that stands where ``progress`` says; add what earlier ones did not keep."""
        self.n_iter = progress.n_epochs
        if not progress.stopped:
            self.stop_reason = None
        if validated and self.validation_scores is None:
            self.validation_scores, self.validation_loss_curve = [], []
            self.best_validation_score = -np.inf
        if not early_stopping and self.best_loss is None:
            self.best_loss = np.inf

    def attributes(self, epochs: bool = True) -> dict[str, Any]:
        """What the estimator shows of it; ``epochs``: also what 'lbfgs' does not keep."""
        fields = self.ATTRIBUTES if epochs else ("n_iter", "loss", "stop_reason")
        shown = {self.ATTRIBUTES[field]: getattr(self, field) for field in fields}
        if self.loss is None:
            del shown["loss_"]
        return shown | {"best_epoch_": self.best_epoch} if epochs else shown

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best score, from 1; None where no score was finite."""
        if self.validation_scores is None or not np.isfinite(self.validation_scores).any():
            return None
        return int(np.nanargmax(self.validation_scores)) + 1


class Monitor:
    """Notes what came of each epoch, keeps the best weights, and says when to stop.

    Early stopping in one place: an epoch makes progress if its validation score (without
    ``early_stopping`` its loss) is better than the best by ``tol``; after more than
    ``n_iter_no_change`` epochs in a row without progress there is no use in going on.

    Parameters
    ----------
    settings : namespace of the estimator's parameters
    history : History
    progress : Progress
        Its ``best_theta`` is kept.
    optimizer : Optimizer
    validation : Validation or None
    report : Report
    first_pass : bool
        Whether the weights are new. If not, the best score of earlier fits is to be beaten, and
        until that happens there are no better weights than the last, as in scikit-learn.
    """

    def __init__(
        self,
        settings: Parameters,
        history: History,
        progress: Progress,
        optimizer: Optimizer,
        validation: Validation | None,
        report: Report | MemberReport,
        first_pass: bool,
    ) -> None:
        self._settings, self.history, self.progress = settings, history, progress
        self.optimizer, self._validation, self.report = optimizer, validation, report
        self._first_pass = first_pass
        if first_pass and settings.early_stopping and progress.best_theta is None:
            progress.best_theta = progress.theta.copy()

    def note(self, loss: float, n_examples: int) -> None:
        """Note an epoch; raise ValueError where it cannot be gone on from."""
        history, settings, theta = self.history, self._settings, self.progress.theta
        history.loss = loss
        history.n_iter += 1
        history.t += n_examples
        history.loss_curve.append(loss)
        if not np.isfinite(loss) and not np.isfinite(theta).all():
            if not settings.early_stopping:
                raise ValueError(self.divergence())
            history.stop_reason = "diverged"  # there are earlier weights to fall back on
        validation = self._validation
        better = validation is not None and self._validate(validation)
        if validation is not None and self._first_pass and history.n_iter == 1:
            validation.compare(loss, history.validation_loss_curve[-1])
        if not settings.early_stopping:
            self._compare_loss()
        elif better:
            self.progress.best_theta = theta.copy()

    def _compare_loss(self) -> None:
        history, loss = self.history, self.history.loss
        # Written so that an infinite loss counts as no progress.
        if loss > history.best_loss - self._settings.tol or not np.isfinite(loss):
            history.n_stalled += 1
        else:
            history.n_stalled = 0
        if loss < history.best_loss:
            history.best_loss = loss

    def _validate(self, validation: Validation) -> bool:
        """Note the validation score and loss; whether the score is the best so far."""
        history = self.history
        score = loss = float("nan")
        try:
            score, loss = validation.evaluate()
        finally:  # each epoch has both, also where Ctrl-C comes in between
            history.validation_scores.append(score)
            history.validation_loss_curve.append(loss)
        best = history.best_validation_score
        if self._settings.early_stopping:
            # Written so that a NaN score counts as no progress.
            stalls = not score >= best + self._settings.tol
            history.n_stalled = history.n_stalled + 1 if stalls else 0
        if score > best:
            history.best_validation_score = score
            return True
        return False

    def stops(self, seconds: float) -> bool:
        """Whether training is to end with this epoch, after ``seconds``; says why."""
        history, settings = self.history, self._settings
        if history.stop_reason is None and self._stalls():
            history.stop_reason = "no_improvement"
        if history.stop_reason is None and out_of_time(settings, seconds):
            history.stop_reason = "max_time"
        return history.stop_reason is not None

    def _stalls(self) -> bool:
        settings, history = self._settings, self.history
        if history.n_stalled <= settings.n_iter_no_change:
            return False
        what = "Validation score" if settings.early_stopping else "Training loss"
        stop, consequence = self.optimizer.gives_up(settings)
        self.report.say(
            f"{what} did not improve more than tol={settings.tol:f} "
            f"for {settings.n_iter_no_change:d} consecutive epochs. {consequence}"
        )
        if not stop:
            history.n_stalled = 0
        return stop

    def finish(self, warnings: Warnings) -> None:
        """Put the best weights in place, and raise ValueError where none are of use.

        What the user should know of a fit that has succeeded is added to ``warnings``.
        """
        history, theta = self.history, self.progress.theta
        best_theta = self.progress.best_theta if self._settings.early_stopping else None
        diverged = not np.isfinite(theta).all()
        if diverged and (best_theta is None or self._never_scored()):
            raise ValueError(self.divergence())
        if diverged:
            history.stop_reason = "diverged"
            text = (
                f"{self.divergence()} The weights of epoch {history.best_epoch} are kept, whose "
                f"validation score is {history.best_validation_score:g}."
            )
            warnings.append((text, ConvergenceWarning))
        elif history.stop_reason != "interrupted":
            self._judge_overflow(warnings)
            validation = self._validation
            if best_theta is not None and validation is not None and validation.is_share:
                self._judge_score(warnings)
        if best_theta is not None:
            theta[...] = best_theta

    def _never_scored(self) -> bool:
        """Whether the best weights are still the initial ones."""
        return self._first_pass and not np.isfinite(self.history.best_validation_score)

    def _judge_overflow(self, warnings: Warnings) -> None:
        """Where the loss, or squares of the gradient, overflow, weights are not trained."""
        history, dtype = self.history, self.progress.theta.dtype
        fit = history.loss_curve[len(history.loss_curve) - history.n_iter :]
        hopeless = fit and not np.isfinite(fit).any() and history.stop_reason != "partial_fit"
        if hopeless or (self._settings.early_stopping and self._never_scored()):
            raise ValueError(overflow(dtype, f"the loss is {fit[-1]}"))
        if fit and not np.isfinite(fit[-1]):
            what = f"the loss is {fit[-1]} after the last epoch"
        elif not np.isfinite(self.optimizer.state).all():
            what = "squares of the gradient are infinite, and some weights were not trained"
        else:
            return
        warnings.append((overflow(dtype, what), ConvergenceWarning))

    def _judge_score(self, warnings: Warnings) -> None:
        """A share of the loss may be a little below 0 by chance, but not far."""
        score = self.history.best_validation_score
        if self.history.stop_reason == "no_improvement" and score < -1:
            text = (
                f"The best validation score is {score:g}, but that of a constant is 0: training "
                "has come to nothing. Scale X and y, such as by standardize and "
                "standardize_target, or lower learning_rate_init."
            )
            warnings.append((text, ConvergenceWarning))

    def divergence(self) -> str:
        """What to say where weights are not finite."""
        return non_finite_weights(
            f" Training diverged in epoch {self.history.n_iter}, with a learning rate "
            f"of {self.optimizer.learning_rate:g}: a lower learning_rate_init, or clip_norm, "
            "may help too."
        )


def non_finite_weights(more: str = "") -> str:
    return (
        "Solver produced non-finite parameter weights. The input data may contain large values "
        f"and need to be preprocessed.{more}"
    )


def overflow(dtype: DTypeLike, what: str) -> str:
    advice = " give X as float64," if dtype == np.float32 else ""
    return (
        f"The numbers are too large for {np.dtype(dtype).name}: {what}. Scale X and y, such as "
        f"by StandardScaler or by standardize and standardize_target,{advice} or lower "
        "learning_rate_init."
    )


def out_of_time(settings: Parameters, seconds: float) -> bool:
    return settings.max_time is not None and seconds > settings.max_time
