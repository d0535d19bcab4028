"""What each graph of a bundle takes and gives: names, dtypes and shapes, as the manifest's sizes make them.

The graphs of both modes have the same inputs and outputs, so that one runner serves both. In head mode theta is the
head's stretch of it, and samples are embeddings.
"""

from __future__ import annotations

from fedali.answers import GATE
from fedali.bundle.manifest import Manifest
from fedali.bundle.onnx_scan import Scan, Value
from fedali.errors import BundleError
from fedali.optimizers.schedules import takes

Shape = tuple[int | None, ...]


def check_signatures(manifest: Manifest, scans: dict[str, Scan]) -> None:
    """Raise ``BundleError`` unless every graph of a bundle takes and gives what its manifest says.

    ``scans`` are by the graph's name. Graphs for inference may have any fixed batch, or leave it open.
    """
    embedding, measured = _embedding(manifest, scans), _measured(scans)
    for name, found in scans.items():
        if found.opset != manifest.opset:
            raise BundleError(
                f"{name}.onnx is of operator set {found.opset}, the manifest says {manifest.opset}"
            )
        fixed = name in ("train", "adapt", "begin", "measure", "finish")
        batch = manifest.batch if fixed else _batch(found)
        inputs, outputs = _signature(manifest, name.removesuffix("_int8"), batch, embedding, measured)
        for what, has, wanted in (("inputs", found.inputs, inputs), ("outputs", found.outputs, outputs)):
            if list(has) != list(wanted):
                raise BundleError(
                    f"{name}.onnx has the {what} {_short(list(has))}, not {_short(list(wanted))}"
                )
            for key in wanted:
                if has[key] != wanted[key]:
                    raise BundleError(f"{name}.onnx: {key} is {has[key]}, the manifest says {wanted[key]}")


def _signature(
    manifest: Manifest, name: str, batch: int | None, embedding: int, measured: int
) -> tuple[dict[str, Value], dict[str, Value]]:
    layouts = manifest.layouts
    whole, local = (manifest.known,), (layouts.prototypes.size,)
    begin, end = manifest.answer
    model = (end - begin,)
    samples: Shape = (batch, *manifest.input_shape)
    if name in ("infer", "embed"):
        inputs = _floats(theta=model, local_prototypes=local, x=samples, influence=())
        if name == "infer" and manifest.answers_by == "gate":
            centres = gate_shape(manifest)
            inputs = {
                **_floats(
                    theta=model, shared_theta=model, own=centres, everyone=centres, middle=(), spread=()
                ),
                **_floats(local_prototypes=local, shared_prototypes=local, x=samples, influence=()),
            }
            return inputs, _floats(logits=(batch, len(manifest.classes)), weight=(batch,))
        if name == "infer":
            return inputs, _floats(logits=(batch, len(manifest.classes)))
        return inputs, _floats(embedding=(batch, embedding))
    if name == "adapt":
        inputs = _floats(
            theta=model,
            local_prototypes=local,
            x=samples,
            weights=(batch,),
            shared_prototypes=local,
            influence=(),
            decay=(),
        )
        return inputs, _floats(new_local_prototypes=local)
    if name == "begin":
        counts = (len(manifest.classes),)
        inputs = _floats(theta=whole, shared_theta=whole, class_counts=counts, phase=())
        return inputs, _floats(new_theta=whole)
    if name == "measure":
        inputs = {
            **_floats(theta=whole, local_prototypes=local, x=(manifest.batch, *manifest.input_shape)),
            "y": _targets(manifest, manifest.batch),
            **_floats(weights=(manifest.batch,), shared_theta=whole, influence=()),
        }
        return inputs, _floats(measured=(measured,))
    rest = manifest.known - layouts.trained.size if manifest.mode == "full" else 0
    if name == "finish":
        inputs = _floats(theta=whole, shared_theta=whole, measured=(measured,))
        return {**inputs, **_floats(steps=(), step_size=(), samples=())}, _floats(kept=(rest,))
    trained = (layouts.trained.size,)
    moments = {"first_moment": trained, "second_moment": trained}
    if manifest.optimizer["name"] == "sgd":
        moments["second_moment"] = (0,)
    if manifest.mode == "head":
        samples = (batch, embedding)
    inputs = {
        **_floats(theta=trained, **moments, local_prototypes=local, x=samples),
        "y": _targets(manifest, batch),
        **_floats(weights=(batch,), shared_theta=whole if rest else trained, shared_prototypes=local),
        **_floats(step_size=(), correction=(), influence=(), decay=()),
        **(_floats(kept=(rest,)) if rest else {}),
        **(_floats(phase=()) if manifest.phases else {}),
        **_floats(**dict.fromkeys(takes(manifest.optimizer), ())),
    }
    outputs = _floats(new_theta=trained, **{f"new_{key}": shape for key, shape in moments.items()})
    return inputs, {**outputs, **_floats(new_local_prototypes=local, loss=(), correct=(), weight=())}


def _targets(manifest: Manifest, batch: int | None) -> Value:
    """What y is: classes [B], or targets [B, T]."""
    if manifest.targets.kind == "classes":
        return Value("int64", (batch,))
    return Value("float32", (batch, len(manifest.classes)))


def gate_shape(manifest: Manifest) -> tuple[int, int]:
    """[K, d] of everybody's prototypes, of a bundle that answers by the gate."""
    prototypes, embedding = manifest.layouts.parameters.entries[-1].shape
    return prototypes, embedding


def _floats(**shapes: Shape) -> dict[str, Value]:
    return {name: Value("float32", shape) for name, shape in shapes.items()}


def _embedding(manifest: Manifest, scans: dict[str, Scan]) -> int:
    """d, as the head's step says, and the gate's slot; 0 where neither does."""
    shape = scans["train"].inputs["x"].shape if "x" in scans["train"].inputs else ()
    gated = gate_shape(manifest)[1] if manifest.answers_by == "gate" else 0
    if manifest.mode == "full":
        return gated
    if len(shape) != 2 or not shape[1]:
        raise BundleError("train.onnx of mode 'head' has to take embeddings [batch, d] as x")
    if gated not in (0, shape[1]):
        raise BundleError(
            f"the slot {GATE.name!r} is of embeddings [{gated}], the head's step of [{shape[1]}]"
        )
    return shape[1]


def _measured(scans: dict[str, Scan]) -> int:
    """Q, as ``measure.onnx`` says; 0 without."""
    if "measure" not in scans:
        return 0
    found = scans["measure"].outputs.get("measured")
    if found is None or len(found.shape) != 1 or not found.shape[0]:
        raise BundleError("measure.onnx has to give sums [n] as measured")
    return found.shape[0]


def _batch(found: Scan) -> int | None:
    shape = found.inputs["x"].shape if "x" in found.inputs else ()
    if shape and shape[0] != 0:
        return shape[0]
    raise BundleError("a graph for inference has to take samples [batch, ...] as x")


def _short(names: list[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 200 else text[:200] + "..."
