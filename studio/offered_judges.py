"""Judges that are fetched when they are first asked for, so that pictures of large models can be compared at once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.base import OnFetch, never, unheard
from engines.downloads import Fetched, fetch_file
from engines.hub_files import Source
from studio.domain.errors import DownloadFailed
from studio.domain.scores import JUDGE_RECIPE, is_judge
from studio.files import atomic_write

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""What repositories of open_clip call them; the first that is there."""


@dataclass(frozen=True, kw_only=True)
class OfferedJudge:
    """A CLIP model of open_clip: its `architecture` with the weights of the tag `pretrained`, which take so many
    `megabytes`."""

    name: str
    title: str
    hub_id: str
    architecture: str
    pretrained: str
    megabytes: int


OFFERED = (
    OfferedJudge(
        name="vit-b-16-openai", title="CLIP ViT-B/16 by OpenAI", hub_id="timm/vit_base_patch16_clip_224.openai",
        architecture="ViT-B-16", pretrained="openai", megabytes=599,
    ),
    OfferedJudge(
        name="vit-b-16-datacomp", title="CLIP ViT-B/16 by DataComp",
        hub_id="laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", architecture="ViT-B-16",
        pretrained="datacomp_xl_s13b_b90k", megabytes=599,
    ),
)  # fmt: skip
"""Neither reads prompts as a model does that it judges (see `studio.judge_remarks`), and they learnt from different
pictures: where both find the same ahead it is hardly the taste of one. The first is the default."""


class OfferedJudges:
    """Fetches them into the folder of judges, where each is one like any other from then on."""

    def __init__(self, folder: Path, *, offline: bool, endpoint: str | None = None) -> None:
        self.folder = folder
        self._offline = offline
        self._endpoint = endpoint

    def missing(self) -> tuple[OfferedJudge, ...]:
        """Those that could be fetched, and are not here."""
        return () if self._offline else tuple(row for row in OFFERED if not is_judge(self.folder / row.name))

    def fetch(
        self, name: str, cancelled: Callable[[], bool] = never, on_fetch: OnFetch = unheard
    ) -> OfferedJudge | None:
        """Fetch the judge called `name` if it is one of these and not here; gives what was fetched.

        Raises:
            DownloadFailed, StorageFailed: it cannot be had.
            JobCancelled: within a second of `cancelled()` turning true.
        """
        row = next((row for row in self.missing() if row.name == name), None)
        if row is None:
            return None
        weights = self._weights(row, cancelled, on_fetch)
        lines = {"architecture": row.architecture, "pretrained": row.pretrained, "weights": weights.name}
        text = "".join(f'{key} = "{value}"\n' for key, value in lines.items())
        atomic_write(self.folder / row.name / JUDGE_RECIPE, text.encode())  # last: by this it is a judge
        return row

    def _weights(self, row: OfferedJudge, cancelled: Callable[[], bool], on_fetch: OnFetch) -> Path:
        def tell(fetched: Fetched) -> None:
            on_fetch(fetched.done_bytes, fetched.total_bytes)

        for place, path in enumerate(_WEIGHTS, start=1):
            try:
                return fetch_file(
                    row.title,
                    (Source(hub_id=row.hub_id),),
                    path,
                    self.folder / row.name,
                    offline=self._offline,
                    on_progress=tell,
                    cancelled=cancelled,
                    endpoint=self._endpoint,
                )
            except DownloadFailed:
                if place == len(_WEIGHTS):
                    raise
        raise AssertionError("one of the names is the last")
