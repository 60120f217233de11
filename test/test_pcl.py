"""The Point Cloud Library reads our cloud as docs/consumers.md says; needs Debian's libpcl-dev."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.camera import CameraModel
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.engines.opening import open_unchecked
from mtl_perception.outputs import OUTPUTS
from mtl_perception.pipeline import Frame, Options, Pipeline

WHERE = [Path('/usr/include'), *map(Path, filter(None, os.environ.get('CPATH', '').split(':')))]
PCL = [path for folder in WHERE for path in folder.glob('pcl-1.*')]
EIGEN = [folder / 'eigen3' for folder in WHERE]

# A PCLPointCloud2 as pcl_conversions::toPCL fills it, field by field; then two types of points.
READER = r"""
#include <cstdio>
#include <fstream>
#include <iterator>
#include <pcl/conversions.h>
#include <pcl/filters/filter.h>
#include <pcl/point_types.h>

int main(int, char ** words)
{
  pcl::PCLPointCloud2 message;
  std::ifstream file(words[1], std::ios::binary);
  message.data.assign(std::istreambuf_iterator<char>(file), {});
  message.width = std::stoi(words[2]);
  message.height = std::stoi(words[3]);
  message.point_step = std::stoi(words[4]);
  message.row_step = message.width * message.point_step;
  message.is_dense = false;
  for (char ** word = words + 5; *word; word += 4) {
    pcl::PCLPointField field;
    field.name = word[0];
    field.offset = std::stoi(word[1]);
    field.datatype = std::stoi(word[2]);
    field.count = std::stoi(word[3]);
    message.fields.push_back(field);
  }
  pcl::PointCloud<pcl::PointXYZRGBNormal> normals;
  pcl::PointCloud<pcl::PointXYZRGBL> labels;
  pcl::fromPCLPointCloud2(message, normals);
  pcl::fromPCLPointCloud2(message, labels);
  pcl::PointCloud<pcl::PointXYZRGBL> left;
  pcl::Indices indices;
  pcl::removeNaNFromPointCloud(labels, left, indices);
  std::fprintf(stderr, "%d %zu", normals.isOrganized() && labels.isOrganized(), left.size());
  for (std::size_t i = 0; i < normals.size(); ++i) {
    const auto & p = normals[i];
    const auto & q = labels[i];
    const float row[] = {p.x, p.y, p.z, q.x, q.y, q.z, p.normal_x, p.normal_y, p.normal_z,
      float(p.r), float(p.g), float(p.b), float(q.r), float(q.g), float(q.b), float(q.label)};
    std::fwrite(row, sizeof(float), 16, stdout);
  }
}
"""


@pytest.mark.skipif(not (shutil.which('g++') and PCL), reason='libpcl-dev is not installed')
def test_pcl_reads_what_the_images_say(tiny_bundle: Path, tmp_path: Path) -> None:
    source, program, data = (tmp_path / name for name in ('reader.cpp', 'reader', 'cloud'))
    source.write_text(READER)
    includes = [f'-isystem{path}' for path in (*PCL, *EIGEN)]
    libraries = ['-lpcl_filters', '-lpcl_common']
    command = ['g++', '-std=c++17', *includes, str(source), '-o', str(program), *libraries]
    subprocess.run(command, check=True)

    bundle = load_bundle(tiny_bundle)
    engine = open_unchecked('onnxruntime', bundle, EngineOptions(threads=1))
    image = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    pipeline = Pipeline(bundle, engine, Options(min_depth_confidence=128, max_range=8.0))
    camera = CameraModel(192, 96, 180.0, 200.0, 90.0, 40.0)
    (prediction,) = pipeline([Frame(image, camera)], bundle.outputs)
    made = {o.name: o.maker(bundle)(prediction) for o in OUTPUTS if not o.of}
    cloud = made['points']
    data.write_bytes(cloud.data)
    fields = [str(value) for field in cloud.fields for value in field]
    sizes = [str(size) for size in (cloud.width, cloud.height, cloud.point_step)]
    read = subprocess.run([program, str(data), *sizes, *fields], check=True, capture_output=True)

    depth = np.where(np.isfinite(made['depth']), made['depth'], np.nan)
    assert 0 < np.isnan(depth).sum() < depth.size
    organised, left = read.stderr.split()[-2:]
    assert (int(organised), int(left)) == (1, np.isfinite(depth).sum())
    points = np.frombuffer(read.stdout, np.float32).reshape(cloud.height, cloud.width, 16)
    for z in (2, 5):
        np.testing.assert_array_equal(points[..., z], depth)
    np.testing.assert_array_equal(points[..., 6:9], made['normals'])
    np.testing.assert_array_equal(points[..., 9:12], made['image'])
    np.testing.assert_array_equal(points[..., 12:15], made['image'])
    np.testing.assert_array_equal(points[..., 15], made['semantic'])
