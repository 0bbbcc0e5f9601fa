"""A mini-batch as a program of tasks, divided over the threads once per fit; and its scratch.

A *program* has two or three stages, and behind each of them all threads meet. In a stage, every
thread goes through its own *tasks*, by rows or by chunks, and does with each what the stage says::

    STEP        by rows: forward      by chunks: gradient, update
    CLIPPED     by rows: forward      by chunks: gradient, norm         by chunks: clip, update
    OUTSIDE     by rows: forward      by chunks: gradient, update

A task by rows is a share of the examples, and "forward" is their way forward and back; a task by
chunks is a share of the parameters, whose gradient is summed over all examples. In small networks a
task by rows is one of ``PARTS`` parts of the examples, whatever the number of threads, and it goes
on to their gradient, which the next stage adds up::

    STEP        by rows: forward, gradient      by chunks: add_parts, update        and so on

STEP is one visit to each chunk: its gradient is used while it is in the cache, and need not be
kept (``temporary``). CLIPPED has to know the norm of the whole gradient before any of it is used.
OUTSIDE is for optimisers outside of the kernels: the gradient is kept, and "update" completes it.

Where the gradient is ``given``, as the sum of those of other machines, the programs have no tasks
by rows, and what is left by chunks is "update"; or "norm", and then "clip, update".

What else may come is a line here: a field of ``TASK`` that says which of several networks it
belongs to.
"""

import itertools
from typing import NamedTuple

import numpy as np

from .jit import leaf, section
from .layout import starts_of
from .machine import CACHE_LINE, VECTOR_BYTES, apart
from .matmul import packed_bytes
from .rules import GRADIENT
from .tiles import TILE_ROWS

# A mini-batch of more rows goes through in micro-batches of so many, which keeps memory flat for
# any batch size; results do not depend on it.
MICRO_BATCH = 1024

# Small networks form the gradient of each part of a micro-batch on its own and add these up: less
# moves between cores than when all threads read all examples. The number of parts depends on the
# network and the size of its mini-batches, never on the threads, and so do the results.
PARTS, LEAST_PART, MOST_PARAMS = 2, 64, 8192

# Shards cost more or less, and cores are more or less busy: a thread that is done takes chunks from
# the shards of the next threads, so many with its own. Each look at one costs a round trip.
MOST_TAKERS = 4

# A part of theta: rows first_row..last_row of [b; W] of a layer, and where it begins and ends.
CHUNK = np.dtype([(name, np.int64) for name in ["layer", "first_row", "last_row", "start", "stop"]])
NONE_CONTINUED = np.empty(0, np.bool_)

# Examples: part ``part`` of ``n_parts`` of the micro-batch; and chunks first_chunk..last_chunk.
TASK = np.dtype([(name, np.int64) for name in ["part", "n_parts", "first_chunk", "last_chunk"]])

# Which tasks a stage goes through, and what it does with each of them, in this order, 1 or 0. What
# comes after ``gradient`` is done in the last micro-batch of a mini-batch only.
STAGE = np.dtype(
    [
        ("tasks", np.int64),  # BY_ROWS or BY_CHUNKS
        ("forward", np.int64),  # forward and back: activations, losses, deltas
        ("gradient", np.int64),  # of the task's examples and chunks
        ("add_parts", np.int64),  # the gradient of all examples from those of the parts
        ("norm", np.int64),  # of the gradient
        ("clip", np.int64),  # before the tasks: find out from all norms how to scale the gradient
        ("update", np.int64),  # by the rule
        ("temporary", np.int64),  # whether no one else reads the gradient
        ("last", np.int64),
    ]
)
BY_ROWS, BY_CHUNKS = range(2)
STEP, CLIPPED, OUTSIDE = range(3)


class Plan(NamedTuple):
    """Who does what in a micro-batch. A slice runs on one thread (crew 0) or on all (crew 1)."""

    chunks: np.ndarray  # (n_chunks,) CHUNK
    stages: np.ndarray  # (n_programs, 3) STAGE
    tasks: np.ndarray  # (n_tasks,) TASK
    bounds: np.ndarray  # int64: thread t takes tasks bounds[crew, kind, t]..bounds[crew, kind, t+1]


def plan_for(units, batch_size, n_threads, continued=NONE_CONTINUED, given=False):
    """The ``Plan`` of a fit on at most ``n_threads`` threads.

    ``continued``: see ``Data``. ``given``: the gradient is.
    """
    chunks, parts = chunks_of(units, continued), n_parts(units, batch_size)
    tasks, bounds = [], np.zeros((2, 2, n_threads + 1), np.int64)
    for crew, size in enumerate([1, n_threads]):
        # Rows: each thread has a task, or some of the parts.
        n_tasks, last_chunk = (parts, len(chunks)) if parts else (size, 0)
        shares = [len(share) for share in np.array_split(np.arange(n_tasks), size)]
        bounds[crew, BY_ROWS, : size + 1] = len(tasks) + np.cumsum([0, *shares])
        tasks += [(part, n_tasks, 0, last_chunk) for part in range(n_tasks)]
        # Chunks: each thread has one task, all of its chunks.
        bounds[crew, BY_CHUNKS, : size + 1] = len(tasks) + np.arange(size + 1)
        tasks += [(0, 1, first, last) for first, last in itertools.pairwise(_shares(chunks, size))]
    return Plan(chunks, _stages(parts > 0, given), np.array(tasks, TASK), bounds)


def n_parts(units, batch_size):
    """Number of parts of a micro-batch that have gradients of their own; 0: not divided."""
    small = starts_of(units)[-1] <= MOST_PARAMS
    return PARTS if small and batch_size >= PARTS * LEAST_PART else 0


def chunks_of(units, continued=NONE_CONTINUED):
    """The chunks of all layers, ``(n_chunks,)`` CHUNK; none begins with a continued row."""
    # Whole tiles, worth a call, and enough chunks to share out; of small networks half of that.
    share = 2 if starts_of(units)[-1] <= MOST_PARAMS else 1
    least, whole = 2048 // share, TILE_ROWS // share
    chunks, start = [], 0
    for k, (n_in, n_out) in enumerate(itertools.pairwise(int(size) for size in units)):
        rows = max(-(-least // n_out), min(64, -(-n_in // 8)))
        rows = -(-rows // whole) * whole
        first = 0
        while first <= n_in:
            last = min(n_in + 1, first + rows)
            while k == 0 and continued.size > 0 and last <= n_in and continued[last - 1]:
                last += 1
            stop = start + (last - first) * n_out
            chunks.append((k, first, last, start, stop))
            first, start = last, stop
    return np.array(chunks, CHUNK)


def _shares(chunks, n_threads):
    """Where the chunks of each thread begin, ``(n_threads + 1,)``."""
    # A thread ends where the running cost, the number of weights, passes its part.
    sizes = chunks["stop"] - chunks["start"]
    cost = np.cumsum(sizes)
    ends = np.searchsorted(cost - sizes / 2, cost[-1] * np.arange(1, n_threads) / n_threads)
    return [0, *ends.tolist(), len(chunks)]


def _stages(divided, given):
    """The table above; ``divided``: the gradient is formed in parts. ``given``: elsewhere."""
    rows = ["forward", "gradient"] if divided else ["forward"]
    gradient = "add_parts" if divided else "gradient"
    programs = {
        STEP: [rows, [gradient, "update", "temporary"]],
        CLIPPED: [rows, [gradient, "norm"], ["clip", "update"]],
        OUTSIDE: [rows, [gradient, "update"]],
    }
    stages = np.zeros((len(programs), 3), STAGE)
    stages["tasks"][:, 1:] = BY_CHUNKS
    if given:
        programs = {STEP: [["update"]], CLIPPED: [["norm"], ["clip", "update"]]}
        programs[OUTSIDE] = programs[STEP]
        stages["tasks"] = BY_CHUNKS
    for number, program in programs.items():
        for stage, actions in zip(stages[number], program, strict=False):
            for action in actions:
                stage[action] = 1
        stages[number, len(program) - 1]["last"] = 1
    return stages


@leaf
def program_of(rule):
    """The program that an update by ``rule`` takes."""
    if rule.clip_norm < np.inf:
        return CLIPPED
    return OUTSIDE if rule.code == GRADIENT else STEP


@section
def bounds_of(plan, kind, n_threads):
    """Where the tasks of each thread begin: those BY_ROWS, or those BY_CHUNKS."""
    return plan.bounds[0 if n_threads == 1 else 1, kind]


@leaf
def takers_of(plan, n_threads):
    """How many threads take from the shard of each: one where there is little to share out."""
    return min(n_threads, MOST_TAKERS) if plan.chunks.size >= 4 * n_threads else 1


@leaf
def examples_of(task, size):
    """Which examples i0..i1 of a micro-batch of ``size`` a task is for, in whole tiles."""
    share = (size + task.n_parts - 1) // task.n_parts
    share = (share + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    return min(size, task.part * share), min(size, (task.part + 1) * share)


# Where the units of a layer lie, of all examples of a micro-batch.
PLACE = np.dtype(
    [
        ("width", np.int64),  # length of a row in a and d
        ("a", np.int64),  # where its rows begin in a
        ("d", np.int64),  # and in d, for all but the input units
    ]
)


class Work(NamedTuple):
    """Scratch of one fit, for the examples of a micro-batch."""

    a: np.ndarray  # activations
    d: np.ndarray  # deltas
    saved: np.ndarray  # laid out as d, or empty: slopes, see LAYER
    y: np.ndarray  # (capacity * n_outputs,): targets
    places: np.ndarray  # (n_layers + 1,) PLACE, the input units first
    capacity: int  # rows of a micro-batch
    row_loss: np.ndarray  # (capacity,) loss of each example
    # How far each thread has come in each example of CSR rows, (n_threads, capacity): the next
    # entry and the row's end, int64, and the feature of that entry, int32; see inputs.
    entries: np.ndarray
    ends: np.ndarray
    features: np.ndarray
    touched: np.ndarray  # (n_features,) int64: the last update that had entries in a column
    squares: np.ndarray  # (n_chunks,) float64: sum of squared weights of each chunk
    norms: np.ndarray  # (n_chunks,) float64: of the squared gradient, where it is clipped
    parts: np.ndarray  # (n_parts, n_params): gradients of parts of a mini-batch
    packed: np.ndarray  # (n_threads, ...): scratch of matrix products and gradients


def work_for(
    units,
    dtype,
    batch_size,
    n_threads,
    sparse=False,
    saving=False,
    continued=NONE_CONTINUED,
    n_dense=0,
):
    """Allocate the scratch that training takes.

    ``sparse``: whether X is CSR rows; ``continued``, ``n_dense``: see ``Data``.
    """
    units, dtype = [int(size) for size in units], np.dtype(dtype)
    capacity = min(batch_size, MICRO_BATCH)
    chunks = chunks_of(units, continued)
    # Beside packed operands: a chunk's gradient turned, and its gradient.
    largest = int((chunks["stop"] - chunks["start"]).max()) * dtype.itemsize
    chunk_bytes = VECTOR_BYTES * -(-largest // VECTOR_BYTES)
    rows = max(capacity, int((chunks["last_row"] - chunks["first_row"]).max()))
    work = work_to_predict(
        units, dtype, capacity, n_threads, sparse, rows, 2 * chunk_bytes, n_dense
    )
    noted = capacity if sparse else 0
    below = capacity * int(work.places["width"][1:].sum())
    return work._replace(
        d=_aligned_zeros(below, dtype),
        saved=_aligned_zeros(below if saving else 0, dtype),
        y=np.zeros(capacity * units[-1], dtype),
        row_loss=apart(capacity, dtype),
        # Not zeros: a thread's share of the memory is what it writes to.
        entries=np.empty((n_threads, noted), np.int64),
        ends=np.empty((n_threads, noted), np.int64),
        features=np.empty((n_threads, noted), np.int32),
        touched=np.zeros(units[0] if sparse else 0, np.int64),
        squares=apart(len(chunks), np.float64),
        norms=apart(len(chunks), np.float64),
        parts=np.zeros((n_parts(units, batch_size), starts_of(units)[-1]), dtype),
    )


def work_to_predict(units, dtype, capacity, n_threads, sparse, rows=0, more_bytes=0, n_dense=0):
    """Allocate the scratch that the forward pass takes, for ``capacity`` rows at once.

    ``rows``: of the largest product, if it is larger; ``more_bytes``: for each thread; ``n_dense``:
    see ``Data``.
    """
    # Python's integers: with a few rows to predict, time goes into this and the like.
    widths = [size + 1 for size in units]
    widths[-1] -= 1
    if sparse:
        widths[0] = n_dense + 1 if n_dense else 0  # nothing else of its rows is copied
    offsets = [0, *itertools.accumulate(widths)]
    places = [
        (width, capacity * offset, capacity * (offset - offsets[1]))
        for width, offset in zip(widths, offsets, strict=False)
    ]
    a = _aligned_zeros(capacity * offsets[-1], dtype)
    a[: capacity * widths[0] : widths[0] or 1] = 1
    bytes_each = packed_bytes(dtype.itemsize, rows or capacity) + more_bytes
    packed = _aligned_zeros(n_threads * bytes_each // dtype.itemsize, dtype)
    none = np.empty(0, dtype)
    return Work(
        a=a,
        d=none,
        saved=none,
        y=none,
        places=np.array(places, PLACE),
        capacity=capacity,
        row_loss=none,
        entries=np.empty((0, 0), np.int64),
        ends=np.empty((0, 0), np.int64),
        features=np.empty((0, 0), np.int32),
        touched=np.empty(0, np.int64),
        squares=np.empty(0),
        norms=np.empty(0),
        parts=np.empty((0, 0), dtype),
        packed=packed.reshape(n_threads, -1),
    )


def _aligned_zeros(size, dtype):
    """Zeros from the beginning of a cache line on, and so of a vector register's worth of bytes."""
    buffer = np.zeros(size + CACHE_LINE // dtype.itemsize, dtype)
    first = -buffer.__array_interface__["data"][0] % CACHE_LINE // dtype.itemsize
    return buffer[first : first + size]
