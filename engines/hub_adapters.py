"""Adapters to and from the Hugging Face hub. The token is the library's own affair: no text of ours holds it."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from httpx2 import TransportError
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from engines.base import never
from engines.downloads import fetch_file
from engines.hub import Hub, HubFile, offline_failure
from engines.hub_files import PICKLE_SUFFIXES, Source, Unusable
from engines.hub_repository import LoneWatch, Silent
from engines.places import WEIGHTS_SUFFIX
from studio.domain.errors import DownloadFailed, NotFound, UploadFailed

logger = logging.getLogger(__name__)

_USUAL = "pytorch_lora_weights.safetensors"
_INSTEAD = "fetch the file in a browser and add it"
_MOST_NAMED = 8
_FORBIDDEN = (401, 403)


def fetch_adapter(
    hub_id: str,
    path: str | None,
    folder: Path,
    *,
    offline: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    endpoint: str | None = None,
) -> Path:
    """Fetch the adapter file `path` of the repository `hub_id`, or its only one, into `folder`; gives its place. What
    has come by a failure is kept there for the next call. `on_progress` hears bytes that are here, and in all.

    Raises:
        NotFound: the repository has no such file, none at all, or several of which none was named.
        DownloadFailed: it is gone, it may not be had, the hub does not answer, or the studio is offline.
        StorageFailed: the disk is too full or cannot be written.
    """
    if offline:
        raise offline_failure(hub_id, _INSTEAD)
    names = _names(hub_id, endpoint)
    chosen = _chosen(hub_id, path, names)
    return fetch_file(
        hub_id,
        (Source(hub_id=hub_id),),
        chosen,
        folder,
        offline=offline,
        on_progress=lambda fetched: on_progress(fetched.done_bytes, fetched.total_bytes),
        cancelled=never,
        endpoint=endpoint,
    )


def upload_folder(
    folder: Path, hub_id: str, *, is_private: bool, offline: bool = False, endpoint: str | None = None
) -> str:
    """Put what is in `folder` into the model repository `hub_id`, which is made if it is not there; gives its address.

    Raises:
        UploadFailed: nobody is logged in, who is may not write there, or the hub does not answer.
    """
    if offline:
        raise _offline(hub_id)
    if get_token() is None:
        raise UploadFailed(
            "You are not logged in to the hub.",
            "Set HF_TOKEN to a token that may write, or log in with `hf auth login`.",
        )
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(hub_id, private=is_private, repo_type="model", exist_ok=True)
        api.upload_folder(repo_id=hub_id, folder_path=folder, commit_message="Upload with Flash Studio")
    except HfHubHTTPError as error:
        raise _refused(hub_id, error.response.status_code) from error
    except OfflineModeIsEnabled as error:
        raise UploadFailed(
            f"The hub's library is offline, so {hub_id} is not there.", "Unset HF_HUB_OFFLINE."
        ) from error
    except (TransportError, OSError, ValueError) as error:
        # Not the error itself: its text may hold a signed address.
        logger.warning("%s could not be put on the hub: %s", hub_id, type(error).__name__)
        raise UploadFailed(
            f"{hub_id} could not be put on the hub: it does not answer as it should.",
            "Check the connection, then try again; what is there already is not sent twice.",
        ) from error
    return f"{api.endpoint}/{hub_id}"


def _offline(hub_id: str) -> UploadFailed:
    return UploadFailed(f"{hub_id} is not put on the hub: the studio is offline.", "Switch offline mode off.")


def _refused(hub_id: str, status: int) -> UploadFailed:
    if status in _FORBIDDEN:
        return UploadFailed(
            f"The hub does not let you write to {hub_id}: it answers {status}.",
            "Check the owner's name, and that your token may write.",
        )
    return UploadFailed(f"{hub_id} could not be put on the hub: it answers {status}.", "Try again later.")


def _names(hub_id: str, endpoint: str | None) -> list[str]:
    hub = Hub(endpoint, LoneWatch(lambda: None))
    ask: Callable[[], dict[str, HubFile]] = partial(hub.files, hub_id)
    with hub.errors(hub_id, _INSTEAD):
        try:
            return sorted(ask())
        except Silent:
            raise hub.unanswered(hub_id) from None
        except Unusable as error:
            raise DownloadFailed(
                f"There is no repository {hub_id} on the hub that you may read.",
                "Check its id; if it is private, log in with `hf auth login`.",
            ) from error


def _chosen(hub_id: str, path: str | None, names: list[str]) -> str:
    weights = [name for name in names if name.endswith(WEIGHTS_SUFFIX)]
    listed = ", ".join(weights[:_MOST_NAMED]) + (" …" if len(weights) > _MOST_NAMED else "")
    if path is not None:
        if path not in weights:
            raise NotFound(f"{hub_id} has no {path[:100]!r}.", f"It has: {listed}." if listed else "It has no adapter.")
        return path
    if not weights:
        pickles = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
        what = f"only has {pickles[0]}, a pickle, which can run code" if pickles else "has no .safetensors file"
        raise NotFound(f"{hub_id} {what}.", "Choose another repository.")
    if _USUAL in weights or len(weights) == 1:
        return _USUAL if _USUAL in weights else weights[0]
    raise NotFound(f"{hub_id} has several files.", f"Name one, as {hub_id}:FILE: {listed}.")
