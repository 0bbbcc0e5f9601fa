"""Builds innermost loops, of products and of updates, as LLVM code: vectors, masks, loops.

Numba has no vectors. Here they are values of an LLVM IR builder: an ``Emitter`` knows one dtype and
has a method for each thing that a tile does, and ``emitted`` makes a function of what it built.
"""

import itertools

from llvmlite import ir
from numba.core import cgutils

from .machine import VECTOR_BYTES, X86

_I32, _I64 = ir.IntType(32), ir.IntType(64)
AVX = X86 and VECTOR_BYTES == 32  # its masks are vectors, not registers of their own


class Emitter:
    """Builds the body of one function with an LLVM IR builder."""

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
        self.sqrt, self.fabs = (
            self._function(
                f"llvm.{name}.v{self.lanes}f{8 * self.size}",
                ir.FunctionType(self.vector, [self.vector]),
            )
            for name in ("sqrt", "fabs")
        )

    def _function(self, name, signature):
        return cgutils.get_or_insert_function(self.builder.module, signature, name)

    def splat(self, scalar):
        vector = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
        zeros = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, zeros)

    def mask(self, j, count):
        """Which lanes of vector j are among the first ``count`` elements: their sign bits are set.

        Integers as wide as the elements, as AVX takes them: LLVM would make them of single bits
        again and again, in each turn of a loop.
        """
        integer = ir.IntType(8 * self.size)
        first = j * self.lanes
        lane = ir.Constant(
            ir.VectorType(integer, self.lanes), [first + i for i in range(self.lanes)]
        )
        if self.size < 8:
            count = self.builder.trunc(count, integer)
        return self.builder.sub(lane, self.splat(count))

    def _bits(self, mask):
        return self.builder.icmp_signed("<", mask, ir.Constant(mask.type, [0] * self.lanes))

    def integer(self, value):
        return ir.Constant(_I64, value)

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
        if AVX:
            function = self._function(
                f"llvm.x86.avx.maskload.p{'s' if self.size == 4 else 'd'}.256",
                ir.FunctionType(self.vector, [pointer, mask.type]),
            )
            return self.builder.call(function, [self.builder.inttoptr(address, pointer), mask])
        mask = self._bits(mask)
        function = self._function(
            f"llvm.masked.load.v{self.lanes}f{8 * self.size}.p0",
            ir.FunctionType(self.vector, [pointer, _I32, mask.type, self.vector]),
        )
        align = ir.Constant(_I32, self.size)
        address = self.builder.inttoptr(address, pointer)
        return self.builder.call(function, [address, align, mask, self.zero])

    def store(self, value, address, j=0):
        """Write vector j after ``address``."""
        address = self.builder.add(address, ir.Constant(_I64, j * self.lanes * self.size))
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        self.builder.store(value, pointer).align = self.size

    def store_part(self, rows, at, stride, n_rows, columns):
        """Write the first ``columns`` elements of the first ``n_rows`` of ``rows`` of vectors.

        Row i goes to ``at`` plus i times ``stride``. Without registers for masks, by way of the
        stack: there, a masked store takes more than ten cycles on AMD's CPUs.
        """
        builder, vectors = self.builder, len(rows[0])
        if VECTOR_BYTES == 64:
            for i, (row, address) in enumerate(
                zip(rows, self.rows(at, stride, len(rows)), strict=True)
            ):
                exists = builder.icmp_signed("<", self.integer(i), n_rows)
                count = builder.select(exists, columns, self.integer(0))
                for j, value in enumerate(row):
                    self._store_masked(value, address, j, self._bits(self.mask(j, count)))
            return
        place = cgutils.alloca_once(builder, self.vector, len(rows) * vectors)
        place = builder.ptrtoint(place, _I64)
        for j, value in enumerate(itertools.chain.from_iterable(rows)):
            self.store(value, place, j)
        row = self.integer(vectors * self.lanes)
        copy = function_of(builder.module, self.real, "copy", emit_copy, [_I64] * 6)
        builder.call(copy, [at, stride, place, row, n_rows, columns])

    def _store_masked(self, value, address, j, bits):
        address = self.builder.add(address, ir.Constant(_I64, j * self.lanes * self.size))
        pointer = ir.PointerType()
        function = self._function(
            f"llvm.masked.store.v{self.lanes}f{8 * self.size}.p0",
            ir.FunctionType(ir.VoidType(), [self.vector, pointer, _I32, bits.type]),
        )
        align = ir.Constant(_I32, self.size)
        self.builder.call(function, [value, self.builder.inttoptr(address, pointer), align, bits])

    def positive(self, value):
        """The larger of each element and 0, or NaN."""
        builder = self.builder
        if AVX:
            # Of a comparison and a choice LLVM would make a masked store.
            function = self._function(
                f"llvm.x86.avx.max.p{'s' if self.size == 4 else 'd'}.256",
                ir.FunctionType(self.vector, [self.vector] * 2),
            )
            return builder.call(function, [self.zero, value])  # the second, if one is NaN
        return builder.select(builder.fcmp_ordered("<", value, self.zero), self.zero, value)

    def gated(self, value, gate):
        """The value where the gate is not 0, else 0."""
        shut = self.builder.fcmp_ordered("==", gate, self.zero)
        return self.builder.select(shut, self.zero, value)

    def scalar(self, address):
        """A pointer to the number at ``address``."""
        return self.builder.inttoptr(address, self.real.as_pointer())

    def broadcast(self, address):
        value = self.builder.load(self.scalar(address))
        value.align = self.size
        return self.splat(value)

    def sum_of_lanes(self, value):
        """The sum of a vector's elements: the upper half to the lower, until one is left."""
        half = self.lanes
        while half > 1:
            half //= 2
            order = [k + half if k < half else k for k in range(self.lanes)]
            value = self.builder.fadd(value, self.shuffle(value, value, order))
        return self.builder.extract_element(value, ir.Constant(_I32, 0))

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
        """``then()`` if the condition holds, else the values ``otherwise``."""
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


def emit_copy(emit, to, to_row, source, row, M, N):
    """Copy M rows of N numbers: vectors, then what is left in quarters, then single numbers."""
    builder = emit.builder

    def piece(width):
        shape = emit.real if width == 1 else ir.VectorType(emit.real, width)
        step = emit.integer(width * emit.size)

        def move(values):
            to, source = values
            value = builder.load(builder.inttoptr(source, shape.as_pointer()))
            value.align = emit.size
            builder.store(value, builder.inttoptr(to, shape.as_pointer())).align = emit.size
            return [builder.add(to, step), builder.add(source, step)]

        return move

    def one_row(values):
        place, left = values, N
        for width in sorted({emit.lanes, max(1, 16 // emit.size), 1}, reverse=True):
            count = builder.sdiv(left, emit.integer(width))
            place = emit.loop(count, place, piece(width))
            left = builder.srem(left, emit.integer(width))
        return [emit.element(values[0], to_row), emit.element(values[1], row)]

    emit.loop(M, [to, source], one_row)


def function_of(module, real, name, emit_body, parameters):
    """The function ``name`` for numbers of type ``real`` in a module, built if it is not there.

    It returns a number if its last parameter is one, otherwise nothing.
    """
    symbol = f"fastnn_{name}_{real}"
    function = module.globals.get(symbol)
    if function is None:
        result = ir.VoidType() if parameters[-1] == _I64 else real
        function = ir.Function(module, ir.FunctionType(result, parameters), symbol)
        # One copy of the body, however often the product is inlined and linked.
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        body = ir.IRBuilder(function.append_basic_block("entry"))
        value = emit_body(Emitter(body, real), *function.args)
        body.ret_void() if value is None else body.ret(value)
    return function


def emitted(name, emit_body, n_integers, n_numbers=0):
    """A function callable in kernels: its first argument is any value of the operands' dtype.

    Integers and then numbers of that dtype follow. With numbers, it also returns one.
    """

    def codegen(context, builder, signature, args):
        real = context.get_value_type(signature.args[0])
        parameters = [_I64] * n_integers + [real] * n_numbers
        function = function_of(builder.module, real, name, emit_body, parameters)
        value = builder.call(function, args[1:])
        return value if n_numbers else context.get_dummy_value()

    return codegen


class Vector:
    """A vector in a formula: ``+``, ``-``, ``*`` and ``/`` of it and others are LLVM code."""

    def __init__(self, emit, value):
        self.emit, self.value = emit, value

    def _with(self, other, operation):
        return Vector(self.emit, operation(self.value, other.value, flags=["contract"]))

    def __add__(self, other):
        return self._with(other, self.emit.builder.fadd)

    def __sub__(self, other):
        return self._with(other, self.emit.builder.fsub)

    def __mul__(self, other):
        return self._with(other, self.emit.builder.fmul)

    def __truediv__(self, other):
        return self._with(other, self.emit.builder.fdiv)

    def sqrt(self):
        return self._function(self.emit.sqrt)

    def size(self):
        return self._function(self.emit.fabs)

    def _function(self, function):
        return Vector(self.emit, self.emit.builder.call(function, [self.value]))
