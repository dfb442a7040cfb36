"""The Hugging Face hub as downloads use it: what a repository holds, and its bytes, asked for until nobody waits.

`hf_hub_download` starts a file anew after every break and reports each 10 MB only, so the bytes are read here; names,
addresses, login and errors are the library's.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from httpx2 import TransportError
from huggingface_hub import HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from engines.hub_files import Unusable
from studio.domain.errors import DownloadFailed, JobCancelled

logger = logging.getLogger(__name__)

FIRST_ANSWER_S = 4.0
"""How long the hub may be silent before any bytes have come; also the time limit of one read."""
STALL_S = 20.0
"""How long it may be silent later: long enough for a router to come back."""
SYNC_BYTES = 64_000_000
"""How much may wait for the disk: a slow one must not look like a silent hub, nor a power cut leave holes."""
_FIRST_PAUSE_S = 0.2
_PASSING = (408, 429, 500, 502, 503, 504)
_FORBIDDEN = (401, 403)

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file at one commit of a repository, and what the hub says about its contents."""

    path: str
    url: str
    size: int
    digest: str
    is_lfs: bool
    """`digest` is the SHA-256 of the contents; else git's SHA-1 of a blob."""


class Watch:
    """What the thread that waits and the one that works tell each other."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.trouble: Exception | None = None
        self.is_flowing = False
        self._heard_at = time.monotonic()

    def heard(self) -> None:
        """Note a sign of life.

        Raises:
            JobCancelled: nobody waits any more.
        """
        if self.stop.is_set():
            raise JobCancelled
        self._heard_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait before the hub is asked again.

        Raises:
            JobCancelled: nobody waits any more.
        """
        if self.stop.wait(seconds):
            raise JobCancelled

    def is_silent(self) -> bool:
        """Whether it is time to give up."""
        return time.monotonic() - self._heard_at > (STALL_S if self.is_flowing else FIRST_ANSWER_S)


class Hub:
    """The hub at `endpoint` (None for the usual one), for one download that `watch` looks after."""

    def __init__(self, endpoint: str | None, watch: Watch) -> None:
        self.api = HfApi(endpoint=endpoint)
        self.watch = watch
        self.host = urlsplit(self.api.endpoint).hostname

    def files(self, hub_id: str, revision: str | None = None) -> dict[str, HubFile]:
        """Every file of a repository by its path, at one commit.

        Raises:
            Unusable: the repository or the revision is gone.
        """
        try:
            info = self.patiently(
                lambda: self.api.model_info(hub_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_S)
            )
        except GatedRepoError:
            raise
        except (RepositoryNotFoundError, DisabledRepoError) as error:
            raise Unusable("is gone") from error
        except RevisionNotFoundError as error:
            raise Unusable("has no such revision") from error
        return {
            file.rfilename: HubFile(
                path=file.rfilename,
                url=hf_hub_url(hub_id, file.rfilename, revision=info.sha, endpoint=self.api.endpoint),
                size=file.size,
                digest=file.lfs.sha256 if file.lfs else file.blob_id,
                is_lfs=file.lfs is not None,
            )
            for file in info.siblings or ()
            if file.size is not None and file.blob_id is not None
        }

    def read_json(self, file: HubFile) -> Any:
        """What a small JSON file says."""

        def ask() -> Any:
            response = get_session().get(file.url, headers=request_headers(), timeout=FIRST_ANSWER_S)
            hf_raise_for_status(response)
            return response.json()

        return self.patiently(ask)

    def complete(self, file: HubFile, partial: Path, on_bytes: Callable[[int], None]) -> None:
        """Add to `partial` what it lacks of `file`; `on_bytes` hears how long it is by now.

        Raises:
            OSError: the disk is full or cannot be written; what was written stays.
        """
        self.patiently(lambda: self._stream(file, partial, on_bytes))

    def _stream(self, file: HubFile, partial: Path, on_bytes: Callable[[int], None]) -> None:
        at = partial.stat().st_size if partial.exists() else 0
        if at >= file.size:
            return
        headers = {**request_headers(), "Range": f"bytes={at}-"} if at else request_headers()
        with get_session().stream("GET", file.url, headers=headers, timeout=FIRST_ANSWER_S) as response:
            hf_raise_for_status(response)
            with partial.open("ab") as out:
                if at and response.status_code == 200:  # a server without ranges sends all of it
                    out.truncate(0)
                    at = 0
                synced = at
                for block in response.iter_bytes():
                    self.watch.heard()
                    self.watch.is_flowing = True
                    out.write(block)
                    at += len(block)
                    if at - synced >= SYNC_BYTES:
                        synced = _sync(out, at)
                    on_bytes(at)
                _sync(out, at)
        if at < file.size:
            raise TransportError("the answer ended early")

    def is_intact(self, path: Path, file: HubFile) -> bool:
        """Whether the contents of `path` are those of `file`, to the bit."""
        if path.stat().st_size != file.size:
            return False
        git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        digest = hashlib.sha256() if file.is_lfs else git
        with path.open("rb") as opened:
            while block := opened.read(1 << 20):
                self.watch.heard()
                digest.update(block)
        return digest.hexdigest() == file.digest

    def patiently(self, ask: Callable[[], _T]) -> _T:
        """Ask again until somebody who waits for the answer gives up."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                answer = ask()
            except TransportError as error:
                self.watch.trouble = error
            except HfHubHTTPError as error:
                if error.response.status_code not in _PASSING:
                    raise
                self.watch.trouble = error
            else:
                self.watch.heard()
                return answer
            # Not the error itself: its text may hold a signed address.
            logger.info("%s: %s, asking again", self.host, type(self.watch.trouble).__name__)
            self.watch.pause(pause)
            pause = min(2 * pause, FIRST_ANSWER_S)

    def unanswered(self, title: str) -> DownloadFailed:
        """What to tell when the hub has been silent for too long."""
        trouble = self.watch.trouble
        if isinstance(trouble, HfHubHTTPError):
            return DownloadFailed(
                f"{title} could not be fetched: {self.host} answers {trouble.response.status_code}.",
                "Try again in a few minutes; what has arrived is kept.",
            )
        return DownloadFailed(
            f"{title} could not be fetched: {self.host} does not answer.",
            "Check the connection, then try again; what has arrived is kept.",
        )

    @contextmanager
    def errors(self, title: str, instead: str) -> Generator[None]:
        """Turn what the hub refuses into a sentence and a next step; `instead` is what else helps: "put … at …"."""
        try:
            yield
        except GatedRepoError as error:
            raise DownloadFailed(
                f"{error.repo_id or title} asks you to accept its licence.",
                "Accept it on its page, then log in with `hf auth login`.",
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(title, instead, error.response.status_code) from error
        except OfflineModeIsEnabled as error:
            raise offline_failure(title, instead) from error
        except ValueError as error:
            raise DownloadFailed(
                f"{title} could not be fetched: what {self.host} answers is not from the hub.",
                "A login page or a proxy may be in between: open the hub in a browser, then try again.",
            ) from error

    def _refused(self, title: str, instead: str, status: int) -> DownloadFailed:
        if status in _FORBIDDEN:
            return DownloadFailed(
                f"{self.host} does not let you read {title}: it answers {status}.",
                "Log in anew with `hf auth login`, or without an account log out with `hf auth logout`.",
            )
        return DownloadFailed(
            f"{title} could not be fetched: {self.host} answers {status}.",
            f"Try again later, or {instead}.",
        )


def offline_failure(title: str, instead: str) -> DownloadFailed:
    """What to tell when `title` would have to be fetched and must not be."""
    return DownloadFailed(
        f"{title} is not on this machine and the studio is offline.",
        f"Switch offline mode off, or {instead}.",
    )


def _sync(out: BufferedWriter, at: int) -> int:
    out.flush()
    os.fsync(out.fileno())
    return at


def request_headers() -> dict[str, str]:
    """Who asks, and that bytes come as they are: a range of compressed ones would be a range of something else."""
    return {**build_hf_headers(), "Accept-Encoding": "identity"}
