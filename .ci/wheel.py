"""A wheel with the machine code of all kernels, for this Python and system, from a plain one.

    python -m build
    python .ci/wheel.py dist/fastnn_mlp-*-py3-none-any.whl

runs where fastnn's dependencies and ``wheel`` are installed, and puts the new wheel beside the
plain one. It compiles for every level of CPU, whichever this one has.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from itertools import accumulate
from pathlib import Path


def python(*arguments, **environment):
    """Run this Python, which does the same each time and leaves nothing beside the sources."""
    always = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-P", *map(str, arguments)]
    subprocess.run(command, env={**os.environ, **always, **environment}, check=True)


def machines():
    """For each level, the environment of a process that compiles for it."""
    from fastnn.kernels.machine import LEVEL, LEVELS

    if not LEVEL.startswith("x86-64"):
        return [{}]  # the only one there
    features = accumulate(LEVELS.values(), "{},{}".format)
    return [
        {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": has}
        for level, has in zip(LEVELS, features, strict=True)
    ]


def add_machine_code(plain, out):
    """Put a wheel like the wheel ``plain``, but with machine code, into the folder ``out``."""
    with tempfile.TemporaryDirectory() as folder:
        python("-m", "wheel", "unpack", plain, "--dest", folder)
        (site,) = Path(folder).iterdir()
        cache = Path(folder, "cache")
        sys.path.insert(0, str(site))
        sys.dont_write_bytecode = True
        for machine in machines():
            places = {"PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(cache)}
            python("-m", "fastnn", "warmup", **places, **machine)
        built = site / "fastnn" / "kernels" / "built"
        built.mkdir()
        for path in (cache / "fastnn").glob("*.nbc"):
            shutil.copy(path, built)
        python("-m", "wheel", "pack", site, "--dest-dir", folder)
        (packed,) = Path(folder).glob("*.whl")
        tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
        # Of the C library, machine code takes any version that has what it calls, by name.
        platform = sysconfig.get_platform().replace("linux-", "manylinux_2_17-")
        tags = [f"--python-tag={tag}", f"--abi-tag={tag}{getattr(sys, 'abiflags', '')}"]
        tags.append(f"--platform-tag={platform.replace('-', '_').replace('.', '_')}")
        python("-m", "wheel", "tags", "--remove", *tags, packed)
        (tagged,) = Path(folder).glob("*.whl")
        shutil.move(tagged, Path(out, tagged.name))


if __name__ == "__main__":
    plain = Path(sys.argv[1])
    add_machine_code(plain, plain.parent)
