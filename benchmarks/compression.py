"""What compressed outputs save of the bytes, and cost in processor time.

    ./run exec python benchmarks/compression.py

The outputs of the shipped bundle for images of the sample recording: medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections import defaultdict

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.calibration import camera_model
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.images import read_image
from mtl_perception.offline.cameras import find_camera
from mtl_perception.offline.recordings import RecordingReader
from mtl_perception.outputs import outputs_of
from mtl_perception.pipeline import Frame, Pipeline
from mtl_perception.share import share


def main() -> None:
    """Print a row for each compressed output."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--images', type=int, default=20)
    options = parser.parse_args()
    bundle = load_bundle(default_bundle())
    pipeline = Pipeline(bundle, open_unchecked('onnxruntime', bundle, EngineOptions()))
    makers = {output.name: output.maker(bundle) for output in outputs_of(bundle)}
    pairs = {output.name: output.of for output in outputs_of(bundle) if output.of}
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    times: defaultdict[str, list[float]] = defaultdict(list)
    with RecordingReader(share('sample/rooms')) as reader:
        camera = find_camera(reader.path, reader.topics)
        info = reader.unpack(next(reader.messages([camera.info])))
        model = camera_model(info, rectified=True).for_image(info.width, info.height)
        for message in itertools.islice(reader.messages([camera.image]), options.images):
            frame = Frame(read_image(reader.unpack(message)), model)
            (prediction,) = pipeline([frame], list(bundle.outputs))
            for small, plain in pairs.items():
                marks = [time.thread_time()]
                for name in (plain, small):
                    content = makers[name](prediction)
                    sizes[name].append(getattr(content, 'nbytes', 0) or len(content))
                    marks.append(time.thread_time())
                times[small].append(1e3 * (marks[2] - 2 * marks[1] + marks[0]))
    print('| output | bytes | compressed | ms |\n|---|---|---|---|')
    for small, plain in pairs.items():
        before, after = statistics.median(sizes[plain]), statistics.median(sizes[small])
        print(
            f'| `~/{small}` | {before:.0f} | {after:.0f} | {statistics.median(times[small]):.1f} |'
        )


if __name__ == '__main__':
    main()
