"""Judges that know pictures and words: CLIP models as open_clip keeps them, in a folder."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from studio.domain.errors import CorruptModel, NotFound
from studio.domain.scores import JUDGE_CONFIG, Score
from studio.domain.stamps import FileStamp, file_stamp

_WEIGHTS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_ADVICE = "Fetch its folder again: open_clip_config.json, the .safetensors file and what its tokenizer needs."
_SHORT = 12


def weights_of(folder: Path) -> Path:
    """The weights of the judge in `folder`, which open_clip would choose too.

    Raises:
        NotFound: there are none in safetensors files.
    """
    found = next((path for name in _WEIGHTS_NAMES if (path := folder / name).is_file()), None)
    if found is None or not (folder / JUDGE_CONFIG).is_file():
        raise NotFound(f"There is no judge with safetensors weights in {folder.name}.", _ADVICE)
    return found


class ClipJudge:
    """One judge in memory, on the CPU and in float32, so that a picture's score is the same everywhere.

    Raises:
        NotFound, CorruptModel: there are no weights, or none that fit. It never judges with random ones.
    """

    def __init__(self, folder: Path) -> None:
        weights = weights_of(folder)
        # Imported here: it takes seconds, and most pictures are never judged.
        import open_clip

        try:
            loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
            self._tokenize: Any = open_clip.get_tokenizer(f"local-dir:{folder}")
        except Exception as error:  # open_clip, torch, transformers: each has its own
            said = f"The judge in {folder.name} cannot be loaded ({type(error).__name__})."
            raise CorruptModel(said, _ADVICE) from error
        model, self._prepare = loaded
        self._model = model.eval()
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.id = f"{folder.name} {sha256[:_SHORT]}, {_preparation(folder, model)}, float32"

    @torch.inference_mode()
    def score(self, image: Image.Image, text: str) -> Score:
        """How well `image` fits `text`, which is read as it is, without words before it."""
        pixels = self._prepare(image.convert("RGB"))[None]
        seen = self._model.encode_image(pixels, normalize=True)
        read = self._model.encode_text(self._tokenize([text]), normalize=True)
        return Score(judge=self.id, text=text, cosine=float((seen * read).sum()), is_truncated=self._is_too_long(text))

    def _is_too_long(self, text: str) -> bool:
        """Whether the tokenizer, which cuts without a word, leaves anything of `text` out."""
        length = self._tokenize.context_length
        of_transformers = getattr(self._tokenize, "tokenizer", None)
        if of_transformers is not None:
            return len(of_transformers(text).input_ids) > length
        return len(self._tokenize.encode(text)) + 2 > length  # without the marks of start and end


class JudgeShelf:
    """The judge that was used last, while its files stay as they are."""

    def __init__(self) -> None:
        self._kept: tuple[FileStamp, ClipJudge] | None = None

    def take(self, folder: Path) -> ClipJudge:
        """The judge in `folder`.

        Raises:
            NotFound, CorruptModel: see `ClipJudge`.
        """
        stamp = file_stamp(weights_of(folder))
        if self._kept is None or self._kept[0] != stamp:
            self._kept = None  # two large ones need not be in memory at once
            self._kept = stamp, ClipJudge(folder)
        return self._kept[1]


def opened(picture: Path) -> Image.Image:
    """The pixels of a finished picture.

    Raises:
        NotFound: it is gone.
    """
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except OSError as error:
        raise NotFound("The picture that is to be judged is gone.", "Draw it again.") from error


def _preparation(folder: Path, model: Any) -> str:
    """How pictures are made ready, such as "224 px bicubic shortest"."""
    config = json.loads((folder / JUDGE_CONFIG).read_text()).get("preprocess_cfg", {})
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple | list) else size
    return f"{side} px {config.get('interpolation', 'bicubic')} {config.get('resize_mode', 'shortest')}"
