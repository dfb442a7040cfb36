"""Keeps the libraries' own progress bars and advice off the terminal: the studio tells its progress itself."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


def quiet_libraries() -> None:
    """Let diffusers and transformers report errors only. Call it before their pipelines are imported."""
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
