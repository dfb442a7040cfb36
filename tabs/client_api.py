"""Gradio's own API: endpoints that its clients see and call, made for programs. The page's listeners are none."""

import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import gradio as gr
from gradio import processing_utils, utils
from gradio.block_function import BlockFunction
from starlette.concurrency import run_in_threadpool

from studio.domain.images import ImageRecord
from studio.services import Services
from studio.web.access import Caller, caller_of
from studio.web.own.asking import check_is_somebody
from studio.web.own.call_forms import PICTURES
from studio.web.own.calls import Call, Reply, offered
from studio.web.refusals import told
from studio.web.uploads import Uploads
from tabs.frame import Frame, refusal

MAX_WAITING, MAX_ASKING = 32, 8
"""Calls at once that wait for something, and that do not. Who waits takes none of the places of those who ask, nor of
those who look at the page."""
_PNG = "image/png"
_FILE = gr.FileData.model_json_schema()


def build_client_api(page: Frame, services: Services) -> None:
    """Offer every call inside `page`, which is being built."""
    for call in offered(services):
        limit, group = (MAX_WAITING, "waiting") if call.is_long else (MAX_ASKING, "asking")
        gr.api(
            _endpoint(call, services, page.uploads),
            api_name=call.name,
            api_description=call.description,
            concurrency_limit=limit,
            concurrency_id=f"client-{group}",
        )
        _describe(page.fns[max(page.fns)], call)


def _endpoint(call: Call, services: Services, uploads: Uploads) -> Any:
    """`call` as a function of the kind that Gradio reads the parameters of."""
    fields = call.form.model_fields

    async def endpoint(request: gr.Request, *given: Any) -> AsyncIterator[Any]:
        values = dict(zip(fields, given, strict=False))
        assert request.request is not None, "whoever calls sends one"
        try:
            values |= await run_in_threadpool(_sent, values, caller_of(request.request, services.settings), uploads)
            async with aclosing(call.replies(services, request.request, values)) as replies:
                async for reply in replies:
                    yield await run_in_threadpool(_shown, call, services, reply)
        except Exception as error:
            raise refusal(told(error)) from None

    parameter, kind = inspect.Parameter, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        parameter("request", kind, annotation=gr.Request),
        *(
            parameter(
                name,
                kind,
                default=parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
                annotation=Any,
            )
            for name, field in fields.items()
        ),
    ]
    returns = tuple[list, dict] if call.has_pictures else dict
    endpoint.__signature__ = inspect.Signature(parameters, return_annotation=returns)
    endpoint.__annotations__ = {each.name: each.annotation for each in parameters}
    endpoint.__name__, endpoint.__qualname__ = call.name, f"call.{call.name}"
    return endpoint


def _sent(values: Mapping[str, Any], caller: Caller, uploads: Uploads) -> dict[str, bytes]:
    """The pictures that are given as files.

    Raises:
        InvalidRequest: one is empty, or nobody could find again what comes of it.
        NotFound: the caller sent no such file.
    """
    files = {name: values[name] for name in PICTURES if isinstance(values.get(name), dict)}
    if files:
        check_is_somebody(caller)
    return {name: uploads.content(file.get("path"), caller, PICTURES[name]) for name, file in files.items()}


def _shown(call: Call, services: Services, reply: Reply) -> Any:
    """A reply as Gradio sends it: files, where there are any, and what is told."""
    return ([_file(services, record) for record in reply.pictures], reply.told) if call.has_pictures else reply.told


def _file(services: Services, record: ImageRecord) -> dict[str, Any]:
    """The picture, copied byte by byte to where Gradio gives files out from, under a name that nobody guesses."""
    path = services.gallery.path(record)
    copy = processing_utils.save_file_to_cache(path, utils.get_upload_folder())
    return gr.FileData(path=copy, orig_name=path.name, mime_type=_PNG).model_dump()


def _describe(listener: BlockFunction, call: Call) -> None:
    """Give the parameters of an endpoint their names, kinds and meanings, and its answers theirs."""
    schemas = call.schema.get("properties", {})
    for component, (name, schema) in zip(listener.inputs, schemas.items(), strict=True):
        kind = _FILE if name in PICTURES else _kind(schema)
        _put(component, name, {**kind, "additional_description": _meaning(schema)})
    answers = [("told", {"type": "object", "additionalProperties": {}, "description": "What came of it"})]
    if call.has_pictures:
        file = dict(_FILE)
        files = {"type": "array", "$defs": file.pop("$defs"), "items": file}
        answers.insert(0, ("pictures", {**files, "description": "PNG files, with their recipes inside"}))
    for component, answer in zip(listener.outputs, answers, strict=True):
        _put(component, *answer)


def _put(component: Any, label: str, schema: dict[str, Any]) -> None:
    component.label = label
    component.api_info().update(schema)


def _kind(schema: dict[str, Any]) -> dict[str, Any]:
    """What a value is; of one that may be left out, what it is otherwise."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    found = kinds[0] if kinds else schema
    return {name: value for name, value in found.items() if name in ("type", "enum", "items", "minimum", "maximum")}


def _meaning(schema: dict[str, Any]) -> str:
    return next((each["description"] for each in (schema, *schema.get("anyOf", ())) if "description" in each), "")
