"""Judge a trained network on held-out frames, beside predictors that look at no picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mtl_training.datasets import open_data
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.classes import IGNORE, ROBOT_GROUPS, LabelClass, lookup
from mtl_training.datasets.dataset import DataSet, thin_out
from mtl_training.deploy.bundles import BundleFiles, open_model, read_bundle
from mtl_training.evaluation import pictures
from mtl_training.evaluation.metrics import MeanIoU, Metric, make_metrics
from mtl_training.loop.checkpoint import CheckpointError, load_checkpoint

Maps = dict[str, NDArray[Any]]  # one batch by task, as ``predictions`` gives it
Predictor = Callable[[Batch], Maps]
Report = dict[str, dict[str, float]]  # task -> figure -> value
TASKS = ('semantic', 'depth', 'normals', 'edges', 'saliency')


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images [B, 3, H, W] as float32 (x / 255 - mean) / std, channels last."""
    shift = torch.tensor(mean, device=image.device).view(1, 3, 1, 1) * 255
    factor = 1 / (torch.tensor(std, device=image.device).view(1, 3, 1, 1) * 255)
    return ((image - shift) * factor).contiguous(memory_format=torch.channels_last)


def predictions(outputs: Mapping[str, Tensor], fx: Tensor, canonical_focal: float) -> Maps:
    """Logits [B, C, H, W] as what they mean.

    Returns:
        ``semantic`` uint8 [B, H, W]; ``depth`` float32 [B, H, W] in metres; ``normals`` float32 [B,
        H, W, 3] unit vectors; ``edges``, ``saliency`` float32 [B, H, W] probabilities.
    """
    maps: Maps = {}
    for name, logits in outputs.items():
        logits = logits.float()
        if name == 'semantic':
            maps[name] = logits.argmax(dim=1).byte().cpu().numpy()
        elif name == 'depth':
            depth = logits[:, 0].exp() if logits.shape[1] == 2 else logits[:, 0]
            maps[name] = (depth * (fx / canonical_focal).view(-1, 1, 1)).cpu().numpy()
        elif name == 'normals':
            maps[name] = nn.functional.normalize(logits, dim=1).permute(0, 2, 3, 1).cpu().numpy()
        else:
            maps[name] = logits[:, 0].sigmoid().cpu().numpy()
    return maps


def labels(batch: Batch, canonical_focal: float) -> Maps:
    """Labels in the form of ``predictions``: depth in metres, 0 invalid; edges 0, 1, 255."""
    maps: Maps = {}
    for name in TASKS:
        if name not in batch:
            continue
        target = batch[name].cpu()
        if name == 'semantic':
            maps[name] = target.byte().numpy()
        elif name == 'depth':
            maps[name] = (
                target[:, 0] * (batch['fx'].cpu() / canonical_focal).view(-1, 1, 1)
            ).numpy()
        elif name == 'normals':
            maps[name] = target.permute(0, 2, 3, 1).numpy()
        else:
            maps[name] = target[:, 0].byte().numpy()
    return maps


def network_predictor(net: nn.Module, meta: Mapping[str, Any], device: str = 'cpu') -> Predictor:
    """Predict with a network; ``meta`` is a checkpoint's metadata (mean, std, canonical_focal)."""

    def predict(batch: Batch) -> Maps:
        images = normalise(batch['image'].to(device), meta['mean'], meta['std'])
        with torch.inference_mode():
            maps = predictions(net(images), batch['fx'].to(device), meta['canonical_focal'])
        return as_groups(maps, meta.get('classes'))

    return predict


def as_groups(maps: Maps, classes: Sequence[Mapping[str, Any]] | None) -> Maps:
    """Maps with the groups of a robot: NYUD-40 grouped; other classes cannot be judged.

    Args:
        classes: of the semantic task; None: those of the data.
    """
    if 'semantic' not in maps or classes is None:
        return maps
    table = lookup([entry['name'] for entry in classes], ROBOT_GROUPS)
    if table is None:
        return {name: array for name, array in maps.items() if name != 'semantic'}
    return {**maps, 'semantic': table[maps['semantic']]}


def bundle_predictor(
    folder: Path, threads: int = 0, variant: str = 'fp32'
) -> tuple[Predictor, dict[str, Any]]:
    """Predict with an ONNX graph of a bundle, through onnxruntime; see ``onnx_predictor``.

    Args:
        variant: of the bundle, such as ``fp16`` or ``int8``.

    Raises:
        CheckpointError: the folder holds no bundle with metric depth.
        DeployError: the bundle cannot be read, or has no such variant.
    """
    bundle = read_bundle(folder)
    return onnx_predictor(bundle, variant, threads)


def onnx_predictor(
    bundle: BundleFiles, variant: str, threads: int = 0
) -> tuple[Predictor, dict[str, Any]]:
    """Predict with a model of a bundle, through onnxruntime.

    Returns:
        The predictor, and ``height``, ``width``, ``canonical_focal`` and ``tasks`` of the bundle.

    Raises:
        DeployError: the bundle has no such variant.
        CheckpointError: the description has no metric depth, or onnxruntime refuses the model.
    """
    model, description = bundle.variant(variant), bundle.description
    try:
        size, focal = description['input'], float(description['canonical_focal'])
        names = [name for name in TASKS if name in description['tasks']]
        session = open_model(model, threads, variant=variant)
    except Exception as error:  # onnxruntime's classes are not public
        raise CheckpointError(
            f'{description.get("name")} cannot be judged as a bundle: {error}'
        ) from error

    def predict(batch: Batch) -> Maps:
        images = np.ascontiguousarray(batch['image'].permute(0, 2, 3, 1).numpy())
        maps: Maps = dict(zip(names, session.run(names, {'image': images}), strict=True))
        if 'depth' in maps:
            maps['depth'] = maps['depth'] * (batch['fx'].numpy() / focal)[:, None, None]
        for name in ('edges', 'saliency'):
            if name in maps:
                maps[name] = maps[name].astype(np.float32) / 255
        return as_groups(maps, description['tasks'].get('semantic', {}).get('classes'))

    meta = {
        'height': size['height'],
        'width': size['width'],
        'canonical_focal': focal,
        'tasks': names,
    }
    return predict, meta


def judge(
    predict: Predictor,
    batches: Iterable[Batch],
    canonical_focal: float,
    classes: Sequence[LabelClass],
) -> dict[str, Metric]:
    """Run a predictor over batches and count; one metric per task that it predicts.

    Args:
        classes: of the semantic labels.
    """
    makers = make_metrics(len(classes))
    metrics: dict[str, Metric] = {}
    for batch in batches:
        targets = labels(batch, canonical_focal)
        for name, maps in predict(batch).items():
            if name not in targets:
                continue
            metric = metrics.setdefault(name, makers[name]())
            for prediction, target in zip(maps, targets[name], strict=True):
                metric.update(prediction, target)
    return metrics


def figures(metrics: Mapping[str, Metric], classes: Sequence[LabelClass]) -> Report:
    """The figures of all metrics; those of the semantic task with one IoU per class that occurs."""
    report = {name: metric.compute() for name, metric in metrics.items()}
    semantic = metrics.get('semantic')
    if isinstance(semantic, MeanIoU):
        for label, iou in zip(classes, semantic.per_class(), strict=True):
            if np.isfinite(iou):
                report['semantic'][f'iou_{label.name}'] = float(iou)
    return report


def frame_batches(
    frames: DataSet,
    meta: Mapping[str, Any],
    title: str,
    *,
    batch_size: int = 8,
    workers: int = 0,
) -> Iterable[Batch]:
    """Batches of frames as a network with this ``meta`` wants them, with a progress bar."""
    data = Examples(
        frames,
        [name for name in TASKS if name in meta['tasks'] and name in frames.tasks],
        height=meta['height'],
        width=meta['width'],
        canonical_focal=float(meta['canonical_focal']),
    )
    return tqdm(
        loader(data, workers, batch_size=batch_size), desc=title, unit='batch', disable=None
    )


def trivial_predictors(frames: DataSet, tasks: Sequence[str]) -> dict[str, Predictor]:
    """Predictors that look at no picture; their constants come from (training) frames.

    Returns:
        ``best constant``: the most frequent class, the mean normal, edges and saliency everywhere,
        and the median depth; and ``mean depth``, the constant with the smallest RMSE.
    """
    classes = np.zeros(256, np.int64)
    depths = np.zeros(65536, np.int64)  # by millimetre
    normal = np.zeros(3)
    for index in tqdm(range(len(frames)), desc='constants', unit='frame', disable=None):
        arrays = frames.read(index, tasks).arrays
        if 'semantic' in arrays:
            classes += np.bincount(arrays['semantic'].ravel(), minlength=256)
        if 'depth' in arrays:
            depths += np.bincount(arrays['depth'].ravel(), minlength=65536)
        if 'normals' in arrays:
            vectors = np.asarray(arrays['normals'], np.float64).reshape(-1, 3)
            normal += (vectors[vectors.any(axis=1)] / 127.5 - 1).sum(axis=0)
    depths[0] = 0
    pixels = max(int(depths.sum()), 1)
    median = float(np.searchsorted(depths.cumsum(), pixels / 2)) / 1000
    mean = float((depths * np.arange(65536)).sum() / pixels) / 1000
    values: dict[str, Any] = {
        'semantic': np.uint8(classes[:IGNORE].argmax()),
        'depth': np.float32(median),
        'normals': (normal / max(float(np.linalg.norm(normal)), 1e-12)).astype(np.float32),
        'edges': np.float32(1),
        'saliency': np.float32(1),
    }

    def constant(chosen: Mapping[str, Any]) -> Predictor:
        def predict(batch: Batch) -> Maps:
            shape = (batch['image'].shape[0], *batch['image'].shape[2:])
            return {
                name: np.broadcast_to(value, shape + np.shape(value))
                for name, value in chosen.items()
            }

        return predict

    return {
        'best constant': constant({name: values[name] for name in tasks}),
        'mean depth': constant({'depth': np.float32(mean)}),
    }


# task, figure, title, factor, digits
ROWS: tuple[tuple[str, str, str, float, int], ...] = (
    ('semantic', 'miou', 'mIoU, %', 100, 1),
    ('semantic', 'accuracy', 'pixel accuracy, %', 100, 1),
    ('depth', 'rmse', 'depth RMSE, m', 1, 3),
    ('depth', 'absrel', 'depth AbsRel', 1, 3),
    ('depth', 'delta1', 'depth < 1.25, %', 100, 1),
    ('normals', 'mean', 'normals mean, degrees', 1, 1),
    ('normals', 'median', 'normals median, degrees', 1, 1),
    ('normals', 'within_11', 'normals < 11.25 degrees, %', 100, 1),
    ('edges', 'f', 'edges F', 1, 3),
    ('saliency', 'maxf', 'saliency maxF', 1, 3),
)


def markdown(reports: Mapping[str, Report]) -> str:
    """The figures of several predictors as a table, with the IoU of every class below."""
    lines = ['| | ' + ' | '.join(reports) + ' |', '|---' * (len(reports) + 1) + '|']
    for task, figure, title, factor, digits in ROWS:
        values = [report.get(task, {}).get(figure) for report in reports.values()]
        if any(value is not None for value in values):
            cells = ['' if v is None else f'{v * factor:.{digits}f}' for v in values]
            lines.append(f'| {title} | ' + ' | '.join(cells) + ' |')
    semantic = next(iter(reports.values())).get('semantic', {})
    per_class = [
        f'{key[4:]} {100 * iou:.0f}' for key, iou in semantic.items() if key.startswith('iou_')
    ]
    if per_class:
        lines += ['', 'IoU by class, %: ' + ', '.join(per_class) + '.']
    return '\n'.join(lines)


def sheet(
    predict: Predictor,
    batches: Iterable[Batch],
    canonical_focal: float,
    classes: Sequence[LabelClass],
) -> list[pictures.Picture]:
    """Two rows for every frame: the labels, and the predictions beside the same picture."""
    rows = []
    for batch in batches:
        predicted, targets = predict(batch), labels(batch, canonical_focal)
        images = batch['image'].permute(0, 2, 3, 1).numpy()
        for index, image in enumerate(images):
            tasks = [name for name in TASKS if name in predicted and name in targets]
            for maps in (targets, predicted):
                chosen = {name: maps[name][index] for name in tasks}
                rows.append(pictures.strip(image, chosen, classes))
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mtl_training evaluate``."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument('--checkpoint', type=Path, help='a file that `mtl_training train` wrote')
    model.add_argument('--bundle', type=Path, help='a bundle folder, run through onnxruntime')
    parser.add_argument(
        '--variant',
        '--precision',
        default='fp32',
        metavar='VARIANT',
        help='of the bundle: fp32, fp16, int8 or int8_u8s8 (default: %(default)s)',
    )
    parser.add_argument('--data', type=Path, required=True, help='folder of a data set')
    parser.add_argument('--split', default='test', choices=('train', 'val', 'test'))
    parser.add_argument('--limit', type=int, default=0, help='evenly spaced frames only (0: all)')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument(
        '--threads', type=int, default=0, help='threads of the network (0: all cores)'
    )
    parser.add_argument('--json', type=Path, help='write the figures there as well')
    parser.add_argument('--sheet', type=Path, help='write a PNG with labels and predictions')
    parser.add_argument('--sheet-frames', type=int, default=12)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table.

    Raises:
        CheckpointError, DeployError, DataError: a network or data that cannot be read.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.bundle:
        predict, meta = bundle_predictor(args.bundle, args.threads, args.variant)
    else:
        net, meta = load_checkpoint(args.checkpoint)
        predict = network_predictor(net.to(memory_format=torch.channels_last), meta)
    focal = float(meta['canonical_focal'])
    frames = thin_out(open_data(args.data, args.split, ROBOT_GROUPS), args.limit)
    tasks = [name for name in TASKS if name in meta['tasks'] and name in frames.tasks]

    def batches(chosen: DataSet, title: str) -> Iterable[Batch]:
        return frame_batches(chosen, meta, title, batch_size=args.batch_size, workers=args.workers)

    def report(predictor: Predictor, title: str) -> Report:
        judged = judge(predictor, batches(frames, title), focal, ROBOT_GROUPS)
        return figures(judged, ROBOT_GROUPS)

    reports = {'network': report(predict, 'network')}
    known = thin_out(open_data(args.data, 'train', ROBOT_GROUPS), 1000)
    for name, trivial in trivial_predictors(known, tasks).items():
        reports[name] = report(trivial, name)
    print(markdown(reports))
    print(f'\n{len(frames)} frames of {args.split}.')
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {'split': args.split, 'frames': len(frames), 'reports': reports}, indent=2
        )
        args.json.write_text(text + '\n', encoding='utf-8')
    if args.sheet:
        few = thin_out(frames, args.sheet_frames)
        pictures.write_png(args.sheet, sheet(predict, batches(few, 'sheet'), focal, ROBOT_GROUPS))
    return 0
