"""Adapters of the store merged into one: it draws what they draw together, and its card says what it came of."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_registry.formats import read_adapter
from lora_registry.store import AdapterStore
from lora_registry.unfitted import load_unfitted
from studio.adapter_merging import merge
from studio.domain.errors import Incompatible, InvalidRequest, NotFound, StorageFailed
from studio.domain.merging import MERGE_KEY, MERGE_METHODS
from studio.services import Services
from studio.settings import PROJECT_ROOT
from tests.studio.adapter_files import MODULE, adapter_file
from tests.studio.conftest import Cli

TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
SECOND = "mid_block_attentions_0_transformer_blocks_0_attn2_to_v"


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """`ink` changes one module; `gold`, of another rank and alpha, the same one, one more and the text encoder."""
    store = AdapterStore(tmp_path / "adapters")
    words = {"modelspec.trigger_phrase": "inkwash, paper", "modelspec.license": "MIT", "ss_sd_model_name": "a.ckpt"}
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata=words))
    generator = torch.Generator().manual_seed(9)
    tensors: dict[str, Tensor] = {}
    for name, rows in ((f"lora_unet_{MODULE}", 128), (f"lora_unet_{SECOND}", 192), (TEXT, 128)):
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(3, 128, generator=generator) * 0.5,
            f"{name}.lora_up.weight": torch.randn(rows, 3, generator=generator) * 0.5,
            f"{name}.alpha": torch.tensor(1.5),
        }
    metadata = {"modelspec.trigger_phrase": "gilded, paper", "ss_sd_model_name": "a.ckpt"}
    save_file(tensors, tmp_path / "gold.safetensors", metadata)
    store.add(tmp_path / "gold.safetensors")
    return store


def deltas(store: AdapterStore, adapter_id: str) -> dict[tuple[str, str], Tensor]:
    weights = load_unfitted(read_adapter(store.path(adapter_id))).weights
    return {(part, path): change.product() for part, changes in weights.items() for path, change in changes.items()}


def total(store: AdapterStore, *of: tuple[str, float]) -> dict[tuple[str, str], Tensor]:
    sums: dict[tuple[str, str], Tensor] = {}
    for adapter_id, weight in of:
        for place, delta in deltas(store, adapter_id).items():
            sums[place] = sums.get(place, torch.zeros_like(delta)) + weight * delta
    return sums


def assert_near(given: dict[tuple[str, str], Tensor], expected: dict[tuple[str, str], Tensor]) -> None:
    assert given.keys() == expected.keys()
    for place, delta in given.items():
        off, size = (float(numbers.norm()) for numbers in (delta - expected[place], expected[place]))
        assert off <= 1e-3 * size, place


@pytest.mark.parametrize(("method", "rank"), [("cat", None), ("svd", 5)])
def test_the_file_adds_what_both_add(store: AdapterStore, method: str, rank: int | None) -> None:
    added = merge(store, [("ink", 0.8), ("gold", -0.5)], "ink and gold", method, rank=rank)
    assert (added.is_new, added.entry.id) == (True, "ink and gold")
    assert_near(deltas(store, added.entry.id), total(store, ("ink", 0.8), ("gold", -0.5)))
    written = load_file(store.path(added.entry.id))
    assert f"{TEXT}.lora_down.weight" in written and f"lora_unet_{MODULE}.alpha" in written


def test_one_and_nothing_of_another_is_the_first(store: AdapterStore) -> None:
    added = merge(store, [("gold", 1.0), ("ink", 0.0)], "gold again")
    assert_near(deltas(store, added.entry.id), deltas(store, "gold"))
    assert added.entry.adapter and added.entry.adapter.ranks == (3,)


def test_the_card_and_the_file_say_what_it_came_of(store: AdapterStore) -> None:
    store.update("gold", {"trigger_words": ["gilded", "gold leaf"]})
    merge(store, [("ink", 0.8), ("gold", 0.5)], "Both", "dare_ties_svd", rank=4, density=0.7, seed=3)
    entry = store.inspect("Both")
    assert (entry.title, entry.trigger_words) == ("Both", ("inkwash", "paper", "gilded", "gold leaf"))
    assert entry.card.notes == "Merged by dare_ties_svd, rank 4, density 0.7: ink × 0.8, gold × 0.5."
    assert entry.adapter and entry.adapter.ranks == (4,) and entry.adapter.notes == ()
    with safe_open(store.path("Both"), "pt") as file:
        metadata = file.metadata()
    hashes = {i: store.inspect(i).adapter.tensor_sha256 for i in ("ink", "gold")}
    assert json.loads(metadata[MERGE_KEY]) == {
        "adapters": [
            {"id": "ink", "sha256": hashes["ink"], "weight": 0.8},
            {"id": "gold", "sha256": hashes["gold"], "weight": 0.5},
        ],
        "method": "dare_ties_svd", "rank": 4, "density": 0.7, "majority_sign": "total", "seed": 3,
    }  # fmt: skip
    assert metadata["modelspec.trigger_phrase"] == "inkwash, paper, gilded, gold leaf"
    assert metadata["modelspec.merged_from"] == "ink, gold"
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4")
    assert (metadata["modelspec.license"], metadata["ss_sd_model_name"]) == ("MIT", "a.ckpt")


def test_names_of_two_layouts_meet_in_one_module(store: AdapterStore, tmp_path: Path) -> None:
    """SDXL files of kohya's trainer name modules as LDM does, those of diffusers otherwise."""
    ours, theirs = (
        "down_blocks_2_attentions_1_transformer_blocks_3_attn2_to_k",
        "input_blocks_8_1_transformer_blocks_3_attn2_to_k",
    )
    for name, module in (("ours", ours), ("theirs", theirs)):
        generator = torch.Generator().manual_seed(len(name))
        tensors = {
            f"lora_unet_{module}.lora_down.weight": torch.randn(4, 2048, generator=generator),
            f"lora_unet_{module}.lora_up.weight": torch.randn(1280, 4, generator=generator),
        }
        save_file(tensors, tmp_path / f"{name}.safetensors")
        store.add(tmp_path / f"{name}.safetensors")
    merged = merge(store, [("ours", 1.0), ("theirs", 1.0)], "met", "cat").entry
    assert merged.adapter and (merged.adapter.module_count, merged.adapter.family) == (1, "sdxl")
    assert_near(deltas(store, "met"), total(store, ("ours", 1.0), ("theirs", 1.0)))
    assert merged.adapter.metadata["ss_base_model_version"] == "sdxl_base_v1-0"
    assert merged.adapter.metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


def test_the_same_merger_is_told_instead_of_kept_twice(store: AdapterStore) -> None:
    both = [("ink", 1.0), ("gold", 1.0)]
    first, again = (merge(store, both, "twice", "dare_ties_svd", seed=4) for _ in range(2))
    assert (first.is_new, again.is_new, again.entry.id) == (True, False, "twice")
    other = merge(store, both, "twice", "dare_ties_svd", seed=5)
    assert (other.is_new, other.entry.id) == (True, "twice-2")


@pytest.mark.parametrize(
    ("portions", "asked", "field", "said"),
    [
        ([("ink", 1.0)], {}, "portions", "no adapters that can be merged. Name at least two"),
        ([("ink", 1.0), ("gold", 9.0)], {}, "portions", "from -4 to 4"),
        ([("ink", 1.0), ("gold", float("nan"))], {}, "portions", "from -4 to 4"),
        ([("ink", 0.0), ("gold", 0.0)], {}, "portions", "would change nothing"),
        (
            [("ink", 1.0), ("gold", 1.0)],
            {"method": "mean"},
            "method",
            "'mean', which does not work. There are svd, cat",
        ),
        ([("ink", 1.0), ("gold", 1.0)], {"method": "cat", "rank": 8}, "rank", "what cat makes follows from"),
        ([("ink", 1.0), ("gold", 1.0)], {"density": 0.5}, "density", "Nothing is dropped by svd"),
        ([("ink", 1.0), ("gold", 1.0)], {"method": "ties_svd", "density": 0.0}, "density", "above 0, up to 1"),
        ([("ink", 1.0), ("gold", 1.0)], {"rank": 0}, "rank", "from 1 to 1024"),
        ([("ink", 1.0), ("gold", 1.0)], {"seed": -1}, "seed", "from 0 to"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    store: AdapterStore, portions: list[tuple[str, float]], asked: dict[str, object], field: str, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        merge(store, portions, "none", **asked)
    assert said in str(caught.value) and caught.value.field == field
    assert [entry.id for entry in store.entries()] == ["gold", "ink"]


def test_what_does_not_go_together_is_refused_by_name(store: AdapterStore, tmp_path: Path) -> None:
    for name, width in (("small", 768), ("large", 2048)):
        store.add(adapter_file(tmp_path / f"{name}.safetensors", width=width))
    with pytest.raises(Incompatible, match=r"small for SD 1\.5 and large for SDXL\."):
        merge(store, [("small", 1.0), ("large", 1.0)], "none")
    with pytest.raises(Incompatible, match="ink and small are made for different models"):
        merge(store, [("ink", 1.0), ("small", 1.0)], "none")
    with pytest.raises(NotFound, match="no adapter called 'nobody'"):
        merge(store, [("ink", 1.0), ("nobody", 1.0)], "none")
    assert [entry.id for entry in store.entries()] == ["gold", "ink", "large", "small"]


def test_a_card_that_cannot_be_written_leaves_nothing(store: AdapterStore, tmp_path: Path) -> None:
    class FullDisk(AdapterStore):
        def update(self, adapter_id: str, changes: object) -> None:
            raise StorageFailed(f"The disk is full, {adapter_id} has no card.")

    with pytest.raises(StorageFailed):
        merge(FullDisk(tmp_path / "adapters"), [("ink", 1.0), ("gold", 1.0)], "half")
    assert [path.name for path in (tmp_path / "adapters").iterdir() if path.name.startswith(("half", "."))] == []


def drawn(services: Services, prompt: str) -> NDArray[np.int_]:
    (record,) = services.generate(prompt, num_inference_steps=4, seed=4)
    with Image.open(services.gallery.path(record)) as picture:
        return np.asarray(picture).astype(int)


def test_it_draws_what_both_draw_together(services: Services, store: AdapterStore) -> None:
    for name in ("ink", "gold"):
        services.adapters.store.add(store.path(name))
    merge(services.adapters.store, [("ink", 0.8), ("gold", 0.6)], "both", "cat")
    plain, apart, together = (
        drawn(services, f"a red star {tags}") for tags in ("", "<lora:ink:0.8> <lora:gold:0.6>", "<lora:both>")
    )
    assert np.abs(apart - plain).max() > 30
    assert np.abs(apart - together).max() <= 4


def test_merging_on_the_command_line(cli: Cli, store: AdapterStore) -> None:
    for name in ("ink", "gold"):
        assert cli("adapters", "add", str(store.path(name)))[0] == 0
    both = ("--adapter", "ink:0.8", "--adapter", "gold:-0.5")
    assert cli("adapters", "merge", "Both", *both, "--method", "svd", "--rank", "2")[:2] == (0, "Both\n")
    shown = json.loads(cli("adapters", "show", "Both", "--json", "--model", "pocket-sd15")[1])
    assert (shown["ranks"], shown["verdict"]["fits"]) == ([2], True)
    assert shown["notes_of_owner"] == "Merged by svd, rank 2: ink × 0.8, gold × -0.5."
    seeded = ("--method", "dare_ties_svd", "--density", "0.4", "--seed", "6", "--majority-sign", "frequency")
    assert cli("adapters", "merge", "chance", *both, *seeded)[:2] == (0, "chance\n")
    assert cli("adapters", "merge", "again", *both, *seeded)[1] == "chance has the same weights already\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--adapter", "ink:1"), "Name at least two"),
        (("--adapter", "ink:1", "--adapter", "ink:much"), "The weight in 'ink:much' is no number."),
        (("--adapter", "ink", "--adapter", "ink", "--rank", "many"), "Rank is 'many', which does not work."),
        (("--adapter", "ink", "--adapter", "ink", "--method", "mean"), "There are svd, cat, linear"),
        (("--adapter", "ink", "--adapter", "ink", "--density", "2"), "above 0, up to 1"),
    ],
)
def test_what_is_asked_wrongly_is_told_in_one_line(
    cli: Cli, store: AdapterStore, given: tuple[str, ...], said: str
) -> None:
    assert cli("adapters", "add", str(store.path("ink")))[0] == 0
    code, out, err = cli("adapters", "merge", "none", *given)
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err


def test_the_help_tells_every_method_and_listing_loads_no_torch(cli: Cli, tmp_path: Path) -> None:
    told = cli("adapters", "merge", "--help")[1]
    assert [method for method in MERGE_METHODS if f"{method}:" not in told] == []
    check = (
        "import sys, studio.cli.main; sys.exit(studio.cli.main.main(['adapters', 'list']) or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], cwd=PROJECT_ROOT, capture_output=True).returncode == 0
