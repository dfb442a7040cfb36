"""What a model is asked to say of a picture: a few usual instructions, or one's own."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from studio.captions.checks import Bounds
from studio.domain.errors import InvalidRequest

MAX_TEMPLATE = 8_000
"""Characters; more than an instruction needs."""
_ONLY = "Answer with the description only, as plain text in one paragraph: no preamble, no list, no markup."
_DETAILED = f"""Describe this picture for somebody who is to draw it without having seen it.
Say what is shown, how many there are of it and where in the picture; the colours, materials and textures; the light and
the mood; the background; the kind of picture (photograph, painting, drawing, render) and how it is taken or made.
Say only what can be seen. Name no person, guess no place, do not say what is missing. Use 40 to 120 words.
{_ONLY}"""
_FACE = f"""Describe the person in this portrait for somebody who is to draw them without having seen them.
Say, as far as it can be seen: the age group (child, teenager, young adult, middle-aged, elderly); the expression; the
direction of the head and of the eyes; the hair (colour, length, style) and facial hair; the features of the face
(shape, eyes, brows, nose, lips, skin, freckles, make-up); accessories (glasses, earrings, hat, scarf); the clothes; the
light; the background; how the picture is framed. Do not name the person and do not guess origin, religion, health or
occupation.
Use 40 to 120 words.
{_ONLY}"""
_SHORT = f"""Say in one sentence of 8 to 20 words what this picture shows: the subject, what it does, its colours, the
background.
{_ONLY}"""
PRESETS = {"detailed": _DETAILED, "face": _FACE, "short": _SHORT}


@dataclass(frozen=True, kw_only=True)
class Template:
    """An instruction, and how long the caption may be."""

    text: str
    bounds: Bounds = field(default_factory=Bounds)

    @property
    def id(self) -> str:
        """What rows name it by: other words, another id."""
        return hashlib.sha256(self.text.strip().encode("utf-8", "replace")).hexdigest()[:12]


def template_of(preset: str, file: Path | None = None) -> Template:
    """The instruction of a preset, or the one in a text file.

    Raises:
        InvalidRequest: there is no such preset, or the file is no text of up to `MAX_TEMPLATE` characters.
    """
    if file is None:
        if preset not in PRESETS:
            raise InvalidRequest(f"There is no preset {preset!r}.", f"Choose {', '.join(PRESETS)}.", "preset")
        return Template(text=PRESETS[preset])
    try:
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(MAX_TEMPLATE + 1).strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or len(text) > MAX_TEMPLATE or "\0" in text:
        raise InvalidRequest(
            f"{file.name!r} is no instruction.",
            f"Give a text file in UTF-8 of at most {MAX_TEMPLATE:,} characters, such as --show-template prints.",
            "template",
        )
    return Template(text=text)
