"""A mini-batch as a program of tasks, divided over the threads once per fit; and its scratch.

A *program* has two or three stages, and behind each of them all threads meet. In a stage, every
thread goes through its own *tasks*, by rows or by chunks, and does with each what the stage says::

    STEP        by rows: forward      by chunks: gradient, update
    CLIPPED     by rows: forward      by chunks: gradient, norm         by chunks: clip, update
    OUTSIDE     by rows: forward      by chunks: gradient, update

A task by rows is a share of the examples, and "forward" is their way forward and back; a task by
chunks is a share of the parameters, whose gradient is summed over all examples. But for large
networks, this is the sum of the gradients of ``PARTS`` parts of the examples, whatever the number
of threads. No more threads than that each have a part, and go on to its gradient; then, unless
there are many parameters, each makes all updates, on its own copy of them: the same numbers, and
only gradients move between cores, once, behind the only barrier. More threads have shares of the
examples, and go through a part after the other::

    STEP        by rows: forward, gradient      each: add_parts, update             and so on
    STEP        by rows: forward                by chunks: gradient, add_parts, update

STEP is one visit to each chunk: its gradient is used while it is in the cache, and need not be
kept (``temporary``). CLIPPED has to know the norm of the whole gradient before any of it is used.
OUTSIDE is for optimisers outside of the kernels: the gradient is kept, and "update" completes it.

Where the gradient is ``given``, as the sum of those of other machines, the programs have no tasks
by rows, and what is left by chunks is "update"; or "norm", and then "clip, update".

What else may come is a line here: a field of ``TASK`` that says which of several networks it
belongs to.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from .jit import leaf, section
from .layout import starts_of
from .machine import CACHE_LINE, VECTOR_BYTES, apart
from .matmul import LEAST_ROWS, packed_bytes, panel_columns
from .rules import GRADIENT
from .tiles import TILE_ROWS

# A mini-batch of more rows goes through in micro-batches of so many, which keeps memory flat for
# any batch size; results do not depend on it.
MICRO_BATCH = 1024

# Networks of no more parameters form the gradient of each part of a micro-batch on its own and add
# these up: less moves between cores than when all threads read all examples. The number of parts
# depends on the network and the size of its mini-batches, never on the threads, and so do the
# results. In CSR rows only small networks do so.
PARTS, LEAST_PART, MOST_PARAMS, SMALL = 2, 64, 2**17, 2**13
# So many are updated by each thread in less time than what others have updated takes to arrive.
MOST_COPIED = 2**16

# Examples are divided by so many: four rows are half the work of a tile of eight, but more than two
# thirds of that of six.
TOGETHER = 4 if TILE_ROWS == 8 else TILE_ROWS

# Shards cost more or less, and cores are more or less busy: a thread that is done takes chunks from
# the shards of the next threads, so many with its own. Each look at one costs a round trip.
MOST_TAKERS = 4

# A part of theta: rows first_row..last_row of [b; W] of a layer, and where it begins and ends; and
# whether it and the others of the layer have so many rows that their gradients share a copy of the
# deltas, in panels.
CHUNK = np.dtype(
    [(name, np.int64) for name in ["layer", "first_row", "last_row", "start", "stop", "shares"]]
)
NONE_CONTINUED = np.empty(0, np.bool_)

# Examples: part ``part`` of ``n_parts`` of the micro-batch; and chunks first_chunk..last_chunk.
TASK = np.dtype([(name, np.int64) for name in ["part", "n_parts", "first_chunk", "last_chunk"]])

# Which tasks a stage goes through, and what it does with each of them, in this order, 1 or 0. What
# comes after ``gradient`` is done in the last micro-batch of a mini-batch only.
STAGE = np.dtype(
    [
        ("tasks", np.int64),  # BY_ROWS, BY_CHUNKS, or EACH: all chunks for each thread
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
BY_ROWS, BY_CHUNKS, EACH = range(3)
STEP, CLIPPED, OUTSIDE = range(3)


class Plan(NamedTuple):
    """Who does what in a micro-batch. A slice runs on one thread (crew 0) or on all (crew 1)."""

    chunks: np.ndarray  # (n_chunks,) CHUNK
    stages: np.ndarray  # (2, n_programs, 3) STAGE: of each crew
    tasks: np.ndarray  # (n_tasks,) TASK
    bounds: np.ndarray  # int64: thread t takes tasks bounds[crew, kind, t]..bounds[crew, kind, t+1]


def plan_for(units, batch_size, n_threads, sparse=False, continued=NONE_CONTINUED, given=False):
    """The ``Plan`` of a fit on at most ``n_threads`` threads.

    ``sparse``: whether X is CSR rows; ``continued``: see ``Data``. ``given``: the gradient is.
    """
    chunks, parts = chunks_of(units, continued), n_parts(units, batch_size, sparse)
    stages, tasks, bounds = [], [], np.zeros((2, 3, n_threads + 1), np.int64)
    for crew, size in enumerate([1, n_threads]):
        apart = _is_apart(units, batch_size, size, sparse)
        kind = EACH if _is_copied(units, batch_size, size, sparse) else BY_CHUNKS
        stages.append(_stages(parts > 0, apart, kind, given))
        # Rows: each thread has a task, or some of the parts.
        n_tasks, last_chunk = (parts, len(chunks)) if apart else (size, 0)
        shares = [len(share) for share in np.array_split(np.arange(n_tasks), size)]
        bounds[crew, BY_ROWS, : size + 1] = len(tasks) + np.cumsum([0, *shares])
        tasks += [(part, n_tasks, 0, last_chunk) for part in range(n_tasks)]
        # Chunks: each thread has one task, all of its chunks.
        bounds[crew, BY_CHUNKS, : size + 1] = len(tasks) + np.arange(size + 1)
        shares = itertools.pairwise(_shares(chunks, size))
        tasks += [(0, max(1, parts), first, last) for first, last in shares]
        bounds[crew, EACH, : size + 1] = len(tasks) + np.arange(size + 1)
        tasks += [(0, 1, 0, len(chunks))] * size
    # Of a given type: where NumPy finds it in Python, it swallows a Ctrl-C.
    return Plan(chunks, np.array(stages, STAGE), np.array(tasks, TASK), bounds)


def n_parts(units, batch_size, sparse=False):
    """Number of parts of a micro-batch that have gradients of their own; 0: not divided."""
    few = starts_of(units)[-1] <= (SMALL if sparse else MOST_PARAMS)
    return PARTS if few and batch_size >= PARTS * LEAST_PART else 0


def busy_threads(units, batch_size):
    """How many threads a small network keeps busy, which has no more work than for its parts."""
    return n_parts(units, batch_size, sparse=True) or math.inf


def _is_apart(units, batch_size, size, sparse):
    """Whether the gradient has parts, and a crew of so many threads forms each by rows.

    One thread does so for small networks only: others update a chunk while it is in the cache.
    """
    if n_parts(units, batch_size, sparse) == 0:
        return False
    return sparse or (size <= PARTS and (size > 1 or starts_of(units)[-1] <= SMALL))


def _is_copied(units, batch_size, size, sparse):
    """Whether each thread of such a crew then makes all updates, on its own copy."""
    few = not sparse and starts_of(units)[-1] <= MOST_COPIED
    return few and _is_apart(units, batch_size, size, sparse)


def chunks_of(units, continued=NONE_CONTINUED):
    """The chunks of all layers, ``(n_chunks,)`` CHUNK; none begins with a continued row."""
    # Whole tiles, worth a call, and enough chunks to share out; a few rows at the end make none.
    chunks, start = [], 0
    for k, (n_in, n_out) in enumerate(itertools.pairwise(int(size) for size in units)):
        rows = max(-(-2048 // n_out), min(64, -(-n_in // 8)))
        rows = -(-rows // TILE_ROWS) * TILE_ROWS
        first = 0
        while first <= n_in:
            last = first + rows if n_in + 1 - first >= 1.5 * rows else n_in + 1
            while k == 0 and continued.size > 0 and last <= n_in and continued[last - 1]:
                last += 1
            stop = start + (last - first) * n_out
            chunks.append((k, first, last, start, stop, rows >= LEAST_ROWS))
            first, start = last, stop
    return np.array(chunks, CHUNK)


def _shares(chunks, n_threads):
    """Where the chunks of each thread begin, ``(n_threads + 1,)``."""
    # A thread ends where the running cost, the number of weights, passes its part.
    sizes = chunks["stop"] - chunks["start"]
    cost = np.cumsum(sizes)
    ends = np.searchsorted(cost - sizes / 2, cost[-1] * np.arange(1, n_threads) / n_threads)
    return [0, *ends.tolist(), len(chunks)]


def _stages(divided, apart, kind, given):
    """The table above; ``divided``: the gradient is formed in parts, by rows if they are ``apart``,
    and then updates have tasks of this ``kind``. ``given``: elsewhere."""
    rows = ["forward", "gradient"] if apart else ["forward"]
    gradient = ["gradient"] * (not apart) + ["add_parts"] * divided
    programs = {
        STEP: [rows, [*gradient, "update", "temporary"]],
        CLIPPED: [rows, [*gradient, "norm"], ["clip", "update"]],
        OUTSIDE: [rows, [*gradient, "update"]],
    }
    stages = np.zeros((len(programs), 3), STAGE)
    stages["tasks"][:, 1:] = BY_CHUNKS
    stages["tasks"][[STEP, CLIPPED], 1:] = kind
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
    """Where the tasks of each thread begin: of those BY_ROWS, BY_CHUNKS, or for EACH."""
    return plan.bounds[crew_of(n_threads), kind]


@leaf
def crew_of(n_threads):
    return 0 if n_threads == 1 else 1


@leaf
def takers_of(plan, n_threads):
    """How many threads take from the shard of each: one where there is little to share out."""
    return min(n_threads, MOST_TAKERS) if plan.chunks.size >= 4 * n_threads else 1


@leaf
def examples_of(part, n_parts, size):
    """Which examples i0..i1 of a micro-batch of ``size`` are in a part."""
    share = (size + n_parts - 1) // n_parts
    share = (share + TOGETHER - 1) // TOGETHER * TOGETHER
    return min(size, part * share), min(size, (part + 1) * share)


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
    # (2 * capacity,) loss of each example; there, and in parts, of this update and the one before,
    # which other threads may still read.
    row_loss: np.ndarray
    # How far each thread has come in each example of CSR rows, (n_threads, capacity): the next
    # entry and the row's end, int64, and the feature of that entry, int32; see inputs.
    entries: np.ndarray
    ends: np.ndarray
    features: np.ndarray
    touched: np.ndarray  # (n_features,) int64: the last update that had entries in a column
    # Of each chunk, in row 0, or for EACH in that of the thread; with zeros behind the last.
    squares: np.ndarray  # float64: sum of squared weights
    norms: np.ndarray  # float64: of the squared gradient, where it is clipped
    parts: np.ndarray  # (2 * n_parts, n_params): gradients of parts of a mini-batch
    # What each thread but the first trains on its own, see EACH, in 3 + n_slots rows: theta,
    # theta_t, gradient and state.
    copies: np.ndarray
    packed: np.ndarray  # (n_threads, ...): scratch of matrix products and gradients
    panels: np.ndarray  # (n_threads, ...): deltas of a layer, as all of its gradients take them


def work_for(
    units,
    dtype,
    batch_size,
    n_threads,
    sparse=False,
    saving=False,
    continued=NONE_CONTINUED,
    n_dense=0,
    n_slots=0,
):
    """Allocate the scratch that training takes.

    ``sparse``: whether X is CSR rows; ``continued``, ``n_dense``: see ``Data``; ``n_slots``: of the
    optimiser's state.
    """
    units, dtype = [int(size) for size in units], np.dtype(dtype)
    capacity, n_params = min(batch_size, MICRO_BATCH), starts_of(units)[-1]
    parts = n_parts(units, batch_size, sparse)
    n_copies = n_threads - 1 if _is_copied(units, batch_size, n_threads, sparse) else 0
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
    # Of CSR rows, the first layer's gradient is no product.
    shared = chunks[(chunks["layer"] >= sparse) & (chunks["shares"] > 0)]
    in_panels = [panel_columns.py_func(units[k + 1], dtype.itemsize) for k in set(shared["layer"])]
    return work._replace(
        d=_aligned_zeros(below, dtype),
        saved=_aligned_zeros(below if saving else 0, dtype),
        y=np.zeros(capacity * units[-1], dtype),
        row_loss=apart(2 * capacity, dtype),
        # Not zeros: a thread's share of the memory is what it writes to.
        entries=np.empty((n_threads, noted), np.int64),
        ends=np.empty((n_threads, noted), np.int64),
        features=np.empty((n_threads, noted), np.int32),
        touched=np.zeros(units[0] if sparse else 0, np.int64),
        squares=_rows_apart(1 + n_copies, len(chunks), np.float64),
        norms=_rows_apart(1 + n_copies, len(chunks), np.float64),
        parts=_rows_apart(2 * parts, n_params, dtype),
        copies=_rows_apart(n_copies * (3 + n_slots), n_params, dtype),
        panels=_rows_apart(n_threads, capacity * max(in_panels, default=0), dtype),
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
        squares=np.empty((0, 0)),
        norms=np.empty((0, 0)),
        parts=np.empty((0, 0), dtype),
        copies=np.empty((0, 0), dtype),
        packed=packed.reshape(n_threads, -1),
        panels=np.empty((0, 0), dtype),
    )


def _rows_apart(n_rows, n_columns, dtype):
    """Rows of zeros for at least so many columns; no cache line belongs to two of them."""
    lanes = CACHE_LINE // np.dtype(dtype).itemsize
    width = -(-n_columns // lanes) * lanes
    return _aligned_zeros(n_rows * width, np.dtype(dtype)).reshape(n_rows, width)


def _aligned_zeros(size, dtype):
    """Zeros from the beginning of a cache line on, and so of a vector register's worth of bytes."""
    buffer = np.zeros(size + CACHE_LINE // dtype.itemsize, dtype)
    first = -buffer.__array_interface__["data"][0] % CACHE_LINE // dtype.itemsize
    return buffer[first : first + size]
