"""
docs/configuration.md, made from the declarations of the settings.

`python -m simsched.live.settings_page > docs/configuration.md` writes it anew; a test compares the
two. What a setting is stands with its declaration, what the policy means in `simsched policy`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from simsched.live.settings_catalogue import CATALOGUE, Setting, sections

HEAD: Final = """\
# Configuration

Every setting of `simsched serve`. This page is written from the code
(`python -m simsched.live.settings_page > docs/configuration.md`) and a test compares the two.

## Where a value comes from

The first of these that gives one:

1. a flag: `--port 5010`, or for any setting `--set server.drain_s=60`;
2. the environment: `SIMSCHED__SERVER__PORT=5010`, with two underscores around the section. (With
   one, names would clash with the variables that container platforms make up for services.) Lists
   are separated by commas, switches are true or false;
3. the file: `simsched serve --config simsched.toml`. No file is looked for by itself;
4. the default.

A percentage such as `"20%"` is as good as a share of 0.2. A file or folder named in the
configuration file is relative to that file's folder; one named by a flag or a variable is relative
to where the server was started. An unknown key, a value out of bounds and settings that contradict
each other are refused in one line that names the place, the setting and what would be right.

```sh
simsched config check simsched.toml       # would a server start? looks at tokens and TLS too
simsched config show simsched.toml        # all that holds, and where each value came from
simsched config token anna                # a line for a file of tokens
simsched config import config.toml        # take the reference system's file over
```

Passwords in `store.redis_url` are masked in what is shown. Give them in the environment, or in a
file that only the server's user may read.

## An example

```toml
policy = "safe"

[server]
host = "0.0.0.0"
origins = ["https://app.example"]

[store]
redis_url = "redis://10.0.0.5:6379/0"

[auth]
client_tokens_file = "clients.tokens"
node_tokens_file = "nodes.tokens"

[tls]
cert = "fullchain.pem"
key = "privkey.pem"

[canary]
policy = "safe,group_updates=separate"
share = "20%"
```

"""

FOOT: Final = """\
## Files of tokens

One `NAME:TOKEN` a line; empty lines and lines that begin with `#` count for nothing. The name is
what metrics and limits know the client or the node by. A token should be long and random
(`simsched config token NAME`) and of letters, digits and `-._~` only, or a browser cannot send it.
Keep the file to the server's user (`chmod 600`). It is read when the server starts.

## Taking over the reference's config.toml

`simsched config import config.toml --out simsched.toml` writes what has a meaning here and prints a
line for every setting: what took it over, or why nothing had to. A setting that the reference does
not know is named too. Two things differ on purpose: the reference listens on all addresses and asks
nobody for a token, whatever its file says; here that has to be said (`server.host`,
`auth.allow_anonymous`), and the import says so.
"""

_KINDS: Final[dict[str, str]] = {
    "text": "text",
    "texts": "list of texts",
    "switch": "true, false",
    "integer": "whole number",
    "number": "number",
    "share": "share",
    "mapping": "table of texts",
    "tables": "list of tables",
}

UNBOUNDED: Final = 1_000_000_000
"""Upper bounds from here on are only there to catch slips; the page leaves them out."""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(_sections()) + "\n" + FOOT


def _sections() -> Iterator[str]:
    for section, about in sections().items():
        yield f"## [{section}]\n" if section else "## Outside a section\n"
        if section:
            yield f"{about}\n"
        yield "| setting | type | default | meaning |"
        yield "|---|---|---|---|"
        for setting in CATALOGUE.values():
            if setting.section == section:
                yield from _rows(setting)
        yield ""


def _rows(setting: Setting) -> Iterator[str]:
    yield _row(setting.name, setting)
    for entry in setting.entry:
        yield _row(f"{setting.name}[].{entry.name}", entry)


def _row(name: str, setting: Setting) -> str:
    about = setting.doc + (f" ({setting.unit})" if setting.unit else "")
    return f"| `{name}` | {_kind(setting)} | {_default(setting.default)} | {about} |"


def _kind(setting: Setting) -> str:
    """The type and its bounds."""
    if setting.kind == "choice":
        return ", ".join(f"`{word}`" for word in setting.choices)
    words = _KINDS[setting.kind]
    if setting.path:
        return "file or folder"
    if setting.kind == "share":
        return f"{words} from 0 to 1"
    if setting.least is None:
        return words
    low = f"above {setting.least:g}" if setting.above else f"from {setting.least:g}"
    high = "" if setting.most is None or setting.most >= UNBOUNDED else f" to {setting.most:g}"
    return f"{words} {low}{high}"


def _default(value: Any) -> str:
    if value is msgspec.NODEFAULT:
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | dict):
        return "none"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if value != "" else "`''`"


if __name__ == "__main__":
    sys.stdout.write(page())
