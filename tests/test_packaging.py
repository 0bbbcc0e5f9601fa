"""What is in wheels and in the source distribution, built from a copy of the checkout."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path

import pytest

import fastnn
from fastnn.kernels.machine import LEVEL, LEVELS

ROOT = Path(__file__).parents[1]
# What builds and test runs leave in a checkout, and Git's own.
LEFT_OVER = shutil.ignore_patterns(
    "*.egg-info", "__pycache__", "build", "dist", ".git", ".*_cache", ".benchmarks", ".hypothesis"
)


def not_source(folder, names):
    """What not to copy of a checkout's ``folder``; virtual environments go by any name."""
    environments = {name for name in names if (Path(folder) / name / "pyvenv.cfg").exists()}
    return LEFT_OVER(folder, names) | environments


def python(*arguments, cwd, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )


def build(source, out, *what):
    """Build with the setuptools of this environment if it is new enough, else pip gets one."""
    try:
        new_enough = int(version("setuptools").split(".")[0]) >= 77  # as in pyproject.toml
    except PackageNotFoundError:
        new_enough = False
    isolation = ["--no-isolation"] if new_enough else []
    # -P: a folder named build in the working directory is not the module.
    done = python("-P", "-m", "build", *isolation, *what, "--outdir", out, source, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the source distribution and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("built")
    source = tmp_path_factory.mktemp("checkout") / "fastnn"
    shutil.copytree(ROOT, source, ignore=not_source)
    build(source, folder)
    (folder / "from_checkout").mkdir()
    build(source, folder / "from_checkout", "--wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package_files():
    """The files that an installation has, by their installed names."""
    files = {f"fastnn/{path.name}": path for path in (ROOT / "fastnn").glob("*.py")}
    files |= {f"fastnn/kernels/{path.name}": path for path in (ROOT / "kernels").glob("*.py")}
    return files | {"fastnn/py.typed": ROOT / "fastnn" / "py.typed"}


def metadata(wheel):
    (text,) = [data for name, data in contents(wheel).items() if name.endswith("/METADATA")]
    return email.message_from_bytes(text)


def test_the_wheel_holds_fastnn_and_its_kernels_and_nothing_else(wheel):
    found = contents(wheel)
    installed = {name: data for name, data in found.items() if ".dist-info/" not in name}
    assert sorted(installed) == sorted(package_files())
    for name, path in package_files().items():
        assert installed[name] == path.read_bytes(), name
    tops = {name.split("/")[0] for name in found}
    assert tops == {"fastnn", f"fastnn_mlp-{fastnn.__version__}.dist-info"}


def test_the_wheel_holds_the_license(wheel):
    (text,) = [data for name, data in contents(wheel).items() if name.endswith("/LICENSE")]
    assert text == (ROOT / "LICENSE").read_bytes()
    assert b"BSD 3-Clause License" in text


def test_the_metadata_says_what_users_and_tools_need(wheel):
    found = metadata(wheel)
    assert found["Name"] == "fastnn-mlp"
    assert found["Version"] == fastnn.__version__
    assert found["License-Expression"] == "BSD-3-Clause"
    assert found["Requires-Python"] == ">=3.11"
    assert {"test", "bench"} <= set(found.get_all("Provides-Extra"))
    assert found.get_payload(decode=True) == (ROOT / "README.md").read_bytes()


def imported(source):
    """The top-level modules that a module imports wherever it is imported itself."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_what_is_imported_is_required_and_nothing_else(wheel):
    sources = {name: data for name, data in contents(wheel).items() if name.endswith(".py")}
    for_dask = [name for name in sources if "dask" in name]
    of_extra = {module for name in for_dask for module in imported(sources.pop(name))}
    needed = {module for source in sources.values() for module in imported(source)}
    needed = needed - sys.stdlib_module_names - {"fastnn"}
    lines = metadata(wheel).get_all("Requires-Dist")
    required = {re.match(r"[\w-]+", line)[0] for line in lines if "extra ==" not in line}
    required = {name.replace("scikit-learn", "sklearn") for name in required}
    assert required == needed
    assert of_extra - needed - sys.stdlib_module_names - {"fastnn"} == {"dask"}
    assert any(line.startswith("dask[") and "extra ==" in line for line in lines)


def test_links_of_the_long_description_are_absolute_and_lead_into_this_repository(wheel):
    found = metadata(wheel)
    urls = dict(line.split(", ") for line in found.get_all("Project-URL"))
    assert {"Source", "Documentation", "Changelog", "Issues"} <= set(urls)
    text = found.get_payload(decode=True).decode()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    for link in [*links, *urls.values()]:
        if match := re.fullmatch(rf"{urls['Source']}/(?:blob|raw|tree)/main/([^#]+)(#.*)?", link):
            assert (ROOT / match[1]).exists(), link
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"repository-code: {urls['Source']}\n" in citation
    assert f"version: {fastnn.__version__}\n" in citation


def test_another_distribution_called_fastnn_in_the_same_folder_is_a_warning(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    done = python("-P", "-c", "import fastnn", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "fastnn-0.4.0.dist-info").mkdir()
    done = python("-P", "-c", "import fastnn", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert done.stderr.startswith("<string>:1: UserWarning: The distribution fastnn 0.4.0")


def test_the_source_distribution_holds_the_kernels_and_builds_the_same_wheel(built, wheel):
    (path,) = built.glob("*.tar.gz")
    top = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
    for source in package_files().values():
        assert f"{top}/{source.relative_to(ROOT)}" in names
    assert {f"{top}/{name}" for name in ("LICENSE", "README.md", "pyproject.toml")} <= names
    (direct,) = (built / "from_checkout").glob("*.whl")
    assert contents(direct) == contents(wheel)


def test_an_unpacked_wheel_has_its_kernels_at_fastnn_kernels(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import fastnn, fastnn.kernels.train, importlib.util\n"
        "print(fastnn.kernels.train.__file__, fastnn.__version__)\n"
        "assert importlib.util.find_spec('kernels') is None\n"
    )
    # PYTHONPATH comes before the import hooks of an editable installation.
    done = python("-P", "-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    train = tmp_path / "fastnn" / "kernels" / "train.py"
    assert done.stdout.split() == [str(train), fastnn.__version__]


def test_kernels_cannot_be_imported_from_the_checkout_by_another_name():
    """A second set of kernels would be compiled and cached beside the first."""
    done = python("-c", "import kernels", cwd=ROOT)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "pip install -e" in done.stderr


@pytest.fixture(params=["wheel", "editable"])
def installed_to_be_read(request, wheel, tmp_path):
    """The Python of an environment with fastnn, and with what it needs from this one."""
    venv.create(tmp_path)
    (site,) = tmp_path.glob("[Ll]ib/**/site-packages")
    needed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "needed.pth").write_text("\n".join(needed))
    (executable,) = [*tmp_path.glob("bin/python"), *tmp_path.glob("Scripts/python.exe")]
    what = [wheel]
    if request.param == "editable":
        source = tmp_path / "checkout"
        shutil.copytree(ROOT, source, ignore=not_source)
        # Type checkers run no import hooks, which the other mode makes.
        what = ["--config-settings", "editable_mode=strict", "--editable", source]
    pip = ["-m", "pip", "--python", executable, "install", "--no-deps"]
    done = python("-P", *pip, *what, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return executable


TYPE_CHECKERS = {
    "mypy": ["mypy", "--strict", "--python-executable"],
    "pyright": ["pyright", "--pythonpath"],
}


@pytest.mark.nightly
@pytest.mark.parametrize("checker", TYPE_CHECKERS)
def test_type_checkers_see_the_types_of_what_users_call(checker, installed_to_be_read, tmp_path):
    use = shutil.copy(ROOT / "tests" / "typed_use.py", tmp_path)
    check = "-P", "-m", *TYPE_CHECKERS[checker]
    done = python(*check, installed_to_be_read, use, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.nightly
@pytest.mark.parametrize(
    "checker",
    [["mypy", f"--cache-dir={os.devnull}"], ["pyright", f"--pythonpath={sys.executable}"]],
    ids=lambda checker: checker[0],
)
def test_type_checkers_find_nothing_in_fastnn_itself(checker):
    done = python("-P", "-m", *checker, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel_with_machine_code(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("with machine code")
    done = python("-P", ROOT / ".ci" / "wheel.py", shutil.copy(wheel, folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    (path,) = set(folder.glob("*.whl")) - set(folder.glob("*-py3-none-any.whl"))
    return path


@pytest.fixture(scope="module")
def installed(wheel_with_machine_code, tmp_path_factory):
    """The Python of a new environment, with the wheel, and with what it needs from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (site,) = folder.glob("[Ll]ib/**/site-packages")
    needed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "needed.pth").write_text("\n".join(needed))
    (executable,) = [*folder.glob("bin/python"), *folder.glob("Scripts/python.exe")]
    pip = ["-m", "pip", "--python", executable, "install", "--no-deps", "--no-index"]
    done = python("-P", *pip, wheel_with_machine_code, cwd=folder)
    assert done.returncode == 0, done.stderr
    return executable


FIRST_FIT = """
import time, warnings
import numpy as np
from numba.core.event import install_recorder
import fastnn
from fastnn.kernels.machine import LEVEL
warnings.simplefilter("error", fastnn.kernels.cache.CacheWarning)
X = np.linspace(-1, 1, 400).reshape(100, 4)
with install_recorder("numba:compile") as compiled:
    for T in (np.float32, np.float64):
        started = time.perf_counter()
        model = fastnn.MLPRegressor(early_stopping=True, max_iter=2).fit(X.astype(T), X[:, 0])
        print(f"{time.perf_counter() - started:.3f} s", model.predict(X.astype(T)).shape)
print(fastnn.__file__, LEVEL, len(compiled.buffer), sep="\\n")
"""


@pytest.mark.nightly
@pytest.mark.parametrize("level", LEVELS)
def test_the_first_fit_from_a_wheel_with_machine_code_compiles_nothing(level, installed, tmp_path):
    levels = list(LEVELS)
    if LEVEL not in levels[levels.index(level) :]:
        pytest.skip(f"this machine could not run its code: it has {LEVEL}")
    features = list(accumulate(LEVELS.values(), "{},{}".format))[levels.index(level)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    machine = {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": features}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(tmp_path))
    done = subprocess.run(
        [installed, "-P", "-W", "ignore", "-c", FIRST_FIT],
        cwd=tmp_path,
        env=kept | machine | homes,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    *_, file, used, compiled = done.stdout.splitlines()
    assert Path(file).is_relative_to(installed.parents[1])
    assert (used, compiled) == (level, "0")
    assert "compiling" not in done.stderr
    assert not list(tmp_path.rglob("*.nbc"))


@pytest.mark.nightly
def test_a_wheel_with_machine_code_is_for_this_python_and_holds_the_same_sources(
    wheel_with_machine_code, wheel
):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel_with_machine_code.name.startswith(f"fastnn_mlp-{fastnn.__version__}-{tag}-{tag}")
    found, plain = contents(wheel_with_machine_code), contents(wheel)
    built = {name for name in found if name.startswith("fastnn/kernels/built/")}
    assert len(built) == 2 * len(LEVELS)  # dtypes
    for name in found.keys() - built:
        assert found[name] == plain[name] or name.endswith((".dist-info/RECORD", "/WHEEL")), name
