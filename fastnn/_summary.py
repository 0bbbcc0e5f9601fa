"""What a network looks like: its layers as text, as a table of HTML, and as a drawing."""

from __future__ import annotations

import html
import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.base import is_classifier

from ._activations import check_activations
from ._inputs import hidden_units
from ._typing import Activation, Array
from .kernels.losses import LOSSES

if TYPE_CHECKING:
    from ._base import BaseMLP

UNKNOWN = "?"  # of a network that is not fitted
NAMES = 0, 2  # columns that are not numbers


class Row(NamedTuple):
    """A layer of units, with the weights and biases that lead to it."""

    layer: str
    units: int | None
    activation: str = ""
    parameters: int | None = 0
    bytes: int | None = 0


def rows(estimator: BaseMLP) -> list[Row]:
    """The layers of an estimator, the input first; what is not known yet is None.

    Raises
    ------
    ValueError
        If parameters are not as described.
    """
    settings, fitted = estimator._settings(), hasattr(estimator, "coefs_")
    out_activation = estimator.out_activation_ if fitted else settings.out_activation
    if out_activation is None and not is_classifier(estimator):
        out_activation = LOSSES[settings.loss].activation
    coefs: list[Array] | None
    if fitted:
        coefs = estimator.coefs_
    else:
        coefs = None if isinstance(settings.init, str) else list(map(np.asarray, settings.init[0]))
    units: list[int | None]
    if coefs is None:
        units = [None, *hidden_units(settings.hidden_layer_sizes), None]
    else:
        units = [len(coefs[0]), *(W.shape[1] for W in coefs)]
    # Which is the last function may depend on y: any will do for the check.
    n_hidden, last = len(units) - 2, out_activation or "identity"
    functions = check_activations(settings.activation, n_hidden, last)
    functions = [*functions, out_activation or UNKNOWN]
    itemsize = estimator.coefs_[0].dtype.itemsize if fitted else None
    found = [Row("input", units[0])]
    for k, (n_in, n_out) in enumerate(itertools.pairwise(units)):
        name = "output" if k == len(units) - 2 else f"hidden {k + 1}"
        n = None if n_in is None or n_out is None else (n_in + 1) * n_out
        size = None if n is None or itemsize is None else n * itemsize
        found.append(Row(name, n_out, _said(functions[k]), n, size))
    return found


def _said(function: Activation) -> str:
    return function if isinstance(function, str) else "{} {:g}".format(*function)


def _number(n: int | None) -> str:
    return UNKNOWN if n is None else f"{n:,}"


def _table(layers: list[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Head, body and foot as lists of lists of str."""
    total = [
        None if None in column else sum(n for n in column if n is not None)
        for column in ([row.parameters for row in layers], [row.bytes for row in layers])
    ]
    first, *others = layers
    body = [[first.layer, _number(first.units), "", "", ""]]
    for row in others:
        body.append([row.layer, _number(row.units), row.activation, *map(_number, row[3:])])
    return list(Row._fields), body, ["total", "", "", *map(_number, total)]


def text(estimator: BaseMLP) -> str:
    """The layers as lines of text."""
    head, body, foot = _table(rows(estimator))
    lines = [head, *body, foot]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in NAMES else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_html(estimator: BaseMLP) -> str:
    """Drawing and table, as scikit-learn has the parameters; nothing if parameters are wrong."""
    try:
        layers = rows(estimator)
    except (TypeError, ValueError):
        return ""
    head, body, foot = _table(layers)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for line in [*body, foot]:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        lines.append(f'<tr class="default">{cells}</tr>')
    return (
        '<div class="estimator-table"><details open><summary>Network</summary>'
        f"{drawing(layers)}"
        f'<table class="parameters-table"><tbody>{"".join(lines)}</tbody></table></details></div>'
    )


# Of the drawing, in pixels.
COLUMN, HEIGHT, RADIUS, GAP = 110, 150, 5, 16
MOST_UNITS, MOST_LAYERS = 6, 9


def drawing(layers: list[Row]) -> str:
    """An SVG of the units and how they are connected; of many units, and layers, some."""
    if len(layers) > MOST_LAYERS:
        half = MOST_LAYERS // 2
        layers = [*layers[:half], Row("...", None), *layers[-half:]]
    columns, labels = [], []
    middle = HEIGHT / 2
    for k, row in enumerate(layers):
        x = COLUMN * (k + 0.5)
        n = min(row.units or 0, MOST_UNITS)
        is_cut = row.units is None or row.units > MOST_UNITS
        ys = [middle + GAP * (i - (n - 1) / 2) for i in range(n)]
        if is_cut and n:  # room for dots in the middle
            ys = [y - GAP / 2 if y < middle else y + GAP / 2 for y in ys]
        columns.append([(x, y) for y in ys])
        if is_cut:
            labels += [f'<text x="{x:g}" y="{middle + 4:g}" stroke="none">&#8942;</text>']
        above = "..." if row.layer == "..." else _number(row.units)
        for y, label in ((14, above), (HEIGHT - 6, row.activation or row.layer)):
            labels.append(f'<text x="{x:g}" y="{y}" stroke="none">{html.escape(label)}</text>')
    lines = [
        f"M{x1:g} {y1:g}L{x2:g} {y2:g}"
        for left, right in itertools.pairwise(columns)
        for (x1, y1), (x2, y2) in itertools.product(left, right)
    ]
    circles = [
        f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}"/>' for column in columns for x, y in column
    ]
    width = COLUMN * len(layers)
    return (
        f'<svg viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" role="img" '
        'aria-label="The layers of the network" style="max-width: 100%" fill="currentColor" '
        'stroke="currentColor" font-size="12" text-anchor="middle">'
        f'<path d="{"".join(lines)}" opacity="0.25"/>{"".join(circles)}{"".join(labels)}</svg>'
    )
