"""Text to image: a request becomes a job, a job becomes pictures in the gallery."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.base import CHECKED, Engine, EngineState, OnFetch, Picture, Step, unheard
from engines.identity import agree, conditions, described_at, find_place, foreseen, weights_sha256, weights_stamp
from studio import __version__
from studio.additions import Additions
from studio.blocked_terms import BlockedTerms
from studio.coalescing import Coalescing, Undone
from studio.domain.catalogue import Catalogue, Checkpoint
from studio.domain.choices import refuse_open
from studio.domain.errors import JobCancelled
from studio.domain.events import Drawing, ImageReady
from studio.domain.hosting import is_zero_gpu
from studio.domain.images import ImageRecord
from studio.domain.request import GenerationRequest, ResolvedRequest
from studio.domain.tags import without_tags
from studio.gallery import Gallery, NewImage
from studio.holding import Holding
from studio.job import Job
from studio.jobs import JobRunner
from studio.ledger import Ledger
from studio.remote_engine import RemoteEngine
from studio.settings import PROJECT_ROOT, Settings
from studio.step_reporter import StepReporter
from studio.tables import Once
from studio.turns import Turns
from studio.watermark import VERSION, marked
from studio.wildcards import Wildcards

logger = logging.getLogger(__name__)

KIND = "generate"
_AGAIN = "again"
"""In a job's payload, beside the recipe: draw what was made before once more."""
LICENCES = "licences"
"""In a picture's environment: those of the weights that drew it, as they were stated then. They decide no pixel."""
WATERMARK = "watermark"
"""In a picture's environment: the version of the mark in its pixels."""
_UNSAID = {
    "studio": "0.1.0",
    "adapters": "",
    "accelerator": "",
    "control": "",
    "batch": "",
    WATERMARK: "",
    **dict.fromkeys(CHECKED, ""),
}
"""What holds for pictures whose environment does not say it."""


class EngineHolder:
    """Loads the engine when it is first needed, once: importing torch takes seconds that the page need not wait for."""

    def __init__(self, load: Callable[[], Engine]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def get(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._load()
            return self._engine

    def close(self) -> None:
        """End an engine whose work is done elsewhere; one in this process needs no end."""
        with self._lock:
            if isinstance(self._engine, RemoteEngine):
                self._engine.close()

    @property
    def is_ready(self) -> bool:
        """Whether the engine is there; asks it nothing."""
        return self._engine is not None

    def state(self) -> EngineState | None:
        """How the engine stands; None before it is there."""
        engine = self._engine
        return engine.state() if engine else None


class EarlierPictures:
    """Finds the picture that drawing a recipe now would make once more. Loads no weights for it."""

    def __init__(
        self, gallery: Gallery, ledger: Ledger, additions: Additions, engine: EngineHolder, settings: Settings
    ) -> None:
        self._gallery = gallery
        self._ledger = ledger
        self._additions = additions
        self._engine = engine
        self._settings = settings

    def find(
        self, recipe: ResolvedRequest, prompts: tuple[str, str], checkpoint: Checkpoint, visitor: str
    ) -> ImageRecord | None:
        """The newest such picture of `visitor` whose file is whole; None if this `single` recipe has to be drawn.

        Raises:
            NotFound: something that the recipe adds went away, or the checkpoint's folder in the catalogue.
        """
        alike = self._gallery.alike(recipe, prompts, visitor)
        if not alike:
            return None
        now = conditions(checkpoint, self._state(checkpoint)) | self.told(recipe)
        if self._settings.batching != "fast":
            now |= {"batch": ""}
        if self._settings.safety_dir is not None:  # else one that has passed a check may be shown as well
            now |= CHECKED
        alike = [record for record in alike if agree(_UNSAID | record.environment, now)]
        place = find_place(checkpoint, PROJECT_ROOT, self._settings.models_dir)
        alike = self._of_weights(place, alike) if alike and place else []
        return next(filter(self._gallery.is_whole, alike), None)

    def told(self, recipe: ResolvedRequest) -> dict[str, str]:
        """What the environment of a picture that is made now tells beside what the engine does; "" for what there is
        none of. Raises as `find`."""
        mark = str(VERSION) if self._settings.has_watermark else ""
        return {"studio": __version__, WATERMARK: mark, **self._additions.told(recipe)}

    def _state(self, checkpoint: Checkpoint) -> EngineState:
        known = self._engine.state() or foreseen(checkpoint, self._settings.device, self._settings.dtype)
        return known or self._engine.get().state()

    def _of_weights(self, place: Path, records: list[ImageRecord]) -> list[ImageRecord]:
        """Those that were made by the weights that lie at `place`, and with the settings beside them."""
        try:
            now, since = self._weights_sha256(place), described_at(place)
        except (OSError, ValueError) as error:  # the engine meets it too, and says it better
            logger.info("the weights in %s cannot be told: %s", place.name, error)
            return []
        return [
            record
            for record in records
            if record.environment.get("checkpoint_sha256") == now and record.created_at > since
        ]

    def _weights_sha256(self, place: Path) -> str:
        stamp = weights_stamp(place)
        known = self._ledger.weights_sha256(stamp)
        if known is not None:
            return known
        sha256 = weights_sha256(place)
        if weights_stamp(place) == stamp:  # else somebody wrote to them meanwhile
            self._ledger.keep_weights_sha256(stamp, sha256)
        return sha256


class GenerationService:
    """Submits generation jobs and runs them."""

    def __init__(
        self,
        catalogue: Catalogue,
        runner: JobRunner,
        gallery: Gallery,
        engine: EngineHolder,
        additions: Additions,
        earlier: EarlierPictures,
        wildcards: Wildcards,
        settings: Settings,
    ) -> None:
        self.sources = additions.sources
        self._catalogue = catalogue
        self._additions = additions
        self._earlier = earlier
        self._wildcards = wildcards
        self._settings = settings
        self._blocked = BlockedTerms(settings.blocked)
        self._runner = runner
        self._gallery = gallery
        self._engine = engine
        # On ZeroGPU what is drawn is counted against the quota of the visitor who asked, and so is their own only.
        self._together = Coalescing(runner, additions, self, takes_along=not is_zero_gpu())
        self._turns = Turns()
        runner.register(KIND, self.run)

    def submit(
        self, request: GenerationRequest, visitor: str = "local", *, again: bool = False, once_key: str = ""
    ) -> Job:
        """Decide what is open, the seed included, and put the job in line. With `again`, pictures that `visitor` has
        already are drawn once more. What it starts from is fitted to the size that is drawn. A request that comes again
        with the same `once_key` is the job that it was before.

        Raises:
            InvalidRequest: values, or adapters that the prompt names, that do not fit each other or the checkpoint.
            NotFound: what it starts from is not kept here.
            QueueFull, RateLimited: too much is waiting.
        """
        resolved = self._catalogue.resolve(self.prepared(request, visitor))
        resolved = self._additions.controls.prepared(resolved, visitor)
        self.check(resolved, may_leave_open=True)
        return self._runner.submit(
            KIND, {**resolved.model_dump(mode="json"), _AGAIN: again}, visitor, Once.of(once_key, request)
        )

    def prepared(self, request: GenerationRequest, visitor: str) -> GenerationRequest:
        """See `Sources.prepared`; the same request where it starts from no picture."""
        if not request.init_image:
            return request
        return self.sources.prepared(request, self._catalogue.checkpoint_of(request), visitor)

    def check(self, recipe: ResolvedRequest, *, may_leave_open: bool = False) -> None:
        """Refuse a recipe whose prompt names adapters that are not there or do not fit the checkpoint, or leaves open
        what it may not, or draws from a list that is not there, or has a word that the host does not have drawn.

        Raises:
            InvalidRequest: naming the adapter and the reason, or the list, but not the word.
        """
        self.check_words(recipe.prompt, recipe.typed_prompt, recipe.original_prompt)
        if not may_leave_open:
            refuse_open(recipe.prompt)
        self._wildcards.check(recipe.prompt)
        self._additions.adapters.check(recipe.prompt, self._catalogue.checkpoint(recipe.checkpoint))

    def check_words(self, *prompts: str) -> None:
        """Raises InvalidRequest where one of `prompts` has a word that the host does not have drawn."""
        self._blocked.check(*prompts)

    def run(self, job: Job) -> dict[str, Any]:
        """Make every picture of `job` that is not recorded yet, and was not made before; the job handler."""
        undone = self.undone(job)
        if undone.left:
            job.emit(Drawing)
            self._together.draw(undone, self._engine.get())
        undone.reporter.together = 1
        for index in tuple(undone.left):
            self._make_one(undone, index)
            undone.reporter.image_done()
        return self.summary(undone)

    def _make_one(self, undone: Undone, index: int) -> None:
        """Make a picture of a job and keep it; where another job of its owner draws the very same one at this moment,
        it is waited for."""
        job, recipe = undone.job, self.single(undone.request, index)
        with self._turns.of(f"{job.visitor} {recipe.model_dump_json()}", job.cancelled) as has_waited:
            if has_waited and not job.payload.get(_AGAIN, False) and self.reuse(job, recipe, index):
                return
            picture = self.make(recipe, job.cancelled, undone.reporter, undone.reporter.fetching)
            if job.cancelled():
                raise JobCancelled
            self.keep(job, recipe, index, picture)

    def undone(self, job: Job) -> Undone:
        """What of `job` is still to be made: what is not recorded yet, and was not made before."""
        request = self.recipe_of(job.payload)
        done = {event.image_index for event in job.events(timeout=0, previews=False) if isinstance(event, ImageReady)}
        left = [index for index in range(request.num_images) if index not in done]
        if not job.payload.get(_AGAIN, False):
            left = [index for index in left if not self.reuse(job, self.single(request, index), index)]
        reporter = StepReporter(job, request.num_images, request.num_images - len(left))
        return Undone(job=job, request=request, left=left, reporter=reporter)

    def recipe_of(self, payload: Mapping[str, Any]) -> ResolvedRequest:
        """What a job of this service with that payload is to make."""
        return ResolvedRequest.model_validate({name: value for name, value in payload.items() if name != _AGAIN})

    def summary(self, undone: Undone) -> dict[str, Any]:
        """What is told of a job at its end."""
        return {"num_images": undone.request.num_images, "seconds": round(undone.reporter.elapsed_s, 2)}

    def single(self, request: ResolvedRequest, index: int) -> ResolvedRequest:
        """The recipe of picture `index`, with its seed and what that chose of the prompt.

        Raises:
            InvalidRequest: a list that the prompt draws from is not there any more.
        """
        return self.decided(request.single(index))

    def decided(self, recipe: ResolvedRequest) -> ResolvedRequest:
        """The recipe of one picture with what its seed chose where the prompt leaves something open.

        Raises:
            InvalidRequest: a list that the prompt draws from is not there any more.
        """
        return self._wildcards.decided(recipe)

    def make(
        self,
        recipe: ResolvedRequest,
        cancelled: Callable[[], bool],
        on_step: Callable[[Step], None],
        on_fetch: OnFetch = unheard,
    ) -> Picture:
        """Make the picture of a `single` recipe without keeping it. Its words are looked at once more, since chance may
        have put them together.

        Where the settings want it, it has the invisible mark from here on, whatever it is made for: what a person sees,
        what is compared and what is judged are the same pixels, for all systems alike, and its environment says so. At
        40 dB or more the mark is below what judges and the checker tell apart; likeness between two pictures counts it
        as it counts any other difference. A part that a mask keeps is then kept but for the mark.

        Raises:
            InvalidRequest: it has a word that the host does not have drawn.
        """
        self.check_words(recipe.prompt)
        added = self._additions.of(recipe, cancelled, on_fetch)
        picture = self._engine.get().generate(
            recipe,
            self.prompts(recipe),
            added.adapters,
            timesteps=added.timesteps,
            start=added.start,
            cancelled=cancelled,
            on_step=on_step,
            on_fetch=on_fetch,
        )
        return self.finished(picture, recipe)

    def finished(self, picture: Picture, recipe: ResolvedRequest) -> Picture:
        """`picture` as it is kept: with the mark, where it has one, and with what its environment tells of the studio
        and of what the recipe adds."""
        told = {**self._earlier.told(recipe), LICENCES: self.licences(recipe)}
        image = marked(picture.image) if self._settings.has_watermark else picture.image
        environment = picture.environment | {name: text for name, text in told.items() if text}
        return replace(picture, image=image, environment=environment)

    def licences(self, recipe: ResolvedRequest) -> str:
        """Under which licences the checkpoint, accelerator and adapters of a recipe are, in one line."""
        stated = {recipe.checkpoint: self._catalogue.checkpoint(recipe.checkpoint).licence}
        accelerator = self._catalogue.accelerator(recipe.accelerator)
        if accelerator is not None:
            stated[accelerator.id] = accelerator.licence
        stated |= self._additions.adapters.licences(recipe.prompt)
        return "; ".join(f"{name}: {licence or 'no licence stated'}" for name, licence in stated.items())

    def keep(
        self,
        job: Job,
        recipe: ResolvedRequest,
        index: int,
        picture: Picture,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> ImageRecord:
        """Put a picture into the gallery as the one of `index` of `job`, and tell of it. Where it cannot be written
        for now, the job is held until it can; `meanwhile` is then called again and again.

        Raises:
            StorageFailed: it cannot be written, and waiting does not mend it.
            JobCancelled: the job was stopped while it was held.
        """
        prompt, negative = self.prompts(recipe)
        new = NewImage(
            job_id=job.id,
            visitor=job.visitor,
            image_index=index,
            recipe=recipe,
            prompt_as_run=prompt,
            negative_as_run=negative,
            environment=picture.environment,
            seconds=picture.seconds,
            peak_memory_mb=round(picture.peak_memory_mb, 1),
        )
        record = self._gallery.save(picture.image, new, Holding(job, meanwhile))
        job.emit(ImageReady, image_id=record.id, image_index=index)
        return record

    def reuse(self, job: Job, recipe: ResolvedRequest, index: int) -> ImageRecord | None:
        """Give the job the picture that its owner has of `recipe` already; None if there is none."""
        checkpoint = self._catalogue.checkpoint(recipe.checkpoint)
        record = self._earlier.find(recipe, self.prompts(recipe), checkpoint, job.visitor)
        if record is None or not self._gallery.reuse(job.id, index, record):
            return None
        job.emit(ImageReady, image_id=record.id, image_index=index)
        return record

    def prompts(self, recipe: ResolvedRequest) -> tuple[str, str]:
        """The prompt and negative prompt as the model reads them: with the style's words, without adapters' tags."""
        prompt, negative = self._catalogue.styled(recipe)
        return without_tags(prompt), negative

    def preload(self) -> None:
        """Load the default checkpoint before anybody asks for it."""
        self._engine.get().preload(self._catalogue.checkpoint(self._catalogue.default_checkpoint))

    def engine_state(self) -> EngineState | None:
        """How the engine stands; None before it is there."""
        return self._engine.state()


def job_images(job: Job, gallery: Gallery) -> list[ImageRecord]:
    """The pictures of a job so far, in order. One with the id of another job was made before."""
    ready = [event for event in job.events(timeout=0, previews=False) if isinstance(event, ImageReady)]
    return [gallery.image(event.image_id) for event in sorted(ready, key=lambda event: event.image_index)]
