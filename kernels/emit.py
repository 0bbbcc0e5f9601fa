"""Builds the bodies of the products' innermost loops as LLVM code: vectors, masks, loops.

Numba has no vectors. Here they are values of an LLVM IR builder: an ``Emitter`` knows one dtype and
has a method for each thing that a tile does, and ``emitted`` makes a function of what it built.
"""

import itertools

from llvmlite import ir
from numba.core import cgutils

from .machine import VECTOR_BYTES

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Emitter:
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


def emitted(name, emit_body, n_arguments):
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
            emit_body(Emitter(body, real), *function.args)
            body.ret_void()
        builder.call(function, args[1:])
        return context.get_dummy_value()

    return codegen
