"""Outputs of a model that goes on from its own decisions, beside fp32's: both after the same decisions.

A recogniser that writes token by token is given what it wrote. After the first token that differs, the outputs of two models
belong to different texts, and a distance between them says nothing. So the changed model is run a second time on the tokens
that fp32 wrote (teacher forcing: Williams and Zipser, A Learning Algorithm for Continually Running Fully Recurrent Neural
Networks, 1989).
"""

import numpy as np

from pipeline.models.speech_model import GoesOnFromItself, Run, SpeechModel
from pipeline.sample import Outputs, Sample


def outputs_beside(model: SpeechModel, sample: Sample, run: Run, baseline: Outputs, own: Outputs | None = None) -> Outputs:
    """Return the outputs of a changed model, those that depend on decisions after the decisions of fp32.

    Args:
        model: the original.
        sample: inputs of its first graph.
        run: runs its graphs, changed.
        baseline: fp32's outputs.
        own: the changed model's, after its own decisions; None: its decisions are not wanted, and fp32's stand there.
    """
    if not isinstance(model, GoesOnFromItself):
        return model.infer(sample, run) if own is None else own
    if own is None:
        return {**baseline, **model.given_decisions(sample, run, baseline)}
    decided = [name for name, array in baseline.items() if array.dtype.kind in "iu"]
    if all(np.array_equal(baseline[name], own[name]) for name in decided):
        return own
    return {**own, **model.given_decisions(sample, run, baseline)}
