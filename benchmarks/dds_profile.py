"""Images delivered between two processes at 30 Hz with and without the shipped Fast DDS profile.

    ./run exec python benchmarks/dds_profile.py

A publisher and a subscriber process (best effort, as sensor data is) exchange raw images on this
machine; both run with Fast DDS as it comes and with ``config/fastdds.xml``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from mtl_perception.commands.bench_node import camera_messages, stamped
from mtl_perception.commands.dds import PROFILE_VARIABLES, profile_settings
from mtl_perception.commands.graph import message_class, ros_node

TOPIC = '/dds_profile/image'


def qos() -> object:
    """Best effort, newest only."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def publish(width: int, height: int, rate: float, seconds: float) -> None:
    """Wait for the subscriber, then publish at a steady rate; prints how many."""
    kind = message_class('sensor_msgs/msg/Image')
    with ros_node('dds_profile_publisher') as (node, _):
        publisher = node.create_publisher(kind, TOPIC, qos())
        deadline = time.monotonic() + 20
        while not publisher.get_subscription_count():
            if time.monotonic() > deadline:
                sys.exit('no subscriber was found in 20 s')
            time.sleep(0.05)
        data, _ = camera_messages(width, height)
        start = time.monotonic()
        count = round(rate * seconds)
        for index in range(count):
            time.sleep(max(0.0, start + index / rate - time.monotonic()))
            publisher.publish(stamped(data, (index + 1) * 1_000_000))
        print(count)


def subscribe(seconds: float) -> None:
    """Count images until none has come for a while; prints how many."""
    kind = message_class('sensor_msgs/msg/Image')
    count = 0

    def received(_data: bytes) -> None:
        nonlocal count
        count += 1

    with ros_node('dds_profile_subscriber') as (node, executor):
        node.create_subscription(kind, TOPIC, received, qos(), raw=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        print(count)


def exchange(options: argparse.Namespace, *, profile: bool) -> tuple[int, int]:
    """Run both processes; returns (received, published)."""
    environment = {k: v for k, v in os.environ.items() if k not in PROFILE_VARIABLES}
    if profile:
        environment |= profile_settings(environment)
    command = [sys.executable, __file__, '--size', options.size, '--rate', str(options.rate)]

    def start(role: str, seconds: float) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, '--seconds', str(seconds), '--role', role],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    subscriber = start('subscribe', options.seconds + 6)
    publisher = start('publish', options.seconds)
    try:
        published = int(publisher.communicate(timeout=options.seconds + 60)[0])
        received = int(subscriber.communicate(timeout=options.seconds + 60)[0])
    finally:
        publisher.kill()
        subscriber.kill()
    return received, published


def main() -> None:
    """Measure without and with the profile, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--rate', type=float, default=30.0)
    parser.add_argument('--seconds', type=float, default=7.0)
    parser.add_argument('--repeat', type=int, default=2)
    parser.add_argument('--role', choices=('publish', 'subscribe'), help=argparse.SUPPRESS)
    options = parser.parse_args()
    width, height = map(int, options.size.split('x'))
    if options.role == 'publish':
        publish(width, height, options.rate, options.seconds)
    elif options.role == 'subscribe':
        subscribe(options.seconds)
    else:
        print(f'{options.size} rgb8 at {options.rate:g} Hz, {os.cpu_count()} cores')
        for _ in range(options.repeat):
            for profile in (False, True):
                received, published = exchange(options, profile=profile)
                name = 'shipped profile' if profile else 'as it comes'
                print(f'{name:<16} {received} of {published} images delivered', flush=True)


if __name__ == '__main__':
    main()
