"""Protocols are what the reference says of the released code, and nothing of them is ignored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mtl_training.checkpoints.checkpoint import (
    build_network,
    config_tasks,
    known_tasks,
    load_checkpoint,
    tasks_of,
)
from mtl_training.checkpoints.config import Config, ConfigError, load_config
from mtl_training.cli import main
from mtl_training.datasets.augment import AugmentConfig, Sample, augment
from mtl_training.datasets.batches import Examples, loader
from mtl_training.datasets.dataset import thin_out
from mtl_training.datasets.rooms import Rooms
from mtl_training.evaluation.judge import judge, truth
from mtl_training.evaluation.native import NativeExamples, at_native, enlarged, saved
from mtl_training.evaluation.predictors import judged_network
from mtl_training.labels import CLASS_SETS, NYUD40, PASCAL21
from mtl_training.models import Network
from mtl_training.protocols import PROTOCOLS, ProtocolError
from mtl_training.protocols.judging import OdsEdges, judged_by
from mtl_training.protocols.saliency import SaliencyIoU
from mtl_training.tasks import TASK_SETS, EdgesTask, NormalsTask, nyud, pascal

CONFIGS = Path(__file__).parents[2] / 'configs'
TINY = CONFIGS / 'tiny.yaml'
RECIPES = sorted(path for name in ('nyud', 'pascal') for path in (CONFIGS / name).glob('*.yaml'))


def following(protocol: str, task_set: str, tmp_path: Path, *more: str) -> Config:
    """The configuration of somebody who leaves all to a protocol."""
    path = tmp_path / 'bare.yaml'
    path.write_text('{name: bare, tasks: [edges], model: {backbone: swin_tiny}}')
    return load_config(path, [f'protocol={protocol}', f'task_set={task_set}', *more])


def test_training_is_what_the_released_code_does(tmp_path: Path) -> None:
    """Reference: the tables of optimisers and sizes; 795 // 8 = 99, 4,998 // 8 = 624 batches."""
    rows = {
        ('survey', 'nyud'): ('adam', 1e-4, 1e-4, 8, 100 * 99, 'epoch', 480, 640),
        ('atrc', 'nyud'): ('sgd', 1e-2, 5e-4, 8, 40_000, 'step', 425, 560),
        ('atrc', 'pascal'): ('sgd', 5e-3, 5e-4, 8, 40_000, 'step', 512, 512),
        ('invpt', 'nyud'): ('adam', 2e-5, 1e-6, 2, 40_000, 'step', 448, 576),
        ('invpt', 'pascal'): ('adam', 2e-5, 1e-6, 2, 40_000, 'step', 512, 512),
        ('survey', 'pascal'): ('adam', 1e-4, 1e-4, 8, 60 * 624, 'epoch', 512, 512),
    }
    for (protocol, task_set), row in rows.items():
        more = ['augment.flip_p=0.5'] if (protocol, task_set) == ('survey', 'pascal') else []
        config = following(protocol, task_set, tmp_path, *more)
        o, d = config.optim, config.data
        found = (o.optimizer, o.lr, o.weight_decay, o.batch_size, o.max_steps, o.poly_by)
        assert (*found, d.height, d.width) == row, (protocol, task_set)
        assert (o.power, o.momentum, o.decay_norms, o.warmup_steps) == (0.9, 0.9, True, 0)


def test_what_a_configuration_says_itself_counts(tmp_path: Path) -> None:
    config = following('atrc', 'nyud', tmp_path, 'optim.lr=3e-3', 'data.workers=4')
    assert (config.optim.lr, config.optim.optimizer) == (3e-3, 'sgd')
    assert (config.data.workers, config.data.height) == (4, 425)


def test_losses_are_set_one_by_one(tmp_path: Path) -> None:
    settings = ['losses.edges.edge_weight=1', 'losses.normals={per_element: true}']
    tasks = known_tasks(following('atrc', 'nyud', tmp_path, *settings))
    assert tasks['edges'] == replace(EdgesTask(), edge_weight=1.0)
    assert tasks['normals'] == NormalsTask(per_element=True)
    assert tasks['depth'] == nyud(NYUD40)['depth']


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('losses.seams.x=1', 'unknown key losses.seams, expected one of semantic, depth, normals'),
        ('losses.edges.weight=1', 'unknown key losses.edges.weight, expected edge_weight'),
        ('losses.edges.edge_weight=no', 'losses.edges.edge_weight is False, expected float'),
        ('losses.edges.edge_weight=2', 'losses.edges.edge_weight is 2.0, expected 0 to 1'),
        ('losses.semantic.classes=3', 'unknown key losses.semantic.classes, expected none'),
    ],
)
def test_settings_of_losses_that_do_not_exist_or_mean_nothing(
    setting: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        known_tasks(following('atrc', 'nyud', tmp_path, setting))


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_nyud_frame_is_seen_with_the_canonical_focal_length(
    protocol: str, tmp_path: Path
) -> None:
    """So that depth is plain metres where nothing is augmented, as in the literature."""
    data = following(protocol, 'nyud', tmp_path).data
    scale = min(data.height / 425, data.width / 560)
    assert data.canonical_focal == pytest.approx(518.858 * scale, abs=0.01)


@pytest.mark.parametrize(
    ('protocol', 'per_element', 'two_class', 'edge_weights'),
    [
        ('survey', True, False, (0.95, 0.95)),
        ('atrc', False, True, (0.8, 0.95)),
        ('invpt', False, True, (0.95, 0.95)),
    ],
)
def test_losses_are_those_of_the_released_code(
    protocol: str, per_element: bool, two_class: bool, edge_weights: tuple[float, float]
) -> None:
    followed = PROTOCOLS[protocol]
    sets = {
        name: followed.with_losses(TASK_SETS[name](CLASS_SETS[name]), name)
        for name in ('nyud', 'pascal')
    }
    for tasks, edge_weight in zip(sets.values(), edge_weights, strict=True):
        assert tasks['normals'].per_element is per_element  # type: ignore[attr-defined]
        assert tasks['edges'].edge_weight == edge_weight  # type: ignore[attr-defined]
    assert sets['pascal']['saliency'].two_class is two_class  # type: ignore[attr-defined]
    assert {n: t.weight for n, t in sets['pascal'].items()} == {
        'semantic': 1, 'human_parts': 2, 'saliency': 5, 'normals': 10, 'edges': 50,
    }  # fmt: skip


def test_what_a_protocol_cannot_do_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match='survey augments by rotations by up to 20 degrees'):
        following('survey', 'pascal', tmp_path)
    with pytest.raises(ProtocolError, match='atrc is for task_set nyud or pascal, not rooms'):
        following('atrc', 'rooms', tmp_path)
    with pytest.raises(ConfigError, match="protocol is 'astmt', expected one of survey, atrc"):
        following('astmt', 'nyud', tmp_path)


def test_the_survey_scales_by_one_of_three_and_crops_the_middle(tmp_path: Path) -> None:
    """A frame with a dot in its middle, at the network's size: the dot stays where it is."""
    config = following('survey', 'nyud', tmp_path).augment
    assert (config.photometric_p, config.flip_p) == (0, 0.5)
    image = np.zeros((41, 61, 3), np.uint8)
    image[20, 30] = 255
    focal = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = augment(Sample({'image': image}, 100.0), {}, config, 41, 61, rng)
        brightest = np.unravel_index(sample.arrays['image'][..., 0].argmax(), (41, 61))
        assert abs(brightest[0] - 20) <= 1
        assert abs(brightest[1] - 30) <= 1
        focal.add(round(sample.fx, 6))
    assert focal == {100, 120, 150}
    anywhere = AugmentConfig(photometric_p=0)
    fx = {
        augment(Sample({'image': image}, 100.0), {}, anywhere, 41, 61, np.random.default_rng(s)).fx
        for s in range(20)
    }
    assert len(fx) == 20


class Labels:
    """A data set of which only the labels matter."""

    name, frames = 'labels', ()

    def __init__(self, tasks: Sequence[str], classes: Sequence[Any]) -> None:
        self.tasks, self.classes = tuple(tasks), {'semantic': classes}

    def __len__(self) -> int:
        return 0

    def read(self, index: int, tasks: object) -> Sample:
        raise NotImplementedError


@pytest.mark.parametrize(
    ('protocol', 'nyud_distance', 'pascal_distance', 'thresholds', 'suppress', 'saliency'),
    [
        ('survey', 0.0075, 0.0075, 99, False, 'miou'),
        ('atrc', 0.011, 0.0075, 101, True, 'maxf'),
        ('invpt', 0.011, 0.0075, 101, True, 'maxf'),
    ],
)
def test_figures_are_those_of_the_released_code(
    protocol: str,
    nyud_distance: float,
    pascal_distance: float,
    thresholds: int,
    suppress: bool,
    saliency: str,
) -> None:
    kinds = {
        nyud_distance: [Labels(['semantic', 'edges'], NYUD40)],
        pascal_distance: [Labels(['edges', 'human_parts'], ()), Labels(['edges'], PASCAL21)],
    }
    if nyud_distance == pascal_distance:
        kinds = {nyud_distance: [Labels(['edges'], NYUD40), Labels(['edges'], PASCAL21)]}
    tasks = {**nyud(NYUD40), **pascal(PASCAL21)}
    for distance, sets in kinds.items():
        for data in sets:
            judged = judged_by(PROTOCOLS[protocol], tasks, data)
            assert list(judged) == list(tasks)
            assert isinstance(judged['edges'], OdsEdges)
            metric = judged['edges'].metric()
            assert metric.max_distance == distance
            assert len(metric.thresholds) == thresholds
            assert metric.suppress is suppress
            assert judged['saliency'].quality == saliency
            assert judged['depth'] is tasks['depth']


def test_saliency_of_the_survey_is_a_mean_over_pictures() -> None:
    """IoU 1/2 and 1 at every threshold up to .5, then 0 and 1; an empty picture counts as 1."""
    metric = SaliencyIoU()
    assert np.isnan(metric.compute()['miou'])
    metric.update(np.array([0.55, 0.55, 0.0, 0.9]), np.array([1, 0, 0, 255]))
    metric.update(np.array([0.95, 0.1]), np.array([1, 0]))
    metric.update(np.array([0.1, 0.1]), np.array([0, 0]))
    assert metric.compute()['miou'] == pytest.approx((0.5 + 1 + 1) / 3)
    metric = SaliencyIoU()
    metric.update(np.array([0.95, 0.55]), np.array([1, 0]))  # above .55, right
    assert metric.compute()['miou'] == 1


def test_maps_come_back_to_the_size_of_the_frame() -> None:
    """A frame of 4x6, in the middle of 8x16 at scale 2: a ramp stays the ramp, ids stay ids."""
    across = np.arange(16, dtype=np.float32)
    ramp = np.tile((across - 2 + 0.5) / 2 - 0.5, (8, 1))  # the column in the frame
    found = enlarged(ramp, 4, 6)
    np.testing.assert_allclose(found, np.tile(np.arange(6), (4, 1)), atol=1e-5)
    ids = np.repeat(np.repeat(np.arange(24, dtype=np.uint8).reshape(4, 6), 2, 0), 2, 1)
    padded = np.pad(ids, ((0, 0), (2, 2)), constant_values=99)
    found = enlarged(padded, 4, 6)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.arange(24).reshape(4, 6))
    assert enlarged(np.zeros((8, 16, 3), np.float32), 4, 6).shape == (4, 6, 3)


def test_probabilities_and_normals_are_saved_in_8_bits() -> None:
    assert saved('edges', np.float32([0.5])) * 255 == pytest.approx([128])
    assert saved('saliency', np.float32([0.001])) == 0
    normals = saved('normals', np.float32([0.5, 0, -1]))
    np.testing.assert_allclose((normals + 1) * 127.5, [191, 128, 0], atol=1e-4)
    assert saved('depth', np.float32([1.2345])) == np.float32(1.2345)


def test_maps_are_saved_after_they_came_back() -> None:
    """Between .1 and .2 there are 8-bit levels only."""
    maps = {'edges': np.float32([[[0.1, 0.2]]]), 'depth': np.float32([[[1.1, 1.2]]])}
    batch = {
        'image': torch.zeros(1, 3, 1, 2),
        'fx': torch.ones(1),
        'edges': torch.zeros(1, 1, 3, 6),
    }
    found = at_native(lambda batch: maps)(batch)
    assert found['edges'].shape == (1, 3, 6)
    levels = found['edges'] * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert found['depth'][0, 1].tolist() == pytest.approx(
        [1.1, 1.1, 1.117, 1.15, 1.183, 1.2], abs=0.03
    )


def test_labels_are_judged_as_they_are_stored(rooms: Path) -> None:
    """Frames of 64x96 for a network of 32x96: half the size, in the middle."""
    tasks = TASK_SETS['rooms'](CLASS_SETS['rooms'])
    data = Rooms(rooms, 'test', CLASS_SETS['rooms'])
    examples = NativeExamples(data, tasks, height=32, width=96, canonical_focal=277.0)
    (batch, *_) = batches = list(loader(examples, 0, batch_size=1))
    assert batch['image'].shape == (1, 3, 32, 96)
    assert batch['semantic'].shape == (1, 64, 96)
    assert batch['fx'].item() == pytest.approx(40.0)  # half of the frame's
    stored = cv2.imread(str(rooms / 'test' / '000000_0_depth.png'), cv2.IMREAD_ANYDEPTH) / 1000
    np.testing.assert_allclose(truth(batch, tasks, 277.0)['depth'][0], stored, rtol=1e-5)

    def blocks(batch: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The labels on the network's grid; blocks of 16 pixels survive that."""
        ids = batch['semantic'][:, ::2, ::2].byte().numpy()
        return {'semantic': np.pad(ids, ((0, 0), (0, 0), (24, 24)))}

    report = judge(at_native(blocks), batches, tasks, 277.0)
    assert report['semantic']['accuracy'] == 1


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_train_and_evaluate_by_a_protocol(
    protocol: str, rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['train', str(TINY), '--data', str(rooms), '--out', str(tmp_path), '--max-steps', '1']
    quiet = ('run.validate_every=0', 'run.picture_every=0')
    for setting in ('task_set=nyud', 'data.height=32', *quiet):
        words += ['--set', setting]
    assert main([*words, '--protocol', protocol]) == 0
    checkpoint = tmp_path / 'last.safetensors'
    net, meta = load_checkpoint(checkpoint)
    assert meta['config']['protocol'] == protocol
    expected = PROTOCOLS[protocol].with_losses(nyud(NYUD40), 'nyud')['normals']
    assert tasks_of(meta)['normals'] == expected
    report = tmp_path / 'report.json'
    words = ['evaluate', '--checkpoint', str(checkpoint), '--data', str(rooms), '--limit', '2']
    words += ['--workers', '0', '--json', str(report), '--protocol', protocol]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert '| edges odsF, % |' in printed
    assert f'by the protocol {protocol}' in printed
    written = json.loads(report.read_text())
    assert written['protocol'] == protocol
    assert 'odsf' in written['reports']['network']['edges']

    # Frames of 64x96, a network of 32x96.
    judged = judged_network(net, meta)
    native = PROTOCOLS[protocol].resolution == 'native'
    data = thin_out(Rooms(rooms, 'test', NYUD40), 2)
    options = {'height': 32, 'width': 96, 'canonical_focal': 277.0}
    kind = NativeExamples if native else Examples
    batches = loader(kind(data, judged.tasks, **options), 0, batch_size=1)
    predict = at_native(judged.predict) if native else judged.predict
    figures = judge(predict, batches, judged.tasks, 277.0)
    assert written['reports']['network']['depth'] == pytest.approx(figures['depth'], rel=1e-5)
    assert written['reports']['network']['normals'] == pytest.approx(figures['normals'], rel=1e-5)


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_load_and_build_their_network(path: Path) -> None:
    config = load_config(path)
    assert config.protocol
    assert config.model.pretrained
    assert config.name == path.stem
    if config.model.backbone.startswith('mask2former'):
        pytest.importorskip('transformers')
    with torch.device('meta'):
        net = build_network(config, pretrained=False)
    assert isinstance(net, Network)
    assert list(net.tasks) == list(config_tasks(config))


def test_recipes_are_those_of_their_papers() -> None:
    found = {path.stem: load_config(path) for path in RECIPES}
    assert found.keys() == {
        'survey_baseline_resnet50',
        'survey_baseline_hrnet18',
        'mti_net_hrnet18',
        'tif_hrnet18',
        'tif_swin_tiny',
        'mt_cp_swin_small',
        'astmt_seresnet50',
        'comparison',
    }
    for name, rate in {'tif_hrnet18': 0.01, 'tif_swin_tiny': 0.001}.items():
        optim = found[name].optim
        assert (optim.lr, optim.max_steps, optim.weight_decay) == (rate, 50_000, 5e-4)
    assert found['mti_net_hrnet18'].model.auxiliary == ('normals', 'edges')
    mt_cp, astmt = found['mt_cp_swin_small'], found['astmt_seresnet50']
    assert (mt_cp.balancing.method, mt_cp.balancing.options) == ('lps', {'kappa': 7.5})
    assert (mt_cp.optim.optimizer, mt_cp.optim.lr, mt_cp.optim.poly_by) == ('adamw', 5e-5, 'epoch')
    assert (astmt.optim.optimizer, astmt.optim.lr, astmt.optim.batch_size) == ('sgd', 1e-3, 8)
    assert astmt.model.options['steps'] == astmt.optim.max_steps == 60 * (4998 // 8)
