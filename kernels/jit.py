"""How kernels are compiled: the options of Numba, for each kind of function."""

from numba import njit

# contract: fused multiply-add; reassoc: sums may use vector lanes; nsz: the sign of zero is free.
# NaN and infinity keep their meaning. error_model: division by zero gives inf, as in NumPy.
FLAGS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy", "nogil": True}
# For formulas whose rounding steps matter: no reassociation.
EXACT = {**FLAGS, "fastmath": {"contract"}}

# No kernel allocates. The caller owns all arrays for as long as a kernel runs, so that kernels need
# not count who uses one: counting took a third of the time of training on single examples.
OWNS_NOTHING = {"_nrt": False}
# Functions that only kernels call have no way in from Python, which took a third of the time to
# compile. From Python, call them through an njit function.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **OWNS_NOTHING}
# Part of its caller: no call, whose arguments are every field of every array, and nothing to count.
leaf = njit(forceinline=True, **_INNER, **FLAGS)
# Part of its caller before types are inferred: for the large pieces of an entry point. A leaf is
# also optimised and emitted on its own, which for these took a quarter of the time to compile.
section = njit(inline="always", **_INNER, **FLAGS)
# One copy that all callers share: for what is large and called from several places.
shared = njit(**_INNER, **FLAGS)
exact = njit(**_INNER, **EXACT)
exact_leaf = njit(forceinline=True, **_INNER, **EXACT)
