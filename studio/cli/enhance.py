"""`enhance`: better prompts, with what they change and why."""

import argparse
import sys
from pathlib import Path

from studio.cli.columns import printable
from studio.cli.report import DONE
from studio.domain.catalogue import Catalogue
from studio.domain.enhancement import Enhancement, difference
from studio.enhancer import EnhancerService
from studio.groq_chat import GroqChat
from studio.settings import Settings

_ADDED, _REMOVED, _PLAIN = "\x1b[32m", "\x1b[31;9m", "\x1b[0m"
"""How a terminal colours what differs."""


def run(options: argparse.Namespace, catalogue: Catalogue, settings: Settings) -> int:
    """Print suggestions; gives the exit code.

    Raises:
        NotFound: there is no such model.
        InvalidRequest: a number of suggestions that cannot be, or no picture.
        ChatFailed: nobody can tell what a picture shows.
    """
    chat = GroqChat(settings)
    try:
        enhancer = EnhancerService(catalogue, chat, settings)
        if options.picture:
            found = enhancer.describe(Path(options.picture), options.checkpoint, count=options.count)
        else:
            found = enhancer.enhance(
                options.prompt, options.checkpoint, count=options.count, seed=options.seed, by_rule=options.by_rule
            )
    finally:
        chat.close()
    if options.json:
        print(found.model_dump_json(indent=2))
        return DONE
    if found.note:
        print(found.note, file=sys.stderr)
    for each in found.suggestions:
        print(_told(found, each.prompt) if sys.stdout.isatty() else each.prompt)
        print(f"  {each.why}", file=sys.stderr)
    return DONE


def _told(found: Enhancement, prompt: str) -> str:
    signs = {"same": "", "added": _ADDED, "removed": _REMOVED}
    pieces = ((signs[piece.kind], printable(piece.text, " ")) for piece in difference(found.original, prompt))
    return "".join(f"{sign}{text}{_PLAIN if sign else ''}" for sign, text in pieces)
