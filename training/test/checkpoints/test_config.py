"""The configuration is strict, and says in one sentence what is wrong with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from mtl_training.checkpoints.config import (
    Config,
    ConfigError,
    from_mapping,
    load_config,
    to_mapping,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
GOOD = {
    'name': 'x',
    'model': {'backbone': 'swin_tiny'},
    'data': {'height': 64, 'width': 96, 'canonical_focal': 277},
    'optim': {'lr': '1e-3', 'max_steps': 10},
    'tasks': ['depth'],
}


@pytest.mark.parametrize(
    'path',
    sorted(set(CONFIGS.rglob('*.yaml')) - set(CONFIGS.glob('sweeps/*'))),
    ids=lambda path: path.name,
)
def test_shipped_configurations_load_and_survive_a_round_trip(path: Path) -> None:
    config = load_config(path)
    assert from_mapping(Config, to_mapping(config)) == config
    if not config.protocol:  # theirs are the sizes of papers
        assert config.data.height % 32 == config.data.width % 32 == 0


@pytest.mark.parametrize('pretrained', [True, False, 'tv_in1k'])
def test_weights_are_a_switch_or_a_name(pretrained: bool | str) -> None:
    model = {'backbone': 'resnet50', 'pretrained': pretrained}
    assert from_mapping(Config, {**GOOD, 'model': model}).model.pretrained is pretrained


def test_numbers_and_lists_take_their_types() -> None:
    config = from_mapping(Config, GOOD)
    assert config.optim.lr == 1e-3
    assert isinstance(config.data.canonical_focal, float)
    assert config.tasks == ('depth',)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'optm': {}}, 'unknown key optm, expected one of name'),
        ({'model': {'backbone': 'swin_tiny', 'widht': 3}}, r'unknown key model\.widht'),
        ({'data': {'height': 64, 'width': 96}}, r'key data\.canonical_focal is missing'),
        ({'optim': {'lr': 'fast', 'max_steps': 10}}, r"optim\.lr is 'fast', expected float"),
        ({'optim': {'lr': 1, 'max_steps': 1.5}}, r'optim\.max_steps is 1\.5, expected int'),
        ({'model': 'tif'}, "model is 'tif', expected a mapping"),
        ({'augment': {'scale': [1]}}, r'augment\.scale has 1 entries, expected 2'),
        ({'seed': True}, 'seed is True, expected int'),
        (
            {'model': {'backbone': 'resnet50', 'pretrained': 1}},
            r'model\.pretrained is 1, expected bool',
        ),
        ({'model': {'backbone': None}}, r'model\.backbone is None, expected str'),
        ({'tasks': 'depth'}, "tasks is 'depth', expected a list"),
        ({'tasks': ['depth', 'edges', 'depth']}, "tasks has 'depth' twice, expected different"),
        (
            {'model': {'backbone': 'swin_tiny', 'auxiliary': ['edges', 'edges']}},
            "model.auxiliary has 'edges' twice, expected different",
        ),
        (
            {'optim': {'lr': 1, 'max_steps': 1, 'optimizer': 'lion'}},
            r"optim\.optimizer is 'lion', expected one of adamw, adam, sgd",
        ),
        (
            {'run': {'precision': 'bf16-true'}},
            r"run\.precision is 'bf16-true', expected one of",
        ),
        ({'weights': {'depth': None}}, r'weights\.depth is None, expected float'),
        ({'weights': {'depth': -1}}, r'weights\.depth is -1\.0, expected 0 or more'),
        ({'optim': {'lr': -1, 'max_steps': 1}}, r'optim\.lr is -1\.0, expected 0 or more'),
        ({'optim': {'lr': '.nan', 'max_steps': 1}}, r"optim\.lr is '\.nan', expected float"),
        ({'optim': {'lr': math.nan, 'max_steps': 1}}, r'optim\.lr is nan, expected 0 or more'),
        ({'optim': {'lr': math.inf, 'max_steps': 1}}, r'optim\.lr is inf, expected 0 or more'),
        ({'optim': {'lr': 1, 'max_steps': -1}}, r'optim\.max_steps is -1, expected 0 or more'),
        (
            {'optim': {'lr': 1, 'max_steps': 1, 'ema_decay': 1}},
            r'optim\.ema_decay is 1\.0, expected 0 to 0\.999999',
        ),
        ({'distill': {'temperature': 0}}, r'distill\.temperature is 0\.0, expected above 0'),
        ({'augment': {'flip_p': 1.5}}, r'augment\.flip_p is 1\.5, expected 0 to 1'),
        ({'augment': {'scale': [0, 1]}}, r'augment\.scale is 0\.0, expected above 0'),
        (
            {'augment': {'scale': [2, 0.5]}},
            r'augment\.scale is \(2\.0, 0\.5\), expected the smaller one first',
        ),
        ({'augment': {'jpeg_quality': [50, 101]}}, r'jpeg_quality is 101, expected 0 to 100'),
        (
            {'data': {'height': 64, 'width': 96, 'canonical_focal': 50, 'small_share': 0.5}},
            r'data\.small_share is 0\.5, data\.small_height 0, .* expected sizes above 0',
        ),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / 'bad.yaml'
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert '\n' not in str(caught.value)


def test_overrides_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / 'good.yaml'
    path.write_text(yaml.safe_dump(GOOD))
    config = load_config(path, ['optim.lr=5e-4', 'run.threads=2', 'tasks=[depth, edges]'])
    assert (config.optim.lr, config.run.threads, config.tasks) == (5e-4, 2, ('depth', 'edges'))
    with pytest.raises(ConfigError, match='expected key=value'):
        load_config(path, ['optim.lr'])
    with pytest.raises(ConfigError, match=r'unknown key optim\.rl'):
        load_config(path, ['optim.rl=1'])


@pytest.mark.parametrize('override', ['tasks=[depth', 'name=:a: b: c'])
def test_overrides_that_are_no_yaml_are_named(override: str, tmp_path: Path) -> None:
    path = tmp_path / 'good.yaml'
    path.write_text(yaml.safe_dump(GOOD))
    with pytest.raises(ConfigError, match='is not an override, expected YAML') as caught:
        load_config(path, [override])
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('text', 'found'), [('', 'None'), ('- a', r"\['a'\]")])
def test_a_file_that_is_no_mapping_is_named(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / 'bad.yaml'
    path.write_text(text)
    with pytest.raises(ConfigError, match=f'the file is {found}, expected a mapping'):
        load_config(path, ['seed=1'])


def test_what_is_at_a_bound_is_taken(tmp_path: Path) -> None:
    path = tmp_path / 'good.yaml'
    path.write_text(yaml.safe_dump(GOOD))
    config = load_config(path, ['augment.flip_p=1', 'augment.noise_p=0', 'augment.scale=[1, 1]'])
    assert (config.augment.flip_p, config.augment.noise_p) == (1, 0)
    assert config.augment.scale == (1, 1)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r'nowhere\.yaml: cannot be read'):
        load_config('nowhere.yaml')
