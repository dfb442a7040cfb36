"""Checkpoints arrive whole or not at all, over real HTTP, and what goes wrong is said in a sentence."""

import errno
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from filelock import FileLock
from huggingface_hub import close_session

from engines import downloads
from engines import hub as hub_module
from engines.downloads import Fetched, cached, fetch, fetch_file
from engines.hub_files import Source
from studio.domain.errors import DownloadFailed, JobCancelled, StorageFailed, StudioError
from studio.settings import PROJECT_ROOT
from tests.engines.hub import FakeHub, blob_id, forget_the_machine, served
from tests.rights import HAS_RIGHTS, as_nobody

POCKET = PROJECT_ROOT / "engines/pocket/weights/pocket-sd15"
TITLE = "Stable Diffusion 1.5"
TOKEN = "hf_canary"
MODEL = Source(hub_id="owner/model")
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


def weights(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)


def repository(**changes: bytes) -> dict[str, bytes]:
    """A pipeline of three parts, 1.5 MB of weights in all."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return {
        "README.md": b"words",
        "model_index.json": json.dumps(index).encode(),
        "scheduler/scheduler_config.json": b"{}",
        "unet/config.json": b'{"unet": 1}',
        UNET: weights("unet", 1_000_000),
        "vae/config.json": b'{"vae": 1}',
        VAE: weights("vae", 500_000),
        **changes,
    }


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget_the_machine(monkeypatch, tmp_path)
    yield
    close_session()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with served({"owner/model": repository()}) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "sd15"


def get(hub: FakeHub, folder: Path, *sources: Source, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "prefer_half": False,
        "offline": False,
        "on_progress": lambda _: None,
        "cancelled": lambda: False,
        "endpoint": hub.endpoint,
    }
    return fetch(TITLE, sources or (MODEL,), folder, **{**settings, **changes})


def refusal(kind: type[StudioError], folder: Path, ask: Callable[[], object]) -> str:
    """What a person reads when `ask` fails: never a folder of this machine, an address with a seal, or the token."""
    with pytest.raises(kind) as caught:
        ask()
    text = str(caught.value)
    assert caught.value.hint
    assert not any(secret in text for secret in (str(folder.parent), "Signature", TOKEN, "Traceback"))
    assert not folder.exists()
    return text


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_arrives_whole_and_leaves_nothing_else(hub: FakeHub, folder: Path) -> None:
    assert get(hub, folder) == folder
    expected = repository()
    del expected["README.md"]
    assert contents(folder) == expected
    assert [path.name for path in folder.parent.iterdir()] == ["sd15"]


def test_what_is_there_is_not_asked_for_again(hub: FakeHub, folder: Path) -> None:
    get(hub, folder)
    hub.asked.clear()
    (leftover := folder.with_name("sd15.part")).mkdir()
    assert get(hub, folder, offline=True) == folder
    assert hub.asked == []
    assert not leftover.exists()


def test_a_fetched_pipeline_is_opened_by_diffusers(folder: Path) -> None:
    files = contents(POCKET)
    index = json.loads(files["model_index.json"])
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    files["model_index.json"] = json.dumps(index).encode()
    with served({"owner/model": files}) as hub:
        get(hub, folder)
    assert not (folder / "README.md").exists()
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    assert pipeline.unet.config.cross_attention_dim == 128


def test_half_precision_is_fetched_under_the_names_that_diffusers_opens(folder: Path) -> None:
    files = contents(POCKET)
    for name in list(files):
        if name.endswith(".safetensors") and "unet" not in name:
            files[name.replace(".safetensors", ".fp16.safetensors")] = files.pop(name)
    shards = [name for name in files if "-of-" in name]
    index = files.pop("unet/diffusion_pytorch_model.safetensors.index.json").decode()
    for name in shards:
        files[half := name.replace("model-", "model.fp16-")] = files.pop(name)
        index = index.replace(Path(name).name, Path(half).name)
    files["unet/diffusion_pytorch_model.safetensors.index.fp16.json"] = index.encode()
    with served({"owner/model": files}) as hub:
        get(hub, folder, prefer_half=True)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, safety_checker=None)
    assert pipeline.vae.config.latent_channels == 4


def test_progress_only_grows_and_ends_at_the_total(hub: FakeHub, folder: Path) -> None:
    hub.faults.pause_s = 0.02
    told: list[Fetched] = []
    get(hub, folder, on_progress=told.append)
    done = [step.done_bytes for step in told]
    assert len(done) > 2
    assert done == sorted(done)
    assert {step.total_bytes for step in told} == {done[-1]} == {sum(map(len, contents(folder).values()))}
    assert {UNET, VAE} & {step.file for step in told}


def test_a_connection_that_breaks_once_is_taken_up_where_it_broke(hub: FakeHub, folder: Path) -> None:
    hub.faults.cut_after = 400_000
    get(hub, folder)
    assert contents(folder)[UNET] == weights("unet", 1_000_000)
    ranges = [ask.range for ask in hub.asked if ask.path.startswith("/cdn/")]
    assert [bool(asked) for asked in ranges] == [False, True, False]
    assert hub.large_bytes < 1.2 * 1_500_000


def test_a_later_call_goes_on_where_a_dead_connection_left_off(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "STALL_S", 0.5)
    hub.faults.cut_after = 700_000
    hub.faults.stays_cut = True
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert "does not answer" in text and "what has arrived is kept" in text
    assert sum(map(len, contents(folder.with_name("sd15.part")).values())) > 600_000
    hub.faults.cut_after = None
    hub.asked.clear()
    told: list[Fetched] = []
    get(hub, folder, on_progress=told.append)
    assert contents(folder)[UNET] == weights("unet", 1_000_000)
    assert hub.asked[-1].range is None and any(ask.range for ask in hub.asked)
    assert hub.large_bytes < 1.2 * 1_500_000
    assert told[0].done_bytes > 600_000


def test_a_process_that_is_killed_leaves_what_the_next_one_goes_on_with(hub: FakeHub, folder: Path) -> None:
    hub.faults.pause_s = 0.05
    call = (
        "from pathlib import Path; from engines.downloads import fetch; from engines.hub_files import Source; "
        f"fetch('x', [Source(hub_id='owner/model')], Path({str(folder)!r}), prefer_half=False, offline=False, "
        f"on_progress=lambda _: None, cancelled=lambda: False, endpoint={hub.endpoint!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", call], cwd=PROJECT_ROOT)
    try:
        wait_until(lambda: hub.large_bytes > 300_000)
    finally:
        process.kill()
        process.wait()
    assert not folder.exists()
    hub.faults.pause_s = 0
    get(hub, folder)
    assert contents(folder)[UNET] == repository()[UNET]
    assert hub.large_bytes < 1.5 * 1_500_000


def test_a_server_without_ranges_starts_over(hub: FakeHub, folder: Path) -> None:
    hub.faults.cut_after = 400_000
    hub.faults.ignores_ranges = True
    told: list[Fetched] = []
    get(hub, folder, on_progress=told.append)
    assert contents(folder)[UNET] == weights("unet", 1_000_000)
    assert [step.done_bytes for step in told] == sorted(step.done_bytes for step in told)


def test_bytes_of_other_contents_are_not_continued(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "STALL_S", 0.5)
    hub.faults.cut_after = 1_200_000
    hub.faults.stays_cut = True
    refusal(DownloadFailed, folder, lambda: get(hub, folder))
    hub.faults.cut_after = None
    changed = repository(**{UNET: weights("new", 1_000_000), VAE: weights("newer", 500_000)})
    hub.repositories["owner/model"] = changed
    get(hub, folder)
    del changed["README.md"]
    assert contents(folder) == changed


@pytest.mark.parametrize("file", [UNET, "unet/config.json"])
def test_a_flipped_bit_is_noticed_and_fetched_anew(hub: FakeHub, folder: Path, file: str) -> None:
    hub.faults.flipped = file
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert f"{file} of {TITLE} arrived damaged" in text and "Try again" in text
    hub.faults.flipped = None
    hub.asked.clear()
    get(hub, folder)
    assert contents(folder)[file] == repository()[file]
    asked = [ask.path.partition("/resolve/")[2].partition("/")[2] for ask in hub.asked]
    assert "scheduler/scheduler_config.json" not in asked and file in asked


def test_a_file_spoilt_while_it_waited_is_fetched_again(hub: FakeHub, folder: Path) -> None:
    hub.faults.flipped = VAE
    refusal(DownloadFailed, folder, lambda: get(hub, folder))
    hub.faults.flipped = None
    spoilt = folder.with_name("sd15.part") / UNET
    spoilt.write_bytes(spoilt.read_bytes()[:-1] + b"x")
    get(hub, folder)
    assert contents(folder)[UNET] == repository()[UNET]


def test_stopping_takes_less_than_a_second_and_keeps_what_came(hub: FakeHub, folder: Path) -> None:
    hub.faults.pause_s = 0.1
    stopped_at = 0.0

    def cancelled() -> bool:
        nonlocal stopped_at
        if hub.large_bytes > 200_000 and not stopped_at:
            stopped_at = time.monotonic()
        return bool(stopped_at)

    with pytest.raises(JobCancelled):
        get(hub, folder, cancelled=cancelled)
    assert time.monotonic() - stopped_at < 5
    assert not folder.exists()
    hub.faults.pause_s = 0
    get(hub, folder)
    assert contents(folder)[UNET] == repository()[UNET]
    assert hub.large_bytes < 1.5 * 1_500_000


def test_stopping_does_not_wait_for_a_hub_that_hangs(hub: FakeHub, folder: Path) -> None:
    hub.faults.hangs = True
    begun = time.monotonic()
    with pytest.raises(JobCancelled):
        get(hub, folder, cancelled=lambda: time.monotonic() - begun > 0.5)
    assert time.monotonic() - begun < 8


def test_an_error_in_the_callers_own_code_ends_the_download(hub: FakeHub, folder: Path) -> None:
    hub.faults.pause_s = 0.05

    def fail(_: Fetched) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        get(hub, folder, on_progress=fail)
    before = hub.large_bytes
    time.sleep(0.3)
    assert hub.large_bytes - before < 200_000


@pytest.mark.parametrize("kind", ["hangs", "refuses"])
def test_a_hub_out_of_reach_is_reported_within_five_seconds(hub: FakeHub, folder: Path, kind: str) -> None:
    endpoint = hub.endpoint
    if kind == "hangs":
        hub.faults.hangs = True
    else:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    begun = time.monotonic()
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder, endpoint=endpoint))
    assert hub_module.FIRST_ANSWER_S + downloads.POLL_S + downloads.LET_GO_S < 5
    assert time.monotonic() - begun < 15  # on a busy machine
    assert text == (
        f"{TITLE} could not be fetched: 127.0.0.1 does not answer. "
        "Check the connection, then try again; what has arrived is kept."
    )


def test_a_hub_in_trouble_is_asked_again_and_then_named(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.statuses = [503, 500, 429]
    get(hub, folder)
    shutil.rmtree(folder)
    monkeypatch.setattr(hub_module, "FIRST_ANSWER_S", 1.0)
    hub.faults.status = 503
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert "127.0.0.1 answers 503" in text and "Try again in a few minutes" in text


def test_a_repository_that_is_gone_gives_way_to_its_mirror(
    hub: FakeHub, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    get(hub, folder, Source(hub_id="old/model"), Source(hub_id="owner/model", revision="refs/pr/9"), MODEL)
    assert contents(folder)[UNET] == repository()[UNET]
    assert "old/model is gone" in caplog.text
    assert "owner/model (refs/pr/9) has no such revision" in caplog.text


def test_when_all_are_gone_all_are_named(hub: FakeHub, folder: Path) -> None:
    hub.repositories["a/words"] = {"README.md": b"moved"}
    sources = (Source(hub_id="old/model"), Source(hub_id="a/words"))
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder, *sources))
    assert text == (
        f"{TITLE} cannot be fetched: old/model is gone; a/words is not a diffusers pipeline. "
        "Choose another one, or put a diffusers folder with .safetensors weights at models/sd15."
    )


def test_pickles_are_never_fetched(hub: FakeHub, folder: Path) -> None:
    pickled = repository(**{"unet/diffusion_pytorch_model.bin": b"cos\nsystem"})
    del pickled[UNET]
    hub.repositories = {"owner/model": pickled, "owner/model@refs/pr/13": repository()}
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert "owner/model has its unet only as a pickle, which can run code" in text
    get(hub, folder, MODEL, Source(hub_id="owner/model", revision="refs/pr/13"))
    assert contents(folder)[UNET] == repository()[UNET]
    assert not any(ask.path.endswith(".bin") for ask in hub.asked)


def test_a_better_autoencoder_takes_the_place_of_the_pipelines_own(hub: FakeHub, folder: Path) -> None:
    better = {"config.json": b'{"better": 1}', "diffusion_pytorch_model.safetensors": weights("better", 300_000)}
    hub.repositories["other/vae"] = {**better, "vae.safetensors": b"single file", "README.md": b""}
    get(hub, folder, Source(hub_id="owner/model", vae_hub_id="other/vae"))
    assert contents(folder / "vae") == better
    assert not any(ask.path.endswith(VAE) for ask in hub.asked)


def test_without_the_better_autoencoder_the_own_one_does(hub: FakeHub, folder: Path) -> None:
    get(hub, folder, Source(hub_id="owner/model", vae_hub_id="other/vae"))
    assert contents(folder)[VAE] == repository()[VAE]


def test_a_licence_to_accept_is_said_with_the_next_step(hub: FakeHub, folder: Path) -> None:
    hub.faults.gated = {"owner/model"}
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert text == (
        "owner/model asks you to accept its licence. Accept it on its page, then log in with `hf auth login`."
    )


@pytest.mark.parametrize(("status", "words"), [(403, "does not let you read"), (418, "answers 418")])
def test_a_refusal_is_said_with_the_next_step(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.status = status
    assert words in refusal(DownloadFailed, folder, lambda: get(hub, folder))


def test_a_login_page_of_the_network_is_recognised(hub: FakeHub, folder: Path) -> None:
    hub.faults.portal = True
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder))
    assert "is not from the hub" in text and "login page" in text


def test_the_login_is_shown_to_the_hub_only(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    get(hub, folder)
    shown = {ask.host.partition(":")[0]: ask.authorization for ask in hub.asked}
    assert shown == {"127.0.0.1": f"Bearer {TOKEN}", "localhost": None}


@pytest.mark.parametrize("by_environment", [False, True])
def test_offline_says_where_to_put_the_weights(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", by_environment)
    text = refusal(DownloadFailed, folder, lambda: get(hub, folder, offline=not by_environment))
    assert "the studio is offline" in text and "models/sd15" in text
    assert hub.asked == []


def test_too_little_space_is_said_before_the_first_weights_come(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder.parent.parent)._replace(free=300_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    text = refusal(StorageFailed, folder, lambda: get(hub, folder))
    assert "0.5 GB are needed, 0.3 GB are free" in text
    assert hub.large_bytes == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_on_the_way_is_said_too(hub: FakeHub, folder: Path) -> None:
    waiting = folder.with_name("sd15.part") / f"{VAE}.{hashlib.sha256(repository()[VAE]).hexdigest()[:12]}.incomplete"
    waiting.parent.mkdir(parents=True)
    waiting.symlink_to("/dev/full")
    text = refusal(StorageFailed, folder, lambda: get(hub, folder))
    assert "The disk is too full" in text and "what has arrived is kept" in text
    assert contents(folder.with_name("sd15.part"))[UNET] == repository()[UNET]


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "'models' cannot be written"), (errno.EIO, "Input/output error")]
)
def test_a_disk_that_cannot_be_written_is_said(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(os, "replace", fail)
    assert words in refusal(StorageFailed, folder, lambda: get(hub, folder))


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs Unix permissions")
def test_a_folder_that_cannot_be_written_is_said_within_five_seconds(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with as_nobody() as place:
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(place / "token"))
        folder = place / "models" / "sd15"
        folder.parent.mkdir(mode=0o500)
        started = time.monotonic()
        text = refusal(StorageFailed, folder, lambda: get(hub, folder))
        assert time.monotonic() - started < 5
        assert "'models' cannot be written" in text and os.listdir(folder.parent) == []


def test_two_downloads_of_one_checkpoint_do_not_mix(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LOCK_TRIES", 2)
    folder.parent.mkdir()
    with FileLock(folder.with_name("sd15.part.lock")):
        assert "is being fetched already" in refusal(DownloadFailed, folder, lambda: get(hub, folder))
    monkeypatch.setattr(downloads, "LOCK_TRIES", 50)
    hub.faults.pause_s = 0.01
    threads = [threading.Thread(target=get, args=(hub, folder)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(folder)[UNET] == repository()[UNET]
    assert hub.large_bytes == 1_500_000


def test_who_comes_second_waits_as_long_as_bytes_come_to_the_first(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "LOCK_TRIES", 10)
    part = folder.with_name("sd15.part")
    part.mkdir(parents=True)
    second = threading.Thread(target=get, args=(hub, folder))
    with FileLock(folder.with_name("sd15.part.lock")), (part / "first.incomplete").open("ab", buffering=0) as file:
        second.start()
        for _ in range(60):  # 3 s, of which 10 tries are 2
            file.write(b"more")
            time.sleep(0.05)
        assert second.is_alive() and hub.large_bytes == 0
    second.join(60)
    assert contents(folder)[UNET] == repository()[UNET]


def test_who_waits_for_another_one_can_be_stopped(hub: FakeHub, folder: Path) -> None:
    folder.parent.mkdir()
    with FileLock(folder.with_name("sd15.part.lock")), pytest.raises(JobCancelled):
        get(hub, folder, cancelled=lambda: True)
    assert hub.large_bytes == 0


def snapshot(tmp_path: Path, files: dict[str, bytes], revision: str = "main") -> Path:
    """What the hub's library leaves in its cache after a download of `files`."""
    entry = tmp_path / "hub" / "models--owner--model"
    commit = blob_id(revision.encode())
    (entry / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (entry / "refs" / revision).write_text(commit)
    for name, data in files.items():
        (path := entry / "snapshots" / commit / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return entry / "snapshots" / commit


def test_a_whole_snapshot_in_the_hubs_cache_is_found(tmp_path: Path) -> None:
    assert cached(MODEL, tmp_path / "hub") is None
    place = snapshot(tmp_path, repository())
    assert cached(MODEL, tmp_path / "hub") == place
    assert cached(Source(hub_id="owner/model", revision="refs/pr/13"), tmp_path / "hub") is None
    other = snapshot(tmp_path, repository(), "refs/pr/13")
    assert cached(Source(hub_id="owner/model", revision="refs/pr/13"), tmp_path / "hub") == other


@pytest.mark.skipif(not HAS_RIGHTS, reason="needs Unix permissions")
def test_a_whole_snapshot_is_used_from_a_cache_that_cannot_be_written() -> None:
    with as_nobody() as place:
        whole = snapshot(place, repository())
        half = snapshot(place, {"model_index.json": repository()["model_index.json"]}, "refs/pr/1")
        folders = [path for path in (place / "hub", *(place / "hub").rglob("*")) if path.is_dir()]
        for path in folders:
            path.chmod(0o500)
        assert cached(MODEL, place / "hub") == whole
        assert half.is_dir() and cached(Source(hub_id="owner/model", revision="refs/pr/1"), place / "hub") is None
        for path in folders:
            path.chmod(0o700)


@pytest.mark.parametrize("missing", [UNET, "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"])
def test_half_a_snapshot_is_none(tmp_path: Path, missing: str) -> None:
    (snapshot(tmp_path, repository()) / missing).unlink()
    assert cached(MODEL, tmp_path / "hub") is None


def test_a_snapshot_that_must_be_renamed_to_load_is_none(tmp_path: Path) -> None:
    place = snapshot(tmp_path, repository())
    (place / UNET).rename(place / UNET.replace(".safetensors", ".fp16.safetensors"))
    assert cached(MODEL, tmp_path / "hub") is None


def get_file(hub: FakeHub, folder: Path, path: str, **changes: Any) -> Path:
    settings: dict[str, Any] = {"offline": False, "on_progress": lambda _: None, "cancelled": lambda: False}
    return fetch_file(TITLE, (MODEL,), path, folder, **{**settings, "endpoint": hub.endpoint, **changes})


def test_a_single_file_arrives_alone_and_is_not_asked_for_again(hub: FakeHub, folder: Path) -> None:
    path = get_file(hub, folder, UNET)
    assert path == folder / "diffusion_pytorch_model.safetensors"
    assert contents(folder) == {path.name: repository()[UNET]}
    hub.asked.clear()
    assert get_file(hub, folder, UNET) == path
    assert hub.asked == []


def test_a_single_file_goes_on_where_it_broke_off(hub: FakeHub, folder: Path) -> None:
    hub.faults.cut_after = 300_000
    path = get_file(hub, folder, UNET)
    assert path.read_bytes() == repository()[UNET]
    assert any(ask.range for ask in hub.asked)


def test_a_single_file_that_cannot_be_had_is_said_with_what_to_do(hub: FakeHub, folder: Path) -> None:
    gone = refusal(DownloadFailed, folder, lambda: get_file(hub, folder, "gone.safetensors"))
    assert "owner/model has no gone.safetensors" in gone and "put the file gone.safetensors at models/sd15" in gone
    offline = refusal(DownloadFailed, folder, lambda: get_file(hub, folder, UNET, offline=True))
    assert "the studio is offline" in offline and "Switch offline mode off, or put the file" in offline
