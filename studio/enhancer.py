"""Makes prompts better: by a language model where one may be asked, else by rule, and says which and why."""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from engines.pocket.captioner import describe
from studio.blocked_terms import BlockedTerms
from studio.captions.payload import data_url
from studio.dataset_scan import Unusable, open_picture
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.chat import Answer, ChatFailed, Message
from studio.domain.enhancement import Enhancement, Source, Suggestion, taken_apart
from studio.domain.errors import InvalidRequest
from studio.enhance_chat import looks, questions, suggestions_in
from studio.enhance_pocket import suggest_scenes
from studio.enhance_words import suggest_words
from studio.groq_chat import GroqChat
from studio.settings import Settings

logger = logging.getLogger(__name__)

MAX_COUNT = 6
TIMEOUT_S = 20.0
"""Somebody waits before the page, and the rules take no time."""
_MAX_TOKENS = 2000
_ASKED_EACH, _ASKED_ALL, _WITHIN_S = 20, 120, 600.0
"""Questions of one visitor, and of all, that the owner's key is lent to within that time."""


class EnhancerService:
    """Suggests prompts for the checkpoints of `catalogue`."""

    def __init__(self, catalogue: Catalogue, chat: GroqChat, settings: Settings) -> None:
        self._catalogue = catalogue
        self._chat = chat
        self._settings = settings
        self._blocked = BlockedTerms(settings.blocked)
        self._lent = _Lent()
        self._told: set[tuple[str, str]] = set()

    def enhance(
        self,
        prompt: str,
        checkpoint_id: str | None = None,
        *,
        count: int = 3,
        seed: int = 0,
        visitor: str = "local",
        by_rule: bool = False,
    ) -> Enhancement:
        """Suggest up to `count` prompts for what `prompt` says, or, of an empty one, ideas. Tags, weights, choices and
        what stands behind a BREAK stay as they are.

        Args:
            prompt: As typed.
            checkpoint_id: Which model is to draw it; None for the default one.
            count: From 1 to 6.
            seed: Another one gives other suggestions; by rule, the same one the same.
            visitor: Whose question it is: a shared page lends its owner's key only so often.
            by_rule: Ask no language model.

        Raises:
            NotFound: there is no such checkpoint.
            InvalidRequest: a number of suggestions that cannot be, or a word that the host does not have drawn.
        """
        checkpoint = self._checked(checkpoint_id, count)
        self._blocked.check(prompt)
        apart = taken_apart(prompt)
        model, note = "", ""
        found: tuple[Suggestion, ...] = ()
        if not by_rule:
            messages = questions(apart.words, checkpoint, count)
            try:
                answer = self._asked(self._settings.text_models, messages, visitor)
                model, found = answer.model, _usable(answer, apart.words, checkpoint, count)
            except ChatFailed as error:
                note = self._once(visitor, error)
        source: Source = "groq" if found else "rules"
        found = found or _by_rule(apart.words, checkpoint, seed, count)
        better = [each.model_copy(update={"prompt": apart.put_back(each.prompt)}) for each in found]
        suggestions = tuple(each for each in better if each.prompt != prompt and self._blocked.allow(each.prompt))
        return Enhancement(original=prompt, suggestions=suggestions, source=source, model=model, note=note)

    def describe(
        self, picture: Path, checkpoint_id: str | None = None, *, count: int = 3, visitor: str = "local"
    ) -> Enhancement:
        """Suggest prompts by which a model would draw what the picture in a file shows: what the checker sees, where it
        shows a scene of the pocket world, else what a language model that looks at pictures says.

        Raises:
            NotFound, InvalidRequest: as `enhance`; or the file is no picture that can be opened.
            ChatFailed: nobody is there who could tell; the message says why.
        """
        checkpoint = self._checked(checkpoint_id, count)
        try:
            scene = describe(open_picture(picture).image)
        except Unusable as error:
            raise InvalidRequest(str(error), "Give a PNG, JPEG or WebP file.", "picture") from None
        if scene and (checkpoint.is_pocket or self._chat.missing):
            seen = Suggestion(prompt=scene, why="What the checker of the pocket world sees in the picture, exactly.")
            return Enhancement(original="", suggestions=(seen,), source="rules")
        messages = looks(data_url(picture), checkpoint, count)
        answer = self._asked(self._settings.vision_models, messages, visitor)
        found = [each for each in _usable(answer, "", checkpoint, count) if self._blocked.allow(each.prompt)]
        return Enhancement(original="", suggestions=tuple(found), source="groq", model=answer.model)

    def _checked(self, checkpoint_id: str | None, count: int) -> Checkpoint:
        if not 1 <= count <= MAX_COUNT:
            raise InvalidRequest(f"{count} suggestions are asked for.", f"Ask for 1 to {MAX_COUNT}.", "count")
        return self._catalogue.checkpoint(checkpoint_id or self._catalogue.default_checkpoint)

    def _asked(self, models: Sequence[str], messages: Sequence[Message], visitor: str) -> Answer:
        """What a language model says; raises ChatFailed, too, where `visitor` or all together asked too often."""
        if self._chat.missing is None and not self._lent.take(visitor):
            raise ChatFailed("busy", "The language model was asked very often just now.", "Try again in some minutes.")
        return self._chat.ask(models, messages, max_tokens=_MAX_TOKENS, timeout_s=TIMEOUT_S, as_json=True)

    def _once(self, visitor: str, error: ChatFailed) -> str:
        """Why no language model was used, for somebody who has not been told yet; "" else."""
        if error.reason not in ("no_key", "offline"):
            logger.warning("no language model for a prompt: %s", error)
        if (visitor, error.reason) in self._told:
            return ""
        self._told.add((visitor, error.reason))
        return f"{error} Until then the studio's own rules suggest."


class _Lent:
    """Counts who asked when. A visitor may ask `_ASKED_EACH` times, all of them `_ASKED_ALL` times, in `_WITHIN_S`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: deque[tuple[float, str]] = deque()

    def take(self, visitor: str) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._asked and self._asked[0][0] < now - _WITHIN_S:
                self._asked.popleft()
            own = sum(each == visitor for _, each in self._asked)
            if own >= _ASKED_EACH or len(self._asked) >= _ASKED_ALL:
                return False
            self._asked.append((now, visitor))
            return True


def _usable(answer: Answer, words: str, checkpoint: Checkpoint, count: int) -> tuple[Suggestion, ...]:
    """What can be used of an answer; raises ChatFailed where nothing can."""
    found = suggestions_in(answer, words, checkpoint, count)
    if not found:
        raise ChatFailed("garbage", f"{answer.model} gave no prompt that can be used.", "Try again.")
    return found


def _by_rule(words: str, checkpoint: Checkpoint, seed: int, count: int) -> tuple[Suggestion, ...]:
    if checkpoint.is_pocket:
        return suggest_scenes(words, seed, count)
    return suggest_words(words, checkpoint, seed, count)
