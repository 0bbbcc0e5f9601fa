"""The loops over epochs and iterations: shuffling, schedules, stopping, L-BFGS.

Estimators hand over plain data and are told of each epoch by ``tasks``; nothing here knows them.
"""

from __future__ import annotations

import ctypes
import functools
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from ._averaging import WeightAverage
from ._monitor import non_finite_weights, out_of_time, overflow
from ._typing import Array, Parameters, Warnings
from ._warn import warn
from .kernels.layout import Net
from .kernels.shuffle import N_WORDS
from .kernels.train import shuffle

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

    from ._callbacks import Report, Tasks
    from ._checkpoint import Description
    from ._examples import Examples
    from ._monitor import History, Monitor

INTERRUPTED: tuple[str, type[Warning]] = "Training interrupted by user.", UserWarning


class Progress:
    """Where a fit by mini-batches stands, beside the attributes of its estimator: plain data.

    A copy of the estimator from the end of an epoch goes on with the same fit by it.

    Parameters
    ----------
    theta : (n_params,)
        Trained in place.
    rng : RandomState
        As it is before the fit draws from it: the rest of its numbers are drawn again.
    """

    # What it is of, see _checkpoint.description; older versions saved none.
    fit: Description | None = None

    def __init__(self, theta: Array, rng: np.random.RandomState) -> None:
        self.theta = theta
        self.rng_state = rng.get_state(legacy=False)
        self.n_epochs = 0
        self.stopped = False
        self.best_theta: Array | None = None
        self.average: WeightAverage | None = None


def fit_stochastic(
    settings: Parameters,
    net: Net,
    examples: Examples,
    monitor: Monitor,
    rng: np.random.RandomState,
    incremental: bool,
    tasks: Tasks,
) -> Warnings:
    """Train ``monitor.progress.theta`` in place by mini-batches.

    Parameters
    ----------
    settings : namespace of the estimator's parameters
    net : see kernels.layout
    examples : see _examples
    monitor : Monitor
        With the history, which is filled in, the optimizer, and the progress of a new fit or of
        one that goes on after its first epochs.
    rng : RandomState
        Of the shuffles.
    incremental : bool
        Whether to go through the examples once, for ``partial_fit``.
    tasks : Tasks

    Returns
    -------
    list of (message, category)
        Warnings, for when the fit has succeeded.
    """
    batch_size = _batch_size(settings.batch_size, examples.n)
    history, optimizer, progress = monitor.history, monitor.optimizer, monitor.progress
    theta = progress.theta
    warnings: Warnings = []
    if settings.weight_average is not None and progress.average is None:
        progress.average = WeightAverage(settings.weight_average)

    def shuffled(order: Array) -> None:
        if settings.shuffle:
            _shuffle(order, rng, theta.dtype)

    with (
        examples,
        monitor.report as report,
        examples.make_trainer(
            net,
            theta,
            examples.data(batch_size),  # under no name of this frame, see Trainer.__exit__
            batch_size,
            settings.n_threads,
            optimizer.state,
        ) as trainer,
    ):
        trainer.updates = optimizer.t
        started = time.perf_counter()  # every kernel is compiled by now
        try:
            for epoch in range(1 if incremental else settings.max_iter):
                if progress.stopped:
                    break
                if epoch < progress.n_epochs:
                    examples.skip(shuffled)  # done before; only the order was missing
                    continue
                parts = examples.epoch(shuffled)
                tasks.begin()
                begun = time.perf_counter()
                optimizer.begin_epoch(settings)
                loss = trainer.run_parts(parts, optimizer.rule(settings))
                optimizer.t = trainer.updates
                monitor.note(loss, examples.n)
                if progress.average is not None:
                    progress.average.add(theta)
                report.epoch(history, optimizer.learning_rate, time.perf_counter() - begun)
                optimizer.end_epoch(settings, history.t)
                progress.n_epochs = history.n_iter
                progress.stopped = monitor.stops(time.perf_counter() - started)
                called_off = tasks.end()
                if progress.stopped:
                    break
                if called_off:
                    history.stop_reason = "callback"
                    break
        except KeyboardInterrupt:
            optimizer.t = trainer.updates
            history.stop_reason = "interrupted"
            tasks.end()
            warnings.append(INTERRUPTED)
    if incremental and history.stop_reason != "interrupted":
        history.stop_reason = "partial_fit"
    elif history.stop_reason is None:
        history.stop_reason = "max_iter"
        warnings.append(
            (
                f"Stochastic Optimizer: Maximum iterations ({settings.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
            )
        )
    monitor.finish(warnings)
    if progress.average is not None and progress.average.n > 0:
        theta[...] = progress.average.value()
    return warnings


def _shuffle(order: Array, rng: np.random.RandomState, dtype: DTypeLike) -> None:
    """Do what ``rng.shuffle(order)`` does, with a kernel of its own."""
    generator = getattr(rng, "_bit_generator", None)  # NumPy offers no other way to it
    if generator is None or len(order) >= 2**32:
        rng.shuffle(order)
        return
    interface = generator.ctypes
    address = ctypes.cast(interface.next_uint32, ctypes.c_void_p).value
    key = np.empty(0, np.uint32)
    if isinstance(generator, np.random.MT19937) and _state_is_known():
        key = _words_at(interface.state_address)
    words = np.empty(N_WORDS, np.uint32)
    with generator.lock:
        shuffle[dtype](order, np.empty_like(order), key, words, address, interface.state_address)


def _words_at(address: int) -> Array:
    """The state of NumPy's Mersenne twister, and how many of its words are used up."""
    return np.frombuffer((ctypes.c_uint32 * (N_WORDS + 1)).from_address(address), np.uint32)


@functools.cache
def _state_is_known() -> bool:
    """Whether this NumPy keeps them as we read and write them."""
    generator = np.random.MT19937(0)
    generator.random_raw(3)
    state, words = generator.state["state"], _words_at(generator.ctypes.state_address)
    return bool(np.array_equal(words, [*state["key"], state["pos"]]))


def _batch_size(batch_size: int | str, n_train: int) -> int:
    if isinstance(batch_size, str) and batch_size == "full":
        return n_train
    if isinstance(batch_size, str):  # "auto"
        return min(200, n_train)
    if batch_size > n_train:
        warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
    return int(min(batch_size, n_train))


def fit_lbfgs(
    settings: Parameters,
    net: Net,
    examples: Examples,
    theta: Array,
    history: History,
    tasks: Tasks,
    report: Report,
) -> Warnings:
    """Train ``theta`` in place with scipy's L-BFGS-B over the flat vector.

    Parameters and what is returned are as in ``fit_stochastic``.
    """
    history.n_iter, history.stop_reason = 0, None
    data, rows = examples.data(examples.n), np.arange(examples.n)
    iterate = theta.copy()  # theta itself is wherever the line search looks

    def end_iteration(intermediate_result: OptimizeResult) -> None:
        iterate[...] = theta[...] = intermediate_result.x
        history.n_iter += 1
        history.loss = float(intermediate_result.fun)
        report.iteration(history)
        called_off = tasks.end()
        if called_off or out_of_time(settings, time.perf_counter() - started):
            history.stop_reason = "callback" if called_off else "max_time"
            raise StopIteration
        tasks.begin()

    make = examples.make_trainer
    with report, make(net, theta, data, len(rows), settings.n_threads) as trainer:
        started = time.perf_counter()
        tasks.begin()
        try:
            result = minimize(
                trainer.loss_and_gradient,
                theta.astype(np.float64),
                args=(rows, settings.alpha),
                method="L-BFGS-B",
                jac=True,
                callback=end_iteration,
                options={
                    "maxfun": settings.max_fun,
                    "maxiter": settings.max_iter,
                    "gtol": settings.tol,
                },
            )
        except KeyboardInterrupt:
            theta[...] = iterate
            history.stop_reason = "interrupted"
            tasks.end()
            return [INTERRUPTED]
    theta[...] = result.x
    history.loss = float(result.fun)
    history.n_iter = min(result.nit, settings.max_iter)
    # The task that began after the last iteration and did nothing.
    tasks.end()
    if not np.isfinite(theta).all():
        raise ValueError(non_finite_weights())
    if not np.isfinite(history.loss):
        raise ValueError(overflow(theta.dtype, f"the loss is {history.loss}"))
    if history.stop_reason is not None or result.status == 0:
        history.stop_reason = history.stop_reason or "converged"
        return []
    reached = {"max_iter": result.nit >= settings.max_iter, "max_fun": result.status == 1}
    history.stop_reason = next((name for name in reached if reached[name]), "line_search")
    return [
        (
            f"lbfgs failed to converge after {result.nit} iteration(s) "
            f"(status={result.status}): {result.message}. Increase max_iter or max_fun, "
            "or scale the data.",
            ConvergenceWarning,
        )
    ]
