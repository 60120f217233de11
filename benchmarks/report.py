"""How fast a report is made: frames per second of judging and drawing, without the network.

    python benchmarks/report.py [--frames 600]

Frames of the shipped bundle's size with truth for every task; the outputs are made before the clock
starts, and every frame is differently good. It is processor time that counts, of one core. The page
of a run of ten minutes at 30 Hz (18,000 frames) must stay below 15 MB.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import cv2
import numpy as np

from mtl_perception.bundle import Bundle, default_bundle, load_bundle
from mtl_perception.offline.page import write_page
from mtl_perception.offline.report import RunReport
from mtl_perception.offline.runs import RunFrame

KINDS = 12  # different frames; they take turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=600)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    bundle = load_bundle(default_bundle())
    frames = list(made_up(bundle))
    report = RunReport(bundle, options.frames)
    noise = np.random.default_rng(1)
    start = process_time()
    for index in range(options.frames):
        frame = frames[index % KINDS]
        arrays = {
            **frame.arrays,
            'semantic': np.roll(frame.arrays['semantic'], noise.integers(20)),
            'depth': frame.arrays['depth'] * np.float32(noise.uniform(0.8, 1.2)),
        }
        report.add(RunFrame(index * 33_333_333, frame.image, arrays, frame.truth, {}))
    judged = process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'report.html')
        write_page(path, report.page('Benchmark', {}))
        written = process_time()
        size = path.stat().st_size / 1e6
    frame_ms = 1e3 * (judged - start) / options.frames
    print(f'{options.frames / (written - start):.0f} frames/s', end=' ')
    print(f'({frame_ms:.1f} ms a frame, page {written - judged:.2f} s)')
    print(f'page of {size:.1f} MB')


def made_up(bundle: Bundle) -> Iterator[RunFrame]:
    """Smooth maps of the sizes and kinds that a network gives, and truth that is a little off."""
    noise = np.random.default_rng(0)
    size = (bundle.width, bundle.height)

    def smooth(*channels: int) -> np.ndarray:
        coarse = noise.random((12, 16, *channels)).astype(np.float32)
        return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)

    for _ in range(KINDS):
        labels = (smooth().clip(0, 0.999) * len(bundle.classes)).astype(np.uint8)
        depth = 0.5 + 8 * smooth().clip(0, 1)
        normals = smooth(3) - np.float32([0.5, 0.5, 2])
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        levels = (smooth().clip(0, 1) * 255).astype(np.uint8)
        arrays = {
            'semantic': labels,
            'semantic_confidence': levels,
            'depth': depth,
            'depth_confidence': levels[::-1].copy(),
            'normals': normals,
            'edges': levels.T.reshape(levels.shape).copy(),
        }
        truth = {
            'semantic': np.roll(labels, 4, axis=1),
            'depth': depth * np.float32(1.1),
            'normals': np.roll(normals, 2, axis=0),
            'edges': (levels > 200).astype(np.uint8),
        }
        image = (smooth(3).clip(0, 1) * 255).astype(np.uint8)
        yield RunFrame(0, image, arrays, truth)


if __name__ == '__main__':
    main()
