"""The cloud's bytes are what its fields say, on the grid of the images."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.camera import CameraModel
from mtl_perception.clouds import CloudBuilder
from mtl_perception.pipeline import Prediction

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
    return Prediction(arrays, camera, image, metric)


def points(builder, data):
    """Read the data as a consumer does: by the fields."""
    dtype = np.dtype(
        {
            'names': [field[0] for field in builder.fields],
            'formats': [DTYPES[field[2]] for field in builder.fields],
            'offsets': [field[1] for field in builder.fields],
            'itemsize': builder.point_step,
        }
    )
    assert len(data) == HEIGHT * builder.row_step
    return np.frombuffer(data, dtype).reshape(HEIGHT, WIDTH)


def test_fields_and_steps():
    builder = CloudBuilder(WIDTH, HEIGHT)
    assert [f[0] for f in builder.fields] == (
        ['x', 'y', 'z', 'rgb', 'label', 'normal_x', 'normal_y', 'normal_z']
    )
    assert builder.point_step == 32
    assert builder.row_step == 32 * WIDTH
    assert all(field[3] == 1 for field in builder.fields)


def test_every_point_belongs_to_its_pixel():
    builder, given = CloudBuilder(WIDTH, HEIGHT), prediction()
    cloud = points(builder, builder.fill(given))
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
    builder, given = CloudBuilder(WIDTH, HEIGHT), prediction()
    cloud = points(builder, builder.fill(given))
    value = np.ascontiguousarray(cloud['rgb']).view(np.uint32)
    r, g, b = given.image.astype(np.uint32).transpose(2, 0, 1)
    np.testing.assert_array_equal(value, (r << 16) | (g << 8) | b)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_no_coordinates_without_depth(bad):
    depth = np.full((HEIGHT, WIDTH), 2, np.float32)
    depth[2, 3] = bad
    builder = CloudBuilder(WIDTH, HEIGHT)
    cloud = points(builder, builder.fill(prediction(depth=depth)))
    xyz = np.stack([cloud[axis] for axis in 'xyz'])
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2, 3] = True
    np.testing.assert_array_equal(np.isnan(xyz), np.stack([expected] * 3))
    assert np.isfinite(xyz[:, ~expected]).all()


def test_no_coordinates_where_the_lens_has_no_ray():
    camera = CameraModel(WIDTH, HEIGHT, 5, 5, 5.5, 3.5, 'plumb_bob', (-0.5, 0.0, 0.0, 0.0, 0.0))
    builder = CloudBuilder(WIDTH, HEIGHT)
    cloud = points(builder, builder.fill(prediction(camera)))
    for axis in 'xyz':
        assert np.isnan(cloud[axis][0, 0])
        assert np.isfinite(cloud[axis][4, 6])


def test_what_is_absent_is_marked_so_even_after_it_was_there():
    builder = CloudBuilder(WIDTH, HEIGHT)
    builder.fill(prediction())
    cloud = points(builder, builder.fill(prediction(semantic=None, normals=None)))
    assert (cloud['label'] == 255).all()
    assert np.isnan(cloud['normal_z']).all()
    assert np.isfinite(cloud['z']).all()


def test_one_buffer_and_the_newest_camera():
    builder = CloudBuilder(WIDTH, HEIGHT)
    depth = np.ones((HEIGHT, WIDTH), np.float32)
    first = builder.fill(prediction(depth=depth))
    x = points(builder, first)['x'][0, 0].copy()
    wide = CameraModel(WIDTH, HEIGHT, 5.0, 5.0, 5.5, 3.5)
    second = builder.fill(prediction(wide, depth=depth))
    assert second is first
    assert points(builder, second)['x'][0, 0] == pytest.approx(2 * x)


def test_crops_of_larger_arrays_will_do():
    given = prediction()
    wide = {
        name: np.concatenate([array, array], 1)[:, WIDTH:] for name, array in given.arrays.items()
    }
    image = np.concatenate([given.image, given.image], 1)[:, WIDTH:]
    expected = bytes(CloudBuilder(WIDTH, HEIGHT).fill(given))
    strided = Prediction(wide, CAMERA, image, True)
    assert bytes(CloudBuilder(WIDTH, HEIGHT).fill(strided)) == expected


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (prediction(camera=None), 'calibrated camera'),
        (prediction(metric=False), 'metric depth'),
        (prediction(depth=None), 'metric depth'),
        (prediction(CameraModel(6, 4, 5, 5, 2, 2)), 'the prediction is 6x4, expected 12x8'),
    ],
)
def test_no_cloud_without_metric_depth(given, words):
    with pytest.raises(ValueError, match=words):
        CloudBuilder(WIDTH, HEIGHT).fill(given)


def test_same_as_sensor_msgs_py():
    point_cloud2 = pytest.importorskip(
        'sensor_msgs_py.point_cloud2', reason='sensor_msgs_py is not installed'
    )
    messages = pytest.importorskip('sensor_msgs.msg')
    builder, given = CloudBuilder(WIDTH, HEIGHT), prediction()
    message = messages.PointCloud2()
    message.data = builder.fill(given)
    message.height, message.width = HEIGHT, WIDTH
    message.point_step, message.row_step = builder.point_step, builder.row_step
    message.fields = [
        messages.PointField(name=name, offset=offset, datatype=datatype, count=count)
        for name, offset, datatype, count in builder.fields
    ]
    theirs = point_cloud2.read_points(message)
    ours = points(builder, message.data).reshape(-1)
    for name in ours.dtype.names:
        np.testing.assert_array_equal(theirs[name].reshape(-1), ours[name])
