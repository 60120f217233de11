"""The files and recipes for other programs: topics and classes that exist, parameters they know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mtl_perception.bundle import default_bundle, load_bundle
from mtl_perception.camera import CameraModel
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.outputs import OUTPUTS, camera_info_fields
from mtl_perception.pipeline import Frame, Pipeline
from mtl_perception.wiring import OWN_NAMES

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ['nav2_semantic.yaml', 'nav2_points.yaml', 'nvblox.yaml', 'foxglove.json']

# What their sources declare, at the commits that docs/consumers.md names.
SEMANTIC_LAYER = {
    'plugin', 'enabled', 'combination_method', 'observation_sources', 'publish_debug_topics',
    'use_approximate_time_sync',
}  # fmt: skip
SEMANTIC_SOURCE = {
    'segmentation_topic', 'confidence_topic', 'labels_topic', 'pointcloud_topic',
    'observation_persistence', 'expected_update_rate', 'class_types', 'max_obstacle_distance',
    'min_obstacle_distance', 'tile_map_decay_time', 'visualize_tile_map', 'use_cost_selection',
}  # fmt: skip
SEMANTIC_CLASS = {
    'classes', 'base_cost', 'max_cost', 'mark_confidence', 'samples_to_max_cost',
    'dominant_priority',
}  # fmt: skip
VOXEL_LAYER = {
    'plugin', 'enabled', 'footprint_clearing_enabled', 'min_obstacle_height',
    'max_obstacle_height', 'z_voxels', 'origin_z', 'z_resolution', 'unknown_threshold',
    'mark_threshold', 'combination_method', 'publish_voxel_map', 'observation_sources',
    'tf_filter_tolerance',
}  # fmt: skip
VOXEL_SOURCE = {
    'topic', 'sensor_frame', 'observation_persistence', 'expected_update_rate', 'data_type',
    'min_obstacle_height', 'max_obstacle_height', 'inf_is_valid', 'marking', 'clearing',
    'transport_type', 'obstacle_max_range', 'obstacle_min_range', 'raytrace_max_range',
    'raytrace_min_range',
}  # fmt: skip
NVBLOX = {
    'num_cameras', 'use_depth', 'use_color', 'use_segmentation', 'use_lidar', 'mapping_type',
    'input_qos',
}  # fmt: skip
# What is above the robot: the layer knows no heights.
IGNORED = {'ceiling', 'lamp'}
NO_INFORMATION = 255
PANELS = {'3D', 'Image', 'DiagnosticSummary', 'Plot'}


def layer(file: str, name: str) -> dict[str, Any]:
    """The parameters of a layer of the local costmap."""
    content = yaml.safe_load((ROOT / 'config' / file).read_text())
    parameters = content['local_costmap']['local_costmap']['ros__parameters']
    assert name in parameters['plugins']
    return dict(parameters[name])


def test_the_semantic_layer_knows_every_class_of_the_bundle_once() -> None:
    parameters = layer('nav2_semantic.yaml', 'semantic_layer')
    source = parameters.pop('camera')
    assert parameters.keys() <= SEMANTIC_LAYER
    types = {name: source.pop(name) for name in source['class_types']}
    assert source.keys() <= SEMANTIC_SOURCE
    assert all(content.keys() <= SEMANTIC_CLASS for content in types.values())
    named = [name for content in types.values() for name in content['classes']]
    expected = {item.name for item in load_bundle(default_bundle()).classes} - IGNORED
    assert sorted(named) == sorted(expected)


def cost_of_cell(looks: Sequence[Sequence[tuple[str, int]]]) -> int:
    """What semantic_segmentation_layer puts on a cell above which these pixels are.

    Follows ``bufferSegmentation`` and ``updateBounds``, but for classes that change between looks.

    Args:
        looks: for each image the pixels of the cell, in their order: class and confidence.

    Returns:
        The cost; NO_INFORMATION for a cell that the layer does not touch.
    """
    source = layer('nav2_semantic.yaml', 'semantic_layer')['camera']
    costs = {n: source[kind] for kind in source['class_types'] for n in source[kind]['classes']}
    taken: list[tuple[str, int]] = []
    for pixels in looks:
        best = pixels[0]
        for pixel in pixels[1:]:
            if source['use_cost_selection']:
                kinds = [costs.get(name, {'max_cost': 0}) for name, _ in (pixel, best)]
                better = kinds[0]['max_cost'] > kinds[1]['max_cost']
            else:
                better = pixel[1] > best[1]
            best = pixel if better else best
        if best[0] in costs:
            taken.append(best)
    if not taken:
        return NO_INFORMATION
    kind = costs[taken[-1][0]]
    enough = len(taken) >= kind.get('samples_to_max_cost', 0)
    sure = sum(confidence for _, confidence in taken) / len(taken) > kind.get('mark_confidence', 0)
    return int(kind['max_cost'] if enough and sure else kind['base_cost'])


@pytest.mark.parametrize(
    ('pixels', 'looks', 'cost'),
    [
        ([('floor', 250)], 100, 0),
        ([('unlabelled', 127), ('floor', 250)], 1, 0),
        ([('ceiling', 250), ('floor', 200)], 1, 0),
        ([('floor', 250), ('wall', 130)], 1, 128),
        ([('floor', 250), ('wall', 130)], 3, 254),
        ([('floor', 250), ('wall', 128)], 3, 254),  # the least that min_semantic_confidence leaves
        ([('floor', 250), ('wall', 60)], 3, 128),
        ([('ceiling', 250), ('person', 130)], 1, 254),
        ([('ceiling', 250)], 3, NO_INFORMATION),
        ([('lamp', 250), ('unlabelled', 10)], 3, NO_INFORMATION),
    ],
)
def test_the_semantic_layer_costs_what_is_seen_above_a_cell(
    pixels: list[tuple[str, int]], looks: int, cost: int
) -> None:
    assert cost_of_cell([pixels] * looks) == cost


def test_the_voxel_layer_has_the_parameters() -> None:
    parameters = layer('nav2_points.yaml', 'voxel_layer')
    source = parameters.pop('perception')
    assert parameters.keys() <= VOXEL_LAYER
    assert source.keys() <= VOXEL_SOURCE
    assert source['data_type'] == 'PointCloud2'


def test_rays_to_the_floor_and_to_the_ceiling_clear_voxels() -> None:
    """Heights of a source are filtered before rays clear, those of the layer before points mark."""
    parameters = layer('nav2_points.yaml', 'voxel_layer')
    source = parameters['perception']
    assert source['clearing']
    assert source['min_obstacle_height'] < 0 < parameters['min_obstacle_height']
    top = parameters['origin_z'] + parameters['z_voxels'] * parameters['z_resolution']
    assert parameters['max_obstacle_height'] <= top < source['max_obstacle_height']


def test_nvblox_has_the_parameters() -> None:
    content = yaml.safe_load((ROOT / 'config' / 'nvblox.yaml').read_text())
    assert content['/**']['ros__parameters'].keys() <= NVBLOX


def test_foxglove_shows_panels_that_are_configured() -> None:
    content = json.loads((ROOT / 'config' / 'foxglove.json').read_text())

    def leaves(node: Any) -> list[str]:
        return [node] if isinstance(node, str) else leaves(node['first']) + leaves(node['second'])

    shown = leaves(content['layout'])
    assert sorted(shown) == sorted(content['configById'])
    assert {name.partition('!')[0] for name in shown} <= PANELS


def test_foxglove_looks_along_the_camera() -> None:
    """Its camera looks along -z, y upwards, turned by phi about x and by -thetaOffset about z."""
    content = json.loads((ROOT / 'config' / 'foxglove.json').read_text())
    state = content['configById']['3D!points']['cameraState']
    phi, theta = np.deg2rad([state['phi'], -state['thetaOffset']])
    about_x = np.array([[1, 0, 0], [0, np.cos(phi), -np.sin(phi)], [0, np.sin(phi), np.cos(phi)]])
    about_z = np.array(
        [[np.cos(theta), -np.sin(theta), 0], [np.sin(theta), np.cos(theta), 0], [0, 0, 1]]
    )
    right, up, back = (about_z @ about_x).T
    # The optical frame: x right, y down, z forward.
    assert right @ [1, 0, 0] > 0.9
    assert up @ [0, -1, 0] > 0.9
    assert back @ [0, 0, -1] > 0.9
    assert back[1] < 0  # from above


@pytest.mark.parametrize('path', ['docs/consumers.md', *(f'config/{name}' for name in CONFIGS)])
def test_all_topics_are_published(path: str) -> None:
    text = (ROOT / path).read_text()
    named = re.findall(r'(?:/perception/|~/)([a-z_]+(?:/compressed\w*)?)', text)
    assert {*named} - {*OWN_NAMES} == set()
    assert named or path == 'config/nvblox.yaml'


def test_the_page_has_a_recipe_for_every_file() -> None:
    text = (ROOT / 'docs' / 'consumers.md').read_text()
    assert all(f'config/{name}' in text for name in CONFIGS)


def test_rtabmap_asks_for_equal_stamps_of_our_topics_only() -> None:
    """``odom_topic`` would be synchronised with them; ``odom_frame_id`` takes it from TF."""
    text = (ROOT / 'docs' / 'consumers.md').read_text()
    (command,) = re.findall(r'rtabmap\.launch\.py(?:.*\\\n)*.*', text)
    given = dict(word.split(':=') for word in command.split() if ':=' in word)
    assert given['approx_sync'] == 'false'
    assert 'odom_frame_id' in given
    assert 'odom_topic' not in given


@pytest.mark.parametrize('name', ['depth', 'depth_mm'])
def test_the_equations_of_depth_image_proc_give_our_cloud(tiny_bundle: Path, name: str) -> None:
    bundle = load_bundle(tiny_bundle)
    pipeline = Pipeline(bundle, open_unchecked('onnxruntime', bundle, EngineOptions(threads=1)))
    image = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    camera = CameraModel(192, 96, 180.0, 200.0, 90.0, 40.0)
    (prediction,) = pipeline([Frame(image, camera)], bundle.outputs)
    content = {o.name: o.maker(bundle)(prediction) for o in OUTPUTS}
    cloud = np.frombuffer(content['points'].data, np.float32).reshape(48, 96, 8)
    p = camera_info_fields(content['camera_info'])['p']
    # depth_image_proc: DepthTraits, then convertDepth with the model of P.
    depth = content[name] * (0.001 if name == 'depth_mm' else 1.0)
    valid = depth != 0 if name == 'depth_mm' else np.isfinite(depth)
    v, u = np.mgrid[:48, :96]
    expected = np.stack([(u - p[2]) * depth / p[0], (v - p[6]) * depth / p[5], depth], axis=-1)
    assert (valid == np.isfinite(cloud[..., 2])).all()
    assert valid.mean() > 0.5
    error = np.abs(cloud[..., :3] - expected)[valid].max()
    assert error < (1e-3 if name == 'depth_mm' else 1e-5)
    rgb = cloud[..., 3].copy().view(np.uint8).reshape(48, 96, 4)[..., 2::-1]
    assert (rgb == content['image']).all()
