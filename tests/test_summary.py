"""What a network looks like: as text, and in notebooks by scikit-learn's own machinery."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastnn import MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor, _summary

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_digits(return_X_y=True)
X, Y = X[:100], Y[:100]
DTYPES = [np.float32, np.float64]


def cells(text):
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fitted_network(dtype):
    model = MLPClassifier((1200, 5), activation=[("elu", 0.5), "tanh"], max_iter=2)
    model.fit(X.astype(dtype), Y)
    size = np.dtype(dtype).itemsize
    n = [65 * 1200, 1201 * 5, 6 * 10]
    assert sum(n) == sum(a.size for a in [*model.coefs_, *model.intercepts_])
    counts = [[f"{k:,}", f"{k * size:,}"] for k in [*n, sum(n)]]
    assert cells(model.summary()) == [
        ["layer", "units", "activation", "parameters", "bytes"],
        ["input", "64"],
        ["hidden", "1", "1,200", "elu", "0.5", *counts[0]],
        ["hidden", "2", "5", "tanh", *counts[1]],
        ["output", "10", "softmax", *counts[2]],
        ["total", *counts[3]],
    ]
    assert len({len(line) for line in model.summary().splitlines() if "0" in line}) <= 2


def test_before_fit_what_is_known():
    assert cells(MLPRegressor("poisson", (20, 10)).summary())[1:] == [
        ["input", "?"],
        ["hidden", "1", "20", "relu", "?", "?"],
        ["hidden", "2", "10", "relu", "210", "?"],
        ["output", "?", "exp", "?", "?"],
        ["total", "?", "?"],
    ]
    assert cells(MLPClassifier(()).summary())[2] == ["output", "?", "?", "?", "?"]
    given = MLPRegressor(init=([np.ones((3, 2)), np.ones((2, 1))], [np.ones(2), np.ones(1)]))
    assert cells(given.summary())[-1] == ["total", "11", "?"]


def test_wrong_parameters_are_an_error_of_the_summary_and_no_harm_to_a_notebook():
    model = MLPClassifier(activation="beauty")
    with pytest.raises(ValueError, match="activation"):
        model.summary()
    assert "MLPClassifier" in model._repr_html_()


def drawn(page):
    """The drawings in a page, which must be XML."""
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_the_page_of_a_notebook_has_the_layers_beside_what_scikit_learn_shows():
    model = MLPClassifier((9, 3), max_iter=2).fit(X, Y)
    page = model._repr_html_()
    (svg,) = drawn(page)
    assert page.index("Network") < page.index("<summary>Parameters")
    assert "hidden_layer_sizes" in page
    assert sorted(element.text for element in svg.findall("text")) == sorted(
        ["64", "9", "3", "10", "input", "relu", "relu", "softmax", *["\N{VERTICAL ELLIPSIS}"] * 3]
    )
    circles = svg.findall("circle")
    assert len(circles) == 6 + 6 + 3 + 6
    for circle in circles:
        assert 0 < float(circle.get("cx")) < float(svg.get("width"))
        assert 20 < float(circle.get("cy")) < float(svg.get("height")) - 20
    assert svg.find("path").get("d").count("M") == 6 * 6 + 6 * 3 + 3 * 6
    assert re.search(r"<td>total</td>.*?>655</td><td [^>]*right[^>]*>5,240</td>", page)
    assert "Network" in model._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize("fitted", [False, True])
def test_in_a_pipeline_and_in_a_search(fitted):
    model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=2))
    search = GridSearchCV(model, {"mlpclassifier__alpha": [0, 1]}, cv=2)
    for outer in (model, search):
        page = (outer.fit(X, Y) if fitted else outer)._repr_html_()
        assert len(drawn(page)) == 1


def test_of_many_layers_some_are_drawn():
    page = MLPClassifier((7,) * 30)._repr_html_()
    (svg,) = drawn(page)
    assert float(svg.get("width")) == _summary.COLUMN * _summary.MOST_LAYERS
    assert "hidden 30" in page


def test_the_text_representation_is_left_alone():
    with sklearn.config_context(display="text"):
        assert not hasattr(MLPClassifier(), "_repr_html_")
    assert repr(MLPClassifier((5,))) == "MLPClassifier(hidden_layer_sizes=(5,))"


@pytest.mark.parametrize("make", [MLPClassifier, MLPRegressor, TabularClassifier, TabularRegressor])
def test_each_parameter_has_a_tooltip_and_the_class_a_link(make):
    common = pytest.importorskip("sklearn.utils._repr_html.common")
    if not hasattr(common, "get_docstring"):
        pytest.skip("tooltips need scikit-learn 1.8")
    model = make()
    link = model._get_doc_link()
    assert link.endswith(f"/fastnn.{make.__name__}.html")
    page = model._repr_html_()
    assert f'href="{link}">?' in page
    for name in model.get_params():
        assert f"--doc-link-{name};" in page, name
        assert common.get_docstring(make, "Parameters", name), name


def test_a_subclass_of_a_user_has_no_link_to_a_page_that_is_not_its_own():
    class Mine(MLPClassifier):
        pass

    assert Mine()._get_doc_link() == ""
    assert len(drawn(Mine()._repr_html_())) == 1
