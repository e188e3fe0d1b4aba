"""Names to classes: the trainer's own, those that installed packages declare, and any class by its import path.

METHODS["byol"]                       the trainer's own
METHODS["my_package.my_module:Mine"]  any class that Python can import
METHODS["mine"]                       of that name in the entry points `ortho_kernels.methods` of a package
"""

import inspect
import traceback
from collections.abc import Mapping
from functools import reduce
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar

from .errors import TrainerError, did_you_mean, no_choice

T = TypeVar("T")


class Registry(dict[str, type[T]]):
    """The classes that a group of options chooses from: those given here, and every class derived from `base`.

    `registry[name]` imports the class of another name when it is asked for; TrainerError says why it can't be used.
    """

    def __init__(self, group: str, base: type[Any], entry_point_group: str, own: Mapping[str, type[T]]) -> None:
        super().__init__(own)
        self.group = group
        self.base = base
        self.entry_point_group = entry_point_group

    def names(self) -> list[str]:
        """The trainer's own, then those that installed packages declare."""
        declared = {entry.name for entry in entry_points(group=self.entry_point_group)}
        return [*self, *sorted(declared - self.keys())]

    def __missing__(self, name: str) -> type[T]:
        try:
            return self._check(import_class(name if ":" in name else self._find_declared(name)))
        except Unusable as reason:
            raise TrainerError(f"{self.group}={name}: {reason}") from None

    def _find_declared(self, name: str) -> str:
        """The import path that an installed package gives this name."""
        paths = sorted({entry.value for entry in entry_points(group=self.entry_point_group, name=name)})
        if not paths:
            own = f"Or name a class of your own: {self.group}=MODULE:CLASS."
            raise TrainerError(f"{no_choice(self.group, name, self.names())} {own}")
        if len(paths) > 1:
            raise Unusable(f"installed packages give this name to {' and '.join(paths)}. Give one of these paths.")
        return paths[0]

    def _check(self, found: Any) -> type[T]:
        base = f"{self.base.__module__.removesuffix('.base')}.{self.base.__name__}"
        if not isinstance(found, type):
            raise Unusable(f"it is not a class but of type {type(found).__name__}. Name a class derived from {base}.")
        if not issubclass(found, self.base):
            raise Unusable(f"the class is not a {self.base.__name__}. Derive it from {base}.")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise Unusable(f"the class does not define {', '.join(missing)}. {base} says what each is for.")
        settings, least = settings_of(found), settings_of(self.base)
        if not (isinstance(settings, type) and issubclass(settings, least)):
            raise Unusable(f"its Settings are not {least.__name__}. Derive them from {least.__name__}.")
        if inspect.get_annotations(settings) and "__dataclass_fields__" not in vars(settings):
            raise Unusable(
                f"{settings.__qualname__} is not a dataclass, so it has no options. Write @dataclass above it."
            )
        return found


def settings_of(part: type[Any]) -> type[Any]:
    """The dataclass of a class's options: the one that it holds, or the class itself."""
    return getattr(part, "Settings", part)


class Unusable(Exception):
    """Why a name stands for nothing that the trainer can use, and what to do."""


def import_class(path: str) -> Any:
    """What `package.module:Class` names."""
    name, _, attributes = path.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), *attributes.split("."))):
        raise Unusable(f"{path} is not an import path. Give MODULE:CLASS, such as my_package.my_module:MyClass.")
    try:
        module = import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise Unusable(
                f"there is no module {error.name}. Run in the folder that holds it, install it, or put its folder on "
                "PYTHONPATH."
            ) from None
        said = str(error).partition("\n")[0]
        raise Unusable(
            f"its module raises {type(error).__name__}: {said} ({raised_at(error)}). Fix it there."
        ) from None
    try:
        return reduce(getattr, attributes.split("."), module)
    except AttributeError:
        near = did_you_mean(attributes, [key for key, value in vars(module).items() if isinstance(value, type)])
        raise Unusable(f"the module {name} has no {attributes}.{near}") from None


def raised_at(error: Exception) -> str:
    """The file and line that raised the error."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"
