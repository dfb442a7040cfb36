"""A LoRA in training on every part of a checkpoint that it changes, as one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from engines.training.lora import TrainableLora, reached, reached_text
from engines.training.reach import TEXT_PARTS
from lora_registry.weights import LowRank
from studio.domain.adapter import Part
from studio.domain.training import TrainingPlan


class AdapterInTraining:
    """The changes of a plan beside the parts of `pipeline`: those of its UNet, and of its text encoders where they
    learn, too. `is_small`: its layers are, see `TrainableLora`."""

    def __init__(self, pipeline: Any, plan: TrainingPlan, *, is_small: bool = False) -> None:
        def new(root: nn.Module, paths: tuple[str, ...]) -> TrainableLora:
            return TrainableLora(
                root, paths, plan.rank, plan.alpha, plan.dropout,
                decompose=plan.decompose, in_weights=is_small and not plan.dropout,
            )  # fmt: skip

        unet = pipeline.unet
        self.parts: dict[Part, TrainableLora] = {"unet": new(unet, reached(unet, plan.reach))}
        if plan.text_learning_rate:
            for part in TEXT_PARTS:
                if (encoder := getattr(pipeline, part, None)) is not None:
                    self.parts[part] = new(encoder, reached_text(encoder))
        self._rates = {part: plan.learning_rate if part == "unet" else plan.text_learning_rate for part in self.parts}

    @property
    def unet(self) -> TrainableLora:
        return self.parts["unet"]

    @property
    def changes_text(self) -> bool:
        return len(self.parts) > 1

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by name."""
        return {str(part): lora for part, lora in self.parts.items()}

    def groups(self) -> list[dict[str, Any]]:
        """Its parameters with the peak of their learning rate, as optimisers take them."""
        return [{"params": list(lora.parameters()), "peak": self._rates[part]} for part, lora in self.parts.items()]

    @contextmanager
    def off(self) -> Iterator[None]:
        """The checkpoint as it was, for as long as the context lasts."""
        with self.at(0.0):
            yield

    @contextmanager
    def at(self, strength: float) -> Iterator[None]:
        """So much of the adapter [0, 1] for as long as the context lasts."""
        with ExitStack() as stack:
            for lora in self.parts.values():
                stack.enter_context(lora.at(strength))
            yield

    def factors(self) -> dict[Part, dict[str, LowRank]]:
        """What was learnt, by part and path; copies."""
        return {part: lora.factors() for part, lora in self.parts.items()}

    def has_learnt(self) -> bool:
        """Whether anything differs from the checkpoint."""
        return any(change.up.any() for factors in self.factors().values() for change in factors.values())

    def detach(self) -> None:
        """Leave the pipeline for good."""
        for lora in self.parts.values():
            lora.detach()
