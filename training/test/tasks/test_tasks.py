"""What every task must do, and the sets of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from mtl_training.labels import CLASS_SETS, NYUD40, PASCAL21, ROBOT_GROUPS, LabelClass
from mtl_training.tasks import (
    TASK_SETS,
    GroupedSemanticTask,
    LaplaceDepth,
    SemanticTask,
    Task,
    choose,
    every,
    grouped,
    multi_task_loss,
    nyud,
    pascal,
    rooms,
    weighted_sum,
)
from mtl_training.tasks.task import TaskError
from torch.nn import functional

CLASSES = ROBOT_GROUPS[:4]
# Their first four are the groups' namesakes; floor mat is of the floor, bed of no group.
MEMBERS = tuple(LabelClass(name, (0, 0, 0)) for name in (
    'wall', 'floor', 'ceiling', 'door', 'floor mat', 'bed'
))  # fmt: skip
TASKS: list[Task] = [
    *every(CLASSES).values(),
    nyud(CLASSES)['depth'],
    GroupedSemanticTask(classes=CLASSES, members=MEMBERS),
]
SIZE = (4, 6)


@pytest.fixture(params=TASKS, ids=lambda task: type(task).__name__)
def task(request: pytest.FixtureRequest) -> Task:
    return request.param  # type: ignore[no-any-return]


def stored(task: Task) -> np.ndarray:
    """Labels of a frame, the first row without any."""
    rng = np.random.default_rng(0)
    labels: dict[str, Any] = {
        'semantic': lambda: rng.integers(0, 4, SIZE, np.uint8),
        'human_parts': lambda: rng.integers(0, 7, SIZE, np.uint8),
        'depth': lambda: rng.integers(500, 9000, SIZE, np.uint16),
        'normals': lambda: rng.integers(1, 256, (*SIZE, 3), np.uint8),
        'edges': lambda: rng.integers(0, 2, SIZE, np.uint8),
        'saliency': lambda: rng.integers(0, 2, SIZE, np.uint8),
    }
    array = labels[task.name]()
    array[0] = task.no_label
    return np.asarray(array)


def perfect_logits(task: Task, target: torch.Tensor) -> torch.Tensor:
    """What a network would have to say of a batch of targets."""
    if task.name in ('semantic', 'human_parts'):
        ids = torch.where(target == 255, 0, target)
        return 50 * functional.one_hot(ids, task.channels).permute(0, 3, 1, 2).float()
    if task.name == 'depth':
        depth = torch.where(target > 0, target, 1.0)
        return depth if task.channels == 1 else torch.cat([depth.log(), 0 * depth - 9], dim=1)
    if task.name == 'normals':
        return 3 * target
    return 100 * (target - 0.5)


def test_labels_come_back_as_they_were_stored(task: Task) -> None:
    """Stored -> target -> map, of two frames with focal lengths of their own."""
    zoom = torch.tensor([0.5, 2.0])
    labels = stored(task)
    target = torch.stack([task.target(labels, z) for z in zoom.tolist()])
    for values in task.truth(target, zoom):
        if task.name == 'depth':
            np.testing.assert_allclose(values * 1000, labels, rtol=1e-5)
        elif task.name == 'normals':
            direction = labels / 127.5 - 1
            direction[0] = 0
            length = np.linalg.norm(direction, axis=-1, keepdims=True)
            np.testing.assert_allclose(values * length, direction, atol=1e-5)
        else:
            np.testing.assert_array_equal(values, labels)


def test_depth_is_canonical_for_the_network() -> None:
    for depth in (rooms(CLASSES)['depth'], nyud(CLASSES)['depth']):
        target = depth.target(np.array([[3000]], np.uint16), 1.5)
        assert target.item() == pytest.approx(2)


def test_a_network_that_is_right_has_perfect_figures(task: Task) -> None:
    """Labels, decoding and metric speak of the same thing."""
    zoom = torch.tensor([0.5, 2.0])
    target = torch.stack([task.target(stored(task), z) for z in zoom.tolist()])
    maps = task.decode(perfect_logits(task, target), zoom)
    metric = task.metric()
    for found, true in zip(maps, task.truth(target, zoom), strict=True):
        metric.update(found, true)
    figures = metric.compute()
    assert figures[task.quality] == pytest.approx(1)
    assert {figure.key for figure in task.figures} <= figures.keys()


def test_the_loss_falls_towards_the_labels_and_ignores_the_rest(task: Task) -> None:
    torch.manual_seed(0)
    target = task.target(stored(task), 1.0)[None]
    right = perfect_logits(task, target)
    wrong = torch.randn_like(right)
    wrong.requires_grad_()
    loss = task.loss(wrong, target)
    assert task.loss(right, target) < loss
    loss.backward()
    assert wrong.grad is not None
    assert (wrong.grad[..., 0, :] == 0).all()
    assert (wrong.grad[..., 1:, :] != 0).any(dim=1).all()


def test_without_labels_loss_and_gradient_are_zero(task: Task) -> None:
    labels = np.full_like(stored(task), task.no_label)
    logits = torch.randn(1, task.channels, *SIZE, requires_grad=True)
    loss = task.loss(logits, task.target(labels, 1.0)[None])
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_logits_are_upsampled_to_the_labels(task: Task) -> None:
    target = task.target(stored(task), 1.0)[None]
    logits = torch.randn(1, task.channels, 2, 3)
    gathered = task.gather(logits)
    large = functional.interpolate(gathered, SIZE, mode='bilinear', align_corners=False)
    torch.testing.assert_close(task.loss(logits, target), task.criterion(large, target))


def test_a_bundle_says_what_the_network_says(task: Task) -> None:
    """The exported head, read back, is the decoded network, to a level of 255."""
    torch.manual_seed(0)
    logits, zoom = torch.randn(2, task.channels, *SIZE).abs() + 0.1, torch.tensor([0.5, 2.0])
    outputs = {name: tensor.numpy() for name, tensor in task.head(logits).items()}
    assert next(iter(outputs)) == task.name
    found, expected = task.of_bundle(outputs, zoom.numpy()), task.decode(logits, zoom)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(found, expected, atol=0.51 / 255)


def test_pictures_are_black_where_there_is_no_label(task: Task) -> None:
    target = task.target(stored(task), 1.0)[None]
    (labels,) = task.truth(target, torch.ones(1))
    picture = task.picture(labels)
    assert (picture.shape, picture.dtype) == ((*SIZE, 3), np.uint8)
    assert (picture[0] == 0).all()
    assert picture[1:].any()


def test_mirroring_twice_changes_nothing(task: Task) -> None:
    labels = stored(task)
    mirrored = task.mirror(labels)
    assert (mirrored != labels).any()
    np.testing.assert_array_equal(task.mirror(mirrored), labels)
    np.testing.assert_array_equal(task.labelled(mirrored), task.labelled(labels)[:, ::-1])


def test_constants_are_maps_of_one_pixel(task: Task) -> None:
    labels = stored(task)
    columns = np.atleast_2d(labels[task.labelled(labels)].T)
    counts = np.stack([np.bincount(column, minlength=65536) for column in columns])
    (decoded,) = task.decode(torch.randn(1, task.channels, *SIZE), torch.ones(1))
    for value in task.constants(counts).values():
        assert np.shape(value) == decoded.shape[2:]


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('semantic', 4, r'semantic labels have the id 4, expected 0\.\.3, or 255 for no label'),
        ('human_parts', 7, r'human_parts labels have the id 7, expected 0\.\.6'),
        ('edges', 2, 'edges labels have the value 2, expected 0 or 1'),
        ('saliency', 254, 'saliency labels have the value 254, expected 0 or 1'),
    ],
)
def test_labels_that_cannot_be_are_one_clear_error(name: str, value: int, message: str) -> None:
    task = every(CLASSES)[name]
    labels = stored(task)
    task.target(labels, 1.0)
    labels[2, 2] = value
    with pytest.raises(TaskError, match=message):
        task.target(labels, 1.0)


def test_total_is_the_weighted_sum_over_the_tasks_that_have_logits() -> None:
    tasks = choose(nyud(NYUD40), ['depth', 'edges', 'normals'], {'depth': 3.0})
    logits = {'depth': torch.full((1, 1, 4, 4), 3.0), 'edges': torch.zeros(1, 1, 2, 2)}
    batch = {'depth': torch.full((1, 1, 4, 4), 5.0), 'edges': torch.ones(1, 1, 4, 4)}
    losses = multi_task_loss(logits, batch, tasks)
    assert list(losses) == ['depth', 'edges']
    expected = 3 * 2 + 50 * 0.8 * np.log(2)
    assert weighted_sum(losses, tasks).item() == pytest.approx(expected)


def test_unknown_tasks_are_named() -> None:
    for names, weights in ((['deth'], {}), (['depth'], {'deth': 1.0})):
        with pytest.raises(TaskError, match="unknown task 'deth', expected one of semantic, depth"):
            choose(nyud(NYUD40), names, weights)


def test_weights_and_channels_are_those_of_the_papers() -> None:
    """Reference: losses of ATRC, which TIF takes over."""
    weights = {n: t.weight for n, t in {**pascal(PASCAL21), **nyud(NYUD40)}.items()}
    assert weights == {
        'semantic': 1, 'human_parts': 2, 'saliency': 5, 'normals': 10, 'edges': 50, 'depth': 1,
    }  # fmt: skip
    channels = {n: t.channels for n, t in pascal(PASCAL21).items()}
    assert channels == {'semantic': 21, 'human_parts': 7, 'saliency': 1, 'normals': 3, 'edges': 1}
    channels = {n: t.channels for n, t in nyud(NYUD40).items()}
    assert channels == {'semantic': 40, 'depth': 1, 'normals': 3, 'edges': 1}
    edges = [tasks['edges'] for tasks in (nyud(NYUD40), pascal(PASCAL21))]
    assert edges == [replace(edges[0], edge_weight=w) for w in (0.8, 0.95)]  # type: ignore[call-arg]


def test_a_group_is_as_probable_as_its_members_together() -> None:
    """Wall .4, table and desk .3 each: a table, of which the network is sure by .6."""
    task = grouped(SemanticTask(classes=NYUD40, weight=3.0), ROBOT_GROUPS)
    assert (task.channels, task.weight, len(task.classes)) == (40, 3.0, 18)
    probability = torch.full((40,), 1e-9)
    names = [label.name for label in NYUD40]
    for name, value in {'wall': 0.4, 'table': 0.3, 'desk': 0.3}.items():
        probability[names.index(name)] = value
    raw = 5 + probability.log().view(1, 40, 1, 1)
    logits = task.gather(raw)
    assert logits.shape == (1, 18, 1, 1)
    table = [label.name for label in ROBOT_GROUPS].index('table')
    assert task.decode(logits, torch.ones(1)).tolist() == [[[table]]]
    head = task.head(logits)
    assert head['semantic'].tolist() == [[[table]]]
    assert head['semantic_confidence'].tolist() == [[[153]]]
    for name, value in {'table': 0.6, 'wall': 0.4}.items():
        target = torch.tensor([[[[g.name for g in ROBOT_GROUPS].index(name)]]])
        assert task.loss(raw, target).item() == pytest.approx(-np.log(value), rel=1e-5)


def test_only_groups_of_its_classes_are_gathered() -> None:
    task = SemanticTask(classes=NYUD40)
    assert grouped(task, NYUD40) is task
    with pytest.raises(TaskError, match='tells 40 classes apart, which cannot be gathered into'):
        grouped(task, PASCAL21)


def test_indoor_is_the_shipped_recipe_on_forty_classes_with_gradients_of_depth() -> None:
    assert CLASS_SETS['indoor'] is NYUD40
    tasks = TASK_SETS['indoor'](CLASS_SETS['indoor'])
    assert tasks == {**rooms(NYUD40), 'depth': LaplaceDepth(gradients=0.5)}
    assert list(tasks) == list(rooms(NYUD40))
