"""Captioners that cost nothing, what captions are checked for, and the command line over both."""

import contextlib
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from engines.pocket.captioner import describe
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from engines.pocket.sampling import sample_scene
from engines.pocket.world import render
from studio.captions.checks import flags_of
from studio.captions.local import LocalCaptioner
from studio.captions.merging import Chosen
from studio.captions.mismatch import mismatched
from studio.captions.splitting import parse_shares, part_of
from studio.domain.captions import Flag, Picture, Unfit
from studio.domain.errors import CorruptModel, InvalidRequest, NotFound
from studio.services import Services
from tests.studio.captions.scenes import digest, row, scenes
from tests.studio.conftest import Cli

LONG = "A woman with long brown hair looks to the left, in soft light before a grey wall; she smiles, "


def test_pocket_scenes_are_put_into_exact_words() -> None:
    rng, right, count = np.random.default_rng(11), 0, 60
    for seed in range(count):
        scene = sample_scene(rng, held_out=seed % 4 == 0)
        image = render(scene, seed, 96)
        words = describe(image)
        said = parse(words) if words else None
        kinds = {(thing.colour, thing.shape) for thing in scene.things}
        is_same = said is not None and {(thing.colour, thing.shape) for thing in said.things} == kinds
        right += is_same and said.background == scene.background and judge(image, said).correct
    assert right >= 0.99 * count


def test_what_is_no_scene_has_no_words() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert describe(Image.fromarray(noise)) is None and describe(Image.new("RGB", (64, 64), "white")) is None


@pytest.mark.parametrize(
    ("caption", "flags"),
    [
        ("a red ring on a white background", ()), (LONG + "with a necklace.", ()), ("", (Flag.EMPTY,)),
        ("!?", (Flag.EMPTY,)), ("a ring", (Flag.TOO_SHORT,)),
        ("I’m sorry, but I can’t help with that.", (Flag.REFUSAL,)),
        ("I cannot identify people in pictures", (Flag.REFUSAL,)), ("As an AI, I see a ring there", (Flag.REFUSAL,)),
        ("A can of fish that cannot swim, on a table", ()), ("A woman who is sorry sits at a table", ()),
        ("red ring " * 40, (Flag.REPETITION,)), (LONG * 6, (Flag.REPETITION,)), ("no no no no no", (Flag.REPETITION,)),
        ("Sure! A red ring on white", (Flag.PREAMBLE,)), ("Here is a detailed description: a ring", (Flag.PREAMBLE,)),
        ("**A ring** on white ground", (Flag.MARKUP,)), ('{"caption": "a red ring"}', (Flag.MARKUP,)),
        ("ein großer roter Ring auf weißem Grund", ()), ("一个 红色 的 圆环 在 白色 背景 上", ()),
    ],
)  # fmt: skip
def test_a_caption_is_checked_by_its_words(caption: str, flags: tuple[Flag, ...]) -> None:
    assert flags_of(caption) == flags


def test_very_long_captions_are_told_and_quickly() -> None:
    rng = np.random.default_rng(0)
    long = " ".join(str(number) for number in rng.integers(0, 10**6, 1500))
    began = time.thread_time()
    assert flags_of(long) == (Flag.TOO_LONG,)
    for odd in ("<" * 10_000, "a " * 5_000, chr(123) * 5_000):
        flags_of(odd)
    assert time.thread_time() - began < 1


def test_a_judge_finds_captions_that_belong_to_others(services: Services, tmp_path: Path) -> None:
    paths = scenes(tmp_path / "p", 24, size=128, seed=5)
    chosen, pictures = Chosen(), [Picture(path.name, digest(path)) for path in paths]
    words = [describe(Image.open(path)) for path in paths]
    swapped = {0, 1, 2, 3}
    for number, path in enumerate(paths):
        told = words[(number + 1) % 4 if number in swapped else number]
        chosen.add(row(path.name, str(told), name=path.name, digest=digest(path)))
    judge_folder = services.scoring.folder_of("pocket-clip")
    found = mismatched(
        tmp_path / "p", pictures, chosen, lambda path, texts: services.scoring.score_texts(judge_folder, path, texts)
    )
    wrong = {pictures[number].digest for number in swapped}
    assert len(found & wrong) >= 3 and len(found - wrong) <= 1


def test_shares_are_kept_when_pictures_are_added_and_are_about_as_large_as_asked() -> None:
    shares = parse_shares("train=0.8, validation=0.1,test=0.1")
    parts = [part_of(digest(str(number)), shares, 0) for number in range(4000)]
    assert {name: round(parts.count(name) / 4000, 1) for name in shares} == shares
    assert parts[:100] != [part_of(digest(str(number)), shares, 1) for number in range(100)]
    for wrong in ("train=0.5", "a=0.5,a=0.5", "../x=1", "a=nan", "a=2,b=-1", ""):
        with pytest.raises(InvalidRequest):
            parse_shares(wrong)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP in miniature that knows nothing, as transformers keeps one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )  # fmt: skip

    folder = tmp_path_factory.mktemp("tiny-blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "red", "ring", "blue", "star", "on", "white"]
    (folder / "vocab.txt").write_text("\n".join(words))
    size = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    text = dict(
        vocab_size=len(words),
        encoder_hidden_size=32,
        bos_token_id=5,
        sep_token_id=3,
        pad_token_id=0,
        eos_token_id=3,
        **size,
    )
    torch.manual_seed(0)
    config = BlipConfig(text_config=text, vision_config=dict(image_size=32, patch_size=16, **size), projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = BertTokenizerFast(tokenizer_object=raw)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_a_model_of_ones_own_says_the_same_each_time(blip: Path, tmp_path: Path) -> None:
    path = scenes(tmp_path / "p", 1)[0]
    captioner = LocalCaptioner(blip, "Describe it.", "cpu")
    first = captioner.caption(path).caption
    assert first and first == LocalCaptioner(blip, "Describe it.", "cpu").caption(path).caption
    assert captioner.name == f"local:{blip.name}" and captioner.template.startswith("local-")
    path.write_bytes(b"no picture")
    with pytest.raises(Unfit):
        captioner.caption(path)


def test_what_is_no_model_is_refused(tmp_path: Path, cli: Cli) -> None:
    with pytest.raises(NotFound, match="holds no model"):
        LocalCaptioner(tmp_path, "", "cpu")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorruptModel, match="no model that can be used"):
        LocalCaptioner(tmp_path, "", "cpu")
    scenes(tmp_path / "p", 1)
    code, _, err = cli("dataset", "caption", str(tmp_path / "p"), "--captioner", "local")
    assert code == 2 and "no model to caption with" in err


def test_from_the_command_line_with_a_process_that_is_killed(cli: Cli, tmp_path: Path) -> None:
    scenes(tmp_path / "p", 10)
    me, killed = psutil.Process(), threading.Event()
    before = {child.pid for child in me.children()}

    def kill() -> None:
        while not killed.is_set():
            with contextlib.suppress(psutil.Error):  # one that has just ended
                for child in me.children():
                    if child.pid not in before and "caption" in child.cmdline():
                        child.send_signal(signal.SIGKILL)
                        killed.set()
                        return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    code, out, err = cli("dataset", "caption", str(tmp_path / "p"), "--workers", "2")
    killed.set()
    thread.join()
    assert (code, out) == (0, f"{tmp_path / 'p'}-captions\n"), err
    assert "10 rows written by 2 processes; 1 had to be begun again." in err
    assert cli("dataset", "verify", str(tmp_path / "p"))[1] == "Nothing is missing.\n"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("caption",), 2, "no folder to caption"), (("caption", "nowhere"), 1, "no folder 'nowhere'"),
        (("caption", "docs/screenshots", "--shard", "9/3"), 2, "no part of the work"),
        (("caption", "docs/screenshots", "--parallel", "0"), 2, "0 does not work"),
        (("caption", "docs/screenshots", "--max-wait", "nan"), 2, "nan does not work"),
        (("caption", "docs/screenshots", "--workers", "2", "--shard", "1/2"), 2, "not a --shard"),
        (("caption", "docs/screenshots", "--template", "docs"), 2, "'docs' is no instruction"),
        (("merge", "docs/screenshots"), 1, "no folder of shards"),
        (("verify", "docs/screenshots"), 1, "no folder of shards"),
        (("split", "docs/screenshots"), 2, "--workers or --parts"),
        (("split", "docs/screenshots", "--parts", "a=1"), 2, "no place for the parts"),
        (("split", "docs/screenshots", "--workers", "0"), 2, "cannot share the work"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(cli: Cli, given: tuple[str, ...], code: int, said: str) -> None:
    found, out, err = cli("dataset", *given)
    assert (found, out) == (code, "") and said in err and err.count("\n") == 1


def test_what_is_asked_for_can_be_read_and_changed(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("dataset", "caption", "--show-template", "--preset", "face")
    assert code == 0 and "age group" in out and "accessories" in out
    mine = tmp_path / "mine.txt"
    mine.write_text("Say it in rhymes.")
    assert cli("dataset", "caption", "--show-template", "--template", str(mine))[1] == "Say it in rhymes.\n"
