"""exp, log, tanh, the logistic function and the normal distribution, in float32 and float64.

Numba calls libm once per element and so keeps a loop over these functions scalar. Here they are
branch-free arithmetic: LLVM vectorises any loop around them. Error bounds, in units in the last
place, over the whole range including denormal results (measured in tests/test_elementary.py):
exp 2, log 2, tanh 4, logistic 4, normal 10. NaN gives NaN and infinities give the limits.

exp: x = n ln 2 + r with |r| <= ln(2)/2 (Cody and Waite, 1980), exp(r) = 1 + r + r^2 P(r) with P the
Chebyshev interpolant of (exp(r) - 1 - r) / r^2. log: x = 2^e (1 + f), log(1 + f) = 2 artanh(s) with
s = f / (2 + f), as its series in s^2. normal: with t = |x| and s = (t - k) / (t + k), the lower
tail is exp(-t^2 / 2) Q(s) / (t + k), Q a Chebyshev interpolant (Shepherd and Laframboise, 1981).
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from .jit import EXACT, LEAF, exact, exact_leaf

_INTEGER = {types.float32: types.int32, types.float64: types.int64}
_REAL = {integer: real for real, integer in _INTEGER.items()}


@intrinsic
def _bits(typingctx, x):
    """The bit pattern of a float, as a signed integer of its width."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return _INTEGER[x](x), codegen


@intrinsic
def _from_bits(typingctx, n):
    """The float with the bit pattern of an integer."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return _REAL[n](n), codegen


# A factory of five formulas with their comments, longer than functions should be: closed over the
# constants of one type, they are written once for both.
def _functions(T, Int, exponent_bits, mantissa_bits, ln2_hi, ln2_lo, P, log_terms, k, Q):
    """Build exp, log, tanh, logistic, normal for the float type ``T`` as compiled scalar functions.

    Numba widens integer arithmetic to 64 bits; ``Int(...)`` keeps float32 loops in 32-bit lanes.

    ``ln2_hi`` has trailing zero bits, so that n * ln2_hi is exact. ``P`` and ``log_terms`` are
    polynomial coefficients, highest degree first; float32 takes the last five alone, and
    the last eleven of ``Q``.
    """
    bias = Int(2 ** (exponent_bits - 1) - 1)
    shift = Int(mantissa_bits)
    magic = T(1.5 * 2.0**mantissa_bits)  # adding it rounds to an integer, kept in the low bits
    log2e = T(1 / math.log(2))
    ln2_hi, ln2_lo = T(ln2_hi), T(ln2_lo)
    double = T is np.float64
    zero, half, one, two = T(0), T(0.5), T(1), T(2)
    infinity, nan = T(np.inf), T(np.nan)
    largest = T(math.log(np.finfo(T).max) + 1)
    smallest = T(math.log(np.finfo(T).smallest_subnormal) - 1)
    saturated = T(-2.0 * (10 if T is np.float32 else 20))  # tanh(10), tanh(20) round to 1
    tiny, denormal_scale, denormal_shift = np.finfo(T).tiny, T(2.0**mantissa_bits), shift
    sqrt_half = np.array(math.sqrt(0.5), T).view(Int)[()]
    p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 = (T(c) for c in P)
    l0, l1, l2, l3, l4, l5, l6, l7, l8, l9 = (T(c) for c in log_terms)
    k = T(k)
    q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10 = (T(c) for c in Q[:11])
    q11, q12, q13, q14, q15, q16, q17, q18, q19, q20, q21 = (T(c) for c in Q[11:])
    upper_half = Int(-1 << (mantissa_bits // 2 + 1))  # of the bits of a mantissa
    no_tail = T(math.sqrt(-2 * math.log(np.finfo(T).smallest_subnormal)))

    @exact
    def power_of_two(n):
        return _from_bits(Int((n + bias) << shift))

    @exact
    def reduce(x):
        """n and expm1(r) where x = n ln 2 + r."""
        t = x * log2e + magic
        n = t - magic
        r = (x - n * ln2_hi) - n * ln2_lo
        p = p5
        if double:
            p = p0
            p = p * r + p1
            p = p * r + p2
            p = p * r + p3
            p = p * r + p4
            p = p * r + p5
        p = p * r + p6
        p = p * r + p7
        p = p * r + p8
        p = p * r + p9
        return Int(_bits(t) - _bits(magic)), p * r * r + r

    @exact
    def exp(x):
        x = largest if x > largest else x  # written so that NaN passes
        x = smallest if x < smallest else x
        n, q = reduce(x)
        first = Int(n >> Int(1))  # in two steps: neither overflows, and results may be denormal
        return (one + q) * power_of_two(first) * power_of_two(Int(n - first))

    @exact
    def tanh(x):
        y = -two * _fabs(x)
        y = saturated if y < saturated else y
        n, q = reduce(y)
        scale = power_of_two(n)
        expm1 = scale * q + (scale - one)
        t = -expm1 / (expm1 + two)
        return -t if x < zero else _fabs(t)

    @exact
    def logistic(x):
        e = exp(-_fabs(x))
        return (one if x >= zero else e) / (one + e)

    @exact
    def log(x):
        denormal = x < tiny
        m = x * denormal_scale if denormal else x
        bits = _bits(m)
        e = Int(Int(bits - sqrt_half) >> shift)
        f = _from_bits(Int(bits - (e << shift))) - one
        n = T(Int(e - denormal_shift) if denormal else e)
        s = f / (two + f)
        z = s * s
        p = l5
        if double:
            p = l0
            p = p * z + l1
            p = p * z + l2
            p = p * z + l3
            p = p * z + l4
            p = p * z + l5
        p = p * z + l6
        p = p * z + l7
        p = p * z + l8
        p = p * z + l9
        h = half * f * f
        y = n * ln2_hi + (f - (h - (s * (h + p * z) + n * ln2_lo)))
        y = infinity if x == infinity else y
        y = -infinity if x == zero else y
        return y if x >= zero else nan

    @exact_leaf  # LLVM would not inline so many operations by itself
    def normal(x):
        t = _fabs(x)
        t = no_tail if t > no_tail else t
        upper = _from_bits(Int(_bits(t) & upper_half))  # its square has no rounding error
        high, low = -half * (upper * upper), -half * ((t - upper) * (t + upper))
        square = high + low
        e = exp(square)
        e += e * ((high - square) + low)
        u = one / (t + k)
        s = (t - k) * u
        q = q11
        if double:
            q = q0
            q = q * s + q1
            q = q * s + q2
            q = q * s + q3
            q = q * s + q4
            q = q * s + q5
            q = q * s + q6
            q = q * s + q7
            q = q * s + q8
            q = q * s + q9
            q = q * s + q10
            q = q * s + q11
        q = q * s + q12
        q = q * s + q13
        q = q * s + q14
        q = q * s + q15
        q = q * s + q16
        q = q * s + q17
        q = q * s + q18
        q = q * s + q19
        q = q * s + q20
        q = q * s + q21
        tail = e * (q * u)
        return one - tail if x > zero else tail

    return {"exp": exp, "tanh": tanh, "logistic": logistic, "log": log, "normal": normal}


@intrinsic
def _fabs(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.call(builder.module.declare_intrinsic("llvm.fabs", [args[0].type]), args)

    return x(x), codegen


_FUNCTIONS = {
    types.float32: _functions(
        np.float32,
        np.int32,
        exponent_bits=8,
        mantissa_bits=23,
        ln2_hi=355 / 512,
        ln2_lo=-0.000212194440055,
        P=[0] * 5
        + [
            0.0013926183587713494541,
            0.0083631790527225773697,
            0.041666554617204574203,
            0.16666576989698775683,
            0.5,
        ],
        log_terms=[0] * 5 + [2 / 11, 2 / 9, 2 / 7, 2 / 5, 2 / 3],
        k=3,
        Q=[0] * 11
        + [
            0.000055355966295437997518,
            0.0001331259087505261264,
            -0.00024458266635030283877,
            -0.0010342220593040599595,
            0.0010241357110211652075,
            0.0069698131313015088302,
            -0.010462293756020216735,
            -0.047262745275900215694,
            0.23001767766349003359,
            -0.50933198954028234501,
            0.72908369069624986858,
        ],
    ),
    types.float64: _functions(
        np.float64,
        np.int64,
        exponent_bits=11,
        mantissa_bits=52,
        ln2_hi=2977044471 / 2**32,
        ln2_lo=1.9082149292705878161e-10,
        P=[
            2.5100385495510319077e-8,
            2.762008844540974816e-7,
            2.7557268459997064772e-6,
            0.000024801521295954375131,
            0.00019841269863053616878,
            0.0013888888917213716901,
            0.0083333333333300618325,
            0.041666666666624127873,
            0.16666666666666667453,
            0.50000000000000010221,
        ],
        log_terms=[2 / (2 * i + 1) for i in range(10, 0, -1)],
        k=6,
        Q=[
            2.7054496637977872461e-9,
            9.2192672583608843361e-11,
            -3.7811039740751347139e-8,
            1.2755843356530045143e-8,
            3.048240041913844842e-7,
            -4.3577613504932497357e-7,
            -1.7965827563569255388e-6,
            6.8005431594268570546e-6,
            1.0745924733200878298e-6,
            -0.000064753705700848765502,
            0.00018136059315872918324,
            0.000032870453008737620297,
            -0.0021316052225278695638,
            0.010029820572770707047,
            -0.030985315508191790816,
            0.075171915675092535032,
            -0.15268023206435666637,
            0.26797424584136901958,
            -0.4139035857755962979,
            0.56896889181478893561,
            -0.70100902959086549109,
            0.77735177189336217498,
        ],
    ),
}


# Their own bodies run only where the JIT compiler is off.


def exp(x):
    """e**x."""
    return np.exp(x)


def log(x):
    """The natural logarithm; -inf at 0, NaN below."""
    return np.log(x)


def tanh(x):
    """The hyperbolic tangent."""
    return np.tanh(x)


def logistic(x):
    """1 / (1 + e**-x)."""
    return 1 / (1 + np.exp(-x))


def normal(x):
    """The probability that a standard normal variable is below x: (1 + erf(x / sqrt(2))) / 2."""
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def _overload(function):
    """Make ``function`` callable in kernels: by its argument's type, one of _FUNCTIONS."""

    @overload(function, jit_options={**LEAF, **EXACT})
    def choose(x):
        typed = _FUNCTIONS[x][function.__name__]
        return lambda x: typed(x)


for _function in (exp, log, tanh, logistic, normal):
    _overload(_function)
