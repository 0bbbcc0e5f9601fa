"""Dropout (Srivastava et al., 2014), inverted: what is kept is scaled up, prediction needs nothing.

Whether a unit is kept is a hash of where it stands: seed of the fit, number of the update, layer,
place of the example, unit. So it does not depend on threads or micro-batches, and the backward pass
finds the same mask again without storing it. The hash is Wellons' "lowbias32", in 32-bit arithmetic
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
def _drop_row(a, start, least, scale):
    """Units whose hash is below ``least`` become 0, the others are scaled."""
    zero = a.dtype.type(0)
    for j in range(a.size):
        kept = _mixed(U(start + U(j) * U(0x9E3779B9))) >= least
        a[j] = a[j] * scale if kept else zero


@shared
def drop(a, width, rate, seed, t, layer, first):
    """Leave out units of rows of ``width`` numbers, the first of which is the 1 of the bias.

    Parameters
    ----------
    a : (n * width,), activations, or deltas in the backward pass
    rate : probability of being left out
    seed, t, layer : what the mask depends on beside the place
    first : place of the first row in the epoch's order of examples
    """
    least = U(rate * 4294967296.0)
    scale = a.dtype.type(1.0 / (1.0 - rate))
    stream = _mixed(U(_mixed(U(_mixed(U(seed)) + U(t))) + U(layer)))
    for i in range(a.size // width):
        start = _mixed(U(stream + U(first + i)))
        _drop_row(a[i * width + 1 : (i + 1) * width], start, least, scale)
