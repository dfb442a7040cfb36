"""How people keep pictures with captions, whether in a folder of theirs or in a data set of the hub."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CAPTIONS = (".txt", ".caption")
"""Suffixes of text files beside pictures, in the order to look for them."""
CAPTION_KEYS = ("text", "caption", "prompt")
"""What a caption is called in a list or a table, in the order to look for it."""
MAX_CAPTION = 10_000


def caption_of(text: str) -> str:
    """`text` as one line; "" where that says nothing, or has more than `MAX_CAPTION` characters."""
    caption = " ".join(text.split())
    return caption if len(caption) <= MAX_CAPTION else ""
