"""What the node's own stages cost beside the engine, in processor time: resize, post, publishing.

    ./run exec python benchmarks/publishing.py

One VGA image after the other goes through the pipeline and out on every topic, to subscribers in
this process that receive and do nothing more. All is in one thread whose processor time is taken,
so that other work on the machine counts less than by the clock. Receiving images is not part of it
(``mtl_perception bench`` has it). Figures to compare are the shares of the engine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict

import rclpy
from rclpy.lifecycle import LifecycleNode

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.camera import CameraModel, Letterbox
from mtl_perception.commands.bench_node import picture
from mtl_perception.commands.dds import profile_settings
from mtl_perception.engines.choice import open_engine
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.outputs import outputs_of
from mtl_perception.pipeline import Frame, Pipeline
from mtl_perception.ros.messages import message_class
from mtl_perception.ros.publishing import Outlets

CAMERA = CameraModel(640, 480, 554.0, 554.0, 319.5, 239.5)
WARM_UP = 5


def main() -> None:
    """Print the median of each stage and its share of the engine."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--images', type=int, default=60)
    options = parser.parse_args()
    os.environ.update(profile_settings(os.environ))
    bundle = load_bundle(default_bundle())
    engine = open_engine('onnxruntime', bundle, EngineOptions(threads=1)).engine
    pipeline = Pipeline(bundle, engine)
    frame = Frame(picture(640, 480), CAMERA)
    outputs = [output for output in outputs_of(bundle) if not output.of]
    times: defaultdict[str, list[float]] = defaultdict(list)
    rclpy.init()
    node, reader = LifecycleNode('publishing'), rclpy.create_node('reader')
    outlets = Outlets(node, '', bundle)
    outlets.advertise()
    node.trigger_configure()
    node.trigger_activate()
    for output in outputs:
        topic = f'/publishing/{output.name}'
        reader.create_subscription(message_class(output), topic, lambda _: None, 1, raw=True)
    while len(outlets.listened()) < len(outputs):
        time.sleep(0.1)
    grid = Letterbox.fit(640, 480, bundle.width, bundle.height)
    for _ in range(WARM_UP + options.images):
        marks = [time.thread_time()]
        images = grid.forward(frame.image)[None]
        marks.append(time.thread_time())
        engine.run(images, list(bundle.outputs))
        marks.append(time.thread_time())
        (prediction,) = pipeline([frame], list(bundle.outputs))
        marks.append(time.thread_time())
        count = outlets.publish(prediction, outlets.listened())
        marks.append(time.thread_time())
        stages = ('resize', 'engine', 'pipeline: resize, engine, post', f'publish {count} topics')
        for stage, before, after in zip(stages, marks, marks[1:], strict=False):
            times[stage].append(after - before)
    medians = {stage: 1e3 * statistics.median(found[WARM_UP:]) for stage, found in times.items()}
    print(f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n')
    print('| | ms of processor time | of the engine |\n|---|---|---|')
    for stage, median in medians.items():
        print(f'| {stage} | {median:.2f} | {median / medians["engine"]:.1%} |')
    node.destroy_node()
    reader.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    main()
