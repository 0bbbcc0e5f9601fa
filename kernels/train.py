"""The three entry points that Python calls, compiled once per dtype: train, predict, losses.

``train`` and ``predict`` are run by every thread with its own ``thread`` number, 0 in the thread
that called ``fit`` or ``predict``. Training returns after a slice of an epoch, so that Python stays
alive in between. ``losses`` is for outputs that are there already: validation.
"""

import numpy as np

from .activations import N_CONSTANTS
from .cache import Entry
from .jit import exact, section
from .layout import ORDERS, Net, Params, empty_data, readonly, work_for
from .losses import QUANTILES, row_losses, smooth
from .machine import flush_denormals, nanoseconds, restore_denormals
from .network import (
    accumulate_gradient,
    add_parts,
    feedforward,
    gradient_of,
    norm_of_chunk,
    output_error,
    propagate_delta,
    transpose_chunk,
    update_chunk,
)
from .rules import GRADIENT, coefficients
from .team import TIME_OVER, meet, new_sync, start_slice, wait_for_slice
from .tiles import TILE_ROWS


@exact
def add_in_order(total, terms, n):
    """total + terms[0] + ... + terms[n - 1], one after the other, however blocks divide them."""
    for i in range(n):
        total += np.float64(terms[i])
    return total


@section
def train_slice(net, params, data, rows, orders, work, sync, thread, deadline):
    """One slice; False if the threads are to leave."""
    n_threads, batch_size, t = orders.n_threads, orders.batch_size, orders.updates
    first, last, end = orders.first, orders.last, orders.end
    loss, batch_loss, total_weight = orders.loss, orders.batch_loss, orders.batch_weight
    shares = work.shares[n_threads]
    n_parts = work.parts.shape[0]
    for chunk in range(shares[thread], shares[thread + 1]):
        transpose_chunk(net, params, work.chunks[chunk], work.packed, thread)
    if not meet(sync, n_threads):
        return False
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
        c = coefficients(orders, t + 1)
        clipping = orders.clip_norm < np.inf
        for block in range(max(batch, first), min(batch_end, last), work.capacity):
            B = min(work.capacity, batch_end - block)
            fresh, complete = block == batch, block + B == batch_end
            # Whether no one reads the gradient once its chunk is updated.
            passing = fresh and complete and orders.code != GRADIENT and not clipping
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
                        part_of = work.chunks[chunk]
                        g = work.parts[part, part_of.start : part_of.stop]
                        accumulate_gradient(
                            net,
                            g,
                            data,
                            rows,
                            block,
                            work,
                            thread,
                            part_of,
                            i0,
                            i1,
                            fresh,
                            chunk == 0,
                        )
            if not meet(sync, n_threads):
                return False
            if thread == 0:
                batch_loss = add_in_order(batch_loss, work.row_loss, B)
            # Phase 2: the chunks of this thread. A gradient that may have to be clipped is
            # complete before any of it is used: then there are two stages.
            scale = 1.0 / total_weight
            for stage in range(2 if clipping and complete else 1):
                if stage == 1:
                    if not meet(sync, n_threads):
                        return False
                    norm = np.sqrt(add_in_order(0.0, work.norms, work.norms.size)) * scale
                    if norm > orders.clip_norm:
                        scale *= orders.clip_norm / norm
                for chunk in range(shares[thread], shares[thread + 1]):
                    part_of = work.chunks[chunk]
                    g = gradient_of(params.gradient, work.packed, part_of, thread, passing)
                    if stage == 0 and n_parts == 0:
                        restart, i0, i1 = chunk == shares[thread], np.int64(0), np.int64(B)
                        accumulate_gradient(
                            net, g, data, rows, block, work, thread, part_of, i0, i1, fresh, restart
                        )
                    elif stage == 0 and complete:
                        add_parts(g, work.parts, part_of.start)
                    if complete and clipping and stage == 0:
                        work.norms[chunk] = norm_of_chunk(params, g, orders.alpha, part_of)
                    elif complete:
                        work.squares[chunk] = update_chunk(
                            net, params, g, work.packed, orders, c, thread, part_of, scale
                        )
            if thread == 0 and n_threads > 1 and nanoseconds() > deadline:
                sync[TIME_OVER] = 1
            if not meet(sync, n_threads):
                return False
            if n_threads > 1 and sync[TIME_OVER] != 0:
                last = block + B
                break
        if batch_end > last:
            break  # the rest is for the next slice
        t += 1
        if thread == 0:
            squares = add_in_order(0.0, work.squares, work.squares.size)
            penalty = 0.5 * orders.alpha * squares
            loss += (batch_loss + penalty) / total_weight * (batch_end - batch)
        if batch_end == last:
            break  # perhaps before its time
    if not meet(sync, n_threads):  # the last mini-batches may have been skipped, without a barrier
        return False
    if thread == 0:
        orders.loss, orders.batch_loss, orders.batch_weight = loss, batch_loss, total_weight
        orders.updates, orders.last = t, last
    return True


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
    mode = flush_denormals()
    going_on, slices, deadline = True, 0, np.int64(0)
    while going_on:
        if thread > 0:
            slices += 1
            going_on = wait_for_slice(sync, slices)
        elif orders[0].n_threads > 1:
            deadline = nanoseconds() + np.int64(1e9 * orders[0].seconds)
            start_slice(sync)
        if going_on:
            going_on = train_slice(net, params, data, rows, orders[0], work, sync, thread, deadline)
        going_on = going_on and thread > 0
    restore_denormals(mode)


def _predict(net, theta, theta_t, data, rows, out, work, n_threads, thread):
    """out[i] <- output of the network for example rows[i], ``(len(rows), n_outputs)``."""
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


def _losses(net, row_loss, terms, a, y):
    """Loss of each example, ``row_loss``; the other arguments as in ``losses.row_losses``."""
    smooth(net.loss, net.loss_constants, y)
    width = net.units[net.units.size - 1]
    row_losses(net.loss, net.loss_constants, row_loss, terms, a, y, width)


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
        np.zeros(1, ORDERS),
        work_for([1, 1], dtype, 1, 1, sparse=False),
        new_sync(),
        0,
    )


def _sample_predict(dtype):
    return (
        _sample_net(),
        np.zeros(2, dtype),
        np.zeros(2, dtype),
        empty_data(dtype),
        readonly(np.zeros(1, np.int64)),
        np.zeros((1, 1), dtype),
        work_for([1, 1], dtype, 1, 1, sparse=False),
        1,
        0,
    )


def _sample_losses(dtype):
    vector = np.zeros(1, dtype)
    return _sample_net(), vector, vector, vector, vector


train = Entry(_train, _sample_train)
predict = Entry(_predict, _sample_predict)
losses = Entry(_losses, _sample_losses)
