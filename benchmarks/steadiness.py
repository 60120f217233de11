"""How steady labels and depth are in a place where only the camera moves, on RGB-D sequences.

Points are followed by optical flow from frame to frame, as in ``mtl_perception.offline.flicker``.
Depth of one changes rightly when the camera moves, but its error does not: what is counted is
|log(d2 / t2) - log(d1 / t1)| with the measured depth t, whose own noise is in there, too.

    python benchmarks/steadiness.py BUNDLE... --data RGBD [--only PREFIX]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from mtl_training.checkpoints.bundles import read_bundle
from mtl_training.datasets import open_data
from mtl_training.datasets.batches import Examples, loader
from mtl_training.datasets.dataset import DataSet, Subset
from mtl_training.evaluation.judge import truth
from mtl_training.evaluation.predictors import judged_bundle
from mtl_training.labels import ROBOT_GROUPS

from mtl_perception.offline.flicker import follow, pixels_of


def steadiness(bundle: Path, frames: DataSet, threads: int) -> str:
    """The figures of a bundle, as a row of a table."""
    judged = judged_bundle(read_bundle(bundle), threads=threads)
    tasks = {'depth': judged.tasks['depth']}
    examples = Examples(
        frames,
        tasks,
        height=judged.height,
        width=judged.width,
        canonical_focal=judged.canonical_focal,
    )
    labels: list[float] = []
    errors: list[float] = []
    before = None
    for batch in loader(examples, 0, batch_size=1):
        maps = judged.predict(batch)
        gray = cv2.cvtColor(batch['image'][0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
        true = truth(batch, tasks, judged.canonical_focal)['depth'][0]
        with np.errstate(divide='ignore'):  # where nothing was measured
            error = np.log(maps['depth'][0]) - np.log(true)
        now = gray, maps['semantic'][0], error
        if before is not None:
            start, end = (pixels_of(points) for points in follow(before[0], gray))
            labels.extend(before[1][start] != now[1][end])
            with np.errstate(invalid='ignore'):
                change = np.abs(before[2][start] - now[2][end])
            errors.extend(change[np.isfinite(change)])
        before = now
    share, mean = np.mean(labels), np.mean(errors)
    return f'| {bundle.name} | {share:.3f} | {mean:.3f} | {len(labels)} | {len(errors)} |'


def main() -> None:
    """Print a table, a row for every bundle."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('bundles', nargs='+', type=Path)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--only', default='', help='frames whose names begin so')
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    whole = open_data(args.data, 'test', ROBOT_GROUPS)
    chosen = [i for i, name in enumerate(whole.frames) if name.startswith(args.only)]
    frames = Subset(whole, chosen)
    print('| bundle | points of another class | mean change of log(d / t) | points | with depth |')
    print('|---|---|---|---|---|')
    for bundle in args.bundles:
        print(steadiness(bundle, frames, args.threads), flush=True)


if __name__ == '__main__':
    main()
