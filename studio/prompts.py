"""What a checkpoint can make of a prompt, told before it is asked."""

from engines.pocket.grammar import unknown_words as pocket_unknown_words
from studio.domain.catalogue import Checkpoint


def unknown_words(checkpoint: Checkpoint, prompt: str) -> tuple[str, ...]:
    """Words of `prompt` that `checkpoint` never learnt, in order; () where nobody can list what it knows."""
    return pocket_unknown_words(prompt) if checkpoint.is_pocket else ()
