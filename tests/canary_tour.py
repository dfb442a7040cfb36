"""A tour through the studio that keeps everything which left it in a folder: `python -m tests.canary_tour FOLDER`.

Run in a process of its own by `tests/test_canary.py`, with secrets in its environment and a log that tells everything.
"""

import base64
import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from studio.cli.main import main
from studio.domain.errors import StudioError
from studio.domain.evaluation import EvaluationRequest
from studio.domain.flash import FlashRequest
from studio.services import Services, open_services
from studio.web.evaluation_routes import evaluation_routes
from studio.web.gate import Gate
from studio.web.routes import all_routes
from tabs import shell

CIRCLE = "a red circle on a white background"
GETS = (
    "/", "/health", "/health/ready", "/metrics", "/login", "/api/v1/", "/api/v1/docs", "/api/v1/openapi.json",
    "/api/v1/models", "/api/v1/accelerators", "/api/v1/controls", "/api/v1/adapters", "/api/v1/samplers",
    "/api/v1/styles", "/api/v1/pictures", "/api/v1/pictures/none", "/api/v1/jobs", "/api/v1/jobs/none",
    "/api/v1/nothing",
    "/v1/models", "/v1/nothing", "/sdapi/v1/sd-models", "/sdapi/v1/samplers", "/sdapi/v1/loras", "/sdapi/v1/options",
    "/sdapi/v1/cmd-flags", "/sdapi/v1/progress", "/sdapi/v1/memory", "/sdapi/v1/nothing", "/pictures/..%2f..%2fx.png",
    "/pictures/none/thumb", "/evaluations/none/results.json", "/runs/none/grid.png", "/adapters/none/preview",
)  # fmt: skip
QUICK: dict[str, Any] = {"prompt": CIRCLE, "steps": 2, "seed": 7}
POSTS: tuple[tuple[str, Any], ...] = (
    ("/v1/images/generations", {**QUICK, "response_format": "b64_json", "output_format": "png"}),
    ("/v1/images/generations", {**QUICK, "response_format": "b64_json", "output_format": "jpeg"}),
    ("/v1/images/generations", {**QUICK, "response_format": "b64_json", "output_format": "webp"}),
    ("/v1/images/generations", {**QUICK, "model": "/etc/passwd"}),
    ("/v1/images/generations", {"prompt": 7}),
    ("/sdapi/v1/txt2img", QUICK),
    ("/sdapi/v1/txt2img", {**QUICK, "sampler_name": "none"}),
    ("/sdapi/v1/img2img", {**QUICK, "init_images": ["file:///etc/hostname"]}),
    ("/sdapi/v1/png-info", {"image": "nothing"}),
    ("/api/v1/jobs", {"prompt": CIRCLE, "num_inference_steps": 2, "seed": 8}),
    ("/api/v1/jobs", {"prompt": CIRCLE, "checkpoint": "broken", "seed": 8}),
    ("/api/v1/jobs", {"prompt": CIRCLE, "init_image": "AAAA"}),
    ("/api/v1/jobs", [1, 2]),
)


class Kept:
    """Numbers what left the studio, a file for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def keep(self, content: bytes | str, name: str) -> None:
        self._count += 1
        data = content.encode() if isinstance(content, str) else content
        (self._folder / f"{self._count:03}-{name}").write_bytes(data)

    def error(self, error: BaseException) -> None:
        self.keep(f"{type(error).__name__}: {error}", "error.txt")


def draw(services: Services, kept: Kept) -> None:
    record = services.generate(CIRCLE, num_inference_steps=2, seed=7)[0]
    kept.keep(services.gallery.path(record).read_bytes(), "picture.png")
    kept.keep(json.dumps(services.reproduction.submit(record.id).result()), "reproduction.json")
    kept.keep(services.enhancer.enhance("a crimson ball", by_rule=False).model_dump_json(), "enhanced.json")
    for bad in ({"checkpoint": "broken"}, {"prompt": "<lora:none:1>"}, {"prompt": "__none__"}, {"seed": -7},
                {"init_image": str(Path("/nowhere/at/all.png"))}):  # fmt: skip
        try:
            services.generate(**{"prompt": CIRCLE, **bad})
        except StudioError as error:
            kept.error(error)


def compare(services: Services, kept: Kept) -> str:
    flash = FlashRequest(prompts=(CIRCLE,), accelerator="flash-pocket-sd15", steps=(2,), num_images=1)
    services.flash.submit(flash).result()
    systems = [{"num_inference_steps": 2}, {"num_inference_steps": 1}]
    prompts = [f"a {colour} circle on a white background" for colour in ("red", "blue")]
    values = {"systems": systems, "prompts": prompts, "num_prompts": 2, "num_images": 1}
    standing = services.evaluations.submit(EvaluationRequest.model_validate(values))
    standing.job.result()
    return standing.id


def ask(services: Services, kept: Kept, evaluation_id: str) -> None:
    password = services.settings.password
    app = Starlette(
        routes=[*all_routes(services), *evaluation_routes(services)],
        middleware=[Middleware(Gate, settings=services.settings, password=password)],
    )
    exports = [f"/evaluations/{evaluation_id}/{name}" for name in ("results.json", "report.html", "images.csv")]
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        kept.keep(client.get("/api/v1/models").text, "without-password.txt")
        kept.keep(client.post("/login", data={"password": "wrong"}).text, "wrong-password.txt")
        client.headers["Authorization"] = f"Bearer {password}"
        for path in (*GETS, *exports):
            answer = client.get(path, headers={"Accept": "text/html"})
            kept.keep(answer.content, "got.bin")
            kept.keep(str(answer.headers), "headers.txt")
        for path, body in POSTS:
            answer = client.post(path, json=body)
            kept.keep(answer.content, "posted.json")
            _keep_pictures(answer.json(), kept)
        broken = client.post("/v1/images/generations", content=b"{", headers={"Content-Type": "application/json"})
        kept.keep(broken.text, "broken.json")


def _keep_pictures(answer: Any, kept: Kept) -> None:
    if not isinstance(answer, dict):
        return
    for each in [*(answer.get("data") or ()), *(answer.get("images") or ())]:
        text = each.get("b64_json") if isinstance(each, dict) else each
        if text:
            kept.keep(base64.b64decode(text), "sent-picture.bin")


def break_things(services: Services, kept: Kept) -> None:
    """The gallery's folder goes away, and a picture that it holds is asked for."""
    images = services.settings.images_dir
    images.rename(images.with_name("away"))
    images.write_text("not a folder any more")
    try:
        services.generate(CIRCLE, num_inference_steps=2, seed=11)
    except StudioError as error:
        kept.error(error)
    images.unlink()
    images.with_name("away").rename(images)


def tour(folder: Path) -> None:
    """Everything once; what it takes is a minute."""
    logging.basicConfig(level=logging.DEBUG, filename=folder / "studio.log", force=True)
    kept = Kept(folder)
    data = Path(os.environ["FLASH_STUDIO_DATA_DIR"])
    broken = data / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with open_services(is_page=True) as services:
        draw(services, kept)
        evaluation_id = compare(services, kept)
        ask(services, kept, evaluation_id)
        kept.keep(json.dumps(shell.build(services).get_config_file(), default=str), "page.json")
        break_things(services, kept)
        logging.getLogger(__name__).debug("settings: %r", services.settings)
        with suppress(AttributeError):
            services.generation._engine.get().close()
    os.chdir(folder)
    for arguments in (["verify", "001-picture.png"], ["verify", "--json", "001-picture.png", "none.png"], ["models"],
                      ["models", "--json"], ["adapters", "list"], ["generate", CIRCLE, "--model", "none"]):  # fmt: skip
        with (folder / f"cli-{'-'.join(arguments[:2])[:20]}.txt").open("w") as told:
            sys.stdout = sys.stderr = told
            main(arguments)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


if __name__ == "__main__":
    tour(Path(sys.argv[1]))
