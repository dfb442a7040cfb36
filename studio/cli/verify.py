"""`verify`: which marks pictures carry that say what they are."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from studio.c2pa_signing import Credential
from studio.cli.columns import printable
from studio.cli.report import DONE, FAILED, WRONG
from studio.domain.errors import StudioError
from studio.provenance import says_model
from studio.verification import Verification, verify_file

_NONE = "none"
_STATES = {
    "trusted": "as it was signed, by somebody whom a trust list here names",
    "valid": "as it was signed, by somebody whom no trust list here names",
    "invalid": "not as it was signed, or damaged",
    "unread": "there seems to be one; reading it takes c2pa-python (requirements-c2pa.txt)",
}


def run(options: argparse.Namespace) -> int:
    """Print the marks of each file; gives 0 where every one is said to be made by a model, 1 where one is not, 2 where
    one cannot be read."""
    code, documents = DONE, list[dict[str, Any]]()
    for name in options.files:
        try:
            found = verify_file(Path(name))
        except StudioError as error:
            print(f"error: {printable(name, ' ')}: {error}", file=sys.stderr)
            documents.append({"file": name, "error": str(error)})
            code = WRONG
            continue
        code = code if found.is_by_model else max(code, FAILED)
        documents.append({"file": name, **found.values()})
        if not options.json:
            _print(name, found)
    if options.json:
        print(json.dumps(documents, indent=2, ensure_ascii=False))
    return code


def _print(name: str, found: Verification) -> None:
    verdict = "made by a model" if found.is_by_model else "no mark says that a model made it"
    print(f"{printable(name, ' ')}: {verdict}")
    for mark, told in _lines(found).items():
        print(f"  {mark:<10} {printable(told, ' ')}")


def _lines(found: Verification) -> dict[str, str]:
    kind = found.source_type.rpartition("/")[2]
    by = "made by a model" if says_model(found.source_type) else "says where it is from"
    chunk, mark = found.studio, found.watermark
    pixels = "the pixels are those that it was written for" if chunk and chunk.is_unchanged else "the pixels are others"
    return {
        "XMP": f"{by} ({kind})" if kind else _NONE,
        "Infotext": "settings as A1111 writes them" if found.infotext else _NONE,
        "Studio": f"recipe by Flash Studio {chunk.version}; {pixels}" if chunk else _NONE,
        "Watermark": f"version {mark.version}, confidence {mark.confidence:.2f}" if mark else _NONE,
        "C2PA": _credential(found.c2pa) if found.c2pa else _NONE,
    }


def _credential(found: Credential) -> str:
    kind = found.source_type.rpartition("/")[2]
    told = f"{found.state}: {_STATES[found.state]}"
    who = f"; signed by {found.signer}" if found.signer else ""
    return f"{told}{who}{f' ({kind})' if kind else ''}"
