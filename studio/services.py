"""All services, put together once; the page, the command line and the Python library share this."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import Engine
from engines.zero_gpu import ZeroGpuEngine
from lora_registry.store import AdapterStore
from studio.accelerators import AcceleratorService
from studio.adapters import AdapterService
from studio.additions import Additions
from studio.c2pa_signing import C2paSigner
from studio.checkpoint_merging import CheckpointMerging
from studio.checkpoints import OwnCheckpoints
from studio.controls import ControlService
from studio.distillation import DistillationService
from studio.domain.catalogue import Catalogue
from studio.domain.errors import NotFound
from studio.domain.hosting import is_zero_gpu
from studio.domain.images import ImageRecord
from studio.domain.request import parse_request
from studio.engine_process import EngineProcess
from studio.enhancer import EnhancerService
from studio.evaluation import EvaluationService
from studio.files import make_folder
from studio.flash import FlashService
from studio.gallery import Gallery
from studio.generation import EarlierPictures, EngineHolder, GenerationService, job_images
from studio.groq_chat import GroqChat
from studio.jobs import JobRunner
from studio.judge_exams import JudgeExams
from studio.ledger import Ledger
from studio.limits import NO_LIMITS, Limits
from studio.offered_judges import OfferedJudges
from studio.own_accelerators import OwnAccelerators
from studio.planning import PlanningService
from studio.probe import ProbeService
from studio.ray_cluster import check_ray
from studio.reproduction import ReproductionService
from studio.run_grid import RunGridService
from studio.runs import Run
from studio.scoring import ScoringService
from studio.settings import PROJECT_ROOT, Settings
from studio.sources import Sources
from studio.training import TrainingService
from studio.voting import VotingService
from studio.wildcards import Wildcards

if TYPE_CHECKING:
    from engines.pool import PipelinePool
    from engines.stable_diffusion import StableDiffusionEngine

CATALOGUE_PATH = PROJECT_ROOT / "studio" / "data" / "catalogue.toml"


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a front end needs. `close` it when done, or use it in a `with` statement."""

    settings: Settings
    catalogue: Catalogue
    own_checkpoints: OwnCheckpoints
    checkpoint_merging: CheckpointMerging
    adapters: AdapterService
    accelerators: AcceleratorService
    own_accelerators: OwnAccelerators
    ledger: Ledger
    runner: JobRunner
    gallery: Gallery
    generation: GenerationService
    planning: PlanningService
    reproduction: ReproductionService
    scoring: ScoringService
    flash: FlashService
    trainer: JobRunner
    distillation: DistillationService
    training: TrainingService
    run_grids: RunGridService
    evaluations: EvaluationService
    voting: VotingService
    judge_exams: JudgeExams
    probes: ProbeService
    enhancer: EnhancerService
    end_engine: Callable[[], None]
    """Lets go of what computes, where that is elsewhere; does nothing to an engine that is shared."""

    @property
    def sources(self) -> Sources:
        """The pictures that others begin from."""
        return self.generation.sources

    def close(self) -> None:
        """Stop the workers; a job in the middle goes on at the next start."""
        self.trainer.stop(timeout=90)
        self.runner.stop(timeout=30)
        self.end_engine()
        self.ledger.close()

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run_of(self, run_id: str) -> Run[Any]:
        """The training run of that id, whatever it trains; raises NotFound."""
        try:
            return self.training.run_of(run_id)
        except NotFound:
            return self.distillation.run_of(run_id)

    def publish(self, adapter_id: str, repository: str, *, is_private: bool) -> str:
        """Put an adapter on the Hugging Face hub; gives its address. Raises as `studio.publication.push` does."""
        from studio.publication import push  # imported here: torch takes seconds that the page need not wait for

        return push(self.adapters.store, self.catalogue, self.settings, adapter_id, repository, is_private=is_private)

    def generate(self, prompt: str, *, again: bool = False, **settings: object) -> list[ImageRecord]:
        """Make pictures and wait for them: the library in one call.

        Args:
            prompt: What to draw.
            again: Draw even what was made before. Without, the record of that picture is the answer.
            settings: Any other field of `GenerationRequest`, by name; `init_image` and `mask` may be paths or pictures.

        Raises:
            StudioError: whatever went wrong, in one sentence.
        """
        values = self.sources.taken({"prompt": prompt, **settings}, "local")
        job = self.generation.submit(parse_request(values), again=again)
        try:
            for _ in job.events(previews=False):
                job.check_goes_on()
            job.result()
        except BaseException:
            job.cancel()  # after Ctrl+C: nobody waits for it any more
            raise
        return job_images(job, self.gallery)


def open_services(
    settings: Settings | None = None,
    queue: str = "studio",
    engine: EngineHolder | None = None,
    *,
    is_page: bool = False,
) -> Services:
    """Build every service and start the workers of `queue`; no model is loaded yet. `engine` may be shared by several.
    Behind a page, which is to stay whatever happens, it gets a process of its own unless the settings say otherwise.

    Raises:
        NotFound: the settings want actors of Ray, which is not installed.
        StorageFailed: the data folder or the ledger cannot be used.
    """
    settings = settings or Settings.from_environment()
    catalogue = Catalogue.load(CATALOGUE_PATH)
    holder = engine or _holder(settings, catalogue, is_page)
    own_checkpoints, own_accelerators = _own(settings, catalogue)
    ledger = Ledger(settings.ledger_url)
    gallery = _gallery(settings, ledger, catalogue)
    runner = _runner(settings, ledger, queue)
    adapters = AdapterService(AdapterStore(settings.adapters_dir), settings.models_dir, settings.runs_dir)
    accelerators = AcceleratorService(catalogue, settings.accelerators_dir, offline=settings.offline)
    additions = _additions(settings, catalogue, adapters, accelerators, ledger)
    generation = _generation(settings, catalogue, ledger, runner, gallery, holder, additions)
    scoring = ScoringService(OfferedJudges(settings.judges_dir, offline=settings.offline), ledger, gallery, holder)
    trainer = JobRunner(ledger, queue=f"{queue}-training", max_queued=settings.max_queued)
    distillation = DistillationService(catalogue, trainer, ledger, settings, own_accelerators, drawer=runner)
    training = TrainingService(catalogue, trainer, ledger, settings, adapters.store, holder, drawer=runner)
    evaluations = EvaluationService(catalogue, runner, gallery, generation, scoring, settings)
    services = Services(
        settings=settings,
        catalogue=catalogue,
        own_checkpoints=own_checkpoints,
        checkpoint_merging=CheckpointMerging(catalogue, own_checkpoints, adapters, settings),
        adapters=adapters,
        accelerators=accelerators,
        own_accelerators=own_accelerators,
        ledger=ledger,
        runner=runner,
        gallery=gallery,
        generation=generation,
        planning=PlanningService(catalogue, settings, holder),
        reproduction=ReproductionService(runner, gallery, generation),
        scoring=scoring,
        flash=FlashService(catalogue, runner, gallery, generation, scoring),
        trainer=trainer,
        distillation=distillation,
        training=training,
        run_grids=RunGridService(catalogue, runner, training, gallery, generation, scoring),
        evaluations=evaluations,
        voting=VotingService(evaluations, gallery),
        judge_exams=JudgeExams(settings.judges_dir, scoring, holder),
        probes=ProbeService(catalogue, runner, gallery, generation, scoring, settings.probes_dir),
        enhancer=EnhancerService(catalogue, GroqChat(settings), settings),
        end_engine=_unended if engine else holder.close,
    )
    runner.start()
    trainer.start()
    return services


def _unended() -> None:
    """Another one's engine goes on."""


def _runner(settings: Settings, ledger: Ledger, queue: str) -> JobRunner:
    return JobRunner(
        ledger,
        queue,
        settings.max_queued,
        _limits(settings),
        workers=max(1, settings.ray_workers),
        keeps_contexts=is_zero_gpu(),  # it tells by the request of Gradio whose quota counts, and finds that there
    )


def _limits(settings: Settings) -> Limits:
    """What a visitor may ask for; the owner of a machine as much as it holds."""
    if settings.is_local:
        return NO_LIMITS
    return Limits(
        waiting=settings.max_queued_each,
        jobs_per_minute=settings.max_jobs_per_minute_each,
        pictures_per_day=settings.max_pictures_per_day_each,
    )


def _gallery(settings: Settings, ledger: Ledger, catalogue: Catalogue) -> Gallery:
    gallery = Gallery(settings.images_dir, ledger, catalogue, _signer(settings))
    gallery.reconcile()
    return gallery


def _signer(settings: Settings) -> C2paSigner | None:
    """Who signs pictures; None unless a certificate is set."""
    if not settings.c2pa_certificate:
        return None
    return C2paSigner(Path(settings.c2pa_certificate), Path(settings.c2pa_key))


def _own(settings: Settings, catalogue: Catalogue) -> tuple[OwnCheckpoints, OwnAccelerators]:
    """What a person has put into the data folder, in the catalogue from here on."""
    make_folder(settings.data_dir)  # first of all, so that what is wrong with it is said in a sentence
    checkpoints = OwnCheckpoints(settings.models_dir, catalogue)
    accelerators = OwnAccelerators(AdapterStore(settings.accelerators_dir), catalogue)
    checkpoints.refresh()
    accelerators.refresh()
    return checkpoints, accelerators


def _additions(
    settings: Settings,
    catalogue: Catalogue,
    adapters: AdapterService,
    accelerators: AcceleratorService,
    ledger: Ledger,
) -> Additions:
    sources = Sources(settings.sources_dir)
    sources.sweep(ledger.sources_named)
    controls = ControlService(catalogue, sources, settings.controls_dir, offline=settings.offline)
    return Additions(adapters=adapters, accelerators=accelerators, sources=sources, controls=controls)


def _generation(
    settings: Settings,
    catalogue: Catalogue,
    ledger: Ledger,
    runner: JobRunner,
    gallery: Gallery,
    engine: EngineHolder,
    additions: Additions,
) -> GenerationService:
    earlier = EarlierPictures(gallery, ledger, additions, engine, settings)
    wildcards = Wildcards(settings.wildcards_dir)
    return GenerationService(catalogue, runner, gallery, engine, additions, earlier, wildcards, settings)


def _holder(settings: Settings, catalogue: Catalogue, is_page: bool) -> EngineHolder:
    """What loads the engine that the settings want. Raises NotFound for what is not installed."""
    if settings.ray_workers:
        check_ray()
    return EngineHolder(partial(_engine, settings, catalogue, is_page))


def _engine(settings: Settings, catalogue: Catalogue, is_page: bool) -> Engine:
    if is_zero_gpu():  # the fork that gets the GPU has what this process has
        return ZeroGpuEngine(load_engine(settings, catalogue), catalogue)
    if settings.ray_workers:
        from studio.ray_engines import RayEngines  # imported here: its actors load what this module does

        return RayEngines(settings)
    if settings.engine_process == "own" or (settings.engine_process == "auto" and is_page):
        return EngineProcess(settings)
    return load_engine(settings, catalogue)


def load_engine(settings: Settings, catalogue: Catalogue) -> "StableDiffusionEngine":
    """Import torch and diffusers and build the engine."""
    pool = load_pool(settings)
    from engines.stable_diffusion import StableDiffusionEngine

    is_exact = settings.batching == "exact" or (settings.batching == "auto" and pool.state().device != "cuda")
    return StableDiffusionEngine(pool, catalogue, settings.safety_dir, is_exact=is_exact)


def load_pool(settings: Settings) -> "PipelinePool":
    """Import torch and diffusers, and get ready to hold checkpoints."""
    # Imported here, not above: these take seconds, and the page is up before them.
    from engines.quiet import quiet_libraries

    quiet_libraries()
    from engines.devices import choose_device
    from engines.memory import reuse_freed_blocks
    from engines.plans import Wishes
    from engines.pool import PipelinePool

    reuse_freed_blocks()
    return PipelinePool(
        PROJECT_ROOT,
        settings.models_dir,
        choose_device(settings.device, settings.dtype),
        offline=settings.offline,
        wishes=Wishes(
            memory_bytes=int(settings.memory_gb * 2**30) or None,
            placement=None if settings.placement == "auto" else settings.placement,
        ),
        home="cpu" if is_zero_gpu() else None,
    )
