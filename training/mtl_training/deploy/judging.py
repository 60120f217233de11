"""How good the models of a bundle are, in every number format, on the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtl_training.checkpoints.bundles import BundleFiles
from mtl_training.datasets.dataset import thin_out
from mtl_training.evaluation.evaluate import frame_batches, open_judged
from mtl_training.evaluation.judge import in_short, judge
from mtl_training.evaluation.predictors import judged_bundle


def judge_variants(
    bundle: BundleFiles, variants: Sequence[str], data: Path, split: str, limit: int, threads: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of fp32 and of variants on the same frames; also written into provenance.

    Returns:
        variant -> task -> figure -> value, without the classes.

    Raises:
        DataError, CheckpointError: data that cannot be read, or a bundle without metric depth.
    """
    reports = {}
    for variant in ('fp32', *variants):
        judged, whole = open_judged(judged_bundle(bundle, variant, threads), data, split)
        frames = thin_out(whole, limit)
        batches = frame_batches(frames, judged, variant)
        report = judge(judged.predict, batches, judged.tasks, judged.canonical_focal)
        reports[variant] = {
            task: {key: round(value, 5) for key, value in figures.items()}
            for task, figures in in_short(report).items()
        }
        if variant != 'fp32':
            bundle.description['provenance']['variants'][variant]['accuracy'] = {
                'split': split,
                'frames': len(frames),
                'before': reports['fp32'],
                'after': reports[variant],
            }
    return reports
