"""A picture keeps to the edges of another one: what it shows, what is kept, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from huggingface_hub import close_session
from PIL import Image
from safetensors.torch import load_file, save

from engines.base import Engine
from engines.edges import edges
from engines.pocket.grammar import parse
from engines.pocket.world import render
from engines.small_controls import unpacked
from studio.controls import ControlService
from studio.domain.errors import DownloadFailed, InvalidRequest, NotFound, StudioError
from studio.domain.events import Finished
from studio.domain.images import ImageRecord
from studio.domain.request import parse_request
from studio.gallery import opened
from studio.generation import EngineHolder
from studio.infotext import infotext, request_from_infotext
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from tests.engines.hub import forget_the_machine, served
from tests.studio.conftest import Cli

EDGES = "edges-pocket-sd15"
SCENES = (
    "a small red star at the top on a white background",
    "a yellow heart above a purple square on a navy background",
    "a blue cross left of a pink diamond on a white background",
    "three orange circles on a gray background",
)
PROMPTS = (
    "a red star on a white background",
    "a yellow heart and a purple square on a navy background",
    "a blue cross and a pink diamond on a white background",
    "three orange circles on a gray background",
)
"""The same without what says where things are."""


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        yield services


@pytest.fixture(scope="module")
def star(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "star.png"
    drawn(SCENES[0], 40).save(path)
    return path


def drawn(text: str, seed: int) -> Image.Image:
    scene = parse(text)
    assert scene is not None
    return render(scene, seed, 128)


def made(studio: Services, record: ImageRecord) -> Image.Image:
    return opened(studio.gallery.path(record))


def overlap(one: Image.Image, other: Image.Image) -> float:
    """How far what stands before the backgrounds covers the same, intersection over union."""

    def things(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.convert("RGB"), float)
        ground = np.median(pixels[:4].reshape(-1, 3), axis=0)
        return np.abs(pixels - ground).sum(axis=-1) > 90

    first, second = things(one), things(other)
    return float((first & second).sum() / max(1, (first | second).sum()))


def test_what_is_drawn_lies_where_the_edges_are(studio: Services) -> None:
    with_it, without = [], []
    for seed, (scene, prompt) in enumerate(zip(SCENES, PROMPTS, strict=True)):
        wanted = drawn(scene, 40 + seed)
        name = studio.sources.keep(wanted, "local")
        (kept,) = studio.generate(prompt, seed=seed, num_inference_steps=15, control=EDGES, control_image=name)
        (free,) = studio.generate(prompt, seed=seed, num_inference_steps=15)
        with_it.append(overlap(made(studio, kept), wanted))
        without.append(overlap(made(studio, free), wanted))
    assert np.mean(with_it) > 0.7 and min(with_it) > 0.5
    assert np.mean(with_it) > np.mean(without) + 0.3


def test_a_map_is_kept_and_the_same_picture_comes_back(studio: Services, star: Path) -> None:
    values = {"prompt": PROMPTS[0], "seed": 3, "num_inference_steps": 6, "control": EDGES, "control_image": star}
    request = parse_request(studio.sources.taken(values, "local"))
    job = studio.generation.submit(request)
    assert isinstance(job.wait(timeout=120), Finished)
    (record,) = studio.gallery.of_job(job.id)
    recipe = record.recipe
    assert (recipe.control, recipe.control_source) == (EDGES, "map")
    hint = studio.sources.open(recipe.control_image)
    assert np.array_equal(np.asarray(hint), np.asarray(edges(opened(star))))
    again = studio.reproduction.submit(record.id).wait(timeout=120)
    assert isinstance(again, Finished) and again.summary["judgement"] == "identical"
    told = infotext(record, studio.catalogue)
    assert request_from_infotext(told, studio.catalogue).request.control_image == recipe.control_image
    assert record.environment["control"].startswith(f"{EDGES}: ")
    # A map that is given is used as it is: the same picture, which need not be drawn again.
    (same,) = studio.generate(**{**values, "control_image": recipe.control_image, "control_source": "map"})
    assert same.pixels_sha256 == record.pixels_sha256


def test_its_scale_says_how_closely_and_nothing_stays_behind(studio: Services, star: Path) -> None:
    name = studio.sources.take(star, "local", "control_image")
    quick = {"seed": 4, "num_inference_steps": 6}
    (before,) = studio.generate(PROMPTS[0], **quick)
    (none,) = studio.generate(PROMPTS[0], **quick, control=EDGES, control_image=name, control_scale=0.0)
    (full,) = studio.generate(PROMPTS[0], **quick, control=EDGES, control_image=name)
    (after,) = studio.generate(PROMPTS[0], **quick, again=True)
    assert before.pixels_sha256 == after.pixels_sha256 != full.pixels_sha256
    assert overlap(made(studio, none), made(studio, before)) > 0.99


def test_it_goes_with_a_second_pass_few_steps_and_a_picture_to_begin_from(studio: Services, star: Path) -> None:
    name = studio.sources.take(star, "local", "control_image")
    steered = {"control": EDGES, "control_image": name, "seed": 5}
    (larger,) = studio.generate(PROMPTS[0], **steered, num_inference_steps=10, hires_scale=1.5)
    assert made(studio, larger).size == (192, 192)
    (fast,) = studio.generate(PROMPTS[0], **steered, accelerator="flash-pocket-sd15")
    assert overlap(made(studio, fast), drawn(SCENES[0], 40)) > 0.4
    beginning = studio.sources.keep(drawn(SCENES[3], 1), "local")
    (over,) = studio.generate(PROMPTS[0], **steered, num_inference_steps=10, init_image=beginning, strength=0.9)
    assert made(studio, over).size == (128, 128)


def test_what_does_not_fit_is_refused_in_a_sentence(studio: Services, star: Path) -> None:
    name = studio.sources.take(star, "local", "control_image")
    for values, message in (
        ({"control": EDGES}, "no picture to keep to"),
        ({"control_image": name}, "no ControlNet that reads it"),
        ({"control": EDGES, "control_image": name, "checkpoint": "pocket-sdxl"}, "was not made for Pocket SDXL"),
        ({"control": "wind", "control_image": name}, "wind"),
        ({"control": "depth-sd15", "control_image": name, "checkpoint": "sd15"}, "how near things are"),
        ({"control": EDGES, "control_image": name, "control_scale": 3}, "from 0 to 2"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            studio.generate(PROMPTS[0], **values)
    with pytest.raises(NotFound):
        studio.generate(PROMPTS[0], control=EDGES, control_image="ab" * 32)


def test_one_that_is_not_here_is_not_fetched_offline(studio: Services, star: Path) -> None:
    recipe = studio.catalogue.resolve(
        parse_request(
            {
                "prompt": "a star",
                "checkpoint": "sd15",
                "control": "canny-sd15",
                "control_image": studio.sources.take(star, "local", "control_image"),
            }
        )
    )
    with pytest.raises(DownloadFailed):
        studio.generation._additions.controls.ready(recipe)


def test_on_the_command_line(cli: Cli, star: Path, tmp_path: Path) -> None:
    code, out, err = cli(
        "generate", PROMPTS[0], "--steps", "12", "--seed", "3", "--control", EDGES, "--control-image", str(star),
        "--out", str(tmp_path / "kept"),
    )  # fmt: skip
    assert code == 0, err
    assert overlap(opened(Path(out.strip())), opened(star)) > 0.6
    assert cli("generate", "a star", "--control", EDGES)[0] == 2


def test_a_folder_of_diffusers_takes_its_place(engine: Engine, star: Path, tmp_path: Path) -> None:
    """The same ControlNet, written as diffusers writes one, draws the same; one of another family is refused."""
    weights = PROJECT_ROOT / "engines" / "pocket" / "weights"
    unet = UNet2DConditionModel.from_pretrained(weights / "pocket-sd15" / "unet", dtype=torch.float32)
    values = {"seed": 8, "num_inference_steps": 4, "control": EDGES}
    settings = Settings(data_dir=tmp_path, offline=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as services:
        values["control_image"] = services.sources.take(star, "local", "control_image")
        (packed,) = services.generate(PROMPTS[0], **values)
        folder = settings.controls_dir / EDGES
        unpacked(unet, load_file(weights / "controls" / f"{EDGES}.safetensors")).save_pretrained(folder)
        (whole,) = services.generate(PROMPTS[0], **values)
        assert whole.environment["control"] != packed.environment["control"]
        difference = np.asarray(made(services, whole), int) - np.asarray(made(services, packed), int)
        assert np.abs(difference).max() <= 1
        other = UNet2DConditionModel.from_pretrained(weights / "pocket-sdxl" / "unet", dtype=torch.float32)
        ControlNetModel.from_unet(other).save_pretrained(folder)
        with pytest.raises(StudioError, match="was made for UNets that are told"):
            services.generate(PROMPTS[0], **values)
        (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
        with pytest.raises(StudioError, match="diffusion_pytorch_model"):
            services.generate(PROMPTS[0], **values)


def test_one_of_the_hub_is_fetched_once(
    studio: Services, star: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = studio.catalogue.resolve(
        parse_request(
            {
                "prompt": "a star",
                "checkpoint": "sd15",
                "control": "canny-sd15",
                "control_image": studio.sources.take(star, "local", "control_image"),
            }
        )
    )
    weights = save({"controlnet_mid_block.weight": torch.zeros(4)})
    files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": weights, "README.md": b"no need of it"}
    forget_the_machine(monkeypatch, tmp_path)
    told: list[int] = []
    with served({"lllyasviel/control_v11p_sd15_canny": files}) as hub:
        controls = ControlService(
            studio.catalogue, studio.sources, tmp_path / "controls", offline=False, endpoint=hub.endpoint
        )
        for _ in range(2):
            steering = controls.ready(recipe, on_fetch=lambda done, total: told.append(done))
            assert steering is not None and steering.path == tmp_path / "controls" / "canny-sd15"
        assert hub.large_paths() == ["diffusion_pytorch_model.safetensors"]
    close_session()
    assert (steering.path / "diffusion_pytorch_model.safetensors").read_bytes() == weights
    assert not (steering.path / "README.md").exists() and max(told) >= len(weights)
