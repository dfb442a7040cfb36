"""Content Credentials (C2PA): a signed statement in the file that a model made the picture, by whoever holds the key.

The library for it is optional (`pip install -r requirements-c2pa.txt`). Nothing is asked over the network: no time
stamp, no list of revoked certificates, no manifest that lies elsewhere.
"""

import importlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio import __version__
from studio.provenance import says_model, source_type

logger = logging.getLogger(__name__)

NAME = "flash-studio"
MIME_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_HINTS = {"PNG": b"caBX", "JPEG": b"jumb", "WEBP": b"C2PA"}
"""What the part of a file that holds a manifest begins with."""

State = Literal["trusted", "valid", "invalid", "unread"]


@dataclass(frozen=True, kw_only=True)
class Credential:
    """What a file's manifest says. `valid`: the file is as it was signed, but no list here names the signer;
    `unread`: there seems to be one, and the library to read it is not installed. `source_type` is IPTC's."""

    state: State
    signer: str = ""
    generator: str = ""
    source_type: str = ""

    @property
    def says_model(self) -> bool:
        """Whether it can be believed that a model made the picture, or a part of it."""
        return self.state in ("trusted", "valid") and says_model(self.source_type)


class C2paSigner:
    """Signs with the certificate (a chain in PEM, the signer's own first) and the key in two files, which are read
    each time, so that a renewed certificate holds at once."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key

    def signed(self, content: bytes, file_format: str, *, is_composite: bool) -> bytes:
        """The same file with a manifest; the file as it was, and a line in the log, where it cannot be signed."""
        try:
            return self._sign(content, file_format, is_composite)
        except OSError as error:  # its own words would tell where the key lies
            why = (error.strerror or type(error).__name__).lower()
            logger.warning("a picture is kept unsigned: the certificate or its key cannot be read (%s)", why)
        except ImportError:
            logger.warning("a picture is kept unsigned: c2pa-python is missing; see requirements-c2pa.txt")
        except Exception as error:  # the library's errors have no common base that it exports
            logger.warning("a picture is kept unsigned: it cannot be signed with this key (%s)", type(error).__name__)
        return content

    def _sign(self, content: bytes, file_format: str, is_composite: bool) -> bytes:
        library: Any = importlib.import_module("c2pa")
        key = self._key.read_bytes()
        info = library.C2paSignerInfo(_algorithm(key), self._certificate.read_bytes(), key, None)
        signed = io.BytesIO()
        with (
            _context(library) as context,
            library.Signer.from_info(info) as signer,
            library.Builder(_manifest(is_composite), context) as builder,
        ):
            builder.sign(signer, MIME_TYPES[file_format], io.BytesIO(content), signed)
        return signed.getvalue()


def read_credential(content: bytes, file_format: str) -> Credential | None:
    """What the manifest in a PNG, JPEG or WebP says; None where there is none."""
    try:
        library: Any = importlib.import_module("c2pa")
    except ImportError:
        return Credential(state="unread") if _HINTS[file_format] in content else None
    try:
        with (
            _context(library) as context,
            library.Reader(MIME_TYPES[file_format], io.BytesIO(content), context=context) as reader,
        ):
            return _told(json.loads(reader.json()))
    except library.C2paError.ManifestNotFound:
        return None
    except Exception as error:  # a damaged manifest fails in more ways than the library documents
        logger.info("a manifest cannot be read: %s", type(error).__name__)
        return Credential(state="invalid")


def _context(library: Any) -> Any:
    return library.Context(settings=library.Settings.from_dict(_SETTINGS))


def _manifest(is_composite: bool) -> dict[str, Any]:
    agent = {"name": NAME, "version": __version__}
    created = {"action": "c2pa.created", "digitalSourceType": source_type(is_composite), "softwareAgent": agent}
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [created]}}
    return {"claim_generator_info": [agent], "title": "picture", "assertions": [actions]}


def _algorithm(key: bytes) -> bytes:
    """The signature that a key is for; the library wants to be told."""
    keys: Any = importlib.import_module("cryptography.hazmat.primitives.serialization")
    kind: Any = keys.load_pem_private_key(key, password=None)
    curves = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}
    if type(kind).__name__.endswith("RSAPrivateKey"):
        return b"ps256"
    return curves[kind.curve.name] if hasattr(kind, "curve") else b"ed25519"


def _told(report: dict[str, Any]) -> Credential:
    manifest: dict[str, Any] = report.get("manifests", {}).get(report.get("active_manifest"), {})
    by: dict[str, str] = manifest.get("signature_info", {})
    names = dict.fromkeys(filter(None, (by.get("common_name"), by.get("issuer"))))
    agents: list[dict[str, str]] = manifest.get("claim_generator_info", [])
    first = agents[0] if agents else {}
    states: dict[str, State] = {"Trusted": "trusted", "Valid": "valid"}
    return Credential(
        state=states.get(report.get("validation_state", ""), "invalid"),
        signer=", ".join(names),
        generator=" ".join(filter(None, (first.get("name"), first.get("version")))),
        source_type=_source_type(manifest.get("assertions", [])),
    )


def _source_type(assertions: list[dict[str, Any]]) -> str:
    """That of the action which made the picture; "" where none says it."""
    actions: list[dict[str, Any]] = [
        action
        for assertion in assertions
        if str(assertion.get("label")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
    found = [str(action["digitalSourceType"]) for action in actions if action.get("digitalSourceType")]
    return next(filter(says_model, found), found[0] if found else "")
