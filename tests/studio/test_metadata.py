import contextlib
import io
import json
import random
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.domain.tags import adapters_named
from studio.infotext import infotext, parse_infotext, request_from_infotext
from studio.metadata import embed, pixels_sha256, read_record, read_settings
from studio.provenance import TRAINED_ALGORITHMIC_MEDIA, XMP_KEY
from tests.studio.records import CATALOGUE, picture, random_recipe, recipe, record

A1111_TEXT = (
    "a cat, (hat:1.2)\nsecond line\nNegative prompt: dog, blurry\nmore\n"
    "Steps: 20, Sampler: Euler a, Schedule type: Uniform, CFG scale: 7, Seed: 42, Size: 512x768, "
    'Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Lora hashes: "a: 0123, b: 4567", Version: v1.10.1'
)


def png_with(**texts: str) -> io.BytesIO:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    buffer = io.BytesIO()
    picture().save(buffer, "PNG", pnginfo=info)
    buffer.seek(0)
    return buffer


def exif_comment(comment: bytes) -> bytes:
    """An Exif block with nothing but a UserComment of type UNDEFINED, as A1111's piexif writes it."""
    head = b"Exif\0\0MM\0*" + struct.pack(">I", 8)
    pointer = struct.pack(">HHHIII", 1, 0x8769, 4, 1, 26, 0)
    return head + pointer + struct.pack(">HHHIII", 1, 0x9286, 7, len(comment), 44, 0) + comment


def shown_prompt(made: ImageRecord) -> str:
    """What A1111-family tools show: the prompt as it was read, and the adapters' tags."""
    return " ".join([made.prompt_as_run, *(use.tag for use in adapters_named(made.recipe.prompt))]).strip()


def test_settings_of_a_written_png_are_the_recipe(tmp_path: Path) -> None:
    rng = random.Random(1)
    for n in range(300):
        made = random_recipe(rng)
        path = tmp_path / f"{n}.png"
        path.write_bytes(embed(picture(n), record(made=made), CATALOGUE))
        assert read_settings(path, CATALOGUE).request == made.as_request()


def test_a_tiny_decoder_is_told_as_a1111_does_and_what_it_has_no_word_for_in_a_word_of_ours() -> None:
    assert "VAE Decoder" not in infotext(record(made=recipe()), CATALOGUE)
    told = infotext(record(made=recipe(decoder="tiny")), CATALOGUE)
    assert parse_infotext(told)["VAE Decoder"] == "TAESD"
    assert request_from_infotext(told, CATALOGUE).request.decoder == "tiny"
    half = infotext(record(made=recipe(decoder="half")), CATALOGUE)
    assert "VAE Decoder" not in half and request_from_infotext(half, CATALOGUE).request.decoder == "half"
    assert request_from_infotext(A1111_TEXT, CATALOGUE).request.decoder == "full"
    assert request_from_infotext(half.replace("Decoder: half", "Decoder: theirs"), CATALOGUE).request.decoder == "full"


def test_the_whole_record_comes_back(tmp_path: Path) -> None:
    image = picture()
    made = record(pixels_sha256=pixels_sha256(image), is_starred=True)
    (tmp_path / "a.png").write_bytes(embed(image, made, CATALOGUE))
    expected = made.model_copy(update={"path": "b/c.png", "is_starred": False})
    assert read_record(tmp_path / "a.png", "b/c.png") == expected


def test_a_painted_over_picture_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(embed(picture(2), record(pixels_sha256=pixels_sha256(picture(1))), CATALOGUE))
    assert read_record(tmp_path / "a.png", "a.png") is None


def test_pixels_are_kept_and_their_hash_survives_a_save() -> None:
    image = picture()
    read = Image.open(io.BytesIO(embed(image, record(), CATALOGUE)))
    assert read.tobytes() == image.tobytes()
    assert pixels_sha256(read) == pixels_sha256(image) == pixels_sha256(image.convert("RGBA"))


def test_no_path_is_written() -> None:
    data = embed(picture(), record(path="2026-11-21/secret-place.png"), CATALOGUE)
    assert b"secret-place" not in data and b'"path"' not in data


def test_the_mark_of_a_model_is_valid_xmp() -> None:
    info = Image.open(io.BytesIO(embed(picture(), record(), CATALOGUE))).info
    found = ET.fromstring(str(info[XMP_KEY]).split("?>", 1)[1].rsplit("<?", 1)[0])
    source_type = found.find(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source_type is not None and source_type.text == TRAINED_ALGORITHMIC_MEDIA


def test_infotext_in_full() -> None:
    text = infotext(record(made=recipe(negative_prompt="blur", guidance_scale=7.5)), CATALOGUE)
    assert text == (
        "a red circle\nNegative prompt: blur\n"
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 7, Size: 128x128, "
        "Model hash: 0123456789, Model: pocket-sd15, RNG: CPU, Version: flash-studio 0.1.0"
    )


def test_infotext_leaves_out_what_is_not_there() -> None:
    text = infotext(record(environment={}), CATALOGUE)
    assert "hash" not in text and "Negative" not in text


def test_infotext_of_a_sampler_that_the_catalogue_lost() -> None:
    assert "Sampler: gone, CFG" in infotext(record(made=recipe(scheduler="gone")), CATALOGUE)


def test_infotext_comes_back_unless_a_prompt_looks_like_its_grammar() -> None:
    rng = random.Random(2)
    read = 0
    for _ in range(300):
        made = record(made=random_recipe(rng))
        found = parse_infotext(infotext(made, CATALOGUE))
        if re.search(r"^\s*Negative prompt:", made.prompt_as_run, re.MULTILINE):
            continue
        read += 1
        assert found["Prompt"] == shown_prompt(made)
        assert found["Negative prompt"] == made.negative_as_run.strip()
        assert (int(found["Seed"]), float(found["CFG scale"])) == (made.recipe.seed, made.recipe.guidance_scale)
        asked = request_from_infotext(infotext(made, CATALOGUE), CATALOGUE).request
        assert (asked.scheduler, asked.checkpoint) == (made.recipe.scheduler, made.recipe.checkpoint)
        assert (asked.width, asked.height) == (made.recipe.width, made.recipe.height)
    assert read > 200


def test_the_grammar_of_others() -> None:
    found = parse_infotext(A1111_TEXT)
    assert found["Prompt"] == "a cat, (hat:1.2)\nsecond line"
    assert found["Negative prompt"] == "dog, blurry\nmore"
    assert (found["Size-1"], found["Size-2"]) == ("512", "768")
    assert found["Lora hashes"] == "a: 0123, b: 4567"


@pytest.mark.parametrize("text", ["only a prompt", "two\nlines: 1, b: 2", "", "Steps: 20, Seed: 1"])
def test_fewer_than_three_settings_are_prompt(text: str) -> None:
    assert parse_infotext(text) == {"Prompt": text, "Negative prompt": ""}


def test_a_quoted_value_that_is_no_json_stays_as_it_is() -> None:
    assert parse_infotext('p\nSteps: 1, Seed: 2, Model: "a\\q", Size: 8x8')["Model"] == '"a\\q"'


def test_a_long_line_without_structure_is_read_quickly() -> None:
    for line in ("a" * 200_000, " " * 100_000 + "x", "a1: " * 50_000, 'a1: "\\"' * 30_000):
        parse_infotext(f"prompt\n{line}")


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ("Sampler: DPM++ 2M Karras", "dpmpp_2m_karras"),  # before A1111 1.9
        ("Sampler: DPM++ 2M, Schedule type: Karras", "dpmpp_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m_karras"),
        ("Sampler: DPM++ 2M, Schedule type: Uniform", "dpmpp_2m"),
        ("Sampler: DPM++ 2M, Schedule type: Exponential", None),
        ("Sampler: euler A", "euler_a"),
        ("Sampler: DPM adaptive", None),
        ("Model: ../../x", None),
    ],
)
def test_sampler_names(sampler: str, expected: str | None) -> None:
    asked = request_from_infotext(f"p\nSteps: 20, Seed: 1, CFG scale: 7, {sampler}", CATALOGUE).request
    assert (asked.scheduler, asked.checkpoint) == (expected, None)


def test_what_we_cannot_do_is_left_open() -> None:
    asked = request_from_infotext("p\nSteps: 900, Seed: 1e99, Size: 513x512, CFG scale: nan", CATALOGUE).request
    assert asked.model_dump(exclude_defaults=True) == {"prompt": "p", "height": 512}


def test_a_foreign_png() -> None:
    asked = read_settings(png_with(parameters=A1111_TEXT), CATALOGUE).request
    assert (asked.prompt, asked.seed, asked.scheduler) == ("a cat, (hat:1.2)\nsecond line", 42, "euler_a")
    assert (asked.width, asked.height, asked.guidance_scale) == (512, 768, 7.0)


def test_a_png_whose_text_follows_its_pixels() -> None:
    text = b"parameters\0" + A1111_TEXT.encode("latin-1")
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    data = png_with().getvalue()
    assert read_settings(io.BytesIO(data[:-12] + chunk + data[-12:]), CATALOGUE).request.seed == 42


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + A1111_TEXT.replace("cat", "猫").encode("utf-16-be"),
        b"UNICODE\0" + A1111_TEXT.replace("cat", "猫").encode("utf-16-le"),
        b"ASCII\0\0\0" + A1111_TEXT.encode(),
        A1111_TEXT.encode(),
    ],
    ids=["utf-16-be", "utf-16-le", "ascii", "bare"],
)
def test_exif_comments(file_format: str, comment: bytes) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, file_format, exif=exif_comment(comment))
    asked = read_settings(buffer, CATALOGUE).request
    assert asked.seed == 42
    assert asked.prompt.startswith(("a cat", "a 猫"))


def test_a_damaged_chunk_of_ours_falls_back_to_the_text() -> None:
    for chunk in ("{", "[]", '{"recipe": 3}', '{"recipe": {"seed": "x"}}', "[" * 100_000):
        assert read_settings(png_with(studio=chunk, parameters=A1111_TEXT), CATALOGUE).request.seed == 42


def test_a_chunk_of_another_version_is_read_as_far_as_it_is_the_same() -> None:
    chunk = json.dumps({"version": "9.9", "news": 1, "recipe": recipe(seed=3).model_dump()})
    assert read_settings(png_with(studio=chunk), CATALOGUE).request == recipe(seed=3).as_request()


def huge_png(width: int, height: int) -> io.BytesIO:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = struct.pack(">I", 9) + b"IDAT"
    head = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + head + pixels)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (io.BytesIO(b""), "no PNG, JPEG or WebP"),
        (io.BytesIO(b"GIF89a" + bytes(50)), "no PNG, JPEG or WebP"),
        (Path("/does/not/exist.png"), "no PNG, JPEG or WebP"),
        (png_with(), "carries no settings"),
        (png_with(parameters="Steps: 1, Seed: 2, Size: 8x8"), "no prompt"),
        (huge_png(8000, 7000), "more than 50 megapixels"),
        (huge_png(60000, 60000), "more than 50 megapixels"),
    ],
)
def test_one_clear_sentence_when_there_is_nothing_to_read(source: io.BytesIO | Path, sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        read_settings(source, CATALOGUE)


def test_garbage_never_crashes_the_reader() -> None:
    rng = random.Random(3)
    whole = embed(picture(), record(), CATALOGUE)
    jpeg = io.BytesIO()
    picture().save(jpeg, "JPEG", exif=exif_comment(b"UNICODE\0" + A1111_TEXT.encode("utf-16-be")))
    for n in range(400):
        data = bytearray(whole if n % 2 else jpeg.getvalue())
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        source = io.BytesIO(bytes(data[: rng.randint(0, len(data))] if n % 3 else data))
        with contextlib.suppress(InvalidRequest):
            read_settings(source, CATALOGUE)


def test_sd_parsers_reads_our_pictures(tmp_path: Path) -> None:
    sd_parsers = pytest.importorskip("sd_parsers")
    rng = random.Random(5)
    for n in range(100):
        made = record(made=random_recipe(rng))
        if "Negative prompt:" in made.prompt_as_run + made.negative_as_run:
            continue  # it splits at any of these
        path = tmp_path / f"{n}.png"
        path.write_bytes(embed(picture(), made, CATALOGUE))
        found = sd_parsers.ParserManager().parse(path)
        assert found.full_prompt.split() == shown_prompt(made).split()
        assert found.full_negative_prompt.split() == made.negative_as_run.split()
        (sampler,) = found.samplers
        assert sampler.name == CATALOGUE.scheduler(made.recipe.scheduler).a1111_sampler
        assert sampler.parameters["seed"] == str(made.recipe.seed)
        assert sampler.parameters["steps"] == str(made.recipe.num_inference_steps)
