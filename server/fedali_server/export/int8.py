"""Inference in int8 for devices that train the head alone: the body's parameters are then constants of the graph.

Static quantisation in ONNX's own operations (QDQ): every product of a tensor with constant weights, weights by
channel, activations by what calibration samples show. Made beside the float graphs and kept where it is faster and
costs next to no accuracy on validation samples; what it costs on test samples is reported and decides nothing.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from fedali.bundle.manifest import Parity
from fedali.capture.captures import capture_embed, capture_predict
from fedali.capture.decompositions_onnx import ONNX
from fedali.capture.onnx_export import export_graph
from fedali.errors import DataError, MissingExtraError
from fedali_server.export.parity import Run, session_of

if TYPE_CHECKING:
    from fedali_server.export.source import Source

Samples = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

MOST_LOST = 0.005  # accuracy
FASTER = 0.95  # of the time in batches, and no slower alone
_CALIBRATION, _TEST = 512, 4096  # samples, at most
_BATCH, _TIMED = 32, 31
_PRODUCTS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Quantised:
    """Graphs ``infer_int8`` and ``embed_int8``, what was measured, and whether they are worth it."""

    graphs: dict[str, bytes]
    parity: dict[str, Parity]
    facts: dict[str, Any]
    kept: bool


@dataclass(frozen=True)
class Int8:
    """How to quantise.

    Args:
        calibration: [n, *shape] normalised training samples, such as the devices will see.
        validation: normalised samples [n, *shape] and labels [n] that decide whether int8 is kept.
        test: others, to report accuracy on.
    """

    calibration: Samples
    validation: tuple[Samples, Labels]
    test: tuple[Samples, Labels]

    def quantise(self, source: Source, graphs: Mapping[str, bytes]) -> Quantised:
        """Both graphs in int8, against those in float in ``graphs``.

        Raises ``DataError`` where there is nothing to calibrate, to decide or to test with.
        """
        if not len(self.calibration) or not len(self.validation[0]) or not len(self.test[0]):
            raise DataError(
                "int8 needs training samples to calibrate with, validation samples to decide by, and test samples; "
                "was the run made with split.validation = 0?"
            )
        rng = np.random.default_rng(0)
        calibration = self.calibration[rng.permutation(len(self.calibration))[:_CALIBRATION]]
        x, y = _some(self.validation, rng)
        x_test, y_test = _some(self.test, rng)
        frozen = torch.from_numpy(np.array(source.start.theta, np.float32))
        given: dict[str, Any] = {
            "matcher": "cosine",
            "input_shape": source.input_shape,
            "batch": None,
            "table": ONNX,
            "frozen": frozen,
        }
        constants = (frozen, torch.from_numpy(np.array(source.start.local_prototypes, np.float32)))
        influence = torch.tensor(source.method.influence(source.round), dtype=torch.float32)
        made: dict[str, bytes] = {}
        measured: dict[str, Any] = {}
        parity: dict[str, Parity] = {}
        for name, capture in (("infer", capture_predict), ("embed", capture_embed)):
            feeds = [
                (*constants, torch.from_numpy(calibration[i : i + _BATCH]), influence)
                for i in range(0, len(calibration), _BATCH)
            ]
            made[f"{name}_int8"] = _quantise(export_graph(capture(source.model, **given)), feeds)
            runs = {"float": session_of(graphs[name]), "int8": session_of(made[f"{name}_int8"])}
            outputs = {kind: _all(run, constants, x, influence) for kind, run in runs.items()}
            error = float((outputs["int8"] - outputs["float"]).norm() / outputs["float"].norm())
            what = "the logits" if name == "infer" else "the embeddings"
            text = f"{what} against float, relative; {len(x)} validation samples"
            parity[f"{name}_int8"] = Parity(float(f"{error:.2e}"), text)
            if name == "infer":
                right = {kind: _accuracy(out, y) for kind, out in outputs.items()}
                lost = right["float"] - right["int8"]
                tested = {
                    k: _accuracy(_all(run, constants, x_test, influence), y_test) for k, run in runs.items()
                }
                measured["validation_accuracy"] = {kind: round(value, 4) for kind, value in right.items()}
                measured["test_accuracy"] = {kind: round(value, 4) for kind, value in tested.items()}
            measured[name] = {
                "bytes": {"float": len(graphs[name]), "int8": len(made[f"{name}_int8"])},
                "milliseconds": _milliseconds(runs, constants, x, influence),
            }
        sizes = {"calibrated_with": len(calibration), "validated_with": len(x), "tested_with": len(x_test)}
        facts = {**sizes, **measured}
        return Quantised(made, parity, facts, lost <= MOST_LOST and _faster(measured))


def describe(facts: Mapping[str, Any], kept: bool) -> str:
    """What was measured, in a line for people."""
    times = facts["embed"]["milliseconds"]
    many, one = (times[size]["int8"] / times[size]["float"] for size in (f"batch {_BATCH}", "batch 1"))
    decided, tested = facts["validation_accuracy"], facts["test_accuracy"]
    return (
        f"int8 {'kept' if kept else 'not kept'}: validation accuracy {decided['int8']:.4f}, float {decided['float']:.4f}; embeddings "
        f"take {many:.2f} of the time in batches of {_BATCH}, {one:.2f} one by one. Test accuracy {tested['int8']:.4f}, float "
        f"{tested['float']:.4f} ({facts['tested_with']} samples)"
    )


def _some(samples: tuple[Samples, Labels], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = rng.permutation(len(samples[0]))[:_TEST]
    return torch.from_numpy(samples[0][chosen]), torch.from_numpy(samples[1][chosen])


def _accuracy(logits: torch.Tensor, y: torch.Tensor) -> float:
    return float((logits.argmax(1) == y).float().mean())


def _faster(measured: Mapping[str, Any]) -> bool:
    times = [measured[name]["milliseconds"] for name in ("infer", "embed")]
    many = all(t[f"batch {_BATCH}"]["int8"] < FASTER * t[f"batch {_BATCH}"]["float"] for t in times)
    return many and all(t["batch 1"]["int8"] <= t["batch 1"]["float"] for t in times)


def _all(
    run: Run, constants: tuple[torch.Tensor, ...], x: torch.Tensor, influence: torch.Tensor
) -> torch.Tensor:
    pieces = (x[start : start + 256] for start in range(0, len(x), 256))
    return torch.cat([run(*constants, piece, influence)[0] for piece in pieces])


def _milliseconds(
    runs: Mapping[str, Run], constants: tuple[torch.Tensor, ...], x: torch.Tensor, influence: torch.Tensor
) -> dict[str, dict[str, float]]:
    """Median time of a run by batch and kind, the kinds in turn; one thread."""
    found = {}
    for size in (1, _BATCH):
        piece = x[torch.arange(size) % len(x)]
        spent: dict[str, list[float]] = {kind: [] for kind in runs}
        for _ in range(_TIMED):
            for kind, run in runs.items():
                start = time.perf_counter()
                run(*constants, piece, influence)
                spent[kind].append(time.perf_counter() - start)
        found[f"batch {size}"] = {kind: round(1e3 * float(np.median(t)), 4) for kind, t in spent.items()}
    return found


def _quantise(graph: bytes, feeds: Sequence[tuple[torch.Tensor, ...]]) -> bytes:
    """A float graph in int8, calibrated with ``feeds`` of its inputs."""
    try:
        import onnx
        import onnxruntime
        from onnxruntime import quantization
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or "onnx").partition(".")[0], "export") from error

    names = [value.name for value in onnx.load_from_string(graph).graph.input]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, Any] | None:
            tensors = next(self._left, None)
            if tensors is None:
                return None
            return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        folded, written = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        options = (
            onnxruntime.SessionOptions()
        )  # weights are constants only once slices and transposes of them are done
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        quantization.quantize_static(
            str(folded),
            str(written),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # signed ones take twice as long on x86
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=_weighted(onnx.load(folded)),
        )
        model = onnx.load(written)
    return _plain(model)


def _weighted(model: Any) -> list[str]:
    """Names of products with constant weights: the others, as of queries and keys, cost more in int8 than they gain."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in _PRODUCTS and any(name in constants for name in node.input)
    ]


def _plain(model: Any) -> bytes:
    """The model without what its makers left in it: a bundle holds a graph and nothing else."""
    standard = [opset for opset in model.opset_import if opset.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    del model.metadata_props[:], model.graph.value_info[:], model.graph.quantization_annotation[:]
    model.graph.ClearField("doc_string")
    for thing in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        thing.ClearField("doc_string")
        if thing.metadata_props:
            del thing.metadata_props[:]
    data: bytes = model.SerializeToString(deterministic=True)
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice on preparing models, which was done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
