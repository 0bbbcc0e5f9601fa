"""What a step costs on Dask, and from which network and mini-batch on more machines pay.

For example, on an otherwise idle machine with two cores or more::

    python -m bench.dask_price --plot docs/workers.png

A step on W workers is modelled as ::

    gradient(B / W) + W (latency + 2 bytes / bandwidth) + update

with one vector of weights to each worker and one gradient back, all by way of the client, one after
the other. Gradients and updates are timed in this process, latency and bandwidth by an actor that
gives back what it is given; then whole fits on two workers check the model. A network between the
machines adds its own latency and its own seconds per byte. Under ``taskset -c 0`` CPU seconds are
counted, which nobody else can add to, and two workers take turns.
"""

import argparse
import logging
import os
import time
import warnings

import dask.array
import numpy as np
import psutil
from dask.distributed import Client

import fastnn.dask
from fastnn._network import make_data, make_net
from fastnn._trainer import Trainer
from fastnn.kernels.layout import starts_of
from fastnn.kernels.rules import ADAM, Rule

from .report import describe, machine, number, table

N_FEATURES, DTYPE = 100, np.float32
HIDDEN = 30, 100, 300, 1000
BATCHES = 200, 2000, 20000
MACHINES = 2, 8
# Of 10 Gbit/s Ethernet: seconds of a round trip, and bytes a second.
ROUND_TRIP, ETHERNET = 2e-4, 1.25e9
ADAM_RULE = Rule(ADAM, 1e-3, 1e-4, 0.9, 0.999, 1e-8)
COLORS = "#3066be", "#d1495b", "#f7931e", "#5a9367"


class Echo:
    """An actor that answers with the vector that it is given."""

    def gradient(self, theta):
        return theta


def best(function, seconds, clock):
    """The least time of ``function()``: others on the machine can only add to it."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        started = clock()
        function()
        times.append(clock() - started)
    return min(times)


def clock_of(client, cores):
    """A clock for steps: on one core, which does one thing at a time, CPU seconds of all."""
    if cores > 1:
        return time.perf_counter
    return lambda: time.process_time() + sum(client.run(time.process_time).values())


def exchange(client, clock, n_times):
    """Latency of a worker's answer, and bytes a second, of loopback and Dask."""
    actors = [
        client.submit(Echo, actor=True, workers=[worker], pure=False).result()
        for worker in client.nthreads()
    ]
    took, sizes = [], (1000, 4_000_000)
    for size in sizes:
        theta, times = np.random.default_rng(0).random(size // 8), []
        for _ in range(3):
            started = clock()
            for _ in range(n_times):
                for answer in [actor.gradient(theta) for actor in actors]:
                    answer.result()
            times.append((clock() - started) / n_times / len(actors))
        took.append(min(times))
    return took[0], 2 * (sizes[1] - sizes[0]) / (took[1] - took[0])


class Costs:
    """Of a network with two hidden layers of ``hidden`` units, in this process, on one thread."""

    def __init__(self, hidden, seconds, clock):
        self.hidden = hidden
        units = [N_FEATURES, hidden, hidden, 1]
        net = make_net(units, "relu", "logistic", "log_loss")
        n_params = int(starts_of(units)[-1])
        self.bytes = n_params * np.dtype(DTYPE).itemsize
        theta = np.random.default_rng(0).normal(0, 0.05, n_params).astype(DTYPE)
        data = examples(2000)
        data = make_data(data[0], targets=data[1].reshape(-1, 1))
        gradients = []
        for size in (100, 2000):
            with Trainer(net, theta, data, size, 1) as trainer:
                rows = np.arange(size)

                def gradient(trainer=trainer, rows=rows):
                    trainer.loss_and_gradient(theta, rows, 0.0)

                gradients.append(best(gradient, seconds, clock))
        self.each = (gradients[1] - gradients[0]) / 1900
        self.least = max(0.0, gradients[0] - 100 * self.each)
        with Trainer(net, theta, data, 1, 1, np.zeros((2, n_params), DTYPE), given=True) as trainer:
            one = np.zeros(1, np.int64)
            self.update = best(lambda: trainer.run_epoch(one, ADAM_RULE), seconds, clock)

    def step(self, batch, n_workers, latency, bandwidth, cores=np.inf):
        """Seconds of a step; no latency is one process without Dask."""
        at_once = min(n_workers, cores)
        gradient = (self.least + self.each * batch / n_workers) * n_workers / at_once
        if latency is None:
            return gradient + self.update
        return gradient + self.update + n_workers * (latency + 2 * self.bytes / bandwidth)

    def least_batch(self, n_workers, latency, bandwidth, gain=1.0):
        """The mini-batch from which on the step is ``gain`` times as fast as without Dask."""
        saved = self.each * (1 / gain - 1 / n_workers)
        paid = n_workers * (latency + 2 * self.bytes / bandwidth)
        return (paid + (self.least + self.update) * (1 - 1 / gain)) / saved


def examples(n):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, N_FEATURES)).astype(DTYPE)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int)


def measured(client, clock, hidden, batch, n_steps):
    """Seconds of a step, its bytes by loopback, and seconds of a step without Dask."""
    X, y = examples(batch * n_steps)
    settings = dict(hidden_layer_sizes=(hidden, hidden), batch_size=batch, random_state=0)
    settings |= dict(n_threads=1)
    chunks = -(-len(X) // len(client.nthreads()))
    on_workers = [
        client.persist(dask.array.from_array(X, chunks=(chunks, -1))),
        client.persist(dask.array.from_array(y, chunks=chunks)),
    ]

    def sent():
        return psutil.net_io_counters(pernic=True)["lo"].bytes_sent

    def steps_of(estimator, data):
        """Seconds and bytes of a step: what two epochs more take, which leaves out the rest."""
        spent = []
        for epochs in (1, 1, 3):
            before = clock(), sent()
            estimator(max_iter=epochs, **settings).fit(*data)
            spent.append([clock() - before[0], sent() - before[1]])
        return np.subtract(spent[2], spent[1]) / (2 * n_steps)

    step, n_bytes = steps_of(fastnn.dask.MLPClassifier, on_workers)
    return step, n_bytes, steps_of(fastnn.MLPClassifier, (X, y))[0]


def plot(path, costs, here, there, caption):
    """Write the time of a step against workers, of some networks and mini-batches."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), layout="constrained", sharey=True)
    n_workers = np.arange(1, 17)
    for panel, batch in zip(axes, (2000, 20000), strict=True):
        for cost, color in zip(costs, COLORS, strict=True):
            alone = cost.step(batch, 1, None, None)
            label = f"({cost.hidden}, {cost.hidden}), {cost.bytes / 1e6:.2g} MB"
            for line, name, style in ((here, label, "-"), (there, None, ":")):
                ratios = [cost.step(batch, n, *line) / alone for n in n_workers]
                panel.plot(n_workers, ratios, style, color=color, label=name)
        panel.axhline(1, color="black", linewidth=1)
        panel.set_yscale("log")
        panel.set_xticks([1, 2, 4, 8, 12, 16])
        panel.set_yticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        panel.set_ylim(0.08, 20)
        panel.minorticks_off()
        panel.set_title(f"mini-batches of {batch:,}", fontsize=11)
        panel.set_xlabel("workers")
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("time of a step / without Dask")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
    )
    figure.supxlabel(caption, fontsize=8, color="0.3")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.dask_price", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=1.0, help="of each timing (default: 1)")
    parser.add_argument("--plot", metavar="FILE", help="write the picture")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    own_clock = time.perf_counter if cores > 1 else time.process_time
    costs = [Costs(hidden, options.seconds, own_clock) for hidden in HIDDEN]
    workers = dict(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    warnings.simplefilter("ignore")  # fits of one epoch, graphs that hold their data
    with Client(**workers, direct_to_workers=True, silence_logs=logging.CRITICAL) as client:
        clock = clock_of(client, cores)
        here = exchange(client, clock, int(100 * options.seconds))
        rows = []
        for cost in costs:
            for batch in BATCHES[:2]:
                step, sent, alone = measured(client, clock, cost.hidden, batch, 20)
                model = cost.step(batch, 2, *here, cores)
                rows.append(
                    [
                        f"({cost.hidden}, {cost.hidden})",
                        f"{batch}",
                        *(number(1e3 * s) for s in (alone, step, model)),
                        f"{step / model:.2f}",
                        number(4 * cost.bytes / 1e3),
                        number(sent / 1e3),
                    ]
                )
    header = ["network", "batch", "alone ms", "two ms", "model ms", "ratio", "kB", "kB measured"]
    print(f"\nA step on two workers on {cores} cores beside the model\n")
    print(table(header, rows))
    there = here[0] + ROUND_TRIP, 1 / (1 / here[1] + 1 / ETHERNET)
    print(f"\nlatency {here[0] * 1e3:.2g} ms a worker, {here[1] / 1e9:.2g} GB/s")
    header = ["network", "kB a worker", "update ms"]
    header += [f"ms of {n}" for n in MACHINES]
    header += [f"{n} pay from" for n in MACHINES]
    header += [f"{n} are {n / 2:g}x from" for n in MACHINES[1:]]
    for name, line in (("loopback", here), ("10 Gbit/s Ethernet", there)):
        rows = []
        for cost in costs:
            sent = [n * (line[0] + 2 * cost.bytes / line[1]) for n in MACHINES]
            pay = [cost.least_batch(n, *line) for n in MACHINES]
            pay += [cost.least_batch(n, *line, gain=n / 2) for n in MACHINES[1:]]
            rows.append(
                [
                    f"({cost.hidden}, {cost.hidden})",
                    *(number(x) for x in (2 * cost.bytes / 1e3, 1e3 * cost.update)),
                    *(number(1e3 * s) for s in sent),
                    *(f"{int(round(size, -2)):,}" for size in pay),
                ]
            )
        print(f"\n{name}: exchange, and the mini-batch from which workers of one core pay\n")
        print(table(header, rows))
    of_machine = describe(machine())
    print(f"\n{of_machine}.")
    if options.plot:
        caption = (
            f"{N_FEATURES} features, hidden layers and bytes of the weights as named, float32, "
            "one core each. Lines: latency and\nbandwidth of loopback; dots: 10 Gbit/s Ethernet."
            " Below 1 workers pay."
        )
        plot(options.plot, costs, here, there, caption)


if __name__ == "__main__":
    main()
