"""Validated settings from documents, and every problem as one line that says what to do.

Problems come out as `file: stages[1].timestep: what is wrong; what to do`, or
`stages.npt.timestep` for a stage with a name, all of a file in one `ConfigError`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from trip_mm.errors import ConfigError
from trip_mm.simulation.yaml_io import Document, Location, describe_type, format_location
from trip_mm.suggestions import closest

ModelT = TypeVar("ModelT", bound=BaseModel)

_PLAIN_NAME = re.compile(r"[A-Za-z_][\w-]*")

_EXPECTED = {
    "string_type": "expected text; put it in quotes",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list (lines that begin with `- `)",
    "tuple_type": "expected a list (lines that begin with `- `)",
    "path_type": "expected the name of a file",
    "model_type": "expected `key: value` lines",
    "model_attributes_type": "expected `key: value` lines",
    "dict_type": "expected `key: value` lines",
}
"""By pydantic's type of error."""


def validate(model: type[ModelT], document: Document, source: str) -> ModelT:
    """Checks a document against a settings model.

    Args:
        model: pydantic model class of the document.
        document: what the file holds.
        source: path of the file, for messages and for paths relative to it.

    Raises:
        ConfigError: one line per problem, `source: key.path: what; what to do`.
    """
    try:
        return model.model_validate(document, context={"folder": Path(source).parent})
    except ValidationError as error:
        lines: list[str] = []
        found = error.errors()
        meant = {_meant(details, model) for details in found}
        for details in found:
            if _is_consequence(details, model, meant):
                continue
            for location, message in _problems(details, model, document):
                path = format_location(_with_names(location, document))
                line = f"{source}: {path}: {message}" if path else f"{source}: {message}"
                if line not in lines:
                    lines.append(line)
        raise ConfigError("\n".join(lines)) from None


def problems(found: Sequence[tuple[str, str]]) -> PydanticCustomError:
    """Builds the error of a model validator that found problems at several keys.

    Args:
        found: pairs of key (relative to the model, empty for the model itself) and message.
    """
    return PydanticCustomError("problems", "several problems", {"found": list(found)})


def split_path(path: str) -> Location:
    """Splits a key path: `stages.1.duration` and `stages[1].duration` are the same."""
    parts = path.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def entry_names(entries: Sequence[Any]) -> list[Any]:
    """Returns by what --set finds the entries of a list: their name, or else their kind."""
    return [
        entry.get("name", entry.get("kind")) if isinstance(entry, dict) else None
        for entry in entries
    ]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean ...?` for a near miss, otherwise the list of what is known."""
    close = closest(word, known)
    return f"; known: {', '.join(known)}" if close is None else f"; did you mean {close!r}?"


def nested_model(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    """Returns the settings model that stands at a key path below `model`, if one does."""
    return _follow(model, location)[1]


def keys_of(model: type[BaseModel]) -> list[str]:
    """Returns the YAML keys of a settings model."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _follow(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[Location, type[BaseModel] | None]:
    """Follows a key path; of settings of several kinds pydantic names the kind in it.

    Returns:
        The path without such kinds, and the settings model at its end, if one stands there.
    """
    keys: list[int | str] = []
    models: list[type[BaseModel]] = [model]
    for part in location:
        kinds = [each for each in models if part in _kinds(each)]
        if len(models) > 1 and kinds:
            models = kinds
            continue
        keys.append(part)
        if isinstance(part, str):
            fields = models[0].model_fields.items() if models else ()
            field = next((f for name, f in fields if (f.alias or name) == part), None)
            models = list(_models_in(field.annotation)) if field is not None else []
    return tuple(keys), models[0] if models else None


def _kinds(model: type[BaseModel]) -> Iterator[object]:
    for field in model.model_fields.values():
        values = get_args(field.annotation)
        if get_origin(field.annotation) is Literal and len(values) == 1:
            yield values[0]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _with_names(location: Location, document: Document) -> Location:
    """Calls entries of lists by their names, where they have one of their own, as --set does."""
    parts: list[int | str] = []
    current: Any = document
    for part in location:
        named: int | str = part
        if isinstance(part, int) and isinstance(current, list) and part < len(current):
            names, current = entry_names(current), current[part]
            name = current.get("name") if isinstance(current, dict) else None
            if isinstance(name, str) and _PLAIN_NAME.fullmatch(name) and names.count(name) == 1:
                named = name
        else:
            current = current.get(part) if isinstance(current, Mapping) else None
        parts.append(named)
    return tuple(parts)


def _problems(
    details: ErrorDetails, model: type[BaseModel], document: Document
) -> Iterator[tuple[Location, str]]:
    location = _follow(model, details["loc"])[0]
    if details["type"] == "problems":
        for key, message in details["ctx"]["found"]:
            inner: Location = (*location, *split_path(key)) if key else location
            yield _origin(inner, document), message
        return
    if details["type"].startswith("union_tag_"):
        location = (*location, details["ctx"]["discriminator"].strip("'"))
    yield _origin(location, document), _message(details, model)


def _meant(details: ErrorDetails, model: type[BaseModel]) -> Location | None:
    """Returns the key that an unknown one stands for, if it is clear."""
    if details["type"] != "extra_forbidden":
        return None
    parent, holder = _follow(model, details["loc"][:-1])
    close = closest(str(details["loc"][-1]), keys_of(holder) if holder is not None else [])
    return (*parent, close) if close is not None else None


def _is_consequence(
    details: ErrorDetails, model: type[BaseModel], meant: Set[Location | None]
) -> bool:
    """Whether a problem is gone with another one: a misspelt key, or items that are wrong."""
    if details["type"] == "missing":
        return _follow(model, details["loc"])[0] in meant
    is_short = details["type"] == "too_short"  # pydantic counts the items that are right
    return is_short and len(details["input"]) >= int(details["ctx"]["min_length"])


def _origin(location: Location, document: Document) -> Location:
    """Points a problem of an inherited stage setting at the `defaults` block it came from."""
    defaults, stages = document.get("defaults"), document.get("stages")
    if len(location) < 3 or location[0] != "stages" or not isinstance(location[1], int):
        return location
    if not isinstance(defaults, Mapping) or not isinstance(stages, list):
        return location
    stage, key = stages[location[1]], location[2]
    inherited = isinstance(stage, Mapping) and key not in stage and key in defaults
    return ("defaults", *location[2:]) if inherited else location


def _message(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind in ("missing", "union_tag_not_found"):
        return "is required but missing; add it"
    if kind == "extra_forbidden":
        parent = nested_model(model, details["loc"][:-1])
        known = keys_of(parent) if parent is not None else []
        return f"unknown key{did_you_mean(str(details['loc'][-1]), known)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("literal_error", "union_tag_invalid"):
        return _choice(value, context)
    if kind in ("too_short", "too_long"):
        least = kind == "too_short"
        bound = f"least {context['min_length']}" if least else f"most {context['max_length']}"
        return f"holds {len(value)} items, expected at {bound}"
    if kind in _EXPECTED:
        unit = isinstance(value, str) and value[:1].isdigit() and "number" in _EXPECTED[kind]
        return f"is {describe_type(value)}, {_EXPECTED[kind]}{' without a unit' * unit}"
    if kind == "string_pattern_mismatch" and isinstance(value, str):
        return f"{value[:40]!r} does not match {context['pattern']}; use letters, digits and -"
    text = details["msg"][:1].lower() + details["msg"][1:]
    return f"{text} (it is {describe_type(value)})"


def _choice(value: Any, context: Mapping[str, Any]) -> str:
    """Says what may stand where one of several texts was expected."""
    expected = context["expected"] if "expected" in context else context["expected_tags"]
    options = [option.strip("' ") for option in expected.replace(" or ", ",").split(",")]
    if "discriminator" in context:
        value = value.get(context["discriminator"].strip("'"))
    if isinstance(value, str):
        return f"{value[:40]!r} is not known{did_you_mean(value, options)}"
    return f"is {describe_type(value)}, expected one of {', '.join(options)}"
