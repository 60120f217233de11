"""The weights that come with the package are those of their recipe, and can be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mtl_training.loop.checkpoint import load_checkpoint, read_checkpoint
from mtl_training.loop.config import Config, RunConfig, from_mapping, load_config

TRAINING = Path(__file__).parents[2]
WEIGHTS = sorted((TRAINING / 'weights').glob('*.safetensors'))


def test_there_are_weights() -> None:
    assert [path.stem for path in WEIGHTS] == ['tif_lite0_indoor']


@pytest.mark.parametrize('path', WEIGHTS, ids=lambda path: path.stem)
def test_weights_are_what_the_recipe_of_their_name_gives(path: Path) -> None:
    tensors, meta = read_checkpoint(path)
    assert {name.split('.')[0] for name in tensors} == {'ema'}
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    config = load_config(TRAINING / 'configs' / f'{path.stem}.yaml')
    trained = from_mapping(Config, meta['config'])
    assert replace(trained, run=RunConfig()) == replace(config, run=RunConfig())
    assert meta['step'] == config.optim.max_steps
    assert path.stat().st_size < 8e6


@pytest.mark.parametrize('path', WEIGHTS, ids=lambda path: path.stem)
def test_weights_give_a_network_of_32_bits_that_answers(path: Path) -> None:
    net, meta = load_checkpoint(path)
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    with torch.inference_mode():
        final = net.predictions(torch.zeros(1, 3, 64, 96)).final
    assert {task: logits.shape[1] for task, logits in final.items()} == meta['tasks']
    assert all(bool(logits.isfinite().all()) for logits in final.values())
