"""`mtl_training checkpoint`: weights of bundles and checkpoints, or their mean, as a file.

To train on, or to export anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mtl_training.bounds import Amount, bounded
from mtl_training.checkpoints.checkpoint import (
    CheckpointError,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `mtl_training checkpoint`."""
    parser.add_argument(
        'networks',
        type=Path,
        nargs='+',
        metavar='NETWORK',
        help='folder of a bundle that `export` wrote, or a checkpoint; several are averaged',
    )
    parser.add_argument(
        '--shares',
        type=bounded(Amount),
        nargs='+',
        metavar='SHARE',
        help='of each (default: equal ones)',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='.safetensors')


def run(args: argparse.Namespace) -> int:
    """Write the checkpoint; its tensors are those of one bundle, bit by bit, or means.

    Raises:
        CheckpointError: something that is not a network, lacks weights of its own, or is another
            one than the first; shares that are not one of each, or do not add up to 1.
    """
    first, *others = args.networks
    shares = args.shares or [1 / len(args.networks)] * len(args.networks)
    if len(shares) != len(args.networks) or abs(sum(shares) - 1) > 1e-6:
        raise CheckpointError(
            f'--shares is {" ".join(map(str, shares))}, expected {len(args.networks)} that add up '
            'to 1'
        )
    net, meta = load_checkpoint(first)  # whole, and of a network that there is
    if others:
        states = [net.state_dict(), *(load_checkpoint(path)[0].state_dict() for path in others)]
        for path, state in zip(others, states[1:], strict=True):
            check_alike(path, state, first, states[0])
        tensors = {f'net.{name}': t for name, t in mean_of(states, shares).items()}
        meta = {**meta, 'metrics': {}}
    else:
        tensors, meta = read_checkpoint(first)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(args.out, tensors, meta)
    size = args.out.stat().st_size / 1e6
    print(f'{args.out}: {size:.1f} MB, {meta["config"]["name"]} at step {meta["step"]}, '
          f'of {" and ".join(path.name for path in args.networks)}')  # fmt: skip
    return 0


def check_alike(
    path: Path, state: Mapping[str, Tensor], first: Path, expected: Mapping[str, Tensor]
) -> None:
    """That two networks have the same tensors.

    Raises:
        CheckpointError: they have not.
    """
    shapes, wanted = ({k: t.shape for k, t in s.items()} for s in (state, expected))
    if different := sorted(dict(shapes.items() ^ wanted.items())):
        raise CheckpointError(
            f'{path} is not the same network as {first}: they differ in {different[0]} '
            f'({len(different)} tensors)'
        )


def mean_of(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """sum_i share_i theta_i of networks that began with the same weights.

    Source: Wortsman et al., "Model soups", ICML 2022; with the weights that a training began with
    as one of two, "Robust fine-tuning of zero-shot models", CVPR 2022. The statistics of norms are
    averaged, too; what is counted in whole numbers is the first's.
    """
    return {
        name: sum(
            (share * state[name] for share, state in zip(shares, states, strict=True)),
            start=tensor.new_zeros(()),
        )
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }
