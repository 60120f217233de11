"""Imported weights, beside what the survey's released code computed: see the benchmark of its name.

Its numbers are in ``survey_outputs.json``. Weights follow from the names that their code has for
them; so does what an imported network says, if every tensor is where it belongs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mtl_training.checkpoints.checkpoint import build_network
from mtl_training.models import Network
from mtl_training.papers.importing import configure, import_weights, source_of
from mtl_training.papers.survey_names import TASKS, name_map

SCRIPT = Path(__file__).parents[3] / 'benchmarks' / 'survey_outputs.py'
EXPECTED = json.loads(Path(__file__).with_name('survey_outputs.json').read_text(encoding='utf-8'))
OURS = {theirs: ours for ours, theirs in TASKS.items()}


def load_script() -> ModuleType:
    """The script that wrote the numbers: what it makes weights and the image of."""
    spec = importlib.util.spec_from_file_location('survey_outputs', SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules['survey_outputs'] = module
    spec.loader.exec_module(module)
    return module


survey = load_script()


def their_shapes(net: Network, names: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Shapes of our tensors by their names; alpha of a unit is a vector for each pair of tasks."""
    shapes = {}
    for name, tensor in net.state_dict().items():
        source, shape = source_of(name, names), tuple(tensor.shape)
        if source.endswith('.alpha'):
            unit, tasks = source.removesuffix('alpha'), [TASKS[task] for task in net.tasks]
            pairs = [f'{unit}cross_stitch_unit.{i}.{j}.param' for i in tasks for j in tasks]
            shapes |= dict.fromkeys(pairs, shape[2:])
        else:
            shapes[source] = shape
    return shapes


@pytest.mark.parametrize('name', survey.CASES)
def test_imported_weights_say_what_the_released_code_says(name: str) -> None:
    case, expected = survey.CASES[name], EXPECTED[name]
    config = configure(
        case.system,
        case.backbone,
        [OURS[task] for task in case.tasks],
        auxiliary=[OURS[task] for task in case.auxiliary],
        task_set='nyud' if 'depth' in case.tasks else 'pascal',
    )
    net = build_network(config, pretrained=False)
    assert sum(p.numel() for p in net.parameters()) == expected['parameters']
    shapes = their_shapes(net, name_map(case.system, case.backbone, net))
    assert survey.digest(shapes) == expected['tensors']  # just their tensors, in their shapes
    imported = import_weights(survey.filled(shapes), config)
    with torch.no_grad():
        outputs = imported(survey.image())
    assert list(outputs) == [OURS[task] for task in case.tasks]
    for task, values in expected['outputs'].items():
        found = torch.tensor(survey.sampled(outputs[OURS[task]]))
        wanted = torch.tensor(values)
        atol = 1e-5 * wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=atol)
