"""What the main comparison leaves out, one section per question.

For example::

    python -m bench.sweep --quick                      all sections, small
    python -m bench.sweep batch threads --rounds 9
    python -m bench.sweep growth memory --full --json sweep.json
"""

import argparse
import sys

from . import isa, sweep_large, sweep_products, sweep_sparse, sweep_training, sweep_usage
from .peers import PEERS
from .report import describe, machine, save_json, table
from .session import Session
from .settings import Settings

SECTIONS = {
    "dtype": sweep_training.dtype,
    "activations": sweep_training.activations,
    "momentum": sweep_training.momentum,
    "lbfgs": sweep_training.lbfgs,
    "regression": sweep_training.regression,
    "batch": sweep_training.batch,
    "shapes": sweep_training.shapes,
    "threads": sweep_training.threads,
    "growth": sweep_training.growth,
    "large": sweep_large.large,
    "products": sweep_products.products,
    "text": sweep_sparse.text,
    "docstrings": sweep_sparse.docstrings,
    "bins": sweep_sparse.bins,
    "tabular": sweep_sparse.tabular,
    "predict": sweep_usage.predict,
    "one_row": sweep_usage.one_row,
    "grid": sweep_usage.grid,
    "memory": sweep_usage.memory,
    "streams": sweep_usage.streams,
    "coldstart": sweep_usage.coldstart,
    "contention": sweep_usage.contention,
    "beside": sweep_usage.beside,
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.sweep",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compare fastnn with scikit-learn, and with PyTorch where that is simple,\n"
        "beyond the main cases. Run it from the root of the repository, on an otherwise\n"
        "idle machine. Sections:\n\n"
        + "\n".join(f"  {name:12} {section.__doc__}" for name, section in SECTIONS.items()),
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help="those to run (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, 2 rounds, less exact")
    parser.add_argument(
        "--full", action="store_true", help="growth to 10,000,000 examples, large past 2**31"
    )
    parser.add_argument("--rounds", type=int, help="timings of each competitor (default: 5)")
    isa.add_option(parser)
    parser.add_argument("--json", metavar="FILE", help="write all times, machine and versions")
    options = parser.parse_args(arguments)
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"{name!r} is none of {', '.join(SECTIONS)}")
    return options


def main():
    options = parse()
    isa.restrict_workers(options.isa)
    rounds = options.rounds or (2 if options.quick else 5)
    results = {"machine": machine(), "rounds": rounds, "sections": {}}
    peers = [name for name in ("fastnn", "scikit-learn", "PyTorch") if PEERS[name].installed]
    for name in options.sections or SECTIONS:
        print(f"{name} ...", file=sys.stderr)
        with Session(rounds, 0.2 if options.quick else 2.0) as session:
            settings = Settings(session, peers, options.quick, options.full)
            tables, raw = SECTIONS[name](settings)
        for title, header, rows in tables:
            print(f"\n{name}: {title}\n\n{table(header, rows)}")
        results["sections"][name] = raw
    print(f"\n{describe(results['machine'])}.")
    if options.json:
        save_json(options.json, results)


if __name__ == "__main__":
    main()
