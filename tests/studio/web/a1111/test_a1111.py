"""AUTOMATIC1111's API, asked by the client that people use for it."""

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import sd_parsers
import webuiapi
from PIL import Image

from engines.base import Engine
from studio.generation import EngineHolder
from studio.infotext import parse_infotext
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.a1111.api import a1111_routes
from studio.web.access import new_token, visitor_of
from tests.studio.adapter_files import adapter_file
from tests.studio.web.conftest import Serve

Connect = Callable[[str], webuiapi.WebUIApi]
QUICK: dict[str, Any] = {"prompt": "a red star", "steps": 4, "seed": 7, "width": 128, "height": 128, "cfg_scale": 3}


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of an address; their sockets are closed at the end."""
    with ExitStack() as stack:

        def client(url: str) -> webuiapi.WebUIApi:
            api = webuiapi.WebUIApi(host="127.0.0.1", port=urlsplit(url).port)
            return stack.enter_context(api.session) and api

        yield client


@pytest.fixture
def url(services: Services, serve: Serve) -> str:
    return serve(a1111_routes(services))


@pytest.fixture
def api(url: str, connect: Connect) -> webuiapi.WebUIApi:
    return connect(url)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def eventually(is_so: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Drawing:
    """A long request that goes on in a thread."""

    def __init__(self, api: webuiapi.WebUIApi, **values: Any) -> None:
        self.results: list[webuiapi.WebUIApiResult] = []
        self._asked = {**QUICK, "steps": 25, **values}
        self._api = api
        self._thread = threading.Thread(target=self._draw)
        self._thread.start()

    def _draw(self) -> None:
        self.results.append(self._api.txt2img(**self._asked))

    def result(self) -> webuiapi.WebUIApiResult:
        self._thread.join(60)
        return self.results[0]


def test_a_picture_comes_with_its_facts_and_is_that_of_the_library(
    api: webuiapi.WebUIApi, services: Services, tmp_path: Path
) -> None:
    result = api.txt2img(**QUICK, negative_prompt="blue", sampler_name="DPM++ 2M", scheduler="Karras", n_iter=2)
    records = services.generate(
        "a red star",
        again=True,
        negative_prompt="blue",
        num_inference_steps=4,
        seed=7,
        guidance_scale=3,
        scheduler="dpmpp_2m_karras",
        num_images=2,
    )
    for image, record in zip(result.images, records, strict=True):
        assert np.array_equal(pixels(image), pixels(Image.open(services.gallery.path(record))))
    info = result.info
    assert (info["prompt"], info["negative_prompt"]) == ("a red star", "blue")
    assert (info["seed"], info["all_seeds"], info["steps"], info["cfg_scale"]) == (7, [7, 8], 4, 3)
    assert (info["width"], info["height"], info["sampler_name"]) == (128, 128, "DPM++ 2M")
    assert info["sd_model_name"] == "pocket-sd15" and len(info["sd_model_hash"]) == 10
    assert info["extra_generation_params"]["Schedule type"] == "Karras"
    assert result.parameters["seed"] == 7 and result.parameters["restore_faces"] is False
    assert [image.info["parameters"] for image in result.images] == info["infotexts"]

    read = api.png_info(result.images[1])
    assert read.info == info["infotexts"][1] and read.parameters == parse_infotext(info["infotexts"][1])
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(result.json["images"][0]))
    parsed = sd_parsers.ParserManager().parse(path)
    assert parsed.full_prompt == "a red star" and parsed.full_negative_prompt == "blue"
    assert [sampler.parameters["seed"] for sampler in parsed.samplers] == ["7"]


def test_what_is_left_open_suits_the_model(url: str, api: webuiapi.WebUIApi) -> None:
    answer = api.session.post(f"{url}/sdapi/v1/txt2img", json={"prompt": "a red star", "steps": None, "unknown": 1})
    assert answer.status_code == 200, answer.text
    sent = answer.json()["parameters"]
    assert {name: sent[name] for name in ("steps", "cfg_scale", "width", "height", "sampler_name", "scheduler")} == {
        "steps": 25,
        "cfg_scale": 3.0,
        "width": 128,
        "height": 128,
        "sampler_name": "DPM++ 2M",
        "scheduler": "Karras",
    }
    assert json.loads(answer.json()["info"])["seed"] >= 0


def test_pictures_may_stay_here(api: webuiapi.WebUIApi, services: Services) -> None:
    result = api.txt2img(**QUICK, batch_size=2, send_images=False)
    assert result.images == [] and result.info["all_seeds"] == [7, 8]
    assert services.gallery.count() == 2


def test_a_picture_begins_from_another(api: webuiapi.WebUIApi, services: Services) -> None:
    first = api.txt2img(**QUICK, sampler_name="DDIM").image
    drawn = api.img2img([first], **{**QUICK, "prompt": "a blue star"}, denoising_strength=0.5, sampler_name="DDIM")
    (record,) = services.generate(
        "a blue star",
        again=True,
        init_image=first.convert("RGB"),
        strength=0.5,
        num_inference_steps=4,
        seed=7,
        guidance_scale=3,
        scheduler="ddim",
        width=128,
        height=128,
    )
    assert np.array_equal(pixels(drawn.image), pixels(Image.open(services.gallery.path(record))))
    assert drawn.info["denoising_strength"] == drawn.parameters["denoising_strength"] == 0.5
    assert drawn.parameters["init_images"] is None


@pytest.mark.parametrize("is_inverted", [False, True])
def test_what_is_not_masked_keeps_every_pixel(api: webuiapi.WebUIApi, is_inverted: bool) -> None:
    source = Image.effect_mandelbrot((128, 128), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    mask = Image.new("L", (128, 128), 255 if is_inverted else 0)
    mask.paste(0 if is_inverted else 255, (0, 0, 64, 128))
    asked = {**QUICK, "denoising_strength": 1, "mask_blur": 0, "inpaint_full_res": False}
    drawn = api.img2img([source], mask_image=mask, inpainting_mask_invert=int(is_inverted), **asked).image
    changed = np.abs(pixels(drawn) - pixels(source)).max(axis=2)
    assert changed[:, 64:].max() == 0 and changed[:, :64].max() > 30


@pytest.mark.parametrize(("mode", "means"), [(0, "stretch"), (1, "crop"), (2, "fill")])
def test_a_picture_of_another_form_is_fitted_as_asked(
    api: webuiapi.WebUIApi, services: Services, mode: int, means: str
) -> None:
    source = Image.effect_mandelbrot((192, 96), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    drawn = api.img2img([source], resize_mode=mode, denoising_strength=0.3, sampler_name="DDIM", **QUICK)
    (record,) = services.generate(
        "a red star",
        again=True,
        init_image=source,
        strength=0.3,
        resize_mode=means,
        num_inference_steps=4,
        seed=7,
        guidance_scale=3,
        scheduler="ddim",
        width=128,
        height=128,
    )
    assert np.array_equal(pixels(drawn.image), pixels(Image.open(services.gallery.path(record))))


@pytest.mark.parametrize(
    "larger",
    [{"hr_scale": 1.5, "hr_upscaler": "Latent"}, {"hr_resize_x": 192, "hr_resize_y": 192, "hr_upscaler": "Lanczos"}],
)
def test_a_second_pass_makes_it_larger(api: webuiapi.WebUIApi, larger: dict[str, Any]) -> None:
    result = api.txt2img(**QUICK, enable_hr=True, denoising_strength=0.5, hr_second_pass_steps=3, **larger)
    assert result.image.size == (192, 192)
    told = result.info["extra_generation_params"]
    assert (told["Hires upscale"], told["Hires steps"], told["Denoising strength"]) == ("1.5", "3", "0.5")
    assert told["Hires upscaler"] == larger["hr_upscaler"]


def test_adapters_are_named_by_tags(api: webuiapi.WebUIApi, services: Services, tmp_path: Path) -> None:
    services.adapters.store.add(adapter_file(tmp_path / "ink.safetensors", metadata={"ss_network_dim": "2"}))
    (listed,) = api.get_loras()
    assert (listed["name"], listed["path"], listed["metadata"]) == (
        "ink",
        "ink.safetensors",
        {"ss_network_dim": "2"},
    )
    plain = api.txt2img(**QUICK)
    inked = api.txt2img(**{**QUICK, "prompt": f"a red star <lora:{listed['alias']}:0.9>"})
    assert np.abs(pixels(plain.image) - pixels(inked.image)).max() > 8
    assert inked.info["prompt"] == "a red star <lora:ink:0.9>"
    assert inked.info["extra_generation_params"]["Lora hashes"].startswith("ink: ")


def test_styles_are_named_by_id_or_title(api: webuiapi.WebUIApi) -> None:
    (style,) = (each for each in api.get_prompt_styles() if each["name"] == "On navy")
    for name in ("On navy", "on_navy"):
        assert api.txt2img(**QUICK, styles=[name]).info["prompt"] == style["prompt"].replace("{prompt}", "a red star")


def test_the_text_of_a_picture_draws_it_again(url: str, api: webuiapi.WebUIApi) -> None:
    first = api.txt2img(**QUICK, sampler_name="Heun", override_settings={"CLIP_stop_at_last_layers": 2})
    again, other = (
        api.session.post(f"{url}/sdapi/v1/txt2img", json={"infotext": first.info["infotexts"][0], **more}).json()
        for more in ({}, {"seed": 8})
    )
    assert json.loads(again["info"])["infotexts"] == first.info["infotexts"]
    assert json.loads(other["info"])["seed"] == 8 and json.loads(other["info"])["sampler_name"] == "Heun"


def test_progress_is_told_while_it_draws(api: webuiapi.WebUIApi) -> None:
    assert api.get_progress()["progress"] == 0.0 and api.get_progress()["state"]["job_count"] == 0
    drawing = Drawing(api, n_iter=4)
    seen: list[dict[str, Any]] = []

    def is_half_done() -> bool:
        seen.append(api.get_progress())
        return seen[-1]["progress"] > 0.5

    eventually(is_half_done)
    told = seen[-1]
    assert told["state"]["job_count"] == 4 and told["state"]["job_no"] in (2, 3)
    assert 1 <= told["state"]["sampling_step"] <= told["state"]["sampling_steps"] == 25
    assert told["eta_relative"] > 0
    steps = [each["progress"] for each in seen]
    assert steps == sorted(steps) and len(set(steps)) > 5
    pictures = [each["current_image"] for each in seen if each["current_image"]]
    assert Image.open(io.BytesIO(base64.b64decode(pictures[-1]))).size[0] > 0
    bare = api.session.get(f"{api.baseurl}/progress?skip_current_image=true").json()
    assert bare["progress"] > 0 and bare["current_image"] is None
    assert len(drawing.result().images) == 4
    api.util_wait_for_ready(check_interval=0.05)


@pytest.mark.parametrize("how", ["interrupt", "skip"])
def test_an_interruption_keeps_what_is_finished(api: webuiapi.WebUIApi, services: Services, how: str) -> None:
    drawing = Drawing(api, n_iter=20)
    eventually(lambda: api.get_progress()["state"]["job_no"] >= 1)
    assert getattr(api, how)() == {}
    result = drawing.result()
    assert 1 <= len(result.images) < 20
    assert result.info["all_seeds"] == list(range(7, 7 + len(result.images)))
    assert services.gallery.count() == len(result.images)
    assert api.get_progress()["state"]["job_count"] == 0
    assert getattr(api, how)() == {}


def test_a_chosen_model_draws_later_pictures(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_current_model() == "pocket-sd15"
    api.util_set_model("Pocket SD 2.1")
    api.util_wait_for_ready(check_interval=0.05)
    assert api.util_get_current_model() == "pocket-sd21"
    larger = {**QUICK, "width": 160, "height": 160}
    assert api.txt2img(**larger).info["sd_model_name"] == "pocket-sd21"
    for name in ("pocket-sd15", "Pocket SD 1.5", "pocket-sd15 [0123456789]", "pocket-sd15.safetensors [0123456789]"):
        once = api.txt2img(**QUICK, override_settings={"sd_model_checkpoint": name}, send_images=False)
        assert once.info["sd_model_name"] == "pocket-sd15"
    assert api.util_get_current_model() == "pocket-sd21"
    assert api.set_options({"CLIP_stop_at_last_layers": 2, "sd_vae": "Automatic"}) is None
    assert api.get_options()["CLIP_stop_at_last_layers"] == 2
    assert api.txt2img(**larger).info["clip_skip"] == 2
    api.txt2img(
        **QUICK,
        override_settings={"sd_model_checkpoint": "pocket-sd15"},
        override_settings_restore_afterwards=False,
    )
    assert api.util_get_current_model() == "pocket-sd15"


def test_every_listed_sampler_can_be_asked_for(api: webuiapi.WebUIApi, services: Services) -> None:
    asked: set[str] = set()
    schedules = {row["name"]: row["label"] for row in api.get_schedulers()}
    assert schedules["karras"] == "Karras" and schedules["automatic"] == "Automatic"
    for row in services.catalogue.schedulers:
        assert row.a1111_sampler in api.util_get_sampler_names()
        name = next(name for name, label in schedules.items() if label == row.a1111_schedule)
        values = {**QUICK, "steps": 2, "sampler_name": row.a1111_sampler, "scheduler": name}
        info = api.txt2img(**values, send_images=False).info
        asked.add(services.gallery.find(limit=1)[0].recipe.scheduler)
        assert info["extra_generation_params"]["Schedule type"] == row.a1111_schedule
    assert asked == {row.id for row in services.catalogue.schedulers}


@pytest.mark.parametrize(
    ("sampler", "schedule", "means"),
    [
        ("DPM++ 2M", "automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", "Karras", "dpmpp_2m_karras"),
        ("dpm++ 2m", "uniform", "dpmpp_2m"),
        ("dpmpp_2m_sde_karras", "", "dpmpp_2m_sde_karras"),
        ("", "uniform", "dpmpp_2m"),
    ],
)
def test_samplers_go_by_many_names(
    url: str, api: webuiapi.WebUIApi, services: Services, sampler: str, schedule: str, means: str
) -> None:
    answer = api.session.post(f"{url}/sdapi/v1/txt2img", json={**QUICK, "sampler_name": sampler, "scheduler": schedule})
    assert answer.status_code == 200, answer.text
    assert services.gallery.find(limit=1)[0].recipe.scheduler == means


def test_lists_say_what_there_is_and_not_where(api: webuiapi.WebUIApi, services: Services) -> None:
    models = api.get_sd_models()
    assert [model["title"] for model in models] == [row.id for row in services.catalogue.checkpoints]
    assert [model["filename"] for model in models] == [model["model_name"] for model in models]
    drawn = api.txt2img(**QUICK).info
    assert next(model["hash"] for model in models if model["title"] == "pocket-sd15") == drawn["sd_model_hash"]
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_cmd_flags() == {}
    assert [row["name"] for row in api.get_upscalers()] == ["Lanczos"]
    assert [row["name"] for row in api.get_latent_upscale_modes()] == ["Latent"]
    assert api.get_sd_vae() == api.get_hypernetworks() == api.get_face_restorers() == []
    assert api.custom_get("script-info", baseurl=True) == []
    assert api.get_memory()["ram"]["free"] > 0
    assert api.refresh_checkpoints() is None
    assert api.session.post(f"{api.baseurl}/refresh-loras").json() is None


def test_a_client_that_goes_away_is_not_drawn_for(url: str, services: Services) -> None:
    body = json.dumps({**QUICK, "steps": 25, "n_iter": 30}).encode()
    address = urlsplit(url)
    head = (
        f"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + body)
        (job,) = eventually(lambda: services.runner.active("local"))
    eventually(lambda: job.is_over)
    assert services.runner.row(job.id).state == "cancelled"
    assert services.gallery.count() < 30


@pytest.fixture
def shared(settings: Settings, engine: Engine) -> Iterator[Services]:
    """Services of a page that others can reach too."""
    with open_services(settings.model_copy(update={"share": True}), engine=EngineHolder(lambda: engine)) as opened:
        yield opened


def test_visitors_neither_see_nor_stop_each_other(shared: Services, serve: Serve, connect: Connect) -> None:
    url = serve(a1111_routes(shared))
    mine, other, nobody = connect(url), connect(url), connect(url)
    token = new_token()
    mine.set_auth(token, "x")
    other.set_auth(new_token(), "x")
    other.set_options({"sd_model_checkpoint": "pocket-sd21"})
    assert mine.get_options()["sd_model_checkpoint"] == "pocket-sd15"
    drawing = Drawing(mine, n_iter=4)
    eventually(lambda: mine.get_progress()["state"]["job_no"] >= 1)
    for stranger in (other, nobody):
        assert stranger.get_progress()["state"]["job_count"] == 0 and stranger.get_progress()["progress"] == 0.0
        assert stranger.get_progress()["current_image"] is None
        assert stranger.interrupt() == stranger.skip() == {}
    assert len(drawing.result().images) == 4
    assert {record.visitor for record in shared.gallery.find()} == {visitor_of(token)}
    assert "token" in nobody.set_options({"sd_model_checkpoint": "pocket-sd21"})["detail"]
    assert nobody.txt2img(**QUICK).info["sd_model_name"] == "pocket-sd15"


def test_on_a_page_of_ones_own_every_client_may_look_and_stop(
    url: str, api: webuiapi.WebUIApi, connect: Connect
) -> None:
    other = connect(url)
    other.set_auth(new_token(), "x")
    drawing = Drawing(other, n_iter=20)
    eventually(lambda: api.get_progress()["state"]["job_no"] >= 1)
    api.interrupt()
    assert 1 <= len(drawing.result().images) < 20


def test_a_request_that_is_sent_again_is_drawn_once(url: str, services: Services) -> None:
    named = {"Idempotency-Key": "1f0c7d3e-9a52-4c0e-8f2f-0d3a5b6c7d8e"}
    asked = {"prompt": "a red star", "steps": 2}  # a seed is chosen for the first alone
    drawn = [httpx.post(f"{url}/sdapi/v1/txt2img", json=asked, headers=named, timeout=60).json() for _ in range(2)]
    assert drawn[0]["images"] == drawn[1]["images"] and services.gallery.count() == 1
    other = httpx.post(f"{url}/sdapi/v1/txt2img", json={**asked, "steps": 3}, headers=named, timeout=60)
    assert other.status_code == 422 and "was used for another request" in other.json()["detail"]
