"""The compiled half of fastnn: everything that runs once per example, per unit or per weight.

These modules know NumPy arrays and nothing of scikit-learn. Read them in this order:

=================  ===========================================================================
``layout``         how a network lies in memory: one flat vector, the bias row first in each layer
``network``        the algorithm: feedforward, output error, delta propagation, gradient
``train``          the entry points that Python calls: ``train`` (mini-batches), ``predict``
``evaluate``       the entry point for the losses of outputs: validation
``activations``    the activation functions and their slopes
``dropout``        units that are left out in training
``losses``         the error functions
``rules``          the weight updates
``matmul``         the register-tiled matrix product under all of it
``elementary``     exp, log, tanh, logistic, normal, written so that loops over them vectorise
``barrier``        where the threads of one mini-batch meet
``denormals``      numbers too small to matter, taken as zero while training
``jit``            how kernels are compiled and cached
=================  ===========================================================================

One set of letters for the whole folder: ``a`` activations, ``z`` weighted inputs (``a`` before its
activation function is applied, in the same buffer), ``d`` deltas dC/dz, ``W`` weights of shape
``(n_in, n_out)``, ``b`` biases, ``theta`` the flat vector of all of them, ``k`` a layer.
"""

if __name__ != "fastnn.kernels":
    raise ImportError("kernels/ is installed as fastnn.kernels: run `pip install -e .` first")
