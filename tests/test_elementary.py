"""Error of exp, log, tanh, logistic and normal in units in the last place, and that loops over them
are vectorised; ReLU, which is written in vectors."""

import decimal
import math
import re

import numpy as np
import pytest
from numba import njit

from fastnn._backpropagation import _from_python as callable_from_python
from fastnn.kernels import activations, elementary
from fastnn.kernels.jit import FLAGS

BOUNDS = {"exp": 2, "log": 2, "tanh": 4, "logistic": 4, "normal": 10}  # of elementary's docstring
MORE_PRECISE = {np.float32: np.float64, np.float64: np.longdouble}


def normal_distribution(x):
    """By its series, and in the tails by Laplace's continued fraction."""
    W = x.dtype.type
    t = np.minimum(abs(x), W(100))
    tail = np.exp(-t * t / 2) / np.sqrt(8 * np.arctan(W(1)))  # the bell, so far
    near, far = t < 2.5, t >= 2.5
    term = series = u = t[near]
    for n in range(3, 121, 2):
        term = term * u * u / n
        series = series + term
    tail[near] = W(0.5) - tail[near] * series
    fraction = u = t[far]
    for n in range(150, 0, -1):
        fraction = u + n / fraction
    tail[far] /= fraction
    return np.where(np.isnan(x), x, np.where(x > 0, 1 - tail, tail))


REFERENCES = {
    "normal": normal_distribution,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
}

each_function = pytest.mark.parametrize("name", BOUNDS)
each_dtype = pytest.mark.parametrize("T", [np.float32, np.float64])


def _over(f):
    @njit(**FLAGS)
    def loop(y, x):
        for i in range(x.size):
            y[i] = f(x[i])

    return loop


LOOPS = {name: _over(getattr(elementary, name)) for name in BOUNDS}


def compute(name, x):
    """The function of elementary over an array, as kernels loop over it."""
    y = np.full_like(x, -7)
    LOOPS[name](y, x)
    return y


def reference(name, x):
    """The same in the next wider type."""
    with np.errstate(all="ignore"):
        return REFERENCES[name](x.astype(MORE_PRECISE[x.dtype.type]))


def ulps(y, exact):
    """Error of y in units of y's dtype at the exact value; infinity counts as 2^(max exponent)."""
    info, W = np.finfo(y.dtype), exact.dtype.type
    exponent = np.frexp(np.maximum(abs(exact), info.tiny))[1] - 1
    overflow = np.copysign(np.ldexp(W(1), info.maxexp), y)
    both = np.isinf(y) & (abs(exact) > info.max) & (np.sign(exact) == np.sign(y))
    error = abs(np.where(np.isinf(y), overflow, y.astype(W)) - np.where(both, overflow, exact))
    return error / np.ldexp(W(1), exponent - info.nmant)


def assert_within_bound(name, x):
    y, exact = compute(name, x), reference(name, x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(exact))
    x, y, exact = (v[~np.isnan(exact)] for v in (x, y, exact))
    error = ulps(y, exact)
    worst = error.argmax()
    assert error[worst] <= BOUNDS[name], f"{name}({x[worst]!r}) = {y[worst]!r}: {error[worst]} ulp"


def skip_unless_wider(T):
    if np.finfo(MORE_PRECISE[T]).nmant < np.finfo(T).nmant + 10:
        pytest.skip("long double is no more precise than double here")


def edges(T):
    """Where something changes: overflow, denormal or no result, saturation, another n or e."""
    info = np.finfo(T)
    ln2 = math.log(2)
    at = [0.0, 1.0, 0.5, 2.0, math.sqrt(0.5), math.sqrt(2), 10.0, 20.0, ln2 / 2, ln2 / 4]
    at += [info.max, info.tiny, info.smallest_subnormal, info.eps, info.eps / 2]
    at += [abs(math.log(v)) for v in (info.max, info.tiny, info.smallest_subnormal)]
    at += [(k + 0.5) * ln2 for k in range(0, info.maxexp + info.nmant, 7)]
    bits = np.array(at, T).view(f"i{info.bits // 8}")
    around = (bits[:, None] + np.arange(-300, 300, dtype=bits.dtype)).ravel()
    around = around[around >= 0].view(T)
    return np.concatenate([around, -around])


@each_dtype
@each_function
def test_error_at_the_edges(name, T):
    skip_unless_wider(T)
    assert_within_bound(name, edges(T))


@each_dtype
@each_function
def test_error_for_random_bit_patterns(name, T):
    """All exponents alike, infinities and NaN among them."""
    skip_unless_wider(T)
    size = np.dtype(T).itemsize
    assert_within_bound(name, np.frombuffer(np.random.default_rng(0).bytes(400_000 * size), T))


@each_dtype
@each_function
def test_error_where_results_are_normal_or_denormal(name, T):
    skip_unless_wider(T)
    info = np.finfo(T)
    low, high = math.log(info.smallest_subnormal) - 2, math.log(info.max) + 2
    rng = np.random.default_rng(0)
    for a, b in [
        (low, high),
        (low, math.log(info.tiny) + 2),
        (-25, 25),
        (-1, 1),
        (0.5, 2),
        (-40, 9),
    ]:
        x = rng.uniform(a, b, 200_000).astype(T)
        assert_within_bound(name, abs(x) if name == "log" else x)


@each_dtype
@each_function
def test_error_near_zero_and_near_one(name, T):
    skip_unless_wider(T)
    rng = np.random.default_rng(0)
    step = 2.0 ** rng.uniform(-np.finfo(T).nmant - 2, 0, 200_000) * rng.choice([-1, 1], 200_000)
    assert_within_bound(name, step.astype(T))
    assert_within_bound(name, (1 + step).astype(T))
    denormal = rng.uniform(-1, 1, 50_000).astype(T) * np.finfo(T).tiny
    assert_within_bound(name, denormal)


def _decimal_tanh(x):
    if abs(x) < 1e-10:  # x^3 / 3 is below 1e-20 of it
        return x
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def _decimal_normal(x):
    """By Taylor's series of the density, and in the tails by Laplace's continued fraction."""
    scale = PI_TWICE.sqrt()
    if abs(x) < 3:
        term = total = x
        for n in range(1, 301, 2):
            term *= -x * x * n / ((n + 1) * (n + 2))
            total += term
        return total / scale + decimal.Decimal("0.5")
    fraction = abs(x)
    for n in range(200, 0, -1):
        fraction = abs(x) + n / fraction
    tail = (-x * x / 2).exp() / scale / fraction
    return 1 - tail if x > 0 else tail


PI_TWICE = 2 * decimal.Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803"
)
DECIMAL = {
    "exp": lambda x: x.exp(),
    "log": lambda x: x.ln(),
    "tanh": _decimal_tanh,
    "logistic": lambda x: 1 / (1 + (-x).exp()),
    "normal": _decimal_normal,
}


@each_dtype
@each_function
def test_error_against_decimal_arithmetic(name, T):
    """Fewer points, on every platform, and independent of its C library."""
    rng = np.random.default_rng(0)
    info = np.finfo(T)
    low, high = math.log(info.smallest_subnormal), math.log(info.max)
    x = np.concatenate(
        [
            rng.uniform(low, high, 300),
            rng.uniform(low, math.log(info.tiny), 100),
            rng.uniform(-3, 3, 300),
            1 + rng.uniform(-1, 1, 100) * 2.0 ** rng.uniform(-info.nmant, 0, 100),
            2.0 ** rng.uniform(info.minexp - info.nmant, info.maxexp, 300),
            [info.max, info.tiny, info.smallest_subnormal, high, low],
        ]
    ).astype(T)
    x = x[x > 0] if name == "log" else x
    y = compute(name, x)
    decimal_context = decimal.Context(prec=50, Emin=-decimal.MAX_EMAX, Emax=decimal.MAX_EMAX)
    with decimal.localcontext(decimal_context):
        two = decimal.Decimal(2)
        for given, result in zip(x.tolist(), y.tolist(), strict=True):
            if abs(given) > -2 * low and name != "log":
                continue  # saturated: see the limits
            exact = DECIMAL[name](decimal.Decimal(given))
            if math.isinf(result):
                assert exact > decimal.Decimal(float(info.max))
                continue
            exponent = math.frexp(max(abs(exact), decimal.Decimal(float(info.tiny))))[1] - 1
            error = abs(decimal.Decimal(result) - exact) / two ** (exponent - info.nmant)
            assert error <= BOUNDS[name], f"{name}({given!r}) = {result!r}: {error} ulp"


INF = np.inf
LIMITS = {
    "exp": [(INF, INF), (-INF, 0), (0.0, 1), (-0.0, 1)],
    "log": [(INF, INF), (1.0, 0), (0.0, -INF), (-0.0, -INF)],
    "tanh": [(INF, 1), (-INF, -1), (0.0, 0), (-0.0, 0)],
    "logistic": [(INF, 1), (-INF, 0), (0.0, 0.5), (-0.0, 0.5)],
    "normal": [(INF, 1), (-INF, 0), (0.0, 0.5), (-0.0, 0.5)],
}


@each_dtype
@each_function
def test_limits_are_exact(name, T):
    x, expected = np.array(LIMITS[name], T).T.copy()
    np.testing.assert_array_equal(compute(name, x), expected)


@each_dtype
@pytest.mark.parametrize("name", ["exp", "tanh", "logistic", "normal"])
def test_the_largest_numbers_give_the_limits(name, T):
    largest = np.finfo(T).max
    at_largest = compute(name, np.array([largest, -largest, largest / 3, -largest / 3], T))
    at_infinity = compute(name, np.array([INF, -INF, INF, -INF], T))
    np.testing.assert_array_equal(at_largest, at_infinity)


@each_dtype
@each_function
def test_nan_gives_nan(name, T):
    """Quiet and signalling, of both signs, whatever the payload."""
    info = np.finfo(T)
    infinity = np.array([INF, -INF], T).view(f"i{info.bits // 8}")
    payload = np.random.default_rng(0).integers(1, 2**info.nmant, 1000)
    x = (infinity[:, None] + payload.astype(infinity.dtype)).ravel().view(T)
    assert np.isnan(x).all()
    assert np.isnan(compute(name, x)).all()


@each_dtype
def test_log_of_a_negative_number_is_nan(T):
    info = np.finfo(T)
    x = -np.array([INF, info.max, 1, info.eps, info.tiny, info.smallest_subnormal], T)
    assert np.isnan(compute("log", x)).all()


@each_dtype
@each_function
def test_a_result_does_not_depend_on_its_place_in_the_vector_loop(name, T):
    """Vector lanes and the scalar remainder give the same bits."""
    x = np.random.default_rng(0).uniform(-5, 5, 131).astype(T)
    whole = compute(name, x)
    one_by_one = np.concatenate([compute(name, x[i : i + 1]) for i in range(len(x))])
    np.testing.assert_array_equal(whole, one_by_one)


@each_dtype
@each_function
def test_loops_are_vectorised(name, T):
    """LLVM's vector loop holds packed multiplications, and nothing calls the C library."""
    loop = _over(getattr(elementary, name))
    vector = np.ones(100, T)
    loop(vector, vector)
    (ir,) = loop.inspect_llvm().values()
    bodies = re.findall(r"^vector\.body:.*?^\S", ir, re.MULTILINE | re.DOTALL)
    real = {np.float32: "float", np.float64: "double"}[T]
    packed = [re.findall(rf"= fmul .*<\d+ x {real}>", body) for body in bodies]
    assert packed and min(map(len, packed)) >= 5
    assert not re.findall(rf"= f(?:mul|add|sub|div) (?:\w+ )*{real} ", "".join(bodies))
    assert T is np.float64 or "x i64>" not in "".join(bodies)  # half as many lanes
    called = set(re.findall(r"call .*?@([\w.]+)\(", ir))
    assert not {c for c in called if re.search(r"(exp|log|tanh|pow)", c)}, called


@pytest.mark.parametrize("T", [np.float32, np.float64])
def test_relu_of_any_length_keeps_nan(T):
    activate = callable_from_python(activations.activate)
    constants = np.zeros(activations.N_CONSTANTS)
    values = np.array([5, -2, -0.0, 3, np.nan, -np.inf, np.inf, -5, -1e-30], T)
    for n in range(70):
        a = np.full(n + 2, -7, T)
        a[1:-1] = expected = np.resize(values, n)
        activate(activations.ACTIVATIONS["relu"].code, constants, a[1:-1], 1)
        np.testing.assert_array_equal(a[1:-1], np.maximum(expected, 0))
        assert a[0] == a[-1] == -7
