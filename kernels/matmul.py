"""The two matrix products under everything, over tiles of vectors with fused multiply-add.

``matmul``, C <- A B, works on register tiles: MR rows by NV vectors of C stay in registers while k
runs over the inner dimension; per k it loads NV vectors of B's row k, broadcasts MR elements of A's
column k, and does MR * NV multiply-adds. Each element of C is one chain a_0 b_0 + a_1 b_1 + ... in
the order of k, whatever tile it falls in. A single row of C, where B is wide, takes a few terms at
a time over all of its columns instead.

``dot_products``, C <- A B^T, is for few columns of C, where most lanes of a tile would idle: the
vectors run along k, each element of C has one partial sum per lane, and these are added pairwise.

So results do not depend on how the rows of C are divided over threads or micro-batches. Edges are
masked; where many rows of C need the same part of B, it is copied to scratch (packed) first, and so
are rows of A that lie far apart.
Operands are raw addresses and strides in elements: the products of a network (forward, backward,
gradient) differ in strides only.
"""

from typing import NamedTuple

import numpy as np

from .jit import leaf, shared
from .machine import VECTOR_BYTES
from .tiles import (
    NOTHING,
    SUMS,
    TILE_ROWS,
    copy_block,
    dot_of,
    pack_of,
    row_of,
    tiles_of,
    transpose_block,
)

_full = tiles_of(TILE_ROWS, 2, masked=False)
_right = tiles_of(TILE_ROWS, 2, masked=True)
_narrow = tiles_of(TILE_ROWS, 1, masked=True)
# Three vectors, with as many rows as registers allow: AVX-512 has room for half as many sums again.
LAST_ROWS = TILE_ROWS if SUMS == 16 else SUMS // 3
_last = tiles_of(LAST_ROWS, 3, masked=True)
_last_two = tiles_of(2, 3, masked=True)


_pack_two, _pack_three = pack_of(2), pack_of(3)


def _few_rows(MR, NV, last):
    """The product of ``MR`` rows, with as many vectors as keep its sums from waiting."""
    wide, narrow = tiles_of(MR, NV, masked=False), tiles_of(MR, last, masked=True)

    # One row of tiles: c and a are where it begins in C and A, which saves products of strides.
    @leaf
    def over_columns(scratch, add, then, c, c_row, a, A, B, N, K):
        like, lanes = scratch.like, VECTOR_BYTES // scratch.size
        n = 0
        while n < N:
            at = n * scratch.size
            b = B.at + at
            if N - n >= NV * lanes:
                wide(like, add, then, c + at, c_row, a, A.row, A.column, b, B.row, K, 1, 0)
                n += NV * lanes
            else:
                narrow(like, add, then, c + at, c_row, a, A.row, A.column, b, B.row, K, 1, N - n)
                n += last * lanes

    return over_columns


_four_rows, _two_rows = _few_rows(4, SUMS // 4, SUMS // 8), _few_rows(2, 6, 3)
_one_narrow_row = _few_rows(1, 8, 8)
GROUP = 4  # vectors
_groups = row_of(8, GROUP)
# Bytes of a row of B from which on one row of A goes along the rows of B: the CPU does not fetch
# ahead what a strip of its columns takes of each.
WIDE = 1024


@leaf
def _one_row(scratch, add, then, c, c_row, a, A, B, N, K):
    done = 0  # bytes of the row of C
    if N * scratch.size >= WIDE and K > 0:
        n_groups = N * scratch.size // (GROUP * VECTOR_BYTES)
        _groups(scratch.like, add, then, c, a, A.column, B.at, B.row, K, n_groups)
        done = n_groups * GROUP * VECTOR_BYTES
    rest = Matrix(B.at + done, B.row, B.column)
    _one_narrow_row(scratch, add, then, c + done, c_row, a, A, rest, N - done // scratch.size, K)


_dot_column = dot_of(8, 1)
_dot_block = dot_of(4, 4)
_dot_row = dot_of(1, 4)
_dot_one = dot_of(1, 1)


# What tiles run over at a time is copied (packed) where that pays. A part of B, PACKED_K rows of
# two or three vectors, stays in the L1 cache; a block of A, BLOCK_M rows of PACKED_K, in the L2
# cache. There, no stride makes cache lines fall on each other, or gives each row its own page.
PACKED_K = 256
PANEL_BYTES = PACKED_K * 3 * VECTOR_BYTES
BLOCK_M = 64 * TILE_ROWS
LEAST_ROWS = 6 * TILE_ROWS  # of A, for B to be copied
FAR_APART = 2048  # bytes from one row (or column) of A to the next, from which on it is copied


def packed_bytes(itemsize, rows):
    """Bytes of scratch for products of at most so many rows, a multiple of VECTOR_BYTES."""
    block = PACKED_K * min(rows, BLOCK_M) * itemsize
    return PANEL_BYTES + VECTOR_BYTES * -(-block // VECTOR_BYTES)


# What a product does with what is there.
OVERWRITE, ADD = range(2)


class Matrix(NamedTuple):
    """A matrix in memory: where it begins, and its strides in elements."""

    at: int
    row: int
    column: int


class Scratch(NamedTuple):
    """What a product needs to know beside its operands."""

    like: float  # any number of the operands' dtype
    size: int  # bytes of an element
    packed: int  # address of ``packed_bytes`` of scratch, on a multiple of VECTOR_BYTES
    panels: int  # where B lies in panels, beside itself, see ``pack_panels``; 0: nowhere


@shared
def matmul(scratch, add, then, C, A, B, M, N, K):
    """C <- A B, or C + A B, with A (M, K), B (K, N), C (M, N); rows of B and C are contiguous.

    Parameters
    ----------
    scratch : Scratch
    add : 1 to add to C, 0 to overwrite it
    then : int
        ``RECTIFY``: no element of C is less than 0. ``NOTHING``, or the distance in bytes from C to
        a matrix with the same strides: where that is 0, C is 0.
    C, A, B : Matrix
    M, N, K : numbers of rows of C, columns of C, terms of each sum
    """
    i = M // TILE_ROWS * TILE_ROWS
    if i > 0:
        _whole_tiles(scratch, add, then, C, A, B, i, N, K)
    while i < M:
        c = C.at + i * C.row * scratch.size
        a = A.at + i * A.row * scratch.size
        if M - i >= 4:
            _four_rows(scratch, add, then, c, C.row, a, A, B, N, K)
            i += 4
        elif M - i >= 2:
            _two_rows(scratch, add, then, c, C.row, a, A, B, N, K)
            i += 2
        else:
            _one_row(scratch, add, then, c, C.row, a, A, B, N, K)
            i += 1


@leaf
def _vectors_of(left, lanes):
    """How many vectors of the columns that are left go together."""
    # The last three: one on its own would wait for broadcasts.
    return 3 if 2 * lanes < left <= 3 * lanes else 2


@leaf
def _pack(like, to, b, b_row, terms, vectors, left):
    if vectors == 3:
        _pack_three(like, to, b, b_row, terms, left)
    else:
        _pack_two(like, to, b, b_row, terms, left)


@shared
def pack_panels(scratch, panels, B, K, N):
    """Copy B (K, N) to the address ``panels`` as tiles take it, for several products with it.

    A panel has the next two or three vectors of each row.
    """
    lanes, n = VECTOR_BYTES // scratch.size, 0
    while n < N:
        vectors = _vectors_of(N - n, lanes)
        to, b = panels + n * K * scratch.size, B.at + n * scratch.size
        _pack(scratch.like, to, b, B.row, K, vectors, N - n)
        n += vectors * lanes


@leaf
def panel_columns(N, itemsize):
    """Numbers in all panels for each row of B (K, N); 0 where a copy of it is of no use."""
    two = 2 * VECTOR_BYTES // itemsize
    return (N + two - 1) // two * two if two <= N else 0


@leaf
def _whole_tiles(scratch, add, then, C, A, B, M, N, K):
    like, size = scratch.like, scratch.size
    lanes = VECTOR_BYTES // size
    # Copying a part of B pays where several tiles run over it, of A where several parts of B do.
    packing_b = scratch.panels == 0 and M >= LEAST_ROWS and panel_columns(N, size) > 0
    packing_a = 16 * lanes <= N and max(A.row, A.column) * size >= FAR_APART
    # Equal steps, of whole fours: the last one would be short for its passes over C.
    in_steps = packing_a or packing_b or scratch.panels != 0
    n_steps = max(1, (K + PACKED_K - 1) // PACKED_K) if in_steps else 1
    step = max(4, (K + 4 * n_steps - 1) // (4 * n_steps) * 4)
    for k in range(0, max(K, 1), step):
        terms = min(step, K - k)
        after = then if k + step >= K else NOTHING
        for block in range(0, M, BLOCK_M):
            rows = min(M - block, BLOCK_M)
            a, a_row, a_column = A.at + (block * A.row + k * A.column) * size, A.row, A.column
            if packing_a:
                packed = scratch.packed + PANEL_BYTES
                if a_column == 1:
                    copy_block(like, packed, step, a, a_row, rows, terms)
                    a, a_row = packed, step
                elif a_row == 1:
                    copy_block(like, packed, rows, a, a_column, terms, rows)
                    a, a_column = packed, rows
            n, tiles = 0, rows // TILE_ROWS
            while n < N:
                left = N - n
                vectors = _vectors_of(left, lanes)
                b, b_row = B.at + (k * B.row + n) * size, B.row
                if scratch.panels != 0:
                    b_row = vectors * lanes
                    b = scratch.panels + (n * K + k * b_row) * size
                elif packing_b:
                    _pack(like, scratch.packed, b, b_row, terms, vectors, left)
                    b, b_row = scratch.packed, vectors * lanes
                c = C.at + (block * C.row + n) * size
                if vectors == 3:
                    three = tiles * TILE_ROWS // LAST_ROWS
                    _last(
                        like, add, after, c, C.row, a, a_row, a_column, b, b_row, terms, three, left
                    )
                    done = three * LAST_ROWS
                    if done < tiles * TILE_ROWS:
                        c, at = c + done * C.row * size, a + done * a_row * size
                        _last_two(
                            like,
                            add,
                            after,
                            c,
                            C.row,
                            at,
                            a_row,
                            a_column,
                            b,
                            b_row,
                            terms,
                            1,
                            left,
                        )
                elif left >= 2 * lanes:
                    _full(
                        like, add, after, c, C.row, a, a_row, a_column, b, b_row, terms, tiles, left
                    )
                elif left > lanes:
                    _right(
                        like, add, after, c, C.row, a, a_row, a_column, b, b_row, terms, tiles, left
                    )
                else:
                    _narrow(
                        like, add, after, c, C.row, a, a_row, a_column, b, b_row, terms, tiles, left
                    )
                n += vectors * lanes
        add = 1  # the terms of the next k come on top


@leaf
def few_outputs(n_in, n_out, lanes):
    """Whether dot products along the inputs waste fewer lanes than vectors along the outputs."""
    return 3 * n_out * (n_in // lanes + 4) < 2 * n_in * ((n_out + lanes - 1) // lanes)


@shared
def dot_products(scratch, add, C, A, B, M, N, K):
    """C <- A B^T, or C + A B^T, with A (M, K), B (N, K), C (M, N); all rows are contiguous."""
    like, size = scratch.like, scratch.size
    j = 0
    while j < N:
        columns = 4 if N - j >= 4 else 1
        b = B.at + j * B.row * size
        i = 0
        while i < M:
            c, a = C.at + (i * C.row + j) * size, A.at + i * A.row * size
            if columns == 4 and M - i >= 4:
                _dot_block(like, add, c, C.row, a, A.row, b, B.row, K)
                i += 4
            elif columns == 4:
                _dot_row(like, add, c, C.row, a, A.row, b, B.row, K)
                i += 1
            elif M - i >= 8:
                _dot_column(like, add, c, C.row, a, A.row, b, B.row, K)
                i += 8
            else:
                _dot_one(like, add, c, C.row, a, A.row, b, B.row, K)
                i += 1
        j += columns


@shared
def transpose(scratch, B, A, M, N):
    """B <- A^T, with A (M, N); the rows of both are contiguous."""
    like, size = scratch.like, scratch.size
    lanes = VECTOR_BYTES // size
    for i in range(0, M, lanes):
        for j in range(0, N, lanes):
            a = A.at + (i * A.row + j) * size
            b = B.at + (j * B.row + i) * size
            transpose_block(like, b, B.row, a, A.row, min(lanes, M - i), min(lanes, N - j))


@leaf
def address(buffer, i):
    """Where ``buffer[i]`` is in memory."""
    # ctypes.data is unsigned, and unsigned plus signed would be a float.
    return np.intp(buffer.ctypes.data) + np.intp(i * buffer.itemsize)


@leaf
def matrix(buffer, start, row, column):
    """The matrix that begins at ``buffer[start]``."""
    return Matrix(address(buffer, start), row, column)


@leaf
def scratch_of(buffers, thread):
    """The scratch of one thread, from ``buffers`` with a row for each."""
    at = np.intp(buffers.ctypes.data) + np.intp(thread * buffers.strides[0])
    return Scratch(buffers.dtype.type(0), buffers.itemsize, at, np.intp(0))
