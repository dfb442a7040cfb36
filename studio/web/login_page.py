"""The page that asks for the password: on its own, without a script, light and dark."""

import html

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Flash Studio</title>
<style>
:root {{ color-scheme: light dark; --ground: #f8f9fc; --card: #fff; --text: #1e2433; --line: #8b93a7; --main: #4338ca;
  --bad: #b91c1c; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #0f1219; --card: #181c26; --text: #e7eaf2; --line: #6b7387;
  --main: #6366f1; --bad: #fca5a5; }} }}
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }}
form {{ box-sizing: border-box; width: min(360px, calc(100vw - 32px)); padding: 32px; border-radius: 16px;
  background: var(--card); display: grid; gap: 16px; }}
h1 {{ margin: 0; font-size: 20px; }}
label {{ display: grid; gap: 8px; }}
input, button {{ font: inherit; padding: 8px 16px; border-radius: 8px; border: 1px solid var(--line); }}
input {{ background: transparent; color: inherit; }}
button {{ background: var(--main); border-color: var(--main); color: #fff; cursor: pointer; }}
:focus-visible {{ outline: 2px solid var(--main); outline-offset: 2px; }}
p {{ margin: 0; color: var(--bad); }}
</style>
<main>
<form method="post" action="login">
<h1>Flash Studio</h1>
<label>Password <input type="password" name="password" autocomplete="current-password" required autofocus></label>
{said}<button>Open the studio</button>
</form>
</main>
</html>
"""


def login_page(said: str = "") -> str:
    """The page (HTML); `said` is what went wrong."""
    return _PAGE.format(said=f'<p role="alert">{html.escape(said)}</p>\n' if said else "")
