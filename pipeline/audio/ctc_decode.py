"""From the log-probabilities of a CTC model to token ids."""

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError


def ctc_greedy(log_probs: npt.ArrayLike, length: int, blank_id: int) -> list[int]:
    """Decode one utterance: the best token of each frame, repeats merged, blanks removed (Graves et al. 2006).

    Args:
        log_probs: (frames, vocabulary); any monotonic score serves.
        length: number of frames that are valid; the rest is padding.
        blank_id: the token that CTC uses for "nothing".
    """
    scores = np.asarray(log_probs)
    if scores.ndim != 2 or not 0 <= length <= len(scores):
        raise DataError(f"CTC needs scores of shape (frames, vocabulary) and at least {length} frames: {scores.shape}.")
    best = scores[:length].argmax(axis=1)
    starts = np.ones(length, dtype=bool)
    starts[1:] = best[1:] != best[:-1]
    return [int(token) for token in best[starts & (best != blank_id)]]
