"""Evaluation: figures of networks and bundles beside predictors that look at no picture."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from mtl_training.checkpoints.bundles import BundleError, read_bundle
from mtl_training.checkpoints.checkpoint import CheckpointError
from mtl_training.checkpoints.config import load_config
from mtl_training.cli import main
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.rooms import Rooms
from mtl_training.evaluation.evaluate import curves
from mtl_training.evaluation.judge import in_short, judge, quality, truth
from mtl_training.evaluation.predictors import (
    Judged,
    in_classes,
    judged_bundle,
    network_predictor,
)
from mtl_training.evaluation.sheet import sheet
from mtl_training.evaluation.table import markdown
from mtl_training.evaluation.trivial import trivial_predictors
from mtl_training.labels import NYUD40, PASCAL21, ROBOT_GROUPS, LabelClass, as_table
from mtl_training.loop.train import train
from mtl_training.models import Network, Predictions
from mtl_training.tasks import TaskSet, choose, nyud
from mtl_training.tasks import rooms as rooms_tasks
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from mtl_perception.offline.evaluation import Calibration

SVG = '{http://www.w3.org/2000/svg}'
TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'
TASKS = rooms_tasks(ROBOT_GROUPS)


def batches(
    rooms: Path,
    focal: float = 277.0,
    tasks: TaskSet = TASKS,
    classes: tuple[LabelClass, ...] = ROBOT_GROUPS,
) -> list[Batch]:
    frames = Rooms(rooms, 'test', classes)
    data = Examples(frames, tasks, height=64, width=96, canonical_focal=focal)
    return list(loader(data, 0, batch_size=2))


def test_labels_themselves_are_perfect(rooms: Path) -> None:
    report = judge(lambda batch: truth(batch, TASKS, 277.0), batches(rooms), TASKS, 277.0)
    assert report['semantic']['miou'] == report['semantic']['iou_chair'] == 1
    depth = {'rmse': 0, 'absrel': 0, 'delta1': 1, 'coverage': 1}
    assert in_short(report)['depth'] == pytest.approx(depth)
    assert report['normals']['mean'] < 0.1
    assert report['normals']['within_11'] == 1
    assert report['edges']['f'] == report['saliency']['maxf'] == 1
    assert quality(report, TASKS) == 1


def test_what_nothing_was_counted_for_has_no_figure_and_no_quality(rooms: Path) -> None:
    found = batches(rooms)
    for batch in found:
        batch['saliency'][:] = 255
    report = judge(lambda batch: truth(batch, TASKS, 277.0), found, TASKS, 277.0)
    assert 'saliency' not in report
    assert quality(report, TASKS) == pytest.approx(4 / 5)
    assert all('iou_chair' not in figures for figures in in_short(report).values())
    assert in_short(report)['semantic'].keys() == {'miou', 'accuracy'}


def test_forty_classes_are_judged_and_painted_as_forty(rooms: Path) -> None:
    tasks = {'semantic': nyud(NYUD40)['semantic']}
    found = batches(rooms, 277.0, tasks, NYUD40)
    ceiling = 21  # beyond the 18 groups
    assert any((batch['semantic'] == ceiling).any() for batch in found)
    report = judge(lambda batch: truth(batch, tasks, 277.0), found, tasks, 277.0)
    assert report['semantic']['miou'] == report['semantic']['iou_ceiling'] == 1
    frame = sheet(lambda batch: truth(batch, tasks, 277.0), found, tasks, 277.0)[0]
    row, again, wrong = np.split(frame, 3)
    assert (row == again).all()
    assert not wrong.any()
    ids = found[0]['semantic'][0].numpy()
    assert (row[:, 96:][ids == ceiling] == NYUD40[ceiling].color).all()
    assert (row[:, 96:][ids == 255] == 0).all()


def test_confidences_are_judged_by_how_often_they_are_right() -> None:
    """Three of four pixels of 80 % are right: ECE 5 %; half of the depths of 100 % are: 50 %."""
    tasks = {n: t for n, t in TASKS.items() if n in ('semantic', 'depth')}
    batch = seen([0, 1, 2, 3])
    batch['depth'] = torch.full((1, 1, 1, 4), 2.0)
    maps = {
        'semantic': np.array([[[0, 1, 2, 17]]], np.uint8),
        'semantic_confidence': np.full((1, 1, 4), 204, np.uint8),
        'depth': np.array([[[2.0, 2.4, 2.6, 1.0]]], np.float32),
        'depth_confidence': np.full((1, 1, 4), 255, np.uint8),
    }
    report = judge(lambda _: maps, [batch], tasks, 277.0)
    assert report['semantic']['ece'] == pytest.approx(0.05)
    assert report['depth']['ece'] == pytest.approx(0.5)
    lines = markdown({'network': report}, tasks).splitlines()
    assert '| semantic confidence ECE, % | 5.0 |' in lines
    assert '| depth AbsRel, 2-4 m | 0.250 |' in lines
    assert not any('@' in key for key in in_short(report)['depth'])


def test_a_sheet_shows_where_predictions_are_wrong() -> None:
    tasks = {n: t for n, t in TASKS.items() if n in ('semantic', 'depth')}
    batch = seen([0, 1, 255, 3])
    batch['depth'] = torch.tensor([[[[2.0, 2.0, 0.0, 2.0]]]])
    maps = {
        'semantic': np.array([[[0, 2, 2, 3]]], np.uint8),
        'depth': np.array([[[2.0, 3.0, 3.0, np.nan]]], np.float32),
    }
    (frame,) = sheet(lambda _: maps, [batch], tasks, 277.0)
    semantic, depth = frame[2].max(axis=-1)[4:8], frame[2].max(axis=-1)[8:]
    assert semantic.tolist() == [0, 255, 0, 0]
    assert depth.tolist() == [0, 255, 0, 0]


class Saying(Network):
    """Says the same of every picture: class ids [W], with logits of 9, and depth of a metre."""

    def __init__(self, ids: NDArray[np.uint8]) -> None:
        super().__init__({'semantic': 40, 'depth': 1}, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.semantic = 9 * torch.eye(40)[ids.astype(int)].T[None, :, None]

    def predictions(self, image: Tensor) -> Predictions:
        return Predictions({'semantic': self.semantic, 'depth': torch.ones(1, 1, 1, 1)})


def of_forty(ids: NDArray[np.uint8]) -> Judged:
    """A network that tells 40 classes apart."""
    net = Saying(ids)
    tasks = choose(nyud(NYUD40), ['semantic', 'depth'])
    return Judged(lambda chosen: network_predictor(net, chosen, 277.0), tasks, 1, len(ids), 277.0)


def seen(ids: Sequence[int]) -> Batch:
    """A picture of one row, and what it shows."""
    image = torch.zeros(1, 3, 1, len(ids), dtype=torch.uint8)
    return {'image': image, 'fx': torch.tensor([277.0]), 'semantic': torch.tensor([[ids]])}


def test_forty_classes_are_judged_as_forty_and_as_groups() -> None:
    """Truth: wall, chair, table, desk, otherprop. The network takes the desk for a table."""
    judged = of_forty(np.array([0, 4, 6, 6, 39], np.uint8))
    report = judge(judged.predict, [seen([0, 4, 6, 13, 39])], judged.tasks, 277.0)
    # table has one pixel too many, desk none; the others are right.
    assert report['semantic']['miou'] == pytest.approx((1 + 1 + 1 / 2 + 0 + 1) / 5)
    gathered = in_classes(judged, ROBOT_GROUPS)
    batch = seen([0, 5, 6, 6, 17])
    assert gathered.predict(batch)['semantic'].tolist() == [[[0, 5, 6, 6, 17]]]
    report = judge(gathered.predict, [batch], gathered.tasks, 277.0)
    assert report['semantic']['miou'] == 1
    assert 'iou_table' in report['semantic']


def test_groups_are_judged_by_the_sums_of_probabilities() -> None:
    """Of the forty, wall is the most probable; table and desk together are more so."""
    judged = of_forty(np.array([0], np.uint8))
    net = Saying(np.array([0], np.uint8))
    net.semantic[0, [6, 13]] = 8.9
    judged = replace(judged, predictor=lambda chosen: network_predictor(net, chosen, 277.0))
    batch = seen([6])
    assert judged.predict(batch)['semantic'].tolist() == [[[0]]]
    assert in_classes(judged, ROBOT_GROUPS).predict(batch)['semantic'].tolist() == [[[6]]]


def test_classes_that_are_told_apart_otherwise_are_not_judged() -> None:
    judged = of_forty(np.zeros(5, np.uint8))
    assert in_classes(judged, NYUD40).tasks == judged.tasks
    other = in_classes(judged, PASCAL21)
    assert list(other.tasks) == ['depth']
    assert list(other.predict(seen([0] * 5))) == ['depth']
    blind = replace(judged, tasks={'depth': judged.tasks['depth']})
    assert in_classes(blind, PASCAL21) is blind


def test_the_ids_of_a_bundle_are_gathered_into_groups(rooms: Path, tmp_path: Path) -> None:
    """It tells no probabilities: only what it has decided can be gathered."""
    write_bundle(tmp_path, NYUD40)
    judged = in_classes(judged_bundle(read_bundle(tmp_path)), ROBOT_GROUPS)
    batch = batches(rooms)[0]
    names = [label.name for label in ROBOT_GROUPS]
    member_of = {member: names.index(g.name) for g in ROBOT_GROUPS for member in g.members}
    expected = np.array([member_of[label.name] for label in NYUD40])[batch['image'][:, 1] % 18]
    np.testing.assert_array_equal(judged.predict(batch)['semantic'], expected)


def test_depth_is_judged_in_metres_for_any_canonical_focal(rooms: Path) -> None:
    stored = cv2.imread(str(rooms / 'test' / '000001_0_depth.png'), cv2.IMREAD_ANYDEPTH) / 1000
    for focal in (100.0, 277.0):
        metres = truth(batches(rooms, focal)[0], TASKS, focal)['depth'][1]
        np.testing.assert_allclose(metres, stored, rtol=1e-5)


def test_trivial_predictors_take_their_constants_from_training(rooms: Path) -> None:
    data = Rooms(rooms, 'train', ROBOT_GROUPS)
    trivial = trivial_predictors(data, TASKS)
    batch = batches(rooms)[0]
    arrays = [data.read(index, ['depth', 'semantic']).arrays for index in range(len(data))]
    millimetres, ids = (
        np.concatenate([labels[task].ravel() for labels in arrays])
        for task in ('depth', 'semantic')
    )
    valid = millimetres[millimetres > 0] / 1000
    best = trivial['best constant'](batch)
    assert best['depth'].shape == (2, 64, 96)
    assert best['depth'][0, 0, 0] == pytest.approx(np.median(valid), abs=0.051)
    assert trivial['mean depth'](batch)['depth'][0, 0, 0] == pytest.approx(valid.mean(), abs=1e-3)
    np.testing.assert_allclose(best['normals'][0, 0, 0], [0.5, 0, -0.866], atol=0.01)
    assert (best['edges'] == 1).all()
    assert (best['semantic'] == np.bincount(ids[ids != 255]).argmax()).all()


def test_the_table_shows_predictors_side_by_side() -> None:
    reports = {
        'network': {
            'semantic': {'miou': 0.5, 'accuracy': 0.8, 'iou_wall': 0.7},
            'depth': {'rmse': 0.3},
        },
        'mean depth': {'depth': {'rmse': 0.8}},
    }
    assert markdown(reports, TASKS).splitlines() == [
        '| | network | mean depth |',
        '|---|---|---|',
        '| mIoU, % | 50.0 |  |',
        '| pixel accuracy, % | 80.0 |  |',
        '| depth RMSE, m | 0.300 | 0.800 |',
        '',
        'IoU by class, %, semantic: wall 70.',
    ]


def test_a_checkpoint_from_the_command_line(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ['run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1']
    last = train(load_config(TINY, quiet), rooms, tmp_path)
    arguments = ['evaluate', '--checkpoint', str(last), '--data', str(rooms), '--workers', '0']
    arguments += ['--json', str(tmp_path / 'a.json'), '--sheet', str(tmp_path / 'a.png')]
    arguments += ['--sheet-tasks', 'semantic', 'depth', '--sheet-columns', '2']
    arguments += ['--reliability', str(tmp_path / 'a.svg')]
    assert main(arguments) == 0
    drawing = ET.parse(tmp_path / 'a.svg').getroot()
    groups = {group[0].text: len(group) - 1 for group in drawing.iter(f'{SVG}g')}
    assert groups.keys() == {'honest', 'classes', 'depth, within a factor of 1.25'}
    assert 0 < groups['classes'] <= 15
    assert '| | network | best constant | mean depth |' in capsys.readouterr().out
    written = json.loads((tmp_path / 'a.json').read_text())
    assert written['frames'] == 4
    assert written['reports'].keys() == {'network', 'best constant', 'mean depth'}
    assert cv2.imread(str(tmp_path / 'a.png')).shape == (2 * 3 * 64, 2 * 3 * 96, 3)


def test_curves_of_confidence_lie_on_the_diagonal_where_it_is_honest() -> None:
    known = np.ones(10, np.bool_)
    confidences = Calibration()
    confidences.semantic.update(np.full(10, 204, np.uint8), np.arange(10) < 8, known)
    confidences.semantic.update(np.full(10, 51, np.uint8), np.arange(10) < 8, known)
    drawing = ET.fromstring(curves(confidences))
    groups = {group[0].text: group[1:] for group in drawing.iter(f'{SVG}g')}
    (low, high), honest = groups['classes'], groups['honest']
    assert high.attrib['cy'] == low.attrib['cy'] == honest[16].attrib['cy']
    assert high.attrib['cx'] == honest[16].attrib['cx']
    assert low.attrib['cx'] == honest[4].attrib['cx']
    with pytest.raises(DataError, match='no confidence'):
        curves(Calibration())


def test_classes_of_the_command_line(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network of 40 classes: its own, a robot's, and those of another world."""
    quiet = ['run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1', 'task_set=nyud']
    config = load_config(TINY, [*quiet, 'tasks=[semantic, depth]'])
    last = train(config, rooms, tmp_path)
    arguments = ['evaluate', '--checkpoint', str(last), '--data', str(rooms), '--workers', '0']
    assert main(arguments) == 0
    assert 'IoU by class, %, semantic: wall' in capsys.readouterr().out
    assert main([*arguments, '--classes', 'rooms']) == 0
    assert '| mIoU, % |' in capsys.readouterr().out
    assert main([*arguments, '--classes', 'pascal']) == 1
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert "has NYUD's 40 classes, expected them or groups of them" in last_line


def test_on_data_with_other_classes_the_rest_is_judged(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(rooms, tmp_path / 'warehouse'))
    (own / 'classes.json').write_text(json.dumps([f'shelf {n}' for n in range(40)]))
    for classes, data in ((PASCAL21, rooms), (ROBOT_GROUPS, own)):
        write_bundle(tmp_path, classes)
        arguments = ['evaluate', '--bundle', str(tmp_path), '--data', str(data), '--workers', '0']
        assert main(arguments) == 0
        found = capsys.readouterr()
        assert 'semantic is not judged: the data has other classes' in found.err
        assert 'mIoU' not in found.out
        assert '| depth RMSE, m |' in found.out
    description = yaml.safe_load((tmp_path / 'bundle.yaml').read_text())
    description['tasks'] = {'semantic': description['tasks']['semantic']}
    (tmp_path / 'bundle.yaml').write_text(yaml.safe_dump(description))
    assert main(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'and none of them is judged' in last


def test_a_bundle_whose_ids_are_not_its_classes_gets_no_figure(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path, ROBOT_GROUPS[:3])
    arguments = ['evaluate', '--bundle', str(tmp_path), '--data', str(rooms), '--workers', '0']
    assert main(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'but there are 3 classes (0..2, and 255 for none)' in last


def write_bundle(folder: Path, classes: Sequence[LabelClass] = ROBOT_GROUPS) -> None:
    """A bundle whose depth is red / 100 for focal 50, semantic green modulo 18, edges blue."""
    nodes = [
        helper.make_node('Split', ['image'], ['r', 'g', 'b'], axis=3, num_outputs=3),
        helper.make_node('Squeeze', ['g', 'axis'], ['green']),
        helper.make_node('Mod', ['green', 'classes'], ['semantic']),
        helper.make_node('Squeeze', ['b', 'axis'], ['edges']),
        helper.make_node('Squeeze', ['r', 'axis'], ['red']),
        helper.make_node('Cast', ['red'], ['level'], to=TensorProto.FLOAT),
        helper.make_node('Mul', ['level', 'factor'], ['depth']),
    ]
    grid = ['n', 64, 96]
    graph = helper.make_graph(
        nodes,
        'stand_in',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, [*grid, 3])],
        [
            helper.make_tensor_value_info('semantic', TensorProto.UINT8, grid),
            helper.make_tensor_value_info('depth', TensorProto.FLOAT, grid),
            helper.make_tensor_value_info('edges', TensorProto.UINT8, grid),
        ],
        [
            helper.make_tensor('axis', TensorProto.INT64, [1], [3]),
            helper.make_tensor('classes', TensorProto.UINT8, [], [18]),
            helper.make_tensor('factor', TensorProto.FLOAT, [], [0.01]),
        ],
    )
    opset = [helper.make_opsetid('', 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / 'model.onnx')
    digest = hashlib.sha256((folder / 'model.onnx').read_bytes()).hexdigest()
    description = {
        'model': {'file': 'model.onnx', 'sha256': digest},
        'input': {'height': 64, 'width': 96},
        'canonical_focal': 50.0,
        'tasks': {'semantic': {'classes': as_table(classes)}, 'depth': {}, 'edges': {}},
    }
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(description))


def test_a_bundle_is_judged_like_a_network(rooms: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path)
    judged = judged_bundle(read_bundle(tmp_path))
    assert list(judged.tasks) == ['semantic', 'depth', 'edges']
    batch = batches(rooms)[0]
    image = batch['image'].numpy()
    maps = judged.predict(batch)
    np.testing.assert_array_equal(maps['semantic'], image[:, 1] % 18)
    expected = image[:, 0] / 100 * (batch['fx'].numpy() / 50)[:, None, None]
    np.testing.assert_allclose(maps['depth'], expected, rtol=1e-5)
    np.testing.assert_allclose(maps['edges'], image[:, 2] / 255, rtol=1e-6)


def test_a_variant_of_a_bundle_is_judged(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variant that gives two centimetres per level: depth is judged by it, the rest stays."""
    write_bundle(tmp_path)
    model = onnx.load(tmp_path / 'model.onnx')
    (factor,) = (t for t in model.graph.initializer if t.name == 'factor')
    factor.float_data[0] = 0.02
    bundle = read_bundle(tmp_path)
    bundle.put(bundle.description.setdefault('variants', {}), 'fp16', 'other.onnx',
               model.SerializeToString())  # fmt: skip
    (tmp_path / 'other.onnx').write_bytes(bundle.files['other.onnx'])
    (tmp_path / 'bundle.yaml').write_text(yaml.safe_dump(bundle.description))
    plain, other = ({}, {})
    for variant, report in (('fp32', plain), ('fp16', other)):
        path = tmp_path / f'{variant}.json'
        arguments = ['evaluate', '--bundle', str(tmp_path), '--precision', variant]
        arguments += ['--data', str(rooms), '--workers', '0', '--json', str(path)]
        assert main(arguments) == 0
        report.update(json.loads(path.read_text())['reports']['network'])
    assert plain['semantic'] == other['semantic']
    assert plain['depth'] != other['depth']
    capsys.readouterr()
    arguments = ['evaluate', '--bundle', str(tmp_path), '--precision', 'int8', '--data', str(rooms)]
    assert main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert 'has no int8 model, it has fp32, fp16' in line


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match='cannot be read as a bundle'):
        judged_bundle(read_bundle(tmp_path))
    write_bundle(tmp_path)
    text = (tmp_path / 'bundle.yaml').read_text()
    (tmp_path / 'bundle.yaml').write_text(text.replace('canonical_focal', 'focal'))
    with pytest.raises(CheckpointError, match="cannot be judged as a bundle: 'canonical_focal'"):
        judged_bundle(read_bundle(tmp_path))
    (tmp_path / 'model.onnx').write_bytes(b'')
    with pytest.raises(BundleError, match='is damaged: its sha256 is not'):
        judged_bundle(read_bundle(tmp_path))
