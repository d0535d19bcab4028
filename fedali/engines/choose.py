"""Which engine a run uses, and its construction."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from fedali.errors import SettingsError

if TYPE_CHECKING:
    from fedali.engines.base import Engine
    from fedali.recipe import Recipe

EngineName = Literal["auto", "loop", "compiled", "onnx", "stacked", "ray"]


def resolve(name: EngineName) -> EngineName:
    """The engine that ``auto`` means on this machine; any other name as it is.

    On a GPU clients have to be stacked to fill it. On a CPU the compiled step is the fastest, and needs a C++ compiler;
    without one onnxruntime runs the graph that devices run.
    """
    if name != "auto":
        return name
    import torch

    from fedali.engines.compiler import compiler

    if torch.cuda.is_available():
        return "stacked"
    if compiler() is not None:
        return "compiled"
    return "onnx" if _found("onnxruntime", "onnx", "onnxscript") else "loop"


def build_engine(
    name: EngineName,
    recipe: Recipe,
    *,
    workers: int = 1,
    precision: str = "highest",
) -> Engine:
    """The engine called ``name``; engines' modules are loaded when they are used.

    Args:
        name: see ``resolve``.
        recipe: how clients train.
        workers: threads, or processes for ``ray``.
        precision: of matrix products on a GPU: ``highest`` (float32) or ``high`` (tf32).
    """
    name = resolve(name)
    if name == "loop":
        from fedali.engines.loop import LoopEngine

        return LoopEngine(recipe, workers=workers)
    if name == "compiled":
        from fedali.engines.compiled import CompiledEngine
        from fedali.engines.compiler import compiler

        if compiler() is None:
            raise SettingsError(
                "engine 'compiled' needs a C++ compiler (g++ or clang++): install one, or use engine 'onnx' or 'loop'"
            )
        return CompiledEngine(recipe, workers=workers)
    if name == "onnx":
        from fedali.engines.onnx import OnnxEngine

        return OnnxEngine(recipe, workers=workers)
    if name == "stacked":
        from fedali.engines.stacked import StackedEngine

        return StackedEngine(recipe, precision=precision)
    from fedali.engines.ray import RayEngine

    return RayEngine(recipe, workers=workers)


def _found(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)
