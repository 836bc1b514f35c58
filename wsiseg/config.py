"""Settings: frozen models, filled from defaults, a file, options and overrides, in that order."""

from __future__ import annotations

import difflib
import json
import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wsiseg.atomic import write_bytes
from wsiseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Config(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=Config)


def load(
    model: type[C], *, file: Path | None = None, options: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> C:
    """Return settings of type `model`.

    Parameters
    ----------
    model
        What to fill.
    file
        TOML file, or None.
    options
        Values the user typed; None means not given.
    overrides
        ``key=value`` strings; dots reach into nested settings, values are TOML, text that is
        not TOML is taken as it stands.

    Raises
    ------
    ConfigError
        If a key is unknown or a value does not fit.
    """
    values: dict[str, Any] = _read_toml(file) if file is not None else {}
    values.update({key: value for key, value in (options or {}).items() if value is not None})
    for override in overrides:
        _override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, error, file) from error


def save(config: Config, path: Path) -> None:
    """Write the resolved settings to `path` as JSON, whole or not at all."""
    write_bytes(path, json.dumps(config.model_dump(mode="json"), indent=2).encode() + b"\n")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with some replaced.

    >>> merged({"numbers": {"lr": 0.1, "epochs": 20}}, {"numbers": {"lr": 0.01}})
    {'numbers': {'lr': 0.01, 'epochs': 20}}
    """
    result = dict(base)
    for key, value in changes.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def flattened(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by their whole names.

    >>> flattened({"numbers": {"lr": 0.1}, "gate": True})
    {'numbers.lr': 0.1, 'gate': True}
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        inner = flattened(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}" if name else key: one for name, one in inner.items()}
    return flat


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("there is no such config file", where=file) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML: {error}", where=file) from error


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"cannot read the setting {override!r}", where="--set", mend="Write --set key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, leaf = key.strip().split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"{parent} is a value and has no keys", where=f"--set {override}")
    place[leaf] = value


def _explain(model: type[BaseModel], error: ValidationError, file: Path | None) -> ConfigError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = _keys(model, path[:-1])
        near = difflib.get_close_matches(path[-1], known, n=1)
        mend = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}"
        return ConfigError(f"unknown setting {'.'.join(path)}", where=file, mend=mend)
    if first["type"] == "missing":
        key = ".".join(path)
        return ConfigError(f"{key} is not given", where=file, mend=f"Pass --{key.replace('_', '-')}, or --set {key}=…")
    # A setting that may be of several types fails once for each, and the place ends with the type.
    named = [part for part in path if "[" not in part]
    messages = [first["msg"].removeprefix("Value error, ")]
    if named != path:
        others = [one for one in error.errors()[1:] if [str(part) for part in one["loc"][: len(named)]] == named]
        messages += [one["msg"].removeprefix("Input should be ").partition(",")[0] for one in others]
        path = named
    message = " or ".join(messages)
    message = message[:1].lower() + message[1:]
    given = first.get("input")
    shown = f" (got {given!r})" if path and isinstance(given, str | int | float | bool) else ""
    return ConfigError(f"{'.'.join(path)}: {message}{shown}" if path else message, where=file)


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
