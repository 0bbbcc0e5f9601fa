"""The picture of a comparison: how many times faster fastnn is, by case and peer."""

import textwrap

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .cases import CASES

COLORS = {
    "scikit-learn": "#f7931e",
    "PyTorch": "#d1495b",
    "JAX": "#3066be",
    "JAX 1 core": "#8fb8ed",
}


def plot_ratios(path, ratios, caption):
    """Write bars of ``{case: {peer: ratio}}`` on a logarithmic axis to the file ``path``."""
    peers = list(next(iter(ratios.values())))
    width = 0.84 / len(peers)
    figure, axes = plt.subplots(figsize=(max(6.0, 1.7 * len(ratios)), 5.2), layout="constrained")
    for i, peer in enumerate(peers):
        at = [group + (i - (len(peers) - 1) / 2) * width for group in range(len(ratios))]
        heights = [each[peer] for each in ratios.values()]
        bars = axes.bar(at, [height - 1 for height in heights], width * 0.92, 1, label=peer)
        for bar, x, height in zip(bars, at, heights, strict=True):
            bar.set_facecolor(COLORS[peer])
            axes.annotate(
                f"{height:.2g}" if height < 9.95 else f"{height:.0f}",
                (x, height),
                xytext=(0, 3 if height >= 1 else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if height >= 1 else "top",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.2},
            )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    low = min(1.0, *(min(each.values()) for each in ratios.values()))
    high = max(1.0, *(max(each.values()) for each in ratios.values()))
    axes.set_ylim(low / 1.5, high * 1.5)
    ticks = [
        t * 10**e for e in range(-3, 4) for t in (1, 2, 5) if low / 1.5 <= t * 10**e <= high * 1.5
    ]
    axes.set_yticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xticks(range(len(ratios)), [_two_lines(CASES[name]) for name in ratios], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("time of the peer / time of fastnn")
    axes.set_title("Training time per epoch: above the line fastnn is faster", fontsize=11)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(peers),
        frameon=False,
    )
    caption = "\n".join(
        textwrap.wrap(f"n x d (hidden) classes, batch. {caption}", int(16 * figure.get_figwidth()))
    )
    figure.supxlabel(caption, fontsize=8, color="0.3")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _two_lines(case):
    size, rest = case.shape.split(" ", 1)
    return f"{case.name}\n{size}\n{rest}"
