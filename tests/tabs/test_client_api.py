"""Gradio's own API as its own client meets it: the real page on a real port, the client as it comes."""

import hashlib
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import sd_parsers
from gradio_client.exceptions import AppError, AuthenticationError
from PIL import Image

from studio.domain.errors import InvalidRequest
from studio.domain.request import parse_request
from studio.gallery import opened
from studio.metadata import read_record
from studio.settings import PROJECT_ROOT
from studio.web.access import new_token, visitor_of
from studio.web.own.calls import CALLS
from tests.tabs.pages import PASSWORD, PATIENCE_S, Page, until

# Gradio asks pandas for an option that pandas 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.future.no_silent_downcasting:DeprecationWarning")

PROMPT = "a large red circle on a white background"
QUICK = {"prompt": PROMPT, "num_inference_steps": 4, "seed": 7}
ENDLESS = {**QUICK, "num_inference_steps": 150, "num_images": 64}
OWNERS = {"train_lora", "training"}
NOT_THERE = "There is no such job. It may be somebody else's."


def visitor(page: Page, token: str) -> Any:
    return page.client(headers={"Authorization": f"Bearer {PASSWORD}", "X-Flash-Visitor": token})


def test_the_documentation_has_the_calls_and_none_of_the_pages_listeners(own: Page, client: Any) -> None:
    described = client.view_api(print_info=False, return_format="dict")
    assert set(described["named_endpoints"]) == {f"/{call.name}" for call in CALLS}
    assert described["unnamed_endpoints"] == {}
    told = client.view_api(print_info=False, return_format="str")
    assert "prompt: str (required)  (What the picture should show.)" in told
    assert "seed: int (not required, defaults to:   -1)" in told
    assert "num_inference_steps: int | None (not required, defaults to:   None)" in told
    assert "pictures: list[filepath]" in told
    for path in ("info", "openapi.json"):
        assert "on_generate" not in httpx.get(f"{own.url}gradio_api/{path}", timeout=60).text
    listeners = [fn for fn in own.demo.fns.values() if fn.api_visibility != "private"]
    assert {fn.api_name for fn in listeners} == {call.name for call in CALLS}
    generate = described["named_endpoints"]["/generate"]
    assert generate["description"].startswith("Draw pictures of what a prompt says, and wait for them.")


def test_a_picture_comes_with_its_recipe_bit_by_bit(own: Page, client: Any) -> None:
    (path,), told = client.predict(**QUICK, api_name="/generate")
    (picture,) = told["pictures"]
    record = own.services.gallery.image(picture["id"])
    kept = own.services.gallery.path(record)
    assert Path(path).read_bytes() == kept.read_bytes()
    found = read_record(Path(path), "picture.png")
    assert found and found.recipe == record.recipe and found.recipe.seed == 7
    assert picture["recipe"]["num_inference_steps"] == 4 and told["state"] == "done"
    parsed = sd_parsers.ParserManager().parse(path)
    assert parsed and parsed.prompts[0].value == PROMPT
    (ours,) = own.services.generate(PROMPT, num_inference_steps=4, seed=7, again=True)
    assert ours.id != record.id and ours.pixels_sha256 == record.pixels_sha256
    assert opened(Path(path)).tobytes() == opened(own.services.gallery.path(ours)).tobytes()


def test_what_is_left_out_suits_the_model_and_every_setting_counts(own: Page, client: Any) -> None:
    checkpoint = own.services.catalogue.checkpoint(own.services.catalogue.default_checkpoint)
    _, told = client.predict(prompt=PROMPT, seed=3, api_name="/generate")
    recipe = told["pictures"][0]["recipe"]
    assert recipe["num_inference_steps"] == checkpoint.default_steps
    assert (recipe["width"], recipe["guidance_scale"]) == (checkpoint.native_size, checkpoint.default_guidance)
    asked = {
        "negative_prompt": "blue", "checkpoint": "pocket-sd15", "width": 96, "height": 128, "num_inference_steps": 3,
        "guidance_scale": 2.5, "scheduler": "euler", "seed": 11, "num_images": 2,
    }  # fmt: skip
    paths, told = client.predict(prompt=PROMPT, **asked, api_name="/generate")
    recipes = [picture["recipe"] for picture in told["pictures"]]
    assert [recipe["seed"] for recipe in recipes] == [11, 12]
    same = {name: value for name, value in asked.items() if name not in ("seed", "num_images")}
    assert all(recipe[name] == value for recipe in recipes for name, value in same.items())
    with Image.open(paths[0]) as first:
        assert first.size == (96, 128)
    _, told = client.predict(prompt=PROMPT, accelerator="flash-pocket-sd15", seed=7, api_name="/generate")
    assert told["pictures"][0]["recipe"]["accelerator"] == "flash-pocket-sd15"


def test_how_far_it_is_is_told_meanwhile(client: Any) -> None:
    job = client.submit(**{**QUICK, "seed": 21, "num_inference_steps": 50}, api_name="/generate")
    replies = list(job)
    assert all(paths == [] for paths, told in replies if told["state"] != "done")
    steps = [told["progress"]["step"] for _, told in replies if told.get("progress")]
    assert steps and steps == sorted(steps) and replies[-1][1]["state"] == "done"


def test_a_client_that_cancels_or_goes_away_stops_its_job(own: Page, client: Any) -> None:
    cancelled = client.submit(**ENDLESS, api_name="/generate")
    until(lambda: bool(cancelled.outputs()))
    cancelled.cancel()
    job_id = cancelled.outputs()[0][1]["id"]
    until(lambda: own.services.runner.row(job_id).state == "cancelled")
    index = next(index for index, fn in own.demo.fns.items() if fn.api_name == "generate")
    values = [ENDLESS.get(name, field.default) for name, field in CALLS[0].form.model_fields.items()]
    asked = {"fn_index": index, "data": values, "session_hash": "goes-away"}
    httpx.post(f"{own.url}gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
    with httpx.stream(
        "GET", f"{own.url}gradio_api/queue/data", params={"session_hash": "goes-away"}, timeout=60
    ) as heard:
        next(line for line in heard.iter_lines() if '"process_generating"' in line)
        (active,) = own.services.runner.active("local")
    until(lambda: own.services.runner.row(active.id).state == "cancelled")


@pytest.mark.parametrize(
    "wrong", [{"prompt": " "}, {"num_inference_steps": 151}, {"width": 100}, {"checkpoint": "nothing"}, {"seed": "x"}]
)
def test_what_is_refused_is_refused_in_the_words_of_the_page(own: Page, client: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as ours:
        own.services.generation.submit(parse_request({**QUICK, **wrong}))
    with pytest.raises(AppError) as theirs:
        client.predict(**{**QUICK, **wrong}, api_name="/generate")
    assert str(theirs.value) == str(ours.value)


def test_a_comparison_tells_what_its_own_summary_tells(own: Page, client: Any) -> None:
    paths, told = client.predict(prompts=[PROMPT], steps=[2, 4], baseline_steps=8, seed=7, api_name="/flash")
    columns = told["comparison"]["columns"]
    figures = own.services.flash.figures(own.services.runner.job(told["id"]))
    assert [column["name"] for column in columns] == ["baseline", "s2", "s4"] and len(paths) == 6
    for column, figure in zip(columns, figures, strict=True):
        assert column["seconds"]["total"]["median"] == figure.seconds["total"].median and column["n"] == figure.n == 2
    fast = columns[1]
    assert fast["likeness"]["value"] == figures[1].likeness.value and fast["speed_up"]["n"] == 2
    digests = {hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}
    records = own.services.gallery.of_job(told["id"])
    assert digests == {hashlib.sha256(own.services.gallery.path(each).read_bytes()).hexdigest() for each in records}


def test_an_evaluation_is_begun_asked_after_and_told_with_intervals(client: Any) -> None:
    prompts = [
        f"a {colour} {shape} on a white background" for colour in ("red", "blue") for shape in ("circle", "star")
    ]
    begun = client.predict(
        systems=[{"num_inference_steps": 6}, {"num_inference_steps": 1}], prompts=prompts, num_images=1,
        api_name="/evaluate",
    )  # fmt: skip
    assert begun["state"] in ("queued", "running") and "evaluation" not in begun
    deadline = time.monotonic() + PATIENCE_S
    while "evaluation" not in (told := client.predict(job=begun["id"], wait_s=20, api_name="/job")):
        assert time.monotonic() < deadline
    assert told["state"] == "done" and told["evaluation"]["num_prompts"] == 4
    first, second = told["evaluation"]["table"]
    assert first["n"] == second["n"] == 4 and first["means"]["right"]["n"] == 4
    assert first["means"]["right"]["low"] <= first["means"]["right"]["value"] <= first["means"]["right"]["high"]
    assert second["against"]["right"]["difference"]["n"] == 4


def test_a_training_is_begun_asked_after_and_stopped(client: Any) -> None:
    folder = str(PROJECT_ROOT / "examples" / "crescents")
    begun = client.predict(name="Moons", folder=folder, trigger="sks", num_steps=5000, api_name="/train_lora")
    told = client.predict(run=begun["run"], api_name="/training")
    assert told["run"]["id"] == begun["run"] and told["run"]["total"] == 5000 and told["job"]["kind"] == "train"
    stopped = client.predict(job=begun["job"]["id"], api_name="/stop")
    assert (stopped["id"], stopped["state"]) == (begun["job"]["id"], "cancelled")
    assert client.predict(run=begun["run"], api_name="/training")["job"]["state"] == "cancelled"
    with pytest.raises(AppError, match="There is no such training run"):
        client.predict(run="f" * 24, api_name="/training")


def test_a_request_that_is_sent_again_with_its_key_is_the_same_job(own: Page, client: Any) -> None:
    values = {"prompt": "a blue star on a white background", "num_inference_steps": 2, "api_name": "/generate"}
    key, before = new_token(), own.services.gallery.count()
    told = [client.predict(**values, headers={"Idempotency-Key": key})[1] for _ in range(2)]  # any seed, once
    assert told[0]["id"] == told[1]["id"] and own.services.gallery.count() == before + 1


def test_what_there_is_to_choose_from_is_listed(own: Page, client: Any) -> None:
    told = client.predict(api_name="/models")
    assert [model["id"] for model in told["models"] if model["is_default"]] == [
        own.services.catalogue.default_checkpoint
    ]
    assert {"flash-pocket-sd15"} <= {row["id"] for row in told["accelerators"]}
    assert {row["id"] for row in told["samplers"]} == {row.id for row in own.services.catalogue.schedulers}
    assert str(own.services.settings.data_dir) not in str(told)
    assert client.predict(api_name="/adapters")["adapters"] == []


def test_nobody_goes_round_the_line(own: Page) -> None:
    assert httpx.post(f"{own.url}gradio_api/run/generate", json={"data": [PROMPT]}, timeout=60).status_code == 404


def test_a_password_is_asked_for_and_three_ways_are_open(shared: Page) -> None:
    with pytest.raises(AuthenticationError):
        shared.client()
    with pytest.raises(AuthenticationError):
        shared.client(auth=("anybody", "a wrong password"))
    token = new_token()
    ways = (
        {"headers": {"Authorization": f"Bearer {PASSWORD}", "X-Flash-Visitor": token}},
        {"auth": ("anybody", PASSWORD), "headers": {"X-Flash-Visitor": token}},
        {"httpx_kwargs": {"auth": (token, PASSWORD)}},
    )
    for way in ways:
        (path,), told = shared.client(**way).predict(**QUICK, api_name="/generate")
        record = shared.services.gallery.image(told["pictures"][0]["id"])
        assert record.visitor == visitor_of(token)
        assert Path(path).read_bytes() == shared.services.gallery.path(record).read_bytes()


def test_on_a_shared_page_nobody_draws_without_saying_who_they_are(shared: Page) -> None:
    nameless = shared.client(headers={"Authorization": f"Bearer {PASSWORD}"})
    for name, values in {"generate": QUICK, "flash": {"prompts": [PROMPT]}, "evaluate": {"systems": [{}]}}.items():
        with pytest.raises(AppError, match="There is no X-Flash-Visitor, so nobody could find this job again"):
            nameless.predict(**values, api_name=f"/{name}")
    described = nameless.view_api(print_info=False, return_format="dict")
    assert set(described["named_endpoints"]) == {f"/{call.name}" for call in CALLS if call.name not in OWNERS}
    assert not {fn.api_name for fn in shared.demo.fns.values() if fn.fn} & OWNERS


def test_anothers_job_is_as_one_that_is_not_there(shared: Page) -> None:
    ada, bob = visitor(shared, new_token()), visitor(shared, new_token())
    job = ada.submit(**ENDLESS, api_name="/generate")
    until(lambda: bool(job.outputs()))
    job_id = job.outputs()[0][1]["id"]
    for name in ("job", "stop"):
        for asked in (job_id, "f" * 48):
            with pytest.raises(AppError) as refused:
                bob.predict(job=asked, api_name=f"/{name}")
            assert str(refused.value) == NOT_THERE
    assert not shared.services.runner.row(job_id).is_cancel_requested
    assert ada.predict(job=job_id, api_name="/job")["id"] == job_id
    ada.predict(job=job_id, api_name="/stop")
    until(lambda: shared.services.runner.row(job_id).state == "cancelled")
    _, told = job.result(timeout=PATIENCE_S)
    assert told["state"] == "cancelled"


def test_a_visitor_has_as_many_places_in_line_as_elsewhere(shared: Page) -> None:
    eve, most = visitor(shared, new_token()), shared.services.settings.max_queued_each
    jobs = [eve.submit(**{**ENDLESS, "seed": seed}, api_name="/generate") for seed in range(most + 4)]
    until(lambda: any(job.done() for job in jobs))
    refused = [job.exception() for job in jobs if job.done()]
    assert refused and all(isinstance(error, AppError) for error in refused)
    for job in jobs:
        job.cancel()
    until(lambda: shared.services.ledger.active_jobs(None) == [])
