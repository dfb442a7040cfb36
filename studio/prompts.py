"""What a checkpoint can make of a prompt, told before it is asked."""

from collections.abc import Sequence

from engines.pocket.grammar import backgrounds_named, unknown_words
from studio.domain.catalogue import Checkpoint, Style
from studio.domain.tags import without_tags


def remarks(checkpoint: Checkpoint, style: Style, prompt: str) -> str:
    """What `checkpoint` will make nothing of in `prompt`; "" where there is nothing to say, or nobody can list what it
    knows."""
    if not checkpoint.is_pocket:
        return ""
    prompt = without_tags(prompt)
    said = [unlearnt(unknown_words(prompt), checkpoint.title)]
    named = backgrounds_named(prompt)
    if named and backgrounds_named(style.template) - named:
        said.append(f"The style “{style.title}” adds a second background to the one that the prompt names.")
    return " ".join(text for text in said if text)


def unlearnt(words: Sequence[str], model: str) -> str:
    """The sentence about words that a model never learnt; "" when there are none."""
    if not words:
        return ""
    quoted = ", ".join(f"“{word}”" for word in words[:8]) + (" …" if len(words) > 8 else "")
    return f"{model} never learnt {quoted}, so the picture may ignore {'it' if len(words) == 1 else 'them'}."
