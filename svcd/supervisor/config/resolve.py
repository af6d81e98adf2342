"""From a service's block to what runs it: paths made whole, environment put together, accounts looked up.

Must not stop at the first thing that is wrong: every check records what it finds and the next one goes on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from collections.abc import Mapping as Environment
from dataclasses import dataclass, field
from typing import Any, Final

from svcd.supervisor.config import envfile
from svcd.supervisor.config.accounts import Identity, identity
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.launch import LaunchSpec, LogPolicy, Program, PythonCode, ReadyProbe, ServiceDefinition
from svcd.supervisor.config.layers import is_given
from svcd.supervisor.config.programs import check_directory, check_file, find_program
from svcd.supervisor.config.reader import decode, read_bytes
from svcd.supervisor.config.shape import PYTHON_ONLY_KEYS, RUN_KEYS, START_MODES, Ready, Restart, Service
from svcd.supervisor.config.tree import Loc, Mapping, Scalar, Sequence, find, locate
from svcd.supervisor.config.units import RefusedError
from svcd.supervisor.config.wording import dotted
from svcd.supervisor.core.spec import (
    Backoff,
    Dependency,
    Intensity,
    OnCrash,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    Runner,
    ServiceSpec,
    ServiceType,
    StopPolicy,
)

READY_KINDS: Final = {
    "immediate": ReadyKind.IMMEDIATE,
    "delay": ReadyKind.DELAY,
    "notify": ReadyKind.NOTIFY,
    "tcp": ReadyKind.TCP,
}


@dataclass(slots=True)
class Surroundings:
    """What all services share. ``directories``: file as named by the user -> its absolute directory."""

    findings: Findings
    environ: Environment[str, str]
    directories: dict[str, str]
    defaults: Mapping | None = None
    _answers: dict[Any, Any] = field(default_factory=dict)

    def once(self, ask: Callable[..., Any], *question: Any) -> Any:
        """The answer of ``ask``, or its refusal raised again: services ask the same things many times."""
        key = (ask, question)
        if key not in self._answers:
            try:
                self._answers[key] = ask(*question)
            except RefusedError as refused:
                self._answers[key] = refused
        answer = self._answers[key]
        if isinstance(answer, RefusedError):
            raise answer.with_traceback(None)
        return answer

    def absolute(self, path: str, mark: Mark) -> str:
        """``path`` relative to the file that says it."""
        return os.path.normpath(os.path.join(self.directories[mark.file], path))


@dataclass(slots=True)
class ServiceSource:
    """A service as it was written. ``node``: with the defaults merged in; ``own``: without them.

    ``block``: what of it has the right shape; ``bad``: its keys that have not, which are reported already.
    """

    name: str
    node: Mapping
    own: Mapping
    key_mark: Mark
    block: Service
    bad: frozenset[str]


def resolve(source: ServiceSource, around: Surroundings) -> ServiceDefinition | None:
    """The definition, or None when something is wrong (which is recorded)."""
    return _Resolution(source, around).resolve()


class _Resolution:
    def __init__(self, source: ServiceSource, around: Surroundings) -> None:
        self._source = source
        self._around = around
        self._block = source.block
        self._workdir = ""
        self._env: dict[str, str] = {}
        self._identity = Identity()
        self._wrong = bool(source.bad)

    def resolve(self) -> ServiceDefinition | None:
        block = self._block
        kind = self._run_key()
        self._identity = self._resolve_identity()
        self._workdir = self._resolve_workdir()
        self._env = self._resolve_env()
        run = self._resolve_run(kind) if kind else None
        restart = self._resolve_restart()
        ready, probe = self._resolve_ready(kind)
        if run is None or self._wrong:
            return None
        spec = ServiceSpec(
            name=self._source.name,
            runner=Runner.PROGRAM if kind == "command" else Runner.PYTHON,
            type=block.type,
            start=START_MODES[block.start],
            dependencies=dependencies(block),
            ready=ready,
            ready_timeout_s=block.ready.timeout if block.ready else Ready().timeout,
            restart=restart,
            stop=StopPolicy(signal=block.stop.signal, timeout_s=block.stop.timeout),
        )
        logs = block.logs
        launch = LaunchSpec(
            run=run,
            workdir=self._workdir,
            env=self._env,
            uid=self._identity.uid,
            gid=self._identity.gid,
            groups=self._identity.groups,
            umask=block.umask,
            logs=LogPolicy(logs.driver.value, logs.max_size, logs.keep, logs.merge_stderr),
            probe=probe,
            tags=block.tags,
        )
        return ServiceDefinition(spec, launch)

    # -- findings --------------------------------------------------------------------------------------------------

    def _find(self, loc: Loc, text: str, suggestion: str, mark: Mark | None = None) -> None:
        self._wrong = True
        source, defaults = self._source, self._around.defaults
        found = find(source.node, loc)
        inherited = defaults is not None and found is not None and find(defaults, loc) is found
        prefix: Loc = ("defaults",) if inherited else ("services", source.name)
        self._around.findings.add(mark or locate(source.node, loc), dotted((*prefix, *loc)), text, suggestion)

    def _ask(self, loc: Loc, ask: Callable[..., Any], *question: Any) -> Any:
        """The answer, or None when it is refused (which is recorded)."""
        try:
            return self._around.once(ask, *question)
        except RefusedError as refused:
            self._find(loc, refused.text, refused.suggestion)
            return None

    def _mark(self, *loc: int | str) -> Mark:
        return locate(self._source.node, loc)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _run_key(self) -> str | None:
        """Which of the keys that say what runs is there; None when there is not exactly one."""
        node, own = self._source.node, self._source.own
        given = [key for key in RUN_KEYS if is_given(node, key)]
        if not given:
            text, suggestion = "says nothing that can run", "add command:, python:, script: or code:"
            self._find((), text, suggestion, self._source.key_mark)
            return None
        for key in given[1:]:
            self._find((key,), f"does not go with {given[0]}:", "keep one of the two", node.key_marks[key])
        if given[0] == "command":
            for key in PYTHON_ONLY_KEYS:
                if is_given(own, key):
                    text = "goes with python:, script: or code:, not with command:"
                    self._find((key,), text, "remove it", own.key_marks[key])
        return given[0] if len(given) == 1 else None

    def _resolve_identity(self) -> Identity:
        if self._source.bad & {"user", "group"}:
            return Identity()
        user, group = self._block.user, self._block.group
        if user is None and group is None:
            return Identity()
        try:
            found: Identity = self._around.once(identity, user, group)
        except RefusedError as refused:
            self._find(refused.at, refused.text, refused.suggestion)
            return Identity()
        return found

    @property
    def _other_user(self) -> bool:
        return self._identity.uid not in (None, os.geteuid())

    def _resolve_workdir(self) -> str:
        written = self._block.workdir
        if written is None:
            return self._around.directories[self._source.key_mark.file]
        path = self._around.absolute(written, self._mark("workdir"))
        self._ask(("workdir",), check_directory, path, written)
        return path

    def _resolve_env(self) -> dict[str, str]:
        """svcd's own, then the files of the defaults, its own files, then ``env`` of both (merged already)."""
        env = dict(self._around.environ)
        if self._around.defaults is not None:
            self._read_env_files(self._around.defaults, ("defaults",), env)
        self._read_env_files(self._source.own, ("services", self._source.name), env)
        for name, value in (self._block.env or {}).items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return env

    def _read_env_files(self, where: Mapping, prefix: Loc, env: dict[str, str]) -> None:
        node = where.entries.get("env_file")
        items = node.items if isinstance(node, Sequence) else [node]
        for index, each in enumerate(items):
            if not isinstance(each, Scalar) or not isinstance(each.value, str) or not each.value or "\0" in each.value:
                continue  # reported by its shape already
            loc = (*prefix, "env_file", index) if isinstance(node, Sequence) else (*prefix, "env_file")
            path = self._around.absolute(each.value, each.mark)
            found = self._around.once(self._read_env_file, path, each.value, each.mark, dotted(loc))
            self._wrong = self._wrong or found is None
            env.update(found or {})

    def _read_env_file(self, path: str, written: str, mark: Mark, key: str) -> dict[str, str] | None:
        findings = Findings()
        data = read_bytes(path, written, envfile.MAX_FILE_BYTES, mark, key, findings)
        text = decode(data, written, findings) if data is not None else None
        found = envfile.parse(text, written, findings) if text is not None else None
        self._around.findings.extend(findings)
        return None if findings else found

    def _resolve_run(self, kind: str) -> Program | PythonCode | None:
        if self._source.bad & {kind, "workdir", "env", "path", "interpreter"}:
            return None
        if kind == "command":
            return self._resolve_program()
        block = self._block
        interpreter = self._resolve_interpreter()
        script = self._resolve_script() if kind == "script" else None
        if kind == "code" and block.code is not None and interpreter is None:
            self._check_code(block.code)
        return PythonCode(
            entry=block.python,
            script=script,
            code=block.code,
            path=self._resolve_path(script),
            interpreter=interpreter,
            config=block.config or {},
        )

    def _resolve_program(self) -> Program:
        argv = self._block.command or ()
        node = self._source.node.entries["command"]
        loc: Loc = ("command", 0) if isinstance(node, Sequence) else ("command",)
        self._ask(loc, find_program, argv[0], self._env.get("PATH"), self._workdir, self._other_user)
        return Program(argv)

    def _resolve_interpreter(self) -> str | None:
        written = self._block.interpreter
        if written is None:
            return None
        directory = self._around.directories[self._mark("interpreter").file]
        found = self._ask(("interpreter",), find_program, written, self._env.get("PATH"), directory, self._other_user)
        return str(found)

    def _resolve_script(self) -> str:
        written = self._block.script or ""
        path = self._around.absolute(written, self._mark("script"))
        if not self._is_beside_workdir(("script",), path, written):
            self._ask(("script",), check_file, path, written, self._other_user)
        return path

    def _is_beside_workdir(self, loc: Loc, path: str, written: str) -> bool:
        """Whether the path was meant to start at the workdir (which is recorded, with the right spelling)."""
        meant = os.path.join(self._workdir, written)
        if os.path.exists(path) or not os.path.exists(meant):
            return False
        spelling = os.path.relpath(meant, self._around.directories[self._mark(*loc).file])
        self._find(loc, f"cannot find {written}: paths are relative to the file that says them", f"write {spelling}")
        return True

    def _resolve_path(self, script: str | None) -> tuple[str, ...]:
        """A script finds its neighbours, as it does when Python runs it."""
        written = self._block.path
        if written is None:
            beside = (os.path.dirname(script),) if script else ()
            return tuple(dict.fromkeys((*beside, self._workdir)))
        paths = []
        for index, each in enumerate(written):
            path = self._around.absolute(each, self._mark("path", index))
            zipped = os.path.isfile(path)  # as good as a directory
            if not zipped and not self._is_beside_workdir(("path", index), path, each):
                self._ask(("path", index), check_directory, path, each)
            paths.append(path)
        return tuple(paths)

    def _check_code(self, code: str) -> None:
        """Whether it compiles; the finding is at the line of the file."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(code, f"<code of {self._source.name}>", "exec", dont_inherit=True)
        except SyntaxError as error:
            node = self._source.node.entries["code"]
            assert isinstance(node, Scalar)
            mark, line = node.mark, error.lineno or 1
            if node.block_indent is not None:
                mark = Mark(mark.file, mark.line + line, node.block_indent + max(error.offset or 1, 1))
            self._find(("code",), f"line {line} is not Python: {error.msg}", "correct it", mark)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            self._find(("code",), f"cannot be compiled: {error or type(error).__name__}", "simplify it")

    def _resolve_restart(self) -> RestartPolicy:
        block: Restart = self._block.restart
        initial, longest = block.backoff.initial, block.backoff.max
        if initial > longest:
            written = block.backoff.model_fields_set
            if {"initial", "max"} <= written:
                loc = ("restart", "backoff", "max")
                self._find(loc, "is shorter than initial", "make it at least as long as initial")
            initial, longest = (longest, longest) if "max" in written else (initial, initial)
        default = RestartMode.NEVER if self._block.type is ServiceType.TASK else RestartMode.ON_FAILURE
        codes = block.prevent_codes
        return RestartPolicy(
            mode=block.policy or default,
            backoff=Backoff(initial, block.backoff.factor, longest, block.backoff.jitter),
            intensity=Intensity(block.intensity.restarts, block.intensity.within),
            reset_after_s=block.reset_after,
            success_codes=frozenset(block.success_codes),
            prevent_codes=frozenset(each for each in codes if isinstance(each, int)),
            prevent_signals=frozenset(int(each.removeprefix("SIG")) for each in codes if isinstance(each, str)),
        )

    def _resolve_ready(self, kind: str | None) -> tuple[ReadyKind, ReadyProbe]:
        default = ReadyKind.STARTED if kind in ("python", "code") else ReadyKind.IMMEDIATE
        block = self._block.ready
        if block is None:
            return default, ReadyProbe()
        for key in ("immediate", "notify"):
            if getattr(block, key) is False:
                self._find(("ready", key), "false says nothing", "write true, or remove it")
        given = [key for key in READY_KINDS if getattr(block, key) is not None]
        for key in given[1:]:
            self._find(("ready", key), f"does not go with {given[0]}:", "keep one of the two")
        host, port = block.tcp or (None, None)
        return READY_KINDS[given[0]] if given else default, ReadyProbe(block.delay, host, port)


def dependencies(block: Service) -> tuple[Dependency, ...]:
    """The edges for the core."""
    return tuple(
        Dependency(target, edge.kind, edge.condition, edge.on_crash or OnCrash.RESTART)
        for target, edge in block.depends_on.items()
    )
