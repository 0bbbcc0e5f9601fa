"""The first layer, whose inputs are what users give: dense rows or CSR.

Dense examples are copied to the input units of the scratch. CSR rows are read where they are,
forward and for the gradient. Both are standardised as they are read: no second X is made.
"""

import numpy as np

from .jit import leaf, shared
from .machine import CACHE_LINE, prefetch


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


@leaf
def scaled(data, e):
    """Entry e of the CSR arrays, as training sees it."""
    x = data.values[e]
    return x / data.scales[data.columns[e]] if data.scales.size > 0 else x


@shared
def sparse_affine(net, theta, data, work, part):
    """z <- b + x W of the first layer for CSR rows."""
    n_out, place = net.layers[0].n_out, work.places[1]
    for i in range(part.i0, part.i1):
        row = part.rows[part.first + i]
        # Only rows of hidden units begin with a 1: count from the end of the row.
        start = place.a + (i + 1) * place.width - n_out
        z = work.a[start : start + n_out]
        for j in range(n_out):
            z[j] = theta[j]
        for e in range(data.row_starts[row], data.row_starts[row + 1]):
            x = scaled(data, e)
            start = (np.int64(data.columns[e]) + 1) * n_out
            w = theta[start : start + n_out]
            for j in range(n_out):
                z[j] += x * w[j]


@shared
def sparse_gradient(net, g, data, work, part, chunk, restart):
    """g <- g + x^T delta for a chunk of the first layer, example by example.

    Chunks of one thread follow each other: so do the columns of a CSR row that fall into them, and
    ``work.cursors`` keeps how far each row has been read. ``restart``: search for it.
    """
    n_out, place = net.layers[0].n_out, work.places[1]
    first_row = chunk.first_row
    # Row 0 of [b; W] is the biases', row 1 is that of feature 0.
    f0, f1 = max(0, first_row - 1), chunk.last_row - 1
    for i in range(part.i0, part.i1):
        start = place.d + (i + 1) * place.width - n_out
        d = work.d[start : start + n_out]
        if first_row == 0:
            for j in range(n_out):
                g[j] += d[j]
        row = part.rows[part.first + i]
        stop = data.row_starts[row + 1]
        if restart:
            # Binary search for the first column of the chunk.
            low, high = data.row_starts[row], stop
            while low < high:
                middle = (low + high) // 2
                if data.columns[middle] < f0:
                    low = middle + 1
                else:
                    high = middle
        else:
            low = work.cursors[part.thread, i]
        while low < stop and data.columns[low] < f1:
            x = scaled(data, low)
            start = (np.int64(data.columns[low]) + 1 - first_row) * n_out
            g_row = g[start : start + n_out]
            for j in range(n_out):
                g_row[j] += x * d[j]
            low += 1
        work.cursors[part.thread, i] = low
