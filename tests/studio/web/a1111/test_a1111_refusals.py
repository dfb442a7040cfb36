"""What AUTOMATIC1111's API refuses, in its own form and in a sentence, before anything is drawn."""

import base64
import io
import json
import time
from typing import Any

import httpx
import pytest
from PIL import Image

from studio.domain.request import GenerationRequest
from studio.services import Services
from studio.settings import Settings
from studio.web.a1111.api import a1111_routes
from studio.web.bodies import MAX_JSON_BYTES
from tests.studio.web.conftest import Serve

LONG = GenerationRequest(prompt="a red star", num_images=64)


@pytest.fixture
def url(services: Services, serve: Serve) -> str:
    return serve(a1111_routes(services)) + "/sdapi/v1"


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = encoded(Image.new("RGB", (128, 128), "red"))
HALF = Image.new("L", (128, 128))
HALF.paste(255, (0, 0, 64, 128))
MASK = encoded(HALF)


def check(answer: httpx.Response, status: int, said: str, field: str = "") -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "detail", "body", "errors"} and body["body"] == ""
    assert said in body["detail"], body
    assert field in body["errors"], body


@pytest.mark.parametrize(
    ("values", "said", "field"),
    [
        ({"prompt": ""}, "There is no prompt", "prompt"),
        ({"prompt": 5}, "prompt is 5; it must be a text", "prompt"),
        ({"prompt": "a" * 10_001}, "at most 10,000 fit", "prompt"),
        ({"prompt": "a <lora:nobody:1>"}, "no adapter called 'nobody'", "prompt"),
        ({"steps": 0}, "Steps is 0", "steps"),
        ({"steps": -1}, "Steps is -1", "steps"),
        ({"steps": 1e9}, "from 1 to 150", "steps"),
        ({"steps": "many"}, "steps is 'many'; it must be a whole number", "steps"),
        ({"steps": float("nan")}, "steps is nan", "steps"),
        ({"cfg_scale": float("inf")}, "cfg_scale is inf; it must be a number", "cfg_scale"),
        ({"cfg_scale": 31}, "from 0 to 30", "cfg_scale"),
        ({"width": 7}, "multiple of 8", "width"),
        ({"width": 0, "enable_hr": True, "hr_resize_x": 64}, "Width is 0", "width"),
        ({"height": 4097}, "from 64 to 2048", "height"),
        ({"width": 512}, "draws from 64 to 256 px", "width"),
        ({"seed": 2**32}, "Seed is 4294967296", "seed"),
        ({"seed": 2**64}, "Seed is", "seed"),
        ({"seed": -2}, "Seed is -2", "seed"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1", "batch_size"),
        ({"batch_size": -2, "n_iter": -2}, "at least 1", "batch_size"),
        ({"n_iter": 1000}, "at most 64", "n_iter"),
        ({"batch_size": 9, "n_iter": 9}, "Number of pictures is 81", "batch_size"),
        ({"scheduler": "Karras", "sampler_name": "Euler a"}, "not offered with the schedule 'Karras'", ""),
        ({"styles": ["baroque"]}, "no style called 'baroque'", "styles"),
        ({"styles": ["on_navy", "on_mint"]}, "a picture takes one", "styles"),
        ({"styles": "on_navy"}, "it must be a list", "styles"),
        ({"override_settings": {"sd_model_checkpoint": "dream [0a1b]"}}, "no model called", "sd_model_checkpoint"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 13}}, "Clip skip is 13", "CLIP_stop_at_last_layers"),
        ({"override_settings": []}, "it must be an object", "override_settings"),
        ({"tiling": True}, "A picture that tiles is not offered here", "tiling"),
        ({"restore_faces": True}, "Restoring faces", "restore_faces"),
        ({"restore_faces": "often"}, "it must be true or false", "restore_faces"),
        ({"subseed_strength": 0.1}, "A variation seed", "subseed_strength"),
        ({"eta": 0.5}, "Another eta", "eta"),
        ({"s_churn": 1}, "Churn", "s_churn"),
        ({"script_name": "X/Y/Z plot"}, "A script is not offered here, and script_name is 'X/Y/Z plot'", "script_name"),
        ({"alwayson_scripts": {"ControlNet": {"args": [{}]}}}, "alwayson_scripts is 'ControlNet'", "alwayson_scripts"),
        ({"refiner_checkpoint": "sdxl"}, "A refiner", "refiner_checkpoint"),
        ({"enable_hr": True, "hr_upscaler": "ESRGAN_4x"}, "There are Latent and Lanczos", "hr_upscaler"),
        ({"enable_hr": True, "hr_scale": 1}, "must make it larger", "hr_scale"),
        ({"enable_hr": True, "hr_scale": 4}, "more than the 256 px", "hr_scale"),
        ({"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 2}, "from 0.05 to 1", "denoising_strength"),
        ({"enable_hr": True, "hr_resize_x": 192, "hr_resize_y": 160}, "hr_resize_y is 160", "hr_resize_y"),
        ({"enable_hr": True, "hr_prompt": "a cat"}, "Another prompt for the second pass", "hr_prompt"),
        ({"enable_hr": True, "hr_sampler_name": "Heun"}, "Another sampler", "hr_sampler_name"),
        ({"infotext": "Steps: 4, Seed: 1, Size: 64x64"}, "There is no prompt", "prompt"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    url: str, services: Services, values: dict[str, Any], said: str, field: str
) -> None:
    content = json.dumps({"prompt": "a red star", **values})
    answer = httpx.post(f"{url}/txt2img", content=content, headers={"content-type": "application/json"}, timeout=60)
    check(answer, 422, said, field)
    assert services.gallery.count() == 0


def test_an_unknown_sampler_is_not_found_in_the_words_that_clients_know(url: str) -> None:
    for name in ("Euler B", 'DPM++ 2M, Seed: 1, Sampler: "Heun"\nx'):
        answer = httpx.post(f"{url}/txt2img", json={"prompt": "a", "sampler_name": name}, timeout=60)
        check(answer, 404, "Sampler not found", "Euler a")
        assert answer.json()["detail"] == "Sampler not found"


@pytest.mark.parametrize(
    ("values", "said", "field"),
    [
        ({}, "0 pictures are given", "init_images"),
        ({"init_images": [PICTURE, PICTURE]}, "2 pictures are given", "init_images"),
        ({"init_images": ["http://127.0.0.1/a.png"]}, "at an address is not fetched", "init_images"),
        ({"init_images": ["https://example.org/a.png"]}, "at an address is not fetched", "init_images"),
        ({"init_images": [" file:///etc/passwd"]}, "at an address is not fetched", "init_images"),
        ({"init_images": ["/etc/passwd"]}, "Invalid encoded image", "init_images"),
        ({"init_images": ["not base64!"]}, "Invalid encoded image", "init_images"),
        ({"init_images": [""]}, "Invalid encoded image", "init_images"),
        ({"init_images": ["aGVsbG8="]}, "Invalid encoded image. The picture is no PNG", "init_images"),
        ({"init_images": ["data:image/png;base64," + PICTURE[:200]]}, "Invalid encoded image", "init_images"),
        ({"init_images": [PICTURE], "mask": "http://[::1]/"}, "at an address is not fetched", "mask"),
        ({"init_images": [PICTURE], "mask": "aGVsbG8="}, "Invalid encoded image. The mask", "mask"),
        ({"init_images": [PICTURE], "mask": encoded(Image.new("L", (128, 128)))}, "The mask is empty", "mask"),
        ({"init_images": [PICTURE], "mask": encoded(Image.new("L", (64, 128), 255))}, "another form", "mask"),
        ({"init_images": [PICTURE], "mask": MASK, "mask_blur": 65}, "Mask blur is 65", "mask_blur"),
        ({"init_images": [PICTURE], "inpainting_fill": 2}, "Filling the masked part", "inpainting_fill"),
        ({"init_images": [PICTURE], "resize_mode": 3}, "0 (stretch), 1 (crop) or 2 (fill)", "resize_mode"),
        ({"init_images": [PICTURE], "denoising_strength": 0}, "from 0.05 to 1", "denoising_strength"),
    ],
)
def test_pictures_that_cannot_be_begun_from_are_refused(
    url: str, services: Services, values: dict[str, Any], said: str, field: str
) -> None:
    check(httpx.post(f"{url}/img2img", json={"prompt": "a red star", **values}, timeout=60), 422, said, field)
    assert services.gallery.count() == 0


def test_the_whole_picture_is_drawn_where_only_the_masked_part_is_asked_for_and_that_is_said(url: str) -> None:
    values = {"prompt": "a red star", "steps": 2, "init_images": [PICTURE], "mask": MASK, "inpaint_full_res": True}
    answer = httpx.post(f"{url}/img2img", json=values, timeout=30).json()
    assert json.loads(answer["info"])["extra_generation_params"]["Inpaint area"] == "Whole picture"


def test_what_no_program_should_send_is_refused_in_its_form_too(url: str) -> None:
    json_type = {"content-type": "application/json"}
    check(httpx.post(f"{url}/txt2img", data={"prompt": "a"}, timeout=60), 415, "application/x-www-form-urlencoded")
    check(httpx.post(f"{url}/options", content=b"{}", timeout=60), 415, "of no content type")
    for content in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"):
        check(httpx.post(f"{url}/txt2img", content=content, headers=json_type, timeout=60), 422, "The body is no JSON")
    deep = b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}"
    check(httpx.post(f"{url}/txt2img", content=deep, headers=json_type, timeout=60), 422, "more than 32 deep")
    for field in ("prompt", "infotext", "hr_prompt"):
        half = json.dumps({"prompt": "a red star", field: "a\ud800"})
        check(
            httpx.post(f"{url}/txt2img", content=half, headers=json_type, timeout=60), 422, "it must be a text", field
        )
    check(httpx.get(f"{url}/txt2img", timeout=60), 405, "txt2img is asked by POST")
    assert httpx.delete(f"{url}/options", timeout=60).headers["allow"] == "GET, POST"
    check(httpx.get(f"{url}/no-such-thing", timeout=60), 404, "no 'no-such-thing' under /sdapi/v1")
    check(httpx.get(f"{url}/../v1/..%2f..%2fetc/passwd", timeout=60), 404, "under /sdapi/v1")
    check(httpx.post(f"{url}/options", json={"sd_model_checkpoint": ["a"]}, timeout=60), 422, "no model called")


def test_a_body_may_be_so_large_only(url: str) -> None:
    json_type = {"content-type": "application/json"}
    too_much = b" " * (MAX_JSON_BYTES + 1)
    check(httpx.post(f"{url}/txt2img", content=too_much, headers=json_type, timeout=30), 413, "more than 64 MB")

    def pieces() -> Any:
        for _ in range(MAX_JSON_BYTES // 2**20 + 1):
            yield b" " * 2**20

    check(httpx.post(f"{url}/txt2img", content=pieces(), headers=json_type, timeout=30), 413, "more than 64 MB")


def test_settings_that_mean_nothing_here_may_be_anything(url: str) -> None:
    odd = '{"a": NaN, "b": 1e999, "c": "\\ud800", "d": ' + "[" * 20 + "]" * 20 + "}"
    content = f'{{"prompt": "a red star", "steps": 2, "override_settings": {odd}}}'
    answer = httpx.post(f"{url}/txt2img", content=content, headers={"content-type": "application/json"}, timeout=30)
    assert answer.status_code == 200 and answer.json()["parameters"]["override_settings"] == {}


@pytest.mark.parametrize("image", ["http://127.0.0.1/a.png", "aGVsbG8=", PICTURE[:100], 5, None])
def test_a_picture_that_cannot_be_read_has_no_settings(url: str, image: Any) -> None:
    assert httpx.post(f"{url}/png-info", json={"image": image}, timeout=60).status_code == 422


def test_settings_are_read_from_any_kind_of_picture(url: str) -> None:
    text = "a café\nSteps: 4, Sampler: Euler, Seed: 5, Size: 64x64"
    for kind, order in (("JPEG", "utf-16-be"), ("WEBP", "utf-16-le")):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(order)
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, kind, exif=exif)
        image = f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
        answer = httpx.post(f"{url}/png-info", json={"image": image}, timeout=60).json()
        assert answer["info"] == text and answer["parameters"]["Sampler"] == "Euler"
    plain = httpx.post(f"{url}/png-info", json={"image": PICTURE}, timeout=60).json()
    assert plain == {"info": "", "items": {}, "parameters": {}}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_queued": 1})


def test_when_too_much_waits_it_is_said_when_to_ask_again(url: str, services: Services) -> None:
    first = services.generation.submit(LONG)
    while services.runner.row(first.id).state == "queued":
        time.sleep(0.02)
    services.generation.submit(LONG)
    answer = httpx.post(f"{url}/txt2img", json={"prompt": "a red star"}, timeout=60)
    check(answer, 503, "1 jobs are waiting already")
    assert int(answer.headers["retry-after"]) > 0
    for job in services.runner.active("local"):
        job.cancel()
