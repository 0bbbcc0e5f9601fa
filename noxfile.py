"""A quick selection of the tests under each Python, with the oldest and the newest libraries.

``nox`` runs all sessions whose Python is there, ``nox -s newest-3.13`` one of them. What follows
``--`` takes the place of the selection: ``nox -s oldest -- tests``.
"""

import nox

nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
# All kernels, and where fastnn depends most on what other libraries do.
QUICK = [
    f"tests/test_{name}.py"
    for name in (
        "matmul",
        "elementary",
        "network",
        "rules",
        "determinism",
        "parity",
        "sklearn_own_suite",
        "estimators",
    )
]


def _test(session, *requirements):
    for_tests = (
        ["-e", ".[test]"] if session.posargs else ["-e", ".", "pytest>=9", "hypothesis", "pandas"]
    )
    session.install(*for_tests, *requirements)
    session.run("python", "-m", "pip", "freeze", "--exclude-editable")
    session.run("pytest", *(session.posargs or QUICK))


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def newest(session):
    """The newest versions that pip finds."""
    _test(session)


@nox.session(python="3.11")
def oldest(session):
    """The lower bounds of pyproject.toml."""
    _test(session, *_lower_bounds(PROJECT["dependencies"]))


@nox.session(python="3.11")
def oldest_dask(session):
    """That of the extra dask, with the pandas of its days: the tests of ``fastnn.dask``."""
    bounds = _lower_bounds(PROJECT["optional-dependencies"]["dask"])
    session.install("-e", ".", *bounds, "dask[dataframe]", "pandas==2.2.2", "pytest>=9")
    session.run("pytest", *(session.posargs or ["tests/test_dask.py"]))


def _lower_bounds(requirements):
    return [requirement.replace(">=", "==") for requirement in requirements]
