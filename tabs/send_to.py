"""Buttons under a picture that lead to the next one: drawn over, changed in a part, or larger."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.domain.beginning import BORDERS
from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.request import RANDOM_SEED
from studio.gallery import opened
from studio.services import Services
from studio.web.access import visitor_of
from tabs.ask import Ask
from tabs.handlers import Updates
from tabs.picture_in import default_of
from tabs.send_buttons import Sends
from tabs.visitor import own_image

LARGER = 1.5
PART_STRENGTH = 0.9
"""Little is left to see of what was there, and what comes still fits around it."""
REFINE_STRENGTH = 0.3
START_NOTE = "Say in the prompt what it should show, and below how much may change; then generate."
PART_NOTE = "Paint over what is to change, say in the prompt what the whole picture should show, then generate."
LARGER_NOTE = "Made larger from itself: little is to change, so its strength is low. Generate draws it."


LOOK_JS = (
    "() => setTimeout(() => { const open = document.querySelector('#hires > .label-wrap.open, #hires button.open'); "
    "document.getElementById(open ? 'hires' : 'start')?.scrollIntoView({ block: 'start' }); }, 200)"
)
"""Brings into view what a button has filled in: the second pass where that is open, else the picture."""

Listener = Callable[[str | None, Any], Updates]


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What the buttons do: they fill the form under Generate, and draw nothing."""

    services: Services
    ask: Ask

    def of(self, sends: Sends) -> tuple[tuple[gr.Button, Listener], ...]:
        """Each button with its listener."""
        return ((sends.start, self.on_start), (sends.part, self.on_part), (sends.larger, self.on_larger))

    def on_start(self, image_id: str | None, token: Any) -> Updates:
        """Inputs: a picture, token. Outputs: the form, which begins from it."""
        return self._from(self._own(image_id, token), token, START_NOTE)

    def on_part(self, image_id: str | None, token: Any) -> Updates:
        """Inputs: a picture, token. Outputs: the form, with the picture to be painted on."""
        return self._from(self._own(image_id, token), token, PART_NOTE, strength=PART_STRENGTH)

    def on_larger(self, image_id: str | None, token: Any) -> Updates:
        """Inputs: a picture, token. Outputs: the form, which makes it again with a second pass, or, where that cannot
        be, draws over it at a larger size.

        Raises:
            InvalidRequest: its model draws nothing larger.
        """
        record = self._own(image_id, token)
        recipe, checkpoint = record.recipe, self.ask.checkpoint(record.recipe.checkpoint)
        width, height = (round(side * LARGER / 8) * 8 for side in recipe.final_size)
        if max(width, height) > checkpoint.max_size:
            raise InvalidRequest(
                f"This picture is {recipe.final_size[0]} × {recipe.final_size[1]} px; {checkpoint.title} draws "
                f"up to {checkpoint.max_size} px.",
                "Start from it with another model.",
            )
        if not recipe.has_hires and not recipe.mask:
            return self.ask.fill({**recipe.model_dump(), "hires_scale": LARGER}, visitor=visitor_of(token))
        size = {"width": width, "height": height}
        return self._from(record, token, LARGER_NOTE, strength=REFINE_STRENGTH, **size)

    def _own(self, image_id: str | None, token: Any) -> ImageRecord:
        return own_image(self.services.gallery, self.services.settings, image_id, token)

    def _from(self, record: ImageRecord, token: Any, note: str, **changes: Any) -> Updates:
        """The form as the picture was made, but begun from it: with another seed, for noise that is the picture's own
        would be added to it."""
        image = opened(self.services.gallery.path(record))
        name = self.services.sources.take(image, visitor_of(token))
        plain = {field: default_of(field) for field in ("strength", "mask_blur", "mask", "hires_scale", *BORDERS)}
        width, height = record.recipe.final_size
        begun = {"init_image": name, "seed": RANDOM_SEED, "width": width, "height": height, "num_images": 1}
        values = {**record.recipe.model_dump(), **plain, **begun, **changes}
        return self.ask.fill(values, visitor=visitor_of(token), picture_note=note)
