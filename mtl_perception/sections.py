"""Sections of a YAML file: mappings that know where they stand, for messages that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import PerceptionError, one_line


@dataclass(frozen=True)
class Section:
    """A mapping in a YAML file.

    Attributes:
        path: the file.
        name: keys from the top of the file to here, joined by dots; empty at the top.
        values: the content; what is not read through a method of this class is unchecked.
        error_type: what is raised; the message names the file, the key and the expected value.
    """

    path: Path
    name: str
    values: Mapping[str, Any]
    error_type: type[PerceptionError]

    def error(self, key: str, what: str) -> PerceptionError:
        """Make an error about a key, such as ``is 3, expected a text``."""
        return self.error_type(f'{self.path}: {self._full(key)} {what}')

    def get(self, key: str) -> Any:
        """Any value that is there."""
        if key not in self.values:
            raise self.error(key, 'is missing')
        return self.values[key]

    def section(self, key: str) -> Section:
        """A mapping below this one."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.error(key, f'is {value!r}, expected a mapping')
        return self.inner(key, value)

    def inner(self, key: str, values: Mapping[str, Any]) -> Section:
        """A mapping below this one that the caller has found, such as an item of a list."""
        return Section(self.path, self._full(key), values, self.error_type)

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(
                key, f'is {value!r}, expected a text (in quotes if it looks like a number)'
            )
        return value

    def integer(self, key: str, *, minimum: int) -> int:
        """A whole number."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.error(key, f'is {value!r}, expected a whole number of at least {minimum}')
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.get(key)
        if not is_number(value):
            raise self.error(key, f'is {value!r}, expected a finite number')
        return float(value)

    def _full(self, key: str) -> str:
        return f'{self.name}.{key}' if self.name else key


def is_number(value: object) -> bool:
    """Whether a value of a YAML file is a finite number (true and false are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_section(path: Path, error_type: type[PerceptionError]) -> Section:
    """Read a YAML file as its top section.

    Raises:
        PerceptionError: an ``error_type``: the file cannot be read, or is not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise error_type(f'{path}: no such file') from None
    except OSError as error:
        raise error_type(f'{path}: cannot be read: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise error_type(f'{path}: is not valid YAML: {one_line(error)}') from error
    if not isinstance(content, dict):
        raise error_type(f'{path}: is not a description, expected a mapping of keys to values')
    return Section(path, '', content, error_type)
