"""Make a picture of the gallery again and say how near the new one came: `python examples/reproduce.py [WORD]`.

It takes the newest picture; with a word, the newest whose prompt has it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from any folder

from studio import open_services

with open_services(queue="examples") as services:
    found = services.gallery.find(text=" ".join(sys.argv[1:]), limit=1)
    record = found[0] if found else services.generate("a red circle on a white background", seed=7)[0]
    verdict = services.reproduction.submit(record.id).result()
    print(f"{record.recipe.prompt}, seed {record.recipe.seed}, {record.recipe.num_inference_steps} steps")
    print(verdict["sentence"])
