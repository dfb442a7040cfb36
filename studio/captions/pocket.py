"""Captions of pocket scenes, by what the checker sees in them: exact, free, and without a model."""

from pathlib import Path

from engines.pocket.captioner import describe
from studio.dataset_scan import Unusable as UnusablePicture
from studio.dataset_scan import open_picture
from studio.domain.captions import Answer, Unfit


class PocketCaptioner:
    """A `Captioner` for pictures of the pocket world."""

    name = "pocket"
    template = "pocket-scene-1"

    def caption(self, path: Path) -> Answer:
        """See `Captioner.caption`."""
        try:
            caption = describe(open_picture(path).image)
        except UnusablePicture as error:
            raise Unfit(str(error)) from error
        if caption is None:
            raise Unfit("It shows no scene of the pocket world, or not clearly.")
        return Answer(caption=caption)

    def close(self) -> None:
        """See `Captioner.close`."""
