"""One thread for numpy's matrix products, as for ONNX Runtime: those of a run are small, and come one after the other.

OpenBLAS divides each among all cores, and its threads wait actively for the next one: that is half of what a log-mel costs on
two cores, and more on more. How sums are divided would also decide their last digit.

This module is imported before numpy, which reads the variables when it is loaded, and imports little.
"""

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_thread_each() -> None:
    """Let numpy compute on one thread in this process and those that it starts; what the user has set stays."""
    if "OMP_NUM_THREADS" not in os.environ:  # both libraries read it where their own is not set
        for variable in VARIABLES:
            os.environ.setdefault(variable, "1")
