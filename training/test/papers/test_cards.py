"""Model cards: the page is the command's, and every system is on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mtl_training.cli import main
from mtl_training.models import SYSTEMS
from mtl_training.models.tif import SAFF
from mtl_training.papers import cards as cards_module
from mtl_training.papers.cards import CARDS, Card, paragraphs

PAGE = Path(__file__).parents[3] / 'docs' / 'models.md'


def test_the_page_is_what_the_command_writes(tmp_path: Path) -> None:
    out = tmp_path / 'models.md'
    assert main(['cards', '--out', str(out)]) == 0
    assert out.read_text(encoding='utf-8') == PAGE.read_text(encoding='utf-8'), (
        'renew it: mtl_training cards --out docs/models.md'
    )


def test_every_system_has_a_card_and_a_reason_to_choose_it() -> None:
    page = PAGE.read_text(encoding='utf-8')
    for name in SYSTEMS:
        assert f'\n## {name}\n' in page
        assert CARDS[name].choose
    assert set(CARDS) == set(SYSTEMS)


def test_rows_of_the_surveys_table_agree_or_say_why_not() -> None:
    text = PAGE.read_text(encoding='utf-8').partition('## Table V of the survey')[2]
    rows = [line.strip('|').split('|') for line in text.splitlines() if line.startswith('| ')][1:]
    assert len(rows) == 22
    for *_, mega, our_mega, giga, our_giga, why in rows:
        figures = [float(cell.split()[0]) for cell in (mega, our_mega, giga, our_giga)]
        agree = figures[1] == pytest.approx(figures[0], abs=0.5, rel=0.03)
        agree &= figures[3] == pytest.approx(figures[2], abs=0.5, rel=0.03)
        assert agree != bool(why.strip()), figures


def test_a_new_system_gets_a_card_without_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards_module, 'SYSTEMS', {'mtl_baseline': SYSTEMS['mtl_baseline']})
    monkeypatch.delitem(CARDS, 'mtl_baseline')
    text = cards_module.cards()
    assert '## mtl_baseline' in text
    assert '| NYUD-v2 | 2 | 480x640 | 4.02 M | 12.77 G |' in text  # survey, Table V


def test_docstrings_become_markdown() -> None:
    first, formula, reading = paragraphs(SAFF)
    assert first == 'Scale Attentive-Feature Fusion of one scale i (Fig. 3, Eq. 2-5).'
    assert formula.startswith('```\nXL   = BN(conv1x1(X^i))\nY    = W_i cat{')
    assert reading.startswith('Our reading: P is bilinear, W\\_i a 1x1 convolution to D')


def test_what_cannot_be_counted_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cards_module, 'SYSTEMS', {'nddr': SYSTEMS['nddr']})
    monkeypatch.setitem(CARDS, 'nddr', Card('swin_tiny'))
    assert main(['cards']) == 1
    error = capsys.readouterr().err
    assert error.startswith('mtl_training cards: nddr on swin_tiny: nddr works on')
    assert error.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
