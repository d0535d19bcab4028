"""Data that a function of the user's gives: ``my_file:load``, ``my_package.data:load``, ``folder/my_file.py:load``.

Only what the user of this machine names is run; names that come over a network never get here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from fedali.data.dataset import Dataset
from fedali.data.given.anything import as_dataset
from fedali.errors import DataError, FedaliError, SettingsError
from fedali.support.doors import imported
from fedali.support.files import reporting
from fedali.support.places import user_path
from fedali.targets import Kind

_FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|.+\.py):(?P<name>[A-Za-z_]\w*)")


def is_function(source: str) -> bool:
    """Whether a source names a function.

    >>> is_function("my_file:load"), is_function("../my_file.py:load"), is_function("mine.csv")
    (True, True, False)
    """
    return _FUNCTION.fullmatch(source) is not None and not user_path(source).exists()


def absolute_function(source: str) -> str:
    """The same function by the full path of its file, where that is in the current folder or named."""
    module, _, name = source.rpartition(":")
    path = user_path(module if module.endswith(".py") else f"{module.replace('.', '/')}.py")
    return f"{path.absolute()}:{name}" if module.endswith(".py") or path.exists() else source


def load_function(source: str, options: Mapping[str, Any], kind: Kind = "classes") -> Dataset:
    """What a function gives when it is called with ``options``, as ``as_dataset`` takes it.

    Raises ``SettingsError`` where there is no such function, or it does not take the options, ``DataError`` where it fails.
    """
    data = call(source, options)
    return as_dataset(data, name=source.rpartition(":")[2], kind=kind)


def call(source: str, options: Mapping[str, Any]) -> Any:
    """What a function returns; errors as those of ``load_function``."""
    import inspect

    function = _found(source)
    if not callable(function):
        raise SettingsError(f"data.source {source!r} is {type(function).__name__}, and no function")
    try:
        inspect.signature(function).bind(**options)
    except TypeError as error:
        raise SettingsError(f"data.source {source!r} cannot be called with data.options: {error}") from None
    except ValueError:  # what has no signature
        pass
    try:
        return function(**options)
    except FedaliError:
        raise
    except Exception as error:  # a user's function may fail in any way
        raise DataError(f"data.source {source!r} failed: {type(error).__name__}: {error}") from error


def _found(source: str) -> Callable[..., Any]:
    module, _, name = source.rpartition(":")
    if not module.endswith(".py"):
        found: Callable[..., Any] = imported(source, module, name)
        return found
    path = user_path(module)
    if not path.is_file():
        raise SettingsError(f"data.source {source!r}: there is no file {path}")
    with reporting(path, "read"):
        content = path.read_bytes()
    known = f"fedali_data_{hashlib.sha256(str(path.absolute()).encode() + content).hexdigest()[:16]}"
    if known not in sys.modules:
        if str(path.absolute().parent) not in sys.path:
            sys.path.append(str(path.absolute().parent))  # for what stands beside it
        spec = importlib.util.spec_from_file_location(known, path)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[known] = made
        try:
            spec.loader.exec_module(made)
        except Exception as error:
            del sys.modules[known]
            raise SettingsError(
                f"data.source {source!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
    try:
        function: Callable[..., Any] = getattr(sys.modules[known], name)
    except AttributeError:
        raise SettingsError(f"data.source {source!r}: {path} has no {name!r}") from None
    return function
