"""The first layer, whose inputs are what users give: dense rows or CSR.

Dense examples are copied to the input units of the scratch. Of CSR rows, the entries alone are
read: where they are on the way forward, and for the gradient sorted by column, by each thread those
of its own columns. Both are one sum, of rows of W and of rows of delta::

    z_i = b + sum of x_if W_f  over the entries of example i
    g_f =     sum of x_if d_i  over the entries of feature f, example by example

All is standardised as it is read: no second X is made.

A number in bins is such a row, too. With the values of a piecewise linear function at its knots as
weights, it has two entries: 1 - f at the knot below, f at the one above. With the differences
between knots as weights, the code of a number is 1, ..., 1, f, 0, ..., and its product with W the
same two entries times *sums* of rows. These are kept in theta_t, and made anew by each update; the
gradient by the sums becomes that by the rows once in a mini-batch: ``data.continued``.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import emitted
from .jit import leaf, shared
from .machine import CACHE_LINE, prefetch
from .matmul import address

_I32 = ir.IntType(32)


@leaf
def prefetch_row(row):
    """Ask for an array that will be read soon, so that it is in the cache by then."""
    at = np.intp(row.ctypes.data)
    for offset in range(0, row.size * row.itemsize, CACHE_LINE):
        prefetch(at + offset)


@leaf
def gather(data, rows, first, a, width, capacity, i0, i1):
    """Copy examples rows[first + i0 .. first + i1] to the input units (dense X)."""
    X, means, scales = data.X, data.means, data.scales
    for i in range(i0, i1):
        inputs = a[i * width + 1 : (i + 1) * width]
        x = X[rows[first + i]]
        if scales.size > 0:
            for j in range(inputs.size):
                inputs[j] = (x[j] - means[j]) / scales[j]
        else:
            for j in range(inputs.size):
                inputs[j] = x[j]
        following = first + i + capacity  # the same place in the next mini-batch
        if following < rows.size:
            prefetch_row(X[rows[following]])


@leaf
def padded(n, itemsize):
    """``n`` numbers and what there is to the end of the last cache line."""
    line = CACHE_LINE // itemsize
    return (n + line - 1) // line * line


@leaf
def is_sparse(data):
    return data.row_starts.size > 0


@leaf
def scaled(data, e):
    """Entry e of the CSR arrays, as training sees it."""
    x = data.values[e]
    return x / data.scales[data.columns[e]] if data.scales.size > 0 else x


def _emit_weighted_rows(emit, out, first, rows, stride, indices, values, scales, count, n):
    """out <- first + the sum of values[e] times row indices[e], over ``count`` entries e.

    Each row has n numbers, of which as many as registers take are summed in one go. ``first``: 0
    for none. ``scales``: what a value is divided by, by its index; 0 for none.
    """
    builder, none = emit.builder, emit.integer(0)
    begins = builder.icmp_signed("!=", first, none)
    divides = builder.icmp_signed("!=", scales, none)
    row_bytes = builder.mul(stride, emit.integer(emit.size))

    def number(at):
        value = builder.load(emit.scalar(at))
        value.align = emit.size
        return value

    def columns(vectors, masked, following):
        """The sums of so many vectors of columns."""
        offset, left = following
        masks = [emit.mask(j, left) if masked else None for j in range(vectors)]
        at_first, at_rows, at_out = (builder.add(at, offset) for at in (first, rows, out))

        def entry(following):
            at_index, at_value, *sums = following
            index = builder.load(builder.inttoptr(at_index, _I32.as_pointer()))
            index = builder.sext(index, offset.type)
            row = builder.add(at_rows, builder.mul(index, row_bytes))
            x = number(at_value)
            [x] = emit.choose(
                divides, lambda: [builder.fdiv(x, number(emit.element(scales, index)))], [x]
            )
            b = [emit.load(row, j, masks[j]) for j in range(vectors)]
            sums = emit.accumulate(sums, [emit.splat(x)], b)
            step, size = emit.integer(4), emit.integer(emit.size)
            return [builder.add(at_index, step), builder.add(at_value, size), *sums]

        sums = emit.choose(
            begins,
            lambda: [emit.load(at_first, j, masks[j]) for j in range(vectors)],
            [emit.zero] * vectors,
        )
        _, _, *sums = emit.loop(count, [indices, values, *sums], entry)
        if masked:
            emit.store_part([sums], at_out, none, emit.integer(1), left)
        else:
            for j, value in enumerate(sums):
                emit.store(value, at_out, j)
        done = vectors * emit.lanes
        return [
            builder.add(offset, emit.integer(done * emit.size)),
            builder.sub(left, emit.integer(done)),
        ]

    following = [none, n]
    for vectors, masked in ((8, False), (4, False), (2, True)):
        width = vectors * emit.lanes
        whole = builder.add(following[1], emit.integer(width - 1 if masked else 0))
        times = builder.sdiv(whole, emit.integer(width))
        following = emit.loop(times, following, lambda f, v=vectors, m=masked: columns(v, m, f))


_codegen_weighted_rows = emitted("weighted_rows", _emit_weighted_rows, 9)


@intrinsic
def weighted_rows(typingctx, like, out, first, rows, stride, indices, values, scales, count, n):
    return types.void(like, *[types.intp] * 9), _codegen_weighted_rows


@shared
def sparse_affine(net, theta, theta_t, data, work, part):
    """z <- b + x W of the first layer for CSR rows."""
    n_out, place = net.layers[0].n_out, work.places[1]
    rows = address(theta_t if data.continued.size > 0 else theta, n_out)
    scales = address(data.scales, 0) if data.scales.size > 0 else 0
    for i in range(part.i0, part.i1):
        row = part.rows[part.first + i]
        begin, end = data.row_starts[row], data.row_starts[row + 1]
        # Only rows of hidden units begin with a 1: count from the end of the row.
        weighted_rows(
            theta.dtype.type(0),
            address(work.a, place.a + (i + 1) * place.width - n_out),
            address(theta, 0),
            rows,
            n_out,
            address(data.columns, begin),
            address(data.values, begin),
            scales,
            end - begin,
            n_out,
        )


@leaf
def first_entry(data, row, column):
    """The first entry of a CSR row that is in ``column`` or behind it."""
    low, high = data.row_starts[row], data.row_starts[row + 1]
    while column > 0 and low < high:
        middle = (low + high) // 2
        if data.columns[middle] < column:
            low = middle + 1
        else:
            high = middle
    return low


@shared
def sort_entries(net, data, work, part, chunks):
    """Sort a part's entries in the columns of ``chunks`` by column, examples in their order.

    They lie in ``work.examples`` and ``work.values`` of the thread, those of a column up to its
    place in ``work.ends``. Each delta is read for many of them: those that are together fill no
    more cache lines than they have to in ``work.deltas``, a copy.
    """
    first, last = chunks[0], chunks[chunks.size - 1]
    if first.layer > 0:
        return
    # Row 0 of [b; W] is the biases', row 1 is that of feature 0.
    f0, f1 = max(0, first.first_row - 1), work.ends.shape[1]
    if last.layer == 0:
        f1 = last.last_row - 1
    n_out, place = net.layers[0].n_out, work.places[1]
    stride = padded(n_out, work.d.itemsize)
    for i in range(part.i0, part.i1):
        start = place.d + (i + 1) * place.width - n_out
        d, to = work.d[start : start + n_out], work.deltas[part.thread, i * stride :]
        for j in range(n_out):
            to[j] = d[j]
    ends = work.ends[part.thread]
    examples, values = work.examples[part.thread], work.values[part.thread]
    for f in range(f0, f1):
        ends[f] = 0
    for i in range(part.i0, part.i1):
        row = part.rows[part.first + i]
        e, stop = first_entry(data, row, f0), data.row_starts[row + 1]
        while e < stop and data.columns[e] < f1:
            ends[data.columns[e]] += 1
            e += 1
    total = 0
    for f in range(f0, f1):
        count = ends[f]
        ends[f] = total
        total += count
    for i in range(part.i0, part.i1):
        row = part.rows[part.first + i]
        e, stop = first_entry(data, row, f0), data.row_starts[row + 1]
        while e < stop and data.columns[e] < f1:
            at = ends[data.columns[e]]
            ends[data.columns[e]] = at + 1
            examples[at], values[at] = i, scaled(data, e)
            e += 1


@shared
def sparse_gradient(net, g, work, part, chunk, fresh, restart, lazy):
    """g <- (g +) x^T delta for a chunk of the first layer, by the entries that are sorted.

    Parameters
    ----------
    fresh : whether to start from zero
    restart : whether the chunk is the first of those that entries were sorted for
    lazy : whether only rows of g matter that the mini-batch touches
    """
    n_out, first_row = net.layers[0].n_out, chunk.first_row
    stride, deltas = padded(n_out, g.itemsize), work.deltas[part.thread]
    if fresh:
        for j in range(n_out if lazy else g.size):
            g[j] = 0
    if first_row == 0:
        for i in range(part.i0, part.i1):
            d = deltas[i * stride : i * stride + n_out]
            for j in range(n_out):
                g[j] += d[j]
    f0, f1, ends = max(0, first_row - 1), chunk.last_row - 1, work.ends[part.thread]
    begin = 0 if restart else ends[f0 - 1]
    if f0 == f1 or begin == ends[f1 - 1]:
        return
    for f in range(f0, f1):
        end = ends[f]
        if end > begin:
            at_g = address(g, (f + 1 - first_row) * n_out)
            if lazy:
                fresh = work.touched[f] != part.t
            work.touched[f] = part.t
            weighted_rows(
                g.dtype.type(0),
                at_g,
                0 if fresh else at_g,
                address(deltas, 0),
                stride,
                address(work.examples, part.thread * work.examples.shape[1] + begin),
                address(work.values, part.thread * work.values.shape[1] + begin),
                0,
                end - begin,
                n_out,
            )
            begin = end


@shared
def sum_rows(data, sums, theta, chunk, n_out):
    """Sums of the rows of W in a chunk, each of a row and all that it continues."""
    for row in range(max(1, chunk.first_row), chunk.last_row):
        at = chunk.start + (row - chunk.first_row) * n_out
        w, s = theta[at : at + n_out], sums[at : at + n_out]
        if data.continued[row - 1]:
            above = sums[at - n_out : at]
            for j in range(n_out):
                s[j] = above[j] + w[j]
        else:
            for j in range(n_out):
                s[j] = w[j]


@shared
def sum_gradient(data, g, chunk, n_out):
    """From dC/d of these sums to dC/dW: a row is in its own sum, and in all that continue it."""
    for row in range(chunk.last_row - 1, max(1, chunk.first_row), -1):
        if data.continued[row - 1]:
            at = (row - chunk.first_row) * n_out
            of_sum, above = g[at : at + n_out], g[at - n_out : at]
            for j in range(n_out):
                above[j] += of_sum[j]


@leaf
def rows_to_update(rule, work, chunk, row, t):
    """The next rows of a chunk, from ``row`` on, that are updated at once: first, and behind last.

    The biases, and then all weights; or of those that update ``t`` touches, as many as follow each
    other.
    """
    first, last = row, chunk.last_row
    if row == 0:
        last = 1
    elif rule.lazy and chunk.layer == 0:
        while first < chunk.last_row and work.touched[first - 1] != t:
            first += 1
        last = first
        while last < chunk.last_row and work.touched[last - 1] == t:
            last += 1
    return first, last
