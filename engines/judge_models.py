"""The models that judges are: CLIP as open_clip keeps it, as a recipe names it, and as transformers keeps it.

Each comes from safetensors files on this machine, whole: nothing is fetched, and none ever has random weights.
"""

import hashlib
import json
import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import try_to_load_from_cache
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.domain.errors import CorruptModel, NotFound
from studio.domain.scores import JUDGE_CONFIG, JUDGE_RECIPE, MODEL_CONFIG, JudgeKind, judge_kind

logger = logging.getLogger(__name__)

_WEIGHTS_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
_ADVICE = "Fetch its folder again: open_clip_config.json, the .safetensors file and what its tokenizer needs."
_CLIP_ADVICE = (
    "Fetch its folder again: config.json, model.safetensors, preprocessor_config.json, and tokenizer.json or "
    "vocab.json with merges.txt."
)
_RECIPE_ADVICE = (
    f'Write into {JUDGE_RECIPE} architecture = "ViT-B-16", and pretrained = "openai" or weights = "a file.safetensors" '
    "beside it, or both."
)
_QUICK = "-quickgelu"
_SHORT = 12


class Recipe(BaseModel):
    """What a judge.toml says: an `architecture` of open_clip; `pretrained`, the tag of its weights, which decides how
    pictures are made ready and which activation it has; and `weights`, a safetensors file beside it. Without `weights`
    they are those of the tag in the hub's cache, without `pretrained` everything is as the architecture has it.

    HPSv2 (Wu et al., 2023, arXiv:2306.09341) is a ViT-H/14 of open_clip with weights of its own: a folder with
    `architecture = "ViT-H-14"` and `weights = "hpsv2.safetensors"`, which is made once of its checkpoint by
    `save_file(torch.load("HPS_v2.1_compressed.pt", weights_only=True)["state_dict"], "hpsv2.safetensors")`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str = Field(min_length=1)
    pretrained: str = ""
    weights: str = ""


class JudgeModel(Protocol):
    """A CLIP model. `words` tell what it is and how pictures are made ready for it."""

    words: str

    def see(self, image: Image.Image) -> torch.Tensor:
        """What it makes of an RGB picture: `(1, dimensions)`, of length 1."""
        ...

    def read(self, text: str) -> torch.Tensor:
        """What it makes of a text: `(1, dimensions)`, of length 1."""
        ...

    def is_too_long(self, text: str) -> bool:
        """Whether the tokenizer, which cuts without a word, leaves anything of `text` out."""
        ...


def weights_of(folder: Path) -> Path:
    """The weights of the judge in `folder`, which its library would choose too.

    Raises:
        NotFound: there are none in safetensors files.
        CorruptModel: its recipe says nothing that open_clip knows.
    """
    kind = judge_kind(folder)
    if kind == "recipe":
        return _weights_of_recipe(folder, recipe_of(folder))
    names = ("model.safetensors",) if kind == "transformers" else _WEIGHTS_NAMES
    found = next((path for name in names if (path := folder / name).is_file()), None)
    if kind is None or found is None:
        advice = _CLIP_ADVICE if kind == "transformers" else _ADVICE
        raise NotFound(f"There is no judge with safetensors weights in {folder.name}.", advice)
    return found


def files_of(folder: Path) -> tuple[Path, ...]:
    """The files that decide what the judge in `folder` is.

    Raises:
        NotFound, CorruptModel: see `weights_of`.
    """
    told = (folder / name for name in (JUDGE_CONFIG, JUDGE_RECIPE, MODEL_CONFIG))
    return weights_of(folder), *(path for path in told if path.is_file())


def load_judge(folder: Path) -> JudgeModel:
    """The judge in `folder`, on the CPU and in float32.

    Raises:
        NotFound, CorruptModel: there are no weights, or none that fit.
    """
    weights, kind = weights_of(folder), judge_kind(folder)
    assert kind is not None
    load, advice = _LOADERS[kind]
    try:
        return load(folder, weights)
    except (NotFound, CorruptModel):
        raise
    except Exception as error:  # open_clip, torch, transformers: each has its own
        logger.warning("the judge in %s cannot be loaded: %s", folder.name, error)
        said = f"The judge in {folder.name} cannot be loaded ({type(error).__name__})."
        raise CorruptModel(said, advice) from error


class OpenClipJudge:
    """A model of open_clip."""

    def __init__(self, model: Any, prepare: Any, tokenize: Any, words: str) -> None:
        self._model = model.eval()
        self._prepare = prepare
        self._tokenize = tokenize
        self.words = words

    def see(self, image: Image.Image) -> torch.Tensor:
        """See `JudgeModel.see`."""
        return self._model.encode_image(self._prepare(image)[None], normalize=True)

    def read(self, text: str) -> torch.Tensor:
        """See `JudgeModel.read`."""
        return self._model.encode_text(self._tokenize([text]), normalize=True)

    def is_too_long(self, text: str) -> bool:
        """See `JudgeModel.is_too_long`."""
        length = self._tokenize.context_length
        of_transformers = getattr(self._tokenize, "tokenizer", None)
        if of_transformers is not None:
            return len(of_transformers(text).input_ids) > length
        return len(self._tokenize.encode(text)) + 2 > length  # without the marks of start and end


class TransformersJudge:
    """A CLIPModel of transformers."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model.eval()
        self._processor = processor
        self._length = model.config.text_config.max_position_embeddings
        self.words = f"CLIPModel, {model.config.vision_config.image_size} px"

    def see(self, image: Image.Image) -> torch.Tensor:
        """See `JudgeModel.see`."""
        pixels = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"]
        return _normalised(self._model.get_image_features(pixel_values=pixels).pooler_output)

    def read(self, text: str) -> torch.Tensor:
        """See `JudgeModel.read`."""
        tokens = self._processor.tokenizer([text], truncation=True, max_length=self._length, return_tensors="pt")
        known = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return _normalised(self._model.get_text_features(**known).pooler_output)

    def is_too_long(self, text: str) -> bool:
        """See `JudgeModel.is_too_long`."""
        return len(self._processor.tokenizer(text, verbose=False).input_ids) > self._length


def _normalised(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _of_folder(folder: Path, weights: Path) -> OpenClipJudge:
    # Imported here: it takes seconds, and most pictures are never judged.
    import open_clip

    loaded: Any = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model, prepare = loaded
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    config = json.loads((folder / JUDGE_CONFIG).read_text()).get("preprocess_cfg", {})
    return OpenClipJudge(model, prepare, tokenize, _preparation(model, config))


def _of_recipe(folder: Path, weights: Path) -> OpenClipJudge:
    import open_clip

    recipe = recipe_of(folder)
    name, tag = _architecture(folder, recipe)
    loaded: Any = open_clip.create_model_from_pretrained(
        name,
        str(weights.absolute()),
        force_quick_gelu=bool(tag.get("quick_gelu")),  # of a file, open_clip would not know it
        image_mean=tag.get("mean"),
        image_std=tag.get("std"),
        image_interpolation=tag.get("interpolation"),
        image_resize_mode=tag.get("resize_mode"),
    )
    model, prepare = loaded
    said = f"{recipe.architecture} {recipe.pretrained}".strip()
    return OpenClipJudge(model, prepare, open_clip.get_tokenizer(name), f"{said}, {_preparation(model, tag)}")


def _of_transformers(folder: Path, weights: Path) -> TransformersJudge:
    from transformers import CLIPModel, CLIPProcessor

    if not ((folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()):
        raise NotFound(f"The judge in {folder.name} has no tokenizer.", _CLIP_ADVICE)  # transformers would make one up
    loaded: Any = CLIPModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    model, told = loaded
    if told["missing_keys"] or told["mismatched_keys"]:
        raise CorruptModel(f"The weights of the judge in {folder.name} are not whole.", _CLIP_ADVICE)
    processor: Any = CLIPProcessor.from_pretrained(folder, local_files_only=True)
    if len(processor.tokenizer) > model.config.text_config.vocab_size:
        raise CorruptModel(f"The tokenizer of the judge in {folder.name} is another model's.", _CLIP_ADVICE)
    return TransformersJudge(model, processor)


_LOADERS: dict[JudgeKind, tuple[Callable[[Path, Path], JudgeModel], str]] = {
    "open_clip": (_of_folder, _ADVICE),
    "recipe": (_of_recipe, f"The weights may be another model's. {_RECIPE_ADVICE}"),
    "transformers": (_of_transformers, _CLIP_ADVICE),
}


def recipe_of(folder: Path) -> Recipe:
    """What the judge.toml in a folder says.

    Raises:
        CorruptModel: it says nothing that can be understood.
    """
    try:
        recipe = Recipe.model_validate(tomllib.loads((folder / JUDGE_RECIPE).read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise CorruptModel(f"The {JUDGE_RECIPE} of {folder.name} cannot be understood.", _RECIPE_ADVICE) from error
    if not recipe.pretrained and not recipe.weights:
        raise CorruptModel(f"The {JUDGE_RECIPE} of {folder.name} names no weights.", _RECIPE_ADVICE)
    return recipe


def _architecture(folder: Path, recipe: Recipe) -> tuple[str, dict[str, Any]]:
    """The name of the architecture, and what open_clip knows of the tag. With a tag, the name is that without
    "-quickgelu": the tag says which activation its weights were trained with, whatever the recipe calls it.

    Raises:
        CorruptModel: open_clip has none of that name, or no such tag of it, or not its tokenizer.
    """
    import open_clip

    name = recipe.architecture.replace("/", "-")
    config: Any = open_clip.get_model_config(name) if name in open_clip.list_models() else None
    if config is None:
        raise CorruptModel(f"open_clip has no architecture called {recipe.architecture!r}.", _RECIPE_ADVICE)
    if {"hf_tokenizer_name", "hf_model_name"} & config["text_cfg"].keys() or "siglip" in name.lower():
        said = f"open_clip has no tokenizer for {recipe.architecture} itself."
        raise CorruptModel(said, f"Fetch its folder from the hub, with {JUDGE_CONFIG}, instead of {JUDGE_RECIPE}.")
    if not recipe.pretrained:
        return name, {}
    plain = name.removesuffix(_QUICK)
    told = (open_clip.get_pretrained_cfg(each, recipe.pretrained) for each in (plain, plain + _QUICK))
    tag: dict[str, Any] = next(filter(None, told), {})
    if not tag:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(plain)) or "none"
        raise CorruptModel(f"There is no {recipe.architecture} {recipe.pretrained} in open_clip.", f"It has {known}.")
    return plain, tag


def _weights_of_recipe(folder: Path, recipe: Recipe) -> Path:
    """Raises NotFound where they are not on this machine, CorruptModel where the recipe makes no sense."""
    _, tag = _architecture(folder, recipe)
    if recipe.weights:
        path = folder / recipe.weights
        if path.name != recipe.weights or path.suffix != ".safetensors":
            raise CorruptModel(f"{recipe.weights!r} is no safetensors file in {folder.name}.", _RECIPE_ADVICE)
        if not path.is_file():
            raise NotFound(f"There is no judge in {folder.name}: {recipe.weights} is missing.", "Put it there.")
        return path
    hub_id = tag.get("hf_hub", "").rpartition("/")[0]
    for name in _WEIGHTS_NAMES if hub_id else ():
        found = try_to_load_from_cache(hub_id, name)
        if isinstance(found, str):
            return Path(found)
    advice = f"Fetch them: hf download {hub_id} {_WEIGHTS_NAMES[0]}; or" if hub_id else "They are on no hub:"
    raise NotFound(
        f"The weights {recipe.architecture} {recipe.pretrained} of the judge in {folder.name} are not on this machine.",
        f'{advice} put the file into {folder.name} and write weights = "its name" into {JUDGE_RECIPE}.',
    )


def _preparation(model: Any, config: dict[str, Any]) -> str:
    """How pictures are made ready, such as "224 px bicubic shortest"."""
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple | list) else size
    return f"{side} px {config.get('interpolation', 'bicubic')} {config.get('resize_mode', 'shortest')}"


def fingerprint(weights: Path) -> str:
    """The beginning of the SHA-256 of a file."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_SHORT]
