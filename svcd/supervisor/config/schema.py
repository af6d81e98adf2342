"""The published JSON Schema (draft 2020-12) of cluster.yaml, for editors, made from the fields of ``shape``.

Must not be stricter than ``load``: what an editor underlines in red is wrong.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

from svcd.supervisor.config.block import Block, Key, block_of, key_names, keys_of, leaf_of
from svcd.supervisor.config.leaves import NAME, Later, Parsed, Shorthand
from svcd.supervisor.config.shape import BLOCKS, Cluster, Edge, Service, Socket
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
    properties = {key: _property(keys_of(block)[name]) for key, name in key_names(block).items()}
    required = [key for key, name in key_names(block).items() if keys_of(block)[name].is_required]
    needs = {"required": required} if required and block is not Cluster else {}
    return {"type": "object", "properties": properties, "additionalProperties": False, **needs}


def _property(field: Key) -> dict[str, Any]:
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
    if block is Service and field.is_required:
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


def shown_default(field: Key) -> Any:
    """The default as it would be written; None when there is none to show."""
    leaf = leaf_of(field)
    if not isinstance(leaf, Parsed) or field.is_required or field.default is None:
        return None
    return leaf.show(field.default)
