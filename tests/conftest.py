"""Before any test: matplotlib must not look for a screen, and there are cores enough.

And what several files of tests share.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from traceback import walk_stack

import pytest
from llvmlite.binding import get_host_cpu_features

import fastnn

os.environ["MPLBACKEND"] = "Agg"
# A shell starts what is in the background with Ctrl-C ignored, which children inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def warm_cache():
    """All kernels there before the first test: none waits for what others need as well."""
    single = "import fastnn; fastnn.warmup(['float32'])"
    process = subprocess.Popen([sys.executable, "-P", "-c", single])  # both dtypes at once
    fastnn.warmup(["float64"])
    assert process.wait() == 0
    fastnn.warmup(["float32"])


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    """``n_threads`` up to 8 is what it says, also where there are fewer cores."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)


@pytest.fixture(scope="session")
def run_python():
    """``run_python(*arguments, code=0, timeout=300, **environment)``: a fresh interpreter.

    Returns the completed process, which must have ended with ``code``.
    """

    def run(*arguments, code=0, timeout=300, **environment):
        result = subprocess.run(
            # -P: without the repository's root, where kernels/ is, on its path.
            [sys.executable, "-P", *map(str, arguments)],
            cwd=Path(__file__).parents[1],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    return run


class AfterEpochs:
    """A callback of scikit-learn: ``function(estimator, fitted_estimator)`` after each epoch.

    Or after each iteration of L-BFGS.
    """

    def __init__(self, function):
        self.function = function

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        if context.task_name in ("epoch", "iteration"):
            self.function(estimator, fitted_estimator)


@pytest.fixture(scope="session")
def after_epochs():
    return AfterEpochs


@pytest.fixture(scope="session")
def n_helpers():
    """``n_helpers()``: the number of threads that help a fit or a prediction, and do not go.

    One that is done is a thread until the machine lets it return: up to five seconds.
    """

    def at_present():
        stacks = [walk_stack(frame) for frame in sys._current_frames().values()]
        return sum("_help" in {frame.f_code.co_name for frame, _ in stack} for stack in stacks)

    def count():
        end = time.monotonic() + 5
        while at_present() > 0 and time.monotonic() < end:
            time.sleep(0.01)
        return at_present()

    return count


BASELINE = "+sse,+sse2,+cx8,+fxsr,+mmx,+x87"  # which every x86-64 has
AVX2 = "+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,+popcnt,+lzcnt,+f16c,+cx16,+movbe"


def environment_of(name, features, cache):
    """Of a process whose kernels are compiled for another x86 machine."""
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(cache)}


@pytest.fixture(scope="session")
def sse2_machine(tmp_path_factory):
    return environment_of("x86-64", BASELINE, tmp_path_factory.mktemp("sse2"))


@pytest.fixture(scope="session")
def avx2_machine(tmp_path_factory):
    here = get_host_cpu_features()
    missing = [feature for feature in AVX2.split(",") if not here.get(feature[1:])]
    if missing:
        pytest.skip(f"this machine could not run its code: it lacks {missing}")
    return environment_of("haswell", f"{BASELINE},{AVX2}", tmp_path_factory.mktemp("avx2"))
