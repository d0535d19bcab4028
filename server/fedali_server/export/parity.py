"""The parity gate: every graph of a bundle, run by onnxruntime, against the torch function it was made of.

One step is compared, not a training: trajectories part where a near-tie of an ``argmax`` falls to the other side, and
that is no fault of a graph. For the same reason batches with such a tie are left out, which is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from fedali.bundle.manifest import Parity
from fedali.errors import BundleError, MissingExtraError
from fedali.step import (
    Batch,
    Hyper,
    Shared,
    State,
    Vectors,
    make_adapt,
    make_begin,
    make_embed,
    make_finish,
    make_gated,
    make_head_step,
    make_measure,
    make_predict,
    make_step,
)
from fedali_server.export.draws import TIES, Draw, Subject, clean_batches, clearness

ALLOWED = 1e-5
_SHRINK = 0.9  # of weights that decay, in the one step that is compared
_Errors = dict[str, float]


def check_parity(subject: Subject, graphs: Mapping[str, bytes]) -> dict[str, Parity]:
    """How far each graph is from torch, by name.

    Raises ``BundleError`` for one that is farther than ``ALLOWED``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches are small, and threads that share a busy core wait for each other
    try:
        return {name: _parity_of(subject, name, graph) for name, graph in graphs.items()}
    finally:
        torch.set_num_threads(threads)


def _parity_of(subject: Subject, name: str, graph: bytes) -> Parity:
    run = session_of(graph)
    if name == "train":
        error = _step(subject, run)
    elif name == "adapt":
        error = _adapt(subject, run)
    elif name == "begin":
        error = _begin(subject, run)
    elif name == "measure":
        error = _measure(subject, run)
    elif name == "finish":
        error = _finish(subject, run)
    else:
        error = _inference(subject, name, run)
    if not error.error <= ALLOWED:
        raise BundleError(
            f"{name}.onnx computes something else than torch: {error.what} is off by {error.error:.1e}, and "
            f"{ALLOWED:.0e} is allowed. No bundle was written"
        )
    return error


Run = Callable[..., list[Tensor]]


def session_of(graph: bytes, threads: int = 1) -> Run:
    """A function of a graph's inputs, in order, that runs it by onnxruntime on the CPU."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "client") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*tensors: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(np.asarray(value)) for value in session.run(None, feed)]

    return run


def _step(subject: Subject, run: Run) -> Parity:
    model, head = subject.model, subject.mode == "head"
    make = make_head_step if head else make_step
    step = make(model, subject.method, subject.optimizer, eager=True, task=subject.task)
    vectors = Vectors(model, subject.method)
    theta = subject.vector[: vectors.trained.size]
    if head:
        theta = subject.theta[-model.head_layout.size :]
    phases = range(max(1, len(subject.method.phases)))
    worst: _Errors = {}
    clean, tie = clean_batches(subject, training=True)
    for draw, phase in ((draw, phase) for draw in clean for phase in phases):
        x = draw.embedding if head else draw.x
        batch = Batch(x, draw.y, draw.weights)
        whole = theta if head or not vectors.rest.size else subject.vector
        shared = Shared(whole + 0.01 * draw.like(whole), draw.global_)
        rest = 0.1 * draw.like(subject.vector[vectors.trained.size :])
        extra = [rest] if vectors.rest.size and not head else []
        if subject.method.phases:
            extra.append(torch.tensor(float(phase)))
        extra += [torch.tensor(_SHRINK) for _ in subject.optimizer.inputs]
        state = State(theta, *subject.optimizer.initial(theta), draw.local)
        numbers = [1.0, 1.0, draw.influence, draw.decay]
        tried, _ = step(state, batch, shared, Hyper(*map(torch.tensor, numbers)), *extra)
        # A second moment of the gradient's scale, where that of single entries would blow up the rounding of those
        # near 0; and a step as long as theta: rounding of theta then hides nothing.
        scale = tried.second_moment.mean() if tried.second_moment.numel() else torch.tensor(0.0)
        second = scale * (0.5 + draw.like(tried.second_moment).abs())
        state = state._replace(second_moment=second)
        tried, _ = step(state, batch, shared, Hyper(*map(torch.tensor, numbers)), *extra)
        numbers[0] = float(theta.norm() / (tried.theta - theta).norm())
        hyper = Hyper(*map(torch.tensor, numbers))
        expected, metrics = step(state, batch, shared, hyper, *extra)
        new_theta, first, second, local, *sums = run(*state, *batch, *shared, *hyper, *extra)
        errors = {
            "the gradient": _relative(first, expected.first_moment),
            "the step": _relative(new_theta, expected.theta, theta),
            "the second moment": _relative(second, expected.second_moment),
            "the movement of prototypes": _relative(
                local, expected.local_prototypes, None if head else draw.local
            ),
            "the loss": _relative(sums[0], metrics.loss),
            "the count of correct predictions": _relative(sums[1], metrics.correct),
            "the weight": _relative(sums[2], metrics.weight),
        }
        _keep_worst(worst, errors)
    return _parity(worst, f"one step on {len(clean)} random batches", tie)


def _adapt(subject: Subject, run: Run) -> Parity:
    adapt = make_adapt(subject.model)
    worst: _Errors = {}
    clean, tie = clean_batches(subject, training=True)
    for draw in clean:
        numbers = (torch.tensor(draw.influence), torch.tensor(draw.decay))
        given = (subject.theta, draw.local, draw.x, draw.weights, draw.global_, *numbers)
        (moved,) = run(*given)
        _keep_worst(worst, {"the movement of prototypes": _relative(moved, adapt(*given), draw.local)})
    return _parity(worst, f"{len(clean)} random batches", tie)


def _begin(subject: Subject, run: Run) -> Parity:
    begin = make_begin(subject.model, subject.method)
    draw = Draw(subject, 0, subject.batch)
    server = subject.vector + 0.01 * draw.like(subject.vector)
    counts = torch.arange(subject.classes, dtype=torch.float32)
    worst: _Errors = {}
    for phase in range(max(1, len(subject.method.phases))):
        given = (subject.vector, server, counts, torch.tensor(float(phase)))
        (found,) = run(*given)
        _keep_worst(worst, {"the vector as training starts": _relative(found, begin(*given))})
    return _parity(worst, "one random training", TIES[0])


def _measure(subject: Subject, run: Run) -> Parity:
    measure = make_measure(subject.model, subject.method, subject.task)
    worst: _Errors = {}
    clean, tie = clean_batches(subject, training=True)
    for draw in clean:
        server = subject.vector + 0.01 * draw.like(subject.vector)
        given = (subject.vector, draw.local, draw.x, draw.y, draw.weights, server, torch.tensor(0.3))
        (found,) = run(*given)
        _keep_worst(worst, {"the sums after training": _relative(found, measure(*given))})
    return _parity(worst, f"{len(clean)} random batches", tie)


def _finish(subject: Subject, run: Run) -> Parity:
    finish, vectors = make_finish(subject.model, subject.method), Vectors(subject.model, subject.method)
    draw = Draw(subject, 0, subject.batch)
    server = subject.vector + 0.01 * draw.like(subject.vector)
    measured = draw.like(torch.empty(vectors.measured.size)).abs()
    given = (subject.vector, server, measured, *map(torch.tensor, (5.0, 0.01, 40.0)))
    (found,) = run(*given)
    worst: _Errors = {}
    _keep_worst(worst, {"what is kept after training": _relative(found, finish(*given))})
    return _parity(worst, "one random training", TIES[0])


def _inference(subject: Subject, name: str, run: Run) -> Parity:
    gated = name == "infer" and subject.method.answer == "gate"
    what, make = ("logits", make_predict) if name == "infer" else ("embeddings", make_embed)
    infer = make(subject.model, matcher="cosine")
    gate = make_gated(subject.model, matcher="cosine", kind=subject.task.kind)
    worst: _Errors = {}
    tie = TIES[0]
    samples = 0
    for number, size in enumerate((1, 2, subject.batch, subject.batch + 3)):
        draw = Draw(subject, number, size)
        given: tuple[Tensor, ...] = (subject.theta, draw.local, draw.x, torch.tensor(draw.influence))
        clear = draw.gaps(subject, training=False) > tie
        if gated:
            given, gaps = draw.gate(subject)
            clear &= gaps > tie
            (found, weight), (expected, share) = run(*given), gate(*given)
            _keep_worst(worst, {"the weight of the personal answer": _relative(weight[clear], share[clear])})
            clear &= clearness(subject.task, expected) > tie
        else:
            (found,), expected = run(*given), infer(*given)
        if found.shape != expected.shape:
            raise BundleError(
                f"{name}.onnx gives {list(found.shape)} for {size} samples. No bundle was written"
            )
        samples += int(clear.sum())
        if clear.any():
            errors = {f"the {what}": _relative(found[clear], expected[clear])}
            if name == "infer":
                said, meant = subject.task.predict(found), subject.task.predict(expected)
                differ = (said != meant) if subject.task.kind == "classes" else (said != meant).any(1)
                if subject.task.kind != "numbers":
                    errors["predictions"] = float((differ & clear).float().mean())
            _keep_worst(worst, errors)
    if not samples:
        raise BundleError(
            f"{name}.onnx cannot be compared: every random sample is a tie. No bundle was written"
        )
    return _parity(worst, f"{samples} random samples in batches of several sizes", tie)


def _relative(found: Tensor, expected: Tensor, start: Tensor | None = None) -> float:
    """Norm of the difference by that of what is expected, or of what moved from ``start``."""
    difference = (found - expected).double().norm()
    size = (expected if start is None else expected - start).double().norm()
    if difference == 0:
        return 0.0
    return float(difference / size) if size > 0 else math.inf


def _keep_worst(worst: _Errors, errors: _Errors) -> None:
    for name, error in errors.items():
        worst[name] = max(worst.get(name, 0.0), error if error == error else math.inf)


def _parity(worst: _Errors, where: str, tie: float) -> Parity:
    name = max(worst, key=lambda key: worst[key])
    return Parity(float(f"{worst[name]:.2e}"), f"{name}, relative; {where} without a tie within {tie:g}")
