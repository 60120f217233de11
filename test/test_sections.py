"""What is read from a YAML file has the type that was asked for, or a sentence says where not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_perception import PerceptionError
from mtl_perception.sections import Section, read_section

TEXT = """
model: {file: net.onnx, size: 3, share: 0.5, flag: true, list: [], name: ''}
items: [{id: x}]
"""


class ZooError(PerceptionError):
    """What this file's readers raise."""


@pytest.fixture
def top(tmp_path: Path) -> Section:
    (tmp_path / 'zoo.yaml').write_text(TEXT)
    return read_section(tmp_path / 'zoo.yaml', ZooError)


def test_values_come_with_their_type(top: Section) -> None:
    model = top.section('model')
    assert model.text('file') == 'net.onnx'
    assert model.integer('size', minimum=3) == 3
    assert (model.number('size'), model.number('share')) == (3.0, 0.5)
    assert model.get('list') == []


@pytest.mark.parametrize(
    ('read', 'words'),
    [
        (lambda m: m.text('size'), 'model.size is 3, expected a text'),
        (lambda m: m.text('name'), "model.name is '', expected a text"),
        (lambda m: m.integer('share', minimum=0), 'model.share is 0.5, expected a whole number'),
        (lambda m: m.integer('flag', minimum=0), 'model.flag is True, expected a whole number'),
        (lambda m: m.integer('size', minimum=4), 'expected a whole number of at least 4'),
        (lambda m: m.number('flag'), 'model.flag is True, expected a finite number'),
        (lambda m: m.number('file'), 'expected a finite number'),
        (lambda m: m.section('list'), r'model.list is \[\], expected a mapping'),
        (lambda m: m.get('color'), 'model.color is missing'),
    ],
)
def test_a_wrong_value_is_named_with_its_place(
    top: Section, read: Callable[[Section], Any], words: str
) -> None:
    with pytest.raises(ZooError, match=f'zoo.yaml: .*{words}'):
        read(top.section('model'))


def test_an_item_of_a_list_knows_its_place(top: Section) -> None:
    item = top.inner('items[0]', top.get('items')[0])
    with pytest.raises(ZooError, match=r"items\[0\].id is 'x', expected a whole number"):
        item.integer('id', minimum=0)
