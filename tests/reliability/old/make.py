"""Makes a data folder as an earlier version of the studio leaves it: `python make.py FOLDER PROGRAM`, where PROGRAM is
that version's own folder. With it goes `told.json`: what that version said is there. Needs nothing of this version.
"""

import json
import os
import sqlite3
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

CIRCLE = "a red circle on a white background"


def main(out: Path, program: Path) -> None:
    os.chdir(program)
    sys.path.insert(0, str(program))
    from studio.services import open_services
    from studio.settings import Settings
    from studio.tables import SCHEMA_VERSION

    data = out / "data"
    with open_services(Settings(data_dir=data, offline=True)) as services:
        told = used(services, out)
    pack(out / f"schema-{SCHEMA_VERSION}.zip", data, told)


def used(services: Any, out: Path) -> dict[str, Any]:
    """Everything that is kept, once or twice; gives what there is."""
    from studio.domain.request import GenerationRequest

    adapter(out / "Moons.safetensors")
    services.adapters.store.add(out / "Moons.safetensors")
    card = {"title": "Moons of old", "trigger_words": ("moon",), "notes": "by hand", "lora_scale": 0.5}
    services.adapters.store.update("Moons", card)
    drawn = services.generate(CIRCLE, seed=7, num_images=2, num_inference_steps=4)
    drawn += services.generate(f"{CIRCLE} <lora:Moons:0.8>", seed=8, num_inference_steps=4, scheduler="euler_a")
    drawn += services.generate("ein blauer Stern, „é“ (x:1.2)", seed=9, num_inference_steps=3, guidance_scale=2.5)
    services.gallery.star(drawn[1].id, True)
    score = getattr(getattr(services, "scoring", None), "score", None)
    scored = score(drawn[0], services.catalogue.checkpoint("pocket-sd15")) if score else None
    failed = services.runner.submit("nothing that anybody does", {"a": 1})
    failed.wait(30)
    services.runner.stop(30)
    jobs = [services.generation.submit(GenerationRequest(prompt=CIRCLE, seed=seed, num_inference_steps=2), "somebody")
            for seed in (21, 22)]  # fmt: skip
    jobs[1].cancel()
    return {
        "images": [services.gallery.image(made.id).model_dump(mode="json") for made in drawn],
        "jobs": rows(services),
        "waiting": jobs[0].id,
        "score": vars(scored) if scored else None,
        "adapter": card,
        "recipe_fields": sorted(drawn[0].recipe.model_dump()),
    }


def rows(services: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(services.settings.data_dir / "studio.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM jobs ORDER BY position")]


def adapter(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": torch.randn(2, 128, generator=generator),
        f"{name}.lora_up.weight": torch.randn(128, 2, generator=generator),
        f"{name}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, path)


def pack(path: Path, data: Path, told: dict[str, Any]) -> None:
    with closing(sqlite3.connect(data / "studio.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("told.json", json.dumps(told, ensure_ascii=False, indent=1))
        for file in sorted(data.rglob("*")):
            if file.is_file() and not file.name.startswith(".") and file.parts[len(data.parts)] != "cache":
                archive.write(file, f"data/{file.relative_to(data).as_posix()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
