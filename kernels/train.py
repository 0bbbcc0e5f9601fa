"""The entry points that Python calls, compiled together for each dtype.

``train`` and ``predict`` are run by every thread with its own ``thread`` number, 0 in the thread
that called ``fit`` or ``predict``. Training returns after a slice of an epoch, so that Python stays
alive in between. ``sums`` is for prediction, of the rows of W that training keeps; ``losses`` for
outputs that are there already: validation.
"""

from typing import NamedTuple

import numpy as np

from .cache import Library
from .inputs import is_sparse, sum_gradient, sum_rows
from .jit import exact, leaf, section
from .layout import LAYER, Data, Net, Params, Part, empty_data, nothing
from .losses import QUANTILES, row_losses, smooth
from .machine import flush_denormals, restore_denormals
from .matmul import scratch_of
from .network import (
    accumulate_gradient,
    add_parts,
    feedforward,
    norm_of_chunk,
    output_error,
    propagate_delta,
    transpose_chunk,
    update_chunk,
)
from .plan import (
    BY_CHUNKS,
    BY_ROWS,
    EACH,
    Work,
    bounds_of,
    crew_of,
    examples_of,
    plan_for,
    program_of,
    takers_of,
    work_for,
)
from .rules import coefficients
from .shuffle import fisher_yates, sample_fisher_yates
from .team import (
    LAST,
    end_slice_in_time,
    meet,
    new_team,
    next_chunk,
    start_slice,
    wait_for_slice,
)


class MicroBatch(NamedTuple):
    """Examples rows[first : first + size], which go through at once; see ``plan.MICRO_BATCH``."""

    rows: np.ndarray  # (n,) int64: the examples in the order of the epoch
    first: int
    size: int
    begins: bool  # whether it is the first of its mini-batch, and whether the last
    ends: bool
    t: int  # number of the update, from 1 on
    scale: float  # 1 / the weight of all examples of the mini-batch


@exact
def add_in_order(total, terms, n):
    """total + terms[0] + ... + terms[n - 1], one after the other, however threads divide them.

    A sum over examples or chunks is float64 for float32 too.
    """
    for i in range(n):
        total += np.float64(terms[i])
    return total


@section
def weight_of(data, rows, first, last):
    """Sum of the weights of examples rows[first:last]; their number, where there are no weights."""
    if data.weights.size == 0:
        return np.float64(last - first)
    total = 0.0
    for i in range(first, last):
        total += data.weights[rows[i]]
    return total


@section
def clipped(scale, norms, most):
    """``scale``, or less: so that the gradient times it has no greater norm than ``most``."""
    norm = np.sqrt(add_in_order(0.0, norms, norms.size)) * scale
    if norm > most:
        scale *= most / norm
    return scale


@section
def room_for_gradient(params, work, stage, chunk, batch, thread):
    """Where the gradient of a chunk is formed, of all examples."""
    start, stop = chunk.start, chunk.stop
    if stage.temporary and batch.begins and batch.ends:
        # Scratch of the thread, the same for all of its chunks, which stays in the L1 cache.
        return work.packed[thread, work.packed.shape[1] - (stop - start) :]
    return params.gradient[start:stop]


@section
def parts_of(work, batch):
    """Where the parts of the gradient of this mini-batch are, in turn with that before."""
    half = work.parts.shape[0] // 2
    return work.parts[batch.t % 2 * half : (batch.t % 2 + 1) * half]


@section
def params_of(params, plan, orders, work, thread):
    """What the thread trains: the parameters, or its copy of them, as they are now."""
    if thread > 0 and tasks_of_parameters(plan, orders) == EACH:
        n_slots = params.state.shape[0]
        mine = work.copies[(thread - 1) * (3 + n_slots) : thread * (3 + n_slots)]
        for i in range(params.theta.size):
            mine[0, i] = params.theta[i]
            for slot in range(n_slots):
                mine[3 + slot, i] = params.state[slot, i]
        params = Params(mine[0], mine[1], mine[2], mine[3:])
    return params


@leaf
def tasks_of_parameters(plan, orders):
    """By what tasks threads divide the parameters: BY_CHUNKS, or EACH."""
    return plan.stages[crew_of(orders.n_threads), program_of(orders), 1].tasks


@leaf
def train_micro_batch(net, params, data, plan, work, team, batch, thread):
    """All stages of the program for one micro-batch; False if the threads are to leave."""
    orders = team.orders[0]
    n_threads, program = orders.n_threads, program_of(orders)
    scratch, scale = scratch_of(work.packed, thread), batch.scale
    c, losses = coefficients(orders, batch.t), batch.t % 2 * work.capacity
    for number in range(plan.stages.shape[2]):
        stage = plan.stages[crew_of(n_threads), program, number]
        # Each thread computes the same scale, from norms that are complete behind a barrier.
        own = thread if stage.tasks == EACH else 0
        if stage.clip and batch.ends:
            scale = clipped(scale, work.norms[own], orders.clip_norm)
        mine = bounds_of(plan, stage.tasks, n_threads)
        n_tasks, takers = mine[thread + 1] - mine[thread], 1
        if stage.tasks == BY_CHUNKS:
            # Its own chunks, and then what the next threads have not begun of theirs; but in
            # CSR rows it goes on from one to the next.
            n_tasks = takers = 1 if is_sparse(data) else takers_of(plan, n_threads)
        for i in range(n_tasks):
            of_task = (mine[thread] - mine[0] + i) % (mine[n_threads] - mine[0])
            task = plan.tasks[mine[0] + of_task]
            i0, i1 = examples_of(task.part, task.n_parts, batch.size)
            # A small micro-batch may have fewer rows than would do for all tasks.
            if stage.forward and i1 > i0:
                part = Part(batch.rows, batch.first, i0, i1, batch.t, thread, losses)
                feedforward(net, params.theta, params.theta_t, data, work, part)
                output_error(net, data, work, part)
                propagate_delta(net, params.theta_t, work, part)
            k, layer = next_chunk(team.sync, task, -1, of_task, takers), -1
            while k < task.last_chunk:
                chunk = plan.chunks[k]
                # What follows is done with one chunk at a time, while its gradient is in the cache.
                g = room_for_gradient(params, work, stage, chunk, batch, thread)
                if stage.gradient:
                    restart, layer = chunk.layer != layer, chunk.layer
                    # Parts of a gradient are summed whole, by who does not know what is in them.
                    lazy, whole = orders.lazy, not orders.lazy or stage.tasks == BY_ROWS
                    end = task.part + 1 if stage.tasks == BY_ROWS else task.n_parts
                    for p in range(task.part, end):
                        i0, i1 = examples_of(p, task.n_parts, batch.size)
                        part = Part(batch.rows, batch.first, i0, i1, batch.t, thread, losses)
                        sums = g
                        if work.parts.size > 0:
                            sums = parts_of(work, batch)[p, chunk.start : chunk.stop]
                        accumulate_gradient(
                            net, data, work, part, chunk, sums, batch.begins, restart, lazy, whole
                        )
                if batch.ends:
                    if stage.add_parts:
                        add_parts(g, parts_of(work, batch), chunk.start)
                    complete = stage.tasks == BY_CHUNKS and (stage.gradient or stage.add_parts)
                    if complete and chunk.layer == 0 and data.continued.size > 0:
                        sum_gradient(data, g, chunk, net.layers[0].n_out)
                    if stage.norm:
                        work.norms[own, k] = norm_of_chunk(
                            net, params, work, chunk, g, orders, batch.t
                        )
                    if stage.update:
                        squares = update_chunk(
                            net, data, params, work, chunk, g, orders, c, scale, batch.t, scratch
                        )
                        work.squares[own, k] = squares
                k = next_chunk(team.sync, task, k, of_task, takers)
        if number == 0 and thread == 0 and n_threads > 1:
            end_slice_in_time(team, batch.first + batch.size)
        # What each thread does for itself no other waits for, once the mini-batch is complete.
        waits = stage.tasks != EACH or not batch.ends
        if waits and not meet(team.sync, n_threads):
            return False
        # The losses are there; their next writer waits for thread 0 at the next barrier.
        if stage.tasks == BY_ROWS and thread == 0:
            of_rows = work.row_loss[losses : losses + batch.size]
            orders.batch_loss = add_in_order(orders.batch_loss, of_rows, batch.size)
        if stage.last:
            break
    return True


@leaf
def train_slice(net, params, data, rows, plan, work, team, thread):
    """A slice of an epoch, mini-batch by mini-batch; False if the threads are to leave."""
    orders = team.orders[0]
    first, last, end, batch_size = orders.first, orders.last, orders.end, orders.batch_size
    n_threads, t, total_weight = orders.n_threads, orders.updates, orders.batch_weight
    # Weights may have changed in between, by L-BFGS or by Python: each thread transposes its own.
    params = params_of(params, plan, orders, work, thread)
    mine = bounds_of(plan, tasks_of_parameters(plan, orders), n_threads)
    for number in range(mine[thread], mine[thread + 1]):
        task = plan.tasks[number]
        for k in range(task.first_chunk, task.last_chunk):
            transpose_chunk(net, data, params, plan.chunks[k], scratch_of(work.packed, thread))
    if not meet(team.sync, n_threads):
        return False
    for start in range(first - first % batch_size, last, batch_size):
        stop = min(start + batch_size, end)
        if start >= first:  # otherwise the slice goes on within a mini-batch
            total_weight = weight_of(data, rows, start, stop)
            if thread == 0:
                orders.batch_loss = 0.0
        if total_weight == 0.0:
            continue  # no example counts: as if they were not there
        for i in range(max(start, first), min(stop, last), work.capacity):
            # Whole micro-batches only: ``last`` is the end of one.
            size = min(work.capacity, stop - i)
            begins, ends = i == start, i + size == stop
            batch = MicroBatch(rows, i, size, begins, ends, t + 1, 1.0 / total_weight)
            if not train_micro_batch(net, params, data, plan, work, team, batch, thread):
                return False
            if n_threads > 1 and team.sync[LAST] == i + size:
                last = i + size
                break
        if stop > last:
            break  # the rest of the mini-batch is for the next slice
        t += 1
        if thread == 0:
            squares = add_in_order(0.0, work.squares[0], work.squares.shape[1])
            loss = orders.batch_loss + 0.5 * orders.alpha * squares
            orders.loss += loss / total_weight * (stop - start)
        if stop == last:
            break  # perhaps before its time
    # The last mini-batches may have been skipped, without a barrier.
    if not meet(team.sync, n_threads):
        return False
    if thread == 0:
        orders.batch_weight, orders.updates, orders.last = total_weight, t, last
    return True


def _train(net, params, data, rows, plan, work, team, thread):
    """Mini-batch gradient descent over a slice of an epoch; by helpers, over one after the other.

    Parameters
    ----------
    net, params, data : see layout
    rows : (n_rows,) int64
        The training examples in the order of this epoch.
    plan, work : see plan
    team : see team
    thread : int
    """
    mode = flush_denormals()
    going_on, slices = True, 0
    while going_on:
        if thread > 0:
            slices += 1
            going_on = wait_for_slice(team.sync, slices)
        elif team.orders[0].n_threads > 1:
            start_slice(team)
        if going_on:
            going_on = train_slice(net, params, data, rows, plan, work, team, thread)
        going_on = going_on and thread > 0  # thread 0 returns to Python
    restore_denormals(mode)


def _predict(
    layers,
    X,
    values,
    columns,
    row_starts,
    continued,
    means,
    scales,
    a,
    places,
    packed,
    capacity,
    theta,
    theta_t,
    rows,
    out,
    n_threads,
    thread,
):
    """out[i] <- output of the network for example rows[i], ``(len(rows), n_outputs)``.

    So many parameters because Python calls it: the first are what the forward pass reads of Net,
    Data and Work, see ``for_predict``. To take in whole tuples is as much work as to predict a row.
    """
    # All of the types that training has, so that Numba does not compile what follows for others.
    unused, unused_2d, zero = a[:0], packed[:0], np.int64(0)
    integers, integers_2d = nothing(np.int64, 1), nothing(np.int64, 2)
    float64s, float64s_2d = nothing(np.float64, 1), nothing(np.float64, 2)
    net = Net(layers, zero, zero, float64s, zero)
    data = Data(
        X,
        values,
        columns,
        row_starts,
        continued,
        means,
        scales,
        codes=columns[:0],
        targets=X[:0],
        weights=means[:0],
        weight_scale=1.0,
        n_dense=zero,
    )
    work = Work(
        a=a,
        d=unused,
        saved=unused,
        y=unused,
        places=places,
        capacity=capacity,
        row_loss=unused,
        entries=integers_2d,
        ends=integers_2d,
        features=nothing(np.int32, 2),
        touched=integers,
        squares=float64s_2d,
        norms=float64s_2d,
        parts=unused_2d,
        copies=unused_2d,
        packed=packed,
        panels=unused_2d,
    )
    share = (rows.size + n_threads - 1) // n_threads
    stop = min(rows.size, (thread + 1) * share)
    # Each thread has rows i0..i0 + size of the scratch to itself.
    size = work.capacity // n_threads
    i0, place = thread * size, work.places[net.layers.size]
    for first in range(thread * share, stop, size):
        B = min(size, stop - first)
        # A part's row i is example rows[first + i], counted from row 0 of the scratch: i0 goes off.
        part = Part(rows, first - i0, i0, i0 + B, zero, thread, zero)
        feedforward(net, theta, theta_t, data, work, part)
        for i in range(B):
            for k in range(place.width):
                out[first + i, k] = work.a[place.a + (i0 + i) * place.width + k]


def for_predict(net, data, work):
    """What ``predict`` takes of these, its first arguments."""
    of_data = data[: Data._fields.index("codes")]
    return net.layers, *of_data, work.a, work.places, work.packed, work.capacity


def _sums(theta, theta_t, continued):
    """The sums of the first layer's rows in theta_t, see ``inputs``; no other layer follows."""
    n_rows = continued.size + 1
    sum_rows(continued, theta_t, theta, 0, 0, n_rows, theta.size // n_rows)


def _losses(net, row_loss, terms, a, y):
    """Loss of each example, ``row_loss``; the other arguments as in ``losses.row_losses``."""
    smooth(net.loss, net.loss_constants, y)
    width = net.layers[net.layers.size - 1].n_out
    row_losses(net.loss, net.loss_constants, row_loss, terms, a, y, width)


_SAMPLE_NET = Net(
    layers=np.zeros(1, LAYER),
    seed=0,
    loss=0,
    loss_constants=np.zeros(QUANTILES + 1),
    canonical=1,
)


def _sample_train(dtype):
    vector = np.zeros(2, dtype)
    return (
        _SAMPLE_NET,
        Params(vector, vector, vector, np.zeros((1, 2), dtype)),
        empty_data(dtype),
        np.zeros(1, np.int64),
        plan_for([1, 1], 1, 1),
        work_for([1, 1], dtype, 1, 1),
        new_team(1, 1),
        0,
    )


def _sample_predict(dtype):
    vector = np.zeros(2, dtype)
    return (
        *for_predict(_SAMPLE_NET, empty_data(dtype), work_for([1, 1], dtype, 1, 1)),
        vector,
        vector,
        np.zeros(1, np.int64),
        np.zeros((1, 1), dtype),
        1,
        0,
    )


def _sample_sums(dtype):
    vector = np.zeros(2, dtype)
    return vector, vector, empty_data(dtype).continued


def _sample_losses(dtype):
    vector = np.zeros(1, dtype)
    return _SAMPLE_NET, vector, vector, vector, vector


kernels = Library("kernels")
train = kernels.entry(_train, _sample_train)
predict = kernels.entry(_predict, _sample_predict)
sums = kernels.entry(_sums, _sample_sums)
losses = kernels.entry(_losses, _sample_losses)
shuffle = kernels.entry(fisher_yates, sample_fisher_yates)
