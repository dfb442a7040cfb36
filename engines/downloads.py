"""Checkpoints from the Hugging Face hub: chosen files only, resumed where they broke off, in place when all are whole.

`fetch` works in a thread of its own, so that stopping and giving up never wait for the network. Files gather in a
folder with `.part` behind its name; each is checked against the hash that the hub states, then the folder is renamed.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout
from huggingface_hub import try_to_load_from_cache

from engines.disk import DISK_FULL, not_stored
from engines.hub import Hub, HubFile, Watch, offline_failure
from engines.hub_files import INDEX_NAME, Source, Unusable, Wanted, choose, choose_part, parts_of
from studio.domain.errors import DownloadFailed, JobCancelled, StorageFailed

logger = logging.getLogger(__name__)

POLL_S = 0.2
LET_GO_S = 0.6
"""How long a stopped download may take to end; one that hangs in the network is left to its own time limit."""
LOCK_TRIES = 25
"""Times POLL_S without a byte: longer than a download that was left to its time limit goes on."""
MARGIN_BYTES = 500_000_000
"""What a download leaves free on the disk."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """How far a download is, over all its files; `file` is the one that is coming."""

    done_bytes: int
    total_bytes: int
    file: str


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A file to fetch, and where it goes in the finished folder."""

    file: HubFile
    target: str

    @property
    def partial(self) -> str:
        """Where its first bytes wait for the rest: of these contents only, whatever repository they come from."""
        return f"{self.target}.{self.file.digest[:12]}.incomplete"


def cached(source: Source, cache_dir: Path | None = None) -> Path | None:
    """The folder in the hub's own cache that holds all of `source`, ready to load; None if a file is missing there."""
    index = try_to_load_from_cache(source.hub_id, INDEX_NAME, cache_dir=cache_dir, revision=source.revision)
    if not isinstance(index, str):
        return None
    snapshot = Path(index).parent
    names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    try:
        files = choose(names, parts_of(json.loads(Path(index).read_bytes())), prefer_half=False)
    except (Unusable, ValueError, OSError):
        return None
    return snapshot if all(file.path == file.target for file in files) else None


def fetch(
    title: str,
    sources: Sequence[Source],
    folder: Path,
    *,
    prefer_half: bool,
    offline: bool,
    on_progress: Callable[[Fetched], None],
    cancelled: Callable[[], bool],
    endpoint: str | None = None,
) -> Path:
    """Put the first of `sources` that still exists into `folder`, unless it is there, and give `folder` back.

    `on_progress` and `cancelled` are called from this thread, a few times a second. What has come by the time of a
    failure or a stop is kept for the next call.

    Raises:
        DownloadFailed: no source has it, it may not be had, the hub does not answer, or bytes arrived damaged.
        StorageFailed: the disk is too full or cannot be written.
        JobCancelled: within a second of `cancelled()` turning true.
    """
    hub = Hub(endpoint, Watch())
    work = _Fetch(title, folder, sources, _Pipeline(hub, title, prefer_half), hub)
    return _followed(work, offline, on_progress, cancelled)


def fetch_file(
    title: str,
    sources: Sequence[Source],
    path: str | tuple[str, ...],
    folder: Path,
    *,
    offline: bool,
    on_progress: Callable[[Fetched], None],
    cancelled: Callable[[], bool],
    endpoint: str | None = None,
) -> Path:
    """Put the file `path` of the first of `sources` that has it into `folder`, unless it is there, and give its place;
    of several, which come together, that of the first. The rest is as with `fetch`."""
    hub = Hub(endpoint, Watch())
    contents = _SomeFiles(hub, (path,) if isinstance(path, str) else path)
    work = _Fetch(title, folder, sources, contents, hub)
    return _followed(work, offline, on_progress, cancelled) / contents.index


class _Contents(Protocol):
    """What is fetched of a repository."""

    index: str
    """The file by whose presence a finished folder is known."""
    wish: str
    """What a person may put into the folder instead."""

    def items(self, source: Source) -> list[_Item]:
        """The files that are needed.

        Raises:
            Unusable: `source` has them not.
        """
        ...

    def finish(self, folder: Path) -> None:
        """Whatever is left to do before the folder is in place."""
        ...


class _Pipeline:
    """A diffusers pipeline with, where its source names one, a better VAE."""

    index = INDEX_NAME
    wish = "a diffusers folder with .safetensors weights"

    def __init__(self, hub: Hub, title: str, prefer_half: bool) -> None:
        self._hub = hub
        self._title = title
        self._prefer_half = prefer_half

    def items(self, source: Source) -> list[_Item]:
        files = self._hub.files(source.hub_id, source.revision)
        if INDEX_NAME not in files:
            raise Unusable("is not a diffusers pipeline")
        parts = parts_of(self._hub.read_json(files[INDEX_NAME]))
        better = self._better_vae(source) if "vae" in parts else []
        if better:
            del parts["vae"]
        return _items(files, choose(files, parts, prefer_half=self._prefer_half)) + better

    def finish(self, folder: Path) -> None:
        _leave_out_safety_checker(folder / INDEX_NAME)

    def _better_vae(self, source: Source) -> list[_Item]:
        if source.vae_hub_id is None:
            return []
        try:
            files = self._hub.files(source.vae_hub_id)
            chosen = choose_part(files, "vae", "AutoencoderKL", prefer_half=self._prefer_half, folder="")
        except Unusable as reason:
            logger.warning("%s: %s %s; taking the pipeline's own", self._title, source.vae_hub_id, reason)
            return []
        return _items(files, chosen)


class _SomeFiles:
    """Single files, the first of which says that they are there."""

    def __init__(self, hub: Hub, paths: tuple[str, ...]) -> None:
        self.index = paths[0].rpartition("/")[2]
        self.wish = f"the file {self.index}"
        self._hub = hub
        self._paths = paths

    def items(self, source: Source) -> list[_Item]:
        files = self._hub.files(source.hub_id, source.revision)
        if missing := [path for path in self._paths if path not in files]:
            raise Unusable(f"has no {missing[0]}")
        return [_Item(file=files[path], target=path.rpartition("/")[2]) for path in self._paths]

    def finish(self, folder: Path) -> None:
        pass


def _followed(
    work: "_Fetch", offline: bool, on_progress: Callable[[Fetched], None], cancelled: Callable[[], bool]
) -> Path:
    """Let `work` be done by a thread of its own, and give its folder."""
    if work.is_done:
        work.clean()
        return work.folder
    if offline:
        raise offline_failure(work.title, work.instead)
    executor = ThreadPoolExecutor(1, thread_name_prefix="download")
    future = executor.submit(work.run)
    executor.shutdown(wait=False)
    try:
        if not _follow(future, work, on_progress, cancelled):
            raise work.hub.unanswered(work.title)
    finally:
        work.hub.watch.stop.set()
        wait([future], LET_GO_S)
    return future.result()


def _follow(
    future: Future[Path],
    work: "_Fetch",
    on_progress: Callable[[Fetched], None],
    cancelled: Callable[[], bool],
) -> bool:
    """Wait for `future`; False when the hub has been silent for as long as a person should be left waiting."""
    told = None
    is_over = False
    while not is_over:
        is_over = not wait([future], POLL_S).not_done
        if work.told is not told:
            told = work.told
            on_progress(told)
        if not is_over and cancelled():
            raise JobCancelled
        if not is_over and work.hub.watch.is_silent():
            return False
    return True


class _Fetch:
    """One download, run by its own thread. `told` is how far it is; None until that is known."""

    def __init__(self, title: str, folder: Path, sources: Sequence[Source], contents: _Contents, hub: Hub) -> None:
        self.title = title
        self.folder = folder
        self.hub = hub
        self.told: Fetched | None = None
        self._sources = tuple(sources)
        self._contents = contents
        self._part = folder.with_name(f"{folder.name}.part")
        self._have: dict[str, int] = {}
        self._total = 0

    @property
    def is_done(self) -> bool:
        return (self.folder / self._contents.index).is_file()

    @property
    def instead(self) -> str:
        """What a person may do who cannot fetch."""
        return f"put {self._contents.wish} at {self.folder.parent.name}/{self.folder.name}"

    def clean(self) -> None:
        """Remove what an earlier download left."""
        shutil.rmtree(self._part, ignore_errors=True)

    def run(self) -> Path:
        """Fetch from the first source that is usable."""
        reasons = []
        with self._disk_errors(), self._alone(), self.hub.errors(self.title, self.instead):
            for source in () if self.is_done else self._sources:
                try:
                    items = self._contents.items(source)
                except Unusable as reason:
                    logger.warning("%s: %s %s", self.title, source, reason)
                    reasons.append(f"{source} {reason}")
                    continue
                logger.info("fetching %s from %s", self.title, source)
                self._carry_out(items)
                break
        if self.is_done:
            return self.folder
        raise DownloadFailed(
            f"{self.title} cannot be fetched: {'; '.join(reasons)}.",
            f"Choose another one, or {self.instead}.",
        )

    def _carry_out(self, items: list[_Item]) -> None:
        self._part.mkdir(parents=True, exist_ok=True)
        self._clear(items)
        self._total = sum(item.file.size for item in items)
        if shutil.disk_usage(self._part).free < self._needed():
            raise self._too_full()
        for item in items:
            self._tell(item, self._have.get(item.target, 0))
            self._bring(item)
        self._contents.finish(self._part)
        os.replace(self._part, self.folder)

    def _clear(self, items: list[_Item]) -> None:
        """Drop what an earlier plan left in the part folder, and count what is of use."""
        useful = {self._part / name: item for item in items for name in (item.target, item.partial)}
        for path in [path for path in self._part.rglob("*") if path.is_file()]:
            item = useful.get(path)
            if item is None:
                path.unlink()
            else:
                self._have[item.target] = min(path.stat().st_size, item.file.size)

    def _bring(self, item: _Item) -> None:
        """Have `item` whole in the part folder."""
        place, partial = self._part / item.target, self._part / item.partial
        if place.is_file() and self.hub.is_intact(place, item.file):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        self.hub.complete(item.file, partial, lambda at: self._tell(item, at))
        if not self.hub.is_intact(partial, item.file):
            partial.unlink()
            raise DownloadFailed(
                f"{item.target} of {self.title} arrived damaged: its contents are not those that the hub lists.",
                "It was removed. Try again: only this file is fetched anew.",
            )
        os.replace(partial, place)

    def _tell(self, item: _Item, at: int) -> None:
        self._have[item.target] = min(at, item.file.size)
        before = self.told.done_bytes if self.told else 0
        done = max(sum(self._have.values()), before)  # a file that has to come anew takes nothing back
        self.told = Fetched(done_bytes=done, total_bytes=self._total, file=item.target)

    def _arrived(self) -> int:
        """How many bytes whoever fetches has put into the part folder."""
        try:
            return sum(path.stat().st_size for path in self._part.rglob("*"))
        except OSError:  # a file was renamed just now
            return -1

    @contextmanager
    def _alone(self) -> Generator[None]:
        """Keep other threads and processes off the part folder; wait for them as long as bytes come to them."""
        self._part.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._part.with_name(f"{self._part.name}.lock"))
        tries, arrived = 0, self._arrived()
        while not lock.is_locked and tries < LOCK_TRIES:
            if self.hub.watch.stop.is_set():
                raise JobCancelled
            self.hub.watch.heard()
            with suppress(Timeout):
                lock.acquire(timeout=POLL_S)
            before, arrived = arrived, self._arrived()
            tries = tries + 1 if arrived == before else 0
        if not lock.is_locked:
            raise DownloadFailed(f"{self.title} is being fetched already.", "Wait until that has ended.")
        try:
            yield
        finally:
            lock.release()
            if self.is_done:  # else who waits for this file and who comes later would hold two locks
                with suppress(OSError):
                    os.unlink(lock.lock_file)

    @contextmanager
    def _disk_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            logger.warning("%s cannot be stored: %s", self.title, error)
            raise self._not_stored(error) from error

    def _not_stored(self, error: OSError) -> StorageFailed:
        return self._too_full() if error.errno in DISK_FULL else not_stored(error, self.title, self.folder.parent)

    def _needed(self) -> int:
        return self._total - sum(self._have.values()) + MARGIN_BYTES

    def _too_full(self) -> StorageFailed:
        needed, free = self._needed() / 1e9, shutil.disk_usage(self._part).free / 1e9
        return StorageFailed(
            f"The disk is too full for {self.title}: {needed:.1f} GB are needed, {free:.1f} GB are free.",
            "Free some space, or choose another data folder (FLASH_STUDIO_DATA_DIR); what has arrived is kept.",
        )


def _items(files: dict[str, HubFile], chosen: Iterable[Wanted]) -> list[_Item]:
    return [_Item(file=files[wanted.path], target=wanted.target) for wanted in chosen]


def _leave_out_safety_checker(path: Path) -> None:
    """Make an index say that there is none, or diffusers looks for it."""
    index = json.loads(path.read_bytes())
    if "safety_checker" in index:
        path.write_text(
            json.dumps({**index, "safety_checker": [None, None], "requires_safety_checker": False}, indent=2)
        )
