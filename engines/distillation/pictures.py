"""What a student sees noised: latents with captions, made once and kept on disk, piece by piece."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from engines.distillation.objectives import endpoint
from engines.distillation.reading import CaptionReader
from engines.distillation.unet_pair import UnetPair
from engines.pocket.build.latents import draw_pictures, framing_ids, scene_at
from engines.pocket.grammar import paraphrase
from engines.training.diffusion import NoiseSchedule
from engines.training.drawing import noise_at
from engines.training.encoding import cut, encoded, latents_of, opened_upright
from engines.training.saving import save_whole
from engines.training.unet import whole_picture
from studio.domain.errors import DatasetError
from studio.domain.timesteps import trailing_timesteps

PIECE = 32
"""Pictures in a file, unless they take long: what a kill can cost."""
TEACHER_STEPS = 20
"""Of DPM-Solver++ for a picture of the teacher's."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Scaled latents `(N, 4, H/8, W/8)` in float16, the caption of each, and SDXL's micro-conditions `(N, 6)`."""

    latents: Tensor
    captions: tuple[str, ...]
    time_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.captions)


class PictureSource(Protocol):
    """Where training pictures come from, `piece` at a time. `key` names them: other pictures have another key."""

    @property
    def piece(self) -> int: ...

    @property
    def key(self) -> str: ...

    def __len__(self) -> int: ...

    def take(self, picks: range) -> TrainingSet:
        """These of them; those that cannot be used are left out."""
        ...


def gather(
    source: PictureSource, folder: Path, check: Callable[[], None], tell: Callable[[int, int], None]
) -> TrainingSet:
    """Everything that `source` has; what an earlier call with the same `folder` made is not made again. `check` is
    called before each piece, and may raise; `tell` after it, with how many are done of how many.

    Raises:
        DatasetError: nothing can be used.
        OSError: the folder cannot be written.
    """
    folder = folder / hashlib.sha256(source.key.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    pieces = []
    for start in range(0, len(source), source.piece):
        check()
        picks = range(start, min(start + source.piece, len(source)))
        pieces.append(_kept(folder / f"{start:07d}.pt", source, picks))
        tell(picks.stop, len(source))
    captions = tuple(caption for piece in pieces for caption in piece.captions)
    if not captions:
        raise DatasetError("None of the pictures can be opened.", "Use PNG, JPEG or WebP files that are whole.")
    time_ids = [piece.time_ids for piece in pieces if piece.time_ids is not None and len(piece)]
    return TrainingSet(
        latents=torch.cat([piece.latents for piece in pieces if len(piece)]),
        captions=captions,
        time_ids=torch.cat(time_ids) if time_ids else None,
    )


def _kept(path: Path, source: PictureSource, picks: range) -> TrainingSet:
    if path.exists():
        kept = torch.load(path, weights_only=True)
        return TrainingSet(latents=kept["latents"], captions=tuple(kept["captions"]), time_ids=kept["time_ids"])
    made = source.take(picks)
    save_whole({"latents": made.latents, "captions": list(made.captions), "time_ids": made.time_ids}, path)
    return made


@dataclass(frozen=True, kw_only=True)
class FolderPictures:
    """Pictures of one's own, each resized to cover `size` and cut around its middle; `weights` names the encoder."""

    vae: Any
    weights: str
    items: Sequence[tuple[Path, str]]
    size: int
    is_sdxl: bool
    piece: int = PIECE

    @property
    def key(self) -> str:
        files = [(str(path), path.stat().st_mtime_ns, caption) for path, caption in self.items]
        return json.dumps([self.weights, self.size, files])

    def __len__(self) -> int:
        return len(self.items)

    def take(self, picks: range) -> TrainingSet:
        """See `PictureSource.take`."""
        arrays, captions, rows = [], [], []
        for path, caption in self.items[picks.start : picks.stop]:
            opened = opened_upright(path)
            if opened is None:
                continue
            array, row = cut(opened, self.size, self.size)
            arrays.append(array)
            captions.append(caption)
            rows.append(row)
        return TrainingSet(
            latents=encoded(self.vae, arrays, (self.size, self.size)),
            captions=tuple(captions),
            time_ids=torch.tensor(rows, dtype=torch.float32).view(-1, 6) if self.is_sdxl else None,
        )


@dataclass(frozen=True, kw_only=True)
class ScenePictures:
    """Scenes of the pocket world."""

    vae: Any
    weights: str
    count: int
    size: int
    seed: int
    is_sdxl: bool
    piece: int = PIECE

    @property
    def key(self) -> str:
        return json.dumps([self.weights, "scenes", self.count, self.size, self.seed])

    def __len__(self) -> int:
        return self.count

    def take(self, picks: range) -> TrainingSet:
        """See `PictureSource.take`."""
        scenes = {index: scene_at(self.seed, index) for index in picks}
        pixels = draw_pictures(scenes, picks, self.seed, self.size, self.is_sdxl)
        words = (np.random.default_rng([self.seed, 8, index]) for index in picks)
        return TrainingSet(
            latents=latents_of(self.vae, pixels),
            captions=tuple(paraphrase(scenes[index], rng) for index, rng in zip(picks, words, strict=True)),
            time_ids=framing_ids(self.seed, picks, self.size) if self.is_sdxl else None,
        )


@dataclass(frozen=True, kw_only=True)
class TeacherPictures:
    """The teacher's own pictures of captions, in turn: for those who have words and no pictures."""

    pair: UnetPair
    reader: CaptionReader
    schedule: NoiseSchedule
    weights: str
    captions: Sequence[str]
    count: int
    size: int
    guidance: float
    seed: int
    is_sdxl: bool
    piece: int

    @property
    def key(self) -> str:
        told = [self.weights, "teacher", TEACHER_STEPS, self.captions, self.count, self.size, self.guidance, self.seed]
        return json.dumps(told)

    def __len__(self) -> int:
        return self.count

    def take(self, picks: range) -> TrainingSet:
        """See `PictureSource.take`."""
        captions = tuple(self.captions[index % len(self.captions)] for index in picks)
        time_ids = whole_picture(self.size, len(picks), self.is_sdxl)
        noise = noise_of(self.pair, (self.seed, 11), picks, self.size)
        told = self.reader.told(captions, time_ids)
        guidance = torch.full((len(picks),), self.guidance, device=noise.device)
        drawn = endpoint(self.pair, self.schedule, noise, trailing_timesteps(TEACHER_STEPS), told, guidance)
        return TrainingSet(latents=drawn.half().cpu(), captions=captions, time_ids=time_ids)


def noise_of(pair: UnetPair, seed: tuple[int, ...], picks: range, size: int) -> Tensor:
    """Noise `(B, 4, size/8, size/8)` for these numbers of a sequence, each drawn by itself."""
    return noise_at(picks, size, seed).to(pair.unet.device)
