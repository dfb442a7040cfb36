"""A data set's repository on the hub, read where one looks: which files it has, whole ones, and parts of large ones.

`HfFileSystem` would do, but lists without a time limit, asks a silent hub for minutes, and cannot be stopped meanwhile.
"""

import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from httpx2 import TransportError
from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engines.hub import Hub, HubFile, Watch, request_headers
from engines.hub_files import Unusable
from studio.domain.errors import DownloadFailed

ANSWER_S = 10.0
"""The time limit of one read: a long listing takes the hub its time, and nobody sits and waits for it."""
MAX_FILES = 100_000
"""How many files are listed: more take minutes, and the first ones do."""
INSTEAD = "give a folder of pictures with captions"
"""What a person may do who cannot fetch."""

_T = TypeVar("_T")


class Silent(Exception):
    """The hub has said nothing for too long."""


class LoneWatch(Watch):
    """For a thread that both works and waits: it gives up by itself. `check` may hold it, and may raise."""

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self.is_flowing = True
        self._check = check

    def heard(self) -> None:
        """Note a sign of life; raises what `check` does."""
        self._check()
        super().heard()

    def pause(self, seconds: float) -> None:
        """Wait before the hub is asked again.

        Raises:
            Silent: it is time to give up.
        """
        begun = time.monotonic()
        self._check()
        self._heard_at += time.monotonic() - begun  # being held is not the hub's silence
        if self.is_silent():
            raise Silent
        time.sleep(seconds)


class Repository:
    """The data set `hub_id` at `endpoint` (None for the usual hub). Everything it does ends within some half a minute
    when the hub is silent, and asks `check` now and then.

    Every method raises DownloadFailed when the data set is gone, may not be read, or the hub does not answer.
    """

    def __init__(self, hub_id: str, endpoint: str | None, check: Callable[[], None]) -> None:
        self.hub_id = hub_id
        self._hub = Hub(endpoint, LoneWatch(check))

    def commit(self, revision: str | None = None) -> str:
        """The commit that `revision` is at now (None: the main branch).

        Raises:
            Unusable: there is no such revision.
        """
        ask = partial(self._hub.api.dataset_info, self.hub_id, revision=revision, expand=["sha"], timeout=ANSWER_S)
        return str(self._asked(ask).sha)

    def files(self, commit: str) -> dict[str, HubFile]:
        """The files at `commit` by their paths, at most `MAX_FILES` or a page more."""
        found: dict[str, HubFile] = {}
        query: str | None = "recursive=true&expand=false"
        while query is not None and len(found) < MAX_FILES:
            page, query = self._asked(partial(self._page, commit, query))
            found |= {file.path: file for file in page}
        return found

    def read(self, file: HubFile, start: int = 0, length: int | None = None) -> bytes:
        """`length` bytes of `file` from `start` (None: all that follow), or fewer at its end."""
        end = file.size if length is None else min(file.size, start + length)
        got = bytearray()
        self._asked(partial(self._pour, file, start, end, got))
        return bytes(got)

    def open(self, file: HubFile) -> "RemoteFile":
        """`file` for libraries that look here and there in it."""
        return RemoteFile(self, file)

    def _asked(self, ask: Callable[[], _T]) -> _T:
        with self._hub.errors(self.hub_id, INSTEAD):
            try:
                return self._hub.patiently(ask)
            except Silent:
                raise self._hub.unanswered(self.hub_id) from None
            except GatedRepoError:
                raise
            except (RepositoryNotFoundError, DisabledRepoError) as error:
                raise DownloadFailed(
                    f"There is no data set {self.hub_id} on the hub that you may read.",
                    "Check its id; if it is private, log in with `hf auth login`.",
                ) from error
            except RevisionNotFoundError as error:
                raise Unusable("has no such revision") from error

    def _page(self, commit: str, query: str) -> tuple[list[HubFile], str | None]:
        """Some of the files, and how to ask for the others."""
        url = f"{self._hub.api.endpoint}/api/datasets/{self.hub_id}/tree/{quote(commit, safe='')}?{query}"
        response = get_session().get(url, headers=request_headers(), timeout=ANSWER_S)
        hf_raise_for_status(response)
        rows = response.json()
        if not isinstance(rows, list):
            raise ValueError("no listing")
        # Of the address of the next page only the query counts: it may name another host, which must not see the token.
        following = urlsplit(response.links.get("next", {}).get("url", "")).query
        return [self._file(commit, row) for row in rows if row.get("type") == "file"], following or None

    def _file(self, commit: str, row: dict[str, Any]) -> HubFile:
        path = str(row["path"])
        url = hf_hub_url(self.hub_id, path, repo_type="dataset", revision=commit, endpoint=self._hub.api.endpoint)
        return HubFile(path=path, url=url, size=int(row["size"]), digest=str(row.get("oid")), is_lfs="lfs" in row)

    def _pour(self, file: HubFile, start: int, end: int, got: bytearray) -> None:
        """Add to `got` what it lacks of the bytes of `file` from `start` up to `end`."""
        at = start + len(got)
        if at >= end:
            return
        is_part = at > 0 or end < file.size
        headers = {**request_headers(), "Range": f"bytes={at}-{end - 1}"} if is_part else request_headers()
        with get_session().stream("GET", file.url, headers=headers, timeout=ANSWER_S) as response:
            hf_raise_for_status(response)
            if is_part and response.status_code != 206:
                raise DownloadFailed(
                    f"{self.hub_id} could not be fetched: {self._hub.host} sends no parts of files.",
                    f"Take another mirror of the hub, or {INSTEAD}.",
                )
            for block in response.iter_bytes():
                self._hub.watch.heard()
                got += block
                if start + len(got) > end:  # at `end` the answer is over, and its connection can be used again
                    break
        if start + len(got) < end:
            raise TransportError("the answer ended early")
        del got[end - start :]


class RemoteFile(io.RawIOBase):
    """A file of a data set that is read where one looks; each read is a request. Wrap it in a buffer for small ones."""

    def __init__(self, repository: Repository, file: HubFile) -> None:
        super().__init__()
        self._repository = repository
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._repository.read(self._file, self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
