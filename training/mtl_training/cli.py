"""The command `mtl_training`: one subcommand per room, each imported only when it is used."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mtl_perception import PerceptionError
from mtl_perception.terminal import spell_out
from mtl_training import TrainingError

# name -> (module with add_arguments(parser) and run(args), one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    'rooms': ('mtl_training.rooms.cli', 'render the synthetic data set and the sample recording'),
    'data': (
        'mtl_training.datasets.cli',
        'check data sets, and prepare them for training',
    ),
    'train': ('mtl_training.loop.cli', 'train a network from a YAML configuration'),
    'sweep': (
        'mtl_training.sweeps.cli',
        'train many networks at once on Ray Tune: settings, methods, seeds, and their tables',
    ),
    'evaluate': ('mtl_training.evaluation.evaluate', 'measure a checkpoint on held-out frames'),
    'compare': (
        'mtl_training.evaluation.compare',
        'put training runs side by side on one page: curves, deltas, weights, angles',
    ),
    'delta': (
        'mtl_training.protocols.delta',
        'compare a multi-task network with single-task ones in one number',
    ),
    'describe': (
        'mtl_training.papers.describe',
        'count parameters and multiply-accumulates of a network',
    ),
    'branch': (
        'mtl_training.papers.branching',
        'find where tasks part: a configuration of branched',
    ),
    'cards': ('mtl_training.papers.cards', 'write a card of every system: docs/models.md'),
    'import': (
        'mtl_training.papers.importing',
        "turn weights of the survey's code into a checkpoint",
    ),
    'export': (
        'mtl_training.deploy.export',
        'turn a checkpoint into a bundle that the runtime loads',
    ),
    'checkpoint': (
        'mtl_training.checkpoints.cli',
        'turn a bundle into a checkpoint: the way back from export',
    ),
    'quantize': ('mtl_training.deploy.quantize', 'add fp16 and int8 models to a bundle'),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0, or 1 after an error of this package, told in one line on stderr.
    """
    spell_out()
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog='mtl_training', description='Train, compare and export multi-task networks.'
    )
    subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    chosen = next((word for word in argv if word in COMMANDS), None)
    for name, (module, help_line) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=help_line, description=help_line)
        if name == chosen:
            command = importlib.import_module(module)
            command.add_arguments(subparser)
    args = parser.parse_args(argv)
    try:
        return int(command.run(args) or 0)
    except KeyboardInterrupt:
        print('mtl_training: interrupted', file=sys.stderr)
        return 130
    except (TrainingError, PerceptionError) as error:
        print(f'mtl_training {args.command}: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
