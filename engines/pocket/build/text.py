"""The tokenizer and text encoder of a pocket model.

The text encoder first learns alone to read: from a caption, what is at the left, right, top, bottom and centre, how
many, how large, on which background. That takes minutes without a single picture, and leaves the UNet only the drawing
to learn. Both then train together.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engines.pocket.build.loop import Plan, Trainee, train
from engines.pocket.grammar import RESERVED, paraphrase, says_background, vocabulary
from engines.pocket.sampling import sample_scene
from engines.pocket.world import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene

TEXT_LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"

_NOTHING = 0
_SPOTS = ("left", "right", "top", "bottom", "centre")
_HEADS = {
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


def new_text_encoder(tokenizer: CLIPTokenizer, width: int = 128, layers: int = 4) -> CLIPTextModel:
    """A CLIPTextModel of `width` × `layers`; ids of start and end come from `tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tokenize(tokenizer: CLIPTokenizer, captions: list[str], length: int = TEXT_LENGTH) -> Tensor:
    """Token ids `(B, length)`, padded and cut as the diffusers pipeline does it."""
    return tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def pretrain_text_encoder(
    tokenizer: CLIPTokenizer, work: Path, steps: int, batch_size: int = 128, seed: int = 0
) -> CLIPTextModel:
    """Teach a new text encoder to read; resumes from `work`."""
    torch.manual_seed(seed)
    encoder = new_text_encoder(tokenizer)
    heads = nn.ModuleDict({name: nn.Linear(encoder.config.hidden_size, size) for name, size in _HEADS.items()})
    plan = Plan(name="text", steps=steps, learning_rate=1e-3, ema_decay=0.99, seed=seed)
    trainee = Trainee(plan, {"encoder": encoder, "heads": heads}, work)
    trainee.resume()

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, 1, step])
        scenes = [sample_scene(rng) for _ in range(batch_size)]
        captions = [paraphrase(scene, rng) for scene in scenes]
        # Attention is causal, so cutting the padding changes nothing at the end token.
        ids = tokenize(tokenizer, captions, 32)
        hidden = encoder(ids).last_hidden_state
        ends = hidden[torch.arange(len(ids)), (ids == tokenizer.eos_token_id).int().argmax(dim=1)]
        targets = [reading(scene, text) for scene, text in zip(scenes, captions, strict=True)]
        losses = [
            F.cross_entropy(head(ends), torch.tensor([target[name] for target in targets]))
            for name, head in heads.items()
        ]
        return torch.stack(losses).mean()

    for _ in train(trainee, loss_at):
        pass
    trainee.use_averages()
    return encoder


def reading(scene: Scene, text: str) -> dict[str, int]:
    """What a careful reader knows after `text`: a class index per head, 0 for nothing or unsaid."""
    answer = dict.fromkeys(_HEADS, _NOTHING)
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
