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

from .jit import exact_leaf

_I32, _I64 = ir.IntType(32), ir.IntType(64)
# Of the Mersenne twister, RandomState's generator: words of its state, and the distance between two
# that make a new one.
N_WORDS, FAR = 624, 397


@intrinsic
def _next_uint32(typingctx, address, state):
    """The next random number of NumPy's bit generator with its C function at ``address``."""

    def codegen(context, builder, signature, args):
        pointer = ir.PointerType()
        function_type = ir.FunctionType(_I32, [pointer])
        function = builder.inttoptr(args[0], function_type.as_pointer())
        return builder.call(function, [builder.inttoptr(args[1], pointer)])

    return types.uint32(types.int64, types.int64), codegen


@exact_leaf
def _next_word(key, k, after, far):
    """Let ``key[k]`` be the word that comes N_WORDS later, of Matsumoto and Nishimura (1998)."""
    mixed = (key[k] & np.uint32(0x80000000)) | (key[after] & np.uint32(0x7FFFFFFF))
    odd = np.uint32(0) - (mixed & np.uint32(1))  # all bits, or none
    key[k] = key[far] ^ (mixed >> np.uint32(1)) ^ (odd & np.uint32(0x9908B0DF))


@exact_leaf
def _next_words(key):
    # In vectors: what lies behind the end is at the beginning, and new.
    for k in range(N_WORDS - FAR):
        _next_word(key, k, k + 1, k + FAR)
    for k in range(N_WORDS - FAR, N_WORDS - 1):
        _next_word(key, k, k + 1, k + FAR - N_WORDS)
    _next_word(key, N_WORDS - 1, 0, FAR - 1)


@exact_leaf
def _temper(key, words):
    """The random numbers that the words stand for."""
    for k in range(N_WORDS):
        x = key[k]
        x ^= x >> np.uint32(11)
        x ^= (x << np.uint32(7)) & np.uint32(0x9D2C5680)
        x ^= (x << np.uint32(15)) & np.uint32(0xEFC60000)
        words[k] = x ^ (x >> np.uint32(18))


def fisher_yates(order, places, key, words, address, state):
    """Shuffle ``order``.

    Parameters
    ----------
    order : (n,) int64
    places : (n,) int64
        Scratch.
    key : (N_WORDS + 1,) uint32
        The state of a Mersenne twister, and how many of its words are used up; empty: the generator
        is another one.
    words : (N_WORDS,) uint32
        Scratch.
    address, state : int
        Of the generator's C function that returns the next number, and its argument.
    """
    i, mask = order.size - 1, 1
    while mask < i:
        mask = 2 * mask + 1
    while i > 0:
        k = N_WORDS - 1
        if key.size > 0:
            if key[N_WORDS] >= N_WORDS:
                _next_words(key)
                key[N_WORDS] = 0
            _temper(key, words)
            k = np.int64(key[N_WORDS])
        else:
            words[k] = _next_uint32(address, state)
        while k < N_WORDS and i > 0:
            if i <= mask >> 1:
                mask >>= 1
            place = np.int64(words[k]) & mask
            places[i] = place  # if it is beyond i, the next one comes here as well
            i -= np.int64(place <= i)
            k += 1
        if key.size > 0:
            key[N_WORDS] = k
    for i in range(order.size - 1, 0, -1):
        place = places[i]
        order[i], order[place] = order[place], order[i]


def sample_fisher_yates(dtype):
    indices, words = np.zeros(1, np.int64), np.zeros(1, np.uint32)
    return indices, indices, words, words, 0, 0
