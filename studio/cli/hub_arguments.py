"""The flags of `adapters push` and `adapters pull`."""

from typing import Any


def add_hub_actions(actions: Any) -> None:
    """Add both to the actions of `adapters`."""
    push = actions.add_parser(
        "push", help="put one on the Hugging Face hub",
        description="Put an adapter on the Hugging Face hub: a model card, the file in both layouts, its preview. The "
        "token is that of HF_TOKEN or of `hf auth login`.", allow_abbrev=False,
    )  # fmt: skip
    push.add_argument("adapter", metavar="ID")
    push.add_argument("repository", metavar="OWNER/REPO")
    push.add_argument("--private", action="store_true", help="only its owner may see it, if it is new")
    push.add_argument("--to", metavar="FOLDER", help="only write what would be put there into a new folder")
    pull = actions.add_parser(
        "pull", help="fetch one from the Hugging Face hub",
        description="Fetch an adapter of the Hugging Face hub, with the checks of every file that is added.",
        allow_abbrev=False,
    )  # fmt: skip
    pull.add_argument("source", metavar="OWNER/REPO[:FILE]", help="FILE may be left out where there is only one")
    pull.add_argument("--name", help="its name in the store (default: that of the file or of the repository)")
    pull.add_argument("--quiet", action="store_true", help="no progress")
