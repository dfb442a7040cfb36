"""The tokenizer and text encoders of a pocket model.

A text encoder learns alone to read: from a caption, what is at the left, right, top, bottom and centre, how many, how
large, on which background. That takes minutes without a single picture, and leaves the UNet only the drawing to learn.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from engines.conditioning import Conditioning
from engines.pocket.grammar import RESERVED, paraphrase, says_background, vocabulary
from engines.pocket.sampling import sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene
from engines.training.loop import Plan, Trainee, train

TEXT_LENGTH = 77
_READ_LENGTH = 32
"""Captions are shorter. Attention is causal, so cutting the padding changes nothing at the end token."""
START, END = "<|startoftext|>", "<|endoftext|>"

_NOTHING = 0
_SPOTS = ("left", "right", "top", "bottom", "centre")
FACTS = {
    **{f"{spot}_colour": 1 + len(COLOURS) for spot in _SPOTS},
    **{f"{spot}_shape": 1 + len(SHAPES) for spot in _SPOTS},
    "background": 1 + len(BACKGROUNDS),
    "size": len(SIZES),
    "count": 3,
}


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write a CLIP tokenizer into `folder` whose merges make one token of every word of the world.

    Every byte is in its alphabet, so any other text is spelt out rather than lost.
    """
    words = [*sorted((vocabulary() | RESERVED) - {""}), ",", "."]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    bpe.train_from_iterator(words, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in learnt["merges"]]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(merge) for merge in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(dict.fromkeys(tokens))}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(merge) for merge in merges) + "\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TEXT_LENGTH)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """One text encoder: its folder in the pipeline, its shape, and which of its states the UNet is given.

    SD 1.5 reads the last layer. SD 2.x reads the penultimate one, by leaving the last out of the checkpoint
    (`drops_last`: `layers` counts it, and it is gone after pretraining). SDXL reads the penultimate one of a whole
    encoder (`reads_penultimate`), and of its second encoder also the projected end token (`has_projection`).
    """

    name: str
    width: int
    layers: int
    drops_last: bool = False
    reads_penultimate: bool = False
    has_projection: bool = False


Encoder = CLIPTextModel | CLIPTextModelWithProjection


def new_text_encoder(tokenizer: CLIPTokenizer, plan: EncoderPlan) -> Encoder:
    """An untrained encoder; ids of start and end come from `tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.width,
        intermediate_size=4 * plan.width,
        projection_dim=plan.width,
        num_hidden_layers=plan.layers,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if plan.has_projection else CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], length: int = TEXT_LENGTH) -> Tensor:
    """Token ids `(B, length)`, padded and cut as the diffusers pipeline does it."""
    return tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def pretrain_text_encoder(
    tokenizer: CLIPTokenizer,
    encoder_plan: EncoderPlan,
    work: Path,
    steps: int,
    *,
    reader: nn.Module | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Encoder:
    """Teach a new text encoder to read; resumes from `work`. Every state that the UNet will be given learns to tell
    all at its end token. What a `reader` already knows is taken over and stays; only the layers above it learn."""
    torch.manual_seed(seed)
    encoder = new_text_encoder(tokenizer, encoder_plan)
    if reader is not None:
        _take_over(encoder, reader)
    heads = nn.ModuleDict({name: nn.Linear(encoder_plan.width, size) for name, size in FACTS.items()})
    plan = Plan(name=encoder_plan.name, steps=steps, learning_rate=1e-3, ema_decay=0.99, seed=seed)
    trainee = Trainee(plan, {"encoder": encoder, "heads": heads}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 1, step])
        scenes = [sample_scene(rng) for _ in range(batch_size)]
        captions = [paraphrase(scene, rng) for scene in scenes]
        ids = tokenize(tokenizer, captions, _READ_LENGTH)
        targets = [reading(scene, text) for scene, text in zip(scenes, captions, strict=True)]
        losses = [
            F.cross_entropy(head(ends), torch.tensor([target[name] for target in targets]))
            for ends in _end_states(encoder, encoder_plan, ids)
            for name, head in heads.items()
        ]
        return torch.stack(losses).mean()

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    if encoder_plan.drops_last:
        _drop_last_layer(encoder)
    return encoder


def _take_over(encoder: Encoder, reader: nn.Module) -> None:
    known = reader.state_dict()
    encoder.load_state_dict(known, strict=False)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name not in known)


def _end_states(encoder: Encoder, plan: EncoderPlan, ids: Tensor) -> list[Tensor]:
    """What the encoder says at the end token, `(B, width)` each, at every place where it will be read."""
    rows, ends = torch.arange(len(ids)), (ids == encoder.config.eos_token_id).int().argmax(dim=1)
    output = encoder(ids, output_hidden_states=True)
    states = [output.text_embeds if plan.has_projection else output.last_hidden_state[rows, ends]]
    if plan.reads_penultimate:
        states.append(output.hidden_states[-2][rows, ends])
    if plan.drops_last:
        states.append(encoder.final_layer_norm(output.hidden_states[-2])[rows, ends])
    return states


def _drop_last_layer(encoder: Encoder) -> None:
    encoder.encoder.layers = encoder.encoder.layers[:-1]
    encoder.config.num_hidden_layers -= 1


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The finished tokenizer and encoders of a model."""

    tokenizer: CLIPTokenizer
    encoders: tuple[Encoder, ...]
    is_sdxl: bool = False

    @torch.no_grad()
    def read(self, captions: list[str]) -> Conditioning:
        """The conditioning of `captions`, as the diffusers pipeline of the family computes it."""
        ids = tokenize(self.tokenizer, captions)
        if not self.is_sdxl:
            return Conditioning(embeds=self.encoders[0](ids).last_hidden_state)
        outputs = [encoder(ids, output_hidden_states=True) for encoder in self.encoders]
        embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return Conditioning(embeds=embeds, pooled=outputs[-1].text_embeds)


def reading(scene: Scene, text: str) -> dict[str, int]:
    """What a careful reader knows after `text`: a class index per head, 0 for nothing or unsaid."""
    answer = dict.fromkeys(FACTS, _NOTHING)
    if says_background(text, scene):
        answer["background"] = 1 + list(BACKGROUNDS).index(scene.background)
    first = scene.things[0]
    answer["size"] = list(SIZES).index(first.size)
    answer["count"] = first.count - 1
    for thing, spot in zip(scene.things, _spots(scene), strict=True):
        answer[f"{spot}_colour"] = 1 + list(COLOURS).index(thing.colour)
        answer[f"{spot}_shape"] = 1 + SHAPES.index(thing.shape)
    return answer


def _spots(scene: Scene) -> tuple[str, ...]:
    if scene.kind != "pair":
        return (scene.things[0].place or "centre",)
    return {
        "left of": ("left", "right"),
        "right of": ("right", "left"),
        "above": ("top", "bottom"),
        "below": ("bottom", "top"),
        None: ("centre", "left"),
    }[scene.relation]
