"""
The catalogue of all settings: each one's name, type, bounds, default and help, and how it is read.

It is made from the declarations in `settings`, so that files, environment variables, flags, error
messages and the documentation agree about every setting. `read` takes a value as a TOML file gives
it, `read_text` one as people type it. This module knows no file and no environment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import msgspec
from msgspec import inspect

from simsched.errors import ConfigError
from simsched.live.settings import Settings

ENVIRONMENT: Final = "SIMSCHED__"
"""What the names of our environment variables begin with."""

TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")

UNIT_NAMES: Final[Mapping[str, str]] = {
    "_s": "s",
    "_ms": "ms",
    "_bytes": "bytes",
    "_bytes_max": "bytes",
    "_ms_max": "ms",
    "_per_min_max": "per minute",
}
"""How a name says its unit."""


def meant(word: str, known: Iterable[str]) -> str:
    """The name that was probably meant, or all that would do."""
    names = list(known)
    close = get_close_matches(word, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known are: {', '.join(names)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """
    One setting.

    Attributes:
        section: the table of the file that holds it; "" for the top.
        kind: one of `READERS`.
        least: smallest number; `above` says that it is itself too small.
        choices: the words that it may be.
        secret: holds, or may hold, a password.
        path: a file or folder.
        entry: what a list of tables consists of.

    """

    section: str
    name: str
    kind: str
    default: Any
    doc: str
    least: float | None = None
    above: bool = False
    most: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""
    length_least: int = 0
    length_most: int | None = None
    secret: bool = False
    path: bool = False
    entry: tuple[Setting, ...] = ()

    @property
    def key(self) -> str:
        """Dotted, as messages and flags name it."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """Its environment variable; "" for a table, which only a file can hold."""
        if self.kind in ("tables", "mapping"):
            return ""
        return ENVIRONMENT + self.key.replace(".", "__").upper()

    @property
    def unit(self) -> str:
        """What its name says about the unit; "" for none."""
        fits = [end for end in UNIT_NAMES if self.name.endswith(end)]
        return UNIT_NAMES[max(fits, key=len)] if fits else ""

    def wants(self) -> str:
        """What would be right, in a few words."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind in ("integer", "number", "share"):
            return f"{_NOUNS[self.kind]}{self._bounds()}"
        if self.kind == "text" and self.pattern:
            return f"a text of the form {self.pattern.strip('^$')}"
        return _NOUNS[self.kind]

    def _bounds(self) -> str:
        if self.kind == "share" or self.least is None:
            return ""
        low = f" above {self.least:g}" if self.above else f" from {self.least:g}"
        return low if self.most is None else f"{low} to {self.most:.0f}"

    def read(self, value: object, where: str) -> Any:
        """
        A value as a TOML file gives it.

        Raises:
            ConfigError: of another type or out of bounds.

        """
        return READERS[self.kind](self, value, where)

    def read_text(self, text: str, where: str) -> Any:
        """A value as people type it: lists by commas, switches by words; raises as `read`."""
        return self.read(_from_text(self, text), where)

    def fault(self, value: object, where: str) -> ConfigError:
        """The error that names the setting and what it takes."""
        shown = "another value" if self.secret else repr(value)
        return ConfigError(where, self.key, f"{self.wants()}, not {shown}")


_NOUNS: Final[Mapping[str, str]] = {
    "switch": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "share": "a share from 0 to 1, or a percentage such as '20%'",
    "text": "a text",
    "texts": "a list of texts",
    "mapping": "a table of texts",
    "tables": "a list of tables",
}


def _from_text(setting: Setting, text: str) -> object:
    """The value that a typed text most likely means; the text itself where it means none."""
    word = text.strip()
    if setting.kind == "switch":
        return True if word.lower() in TRUE else False if word.lower() in FALSE else text
    if setting.kind == "texts":
        return [part for part in (part.strip() for part in text.split(",")) if part]
    if setting.kind in ("integer", "number") or (setting.kind == "share" and "%" not in word):
        for number in (int, float):
            try:
                return number(word)
            except ValueError:
                continue
    return word


def _read_switch(setting: Setting, value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise setting.fault(value, where)
    return value


def _read_integer(setting: Setting, value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not _is_within(setting, value):
        raise setting.fault(value, where)
    return value


def _read_number(setting: Setting, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise setting.fault(value, where)
    if not math.isfinite(value) or not _is_within(setting, value):
        raise setting.fault(value, where)
    return float(value)


def _is_within(setting: Setting, value: float) -> bool:
    if setting.least is not None and (
        value < setting.least or (setting.above and value == setting.least)
    ):
        return False
    return setting.most is None or value <= setting.most


def _read_share(setting: Setting, value: object, where: str) -> float:
    if isinstance(value, str) and value.rstrip().endswith("%"):
        try:
            percent = float(value.rstrip()[:-1])
        except ValueError:
            raise setting.fault(value, where) from None
        if not 0 <= percent <= 100:
            raise setting.fault(value, where)
        return percent / 100
    return _read_number(setting, value, where)


def _read_text(setting: Setting, value: object, where: str) -> str:
    if not isinstance(value, str):
        raise setting.fault(value, where)
    if setting.pattern and not re.search(setting.pattern, value):
        raise setting.fault(value, where)
    most = setting.length_most
    if len(value) < setting.length_least or (most is not None and len(value) > most):
        length = f"{setting.length_least} to {most}" if most else f"at least {setting.length_least}"
        raise ConfigError(where, setting.key, f"a text of {length} characters, not {len(value)}")
    return value


def _read_choice(setting: Setting, value: object, where: str) -> str:
    if not isinstance(value, str):
        raise setting.fault(value, where)
    if value not in setting.choices:
        want = f"unknown value {value!r}; {meant(value, setting.choices)}"
        raise ConfigError(where, setting.key, want)
    return value


def _read_texts(setting: Setting, value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise setting.fault(value, where)
    return tuple(value)


def _read_mapping(setting: Setting, value: object, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise setting.fault(value, where)
    for name, item in value.items():
        if not isinstance(item, str):
            raise ConfigError(where, f"{setting.key}.{name}", f"a text, not {item!r}")
    return dict(value)


def _read_tables(setting: Setting, value: object, where: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise setting.fault(value, where)
    known = {entry.name: entry for entry in setting.entry}
    tables = []
    for position, table in enumerate(value):
        place = f"{setting.key}[{position}]"
        if not isinstance(table, Mapping):
            raise ConfigError(where, place, f"a table, not {table!r}")
        for name in table:
            if name not in known:
                raise ConfigError(where, f"{place}.{name}", f"unknown key; {meant(name, known)}")
        for entry in setting.entry:
            if entry.default is msgspec.NODEFAULT and entry.name not in table:
                raise ConfigError(where, f"{place}.{entry.name}", f"is missing: {entry.doc}")
        tables.append({name: known[name].read(item, where) for name, item in table.items()})
    return tuple(tables)


READERS: Final[Mapping[str, Callable[[Setting, object, str], Any]]] = {
    "switch": _read_switch,
    "integer": _read_integer,
    "number": _read_number,
    "share": _read_share,
    "text": _read_text,
    "choice": _read_choice,
    "texts": _read_texts,
    "mapping": _read_mapping,
    "tables": _read_tables,
}
"""How each kind of setting is read."""

_KINDS: Final[Mapping[type[inspect.Type], str]] = {
    inspect.BoolType: "switch",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "text",
    inspect.LiteralType: "choice",
    inspect.VarTupleType: "texts",
    inspect.DictType: "mapping",
}


def _setting(section: str, field: inspect.Field) -> Setting:
    """One declared field as an entry of the catalogue."""
    meta = field.type
    assert isinstance(meta, inspect.Metadata), f"{section}.{field.name} has no description"
    assert meta.extra_json_schema is not None
    kind, extra = _KINDS[type(meta.type)], meta.extra or {}
    entry: tuple[Setting, ...] = ()
    if isinstance(meta.type, inspect.VarTupleType) and isinstance(
        meta.type.item_type, inspect.StructType
    ):
        kind = "tables"
        entry = tuple(_setting(f"{section}.{field.name}", f) for f in meta.type.item_type.fields)
    least = getattr(meta.type, "gt", None)
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return Setting(
        section=section,
        name=field.name,
        kind="share" if extra.get("share") else kind,
        default=default,
        doc=meta.extra_json_schema["description"],
        least=getattr(meta.type, "ge", None) if least is None else least,
        above=least is not None,
        most=getattr(meta.type, "le", None),
        choices=tuple(map(str, getattr(meta.type, "values", ()))),
        pattern=getattr(meta.type, "pattern", None) or "",
        length_least=getattr(meta.type, "min_length", None) or 0,
        length_most=getattr(meta.type, "max_length", None),
        secret=bool(extra.get("secret")),
        path=bool(extra.get("path")),
        entry=entry,
    )


def _struct(kind: type) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


def sections() -> Mapping[str, str]:
    """The sections of the file in their order, each with what it is about; "" is the top."""
    found = {"": "Everything outside a section."}
    for field in _struct(Settings).fields:
        if isinstance(field.type, inspect.StructType):
            found[field.name] = (field.type.cls.__doc__ or "").strip()
    return found


def _all() -> Iterator[Setting]:
    fields = _struct(Settings).fields
    for field in fields:
        if isinstance(field.type, inspect.Metadata):
            yield _setting("", field)
    for field in fields:
        if isinstance(field.type, inspect.StructType):
            for inner in field.type.fields:
                yield _setting(field.name, inner)


CATALOGUE: Final[Mapping[str, Setting]] = {setting.key: setting for setting in _all()}
"""Every setting by its dotted name, in the order of the declarations."""
