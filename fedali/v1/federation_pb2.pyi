from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_KIND_UNSPECIFIED: _ClassVar[TaskKind]
    TASK_KIND_TRAIN: _ClassVar[TaskKind]
    TASK_KIND_EVALUATE: _ClassVar[TaskKind]
    TASK_KIND_STATISTICS: _ClassVar[TaskKind]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    ENCODING_FLOAT32: _ClassVar[Encoding]
    ENCODING_FLOAT16: _ClassVar[Encoding]
    ENCODING_INT8: _ClassVar[Encoding]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_COUNTED: _ClassVar[Verdict]
    VERDICT_INCOMPLETE: _ClassVar[Verdict]
    VERDICT_LATE: _ClassVar[Verdict]
    VERDICT_REFUSED: _ClassVar[Verdict]
TASK_KIND_UNSPECIFIED: TaskKind
TASK_KIND_TRAIN: TaskKind
TASK_KIND_EVALUATE: TaskKind
TASK_KIND_STATISTICS: TaskKind
ENCODING_UNSPECIFIED: Encoding
ENCODING_FLOAT32: Encoding
ENCODING_FLOAT16: Encoding
ENCODING_INT8: Encoding
VERDICT_UNSPECIFIED: Verdict
VERDICT_COUNTED: Verdict
VERDICT_INCOMPLETE: Verdict
VERDICT_LATE: Verdict
VERDICT_REFUSED: Verdict

class EnrolRequest(_message.Message):
    __slots__ = ("protocol", "software", "train_samples", "test_samples", "bundle")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    software: str
    train_samples: int
    test_samples: int
    bundle: bytes
    def __init__(self, protocol: _Optional[int] = ..., software: _Optional[str] = ..., train_samples: _Optional[int] = ..., test_samples: _Optional[int] = ..., bundle: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("federation", "device", "bundle", "chunk_bytes", "heartbeat_seconds", "largest_update")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_UPDATE_FIELD_NUMBER: _ClassVar[int]
    federation: str
    device: str
    bundle: Artifact
    chunk_bytes: int
    heartbeat_seconds: float
    largest_update: int
    def __init__(self, federation: _Optional[str] = ..., device: _Optional[str] = ..., bundle: _Optional[_Union[Artifact, _Mapping]] = ..., chunk_bytes: _Optional[int] = ..., heartbeat_seconds: _Optional[float] = ..., largest_update: _Optional[int] = ...) -> None: ...

class NextTaskRequest(_message.Message):
    __slots__ = ("wait_seconds",)
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    wait_seconds: float
    def __init__(self, wait_seconds: _Optional[float] = ...) -> None: ...

class NextTaskReply(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("sha256", "size")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    size: int
    def __init__(self, sha256: _Optional[bytes] = ..., size: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "kind", "run", "round", "bundle", "state", "epochs", "influence", "entropy", "encoding", "seconds_left")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    INFLUENCE_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: TaskKind
    run: str
    round: int
    bundle: Artifact
    state: Artifact
    epochs: int
    influence: float
    entropy: _containers.RepeatedScalarFieldContainer[int]
    encoding: Encoding
    seconds_left: float
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., run: _Optional[str] = ..., round: _Optional[int] = ..., bundle: _Optional[_Union[Artifact, _Mapping]] = ..., state: _Optional[_Union[Artifact, _Mapping]] = ..., epochs: _Optional[int] = ..., influence: _Optional[float] = ..., entropy: _Optional[_Iterable[int]] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., seconds_left: _Optional[float] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("sha256", "offset")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    offset: int
    def __init__(self, sha256: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("encoding", "size", "data", "scales")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    SCALES_FIELD_NUMBER: _ClassVar[int]
    encoding: Encoding
    size: int
    data: bytes
    scales: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, encoding: _Optional[_Union[Encoding, str]] = ..., size: _Optional[int] = ..., data: _Optional[bytes] = ..., scales: _Optional[_Iterable[float]] = ...) -> None: ...

class SharedState(_message.Message):
    __slots__ = ("theta", "prototypes")
    THETA_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPES_FIELD_NUMBER: _ClassVar[int]
    theta: Tensor
    prototypes: Tensor
    def __init__(self, theta: _Optional[_Union[Tensor, _Mapping]] = ..., prototypes: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("count", "sums", "squares")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    SQUARES_FIELD_NUMBER: _ClassVar[int]
    count: int
    sums: _containers.RepeatedScalarFieldContainer[float]
    squares: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, count: _Optional[int] = ..., sums: _Optional[_Iterable[float]] = ..., squares: _Optional[_Iterable[float]] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("task", "bundle", "samples", "delta", "theta", "prototypes", "metrics", "statistics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    THETA_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    task: str
    bundle: bytes
    samples: int
    delta: bool
    theta: Tensor
    prototypes: Tensor
    metrics: _containers.ScalarMap[str, float]
    statistics: Statistics
    def __init__(self, task: _Optional[str] = ..., bundle: _Optional[bytes] = ..., samples: _Optional[int] = ..., delta: _Optional[bool] = ..., theta: _Optional[_Union[Tensor, _Mapping]] = ..., prototypes: _Optional[_Union[Tensor, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("task", "update", "offset")
    TASK_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    task: str
    update: Artifact
    offset: int
    def __init__(self, task: _Optional[str] = ..., update: _Optional[_Union[Artifact, _Mapping]] = ..., offset: _Optional[int] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("header", "data")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class UploadReply(_message.Message):
    __slots__ = ("verdict", "reason", "received")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    reason: str
    received: int
    def __init__(self, verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[str] = ..., received: _Optional[int] = ...) -> None: ...

class UploadOffsetRequest(_message.Message):
    __slots__ = ("task", "sha256")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    task: str
    sha256: bytes
    def __init__(self, task: _Optional[str] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class UploadOffsetReply(_message.Message):
    __slots__ = ("received",)
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    received: int
    def __init__(self, received: _Optional[int] = ...) -> None: ...

class DeclineRequest(_message.Message):
    __slots__ = ("task", "reason")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task: str
    reason: str
    def __init__(self, task: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class DeclineReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("task", "progress")
    TASK_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    task: str
    progress: float
    def __init__(self, task: _Optional[str] = ..., progress: _Optional[float] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("wanted",)
    WANTED_FIELD_NUMBER: _ClassVar[int]
    wanted: bool
    def __init__(self, wanted: _Optional[bool] = ...) -> None: ...
