"""Our own API as a program meets it: jobs from asking to their result, who sees what, and what is refused."""

import base64
import io
import json
import random
import string
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.routing import Route

from engines.base import Engine
from engines.pocket.checker import judge
from engines.pocket.grammar import parse
from studio.domain.events import Progress
from studio.gallery import opened
from studio.generation import EngineHolder
from studio.infotext import parse_infotext
from studio.services import Services, open_services
from studio.settings import PROJECT_ROOT, Settings
from studio.web import bodies
from studio.web.own import stream
from studio.web.own.api import own_routes
from tests.studio.web.conftest import Serve, served

PROMPT = "a large red circle on a white background"
QUICK = {"kind": "generate", "prompt": PROMPT, "num_inference_steps": 4, "seed": 7}
ENDLESS = {**QUICK, "num_images": 64, "num_inference_steps": 150}
FLASH = "flash-pocket-sd15"
PATIENCE_S = 300
ADA, BOB = ({"X-Flash-Visitor": letter * 24} for letter in "ab")


@pytest.fixture
def api(services: Services, serve: Serve) -> Iterator[httpx.Client]:
    """A client of the API of a page that only its own machine reaches."""
    with httpx.Client(base_url=serve(own_routes(services)) + "/api/v1", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def strict_api(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same for many requests that all are refused, and leave nothing."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), offline=True)
    with (
        open_services(settings, engine=EngineHolder(lambda: engine)) as services,
        served(own_routes(services)) as url,
        httpx.Client(base_url=url + "/api/v1", timeout=60) as client,
    ):
        yield client


@pytest.fixture
def shared(tmp_path: Path, engine: Engine) -> Iterator[Services]:
    """A studio that many people reach."""
    settings = Settings(data_dir=tmp_path / "shared", offline=True, share=True)
    with open_services(settings, engine=EngineHolder(lambda: engine)) as opened_services:
        yield opened_services


@pytest.fixture
def shared_api(shared: Services, serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(own_routes(shared)) + "/api/v1", timeout=60) as client:
        yield client


def asked(api: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = api.post("/jobs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def events(api: httpx.Client, job_id: str, most: int = 10_000, **given: Any) -> list[dict[str, Any]]:
    """The events as a client of Server-Sent Events reads them: `id`, `event`, and `data` as JSON."""
    found: list[dict[str, Any]] = []
    with api.stream("GET", f"/jobs/{job_id}/events", timeout=PATIENCE_S, **given) as heard:
        assert heard.status_code == 200 and heard.headers["content-type"].startswith("text/event-stream")
        now: dict[str, str] = {}
        for line in heard.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                now[name] = value
            elif now and "data" in now:
                found.append({**now, "data": json.loads(now["data"])})
                now = {}
            else:
                now = {}
            if len(found) == most:
                break
    return found


def ended(api: httpx.Client, job_id: str, **headers: str) -> dict[str, Any]:
    """The result, asked for as often as it takes."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := api.get(f"/jobs/{job_id}/result", headers=headers)).status_code == 409:
        assert time.monotonic() < deadline and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "not_over"
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    return answer.json()


def base64_png(size: tuple[int, int] = (128, 128)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (40, 80, 160)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_is_asked_for_followed_and_had(api: httpx.Client, services: Services) -> None:
    answer = api.post("/jobs", json={"kind": "generate", "prompt": PROMPT, "seed": 7, "num_images": 2})
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert job["kind"] == "generate" and job["state"] in ("queued", "running") and job["ended_at"] is None
    told = events(api, job["id"])
    names = [each["event"] for each in told]
    assert names[0] == "queued" and names[-1] == "finished" and names.count("image_ready") == 2
    assert [int(each["id"]) for each in told] == sorted({each["data"]["index"] for each in told})
    assert "preview" not in json.dumps(told)
    result = ended(api, job["id"])
    first, second = result["pictures"]
    assert [first["seed"], second["seed"]] == [7, 8] and result["state"] == "done"
    assert [each["data"]["url"] for each in told if each["event"] == "image_ready"] == [first["url"], second["url"]]
    assert first["url"] == f"/pictures/{first['id']}.png" and first["recipe"]["num_inference_steps"] == 25
    for picture in (first, second):
        pixels = opened(services.gallery.path(services.gallery.image(picture["id"])))
        assert judge(pixels, parse(PROMPT)).correct
    view = api.get(f"/jobs/{job['id']}").json()
    assert [each["id"] for each in view["pictures"]] == [first["id"], second["id"]] and view["num_pictures"] == 2
    assert view["state"] == "done" and view["progress"] is None and view["ended_at"] > view["created_at"]
    alone = api.get(f"/pictures/{first['id']}").json()
    assert alone == first and parse_infotext(alone["infotext"])["Seed"] == "7"
    assert alone["environment"]["device"] == "cpu" and alone["seconds"]["total"] > 0


def test_a_lost_connection_goes_on_where_it_was(api: httpx.Client) -> None:
    job = asked(api, {**QUICK, "num_images": 3})
    all_of_it = events(api, job["id"])
    ready = [each["id"] for each in all_of_it if each["event"] == "image_ready"]
    rest = events(api, job["id"], headers={"Last-Event-ID": ready[1]})
    assert [each["event"] for each in rest if each["event"] != "progress"] == ["image_ready", "finished"]
    assert all(int(each["id"]) > int(ready[1]) for each in rest)
    end = api.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": all_of_it[-1]["id"]})
    assert end.status_code == 204, "a browser that has everything stops asking"
    for odd in ("-5", "x", "99999999999999999999999", "１"):
        headers = {"Last-Event-ID": odd.encode()}
        assert events(api, job["id"], headers=headers)[-1]["event"] == "finished"


def test_previews_are_sent_to_who_asks_for_them(api: httpx.Client, services: Services) -> None:
    job = asked(api, {**QUICK, "num_inference_steps": 100})
    told = events(api, job["id"], params={"previews": "1"})
    previews = [each["data"]["preview"] for each in told if "preview" in each["data"]]
    with Image.open(io.BytesIO(base64.b64decode(previews[0]))) as picture:
        assert picture.width >= 64
    assert not services.runner.job(job["id"]).is_watched


def test_a_silent_stream_says_that_it_lives(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.2)
    running, waiting = asked(api, ENDLESS), asked(api, {**QUICK, "seed": 8})
    with api.stream("GET", f"/jobs/{waiting['id']}/events") as heard:
        assert next(line for line in heard.iter_lines() if line.startswith(":"))
    assert waiting["ahead"] == 1
    assert [each["id"] for each in api.get("/jobs").json()["jobs"]] == [running["id"], waiting["id"]]
    for job in (waiting, running):
        api.delete(f"/jobs/{job['id']}")


@pytest.mark.parametrize("how", ["DELETE", "POST"])
def test_a_job_is_stopped_within_a_step(api: httpx.Client, services: Services, how: str) -> None:
    job = asked(api, ENDLESS)
    live = services.runner.job(job["id"])
    while not any(isinstance(event, Progress) for event in live.present()):
        time.sleep(0.01)
    progress = api.get(f"/jobs/{job['id']}").json()["progress"]
    assert progress["total"] == 150 and progress["num_images"] == 64
    answer = api.delete(f"/jobs/{job['id']}") if how == "DELETE" else api.post(f"/jobs/{job['id']}/cancel")
    assert answer.status_code == 200
    asked_at = time.monotonic()
    live.wait(timeout=PATIENCE_S)
    assert time.monotonic() - asked_at < 2
    result = ended(api, job["id"])
    assert result["state"] == "cancelled" and result["error"] is None
    assert events(api, job["id"])[-1]["event"] == "cancelled"
    assert api.get("/jobs").json() == {"jobs": []}
    assert api.delete(f"/jobs/{job['id']}").json()["state"] == "cancelled", "once more changes nothing"


def test_a_job_that_fails_says_why(api: httpx.Client, services: Services) -> None:
    running = asked(api, ENDLESS)
    waiting = asked(api, {**QUICK, "init_image": base64_png()})
    for path in services.settings.sources_dir.rglob("*.png"):
        path.unlink()
    api.delete(f"/jobs/{running['id']}")
    result = ended(api, waiting["id"])
    assert result["state"] == "failed" and result["pictures"] == []
    assert result["error"]["message"] == "The picture that this one starts from is not kept here any more."
    assert api.get(f"/jobs/{waiting['id']}").json()["error"] == result["error"]


def test_a_picture_begins_from_one_that_is_sent(api: httpx.Client) -> None:
    plain, uri = base64_png(), "data:image/png;base64," + base64_png((192, 128))
    first = ended(api, asked(api, {**QUICK, "init_image": plain, "strength": 0.5})["id"])["pictures"][0]
    second = ended(api, asked(api, {**QUICK, "init_image": uri, "strength": 0.5})["id"])["pictures"][0]
    assert (first["width"], second["width"]) == (128, 192)
    named = asked(api, {**QUICK, "init_image": first["recipe"]["init_image"], "strength": 0.9})
    assert ended(api, named["id"])["pictures"][0]["recipe"]["init_image"] == first["recipe"]["init_image"]


def test_few_steps_are_compared_with_many(api: httpx.Client) -> None:
    body = {"kind": "flash", "prompts": [PROMPT], "steps": [2], "baseline_steps": 6, "num_images": 2, "seed": 3}
    result = ended(api, asked(api, body)["id"])
    columns = {column["name"]: column for column in result["comparison"]["columns"]}
    assert set(columns) == {"baseline", "s2"} and columns["baseline"]["is_baseline"]
    assert columns["s2"]["n"] == 2 and columns["s2"]["seconds"]["total"]["median"] > 0
    assert columns["s2"]["speed_up"]["value"] > 0 and columns["s2"]["recipe"]["accelerator"] == FLASH
    assert len(result["pictures"]) == 4 and result["comparison"]["archive_url"].endswith(".zip")


@pytest.mark.parametrize("form", ["manifest", "fields"])
def test_systems_are_evaluated(api: httpx.Client, form: str) -> None:
    manifest = f"""
        num_prompts = 6
        num_images = 1
        [[systems]]
        num_inference_steps = 6
        [[systems]]
        name = "hasty"
        num_inference_steps = 1
        accelerator = "{FLASH}"
    """
    systems = [{"num_inference_steps": 6}, {"name": "hasty", "num_inference_steps": 1, "accelerator": FLASH}]
    fields = {"systems": systems, "num_prompts": 6, "num_images": 1}
    body = {"kind": "evaluate", **({"manifest": manifest} if form == "manifest" else fields)}
    job = asked(api, body)
    assert job["kind"] == "evaluate"
    evaluation = ended(api, job["id"])["evaluation"]
    base, hasty = evaluation["table"]
    assert base["is_baseline"] and hasty["name"] == "hasty" and hasty["n"] == evaluation["num_prompts"] == 6
    right = hasty["means"]["right"]
    assert 0 <= right["low"] <= right["value"] <= right["high"] <= 100 and right["n"] == 6
    assert hasty["against"]["right"]["difference"]["n"] == 6 and 0 <= hasty["against"]["right"]["p_value"] <= 1
    assert evaluation["headline"] and len(evaluation["document"]["images"]) == 12
    assert str(PROJECT_ROOT) not in json.dumps(evaluation)


@pytest.mark.slow
def test_a_training_ends_as_an_adapter(api: httpx.Client, services: Services) -> None:
    body = {
        "kind": "train", "name": "moons", "folder": str(PROJECT_ROOT / "examples" / "crescents"), "num_steps": 10,
        "batch_size": 2, "rank": 2, "look_every": 10, "num_prior": 8, "trigger": "sks",
    }  # fmt: skip
    job = asked(api, body)
    assert job["kind"] == "train"
    assert events(api, job["id"])[-1]["event"] == "finished"
    run = ended(api, job["id"])["run"]
    assert (run["name"], run["step"], run["total"]) == ("moons", 10, 10) and run["losses"][-1]["loss"] > 0
    listed = api.get("/adapters").json()["adapters"]
    assert [adapter["id"] for adapter in listed] == [run["adapter_id"]] and listed[0]["trigger_words"] == ["sks"]
    assert str(PROJECT_ROOT) not in json.dumps([run, listed])
    drawn = ended(api, asked(api, {**QUICK, "prompt": f"{PROMPT} {listed[0]['tag']}"})["id"])
    assert drawn["state"] == "done" and run["adapter_id"] in drawn["pictures"][0]["environment"]["adapters"]


def test_pictures_are_found(api: httpx.Client, services: Services) -> None:
    blue = "a blue square on a cream background"
    for prompt, seed in ((PROMPT, 1), (PROMPT, 2), (blue, 3)):
        ended(api, asked(api, {**QUICK, "prompt": prompt, "seed": seed})["id"])
    ids = {picture["seed"]: picture["id"] for picture in api.get("/pictures").json()["pictures"]}
    assert list(ids) == [3, 2, 1]
    services.gallery.star(ids[2], True)

    def found(**query: str | int) -> list[int]:
        answer = api.get("/pictures", params=query).json()
        assert answer["total"] >= len(answer["pictures"])
        return [picture["seed"] for picture in answer["pictures"]]

    assert found(q="red") == [2, 1] and found(q="seed:1") == [1] and found(starred="true") == [2]
    assert found(checkpoint="pocket-sd15", limit=1, offset=1) == [2] and found(checkpoint="pocket-sdxl") == []
    for query in ({"limit": 101}, {"limit": 0}, {"offset": -1}, {"offset": 10**30}, {"starred": "x"}, {"new": 1}):
        answer = api.get("/pictures", params=query)
        assert answer.status_code == 422 and answer.json()["error"]["field"] == next(iter(query))


def test_what_there_is_is_told_without_a_path(api: httpx.Client, services: Services) -> None:
    found = {name: api.get(f"/{name}").json()[name] for name in ("models", "accelerators", "samplers", "styles")}
    catalogue = services.catalogue
    assert [row["id"] for row in found["models"]] == [row.id for row in catalogue.checkpoints]
    assert [row["id"] for row in found["models"] if row["is_default"]] == [catalogue.default_checkpoint]
    assert FLASH in [row["id"] for row in found["accelerators"]]
    assert [row["id"] for row in found["samplers"]] == [row.id for row in catalogue.schedulers]
    assert [row["id"] for row in found["styles"]] == [row.id for row in catalogue.styles]
    told = json.dumps(found)
    assert (
        str(PROJECT_ROOT) not in told and "engines/pocket" not in told and str(services.settings.data_dir) not in told
    )


def test_two_visitors_see_nothing_of_each_other(shared: Services, shared_api: httpx.Client) -> None:
    api = shared_api
    done = asked(api, {**QUICK, "init_image": base64_png()}, **ADA)
    picture = ended(api, done["id"], **ADA)["pictures"][0]
    running = asked(api, ENDLESS, **ADA)
    ids = {"job_id": running["id"], "picture_id": picture["id"]}
    walked = 0
    for route in own_routes(shared):
        assert isinstance(route, Route)
        for name in set(route.param_convertors) & set(ids):
            path = route.path.removeprefix("/api/v1").replace(f"{{{name}}}", ids[name])
            for method in route.methods or ():
                for headers in (BOB, {}):
                    answer = api.request(method, path, headers=headers)
                    unknown = api.request(method, path.replace(ids[name], "f" * 48), headers=headers)
                    assert answer.status_code == 404 and answer.content == unknown.content, (method, path)
                    walked += 1
    assert walked >= 12
    assert api.get("/jobs", headers=BOB).json() == {"jobs": []}
    assert api.get("/pictures", headers=BOB).json()["pictures"] == []
    assert api.get("/pictures").json()["pictures"] == []
    theirs = api.post("/jobs", json={**QUICK, "init_image": picture["recipe"]["init_image"]}, headers=BOB)
    assert theirs.status_code == 404, "nor begins from the other's picture"
    assert [job["id"] for job in api.get("/jobs", headers=ADA).json()["jobs"]] == [running["id"]]
    assert api.delete(f"/jobs/{running['id']}", headers=ADA).status_code == 200
    assert [each["id"] for each in api.get("/pictures", headers=ADA).json()["pictures"]] == [picture["id"]]


def test_the_owner_sees_everybodys(api: httpx.Client) -> None:
    jobs = [asked(api, {**ENDLESS, "seed": seed}, **who) for seed, who in enumerate((ADA, BOB, {}))]
    assert [job["id"] for job in api.get("/jobs").json()["jobs"]] == [job["id"] for job in jobs]
    for job in reversed(jobs):
        assert api.delete(f"/jobs/{job['id']}", headers=BOB).status_code == 200


def test_a_stranger_trains_nothing_and_says_who_they_are(shared_api: httpx.Client) -> None:
    for kind in ("train", "distil"):
        answer = shared_api.post("/jobs", json={"kind": kind, "name": "x", "folder": "/"}, headers=ADA)
        assert answer.status_code == 403 and answer.json()["error"]["type"] == "not_allowed"
    answer = shared_api.post("/jobs", json=QUICK)
    assert answer.status_code == 422 and answer.json()["error"]["field"] == "X-Flash-Visitor"
    basic = base64.b64encode(f"{'c' * 24}:".encode()).decode()
    assert asked(shared_api, QUICK, Authorization=f"Basic {basic}")["state"] in ("queued", "running")


def refused(answer: httpx.Response) -> dict[str, Any]:
    """The error, which has the one form."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "hint", "field", "type"} and error["message"].endswith((".", "!"))
    assert str(PROJECT_ROOT) not in answer.text and "Traceback" not in answer.text
    return error


JSON_TYPE = {"Content-Type": "application/json"}
BAD_BODIES: list[tuple[int, bytes]] = [
    (400, b""), (400, b"{"), (400, b"\xff\xfe\xff"), (400, b"[" * 100_000), (400, b"1" * 10_000), (422, b"[]"),
    (422, b"null"), (422, b'"generate"'), (400, b'{"kind":' + b"[" * 40 + b"]" * 40 + b"}"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_what_is_no_object_is_refused(strict_api: httpx.Client, status: int, body: bytes) -> None:
    answer = strict_api.post("/jobs", content=body, headers=JSON_TYPE)
    refused(answer)
    assert answer.status_code == status


BAD_VALUES: list[tuple[str | None, dict[str, Any]]] = [
    ("kind", {}), ("kind", {"kind": "draw"}), ("kind", {"kind": ["generate"]}), ("prompt", {"kind": "generate"}),
    *((field, {**QUICK, field: value}) for field, values in {
        "num_inference_steps": (0, -1, 10**9, float("nan"), "four", 2.5, 1e400),
        "width": (7, 8, 4097, 10**30, "wide"), "height": (65, -64, [128]),
        "seed": (-2, 2**32, 2**64, "x"), "num_images": (0, 1000, {}), "guidance_scale": (float("inf"), -1, "much"),
        "prompt": ("", "  ", 5, None, "x" * 10_001, "half \ud800"), "checkpoint": ("../x", 5, "nothing"),
        "scheduler": ("fast",), "style": ("none at all",), "accelerator": ("x", "lcm-sdxl"),
        "decoder": ("quarter",), "clip_skip": (0, 13), "control": ("canny",), "new": (1,),
        "init_image": (
            "http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", "/etc/passwd", "../../x", 5,
            "data:image/png,abc", "data:image/svg+xml;base64,PHN2Zz4=", base64.b64encode(b"no picture").decode(),
            base64_png()[:100], ["x"],
        ),
        "mask": (base64_png(),), "strength": (2, float("-inf")),
    }.items() for value in values),
    ("prompts", {"kind": "flash"}), ("prompts", {"kind": "flash", "prompts": 5}),
    ("prompts", {"kind": "flash", "prompts": []}), ("prompts", {"kind": "flash", "prompts": [""]}),
    ("has_baseline", {"kind": "flash", "prompts": ["x"], "has_baseline": "perhaps"}),
    ("baseline_guidance", {"kind": "flash", "prompts": ["x"], "baseline_guidance": -1}),
    ("steps", {"kind": "flash", "prompts": ["x"], "steps": [0]}),
    ("systems", {"kind": "evaluate"}), ("systems", {"kind": "evaluate", "systems": {}}),
    ("systems", {"kind": "evaluate", "systems": [{"at": ["x"]}]}),
    ("judge", {"kind": "evaluate", "systems": [{}], "judge": "../../x"}),
    ("manifest", {"kind": "evaluate", "manifest": "[["}),
    ("manifest", {"kind": "evaluate", "manifest": "x = " + "[" * 5000}),
    ("manifest", {"kind": "evaluate", "manifest": 5}), ("name", {"kind": "evaluate", "manifest": "", "name": "x"}),
    ("prompts", {"kind": "evaluate", "manifest": 'prompts = "/etc/passwd"\n[[systems]]'}),
    ("name", {"kind": "train"}), ("folder", {"kind": "train", "name": "x"}),
    (None, {"kind": "train", "name": "x", "folder": "/nowhere"}),
    (None, {"kind": "train", "name": "x", "folder": "nul\0l"}),
    ("rank", {"kind": "train", "name": "x", "folder": ".", "rank": 0}),
    ("name", {"kind": "distil"}), ("dataset", {"kind": "distil", "name": "x", "dataset": "http://x/y"}),
    (None, {"kind": "distil", "name": "x", "folder": "/nowhere"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "body"), BAD_VALUES, ids=range(len(BAD_VALUES)))
def test_a_value_that_does_not_work_is_named(strict_api: httpx.Client, field: str | None, body: dict[str, Any]) -> None:
    answer = strict_api.post("/jobs", content=json.dumps(body), headers=JSON_TYPE)
    error = refused(answer)
    assert (answer.status_code, error["field"]) == (422, field), error
    assert strict_api.get("/jobs").json() == {"jobs": []}


def test_only_json_of_some_size_is_read(strict_api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = strict_api.post("/jobs", content=json.dumps(QUICK), headers={"Content-Type": kind})
        assert answer.status_code == 415 and refused(answer)["type"] == "wrong_content_type"
    monkeypatch.setattr(bodies, "MAX_JSON_BYTES", 2**20)
    answer = strict_api.post("/jobs", json={**QUICK, "init_image": "A" * 2**21})
    assert answer.status_code == 413 and refused(answer)["type"] == "too_large"


def test_what_is_no_operation_is_refused_in_the_same_form(strict_api: httpx.Client) -> None:
    for path in ("/nothing", "/jobs/x/y/z", "/jobs/", "/pictures/../jobs/x"):
        assert strict_api.get(path).status_code == 404 and refused(strict_api.get(path))["type"] == "not_found"
    for method, path, allowed in (
        ("PUT", "/jobs", "GET, HEAD, POST"), ("POST", "/pictures", "GET, HEAD"),
        ("OPTIONS", "/jobs/x", "DELETE, GET, HEAD"),
    ):  # fmt: skip
        answer = strict_api.request(method, path)
        assert answer.status_code == 405 and answer.headers["allow"] == allowed and refused(answer)


def test_the_same_key_is_the_same_job(api: httpx.Client) -> None:
    body = {**QUICK, "seed": -1, "init_image": base64_png()}
    first = asked(api, body, **{"Idempotency-Key": "k1"})
    ended(api, first["id"])
    assert asked(api, body, **{"Idempotency-Key": "k1"})["id"] == first["id"]
    assert asked(api, body, **{"Idempotency-Key": "k1", **ADA})["id"] != first["id"], "keys are everybody's own"
    assert asked(api, body, **{"Idempotency-Key": "k2"})["id"] != first["id"] != asked(api, body)["id"]
    for key, other in (("k1", {**body, "seed": 5}), ("k" * 256, body)):
        answer = api.post("/jobs", json=other, headers={"Idempotency-Key": key})
        assert answer.status_code == 422 and refused(answer)["field"] == "idempotency_key"


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "flash", "prompts": [PROMPT], "steps": [2], "baseline_steps": 4, "num_images": 1},
        {"kind": "evaluate", "systems": [{"num_inference_steps": 2}, {"num_inference_steps": 1}], "num_prompts": 3},
    ],
    ids=["flash", "evaluate"],
)
def test_comparisons_and_evaluations_may_be_sent_again(api: httpx.Client, body: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "k"}
    first = asked(api, body, **key)
    assert asked(api, body, **key)["id"] == first["id"], "while it waits or runs"
    result = ended(api, first["id"])
    again = asked(api, body, **key)
    assert (again["id"], again["state"]) == (first["id"], "done")
    assert ended(api, first["id"]) == result and result["state"] == "done"
    answer = api.post("/jobs", json={**body, "num_images": 3}, headers=key)
    assert answer.status_code == 422 and refused(answer)["field"] == "idempotency_key"


def test_a_full_line_says_when_to_ask_again(tmp_path: Path, engine: Engine, serve: Serve) -> None:
    settings = Settings(data_dir=tmp_path / "full", offline=True, max_queued=1)
    with (
        open_services(settings, engine=EngineHolder(lambda: engine)) as full,
        httpx.Client(base_url=serve(own_routes(full)) + "/api/v1", timeout=60) as api,
    ):
        first = asked(api, ENDLESS)
        while api.get(f"/jobs/{first['id']}").json()["state"] == "queued":
            time.sleep(0.01)
        asked(api, QUICK)
        answer = api.post("/jobs", json={**QUICK, "seed": 9})
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "queue_full"
        for job in reversed(api.get("/jobs").json()["jobs"]):
            api.delete(f"/jobs/{job['id']}")


WORDS = ("pocket-sd15", FLASH, "full", PROMPT, "<lora:x:1e9>", "<lora:../x>", "{a|b}", "__x__", "(((", "http://x/y")
NAMES = ("name", "checkpoint", "at", "adapters", "adapter", "lora_scale", "text", "group", "field", "values")


def anything(rng: random.Random, depth: int = 0) -> Any:
    """A random value, often one of those that break things."""
    kinds = 8 if depth < 3 else 6
    match rng.randrange(kinds):
        case 0:
            return rng.choice([None, True, False, 0, -1, 1, 2**31, 2**64, -(10**40), 0.5, float("nan"), float("inf")])
        case 1:
            return "".join(rng.choices(string.printable + "é\0\ud800😀{}[]<>:../", k=rng.randrange(40)))
        case 2:
            return rng.choice(
                ["pocket-sd15", FLASH, "full", PROMPT, "<lora:x:1e9>", "<lora:../x>", "{a|b}", "__x__", "((("]
            )
        case 3:
            return rng.randrange(-5, 200)
        case 4:
            return rng.random() * 10
        case 5:
            return base64_png((8, 8))
        case 6:
            return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            names = [
                "name",
                "checkpoint",
                "at",
                "adapters",
                "adapter",
                "lora_scale",
                "text",
                "group",
                "field",
                "values",
            ]
            return {rng.choice(names): anything(rng, depth + 1) for _ in range(rng.randrange(4))}


def test_random_bodies_break_nothing(strict_api: httpx.Client) -> None:
    rng = random.Random(20261129)
    fields = {
        schema["properties"]["kind"]["const"]: list(schema["properties"])
        for name, schema in strict_api.get("/openapi.json").json()["components"]["schemas"].items()
        if name.endswith("Job") and name != "ManifestJob"
    }
    assert len(fields) == 5
    for _ in range(200):
        kind = rng.choice(list(fields))
        chosen = rng.sample(fields[kind], k=rng.randrange(1, 5))
        usual = {"generate": {"prompt": PROMPT}, "flash": {"prompts": [PROMPT]}, "evaluate": {"systems": [{}]}}
        body = {**usual.get(kind, {"name": "x", "folder": "nowhere"}), **{name: anything(rng) for name in chosen}}
        body["kind"] = kind if rng.random() < 0.95 else anything(rng)
        answer = strict_api.post("/jobs", content=json.dumps(body), headers=JSON_TYPE)
        if answer.status_code == 202:
            strict_api.delete(f"/jobs/{answer.json()['id']}")
        else:
            refused(answer)
