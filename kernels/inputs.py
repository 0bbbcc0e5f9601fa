"""The first layer, whose inputs are what users give: dense rows or CSR.

Dense examples are copied into the block, as all layers' rows lie there; CSR rows are read where
they are, forward and for the gradient.
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
def gather(X, rows, first, a, width, capacity, i0, i1):
    """Copy examples rows[first + i0 .. first + i1] into the input layer of the block (dense X)."""
    for i in range(i0, i1):
        inputs = a[i * width + 1 : (i + 1) * width]
        x = X[rows[first + i]]
        for j in range(inputs.size):
            inputs[j] = x[j]
        following = first + i + capacity  # the same place in the next mini-batch
        if following < rows.size:
            prefetch_row(X[rows[following]])


@shared
def sparse_affine(net, theta, data, rows, first, work, i0, i1):
    """z <- b + x W of the first layer for CSR rows."""
    n_out = net.units[1]
    width = work.widths[1]
    for i in range(i0, i1):
        row = rows[first + i]
        start = work.a_starts[1] + (i + 1) * width - n_out
        z = work.a[start : start + n_out]
        for j in range(n_out):
            z[j] = theta[j]
        for e in range(data.row_starts[row], data.row_starts[row + 1]):
            x = data.values[e]
            start = (np.int64(data.columns[e]) + 1) * n_out
            w = theta[start : start + n_out]
            for j in range(n_out):
                z[j] += x * w[j]


@shared
def sparse_gradient(net, gradient, data, rows, first, work, thread, r0, r1, i0, i1, restart):
    """Add to the gradient of rows r0..r1 of [b; W] of the first layer, example by example.

    ``restart``: find r0 in each CSR row; otherwise it is where the thread's last chunk ended.
    """
    n_out = net.units[1]
    width = work.widths[1]
    f0, f1 = max(0, r0 - 1), r1 - 1  # the features of these rows
    for i in range(i0, i1):
        start = work.d_starts[1] + (i + 1) * width - n_out
        d = work.d[start : start + n_out]
        if r0 == 0:
            for j in range(n_out):
                gradient[j] += d[j]
        row = rows[first + i]
        stop = data.row_starts[row + 1]
        if restart:
            low, high = data.row_starts[row], stop
            while low < high:
                middle = (low + high) // 2
                if data.columns[middle] < f0:
                    low = middle + 1
                else:
                    high = middle
        else:
            low = work.cursors[thread, i]
        while low < stop and data.columns[low] < f1:
            x = data.values[low]
            start = (np.int64(data.columns[low]) + 1 - r0) * n_out
            g = gradient[start : start + n_out]
            for j in range(n_out):
                g[j] += x * d[j]
            low += 1
        work.cursors[thread, i] = low
