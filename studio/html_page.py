"""HTML files that need neither the studio nor the network."""

import html

from studio.settings import PROJECT_ROOT

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Such a page loads nothing and runs nothing, whatever somebody wrote into a prompt."""
WITH_PICTURES = f"{POLICY}; img-src data:"
"""It shows the pictures that are in it."""
_CSS = PROJECT_ROOT / "studio" / "data" / "report.css"


def html_page(title: str, body: str, policy: str = POLICY) -> str:
    """A whole page around `body`, which is HTML; `title` is text."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_CSS.read_text(encoding='utf-8')}</style></head><body>{body}</body></html>"
    )
