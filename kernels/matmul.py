"""The two matrix products under everything, emitted as LLVM vectors with fused multiply-add.

``matmul``, C <- A B, works on register tiles: MR rows by NV vectors of C stay in registers while k
runs over the inner dimension; per k it loads NV vectors of B's row k, broadcasts MR elements of A's
column k, and does MR * NV multiply-adds. Each element of C is one chain a_0 b_0 + a_1 b_1 + ... in
the order of k, whatever tile it falls in.

``dot_products``, C <- A B^T, is for few columns of C, where most lanes of a tile would idle: the
vectors run along k, each element of C has one partial sum per lane, and these are added pairwise.

So results do not depend on how the rows of C are divided over threads or blocks. Nothing is packed
or allocated; edges are masked. Operands are raw addresses and strides in elements: the products of
a network (forward, backward, gradient) differ in strides only.
"""

import itertools
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import leaf, shared

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _host_features():
    if config.CPU_FEATURES is not None:
        return config.CPU_FEATURES
    return llvm.get_host_cpu_features().flatten()


def _vector_bytes_and_sums():
    """Bytes of a vector register, and how many sums a tile may keep in registers."""
    features = _host_features().split(",")
    if "+avx512f" in features:
        return 64, 16  # of 32 registers
    if "+avx" in features:
        return 32, 12  # of 16
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return 16, 16  # of 32
    return 16, 12  # of 16


VECTOR_BYTES, SUMS = _vector_bytes_and_sums()
TILE_ROWS = SUMS // 2
THREE_VECTORS = SUMS == 16  # whether half as many sums again fit as well


class _Emitter:
    """Builds the body of one product of fixed size with an LLVM IR builder."""

    def __init__(self, builder, real):
        self.builder, self.real = builder, real
        self.size = 4 if isinstance(real, ir.FloatType) else 8
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(real, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.fma = self._function(
            f"llvm.fmuladd.v{self.lanes}f{8 * self.size}",
            ir.FunctionType(self.vector, [self.vector] * 3),
        )

    def _function(self, name, signature):
        return cgutils.get_or_insert_function(self.builder.module, signature, name)

    def _splat(self, scalar):
        vector = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def mask(self, j, count):
        """Which lanes of vector j are among the first ``count`` elements."""
        lane = ir.Constant(
            ir.VectorType(_I64, self.lanes), [j * self.lanes + i for i in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", lane, self._splat(count))

    def element(self, base, offset):
        """The address ``offset`` elements after ``base``."""
        return self.builder.add(base, self.builder.mul(offset, ir.Constant(_I64, self.size)))

    def rows(self, base, stride, count):
        """The addresses of ``count`` rows, ``stride`` elements apart."""
        return [
            self.element(base, self.builder.mul(stride, ir.Constant(_I64, i))) for i in range(count)
        ]

    def shuffle(self, a, b, order):
        """The elements of a and b, counted through both, in the order given."""
        order = ir.Constant(ir.VectorType(_I32, self.lanes), order)
        return self.builder.shuffle_vector(a, b, order)

    def load(self, address, j, mask=None):
        """Vector j after ``address``; zeros where the mask is off."""
        address = self.builder.add(address, ir.Constant(_I64, j * self.lanes * self.size))
        if mask is None:
            value = self.builder.load(self.builder.inttoptr(address, self.vector.as_pointer()))
            value.align = self.size
            return value
        pointer = ir.PointerType()
        function = self._function(
            f"llvm.masked.load.v{self.lanes}f{8 * self.size}.p0",
            ir.FunctionType(self.vector, [pointer, _I32, mask.type, self.vector]),
        )
        align = ir.Constant(_I32, self.size)
        address = self.builder.inttoptr(address, pointer)
        return self.builder.call(function, [address, align, mask, self.zero])

    def store(self, value, address, j, mask=None):
        address = self.builder.add(address, ir.Constant(_I64, j * self.lanes * self.size))
        if mask is None:
            pointer = self.builder.inttoptr(address, self.vector.as_pointer())
            self.builder.store(value, pointer).align = self.size
            return
        pointer = ir.PointerType()
        function = self._function(
            f"llvm.masked.store.v{self.lanes}f{8 * self.size}.p0",
            ir.FunctionType(ir.VoidType(), [self.vector, pointer, _I32, mask.type]),
        )
        align = ir.Constant(_I32, self.size)
        self.builder.call(function, [value, self.builder.inttoptr(address, pointer), align, mask])

    def scalar(self, address):
        """A pointer to the number at ``address``."""
        return self.builder.inttoptr(address, self.real.as_pointer())

    def broadcast(self, address):
        value = self.builder.load(self.scalar(address))
        value.align = self.size
        return self._splat(value)

    def accumulate(self, sums, a, b):
        """sums[i, j] + a[i] b[j], both flat, row by row."""
        pairs = itertools.product(a, b)
        return [
            self.builder.call(self.fma, [a_i, b_j, s])
            for (a_i, b_j), s in zip(pairs, sums, strict=True)
        ]

    def loop(self, count, starts, body):
        """``for _ in range(count): values = body(values)``; returns the last values."""
        builder = self.builder
        entry = builder.block
        head, inside, end = map(builder.append_basic_block, ("head", "body", "end"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_I64)
        k.add_incoming(ir.Constant(_I64, 0), entry)
        values = []
        for start in starts:
            values.append(builder.phi(start.type))
            values[-1].add_incoming(start, entry)
        builder.cbranch(builder.icmp_signed("<", k, count), inside, end)
        builder.position_at_end(inside)
        for value, following in zip(values, body(values), strict=True):
            value.add_incoming(following, builder.block)
        k.add_incoming(builder.add(k, ir.Constant(_I64, 1)), builder.block)
        builder.branch(head)
        builder.position_at_end(end)
        return values

    def choose(self, condition, then, otherwise):
        """``then()`` if the condition holds, else the constants ``otherwise``."""
        builder = self.builder
        entry = builder.block
        inside, end = map(builder.append_basic_block, ("then", "end"))
        builder.cbranch(condition, inside, end)
        builder.position_at_end(inside)
        given = then()
        inside = builder.block
        builder.branch(end)
        builder.position_at_end(end)
        values = []
        for value, other in zip(given, otherwise, strict=True):
            values.append(builder.phi(value.type))
            values[-1].add_incoming(value, inside)
            values[-1].add_incoming(other, entry)
        return values


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


def _emitted(name, emit_body, n_arguments):
    """A function callable in kernels: its first argument is any value of the operands' dtype."""

    def codegen(context, builder, signature, args):
        real = context.get_value_type(signature.args[0])
        symbol = f"fastnn_{name}_{real}"
        function = builder.module.globals.get(symbol)
        if function is None:
            function_type = ir.FunctionType(ir.VoidType(), [_I64] * n_arguments)
            function = ir.Function(builder.module, function_type, symbol)
            # One copy of the body, however often the product is inlined and linked.
            function.linkage = "linkonce_odr"
            function.attributes.add("noinline")
            body = ir.IRBuilder(function.append_basic_block("entry"))
            emit_body(_Emitter(body, real), *function.args)
            body.ret_void()
        builder.call(function, args[1:])
        return context.get_dummy_value()

    return codegen


def _tile(MR, NV, masked):
    def body(emit, *args):
        _emit_tile(emit, MR, NV, masked, *args)

    codegen = _emitted(f"tile_{MR}x{NV}{'_masked' if masked else ''}", body, 10)

    @intrinsic
    def tile(typingctx, like, add, C, c_row, A, a_row, a_col, B, b_row, K, columns):
        return types.void(like, *[types.intp] * 10), codegen

    return tile


def _dot(MR, NR):
    def body(emit, *args):
        _emit_dot(emit, MR, NR, *args)

    codegen = _emitted(f"dot_{MR}x{NR}", body, 8)

    @intrinsic
    def dot(typingctx, like, add, C, c_row, A, a_row, B, b_row, K):
        return types.void(like, *[types.intp] * 8), codegen

    return dot


def _pack(vectors):
    def body(emit, *args):
        _emit_pack(emit, vectors, *args)

    codegen = _emitted(f"pack_{vectors}", body, 5)

    @intrinsic
    def pack(typingctx, like, packed, B, b_row, K, columns):
        return types.void(like, *[types.intp] * 5), codegen

    return pack


_pack_two, _pack_three = _pack(2), _pack(3)
_codegen_transpose = _emitted("transpose", _emit_transpose, 6)


@intrinsic
def _transpose_block(typingctx, like, to, to_row, source, row, M, N):
    return types.void(like, *[types.intp] * 6), _codegen_transpose


_full = _tile(TILE_ROWS, 2, masked=False)
_right = _tile(TILE_ROWS, 2, masked=True)
_narrow = _tile(TILE_ROWS, 1, masked=True)
_last = _tile(TILE_ROWS, 3, masked=True)


def _few_rows(MR, NV):
    """The product of ``MR`` rows, with as many vectors as keep its sums from waiting."""
    tile = _tile(MR, NV, masked=True)

    @leaf
    def over_columns(scratch, add, c, c_row, a, A, B, N, K):
        lanes = VECTOR_BYTES // scratch.size
        for n in range(0, N, NV * lanes):
            at = n * scratch.size
            b = B.at + at
            tile(scratch.like, add, c + at, c_row, a, A.row, A.column, b, B.row, K, N - n)

    return over_columns


_four_rows, _two_rows, _one_row = _few_rows(4, SUMS // 4), _few_rows(2, 6), _few_rows(1, 8)
_dot_column = _dot(8, 1)
_dot_block = _dot(4, 4)
_dot_row = _dot(1, 4)
_dot_one = _dot(1, 1)


# The part of B that tiles run over at a time, copied to one place: it stays in the L1 cache,
# aligned, and no stride between rows can make its lines fall on each other.
PACKED_K = 128
PACKED_BYTES = PACKED_K * 3 * VECTOR_BYTES
BLOCK_M = 16 * TILE_ROWS  # rows of A that stay in the L2 cache meanwhile


class Matrix(NamedTuple):
    """A matrix in memory: where it begins, and its strides in elements."""

    at: int
    row: int
    column: int


class Scratch(NamedTuple):
    """What a product needs to know beside its operands."""

    like: float  # any number of the operands' dtype
    size: int  # bytes of an element
    packed: int  # address of PACKED_BYTES of scratch, on a multiple of VECTOR_BYTES


@shared
def matmul(scratch, add, C, A, B, M, N, K):
    """C <- A B, or C + A B, with A (M, K), B (K, N), C (M, N); rows of B and C are contiguous.

    Parameters
    ----------
    scratch : Scratch
    add : 1 to add to C, 0 to overwrite it
    C, A, B : Matrix
    M, N, K : numbers of rows of C, columns of C, terms of each sum
    """
    i = M // TILE_ROWS * TILE_ROWS
    if i > 0:
        _whole_tiles(scratch, add, C, A, B, i, N, K)
    while i < M:
        c = C.at + i * C.row * scratch.size
        a = A.at + i * A.row * scratch.size
        if M - i >= 4:
            _four_rows(scratch, add, c, C.row, a, A, B, N, K)
            i += 4
        elif M - i >= 2:
            _two_rows(scratch, add, c, C.row, a, A, B, N, K)
            i += 2
        else:
            _one_row(scratch, add, c, C.row, a, A, B, N, K)
            i += 1


@leaf
def _whole_tiles(scratch, add, C, A, B, M, N, K):
    like, size = scratch.like, scratch.size
    lanes = VECTOR_BYTES // size
    packing = M >= 6 * TILE_ROWS and 2 * lanes <= N
    step = PACKED_K if packing else max(K, 1)
    for k in range(0, max(K, 1), step):
        terms = min(step, K - k)
        for block in range(0, M, BLOCK_M):
            block_end = min(M, block + BLOCK_M)
            n = 0
            while n < N:
                left = N - n
                # The last three vectors go together: one on its own would wait for broadcasts.
                vectors = 3 if THREE_VECTORS and 2 * lanes < left <= 3 * lanes else 2
                b, b_row = B.at + (k * B.row + n) * size, B.row
                if packing:
                    if vectors == 3:
                        _pack_three(like, scratch.packed, b, b_row, terms, left)
                    else:
                        _pack_two(like, scratch.packed, b, b_row, terms, left)
                    b, b_row = scratch.packed, vectors * lanes
                for i in range(block, block_end, TILE_ROWS):
                    c = C.at + (i * C.row + n) * size
                    a = A.at + (i * A.row + k * A.column) * size
                    if vectors == 3:
                        _last(like, add, c, C.row, a, A.row, A.column, b, b_row, terms, left)
                    elif left >= 2 * lanes:
                        _full(like, add, c, C.row, a, A.row, A.column, b, b_row, terms, left)
                    elif left > lanes:
                        _right(like, add, c, C.row, a, A.row, A.column, b, b_row, terms, left)
                    else:
                        _narrow(like, add, c, C.row, a, A.row, A.column, b, b_row, terms, left)
                n += vectors * lanes
        add = 1


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
            _transpose_block(like, b, B.row, a, A.row, min(lanes, M - i), min(lanes, N - j))


@intrinsic
def _prefetch(typingctx, address):
    def codegen(context, builder, signature, args):
        pointer = ir.PointerType()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32]),
            "llvm.prefetch.p0",
        )
        read, all_caches, data = 0, 3, 1
        how = [ir.Constant(_I32, value) for value in (read, all_caches, data)]
        builder.call(function, [builder.inttoptr(args[0], pointer), *how])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@leaf
def prefetch(row):
    """Ask for an array that will be read soon, so that it is in the cache by then."""
    at = np.intp(row.ctypes.data)
    for offset in range(0, row.size * row.itemsize, 64):
        _prefetch(at + offset)


@leaf
def matrix(buffer, start, row, column):
    """The matrix that begins at ``buffer[start]``."""
    # ctypes.data is unsigned, and unsigned plus signed would be a float.
    at = np.intp(buffer.ctypes.data) + np.intp(start * buffer.itemsize)
    return Matrix(at, np.intp(row), np.intp(column))  # literals would compile the products anew


@leaf
def scratch_of(buffers, thread):
    """The scratch of one thread, from ``buffers`` with a row for each."""
    at = np.intp(buffers.ctypes.data) + np.intp(thread * buffers.strides[0])
    return Scratch(buffers.dtype.type(0), buffers.itemsize, at)
