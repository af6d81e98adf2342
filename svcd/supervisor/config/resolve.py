"""From a service's block to what runs it: paths made whole, environment put together, accounts looked up.

Must not stop at the first thing that is wrong: every check records what it finds and the next one goes on.
"""

from __future__ import annotations

import os
import warnings

from svcd.supervisor.config import envfile, runtime
from svcd.supervisor.config.accounts import Identity, identity
from svcd.supervisor.config.block import key_names, keys_of
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.launch import (
    HookCommand,
    LaunchSpec,
    LogPolicy,
    Program,
    PythonCode,
    ServiceDefinition,
)
from svcd.supervisor.config.layers import is_given
from svcd.supervisor.config.leaves import AUTO
from svcd.supervisor.config.occasions import resolve_occasions
from svcd.supervisor.config.policies import (
    dependencies,
    health_policy,
    pause_policy,
    restart_policy,
    state_policy,
    stop_policy,
)
from svcd.supervisor.config.probing import ready_timeout_s, resolve_health, resolve_ready
from svcd.supervisor.config.programs import check_directory, check_file, find_program
from svcd.supervisor.config.reader import decode, read_bytes
from svcd.supervisor.config.service_source import Notes, ServiceSource, Surroundings
from svcd.supervisor.config.shape import PROGRAM_ONLY_KEYS, PYTHON_ONLY_KEYS, Hooks
from svcd.supervisor.config.tree import Loc, Mapping, Scalar, Sequence, dotted, find
from svcd.supervisor.config.units import RefusedError
from svcd.supervisor.config.words import RUN_KEYS, UpdateMode
from svcd.supervisor.core.spec import Hook, Overlap, Runner, ServiceSpec


def resolve(source: ServiceSource, around: Surroundings) -> tuple[Notes, ServiceDefinition | None]:
    """The definition, or None when something is wrong (which is recorded); and where to record more."""
    resolution = _Resolution(source, around)
    definition = resolution.resolve()
    return resolution.notes, definition


class _Resolution:
    def __init__(self, source: ServiceSource, around: Surroundings) -> None:
        self._source = source
        self._around = around
        self._block = source.block
        self._workdir = ""
        self._env: dict[str, str] = {}
        self._runtime_places: dict[str, Mark] = {}
        self._identity = Identity()
        self.notes = Notes(source, around)

    def resolve(self) -> ServiceDefinition | None:
        source, block, notes = self._source, self._block, self.notes
        kind = self._run_key()
        self._identity = self._resolve_identity()
        self._workdir = self._resolve_workdir()
        self._env = self._resolve_env()
        settings = runtime.resolve_runtime(source, kind, self._env, self._runtime_places, notes)
        run = self._resolve_run(kind, settings) if kind else None
        restart = restart_policy(block, notes)
        ready, probe = resolve_ready(block, kind, notes, self._check_command)
        timeout_s = ready_timeout_s(block, notes)
        health = resolve_health(block, kind, notes, self._check_command)
        hooks = self._resolve_hooks()
        occasions = resolve_occasions(source, kind, notes, self._around)
        state = state_policy(source, kind, notes)
        if run is None or notes.wrong:
            return None
        self._around.on_runtime(source.name, settings)
        names = self._around.names[source.name]
        spec = ServiceSpec(
            name=names[source.instance],
            runner=Runner.PROGRAM if kind == "command" else Runner.PYTHON,
            type=block.type,
            start=occasions.start,
            dependencies=dependencies(block, self._around.names),
            ready=ready,
            ready_timeout_s=timeout_s,
            restart=restart,
            stop=stop_policy(block),
            health=health_policy(block),
            watchdog_s=block.watchdog,
            essential=block.essential,
            fallback=self._fallback(),
            hooks=frozenset(map(Hook, hooks)),
            pause=pause_policy(block.pause),
            scheduled=occasions.schedule is not None,
            overlap=block.schedule.overlap if block.schedule else Overlap.SKIP,
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
            health=health,
            hooks=hooks,
            sockets=occasions.sockets,
            idle_timeout_s=block.idle_timeout,
            schedule=occasions.schedule,
            port=source.port,
            may_call=block.permissions.services,
            max_children=block.permissions.spawn.max,
            state=state,
            version=None if kind == "command" else block.version,
            hot_update=self._is_hot(kind),
        )
        return ServiceDefinition(spec, launch, source.name, source.instance, len(names))

    def _fallback(self) -> str | None:
        """The full name: of a service with several instances there is none (``graph`` says so)."""
        written = self._block.fallback
        return self._around.names.get(written, (written,))[0] if written else None

    # -- parts -----------------------------------------------------------------------------------------------------

    def _run_key(self) -> str | None:
        """Which of the keys that say what runs is there; None when there is not exactly one."""
        node, own = self._source.node, self._source.own
        given = [key for key in RUN_KEYS if is_given(node, key)]
        if not given:
            text, suggestion = "says nothing that can run", "add command:, python:, script: or code:"
            self.notes.find((), text, suggestion, self._source.key_mark)
            return None
        for key in given[1:]:
            self.notes.find((key,), f"does not go with {given[0]}:", "keep one of the two", node.key_marks[key])
        if given[0] == "command":
            for key in PYTHON_ONLY_KEYS:
                if is_given(own, key) and self._says_something(key):
                    text = "goes with python:, script: or code:, not with command:"
                    self.notes.find((key,), text, "remove it", own.key_marks[key])
        else:
            for key in PROGRAM_ONLY_KEYS:
                if is_given(own, key) and self._says_something(key):
                    text = f"goes with command:, not with {given[0]}:"
                    self.notes.find((key,), text, "remove it", own.key_marks[key])
        return given[0] if len(given) == 1 else None

    def _says_something(self, key: str) -> bool:
        value = getattr(self._block, key)
        if key == "state":
            return value is not None and bool(value.keep)
        return bool(value != keys_of(type(self._block))[key].default)

    def _resolve_identity(self) -> Identity:
        if self._source.bad & {"user", "group"}:
            return Identity()
        user, group = self._block.user, self._block.group
        if user is None and group is None:
            return Identity()
        try:
            found: Identity = self._around.once(identity, user, group)
        except RefusedError as refused:
            self.notes.find(refused.at, refused.text, refused.suggestion)
            return Identity()
        return found

    @property
    def _other_user(self) -> bool:
        return self._identity.uid not in (None, os.geteuid())

    def _resolve_workdir(self) -> str:
        written = self._block.workdir
        if written is None:
            return self._around.directories[self._source.key_mark.file]
        path = self._around.absolute(written, self.notes.mark("workdir"))
        self.notes.ask(("workdir",), check_directory, path, written)
        return path

    def _resolve_env(self) -> dict[str, str]:
        """svcd's own, then the files of the defaults, its own files, then ``env`` of both (merged already)."""
        env = dict(self._around.environ)
        self._runtime_places = {name: runtime.own_place(name) for name in env if name.startswith(runtime.PREFIX)}
        if self._around.defaults is not None:
            self._read_env_files(self._around.defaults, ("defaults",), env)
        self._read_env_files(self._source.own, ("services", self._source.name), env)
        for name, value in (self._block.env or {}).items():
            if value is None:
                env.pop(name, None)
                self._runtime_places.pop(name, None)
            else:
                env[name] = value
                if name.startswith(runtime.PREFIX):
                    self._runtime_places[name] = self.notes.mark("env", name)
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
            self.notes.wrong = self.notes.wrong or found is None
            variables, marks = found or ({}, {})
            env.update(variables)
            self._runtime_places.update({name: marks[name] for name in variables if name.startswith(runtime.PREFIX)})

    def _read_env_file(
        self, path: str, written: str, mark: Mark, key: str
    ) -> tuple[dict[str, str], dict[str, Mark]] | None:
        """The variables, and where those for svcd stand."""
        findings, marks = Findings(), dict[str, Mark]()
        data = read_bytes(path, written, envfile.MAX_FILE_BYTES, mark, key, findings)
        text = decode(data, written, findings) if data is not None else None
        found = envfile.parse(text, written, findings, marks) if text is not None else None
        self._around.findings.extend(findings)
        return None if findings or found is None else (found, marks)

    def _resolve_run(self, kind: str, settings: tuple[runtime.Setting, ...]) -> Program | PythonCode | None:
        if self._source.bad & {kind, "workdir", "env", "path", "interpreter"}:
            return None
        if kind == "command":
            return self._resolve_program()
        block = self._block
        interpreter = self._resolve_interpreter()
        script = self._resolve_script() if kind == "script" else None
        if kind == "code" and block.code is not None and interpreter is None:
            self._check_code(block.code)
        preload = self._resolve_preload()
        return PythonCode(
            entry=block.python,
            script=script,
            code=block.code,
            path=self._resolve_path(script),
            interpreter=interpreter,
            config=block.config or {},
            runtime=runtime.of_files(settings),
            runtime_variables=runtime.of_variables(settings),
            preload=() if isinstance(preload, str) else preload,
            preload_auto=preload == AUTO,
        )

    def _resolve_preload(self) -> tuple[str, ...] | str:
        """Only svcd's own interpreter forks, and a script has no loading of its own that could be watched. What the
        defaults say is for services that it goes with.
        """
        written = self._block.preload
        if self._block.interpreter is not None and written:
            text = "goes with svcd's own interpreter, which services are forked from, not with interpreter:"
            suggestion = "keep one of the two"
        elif self._block.script is not None and written == AUTO:
            text, suggestion = "auto goes with python: or code:, not with script:", "name the modules"
        else:
            return written
        if is_given(self._source.own, "preload"):
            self.notes.find(("preload",), text, suggestion)
        return ()

    def _is_hot(self, kind: str | None) -> bool:
        """What the defaults say is for services that it goes with."""
        if self._block.update is not UpdateMode.HOT:
            return False
        if kind in ("python", "code") or (kind == "command" and self._block.sockets):
            return True
        if is_given(self._source.own, "update"):
            what = "which are not handed over" if kind == "script" else "unless svcd holds its sockets (sockets:)"
            text = f"hot does not go with {kind}:, {what}"
            self.notes.find(("update",), text, "use restart, or remove it")
        return False

    def _resolve_program(self) -> Program:
        argv = self._block.command or ()
        self._check_command(("command",), argv)
        return Program(argv)

    def _resolve_interpreter(self) -> str | None:
        written = self._block.interpreter
        if written is None:
            return None
        directory = self._around.directories[self.notes.mark("interpreter").file]
        found = self.notes.ask(
            ("interpreter",), find_program, written, self._env.get("PATH"), directory, self._other_user
        )
        return str(found)

    def _resolve_script(self) -> str:
        written = self._block.script or ""
        path = self._around.absolute(written, self.notes.mark("script"))
        if not self._is_beside_workdir(("script",), path, written):
            self.notes.ask(("script",), check_file, path, written, self._other_user)
        return path

    def _is_beside_workdir(self, loc: Loc, path: str, written: str) -> bool:
        """Whether the path was meant to start at the workdir (which is recorded, with the right spelling)."""
        meant = os.path.join(self._workdir, written)
        if os.path.exists(path) or not os.path.exists(meant):
            return False
        spelling = os.path.relpath(meant, self._around.directories[self.notes.mark(*loc).file])
        self.notes.find(
            loc, f"cannot find {written}: paths are relative to the file that says them", f"write {spelling}"
        )
        return True

    def _resolve_path(self, script: str | None) -> tuple[str, ...]:
        """A script finds its neighbours, as it does when Python runs it."""
        written = self._block.path
        if written is None:
            beside = (os.path.dirname(script),) if script else ()
            return tuple(dict.fromkeys((*beside, self._workdir)))
        paths = []
        for index, each in enumerate(written):
            path = self._around.absolute(each, self.notes.mark("path", index))
            zipped = os.path.isfile(path)  # as good as a directory
            if not zipped and not self._is_beside_workdir(("path", index), path, each):
                self.notes.ask(("path", index), check_directory, path, each)
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
            self.notes.find(("code",), f"line {line} is not Python: {error.msg}", "correct it", mark)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            self.notes.find(("code",), f"cannot be compiled: {error or type(error).__name__}", "simplify it")

    # -- other commands --------------------------------------------------------------------------------------------

    def _resolve_hooks(self) -> dict[str, HookCommand]:
        written = {key: getattr(self._block.hooks, name) for key, name in key_names(Hooks).items()}
        hooks = {key: HookCommand(each.command, each.timeout) for key, each in written.items() if each is not None}
        for key, each in hooks.items():
            short = not isinstance(find(self._source.node, ("hooks", key)), Mapping)
            self._check_command(("hooks", key) if short else ("hooks", key, "command"), each.argv)
        return hooks

    def _check_command(self, loc: Loc, argv: tuple[str, ...]) -> None:
        """Whether there is such a program for a command that stands at ``loc``."""
        if self._source.bad & {"workdir", "env"}:
            return
        at: Loc = (*loc, 0) if isinstance(find(self._source.node, loc), Sequence) else loc
        self.notes.ask(at, find_program, argv[0], self._env.get("PATH"), self._workdir, self._other_user)
