"""Sphinx builds the documentation: ``sphinx-build -W docs docs/_build``."""

import fastnn

project = "fastnn"
author = "The fastnn developers"
copyright = "2026, The fastnn developers"
release = version = fastnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

# Methods of scikit-learn's base classes are documented there, with references into its own pages.
autodoc_default_options = {
    "members": True,
    "inherited-members": "BaseEstimator, ClassifierMixin, RegressorMixin, tuple",
    "exclude-members": ", ".join(
        f"{name}_request" for name in ("set_fit", "set_partial_fit", "set_predict", "set_score")
    )
    + ", get_metadata_routing",
}
autodoc_typehints = "none"  # the docstrings tell
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "abort_on_example_error": True,
    "min_reported_time": 1e9,
    "show_memory": False,
    "write_computation_times": False,
    "capture_repr": (),
}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["fastnn.css"]
html_title = "fastnn"
html_show_sourcelink = False
