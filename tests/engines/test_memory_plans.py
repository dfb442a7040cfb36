"""Whatever is done to save memory, the picture stays the same; and when memory runs out, the work goes on with less."""

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

import engines.pool
from engines.base import ChosenAdapter, Step
from engines.devices import Device
from engines.failures import is_out_of_memory
from engines.forwards import instead_of_forward
from engines.memory import release_memory
from engines.plans import Wishes
from engines.pocket.build.autoencoder import to_pixels
from engines.pocket.checker import judge
from engines.pocket.world import Scene, Thing, render
from engines.pool import PipelinePool
from engines.relief import in_halves, in_tiles
from engines.stable_diffusion import StableDiffusionEngine
from studio.domain.catalogue import Catalogue
from studio.domain.errors import OutOfMemory
from studio.domain.memory import Placement
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.domain.tags import AdapterUse
from studio.settings import PROJECT_ROOT

CPU = Device(name="cpu", dtype=torch.float32)
Make = Callable[..., Image.Image]


def engine_with(catalogue: Catalogue, folder: Path, wishes: Wishes, device: Device = CPU) -> StableDiffusionEngine:
    return StableDiffusionEngine(PipelinePool(PROJECT_ROOT, folder, device, offline=True, wishes=wishes), catalogue)


@pytest.fixture
def recipe(catalogue: Catalogue) -> ResolvedRequest:
    prompt = "a yellow heart above a purple square on a navy background"
    return catalogue.resolve(GenerationRequest(prompt=prompt, negative_prompt="red", seed=8, num_inference_steps=4))


def picture_of(
    engine: StableDiffusionEngine,
    recipe: ResolvedRequest,
    adapters: tuple[ChosenAdapter, ...] = (),
    on_step: Callable[[Step], None] = lambda step: None,
) -> Any:
    prompts = (recipe.prompt, recipe.negative_prompt)
    return engine.generate(recipe, prompts, adapters, cancelled=lambda: False, on_step=on_step)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> ChosenAdapter:
    """A DoRA, which needs the numbers of the weight that it changes, and a LoRA of a kernel and of the text encoder."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    attention, kernel = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", "lora_unet_conv_in"
    text = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    tensors = {
        f"{attention}.lora_down.weight": normal(4, 192),
        f"{attention}.lora_up.weight": normal(192, 4),
        f"{attention}.dora_scale": normal(192, 1).abs() + 1,
        f"{kernel}.lora_down.weight": normal(4, 4, 3, 3),
        f"{kernel}.lora_up.weight": normal(64, 4, 1, 1),
        f"{text}.lora_down.weight": normal(4, 128),
        f"{text}.lora_up.weight": normal(128, 4),
    }
    path = tmp_path_factory.mktemp("adapters") / "mixed.safetensors"
    save_file(tensors, path)
    return ChosenAdapter(use=AdapterUse(adapter="mixed"), path=path)


def test_wherever_weights_are_the_picture_is_the_same_to_the_bit(
    catalogue: Catalogue, tmp_path: Path, recipe: ResolvedRequest, adapter: ChosenAdapter
) -> None:
    same_wherever_weights_are(catalogue, tmp_path, recipe, adapter, CPU, ("resident", "mapped", "model_offload"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_wherever_weights_are_a_gpu_draws_the_same_picture(
    catalogue: Catalogue, tmp_path: Path, recipe: ResolvedRequest, adapter: ChosenAdapter
) -> None:
    gpu = Device(name="cuda", dtype=torch.float16)
    placements = ("resident", "model_offload", "sequential_offload")
    same_wherever_weights_are(catalogue, tmp_path, recipe, adapter, gpu, placements)


def same_wherever_weights_are(
    catalogue: Catalogue,
    folder: Path,
    recipe: ResolvedRequest,
    adapter: ChosenAdapter,
    device: Device,
    placements: tuple[Placement, ...],
) -> None:
    pictures = {}
    for placement in placements:
        engine = engine_with(catalogue, folder, Wishes(placement=placement), device)
        plain = picture_of(engine, recipe).image
        changed = picture_of(engine, recipe, (adapter,)).image
        assert picture_of(engine, recipe).image.tobytes() == plain.tobytes(), placement
        assert np.abs(np.asarray(changed, dtype=int) - np.asarray(plain, dtype=int)).max() > 20
        pictures[placement] = plain.tobytes() + changed.tobytes()
    assert len(set(pictures.values())) == 1


def test_mapped_weights_are_written_once_and_leave_when_the_checkpoint_changes(
    catalogue: Catalogue, tmp_path: Path, recipe: ResolvedRequest
) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (tmp_path / ".mapped").rglob("*.safetensors")}

    picture_of(engine_with(catalogue, tmp_path, Wishes(placement="mapped")), recipe)
    first = files()
    assert {path.stem for path in first} == {"unet", "text_encoder", "vae"}
    picture_of(engine_with(catalogue, tmp_path, Wishes(placement="mapped")), recipe)
    assert files() == first
    (old,) = (tmp_path / ".mapped" / "pocket-sd15").iterdir()
    old.rename(old.with_name("other-weights"))
    picture_of(engine_with(catalogue, tmp_path, Wishes(placement="mapped")), recipe)
    assert [path.name for path in (tmp_path / ".mapped" / "pocket-sd15").iterdir()] == [old.name]


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    folder = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
    return UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).eval()


def test_halves_of_guidance_compute_the_same(unet: UNet2DConditionModel) -> None:
    generator = torch.Generator().manual_seed(0)
    noisy, told = torch.randn(2, 4, 24, 16, generator=generator), torch.randn(2, 77, 128, generator=generator)
    with torch.inference_mode():
        expected = unet(noisy, 500, told).sample
        with instead_of_forward(unet, in_halves):
            assert torch.allclose(unet(noisy, 500, encoder_hidden_states=told)[0], expected, atol=1e-5)
        assert torch.equal(unet(noisy, 500, told).sample, expected)


def test_a_picture_decoded_in_tiles_shows_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.relief.TILE_PX", 128)
    scene = Scene(background="navy", things=(Thing(colour="yellow", shape="heart"),))
    folder = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32).eval()
    with torch.inference_mode():
        latents = vae.encode(to_pixels([np.asarray(render(scene, 0, 192))])).latent_dist.mode()
        expected = vae.decode(latents).sample
        with in_tiles(vae):
            tiled = vae.decode(latents).sample
        assert not torch.equal(tiled, expected)
        shown = tiled[0].clamp(-1, 1).add(1).mul(127.5).round().permute(1, 2, 0).byte().numpy()
        assert judge(Image.fromarray(shown), scene).correct
        assert torch.equal(vae.decode(latents).sample, expected)


@pytest.fixture
def tight(catalogue: Catalogue, tmp_path: Path) -> StableDiffusionEngine:
    return engine_with(catalogue, tmp_path, Wishes())


def failing(times: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work` that runs out of memory the first `times` times."""
    left = [times]

    def worked(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return work(*args, **kwargs)

    return worked


SEAMS = {
    "load": (engines.pool, "load"),
    "step": (UNet2DConditionModel, "forward"),
    "decode": (AutoencoderKL, "decode"),
}


@pytest.mark.parametrize("place", SEAMS)
def test_out_of_memory_is_tried_again_with_less_and_draws_the_same_picture(
    tight: StableDiffusionEngine, recipe: ResolvedRequest, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    undisturbed = picture_of(tight, recipe).image
    if place == "load":
        tight._pool._loaded.clear()
    owner, name = SEAMS[place]
    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(1, getattr(owner, name)))
        picture = picture_of(tight, recipe, on_step=lambda step: steps.append(step.step))
    assert picture.environment["memory"] == "attention in slices"
    assert np.abs(np.asarray(picture.image, dtype=int) - np.asarray(undisturbed, dtype=int)).max() <= 1
    assert steps == [1, 2, 3, 4], "finished latents are not made twice"
    assert picture_of(tight, recipe).image.tobytes() == undisturbed.tobytes()


def test_out_of_memory_in_the_middle_begins_again_with_the_same_noise(
    tight: StableDiffusionEngine, recipe: ResolvedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = picture_of(tight, recipe).image
    forward, calls = UNet2DConditionModel.forward, []

    def late(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return forward(*args, **kwargs)

    steps: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "forward", late)
        picture = picture_of(tight, recipe, on_step=lambda step: steps.append(step.step))
    assert steps == [1, 2, 1, 2, 3, 4]
    assert np.abs(np.asarray(picture.image, dtype=int) - np.asarray(undisturbed, dtype=int)).max() <= 1


@pytest.mark.usefixtures("swept_heap")
def test_a_hundred_times_out_of_memory_leaves_the_next_job_and_its_memory_as_before(
    tight: StableDiffusionEngine, recipe: ResolvedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = recipe.model_copy(update={"guidance_scale": 1.0, "num_inference_steps": 1})
    process, failures = psutil.Process(), 0

    def always(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        failures += 1
        held = torch.ones(4_000_000)  # what a traceback would keep
        raise torch.OutOfMemoryError(f"out of memory with {len(held)} numbers held")

    def fail(times: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(UNet2DConditionModel, "forward", always)
            while failures < times:
                with pytest.raises(OutOfMemory, match="at the very least") as caught:
                    picture_of(tight, small)
                assert "smaller picture" in caught.value.hint

    def memory_after_a_picture() -> tuple[bytes, int, int]:
        """Bytes in tensors, and the least of three readings of the process: its allocator keeps now more, now less."""
        readings = []
        for _ in range(3):
            drawn = picture_of(tight, recipe).image.tobytes()
            release_memory()
            readings.append(process.memory_info().rss)
        return drawn, sum(item.nbytes for item in gc.get_objects() if type(item) is torch.Tensor), min(readings)

    fail(20)  # what loading and failing take once and for all
    undisturbed, held, before = memory_after_a_picture()
    fail(120)
    drawn, held_after, after = memory_after_a_picture()
    assert drawn == undisturbed
    assert held_after <= 1.01 * held + 1_000_000
    assert after <= 1.03 * before, f"{before} bytes before, {after} after"


def test_what_cannot_fit_is_refused_before_anything_is_loaded(
    catalogue: Catalogue, tmp_path: Path, recipe: ResolvedRequest
) -> None:
    engine = engine_with(catalogue, tmp_path, Wishes(memory_bytes=1_000_000))
    with pytest.raises(OutOfMemory, match=r"128 × 128 px takes about .* and .* is free"):
        picture_of(engine, recipe)
    assert engine.state().loaded == ()


def test_a_checkpoint_that_is_exchanged_while_it_is_loaded_is_loaded_anew(
    catalogue: Catalogue, tmp_path: Path, recipe: ResolvedRequest
) -> None:
    folder = tmp_path / "models" / "sd15"
    shutil.copytree(PROJECT_ROOT / "engines/pocket/weights/pocket-sd15", folder)
    engine = engine_with(catalogue, tmp_path / "models", Wishes())
    asked = recipe.model_copy(update={"checkpoint": "sd15"})
    first = picture_of(engine, asked)
    weights = next((folder / "vae").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1000:] = bytes(1000)
    weights.write_bytes(content)
    second = picture_of(engine, asked)
    assert second.environment["checkpoint_sha256"] != first.environment["checkpoint_sha256"]
    assert second.image.tobytes() != first.image.tobytes()
    shutil.rmtree(folder)  # gone, it is still in memory
    assert picture_of(engine, asked).image.tobytes() == second.image.tobytes()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_allocators_word_for_it_is_known(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """These tests open many pipelines; the next one begins without them."""
    yield
    release_memory()
