"""Gradio's page, which takes files from nowhere but uploads, and knows who sent them."""

from typing import Any

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.components.api_component import Api
from gradio.exceptions import InvalidPathError
from gradio.state_holder import SessionState
from gradio_client.utils import is_file_obj_with_meta, is_http_url_like, traverse
from pydantic import ValidationError

from studio.domain.errors import InvalidRequest, NotFound, StudioError
from studio.web.uploads import Uploads


class Frame(gr.Blocks):
    """Left alone, Gradio fetches what a caller names by a public address, for every listener, before that is asked.
    What it refuses it tells nobody; here it is told in a sentence."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.uploads = Uploads()

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> list[Any]:
        """As Gradio does it. A call of a program that knows fewer parameters gets the usual values for the rest."""
        usual = [each.value for each in block_fn.inputs[len(inputs) :] if isinstance(each, Api)]
        try:
            traverse(inputs, _check_is_here, _is_file)
            return await super().preprocess_data(block_fn, [*inputs, *usual], state, explicit_call)
        except InvalidPathError:
            raise refusal(_not_sent()) from None
        except StudioError as error:
            raise refusal(error) from None
        finally:
            _forget(block_fn, state)


def _forget(block_fn: BlockFunction, state: Any) -> None:
    """Gradio keeps the last value of each parameter for as long as the session; those of calls may be whole pictures,
    and the sessions of calls end with no page."""
    for each in block_fn.inputs if isinstance(state, SessionState) else ():
        if isinstance(each, Api):
            state._update_value_in_config(each._id, None)  # pyright: ignore[reportPrivateUsage]


def refusal(error: StudioError) -> gr.Error:
    """In the words of the page, which programs read as they are."""
    return gr.Error(str(error), print_exception=False, title="This did not work")


def _is_file(value: Any) -> bool:
    """What Gradio takes for a file, and would fetch or look for."""
    try:
        return is_file_obj_with_meta(value) and bool(gr.FileData(**value))
    except (AttributeError, ValidationError):
        raise _not_sent() from None


def _check_is_here(file: dict[str, Any]) -> dict[str, Any]:
    if is_http_url_like(file["path"]):
        raise InvalidRequest("A file at an address is not fetched.", "Send the file itself.")
    return file


def _not_sent() -> NotFound:
    return NotFound("This is no file that was sent here.", "Send the file itself.")
