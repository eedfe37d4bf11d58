"""Twins of modules: other computations on the same parameters."""

import copy
from typing import TypeVar

from torch import nn

_Module = TypeVar("_Module", bound=nn.Module)


def twin_of(module: _Module) -> _Module:
    """Shallow copy of a module: shares parameters, buffers and submodules, may swap the latter."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
