"""The two entry points that Python calls, compiled once per dtype.

Both are run by every thread with its own ``thread`` number, 0 in the thread that called ``fit`` or
``predict``. Training returns after a slice of an epoch, so that Python stays alive in between.
"""

import numpy as np

from .activations import N_CONSTANTS
from .barrier import (
    let_slice_end,
    nanoseconds,
    new_sync,
    slice_ends,
    start_slice,
    wait_for_all,
    wait_for_slice,
)
from .denormals import flush_denormals, restore_denormals
from .jit import Entry, borrowed, exact, readonly
from .layout import (
    ARRIVED,
    BATCH_LOSS,
    BATCH_SIZE,
    BATCH_WEIGHT,
    END,
    FIRST,
    LAST,
    LOSS,
    SECONDS,
    THREADS,
    UPDATES,
    Data,
    Net,
    Params,
    Work,
    empty_data,
    new_orders,
    work_for,
)
from .losses import QUANTILES
from .matmul import TILE_ROWS
from .network import (
    accumulate_gradient,
    add_parts,
    bounds,
    feedforward,
    gradient_of,
    norm_of_chunk,
    output_error,
    propagate_delta,
    transpose_chunk,
    update_chunk,
)
from .rules import GRADIENT, coefficients, rule_of


@exact
def add_in_order(total, terms, n):
    """total + terms[0] + ... + terms[n - 1], one after the other, however blocks divide them."""
    for i in range(n):
        total += np.float64(terms[i])
    return total


def _train(net, params, data, rows, orders, work, sync, thread):
    """Mini-batch gradient descent over a slice of an epoch.

    Thread 0 goes through one slice and returns. The others stay until ``sync[ABORT]`` is set,
    and take part in every slice that is not for thread 0 alone. They read neither orders nor rows
    after the last barrier of a slice, so that thread 0 may write new ones.

    Parameters
    ----------
    net, params, data, orders, work : see layout
    rows : (n,) int64, the examples in the order of this epoch
    sync : see barrier
    thread : int
    """
    net, params, data, work = borrowed(net), borrowed(params), borrowed(data), borrowed(work)
    rows, orders, sync = borrowed(rows), borrowed(orders), borrowed(sync)
    mode = flush_denormals()
    slices = 0
    deadline = np.int64(0)
    while True:
        if thread > 0:
            slices += 1
            if not wait_for_slice(sync, slices):
                return
        elif orders.integers[THREADS] > 1:
            deadline = nanoseconds() + np.int64(1e9 * orders.numbers[SECONDS])
            start_slice(sync)

        n_threads = orders.integers[THREADS]
        first, last = orders.integers[FIRST], orders.integers[LAST]
        batch_size, t = orders.integers[BATCH_SIZE], orders.integers[UPDATES]
        arrivals = orders.integers[ARRIVED]
        end, rule = orders.integers[END], rule_of(orders)
        loss, batch_loss = orders.numbers[LOSS], orders.numbers[BATCH_LOSS]
        total_weight = orders.numbers[BATCH_WEIGHT]
        shares = work.shares[n_threads]
        n_parts = work.parts.shape[0]
        for chunk in range(shares[thread], shares[thread + 1]):
            transpose_chunk(
                net.units,
                net.starts,
                work.chunks,
                chunk,
                params.theta,
                params.theta_t,
                work.packed,
                thread,
            )
        if n_threads > 1:
            arrivals += n_threads
            if not wait_for_all(sync, arrivals):
                restore_denormals(mode)
                return
        for batch in range(first - first % batch_size, last, batch_size):
            batch_end = min(batch + batch_size, end)
            if batch >= first:
                batch_loss = 0.0
                total_weight = np.float64(batch_end - batch)
                if data.weights.size > 0:
                    total_weight = 0.0
                    for i in range(batch, batch_end):
                        total_weight += data.weights[rows[i]]
            if total_weight == 0.0:
                continue  # no example counts: as if they were not there
            c = coefficients(rule, t + 1)
            clipping = rule.clip_norm < np.inf
            for block in range(max(batch, first), min(batch_end, last), work.capacity):
                B = min(work.capacity, batch_end - block)
                fresh, complete = block == batch, block + B == batch_end
                # Whether no one reads the gradient once its chunk is updated.
                passing = fresh and complete and rule.code != GRADIENT and not clipping
                # Phase 1: the examples of this thread, or of the parts that it takes.
                shares_of_rows = n_parts if n_parts > 0 else n_threads
                share = (B + shares_of_rows - 1) // shares_of_rows
                share = (share + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
                for part in range(thread, shares_of_rows, n_threads):
                    i0, i1 = min(B, part * share), min(B, (part + 1) * share)
                    if i1 > i0:
                        feedforward(
                            net,
                            params.theta,
                            params.theta_t,
                            data,
                            rows,
                            block,
                            work,
                            thread,
                            i0,
                            i1,
                            t + 1,
                        )
                        output_error(net, data, rows, block, work, i0, i1)
                        propagate_delta(net, params.theta_t, work, thread, block, i0, i1, t + 1)
                    if n_parts > 0:
                        for chunk in range(work.chunks.shape[0]):
                            start, _, stop = bounds(work.chunks, chunk)
                            g = work.parts[part, start:stop]
                            accumulate_gradient(
                                net,
                                g,
                                data,
                                rows,
                                block,
                                work,
                                thread,
                                chunk,
                                i0,
                                i1,
                                fresh,
                                chunk == 0,
                            )
                if n_threads > 1:
                    arrivals += n_threads
                    if not wait_for_all(sync, arrivals):
                        restore_denormals(mode)
                        return
                if thread == 0:
                    batch_loss = add_in_order(batch_loss, work.row_loss, B)
                # Phase 2: the chunks of this thread. A gradient that may have to be clipped is
                # complete before any of it is used: then there are two stages.
                scale = 1.0 / total_weight
                for stage in range(2 if clipping and complete else 1):
                    if stage == 1:
                        if n_threads > 1:
                            arrivals += n_threads
                            if not wait_for_all(sync, arrivals):
                                restore_denormals(mode)
                                return
                        norm = np.sqrt(add_in_order(0.0, work.norms, work.norms.size)) * scale
                        if norm > rule.clip_norm:
                            scale *= rule.clip_norm / norm
                    for chunk in range(shares[thread], shares[thread + 1]):
                        start, _, stop = bounds(work.chunks, chunk)
                        g = gradient_of(params.gradient, work.packed, start, stop, thread, passing)
                        if stage == 0 and n_parts == 0:
                            restart, i0, i1 = chunk == shares[thread], np.int64(0), np.int64(B)
                            accumulate_gradient(
                                net,
                                g,
                                data,
                                rows,
                                block,
                                work,
                                thread,
                                chunk,
                                i0,
                                i1,
                                fresh,
                                restart,
                            )
                        elif stage == 0 and complete:
                            add_parts(g, work.parts, start)
                        if complete and clipping and stage == 0:
                            work.norms[chunk] = norm_of_chunk(params, g, work, rule.alpha, chunk)
                        elif complete:
                            update_chunk(net, params, g, work, rule, c, thread, chunk, scale)
                if n_threads > 1:
                    arrivals += n_threads
                    if thread == 0 and nanoseconds() > deadline:
                        let_slice_end(sync, arrivals)
                    if not wait_for_all(sync, arrivals):
                        restore_denormals(mode)
                        return
                    if slice_ends(sync, arrivals):
                        last = block + B
                        break
            if batch_end > last:
                break  # the rest is for the next slice
            t += 1
            if thread == 0:
                squares = add_in_order(0.0, work.squares, work.squares.size)
                penalty = 0.5 * rule.alpha * squares
                loss += (batch_loss + penalty) / total_weight * (batch_end - batch)
            if batch_end == last:
                break  # perhaps before its time
        if n_threads > 1:  # the last mini-batches may have been skipped, without a barrier
            arrivals += n_threads
            if not wait_for_all(sync, arrivals):
                restore_denormals(mode)
                return
        if thread == 0:
            orders.numbers[LOSS], orders.numbers[BATCH_LOSS] = loss, batch_loss
            orders.numbers[BATCH_WEIGHT] = total_weight
            orders.integers[UPDATES], orders.integers[LAST] = t, last
            orders.integers[ARRIVED] = arrivals
            restore_denormals(mode)
            return


def _predict(
    units,
    starts,
    activations,
    constants,
    saves,
    dropout,
    X,
    values,
    columns,
    row_starts,
    means,
    scales,
    a,
    widths,
    a_starts,
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

    The first arguments are what the forward pass reads of Net, Data and Work, see ``for_predict``:
    to take in whole tuples is as much work as to predict a row.
    """
    no_integers, no_reals, none = np.empty((0, 0), np.int64), dropout[:0], a[:0]
    net = Net(units, starts, activations, constants, saves, dropout, 0, 0, no_reals, 0)
    data = Data(X, values, columns, row_starts, means, scales, columns[:0], X[:0], values[:0], 1.0)
    work = Work(
        a=a,
        d=none,
        saved=none,
        y=none,
        widths=widths,
        a_starts=a_starts,
        d_starts=a_starts,
        capacity=capacity,
        row_loss=none,
        cursors=no_integers,
        chunks=no_integers,
        shares=no_integers,
        squares=no_reals,
        norms=no_reals,
        parts=packed[:0],
        packed=packed,
    )
    net, data, work = borrowed(net), borrowed(data), borrowed(work)
    theta, theta_t = borrowed(theta), borrowed(theta_t)
    rows, out = borrowed(rows), borrowed(out)
    n = rows.size
    block = work.capacity // n_threads
    width = net.units[net.units.size - 1]
    outputs = work.a_starts[net.units.size - 1]
    share = (n + n_threads - 1) // n_threads
    i0 = thread * block
    for first in range(thread * share, min(n, (thread + 1) * share), block):
        B = min(block, min(n, (thread + 1) * share) - first)
        feedforward(net, theta, theta_t, data, rows, first - i0, work, thread, i0, i0 + B, 0)
        for i in range(B):
            for k in range(width):
                out[first + i, k] = work.a[outputs + (i0 + i) * width + k]


def for_predict(net, data, work):
    """What ``predict`` takes of these, its first arguments."""
    return (
        *net[: Net._fields.index("seed")],
        *data[: Data._fields.index("codes")],
        work.a,
        work.widths,
        work.a_starts,
        work.packed,
        work.capacity,
    )


def _sample_net():
    integers, reals = np.array([0]), np.array([0.0])
    return Net(
        units=np.array([1, 1]),
        starts=np.array([0, 2]),
        activations=integers,
        constants=np.zeros((1, N_CONSTANTS)),
        saves=integers,
        dropout=reals,
        seed=0,
        loss=0,
        loss_constants=np.zeros(QUANTILES + 1),
        canonical=1,
    )


def _sample_train(dtype):
    vector = np.zeros(2, dtype)
    return (
        _sample_net(),
        Params(vector, vector, vector, np.zeros((1, 2), dtype)),
        empty_data(dtype),
        np.zeros(1, np.int64),
        new_orders(1),
        work_for([1, 1], dtype, 1, 1, sparse=False),
        new_sync(),
        0,
    )


def _sample_predict(dtype):
    return (
        *for_predict(_sample_net(), empty_data(dtype), work_for([1, 1], dtype, 1, 1, sparse=False)),
        np.zeros(2, dtype),
        np.zeros(2, dtype),
        readonly(np.zeros(1, np.int64)),
        np.zeros((1, 1), dtype),
        1,
        0,
    )


train = Entry(_train, _sample_train)
predict = Entry(_predict, _sample_predict)
