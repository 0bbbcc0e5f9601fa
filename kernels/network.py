"""The algorithm of the notes, for a block of examples: the page to open first.

Phase 1 works on rows (examples), phase 2 on parameters; each number is computed by one thread, in
an order that does not depend on the number of threads::

                 phase 1: rows                    phase 2: parameters
    thread 0     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
    thread 1     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
                                          barrier                                         barrier
"""

import numpy as np

from .activations import activate, multiply_by_slope
from .jit import leaf
from .layout import a_start, d_start, is_sparse
from .losses import output_delta, row_losses
from .matmul import address, matmul
from .rules import update


@leaf
def gather(data, rows, first, work, units, i0, i1):
    """Copy examples rows[first + i0 .. first + i1] into the input layer of the block (dense X)."""
    n_in = units[0]
    for i in range(i0, i1):
        row = rows[first + i]
        for j in range(n_in):
            work.a[i * n_in + j] = data.X[row, j]


@leaf
def gather_targets(data, rows, first, work, width, i0, i1):
    """Copy targets and weights of the examples; a binary class becomes 0 or 1."""
    T = work.y.dtype.type
    has_codes = data.codes.size > 0
    for i in range(i0, i1):
        row = rows[first + i]
        if has_codes:
            work.y[i] = T(data.codes[row])
        else:
            for k in range(width):
                work.y[i * width + k] = data.targets[row, k]
        work.row_weight[i] = data.weights[row] if data.weights.size > 0 else T(1)


@leaf
def sparse_affine(net, theta, data, rows, first, work, i0, i1):
    """z <- b + x W of the first layer for CSR rows."""
    n_out = net.units[1]
    z = a_start(work, 1)
    for i in range(i0, i1):
        row = rows[first + i]
        for j in range(n_out):
            work.a[z + i * n_out + j] = theta[j]
        for e in range(data.row_starts[row], data.row_starts[row + 1]):
            x = data.values[e]
            w = (np.int64(data.columns[e]) + 1) * n_out
            for j in range(n_out):
                work.a[z + i * n_out + j] += x * theta[w + j]


@leaf
def feedforward(net, theta, data, rows, first, work, i0, i1):
    """a^(l+1) <- sigma(theta^(l) a^(l)) through all layers, for examples i0..i1 of the block."""
    zero = work.a.dtype.type(0)
    size = work.a.itemsize
    if not is_sparse(data):
        gather(data, rows, first, work, net.units, i0, i1)
    for k in range(net.units.size - 1):
        n_in, n_out = net.units[k], net.units[k + 1]
        start = a_start(work, k + 1) + i0 * n_out
        stop = a_start(work, k + 1) + i1 * n_out
        if k == 0 and is_sparse(data):
            sparse_affine(net, theta, data, rows, first, work, i0, i1)
        else:
            b = address(theta, net.starts[k])
            z = address(work.a, start)
            a = address(work.a, a_start(work, k) + i0 * n_in)
            W = b + n_out * size
            matmul(zero, size, z, n_out, b, 0, a, n_in, 1, W, n_out, i1 - i0, n_out, n_in)
        activate(net.activations[k], work.a, start, stop, n_out)


@leaf
def output_error(net, data, rows, first, work, i0, i1):
    """Loss of each example and the delta of the output layer, both times the example's weight."""
    last = net.units.size - 1
    width = net.units[last]
    a, d = a_start(work, last), d_start(work, last)
    gather_targets(data, rows, first, work, width, i0, i1)
    row_losses(net.loss, work.row_loss, work.a, a, work.y, width, i0, i1)
    output_delta(net.loss, work.d, d, work.a, a, work.y, width, i0, i1)
    if data.weights.size > 0:
        for i in range(i0, i1):
            weight = work.row_weight[i]
            work.row_loss[i] *= weight
            for k in range(width):
                work.d[d + i * width + k] *= weight


@leaf
def propagate_delta(net, theta_t, work, i0, i1):
    """delta^(l) <- (delta^(l+1) W^T) * sigma'(z^(l)), from the output to the first hidden layer."""
    zero = work.a.dtype.type(0)
    size = work.a.itemsize
    for k in range(net.units.size - 2, 0, -1):
        n_in, n_out = net.units[k], net.units[k + 1]
        d = d_start(work, k) + i0 * n_in
        above = address(work.d, d_start(work, k + 1) + i0 * n_out)
        W_t = address(theta_t, net.starts[k])
        out = address(work.d, d)
        matmul(zero, size, out, n_in, 0, 0, above, n_out, 1, W_t, n_in, i1 - i0, n_in, n_out)
        start, stop = a_start(work, k) + i0 * n_in, a_start(work, k) + i1 * n_in
        multiply_by_slope(net.activations[k - 1], work.d, d, work.a, start, stop)


@leaf
def sparse_gradient(net, gradient, data, rows, first, work, thread, r0, r1, B, restart):
    """Add x_j delta_k to the gradient of features r0..r1, example by example.

    ``restart``: find r0 in each CSR row; otherwise it is where the thread's last chunk ended.
    """
    n_out = net.units[1]
    d = d_start(work, 1)
    for i in range(B):
        row = rows[first + i]
        stop = data.row_starts[row + 1]
        if restart:
            low, high = data.row_starts[row], stop
            while low < high:
                middle = (low + high) // 2
                if data.columns[middle] < r0:
                    low = middle + 1
                else:
                    high = middle
        else:
            low = work.cursors[thread, i]
        while low < stop and data.columns[low] < r1:
            x = data.values[low]
            g = (np.int64(data.columns[low]) + 1) * n_out
            for j in range(n_out):
                gradient[g + j] += x * work.d[d + i * n_out + j]
            low += 1
        work.cursors[thread, i] = low


@leaf
def accumulate_gradient(net, gradient, data, rows, first, work, ones, thread, chunk, B, fresh):
    """dC/dW <- (dC/dW +) A^T delta for one chunk; its layer's biases with the first chunk.

    ``fresh``: the first block of a mini-batch, which starts from zero. ``ones``: a 1, as an array.
    """
    zero = work.a.dtype.type(0)
    size = work.a.itemsize
    k, r0, r1 = work.chunks[chunk, 0], work.chunks[chunk, 1], work.chunks[chunk, 2]
    n_in, n_out = net.units[k], net.units[k + 1]
    delta = address(work.d, d_start(work, k + 1))
    if r0 == 0:
        g = address(gradient, net.starts[k])
        init = 0 if fresh else g
        one = address(ones, 0)
        matmul(zero, size, g, n_out, init, n_out, one, 0, 0, delta, n_out, 1, n_out, B)
    at = net.starts[k] + (1 + r0) * n_out
    if k == 0 and is_sparse(data):
        if fresh:
            for i in range(at, at + (r1 - r0) * n_out):
                gradient[i] = zero
        restart = chunk == work.shares[thread]
        sparse_gradient(net, gradient, data, rows, first, work, thread, r0, r1, B, restart)
    else:
        g = address(gradient, at)
        init = 0 if fresh else g
        a = address(work.a, a_start(work, k) + r0)
        matmul(zero, size, g, n_out, init, n_out, a, 1, n_in, delta, n_out, r1 - r0, n_out, B)


@leaf
def update_chunk(net, params, work, rule, chunk, total_weight, t):
    """Sum the chunk's squared weights for the penalty, then update the chunk and its transpose."""
    k, r0, r1 = work.chunks[chunk, 0], work.chunks[chunk, 1], work.chunks[chunk, 2]
    n_out = net.units[k + 1]
    start = net.starts[k] + (1 + r0) * n_out
    stop = net.starts[k] + (1 + r1) * n_out
    theta, gradient, state = params.theta, params.gradient, params.state
    squares = 0.0
    for i in range(start, stop):
        squares += np.float64(theta[i]) * np.float64(theta[i])
    work.squares[chunk] = squares
    if r0 == 0:
        bias = net.starts[k]
        update(rule, theta, gradient, state, bias, bias + n_out, 0.0, total_weight, t)
    update(rule, theta, gradient, state, start, stop, rule.alpha, total_weight, t)
    transpose_chunk(net, params.theta, params.theta_t, work, chunk)


@leaf
def transpose_chunk(net, theta, theta_t, work, chunk):
    """Write the chunk of W into W^T, which delta propagation reads; the first layer has none."""
    k, r0, r1 = work.chunks[chunk, 0], work.chunks[chunk, 1], work.chunks[chunk, 2]
    if k > 0:
        n_in, n_out = net.units[k], net.units[k + 1]
        W = net.starts[k] + n_out
        for j in range(n_out):
            for i in range(r0, r1):
                theta_t[net.starts[k] + j * n_in + i] = theta[W + i * n_out + j]
