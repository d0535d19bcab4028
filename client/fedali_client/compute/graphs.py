"""Graphs of a bundle in onnxruntime, fed from memory that is bound once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedali.bundle.file import Bundle
from fedali.errors import BundleError, FedaliError, MissingExtraError, SettingsError, did_you_mean

if TYPE_CHECKING:
    import onnxruntime

Array = npt.NDArray[Any]

CPU = "CPUExecutionProvider"
LARGEST_BATCH = 32  # of a graph that takes any: larger ones need more memory and are no faster on one core
_NOTHING = np.zeros(1, np.float32)  # memory for what has length 0: a null pointer is refused


class Runtime(NamedTuple):
    """Where graphs run: threads of onnxruntime, and one of its execution providers, with the CPU behind it."""

    threads: int = 1
    provider: str = CPU


def open_session(bundle: Bundle, name: str, runtime: Runtime) -> onnxruntime.InferenceSession:
    """A session for the part ``name`` of a bundle.

    Raises ``BundleError`` when this onnxruntime is too old or refuses the part, and ``SettingsError`` for a provider that
    it does not have.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnxruntime", "client") from error
    installed = onnxruntime.__version__
    if tuple(int(n) for n in installed.split(".")[:2]) < bundle.manifest.minimum_onnxruntime:
        raise BundleError(
            f"this bundle needs onnxruntime {bundle.manifest.onnxruntime}, here is {installed}: "
            "pip install --upgrade onnxruntime"
        )
    known = onnxruntime.get_available_providers()
    if runtime.provider not in known:
        raise SettingsError(
            f"this onnxruntime has no provider {runtime.provider!r}; {did_you_mean(runtime.provider, known)}"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = runtime.threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.enable_mem_pattern = False  # 7 MB less for a training step of cnn1d, and no slower
    providers = list(dict.fromkeys((runtime.provider, CPU)))
    try:
        return onnxruntime.InferenceSession(bundle.parts[name], options, providers=providers)
    except Exception as error:  # onnxruntime has many kinds of errors, and Exception is what they share
        reason = str(error).strip().splitlines()[0]
        raise BundleError(
            f"onnxruntime {installed} refuses {name} of bundle {bundle.manifest.name!r}: {reason}"
        ) from error


class BoundGraph:
    """A graph whose inputs and outputs stay in the same places: running it allocates nothing here.

    Args:
        session: of the graph.
        inputs: an array for each input; 0-d ones stay 0-d.
        outputs: an array for each output; none may share memory with an input.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        self._session, self._held = session, (dict(inputs), dict(outputs))
        self._binding = session.io_binding()
        for value in session.get_inputs():
            self._binding.bind_input(value.name, *_place(inputs[value.name]))
        for value in session.get_outputs():
            self._binding.bind_output(value.name, *_place(outputs[value.name]))

    def run(self) -> None:
        """Compute the outputs; ``FedaliError`` when onnxruntime cannot."""
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # see open_session
            raise _failed(error) from error


def _place(array: Array) -> tuple[str, int, Any, list[int], int]:
    assert array.flags.c_contiguous
    where = (array if array.size else _NOTHING).ctypes.data
    return "cpu", 0, array.dtype.type, list(array.shape), where


class Forward:
    """A graph from samples to one row for each, whatever batch it was exported for.

    Args:
        session: of ``infer.onnx`` or ``embed.onnx``.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._inputs = {value.name: value for value in session.get_inputs()}
        batch = self._inputs["x"].shape[0]
        self.fixed = isinstance(batch, int)
        self.size = batch if self.fixed else LARGEST_BATCH

    def __call__(self, x: Array, others: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Rows [n, ...] of normalised samples [n, *shape], 0 < n <= ``size``; ``others`` are the other inputs.

        A graph of two outputs gives the second, a number for each sample, as one more column.
        """
        count = len(x)
        if self.fixed and count < self.size:
            x = np.concatenate([x, np.broadcast_to(x[:1], (self.size - count, *x.shape[1:]))])
        feed = {name: value for name, value in others.items() if name in self._inputs}
        try:
            first, *more = self._session.run(None, {**feed, "x": x})
        except Exception as error:  # see open_session
            raise _failed(error) from error
        found: npt.NDArray[np.float32] = np.column_stack([first, *more]) if more else first
        return found[:count]


def _failed(error: Exception) -> FedaliError:
    import onnxruntime

    reason = " ".join(str(error).split())[:300]
    return FedaliError(
        f"onnxruntime {onnxruntime.__version__} fails at a graph of this bundle; another version may run it, or a bundle "
        f"that is exported anew: {reason}"
    )
