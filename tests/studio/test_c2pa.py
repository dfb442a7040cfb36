"""Signed pictures, by a certificate authority of the tests' own and without any network."""

import io
import logging
import sys
from pathlib import Path

import pytest

pytest.importorskip("c2pa")

from PIL import Image
from sd_parsers import ParserManager

from engines.base import Engine
from studio.c2pa_signing import C2paSigner, read_credential
from studio.domain.errors import InvalidRequest
from studio.domain.images import ImageRecord
from studio.gallery import Gallery
from studio.generation import EngineHolder
from studio.ledger import Ledger
from studio.metadata import embed, pixels_sha256, read_record, read_settings
from studio.provenance import COMPOSITE_MEDIA, TRAINED_ALGORITHMIC_MEDIA
from studio.services import open_services
from studio.settings import Settings
from studio.verification import verify
from studio.web.openai.pictures import file_of
from tests.studio.certificates import SIGNER, Certificates, issue
from tests.studio.records import CATALOGUE, new_image, picture, record


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return issue(tmp_path)


@pytest.fixture
def signer(certificates: Certificates) -> C2paSigner:
    return C2paSigner(certificates.chain, certificates.key)


def encoded(file_format: str) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, file_format, quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_signed_file_says_who_made_it_and_with_what(signer: C2paSigner, file_format: str) -> None:
    plain = encoded(file_format)
    assert read_credential(plain, file_format) is None
    signed = signer.signed(plain, file_format, is_composite=False)
    found = read_credential(signed, file_format)
    assert found and found.state == "valid" and found.says_model
    assert SIGNER in found.signer and found.generator.startswith("flash-studio ")
    assert found.source_type == TRAINED_ALGORITHMIC_MEDIA
    assert Image.open(io.BytesIO(signed)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()
    composite = read_credential(signer.signed(plain, file_format, is_composite=True), file_format)
    assert composite and composite.source_type == COMPOSITE_MEDIA


def test_the_other_marks_stay_and_other_programs_read_them(signer: C2paSigner, tmp_path: Path) -> None:
    told = record(pixels_sha256=pixels_sha256(picture()))
    path = tmp_path / "signed.png"
    path.write_bytes(signer.signed(embed(picture(), told, CATALOGUE), "PNG", is_composite=False))
    assert read_record(path, told.path) == told
    assert read_settings(path, CATALOGUE).request == told.recipe.as_request()
    parsed = ParserManager().parse(path)
    assert parsed is not None and any(told.recipe.prompt in prompt.value for prompt in parsed.prompts)
    found = verify(path.read_bytes())
    assert found.studio and found.studio.is_unchanged and found.infotext
    assert found.source_type == TRAINED_ALGORITHMIC_MEDIA and found.c2pa and found.c2pa.state == "valid"


def test_what_was_changed_afterwards_is_not_believed(signer: C2paSigner) -> None:
    signed = bytearray(signer.signed(encoded("PNG"), "PNG", is_composite=False))
    place = signed.find(b"IHDR") + 4 + 9  # the type of the colours
    signed[place] ^= 1
    found = read_credential(bytes(signed), "PNG")
    assert found and found.state == "invalid" and not found.says_model


def test_a_gallery_keeps_signed_pictures(
    settings: Settings, engine: Engine, certificates: Certificates, tmp_path: Path
) -> None:
    signing = {"c2pa_certificate": str(certificates.chain), "c2pa_key": str(certificates.key)}
    with open_services(settings.model_copy(update=signing), engine=EngineHolder(lambda: engine)) as services:
        made = services.generate("a red circle on a white background", seed=7, num_inference_steps=4)[0]
        content = services.gallery.path(made).read_bytes()
        found = read_credential(content, "PNG")
        assert found and found.state == "valid"
        assert services.gallery.is_whole(made)
        for file_format in ("JPEG", "WEBP"):  # as the interfaces hand them out
            converted = file_of(made, services.gallery, services.catalogue, file_format.lower(), 90)
            told = read_credential(converted, file_format)
            assert told and told.state == "valid"
            (tmp_path / "converted").write_bytes(converted)
            assert read_settings(tmp_path / "converted", services.catalogue).request.seed == 7
        services.gallery.reconcile()
        assert services.gallery.image(made.id) == made
        job = services.reproduction.submit(made.id)
        assert job.result()["judgement"] == "identical"


@pytest.mark.parametrize("trouble", ["no file", "no key", "another key", "no certificate"])
def test_a_picture_that_cannot_be_signed_is_kept(
    trouble: str, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "where-the-key-lies.pem"
    other = tmp_path / "other"
    other.mkdir()
    contents = {"no key": b"no key at all", "another key": issue(other).key.read_bytes()}
    if trouble != "no file":
        secret.write_bytes(contents.get(trouble, certificates.key.read_bytes()))
    if trouble == "no certificate":
        certificates.chain.write_bytes(b"nothing")
    ledger = Ledger(f"sqlite:///{tmp_path / 'studio.db'}")
    gallery = Gallery(tmp_path / "images", ledger, CATALOGUE, C2paSigner(certificates.chain, secret))
    with caplog.at_level(logging.DEBUG):
        saved: ImageRecord = gallery.save(picture(), new_image())
    assert gallery.is_whole(saved)
    assert read_credential(gallery.path(saved).read_bytes(), "PNG") is None
    assert "kept unsigned" in caplog.text
    assert secret.name not in caplog.text and str(tmp_path) not in caplog.text
    ledger.close()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_without_the_library_a_manifest_is_seen_and_none_is_written(
    signer: C2paSigner, file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = encoded(file_format)
    signed = signer.signed(plain, file_format, is_composite=False)
    monkeypatch.setitem(sys.modules, "c2pa", None)  # what Python remembers of a module that is not there
    found = read_credential(signed, file_format)
    assert found and found.state == "unread" and not found.says_model
    assert read_credential(plain, file_format) is None
    assert signer.signed(plain, file_format, is_composite=False) == plain


def test_a_key_without_its_certificate_is_said_at_the_start() -> None:
    with pytest.raises(InvalidRequest, match="both"):
        Settings.from_environment({"FLASH_STUDIO_C2PA_KEY": "key.pem"})
    assert "key.pem" not in repr(Settings(c2pa_key="key.pem"))
