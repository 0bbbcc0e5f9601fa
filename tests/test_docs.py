"""Every example in README and in the docstrings runs and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil
import re
import tomllib
import warnings
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

import fastnn.callbacks

ROOT = Path(__file__).parent.parent
EXAMPLES = [
    test
    for _, name, _ in pkgutil.walk_packages(fastnn.__path__, "fastnn.")
    if not name.endswith("__main__")
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if test.examples
]


def needed(docstring):
    """Modules that are not there with every installation, and every scikit-learn."""
    named = [module for module in ("skops", "skl2onnx") if f"import {module}" in docstring]
    return [*named, "sklearn.callback"] if "set_callbacks" in docstring else named


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_docstring_examples(example):
    for module in needed(example.docstring):
        pytest.importorskip(module)
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0


def test_there_are_docstring_examples():
    finder = doctest.DocTestFinder()
    for name in fastnn.__all__:
        assert any(test.examples for test in finder.find(getattr(fastnn, name))), name


def is_there(module):
    try:
        return importlib.import_module(module) is not None
    except ImportError:
        return False


def python_blocks(text):
    """All of them but those that need modules which are not there, by names behind "python"."""
    return [
        block
        for modules, block in re.findall(r"```python(.*?)\n(.*?)```", text, re.DOTALL)
        if all(is_there(module) for module in modules.split())
    ]


DOCS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("path", ["README.md", *DOCS])
def test_examples_in_the_texts_run(path):
    """All Python blocks of a file, in order, in one namespace."""
    namespace = {}
    text = (ROOT / path).read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for block in python_blocks(text):
            if ">>>" in block:
                test = doctest.DocTestParser().get_doctest(block, namespace, path, path, 0)
                runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
                assert runner.run(test, clear_globs=False).failed == 0
                namespace.update(test.globs)  # it runs in a copy
            else:
                exec(compile(block, path, "exec"), namespace)


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *DOCS])
def test_files_are_where_the_texts_say(path):
    text = (ROOT / path).read_text()
    named = set(re.findall(r"`((?:fastnn|kernels|tests|bench|docs)/[\w./]*)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", DOCS)
def test_functions_are_where_the_texts_say(path):
    named = re.findall(
        r"((?:`\w+`(?:, | of )?)+) (?:in|of)\s`(fastnn|kernels)/(\w+)\.py`",
        (ROOT / path).read_text(),
    )
    for names, folder, file in named:
        package = "fastnn" if folder == "fastnn" else "fastnn.kernels"
        module = importlib.import_module(f"{package}.{file}")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b{name}\b", inspect.getsource(module)), (name, file)


# What users import, from the package.
PUBLIC = [
    *fastnn.__all__,
    *(f"callbacks.{name}" for name in fastnn.callbacks.__all__),
    "onnx.register",
    "dask.MLPClassifier",
    "dask.MLPRegressor",
]


def test_every_page_is_in_the_table_of_contents():
    contents = (ROOT / "docs" / "index.md").read_text()
    listed = re.findall(r"^([\w/]+)$", contents, re.MULTILINE)
    pages = {Path(path).stem for path in DOCS} - {"index"}
    assert pages - set(listed) == set()


def test_everything_public_is_in_the_api():
    listed = (ROOT / "docs" / "api.md").read_text().split()
    assert [name for name in PUBLIC if name not in listed] == []


def test_the_links_of_notebooks_lead_to_pages_of_the_documentation():
    """To those that Sphinx makes of the names in api.md, where pyproject.toml says that it is."""
    text = (ROOT / "docs" / "api.md").read_text()
    module = re.search(r"currentmodule:: (\w+)", text)[1]
    folder, names = zip(*re.findall(r":toctree: (\w+/)\n\n((?: +\w+\n)+)", text), strict=True)
    pages = {f"{set(folder).pop()}{module}.{name}.html" for part in names for name in part.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    estimators = [
        thing
        for name in fastnn.__all__
        if inspect.isclass(thing := getattr(fastnn, name)) and issubclass(thing, BaseEstimator)
    ]
    links = {estimator()._get_doc_link() for estimator in estimators}
    assert len(links) == 4
    assert links <= {project["urls"]["Documentation"] + page for page in pages}


def test_examples_and_references_are_found_in_the_texts():
    """The tests above would pass if their patterns matched nothing."""
    notes = (ROOT / "docs" / "from_the_notes_to_the_code.md").read_text()
    assert python_blocks(notes)
    assert re.search(r"`\w+` in `(fastnn|kernels)/\w+\.py`", notes)
    assert "`kernels/network.py`" in notes


def public_callables():
    for name in fastnn.__all__:
        thing = getattr(fastnn, name)
        yield name, thing
        if inspect.isclass(thing):
            for method, function in inspect.getmembers(thing, inspect.isroutine):
                module = getattr(function, "__module__", None) or ""
                if not method.startswith("_") and module.startswith("fastnn"):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("name, thing", list(public_callables()), ids=lambda value: str(value))
def test_every_parameter_and_result_is_documented(name, thing):
    doc = inspect.getdoc(thing)
    for parameter in inspect.signature(thing).parameters:
        if parameter != "self":
            assert re.search(rf"^(\w+, )*(\*\*)?{parameter}(, \w+)* :", doc, re.MULTILINE), (
                parameter
            )
    if not inspect.isclass(thing):
        assert "Returns\n-------" in doc


@pytest.mark.parametrize("estimator", [fastnn.MLPClassifier, fastnn.MLPRegressor])
def test_parameters_are_documented_in_the_order_of_the_signature(estimator):
    doc = inspect.getdoc(estimator).split("Attributes\n---")[0]
    lines = re.findall(r"^((?:\w+, )*\w+) :", doc, re.MULTILINE)
    documented = [name for line in lines for name in line.split(", ")]
    assert documented == list(inspect.signature(estimator).parameters)


@pytest.mark.parametrize("estimator", [fastnn.MLPClassifier, fastnn.MLPRegressor])
def test_every_allowed_name_is_documented(estimator):
    doc = inspect.getdoc(estimator)
    for parameter in ("activation", "solver", "learning_rate", "loss", "init"):
        for allowed in estimator._parameter_constraints[parameter]:
            for name in getattr(allowed, "options", ()):
                assert f"'{name}'" in doc, name


@pytest.mark.parametrize("name, thing", list(public_callables()), ids=lambda value: str(value))
def test_everything_public_has_an_example_or_its_class_has(name, thing):
    of_class = getattr(fastnn, name.split(".")[0])
    assert ">>>" in inspect.getdoc(thing) + inspect.getdoc(of_class)


# Of numpydoc's checks those left out: a longer summary, tables that end without a full stop, a
# named result.
UNCHECKED = {"ES01", "PR09", "RT02"}
# Methods have examples and references where these help; the parameters of the estimators for Dask
# are those of one machine.
OF_CLASSES_AND_FUNCTIONS = {"EX01", "SA01"}


@pytest.mark.parametrize("name", PUBLIC)
def test_docstrings_are_as_numpydoc_wants_them(name):
    validate = pytest.importorskip("numpydoc.validate").validate
    pytest.importorskip(name.split(".")[0] if name.startswith("dask") else "fastnn")
    module, _, last = f"fastnn.{name}".rpartition(".")
    thing, members = getattr(importlib.import_module(module), last), []
    if inspect.isclass(thing) and not name.startswith("callbacks"):  # whose methods are hooks
        members = [
            f"fastnn.{name}.{member}"
            for member, function in inspect.getmembers(thing, inspect.isroutine)
            if not member.startswith("_")
            and (getattr(function, "__module__", None) or "").startswith("fastnn")
        ]
    unchecked = UNCHECKED | ({"PR01"} if name.startswith("dask") else set())
    found = [
        (full, code, text)
        for full in [f"fastnn.{name}", *members]
        for code, text in validate(full)["errors"]
        if code not in unchecked | (OF_CLASSES_AND_FUNCTIONS if full in members else set())
    ]
    assert found == []
