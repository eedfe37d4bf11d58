"""YAML files in, plain documents out.

Reading is safe and strict: no tags, no duplicate keys, no aliases that contain themselves, one
document whose root is a mapping.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trip_mm.errors import ConfigError

Document = dict[str, Any]
Location = tuple[int | str, ...]

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 32

_OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


class _StrictLoader(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses duplicate keys and leaves dates as text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a mapping, refusing a key that occurs twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return node


_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(path: Path) -> Document:
    """Reads the mapping that a YAML file holds.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, not YAML, or not a plain mapping. The
            message names the file and, for syntax, line and column.
    """
    return parse_yaml(_read_text(path), str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Reads the mapping in a YAML text; `source` names it in messages.

    Raises:
        ConfigError: as for `read_yaml`.
    """
    try:
        _refuse_tags_and_depth(text)
        document = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{source}{_place(error)}: {_yaml_problem(error)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    except ValueError as error:
        raise ConfigError(f"{source}: a value cannot be read: {error}") from error
    if document is None:
        raise ConfigError(f"{source}: the file is empty; it needs `key: value` lines")
    if not isinstance(document, dict):
        raise ConfigError(
            f"{source}: the top level is {describe_type(document)}, expected `key: value` lines"
        )
    _refuse_odd_shapes(document, source, (), (), set())
    return document


def format_location(location: Sequence[int | str]) -> str:
    """Writes a key path: `("stages", 1, "timestep")` becomes `stages[1].timestep`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def describe_type(value: object) -> str:
    """Names the YAML type of a value without printing its content."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, int | float):
        return f"the number {str(value)[:40]}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "a mapping"


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder; name a YAML file in it") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: not a file name: {error}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: {len(data)} bytes is too long for a settings file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text"
        ) from error


def _refuse_tags_and_depth(text: str) -> None:
    """Reads the tokens, before anything is built from them."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        problem = ""
        if isinstance(token, yaml.TagToken):
            tag = "".join(part or "" for part in token.value)
            problem = f"the tag {tag!r} is not allowed; remove it"
        elif depth > _MAX_DEPTH:
            problem = f"nested deeper than {_MAX_DEPTH} levels; flatten it"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, token.start_mark)


def _place(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return "" if mark is None else f": line {mark.line + 1}, column {mark.column + 1}"


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return " ".join(", ".join(parts).split()) or "not YAML"


def _refuse_odd_shapes(
    value: object, source: str, location: Location, open_: tuple[int, ...], seen: set[int]
) -> None:
    """Refuses keys that are not text, containers that hold themselves and extreme depth."""
    if not isinstance(value, dict | list):
        return
    path = format_location(location)
    if id(value) in open_:
        raise ConfigError(f"{source}: {path}: refers to itself through an alias; write it out")
    if len(open_) >= _MAX_DEPTH:
        raise ConfigError(f"{source}: {path}: nested deeper than {_MAX_DEPTH} levels; flatten it")
    if id(value) in seen:
        return
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    for key, item in items:
        if isinstance(value, dict) and not isinstance(key, str):
            where = f"{path}: " if path else ""
            raise ConfigError(
                f"{source}: {where}a key is {describe_type(key)}, expected text; put it in quotes"
            )
        _refuse_odd_shapes(item, source, (*location, key), (*open_, id(value)), seen)
    seen.add(id(value))
