"""The published JSON Schema (draft 2020-12) of cluster.yaml, for editors, made from the fields of ``shape``.

Must not be stricter than ``load``: what an editor underlines in red is wrong.
"""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic.fields import FieldInfo

from svcd.supervisor.config.leaves import NAME, Later, Parsed, Shorthand
from svcd.supervisor.config.shape import BLOCKS, Block, Cluster, Edge, Service, Socket, key_names
from svcd.supervisor.config.words import RUN_KEYS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE: Final = {"$ref": "#/$defs/Variable"}  # ${NAME} may stand for any single value
_NULL: Final = {"type": "null"}  # a key that holds nothing is as good as not written


def json_schema() -> dict[str, Any]:
    """The schema as JSON values."""
    blocks = {each.__name__: each for each in BLOCKS.values() if each is not Cluster}
    definitions = {name: _object(block) for name, block in blocks.items()}
    definitions[Service.__name__]["allOf"] = [_not_both(*pair) for pair in combinations(RUN_KEYS, 2)]
    definitions["Variable"] = {"type": "string", "pattern": r"\$\{"}
    return {
        "$schema": DIALECT,
        "title": "svcd cluster",
        **_object(Cluster),
        "required": ["services"],
        "$defs": definitions,
    }


def _object(block: type[Block]) -> dict[str, Any]:
    properties = {key: _property(block.model_fields[name]) for key, name in key_names(block).items()}
    required = [key for key, name in key_names(block).items() if block.model_fields[name].is_required()]
    needs = {"required": required} if required and block is not Cluster else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **needs}


def _property(field: FieldInfo) -> dict[str, Any]:
    leaf, block = leaf_of(field), block_of(field)
    if isinstance(leaf, Later):
        return {"description": f"Comes with the {leaf.release} release.", "enum": list(leaf.accepted)}
    head: dict[str, Any] = {"description": field.description}
    default = shown_default(field)
    if default is not None:
        head["default"] = default
    if isinstance(leaf, Parsed):
        return {**head, "anyOf": [*leaf.schema.get("anyOf", [leaf.schema]), _VARIABLE, _NULL]}
    assert block is not None
    if block is Service and field.is_required():
        return {**head, "minProperties": 1, **_many(block, [], {"pattern": f"^{NAME.pattern}$"})}
    if block is Socket:
        return {**head, "anyOf": [{"type": "array", "items": _reference(block)}, _NULL]}
    long = _many(block, [_NULL]) if block is Edge else _reference(block)
    if isinstance(leaf, Shorthand):
        return {**head, "anyOf": [leaf.schema, long, _VARIABLE, _NULL]}
    return {**head, "anyOf": [long, _NULL]}


def _reference(block: type[Block]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{block.__name__}"}


def _many(block: type[Block], others: list[dict[str, Any]], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """A mapping whose values are blocks."""
    values = {"anyOf": [_reference(block), *others]} if others else _reference(block)
    return {"type": "object", **({"propertyNames": names} if names else {}), "additionalProperties": values}


def _not_both(first: str, second: str) -> dict[str, Any]:
    given = {"not": _NULL}
    return {"not": {"required": [first, second], "properties": {first: given, second: given}}}


# ---- what a field is -----------------------------------------------------------------------------------------------


def leaf_of(field: FieldInfo) -> Parsed | Shorthand | Later | None:
    """The annotation that reads the value of a field; None for a plain block."""
    for each in (*field.metadata, *_annotations(field.annotation)):
        if isinstance(each, Parsed | Shorthand | Later):
            return each
    return None


def block_of(field: FieldInfo) -> type[Block] | None:
    """The block that a field holds, or holds many of; None for a single value."""
    return next((each for each in _types(field.annotation) if issubclass(each, Block)), None)


def shown_default(field: FieldInfo) -> Any:
    """The default as it would be written; None when there is none to show."""
    leaf = leaf_of(field)
    if not isinstance(leaf, Parsed) or field.is_required() or field.get_default() is None:
        return None
    return leaf.show(field.get_default())


def _annotations(annotation: Any) -> list[Any]:
    """What ``Annotated`` says within ``Annotated[...] | None``."""
    if get_origin(annotation) is Annotated:
        return list(annotation.__metadata__)
    return [found for each in get_args(annotation) for found in _annotations(each)]


def _types(annotation: Any) -> list[type]:
    """Every class that an annotation names."""
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    if inner:
        return [found for each in inner for found in _types(each)]
    return [annotation] if isinstance(annotation, type) else []
