"""The command line: ``python -m fastnn``."""

import re
import subprocess
import sys

import pytest


def run(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "fastnn", *arguments], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_main_job_compares_both_libraries():
    out = run("--quick", "--max-iter", "30")
    rows = {
        line.split()[0]: line.split()[1:]
        for line in out.splitlines()
        if line.startswith(("fastnn  ", "scikit-learn  "))
    }
    ours, theirs = rows["fastnn"], rows["scikit-learn"]
    assert ours[0] == theirs[0] and float(ours[0]) > 0.9
    assert ours[1] == theirs[1] == "30"
    ratio = float(re.search(r"fastnn trains ([\d.]+) times as fast", out)[1])
    assert ratio == pytest.approx(float(theirs[2]) / float(ours[2]), rel=0.1)
    assert float(re.search(r"differ by at most (\S+) of", out)[1]) < 1e-8


def test_warmup_says_what_it_did():
    out = run("warmup", "--dtype", "float64")
    assert re.search(r"float64: (was in the cache already|compiled)", out)
    assert "float32" not in out
    assert "float64: was in the cache already" in run("warmup", "--dtype", "float64")


def test_help_and_errors():
    out = run("--help")
    assert "warmup" in out and "--rounds" in out
    assert "--rounds must be at least 1" in run("--rounds", "0", code=2)
    assert "invalid choice" in run("--dtype", "float16", code=2)
