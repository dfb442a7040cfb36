import logging

import gradio as gr
import pytest

from studio.domain.errors import NotFound
from tabs.handlers import guarded


def test_a_studio_error_is_shown_as_its_sentence_and_never_as_html() -> None:
    @guarded
    def handler() -> None:
        raise NotFound("There is no <b>.", "Choose another.")

    with pytest.raises(gr.Error) as caught:
        handler()
    assert caught.value.message == "There is no &lt;b&gt;. Choose another."


def test_a_bug_shows_an_id_that_the_log_explains(caplog: pytest.LogCaptureFixture) -> None:
    @guarded
    def handler():
        yield 1
        raise ZeroDivisionError("secret")

    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as caught:
        list(handler())
    assert "secret" not in caught.value.message
    error_id = caught.value.message.split("(id ")[1][:8]
    assert error_id in caplog.text and "ZeroDivisionError" in caplog.text
