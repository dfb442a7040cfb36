"""An adapter that a prompt names draws along, is recorded, and is refused before anything is drawn if it cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.adapters import PREVIEW_PX
from studio.domain.errors import InvalidRequest, NotFound
from studio.domain.request import GenerationRequest
from studio.services import Services
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli

ASKED = {"num_inference_steps": 3, "seed": 4}


def test_a_named_adapter_draws_along_and_is_recorded(services: Services, tmp_path: Path) -> None:
    added = services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors")).entry
    (plain,) = services.generate("a red star", **ASKED)
    (inked,) = services.generate("a red star <lora:ink:0.9>", **ASKED)
    (again,) = services.generate("a red star", again=True, **ASKED)
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


def test_a_verdict_holds_until_the_file_or_the_model_is_another(services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    pocket, small = (services.catalogue.checkpoint(name) for name in ("pocket-sd15", "sd15"))
    assert services.adapters.verdict("ink", pocket).is_ok
    assert "not compared with the layers" in services.adapters.verdict("ink", small).notes[-1]
    services.adapters.check("a star <lora:ink>", pocket)
    adapter_file(services.adapters.store.path("ink"), width=2048)
    with pytest.raises(InvalidRequest, match="made for SDXL"):
        services.adapters.check("a star <lora:ink>", pocket)


def test_a_preview_is_a_small_copy_that_tells_no_prompt(services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    large = tmp_path / "large.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a secret prompt"
    Image.new("RGB", (3000, 1500), "red").save(large, exif=exif)
    assert services.adapters.preview_version("ink") == ""
    services.adapters.set_preview("ink", large)
    kept = services.adapters.store.preview_path("ink")
    assert kept is not None and b"secret" not in kept.read_bytes()
    with Image.open(kept) as preview:
        assert (preview.format, preview.size, preview.info) == ("PNG", (PREVIEW_PX, PREVIEW_PX // 2), {})
    first = services.adapters.preview_version("ink")
    (record,) = services.generate("a red star", **ASKED)
    services.adapters.set_preview("ink", services.gallery.path(record))
    assert b"a red star" not in kept.read_bytes()
    assert services.adapters.preview_version("ink") not in ("", first)


def test_what_is_no_picture_is_no_preview(services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors"))
    svg = tmp_path / "a.svg"
    svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    huge = tmp_path / "huge.png"
    Image.new("1", (8000, 8000)).save(huge)
    for picture in (svg, huge, tmp_path / "nowhere.png"):
        with pytest.raises(InvalidRequest, match="no PNG, JPEG or WebP picture of at most 50 million pixels") as caught:
            services.adapters.set_preview("ink", picture)
        assert caught.value.field == "preview"
    assert services.adapters.store.preview_path("ink") is None


def test_the_command_line_shows_what_a_file_holds(cli: Cli, tmp_path: Path) -> None:
    metadata = {"modelspec.trigger_phrase": "inkwash", "comment": "by \x1b[31mme"}
    cli("adapters", "add", str(adapter_file(tmp_path / "ink.safetensors", metadata=metadata)))
    shown = json.loads(cli("adapters", "show", "ink", "--json")[1])
    assert (shown["ranks"], shown["alphas"], shown["module_count"], len(shown["keys"])) == ([2], [2.0], 1, 3)
    assert shown["trigger_words"] == ["inkwash"] and shown["metadata"]["comment"] == "by [31mme"
    assert len(shown["tensor_sha256"]) == 64 and shown["tensor_sha256"].startswith(shown["short_hash"])
    lines = dict(
        line.split(": ", 1) for line in cli("adapters", "show", "ink", "--model", "pocket-sd15")[1].splitlines()
    )
    assert (lines["ranks"], lines["alphas"], lines["trigger_words"]) == ("2", "2.0", "inkwash")
    assert lines["keys"].startswith("3, from") and lines["short_hash"] == shown["short_hash"]
    assert json.loads(lines["metadata"]) == shown["metadata"]
    assert lines["verdict"] == "It can be used."
    cli("adapters", "add", str(adapter_file(tmp_path / "large.safetensors", width=2048)))
    out = cli("adapters", "show", "large", "--model", "pocket-sd15")[1]
    assert "verdict: large.safetensors is made for SDXL" in out
