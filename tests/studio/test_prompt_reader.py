"""SD Prompt Reader reads what our files say. It wants an older Pillow than ours, so that it lives in an environment of
its own (`pip install sd-prompt-reader`), whose programs are on the PATH; where it is not, this is skipped."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from studio.services import Services
from studio.web.openai.pictures import file_of

READER = shutil.which("sd-prompt-reader-cli")


@pytest.mark.skipif(READER is None, reason="sd-prompt-reader-cli is not on the PATH")
def test_every_format_tells_it_how_a_picture_was_made(services: Services, tmp_path: Path) -> None:
    (record,) = services.generate(
        "a red star, 猫", negative_prompt="blur, (text:1.2)", num_inference_steps=4, seed=7, guidance_scale=3
    )
    for name in ("png", "webp", "jpeg"):
        picture, read = tmp_path / f"a.{name}", tmp_path / f"{name}.json"
        picture.write_bytes(file_of(record, services.gallery, services.catalogue, name, 90))
        command = [str(READER), "--read", "-i", str(picture), "-f", "JSON", "-o", str(read)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        told = json.loads(read.read_text(encoding="utf-8"))
        assert told.pop("setting").startswith("Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras")
        assert told == {
            "positive": "a red star, 猫", "negative": "blur, (text:1.2)", "model": "pocket-sd15",
            "sampler": "DPM++ 2M", "seed": "7", "cfg": "3", "steps": "4", "size": "128x128",
        }, name  # fmt: skip
