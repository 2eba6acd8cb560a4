"""What every training shares: the schedule, the loop, the log.

One thread and bfloat16 autocast: on a machine of two cores a second thread is slower than a second process, and half
precision halves the time of convolutions and matrix products.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def learning_rate(step: int, *, steps: int, warm_up: int) -> float:
    """Factor of the peak learning rate: linear warm-up, then a cosine down to 1 %."""
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(1, step / steps))) + 0.01)


def prepare(seed: int) -> None:
    """One thread, and the same random numbers in every run."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)


def groups_of_similar_length(lengths: list[int], size: int, spread: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless groups of clips by their numbers: sorted by length, which is moved by up to `spread`, in random order."""
    while True:
        order = np.argsort([length + rng.uniform(-spread, spread) for length in lengths])
        groups = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        for index in rng.permutation(len(groups)):
            yield groups[index]


def train(
    model: nn.Module,
    batches: Iterator,
    losses: Callable[..., dict[str, Tensor]],
    *,
    steps: int,
    peak: float,
    checkpoint: Path,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.01,
    clip: float = 5.0,
    warm_up: int = 200,
    validate: Callable[[], str] | None = None,
    validate_every: int = 500,
    optimizer: torch.optim.Optimizer | None = None,
    factor: Callable[[int], float] | None = None,
) -> None:
    """Trains a model in place and writes its weights.

    Args:
        model: In training mode; `validate` may leave it in evaluation mode.
        batches: Endless; each batch is a tuple, the arguments of `losses`.
        losses: Gives the parts of the loss by name; their sum is minimised.
        steps: How many batches to take.
        peak: The highest learning rate of AdamW.
        checkpoint: File for the weights, there when training is done; before, they are beside it as `.partial`.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        clip: The largest norm of the gradient.
        warm_up: Steps until the learning rate is at its peak.
        validate: Called every `validate_every` steps; what it returns is printed.
        validate_every: In steps.
        optimizer: Instead of AdamW, with its learning rate at the peak.
        factor: Step -> of the peak learning rate; None: `learning_rate`.
    """
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps", flush=True)
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=peak, betas=betas, weight_decay=weight_decay)
    factor = factor or (lambda step: learning_rate(step, steps=steps, warm_up=warm_up))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    history: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        parts = losses(*next(batches))
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
        history.append({name: float(part.detach()) for name, part in parts.items()})
        if step % 100 == 0:
            means = " ".join(f"{name} {np.mean([row[name] for row in history]):.4f}" for name in parts)
            print(f"step {step}: {means}, {time.process_time():.0f} CPU s", flush=True)
            history.clear()
        if step % validate_every == 0 or step == steps:
            torch.save(model.state_dict(), checkpoint.with_suffix(".partial"))
            if validate:
                model.eval()
                with torch.no_grad():
                    print("  ", validate(), flush=True)
                model.train()
    checkpoint.with_suffix(".partial").replace(checkpoint)


def half_precision() -> torch.autocast:
    """Runs what is inside in bfloat16 where that is safe."""
    return torch.autocast("cpu", dtype=torch.bfloat16)
