"""The short version of ``python -m bench.soak``."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_files_and_threads_do_not_grow():
    result = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--minutes", "0.25"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert result.returncode == 0, result.stdout + result.stderr
