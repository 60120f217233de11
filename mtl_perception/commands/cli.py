"""The command `mtl_perception`: one subcommand per file, each imported only when it is used.

So ``--help`` and ``doctor`` work where packages that other commands need are missing.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .. import PerceptionError, one_line
from ..ros.packages import missing
from ..terminal import spell_out

# name -> one line of help; the module of that name has add_arguments(parser) and run(options).
COMMANDS: dict[str, str] = {
    'demo': 'play a recording through the node and judge it',
    'replay': 'run a recording through a bundle, frame by frame, into a new bag',
    'evaluate': 'judge one run on a recording against its ground truth',
    'compare': 'show where two runs on the same images differ',
    'build': 'build the engine of a bundle ahead, check it, and keep it in the cache',
    'inspect': 'describe a bundle and the engine that runs it',
    'bench': 'measure what the node adds to the bare engine, or compare engines',
    'engines': 'list the engines in the cache, or remove them',
    'doctor': 'check this machine and say what to do',
    'parameters': "list the node's parameters",
    'topics': 'list the topics that a node publishes',
    'policy': 'print the SROS2 policy of a node',
    'view': 'start rviz2 in the frame of the camera',
    'wait': 'start a program once a node is active',
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None = ``sys.argv``.

    Returns:
        Exit status: 0, 1 after an error that was said in one line on stderr, 130 after Ctrl-C.
    """
    spell_out()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog='mtl_perception', description='Multi-task perception for ROS 2.'
    )
    subparsers = parser.add_subparsers(required=True, metavar='COMMAND')
    try:
        for name, text in COMMANDS.items():
            subparser = subparsers.add_parser(name, help=text, description=text)
            if arguments[:1] == [name]:
                command = importlib.import_module(f'.{name}', __package__)
                command.add_arguments(subparser)
        options = parser.parse_args(arguments)
        return int(command.run(options))
    except KeyboardInterrupt:
        return 130
    except (PerceptionError, OSError, ImportError) as error:
        print(f'mtl_perception: {_sentence(error)}', file=sys.stderr)
        return 1


def _sentence(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f'{missing(error)}; mtl_perception doctor tells more'
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    return one_line(error)


if __name__ == '__main__':
    sys.exit(main())
