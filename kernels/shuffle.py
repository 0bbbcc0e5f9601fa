"""The order of the examples in an epoch: that of NumPy's ``RandomState.shuffle``, but sooner.

Both are Fisher and Yates's: from the last place down, each is exchanged with a random place up to
it. The random number is one of the bit generator's, of as many bits as that place takes, or the
next one if it is beyond; one in four is, which no branch prediction foresees. Here nothing branches
on it.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I32, _I64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def _next_uint32(typingctx, address, state):
    """The next random number of NumPy's bit generator with its C function at ``address``."""

    def codegen(context, builder, signature, args):
        pointer = ir.PointerType()
        function_type = ir.FunctionType(_I32, [pointer])
        function = builder.inttoptr(args[0], function_type.as_pointer())
        number = builder.call(function, [builder.inttoptr(args[1], pointer)])
        return builder.zext(number, _I64)

    return types.int64(types.int64, types.int64), codegen


def fisher_yates(order, places, address, state):
    """Shuffle ``order``; ``places``, of the same size, is scratch."""
    i, mask = order.size - 1, 1
    while mask < i:
        mask = 2 * mask + 1
    while i > 0:
        if i <= mask >> 1:
            mask >>= 1
        place = _next_uint32(address, state) & mask
        places[i] = place  # if it is beyond i, the next one comes here as well
        i -= np.int64(place <= i)
    for i in range(order.size - 1, 0, -1):
        place = places[i]
        order[i], order[place] = order[place], order[i]


def sample_fisher_yates(dtype):
    indices = np.zeros(1, np.int64)
    return indices, indices, 0, 0
