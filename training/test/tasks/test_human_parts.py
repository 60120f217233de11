"""Human parts from the first step of a training to a bundle that the runtime reads."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from mtl_training.cli import main
from mtl_training.datasets import KINDS, Kind
from mtl_training.datasets.augment import Sample
from mtl_training.labels import LabelClass
from mtl_training.tasks import HumanPartsTask

from mtl_perception.bundle import load_bundle

TINY = Path(__file__).parents[2] / 'configs' / 'tiny.yaml'


class People:
    """Four frames of seven stripes, one for every part, the last frame without people."""

    name = 'people'
    tasks = ('human_parts',)
    frames = ('a', 'b', 'c', 'd')

    def __init__(self, folder: Path, split: str, classes: Sequence[LabelClass]) -> None:
        self.classes = {'human_parts': HumanPartsTask().classes}

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int, tasks: Collection[str]) -> Sample:
        stripes = np.repeat(np.arange(7, dtype=np.uint8), 14)[:96]
        parts = np.tile(np.roll(stripes, index), (64, 1))
        image = np.repeat(parts[..., None] * 30, 3, axis=-1)
        return Sample({'image': image, 'human_parts': parts if index < 3 else parts | 255}, 80.0)


def test_human_parts_from_training_to_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, 'people.txt', Kind(People, ('train', 'val')))
    data, out = tmp_path / 'data', tmp_path / 'run'
    data.mkdir()
    (data / 'people.txt').touch()
    words = ['train', str(TINY), '--data', str(data), '--out', str(out), '--max-steps', '2']
    for setting in ('task_set=pascal', 'tasks=[human_parts]', 'run.picture_every=2'):
        words += ['--set', setting]
    assert main(words) == 0
    header, row = (out / 'validation.csv').read_text().splitlines()
    validated = dict(zip(header.split(','), map(float, row.split(',')), strict=True))
    assert validated['quality'] == pytest.approx(validated['human_parts.miou'])
    assert cv2.imread(str(out / 'pictures' / '000002.png')).shape == (4 * 3 * 64, 2 * 96, 3)

    checkpoint = ['--checkpoint', str(out / 'last.safetensors')]
    words = ['evaluate', *checkpoint, '--data', str(data), '--workers', '0']
    assert main([*words, '--json', str(tmp_path / 'figures.json')]) == 0
    printed = capsys.readouterr().out
    assert '| human parts mIoU, % |' in printed
    assert 'IoU by class, %, human parts: background' in printed
    figures = json.loads((tmp_path / 'figures.json').read_text())['reports']
    assert figures.keys() == {'network', 'best constant'}

    assert main(['export', *checkpoint, '--out', str(tmp_path / 'bundle')]) == 0
    bundle = load_bundle(tmp_path / 'bundle')
    (task,) = bundle.tasks.values()
    assert dict(task.outputs) == {'human_parts': 'uint8'}
    assert [label.name for label in task.classes][:2] == ['background', 'head']
    words = ['evaluate', '--bundle', str(tmp_path / 'bundle'), '--data', str(data)]
    assert main([*words, '--workers', '0', '--json', str(tmp_path / 'bundled.json')]) == 0
    bundled = json.loads((tmp_path / 'bundled.json').read_text())['reports']['network']
    assert bundled['human_parts'] == pytest.approx(figures['network']['human_parts'], abs=1e-3)
