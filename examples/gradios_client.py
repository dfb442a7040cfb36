"""Draw with Gradio's own client (`pip install gradio_client`) in a studio that is up:

python examples/gradios_client.py [ADDRESS [PASSWORD]]
"""

import secrets
import shutil
import sys
from typing import Any

from gradio_client import Client, handle_file

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
headers = {"X-Flash-Visitor": secrets.token_urlsafe(24)}  # who you are: with the same one you find your jobs again
if len(sys.argv) > 2:
    headers["Authorization"] = f"Bearer {sys.argv[2]}"
client: Any = Client(address, headers=headers, verbose=False, analytics_enabled=False)

models = client.predict(api_name="/models")["models"]
print(f"{len(models)} models, {next(model['id'] for model in models if model['is_default'])} to begin with")

prompt = "a large red circle on a white background"
job = client.submit(prompt=prompt, num_inference_steps=12, seed=7, num_images=2, api_name="/generate")
for _, told in job:  # while it is drawn; job.cancel() would stop it
    print(told["state"], told.get("progress", {}).get("step", ""))
paths, told = job.result()
for path, picture in zip(paths, told["pictures"], strict=True):
    shutil.copy(path, f"seed-{picture['seed']}.png")
    print(f"seed-{picture['seed']}.png, guidance {picture['recipe']['guidance_scale']}")

circle = handle_file("seed-7.png")
(path,), _ = client.predict(
    prompt="a large blue circle on a white background", image=circle, strength=0.8, seed=7, api_name="/generate"
)
shutil.copy(path, "blue.png")

_, told = client.predict(prompts=[prompt], steps=[2, 4], num_images=1, seed=7, api_name="/flash")
for column in told["comparison"]["columns"]:
    print(f"{column['title']}: {column['seconds']['total']['median']:.2f} s a picture")
client.close()
