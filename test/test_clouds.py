"""The cloud's bytes are what its fields say, on the grid of the images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mtl_perception.camera import CameraModel, Letterbox
from mtl_perception.clouds import CloudBuilder
from mtl_perception.pipeline import Frame, Options, Prediction

WIDTH, HEIGHT = 12, 8
CAMERA = CameraModel(WIDTH, HEIGHT, 10.0, 10.0, 5.5, 3.5)
DTYPES = {6: '<u4', 7: '<f4'}


def prediction(camera=CAMERA, metric=True, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        'depth': rng.uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32),
        'semantic': rng.integers(0, 20, (HEIGHT, WIDTH), np.uint8),
        'normals': rng.normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32),
        **changes,
    }
    arrays = {name: array for name, array in arrays.items() if array is not None}
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return Prediction(
        frame=Frame(image, camera),
        grid=Letterbox.fit(WIDTH, HEIGHT, WIDTH, HEIGHT),
        arrays=arrays,
        image=image,
        calibration=camera,
        metric=metric,
        timings_ms={},
    )


def points(cloud):
    """Read the data as a consumer does: by the fields."""
    dtype = np.dtype(
        {
            'names': [field[0] for field in cloud.fields],
            'formats': [DTYPES[field[2]] for field in cloud.fields],
            'offsets': [field[1] for field in cloud.fields],
            'itemsize': cloud.point_step,
        }
    )
    assert len(cloud.data) == cloud.height * cloud.row_step
    return np.frombuffer(cloud.data, dtype).reshape(cloud.height, cloud.width)


def test_fields_and_steps():
    cloud = CloudBuilder().fill(prediction())
    assert [f[0] for f in cloud.fields] == (
        ['x', 'y', 'z', 'rgb', 'label', 'normal_x', 'normal_y', 'normal_z']
    )
    assert (cloud.height, cloud.width) == (HEIGHT, WIDTH)
    assert cloud.point_step == 32
    assert cloud.row_step == 32 * WIDTH
    assert all(field[3] == 1 for field in cloud.fields)


def test_a_stride_leaves_out_points_and_changes_none():
    builder = CloudBuilder()
    for stride in (1, 3, 5, 1):  # 3 and 5 do not divide the grid
        whole = points(CloudBuilder().fill(prediction()))
        cloud = points(builder.fill(replace(prediction(), options=Options(cloud_stride=stride))))
        assert cloud.tobytes() == whole[::stride, ::stride].tobytes()


def test_every_point_belongs_to_its_pixel():
    given = prediction()
    cloud = points(CloudBuilder().fill(given))
    depth = given.arrays['depth']
    v, u = np.indices(depth.shape)
    np.testing.assert_allclose(cloud['x'], (u - 5.5) / 10 * depth, rtol=1e-5)
    np.testing.assert_allclose(cloud['y'], (v - 3.5) / 10 * depth, rtol=1e-5)
    np.testing.assert_array_equal(cloud['z'], depth)
    np.testing.assert_array_equal(cloud['label'], given.arrays['semantic'])
    normals = np.stack([cloud['normal_x'], cloud['normal_y'], cloud['normal_z']], -1)
    np.testing.assert_array_equal(normals, given.arrays['normals'])


def test_rgb_is_packed_as_pcl_does():
    """The 32-bit value is 0x00RRGGBB: bytes b, g, r, 0, with nothing lost to a float's NaN."""
    given = prediction()
    cloud = points(CloudBuilder().fill(given))
    value = np.ascontiguousarray(cloud['rgb']).view(np.uint32)
    r, g, b = given.image.astype(np.uint32).transpose(2, 0, 1)
    np.testing.assert_array_equal(value, (r << 16) | (g << 8) | b)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_no_coordinates_without_depth(bad):
    depth = np.full((HEIGHT, WIDTH), 2, np.float32)
    depth[2, 3] = bad
    cloud = points(CloudBuilder().fill(prediction(depth=depth)))
    xyz = np.stack([cloud[axis] for axis in 'xyz'])
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2, 3] = True
    np.testing.assert_array_equal(np.isnan(xyz), np.stack([expected] * 3))
    assert np.isfinite(xyz[:, ~expected]).all()


def test_no_coordinates_where_the_lens_has_no_ray():
    camera = CameraModel(WIDTH, HEIGHT, 5, 5, 5.5, 3.5, 'plumb_bob', (-0.5, 0.0, 0.0, 0.0, 0.0))
    cloud = points(CloudBuilder().fill(prediction(camera)))
    for axis in 'xyz':
        assert np.isnan(cloud[axis][0, 0])
        assert np.isfinite(cloud[axis][4, 6])


def test_what_is_absent_is_marked_so_even_after_it_was_there():
    builder = CloudBuilder()
    builder.fill(prediction())
    cloud = points(builder.fill(prediction(semantic=None, normals=None)))
    assert (cloud['label'] == 255).all()
    assert np.isnan(cloud['normal_z']).all()
    assert np.isfinite(cloud['z']).all()


def test_one_buffer_and_the_newest_camera():
    builder = CloudBuilder()
    depth = np.ones((HEIGHT, WIDTH), np.float32)
    first = builder.fill(prediction(depth=depth))
    x = points(first)['x'][0, 0].copy()
    wide = CameraModel(WIDTH, HEIGHT, 5.0, 5.0, 5.5, 3.5)
    second = builder.fill(prediction(wide, depth=depth))
    assert second.data is first.data
    assert points(second)['x'][0, 0] == pytest.approx(2 * x)


def test_the_grid_may_change_its_size():
    builder = CloudBuilder()
    builder.fill(prediction())
    given = prediction()
    arrays = {name: array[:4, :6] for name, array in given.arrays.items()}
    camera = replace(CAMERA, width=6, height=4)
    small = replace(given, arrays=arrays, image=given.image[:4, :6], calibration=camera)
    cloud = points(builder.fill(small))
    assert cloud.shape == (4, 6)
    np.testing.assert_array_equal(cloud['z'], given.arrays['depth'][:4, :6])


def test_crops_of_larger_arrays_will_do():
    given = prediction()
    wide = {
        name: np.concatenate([array, array], 1)[:, WIDTH:] for name, array in given.arrays.items()
    }
    image = np.concatenate([given.image, given.image], 1)[:, WIDTH:]
    expected = bytes(CloudBuilder().fill(given).data)
    assert bytes(CloudBuilder().fill(replace(given, arrays=wide, image=image)).data) == expected


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (prediction(camera=None), 'calibrated camera'),
        (prediction(metric=False), 'metric depth'),
        (prediction(depth=None), 'metric depth'),
        (prediction(CameraModel(6, 4, 5, 5, 2, 2)), 'the calibration is for 6x4, expected 12x8'),
    ],
)
def test_no_cloud_without_metric_depth(given, words):
    with pytest.raises(ValueError, match=words):
        CloudBuilder().fill(given)


def test_same_as_sensor_msgs_py():
    point_cloud2 = pytest.importorskip(
        'sensor_msgs_py.point_cloud2', reason='sensor_msgs_py is not installed'
    )
    messages = pytest.importorskip('mtl_perception.ros.messages')
    cloud = CloudBuilder().fill(prediction())
    theirs = point_cloud2.read_points(messages.point_cloud(cloud))
    ours = points(cloud).reshape(-1)
    for name in ours.dtype.names:
        np.testing.assert_array_equal(theirs[name].reshape(-1), ours[name])
