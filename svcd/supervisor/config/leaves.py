"""The types of single values: each knows how to read a value, how to refuse one, and its JSON Schema.

Must not look anything up (files, users, other services): a value is judged by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Final

from svcd.record import entity
from svcd.supervisor.config.tree import kind_of
from svcd.supervisor.config.units import (
    DURATION_PATTERN,
    IN_QUOTES,
    SIGNAL_NAMES,
    SIGNAL_PATTERN,
    SIZE_PATTERN,
    RefusedError,
    near_miss,
    parse_duration,
    parse_signal,
    parse_size,
    show_duration,
    show_signal,
    show_size,
)

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_RULE: Final = "letters, digits, - and _, beginning with a letter or digit, at most 64"

THREAD_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
MIN_STACK_BYTES: Final = 256 * 1024  # with less, some of Python's own modules cannot even be imported
MAX_STACK_BYTES: Final = 1024 * 1024 * 1024
AUTO: Final = "auto"
MAX_PRELOADED: Final = 100
MAX_MODULE_NAME: Final = 200

SEEING: Final = "observability"

MAX_VERSION_LENGTH: Final = 100

_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_SCALAR: Final = {"type": ["string", "number", "boolean"]}


@entity
class Parsed:
    """Annotation: the value is read by ``parse``, which raises ``RefusedError``; ``schema`` is for editors.

    ``words``: what it is, for the reference; ``show``: a value as it would be written.
    """

    parse: Callable[[Any], Any]
    words: str
    schema: dict[str, Any]
    show: Callable[[Any], Any] = lambda value: value


@entity
class Shorthand:
    """Annotation of a mapping: ``expand`` turns its short form into the long one; ``schema`` describes the short,
    ``words`` both.
    """

    expand: Callable[[Any], Any]
    words: str
    schema: dict[str, Any]


class Later:
    """Annotation of a key that a later release delivers: only what means "not used" is accepted."""

    def __init__(self, release: str, *accepted: Any) -> None:
        self.release = release
        self.accepted = (None, *accepted)

    def parse(self, value: Any) -> None:
        if not any(_same(value, each) for each in self.accepted):
            raise RefusedError(f"not available yet; it comes with the {self.release} release", "remove it")


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


# ---- text ----------------------------------------------------------------------------------------------------------


def parse_text(value: Any) -> str:
    """Text that a file name, an argument or a variable can hold."""
    if not isinstance(value, str):
        quoted = f'{IN_QUOTES}"{str(value).lower() if isinstance(value, bool) else value}"'
        raise RefusedError(
            f"must be text, not {kind_of(value)}", quoted if isinstance(value, int | float) else "write text"
        )
    if "\0" in value:
        raise RefusedError("holds a NUL character", "remove it: arguments, paths and variables cannot hold one")
    return value


def parse_path(value: Any) -> str:
    text = parse_text(value)
    if not text:
        raise RefusedError("is empty", "write a path, or remove the key")
    return text


def parse_name(value: Any) -> str:
    """The name of a cluster or service."""
    text = value if isinstance(value, str) else parse_text(value)
    if not NAME.fullmatch(text):
        raise RefusedError(f'"{text[:80]}" cannot be a name', f"use {NAME_RULE}")
    return text


def parse_version(value: Any) -> str:
    text = parse_text(value)
    if not text.strip() or len(text) > MAX_VERSION_LENGTH or not text.isprintable():
        raise RefusedError(
            f'"{text[:80]!s}" is no version', f"use a word such as 1.4.2, of at most {MAX_VERSION_LENGTH} letters"
        )
    return text


def _each(value: list[Any], parse: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Every item, or one refusal that holds the refusals of all bad ones."""
    good, bad = [], []
    for index, item in enumerate(value):
        try:
            good.append(parse(item))
        except RefusedError as refused:
            bad.append(RefusedError(refused.text, refused.suggestion, (index, *refused.at)))
    _raise(bad)
    return tuple(good)


def _raise(bad: list[RefusedError]) -> None:
    if bad:
        first, *others = bad
        raise RefusedError(first.text, first.suggestion, first.at, tuple(others))


def list_of(parse: Callable[[Any], Any], example: str, single: bool = False) -> Callable[[Any], tuple[Any, ...]]:
    def parse_list(value: Any) -> tuple[Any, ...]:
        if single and isinstance(value, str):
            return (parse(value),)
        if not isinstance(value, list):
            raise RefusedError(f"must be a list, not {kind_of(value)}", f"write one such as {example}")
        return _each(value, parse)

    return parse_list


def parse_command(value: Any) -> tuple[str, ...]:
    """The arguments. A string is a shell's business."""
    if isinstance(value, str):
        if not parse_text(value).strip():
            raise RefusedError("is empty", "write the command to run")
        return ("/bin/sh", "-c", value)
    if not isinstance(value, list):
        raise RefusedError(
            f"must be a list or a string, not {kind_of(value)}", "write one such as [python3, server.py]"
        )
    if not value or value[0] == "":
        raise RefusedError("names no program", "write one such as [python3, server.py]")
    return _each(value, _parse_argument)


def _parse_argument(value: Any) -> str:
    if value is None:
        raise RefusedError("an argument is missing", 'write it, or "" for an empty one')
    if isinstance(value, list | dict):
        raise RefusedError(f"an argument cannot be {kind_of(value)}", "put it in quotes")
    return parse_text(value)


def parse_environment(value: Any) -> dict[str, str | None]:
    """Variables; None removes one."""
    if not isinstance(value, dict):
        example = "{LOG_LEVEL: info}"
        if isinstance(value, list):
            raise RefusedError("must be a mapping, not a list", f"write NAME: value, such as {example}")
        raise RefusedError(f"must be a mapping, not {kind_of(value)}", f"write one such as {example}")
    bad = []
    for name, item in value.items():
        if not name or "=" in name or "\0" in name:
            bad.append(RefusedError(f'"{name}" cannot be a variable', "use a name without = in it", (name,)))
        elif item is not None:
            try:
                parse_text(item)
            except RefusedError as refused:
                suggestion = "write text" if isinstance(item, list | dict) else refused.suggestion
                bad.append(RefusedError(refused.text, suggestion, (name,)))
    _raise(bad)
    return value


def parse_account(value: Any) -> str | int:
    """A user or group: name or number."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < 2**32 - 1:
            raise RefusedError(f"{value} is no user or group number", "use 0 to 4294967294, or a name")
        return value
    text = parse_text(value)
    if text.isascii() and text.isdigit():
        return parse_account(int(text[:20]))
    if not text:
        raise RefusedError("is empty", "write a name or a number, or remove the key")
    return text


def parse_umask(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise RefusedError(f"must be text, not the number {value}", f'write octal digits in quotes: "{value:03d}"')
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{1,4}", value) or int(value, 8) > 0o777:
        shown = kind_of(value)
        raise RefusedError(f"{shown} is no umask", 'write octal digits in quotes, "000" to "777", such as "022"')
    return int(value, 8)


def parse_entry(value: Any) -> str:
    """``module:Class`` or ``module:function``."""
    text = parse_text(value)
    module, colon, name = text.partition(":")
    words = [*module.split("."), *name.split(".")]
    if colon and all(word.isidentifier() for word in words):
        return text
    if module.endswith(".py") and not colon:
        suggestion = f"for a file write script: {text}"
    elif "/" in module or module.endswith(".py"):
        suggestion = f"write {module.removesuffix('.py').strip('./').replace('/', '.')}:{name or 'Class'}"
    elif not colon and all(word.isidentifier() for word in words[:-1]) and words[-2][:1].isupper() and len(words) > 2:
        suggestion = f"write {'.'.join(words[:-2])}:{words[-2]}"  # as Python itself names a class
    elif not colon and all(word.isidentifier() for word in module.split(".")):
        suggestion = f"write {module}:Class or {module}:function"
    else:
        suggestion = "write one such as shop.store:Store"
    raise RefusedError(f'"{text[:80]}" is not module:name', suggestion)


def parse_preload(value: Any) -> tuple[str, ...] | str:
    """Names of modules, each once; or ``auto``."""
    if value == AUTO:
        return AUTO
    if not isinstance(value, list):
        hint = f"write [{value}]" if isinstance(value, str) and is_module(value) else "write one such as [numpy]"
        raise RefusedError(f"must be a list of modules or auto, not {kind_of(value)}", hint)
    if len(value) > MAX_PRELOADED:
        raise RefusedError(f"names {len(value)} modules", f"name at most {MAX_PRELOADED}: those that take long")
    names = _each(value, _parse_module)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise RefusedError(f"{name} is named twice", "remove one of the two", (index,))
    return names


def is_module(text: str) -> bool:
    """Whether it may be the full name of a module."""
    return len(text) <= MAX_MODULE_NAME and all(word.isidentifier() for word in text.split("."))


def _parse_module(value: Any) -> str:
    text = parse_text(value)
    if is_module(text) and text not in ("__main__", AUTO):
        return text
    suggestion = "write one such as numpy or scipy.sparse"
    if text == AUTO:
        suggestion = "write preload: auto, without brackets"
    elif text.endswith(".py") or "/" in text or ":" in text:
        suggestion = "write the name that its users import, such as shop.models"
    raise RefusedError(f'"{text[:80]}" is no module', suggestion)


def parse_code(value: Any) -> str:
    text = parse_text(value)
    if not text.strip():
        raise RefusedError("is empty", "define one Service subclass, or a function main(ctx)")
    return text


# ---- numbers and words ---------------------------------------------------------------------------------------------


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        suggestion = "write true or false"
        if isinstance(value, str) and value.lower() in ("yes", "on", "y", "no", "off", "n"):
            suggestion = f"write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        raise RefusedError(f"must be true or false, not {kind_of(value)}", suggestion)
    return value


def _whole(low: int, high: int) -> Parsed:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusedError(f"must be a whole number, not {kind_of(value)}", f"use {low} to {high}")
        if not low <= value <= high:
            raise RefusedError(f"{value} is out of range", f"use {low} to {high}")
        return value

    return Parsed(parse, f"whole number, {low} to {high}", {"type": "integer", "minimum": low, "maximum": high})


def _real(low: float, high: float) -> Parsed:
    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError(f"must be a number, not {kind_of(value)}", f"use {low:g} to {high:g}")
        if not low <= value <= high:
            raise RefusedError(f"{value} is out of range", f"use {low:g} to {high:g}")
        return float(value)

    return Parsed(parse, f"number, {low:g} to {high:g}", {"type": "number", "minimum": low, "maximum": high})


def choice(enum: type[Enum]) -> Parsed:
    """One word of ``enum``."""
    words = {each.value: each for each in enum}
    *others, last = words
    allowed = f"{', '.join(others)} or {last}" if others else last

    def parse(value: Any) -> Enum:
        if isinstance(value, str) and value in words:
            return words[value]
        near = near_miss(value, words) if isinstance(value, str) else ""
        shown = f'"{value[:80]}"' if isinstance(value, str) else kind_of(value)
        raise RefusedError(f"{shown} is not one of {', '.join(words)}", near or f"use {allowed}")

    shown = ", ".join(f"`{each}`" for each in words)
    return Parsed(parse, shown, {"enum": list(words)}, lambda value: value.value)


def _positive_duration(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise RefusedError("must be more than zero", "write a duration such as 500ms or 10s")
    return seconds


def _positive_size(value: Any) -> int:
    size = parse_size(value)
    if size <= 0:
        raise RefusedError("must be more than zero", "write a size such as 512KiB or 10MiB")
    return size


def _stack_size(value: Any) -> int:
    size = parse_size(value)
    if not MIN_STACK_BYTES <= size <= MAX_STACK_BYTES:
        limits = f"{show_size(MIN_STACK_BYTES)} to {show_size(MAX_STACK_BYTES)}"
        raise RefusedError(f"{show_size(size)} is out of range", f"use {limits}")
    return size


def parse_thread_prefix(value: Any) -> str:
    text = parse_text(value)
    if not THREAD_PREFIX.fullmatch(text):
        rule = "letters, digits, -, _ and ., beginning with a letter or digit, at most 32"
        raise RefusedError(f'"{text[:80]}" cannot begin the name of a thread', f"use {rule}")
    return text


def parse_restarts(value: Any) -> int | None:
    """How many, or None for unlimited."""
    if value == "unlimited":
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(f"must be a whole number, not {kind_of(value)}", "use 0 or more, or unlimited")
    if not 0 <= value <= 1_000_000:
        raise RefusedError(f"{value} is out of range", "use 0 to 1000000, or unlimited")
    return value


def _parse_success_code(value: Any) -> int:
    if isinstance(value, str) and f"SIG{value.upper().removeprefix('SIG')}" in SIGNAL_NAMES:
        raise RefusedError(
            f"{value} is a signal: a death by signal is never a success", "list exit codes only; see prevent_codes"
        )
    return _parse_exit_code(value)


def _parse_exit_code(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(f"must be an exit code, not {kind_of(value)}", "use 0 to 255")
    if not 0 <= value <= 255:
        raise RefusedError(f"{value} is no exit code", "use 0 to 255")
    return value


def _parse_prevent_code(value: Any) -> int | str:
    """An exit code, or the canonical name of a signal."""
    if isinstance(value, str):
        return f"SIG{parse_signal(value)}"
    return _parse_exit_code(value)


# ---- JSON values ---------------------------------------------------------------------------------------------------


def parse_config(value: Any) -> dict[str, Any]:
    """What init(config) gets: JSON values, integers within 64 bits (they travel as MessagePack)."""
    if not isinstance(value, dict):
        raise RefusedError(
            f"must be a mapping, not {kind_of(value)}", "write keys and values, such as {path: store.db}"
        )
    bad: list[RefusedError] = []
    _check_json(value, (), bad)
    _raise(bad)
    return value


def _check_json(value: Any, at: tuple[int | str, ...], bad: list[RefusedError]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(item, (*at, key), bad)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_json(item, (*at, index), bad)
    elif isinstance(value, float) and not math.isfinite(value):
        bad.append(RefusedError(f"{value} cannot be handed on: JSON has no such number", "put it in quotes", at))
    elif isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        bad.append(RefusedError("the number needs more than 64 bits", "put it in quotes", at))


# ---- the types -----------------------------------------------------------------------------------------------------

_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{NAME.pattern}$"}
_TEXT_SCHEMA: Final = {"type": "string"}
_PATH_SCHEMA: Final = {"type": "string", "minLength": 1}
_PATHS_SCHEMA: Final = {"type": "array", "items": _PATH_SCHEMA}
_COMMAND_SCHEMA: Final = {
    "anyOf": [{"type": "string", "pattern": r"\S"}, {"type": "array", "items": _SCALAR, "minItems": 1}]
}
_ENV_SCHEMA: Final = {
    "type": "object",
    "propertyNames": {"pattern": "^[^=]+$"},
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}
_ACCOUNT_SCHEMA: Final = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0, "maximum": 4294967294}]
}
_DURATION_SCHEMA: Final = {"anyOf": [{"type": "string", "pattern": f"^(?:{DURATION_PATTERN})$"}, {"const": 0}]}
_POSITIVE_DURATION_SCHEMA: Final = {"type": "string", "pattern": f"^(?:{DURATION_PATTERN})$"}
_SIZE_SCHEMA: Final = {"type": "string", "pattern": f"^(?:{SIZE_PATTERN})$"}
_NAMES_SCHEMA: Final = {"type": "array", "items": _NAME_SCHEMA}
_SIGNAL_SCHEMA: Final = {
    "anyOf": [
        {"type": "string", "pattern": f"^(?:{SIGNAL_PATTERN})$"},
        {"type": "integer", "minimum": 1, "maximum": 64},
    ]
}
_EXIT_CODE_SCHEMA: Final = {"type": "integer", "minimum": 0, "maximum": 255}

Name = Annotated[str, Parsed(parse_name, "name", _NAME_SCHEMA)]
NameList = Annotated[
    tuple[str, ...],
    Parsed(
        list_of(parse_name, "[debug]", single=True), "list of names", {"anyOf": [_NAME_SCHEMA, _NAMES_SCHEMA]}, list
    ),
]
Path = Annotated[str, Parsed(parse_path, "path", _PATH_SCHEMA)]
Version = Annotated[
    str,
    Parsed(parse_version, "word", {"type": "string", "maxLength": MAX_VERSION_LENGTH, "pattern": r"\S"}),
]
Command = Annotated[tuple[str, ...], Parsed(parse_command, "list of arguments, or string", _COMMAND_SCHEMA, list)]
Entry = Annotated[str, Parsed(parse_entry, "`module:name`", {"type": "string", "pattern": "^[^:/]+:[^:/]+$"})]
Preload = Annotated[
    tuple[str, ...] | str,
    Parsed(
        parse_preload,
        "list of modules, or `auto`",
        {
            "anyOf": [
                {"const": AUTO},
                {
                    "type": "array",
                    "items": {"type": "string", "pattern": r"^[^\s./:-]+(?:\.[^\s./:-]+)*$"},
                    "maxItems": MAX_PRELOADED,
                    "uniqueItems": True,
                },
            ]
        },
        lambda value: value if isinstance(value, str) else list(value),
    ),
]
Code = Annotated[str, Parsed(parse_code, "text", {"type": "string", "pattern": r"\S"})]
PathList = Annotated[tuple[str, ...], Parsed(list_of(parse_path, "[lib]"), "list of paths", _PATHS_SCHEMA, list)]
FileList = Annotated[
    tuple[str, ...],
    Parsed(
        list_of(parse_path, "[.env]", single=True),
        "path, or list of paths",
        {"anyOf": [_PATH_SCHEMA, _PATHS_SCHEMA]},
        list,
    ),
]
Tags = Annotated[
    tuple[str, ...],
    Parsed(
        list_of(parse_path, "[storage]"),
        "list of words",
        {"type": "array", "items": {**_SCALAR, "minLength": 1}},
        list,
    ),
]
Environment = Annotated[dict[str, str | None], Parsed(parse_environment, "mapping of variables", _ENV_SCHEMA)]
Account = Annotated[str | int, Parsed(parse_account, "name or number", _ACCOUNT_SCHEMA)]
_OCTAL: Final = Parsed(
    parse_umask,
    "octal digits in quotes",
    {"type": "string", "pattern": "^(?:0?[0-7]{1,3})$"},
    lambda bits: f"{bits:04o}",
)
Umask = Annotated[int, _OCTAL]
FileMode = Annotated[int, _OCTAL]
Config = Annotated[dict[str, Any], Parsed(parse_config, "mapping", {"type": "object"})]
Flag = Annotated[bool, Parsed(_flag, "`true` or `false`", {"type": "boolean"})]
Duration = Annotated[float, Parsed(parse_duration, "duration", _DURATION_SCHEMA, show_duration)]
PositiveDuration = Annotated[
    float, Parsed(_positive_duration, "duration above zero", _POSITIVE_DURATION_SCHEMA, show_duration)
]
PositiveSize = Annotated[int, Parsed(_positive_size, "size", _SIZE_SCHEMA, show_size)]
StackSize = Annotated[int, Parsed(_stack_size, "size, 256KiB to 1GiB", _SIZE_SCHEMA, show_size)]
ThreadPrefix = Annotated[
    str,
    Parsed(parse_thread_prefix, "word", {"type": "string", "pattern": f"^{THREAD_PREFIX.pattern}$"}),
]
ComputeThreads = Annotated[int, _whole(0, 256)]
BlockingThreads = Annotated[int, _whole(2, 1024)]
Signal = Annotated[int, Parsed(parse_signal, "signal", _SIGNAL_SCHEMA, show_signal)]
Parallel = Annotated[int, _whole(0, 100_000)]
Instances = Annotated[int, _whole(1, 1000)]
Children = Annotated[int, _whole(0, 1000)]
Threshold = Annotated[int, _whole(1, 1000)]
HttpStatus = Annotated[int, _whole(100, 599)]
Descriptor = Annotated[int, _whole(3, 255)]
Kept = Annotated[int, _whole(0, 1000)]
Factor = Annotated[float, _real(1, 1000)]
Jitter = Annotated[float, _real(0, 1)]
Restarts = Annotated[
    int | None,
    Parsed(
        parse_restarts,
        "whole number, or `unlimited`",
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 1_000_000}, {"const": "unlimited"}]},
    ),
]
SuccessCodes = Annotated[
    tuple[int, ...],
    Parsed(
        list_of(_parse_success_code, "[0, 3]"),
        "list of exit codes",
        {"type": "array", "items": _EXIT_CODE_SCHEMA},
        list,
    ),
]
PreventCodes = Annotated[
    tuple[int | str, ...],
    Parsed(
        list_of(_parse_prevent_code, "[78, SIGKILL]"),
        "list of exit codes and signals",
        {"type": "array", "items": {"anyOf": [_EXIT_CODE_SCHEMA, _SIGNAL_SCHEMA["anyOf"][0]]}},
        list,
    ),
]
