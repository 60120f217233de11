"""Evaluation: figures of networks and bundles beside predictors that look at no picture."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from mtl_training.cli import main
from mtl_training.datasets.batches import Batch, Examples, loader
from mtl_training.datasets.classes import NYUD40, ROBOT_GROUPS
from mtl_training.datasets.rooms import Rooms
from mtl_training.deploy import DeployError
from mtl_training.deploy.bundles import read_bundle
from mtl_training.evaluation.evaluate import (
    TASKS,
    bundle_predictor,
    figures,
    judge,
    labels,
    markdown,
    predictions,
    sheet,
    trivial_predictors,
)
from mtl_training.loop.checkpoint import CheckpointError
from mtl_training.loop.config import load_config
from mtl_training.loop.train import train
from onnx import TensorProto, helper

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'


def batches(rooms: Path, focal: float = 277.0) -> list[Batch]:
    frames = Rooms(rooms, 'test', ROBOT_GROUPS)
    data = Examples(frames, TASKS, height=64, width=96, canonical_focal=focal)
    return list(loader(data, 0, batch_size=2))


def test_labels_themselves_are_perfect(rooms: Path) -> None:
    judged = judge(lambda batch: labels(batch, 277.0), batches(rooms), 277.0, ROBOT_GROUPS)
    report = figures(judged, ROBOT_GROUPS)
    assert report['semantic']['miou'] == report['semantic']['iou_chair'] == 1
    assert report['depth'] == pytest.approx({'rmse': 0, 'absrel': 0, 'delta1': 1})
    assert report['normals']['mean'] < 0.1
    assert report['normals']['within_11'] == 1
    assert report['edges']['f'] == report['saliency']['maxf'] == 1


def test_forty_classes_are_judged_and_painted_as_forty(rooms: Path) -> None:
    frames = Rooms(rooms, 'test', NYUD40)
    data = Examples(frames, ['semantic'], height=64, width=96, canonical_focal=277.0)
    found = list(loader(data, 0, batch_size=2))
    ceiling = 21  # beyond the 18 groups
    assert any((batch['semantic'] == ceiling).any() for batch in found)
    report = figures(judge(lambda batch: labels(batch, 277.0), found, 277.0, NYUD40), NYUD40)
    assert report['semantic']['miou'] == report['semantic']['iou_ceiling'] == 1
    row = sheet(lambda batch: labels(batch, 277.0), found, 277.0, NYUD40)[0]
    ids = found[0]['semantic'][0].numpy()
    assert (row[:, 96:][ids == ceiling] == NYUD40[ceiling].color).all()
    assert (row[:, 96:][ids == 255] == 0).all()


def test_depth_is_judged_in_metres_for_any_canonical_focal(rooms: Path) -> None:
    stored = cv2.imread(str(rooms / 'test' / '000001_0_depth.png'), cv2.IMREAD_ANYDEPTH) / 1000
    for focal in (100.0, 277.0):
        np.testing.assert_allclose(
            labels(batches(rooms, focal)[0], focal)['depth'][1], stored, rtol=1e-5
        )


def test_logits_become_what_they_mean() -> None:
    fx = torch.tensor([100.0, 200.0])
    logits = {
        'semantic': torch.tensor([0.0, 2.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4),
        'depth': torch.tensor([np.log(3.0), -1.0]).view(1, 2, 1, 1).expand(2, 2, 4, 4),
        'normals': torch.tensor([3.0, 0.0, -4.0]).view(1, 3, 1, 1).expand(2, 3, 4, 4),
        'edges': torch.zeros(2, 1, 4, 4),
    }
    maps = predictions(logits, fx, canonical_focal=200.0)
    assert (maps['semantic'] == 1).all()
    np.testing.assert_allclose(maps['depth'][:, 0, 0], [1.5, 3.0], rtol=1e-6)
    np.testing.assert_allclose(maps['normals'][0, 0, 0], [0.6, 0, -0.8], rtol=1e-6)
    assert (maps['edges'] == 0.5).all()
    one_channel = predictions({'depth': torch.full((2, 1, 4, 4), 3.0)}, fx, canonical_focal=200.0)
    np.testing.assert_allclose(one_channel['depth'][:, 0, 0], [1.5, 3.0])


def test_trivial_predictors_take_their_constants_from_training(rooms: Path) -> None:
    data = Rooms(rooms, 'train', ROBOT_GROUPS)
    trivial = trivial_predictors(data, TASKS)
    batch = batches(rooms)[0]
    millimetres = np.concatenate(
        [
            cv2.imread(f'{frame.prefix}_depth.png', cv2.IMREAD_ANYDEPTH).ravel()
            for frame in data.frames
        ]
    )
    valid = millimetres[millimetres > 0] / 1000
    best = trivial['best constant'](batch)
    assert best['depth'].shape == (2, 64, 96)
    assert best['depth'][0, 0, 0] == pytest.approx(np.median(valid), abs=0.051)
    assert trivial['mean depth'](batch)['depth'][0, 0, 0] == pytest.approx(valid.mean(), abs=1e-3)
    np.testing.assert_allclose(best['normals'][0, 0, 0], [0.5, 0, -0.866], atol=0.01)
    assert (best['edges'] == 1).all()


def test_the_table_shows_predictors_side_by_side() -> None:
    reports = {
        'network': {
            'semantic': {'miou': 0.5, 'accuracy': 0.8, 'iou_wall': 0.7},
            'depth': {'rmse': 0.3},
        },
        'mean depth': {'depth': {'rmse': 0.8}},
    }
    assert markdown(reports).splitlines() == [
        '| | network | mean depth |',
        '|---|---|---|',
        '| mIoU, % | 50.0 |  |',
        '| pixel accuracy, % | 80.0 |  |',
        '| depth RMSE, m | 0.300 | 0.800 |',
        '',
        'IoU by class, %: wall 70.',
    ]


def test_a_checkpoint_from_the_command_line(
    rooms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ['run.validate_every=0', 'run.picture_every=0', 'optim.max_steps=1']
    last = train(load_config(TINY, quiet), rooms, tmp_path)
    arguments = ['evaluate', '--checkpoint', str(last), '--data', str(rooms), '--workers', '0']
    arguments += ['--json', str(tmp_path / 'a.json'), '--sheet', str(tmp_path / 'a.png')]
    assert main(arguments) == 0
    assert '| | network | best constant | mean depth |' in capsys.readouterr().out
    written = json.loads((tmp_path / 'a.json').read_text())
    assert written['frames'] == 4
    assert written['reports'].keys() == {'network', 'best constant', 'mean depth'}
    assert cv2.imread(str(tmp_path / 'a.png')).shape == (4 * 2 * 64, 5 * 96, 3)


def write_bundle(folder: Path) -> None:
    """A bundle whose depth is red / 100 for focal 50, semantic is green and edges are blue."""
    nodes = [
        helper.make_node('Split', ['image'], ['r', 'g', 'b'], axis=3, num_outputs=3),
        helper.make_node('Squeeze', ['g', 'axis'], ['semantic']),
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
        'tasks': {'semantic': {}, 'depth': {}, 'edges': {}},
    }
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(description))


def test_a_bundle_is_judged_like_a_network(rooms: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path)
    predict, meta = bundle_predictor(tmp_path)
    assert meta['tasks'] == ['semantic', 'depth', 'edges']
    batch = batches(rooms)[0]
    image = batch['image'].numpy()
    maps = predict(batch)
    np.testing.assert_array_equal(maps['semantic'], image[:, 1])
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
    with pytest.raises(DeployError, match='cannot be read as a bundle'):
        bundle_predictor(tmp_path)
    write_bundle(tmp_path)
    text = (tmp_path / 'bundle.yaml').read_text()
    (tmp_path / 'bundle.yaml').write_text(text.replace('canonical_focal', 'focal'))
    with pytest.raises(CheckpointError, match="cannot be judged as a bundle: 'canonical_focal'"):
        bundle_predictor(tmp_path)
    (tmp_path / 'model.onnx').write_bytes(b'')
    with pytest.raises(DeployError, match='is damaged: its sha256 is not'):
        bundle_predictor(tmp_path)
