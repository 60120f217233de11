"""Every engine refuses the same images, and results of another size than theirs."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.engines.engine import EngineError
from mtl_perception.engines.tensors import check_images, check_results


@pytest.fixture
def bundle(tiny_bundle):
    return load_bundle(tiny_bundle)


def test_images_as_the_bundle_and_max_batch_say_are_taken(bundle):
    for count in (1, 2):
        check_images('abacus', np.zeros((count, 64, 96, 3), np.uint8), bundle, 2)


@pytest.mark.parametrize(
    ('shape', 'dtype'),
    [
        ((1, 32, 96, 3), 'uint8'),
        ((3, 64, 96, 3), 'uint8'),
        ((0, 64, 96, 3), 'uint8'),
        ((1, 64, 96), 'uint8'),
        ((64, 96, 3), 'uint8'),
        ((1, 64, 96, 3), 'float32'),
    ],
)
def test_other_images_are_refused_in_one_sentence(bundle, shape, dtype):
    with pytest.raises(EngineError) as caught:
        check_images('abacus', np.zeros(shape, dtype), bundle, 2)
    assert str(caught.value) == (
        f'abacus: images are {dtype} {list(shape)}, expected uint8 [N, 64, 96, 3] with N from 1 '
        'to 2 (max_batch)'
    )


def test_results_are_of_the_size_of_the_images():
    images = np.zeros((2, 64, 96, 3), np.uint8)
    good = {'edges': np.zeros((2, 64, 96)), 'normals': np.zeros((2, 64, 96, 3))}
    check_results('abacus', good, images)
    for shape in ((1, 64, 96), (2, 32, 96), (2, 64, 48, 3)):
        with pytest.raises(EngineError, match=r'abacus: output edges .* expected \[2, 64, 96\]'):
            check_results('abacus', good | {'edges': np.zeros(shape)}, images)
