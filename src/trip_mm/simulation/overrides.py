"""Changes to a settings document from the command line: `stages.1.duration=2 ps`."""

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from trip_mm.errors import ConfigError
from trip_mm.simulation.config_io import entry_names, keys_of, nested_model, split_path
from trip_mm.simulation.protocol_config import StageSettings
from trip_mm.simulation.stage_keys import KEYS_OF_KIND
from trip_mm.simulation.system_config import PotentialConfig
from trip_mm.simulation.yaml_io import (
    Document,
    Location,
    describe_type,
    format_location,
    parse_yaml,
)

_PROTOCOL_KEYS = ("stages", "defaults", "seed")
_STAGE_KEYS = frozenset().union(*KEYS_OF_KIND.values()) - {"name", "potential"}


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sorts `key.path=value` changes into those of the system and those of the protocol.

    Raises:
        ConfigError: a setting of stages that does not say of which.
    """
    for_system: list[str] = []
    for_protocol: list[str] = []
    for override in overrides:
        first = override.split("=")[0].split(".")[0].split("[")[0].strip()
        if first in ("system", "protocol"):
            if "." not in override.partition("=")[0]:
                raise ConfigError(
                    f"--set {override!r}: write {first}.KEY=VALUE for a setting in the {first} file"
                    "; another file is an argument of the command"
                )
            own = for_system if first == "system" else for_protocol
            own.append(override.split(".", 1)[1])
        elif first in _PROTOCOL_KEYS:
            for_protocol.append(override)
        elif first in _STAGE_KEYS:
            places = [f"stages.NAME.{first}"]
            places += [f"defaults.{first} (every stage)"] if first in keys_of(StageSettings) else []
            raise ConfigError(f"--set {override!r}: a setting of stages; set {' or '.join(places)}")
        else:
            for_system.append(override)
    return for_system, for_protocol


def apply_overrides(
    document: Document, overrides: Sequence[str], model: type[BaseModel], source: str
) -> Document:
    """Returns a copy of a settings document with single values replaced.

    Args:
        document: what the file holds; not changed.
        overrides: `path=value`; parts of a path are keys, list indices or, in a list, the `name`
            of an entry (`stages.production.duration=2 ps`). The value is read as YAML.
        model: settings model of the document; a key that it has need not be in the file.
        source: path of the file, for messages.

    Raises:
        ConfigError: no `=`, an unreadable value, or a path that leads nowhere; the message lists
            what there is.
    """
    changed = copy.deepcopy(document)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"--set {override!r}: write key.path=value, e.g. seed=2")
        value = parse_yaml(f"value: {text.strip()}", f"--set {override!r}")["value"]
        _assign(changed, split_path(path.strip()), value, model, f"{source}: --set {path.strip()}")
    return changed


def _assign(
    document: Document, path: Location, value: Any, model: type[BaseModel], where: str
) -> None:
    current: Any = document
    walked: Location = ()
    for part in path[:-1]:
        key = _existing_key(current, part, walked, model, where)
        child = current[key] if isinstance(current, list) else current.get(key)
        if key == "potential" and path[-1] == "precision" and isinstance(child, str):
            current[key] = child = _expanded_potential(child)
        if (key == "potential" and path[-1] != "precision") or (
            child is None and isinstance(current, dict)
        ):
            current[key] = child = {}
        current, walked = child, (*walked, key)
    current[_existing_key(current, path[-1], walked, model, where)] = value


def _expanded_potential(text: str) -> Any:
    """Returns `trip:NAME` as `{trip: NAME}`; a text that means nothing is left to its file."""
    try:
        return PotentialConfig.model_validate(text).model_dump()
    except ValidationError:
        return text


def _existing_key(
    container: Any, part: int | str, path: Location, model: type[BaseModel], where: str
) -> Any:
    """Returns the index or key of `part` in a container, or says what the container has."""
    at = format_location(path) or "the file"
    if isinstance(container, list):
        names = entry_names(container)
        if isinstance(part, int) and part < len(container):
            return part
        if names.count(part) == 1:
            return names.index(part)
        known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
        what = "several entries" if part in names else "no entry"
        raise ConfigError(f"{where}: {at} has {what} {part}; there are: {known}")
    if not isinstance(container, dict):
        raise ConfigError(f"{where}: {at} is {describe_type(container)} and has no key {part!r}")
    nested = nested_model(model, path)
    known_keys = list(dict.fromkeys([*container, *(keys_of(nested) if nested else [])]))
    if path and path[-1] == "potential":
        return part
    if part not in known_keys:
        raise ConfigError(f"{where}: {at} has no key {part!r}; there are: {', '.join(known_keys)}")
    return part
