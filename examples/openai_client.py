"""Draw with OpenAI's own client (`pip install openai`) in a studio that is up:

python examples/openai_client.py [ADDRESS [PASSWORD]]
"""

import base64
import sys
import uuid
from pathlib import Path

from openai import OpenAI

address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
password = sys.argv[2] if len(sys.argv) > 2 else "none"
steps = {"steps": 12}  # what OpenAI's API has no name for stands in extra_body

with OpenAI(base_url=f"{address}/v1", api_key=password) as client:
    answer = client.images.generate(
        prompt="a large red circle on a white background",
        extra_body={**steps, "seed": 7},
        extra_headers={"Idempotency-Key": str(uuid.uuid4())},  # sent again, it is still drawn once
    )
    circle = base64.b64decode((answer.data or [])[0].b64_json or "")
    Path("circle.png").write_bytes(circle)
    print("circle.png, seed 7")

    answer = client.images.edit(
        image=circle, prompt="a large blue circle on a white background", extra_body={**steps, "strength": 0.8}
    )
    Path("blue.png").write_bytes(base64.b64decode((answer.data or [])[0].b64_json or ""))
    print("blue.png, drawn over it")

    prompt = "a yellow heart above a purple square on a navy background"
    for event in client.images.generate(prompt=prompt, stream=True, partial_images=2, output_format="jpeg"):
        name = "heart.jpg" if event.type == "image_generation.completed" else f"heart-{event.partial_image_index}.jpg"
        Path(name).write_bytes(base64.b64decode(event.b64_json))
        print(name)
