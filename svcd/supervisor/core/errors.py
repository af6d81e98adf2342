"""The errors that the core raises: mistakes of its caller, or bugs of its own.

Must not hold what happens to services: a failed effect is an event, never an exception.
"""

from __future__ import annotations

from svcd.supervisor.core.states import State


class CoreError(Exception):
    """Something that the machine was told cannot be; it is as it was before."""


class DuplicateService(CoreError):  # noqa: N818 - named for what is the matter
    """A service of that name is registered already, or comes twice in the same batch."""

    def __init__(self, service: str) -> None:
        super().__init__(f"cannot register {service}: there is a service of that name already")
        self.service = service


class BeingRemoved(CoreError):  # noqa: N818 - named for what is the matter
    """A service of that name was removed, and has not ended yet."""

    def __init__(self, service: str) -> None:
        text = f"cannot change {service}: it is being removed, and has not ended yet; try again once it has"
        super().__init__(text)
        self.service = service


class UnknownService(CoreError):  # noqa: N818 - named for what is the matter
    """A change of what is not registered."""

    def __init__(self, service: str) -> None:
        super().__init__(f"cannot change {service}: there is no service of that name")
        self.service = service


class UnknownDependency(CoreError):  # noqa: N818 - named for what is the matter
    """A service depends on something that nobody registered."""

    def __init__(self, service: str, target: str) -> None:
        super().__init__(f"cannot register {service}: it depends on {target}, which is not registered")
        self.service = service
        self.target = target


class StillRequired(CoreError):  # noqa: N818 - named for what is the matter
    """A service is to go that others require."""

    def __init__(self, service: str, others: list[str]) -> None:
        super().__init__(f"cannot remove {service}: required by {', '.join(others)}")
        self.service = service
        self.others = others


class ParentNotRunning(CoreError):  # noqa: N818 - named for what is the matter
    """A child of a service that has no run, or whose run is about to end."""

    def __init__(self, service: str, parent: str) -> None:
        super().__init__(f"cannot register {service}: its parent {parent} does not run, or is about to stop")
        self.service = service


class TooDeep(CoreError):  # noqa: N818 - named for what is the matter
    """A child of a child of a child …"""

    def __init__(self, service: str, limit: int) -> None:
        super().__init__(f"cannot register {service}: children of children go {limit} deep, and no deeper")
        self.service = service


class OutOfReach(CoreError):  # noqa: N818 - named for what is the matter
    """A child goes with its parent: nobody else may depend on it."""

    def __init__(self, service: str, target: str, parent: str) -> None:
        text = f"{target} is a child of {parent}: only children of {parent}, and theirs, may depend on it"
        super().__init__(f"cannot register {service}: {text}")
        self.service = service
        self.target = target


class OfItsParent(CoreError):  # noqa: N818 - named for what is the matter
    """A change of configuration does not reach a child."""

    def __init__(self, service: str, parent: str) -> None:
        super().__init__(f"cannot change {service}: it is a child of {parent}, which alone can make it anew")
        self.service = service


class DependencyCycle(CoreError):  # noqa: N818 - named for what is the matter
    """Services that depend on each other in a circle: ``path`` begins and ends with the same name."""

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(f"cannot register {path[0]}: its dependencies form a cycle: {' -> '.join(path)}")
        self.path = path


class DuplicateRequest(CoreError):  # noqa: N818 - named for what is the matter
    """A request with that id is still open: its answer could not be told from the other's."""

    def __init__(self, request: str) -> None:
        super().__init__(f"cannot take request {request!r}: a request of that id is open")


class IllegalTransition(CoreError):  # noqa: N818 - named for what is the matter
    """A bug: a step that the table of transitions does not have."""

    def __init__(self, service: str, old: State, new: State) -> None:
        super().__init__(f"cannot take {service} from {old.value} to {new.value}: there is no such transition")
        self.service = service
        self.old = old
        self.new = new
