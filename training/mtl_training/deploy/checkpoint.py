"""`mtl_training checkpoint`: the weights of a bundle as a file to train on, or to export anew."""

from __future__ import annotations

import argparse
from pathlib import Path

from mtl_training.deploy.bundles import read_bundle
from mtl_training.loop.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training checkpoint`."""
    parser.add_argument('bundle', type=Path, help='folder of a bundle that `export` wrote')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='.safetensors')


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint; its tensors are those of the bundle, bit by bit.

    Raises:
        DeployError: not a bundle.
        CheckpointError: a bundle without weights of its own, or without some of them.
    """
    bundle = read_bundle(args.bundle)
    load_checkpoint(args.bundle)  # whole, and of a network that there is
    tensors, meta = read_checkpoint(args.bundle)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.out, tensors, meta)
    size = args.out.stat().st_size / 1e6
    print(f'{args.out}: {size:.1f} MB, {meta["config"]["name"]} at step {meta["step"]}, '
          f'of {bundle.description["name"]}')  # fmt: skip
    return 0
