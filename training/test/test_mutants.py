"""Mutants are of lines that are there: benchmarks/mutants.py tells whether tests notice them."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_mutant_is_stale() -> None:
    mutants = list(runpy.run_path(str(ROOT / 'benchmarks' / 'mutants.py'))['mutants']())
    assert len(mutants) > 100
    for mutant in mutants:
        assert (ROOT / mutant.tests.partition('::')[0]).exists(), mutant
        assert (ROOT / mutant.file).read_text(encoding='utf-8').count(mutant.before) == 1, mutant
