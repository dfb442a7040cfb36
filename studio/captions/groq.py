"""Captions from a model at Groq that looks at pictures."""

import random
import threading
from collections.abc import Sequence
from pathlib import Path

from studio.captions.checks import flags_of
from studio.captions.limits import Limiter
from studio.captions.payload import SIDE, data_url
from studio.captions.templates import Template
from studio.domain.captions import Answer, CaptioningStopped, Flag, Later, Unfit, Unusable
from studio.domain.chat import Answer as Said
from studio.domain.chat import ChatFailed
from studio.domain.datasets import MAX_CAPTION, caption_of
from studio.groq_chat import GroqChat

PICTURE_TOKENS = 2048
"""What a picture counts, whatever its size."""
ANSWER_TOKENS = 200
"""What an answer counts as long as none is known."""
MAX_ANSWER_TOKENS = 1500
MAX_REJECTED = 8
"""So many pictures in a row may be refused, before it is not the pictures."""
_SMALL_SIDE = 768
_MAX_PAUSE_S = 60.0
_JUNK = (Flag.EMPTY, Flag.REFUSAL, Flag.REPETITION, Flag.MARKUP)
"""What is asked for again. The rest is for `verify` to tell."""
_KEPT = "What was captioned is kept: run it again to go on."


class GroqCaptioner:
    """A `Captioner`. May be used from several threads; all processes keep to the limits together."""

    def __init__(
        self, chat: GroqChat, models: Sequence[str], template: Template, limiter: Limiter, timeout_s: float = 60.0
    ) -> None:
        self._chat, self._models, self._instruction = chat, tuple(models), template
        self._limiter, self._timeout_s = limiter, timeout_s
        self._lock = threading.Lock()
        self._busy = self._rejected = self._answers = self._answer_tokens = 0

    @property
    def name(self) -> str:
        return f"groq:{self._models[0]}"

    @property
    def template(self) -> str:
        return self._instruction.id

    @property
    def tokens(self) -> tuple[int, int]:
        """What a picture takes, about: asked, and answered."""
        with self._lock:
            answer = self._answer_tokens / self._answers if self._answers else ANSWER_TOKENS
        return PICTURE_TOKENS + len(self._instruction.text) // 4 + 20, round(answer)

    def close(self) -> None:
        """Let go of connections."""
        self._chat.close()

    def check(self) -> None:
        """Raises CaptioningStopped where nothing can be asked at all."""
        if self._chat.missing == "offline":
            raise CaptioningStopped("The studio is offline by its settings.", "Unset FLASH_STUDIO_OFFLINE.")
        if self._chat.missing == "no_key":
            raise CaptioningStopped("There is no key for Groq.", "Put it into the variable GROQ_API_KEY.")

    def caption(self, path: Path) -> Answer:
        """See `Captioner.caption`."""
        for side in (SIDE, _SMALL_SIDE):
            url = data_url(path, side)
            try:
                return self._usable(self._asked(url))
            except ChatFailed as failure:
                if failure.status == 422 and side == SIDE:
                    continue  # that may pass, once
                if failure.reason != "too_large":
                    raise self._named(failure) from None
        raise Unfit("It is too large for the model, however small it is made.")

    def _asked(self, url: str) -> Said:
        turn = self._limiter.take(sum(self.tokens))
        if turn.wait_s > 0:
            raise Later(turn.why, turn.wait_s, is_for_all=True)
        content = [
            {"type": "text", "text": self._instruction.text},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        message = {"role": "user", "content": content}
        try:
            said = self._chat.ask(self._models, [message], max_tokens=MAX_ANSWER_TOKENS, timeout_s=self._timeout_s)
        except ChatFailed as failure:
            self._limiter.heed(failure.headers, sum(self.tokens))
            raise
        self._limiter.settle(turn, said.prompt_tokens + said.completion_tokens)
        with self._lock:
            self._busy = self._rejected = 0
            self._answers += 1
            self._answer_tokens += said.completion_tokens
        self._limiter.heed(said.headers, sum(self.tokens))
        return said

    def _usable(self, said: Said) -> Answer:
        caption = caption_of(said.text)
        answer = Answer(
            caption=caption or said.text[:MAX_CAPTION],
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            by=f"groq:{said.model}",
        )
        if said.is_cut:
            raise Unusable("The answer was cut off.", answer)
        if not caption:
            raise Unusable(f"The answer has more than {MAX_CAPTION:,} characters.", answer)
        junk = [flag for flag in flags_of(caption, self._instruction.bounds) if flag in _JUNK]
        if junk:
            raise Unusable(", ".join(junk), answer)
        return answer

    def _named(self, failure: ChatFailed) -> Exception:
        """What the work does about it."""
        if failure.reason == "busy":
            return self._wait(failure)
        if failure.reason in ("server", "unreachable", "garbage"):  # garbage: what stands before the model, most often
            return Later(failure.message, failure.retry_after)
        if failure.reason == "rejected":
            return self._reject(failure)
        return CaptioningStopped(failure.message, f"{failure.hint} {_KEPT}".strip())

    def _wait(self, failure: ChatFailed) -> Later:
        with self._lock:
            self._busy += 1
            usual = min(_MAX_PAUSE_S, 2.0 ** (self._busy - 1)) * random.uniform(0.8, 1.2)
            told = failure.retry_after
            # Who asks to come back at once, and then again, is not believed.
            seconds = usual if told is None else max(told, 0.0 if self._busy == 1 else usual / 4)
        self._limiter.pause(seconds)
        return Later(failure.message, seconds, is_for_all=True)

    def _reject(self, failure: ChatFailed) -> Exception:
        with self._lock:
            self._rejected += 1
            if self._rejected < MAX_REJECTED:
                return Unfit(failure.message)
        return CaptioningStopped(
            f"{self._rejected} pictures in a row were turned down; the last time: {failure.message}",
            f"Check the model and the instruction. {_KEPT} `dataset verify --redo-list` lists those.",
        )
