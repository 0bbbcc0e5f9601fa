"""The training loop between kernel calls: epochs, shuffling, stopping, schedules, L-BFGS.

The door to the kernels: estimators hand over a ``Net`` and ``Data``, strings become codes here,
and no array is computed with except by a kernel.
"""

import itertools
import time
import warnings

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from ._averaging import WeightAverage
from ._callbacks import prints, progress_bar
from ._schedules import rate
from ._threads import Helpers, Pace, choose_n_threads
from .kernels.activations import ACTIVATIONS
from .kernels.layout import (
    SAVE_ACTIVATIONS,
    SAVE_INPUTS,
    SAVE_NOTHING,
    Data,
    Net,
    Params,
    empty_data,
    layers_of,
    readonly,
    transposed,
)
from .kernels.losses import LOSSES, loss_constants
from .kernels.plan import MICRO_BATCH, n_parts, plan_for, work_for, work_to_predict
from .kernels.rules import GRADIENT, NESTEROV, SGD, SOLVERS, Rule, n_slots
from .kernels.team import new_sync, new_team
from .kernels.train import predict as predict_kernel
from .kernels.train import train as train_kernel

PREDICT_ROWS = 256
# Of training, for the examples that one call of the kernel predicts: some 20 ms, so that Ctrl-C and
# other threads of Python get their turn.
PREDICT_OPERATIONS = 2e9


def make_net(units, activation, out_activation, loss, dropout=0.0, seed=0, **loss_settings):
    """The kernels' description of a network.

    Parameters
    ----------
    units : sequence of int, the input layer first
    activation : str, (str, float) for functions with a parameter k, or a list of one of these for
        each hidden layer
    out_activation : str, (str, float) or None
        None: the one that belongs to the loss.
    loss : str, of kernels.losses.LOSSES
    dropout : float, or a list with one for each hidden layer
    seed : int
        Of dropout.
    **loss_settings : see kernels.losses.loss_constants
    """
    layers = layers_of(units)
    n_hidden = len(layers) - 1
    hidden = list(activation) if isinstance(activation, list) else [activation] * n_hidden
    rates = [*np.resize(dropout, n_hidden), 0.0]
    of_loss = LOSSES[loss]
    out_activation = out_activation or of_loss.activation
    for layer, function, dropped in zip(layers, [*hidden, out_activation], rates, strict=True):
        name, parameter = function if isinstance(function, tuple) else (function, None)
        entry = ACTIVATIONS[name]
        values = entry.constants if parameter is None else entry.with_k(float(parameter))
        layer["activation"], layer["dropout"] = entry.code, dropped
        layer["constants"][: len(values)] = values
        if entry.slope_from_input:
            layer["saves"] = SAVE_INPUTS
        else:  # zeros of ReLU say enough
            saving = dropped > 0 and name != "relu"
            layer["saves"] = SAVE_ACTIVATIONS if saving else SAVE_NOTHING
    return Net(
        layers=layers,
        seed=seed,
        loss=of_loss.code,
        loss_constants=loss_constants(loss, int(layers["n_out"][-1]), **loss_settings),
        canonical=int(of_loss.canonical and out_activation == of_loss.activation),
    )


def make_data(X, *, codes=None, targets=None, weights=None):
    """The kernels' view of training examples; ``X`` C-contiguous or canonical CSR."""
    data = empty_data(X.dtype)._asdict()
    if hasattr(X, "indptr"):
        data["values"] = readonly(np.require(X.data, requirements="CA"))
        data["columns"] = readonly(np.ascontiguousarray(X.indices, np.int32))
        data["row_starts"] = readonly(np.ascontiguousarray(X.indptr, np.int64))
    else:
        data["X"] = readonly(np.require(X, requirements="CA"))
    if codes is not None:
        data["codes"] = readonly(np.ascontiguousarray(codes, np.int32))
    if targets is not None:
        data["targets"] = readonly(np.ascontiguousarray(targets, X.dtype))
    if weights is not None:
        data["weights"] = readonly(np.ascontiguousarray(weights, X.dtype))
    return Data(**data)


def operations_per_example(units):
    """Floating-point operations of one example in training, multiply and add counted apart."""
    products = [2 * a * b for a, b in itertools.pairwise(units)]
    return 3 * sum(products) - products[0]


class Optimizer:
    """An update rule with its state between calls: velocities or moments, step count, rate.

    Plain data: it is pickled with its estimator.
    """

    epoch = 0  # of those that were saved before epochs were counted

    def __init__(self, estimator, n_params, dtype):
        self.learning_rate = float(estimator.learning_rate_init)
        self.epoch = 0
        self.t = 0
        self.code = SOLVERS[estimator.solver]
        if self.code == SGD and estimator.nesterovs_momentum:
            self.code = NESTEROV
        self.state = np.zeros((n_slots(self.code), n_params), dtype)

    def go_on(self, theta):
        """Take the type of ``theta``; ValueError where the state is not of its parameters."""
        expected = (n_slots(self.code), theta.size)
        if self.state.shape != expected or self.state.dtype.kind != "f":
            raise ValueError(
                f"The state of the optimizer has shape {self.state.shape} and type "
                f"{self.state.dtype}, but to go on with these weights it must have shape "
                f"{expected}: the estimator is damaged, or its coefs_ were replaced. Fit it anew."
            )
        self.state = np.require(self.state, theta.dtype, "CAWO")

    def rule(self, estimator):
        """The kernels' form, with the current learning rate."""
        momentum = estimator.momentum if estimator.solver == "sgd" else estimator.beta_1
        return Rule(
            self.code,
            float(self.learning_rate),
            float(estimator.alpha),
            float(momentum),
            float(estimator.beta_2),
            float(estimator.epsilon),
            float(estimator.weight_decay),
            np.inf if estimator.clip_norm is None else float(estimator.clip_norm),
        )

    def begin_epoch(self, estimator):
        """Apply the schedules that depend on the epoch."""
        scheduled = rate(
            estimator.learning_rate, self.epoch, estimator.learning_rate_init, estimator.max_iter
        )
        if scheduled is not None:
            self.learning_rate = scheduled

    def end_epoch(self, estimator, examples_seen):
        """Apply the 'invscaling' schedule."""
        self.epoch += 1
        if estimator.solver == "sgd" and estimator.learning_rate == "invscaling":
            initial = float(estimator.learning_rate_init)
            self.learning_rate = initial / (examples_seen + 1) ** estimator.power_t

    def stops(self, estimator, reason):
        """Whether to stop when there is no progress; 'adaptive' lowers the rate first."""
        if estimator.solver != "sgd" or estimator.learning_rate != "adaptive":
            stop, message = True, "Stopping."
        elif self.learning_rate <= 1e-6:
            stop, message = True, "Learning rate too small. Stopping."
        else:
            self.learning_rate /= 5.0
            stop, message = False, f"Setting learning rate to {self.learning_rate:f}"
        if prints(estimator):
            print(f"{reason} {message}")
        return stop


class Trainer:
    """One network, its training data and scratch: runs epochs, or loss and gradient at once.

    A context manager: helper threads, started when first needed, stay until it is left.

    Parameters
    ----------
    net, data : see kernels.layout
    theta : (n_params,), trained in place
    batch_size : int
    n_threads : int or None
        None: as many as pay off, found out while training.
    state : (n_slots, n_params) or None
        The optimiser's.
    """

    def __init__(self, net, theta, data, batch_size, n_threads=None, state=None):
        if state is None:
            state = np.zeros((0, theta.size), theta.dtype)
        operations = operations_per_example(net.units)
        most_threads = choose_n_threads(n_threads, operations * batch_size)
        if n_threads is None:
            most_threads = min(most_threads, n_parts(net.units, batch_size) or most_threads)
        self._pace = Pace(most_threads, n_threads is not None, 2e9 / operations)
        self._theta, self._batch_size = theta, int(batch_size)
        self._gradient = np.zeros_like(theta)
        self._rows = np.zeros(max(len(data.X), len(data.row_starts) - 1), np.int64)
        team = new_team(batch_size)
        self._orders, self._sync = team
        self._kernel = train_kernel[theta.dtype]
        self._arguments = (
            net,
            Params(theta, np.zeros_like(theta), self._gradient, state),
            data,
            self._rows,
            plan_for(net.units, batch_size, most_threads),
            work_for(
                net.units,
                theta.dtype,
                batch_size,
                most_threads,
                sparse=data.row_starts.size > 0,
                saving=bool(net.layers["saves"].any()),
            ),
            team,
        )
        self._helpers = Helpers(most_threads, self._kernel, *self._arguments, sync=self._sync)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._helpers.__exit__()

    @property
    def updates(self):
        """Number of updates so far; may be set before the first epoch."""
        return int(self._orders["updates"][0])

    @updates.setter
    def updates(self, value):
        self._orders["updates"] = value

    def run_epoch(self, rows, rule):
        """Go through the examples ``rows`` once; returns the mean loss before each update."""
        orders, n = self._orders[0], len(rows)
        self._rows[:n] = rows
        for name, value in rule._asdict().items():
            orders[name] = value
        orders["loss"], orders["end"] = 0.0, n
        block = min(self._batch_size, MICRO_BATCH)
        first = 0
        while first < n:
            n_threads, examples = self._pace.next_slice()
            last = first + max(1, int(examples) // block) * block
            if block < self._batch_size:  # blocks of one mini-batch
                last = min(last, (first // self._batch_size + 1) * self._batch_size)
            last = min(last, n)
            orders["first"], orders["last"] = first, last
            orders["n_threads"], orders["seconds"] = n_threads, self._pace.limit
            started = time.perf_counter()
            if n_threads > 1:
                self._helpers.start()
            self._kernel(*self._arguments, 0)
            self._helpers.check()
            last = int(orders["last"])  # or before, if its time was over
            self._pace.record(n_threads, last - first, time.perf_counter() - started)
            first = last
        return orders["loss"] / n

    def loss_and_gradient(self, theta, rows, alpha):
        """Loss of all examples and its gradient, at the parameters ``theta``."""
        self._theta[...] = theta
        loss = self.run_epoch(rows, Rule(GRADIENT, 0.0, float(alpha), 0.0, 0.0, 0.0))
        return loss, self._gradient.astype(np.float64)


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

    def __init__(self, theta, rng):
        self.theta = theta
        self.rng_state = rng.get_state(legacy=False)
        self.n_epochs = 0
        self.stopped = False
        self.best_theta = None
        self.average = None


def fit_stochastic(
    estimator,
    net,
    progress,
    data,
    n_samples,
    rng,
    incremental,
    train_rows,
    validation,
    first_pass,
    tasks,
):
    """Train ``theta`` in place by mini-batches, keeping the estimator's fitted attributes.

    Parameters
    ----------
    progress : Progress
        Of a new fit, or of one that goes on after its first epochs.
    train_rows : (n_train,) int64 or None
        The examples to train on; None is all.
    validation : _validation.Validation or None
    first_pass : bool
        Whether theta is new. If not, the best score of earlier fits is to be beaten, and until
        that happens there are no better weights than the last, as in scikit-learn.
    tasks : _callbacks.Tasks
    """
    optimizer = estimator._optimizer
    n_train = n_samples if train_rows is None else len(train_rows)
    batch_size = _batch_size(estimator.batch_size, n_train)
    order = np.arange(n_train)
    early_stopping = estimator.early_stopping
    theta = progress.theta
    if first_pass and early_stopping:
        progress.best_theta = theta.copy()
    if estimator.weight_average is not None and progress.average is None:
        progress.average = WeightAverage(estimator.weight_average)
    n_threads = estimator.n_threads
    with (
        progress_bar(estimator, "epoch", incremental) as bar,
        Trainer(net, theta, data, batch_size, n_threads, optimizer.state) as trainer,
    ):
        trainer.updates = optimizer.t
        # Every kernel is compiled by now.
        started = time.perf_counter()
        try:
            estimator.n_iter_ = progress.n_epochs
            for epoch in range(1 if incremental else estimator.max_iter):
                if progress.stopped:
                    break
                if estimator.shuffle:
                    rng.shuffle(order)
                if epoch < progress.n_epochs:
                    continue  # done before; only the order was missing
                tasks.begin()
                optimizer.begin_epoch(estimator)
                rows = order if train_rows is None else train_rows[order]
                estimator.loss_ = float(trainer.run_epoch(rows, optimizer.rule(estimator)))
                optimizer.t = trainer.updates
                estimator.n_iter_ += 1
                # With early stopping there are earlier weights to fall back on.
                if not (early_stopping or np.isfinite(estimator.loss_)):
                    check_finite(estimator, theta)
                estimator.t_ += n_train
                estimator.loss_curve_.append(estimator.loss_)
                if progress.average is not None:
                    progress.average.add(theta)
                if prints(estimator):
                    print(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
                better = validation is not None and _validate(estimator, validation)
                if not early_stopping:
                    _compare_loss(estimator)
                elif better:
                    progress.best_theta = theta.copy()
                optimizer.end_epoch(estimator, estimator.t_)
                if bar is not None:
                    _show(bar, estimator, validation)
                progress.n_epochs = estimator.n_iter_
                progress.stopped = _stalls(estimator) or _out_of_time(estimator, started)
                if tasks.end() or progress.stopped:
                    break
                if estimator.n_iter_ == estimator.max_iter and not incremental:
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) "
                        "reached and the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
        except KeyboardInterrupt:
            optimizer.t = trainer.updates
            tasks.end()
            warnings.warn("Training interrupted by user.", stacklevel=4)
    if early_stopping and progress.best_theta is not None:
        theta[...] = progress.best_theta
    if progress.average is not None and progress.average.n > 0:
        theta[...] = progress.average.value()


def _stalls(estimator):
    """Whether to stop for want of progress."""
    if estimator._no_improvement_count <= estimator.n_iter_no_change:
        return False
    what = "Validation score" if estimator.early_stopping else "Training loss"
    reason = (
        f"{what} did not improve more than tol={estimator.tol:f} "
        f"for {estimator.n_iter_no_change:d} consecutive epochs."
    )
    if estimator._optimizer.stops(estimator, reason):
        return True
    estimator._no_improvement_count = 0
    return False


def check_finite(estimator, theta):
    """Raise ValueError where training has diverged."""
    if np.isfinite(theta).all():
        return
    message = (
        "Solver produced non-finite parameter weights. The input data may contain large values "
        "and need to be preprocessed."
    )
    if estimator.solver != "lbfgs":
        message += (
            f" Training diverged in epoch {estimator.n_iter_}, with a learning rate "
            f"of {estimator._optimizer.learning_rate:g}: a lower learning_rate_init, or clip_norm, "
            "may help too."
        )
    raise ValueError(message)


def _out_of_time(estimator, started):
    return estimator.max_time is not None and time.perf_counter() - started > estimator.max_time


def _show(bar, estimator, validation):
    """Move the progress bar on by one epoch or iteration."""
    shown = {"loss": f"{estimator.loss_:.4g}"}
    if validation is not None:
        shown["validation score"] = f"{estimator.validation_scores_[-1]:.4g}"
    bar.set_postfix(shown, refresh=False)
    bar.update()


def _batch_size(batch_size, n_train):
    if isinstance(batch_size, str) and batch_size == "full":
        return n_train
    if isinstance(batch_size, str):  # "auto"
        return min(200, n_train)
    if batch_size > n_train:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=5,
        )
    return int(min(batch_size, n_train))


def _compare_loss(estimator):
    if estimator.loss_ > estimator.best_loss_ - estimator.tol:
        estimator._no_improvement_count += 1
    else:
        estimator._no_improvement_count = 0
    if estimator.loss_ < estimator.best_loss_:
        estimator.best_loss_ = estimator.loss_


def _validate(estimator, validation):
    """Note the validation score and loss; returns whether the score is the best so far."""
    score, loss = validation.evaluate()
    estimator.validation_scores_.append(score)
    estimator.validation_loss_curve_.append(loss)
    if prints(estimator):
        print(f"Validation score: {score:f}")
    best = estimator.best_validation_score_
    if estimator.early_stopping:
        # Written so that a NaN score counts as no progress.
        if score >= best + estimator.tol:
            estimator._no_improvement_count = 0
        else:
            estimator._no_improvement_count += 1
    if score > best:
        estimator.best_validation_score_ = score
        return True
    return False


def fit_lbfgs(estimator, net, theta, data, n_samples, tasks):
    """Train ``theta`` in place with scipy's L-BFGS-B over the flat vector."""
    rows = np.arange(n_samples)
    stopped = False
    iterate = theta.copy()  # theta itself is wherever the line search looks
    estimator.n_iter_ = 0

    def end_iteration(intermediate_result):
        nonlocal stopped
        iterate[...] = theta[...] = intermediate_result.x
        estimator.n_iter_ += 1
        estimator.loss_ = float(intermediate_result.fun)
        if prints(estimator):
            print(f"L-BFGS, loss = {estimator.loss_:.8f}")
        if bar is not None:
            _show(bar, estimator, None)
        if tasks.end() or _out_of_time(estimator, started):
            stopped = True
            raise StopIteration
        tasks.begin()

    with (
        progress_bar(estimator, "iteration") as bar,
        Trainer(net, theta, data, n_samples, estimator.n_threads) as trainer,
    ):
        started = time.perf_counter()
        tasks.begin()
        try:
            result = minimize(
                trainer.loss_and_gradient,
                theta.astype(np.float64),
                args=(rows, estimator.alpha),
                method="L-BFGS-B",
                jac=True,
                callback=end_iteration,
                options={
                    "maxfun": estimator.max_fun,
                    "maxiter": estimator.max_iter,
                    "gtol": estimator.tol,
                },
            )
        except KeyboardInterrupt:
            theta[...] = iterate
            tasks.end()
            warnings.warn("Training interrupted by user.", stacklevel=4)
            return
    theta[...] = result.x
    estimator.loss_ = float(result.fun)
    estimator.n_iter_ = min(result.nit, estimator.max_iter)
    # The task that began after the last iteration and did nothing.
    tasks.end()
    if result.status != 0 and not stopped:
        warnings.warn(
            f"lbfgs failed to converge after {result.nit} iteration(s) "
            f"(status={result.status}): {result.message}. Increase max_iter or max_fun, "
            "or scale the data.",
            ConvergenceWarning,
            stacklevel=4,
        )


def predict(net, theta, data, rows, n_threads=None):
    """Outputs of the network for the examples ``rows``, ``(len(rows), n_outputs)``.

    Goes through in blocks: scratch memory does not grow with the number of rows.
    """
    n = len(rows)
    units = net.units
    out = np.empty((n, units[-1]), theta.dtype)
    # Prediction has no barriers: a thread pays once it has some blocks to do.
    per_example = operations_per_example(units)
    if n <= PREDICT_ROWS:
        n_threads = 1
    n_threads = choose_n_threads(n_threads, per_example * n / 8)
    capacity = n_threads * min(PREDICT_ROWS, max(1, n))
    sparse = data.row_starts.size > 0
    work = work_to_predict(units, theta.dtype, capacity, n_threads, sparse)
    kernel = predict_kernel[theta.dtype]
    theta_t, rows = transposed(theta, net), readonly(rows)
    step = max(capacity, int(n_threads * PREDICT_OPERATIONS / per_example))
    for first in range(0, n, step):
        part = slice(first, first + step)
        arguments = (net, theta, theta_t, data, rows[part], out[part], work, n_threads)
        if n_threads == 1:
            kernel(*arguments, 0)
            continue
        with Helpers(n_threads, kernel, *arguments, sync=new_sync()) as helpers:
            helpers.start()
            kernel(*arguments, 0)
        helpers.check()
    return out
