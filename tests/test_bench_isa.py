"""``--isa avx2`` of the benchmarks: who uses AVX-512 all the same is found out."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench import isa
from bench.cases import Case
from bench.peers import PEERS
from bench.session import Worker

pytestmark = pytest.mark.skipif(
    " avx512f " not in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "")
    or not Path("/proc/self/arch_status").exists(),
    reason="needs Linux, and AVX-512 to be avoided",
)
CASE = Case("small", 500, 20, (64,), 2, 100)


@pytest.fixture
def restricted(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    isa.restrict_workers("avx2")
    return os.environ


def fit(peer):
    with Worker() as worker:
        worker.task(PEERS[peer].prepare, CASE).run(1)


def test_a_restricted_peer_passes(restricted):
    fit("scikit-learn")


@pytest.mark.parametrize(
    "variable",
    ["OPENBLAS_CORETYPE", pytest.param("NPY_DISABLE_CPU_FEATURES", marks=pytest.mark.nightly)],
)
def test_a_library_that_says_so_is_found_out(variable, restricted):
    del restricted[variable]
    with pytest.raises(
        RuntimeError, match=r"Not restricted to AVX2: .*(SkylakeX|Cooperlake|Sapph|V4|AVX512)"
    ):
        fit("scikit-learn")


def test_instructions_are_found_out(restricted):
    del restricted["GLIBC_TUNABLES"]
    with pytest.raises(RuntimeError, match="threads have used AVX-512"):
        fit("scikit-learn")


@pytest.mark.nightly
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer != "scikit-learn"])
def test_all_peers_pass(peer, restricted, tmp_path):
    if not PEERS[peer].installed:
        pytest.skip(f"{peer} is not installed")
    restricted["NUMBA_CACHE_DIR"] = str(tmp_path)
    fit(peer)
