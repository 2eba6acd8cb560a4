"""Does ONNX Runtime end the process when it optimizes a graph? No exception tells: another process has to be asked."""

import contextlib

import onnx

from pipeline.graph.rehearsal import EndedError, rehearsals, rehearsing
from pipeline.graph.session import rehearse_model


def ends_the_process(model: onnx.ModelProto) -> bool:
    """Return whether a process that opens the graph, with all optimizers, is ended by a signal.

    Raises:
        EndedError: it exceeds a limit.
    """
    with contextlib.ExitStack() as stack:
        if rehearsing() is None:  # outside of a run
            stack.enter_context(rehearsals())
        try:
            rehearse_model(model)
        except EndedError as error:
            if error.by_limit:
                raise
            return True
    return False
