"""The disk cache of compiled kernels: it is never stale, and when it fails nothing else does.

Every process here imports a copy of the package in a temporary folder, so that sources can be
edited and cache files damaged. What does not depend on the kernels themselves is tested with a
kernel that compiles in no time. The real ones take half a minute each time: their cache is the one
that conftest.py has filled, one of them is edited alone, and everything else is asked of them with
``-m nightly``.
"""

import compileall
import importlib
import importlib.util
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastnn
import fastnn.kernels.cache
from fastnn.kernels.machine import LEVEL
from fastnn.kernels.train import kernels

KERNELS = Path(fastnn.kernels.__file__).parent
SOURCES = sorted(path.name for path in KERNELS.glob("*.py"))
DTYPES = ["float32", "float64"]

# Runs the body of a test with all warnings recorded, and prints `result` in one line.
PROGRAM = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import numpy as np
    import fastnn
    result = {{}}
{body}
result["file"] = fastnn.__file__
names = [warning.category.__name__ for warning in caught]
result["warnings"] = [name for name in names if name != "ConvergenceWarning"]
print(json.dumps(result))
"""

FIT = """
def fit(dtype):
    X = np.linspace(-1, 1, 40, dtype=dtype).reshape(10, 4)
    model = fastnn.MLPRegressor(hidden_layer_sizes=3, max_iter=2, random_state=0).fit(X, X[:, 0])
    assert model.coefs_[0].dtype == dtype
    return b"".join(W.tobytes() for W in model.coefs_ + model.intercepts_).hex()
"""

# A kernel with the cache of the real ones. Its argument holds a class, as theirs do.
TINY = """
from typing import NamedTuple
import numpy as np
from fastnn.kernels.cache import Library

class Pair(NamedTuple):
    values: np.ndarray
    factor: float

def weigh(pair):
    total = 0.0
    for value in pair.values:
        total += value * pair.factor
    return total

def sample(dtype):
    return (Pair(np.ones(3, dtype), 2.0),)

library = Library("tiny")
entry = library.entry(weigh, sample)
"""

WEIGH = """
from fastnn.kernels.tiny import entry, library, sample
for dtype in ("float32", "float64"):
    result["cached " + dtype] = library.prepare(dtype)
    result[dtype] = entry[dtype](*sample(dtype))
"""


def with_mounts(commands):
    """What to put before a command for it to see other file systems than all others do."""
    if not commands:
        return []
    script = " && ".join([*commands, 'exec "$@"'])
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]


def read_only(folder):
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def run(site, *bodies, mounts=(), **environment):
    """What one new process for each body prints, all at once, with the package in ``site``.

    ``mounts`` are shell commands that mount file systems for this process alone.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NUMBA_", "PYTHON"))
    }
    processes = []
    for body in bodies:
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        process = subprocess.Popen(
            [*with_mounts(mounts), sys.executable, "-P", "-c", PROGRAM.format(body=indented)],
            cwd=site if site.is_dir() else site.parent,
            env={**kept, "PYTHONPATH": str(site), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    outputs = [process.communicate() for process in processes]
    results = []
    for process, (out, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors
        results.append(json.loads(out.splitlines()[-1]))
        # Not an installed fastnn, which in an editable installation is found by import hooks.
        assert Path(results[-1].pop("file")).with_suffix(".py") == site / "fastnn" / "__init__.py"
    return results if len(results) > 1 else results[0]


def cache_files(site):
    return sorted(site.rglob("*.nbc"))


def rename(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def close_all_doors(site):
    """Leave no place for a cache, even for root; returns the environment to use.

    A folder cannot be made where there is a file, or below one.
    """
    folder = site / "fastnn" / "kernels" / "__pycache__"
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("")
    below_a_file = str(folder / "below")
    return dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), below_a_file)


SINGLE = (
    FIT
    + "result['ready'] = fastnn.warmup(['float32'])\n"
    + "result['weights'] = {'float32': fit('float32')}\n"
)
DOUBLE = FIT + "result['weights'] = {'float64': fit('float64')}\n"


def copy_package(site):
    """The package without any cache; returns the folder of its kernels."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(fastnn.__file__).parent, site / "fastnn", ignore=ignore)
    kernels = site / "fastnn" / "kernels"
    return shutil.copytree(KERNELS, kernels, dirs_exist_ok=True, ignore=ignore)


@pytest.fixture(scope="module")
def cold_starts(tmp_path_factory):
    """Processes that start at once without any cache: (folder, what each of them found)."""
    site = tmp_path_factory.mktemp("cold")
    copy_package(site)
    return site, run(site, *[SINGLE, DOUBLE] * 4)


@pytest.fixture
def warm(tmp_path):
    """A copy of the package with a warm cache of float32."""
    folder = copy_package(tmp_path / "site") / "__pycache__"
    folder.mkdir()
    kernels.prepare("float32")
    name = f"kernels_float32_{LEVEL}_{fastnn.kernels.cache.DIGEST}.nbc"
    places = [place / name for place in fastnn.kernels.cache._folders()]
    shutil.copy(next(place for place in places if place.is_file()), folder)
    return tmp_path / "site"


@pytest.fixture(scope="module")
def expected():
    """The weights that a fit in float32 gives."""
    here = {"fastnn": fastnn, "np": np}
    exec(FIT, here)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return here["fit"]("float32")


@pytest.fixture(scope="module")
def tiny_cold_start(tmp_path_factory):
    """The same with the tiny kernel, both dtypes in each process."""
    site = tmp_path_factory.mktemp("tiny")
    kernels = site / "fastnn" / "kernels"
    kernels.mkdir(parents=True)
    (site / "fastnn" / "__init__.py").write_text("")
    (kernels / "tiny.py").write_text(TINY)
    for name in ("__init__.py", "jit.py", "machine.py", "cache.py"):
        shutil.copy(KERNELS / name, kernels / name)
    return site, run(site, *[WEIGH] * 4)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}


@pytest.fixture
def tiny(tiny_cold_start, tmp_path):
    return shutil.copytree(tiny_cold_start[0], tmp_path / "site")


def weighed(result, value=6.0):
    return result["float32"] == result["float64"] == value


def cached(result):
    return result["cached float32"] and result["cached float64"]


def test_of_processes_that_start_cold_at_once_one_compiles(tiny_cold_start):
    _, results = tiny_cold_start
    for dtype in ("float32", "float64"):
        assert [result[f"cached {dtype}"] for result in results].count(False) == 1


HOLD = """
import fcntl, sys, time
files = [open(path, "ab") for path in sys.argv[1:]]
for file in files:
    fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""


def test_a_process_that_is_killed_while_it_compiles_lets_the_others_go_on(tiny):
    locks = list(tiny.rglob("*.lock"))
    assert len(locks) == 2
    for path in cache_files(tiny):
        path.unlink()
    command = [sys.executable, "-c", HOLD, *map(str, locks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        threading.Timer(3.0, holder.kill).start()
        started = time.monotonic()
        result = run(tiny, WEIGH)
        waited = time.monotonic() - started
    assert weighed(result) and result["warnings"] == []
    assert waited > 2.5


def test_long_compilations_are_told_once_by_a_logger(monkeypatch, caplog):
    monkeypatch.setattr("fastnn.kernels.cache.TELL_AFTER", 0.01)
    monkeypatch.setattr("fastnn.kernels.cache._told", set())
    for _ in range(2):
        with fastnn.kernels.cache._telling("float32"):
            time.sleep(0.2)
    (record,) = caplog.records
    assert record.name == "fastnn" and record.levelname == "WARNING"
    assert "compiling its kernels for float32, once" in record.getMessage()
    caplog.clear()
    monkeypatch.setattr("fastnn.kernels.cache.TELL_AFTER", 60.0)
    with fastnn.kernels.cache._telling("float64"):
        pass
    assert not caplog.records


@pytest.mark.nightly
def test_processes_that_start_cold_at_once_agree(cold_starts):
    site, results = cold_starts
    for dtype in DTYPES:
        weights = [found["weights"][dtype] for found in results if dtype in found["weights"]]
        assert len(weights) > 1 and len(set(weights)) == 1
    assert all(result["warnings"] == [] for result in results)
    assert list(site.rglob("*.tmp.*")) == []


def test_processes_that_start_cold_at_once_with_a_tiny_kernel_agree(tiny_cold_start):
    site, results = tiny_cold_start
    assert all(weighed(result) and result["warnings"] == [] for result in results)
    assert list(site.rglob("*.tmp.*")) == []


@pytest.mark.nightly
def test_the_second_process_does_not_compile(cold_starts):
    site, results = cold_starts
    # One of two that started at once may have found what the other had saved, but not both.
    assert {"float32": False} in [found.get("ready") for found in results]
    before = cache_files(site)
    second = run(
        site,
        FIT
        + "from numba.core import event\n"
        + "with event.install_recorder('numba:compile') as compiled:\n"
        + f"    result['weights'] = {{dtype: fit(dtype) for dtype in {DTYPES}}}\n"
        + "result['compiled'] = len(compiled.buffer)\n"
        + "result['ready'] = fastnn.warmup(['float32'])\n",
    )
    found = [result["weights"] for result in results]
    assert second == {
        "weights": {dtype: next(w[dtype] for w in found if dtype in w) for dtype in DTYPES},
        "compiled": 0,
        "ready": {"float32": True},
        "warnings": [],
    }
    assert cache_files(site) == before


@pytest.fixture
def digest_of(monkeypatch):
    """``digest_of(folder)``: the digest of kernels in ``folder``."""

    def digest(folder):
        spec = importlib.util.spec_from_file_location("kernels_copy", folder / "__init__.py")
        monkeypatch.setitem(sys.modules, "kernels_copy", importlib.util.module_from_spec(spec))
        for module in [name for name in sys.modules if name.startswith("kernels_copy.")]:
            monkeypatch.delitem(sys.modules, module)
        # Python takes bytecode of a file of this second and size for that of the edited one.
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        found = importlib.import_module("kernels_copy.cache").DIGEST
        assert found
        return found

    return digest


def test_a_copy_of_the_kernels_has_their_digest(tmp_path, digest_of):
    assert digest_of(shutil.copytree(KERNELS, tmp_path / "kernels")) == fastnn.kernels.cache.DIGEST


@pytest.mark.parametrize("name", SOURCES)
def test_an_edit_to_any_kernel_file_changes_the_digest(name, tmp_path, digest_of):
    folder = shutil.copytree(KERNELS, tmp_path / "kernels")
    (folder / name).write_text((folder / name).read_text() + "an_edit = 1\n")
    assert digest_of(folder) != fastnn.kernels.cache.DIGEST


@pytest.mark.parametrize(
    "code",
    [
        "lambda a: a + 1",
        "lambda a: a + 2",
        "lambda a: a - 1",
        "lambda b: a + 1",
        "lambda a, b: a + 1",
        "lambda a: a + 1.0",
        "lambda a: a + -0.0",
        "lambda a: a + 0.0",
        "lambda *a: a + 1",
        "lambda a: a in {1, 2}",
        "lambda a: a in {1, 3}",
        "lambda a: a in (1, 2)",
        "lambda a: lambda: a + 1",
        "lambda a: lambda: a + 2",
    ],
)
def test_code_that_differs_has_another_digest(code, tmp_path, digest_of):
    folder = shutil.copytree(KERNELS, tmp_path / "kernels")
    source = (folder / "dropout.py").read_text()
    digests = set()
    for edit in (code, "lambda a: a + 3", code):
        (folder / "dropout.py").write_text(f"{source}\nedit = {edit}\n")
        digests.add(digest_of(folder))
    assert len(digests) == 2


def test_an_edited_leaf_takes_effect_in_the_next_process(tmp_path):
    """Numba only looks at the file of the cached function: train.py, not losses.py."""
    kernels = copy_package(tmp_path)
    body = """
from fastnn._network import make_net
from fastnn.kernels.cache import Library
from fastnn.kernels.train import _losses, _sample_losses
library = Library("losses")  # alone it compiles in a few seconds
losses = library.entry(_losses, _sample_losses)
result["cached"] = library.prepare("float32")
net = make_net([1, 1], "identity", "identity", "squared_error")
row_loss, terms, a, y = np.array([[0], [0], [3], [1]], np.float32)
losses["float32"](net, row_loss, terms, a, y)
result["loss"] = float(row_loss[0])
"""
    assert run(tmp_path, body) == {"cached": False, "loss": 2.0, "warnings": []}
    rename(kernels / "losses.py", "T(0.5) * r * r", "r * r")
    assert run(tmp_path, body) == {"cached": False, "loss": 4.0, "warnings": []}
    assert run(tmp_path, body) == {"cached": True, "loss": 4.0, "warnings": []}


@pytest.mark.nightly
def test_without_a_place_for_the_cache_fits_work_and_warn_once(warm, expected):
    body = FIT + "result['weights'] = [fit('float32'), fit('float32')]\n"
    body += "fit('float64')\n"
    result = run(warm, body, **close_all_doors(warm))
    assert result["weights"] == [expected, expected]
    assert result["warnings"] == ["CacheWarning"]


def test_without_a_place_for_the_cache_both_dtypes_warn_once(tiny):
    result = run(tiny, WEIGH, **close_all_doors(tiny))
    assert weighed(result)
    assert not cached(result)
    assert result["warnings"] == ["CacheWarning"]


def test_an_unwritable_numba_cache_dir_falls_back_to_the_package_folder(tiny):
    unwritable = str(tiny / "fastnn" / "__init__.py" / "below a file")
    result = run(tiny, WEIGH, NUMBA_CACHE_DIR=unwritable)
    assert weighed(result)
    assert cached(result)
    assert result["warnings"] == []


def test_a_kernel_that_does_not_compile_is_no_failure_of_the_cache(tiny):
    """The error of the compiler was once reported as one of the disk cache, and compiled twice."""
    rename(tiny / "fastnn" / "kernels" / "tiny.py", "return total", "return total.nothing")
    body = """
from numba.core.errors import TypingError
from fastnn.kernels.tiny import entry
try:
    entry["float32"]
except TypingError as error:
    result["error"] = "nothing" in str(error)
"""
    assert run(tiny, body) == {"error": True, "warnings": []}


def test_preparing_a_kernel_says_whether_it_was_there(tiny):
    body = """
from fastnn.kernels.tiny import library
result["there"] = [library.prepare(dtype) for dtype in ("float32", "float32", "float64")]
"""
    shutil.rmtree(tiny / "fastnn" / "kernels" / "__pycache__")
    assert run(tiny, body)["there"] == [False, True, False]
    assert run(tiny, body)["there"] == [True, True, True]


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "without its end": lambda content: content[:-1],
    "random": lambda content: random.Random(0).randbytes(len(content)),
    "zeros": lambda content: bytes(len(content)),
    "one bit of machine code": lambda content: flipped(content, content.index(b"ELF") + 400),
    "the last bit": lambda content: flipped(content, len(content) - 1),
    "Numba's own": lambda content: content[4:],
}


def flipped(content, place):
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


EACH_TIME = [("__pycache__", "one bit of machine code"), ("built", "empty")]


@pytest.mark.parametrize(
    ("folder", "damage"),
    [
        pytest.param(*case, marks=() if case in EACH_TIME else pytest.mark.nightly)
        for case in itertools.product(("__pycache__", "built"), DAMAGES)
    ],
)
def test_damaged_files_are_not_run_and_warn_once(folder, damage, tiny):
    kernels = tiny / "fastnn" / "kernels"
    if folder == "built":
        shipped(tiny)
    files = cache_files(tiny)
    assert len(files) == 2
    for path in files:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    result = run(tiny, WEIGH)
    assert weighed(result)
    assert not cached(result)
    assert result["warnings"] == ["CacheWarning"]
    assert len(list((kernels / "__pycache__").glob("*.nbc"))) == 2
    again = run(tiny, WEIGH)
    assert weighed(again)
    assert cached(again)
    # The file of the cache is whole again; that of the wheel nobody writes.
    assert again["warnings"] == (["CacheWarning"] if folder == "built" else [])


def shipped(site):
    """Move all machine code in the cache to where a wheel has it; returns the folder."""
    folder = site / "fastnn" / "kernels" / "built"
    folder.mkdir()
    for path in cache_files(site):
        path.rename(folder / path.name)
    shutil.rmtree(folder.parent / "__pycache__")
    return folder


@pytest.mark.parametrize("place", ["package", "nowhere"])
def test_machine_code_of_a_wheel_is_run_and_needs_no_cache(place, tiny, home, tmp_path):
    shipped(tiny)
    site = shutil.copytree(tiny, tmp_path / "elsewhere")
    environment = close_all_doors(site) if place == "nowhere" else home
    result = run(site, WEIGH, **environment)
    assert weighed(result)
    assert cached(result)
    assert result["warnings"] == []
    assert [path.parent.name for path in cache_files(site)] == ["built"] * 2
    assert list(site.rglob("*.lock")) == []


def test_machine_code_for_other_machines_is_left_alone(tiny, home):
    """A wheel that has none for the level of this one compiles, once."""
    folder = shipped(tiny)
    lower = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2"}
    for hit in (False, True):
        result = run(tiny, WEIGH, **home, **lower)
        assert weighed(result)
        assert cached(result) == hit
        assert result["warnings"] == []
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    "name",
    [
        "numba.__version__",
        pytest.param("importlib.machinery.EXTENSION_SUFFIXES[0]", marks=pytest.mark.nightly),
    ],
)
def test_machine_code_of_another_numba_or_python_is_left_alone(name, tiny):
    shipped(tiny)
    other = f"import importlib.machinery, numba\n{name} = 'another'\n"
    for hit in (False, True):
        result = run(tiny, other + WEIGH)
        assert weighed(result)
        assert cached(result) == hit
        assert result["warnings"] == []
    assert cached(run(tiny, WEIGH))


def test_machine_code_under_the_name_of_another_is_not_run(tiny):
    single, double = cache_files(tiny)
    single.write_bytes(double.read_bytes())
    result = run(tiny, WEIGH)
    assert weighed(result)
    assert not result["cached float32"] and result["cached float64"]
    assert result["warnings"] == ["CacheWarning"]


@pytest.mark.nightly
def test_with_every_cache_file_damaged_a_fit_gives_the_same_weights(warm, expected):
    (path,) = cache_files(warm)
    path.write_bytes(DAMAGES["half"](path.read_bytes()))
    result = run(warm, FIT + "result['weights'] = fit('float32')\n")
    assert result == {"weights": expected, "warnings": ["CacheWarning"]}


def test_a_cache_from_before_a_class_was_renamed_is_left_alone(tiny):
    """Numba unpickles an index before it sees that it is old: AttributeError in the first fit."""
    rename(tiny / "fastnn" / "kernels" / "tiny.py", "Pair", "Duo")
    result = run(tiny, WEIGH)
    assert weighed(result)
    assert not cached(result)
    assert result["warnings"] == []
    assert cached(run(tiny, WEIGH))


def test_machine_code_of_an_older_version_is_never_run(tiny):
    """Numba saves the index, then the code: in between, the new index led to the old code.

    A full disk or the end of the process at that moment made this last.
    """
    old = {path: path.read_bytes() for path in cache_files(tiny)}
    rename(tiny / "fastnn" / "kernels" / "tiny.py", "return total", "return -total")
    assert weighed(run(tiny, WEIGH), -6.0)
    for path in cache_files(tiny):
        path.unlink()
    for path, content in old.items():
        path.write_bytes(content)
    assert weighed(run(tiny, WEIGH), -6.0)


FULL_DISK = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of POSIX")
@pytest.mark.parametrize(
    "most",
    [700, *(pytest.param(most, marks=pytest.mark.nightly) for most in (0, 1, 5000))],
)
def test_a_disk_that_is_full_costs_no_more_than_a_warning(most, tiny):
    """No file may grow beyond so many bytes: writing fails, at once or halfway."""
    shutil.rmtree(tiny / "fastnn" / "kernels" / "__pycache__")
    # Python itself would leave half a .pyc file.
    result = run(tiny, FULL_DISK % (most, most) + WEIGH, PYTHONDONTWRITEBYTECODE="1")
    assert weighed(result)
    assert result["warnings"] == ["CacheWarning"]
    after = run(tiny, WEIGH)  # with space again
    assert weighed(after)
    assert after["warnings"] == []
    assert cached(run(tiny, WEIGH))


def test_two_versions_side_by_side_share_a_folder(tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    rename(other / "fastnn" / "kernels" / "tiny.py", "return total", "return -total")
    folder = str(tmp_path / "cache")
    for hit in (False, True):
        for site, value in ((tiny, 6.0), (other, -6.0)):
            result = run(site, WEIGH, NUMBA_CACHE_DIR=folder)
            assert weighed(result, value)
            assert cached(result) == hit


@pytest.mark.nightly
def test_two_versions_that_share_a_folder_train_each_by_its_own_kernels(warm, expected, tmp_path):
    other = shutil.copytree(warm, tmp_path / "other")
    delta = "d[i] = a[i] - y[i]"
    rename(other / "fastnn" / "kernels" / "losses.py", delta, f"{delta} - T(1)")
    folder = str(tmp_path / "cache")
    body = (
        "from fastnn.kernels.train import kernels\n"
        + "result['cached'] = kernels.prepare('float32')\n"
        + FIT
        + "result['weights'] = fit('float32')\n"
    )
    first, edited = (run(site, body, NUMBA_CACHE_DIR=folder) for site in (warm, other))
    assert first == {"cached": False, "weights": expected, "warnings": []}
    assert not edited["cached"]
    assert edited["weights"] != first["weights"]
    for site, before in ((warm, first), (other, edited)):
        again = run(site, body, NUMBA_CACHE_DIR=folder)
        assert again == {**before, "cached": True}


def zipped(site, path):
    with zipfile.ZipFile(path, "w") as archive:
        for source in site.rglob("*.py"):
            archive.write(source, source.relative_to(site))
    return path


def without_sources(site, folder):
    """Compiled by Python, without ``__pycache__``, and with no source, here nor anywhere."""
    shutil.copytree(site, folder, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, quiet=1, legacy=True, stripdir=folder, prependdir="gone")
    for source in folder.rglob("*.py"):
        source.unlink()
    return folder


def without_sources_zipped(site, path):
    folder = without_sources(site, path.with_suffix(""))
    with zipfile.ZipFile(path, "w") as archive:
        for compiled in folder.rglob("*.pyc"):
            archive.write(compiled, compiled.relative_to(folder))
    return path


@pytest.mark.parametrize(
    ("store", "frozen", "place"),
    [
        pytest.param(zipped, False, "home", marks=pytest.mark.nightly),
        pytest.param(zipped, False, "NUMBA_CACHE_DIR", marks=pytest.mark.nightly),
        pytest.param(without_sources, False, "home", marks=pytest.mark.nightly),
        pytest.param(without_sources, True, "home", marks=pytest.mark.nightly),
        (without_sources_zipped, True, "home"),  # as PyInstaller has it
        pytest.param(without_sources_zipped, True, "NUMBA_CACHE_DIR", marks=pytest.mark.nightly),
    ],
)
def test_however_it_is_stored_a_version_runs_its_own_code(
    store, frozen, place, tiny, home, tmp_path
):
    """The digest was that of no file: a rebuilt application ran its previous version's code."""
    shutil.rmtree(tiny / "fastnn" / "kernels" / "__pycache__")
    environment = home
    if place == "NUMBA_CACHE_DIR":
        environment = {**home, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    body = "import sys\nsys.frozen = True\n" * frozen + WEIGH
    sites = [store(tiny, tmp_path / "first.zip")]
    rename(tiny / "fastnn" / "kernels" / "tiny.py", "return total", "return -total")
    sites.append(store(tiny, tmp_path / "second.zip"))
    for hit in (False, True):
        for site, value in zip(sites, (6.0, -6.0), strict=True):
            result = run(site, body, **environment)
            assert weighed(result, value)
            assert cached(result) == hit
            assert result["warnings"] == []


def test_an_application_that_unpacks_itself_elsewhere_each_time_compiles_once(tiny, home, tmp_path):
    for hit in (False, True):
        site = without_sources(tiny, tmp_path / f"unpacked, {hit}")
        result = run(site, "import sys\nsys.frozen = True\n" + WEIGH, **home)
        assert weighed(result)
        assert cached(result) == hit
        assert result["warnings"] == []
        shutil.rmtree(site)


def test_the_digest_is_that_of_every_process(tiny):
    """Sets of text are in another order in each."""
    line = "names = lambda name: name in {'a', 'b', 'c', 'd', 'e', 'f'}\n"
    (tiny / "fastnn" / "kernels" / "names.py").write_text(line)
    body = "from fastnn.kernels.cache import DIGEST\nresult['digest'] = DIGEST\n"
    digests = [run(tiny, body, PYTHONHASHSEED=str(seed))["digest"] for seed in range(3)]
    assert len(set(digests)) == 1


NOT_LISTED = "import pkgutil\npkgutil.iter_modules = lambda *_: []\n"
NOT_READ = """
import sys
from importlib.machinery import PathFinder

class Loader:
    def __init__(self, loader):
        self.create_module, self.exec_module = loader.create_module, loader.exec_module

class Finder:
    @staticmethod
    def find_spec(name, path, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if name.startswith("fastnn."):
            spec.loader = Loader(spec.loader)
        return spec

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("packager", [NOT_LISTED, NOT_READ])
def test_code_that_cannot_be_read_is_not_cached(packager, tiny, home):
    before = cache_files(tiny)
    told = "result['text'] = str(caught[0].message)\n"
    for result in run(tiny, *[packager + WEIGH + told] * 2, **home):
        assert weighed(result)
        assert not cached(result)
        assert result["warnings"] == ["CacheWarning"]
        assert "could be taken for that of another version" in result["text"]
    assert cache_files(tiny) == before
    assert cache_files(Path(home["HOME"])) == []


@pytest.fixture(scope="module")
def mountable(tmp_path_factory):
    """Skip where a user may not mount."""
    command = [*with_mounts([read_only(tmp_path_factory.mktemp("disk"))]), "true"]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no mounts of one's own here")


@pytest.mark.usefixtures("mountable")
class TestDisks:
    """Of a file system that is read-only or full; root may write wherever permissions forbid it."""

    @pytest.mark.parametrize(
        "place",
        [
            pytest.param("package", marks=pytest.mark.nightly),
            "package, not home",
            pytest.param("NUMBA_CACHE_DIR", marks=pytest.mark.nightly),
        ],
    )
    def test_a_warm_cache_is_used_from_a_read_only_disk(self, place, warm, expected, home):
        body = "result['ready'] = fastnn.warmup(['float32'])\n" + FIT
        body += "result['weights'] = fit('float32')\n"
        mounts, environment = [read_only(warm)], home
        if place == "package":
            mounts.append(read_only(home["HOME"]))
        elif place == "NUMBA_CACHE_DIR":
            environment = {**home, "NUMBA_CACHE_DIR": str(warm.parent / "cache")}
            run(warm, body, **environment)
            shutil.rmtree(warm / "fastnn" / "kernels" / "__pycache__")
            mounts.append(read_only(environment["NUMBA_CACHE_DIR"]))
        for path in warm.rglob("*.py"):  # as an image of a container may round it
            os.utime(path, (0, 0))
        result = run(warm, body, mounts=mounts, **environment)
        ready = {"float32": True}
        assert result == {"ready": ready, "weights": expected, "warnings": []}

    def test_without_a_cache_home_has_one(self, tiny, home):
        shutil.rmtree(tiny / "fastnn" / "kernels" / "__pycache__")
        for hit in (False, True):
            result = run(tiny, WEIGH, mounts=[read_only(tiny)], **home)
            assert weighed(result)
            assert cached(result) == hit
            assert result["warnings"] == []

    @pytest.mark.parametrize(
        "size", [None, "8k", *(pytest.param(s, marks=pytest.mark.nightly) for s in ("4k", "16k"))]
    )
    def test_without_a_place_there_is_one_warning(self, size, tiny, home):
        folder = tiny / "fastnn" / "kernels" / "__pycache__"
        shutil.rmtree(folder)
        folder.mkdir()
        package = (
            read_only(tiny) if size is None else f"mount -t tmpfs -o size={size} none {folder}"
        )
        mounts = [package, read_only(home["HOME"])]
        result = run(tiny, WEIGH, mounts=mounts, PYTHONDONTWRITEBYTECODE="1", **home)
        assert weighed(result)
        assert result["warnings"] == ["CacheWarning"]
