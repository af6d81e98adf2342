"""Mappings with known keys: how a block of cluster.yaml is declared, and how what was written becomes one.

Must not know which blocks there are (``shape``), nor in what words a mistake is told (``wording``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, NoReturn, Self, Union, dataclass_transform, get_args, get_origin

from svcd.record import entity, record
from svcd.supervisor.config.leaves import Later, Parsed, Shorthand
from svcd.supervisor.config.tree import Loc
from svcd.supervisor.config.units import RefusedError

REQUIRED: Final[Any] = object()
"""The default of a key that must be there."""

_ABSENT: Final = object()


class Fault(Enum):
    """What can be wrong with a value, apart from what it says itself."""

    REFUSED = "refused"
    UNKNOWN = "unknown"
    MISSING = "missing"
    NOT_A_MAPPING = "not a mapping"
    NOT_A_LIST = "not a list"


@record
class Problem:
    """``value`` stands at ``loc``; ``refused``: why its type does not take it, with ``Fault.REFUSED``."""

    fault: Fault
    loc: Loc
    value: Any
    refused: RefusedError | None = None


class ShapeError(ValueError):
    """Values that make no block: every problem, in the order of the block's keys."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@entity
class Key:
    """One key of a block. ``name`` is the attribute that holds its value, ``key`` what is written in the file."""

    name: str
    key: str
    annotation: Any
    default: Any
    description: str

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


@record
class Declared:
    default: Any
    description: str
    spelled: str


def key(*, default: Any = REQUIRED, description: str, spelled: str = "") -> Any:
    """Declares a key of a block. ``spelled``: in the file, where that cannot be the name of an attribute."""
    return Declared(default, description, spelled)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key,))
class Block:
    """A mapping with known keys. A key that holds nothing (``key:``) is as good as not written.

    What a key takes is its annotation: an ``Annotated`` of ``leaves``, a block, a list of blocks or a mapping from
    names to blocks, or one of these ``| None``. ``written_keys``: the attributes whose keys were written.
    """

    example: ClassVar[str] = ""
    written_keys: ClassVar[frozenset[str]] = frozenset()
    _keys: ClassVar[dict[str, Key]] = {}

    def __init_subclass__(cls) -> None:
        kinds: dict[str, Any] = cls.__annotations__
        cls._keys = {
            name: _declared(name, annotation, cls.__dict__.get(name, REQUIRED))
            for name, annotation in kinds.items()
            if get_origin(annotation) is not ClassVar
        }

    def __init__(self, **values: Any) -> None:
        vars(self).update({name: each.default for name, each in self._keys.items()}, **values)

    @classmethod
    def read(cls, value: Any) -> Self:
        """The block that ``value`` describes. Raises ``ShapeError`` with all that is wrong."""
        problems: list[Problem] = []
        block = _read_block(cls, value, (), problems)
        if problems:
            raise ShapeError(problems)
        return block  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self._keys)

    __hash__ = None  # type: ignore[assignment]  # some hold mappings

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"cannot change {name!r}: a block stays as it was read")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._keys)})"


def _declared(name: str, annotation: Any, value: Any) -> Key:
    if isinstance(value, Declared):
        return Key(name, value.spelled or name, annotation, value.default, value.description)
    return Key(name, name, annotation, value, "")


def keys_of(block: type[Block]) -> Mapping[str, Key]:
    """Attribute -> key."""
    return block._keys


def key_names(block: type[Block]) -> dict[str, str]:
    """Key as written -> attribute."""
    return {each.key: name for name, each in block._keys.items()}


# ---- what a key takes ------------------------------------------------------------------------------------------------


def leaf_of(key: Key) -> Parsed | Shorthand | Later | None:
    """The annotation that reads the value of a key; None for a plain block."""
    annotation = _without_none(key.annotation)
    return annotation.__metadata__[0] if get_origin(annotation) is Annotated else None


def block_of(key: Key) -> type[Block] | None:
    """The block that a key holds, or holds many of; None for a single value."""
    found = _bare(key.annotation)
    found = get_args(found)[-1] if get_origin(found) in (list, dict) else found
    return found if isinstance(found, type) and issubclass(found, Block) else None


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        others = [each for each in get_args(annotation) if each is not type(None)]
        return others[0] if len(others) == 1 else annotation
    return annotation


def _bare(annotation: Any) -> Any:
    """The type itself, without ``| None`` and what ``Annotated`` says of it."""
    annotation = _without_none(annotation)
    return annotation.__origin__ if get_origin(annotation) is Annotated else annotation


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read_block(block: type[Block], value: Any, loc: Loc, problems: list[Problem]) -> Any:
    if isinstance(value, block):
        return value
    if not isinstance(value, dict):
        problems.append(Problem(Fault.NOT_A_MAPPING, loc, value))
        return None
    found, known = dict[str, Any](), set[str]()
    for name, each in block._keys.items():
        spelled = each.key if each.key in value else name
        known.add(spelled)
        item = value.get(spelled)
        if item is not None:
            found[name] = _read(each, item, (*loc, each.key), problems)
        elif each.is_required:
            problems.append(Problem(Fault.MISSING, (*loc, each.key), None))
    problems.extend(Problem(Fault.UNKNOWN, (*loc, other), value[other]) for other in value if other not in known)
    made = block(**found)
    vars(made)["written_keys"] = frozenset(found)
    return made


def _read(key: Key, value: Any, loc: Loc, problems: list[Problem]) -> Any:
    """The value of one key; None where it is wrong, which is then among ``problems``."""
    leaf = leaf_of(key)
    try:
        if isinstance(leaf, Shorthand):
            value = leaf.expand(value)
        elif leaf is not None:
            return leaf.parse(value)
    except RefusedError as refused:
        problems.append(Problem(Fault.REFUSED, loc, value, refused))
        return None
    return _read_blocks(key, value, loc, problems)


def _read_blocks(key: Key, value: Any, loc: Loc, problems: list[Problem]) -> Any:
    block, kind = block_of(key), get_origin(_bare(key.annotation))
    assert block is not None
    if kind is None:
        return _read_block(block, value, loc, problems)
    if not isinstance(value, kind):
        problems.append(Problem(Fault.NOT_A_LIST if kind is list else Fault.NOT_A_MAPPING, loc, value))
        return None
    if kind is list:
        return [_read_block(block, each, (*loc, index), problems) for index, each in enumerate(value)]
    return {name: _read_block(block, each, (*loc, name), problems) for name, each in value.items()}
