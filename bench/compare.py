"""Side by side: fastnn and its peers on the same data and cores, in turn.

For example::

    python -m bench.compare --quick               under a minute
    python -m bench.compare --json results.json --plot ratios.png
    python -m bench.compare --cases A,F --peers scikit-learn,JAX --markdown
    python -m bench.compare --isa avx2            as on a machine without AVX-512
"""

import argparse
import sys
from statistics import median

from . import isa
from .cases import CASES, MAIN
from .peak import prepare_peak
from .peers import PEERS
from .report import describe, geometric_mean, machine, number, save_json, table, times
from .session import Session, per_epoch


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Train the same networks with fastnn and its peers, one at a time and in turn, "
        "each in its own process; print medians as one table. Run it from the root of the "
        "repository, on an otherwise idle machine. Peers that are not installed are left out.",
        epilog="Cases, n x d (hidden) classes, batch: "
        + "; ".join(f"{case.name} {case.shape}" for case in CASES.values())
        + ".",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few epochs and 3 rounds: under a minute, less exact"
    )
    parser.add_argument(
        "--cases",
        type=_some_of(CASES),
        default=list(MAIN),
        help=f"by name, with commas (default: {','.join(MAIN)}, the ones in the means)",
    )
    parser.add_argument(
        "--peers",
        type=_some_of([name for name in PEERS if name != "fastnn"]),
        default=[name for name in PEERS if name != "fastnn"],
        help="by name, with commas (default: all)",
    )
    parser.add_argument("--rounds", type=int, help="timings of each peer (default: 5)")
    isa.add_option(parser)
    parser.add_argument("--json", metavar="FILE", help="write all times, machine and versions")
    parser.add_argument("--plot", metavar="FILE.png", help="draw the ratios (needs matplotlib)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 5)
    return options


def _some_of(known):
    def names(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen

    return names


def measure(case_names, peers, rounds, seconds):
    """All times of all cases; see ``results`` in the JSON file."""
    results = {"machine": machine(), "rounds": rounds, "cases": {}}
    with Session(rounds, seconds) as session:
        print("measured peak ...", file=sys.stderr)
        before = session.worker("peak").task(prepare_peak).run()[1]
        for name in case_names:
            case = CASES[name]
            print(f"{name} {case.shape} ...", file=sys.stderr)
            timing = session.time_fits({peer: (peer, case) for peer in peers})
            results["cases"][name] = {**case._asdict(), "flops": case.flops, **timing}
        after = session.worker("peak").task(prepare_peak).run()[1]
        results["peak"] = {product: max(before[product], after[product]) for product in before}
    return results


def ratios(results):
    """How many times faster fastnn is: {case: {peer: ratio of medians}}."""
    return {
        name: {
            peer: median(seconds) / median(timing["seconds"]["fastnn"])
            for peer, seconds in timing["seconds"].items()
            if peer != "fastnn"
        }
        for name, timing in results["cases"].items()
    }


def means(results):
    """Geometric means of the ratios over the main cases that were run: {against what: mean}."""
    main = [each for name, each in ratios(results).items() if name in MAIN]
    frameworks = [peer for peer in (main[0] if main else ()) if peer != "scikit-learn"]
    against = {}
    if main and "scikit-learn" in main[0]:
        against["scikit-learn"] = geometric_mean([each["scikit-learn"] for each in main])
    if frameworks:
        fastest = [min(each[peer] for peer in frameworks) for each in main]
        against[f"the fastest of {', '.join(frameworks)} in each case"] = geometric_mean(fastest)
    return against


def text(results, markdown):
    """The table with what belongs to it."""
    peak = max(results["peak"].values())
    against = ratios(results)
    peers = list(next(iter(against.values())))
    header = ["n x d (hidden) classes, batch", "fastnn ms", "examples/s", "GF/s", "of peak"]
    header += [f"{peer} ms" for peer in peers]
    rows = []
    for name, timing in results["cases"].items():
        seconds = per_epoch(timing)
        gflops = timing["flops"] / seconds["fastnn"] / 1e9
        row = [
            f"{name} {CASES[name].shape}",
            number(seconds["fastnn"] * 1e3),
            f"{timing['n'] / seconds['fastnn']:,.0f}",
            number(gflops),
            f"{gflops / peak:.0%}",
        ]
        row += [f"{number(seconds[peer] * 1e3)} ({times(against[name][peer])})" for peer in peers]
        rows.append(row)
    cases = "".join(name for name in results["cases"] if name in MAIN)
    lines = [table(header, rows, markdown), ""]
    for what, mean in means(results).items():
        lines += [f"Geometric mean over {cases}: {mean:.2f}x as fast as {what}.", ""]
    products = ", ".join(f"{name} {number(value)}" for name, value in results["peak"].items())
    lines += [
        f"Milliseconds per epoch of training, float32, medians of {results['rounds']} rounds; in "
        "parentheses the time of the peer divided by that of fastnn.",
        f"Measured peak: {number(peak)} GF/s, the faster float32 product of 2048x2048 matrices on "
        f"all cores in the same run ({products}).",
        "All peers reached about the same training loss before they were timed.",
        describe(results["machine"]) + ".",
    ]
    if results["machine"]["load"] > 0.5:
        lines.append(f"NOT IDLE: the load was {results['machine']['load']:.1f} at the start.")
    missing = [name for name, peer in PEERS.items() if not peer.installed]
    if missing:
        lines.append(f"Not installed and left out: {', '.join(missing)}.")
    return "\n".join(lines)


def main():
    options = parse()
    isa.restrict_workers(options.isa)
    peers = ["fastnn", *(peer for peer in options.peers if PEERS[peer].installed)]
    results = measure(options.cases, peers, options.rounds, 0.2 if options.quick else 2.0)
    print(text(results, options.markdown))
    if options.json:
        save_json(options.json, {**results, "ratios": ratios(results), "means": means(results)})
    if options.plot:
        from .plot import plot_ratios

        plot_ratios(options.plot, ratios(results), describe(results["machine"]))


if __name__ == "__main__":
    main()
