"""What the scripts print and save: tables, geometric means, the machine."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import joblib

from .isa import restriction
from .peers import PEERS


def geometric_mean(ratios):
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def number(value):
    """Three significant digits, without exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def times(ratio):
    """A ratio as a factor."""
    return f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2f}x"


def note(benchmark, flops=0, examples=0):
    """Add GF/s and examples/s by the median to a finished pytest-benchmark."""
    if benchmark.stats is not None:  # None with --benchmark-disable
        seconds = benchmark.stats.stats.median
        if flops:
            benchmark.extra_info["GF/s"] = round(flops / seconds / 1e9, 2)
        if examples:
            benchmark.extra_info["examples/s"] = round(examples / seconds)


def table(header, rows, markdown=False):
    """The rows of strings as aligned text; the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells):
        first, *rest = zip(cells, widths, strict=True)
        return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]

    if not markdown:
        rule = ["-" * width for width in widths]
        return "\n".join("  ".join(cells).rstrip() for cells in map(line, (header, rule, *rows)))
    left, *right = widths
    rule = ["-" * left, *("-" * (width - 1) + ":" for width in right)]
    lines = [line(header), rule, *map(line, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine():
    """What a reader needs to judge and repeat the figures."""
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": joblib.cpu_count(),
        "isa": restriction(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("numpy", "numba", *dict.fromkeys(p.distribution for p in PEERS.values()))
            if _is_installed(name)
        },
    }


def describe(machine):
    """The machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    isa = f" restricted to {machine['isa'].upper()}" if machine["isa"] else ""
    return (
        f"{machine['cpu']}{isa}, {machine['cores']} cores, {machine['system']}; "
        f"{machine['date'][:10]}; Python {machine['python']}, {versions}"
    )


def save_json(path, results):
    Path(path).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _is_installed(distribution):
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _commit():
    """The commit of this checkout, '-dirty' with uncommitted changes; None outside Git."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(
            describe, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_model():
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    if "model name" not in fields:
        return platform.machine()
    return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
