"""A picture as it is sent to a model that looks at it: upright, small enough, without what its file knows of places and
people."""

import base64
import io
from pathlib import Path

from PIL import Image

from studio.dataset_scan import Unusable, open_picture
from studio.domain.captions import Unfit

MAX_BYTES = 4_000_000
"""Of the text that is sent for a picture: base64 takes four bytes for three."""
SIDE = 1536
"""Pixels of the longer side: models see no more, and pay the same for less."""
_QUALITIES = (90, 75, 60)


def data_url(path: Path, side: int = SIDE) -> str:
    """The picture in a file as a JPEG of at most `side` pixels and `MAX_BYTES`, in a `data:` address.

    Raises:
        Unfit: it cannot be opened.
    """
    try:
        image = open_picture(path).image
    except Unusable as error:
        raise Unfit(str(error)) from error
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            url = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image, quality)).decode()}"
            if len(url) <= MAX_BYTES:
                return url
        side = side // 2


def _jpeg(image: Image.Image, quality: int) -> bytes:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return written.getvalue()
