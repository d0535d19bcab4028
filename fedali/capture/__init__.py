"""The local step as a graph: captured once, rewritten for compilers and for ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.capture.captures import capture_adapt as capture_adapt
    from fedali.capture.captures import capture_embed as capture_embed
    from fedali.capture.captures import capture_head_step as capture_head_step
    from fedali.capture.captures import capture_predict as capture_predict
    from fedali.capture.captures import capture_step as capture_step
    from fedali.capture.graph import Graph as Graph
    from fedali.capture.onnx_export import export_graph as export_graph

_HOMES = {
    "Graph": "graph",
    "capture_step": "captures",
    "capture_head_step": "captures",
    "capture_predict": "captures",
    "capture_embed": "captures",
    "capture_adapt": "captures",
    "export_graph": "onnx_export",
}

__all__ = [
    "Graph",
    "capture_adapt",
    "capture_embed",
    "capture_head_step",
    "capture_predict",
    "capture_step",
    "export_graph",
]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
