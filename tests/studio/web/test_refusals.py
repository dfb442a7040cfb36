"""How the studio's errors look over HTTP, whatever form an interface gives them."""

import pytest

from studio.domain.errors import (
    CaptionsInUse,
    CorruptModel,
    DatasetError,
    DownloadFailed,
    JobCancelled,
    NotFound,
    QueueFull,
    RateLimited,
    StudioError,
    TrainingFailed,
)
from studio.web.refusals import Refused, headers_of, status_of, told, word_of


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (DatasetError("x"), 422, "dataset_error"),
        (CaptionsInUse("x"), 422, "captions_in_use"),
        (CorruptModel("x"), 422, "corrupt_model"),
        (NotFound("x"), 404, "not_found"),
        (DownloadFailed("x"), 502, "download_failed"),
        (QueueFull("x"), 503, "queue_full"),
        (TrainingFailed("x"), 500, "training_failed"),
        (StudioError("x"), 500, "studio_error"),
        (Refused(415, "wrong_content_type", "x"), 415, "wrong_content_type"),
        (told(JobCancelled()), 503, "cancelled"),
    ],
)
def test_every_error_has_a_status_and_a_word(error: StudioError, status: int, word: str) -> None:
    assert (status_of(error), word_of(error)) == (status, word)


def test_whoever_asks_too_much_is_told_when_to_ask_again() -> None:
    assert headers_of(RateLimited("x", retry_after_s=41.7)) == {"Retry-After": "42"}
    assert headers_of(RateLimited("x", retry_after_s=0)) == {"Retry-After": "1"}
    assert headers_of(Refused(405, "wrong_method", "x", headers={"Allow": "GET"})) == {"Allow": "GET"}
    assert int(headers_of(QueueFull("x"))["Retry-After"]) > 0 and headers_of(NotFound("x")) == {}


def test_what_nobody_foresaw_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    error = told(OSError("a secret place"))
    error_id = error.message.partition("(id ")[2][:8]
    assert (status_of(error), word_of(error)) == (500, "unexpected") and "secret" not in str(error)
    assert error_id in caplog.text and "a secret place" in caplog.text
