"""What is told of each epoch: to scikit-learn's callbacks, on the screen, in a progress bar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from ._schedules import SCHEDULES
from ._typing import Parameters

if TYPE_CHECKING:
    from ._base import BaseMLP
    from ._members import BaseTabular
    from ._monitor import History

try:
    from sklearn import callback
except ImportError:  # scikit-learn before 1.9
    callback = None
CallbackSupportMixin: Any = getattr(callback, "CallbackSupportMixin", object)
with_callbacks: Any = getattr(callback, "with_callbacks", lambda method: method)


class Followed(CallbackSupportMixin):
    """An estimator whose fit callbacks may follow."""

    def __getstate__(self) -> dict[str, Any]:
        # What scikit-learn hangs on an estimator during a fit leads to all of its callbacks.
        passing = "_callback_fit_ctx", "_skl_callbacks_to_teardown", "_parent_callback_ctx"
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in passing}


class Tasks:
    """A fit and its epochs or iterations, as the tasks of scikit-learn's callbacks.

    Parameters
    ----------
    estimator : BaseMLP
    name : str
        Name of a subtask.
    max_subtasks : int
    publish : callable
        ``publish()`` sets the estimator's attributes to what the fit has come to.
    attributes : callable
        ``attributes()`` are those of a fitted copy of the estimator as it is.
    called : bool
        Whether the callbacks are called: they belong to ``fit``, not to ``partial_fit``.
    **data
        X, y and metadata as the user gave them, for the hooks that ask for them.
    """

    def __init__(
        self,
        estimator: Any,
        name: str,
        max_subtasks: int,
        publish: Callable[[], None],
        attributes: Callable[[], dict[str, Any]],
        called: bool,
        **data: Any,
    ) -> None:
        self._context: Any = None
        # Also those that a pipeline or a search handed down.
        if called and "_skl_callbacks" in vars(estimator):
            self._context = estimator._init_callback_context(max_subtasks=max_subtasks)
        self._name, self._publish = name, publish
        self._task: Any = None
        # Computed only for a hook that asks for the fitted estimator.
        self._arguments = dict(data, estimator=estimator, reconstruction_attributes=attributes)

    def __enter__(self) -> Self:
        if self._context is not None:
            self._context.call_on_fit_task_begin(**self._arguments)
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        self._publish()
        if self._context is not None and exception is None:
            self._context.call_on_fit_task_end(**self._arguments)

    def begin(self) -> None:
        """Begin an epoch."""
        if self._context is not None:
            self._publish()
            self._task = self._context.subcontext(task_name=self._name)
            self._task.call_on_fit_task_begin(**self._arguments)

    def end(self) -> bool:
        """End it; returns whether a callback wants training to stop."""
        if self._task is None:
            return False
        self._publish()
        task, self._task = self._task, None
        return task.call_on_fit_task_end(**self._arguments)


def _progress_bar(total: int, title: str, unit: str) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("verbose='progress' needs tqdm: `pip install tqdm`.") from error
    return tqdm(total=total, desc=title, unit=unit)


class Report:
    """What ``verbose`` asks for: lines, or a bar. A context manager.

    Parameters
    ----------
    settings : namespace of the estimator's parameters
    title : str
        Of the bar.
    shows_bar : bool
        Whether 'progress' shows a bar: ``partial_fit`` has none.
    given_examples : bool
        Whether there are validation examples that the user has given.
    """

    def __init__(
        self, settings: Parameters, title: str, shows_bar: bool, given_examples: bool
    ) -> None:
        wants_bar = isinstance(settings.verbose, str)
        self._prints = bool(settings.verbose) and not wants_bar
        self._title, self._most = title, settings.max_iter
        self._unit = "iteration" if settings.solver == "lbfgs" else "epoch"
        self._shows_bar, self._bar = wants_bar and shows_bar, None
        # scikit-learn's own settings have scikit-learn's own lines.
        self._in_one_line = (
            given_examples
            or settings.scoring is not None
            or callable(settings.learning_rate)
            or settings.learning_rate in SCHEDULES
        )

    def __enter__(self) -> Self:
        if self._shows_bar:
            self._bar = _progress_bar(self._most, self._title, self._unit)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        if self._prints:
            print(text)

    def epoch(self, history: History, learning_rate: float, seconds: float) -> None:
        """Tell of an epoch."""
        if not self._prints and self._bar is None:
            return
        scores = history.validation_scores
        if self._in_one_line:
            told = [f"Epoch {history.n_iter}: loss {history.loss:.6g}"]
            if scores:
                told.append(f"validation loss {history.validation_loss_curve[-1]:.6g}")
                told.append(f"validation score {scores[-1]:.6g}")
            self.say(", ".join([*told, f"learning rate {learning_rate:.3g}", f"{seconds:.3g} s"]))
        else:
            self.say(f"Iteration {history.n_iter}, loss = {history.loss:.8f}")
            if scores:
                self.say(f"Validation score: {scores[-1]:f}")
        self._move(history)

    def iteration(self, history: History) -> None:
        """Tell of an iteration of L-BFGS."""
        self.say(f"L-BFGS, loss = {history.loss:.8f}")
        self._move(history)

    def _move(self, history: History) -> None:
        if self._bar is not None:
            shown = {"loss": f"{history.loss:.4g}"}
            if history.validation_scores:
                shown["validation score"] = f"{history.validation_scores[-1]:.4g}"
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()


class MembersReport:
    """What ``verbose`` asks for of a fit of several networks: a line for each, or one bar for all.

    Parameters
    ----------
    estimator : with ``max_iter`` and ``verbose``
    n_fits : int
        How many networks.
    """

    def __init__(self, estimator: BaseTabular[Any], n_fits: int) -> None:
        self._estimator, self._n_fits, self._n_ended = estimator, n_fits, 0
        self._bar, self._lock = None, threading.Lock()

    def __enter__(self) -> Self:
        estimator = self._estimator
        if isinstance(estimator.verbose, str):
            total = self._n_fits * estimator.max_iter
            self._bar = _progress_bar(total, type(estimator).__name__, "epoch")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def of_member(self) -> MemberReport:
        """What is told of the epochs of one member."""
        return MemberReport(self)

    def advance(self, n_epochs: int) -> None:
        """Move the bar, from any thread."""
        if self._bar is not None:
            with self._lock:
                self._bar.update(n_epochs)

    def end(self, member: BaseMLP) -> None:
        """Tell of a member that was fitted."""
        self._n_ended += 1
        self.advance(self._estimator.max_iter - member.n_iter_)
        if self._estimator.verbose and self._bar is None:
            told = [f"Network {self._n_ended} of {self._n_fits}"]
            told.append(f"{member.n_iter_} epochs, loss {member.loss_:.6g}")
            best, losses = member.best_epoch_, member.validation_loss_curve_
            if best is not None and losses is not None:
                told.append(f"validation loss {losses[best - 1]:.6g} in epoch {best}")
            print(", ".join(told))


class MemberReport(AbstractContextManager["MemberReport"]):
    """In the place of ``Report`` for one of several networks."""

    def __init__(self, of_all: MembersReport) -> None:
        self._of_all = of_all

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def epoch(self, history: History, learning_rate: float, seconds: float) -> None:
        self._of_all.advance(1)
