"""The description of our own API says what there is: every route, every field, every answer."""

import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from studio.domain.distillation import DistillationRequest
from studio.domain.evaluation import EvaluationRequest
from studio.domain.flash import FlashRequest
from studio.domain.request import Frozen, GenerationRequest
from studio.domain.training import TrainingRequest
from studio.services import Services
from studio.web.own.api import own_routes
from tests.studio.web.conftest import Serve

PREFIX = "/api/v1"


@pytest.fixture
def api(services: Services, serve: Serve) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve(own_routes(services)), timeout=60) as client:
        yield client


@pytest.fixture
def described(api: httpx.Client) -> dict[str, Any]:
    return api.get(f"{PREFIX}/openapi.json").json()


def check(described: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Raises where `value` is not what `schema` says."""
    Draft202012Validator({**schema, "components": described["components"]}).validate(value)


def answers(described: dict[str, Any], method: str, path: str, answer: httpx.Response) -> None:
    """Check an answer against what the description promises of it."""
    promised = described["paths"][PREFIX + path][method]["responses"][str(answer.status_code)]
    check(described, promised["content"][answer.headers["content-type"]]["schema"], answer.json())


def test_it_describes_every_route_and_no_other(services: Services, described: dict[str, Any]) -> None:
    *routes, otherwise = own_routes(services)
    assert isinstance(otherwise, Route) and otherwise.path == PREFIX + "/{rest:path}"
    found = {
        (route.path, method.lower())
        for route in routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert found == {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert len(found) == len(routes) > 12


def test_every_schema_and_reference_is_sound(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1.")
    schemas = described["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(described)))
    assert named == set(schemas), "nothing is missing, and nothing is left over"
    ids = [each["operationId"] for methods in described["paths"].values() for each in methods.values()]
    assert len(set(ids)) == len(ids)
    for path, methods in described["paths"].items():
        for each in methods.values():
            told = {parameter["name"] for parameter in each["parameters"] if parameter["in"] == "path"}
            assert told == set(re.findall(r"{(\w+)}", path)) and each["summary"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("GenerateJob", GenerationRequest),
        ("FlashJob", FlashRequest),
        ("EvaluateJob", EvaluationRequest),
        ("TrainJob", TrainingRequest),
        ("DistilJob", DistillationRequest),
    ],
)
def test_a_body_has_the_fields_of_its_request(described: dict[str, Any], name: str, model: type[Frozen]) -> None:
    schema = described["components"]["schemas"][name]
    assert set(schema["properties"]) == {"kind", *model.model_fields} and "kind" in schema["required"]
    assert schema["additionalProperties"] is False
    if model is GenerationRequest:
        asked = model.model_json_schema()["properties"]
        assert schema["properties"]["width"] == asked["width"]
        assert schema["properties"]["seed"]["maximum"] == 2**32 - 1


def test_answers_are_what_is_promised(api: httpx.Client, described: dict[str, Any]) -> None:
    body = {"kind": "generate", "prompt": "a red circle", "num_inference_steps": 4}
    bodies = described["paths"][f"{PREFIX}/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    check(described, bodies, body)
    begun = api.post(f"{PREFIX}/jobs", json=body)
    answers(described, "post", "/jobs", begun)
    job_id = begun.json()["id"]
    path = f"{PREFIX}/jobs/{job_id}"
    while (result := api.get(f"{path}/result")).status_code == 409:
        answers(described, "get", "/jobs/{job_id}/result", result)
        answers(described, "get", "/jobs/{job_id}", api.get(path))
        answers(described, "get", "/jobs", api.get(f"{PREFIX}/jobs"))
        time.sleep(0.1)
    answers(described, "get", "/jobs/{job_id}/result", result)
    answers(described, "delete", "/jobs/{job_id}", api.delete(path))
    picture = result.json()["pictures"][0]["id"]
    answers(described, "get", "/pictures/{picture_id}", api.get(f"{PREFIX}/pictures/{picture}"))
    answers(described, "get", "/pictures/{picture_id}", api.get(f"{PREFIX}/pictures/none"))
    answers(described, "post", "/jobs", api.post(f"{PREFIX}/jobs", json={}))
    answers(described, "post", "/jobs", api.post(f"{PREFIX}/jobs", content="{}"))
    for name in ("/pictures", "/models", "/accelerators", "/controls", "/adapters", "/samplers", "/styles"):
        answers(described, "get", name, api.get(PREFIX + name))


def test_a_comparison_is_what_is_promised(api: httpx.Client, described: dict[str, Any]) -> None:
    body = {"kind": "flash", "prompts": ["a red circle"], "steps": [2], "baseline_steps": 4, "num_images": 1}
    path = api.post(f"{PREFIX}/jobs", json=body).headers["location"]
    while (result := api.get(f"{path}/result")).status_code == 409:
        time.sleep(0.1)
    answers(described, "get", "/jobs/{job_id}/result", result)
    assert len(result.json()["comparison"]["columns"]) == 2


def test_the_page_tells_everything_and_loads_nothing(api: httpx.Client, described: dict[str, Any]) -> None:
    for path in (f"{PREFIX}/", f"{PREFIX}/docs"):
        answer = api.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}</code>" in answer.text
    for field in GenerationRequest.model_fields:
        assert f"<code>{field}</code>" in answer.text
    assert re.search(r"default-src 'none'", answer.text) and "<script" not in answer.text
    assert re.findall(r"(?:src|href)=\"(?!/api/v1/)", answer.text) == [] and "http://" not in answer.text
