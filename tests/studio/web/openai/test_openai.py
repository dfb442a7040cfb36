"""OpenAI's own client, unmodified, against a real server: it draws, and is told in its own words what does not work."""

import base64
import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI
from openai.types import ImagesResponse
from PIL import Image

from engines.base import Engine
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.domain.errors import RateLimited
from studio.domain.events import Cancelled, Started
from studio.generation import EngineHolder
from studio.job import Job
from studio.metadata import pixels_sha256, read_settings
from studio.services import Services, open_services
from studio.settings import Settings
from studio.web.access import new_token, visitor_of
from studio.web.bodies import MAX_FILE_BYTES, MAX_JSON_BYTES
from studio.web.openai.api import openai_routes
from studio.web.openai.errors import refusal
from studio.web.openai.pictures import encoded
from studio.web.page_routes import page_routes
from studio.web.refusals import told
from tests.studio.records import CATALOGUE, picture, recipe, record
from tests.studio.web.conftest import Serve

CIRCLE = "a large red circle on a white background"
QUICK = {"steps": 4, "seed": 7}
LONG = {"steps": 150, "seed": 7}


@pytest.fixture
def url(serve: Serve, services: Services) -> str:
    return serve([*openai_routes(services), *page_routes(services)])


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="anything", max_retries=0) as opened:
        yield opened


@pytest.fixture
def shared(tmp_path: Path, engine: Engine) -> Iterator[Services]:
    """Services of a page that others reach too, where one job may wait."""
    settings = Settings(data_dir=tmp_path / "shared", offline=True, share=True, max_queued=1)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened:
        yield opened


def content(item: Any) -> bytes:
    return base64.b64decode(item.b64_json)


def items(answer: ImagesResponse) -> list[Any]:
    """The pictures of an answer; `seed` is a field that only we have."""
    assert answer.data
    return list(answer.data)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def refused(kind: type[APIError], ask: Callable[..., Any], **values: Any) -> Any:
    """The error of this type that asking with these values ends in."""
    with pytest.raises(kind) as caught:
        ask(**{"prompt": CIRCLE, **values})
    return caught.value


def eventually(look: Callable[[], Any]) -> Any:
    for _ in range(3_000):
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to it")


def only_job(services: Services, visitor: str = "local") -> Job:
    return eventually(lambda: services.runner.active(visitor))[0]


def test_a_picture_shows_what_was_asked_for_and_is_the_one_in_the_gallery(client: OpenAI, services: Services) -> None:
    answer = client.images.generate(prompt=CIRCLE, model="gpt-image-2", extra_body={"seed": 7})
    (item,), (record,) = items(answer), services.gallery.find()
    scene = parse(CIRCLE)
    assert scene and judge(opened(content(item)).convert("RGB"), scene).correct
    assert content(item) == services.gallery.path(record).read_bytes()
    assert (answer.size, answer.output_format, answer.background) == ("128x128", "png", "opaque")
    assert abs(answer.created - time.time()) < 60
    assert item.seed == 7 and item.url is None and item.revised_prompt is None
    assert record.recipe.checkpoint == services.catalogue.default_checkpoint


def test_the_same_seed_gives_the_pixels_that_the_library_gives(client: OpenAI, services: Services) -> None:
    settings = {
        "negative_prompt": "blur",
        "guidance_scale": 2.5,
        "scheduler": "euler_a",
        "num_inference_steps": 4,
        "seed": 11,
    }
    answer = client.images.generate(prompt=CIRCLE, model="pocket-sd21", size="96x128", extra_body=settings)
    again = services.generate(CIRCLE, again=True, checkpoint="pocket-sd21", width=96, height=128, **settings)
    assert pixels_sha256(opened(content(items(answer)[0]))) == again[0].pixels_sha256
    assert answer.size == "96x128"


def test_several_pictures_count_their_seeds_up_and_keep_their_order(client: OpenAI, services: Services) -> None:
    services.generate(CIRCLE, num_inference_steps=4, seed=2**32 - 1)  # one of them is there already
    answer = client.images.generate(prompt=CIRCLE, n=3, extra_body={"steps": 4, "seed": 2**32 - 2})
    assert [item.seed for item in items(answer)] == [2**32 - 2, 2**32 - 1, 0]
    by_seed = {record.recipe.seed: record.pixels_sha256 for record in services.gallery.find()}
    assert [pixels_sha256(opened(content(item))) for item in items(answer)] == [
        by_seed[item.seed] for item in items(answer)
    ]
    assert len(by_seed) == 3


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_how_a_picture_was_made_is_read_from_every_format(
    client: OpenAI, services: Services, tmp_path: Path, output_format: Any
) -> None:
    sd_parsers = pytest.importorskip("sd_parsers")
    prompt = f"{CIRCLE}, 猫"
    answer = client.images.generate(
        prompt=prompt, output_format=output_format, extra_body={**QUICK, "negative_prompt": "blur"}
    )
    file = content(items(answer)[0])
    path = tmp_path / f"a.{output_format}"
    path.write_bytes(file)
    found = sd_parsers.ParserManager().parse(path)
    assert (found.full_prompt, found.full_negative_prompt) == (prompt, "blur")
    assert found.samplers[0].parameters["seed"] == "7"
    request = read_settings(path, services.catalogue).request
    assert (request.prompt, request.seed, request.num_inference_steps) == (prompt, 7, 4)
    assert opened(file).format == output_format.upper() and answer.output_format == output_format
    assert b"trainedAlgorithmicMedia" in file


def test_a_request_that_is_sent_again_is_drawn_once(client: OpenAI, services: Services) -> None:
    named = {"Idempotency-Key": "1f0c7d3e-9a52-4c0e-8f2f-0d3a5b6c7d8e"}
    drawn = [
        client.images.generate(prompt=CIRCLE, extra_body={"steps": 4}, extra_headers=named) for _ in range(2)
    ]  # a seed is chosen for the first alone
    assert content(items(drawn[0])[0]) == content(items(drawn[1])[0])
    assert services.gallery.count() == 1
    with pytest.raises(BadRequestError, match="was used for another request"):
        client.images.generate(prompt="a blue square", extra_headers=named)


def test_compression_makes_files_smaller(client: OpenAI) -> None:
    sizes = [
        len(content(items(client.images.generate(**ask, output_compression=share, extra_body=QUICK))[0]))
        for ask in ({"prompt": CIRCLE, "output_format": "jpeg"}, {"prompt": CIRCLE, "output_format": "webp"})
        for share in (0, 100)
    ]
    assert sizes[0] < sizes[1] and sizes[2] < sizes[3]


@pytest.mark.parametrize(("sign", "is_told"), [("a", True), ("🐈", False)])
def test_a_prompt_too_long_for_the_comment_of_a_jpeg_still_gives_one(sign: str, is_told: bool) -> None:
    long = dict.fromkeys(("prompt", "negative_prompt", "typed_prompt", "original_prompt"), sign * 10_000)
    file = encoded(picture(), record(made=recipe(**long)), CATALOGUE, "jpeg", 90)
    assert opened(file).size == picture().size and b"trainedAlgorithmicMedia" in file
    if is_told:
        assert read_settings(io.BytesIO(file), CATALOGUE).request.negative_prompt == sign * 10_000


def test_an_address_leads_to_the_picture(client: OpenAI, services: Services, url: str) -> None:
    (item,) = items(client.images.generate(prompt=CIRCLE, response_format="url", extra_body=QUICK))
    (record,) = services.gallery.find()
    assert item.url == f"{url}/pictures/{record.id}.png" and item.b64_json is None
    assert httpx.get(item.url, timeout=60).content == services.gallery.path(record).read_bytes()


def test_what_has_no_effect_here_is_taken_and_what_nobody_knows_is_left_alone(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt=CIRCLE,
        quality="low",
        style="vivid",
        background="auto",
        moderation="low",
        user="u",
        safety_identifier="s",
        size=None,
        extra_body={**QUICK, "hologram": True, "seed": "7"},
    )
    assert items(answer)[0].seed == 7 and answer.quality == "low"


def test_a_style_of_ours_is_told_as_a_revised_prompt(client: OpenAI, services: Services) -> None:
    default = services.catalogue.checkpoint(services.catalogue.default_checkpoint)
    style = services.catalogue.styles_for(default)[1]
    (item,) = items(client.images.generate(prompt=CIRCLE, extra_body={**QUICK, "studio_style": style.id}))
    (record,) = services.gallery.find()
    assert record.recipe.style == style.id
    assert item.revised_prompt == record.prompt_as_run != CIRCLE


@pytest.mark.parametrize(
    ("values", "param", "sentence"),
    [
        ({"prompt": " "}, "prompt", "There is no prompt"),
        ({"prompt": "x" * 10_001}, "prompt", "10,001 characters"),
        ({"n": 0}, "n", "from 1 to 10"),
        ({"n": 11}, "n", "from 1 to 10"),
        ({"size": "1024x1024"}, "size", "Pocket SD 1.5 draws from 64 to 256 px"),
        ({"size": "100x128"}, "size", "multiple of 8"),
        ({"size": "huge"}, "size", "a width and a height like 128x128"),
        ({"background": "transparent"}, "background", "without a ground are not drawn"),
        ({"output_format": "gif"}, "output_format", "png, webp or jpeg"),
        ({"output_compression": 101}, "output_compression", "from 0 to 100"),
        ({"response_format": "file"}, "response_format", "b64_json or url"),
        ({"response_format": "url", "output_format": "webp"}, "output_format", "leads to a PNG"),
        ({"partial_images": 4}, "partial_images", "from 0 to 3"),
        ({"extra_body": {"steps": 0}}, "steps", "from 1 to 150"),
        ({"extra_body": {"num_inference_steps": 1e9}}, "num_inference_steps", "from 1 to 150"),
        ({"extra_body": {"seed": 2**64}}, "seed", "from -1 to"),
        ({"extra_body": {"seed": -2}}, "seed", "from -1 to"),
        ({"extra_body": {"guidance_scale": "inf"}}, "guidance_scale", "from 0 to 30"),
        ({"extra_body": {"width": 7}}, "width", "multiple of 8"),
        ({"extra_body": {"scheduler": "magic"}}, "scheduler", "There is no sampler called 'magic'"),
        ({"extra_body": {"studio_style": "magic"}}, "studio_style", "There is no style called 'magic'"),
        ({"extra_body": {"accelerator": "hyper-sd15"}}, "accelerator", ""),
        ({"extra_body": {"mask": "0" * 64}}, "mask", "There is no such picture here"),
        ({"extra_body": {"image": "http://127.0.0.1:1/a.png"}}, "image", "at an address is not fetched"),
        ({"extra_body": {"init_image": "file:///etc/passwd"}}, "init_image", "at an address is not fetched"),
        ({"extra_body": {"image": "data:image/png;base64,AAAA"}}, "image", "no PNG, JPEG or WebP"),
        ({"extra_body": {"image": "?"}}, "image", "no base64"),
        ({"extra_body": {"image": 5}}, "image", "is no file and no base64"),
        ({"prompt": f"{CIRCLE} <lora:nobody:1>"}, None, "nobody"),
    ],
)
def test_a_bad_value_is_named_as_the_client_calls_it(
    client: OpenAI, services: Services, values: dict[str, Any], param: str | None, sentence: str
) -> None:
    error = refused(BadRequestError, client.images.generate, **values)
    assert error.type == "invalid_request_error" and sentence in error.body["message"]
    assert param is None or error.param == param
    assert services.gallery.count() == 0 and services.runner.active("local") == []


def test_models_are_those_of_the_catalogue(client: OpenAI, services: Services) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == [row.id for row in services.catalogue.checkpoints]
    assert client.models.retrieve("pocket-sdxl").id == "pocket-sdxl"
    assert client.models.retrieve("dall-e-3").object == "model"
    for ask in (lambda: client.models.retrieve("nope"), lambda: client.images.generate(prompt="x", model="nope")):
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert "pocket-sdxl" in str(caught.value.body)


def test_an_edit_keeps_every_pixel_outside_its_mask(client: OpenAI, services: Services) -> None:
    (made,) = services.generate(CIRCLE, num_inference_steps=4, seed=3)
    before = services.gallery.path(made).read_bytes()
    hole = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    hole.paste((0, 0, 0, 0), (64, 0, 128, 128))
    ours = Image.new("L", (128, 128), 0)
    ours.paste(255, (64, 0, 128, 128))
    answers = [
        client.images.edit(image=before, mask=png(mask), prompt="a blue star", extra_body={**QUICK, "strength": 1})
        for mask in (hole, ours)
    ]
    files = [content(items(answer)[0]) for answer in answers]
    old, new = (np.asarray(opened(file).convert("RGB")) for file in (before, files[0]))
    assert np.array_equal(old[:, :64], new[:, :64]) and not np.array_equal(old[:, 64:], new[:, 64:])
    assert files[0] == files[1] and items(answers[0])[0].seed == 7


def test_an_edit_without_a_mask_draws_over_the_whole_picture(client: OpenAI, services: Services) -> None:
    photo = png(Image.new("RGB", (96, 160), "teal"))
    asked = {"model": "pocket-sdxl", "n": 2, "output_format": "webp", "extra_body": {"steps": 4, "strength": 0.5}}
    answer = client.images.edit(image=[photo], prompt=CIRCLE, **asked)
    assert len(items(answer)) == 2 and answer.size == "96x160"
    assert opened(content(items(answer)[0])).format == "WEBP"
    assert {record.recipe.strength for record in services.gallery.find()} == {0.5}
    sized = client.images.edit(image=photo, prompt=CIRCLE, size="128x64", extra_body=QUICK)
    assert opened(content(items(sized)[0])).size == (128, 64)


def test_what_cannot_be_edited_is_refused_in_a_sentence(client: OpenAI, url: str) -> None:
    photo, edit = png(Image.new("RGB", (128, 128), "teal")), client.images.edit
    clear = png(Image.new("RGBA", (128, 128), (0, 0, 0, 255)))
    asked: list[tuple[dict[str, Any], str, str]] = [
        ({"image": [photo, photo]}, "image", "There are 2 pictures"),
        ({"image": b"no picture"}, "image", "The picture is no PNG, JPEG or WebP picture."),
        ({"image": photo[:200]}, "image", "The picture is damaged or cut off."),
        ({"image": photo, "mask": b"no picture"}, "mask", "The mask is no PNG, JPEG or WebP picture."),
        ({"image": photo, "mask": clear}, "mask", "The mask is empty"),
        ({"image": photo, "mask": png(Image.new("RGBA", (64, 128)))}, "mask", "another form"),
        ({"image": photo, "extra_body": {"strength": 2}}, "strength", "from 0.05 to 1"),
        ({"image": photo, "prompt": ""}, "prompt", "There is no prompt"),
    ]
    for values, param, sentence in asked:
        error = refused(BadRequestError, edit, **values)
        assert error.param == param and sentence in error.body["message"]
    answer = httpx.post(f"{url}/v1/images/edits", files={"prompt": (None, CIRCLE)}, timeout=60)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "image"
    answer = httpx.post(f"{url}/v1/images/edits", files={"image": (None, "http://127.0.0.1:1/a.png")}, timeout=60)
    assert answer.status_code == 400 and "no prompt" in answer.text


def test_a_picture_comes_into_being_before_ones_eyes(client: OpenAI, services: Services) -> None:
    streamed = client.images.generate(
        prompt=CIRCLE, stream=True, partial_images=3, output_format="jpeg", extra_body={"seed": 7, "steps": 40}
    )
    *partial, last = list(streamed)
    assert 1 <= len(partial) <= 3 and last.type == "image_generation.completed"
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert len({event.b64_json for event in partial}) == len(partial)
    for event in [*partial, last]:
        assert opened(content(event)).size == (128, 128) and opened(content(event)).format == "JPEG"
        assert (event.size, event.background, event.output_format) == ("128x128", "opaque", "jpeg")
    assert {event.type for event in partial} == {"image_generation.partial_image"}
    assert last.usage.total_tokens == 0 and abs(last.created_at - time.time()) < 60
    assert read_settings(io.BytesIO(content(last)), services.catalogue).request.seed == 7


def test_streamed_pictures_are_the_files_of_the_gallery_in_order(client: OpenAI, services: Services) -> None:
    services.generate(CIRCLE, num_inference_steps=4, seed=8)  # the second is there already
    events = list(client.images.generate(prompt=CIRCLE, stream=True, n=3, extra_body=QUICK))
    files = {record.recipe.seed: services.gallery.path(record).read_bytes() for record in services.gallery.find()}
    assert [content(event) for event in events] == [files[seed] for seed in (7, 8, 9)]
    photo = png(Image.new("RGB", (128, 128), "teal"))
    (event,) = client.images.edit(image=photo, prompt=CIRCLE, stream=True, extra_body=QUICK)
    assert event.type == "image_edit.completed"


def test_a_stream_tells_what_ended_it(client: OpenAI, services: Services) -> None:
    refused(BadRequestError, client.images.generate, stream=True, size="8x8")
    streamed = client.images.generate(prompt=CIRCLE, stream=True, n=10, extra_body=LONG)
    only_job(services).cancel()
    with pytest.raises(APIError, match="cancelled before they were ready"):
        list(streamed)


def test_who_cancels_is_not_drawn_for_again(url: str, services: Services) -> None:
    with ThreadPoolExecutor(1) as pool, OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=2) as client:
        asked = pool.submit(client.images.generate, prompt=CIRCLE, n=10, extra_body=LONG)
        only_job(services).cancel()
        with pytest.raises(InternalServerError, match="cancelled") as caught:
            asked.result()
    assert caught.value.status_code == 503 and caught.value.code == "cancelled"
    assert services.runner.active("local") == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("key", ["", "a-key"])
def test_a_client_that_goes_away_cancels_what_it_waited_for(
    url: str, services: Services, stream: bool, key: str
) -> None:
    body = json.dumps({"prompt": CIRCLE, "n": 3, "steps": 150, "stream": stream}).encode()
    address = urlsplit(url)
    head = f"POST /v1/images/generations HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: {key}\r\n" if key else ""
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        job = only_job(services)
        eventually(lambda: any(isinstance(event, Started) for event in job.present()))
    if key:
        time.sleep(0.5)
        assert not job.is_over and not job.cancelled()
        job.cancel()
    assert isinstance(job.wait(20), Cancelled)


def test_too_much_at_once_is_told_with_when_to_come_again(shared: Services, serve: Serve) -> None:
    url, token = serve(openai_routes(shared)), new_token()
    headers = {"X-Flash-Visitor": token}
    with OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, default_headers=headers) as client:
        first = client.images.generate(prompt=CIRCLE, stream=True, n=10, extra_body=LONG)
        eventually(lambda: any(isinstance(event, Started) for event in only_job(shared, visitor_of(token)).present()))
        second = client.images.generate(prompt=CIRCLE, stream=True, n=10, extra_body=LONG)
        error = refused(InternalServerError, client.images.generate)
        assert (error.status_code, error.type, error.code) == (503, "server_error", "queue_full")
        assert int(error.response.headers["retry-after"]) > 0 and "x-should-retry" not in error.response.headers
        second.close()
        first.close()
        eventually(lambda: not shared.runner.active(visitor_of(token)))


def test_what_one_visitor_draws_from_is_not_there_for_another(shared: Services, serve: Serve) -> None:
    url, tokens = serve(openai_routes(shared)), [new_token(), new_token()]
    ours, theirs = (
        OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, default_headers={"X-Flash-Visitor": token})
        for token in tokens
    )
    with ours, theirs:
        ours.images.edit(image=png(Image.new("RGB", (128, 128), "teal")), prompt=CIRCLE, extra_body=QUICK)
        (record,) = shared.gallery.find(visitor=visitor_of(tokens[0]))
        again = {"extra_body": {**QUICK, "init_image": record.recipe.init_image}}
        error = refused(BadRequestError, theirs.images.generate, **again)
        assert error.param == "init_image" and "There is no such picture here" in str(error)
        same = ours.images.generate(prompt=CIRCLE, **again)
        assert pixels_sha256(opened(content(items(same)[0]))) == record.pixels_sha256
    assert shared.gallery.find(visitor=visitor_of(tokens[1])) == []


def test_other_bodies_paths_and_methods_are_refused_in_the_same_form(url: str) -> None:
    def told(method: str, path: str, **sent: Any) -> tuple[int, str, str]:
        answer = httpx.request(method, f"{url}/v1/{path}", **sent)
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
        return answer.status_code, error["code"], error["message"]

    json_type = {"Content-Type": "application/json"}
    assert told("POST", "chat/completions", json={})[:2] == (404, "unknown_url")
    assert told("GET", "images/generations")[:2] == (405, "method_not_allowed")
    assert told("DELETE", "models/pocket-sd15")[:2] == (405, "method_not_allowed")
    for path in ("images/generations", "images/edits"):
        assert told("POST", path, content=b"{}", headers={"Content-Type": "text/plain"})[0] == 415
        assert told("POST", path, data={"prompt": "x"})[0] == 415
    assert told("POST", "images/generations", files={"prompt": (None, "x")})[0] == 415
    for body in (b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"n": ' + b"9" * 5_000 + b"}", b"\xff"):
        assert told("POST", "images/generations", content=body, headers=json_type)[0] == 400
    broken = {"Content-Type": "multipart/form-data"}
    assert told("POST", "images/edits", content=b"--", headers=broken)[0] == 400
    large = b'"' + b" " * MAX_JSON_BYTES
    assert told("POST", "images/generations", content=large, headers=json_type)[:2] == (413, "request_too_large")
    assert told("POST", "images/edits", files={"image": b" " * (MAX_FILE_BYTES + 1)})[0] == 413


def test_values_that_no_client_sends_are_refused_too(url: str) -> None:
    for values in ({"n": float("nan")}, {"prompt": "\ud800"}, {"model": ["x"]}, {"size": 5}, {"stream": "maybe"}):
        body = json.dumps({"prompt": CIRCLE, **values})
        answer = httpx.post(
            f"{url}/v1/images/generations", content=body, headers={"Content-Type": "application/json"}, timeout=60
        )
        assert answer.status_code in (400, 404) and answer.json()["error"]["message"].endswith(".")


def test_whoever_asks_too_often_is_told_when_to_ask_again() -> None:
    answer = refusal(RateLimited("Too many requests.", "Wait a minute.", 41.7))
    assert answer.status_code == 429 and answer.headers["retry-after"] == "42"
    assert b'"rate_limit_error"' in answer.body


def test_what_nobody_expected_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    answer = refusal(told(OSError("/a/secret/place")))
    error = json.loads(answer.body)["error"]
    assert answer.status_code == 500 and error["type"] == "server_error"
    (error_id,) = re.findall(r"id ([0-9a-f]{8})", error["message"])
    assert b"secret" not in answer.body and error_id in caplog.text and "/a/secret/place" in caplog.text


def test_a_ledger_that_cannot_be_read_is_said_without_its_place(client: OpenAI, services: Services) -> None:
    services.ledger.close()
    (services.settings.data_dir / "studio.db").write_bytes(b"no database" * 1000)
    error = refused(InternalServerError, client.images.generate)
    assert (
        error.status_code == 507
        and error.type == "server_error"
        and str(services.settings.data_dir) not in str(error.body)
    )
