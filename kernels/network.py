"""The algorithm of the notes, for the examples of a micro-batch: the page to open first.

Phase 1 works on rows (examples), phase 2 on parameters; each number is computed by one thread, in
an order that does not depend on the number of threads::

                 phase 1: rows                    phase 2: parameters
    thread 0     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
    thread 1     x -> a -> ... -> C, then d  |    dC/dtheta of its chunks over all rows, update
                                          barrier                                         barrier

Here is what is done with one part of the rows, and with one chunk of the parameters. ``plan`` says
who does what: with few parameters, for example, two threads sum the gradients of their rows in
phase 1, and each updates its own copy of all parameters in phase 2.
"""

from .activations import RELU, activate, activate_with_slopes, multiply_by_slope
from .dropout import drop, scale_up
from .inputs import (
    gather,
    is_sparse,
    rows_to_update,
    sparse_affine,
    sparse_gradient,
    sum_rows,
)
from .jit import leaf, section, shared
from .losses import loss_slope, output_delta, row_losses, smooth
from .machine import VECTOR_BYTES
from .matmul import (
    ADD,
    OVERWRITE,
    Scratch,
    address,
    dot_products,
    few_outputs,
    matmul,
    matrix,
    pack_panels,
    panel_columns,
    scratch_of,
    transpose,
)
from .rules import squared_norm, update
from .tiles import NOTHING, RECTIFY


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
def multiply(d, slopes):
    for i in range(d.size):
        d[i] *= slopes[i]


@leaf
def feedforward(net, theta, theta_t, data, work, part):
    """a^(l+1) <- sigma(theta^(l) a^(l)) through all layers, for a part of the examples."""
    scratch = scratch_of(work.packed, part.thread)
    i0, i1, training = part.i0, part.i1, part.t > 0
    M = i1 - i0
    sparse = is_sparse(data)
    if sparse:
        sparse_affine(net, theta, theta_t, data, work, part)
    else:
        width = work.places[0].width
        gather(data, part.rows, part.first, work.a, width, work.capacity, i0, i1)
    for k in range(net.layers.size):
        layer, below, here = net.layers[k], work.places[k], work.places[k + 1]
        n_in, n_out, width = layer.n_in + 1, layer.n_out, here.width  # n_in with the 1
        start, stop = here.a + i0 * width, here.a + i1 * width
        rectified = False
        if k > 0 or not sparse:
            # z goes to where a will be, behind the 1 of each row if there is one.
            a = matrix(work.a, below.a + i0 * below.width, below.width, 1)
            z = matrix(work.a, start + width - n_out, width, 1)
            if few_outputs(n_in, n_out, VECTOR_BYTES // scratch.size):
                # Vectors along the inputs, as a row of z is too short for them.
                W_t = matrix(theta_t, layer.start, n_in, 1)
                dot_products(scratch, OVERWRITE, z, a, W_t, M, n_out, n_in)
            else:
                W = matrix(theta, layer.start, n_out, 1)
                rectified = layer.activation == RELU
                then = RECTIFY if rectified else NOTHING
                matmul(scratch, OVERWRITE, then, z, a, W, M, n_out, n_in)
        rows = work.a[start:stop]
        slopes = work.saved[:0]
        # Prediction saves nothing and drops nothing.
        if training and layer.saves:
            slopes = work.saved[here.d + i0 * width : here.d + i1 * width]
            activate_with_slopes(layer.activation, layer.constants, rows, slopes, width)
        elif not rectified:
            activate(layer.activation, layer.constants, rows, width)
        if training and layer.dropout > 0.0:
            first = part.first + i0
            drop(rows, slopes, width, layer.dropout, net.seed, part.t, k, first)
        if width > n_out:
            # The bias unit a_0: activations were computed of all numbers in a row, so it is
            # set to 1 again.
            for i in range(start, stop, width):
                work.a[i] = work.a.dtype.type(1)


@section
def output_error(net, data, work, part):
    """Loss of each example, and dC/dz of the output layer if the activation belongs to the loss,
    otherwise dC/da; all times the example's weight."""
    i0, i1 = part.i0, part.i1
    place = work.places[net.layers.size]
    width = place.width
    a = work.a[place.a + i0 * width : place.a + i1 * width]
    d = work.d[place.d + i0 * width : place.d + i1 * width]
    per_row = 1 if data.codes.size > 0 else width
    y = work.y[i0 * per_row : i1 * per_row]
    # d is scratch for the terms of the loss before it becomes the delta.
    gather_targets(data.codes, data.targets, part.rows, part.first + i0, y)
    constants = net.loss_constants
    smooth(net.loss, constants, y)
    loss = work.row_loss[part.losses + i0 : part.losses + i1]
    row_losses(net.loss, constants, loss, d, a, y, width)
    if net.canonical:
        output_delta(net.loss, constants, d, a, y, width)
    else:
        loss_slope(net.loss, constants, d, a, y, width)
    if data.weights.size > 0:
        for i in range(i1 - i0):
            weight = data.weights[part.rows[part.first + i0 + i]]
            loss[i] *= weight
            for k in range(width):
                d[i * width + k] *= weight


@section
def propagate_delta(net, theta_t, work, part):
    """delta^(l) <- (delta^(l+1) W^T) * sigma'(z^(l)), from the output to the first hidden layer."""
    scratch = scratch_of(work.packed, part.thread)
    i0, i1 = part.i0, part.i1
    last = net.layers.size
    # Layer k - 1 leads to units k, layer k leads on from them. The output's d is dC/dz already if
    # its activation belongs to the loss; otherwise it is dC/da, and still lacks the slope.
    top = last - 1 if net.canonical else last
    for k in range(top, 0, -1):
        here = work.places[k]
        width = here.width
        start, stop = here.d + i0 * width, here.d + i1 * width
        rectified = net.layers[k - 1].activation == RELU and k < last
        if k < last:
            layer, above = net.layers[k], work.places[k + 1]
            n_in, n_out = layer.n_in, layer.n_out
            delta = matrix(work.d, above.d + (i0 + 1) * above.width - n_out, above.width, 1)
            below = matrix(work.d, start + 1, width, 1)
            W_t = matrix(theta_t, layer.start + 1, n_in + 1, 1)  # without the biases
            then = address(work.a, here.a) - address(work.d, here.d) if rectified else NOTHING
            matmul(scratch, OVERWRITE, then, below, delta, W_t, i1 - i0, n_in, n_out)
        layer = net.layers[k - 1]
        d = work.d[start:stop]
        if layer.saves:
            multiply(d, work.saved[start:stop])
        elif not rectified:
            a = work.a[here.a + i0 * width : here.a + i1 * width]
            multiply_by_slope(layer.activation, layer.constants, d, a, width)
        # Of ReLU: units that were dropped have no slope.
        if layer.dropout > 0.0 and not layer.saves:
            scale_up(d, layer.dropout)


@section
def accumulate_gradient(net, data, work, part, chunk, g, fresh, restart, lazy, whole):
    """g <- (g +) [1 a]^T delta for a chunk, summed over a part of the examples.

    ``fresh``: the first micro-batch of a mini-batch, which starts from zero. ``restart``: the first
    chunk of this layer that the thread goes through. The rest: see ``sparse_gradient``.
    """
    k, n_out = chunk.layer, net.layers[chunk.layer].n_out
    if k == 0 and is_sparse(data):
        sparse_gradient(net, g, data, work, part, chunk, fresh, restart, lazy, whole)
        return
    scratch = scratch_of(work.packed, part.thread)
    add = OVERWRITE if fresh else ADD
    M, B = chunk.last_row - chunk.first_row, part.i1 - part.i0
    below, above = work.places[k], work.places[k + 1]
    a_first = below.a + part.i0 * below.width + chunk.first_row
    d_first = above.d + (part.i0 + 1) * above.width - n_out
    if few_outputs(M, n_out, VECTOR_BYTES // scratch.size):
        # Vectors along the inputs: the transpose is formed, and turned unless it is one row.
        turned = matrix(work.packed[part.thread], work.packed.shape[1] - 2 * g.size, M, 1)
        if n_out == 1:
            turned = matrix(g, 0, M, 1)
        elif not fresh:
            transpose(scratch, turned, matrix(g, 0, n_out, 1), M, n_out)
        a = matrix(work.a, a_first, below.width, 1)
        delta_t = matrix(work.d, d_first, 1, above.width)
        matmul(scratch, add, NOTHING, turned, delta_t, a, n_out, M, B)
        if n_out > 1:
            transpose(scratch, matrix(g, 0, n_out, 1), turned, n_out, M)
    else:
        # The transposes are views: strides exchanged.
        a_t = matrix(work.a, a_first, 1, below.width)
        delta = matrix(work.d, d_first, above.width, 1)
        columns = panel_columns(n_out, scratch.size)
        if chunk.shares and columns > 0:
            panels = address(work.panels[part.thread], part.i0 * columns)
            if restart:
                pack_panels(scratch, panels, delta, B, n_out)
            scratch = Scratch(scratch.like, scratch.size, scratch.packed, panels)
        matmul(scratch, add, NOTHING, matrix(g, 0, n_out, 1), a_t, delta, M, n_out, B)


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
def norm_of_chunk(net, params, work, chunk, g, rule, t):
    """The chunk's part of the squared norm of the gradient sum with its penalty."""
    n_out, norm, row = net.layers[chunk.layer].n_out, 0.0, chunk.first_row
    T = g.dtype.type
    while row < chunk.last_row:
        first, last = rows_to_update(rule, work, chunk, row, t)
        i, j = (first - chunk.first_row) * n_out, (last - chunk.first_row) * n_out
        w = params.theta[chunk.start + i : chunk.start + j]
        norm += squared_norm(w, g[i:j], T(0.0 if row == 0 else rule.alpha))
        row = last
    return norm


@section
def update_chunk(net, data, params, work, chunk, g, rule, c, scale, t, scratch):
    """Update a chunk and its transpose; returns the sum of its squared weights."""
    # What comes of biases, which come first, is forgotten: they are not penalised. One loop: Numba
    # would inline a second call as a second copy.
    n_out, squares, row = net.layers[chunk.layer].n_out, 0.0, chunk.first_row
    while row < chunk.last_row:
        first, last = rows_to_update(rule, work, chunk, row, t)
        i, j = (first - chunk.first_row) * n_out, (last - chunk.first_row) * n_out
        at = chunk.start + i
        w = params.theta[at : chunk.start + j]
        of_rows = update(rule, c, w, g[i:j], params.state, at, scale, row == 0)
        squares += 0.0 if row == 0 else of_rows
        row = last
    transpose_chunk(net, data, params, chunk, scratch)
    return squares


@leaf
def transpose_chunk(net, data, params, chunk, scratch):
    """Write the rows of the chunk into the columns of theta_t, where anyone reads them there."""
    theta, theta_t = params.theta, params.theta_t
    layer, first_row = net.layers[chunk.layer], chunk.first_row
    n_in, n_out, n_rows = layer.n_in + 1, layer.n_out, chunk.last_row - chunk.first_row
    if chunk.layer == 0 and is_sparse(data):
        if data.continued.size > 0:
            sum_rows(data.continued, theta_t, theta, chunk.start, first_row, chunk.last_row, n_out)
        return
    # Delta propagation reads all layers but the first, the forward pass those of few outputs.
    if chunk.layer > 0 or few_outputs(n_in, n_out, VECTOR_BYTES // theta.itemsize):
        start = layer.start + first_row
        if n_out == 1:
            w, w_t = theta[start : start + n_rows], theta_t[start : start + n_rows]
            for i in range(w.size):
                w_t[i] = w[i]
        else:
            w = matrix(theta, chunk.start, n_out, 1)
            w_t = matrix(theta_t, start, n_in, 1)
            transpose(scratch, w_t, w, n_rows, n_out)
