"""`/api/v1/jobs`: asked for, looked at, followed, stopped, and what came of them."""

from typing import Annotated, TypeVar

from pydantic import Field
from starlette.responses import Response

from studio.domain.errors import NotFound
from studio.domain.events import Fetching, Progress
from studio.domain.request import Frozen
from studio.job import Job
from studio.services import Services
from studio.tables import JobRow
from studio.web.access import IDEMPOTENCY_HEADER, Caller, idempotency_key
from studio.web.own.answers import PREFIX, Asked, Operation, View, json_answer
from studio.web.own.asking import BODIES, check_is_somebody, submitted
from studio.web.own.results import TRAININGS, kind_of, result_view
from studio.web.own.stream import event_stream
from studio.web.own.views import DownloadView, JobList, JobView, ProblemView, ProgressView, ResultView, picture_link
from studio.web.refusals import Refused

_ViewT = TypeVar("_ViewT", bound=View)

MOST_PICTURES = 100
_ASK_AGAIN_S = 2
_ONCE = "The same request with the same key is the job that it was before."


class EventsQuery(Frozen):
    """How events are told."""

    previews: Annotated[bool, Field(description="With pictures so far, in base64.")] = False


def row_of(services: Services, caller: Caller, job_id: str) -> JobRow:
    """What the ledger has of a job that `caller` may see; raises NotFound."""
    try:
        row = services.runner.row(job_id)
        caller.check_may_see(row.visitor, "")
    except NotFound:  # one sentence for both: nobody learns which ids there are
        raise NotFound("There is no such job.", "It may be somebody else's.") from None
    return row


def live(services: Services, row: JobRow) -> Job:
    """The job of `row`, with its events."""
    return (services.trainer if row.kind in TRAININGS else services.runner).job(row.id)


def job_view(services: Services, row: JobRow) -> JobView:
    """How the job of `row` stands."""
    job = live(services, row)
    held, present = job.held, job.present()
    newest = next((event for event in reversed(present) if isinstance(event, Progress | Fetching)), None)
    records = services.gallery.of_job(row.id)
    return JobView(
        id=row.id,
        kind=kind_of(row),
        state=row.state,
        ahead=(ahead := services.ledger.jobs_ahead(row.id)),
        wait_s=services.ledger.wait_s(row.queue, ahead),
        progress=None if row.is_over or not isinstance(newest, Progress) else _view(ProgressView, newest),
        download=None if row.is_over or not isinstance(newest, Fetching) else _view(DownloadView, newest),
        held=ProblemView(message=held.message, hint=held.hint) if held else None,
        num_pictures=len(records),
        pictures=[picture_link(record) for record in records[:MOST_PICTURES]],
        error=ProblemView(message=row.message, hint=row.hint) if row.state == "failed" else None,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _view(view: type[_ViewT], event: object) -> _ViewT:
    return view.model_validate({name: getattr(event, name) for name in view.model_fields})


def _submit(asked: Asked) -> Response:
    check_is_somebody(asked.caller)
    job_id = submitted(asked.services, asked.caller, asked.values, idempotency_key(asked.request))
    row = asked.services.runner.row(job_id)
    return json_answer(job_view(asked.services, row), 202, {"Location": f"{PREFIX}/jobs/{row.id}"})


def _listed(asked: Asked) -> JobList:
    rows = asked.services.ledger.active_jobs(asked.caller.owner)
    return JobList(jobs=[job_view(asked.services, row) for row in rows])


def _one(asked: Asked) -> JobView:
    return job_view(asked.services, row_of(asked.services, asked.caller, asked.id_of("job_id")))


def _events(asked: Asked) -> Response:
    query = asked.query(EventsQuery)
    row = row_of(asked.services, asked.caller, asked.id_of("job_id"))
    told = asked.request.headers.get("last-event-id", "")
    after = int(told) if told.isascii() and told.isdigit() and len(told) < 19 else -1
    return event_stream(live(asked.services, row), after, with_previews=query.previews)


def _cancel(asked: Asked) -> JobView:
    row = row_of(asked.services, asked.caller, asked.id_of("job_id"))
    live(asked.services, row).cancel()
    return job_view(asked.services, asked.services.runner.row(row.id))


def _result(asked: Asked) -> ResultView:
    row = row_of(asked.services, asked.caller, asked.id_of("job_id"))
    if not row.is_over:
        raise Refused(
            409, "not_over", f"This job is {row.state}; its result is there when it is over.",
            "Follow its events, or ask again.", {"Retry-After": str(_ASK_AGAIN_S)},
        )  # fmt: skip
    return result_view(asked.services, row, live(asked.services, row))


JOB_OPERATIONS = (
    Operation(
        method="POST", path="/jobs", title="Ask for pictures, a comparison, an evaluation or a training", run=_submit,
        answer=JobView, status=202, takes=BODIES, refuses=(400, 403, 404, 413, 415, 422, 429, 503, 507),
        headers={IDEMPOTENCY_HEADER: _ONCE},
    ),
    Operation(method="GET", path="/jobs", title="Your jobs that wait or run", run=_listed, answer=JobList),
    Operation(
        method="GET", path="/jobs/{job_id}", title="A job as it stands", run=_one, answer=JobView, refuses=(404,)
    ),
    Operation(
        method="GET", path="/jobs/{job_id}/events", title="What happens to a job, as Server-Sent Events", run=_events,
        media_type="text/event-stream", query=EventsQuery, refuses=(404, 422),
        empty="It is over, and you have all of it",
        headers={"Last-Event-ID": "The id of the last event that you have; what came later is told."},
    ),
    Operation(
        method="GET", path="/jobs/{job_id}/result", title="What came of a job", run=_result, answer=ResultView,
        refuses=(404, 409),
    ),
    Operation(
        method="POST", path="/jobs/{job_id}/cancel", title="Stop a job within a step", run=_cancel, answer=JobView,
        refuses=(404,),
    ),
    Operation(
        method="DELETE", path="/jobs/{job_id}", title="Stop a job within a step; its pictures stay", run=_cancel,
        answer=JobView, refuses=(404,),
    ),
)  # fmt: skip
