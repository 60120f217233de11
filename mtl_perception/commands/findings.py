"""What the doctor found, as lines for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from .. import __version__

Level = Literal['ok', 'warn', 'fail']


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        level: how bad it is.
        subject: of what.
        detail: what was found.
        remedy: what to do; nothing is to be done where all is well.
    """

    level: Level
    subject: str
    detail: str
    remedy: str = ''


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where something fails; warnings do not."""
    return int(any(finding.level == 'fail' for finding in findings))


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each level."""
    levels: tuple[Level, ...] = ('fail', 'warn', 'ok')
    return {level: sum(f.level == level for f in findings) for level in levels}


def report(findings: Sequence[Finding]) -> str:
    """Lines for people, and a last one that counts."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f'{finding.level:<4}  {finding.subject:<{width}}  {finding.detail}')
        if finding.remedy and finding.level != 'ok':
            lines.append(f'{"":<4}  {"":<{width}}  -> {finding.remedy}')
    lines.append(', '.join(f'{count} {level}' for level, count in counts(findings).items()))
    return '\n'.join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """One JSON object."""
    content = {
        'version': __version__,
        'exit_code': exit_code(findings),
        'counts': counts(findings),
        'findings': [asdict(finding) for finding in findings],
    }
    return json.dumps(content, indent=2)
