"""The innermost loops of the matrix products, each for one size of tile that stays in registers.

A tile is MR rows by NV vectors of C. ``tiles_of``, ``row_of``, ``dot_of`` and ``pack_of`` make
functions that kernels call with raw addresses and strides in elements; the first argument,
``like``, is any number of the operands' dtype.

They have more than eight parameters, as each is a call that stays one: its numbers travel in
registers, where a tuple's would go through memory.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import emit_copy, emitted
from .machine import CACHE_LINE, REGISTERS, VECTOR_BYTES, emit_prefetch

_I32, _I64 = ir.IntType(32), ir.IntType(64)

# How many sums a tile keeps in registers, beside the operands of their next terms; x86 before
# AVX-512 has 16 registers.
SUMS = 16 if REGISTERS == 32 else 12
TILE_ROWS = SUMS // 2

# What a tile does with its sums before it stores them: see ``matmul``.
NOTHING, RECTIFY = range(2)


def _finished(emit, then, sums, places):
    """The sums after what comes ``then``; of each its row, which vector it is, and its mask."""
    builder = emit.builder

    def gated():
        at = [(builder.add(row, then), j, mask) for row, j, mask in places]
        return [emit.gated(value, emit.load(*one)) for value, one in zip(sums, at, strict=True)]

    rectify = builder.icmp_signed("==", then, emit.integer(RECTIFY))
    sums = emit.choose(rectify, lambda: list(map(emit.positive, sums)), sums)
    distance = builder.icmp_unsigned(">", then, emit.integer(max(NOTHING, RECTIFY)))
    return emit.choose(distance, gated, sums)


def _emit_tiles(
    emit, MR, NV, masked, add, then, C, c_row, A, a_row, a_col, B, b_row, K, n_tiles, columns
):
    """C <- (C +) A B for ``n_tiles`` times MR rows, and NV vectors of columns, of which ``columns``
    exist; and ``then`` what the last of its terms is followed by, see ``matmul``."""
    builder, vectors = emit.builder, range(NV)

    def smaller(a, b):
        return builder.select(builder.icmp_signed("<", a, b), a, b)

    masks = [emit.mask(j, columns) if masked else None for j in vectors]
    one, unroll, width = emit.integer(1), 4, NV * VECTOR_BYTES
    # Four terms at a time. With both strides of A unknown, the addresses of many rows are a chain
    # of additions that takes as long as the products: one of them is 1, in two loops.
    unrolled = []
    if not masked:
        unrolled = [(a_row, one), (one, a_col)] if MR == TILE_ROWS else [(a_row, a_col)]
    columns = smaller(columns, emit.integer(NV * emit.lanes))

    def terms(values, a_row, a_col, count):
        """The next ``count`` terms of all sums, with the strides of A as they are known."""
        at_a, at_b, *sums = values
        # A known stride is added last: it becomes part of the instruction that loads.
        if a_col is one:
            rows = emit.rows(at_a, a_row, MR)
            at = [[emit.element(row, emit.integer(u)) for row in rows] for u in range(count)]
        else:
            at = [emit.rows(column, a_row, MR) for column in emit.rows(at_a, a_col, count)]
        for u in range(count):
            b = [emit.load(at_b, j, masks[j]) for j in vectors]
            sums = emit.accumulate(sums, [emit.broadcast(address) for address in at[u]], b)
            at_b = emit.element(at_b, b_row)
        at_a = emit.element(at_a, builder.mul(a_col, emit.integer(count)))
        return [at_a, at_b, *sums]

    def fours_of(count, values, a_row, a_col):
        return emit.loop(count, values, lambda v: terms(v, a_row, a_col, unroll))

    def fours_in_parts(count, values, a_row, a_col, following):
        """The same, one part for each row of the tile that follows, whose lines are asked for.

        They are too far apart to come unasked, and all at once they would keep A and B waiting.
        """
        part = builder.sdiv(builder.add(count, emit.integer(MR - 1)), emit.integer(MR))
        part = builder.select(builder.icmp_signed("<", part, one), one, part)
        n_parts = builder.sdiv(builder.add(count, builder.sub(part, one)), part)

        def next_part(values):
            row, left, *values = values
            for offset in (*range(0, width, CACHE_LINE), width - 1):
                emit_prefetch(builder, builder.add(row, emit.integer(offset)))
            fours = smaller(part, left)
            values = fours_of(fours, values, a_row, a_col)
            return [emit.element(row, c_row), builder.sub(left, fours), *values]

        _, _, *values = emit.loop(n_parts, [following, count, *values], next_part)
        return values

    def tile(values):
        at_c, at_a = values
        rows = emit.rows(at_c, c_row, MR)
        following = emit.element(at_c, builder.mul(c_row, emit.integer(MR)))
        sums = emit.choose(
            builder.icmp_signed("!=", add, emit.integer(0)),
            lambda: [emit.load(row, j, masks[j]) for row in rows for j in vectors],
            [emit.zero] * (MR * NV),
        )
        # The loops carry the addresses of the next column of A and row of B, and all sums.
        values, left = [at_a, B, *sums], K
        for row, col in unrolled:
            fours = builder.sdiv(left, emit.integer(unroll))
            if one in (row, col):
                known = builder.icmp_signed("==", a_col if col is one else a_row, one)
                fours = builder.select(known, fours, emit.integer(0))
            if MR == TILE_ROWS:
                values = fours_in_parts(fours, values, row, col, following)
            else:
                values = fours_of(fours, values, row, col)
            left = builder.sub(left, builder.mul(fours, emit.integer(unroll)))
        _, _, *sums = emit.loop(left, values, lambda v: terms(v, a_row, a_col, 1))
        sums = _finished(emit, then, sums, [(row, j, masks[j]) for row in rows for j in vectors])
        by_row = [sums[i * NV : (i + 1) * NV] for i in range(MR)]
        if masked:
            emit.store_part(by_row, at_c, c_row, emit.integer(MR), columns)
        else:
            for row, values in zip(rows, by_row, strict=True):
                for j in vectors:
                    emit.store(values[j], row, j)
        return [following, emit.element(at_a, builder.mul(a_row, emit.integer(MR)))]

    emit.loop(n_tiles, [C, A], tile)


def _emit_row(emit, terms, vectors, add, then, C, A, a_col, B, b_row, K, n_groups):
    """C <- (C +) A B for one row and ``n_groups`` times so many vectors of columns, and ``then``.

    It goes along so many rows of B at a time, as the CPU fetches such streams ahead by itself.
    """
    builder = emit.builder
    step = emit.integer(vectors * VECTOR_BYTES)

    def next_terms(values, count):
        at_a, at_b, adding = values
        a = [emit.broadcast(at) for at in emit.rows(at_a, a_col, count)]
        fresh = builder.icmp_signed("==", adding, emit.integer(0))

        def columns(values):
            at_c, *rows = values
            sums = [builder.select(fresh, emit.zero, emit.load(at_c, j)) for j in range(vectors)]
            for a_k, row in zip(a, rows, strict=True):
                sums = emit.accumulate(sums, [a_k], [emit.load(row, j) for j in range(vectors)])
            for j, value in enumerate(sums):
                emit.store(value, at_c, j)
            return [builder.add(at, step) for at in values]

        emit.loop(n_groups, [C, *emit.rows(at_b, b_row, count)], columns)
        following = [
            emit.element(at, builder.mul(stride, emit.integer(count)))
            for at, stride in ((at_a, a_col), (at_b, b_row))
        ]
        return [*following, emit.integer(1)]

    values, most = [A, B, add], emit.integer(terms)
    values = emit.loop(builder.sdiv(K, most), values, lambda v: next_terms(v, terms))
    emit.loop(builder.srem(K, most), values, lambda v: next_terms(v, 1))

    def finish(values):
        (at,) = values
        sums = [emit.load(at, j) for j in range(vectors)]
        for j, value in enumerate(
            _finished(emit, then, sums, [(at, j, None) for j in range(vectors)])
        ):
            emit.store(value, at, j)
        return [builder.add(at, step)]

    idle = builder.icmp_signed("==", then, emit.integer(NOTHING))
    emit.loop(builder.select(idle, emit.integer(0), n_groups), [C], finish)


def _emit_dot(emit, MR, NR, add, C, c_row, A, a_row, B, b_row, K):
    """C <- (C +) A B^T for MR rows of A and NR rows of B, both contiguous."""
    builder = emit.builder
    lanes = ir.Constant(_I64, emit.lanes)
    step = ir.Constant(_I64, emit.lanes * emit.size)

    def body(values, mask=None):
        at_a, at_b, *sums = values
        b = [emit.load(row, 0, mask) for row in emit.rows(at_b, b_row, NR)]
        a = [emit.load(row, 0, mask) for row in emit.rows(at_a, a_row, MR)]
        sums = emit.accumulate(sums, a, b)
        return [builder.add(at_a, step), builder.add(at_b, step), *sums]

    values = emit.loop(builder.sdiv(K, lanes), [A, B, *[emit.zero] * (MR * NR)], body)
    left = builder.srem(K, lanes)
    tail = emit.choose(
        builder.icmp_signed(">", left, ir.Constant(_I64, 0)),
        lambda: body(values, emit.mask(0, left)),
        values,
    )
    sums = tail[2:]
    accumulating = builder.icmp_signed("!=", add, ir.Constant(_I64, 0))
    for i, row in enumerate(emit.rows(C, c_row, MR)):
        for j in range(NR):
            value = emit.sum_of_lanes(sums[i * NR + j])
            pointer = emit.scalar(builder.add(row, ir.Constant(_I64, j * emit.size)))
            old = builder.load(pointer)
            old.align = emit.size
            zero = ir.Constant(emit.real, 0.0)
            value = builder.fadd(builder.select(accumulating, old, zero), value)
            builder.store(value, pointer).align = emit.size


def _emit_pack(emit, vectors, packed, B, b_row, K, columns):
    """Copy K rows of so many vectors of B to ``packed``, zeros where there are no columns."""
    builder = emit.builder
    masks = [emit.mask(j, columns) for j in range(vectors)]
    row = ir.Constant(_I64, vectors * VECTOR_BYTES)

    def body(values):
        at_b, at_packed = values
        for j in range(vectors):
            emit.store(emit.load(at_b, j, masks[j]), at_packed, j)
        return [emit.element(at_b, b_row), builder.add(at_packed, row)]

    emit.loop(K, [B, packed], body)


def _emit_transpose(emit, to, to_row, source, row, M, N):
    """to <- the transpose of M rows of N numbers, at most as many as a vector has lanes."""
    builder, lanes = emit.builder, emit.lanes
    inside = emit.mask(0, N)
    nowhere = ir.Constant(inside.type, [0] * lanes)
    block = []
    for i, at in enumerate(emit.rows(source, row, lanes)):
        exists = builder.icmp_signed("<", ir.Constant(_I64, i), M)
        block.append(emit.load(at, 0, builder.select(exists, inside, nowhere)))
    # Swap the off-diagonal quarters, then those of the quarters, down to single elements.
    half = lanes
    while half > 1:
        half //= 2
        for i in range(lanes):
            if i & half == 0:
                a, b = block[i], block[i + half]
                lower = [c if c & half == 0 else c - half + lanes for c in range(lanes)]
                upper = [c + half if c & half == 0 else c + lanes for c in range(lanes)]
                block[i] = emit.shuffle(a, b, lower)
                block[i + half] = emit.shuffle(a, b, upper)
    whole = builder.and_(
        builder.icmp_signed(">=", M, emit.integer(lanes)),
        builder.icmp_signed(">=", N, emit.integer(lanes)),
    )
    with builder.if_else(whole) as (then, otherwise):
        with then:
            for value, at in zip(block, emit.rows(to, to_row, lanes), strict=True):
                emit.store(value, at)
        with otherwise:
            emit.store_part([[value] for value in block], to, to_row, N, M)


def tiles_of(MR, NV, masked):
    def body(emit, *args):
        _emit_tiles(emit, MR, NV, masked, *args)

    codegen = emitted(f"tile_{MR}x{NV}{'_masked' if masked else ''}", body, 12)

    @intrinsic
    def tiles(typingctx, like, add, then, C, c_row, A, a_row, a_col, B, b_row, K, n_tiles, columns):
        return types.void(like, *[types.intp] * 12), codegen

    return tiles


def row_of(terms, vectors):
    def body(emit, *args):
        _emit_row(emit, terms, vectors, *args)

    codegen = emitted(f"row_{terms}x{vectors}", body, 9)

    @intrinsic
    def row(typingctx, like, add, then, C, A, a_col, B, b_row, K, n_groups):
        return types.void(like, *[types.intp] * 9), codegen

    return row


def dot_of(MR, NR):
    def body(emit, *args):
        _emit_dot(emit, MR, NR, *args)

    codegen = emitted(f"dot_{MR}x{NR}", body, 8)

    @intrinsic
    def dot(typingctx, like, add, C, c_row, A, a_row, B, b_row, K):
        return types.void(like, *[types.intp] * 8), codegen

    return dot


def pack_of(vectors):
    def body(emit, *args):
        _emit_pack(emit, vectors, *args)

    codegen = emitted(f"pack_{vectors}", body, 5)

    @intrinsic
    def pack(typingctx, like, packed, B, b_row, K, columns):
        return types.void(like, *[types.intp] * 5), codegen

    return pack


_codegen_transpose = emitted("transpose", _emit_transpose, 6)


@intrinsic
def transpose_block(typingctx, like, to, to_row, source, row, M, N):
    return types.void(like, *[types.intp] * 6), _codegen_transpose


_codegen_copy = emitted("copy", emit_copy, 6)


@intrinsic
def copy_block(typingctx, like, to, to_row, source, row, M, N):
    return types.void(like, *[types.intp] * 6), _codegen_copy
