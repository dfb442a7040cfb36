"""What nobody foresaw: whoever asked is told an id, and the log has the details under it."""

import logging
import secrets

from studio.domain.errors import Unexpected

logger = logging.getLogger(__name__)


def unexpected(error: BaseException, where: str = "") -> Unexpected:
    """What a person is told instead of `error`, which goes to the log; `where` says there what it belongs to."""
    error_id = secrets.token_hex(4)
    logger.error("%sunexpected error (id %s)", f"{where}: " if where else "", error_id, exc_info=error)
    return Unexpected(f"Unexpected error (id {error_id}).", "The log has the details.")
