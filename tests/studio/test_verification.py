"""`python -m studio verify`: which marks a picture carries, whoever made it."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from studio.domain.errors import InvalidRequest
from studio.exif import comment_block
from studio.infotext import infotext
from studio.metadata import embed, pixels_sha256
from studio.provenance import COMPOSITE_MEDIA, TRAINED_ALGORITHMIC_MEDIA, XMP_KEY, xmp_packet
from studio.verification import verify
from studio.watermark import marked
from tests.studio.conftest import Cli
from tests.studio.records import CATALOGUE, picture, record

PHOTO = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


def scene() -> Image.Image:
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).ellipse((20, 30, 80, 90), fill="green")
    return image


def png(image: Image.Image, **texts: str) -> bytes:
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    return saved(image, "PNG", pnginfo=info)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def ours(image: Image.Image) -> bytes:
    return embed(image, record(pixels_sha256=pixels_sha256(image)), CATALOGUE)


def test_a_picture_of_ours_has_every_mark_but_those_of_hosts() -> None:
    found = verify(ours(scene()))
    assert found.is_by_model and found.source_type == TRAINED_ALGORITHMIC_MEDIA
    assert found.infotext.startswith("a red circle")
    assert found.studio and found.studio.is_unchanged and found.studio.version
    assert found.watermark is None and found.c2pa is None
    marked_too = verify(ours(marked(scene())))
    assert marked_too.watermark and marked_too.watermark.confidence > 0.9


def test_pixels_that_were_painted_over_are_told() -> None:
    with Image.open(io.BytesIO(ours(scene()))) as image:
        info = PngInfo()
        info.add_text("studio", image.info["studio"])
        image.putpixel((5, 5), (0, 0, 0))
        painted = saved(image, "PNG", pnginfo=info)
    found = verify(painted)
    assert found.studio and not found.studio.is_unchanged and found.is_by_model


def test_the_mark_in_the_pixels_is_what_a_chat_app_leaves() -> None:
    sent = saved(marked(scene()), "JPEG", quality=80)
    found = verify(sent)
    assert found.is_by_model and found.watermark
    assert (found.source_type, found.infotext, found.studio, found.c2pa) == ("", "", None, None)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_files_of_other_programs_are_read(file_format: str) -> None:
    told = {
        "exif": comment_block(infotext(record(), CATALOGUE)),
        "xmp": xmp_packet("a & b", is_composite=True).encode(),
    }
    found = verify(saved(scene(), file_format, **told))
    assert found.source_type == COMPOSITE_MEDIA and found.infotext and found.studio is None


@pytest.mark.parametrize(
    "form",
    ["<p:DigitalSourceType>{}</p:DigitalSourceType>", "<a p:DigitalSourceType='{}'/>",
     '<p:DigitalSourceType rdf:resource="{}"/>', "<p:DigitalSourceType>\n {}\n</p:DigitalSourceType>"],
)  # fmt: skip
def test_xmp_may_be_written_in_any_way(form: str) -> None:
    assert verify(png(scene(), **{XMP_KEY: form.format(TRAINED_ALGORITHMIC_MEDIA)})).is_by_model
    photo = verify(png(scene(), **{XMP_KEY: form.format(PHOTO)}))
    assert photo.source_type == PHOTO and not photo.is_by_model


def test_a_picture_without_marks_has_none() -> None:
    found = verify(png(scene(), parameters="a letter to my aunt", studio="[1, 2]"))
    assert not found.is_by_model and found.infotext == "" and found.studio is None


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", saved(scene(), "BMP")])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        verify(content)


def test_a_file_that_is_cut_off_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        verify(saved(picture(size=64), "PNG")[:2000])


def test_the_command_tells_each_file_and_its_exit_code_the_worst(cli: Cli, tmp_path: Path) -> None:
    mine, plain, broken = tmp_path / "mine.png", tmp_path / "plain.png", tmp_path / "broken.png"
    mine.write_bytes(ours(marked(scene())))
    plain.write_bytes(saved(scene(), "PNG"))
    broken.write_bytes(b"nothing")
    code, out, _ = cli("verify", str(mine))
    assert code == 0 and "made by a model" in out.splitlines()[0]
    for told in ("trainedAlgorithmicMedia", "A1111", "the pixels are those", "confidence", "C2PA       none"):
        assert told in out
    code, out, _ = cli("verify", str(mine), str(plain))
    assert code == 1 and "plain.png: no mark says" in out
    code, out, error = cli("verify", str(broken), str(tmp_path / "absent.png"), str(mine))
    assert code == 2 and error.count("error: ") == 2 and "mine.png: made by a model" in out


def test_the_command_gives_one_document(cli: Cli, tmp_path: Path) -> None:
    mine, broken = tmp_path / "mine.png", tmp_path / "broken.png"
    mine.write_bytes(ours(marked(scene())))
    broken.write_bytes(b"nothing")
    code, out, _ = cli("verify", "--json", str(mine), str(broken))
    first, second = json.loads(out)
    assert code == 2 and first["made_by_model"] is True and first["watermark"]["version"] == 1
    assert first["studio"]["is_unchanged"] is True and first["c2pa"] is None
    assert second == {"file": str(broken), "error": second["error"]} and second["error"]


def test_names_of_files_do_no_harm_to_a_terminal(cli: Cli, tmp_path: Path) -> None:
    evil = tmp_path / "a\x1b[31m.png"
    evil.write_bytes(ours(scene()))
    assert "\x1b" not in cli("verify", str(evil))[1]
