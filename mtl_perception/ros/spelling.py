"""Parameters that were given and that the node does not have, which ROS takes without a word.

No ROS here: the arguments of the process are read, with the parameter files that they name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

_KEY = 'ros__parameters'
# A name that the user could not have meant is not suggested.
_LIKENESS = 0.6


@dataclass(frozen=True)
class Given:
    """A parameter that was given to the node.

    Attributes:
        name: of the parameter.
        source: where, in words.
    """

    name: str
    source: str


@dataclass(frozen=True)
class Arguments:
    """What the arguments of a process say about the parameters of its node.

    Attributes:
        given: to the node.
        strays: what is said about files that give it nothing, one sentence each.
    """

    given: tuple[Given, ...] = ()
    strays: tuple[str, ...] = ()

    @classmethod
    def read(cls, arguments: Sequence[str], node: str) -> Arguments:
        """Read arguments that ROS has accepted.

        Args:
            arguments: of the process.
            node: its node, with the namespace.
        """
        given: list[Given] = []
        strays: list[str] = []
        for option, value in _ros_options(arguments):
            if option == '--params-file':
                sections = _read_sections(Path(value))
                source = _name_of(Path(value))
                own = [content for name, content in sections if _is_for(name, node)]
                given += [Given(name, source) for content in own for name in _flat(content)]
                if sections and not own:
                    others = ', '.join(dict.fromkeys(name for name, _ in sections))
                    strays.append(f'{source} has parameters of {others} and none of {node}')
            else:
                name, _, _ = value.partition(':=')
                whose, colon, name = name.rpartition(':')
                if not colon or _is_for(whose, node) or _is_for(f'/**/{whose}', node):
                    given.append(Given(name, 'the command line'))
        return cls(tuple(dict.fromkeys(given)), tuple(strays))

    def unknown(self, is_known: Callable[[str], bool], names: Iterable[str]) -> list[str]:
        """A sentence for each parameter that is not known.

        Args:
            is_known: whether the node has a parameter.
            names: that a user may have meant.
        """
        names = list(names)
        return [
            f'The node has no parameter {given.name} ({given.source}), which does nothing'
            + _suggestion(given.name, names)
            for given in self.given
            if not is_known(given.name)
        ]


def _suggestion(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1, _LIKENESS)
    return f'; did you mean {near[0]}?' if near else ''


def _ros_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options about parameters between ``--ros-args`` and ``--``, each with its value."""
    inside = False
    rest = iter(arguments)
    for word in rest:
        if word in ('--ros-args', '--'):
            inside = word == '--ros-args'
        elif inside and word in ('--params-file', '-p', '--param'):
            yield word, next(rest)


def _read_sections(path: Path) -> list[tuple[str, Any]]:
    """The nodes of a parameter file with their parameters, as ROS reads it.

    It goes through all documents, and takes no notice of tags, such as those for tuples that the
    launch of Humble writes.
    """
    documents = yaml.load_all(path.read_text('utf-8'), yaml.BaseLoader)
    return [section for document in documents for section in _sections(document)]


def _sections(content: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """The nodes of a parameter file with their parameters; namespaces may be nested."""
    for key, value in (content or {}).items():
        if key == _KEY:
            yield path, value
        elif isinstance(value, dict):
            yield from _sections(value, f'{path}/{str(key).strip("/")}')


def _is_for(pattern: str, node: str) -> bool:
    """Whether a name, with ``*`` for any word and ``**`` for any words, is the node's."""
    expression = re.escape(f'/{pattern.strip("/")}')
    expression = expression.replace(r'/\*\*', r'(/\w+)*').replace(r'/\*', r'/\w+')
    return re.fullmatch(expression, node) is not None


def _flat(parameters: Any, prefix: str = '') -> Iterator[str]:
    """Names of nested parameters, joined by dots."""
    for key, value in (parameters or {}).items():
        name = f'{prefix}{key}'
        if isinstance(value, dict):
            yield from _flat(value, f'{name}.')
        else:
            yield name


def _name_of(path: Path) -> str:
    """A parameter file in words; those that launch writes itself have no name that users know."""
    return 'a launch file' if path.name.startswith('launch_params_') else str(path)
