"""Judges that know pictures and words: CLIP models, each in a folder."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from engines.judge_models import JudgeModel, files_of, fingerprint, load_judge, weights_of
from studio.domain.errors import NotFound
from studio.domain.scores import Score
from studio.domain.stamps import FileStamp, file_stamp

_MOST_TEXTS = 1024
"""What a judge remembers of texts: a few megabytes. An evaluation of 200 prompts has 200, a probe up to 96."""


class ClipJudge:
    """One judge in memory, on the CPU and in float32, so that a picture's score is the same everywhere.

    Raises:
        NotFound, CorruptModel: there are no weights, or none that fit. It never judges with random ones.
    """

    def __init__(self, folder: Path) -> None:
        self._model = load_judge(folder)
        self.id = f"{folder.name} {fingerprint(weights_of(folder))}, {self._model.words}, float32"
        # Of the model, not of a method: a circle would keep a judge in memory that nobody uses any more.
        self._read = lru_cache(maxsize=_MOST_TEXTS)(partial(_read, self._model))

    def score(self, image: Image.Image, text: str) -> Score:
        """How well `image` fits `text`, which is read as it is, without words before it."""
        return self.score_texts(image, (text,))[0]

    @torch.inference_mode()
    def score_texts(self, image: Image.Image, texts: Sequence[str]) -> tuple[Score, ...]:
        """How well `image`, looked at once, fits each of `texts`, in their order. What was read is remembered."""
        seen = self._seen(image)
        scores: list[Score] = []
        for text in texts:  # each alone, as one text would be: in a batch arithmetic rounds differently
            read, is_truncated = self._read(text)
            scores.append(Score(judge=self.id, text=text, cosine=float((seen * read).sum()), is_truncated=is_truncated))
        return tuple(scores)

    @torch.inference_mode()
    def embed(self, image: Image.Image) -> np.ndarray:
        """What the judge makes of `image`: `(dimensions,)`, float32, of length 1. The scalar product of two of them is
        the cosine by which pictures are alike (CLIP-I; Ruiz et al., 2022, arXiv:2208.12242)."""
        return self._seen(image)[0].numpy()

    def _seen(self, image: Image.Image) -> torch.Tensor:
        """Of shape `(1, dimensions)`, of length 1."""
        return self._model.see(image.convert("RGB"))


def _read(model: JudgeModel, text: str) -> tuple[torch.Tensor, bool]:
    """What the model makes of a text, of shape `(1, dimensions)`, and whether it is too long to be read whole."""
    return model.read(text), model.is_too_long(text)


class JudgeShelf:
    """The judge that was used last, while its files stay as they are."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[FileStamp, ...], ClipJudge] | None = None

    def take(self, folder: Path) -> ClipJudge:
        """The judge in `folder`.

        Raises:
            NotFound, CorruptModel: see `ClipJudge`.
        """
        stamps = tuple(map(file_stamp, files_of(folder)))
        if self._kept is None or self._kept[0] != stamps:
            self._kept = None  # two large ones need not be in memory at once
            self._kept = stamps, ClipJudge(folder)
        return self._kept[1]


def opened(picture: Path) -> Image.Image:
    """The pixels of a picture, upright; what is transparent in it is white.

    Raises:
        NotFound: it is gone.
    """
    try:
        with Image.open(picture) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return image.convert("RGB")
    except OSError as error:
        raise NotFound("The picture that is to be judged is gone.", "Draw it again.") from error
