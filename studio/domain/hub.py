"""Names of repositories on the Hugging Face hub."""

import re

_NAME = r"\b[\w.-]{1,96}\b"
_ID = re.compile(rf"(?!.*(--|\.\.)){_NAME}/{_NAME}(?<!\.git)", re.ASCII)


def is_hub_id(text: str) -> bool:
    """Whether `text` can be an id, by the hub's own rules, with the owner always named."""
    return _ID.fullmatch(text) is not None
