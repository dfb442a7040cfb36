"""What will not come out as it was asked for, told before it is drawn."""

from collections.abc import Sequence

from engines.pocket.grammar import backgrounds_named, unknown_words
from studio.domain.catalogue import Catalogue, Checkpoint, Style
from studio.domain.choices import every_word
from studio.domain.prompt_syntax import plain_words
from studio.domain.request import ResolvedRequest


def remarks(recipe: ResolvedRequest, catalogue: Catalogue) -> tuple[str, ...]:
    """What is to be said of `recipe`, a sentence each: words that its checkpoint never learnt (where somebody can list
    those that it did), settings that its accelerator was not made for."""
    said = prompt_remarks(catalogue.checkpoint(recipe.checkpoint), catalogue.style(recipe.style), recipe.prompt)
    accelerator = catalogue.accelerator(recipe.accelerator)
    if accelerator is None:
        return said
    return said + accelerator.remarks(recipe.num_inference_steps, recipe.guidance_scale, recipe.scheduler)


def prompt_remarks(checkpoint: Checkpoint, style: Style, prompt: str) -> tuple[str, ...]:
    """What `checkpoint` will make nothing of in `prompt`, a sentence each."""
    if not checkpoint.is_pocket:
        return ()
    prompt = plain_words(every_word(prompt))
    said = [unlearnt(unknown_words(prompt), checkpoint.title)]
    named = backgrounds_named(prompt)
    if named and backgrounds_named(style.template) - named:
        said.append(f"The style “{style.title}” adds a second background to the one that the prompt names.")
    return tuple(text for text in said if text)


def unlearnt(words: Sequence[str], model: str) -> str:
    """The sentence about words that a model never learnt; "" when there are none."""
    if not words:
        return ""
    quoted = ", ".join(f"“{word}”" for word in words[:8]) + (" …" if len(words) > 8 else "")
    return f"{model} never learnt {quoted}, so the picture may ignore {'it' if len(words) == 1 else 'them'}."
