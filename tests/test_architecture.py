"""Checks the import rules of docs/architecture.md on the source itself.

Must not import what it checks: a rule is broken by being written, whether or not the line runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "svcd"

# Who may import whom, by the longest prefix that fits; importing from one's own prefix is always allowed.
ALLOWED: dict[str, tuple[str, ...]] = {
    "svcd.record": (),
    "svcd": ("svcd.client", "svcd.worker_runtime", "svcd.protocol"),  # the public face alone
    "svcd.__main__": ("svcd.cli",),
    "svcd.cli": ("svcd.client", "svcd.protocol", "svcd.supervisor.config"),
    "svcd.client": ("svcd.worker_runtime", "svcd.protocol"),
    "svcd.protocol": (),
    "svcd.worker_runtime": ("svcd.protocol",),
    "svcd.supervisor": ("svcd.supervisor.core", "svcd.supervisor.config", "svcd.protocol"),
    "svcd.supervisor.config": ("svcd.supervisor.core",),
    "svcd.supervisor.core": (),
}

# What every package of ours may use, as if it were the standard library's; it may itself use little of that.
VOCABULARY = "svcd.record"
VOCABULARY_MAY_USE = frozenset({"__future__", "collections", "dataclasses", "operator", "reprlib", "typing"})

# The fork server is the launcher with the worker runtime already imported, which is its purpose; and an interpreter
# without setproctitle names its process as the lean parts do.
EXCEPTIONS = {
    ("svcd.supervisor.launcher", "svcd.worker_runtime.stub"),
    ("svcd.worker_runtime.foreign", "svcd.supervisor.title.set_title"),
}

# The core decides; whatever could tell it the time, roll dice or touch the world stays outside. What it may use is
# listed, so that a new clock in the standard library needs no new rule.
CORE_MAY_USE = frozenset(
    {
        "__future__",
        "bisect",
        "collections",
        "contextlib",
        "dataclasses",
        "difflib",
        "enum",
        "functools",
        "heapq",
        "itertools",
        "math",
        "operator",
        "types",
        "typing",
    }
)
CORE_MAY_NOT_CALL = frozenset({"open", "input", "eval", "exec", "__import__", "breakpoint"})

# These start before any site directory is on sys.path, or in every process: the standard library and each other only.
LEAN = (
    "guardian", "wiring", "clone", "launcher", "preloading", "child_setup", "collector", "logfile", "part", "title",
    "headstart",
)  # fmt: skip
LEAN_EXCEPT = {
    "svcd.supervisor.launcher": frozenset({"setproctitle", "svcd.worker_runtime"}),  # the fork server's preload
    "svcd.supervisor.child_setup": frozenset({"setproctitle"}),
    "svcd.supervisor.guardian": frozenset({"setproctitle"}),
    "svcd.supervisor.collector": frozenset({"setproctitle"}),
}

# The daemon reads a plan that was made for it; a stub runs in every Python service: neither pays for these.
NEVER_HERE: dict[str, frozenset[str]] = {
    "svcd.supervisor.controller": frozenset({"yaml", "rich", "click"}),
    "svcd.worker_runtime": frozenset({"yaml", "rich", "click"}),
    "svcd.client": frozenset({"yaml", "rich", "click", "zmq"}),
    "svcd.cli": frozenset({"zmq"}),
    "svcd.protocol": frozenset({"yaml", "rich", "click", "zmq", "asyncio"}),
    "svcd.supervisor.config.plan": frozenset({"yaml"}),
    "svcd.supervisor.config.launch": frozenset({"yaml"}),
}


# The controller's wings, from the top: none imports from one above it.
WINGS = ("changing", "clients", "python", "watching", "processes")


def _module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str, source: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything that ``source`` imports, at any depth, ``from`` names included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".") if is_package else module.split(".")[:-1]
                parent = parent[: len(parent) - node.level + 1]
                base = ".".join([*parent, base]) if base else ".".join(parent)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _imports(module: str) -> list[tuple[int, str]]:
    path = MODULES[module]
    return list(imports_of(module, path.read_text(), path.name == "__init__.py"))


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _rule_for(module: str) -> str:
    return max((prefix for prefix in ALLOWED if _within(module, prefix)), key=len)


def broken_imports(module: str, imports: list[tuple[int, str]]) -> list[str]:
    """The imports of our own that the rules do not allow, in words."""
    prefix = _rule_for(module)
    found = []
    for line, name in imports:
        if not _within(name, "svcd"):
            continue
        if name in ("svcd.__version__", "svcd") or _within(name, VOCABULARY) or (module, name) in EXCEPTIONS:
            allowed = True
        elif prefix == "svcd":
            allowed = any(_within(name, other) for other in ALLOWED[prefix])
        else:
            allowed = _within(name, prefix) or any(_within(name, other) for other in ALLOWED[prefix])
        if not allowed:
            found.append(
                f"{module}:{line} imports {name}; {prefix} may import {', '.join(ALLOWED[prefix]) or 'nothing'}"
            )
    return found


def _is_standard(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module: str) -> None:
    assert broken_imports(module, _imports(module)) == []


@pytest.mark.parametrize("module", [name for name in MODULES if _within(name, "svcd.supervisor.core")])
def test_the_core_uses_no_clock_no_dice_and_no_world(module: str) -> None:
    foreign = [
        f"{module}:{line} imports {name}"
        for line, name in _imports(module)
        if not _within(name, "svcd.supervisor.core")
        and not _within(name, VOCABULARY)
        and name.partition(".")[0] not in CORE_MAY_USE
    ]
    calls = [
        f"{module}:{node.lineno} calls {node.func.id}"
        for node in ast.walk(ast.parse(MODULES[module].read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CORE_MAY_NOT_CALL
    ]
    assert foreign + calls == []


@pytest.mark.parametrize("module", [f"svcd.supervisor.{name}" for name in LEAN if f"svcd.supervisor.{name}" in MODULES])
def test_lean_parts_use_the_standard_library_alone(module: str) -> None:
    friends = frozenset(f"svcd.supervisor.{name}" for name in LEAN)
    extra = LEAN_EXCEPT.get(module, frozenset())
    foreign = [
        f"{module}:{line} imports {name}"
        for line, name in _imports(module)
        if not (_is_standard(name) or _within(name, VOCABULARY))
        and not any(_within(name, friend) for friend in friends | extra)
        and name not in {"svcd.supervisor." + friend for friend in LEAN}
    ]
    assert foreign == []


def test_what_every_process_begins_with_imports_little() -> None:
    foreign = [name for _, name in _imports(VOCABULARY) if name.partition(".")[0] not in VOCABULARY_MAY_USE]
    assert foreign == []
    source = MODULES[VOCABULARY].read_text()
    at_once = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "dataclasses" not in {
        name for node in at_once for _, name in imports_of(VOCABULARY, ast.unparse(node), False)
    }


@pytest.mark.parametrize("prefix", NEVER_HERE)
def test_heavy_imports_stay_out(prefix: str) -> None:
    found = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        if _within(module, prefix)
        for line, name in _imports(module)
        if name.partition(".")[0] in NEVER_HERE[prefix]
    ]
    assert found == []


@pytest.mark.parametrize("module", MODULES)
def test_each_module_says_its_job(module: str) -> None:
    source = MODULES[module].read_text()
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{module} has no docstring"


@pytest.mark.parametrize("directory", ["tests", "benchmarks", "configs"])
def test_code_around_the_package_says_its_job(directory: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / directory).rglob("*.py"))
        if path.stat().st_size and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_rules_bite() -> None:
    """Planted faults: each is the kind of line that the rules are there for."""
    source = (
        "from svcd.supervisor import core\nimport svcd.cli.main\nfrom . import states\nfrom ..config import launch\n"
    )
    planted = list(imports_of("svcd.supervisor.core.machine", source, False))
    assert [name for _, name in planted] == [
        "svcd.supervisor.core",
        "svcd.cli.main",
        "svcd.supervisor.core.states",
        "svcd.supervisor.config.launch",
    ]
    broken = broken_imports("svcd.supervisor.core.machine", planted)
    assert len(broken) == 2
    assert "svcd.cli.main" in broken[0]
    assert "svcd.supervisor.config.launch" in broken[1]
    assert broken_imports("svcd.protocol.codec", [(1, "svcd.supervisor.core.states")])
    assert broken_imports("svcd.worker_runtime.stub", [(1, "svcd.supervisor.wiring.Link")])
    assert not broken_imports("svcd.cli.main", [(1, "svcd.supervisor.config.load")])
    assert broken_imports("svcd.cli.main", [(1, "svcd.supervisor.core.states")])


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("svcd.supervisor.controller.")))
def test_the_controllers_wings_look_down(module: str) -> None:
    prefix = "svcd.supervisor.controller."
    wing = module.removeprefix(prefix).partition(".")[0]
    imported = {name.removeprefix(prefix).partition(".")[0] for _, name in _imports(module) if name.startswith(prefix)}
    above = WINGS[: WINGS.index(wing)] if wing in WINGS else ()
    assert not imported & {*above}
