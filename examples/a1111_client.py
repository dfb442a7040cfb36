"""Draw with a client of AUTOMATIC1111's API (`pip install webuiapi`) in a studio that is up:

python examples/a1111_client.py [ADDRESS [PASSWORD]]
"""

import sys
from typing import Any
from urllib.parse import urlsplit

import webuiapi
from PIL import Image, ImageDraw

place = urlsplit(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860")
api: Any = webuiapi.WebUIApi(host=place.hostname or "", port=place.port or 443, use_https=place.scheme == "https")
if len(sys.argv) > 2:
    api.set_auth("anybody", sys.argv[2])  # a token of 22 letters or more as the name tells visitors apart

with api.session:
    models = [model["model_name"] for model in api.get_sd_models()]
    print(f"{len(models)} models, {models[0]} to begin with")

    result = api.txt2img(
        prompt="a large red circle on a white background", steps=12, cfg_scale=3, seed=7, width=128, height=128
    )
    result.image.save("circle.png")
    print(f"circle.png, seed {result.info['seed']}")

    mask = Image.new("L", result.image.size, "black")
    ImageDraw.Draw(mask).rectangle((64, 0, 128, 128), fill="white")
    half = api.img2img(
        images=[result.image], mask_image=mask, prompt="a large blue circle on a white background", steps=12,
        cfg_scale=3, width=128, height=128, denoising_strength=0.9,
    )  # fmt: skip
    half.image.save("half.png")
    print("half.png, changed on the right")
    print(api.png_info(half.image).info.splitlines()[0])
