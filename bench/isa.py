"""``--isa avx2``: every competitor as it runs on a machine with AVX2 and no more.

Whoever looks for AVX-512 is told not to by a variable of the environment, which workers inherit:

==================  ==========================================================================
fastnn              ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``; the name alone changes nothing,
                    Numba goes on taking the features of this machine
NumPy, SciPy        ``OPENBLAS_CORETYPE``, for the OpenBLAS of both; ``NPY_DISABLE_CPU_FEATURES``
                    with the names of this NumPy: it ignores those that it does not know
PyTorch             ``ATEN_CPU_CAPABILITY`` for its own loops, ``MKL_ENABLE_INSTRUCTIONS`` for
                    products, ``ONEDNN_MAX_CPU_ISA``
JAX                 ``XLA_FLAGS`` for what XLA compiles, ``ONEDNN_MAX_CPU_ISA`` for products that
                    Eigen does with oneDNN. YNNPACK, which does most products since JAX 0.10, obeys
                    neither and has no variable: it asks the processor. The answer it has noted
                    is corrected in its memory (``_confine_ynnpack``). Turning it off would not be
                    fair: Eigen takes longer
the C library       ``GLIBC_TUNABLES``, for copies of memory
==================  ==========================================================================

All of it is checked in each worker, and an error otherwise. What the libraries say of themselves is
asked after each task is made. After each run, Linux is asked which threads have used AVX-512, by
the state of their registers: it notes it when it takes a thread off its core. That finds whoever
touches mask registers or one of the vector registers 16 to 31, as products do, and what XLA and
Numba compile; not a short loop that takes the first 16 alone and cleans up, as PyTorch's do, which
is why both are checked. A machine without AVX-512 passes by itself.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import threadpoolctl

_STARTED = time.monotonic()
_VARIABLE = "FASTNN_BENCH_ISA"
# x86-64-v3. Numba takes these instead of the machine's, not in addition.
_FEATURES = (
    "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2,+x87,"
    "+cx16,+popcnt,+sahf,+sse3,+ssse3,+sse4.1,+sse4.2,"
    "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+xsave"
)
# Without these glibc has no use for the registers of AVX-512.
_OF_GLIBC = ("AVX512F", "AVX512VL", "AVX512BW", "AVX512CD", "AVX512DQ")
_OPENBLAS_WITH_AVX512 = ("SkylakeX", "Cooperlake", "Sapphirerapids")


def add_option(parser):
    parser.add_argument(
        "--isa",
        choices=["avx2"],
        help="restrict all competitors, and the peak, to AVX2, and check that they obey (x86-64 "
        "Linux; JAX also needs nm, of binutils)",
    )


def restrict_workers(isa):
    """Restrict all processes that are started from now on; None leaves them as they are."""
    if isa is None:
        return
    if not Path("/proc/self/arch_status").exists():
        raise SystemExit("--isa needs Linux on x86-64: /proc/PID/arch_status tells who obeys.")
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ.update(
        {
            _VARIABLE: isa,
            "NUMBA_CPU_NAME": "x86-64-v3",
            "NUMBA_CPU_FEATURES": _FEATURES,
            "OPENBLAS_CORETYPE": "Haswell",
            "NPY_DISABLE_CPU_FEATURES": " ".join(_numpy_avx512()),
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
            "XLA_FLAGS": f"{flags} --xla_cpu_max_isa=AVX2".strip(),
            "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _OF_GLIBC),
        }
    )


def restriction():
    """What this process and its workers are restricted to: ``"avx2"`` or None."""
    return os.environ.get(_VARIABLE)


def _numpy_avx512():
    """The versions of NumPy's loops for AVX-512 that this machine would run."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return [name for name in found if name == "X86_V4" or name.startswith("AVX512")]


def check_libraries():
    """Confine YNNPACK; raise if a library that is loaded here says that it goes beyond AVX2."""
    if "jaxlib" in sys.modules:
        _confine_ynnpack()
    wider = [f"NumPy with {name}" for name in _numpy_avx512()]
    for library in threadpoolctl.threadpool_info():
        if library.get("architecture") in _OPENBLAS_WITH_AVX512:
            wider.append(f"{library['filepath']} for {library['architecture']}")
    if "torch" in sys.modules:
        capability = sys.modules["torch"].backends.cpu.get_cpu_capability()
        if capability != "AVX2":
            wider.append(f"PyTorch with {capability}")
    if "fastnn.kernels.machine" in sys.modules:
        vector_bytes = sys.modules["fastnn.kernels.machine"].VECTOR_BYTES
        if vector_bytes != 32:
            wider.append(f"fastnn with vectors of {vector_bytes} bytes")
    if wider:
        raise RuntimeError(f"Not restricted to AVX2: {', '.join(wider)}.")


def check_instructions():
    """Raise if a thread of this process has used AVX-512 since its start."""
    time.sleep(0.001)  # leaves the core, so that this thread is looked at too
    # The state is that of the parent's until a process is another program.
    age = time.monotonic() - _STARTED - 0.1
    ago = [_avx512_seconds_ago(thread) for thread in os.listdir("/proc/self/task")]
    n_wide = sum(seconds < age for seconds in ago)
    if n_wide > 0:
        libraries = [name for name in ("fastnn", "sklearn", "torch", "jax") if name in sys.modules]
        raise RuntimeError(
            f"Not restricted to AVX2: {n_wide} of {len(ago)} threads have used AVX-512, with "
            f"{', '.join(libraries) or 'numpy'} loaded."
        )


def _avx512_seconds_ago(thread):
    try:
        status = Path(f"/proc/{thread}/arch_status").read_text()
    except FileNotFoundError:  # the thread has ended
        return float("inf")
    # Without AVX-512 there is no line, and -1 stands for never.
    milliseconds = int(status.split()[-1]) if status else -1
    return milliseconds / 1e3 if milliseconds >= 0 else float("inf")


def _confine_ynnpack():
    """Take AVX-512 from the instruction sets that YNNPACK, inside of jaxlib, believes to have.

    It has no setting for it. Its function returns a static variable, in which all from bit 7 on is
    AVX-512 or AMX; both are found by their names. Another version that has neither is left alone:
    the instructions that are run tell whether it obeys.
    """
    folder = Path(importlib.util.find_spec("jaxlib").origin).parent
    with open("/proc/self/maps") as maps:
        lines = [line.split() for line in maps if str(folder) in line]
    for path in sorted({line[-1] for line in lines}):
        names = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
        places = {name: int(place, 16) for place, _, name in _three(names)}
        function = places.get("_ZN3ynn24get_supported_arch_flagsEv")
        variable = places.get("_ZZN3ynn24get_supported_arch_flagsEvE5flags")
        if function and variable:
            base = min(int(line[0].split("-")[0], 16) for line in lines if line[-1] == path)
            supported = ctypes.CFUNCTYPE(ctypes.c_uint64)(base + function)
            supported()  # fills the variable
            ctypes.c_uint64.from_address(base + variable).value &= 0x7F
            if supported() > 0x7F:
                raise RuntimeError("YNNPACK does not take its instruction sets from its variable.")


def _three(names):
    return (fields for fields in map(str.split, names.splitlines()) if len(fields) == 3)
