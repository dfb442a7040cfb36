"""`python -m engines.pocket.build.judge`: train `pocket-clip`, the judge of the pocket models.

A CLIP (Radford et al., 2021) of open_clip's own kind, far smaller. Half of what it must tell apart in a batch differs
in one thing only: a colour, a number, which of two is left (hard negatives as in Yuksekgonul et al., 2023, here of
pictures as well as of captions). It shares no weights with a text encoder of any pipeline.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import create_model
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from engines.pocket.build.accelerator import WEIGHTS
from engines.pocket.build.starting import new_parser, started
from engines.pocket.build.text import FACTS, build_tokenizer, reading, tokenize
from engines.pocket.foils import foils
from engines.pocket.grammar import caption, paraphrase, says_background
from engines.pocket.sampling import choose, sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, PLACES, RELATIONS, SHAPES, SIZES, Scene, render
from engines.training.loop import Plan, Trainee, train
from studio.domain.scores import JUDGE_CONFIG

NAME = "pocket-clip"
SIZE_PX, WIDTH = 64, 128
"""Of the pictures that it sees, and of what it makes of a picture or a text."""
CONTEXT_LENGTH = 32
"""Captions have 25 tokens at most; of what is longer, the judge says so."""
GROUPS, GROUP_SIZE = 32, 4
FACTS_WEIGHT = 0.5
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_RENDERED_PX = (64, 96, 128)
_INVERSE = {"right of": "left of", "below": "above"}


def main() -> None:
    """Train from the command line."""
    parser = new_parser("engines.pocket.build.judge", __doc__, has_family=False)
    parser.add_argument("--out", type=Path, default=WEIGHTS / NAME, help="the finished folder")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    build(started(parser))


def build(options: argparse.Namespace) -> None:
    """Train as `options` say and write the folder."""
    work = options.work or Path("data/pocket-build") / NAME
    tokenizer = build_tokenizer(work / "tokenizer")
    plan = Plan(
        name=NAME, steps=options.steps, learning_rate=options.learning_rate, seed=options.seed, dtype=torch.bfloat16
    )
    torch.manual_seed(plan.seed)
    write_config(work / "folder", len(tokenizer))
    clip = create_model(f"local-dir:{work / 'folder'}", load_weights=False)
    train_clip(clip, tokenizer, work, plan)
    write_folder(clip, tokenizer, options.out)


def write_config(folder: Path, vocab_size: int) -> None:
    """What open_clip's factory builds the model from, and how pictures are made ready for it."""
    model = {
        "embed_dim": WIDTH,
        "vision_cfg": {"image_size": SIZE_PX, "layers": 5, "width": 96, "head_width": 32, "patch_size": 8},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": vocab_size,
            "hf_tokenizer_name": NAME,
            "width": 64,
            "heads": 4,
            "layers": 3,
        },
    }
    preprocess = {"mean": _MEAN, "std": _STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}, indent=2)
    (folder / JUDGE_CONFIG).write_text(text + "\n")


def write_folder(clip: nn.Module, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """All that `open_clip.create_model_from_pretrained("local-dir:…")` wants, in half precision."""
    write_config(folder, len(tokenizer))
    tokenizer.save_pretrained(folder)
    state = {name: value.half().contiguous() for name, value in clip.state_dict().items() if name != "attn_mask"}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Pictures `(N, 3, H, W)` of scenes, captions of these, and which caption is true of which picture `(N, N)`."""

    pixels: Tensor
    captions: list[str]
    is_true: Tensor
    picture_facts: dict[str, Tensor]
    caption_facts: dict[str, Tensor]


def lesson(rng: np.random.Generator, groups: int = GROUPS) -> Lesson:
    """Draw scenes in groups that differ in one thing."""
    shown = [scene for _ in range(groups) for scene in _group(rng)]
    told = [_vague(scene, rng) for scene in shown]
    captions = [paraphrase(scene, rng) for scene in told]
    says = [says_background(text, scene) for text, scene in zip(captions, told, strict=True)]
    return Lesson(
        pixels=torch.from_numpy(np.stack([_seen(scene, rng) for scene in shown])),
        captions=captions,
        is_true=is_true(told, says, shown),
        picture_facts=_facts(shown, [caption(scene) for scene in shown]),
        caption_facts=_facts(told, captions),
    )


def is_true(told: Sequence[Scene], says: Sequence[bool], shown: Sequence[Scene]) -> Tensor:
    """Whether each picture (row) shows what each caption (column) says. What a caption leaves open is never wrong."""
    asked, there = np.array([_code(scene) for scene in told]), np.array([_code(scene) for scene in shown])
    asked[:, -1] *= np.array(says)
    same = asked[None] == there[:, None]
    is_open = asked[None] == 0
    is_open[..., :_MUST] = False
    return torch.from_numpy((same | is_open).all(axis=-1))


_MUST = 5
"""How many of the first numbers of a code no caption leaves open: the things and their number."""


def _code(scene: Scene) -> list[int]:
    """A scene in numbers; of two things the order in which one happens to say them does not count."""
    names, shapes = list(COLOURS), list(SHAPES)
    things = [(1 + names.index(thing.colour), 1 + shapes.index(thing.shape)) for thing in scene.things]
    relation = scene.relation
    if relation is not None:
        if relation in _INVERSE:
            relation, things = _INVERSE[relation], things[::-1]
        order = 0 if things[0] < things[1] else 2
        direction = 1 + order + list(_INVERSE.values()).index(relation)
    else:
        direction = 0
    first = scene.things[0]
    pair = sorted(things) + [(0, 0)] * (2 - len(things))
    size = 0 if first.size == "medium" else 1 + list(SIZES).index(first.size)
    place = 0 if first.place is None else 1 + list(PLACES).index(first.place)
    return [*pair[0], *pair[1], first.count, size, place, direction, 1 + list(BACKGROUNDS).index(scene.background)]


def _group(rng: np.random.Generator) -> list[Scene]:
    scene = sample_scene(rng)
    if scene.kind == "pair" and scene.relation is None:
        scene = replace(scene, relation=choose(tuple(RELATIONS), rng))
    others = list(foils(scene, rng).values())
    rng.shuffle(others)  # type: ignore[arg-type]
    group = [scene, *others[: GROUP_SIZE - 1]]
    return group + _group(rng)[: GROUP_SIZE - len(group)] if len(group) < GROUP_SIZE else group


def _vague(scene: Scene, rng: np.random.Generator) -> Scene:
    return replace(scene, relation=None) if scene.relation is not None and rng.random() < 0.1 else scene


def _seen(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """A picture as the model gets it, sharp or soft, clean or with noise."""
    image = render(scene, int(rng.integers(2**31)), int(rng.choice(_RENDERED_PX)))
    if image.width != SIZE_PX:
        image = image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1
    if rng.random() < 0.5:
        pixels = pixels + rng.normal(0, rng.uniform(0, 0.12), pixels.shape)
    return np.clip(pixels, -1, 1).astype(np.float32)


def _facts(scenes: Sequence[Scene], captions: Sequence[str]) -> dict[str, Tensor]:
    answers = [reading(scene, text) for scene, text in zip(scenes, captions, strict=True)]
    return {name: torch.tensor([answer[name] for answer in answers]) for name in FACTS}


def train_clip(clip: nn.Module, tokenizer: CLIPTokenizer, work: Path, plan: Plan) -> None:
    """Teach both towers; resumes. What is in a picture, and in a text, is asked of each tower alone as well, by heads
    that are not kept: it is learnt sooner so."""
    heads = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in FACTS.items()})
    readers = nn.ModuleDict({name: nn.Linear(WIDTH, size) for name, size in FACTS.items()})
    trainee = Trainee(plan, {"clip": clip, "heads": heads, "readers": readers}, work, muon=_inner_matrices(clip))
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        taught = lesson(np.random.default_rng([plan.seed, 11, step]))
        ids = tokenize(tokenizer, taught.captions, CONTEXT_LENGTH)
        # Beside layers this small, torch's fused attention takes three times as long on the way back.
        with torch.autocast("cpu", plan.dtype), sdpa_kernel(SDPBackend.MATH):
            seen, read = clip.encode_image(taught.pixels), clip.encode_text(ids)
        told = _fact_loss(heads, seen.float(), taught.picture_facts)
        told = told + _fact_loss(readers, read.float(), taught.caption_facts)
        return contrastive(seen.float(), read.float(), clip.logit_scale, taught.is_true) + FACTS_WEIGHT * told

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()


def contrastive(seen: Tensor, read: Tensor, logit_scale: Tensor, is_true: Tensor) -> Tensor:
    """Each true pair against all false ones of its picture, and of its caption: InfoNCE in which several captions may
    be true of a picture without standing against each other (Khosla et al., 2020, eq. 2, without the positives below
    the line)."""
    scale = logit_scale.clamp(max=4.6).exp()
    logits = scale * F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T
    false = logits.masked_fill(is_true, float("-inf"))
    of_picture = F.softplus(false.logsumexp(dim=1, keepdim=True) - logits)
    of_caption = F.softplus(false.logsumexp(dim=0, keepdim=True) - logits)
    return (of_picture + of_caption)[is_true].mean()


def _fact_loss(heads: nn.ModuleDict, states: Tensor, facts: dict[str, Tensor]) -> Tensor:
    return torch.stack([F.cross_entropy(head(states), facts[name]) for name, head in heads.items()]).mean()


def _inner_matrices(clip: Any) -> list[nn.Parameter]:
    blocks = (clip.visual.transformer, clip.transformer)
    return [weight for block in blocks for weight in block.parameters() if weight.ndim == 2]


if __name__ == "__main__":
    main()
