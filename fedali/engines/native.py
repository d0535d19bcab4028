"""Compiled graphs called without Python's lock, so that threads scale.

Torch's own runner of ahead-of-time compiled graphs holds the interpreter lock while a graph runs (torch 2.13): two
threads take turns. The library it compiled has a C interface, which ``ctypes`` calls with the lock released. Everything
private to torch that this needs is in this file; torch is pinned.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedali.errors import FedaliError

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class NativeGraph:
    """One compiled graph for one thread: tensors in, tensors out.

    Args:
        library: what ``fedali.engines.compiler`` made.
        inputs: number of input tensors, which have to be contiguous and of the shapes the graph was captured with.
        outputs: number of output tensors.
    """

    def __init__(self, library: Path, inputs: int, outputs: int) -> None:
        self._library = library
        self._calls = ctypes.CDLL(str(library))
        self._run = self._calls.AOTInductorModelContainerRun
        self._run.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._container = ctypes.c_void_p()
        create = self._calls.AOTInductorModelContainerCreateWithDevice
        if create(ctypes.byref(self._container), ctypes.c_size_t(1), b"cpu", None):
            raise FedaliError(
                f"cannot load the compiled graph {library}: delete it and run again, or use engine 'loop'"
            )
        self._inputs, self._outputs = (ctypes.c_void_p * inputs)(), (ctypes.c_void_p * outputs)()

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Run the graph; its outputs are new tensors."""
        # Handles are tensors of C++'s; the graph takes the inputs' and gives away the outputs'.
        private: Any = torch._C._aoti
        handles = private.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
        for index, handle in enumerate(handles):
            self._inputs[index] = _pointer(handle, None)
        failed = self._run(
            self._container,
            self._inputs,
            len(self._inputs),
            self._outputs,
            len(self._outputs),
            None,
            None,
        )
        if failed:
            raise FedaliError(
                f"the compiled graph {self._library} failed; its message is above. Use engine 'loop'"
            )
        found: list[Tensor] = private.alloc_tensors_by_stealing_from_void_ptrs(
            [_capsule(handle, None, None) for handle in self._outputs]
        )
        return found

    def __del__(self) -> None:
        if getattr(self, "_container", None):
            self._calls.AOTInductorModelContainerDelete(self._container)
            self._container = ctypes.c_void_p()
