"""
What `simsched config` does: check a file, show what holds and why, take a reference's file over.

Plain functions that return lines; the commands print them. Wrong settings are `ConfigError`s.
Secrets are masked in everything that is shown.
"""

from __future__ import annotations

import secrets
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from simsched.errors import ConfigError
from simsched.live.admission import TokenBook
from simsched.live.reference_config import Imported, import_reference
from simsched.live.settings import Settings
from simsched.live.settings_catalogue import CATALOGUE
from simsched.live.settings_files import DEFAULT, Loaded, load_with_sources
from simsched.live.settings_text import as_toml, masked, values_of
from simsched.messages import valid_id

TOKEN_BYTES: Final = 32
"""Of chance in a token that we make: nobody guesses 256 bits."""

TOKEN_CHARACTERS: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"
)
"""What a subprotocol may consist of (RFC 9110, 5.6.2): browsers can send no other token."""

SHORT_TOKEN: Final = 16
"""Characters below which a token can be guessed."""


def check(path: Path | None, env: Mapping[str, str], flags: Mapping[str, Any]) -> list[str]:
    """
    Whether a server would start with these settings, as far as files tell.

    Returns:
        Lines for a person: first that all is well, then what should be looked at.

    Raises:
        ConfigError: what is wrong, where, and what would be right.

    """
    loaded = load_with_sources(path, env, flags)
    warnings = [*loaded.warnings, *check_files(loaded.settings)]
    changed = sum(source != DEFAULT for source in loaded.sources.values())
    head = f"{path or 'settings'}: all right, {changed} of {len(CATALOGUE)} settings given"
    return [head, *(f"warning: {line}" for line in warnings)]


def check_files(settings: Settings) -> list[str]:
    """
    Look at the files that the settings name.

    Returns:
        What is not wrong, but should be looked at.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.

    """
    warnings = []
    for name in ("client_tokens_file", "node_tokens_file"):
        path = getattr(settings.auth, name)
        if path:
            TokenBook.read(Path(path))
            warnings += token_warnings(Path(path))
    if settings.tls.cert:
        _check_tls(settings)
        warnings += _read_by_others(Path(settings.tls.key), "the private key")
    if settings.store.valkey_path and not Path(settings.store.valkey_path).is_file():
        path = settings.store.valkey_path
        raise ConfigError("settings", "store.valkey_path", f"a program; there is no file {path}")
    return warnings


def _check_tls(settings: Settings) -> None:
    tls = settings.tls
    for name, path in (("tls.cert", tls.cert), ("tls.key", tls.key)):
        try:
            Path(path).read_bytes()
        except OSError as error:
            want = f"a readable PEM file, but {path}: {error.strerror}"
            raise ConfigError("settings", name, want) from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.cert, tls.key, password=_no_password
        )
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        want = f"a PEM certificate and its key without a password, not {tls.cert} ({reason})"
        raise ConfigError("settings", "tls.cert", want) from None


def _no_password() -> str:
    """Keys that ask for a password would stop a server that nobody sits before."""
    raise ValueError("the key asks for a password")


def token_warnings(path: Path) -> list[str]:
    """What is unwise about a file of tokens; it is known to be readable."""
    warnings = _read_by_others(path, "tokens")
    seen: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, token = (part.strip() for part in text.partition(":"))
        place = f"{path}: line {number}"
        if not valid_id(name):
            warnings.append(f"{place}: letters, digits and . _ - make a name that metrics can show")
        if len(token) < SHORT_TOKEN:
            warnings.append(f"{place}: a token of {len(token)} characters can be guessed")
        if not set(token) <= TOKEN_CHARACTERS:
            warnings.append(f"{place}: a browser cannot send this token")
        if token in seen:
            warnings.append(f"{place}: the same token as in line {seen[token]}")
        seen.setdefault(token, number)
    return warnings


def _read_by_others(path: Path, what: str) -> list[str]:
    mode = path.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        return [f"{path}: others can read {what}; chmod 600 {path}"]
    return []


def show(loaded: Loaded, *, all_of_them: bool = True) -> str:
    """
    The settings that hold, as a configuration file; each says where it came from.

    Args:
        loaded: the settings and their sources.
        all_of_them: defaults too, or only what was given.

    """
    values = {
        key: masked(CATALOGUE[key], value)
        for key, value in values_of(loaded.settings).items()
        if all_of_them or loaded.sources[key] != DEFAULT
    }
    return as_toml(values, loaded.sources)


def take_over(path: Path, out: Path | None) -> tuple[Imported, str]:
    """
    A reference's config.toml as a file of ours, written to `out` if given.

    Returns:
        What was taken over, and where it went ("" if nowhere).

    Raises:
        ConfigError: the file is wrong, or `out` exists or cannot be written.

    """
    imported = import_reference(path)
    if out is None:
        return imported, ""
    try:
        with out.open("x", encoding="utf-8") as file:
            out.chmod(0o600)  # the store's address may hold a password
            file.write(imported.text)
    except FileExistsError:
        raise ConfigError(str(out), "", "exists already: name another file") from None
    except OSError as error:
        raise ConfigError(str(out), "", f"cannot be written: {error.strerror}") from None
    return imported, str(out)


def new_token_line(name: str) -> str:
    """
    A line for a file of tokens, with a token that nobody guesses.

    Raises:
        ConfigError: `name` is not the name of a client or a node.

    """
    if not valid_id(name) or ":" in name:
        raise ConfigError("config token", "NAME", f"letters, digits and . _ -, not {name!r}")
    return f"{name}:{secrets.token_urlsafe(TOKEN_BYTES)}"
