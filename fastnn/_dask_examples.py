"""The examples of a fit whose rows are on several machines, with the methods of ``Arrays``.

X stays where it is. In each step the client sends the weights and row numbers of a mini-batch to
the workers, each of them sums the gradient over its rows, and the client adds these sums and makes
one update::

    client                         theta, rows ->      <- gradient of these rows       update
    worker 1    partitions 0-4            forward and back
    worker 2    partitions 5-9            forward and back

Partitions belong to *groups*, one for each worker that there was when the fit began. A group of a
worker that was lost is made again on another one, and computes the same numbers there. Sums are
added in the order of the groups, so that results depend on the number of groups alone, and on that
only in rounding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self

import dask
import joblib
import numpy as np
import scipy.sparse as sp
from dask.distributed import get_client, get_worker
from numpy.typing import DTypeLike
from sklearn.base import is_classifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import validate_data

from ._examples import Arrays
from ._inputs import (
    checked_data,
    checked_labels,
    checked_target,
    checked_weight_of_part,
    errors_about,
)
from ._network import make_data, operations_per_example, predict
from ._standardize import scaler_of
from ._threads import WORTH_A_THREAD
from ._trainer import Trainer
from ._typing import Array, Parameters
from .kernels.layout import Data, Net, empty_data, readonly, starts_of
from .kernels.rules import Rule

if TYPE_CHECKING:
    from ._base import BaseMLP

# Workers that a group may lose in one step: then it is the group that kills them.
MOST_LOST = 4
# Seconds between two looks at whether the worker is still there that an answer is awaited from.
LOOK_AFTER = 1.0

_OF_EXAMPLES = "codes", "targets", "weights"  # the fields of Data with a row for each example


class Group:
    """The rows of some partitions, on a worker: a Dask actor.

    Parameters
    ----------
    dtype : dtype
        Of the fit.
    number : int
        Of the group, from 0.
    parts : list of (n, n_features) ndarray, or None for a partition without rows
    """

    def __init__(self, dtype: DTypeLike, number: int, parts: Sequence[Array | None]) -> None:
        self._number = number
        present = [part for part in parts if part is not None]
        self._X = np.ascontiguousarray(present[0] if len(present) == 1 else np.concatenate(present))
        self._X = self._X.astype(dtype, copy=False)

    def digest(self) -> str:
        """What tells other rows from these."""
        return joblib.hash(self._X)

    def scaler(self, scaler: StandardScaler | None) -> StandardScaler:
        """``scaler``, or a new one for None, which has gone on with these rows."""
        return scaler_of(self._X, scaler)

    def hold(self, fields: dict[str, Any]) -> None:
        """Take the other fields of Data."""
        fields = {
            name: readonly(field) if hasattr(field, "flags") else field
            for name, field in fields.items()
        }
        self._data = empty_data(self._X.dtype)._replace(X=readonly(self._X), **fields)

    def know(self, net: Net) -> None:
        """Take the network; each group drops units of its own."""
        self._net = net._replace(seed=(net.seed + self._number) % 2**31)

    def begin(self, batch_size: int, n_threads: int | None) -> None:
        """Be ready for mini-batches of up to ``batch_size`` rows."""
        if n_threads is None:
            operations = operations_per_example(self._net.units) * batch_size
            n_threads = min(get_worker().state.nthreads, int(operations // WORTH_A_THREAD))
        theta = np.zeros(starts_of(self._net.units)[-1], self._X.dtype)
        arguments = self._net, theta, self._data, min(batch_size, len(self._X)), max(1, n_threads)
        self._trainer = Trainer(*arguments)

    def gradient(self, theta: Array, rows: Array | None, t: int) -> tuple[float, Array]:
        """Mean loss and gradient of these of its rows, None is all, in update number ``t``."""
        rows = np.arange(len(self._X)) if rows is None else rows
        self._trainer.updates = t - 1
        loss, _ = self._trainer.loss_and_gradient(theta, rows, 0.0)
        return loss, self._trainer.gradient

    def outputs(self, theta: Array, rows: Array) -> Array:
        """Outputs of the network for these of its rows."""
        return predict(self._net, theta, self._data, rows.astype(np.int64))


class Rows:
    """A Dask X, in groups on the workers: what the client knows of it, and asks of it.

    Parameters
    ----------
    estimator : BaseMLP
        Whose attributes say what X must be like.
    X, y, sample_weight : Dask collections with the same partitions; or None for the last
    reset : bool
        Whether to note the features of X, instead of comparing them with those of the last fit.

    Attributes
    ----------
    shape, dtype : of X
    y, sample_weight : ndarray, all of them
    """

    def __init__(self, estimator: BaseMLP, X: Any, y: Any, sample_weight: Any, reset: bool) -> None:
        if y is None:
            checked_target(estimator, y)  # says that it is missing
        self._client: Any = get_client()  # whose methods here are no coroutines
        check_dask(X)
        partitions: list[list[Any]] = [_partitions(X, "X"), _partitions(y, "y")]
        partitions.append(
            [None] * len(partitions[0])
            if sample_weight is None
            else _partitions(sample_weight, "sample_weight")
        )
        if len({len(of_one) for of_one in partitions}) > 1:
            raise ValueError(
                f"X, y and sample_weight must have the same partitions, but have "
                f"{', '.join(str(len(of_one)) for of_one in partitions)} of them."
            )
        like = X._meta if hasattr(X, "columns") else np.empty((0, X.shape[1]))
        validate_data(estimator, like, reset=reset, skip_check_array=True)
        probe = type(estimator)._local()
        validate_data(probe, like, skip_check_array=True)
        checked = [
            dask.delayed(_checked_partition, pure=False)(probe, number, *of_all)
            for number, of_all in enumerate(zip(*partitions, strict=True))
        ]
        self._client.wait_for_workers(1)
        workers = sorted(self._client.nthreads())
        shares = np.array_split(np.arange(len(checked)), min(len(workers), len(checked)))
        self._delayed = [[checked[number] for number in share] for share in shares]
        pairs = [
            self._client.compute(of_group, workers=[worker], allow_other_workers=True)
            for of_group, worker in zip(self._delayed, workers, strict=False)
        ]
        told = [[self._client.submit(itemgetter(1), pair) for pair in group] for group in pairs]
        told = self._client.gather(told)
        sizes = [sum(len(y) for y, _, _ in of_group) for of_group in told]
        told = [of_one for of_group in told for of_one in of_group if len(of_one[0]) > 0]
        if not told:
            raise ValueError("X has no rows in any of its partitions.")
        ys, weights, dtypes = zip(*told, strict=True)
        self.y = np.concatenate(ys)
        self.sample_weight = None if sample_weight is None else np.concatenate(weights)
        self.shape, self.dtype = (sum(sizes), estimator.n_features_in_), np.result_type(*dtypes)
        # The rows of a group are those from one of its bounds to the other; some may have none.
        ends = np.cumsum(sizes)
        kept = [g for g, size in enumerate(sizes) if size > 0]
        self._bounds = [(int(ends[g]) - sizes[g], int(ends[g])) for g in kept]
        self._delayed = [self._delayed[g] for g in kept]
        self._net: Net | None = None
        self._told: list[list[tuple[str, tuple[Any, ...]]]] = [[] for _ in kept]
        self._futures = [self._start(g, pairs[of_all]) for g, of_all in enumerate(kept)]
        self._actors = [future.result() for future in self._futures]
        self._lost: set[int] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        # What ``joblib.hash`` sees of it.
        return tuple, (self._call("digest", [()] * len(self._bounds)),)

    def _start(self, g: int, pairs: list[Any]) -> Any:
        """A future of group number ``g``, from the futures of its checked partitions."""
        parts = [self._client.submit(itemgetter(0), pair) for pair in pairs]
        return self._client.submit(Group, self.dtype, g, parts, actor=True, pure=False)

    def _restart(self, g: int) -> None:
        """Make a group again, whose worker was lost: Dask computes its partitions once more."""
        self._lost.discard(g)
        self._futures[g] = self._start(g, self._client.compute(self._delayed[g]))
        self._actors[g] = self._futures[g].result()
        for method, arguments in self._told[g]:
            if g not in self._lost:
                self._ask(method, {g: arguments})

    def _ask(self, method: str, arguments: dict[int, Any]) -> dict[int, Any]:
        """``{group: result}`` of a method, at once; groups that do not answer are lost."""
        futures = self._futures

        async def answer(g: int) -> Any:
            return await getattr(self._actors[g], method)(*arguments[g])

        async def answers() -> dict[int, asyncio.Task[Any]]:
            tasks = {g: asyncio.ensure_future(answer(g)) for g in arguments}
            pending = set(tasks.values())
            while pending:
                _, pending = await asyncio.wait(pending, timeout=LOOK_AFTER)
                pending = {tasks[g] for g in tasks if futures[g].status == "finished"} & pending
            return tasks

        results = {}
        for g, task in self._client.sync(answers).items():
            gone = futures[g].status != "finished" or not task.done()
            if gone or isinstance(task.exception(), OSError):
                self._lost.add(g)
            else:
                results[g] = task.result()
        return results

    def _call(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        """The result of a method of each group, or None where its arguments are None."""
        results = [None] * len(arguments)
        missing = [g for g, of_group in enumerate(arguments) if of_group is not None]
        for _ in range(MOST_LOST):
            for g in self._lost.intersection(missing):
                self._restart(g)
            present = {g: arguments[g] for g in missing if g not in self._lost}
            for g, result in self._ask(method, present).items():
                results[g] = result
                missing.remove(g)
            if not missing:
                return results
        raise RuntimeError(
            f"The workers that had group {missing[0]} of the partitions of X were lost {MOST_LOST} "
            "times in one step: their logs may say why. Perhaps they have too little memory."
        )

    def _tell(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        """Call a method, now and of each group that takes the place of one that was lost."""
        self._call(method, arguments)
        for told, of_group in zip(self._told, arguments, strict=True):
            told.append((method, of_group))

    def _know(self, net: Net) -> None:
        if self._net is not net:
            self._net = net
            self._tell("know", [(net,)] * len(self._bounds))

    def _shares(self, rows: Array) -> Iterator[tuple[Array, Array]]:
        """The rows of each group among ``rows``, and where they are among them."""
        for first, last in self._bounds:
            at = np.flatnonzero((rows >= first) & (rows < last))
            yield (rows[at] - first).astype(np.min_scalar_type(last - first)), at

    def scaler(self) -> StandardScaler:
        """A ``StandardScaler`` of all rows: it goes from group to group."""
        scaler = None
        for g in range(len(self._bounds)):
            arguments: list[Any] = [None] * len(self._bounds)
            arguments[g] = (scaler,)
            scaler = self._call("scaler", arguments)[g]
        return scaler

    def hold(self, **fields: Any) -> Self:
        """Send the fields of Data, but X, to where they belong, as ``make_data`` takes them."""
        here = make_data(np.empty((self.shape[0], 0), self.dtype), **fields)
        self.weights, self.weight_scale = here.weights, here.weight_scale
        given = {name: field for name, field in here._asdict().items() if np.size(field) > 0}
        del given["weight_scale"]
        of_groups = [
            {name: a[first:last] if name in _OF_EXAMPLES else a for name, a in given.items()}
            for first, last in self._bounds
        ]
        self._tell("hold", [(of_group,) for of_group in of_groups])
        return self

    def outputs(self, net: Net, theta: Array, rows: Array) -> Array:
        """Outputs of the network for ``rows``, ``(len(rows), n_outputs)``."""
        self._know(net)
        shares = list(self._shares(rows))
        arguments = [(theta, mine) if len(mine) > 0 else None for mine, _ in shares]
        out = np.empty((len(rows), net.units[-1]), theta.dtype)
        for outputs, (_, at) in zip(self._call("outputs", arguments), shares, strict=True):
            if outputs is not None:
                out[at] = outputs
        return out

    def begin(self, net: Net, batch_size: int, n_threads: int | None) -> None:
        """Be ready for ``gradient``."""
        self._know(net)
        self._tell("begin", [(batch_size, n_threads)] * len(self._bounds))

    def gradient(self, theta: Array, rows: Array, t: int) -> tuple[float, float, Array]:
        """Weight, mean loss and gradient sum of the mini-batch ``rows`` in update number ``t``."""
        weights, answers = [], []
        for of_sign in self._by_sign(rows):
            arguments = []
            for (first, last), (mine, at) in zip(self._bounds, self._shares(of_sign), strict=True):
                of_rows = self.weights[of_sign[at]] if self.weights.size > 0 else np.ones(len(at))
                weights.append(of_rows.sum(dtype=np.float64))
                asked = theta, None if len(mine) == last - first else mine, t
                arguments.append(asked if weights[-1] != 0 else None)
            answers += self._call("gradient", arguments)
        total, loss, gradient = sum(weights), 0.0, np.zeros(theta.size)
        for answer, weight in zip(answers, weights, strict=True):
            if answer is not None and total != 0:
                loss += weight / total * answer[0]
                gradient += np.multiply(answer[1], weight, dtype=np.float64)
        return total, loss, gradient

    def _by_sign(self, rows: Array) -> list[Array]:
        """``rows``, apart by the sign of their weights: no mean is there of those that cancel."""
        if self.weights.size == 0 or self.weights[rows].min() >= 0:
            return [rows]
        return [rows[self.weights[rows] > 0], rows[self.weights[rows] < 0]]


class RemoteTrainer(Trainer):
    """A ``Trainer`` that adds up the gradients of a mini-batch's rows from where they are.

    Parameters
    ----------
    net, theta, batch_size, n_threads, state : as in ``Trainer``
    rows : Rows
    """

    def __init__(
        self,
        net: Net,
        theta: Array,
        rows: Rows,
        batch_size: int,
        n_threads: int | None = None,
        state: Array | None = None,
    ) -> None:
        # To the kernel a mini-batch is one example with its weight.
        self._weight = np.ones(1, theta.dtype)
        data = empty_data(theta.dtype)._replace(
            X=readonly(np.empty((1, 0), theta.dtype)),
            weights=readonly(self._weight),
            weight_scale=rows.weight_scale,
        )
        super().__init__(net, theta, data, 1, n_threads, state, given=True)
        rows.begin(net, batch_size, n_threads)
        self._examples, self._size = rows, batch_size

    def run_parts(self, parts: Iterable[tuple[Any, Array]], rule: Rule) -> float:
        """Go through rows that come in parts; returns the mean loss before each update."""
        total, rows = 0.0, np.concatenate([rows for _, rows in parts])
        for first in range(0, len(rows), self._size):
            batch = rows[first : first + self._size]
            weight, loss, gradient = self._examples.gradient(self.theta, batch, self.updates + 1)
            if weight == 0.0:
                continue  # no example counts: as if they were not there
            self.gradient[...], self._weight[0] = gradient, weight
            penalty = super().run_parts([(self._data, np.zeros(1, np.int64))], rule)
            total += (loss + penalty) * len(batch)
        return total / len(rows)


def _partitions(collection: Any, name: str) -> list[Any]:
    """The partitions of an array or a dataframe, each a delayed object."""
    if not _is_of_rows(collection):
        raise TypeError(
            f"{name} must be a Dask array or dataframe with the partitions of X, got "
            f"{type(collection).__name__}: dask.array.from_array({name}, chunks=X.chunks[0]) "
            "makes one for an X of known chunks."
        )
    if hasattr(collection, "rechunk"):
        return in_rows(collection).to_delayed().ravel().tolist()
    return collection.to_delayed()


def _is_of_rows(collection: Any) -> bool:
    """Whether it is a Dask array or dataframe."""
    kind = type(collection)  # a Delayed object has attributes of any name
    return dask.is_dask_collection(collection) and hasattr(kind, "ndim")


def check_dask(X: Any) -> None:
    """Raise an error unless a Dask X is an array of two dimensions or a dataframe."""
    if not _is_of_rows(X):
        raise TypeError(f"A Dask X must be an array or a dataframe, got {type(X).__name__}.")
    if X.ndim != 2:
        raise ValueError(f"X must have two dimensions, got {X.ndim}.")


def in_rows(array: Any) -> Any:
    """A Dask array whose blocks hold whole rows."""
    whole = array.ndim < 2 or array.numblocks[1] == 1
    return array if whole else array.rechunk({1: -1})


def _checked_partition(
    probe: BaseMLP, number: int, X: Any, y: Any, sample_weight: Any
) -> tuple[Array | None, tuple[Array, Array | None, Any]]:
    """The rows of a partition, and what the client is to know: y, sample_weight, type of X.

    ``probe``: an estimator that knows the features of X.
    """
    given = [part for part in (X, y, sample_weight) if part is not None]
    if all(part.shape[0] == 0 for part in given):
        return None, (np.asarray(y), np.empty(0), None)
    with errors_about(f"Partition {number} of X, y or sample_weight"):
        X, y = checked_data(probe, X, y, reset=False)
        if sp.issparse(X):
            raise TypeError("It is sparse, but a Dask X must be dense.")
        if is_classifier(probe):
            checked_labels(y)
        sample_weight = checked_weight_of_part(sample_weight, X)
    return X, (y, sample_weight, X.dtype)


class Distributed(Arrays):
    """The examples of a Dask X; parameters as of ``Arrays``."""

    make_trainer = RemoteTrainer

    def __init__(
        self,
        estimator: BaseMLP,
        settings: Parameters,
        X: Any,
        y: Any,
        sample_weight: Any,
        first_pass: bool,
        incremental: bool,
    ) -> None:
        rows = Rows(estimator, X, y, sample_weight, first_pass)
        arrays = rows, rows.y, rows.sample_weight
        super().__init__(estimator, settings, *arrays, first_pass, incremental)

    @staticmethod
    def check(estimator: BaseMLP, X: Rows, y: Array, reset: bool) -> tuple[Rows, Array]:
        return X, y  # each partition was checked where it is

    def feature_scaler(self) -> StandardScaler:
        return self._X.scaler()

    @staticmethod
    def make_data(rows: Rows, **fields: Any) -> Rows:
        return rows.hold(**fields)

    @staticmethod
    def predict(
        net: Net, theta: Array, data: Rows | Data, rows: Array, n_threads: int | None = None
    ) -> Array:
        if isinstance(data, Rows):
            return data.outputs(net, theta, rows)
        return predict(net, theta, data, rows, n_threads)  # of validation examples from the client
