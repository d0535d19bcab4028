"""Options of gRPC for gateways, devices, and both ends of a site's socket; limits of messages."""

from __future__ import annotations

Options = list[tuple[str, int | str]]

LARGEST_CHUNK = 1 << 20  # bytes; more is refused
LARGEST_RELAYED = 1 << 30  # bytes of a message between a node and its gateway; a bundle has at most 512 MiB
BESIDE_NUMBERS = (
    16 << 10
)  # bytes of an update or a state that are no tensor's data; metrics need 2.3 KiB at most


def server_options() -> Options:
    """Options of gRPC for a gateway: small messages, one process a port, connections that died are noticed in 90 seconds."""
    return [
        *_messages(LARGEST_CHUNK + BESIDE_NUMBERS),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # what a server tolerates of its clients
        ("grpc.http2.max_pings_without_data", 0),
    ]


def client_options(expected_name: str | None = None) -> Options:
    """Options of gRPC for a device: they go with ``server_options``, and reconnect within 10 seconds.

    ``expected_name`` is the name that the gateway's certificate has to bear; the address's own when None.
    """
    return [
        *_messages(LARGEST_CHUNK + BESIDE_NUMBERS),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 15_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_retries", 0),  # a device tries again by itself, from what the gateway holds
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.min_reconnect_backoff_ms", 10_000),  # for an attempt to connect
        ("grpc.max_reconnect_backoff_ms", 10_000),
        *([] if expected_name is None else [("grpc.ssl_target_name_override", expected_name)]),
    ]


def relay_options() -> Options:
    """Options of gRPC for both ends of a site's Unix socket: messages hold bundles and whole models."""
    return [
        *_messages(LARGEST_RELAYED),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def _messages(largest: int) -> Options:
    return [("grpc.max_send_message_length", largest), ("grpc.max_receive_message_length", largest)]
