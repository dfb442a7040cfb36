"""Adapters to and from the hub: what would be put there can be looked at, and a hub on this machine takes and gives."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard, close_session
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from engines.adapters import target_of
from engines.attaching import AttachedAdapter, attached
from engines.loading import load
from lora_registry.store import AdapterStore
from lora_registry.weights import load_weights
from studio.domain.adapter import stated_base
from studio.domain.catalogue import Catalogue
from studio.domain.errors import CorruptModel, DownloadFailed, InvalidRequest, NotFound, UploadFailed
from studio.publication import pull, push, write_publication
from studio.services import Services
from studio.settings import PROJECT_ROOT, Settings
from tests.engines.hub import FakeHub, forget_the_machine, served, use
from tests.engines.test_adapters import adapter_file as large_adapter
from tests.engines.test_adapters import noise_pred
from tests.studio.adapter_files import adapter_file
from tests.studio.conftest import Cli

POCKET = PROJECT_ROOT / "engines" / "pocket" / "weights" / "pocket-sd15"
TOKEN = "hf_thisIsASecretThatNobodyReads"
METADATA = {
    **stated_base("sd15", is_v=False), "modelspec.license": "CreativeML Open RAIL-M", "ss_sd_model_name": "sd14",
    "modelspec.trigger_phrase": "inkwash", "ss_train_data_dir": "/srv/me/photos",
}  # fmt: skip


@pytest.fixture
def online(settings: Settings) -> Settings:
    return settings.model_copy(update={"offline": False})


@pytest.fixture
def store(online: Settings, tmp_path: Path) -> AdapterStore:
    """With `ink`, whose owner has notes and a preview."""
    store = AdapterStore(online.adapters_dir)
    store.add(adapter_file(tmp_path / "ink.safetensors", metadata=METADATA))
    store.update("ink", {"title": "Ink *wash*", "notes": "my secret notes", "lora_scale": 0.8})
    Image.new("RGB", (8, 8), "red").save(tmp_path / "preview.png")
    store.set_preview("ink", (tmp_path / "preview.png").read_bytes())
    return store


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    forget_the_machine(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with served({}) as running:
        use(monkeypatch, running)
        yield running
    close_session()


def test_the_folder_says_what_it_is_and_leaves_out_what_is_private(
    store: AdapterStore, catalogue: Catalogue, online: Settings, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    files = write_publication(store, catalogue, online, "ink", "me/ink", out)
    assert files == ("README.md", "ink.safetensors", "pytorch_lora_weights.safetensors", "samples/0.png")
    card = ModelCard.load(out / "README.md")
    assert card.data.to_dict() == {
        "base_model": "CompVis/stable-diffusion-v1-4",
        "instance_prompt": "inkwash",
        "library_name": "diffusers",
        "license": "creativeml-openrail-m",
        "pipeline_tag": "text-to-image",
        "tags": ["text-to-image", "diffusers", "lora", "stable-diffusion"],
        "widget": [{"text": "inkwash", "output": {"url": "samples/0.png"}}],
    }
    assert "# Ink \\*wash\\*" in card.text and "python -m studio adapters pull me/ink" in card.text
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"secret" not in everything and b"/srv/me" not in everything
    with pytest.raises(InvalidRequest, match="'out' is not empty"):
        write_publication(store, catalogue, online, "ink", "me/ink", out)


@pytest.mark.parametrize("stated", ["", "My own terms, see: https://x"])
def test_a_licence_that_the_hub_does_not_know_is_named(
    catalogue: Catalogue, online: Settings, tmp_path: Path, stated: str
) -> None:
    store = AdapterStore(online.adapters_dir)
    store.add(adapter_file(tmp_path / "a.safetensors", metadata={"modelspec.license": stated} if stated else None))
    write_publication(store, catalogue, online, "a", "me/a", tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert data.get("license") == ("other" if stated else None) and data.get("license_name") == (stated or None)
    assert "base_model" not in data and "instance_prompt" not in data and "widget" not in data


def test_diffusers_draws_with_the_folder_what_the_studio_draws(
    catalogue: Catalogue, online: Settings, tmp_path: Path
) -> None:
    loaded = load(catalogue.checkpoint("pocket-sd15"), POCKET, "cpu", torch.float32)
    source = large_adapter(loaded, tmp_path / "style.safetensors")
    store = AdapterStore(online.adapters_dir)
    store.add(source)
    write_publication(store, catalogue, online, "style", "me/style", tmp_path / "out")
    theirs = StableDiffusionPipeline.from_pretrained(POCKET, dtype=torch.float32, safety_checker=None)
    with torch.inference_mode():
        plain = noise_pred(loaded.pipeline)
        with attached(loaded.pipeline, [AttachedAdapter(weights=load_weights(source, target_of(loaded)))]):
            expected = noise_pred(loaded.pipeline)
        for name in ("style.safetensors", "pytorch_lora_weights.safetensors"):
            theirs.load_lora_weights(tmp_path / "out", weight_name=name)
            assert float((noise_pred(theirs) - expected).abs().max()) < 1e-4
            theirs.unload_lora_weights()
    assert float((expected - plain).abs().max()) > 1e-3


def test_what_is_pushed_is_that_folder_and_can_be_pulled(
    hub: FakeHub, store: AdapterStore, catalogue: Catalogue, online: Settings, tmp_path: Path
) -> None:
    address = push(store, catalogue, online, "ink", "me/ink", is_private=True)
    assert address == f"{hub.endpoint}/me/ink" and hub.private == {"me/ink": True}
    assert all(ask.authorization == f"Bearer {TOKEN}" for ask in hub.asked if "/commit/" in ask.path)
    names = write_publication(store, catalogue, online, "ink", "me/ink", tmp_path / "out")
    assert hub.repositories["me/ink"].keys() == set(names)
    assert hub.repositories["me/ink"]["README.md"] == (tmp_path / "out" / "README.md").read_bytes()
    assert not any(TOKEN.encode() in contents for contents in hub.repositories["me/ink"].values())

    elsewhere = AdapterStore(tmp_path / "elsewhere")
    told: list[tuple[int, int]] = []
    added = pull(elsewhere, online, "me/ink:ink.safetensors", None, lambda done, total: told.append((done, total)))
    assert (added.entry.id, added.is_new, added.entry.trigger_words) == ("ink", True, ("inkwash",))
    assert added.entry.card.notes == "From me/ink on the Hugging Face hub: ink.safetensors."
    assert told[-1][0] == told[-1][1] > 0
    before = load_file(store.path("ink"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(elsewhere.path("ink")).items())
    other = pull(elsewhere, online, "me/ink")  # the file for diffusers, named after the repository
    assert (other.entry.id, other.is_new) == ("ink-2", True)
    with safe_open(elsewhere.path("ink-2"), "pt") as file:
        assert "ss_train_data_dir" not in file.metadata()


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("me", InvalidRequest, "'me' is no id of a repository on the Hugging Face hub. Give it as its page does"),
        ("me/gone", DownloadFailed, "There is no repository me/gone on the hub that you may read."),
        ("me/several", NotFound, "me/several has several files. Name one, as me/several:FILE: a.safetensors, sub/b"),
        ("me/several:c.safetensors", NotFound, "me/several has no 'c.safetensors'. It has: a.safetensors"),
        ("me/several:../../x", NotFound, "has no '../../x'"),
        ("me/pickle", NotFound, "me/pickle only has lora.bin, a pickle, which can run code."),
        ("me/words", NotFound, "me/words has no .safetensors file."),
        ("me/odd", CorruptModel, "is no .safetensors file"),
    ],
)
def test_what_cannot_be_pulled_is_said(
    hub: FakeHub, store: AdapterStore, online: Settings, source: str, error: type[Exception], said: str
) -> None:
    hub.repositories |= {
        "me/several": {"a.safetensors": b"a", "sub/b.safetensors": b"b"},
        "me/pickle": {"lora.bin": b"\x80"},
        "me/words": {"README.md": b"x"},
        "me/odd": {"a.safetensors": b"no weights at all"},
    }
    with pytest.raises(error) as caught:
        pull(store, online, source)
    assert said in str(caught.value) and str(online.data_dir) not in str(caught.value)
    assert [entry.id for entry in store.entries()] == ["ink"]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "The hub does not let you write to me/ink: it answers 403. Check the owner's name"),
        (500, "me/ink could not be put on the hub: it answers 500."),
    ],
)
def test_what_cannot_be_pushed_is_said_without_the_token(
    hub: FakeHub, store: AdapterStore, catalogue: Catalogue, online: Settings, caplog: Any, status: int, said: str
) -> None:
    hub.faults.status = status
    with caplog.at_level(logging.DEBUG), pytest.raises(UploadFailed) as caught:
        push(store, catalogue, online, "ink", "me/ink", is_private=False)
    assert said in str(caught.value)
    assert TOKEN not in caplog.text and TOKEN not in str(caught.value)


def test_without_a_login_or_offline_nothing_is_sent(
    hub: FakeHub, services: Services, store: AdapterStore, catalogue: Catalogue, online: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(UploadFailed, match="the studio is offline"):
        push(store, catalogue, services.settings, "ink", "me/ink", is_private=False)
    with pytest.raises(DownloadFailed, match="me/ink is not on this machine and the studio is offline"):
        pull(store, services.settings, "me/ink")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UploadFailed, match="You are not logged in to the hub"):
        push(store, catalogue, online, "ink", "me/ink", is_private=False)
    with pytest.raises(InvalidRequest, match="'ink' is no id of a repository"):
        push(store, catalogue, online, "ink", "ink", is_private=False)
    assert hub.asked == []


def test_the_command_line_pushes_and_pulls(
    hub: FakeHub, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("adapters", "add", str(adapter_file(tmp_path / "ink.safetensors", metadata=METADATA)))
    code, out, _ = cli("adapters", "push", "ink", "me/ink", "--to", str(tmp_path / "look"))
    assert code == 0 and out.splitlines()[0] == str(tmp_path / "look" / "README.md") and hub.asked == []
    monkeypatch.setenv("FLASH_STUDIO_OFFLINE", "0")
    assert cli("adapters", "push", "ink", "me/ink")[:2] == (0, f"{hub.endpoint}/me/ink\n")
    assert hub.private == {"me/ink": False}
    assert cli("adapters", "remove", "ink")[0] == 0
    assert cli("adapters", "pull", "me/ink:ink.safetensors", "--name", "back")[:2] == (0, "back\n")
    assert cli("adapters", "pull", "me/ink:ink.safetensors")[1] == "back has the same weights already\n"
