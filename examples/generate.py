"""Make a picture from Python and save it here: `python examples/generate.py "a red circle on a white background"`."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from any folder

from studio import open_services

prompt = sys.argv[1] if len(sys.argv) > 1 else "a yellow heart above a purple square on a navy background"

with open_services(queue="examples") as services:
    for record in services.generate(prompt, seed=7, num_images=2):
        path = shutil.copy(services.gallery.path(record), f"seed-{record.recipe.seed}.png")
        print(f"{path}: {record.seconds['total']:.1f} s, {record.peak_memory_mb:.0f} MB")
