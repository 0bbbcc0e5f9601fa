"""The innermost loops of the matrix products, each for one size of tile that stays in registers.

A tile is MR rows by NV vectors of C. ``tile_of``, ``dot_of`` and ``pack_of`` make functions that
kernels call with raw addresses and strides in elements; the first argument, ``like``, is any number
of the operands' dtype.

They have more than eight parameters, as each is a call that stays one: its numbers travel in
registers, where a tuple's would go through memory.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import emitted
from .machine import REGISTERS, VECTOR_BYTES

_I32, _I64 = ir.IntType(32), ir.IntType(64)

# How many sums a tile keeps in registers, beside the operands of their next terms; x86 before
# AVX-512 has 16 registers.
SUMS = 16 if REGISTERS == 32 else 12
TILE_ROWS = SUMS // 2


def _emit_tile(emit, MR, NV, masked, add, C, c_row, A, a_row, a_col, B, b_row, K, columns):
    """C <- (C +) A B for MR rows and NV vectors of columns, of which ``columns`` exist."""
    vectors = range(NV)
    masks = [emit.mask(j, columns) if masked else None for j in vectors]
    at_c = emit.rows(C, c_row, MR)
    sums = emit.choose(
        emit.builder.icmp_signed("!=", add, ir.Constant(_I64, 0)),
        lambda: [emit.load(row, j, masks[j]) for row in at_c for j in vectors],
        [emit.zero] * (MR * NV),
    )

    def body(values):
        at_a, at_b, *sums = values
        b = [emit.load(at_b, j, masks[j]) for j in vectors]
        a = [emit.broadcast(row) for row in emit.rows(at_a, a_row, MR)]
        sums = emit.accumulate(sums, a, b)
        return [emit.element(at_a, a_col), emit.element(at_b, b_row), *sums]

    # The loop carries the addresses of the next column of A and row of B, and all sums.
    _, _, *sums = emit.loop(K, [A, B, *sums], body)
    for i, row in enumerate(at_c):
        for j in vectors:
            emit.store(sums[i * NV + j], row, j, masks[j])


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
            # Add the lanes of one sum: the upper half to the lower, until one lane is left.
            value = sums[i * NR + j]
            half = emit.lanes
            while half > 1:
                half //= 2
                order = [k + half if k < half else k for k in range(emit.lanes)]
                value = builder.fadd(value, emit.shuffle(value, value, order))
            value = builder.extract_element(value, ir.Constant(_I32, 0))
            pointer = emit.scalar(builder.add(row, ir.Constant(_I64, j * emit.size)))
            old = builder.load(pointer)
            old.align = emit.size
            zero = ir.Constant(emit.real, 0.0)
            value = builder.fadd(builder.select(accumulating, old, zero), value)
            builder.store(value, pointer).align = emit.size


def _emit_pack(emit, vectors, packed, B, b_row, K, columns):
    """Copy K rows of so many vectors of B to ``packed``, zeros where there are no columns."""
    masks = [emit.mask(j, columns) for j in range(vectors)]
    row = ir.Constant(_I64, vectors * VECTOR_BYTES)

    def body(values):
        at_b, at_packed = values
        for j in range(vectors):
            emit.store(emit.load(at_b, j, masks[j]), at_packed, j)
        return [emit.element(at_b, b_row), emit.builder.add(at_packed, row)]

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
    inside = emit.mask(0, M)
    for i, at in enumerate(emit.rows(to, to_row, lanes)):
        exists = builder.icmp_signed("<", ir.Constant(_I64, i), N)
        emit.store(block[i], at, 0, builder.select(exists, inside, nowhere))


def tile_of(MR, NV, masked):
    def body(emit, *args):
        _emit_tile(emit, MR, NV, masked, *args)

    codegen = emitted(f"tile_{MR}x{NV}{'_masked' if masked else ''}", body, 10)

    @intrinsic
    def tile(typingctx, like, add, C, c_row, A, a_row, a_col, B, b_row, K, columns):
        return types.void(like, *[types.intp] * 10), codegen

    return tile


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
