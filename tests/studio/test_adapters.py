"""An adapter that a prompt names draws along, is recorded, and is refused before anything is drawn if it cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest
from studio.services import Services

MODULE = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
ASKED = {"num_inference_steps": 3, "seed": 4}


def adapter_file(path: Path, width: int = 128) -> Path:
    """A kohya file for models whose text is `width` wide."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"lora_unet_{MODULE}.lora_down.weight": torch.randn(2, width, generator=generator),
        f"lora_unet_{MODULE}.lora_up.weight": torch.randn(128, 2, generator=generator),
        f"lora_unet_{MODULE}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, path)
    return path


def test_a_named_adapter_draws_along_and_is_recorded(services: Services, tmp_path: Path) -> None:
    added = services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors")).entry
    (plain,) = services.generate("a red star", **ASKED)
    (inked,) = services.generate("a red star <lora:ink:0.9>", **ASKED)
    (again,) = services.generate("a red star", **ASKED)
    pictures = [np.asarray(Image.open(services.gallery.path(record))) for record in (plain, inked, again)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 8
    assert np.array_equal(pictures[0], pictures[2])
    digest = services.adapters.store.inspect(added.id).adapter
    assert digest is not None
    assert inked.environment["adapters"] == f"ink: {digest.short_hash}"
    assert inked.recipe.prompt == "a red star <lora:ink:0.9>"
    assert inked.prompt_as_run == "a red star"
    assert "adapters" not in plain.environment


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a star <lora:nobody>", "no adapter called 'nobody'. There are: ink, large."),
        ("a star <lora:../ink>", "no adapter called"),
        ("a star <lora:large>", r"large.safetensors is made for Stable Diffusion 1\.5|large.safetensors"),
        ("a star <lora:ink:99>", "from -4 to 4"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_drawn(
    services: Services, tmp_path: Path, prompt: str, said: str
) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    services.adapters.store.add(adapter_file(tmp_path / "large.safetensors", width=768))
    with pytest.raises(InvalidRequest, match=said) as caught:
        services.generation.submit(GenerationRequest(prompt=prompt))
    assert caught.value.field == "prompt"
    assert services.runner.active("local") == []


def test_an_adapter_that_goes_away_meanwhile_fails_the_job_in_a_sentence(services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    request = services.catalogue.resolve(GenerationRequest(prompt="a star <lora:ink>", **ASKED))
    services.adapters.store.remove("ink")
    with pytest.raises(NotFound, match="no adapter called 'ink'"):
        services.generation.make(request.single(0), lambda: False, lambda step: None)
