"""Our own API described: OpenAPI 3.1 made of the same operations as its routes, and a page that shows it."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from studio import __version__
from studio.html_page import html_page
from studio.web.access import VISITOR_HEADER
from studio.web.bodies import JSON
from studio.web.own.answers import PREFIX, ErrorAnswer, Operation

Schema = dict[str, Any]
_REF = "#/components/schemas/"
_REASONS = {
    400: "The body is no JSON",
    403: "Only this machine's owner may do that",
    404: "There is none of that id, or it is somebody else's",
    409: "It is not over yet; Retry-After says when to ask again",
    413: "The body is too large",
    415: "The body is no JSON by its content type",
    422: "A value does not work; field names it",
    429: "You have as much in line as you may; Retry-After says when to ask again",
    500: "Something that nobody expected; the log has the details under the id that is told",
    503: "Too much is waiting; Retry-After says when to ask again",
    507: "Memory or disk are too small for it",
}
_ALWAYS = (500,)
_ABOUT = (
    f"A token of 22 to 64 letters, digits, - and _ in the header {VISITOR_HEADER}, or as the user name of HTTP Basic, "
    "says whose jobs and pictures are meant. On a page that only its own machine reaches, none is needed. Previews of "
    "a job that runs come with its events, pictures by the address that each has."
)
_STYLE = """<style>
body { overflow-wrap: anywhere; } .operation { border-top: 1px solid var(--line); padding-top: 8px; }
dt { margin-top: 8px; } dd { margin-left: 16px; } summary { cursor: pointer; padding: 8px 0; min-height: 24px; }
code { font-size: 14px; } h2 code { font-size: 16px; }
</style>"""


def document(operations: Sequence[Operation]) -> Schema:
    """The OpenAPI document of `operations`."""
    schemas, references = _schemas(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _described(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flash Studio", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"visitor": {"type": "apiKey", "in": "header", "name": VISITOR_HEADER}},
        },
        "security": [{"visitor": []}, {}],
    }


def page(described: Schema) -> str:
    """The document as HTML that loads nothing from anywhere."""
    info = described["info"]
    parts = [
        _STYLE,
        f"<h1>{html.escape(info['title'])} {html.escape(info['version'])}: API</h1>",
        f"<p>{html.escape(info['description'])}</p>",
        f'<p>The same for programs: <a href="{PREFIX}/openapi.json">openapi.json</a></p>',
        *(
            _operation_html(method, path, operation, described)
            for path, methods in described["paths"].items()
            for method, operation in methods.items()
        ),
    ]
    return html_page("Flash Studio: API", "".join(parts))


def _schemas(operations: Sequence[Operation]) -> tuple[Schema, Mapping[str, Schema]]:
    """All schemas by name, and how each model, by its own, is referred to."""
    asked = {model for operation in operations for model in operation.takes}
    told = {operation.answer for operation in operations if operation.answer} | {ErrorAnswer}
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in sorted(asked, key=_name)),
        *((model, "serialization") for model in sorted(told, key=_name)),
    ]
    references, schemas = models_json_schema(modes, ref_template=_REF + "{model}")
    return schemas.get("$defs", {}), {model.__name__: found for (model, _), found in references.items()}


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _described(operation: Operation, references: Mapping[str, Schema]) -> Schema:
    described: Schema = {
        "operationId": _operation_id(operation),
        "summary": operation.title,
        "parameters": _parameters(operation),
        "responses": _responses(operation, references),
    }
    if operation.takes:
        body = {"oneOf": [references[model.__name__] for model in operation.takes]}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    return described


def _responses(operation: Operation, references: Mapping[str, Schema]) -> Schema:
    plain = {"type": "object" if operation.media_type == JSON else "string"}
    answer = references[operation.answer.__name__] if operation.answer else plain
    refused = {JSON: {"schema": references[ErrorAnswer.__name__]}}
    return {
        str(operation.status): {
            "description": operation.title,
            "content": {operation.media_type: {"schema": answer}},
        },
        **({"204": {"description": operation.empty}} if operation.empty else {}),
        **{
            str(status): {"description": _REASONS[status], "content": refused}
            for status in sorted({*operation.refuses, *_ALWAYS})
        },
    }


def _operation_id(operation: Operation) -> str:
    words = [word.strip("{}").replace(".", "_") for word in operation.path.split("/") if word]
    return "_".join([operation.method.lower(), *words])


def _parameters(operation: Operation) -> list[Schema]:
    found: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.parameters
    ]
    query = operation.query.model_json_schema() if operation.query else {}
    for name, schema in query.get("properties", {}).items():
        found.append({"name": name, "in": "query", "required": name in query.get("required", ()), "schema": schema})
    for name, meaning in operation.headers.items():
        found.append({"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}})
    return found


def _operation_html(method: str, path: str, operation: Schema, described: Schema) -> str:
    parts = [
        f'<section class="operation"><h2><code>{method.upper()} {html.escape(path)}</code></h2>',
        f"<p>{html.escape(operation['summary'])}.</p>",
        _fields_html("Parameters", {each["name"]: _parameter(each) for each in operation["parameters"]}, described),
    ]
    body = operation.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema", {})
    for reference in body.get("oneOf", ()):
        name, schema = _followed(reference, described)
        parts.append(_fields_html(f"Body: {name}", schema["properties"], described, schema.get("required", ())))
    for status, answer in operation["responses"].items():
        contents: list[Schema] = list(answer.get("content", {}).values())
        name, schema = _followed(contents[0]["schema"], described) if contents else ("", {})
        if status in ("200", "202"):
            parts.append(_fields_html(f"{status}: {name}", schema.get("properties", {}), described))
        else:
            parts.append(f'<p class="quiet">{status}: {html.escape(answer["description"])}.</p>')
    return "".join([*parts, "</section>"])


def _parameter(parameter: Schema) -> Schema:
    meaning = parameter.get("description") or parameter["schema"].get("description", "")
    return {**parameter["schema"], "description": meaning, "title": f"in the {parameter['in']}"}


def _fields_html(title: str, fields: Mapping[str, Schema], described: Schema, required: Sequence[str] = ()) -> str:
    if not fields:
        return ""
    first = sorted(fields, key=lambda name: "const" not in fields[name])
    rows = "".join(_field_html(name, fields[name], described, name in required) for name in first)
    return f"<details><summary>{html.escape(title)}</summary><dl>{rows}</dl></details>"


def _field_html(name: str, schema: Schema, described: Schema, is_required: bool) -> str:
    needed = ", required" if is_required else ""
    usual = schema.get("default")
    needed += f", usually {json.dumps(usual)}" if usual not in (None, "", []) else ""
    words = ". ".join(filter(None, (_meaningful(schema, name), _meaning(schema))))
    kind = html.escape(_kind(schema, described) + needed)
    return f'<dt><code>{html.escape(name)}</code> <small class="quiet">{kind}</small></dt><dd>{html.escape(words)}</dd>'


def _meaningful(schema: Schema, name: str) -> str:
    """A title that says more than the name that it was made of."""
    titles = [each["title"] for each in (*schema.get("anyOf", ()), schema) if "title" in each]
    return next((title for title in titles if title.lower().replace(" ", "_") != name), "")


def _meaning(schema: Schema) -> str:
    """What a field is for; of one that may be null, what it is for otherwise."""
    return next((each["description"] for each in (schema, *schema.get("anyOf", ())) if "description" in each), "")


def _kind(schema: Schema, described: Schema) -> str:
    """What a value may be, in a few words."""
    if "$ref" in schema:
        return _followed(schema, described)[0]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(each, described) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " or ".join(map(json.dumps, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), described)}"
    bounds = [
        f"{sign} {schema[name]:g}" for name, sign in (("minimum", "≥"), ("maximum", "≤"), ("multipleOf", "multiple of"))
        if name in schema
    ]  # fmt: skip
    return " ".join([schema.get("type", "anything"), *bounds])


def _followed(schema: Schema, described: Schema) -> tuple[str, Schema]:
    """The name and schema that a reference means; what is none means itself."""
    if "$ref" not in schema:
        return "", schema
    name = schema["$ref"].removeprefix(_REF)
    return name, described["components"]["schemas"][name]
