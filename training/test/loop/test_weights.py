"""The default bundle is a checkpoint of its recipe's network, and can be trained on."""

from __future__ import annotations

import torch
from mtl_training.checkpoints.checkpoint import load_checkpoint

from mtl_perception.bundle import default_bundle


def test_the_default_bundle_gives_a_network_of_32_bits_that_answers() -> None:
    net, meta = load_checkpoint(default_bundle())
    assert (meta['config']['name'], meta['config']['task_set']) == ('tif_lite0_indoor', 'indoor')
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    with torch.inference_mode():
        final = net.eval().predictions(torch.zeros(1, 3, 64, 96)).final
    assert {task: logits.shape[1] for task, logits in final.items()} == meta['tasks']
    assert meta['tasks']['semantic'] == 40
    assert all(bool(logits.isfinite().all()) for logits in final.values())
