"""Settings from TOML files: typed by pydantic, and what is wrong with them in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomllib
from pydantic import BaseModel, ConfigDict, ValidationError

from fedali.errors import SettingsError, did_you_mean


class Settings(BaseModel):
    """Base of settings: frozen, unknown keys are errors, docstrings are descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


_S = TypeVar("_S", bound=Settings)


def read_settings(kind: type[_S], path: Path | str) -> _S:
    """The settings in a TOML file; ``SettingsError`` naming the file, the key, and the nearest one that exists."""
    try:
        plain = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise SettingsError(f"cannot read {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from error
    return validated(kind, plain, str(path))


def validated(kind: type[_S], plain: Mapping[str, Any], where: str) -> _S:
    """The settings in ``plain``; ``SettingsError`` naming ``where``, the key, and the nearest one that exists."""
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(path[-1], _known_keys(kind, path[:-1]))
        raise SettingsError(f"{where}: unknown setting {key!r}; {hint}")
    if first["type"] == "missing":
        raise SettingsError(f"{where}: {key} is missing")
    message = first["msg"].removeprefix("Value error, ")
    seen = "" if first["type"] == "value_error" else f", not {_short(first['input'])}"
    at = f"{key}: " if key else ""
    raise SettingsError(f"{where}: {at}{message[:1].lower()}{message[1:]}{seen}")


def _known_keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    for part in path:
        if not part.isdigit():
            field = kind.model_fields.get(part)
            kind = next(_models(field.annotation), kind) if field else kind
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings in an annotation such as ``tuple[SiteSettings, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
