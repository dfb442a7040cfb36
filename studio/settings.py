"""Where things are kept and how the studio runs: defaults, then `FLASH_STUDIO_*` environment variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.domain.errors import InvalidRequest

Mode = Literal["local", "lan", "shared", "space"]
"""On this machine for its owner, for others in the same network, for whoever has a link, or on a Hugging Face Space."""

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PREFIX = "FLASH_STUDIO_"
MIN_PASSWORD = 12
CONSENT = "Pictures are made by a model, and marked as such. Ask people before you have them drawn."
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Settings(BaseModel):
    """Every setting, frozen. `FLASH_STUDIO_DATA_DIR` sets `data_dir`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(default=PROJECT_ROOT / "data", description="Folder for pictures, database and downloads.")
    database_url: str = Field(default="", description="SQLAlchemy URL of the ledger; empty: SQLite in the data folder.")
    host: str = Field(default="127.0.0.1", description="Address that the page listens on.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port of the page; 0 takes any free one.")
    mode: Literal["auto", "local", "lan", "shared", "space"] = Field(
        default="auto", description="Who can reach the page, see Modes; auto tells it by host, share and SPACE_ID."
    )
    password: str = Field(
        default="", repr=False, description="Asked of everybody; made and printed where one is needed and none given."
    )
    allowed_hosts: str = Field(
        default="", description="Host names that are answered to, besides this machine's own; commas between."
    )
    share: bool = Field(default=False, description="Also open a public link through Gradio's relay.")
    device: str = Field(default="auto", description="auto, cpu, cuda or mps.")
    dtype: str = Field(default="auto", description="auto, float32, bfloat16 or float16.")
    memory_gb: float = Field(
        default=0, ge=0, le=4096, description="Memory to count on for a picture or a training, in GB; 0: what is free."
    )
    training_processes: int = Field(
        default=1, ge=1, le=64, description="Processes that share a LoRA training: as many as there are GPUs."
    )
    placement: Literal["auto", "resident", "mapped", "model_offload", "sequential_offload"] = Field(
        default="auto", description="Where the weights of large models are while they do nothing."
    )
    engine_process: Literal["auto", "own", "shared"] = Field(
        default="auto",
        description="own: the engine works in a process that can fail alone; auto: behind the page, not elsewhere.",
    )
    ray_workers: int = Field(
        default=0, ge=0, le=256, description="Engines on actors of Ray, so many, that draw at the same time; 0: none."
    )
    ray_address: str = Field(
        default="", description="Cluster of Ray that they are on, host:port; empty: one of their own on this machine."
    )
    batching: Literal["auto", "exact", "fast"] = Field(
        default="auto",
        description="fast: pictures that differ in words and seeds alone are made at once; exact: each by itself.",
    )
    max_queued: int = Field(default=100, ge=1, description="Jobs that may wait at once.")
    max_queued_each: int = Field(
        default=8, ge=0, description="Jobs of one visitor that may wait at once, on a page for others; 0: no limit."
    )
    max_jobs_per_minute_each: int = Field(
        default=20,
        ge=0,
        description="Jobs a minute for one visitor, on a page for others; 0: no limit.",
    )
    max_pictures_per_day_each: int = Field(
        default=500,
        ge=0,
        description="Pictures a day for one visitor, on a page for others; 0: no limit.",
    )
    watermark: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="An invisible mark in the pixels that are drawn; auto: where the public is served.",
    )
    c2pa_certificate: str = Field(
        default="",
        description="File with the certificates (PEM) that pictures are signed with; empty: unsigned.",
    )
    c2pa_key: str = Field(default="", repr=False, description="File with the private key (PEM) that goes with it.")
    safety: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether a safety checker looks at pictures; auto: on a page for others, where there is one.",
    )
    blocked_terms: str = Field(
        default="",
        repr=False,
        description="Words that are not drawn, whoever asks; commas between. A prompt with one is refused.",
    )
    consent_notice: str = Field(
        default=CONSENT, description="What a page for others says above Generate; empty: nothing."
    )
    mcp: bool = Field(default=False, description="Also offer language models what programs may call, over MCP.")
    offline: bool = Field(default=False, description="Never ask the hub, nor a language model, for anything.")
    groq_text_models: str = Field(
        default="openai/gpt-oss-20b,openai/gpt-oss-120b",
        description="Models at Groq that improve prompts, the first that is there; commas between.",
    )
    groq_vision_models: str = Field(
        default="qwen/qwen3.6-27b,qwen/qwen3.8-27b",
        description="Models at Groq that describe pictures, the first that is there; commas between.",
    )
    groq_requests_per_minute: int = Field(default=30, ge=0, description="Requests that Groq allows; 0: no limit.")
    groq_requests_per_day: int = Field(default=1000, ge=0, description="Requests that Groq allows; 0: no limit.")
    groq_tokens_per_minute: int = Field(default=8000, ge=0, description="Tokens that Groq allows; 0: no limit.")
    groq_tokens_per_day: int = Field(default=200_000, ge=0, description="Tokens that Groq allows; 0: no limit.")
    groq_prompt_price: float = Field(
        default=0.6, ge=0, description="Dollars for a million tokens that a vision model is sent."
    )
    groq_answer_price: float = Field(
        default=3.0, ge=0, description="Dollars for a million tokens that a vision model answers."
    )

    @property
    def operating_mode(self) -> Mode:
        """Who can reach the page: `mode`, or told by where it listens."""
        if self.mode != "auto":
            return self.mode
        if self.space_id:
            return "space"
        return "shared" if self.share else "local" if self.host in LOOPBACK else "lan"

    @property
    def space_id(self) -> str:
        """The Hugging Face Space that this is, as "owner/name"; "" anywhere else."""
        return os.environ.get("SPACE_ID", "")

    @property
    def is_local(self) -> bool:
        """Whether everybody who reaches the page is the person whose machine it is, who then owns every picture."""
        return self.operating_mode == "local"

    @property
    def needs_password(self) -> bool:
        """Whether the page must not be put up without a password."""
        return self.operating_mode in ("lan", "shared")

    @property
    def may_delete(self) -> bool:
        """Whether visitors may delete pictures of theirs."""
        return self.operating_mode in ("local", "lan")

    @property
    def has_watermark(self) -> bool:
        """Whether pictures get the invisible mark of `studio.watermark`."""
        return self.watermark == "on" or (self.watermark == "auto" and self.operating_mode in ("shared", "space"))

    @property
    def hosts(self) -> tuple[str, ...]:
        return _listed(self.allowed_hosts.lower())

    @property
    def safety_dir(self) -> Path | None:
        """The folder of the safety checker that pictures have to pass, put there by hand; None where none is asked."""
        folder = self.data_dir / "safety"
        is_on = self.safety == "on" or (self.safety == "auto" and not self.is_local and folder.is_dir())
        return folder if is_on else None

    @property
    def blocked(self) -> tuple[str, ...]:
        return _listed(self.blocked_terms)

    @property
    def notice(self) -> str:
        """What the page says to others above Generate; "" on a page of one's own."""
        return "" if self.is_local else self.consent_notice.strip()

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

    @property
    def sources_dir(self) -> Path:
        """Pictures that others begin from, by the hash of their pixels."""
        return self.data_dir / "sources"

    @property
    def models_dir(self) -> Path:
        """Checkpoints, downloaded or dropped here by hand: diffusers folders and single .safetensors files."""
        return self.data_dir / "models"

    @property
    def adapters_dir(self) -> Path:
        return self.data_dir / "adapters"

    @property
    def accelerators_dir(self) -> Path:
        """Accelerators, downloaded or dropped here by hand."""
        return self.data_dir / "accelerators"

    @property
    def controls_dir(self) -> Path:
        """ControlNets, fetched or put here by hand: folders as diffusers keeps them, named as in the catalogue."""
        return self.data_dir / "controls"

    @property
    def judges_dir(self) -> Path:
        """Judges of large models' pictures, put here by hand: folders as open_clip keeps them."""
        return self.data_dir / "judges"

    @property
    def datasets_dir(self) -> Path:
        """Pictures and captions of data sets of the hub, a folder for each."""
        return self.data_dir / "datasets"

    @property
    def cache_dir(self) -> Path:
        """Where what can be made again is kept: latents and read captions of training pictures."""
        return self.data_dir / "cache"

    @property
    def runs_dir(self) -> Path:
        """A folder for each training run."""
        return self.data_dir / "runs"

    @property
    def wildcards_dir(self) -> Path:
        """Lists that prompts may draw from, put here by hand: text files of one choice a line."""
        return self.data_dir / "wildcards"

    @property
    def evaluations_dir(self) -> Path:
        """A folder for each evaluation: what was asked, and what came of each picture."""
        return self.data_dir / "evaluations"

    @property
    def probes_dir(self) -> Path:
        """A folder for each probe of balance."""
        return self.data_dir / "probes"

    @property
    def text_models(self) -> tuple[str, ...]:
        return _listed(self.groq_text_models)

    @property
    def vision_models(self) -> tuple[str, ...]:
        return _listed(self.groq_vision_models)

    @property
    def groq_limits_path(self) -> Path:
        """Where all processes count what they ask of Groq."""
        return self.data_dir / "groq_limits.db"

    @property
    def ledger_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'studio.db'}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **flags: object) -> "Settings":
        """Read the settings; `flags` of a command line, by field, go first.

        Raises:
            InvalidRequest: a variable that is not a setting, or a value that does not fit it.
        """
        given = {k.removeprefix(PREFIX).lower(): v for k, v in environment.items() if k.startswith(PREFIX)}
        try:
            return cls.model_validate({**given, **flags}).checked()
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = str(problem["loc"][0])
            name = f"--{field.replace('_', '-')}" if field in flags else PREFIX + field.upper()
            known = ", ".join(PREFIX + field.upper() for field in cls.model_fields)
            raise InvalidRequest(f"{name} does not work: {problem['msg'].lower()}.", f"Settings: {known}.") from None

    def checked(self) -> "Settings":
        """These settings.

        Raises:
            InvalidRequest: they would hand the machine to whoever finds it, or lack one of two that belong together.
        """
        is_open = self.share or self.host not in LOOPBACK
        if self.mode == "local" and is_open and len(self.password) < MIN_PASSWORD:
            raise InvalidRequest(
                "In local mode everybody who reaches the page may do everything, and others reach this one.",
                f"Set FLASH_STUDIO_PASSWORD to {MIN_PASSWORD} characters or more, or choose another mode.",
                "mode",
            )
        if bool(self.c2pa_certificate) != bool(self.c2pa_key):
            missing = "c2pa_key" if self.c2pa_certificate else "c2pa_certificate"
            raise InvalidRequest(
                "To sign pictures both a certificate and its key are needed.",
                f"Set {PREFIX}{missing.upper()}, too, or neither.",
                missing,
            )
        return self


def _listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in text.split(","))))
