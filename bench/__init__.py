"""The side-by-side proof: what fastnn gains, measured where you are.

Run everything from the root of the repository, on an otherwise idle machine::

    pip install -e ".[bench]"
    pip install torch jax matplotlib        # as you like: peers that are missing are left out

    python -m bench.compare --quick         # the main table, in under a minute
    python -m bench.compare --json compare.json --plot compare.png
    python -m bench.compare --isa avx2      # all peers as on a machine without AVX-512
    python -m bench.sweep                   # every other question; see --help for its sections
    python -m bench.sweep growth memory --full
    python -m bench.sweep products --isa avx2

    python -m bench.quality --help          # not speed: how good predictions are, on real tables

    pytest bench --benchmark-only           # single kernels, epochs, fit, predict
    pytest bench --benchmark-only -k "gradient and float32" --benchmark-group-by=func

Does a branch change the speed? Two commands, one on each, on the same idle machine::

    git switch main   && pytest bench --benchmark-only --benchmark-save=main
    git switch branch && pytest bench --benchmark-only --benchmark-compare="*_main" \
        --benchmark-group-by=fullname --benchmark-columns=min,median,iqr

``--benchmark-compare-fail=median:10%`` makes the second one fail where it got slower. Saved runs
(folder ``.benchmarks``) and ``--benchmark-json`` carry GF/s and examples/s of each benchmark.

How the comparison is kept fair: ``peers`` says what each peer does, ``session`` how it is timed.

==================  ==========================================================================
``cases``           the workloads A to J, their data and their number of operations
``peers``           scikit-learn, PyTorch, JAX and fastnn behind one function each
``session``         workers, timing in turn, the check that everybody learns
``worker``          the other end of it: a process that prepares and runs tasks
``peak``            the measured peak of the machine
``isa``             ``--isa avx2``: who is told how to leave AVX-512 alone, and how it is checked
``compare``         the main table; ``plot`` its picture, ``report`` tables and machine
``sweep``           the sections, in ``sweep_training``, ``sweep_products``, ``sweep_sparse`` and
                    ``sweep_usage`` with ``tasks``
``dask_price``      what a step costs on Dask, and from which mini-batch on machines pay
``kernel_calls``    all calls into the kernels
``quality``         predictions on real tables: ``tables`` brings them, ``contestants`` take part
==================  ==========================================================================
"""
