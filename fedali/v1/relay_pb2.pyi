from fedali.v1 import federation_pb2 as _federation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HasBundleRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class HasBundleReply(_message.Message):
    __slots__ = ("held",)
    HELD_FIELD_NUMBER: _ClassVar[int]
    held: bool
    def __init__(self, held: _Optional[bool] = ...) -> None: ...

class PutBundleRequest(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    def __init__(self, bundle: _Optional[bytes] = ...) -> None: ...

class PutBundleReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RoundOrder(_message.Message):
    __slots__ = ("run", "round", "kind", "bundle", "theta", "prototypes", "epochs", "influence", "seed", "encoding", "seconds", "quorum", "grace_seconds", "largest_step", "largest_samples", "devices", "largest_weight", "largest_weights")
    class LargestWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    THETA_FIELD_NUMBER: _ClassVar[int]
    PROTOTYPES_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    INFLUENCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    QUORUM_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_STEP_FIELD_NUMBER: _ClassVar[int]
    LARGEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LARGEST_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    kind: int
    bundle: bytes
    theta: bytes
    prototypes: bytes
    epochs: int
    influence: float
    seed: int
    encoding: int
    seconds: float
    quorum: float
    grace_seconds: float
    largest_step: float
    largest_samples: int
    devices: _containers.RepeatedScalarFieldContainer[int]
    largest_weight: int
    largest_weights: _containers.ScalarMap[int, int]
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., kind: _Optional[int] = ..., bundle: _Optional[bytes] = ..., theta: _Optional[bytes] = ..., prototypes: _Optional[bytes] = ..., epochs: _Optional[int] = ..., influence: _Optional[float] = ..., seed: _Optional[int] = ..., encoding: _Optional[int] = ..., seconds: _Optional[float] = ..., quorum: _Optional[float] = ..., grace_seconds: _Optional[float] = ..., largest_step: _Optional[float] = ..., largest_samples: _Optional[int] = ..., devices: _Optional[_Iterable[int]] = ..., largest_weight: _Optional[int] = ..., largest_weights: _Optional[_Mapping[int, int]] = ...) -> None: ...

class DeviceReport(_message.Message):
    __slots__ = ("device", "number", "state", "reason", "seconds", "sent", "received", "metrics", "samples", "weight")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    device: str
    number: int
    state: str
    reason: str
    seconds: float
    sent: int
    received: int
    metrics: _containers.ScalarMap[str, float]
    samples: int
    weight: int
    def __init__(self, device: _Optional[str] = ..., number: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., seconds: _Optional[float] = ..., sent: _Optional[int] = ..., received: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., samples: _Optional[int] = ..., weight: _Optional[int] = ...) -> None: ...

class RoundOutcome(_message.Message):
    __slots__ = ("devices", "upload", "statistics")
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceReport]
    upload: bytes
    statistics: _federation_pb2.Statistics
    def __init__(self, devices: _Optional[_Iterable[_Union[DeviceReport, _Mapping]]] = ..., upload: _Optional[bytes] = ..., statistics: _Optional[_Union[_federation_pb2.Statistics, _Mapping]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeviceStatus(_message.Message):
    __slots__ = ("device", "number", "online", "seen_seconds", "doing", "software", "revoked", "train_samples", "test_samples")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ONLINE_FIELD_NUMBER: _ClassVar[int]
    SEEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    TRAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TEST_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    device: str
    number: int
    online: bool
    seen_seconds: float
    doing: str
    software: str
    revoked: bool
    train_samples: int
    test_samples: int
    def __init__(self, device: _Optional[str] = ..., number: _Optional[int] = ..., online: _Optional[bool] = ..., seen_seconds: _Optional[float] = ..., doing: _Optional[str] = ..., software: _Optional[str] = ..., revoked: _Optional[bool] = ..., train_samples: _Optional[int] = ..., test_samples: _Optional[int] = ...) -> None: ...

class SiteStatus(_message.Message):
    __slots__ = ("federation", "site", "run", "round", "kind", "seconds_left", "devices")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    federation: str
    site: str
    run: str
    round: int
    kind: int
    seconds_left: float
    devices: _containers.RepeatedCompositeFieldContainer[DeviceStatus]
    def __init__(self, federation: _Optional[str] = ..., site: _Optional[str] = ..., run: _Optional[str] = ..., round: _Optional[int] = ..., kind: _Optional[int] = ..., seconds_left: _Optional[float] = ..., devices: _Optional[_Iterable[_Union[DeviceStatus, _Mapping]]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("list", "signature")
    LIST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    list: bytes
    signature: bytes
    def __init__(self, list: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...
