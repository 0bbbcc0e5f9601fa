"""The update rule with its state, and the learning rate from epoch to epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from ._schedules import rate
from ._typing import Array, Parameters
from .kernels.rules import NESTEROV, SGD, SOLVERS, Rule, n_slots


class Optimizer:
    """An update rule with its state between calls: velocities or moments, step count, rate.

    Plain data: it is pickled with its estimator.

    Parameters
    ----------
    settings : namespace of the estimator's parameters
    n_params : int
    dtype : dtype of the parameters
    """

    # Optimizers of older versions were saved without these.
    epoch = 0
    given_rate = None
    used_rate = None  # in the last epoch: schedules change the rate at its end

    def __init__(self, settings: Parameters, n_params: int, dtype: DTypeLike) -> None:
        self.learning_rate = float(settings.learning_rate_init)
        self.given_rate = _given_rate(settings)
        self.epoch = 0
        self.t = 0
        self.code = _code(settings)
        self.state = np.zeros((n_slots(self.code), n_params), dtype)

    def is_of(self, settings: Parameters) -> bool:
        """Whether the state is that of the solver: momentum is the same with Nesterov's."""
        momentum = {SGD, NESTEROV}
        code = _code(settings)
        return self.code == code or {self.code, code} == momentum

    def go_on(self, settings: Parameters, theta: Array) -> None:
        """Take the present settings, and the type of ``theta``.

        A rate that was set anew, or another schedule, takes the place of the rate that the
        schedules of 'sgd' have come to.

        Raises
        ------
        ValueError
            If the state is not of these parameters.
        """
        expected = (n_slots(self.code), theta.size)
        if self.state.shape != expected or self.state.dtype.kind != "f":
            raise ValueError(
                f"The state of the optimizer has shape {self.state.shape} and type "
                f"{self.state.dtype}, but to go on with these weights it must have shape "
                f"{expected}: the estimator is damaged, or its coefs_ were replaced. Fit it anew."
            )
        self.state = np.require(self.state, theta.dtype, ["C", "A", "W", "O"])
        self.code = _code(settings)
        if self.given_rate not in (None, _given_rate(settings)):
            self.learning_rate = float(settings.learning_rate_init)
        self.given_rate = _given_rate(settings)

    def rule(self, settings: Parameters) -> Rule:
        """The kernels' form, with the current learning rate."""
        self.used_rate = float(self.learning_rate)
        momentum = settings.momentum if settings.solver == "sgd" else settings.beta_1
        return Rule(
            self.code,
            self.used_rate,
            float(settings.alpha),
            float(momentum),
            float(settings.beta_2),
            float(settings.epsilon),
            float(settings.weight_decay),
            np.inf if settings.clip_norm is None else float(settings.clip_norm),
            bool(settings.lazy_update),
        )

    def begin_epoch(self, settings: Parameters) -> None:
        """Apply the schedules that depend on the epoch."""
        scheduled = rate(
            settings.learning_rate, self.epoch, settings.learning_rate_init, settings.max_iter
        )
        if scheduled is not None:
            self.learning_rate = scheduled

    def end_epoch(self, settings: Parameters, examples_seen: int) -> None:
        """Apply the 'invscaling' schedule."""
        self.epoch += 1
        if settings.solver == "sgd" and settings.learning_rate == "invscaling":
            initial = float(settings.learning_rate_init)
            self.learning_rate = initial / (examples_seen + 1) ** settings.power_t

    def gives_up(self, settings: Parameters) -> tuple[bool, str]:
        """Whether to stop when there is no progress, and words for it.

        The schedule 'adaptive' lowers the rate first.
        """
        if settings.solver != "sgd" or settings.learning_rate != "adaptive":
            return True, "Stopping."
        if self.learning_rate <= 1e-6:
            return True, "Learning rate too small. Stopping."
        self.learning_rate /= 5.0
        return False, f"Setting learning rate to {self.learning_rate:f}"


def _code(settings: Parameters) -> int:
    code = SOLVERS[settings.solver]
    return NESTEROV if code == SGD and settings.nesterovs_momentum else code


def _given_rate(settings: Parameters) -> tuple[str, float]:
    """What the user has said about the rate: plain data, as a function may not be pickled."""
    schedule = settings.learning_rate if isinstance(settings.learning_rate, str) else "function"
    return schedule, float(settings.learning_rate_init)
