"""The compiled half of fastnn: everything that runs once per example, per unit or per weight.

These modules know NumPy arrays and nothing of scikit-learn. Read them in this order; each imports
only from those below it:

===============  =============================================================================
``network``      the algorithm: feedforward, output error, delta propagation, gradient
``train``        the entry points that Python calls (``train``, ``predict``, ``sums``,
                 ``losses``), and the driver: slice, mini-batch, micro-batch
``shuffle``      the order of the examples in an epoch
``plan``         a mini-batch as a program of tasks, and its scratch: who does what, and where
``layout``       how a network lies in memory: one flat vector, the bias row first in each layer
``inputs``       the first layer: dense rows or CSR
``activations``  the activation functions and their slopes
``dropout``      units that are left out in training
``losses``       the error functions
``team``         the threads of a fit: what they are told, where they meet
``rules``        the weight updates
``matmul``       the matrix products under all of it: blocking
``tiles``        their innermost loops, each for one size of tile
``emit``         the vectors, masks and loops that tiles and Adam are written in: LLVM
``elementary``   exp, log, tanh, logistic, written so that loops over them vectorise
``cache``        entry points, compiled once for each dtype and kept on disk
``jit``          how Numba compiles: for which CPU, with which options
``machine``      what is asked of the CPU and the operating system
===============  =============================================================================

One set of letters for the whole folder: ``a`` activations, ``z`` weighted inputs (``a`` before its
activation function is applied, in the same buffer), ``d`` deltas dC/dz, ``g`` gradients dC/dtheta,
``W`` weights of shape ``(n_in, n_out)``, ``b`` biases, ``theta`` the flat vector of all of them,
``theta_t`` its layers transposed, ``k`` a layer, ``t`` the number of an update; in products ``M``,
``N``, ``K`` as in BLAS.

And one set of words. Time, from the longest to the shortest::

    fit > epoch > slice > mini-batch > micro-batch

* A *slice* is a stretch of an epoch between two looks of Python: at Ctrl-C, at the clock.
* A *mini-batch* is what one update of the weights is for. Of a large one, a *micro-batch* goes
  through at a time; small ones are one micro-batch. The gradients of micro-batches are summed.

Space, and who works on it::

    examples:    micro-batch > part > row            parameters:    theta > layer > chunk > tile

* A *part* of a micro-batch is a range of its rows that goes forward and back on one thread.
* A *chunk* is a range of the rows of one layer's ``[b; W]``, as a rule small enough for the cache.
  The chunks of one thread are its *shard* of the parameters, as sharded optimisers call it.
* A *tile* is a piece of a matrix product that stays in registers.
* A *program* is what is done with a micro-batch. It has *stages*, and a stage has *tasks*, each
  of which belongs to one thread. A *crew* is a number of threads that tasks are divided for.
* A *net* has *layers*, of weights; layer ``k`` leads from the *units* at ``places[k]`` to those at
  ``places[k + 1]``. A *rule* turns gradients into new weights; an *entry* is called by Python.

Where float32 or float64 is decided:

* The dtype of X is decided by ``checked_data`` in ``fastnn/_inputs.py``: float32 stays, all else
  becomes float64. The weights of a fit have the dtype of its X (``BaseMLP._fit``); targets, example
  weights and the X of a prediction are converted to that of the weights.
* An entry point is compiled for each: ``train[theta.dtype]``. Scratch has the same dtype. Kernels
  take it from their arrays, ``T = a.dtype.type``, and convert each constant with ``T(...)``: one
  float64 in a loop would make all of it float64, at half the speed.
* What is float64 always: sums over examples and over chunks (``add_in_order`` in ``train``: losses,
  squared weights, norms), the weight of a mini-batch, the rule and its coefficients until they meet
  the weights (``update`` in ``rules``), and what L-BFGS sees. Within a chunk, sums have the dtype.
"""

if __name__ != "fastnn.kernels":
    raise ImportError("kernels/ is installed as fastnn.kernels: run `pip install -e .` first")
