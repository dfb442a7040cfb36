"""The loop of a distillation: batches in, an adapter out, exact to resume."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engines.distillation.objectives import Objective
from engines.distillation.terms import Adversarial, Term, total
from engines.distillation.unet_pair import UnetPair
from engines.training.loop import Plan, Taken, Trainee, train
from engines.training.unet import Told

Batches = Callable[[int], tuple[Tensor, Told]]
"""The clean latents `(B, 4, h, w)` of a training step, and what the UNet is told of them. The same step always gives
the same batch, or a run that is resumed would not be the run that was stopped."""


def distil(
    pair: UnetPair,
    objective_at: Callable[[int], Objective[Told]],
    batches: Batches,
    plan: Plan,
    work: Path,
    on_step: Callable[[Trainee, Taken], None] | None = None,
    terms_at: Callable[[int], Sequence[Term[Told]]] = lambda step: (),
    question_of: Callable[[int], int] = lambda step: step,
) -> None:
    """Train the adapter of `pair` to the end of `plan`, resuming from `work`; leaves its moving average in place.

    `objective_at` and `terms_at` are given the step; a step has the batch and the random numbers of the one that
    `question_of` says.

    Raises:
        FloatingPointError: values ran over; `work` holds the last checkpoint before.
    """
    pair.unet.requires_grad_(False)
    last = terms_at(plan.steps - 1)
    judges = {f"term{i}": term.discriminator for i, term in enumerate(last) if isinstance(term, Adversarial)}
    trainee = Trainee(plan, {"lora": pair.lora, **judges}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        question = question_of(step)
        clean, told = batches(question)
        generator = torch.Generator().manual_seed(plan.seed * 10_000_000 + question)
        return total(objective_at(step), terms_at(step), pair, clean, told, generator)

    for taken in train(trainee, loss_at):
        if on_step is not None:
            on_step(trainee, taken)
    trainee.use_averages()
