"""The algorithm of the notes, for a block of examples: the page to open first.

Phase 1 works on rows (examples), phase 2 on parameters; each number is computed by one thread, in
an order that does not depend on the number of threads::

                 phase 1: rows                    phase 2: parameters
    thread 0     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
    thread 1     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
                                          barrier                                         barrier

Small networks sum the gradient of their rows in phase 1 already, in parts that do not depend on the
threads, and add these up in phase 2: see ``layout.PARTS``.
"""

import numpy as np

from .activations import activate, multiply_by_slope
from .dropout import drop
from .inputs import gather, sparse_affine, sparse_gradient
from .jit import leaf, section, shared
from .layout import SAVE_ACTIVATIONS, SAVE_INPUTS, SAVE_NOTHING
from .losses import loss_slope, output_delta, row_losses, smooth
from .machine import VECTOR_BYTES
from .matmul import (
    PACKED_BYTES,
    dot_products,
    few_outputs,
    matmul,
    matrix,
    scratch_of,
    transpose,
)
from .rules import squared_norm, update

# What a product does with what is there. Variables, not literals, for which Numba would compile
# the products anew.
OVERWRITE, ADD = np.intp(0), np.intp(1)


@leaf
def gather_targets(codes, targets, rows, first, y):
    """Copy the targets of examples rows[first..] to y; a class becomes its number."""
    T = y.dtype.type
    if codes.size > 0:
        for i in range(y.size):
            y[i] = T(codes[rows[first + i]])
    else:
        width = targets.shape[1]
        for i in range(y.size // width):
            for k in range(width):
                y[i * width + k] = targets[rows[first + i], k]


@shared
def copy(to, rows):
    for i in range(rows.size):
        to[i] = rows[i]


@section
def feedforward(net, theta, theta_t, data, rows, first, work, thread, i0, i1, t):
    """a^(l+1) <- sigma(theta^(l) a^(l)) through all layers, for examples i0..i1 of the block.

    ``t``: number of the update, for dropout.
    """
    scratch = scratch_of(work.packed, thread)
    if data.row_starts.size == 0:
        gather(data.X, rows, first, work.a, work.widths[0], work.capacity, i0, i1)
    for k in range(net.units.size - 1):
        n_in, n_out = net.units[k] + 1, net.units[k + 1]
        in_width, width = work.widths[k], work.widths[k + 1]
        start, stop = work.a_starts[k + 1] + i0 * width, work.a_starts[k + 1] + i1 * width
        if k == 0 and data.row_starts.size > 0:
            sparse_affine(net, theta, data, rows, first, work, i0, i1)
        else:
            a = matrix(work.a, work.a_starts[k] + i0 * in_width, in_width, 1)
            z = matrix(work.a, start + width - n_out, width, 1)
            if few_outputs(n_in, n_out, VECTOR_BYTES // scratch.size):
                W_t = matrix(theta_t, net.starts[k], n_in, 1)
                dot_products(scratch, OVERWRITE, z, a, W_t, i1 - i0, n_out, n_in)
            else:
                W = matrix(theta, net.starts[k], n_out, 1)
                matmul(scratch, OVERWRITE, z, a, W, i1 - i0, n_out, n_in)
        layer = work.a[start:stop]
        saves = net.saves[k] if work.saved.size > 0 else SAVE_NOTHING
        saved_start = work.d_starts[k + 1] + i0 * width
        if saves == SAVE_INPUTS:
            copy(work.saved[saved_start:], layer)
        activate(net.activations[k], net.constants[k], layer, width)
        if saves == SAVE_ACTIVATIONS:
            copy(work.saved[saved_start:], layer)
        if net.dropout[k] > 0.0 and work.d.size > 0:  # prediction, without deltas, drops nothing
            drop(layer, width, net.dropout[k], net.seed, t, k, first + i0)
        if width > n_out:
            for i in range(start, stop, width):
                work.a[i] = scratch.like + 1


@section
def output_error(net, data, rows, first, work, i0, i1):
    """Loss of each example, and dC/dz of the output layer if the activation belongs to the loss,
    otherwise dC/da; all times the example's weight."""
    last = net.units.size - 1
    width = net.units[last]
    a = work.a[work.a_starts[last] + i0 * width : work.a_starts[last] + i1 * width]
    d = work.d[work.d_starts[last] + i0 * width : work.d_starts[last] + i1 * width]
    per_row = 1 if data.codes.size > 0 else width
    y = work.y[i0 * per_row : i1 * per_row]
    gather_targets(data.codes, data.targets, rows, first + i0, y)
    constants = net.loss_constants
    smooth(net.loss, constants, y)
    row_losses(net.loss, constants, work.row_loss[i0:i1], d, a, y, width)
    if net.canonical:
        output_delta(net.loss, constants, d, a, y, width)
    else:
        loss_slope(net.loss, constants, d, a, y, width)
    if data.weights.size > 0:
        for i in range(i0, i1):
            weight = data.weights[rows[first + i]]
            work.row_loss[i] *= weight
            for k in range(width):
                d[(i - i0) * width + k] *= weight


@section
def propagate_delta(net, theta_t, work, thread, first, i0, i1, t):
    """delta^(l) <- (delta^(l+1) W^T) * sigma'(z^(l)), from the output to the first hidden layer."""
    scratch = scratch_of(work.packed, thread)
    last = net.units.size - 1
    for k in range(last - net.canonical, 0, -1):  # the output's is dC/dz already, or dC/da
        width = work.widths[k]
        start, stop = i0 * width, i1 * width
        if k < last:
            n_in, n_out = net.units[k], net.units[k + 1]
            above_width = work.widths[k + 1]
            above_start = work.d_starts[k + 1] + (i0 + 1) * above_width - n_out
            above = matrix(work.d, above_start, above_width, 1)
            below = matrix(work.d, work.d_starts[k] + start + 1, width, 1)
            W_t = matrix(theta_t, net.starts[k] + 1, n_in + 1, 1)
            matmul(scratch, OVERWRITE, below, above, W_t, i1 - i0, n_in, n_out)
        d = work.d[work.d_starts[k] + start : work.d_starts[k] + stop]
        a = work.a[work.a_starts[k] + start : work.a_starts[k] + stop]
        if net.saves[k - 1] != SAVE_NOTHING:
            a = work.saved[work.d_starts[k] + start : work.d_starts[k] + stop]
        multiply_by_slope(net.activations[k - 1], net.constants[k - 1], d, a, width)
        if net.dropout[k - 1] > 0.0:
            drop(d, width, net.dropout[k - 1], net.seed, t, k - 1, first + i0)


@section
def gradient_of(gradient, packed, chunk, thread, passing):
    """The place for a chunk's gradient: its own, or if ``passing`` one that stays in the cache."""
    if passing:
        return packed[thread, packed.shape[1] - (chunk.stop - chunk.start) :]
    return gradient[chunk.start : chunk.stop]


@section
def accumulate_gradient(net, g, data, rows, first, work, thread, chunk, i0, i1, fresh, restart):
    """d[b; W] <- (d[b; W] +) [1 a]^T delta for one chunk of rows, over examples i0..i1.

    ``fresh``: the first block of a mini-batch, which starts from zero. ``restart``: the thread's
    first chunk of the block.
    """
    k, r0, r1 = chunk.layer, chunk.first_row, chunk.last_row
    n_out = net.units[k + 1]
    if k == 0 and data.row_starts.size > 0:
        if fresh:
            for i in range(g.size):
                g[i] = 0
        sparse_gradient(net, g, data, rows, first, work, thread, r0, r1, i0, i1, restart)
        return
    scratch = scratch_of(work.packed, thread)
    add = OVERWRITE if fresh else ADD
    M = r1 - r0
    a_width, d_width = work.widths[k], work.widths[k + 1]
    a_first = work.a_starts[k] + i0 * a_width + r0
    d_first = work.d_starts[k + 1] + (i0 + 1) * d_width - n_out
    B = i1 - i0
    if few_outputs(M, n_out, VECTOR_BYTES // scratch.size):
        # Vectors along the inputs: the transpose is formed, and turned unless it is one row.
        turned = matrix(work.packed[thread, PACKED_BYTES // scratch.size :], 0, M, 1)
        if n_out == 1:
            turned = matrix(g, 0, M, 1)
        elif not fresh:
            transpose(scratch, turned, matrix(g, 0, n_out, 1), M, n_out)
        a = matrix(work.a, a_first, a_width, 1)
        delta_t = matrix(work.d, d_first, 1, d_width)
        matmul(scratch, add, turned, delta_t, a, n_out, M, B)
        if n_out > 1:
            transpose(scratch, matrix(g, 0, n_out, 1), turned, n_out, M)
    else:
        a_t = matrix(work.a, a_first, 1, a_width)
        delta = matrix(work.d, d_first, d_width, 1)
        matmul(scratch, add, matrix(g, 0, n_out, 1), a_t, delta, M, n_out, B)


@leaf
def add_parts(g, parts, start):
    """g <- the sum of the parts of a gradient, each ``(n_params,)``, in their order."""
    for i in range(g.size):
        g[i] = 0
    for part in range(parts.shape[0]):
        p = parts[part, start : start + g.size]
        for i in range(g.size):
            g[i] += p[i]


@section
def norm_of_chunk(params, g, alpha, chunk):
    """The chunk's part of the squared norm of the gradient sum with its penalty."""
    start, weights, stop = chunk.start, chunk.weights, chunk.stop
    biases = weights - start
    T = g.dtype.type
    norm = squared_norm(params.theta[start:weights], g[:biases], T(0))
    return norm + squared_norm(params.theta[weights:stop], g[biases:], T(alpha))


@section
def update_chunk(net, params, g, packed, rule, c, thread, chunk, scale):
    """Update a chunk and its transpose; returns the sum of its squared weights."""
    start, weights, stop = chunk.start, chunk.weights, chunk.stop
    alpha, is_bias = 0.0, True  # biases are not penalised
    squares = 0.0
    for first, last in ((start, weights), (weights, stop)):
        w = params.theta[first:last]
        part = g[first - start : last - start]
        squares = update(rule.code, c, w, part, params.state, first, last, alpha, scale, is_bias)
        alpha, is_bias = rule.alpha, False
    transpose_chunk(net, params, chunk, packed, thread)
    return squares


@leaf
def transpose_chunk(net, params, chunk, packed, thread):
    """Write the rows of the chunk into the columns of theta_t."""
    k, r0, r1 = chunk.layer, chunk.first_row, chunk.last_row
    theta, theta_t = params.theta, params.theta_t
    units, starts = net.units, net.starts
    n_in, n_out = units[k] + 1, units[k + 1]
    if k > 0 or few_outputs(n_in, n_out, VECTOR_BYTES // theta.itemsize):
        start = starts[k] + r0
        if n_out == 1:
            w, w_t = theta[start : start + r1 - r0], theta_t[start : start + r1 - r0]
            for i in range(w.size):
                w_t[i] = w[i]
        else:
            w = matrix(theta, starts[k] + r0 * n_out, n_out, 1)
            w_t = matrix(theta_t, start, n_in, 1)
            transpose(scratch_of(packed, thread), w_t, w, r1 - r0, n_out)
