"""Dropout (Srivastava et al., 2014), inverted: what is kept is scaled up, prediction needs nothing.

Whether a unit is kept is a hash of where it stands: seed of the fit, number of the update, layer,
place of the example, unit. So it does not depend on threads or micro-batches. What is dropped on
the way forward has no slope on the way back: it is 0 in the saved slopes, too, and that of ReLU
is 0 where its activation is. The hash is Wellons' "lowbias32", in 32-bit arithmetic
that LLVM vectorises.
"""

import numpy as np

from .jit import leaf, shared

U = np.uint32


@leaf
def _mixed(x):
    x = U(x ^ (x >> U(16)))
    x = U(x * U(0x7FEB352D))
    x = U(x ^ (x >> U(15)))
    x = U(x * U(0x846CA68B))
    return U(x ^ (x >> U(16)))


@leaf
def _scale_of(rate, T):
    return T(1.0 / (1.0 - rate))


@leaf
def _drop_row(a, slopes, start, least, scale):
    """Units whose hash is below ``least`` become 0, the others are scaled."""
    zero = a.dtype.type(0)
    if slopes.size == 0:
        for j in range(a.size):
            kept = _mixed(U(start + U(j) * U(0x9E3779B9))) >= least
            a[j] = a[j] * scale if kept else zero
    else:
        for j in range(a.size):
            kept = _mixed(U(start + U(j) * U(0x9E3779B9))) >= least
            a[j] = a[j] * scale if kept else zero
            slopes[j] = slopes[j] * scale if kept else zero


@shared
def drop(a, slopes, width, rate, seed, t, layer, first):
    """Leave out units of rows of ``width`` numbers, the first of which is the 1 of the bias.

    Parameters
    ----------
    a, slopes : (n * width,), activations, and slopes that are saved or nothing
    rate : probability of being left out
    seed, t, layer : what the mask depends on beside the place
    first : place of the first row in the epoch's order of examples
    """
    least = U(rate * 4294967296.0)
    scale = _scale_of(rate, a.dtype.type)
    stream = _mixed(U(_mixed(U(_mixed(U(seed)) + U(t))) + U(layer)))
    for i in range(a.size // width):
        start = _mixed(U(stream + U(first + i)))
        begin, end = i * width + 1, (i + 1) * width
        _drop_row(a[begin:end], slopes[begin:end], start, least, scale)


@leaf
def scale_up(d, rate):
    """What ``drop`` does with what it keeps."""
    scale = _scale_of(rate, d.dtype.type)
    for i in range(d.size):
        d[i] *= scale
