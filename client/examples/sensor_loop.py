"""A sensor loop: read samples, cut windows, predict each, keep it, and learn when nothing else is to do.

Sources, one sample of numbers at a time:

- ``stdin``: a line of numbers for each sample, separated by commas or blanks: ``your-sensor | python sensor_loop.py ...``
- ``file``: the same from ``--file``, at ``--rate`` samples a second, to try things at a desk
- ``mpu6050``: accelerometer [m/s2] and gyroscope [rad/s] of an MPU-6050 at I2C bus 1, address 0x68 (needs the package
  ``smbus2``; wiring and ``raspi-config`` in docs/edge.md)

A label is given by whoever is near: write its name to ``--label-file`` and remove the file when it no longer holds. What
is seen without a label only moves the prototypes, with ``--adapt``.

    python sensor_loop.py --bundle model.fedali --key site.pub --state ~/.fedali --source mpu6050 --label-file /run/label

Prints one line of JSON for each window: {"label": "walking", "probability": 0.97, "given": null}
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fedali.errors import FedaliError
from fedali_client import EdgeClient


def numbers(lines: Iterator[str]) -> Iterator[list[float]]:
    """Samples of lines of numbers; others are skipped with a word."""
    for line in lines:
        try:
            yield [float(word) for word in line.replace(",", " ").split()]
        except ValueError:
            print(f"skipped, not numbers: {line.strip()[:60]!r}", file=sys.stderr)


def paced(samples: Iterator[list[float]], rate: float) -> Iterator[list[float]]:
    """The same, ``rate`` a second; 0 is as fast as it goes."""
    due = time.monotonic()
    for sample in samples:
        yield sample
        if rate:
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))


def mpu6050(rate: float) -> Iterator[list[float]]:
    """Accelerometer and gyroscope, six numbers, ``rate`` times a second."""
    from smbus2 import SMBus  # pip install smbus2

    address, gravity = 0x68, 9.80665
    with SMBus(1) as bus:
        bus.write_byte_data(address, 0x6B, 0x00)  # wake up
        bus.write_byte_data(address, 0x1C, 0x08)  # +-4 g
        bus.write_byte_data(address, 0x1B, 0x08)  # +-500 degrees a second
        due = time.monotonic()
        while True:
            raw = bytes(bus.read_i2c_block_data(address, 0x3B, 14))
            values = np.frombuffer(raw, ">i2").astype(float)
            acceleration, rotation = (
                values[:3] * (4 * gravity / 32768),
                values[4:] * (np.radians(500) / 32768),
            )
            yield [*acceleration, *rotation]
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))


def ahead(samples: Iterator[list[float]]) -> Iterator[list[float]]:
    """The same, read by a thread of its own: nothing is missed while the model trains."""
    waiting: queue.Queue[list[float] | None] = queue.Queue(maxsize=100_000)

    def read() -> None:
        try:
            for sample in samples:
                waiting.put(sample)
        finally:
            waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (sample := waiting.get()) is not None:
        yield sample


def windows(samples: Iterator[list[float]], length: int, step: int, channels: int) -> Iterator[np.ndarray]:
    """Windows [length, channels], one every ``step`` samples."""
    kept: list[list[float]] = []
    for sample in samples:
        if len(sample) != channels:
            print(f"skipped, {len(sample)} numbers where the model takes {channels}", file=sys.stderr)
            continue
        kept.append(sample)
        if len(kept) == length:
            yield np.array(kept, np.float32)
            del kept[:step]


def given_label(path: Path | None) -> str | None:
    """The label that somebody gives now, if any."""
    try:
        return (path.read_text(encoding="utf-8").strip() or None) if path else None
    except FileNotFoundError:
        return None


def main() -> None:
    """Run until the samples end or the process is told to stop."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--key", help="needed once")
    parser.add_argument("--allow-unsigned", action="store_true")
    parser.add_argument("--state", default="~/.fedali")
    parser.add_argument("--source", choices=("stdin", "file", "mpu6050"), default="stdin")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--rate", type=float, default=50.0, help="samples a second (default: 50)")
    parser.add_argument("--overlap", type=float, default=0.5, help="of windows, 0 to 1 (default: 0.5)")
    parser.add_argument("--label-file", type=Path)
    parser.add_argument("--train-every", type=int, default=50, help="labelled windows (default: 50)")
    parser.add_argument("--adapt", action="store_true", help="let windows without labels move the prototypes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # leaves by way of `with`, which saves
    with EdgeClient.open(
        options.bundle, options.state, trusted_key=options.key, allow_unsigned=options.allow_unsigned
    ) as client:
        length, channels = client.manifest.input_shape
        if options.source == "mpu6050":
            samples = mpu6050(options.rate)
        elif options.source == "file":
            if options.file is None:
                parser.error("--source file needs --file")
            samples = paced(numbers(options.file.open(encoding="utf-8")), options.rate)
        else:
            samples = numbers(sys.stdin)
        step = max(1, round(length * (1 - options.overlap)))
        fresh = 0
        for window in windows(ahead(samples), length, step, channels):
            probabilities = client.predict_proba(window)[0]
            best = int(probabilities.argmax())
            label = given_label(options.label_file)
            answer = {
                "label": client.manifest.classes[best],
                "probability": round(float(probabilities[best]), 4),
            }
            print(json.dumps({**answer, "given": label}), flush=True)
            try:
                client.observe(window, label)
            except FedaliError as error:  # an unknown label, or a full disk: predictions go on
                print(f"not kept: {error}", file=sys.stderr)
                continue
            fresh += label is not None
            if fresh >= options.train_every:
                report = client.train_observed(epochs=5)
                if options.adapt and len(unlabelled := client.observations.unlabelled()):
                    client.adapt(unlabelled)
                print(f"trained on {report.samples} windows in {report.seconds:.1f} s", file=sys.stderr)
                fresh = 0


if __name__ == "__main__":
    try:
        main()
    except FedaliError as error:
        sys.exit(f"sensor_loop: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
