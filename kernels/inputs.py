"""The first layer, whose inputs are what users give: dense rows or CSR.

Dense examples are copied to the input units of the scratch. Of CSR rows, the entries alone are
read where they are, on the way forward and for the gradient::

    z_i <- b + sum of x_if W_f  over the entries of example i
    g_f <- g_f + x_if d_i       for each of them, example by example

So many rows of W or g as stay in the L1 cache are gone through for all examples, and then the next
ones, with a note of how far each example has come: for g those of a chunk. All is standardised as
it is read: no second X is made.

A number in bins is such a row, too. With the values of a piecewise linear function at its knots as
weights, it has two entries: 1 - f at the knot below, f at the one above. With the differences
between knots as weights, the code of a number is 1/2, ..., 1/2, f - 1/2, -1/2, ..., and its product
with W the same two entries times *sums* of rows, those from the next knot on with a minus, halved.
Before the first knot all have a minus, and behind the last none: one sum says both. Sums are kept
in theta_t, and made anew by each update; the gradient by the sums becomes that by the rows once in
a mini-batch: ``data.continued``.

Features that all rows have an entry for, as those of numbers beside their bins, are one product
with the first rows of W, to which the other entries are added: ``data.n_dense``.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import emitted
from .jit import leaf, shared
from .machine import CACHE_LINE, prefetch
from .matmul import ADD, OVERWRITE, address, matmul, matrix, scratch_of
from .tiles import NOTHING

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
def is_sparse(data):
    return data.row_starts.size > 0


# Rows of W that training goes through at once fill so many bytes, where a row of X has so many
# entries for them.
BLOCK_BYTES, LEAST_ENTRIES = 2**15, 4
# Examples whose next features are compared at once.
ABREAST = 64
ROWS_AHEAD = 8  # rows of X are prefetched so many before they are read
NO_FEATURE = np.int32(np.iinfo(np.int32).max)


def _over_columns(emit, n, columns):
    """``columns(vectors, masked, [offset, left])`` for n columns, as many as registers take."""
    builder = emit.builder
    following = [emit.integer(0), n]
    for vectors, masked in ((8, False), (4, False), (2, True)):
        width = vectors * emit.lanes

        def some(following, vectors=vectors, masked=masked, width=width):
            offset, left = following
            masks = [emit.mask(j, left) if masked else None for j in range(vectors)]
            columns(offset, left, masks)
            step = emit.integer(width * emit.size)
            return [builder.add(offset, step), builder.sub(left, emit.integer(width))]

        whole = builder.add(following[1], emit.integer(width - 1 if masked else 0))
        following = emit.loop(builder.sdiv(whole, emit.integer(width)), following, some)


def _store(emit, values, at, left, masks):
    if masks[0] is not None:
        width = emit.integer(len(values) * emit.lanes)
        left = emit.builder.select(emit.builder.icmp_signed("<", left, width), left, width)
        emit.store_part([values], at, emit.integer(0), emit.integer(1), left)
        return
    for j, value in enumerate(values):
        emit.store(value, at, j)


def _over_entries(emit, entries, starts, each):
    """``values = each(row_address, x, values)`` for each of the entries; returns the last values.

    ``entries``: addresses of rows, numbers from one to the next, addresses of indices, of values,
    and of what a value is divided by, by its index (0: none); number of entries.
    """
    builder = emit.builder
    rows, stride, indices, values, scales, count = entries
    divides = builder.icmp_signed("!=", scales, emit.integer(0))
    row_bytes = builder.mul(stride, emit.integer(emit.size))

    def number(at):
        value = builder.load(emit.scalar(at))
        value.align = emit.size
        return value

    def entry(following):
        at_index, at_value, *others = following
        index = builder.load(builder.inttoptr(at_index, _I32.as_pointer()))
        index = builder.sext(index, row_bytes.type)
        row = builder.add(rows, builder.mul(index, row_bytes))
        x = number(at_value)
        [x] = emit.choose(
            divides, lambda: [builder.fdiv(x, number(emit.element(scales, index)))], [x]
        )
        others = each(row, emit.splat(x), others)
        step, size = emit.integer(4), emit.integer(emit.size)
        return [builder.add(at_index, step), builder.add(at_value, size), *others]

    return emit.loop(count, [indices, values, *starts], entry)[2:]


def _emit_weighted_rows(emit, out, first, n, *entries):
    """out <- first + the sum of each entry's value times its row, of n numbers."""
    builder = emit.builder

    def columns(offset, left, masks):
        each = range(len(masks))

        def add(row, x, sums):
            row = builder.add(row, offset)
            return emit.accumulate(sums, [x], [emit.load(row, j, masks[j]) for j in each])

        at_first = builder.add(first, offset)
        sums = [emit.load(at_first, j, masks[j]) for j in each]
        sums = _over_entries(emit, entries, sums, add)
        _store(emit, sums, builder.add(out, offset), left, masks)

    _over_columns(emit, n, columns)


def _emit_add_to_rows(emit, added, n, *entries):
    """To the row of each entry, of n numbers, add its value times those at ``added``."""
    builder = emit.builder

    def columns(offset, left, masks):
        each = range(len(masks))
        at = builder.add(added, offset)
        vectors = [emit.load(at, j, masks[j]) for j in each]

        def add(row, x, _):
            row = builder.add(row, offset)
            sums = [emit.load(row, j, masks[j]) for j in each]
            _store(emit, emit.accumulate(sums, [x], vectors), row, left, masks)
            return []

        _over_entries(emit, entries, [], add)

    _over_columns(emit, n, columns)


_codegen_weighted_rows = emitted("weighted_rows", _emit_weighted_rows, 9)
_codegen_add_to_rows = emitted("add_to_rows", _emit_add_to_rows, 8)


@intrinsic
def weighted_rows(typingctx, like, out, first, n, rows, stride, indices, values, scales, count):
    return types.void(like, *[types.intp] * 9), _codegen_weighted_rows


@intrinsic
def add_to_rows(typingctx, like, added, n, rows, stride, indices, values, scales, count):
    return types.void(like, *[types.intp] * 8), _codegen_add_to_rows


@leaf
def first_entry(columns, low, high, column):
    """The first of a CSR row's entries low..high that is in ``column`` or behind it."""
    while column > 0 and low < high:
        middle = (low + high) // 2
        if columns[middle] < column:
            low = middle + 1
        else:
            high = middle
    return low


# How far each example of the micro-batch has come: notes of one thread, from ``work``.


@leaf
def stand_at(columns, entries, ends, features, i, e):
    """Note that example i comes to entry e next."""
    entries[i] = e
    features[i] = NO_FEATURE if e == ends[i] else columns[e]


@leaf
def begin_entries(row_starts, columns, n_dense, entries, ends, features, part, feature):
    """Let each example stand before ``feature``, behind those that are dense."""
    for i in range(part.i0, part.i1):
        row = part.rows[part.first + i]
        begin, end = row_starts[row] + n_dense, row_starts[row + 1]
        ends[i] = end
        first = first_entry(columns, begin, end, feature)
        stand_at(columns, entries, ends, features, i, first)


@leaf
def go_on_to(columns, entries, ends, features, i, feature):
    """Let example i go on to ``feature``; returns where it stood, and where it stands."""
    begin, end = entries[i], ends[i]
    e = begin
    while e < end and columns[e] < feature:
        e += 1
    stand_at(columns, entries, ends, features, i, e)
    return begin, e


@leaf
def features_at_once(n_entries, n_examples, part, n_features, row_bytes):
    """How many features the way forward goes through for all examples, before the next ones."""
    step = max(1, BLOCK_BYTES // row_bytes)
    pays = n_entries * step >= LEAST_ENTRIES * n_features * n_examples
    # Prediction has no notes, and few rows make no use of the cache.
    return step if pays and part.t > 0 and part.i1 - part.i0 > ABREAST else n_features


@leaf
def prefetch_entries(row_starts, columns, values, rows, i):
    """Ask for the entries of the i-th of ``rows``, if there are so many."""
    if i < rows.size:
        begin, end = row_starts[rows[i]], row_starts[rows[i] + 1]
        prefetch_row(columns[begin:end])
        prefetch_row(values[begin:end])


@leaf
def dense_affine(net, theta, data, work, part):
    """z <- b + x W of the first layer for the features of CSR rows that are dense."""
    n_out, n_in, place = net.layers[0].n_out, data.n_dense + 1, work.places[1]
    row_starts, columns, values = data.row_starts, data.columns, data.values
    i0, i1 = part.i0, part.i1
    for i in range(i0, i1):
        prefetch_entries(row_starts, columns, values, part.rows, part.first + i + ROWS_AHEAD)
        begin = row_starts[part.rows[part.first + i]]
        inputs = work.a[i * n_in + 1 : (i + 1) * n_in]
        for j in range(inputs.size):
            inputs[j] = values[begin + j]
    x = matrix(work.a, i0 * n_in, n_in, 1)
    z = matrix(work.a, place.a + (i0 + 1) * place.width - n_out, place.width, 1)
    scratch = scratch_of(work.packed, part.thread)
    matmul(scratch, OVERWRITE, NOTHING, z, x, matrix(theta, 0, n_out, 1), i1 - i0, n_out, n_in)


@shared
def sparse_affine(net, theta, theta_t, data, work, part):
    """z <- b + x W of the first layer for CSR rows."""
    layer, place = net.layers[0], work.places[1]
    n_features, n_out = layer.n_in, layer.n_out
    rows = address(theta_t if data.continued.size > 0 else theta, n_out)
    scales = address(data.scales, 0) if data.scales.size > 0 else 0
    row_starts, columns, values = data.row_starts, data.columns, data.values
    n_dense, n_examples = data.n_dense, row_starts.size - 1
    n_entries, row_bytes = values.size - n_examples * n_dense, n_out * theta.itemsize
    step = features_at_once(n_entries, n_examples, part, n_features, row_bytes)
    if n_dense > 0:
        dense_affine(net, theta, data, work, part)
    if step < n_features:
        thread = part.thread
        entries, ends, features = work.entries[thread], work.ends[thread], work.features[thread]
        begin_entries(row_starts, columns, n_dense, entries, ends, features, part, 0)
    for f in range(0, n_features, step):
        for i in range(part.i0, part.i1):
            row = part.rows[part.first + i]
            begin, end = row_starts[row] + n_dense, row_starts[row + 1]
            if f == 0 and n_dense == 0:
                following = part.first + i + ROWS_AHEAD
                prefetch_entries(row_starts, columns, values, part.rows, following)
            if step < n_features:
                begin, end = go_on_to(columns, entries, ends, features, i, f + step)
            # Only rows of hidden units begin with a 1: count from the end of the row.
            z = address(work.a, place.a + (i + 1) * place.width - n_out)
            weighted_rows(
                theta.dtype.type(0),
                z,
                z if f > 0 or n_dense > 0 else address(theta, 0),
                n_out,
                rows,
                n_out,
                address(columns, begin),
                address(values, begin),
                scales,
                end - begin,
            )


@leaf
def dense_gradient(n_out, g, data, work, part, chunk):
    """g <- g + x^T delta for the features in a chunk that are dense."""
    first_row, last_row = max(1, chunk.first_row), min(chunk.last_row, data.n_dense + 1)
    if first_row < last_row:
        place, width, B = work.places[1], data.n_dense + 1, part.i1 - part.i0
        x_t = matrix(work.a, part.i0 * width + first_row, 1, width)
        delta = matrix(work.d, place.d + (part.i0 + 1) * place.width - n_out, place.width, 1)
        of_chunk = matrix(g, (first_row - chunk.first_row) * n_out, n_out, 1)
        scratch = scratch_of(work.packed, part.thread)
        matmul(scratch, ADD, NOTHING, of_chunk, x_t, delta, last_row - first_row, n_out, B)


@shared
def sparse_gradient(net, g, data, work, part, chunk, fresh, restart, lazy, whole):
    """g <- (g +) x^T delta for a chunk of the first layer.

    Parameters
    ----------
    fresh : whether to start from zero
    restart : whether the chunk is the first of those that a thread goes through
    lazy : whether to note the features that the mini-batch touches
    whole : whether the rows of g of all others are to be 0
    """
    n_out, place, thread = net.layers[0].n_out, work.places[1], part.thread
    # Row 0 of [b; W] is the biases', row 1 is that of feature 0.
    f0, f1 = max(0, chunk.first_row - 1), chunk.last_row - 1
    row_starts, columns, values = data.row_starts, data.columns, data.values
    entries, ends, features = work.entries[thread], work.ends[thread], work.features[thread]
    if restart:
        begin_entries(row_starts, columns, data.n_dense, entries, ends, features, part, f0)
    if fresh:
        for j in range(g.size if whole else n_out):
            g[j] = 0
    if chunk.first_row == 0:
        for i in range(part.i0, part.i1):
            start = place.d + (i + 1) * place.width - n_out
            d = work.d[start : start + n_out]
            for j in range(n_out):
                g[j] += d[j]
    dense_gradient(n_out, g, data, work, part, chunk)
    scales = address(data.scales, 0) if data.scales.size > 0 else 0
    feature_0 = address(g, (1 - chunk.first_row) * n_out)
    for first in range(part.i0, part.i1, ABREAST):
        last = min(part.i1, first + ABREAST)
        nearest = NO_FEATURE
        for i in range(first, last):
            nearest = min(nearest, features[i])
        for i in range(first, last if nearest < f1 else first):
            if features[i] >= f1:
                continue
            begin, end = go_on_to(columns, entries, ends, features, i, f1)
            for e in range(begin, end if lazy else begin):
                f = columns[e]
                if work.touched[f] != part.t:
                    work.touched[f] = part.t
                    row = (f + 1 - chunk.first_row) * n_out
                    for j in range(row, row if whole else row + n_out):
                        g[j] = 0
            add_to_rows(
                g.dtype.type(0),
                address(work.d, place.d + (i + 1) * place.width - n_out),
                n_out,
                feature_0,
                n_out,
                address(columns, begin),
                address(values, begin),
                scales,
                end - begin,
            )


@shared
def sum_rows(continued, sums, theta, start, first_row, last_row, n_out):
    """Sums of rows of W, the first at ``start``: half of a row and all that it continues, less half
    of all that continue it. A row that stands alone is its own sum."""
    half = theta.dtype.type(0.5)
    for row in range(max(1, first_row), last_row):
        at = start + (row - first_row) * n_out
        w, s = theta[at : at + n_out], sums[at : at + n_out]
        if continued[row - 1]:
            above = sums[at - n_out : at]
            for j in range(n_out):
                s[j] = above[j] + w[j]
            if row + 1 == last_row or not continued[row]:  # s is the sum of all
                while continued[row - 1]:
                    row -= 1
                    at -= n_out
                    above = sums[at : at + n_out]
                    for j in range(n_out):
                        above[j] -= half * s[j]
                for j in range(n_out):
                    s[j] *= half
        else:
            for j in range(n_out):
                s[j] = w[j]


@shared
def sum_gradient(data, g, chunk, n_out):
    """From dC/d of these sums to dC/dW: half of a row's own sum and of all that continue it, less
    half of those before."""
    half = g.dtype.type(0.5)
    for row in range(chunk.last_row - 1, max(1, chunk.first_row), -1):
        if data.continued[row - 1]:
            at = (row - chunk.first_row) * n_out
            of_sum, above = g[at : at + n_out], g[at - n_out : at]
            for j in range(n_out):
                above[j] += of_sum[j]
            if not data.continued[row - 2]:  # above is the sum of all
                while row < chunk.last_row and data.continued[row - 1]:
                    at = (row - chunk.first_row) * n_out
                    of_sum = g[at : at + n_out]
                    for j in range(n_out):
                        of_sum[j] -= half * above[j]
                    row += 1
                for j in range(n_out):
                    above[j] *= half


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
