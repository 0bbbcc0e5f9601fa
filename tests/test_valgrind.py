"""Training and prediction under valgrind: no access outside a block, nothing read before written.

It knows no AVX-512, so kernels are those for an AVX2 machine, or for one before.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind"),
]

PROGRAM = """
import itertools, sys, warnings
warnings.simplefilter("ignore")
import joblib
import numpy as np
import scipy.sparse as sp
from fastnn import MLPClassifier, MLPRegressor
from fastnn.kernels.machine import VECTOR_BYTES
from control import one_too_many
joblib.cpu_count = lambda *_, **__: 2
assert VECTOR_BYTES <= 32
rng = np.random.default_rng(0)
SETTINGS = [
    dict(),
    dict(n_threads=2, batch_size=11),
    dict(clip_norm=0.1, dropout=0.2),
    dict(batch_size=1, activation="gelu", solver="sgd"),
]
for T, hidden in itertools.product((np.float32, np.float64), [(1,), (13,), (33, 7), (70,)]):
    X, y = rng.standard_normal((37, 29)).astype(T), rng.integers(0, 3, 37)
    settings = dict(hidden_layer_sizes=hidden, max_iter=2, random_state=0)
    for A, more in itertools.product((X, sp.csr_array(np.where(X > 0.3, X, 0))), SETTINGS):
        model = MLPClassifier(**settings, **more).fit(A, y)
        model.predict_proba(A[:5])
        model.predict_proba(A)
    MLPRegressor(solver="lbfgs", **settings).fit(X, X[:, :2]).predict(X)
print("trained", file=sys.stderr, flush=True)
one_too_many(np.ones(1000))
print("end", file=sys.stderr, flush=True)
"""

CONTROL = """
from numba import njit

@njit(cache=True)
def one_too_many(values):
    total = 0.0
    for i in range(values.size + 1):
        total += values[i]
    return total
"""


def run_under_valgrind(machine, folder):
    """The completed process, of a program that was compiled for ``machine`` before."""
    # malloc instead of Python's arenas, so that a block is one object.
    environment = os.environ | machine | {"PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(folder / "program.py")]
    subprocess.run(program, check=True, env=environment)  # compiles
    valgrind = ["valgrind", "--smc-check=all-non-file", "--error-limit=no", "--num-callers=3"]
    captured = dict(capture_output=True, text=True, timeout=900)
    return subprocess.run([*valgrind, *program], env=environment, **captured)


def test_no_error_in_compiled_code(avx2_machine, sse2_machine, tmp_path):
    (tmp_path / "control.py").write_text(CONTROL)
    (tmp_path / "program.py").write_text(PROGRAM)
    result = run_under_valgrind(avx2_machine, tmp_path)
    if "unhandled instruction bytes" in result.stderr:
        # Valgrind 3.19 lacks a form of VMOVQ, which LLVM takes for some numbers of registers.
        result = run_under_valgrind(sse2_machine, tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    before, after = result.stderr.split("trained\n")
    assert after.count("end\n") == 1
    # Frames without a name are those of compiled code.
    error = re.compile(r"== (Invalid|Conditional|Use of)[^\n]*\n==\d+==    at 0x\w+: \?\?\?\n")
    assert not error.search(before), before
    assert len(error.findall(after)) == 1, after
