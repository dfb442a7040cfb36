"""Where things are kept and how the studio runs: defaults, then `FLASH_STUDIO_*` environment variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.domain.errors import InvalidRequest

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PREFIX = "FLASH_STUDIO_"


class Settings(BaseModel):
    """Every setting, frozen. `FLASH_STUDIO_DATA_DIR` sets `data_dir`, and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(default=PROJECT_ROOT / "data", description="Folder for pictures, database and downloads.")
    database_url: str = Field(default="", description="SQLAlchemy URL of the ledger; empty: SQLite in the data folder.")
    host: str = Field(default="127.0.0.1", description="Address that the page listens on.")
    port: int = Field(default=7860, ge=0, le=65535, description="Port of the page; 0 takes any free one.")
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
    max_queued: int = Field(default=100, ge=1, description="Jobs that may wait at once.")
    offline: bool = Field(default=False, description="Never ask the hub for anything.")

    @property
    def images_dir(self) -> Path:
        return self.data_dir / "images"

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
    def evaluations_dir(self) -> Path:
        """A folder for each evaluation: what was asked, and what came of each picture."""
        return self.data_dir / "evaluations"

    @property
    def probes_dir(self) -> Path:
        """A folder for each probe of balance."""
        return self.data_dir / "probes"

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
            return cls.model_validate({**given, **flags})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = str(problem["loc"][0])
            name = f"--{field.replace('_', '-')}" if field in flags else PREFIX + field.upper()
            known = ", ".join(PREFIX + field.upper() for field in cls.model_fields)
            raise InvalidRequest(f"{name} does not work: {problem['msg'].lower()}.", f"Settings: {known}.") from None
