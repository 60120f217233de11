"""Whether onnxruntime computes what torch does: the check of a graph before it is a bundle."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mtl_perception.engines.agreement import Agreement, compare
from mtl_training.checkpoints.bundles import open_model
from mtl_training.deploy.deployable import Deployable


def compare_with_torch(
    model: bytes, module: Deployable, images: NDArray[np.uint8], threads: int = 0
) -> list[Agreement]:
    """Run a graph in onnxruntime beside the module in torch, as one batch and image by image.

    Args:
        model: the ONNX file's bytes.
        images: [N,H,W,3] RGB.
    """
    session = open_model(model, threads)
    names = [output.name for output in session.get_outputs()]
    with torch.inference_mode():
        expected = {k: v.numpy() for k, v in module(torch.from_numpy(images)).items()}
    parts = (images, *np.split(images, len(images)))
    runs = [session.run(names, {'image': part}) for part in parts]
    return [
        compare(
            name,
            np.concatenate([run[index] for run in runs]),
            np.concatenate([expected[name]] * 2),
            'export',
        )
        for index, name in enumerate(names)
    ]
