"""Registries: one file per part, found by its folder, so that a new part touches nothing else."""

from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from streams.errors import BadState

Spec = TypeVar("Spec")


def collect(package: str, attribute: str, kind: type[Spec]) -> dict[str, Spec]:
    """Import every module of a package and gather its one spec, by the spec's `name`, in sorted order.

    Raises:
        BadState: a module has no such attribute, one of another kind, or a name that is taken.
    """
    found: dict[str, Spec] = {}
    for module_info in sorted(iter_modules(import_module(package).__path__), key=lambda info: info.name):
        module = import_module(f"{package}.{module_info.name}")
        spec = getattr(module, attribute, None)
        if not isinstance(spec, kind):
            raise BadState(f"{module.__name__} has no {attribute} of kind {kind.__name__}; add one")
        name = str(getattr(spec, "name", ""))
        if name in found:
            raise BadState(f"{module.__name__}: the name {name!r} is taken; rename it")
        found[name] = spec
    return found
