"""The two entry points that Python calls, compiled once per dtype.

Both are run by every thread of a team with its own ``thread`` number. They return after the rows
they were given, so that Python stays alive between slices of an epoch.
"""

import numpy as np
from numba import njit

from .barrier import new_sync, wait_for_all
from .jit import EXACT, Entry, borrowed, readonly
from .layout import Net, Params, empty_data, work_for
from .network import (
    accumulate_gradient,
    feedforward,
    output_error,
    propagate_delta,
    transpose_chunk,
    update_chunk,
)
from .rules import SGD, Rule, learning_rate

# What `progress` holds, in and out.
LOSS, UPDATES = 0, 1


@njit(**EXACT)
def add_in_order(total, terms, n):
    """total + terms[0] + ... + terms[n - 1], one after the other, however blocks divide them."""
    for i in range(n):
        total += np.float64(terms[i])
    return total


def _make_train(digest):
    def train(
        net,
        params,
        data,
        rows,
        first,
        last,
        batch_size,
        rule,
        work,
        progress,
        sync,
        thread,
        n_threads,
    ):
        """Mini-batch gradient descent over the examples rows[first:last].

        Parameters
        ----------
        net, params, data, work, rule : see layout and rules
        rows : (n,) int64, the examples in the order of this epoch
        first, last : int, the part of ``rows`` to go through; ``first`` begins a mini-batch
        batch_size : int
        progress : (2,) float64, updated: sum of loss times examples, number of updates so far
        sync : see barrier; all zero
        thread, n_threads : int
        """
        digest  # noqa: B018  part of the cache key
        net, params, data, work = borrowed(net), borrowed(params), borrowed(data), borrowed(work)
        rows, progress, sync = borrowed(rows), borrowed(progress), borrowed(sync)
        arrivals = 0
        loss, t = progress[LOSS], np.int64(progress[UPDATES])
        for chunk in range(work.shares[thread], work.shares[thread + 1]):
            transpose_chunk(net, params.theta, params.theta_t, work, chunk)
        if n_threads > 1:
            arrivals += n_threads
            if not wait_for_all(sync, arrivals):
                return
        for batch in range(first, last, batch_size):
            batch_end = min(batch + batch_size, last)
            total_weight = np.float64(batch_end - batch)
            if data.weights.size > 0:
                total_weight = 0.0
                for i in range(batch, batch_end):
                    total_weight += data.weights[rows[i]]
                if total_weight == 0.0:
                    continue  # no example counts: as if they were not there
            batch_loss = 0.0
            eta = learning_rate(rule, t + 1)
            for block in range(batch, batch_end, work.capacity):
                B = min(work.capacity, batch_end - block)
                share = (B + n_threads - 1) // n_threads
                share = (share + 7) // 8 * 8  # whole tiles
                i0, i1 = min(B, thread * share), min(B, (thread + 1) * share)
                if i1 > i0:
                    feedforward(
                        net, params.theta, params.theta_t, data, rows, block, work, thread, i0, i1
                    )
                    output_error(net, data, rows, block, work, i0, i1)
                    propagate_delta(net, params.theta_t, work, thread, i0, i1)
                if n_threads > 1:
                    arrivals += n_threads
                    if not wait_for_all(sync, arrivals):
                        return
                if thread == 0:
                    batch_loss = add_in_order(batch_loss, work.row_loss, B)
                fresh = block == batch
                complete = block + B == batch_end
                for chunk in range(work.shares[thread], work.shares[thread + 1]):
                    accumulate_gradient(
                        net, params.gradient, data, rows, block, work, thread, chunk, B, fresh
                    )
                    if complete:
                        update_chunk(net, params, work, rule, chunk, total_weight, eta)
                if n_threads > 1:
                    arrivals += n_threads
                    if not wait_for_all(sync, arrivals):
                        return
            t += 1
            if thread == 0:
                squares = 0.0
                for chunk in range(work.chunks.shape[0]):
                    squares += work.squares[chunk]
                penalty = 0.5 * rule.alpha * squares
                loss += (batch_loss + penalty) / total_weight * (batch_end - batch)
        if thread == 0:
            progress[LOSS] = loss
            progress[UPDATES] = t

    return train


def _make_predict(digest):
    def predict(net, theta, theta_t, data, rows, out, work, thread, n_threads):
        """out[i] <- output of the network for example rows[i], ``(len(rows), n_outputs)``."""
        digest  # noqa: B018  part of the cache key
        net, data, work = borrowed(net), borrowed(data), borrowed(work)
        theta, theta_t = borrowed(theta), borrowed(theta_t)
        rows, out = borrowed(rows), borrowed(out)
        n = rows.size
        block = work.capacity // n_threads
        width = net.units[net.units.size - 1]
        outputs = work.offsets[net.units.size - 1] * work.capacity
        share = (n + n_threads - 1) // n_threads
        i0 = thread * block
        for first in range(thread * share, min(n, (thread + 1) * share), block):
            B = min(block, min(n, (thread + 1) * share) - first)
            feedforward(net, theta, theta_t, data, rows, first - i0, work, thread, i0, i0 + B)
            for i in range(B):
                for k in range(width):
                    out[first + i, k] = work.a[outputs + (i0 + i) * width + k]

    return predict


def _sample_net():
    return Net(np.array([1, 1]), np.array([0, 2]), np.array([0]), 0)


def _sample_train(dtype):
    vector = np.zeros(2, dtype)
    return (
        _sample_net(),
        Params(vector, vector, vector, np.zeros((1, 2), dtype)),
        empty_data(dtype),
        readonly(np.zeros(1, np.int64)),
        0,
        0,
        1,
        Rule(SGD, 0.1, 0.0, 0.0, 0.0, 0.0),
        work_for([1, 1], dtype, 1, 1, sparse=False),
        np.zeros(2),
        new_sync(),
        0,
        1,
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
        0,
        1,
    )


train = Entry(_make_train, _sample_train)
predict = Entry(_make_predict, _sample_predict)
