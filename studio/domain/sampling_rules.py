"""What an accelerator's file says of how to sample with it."""

from pydantic import BaseModel, ConfigDict, Field

from studio.domain.timesteps import Grid

RULES_KEY = "flash_studio_accelerator"
"""Under this key a file's metadata hold its `SamplingRules` as JSON."""


class SamplingRules(BaseModel):
    """How to sample with an accelerator. The defaults are those of LCM adapters, which say nothing of it themselves."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    checkpoint: str | None = None
    scheduler: str = "lcm"
    grid: Grid | None = "lcm"
    trained_steps: tuple[int, ...] = Field(default=(2, 3, 4, 5, 6, 7, 8), min_length=1)
    default_steps: int = 4
    default_guidance: float = 1.0
    max_guidance: float = 2.0
    lora_scale: float = 1.0
    licence: str = "that of its maker"
    note: str = "An accelerator of your own."
