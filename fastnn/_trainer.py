"""The driver of the training kernel: whole epochs, or a loss and its gradient."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np

from ._network import operations_per_example
from ._pace import Pace
from ._threads import Helpers, choose_n_threads, go_on
from ._typing import Array
from .kernels.layout import Data, Net, Params, empty_theta
from .kernels.plan import MICRO_BATCH, Plan, busy_threads, plan_for, work_for
from .kernels.rules import GRADIENT, Rule
from .kernels.team import new_team
from .kernels.train import train as train_kernel


def fields_of(records: Any) -> dict[str, Array]:
    """Views of each field, ``(n,)``: to write into these takes a tenth of what a record takes."""
    return {name: records[name] for name in records.dtype.names}


@functools.lru_cache(maxsize=8)
def _plan_for(
    units: tuple[int, ...],
    batch_size: int,
    n_threads: int,
    sparse: bool,
    continued: bytes,
    given: bool,
) -> Plan:
    """``plan_for``, once for all fits of a search; ``continued`` as bytes. Kernels only read it."""
    continues = np.frombuffer(continued, np.bool_)
    return plan_for(units, batch_size, n_threads, sparse, continues, given)


class Trainer:
    """One network, its training data and scratch: runs epochs, or loss and gradient at once.

    A context manager: helper threads, started when first needed, stay until it is left.

    Parameters
    ----------
    net, data : see kernels.layout
        Parts of an epoch may have data of their own, with no more rows and in the same form.
    theta : (n_params,), trained in place
    batch_size : int
    n_threads : int or None
        None: as many as pay off, found out while training.
    state : (n_slots, n_params) or None
        The optimiser's.
    given : bool
        Whether ``gradient`` is given, the sum over a mini-batch, and only updates are made.
    reads : callable
        Whether a thread reads examples just now. It may need a core, so how many threads pay off
        beside it is found out by itself.
    """

    def __init__(
        self,
        net: Net,
        theta: Array,
        data: Data,
        batch_size: int,
        n_threads: int | None = None,
        state: Array | None = None,
        given: bool = False,
        *,
        reads: Callable[[], bool] = lambda: False,
    ) -> None:
        if state is None:
            state = np.zeros((0, theta.size), theta.dtype)
        operations = operations_per_example(net.units)
        most_threads = choose_n_threads(n_threads, operations * batch_size)
        if n_threads is None:
            most_threads = min(most_threads, busy_threads(net.units, batch_size))
        about = most_threads, n_threads is not None, 2e9 / operations
        self._pace, self._pace_beside = Pace(*about), Pace(*about, Pace.SHORT_SECONDS)
        self._reads = reads
        # Of these two, large networks touch little: what is not touched takes no memory.
        theta_t = empty_theta(theta.size, theta.dtype)
        self.theta, self._batch_size = theta, int(batch_size)
        self._weight_scale = data.weight_scale
        self.gradient = np.zeros(theta.size, theta.dtype)
        self._rows = np.zeros(max(len(data.X), len(data.row_starts) - 1), np.int64)
        team = new_team(batch_size, most_threads)
        self._orders, self._sync = fields_of(team.orders), team.sync
        self._kernel = train_kernel[theta.dtype]
        self._data, self._n_helped = data, most_threads
        sparse = data.row_starts.size > 0
        self._arguments: tuple[Any, ...] = (
            net,
            Params(theta, theta_t, self.gradient, state),
            data,
            self._rows,
            _plan_for(
                tuple(net.units),
                int(batch_size),
                most_threads,
                sparse,
                data.continued.tobytes(),
                given,
            ),
            work_for(
                net.units,
                theta.dtype,
                batch_size,
                most_threads,
                sparse=sparse,
                saving=bool(net.layers["saves"].any()),
                continued=data.continued,
                n_dense=data.n_dense,
                n_slots=len(state),
            ),
            team,
        )
        self._helpers = Helpers(most_threads, self._kernel, *self._arguments, sync=self._sync)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._helpers.__exit__()
        # Examples may be files, which are free when no one holds them: not even a traceback.
        del self._data, self._arguments, self._helpers

    @property
    def updates(self) -> int:
        """Number of updates so far; may be set before the first epoch."""
        return int(self._orders["updates"][0])

    @updates.setter
    def updates(self, value: int) -> None:
        self._orders["updates"][0] = value

    def run_epoch(self, rows: Array, rule: Rule) -> float:
        """Go through the examples ``rows``; returns the mean loss before each update."""
        return self.run_parts([(self._data, rows)], rule)

    def run_parts(self, parts: Iterable[tuple[Data, Array]], rule: Rule) -> float:
        """``run_epoch`` of parts, rows of their data: all but the last whole mini-batches."""
        orders = self._orders
        for name, value in zip(rule._fields, rule, strict=True):
            orders[name][0] = value
        orders["alpha"][0] *= self._weight_scale
        orders["loss"][0] = 0.0
        n = sum(itertools.starmap(self._run, parts))
        return float(orders["loss"][0]) / n

    def _take(self, data: Data) -> None:
        """Let the kernel see other data: helpers, which have what they began with, begin anew."""
        self._helpers.__exit__()
        self._sync[...] = 0
        # Kernels ask in advance for rows behind the last ones: none that only the old data had.
        self._rows[...] = 0
        net, params, _, *others = self._arguments
        self._data, self._arguments = data, (net, params, data, *others)
        self._helpers = Helpers(self._n_helped, self._kernel, *self._arguments, sync=self._sync)

    def _run(self, data: Data, rows: Array) -> int:
        """Go through these rows of the data; returns how many there are."""
        if data is not self._data:
            self._take(data)
        orders, n = self._orders, len(rows)
        self._rows[:n] = rows
        orders["end"][0] = n
        block = min(self._batch_size, MICRO_BATCH)
        first = 0
        while first < n:
            go_on()
            beside = self._n_helped > 1 and self._reads()
            pace = self._pace_beside if beside else self._pace
            n_threads, examples = pace.next_slice()
            last = first + max(1, int(examples) // block) * block
            if block < self._batch_size:  # blocks of one mini-batch
                last = min(last, (first // self._batch_size + 1) * self._batch_size)
            last = min(last, n)
            orders["first"][0], orders["last"][0] = first, last
            orders["n_threads"][0], orders["seconds"][0] = n_threads, pace.limit
            started = time.perf_counter()
            if n_threads > 1:
                self._helpers.start()
            self._kernel(*self._arguments, 0)
            self._helpers.check()
            last = int(orders["last"][0])  # or before, if its time was over
            pace.record(n_threads, last - first, time.perf_counter() - started)
            first = last
        return n

    def loss_and_gradient(self, theta: Array, rows: Array, alpha: float) -> tuple[float, Array]:
        """Loss of all examples and its gradient, at the parameters ``theta``."""
        self.theta[...] = theta
        loss = self.run_epoch(rows, Rule(GRADIENT, 0.0, float(alpha), 0.0, 0.0, 0.0))
        return loss, self.gradient.astype(np.float64)
