"""The matrix product: C = init + A B on a register tile, emitted as LLVM vectors with FMA.

A tile is MR rows by NV vectors of C, held in registers while k runs over the inner dimension: per
k it loads NV vectors of B's row k, broadcasts MR elements of A's column k, and does MR * NV fused
multiply-adds. Nothing is packed or allocated. Masked tiles do the right edge, lower ones the rest.

Each element of C is one chain ``init + a_0 b_0 + a_1 b_1 + ...`` in the order of k, whatever tile
it falls in. So results do not depend on how rows or columns are divided over threads or blocks.

Operands are raw addresses and strides in elements, so that the three products of a network (forward
A W, backward D W^T, gradient A^T D) are one function. Rows of B and C are contiguous.
"""

import functools

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import leaf

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


def _host_features():
    if config.CPU_FEATURES is not None:
        return config.CPU_FEATURES
    return llvm.get_host_cpu_features().flatten()


def _vector_bytes_and_rows():
    """Bytes of a vector register, and the rows of a tile of two vectors that fit in registers."""
    features = _host_features().split(",")
    if "+avx512f" in features:
        return 64, 8  # 32 registers: 16 sums, 2 of B, 1 of A
    if "+avx" in features:
        return 32, 6  # 16 registers: 12, 2, 1
    if llvm.get_process_triple().startswith(("aarch64", "arm64")):
        return 16, 8
    return 16, 6


VECTOR_BYTES, TILE_ROWS = _vector_bytes_and_rows()
TILE_VECTORS = 2


class _Emitter:
    """Builds the body of one tile with an LLVM IR builder."""

    def __init__(self, builder, real, MR, NV, masked, columns):
        self.builder, self.real, self.MR, self.NV = builder, real, MR, NV
        self.size = 4 if isinstance(real, ir.FloatType) else 8
        self.lanes = VECTOR_BYTES // self.size
        self.vector = ir.VectorType(real, self.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * self.lanes)
        self.mask = self._mask(columns) if masked else None
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

    def _mask(self, columns):
        """Which lanes of the last vector are inside: lane + (NV - 1) * lanes < columns."""
        lane = ir.Constant(
            ir.VectorType(_I64, self.lanes),
            [(self.NV - 1) * self.lanes + i for i in range(self.lanes)],
        )
        return self.builder.icmp_signed("<", lane, self._splat(columns))

    def _masked(self, kind):
        pointer, mask = ir.PointerType(), ir.VectorType(_I1, self.lanes)
        if kind == "load":
            signature = ir.FunctionType(self.vector, [pointer, _I32, mask, self.vector])
        else:
            signature = ir.FunctionType(ir.VoidType(), [self.vector, pointer, _I32, mask])
        return self._function(f"llvm.masked.{kind}.v{self.lanes}f{8 * self.size}.p0", signature)

    def element(self, base, offset):
        """The address ``offset`` elements after ``base``."""
        return self.builder.add(base, self.builder.mul(offset, ir.Constant(_I64, self.size)))

    def _at_vector(self, address, j):
        return self.builder.add(address, ir.Constant(_I64, j * self.lanes * self.size))

    def load(self, address, j):
        """Vector j of the row at ``address``."""
        address = self._at_vector(address, j)
        if self.mask is not None and j == self.NV - 1:
            pointer = self.builder.inttoptr(address, ir.PointerType())
            align = ir.Constant(_I32, self.size)
            return self.builder.call(self._masked("load"), [pointer, align, self.mask, self.zero])
        value = self.builder.load(self.builder.inttoptr(address, self.vector.as_pointer()))
        value.align = self.size
        return value

    def store(self, value, address, j):
        address = self._at_vector(address, j)
        if self.mask is not None and j == self.NV - 1:
            pointer = self.builder.inttoptr(address, ir.PointerType())
            align = ir.Constant(_I32, self.size)
            self.builder.call(self._masked("store"), [value, pointer, align, self.mask])
        else:
            pointer = self.builder.inttoptr(address, self.vector.as_pointer())
            self.builder.store(value, pointer).align = self.size

    def broadcast(self, address):
        value = self.builder.load(self.builder.inttoptr(address, self.real.as_pointer()))
        value.align = self.size
        return self._splat(value)

    def emit(self, C, c_row, init, init_row, A, a_row, a_col, B, b_row, K):
        builder, rows, vectors = self.builder, range(self.MR), range(self.NV)
        entry = builder.block
        load_init, head, body, end = map(
            builder.append_basic_block, ("load_init", "head", "body", "end")
        )
        builder.cbranch(builder.icmp_signed("!=", init, ir.Constant(_I64, 0)), load_init, head)

        builder.position_at_end(load_init)
        at_init = [self.element(init, builder.mul(init_row, ir.Constant(_I64, i))) for i in rows]
        given = [[self.load(at_init[i], j) for j in vectors] for i in rows]
        builder.branch(head)

        builder.position_at_end(head)
        k, at_a, at_b = builder.phi(_I64), builder.phi(_I64), builder.phi(_I64)
        sums = [[builder.phi(self.vector) for j in vectors] for i in rows]
        for block in (entry, load_init):
            k.add_incoming(ir.Constant(_I64, 0), block)
            at_a.add_incoming(A, block)
            at_b.add_incoming(B, block)
        for i in rows:
            for j in vectors:
                sums[i][j].add_incoming(self.zero, entry)
                sums[i][j].add_incoming(given[i][j], load_init)
        builder.cbranch(builder.icmp_signed("<", k, K), body, end)

        builder.position_at_end(body)
        b = [self.load(at_b, j) for j in vectors]
        for i in rows:
            a = self.broadcast(self.element(at_a, builder.mul(a_row, ir.Constant(_I64, i))))
            for j in vectors:
                sums[i][j].add_incoming(builder.call(self.fma, [a, b[j], sums[i][j]]), body)
        k.add_incoming(builder.add(k, ir.Constant(_I64, 1)), body)
        at_a.add_incoming(self.element(at_a, a_col), body)
        at_b.add_incoming(self.element(at_b, b_row), body)
        builder.branch(head)

        builder.position_at_end(end)
        for i in rows:
            row = self.element(C, builder.mul(c_row, ir.Constant(_I64, i)))
            for j in vectors:
                self.store(sums[i][j], row, j)


def _tile(MR, NV, masked):
    """A tile as a function callable in kernels; ``like`` is any value of the operands' dtype."""

    @intrinsic
    def tile(typingctx, like, C, c_row, init, init_row, A, a_row, a_col, B, b_row, K, columns):
        def codegen(context, builder, signature, args):
            real = context.get_value_type(signature.args[0])
            name = f"fastnn_tile_{MR}x{NV}{'_masked' if masked else ''}_{real}"
            function = builder.module.globals.get(name)
            if function is None:
                function_type = ir.FunctionType(ir.VoidType(), [_I64] * 11)
                function = ir.Function(builder.module, function_type, name)
                function.linkage = "internal"
                # One copy of the body, however often the product is inlined: a third of the
                # compile time, and the call costs a few cycles of some hundred.
                function.attributes.add("noinline")
                body = ir.IRBuilder(function.append_basic_block("entry"))
                _Emitter(body, real, MR, NV, masked, function.args[-1]).emit(*function.args[:-1])
                body.ret_void()
            builder.call(function, args[1:])
            return context.get_dummy_value()

        return types.void(like, *[types.intp] * 11), codegen

    return tile


@functools.cache
def _panel(NV, masked):
    """Rows of C against NV vectors of columns: full tiles, then ever lower ones."""
    full, four, two, one = (_tile(MR, NV, masked) for MR in (TILE_ROWS, 4, 2, 1))

    @leaf
    def panel(like, size, C, c_row, init, init_row, A, a_row, a_col, B, b_row, M, K, columns):
        i = 0
        while i < M:
            c = C + i * c_row * size
            at_init = init + i * init_row * size
            a = A + i * a_row * size
            left = M - i
            if left >= TILE_ROWS:
                full(like, c, c_row, at_init, init_row, a, a_row, a_col, B, b_row, K, columns)
                i += TILE_ROWS
            elif left >= 4:
                four(like, c, c_row, at_init, init_row, a, a_row, a_col, B, b_row, K, columns)
                i += 4
            elif left >= 2:
                two(like, c, c_row, at_init, init_row, a, a_row, a_col, B, b_row, K, columns)
                i += 2
            else:
                one(like, c, c_row, at_init, init_row, a, a_row, a_col, B, b_row, K, columns)
                i += 1

    return panel


_full_panel = _panel(2, False)
_right_panel = _panel(2, True)
_narrow_panel = _panel(1, True)


@leaf
def matmul(like, size, C, c_row, init, init_row, A, a_row, a_col, B, b_row, M, N, K):
    """C <- init + A B, with A (M, K), B (K, N), C (M, N).

    Parameters
    ----------
    like : scalar of the operands' dtype; its value is not used
    size : bytes of an element
    C, init, A, B : addresses; init 0 means zeros, init_row 0 one row (a bias) for all rows of C
    c_row, init_row, a_row, a_col, b_row : strides in elements
    M, N, K : numbers of rows of C, columns of C, terms of each sum
    """
    lanes = VECTOR_BYTES // size
    n = 0
    while n < N:
        c = C + n * size
        b = B + n * size
        at_init = init + n * size if init != 0 else 0
        row = init_row if init != 0 else 0
        left = N - n
        if left >= 2 * lanes:
            _full_panel(like, size, c, c_row, at_init, row, A, a_row, a_col, b, b_row, M, K, left)
        elif left > lanes:
            _right_panel(like, size, c, c_row, at_init, row, A, a_row, a_col, b, b_row, M, K, left)
        else:
            _narrow_panel(like, size, c, c_row, at_init, row, A, a_row, a_col, b, b_row, M, K, left)
        n += 2 * lanes


@leaf
def address(buffer, index):
    """The address of ``buffer[index]``."""
    # ctypes.data is unsigned, and unsigned plus signed would be a float.
    return np.intp(buffer.ctypes.data) + np.intp(index * buffer.itemsize)
