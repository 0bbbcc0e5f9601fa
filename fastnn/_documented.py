"""Where the documentation of a class is."""


class Documented:
    """An estimator with a page: the "?" of notebooks leads there, and so do tooltips.

    A class of users that derives from it has none.
    """

    # The Documentation of pyproject.toml, with the pages that docs/api.md lists.
    _doc_link_module = "fastnn"
    _doc_link_template = (
        "https://fastnn-mlp.github.io/fastnn-mlp/generated/fastnn.{estimator_name}.html"
    )
