"""The options by which a replay leaves labels to train on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..bundle import Bundle
from ..offline.pseudo_labels import PseudoLabels
from .arguments import number


def add_pseudo_labels(parser: argparse.ArgumentParser) -> None:
    """Add what ``pseudo_labels`` reads."""
    parser.add_argument(
        '--pseudo-labels',
        type=Path,
        metavar='DATA',
        help='write what the network is sure of as labels that `mtl_training train` reads',
    )
    parser.add_argument(
        '--label-confidence',
        type=number(0, 1),
        default=0.8,
        metavar='SHARE',
        help='from which on it is sure, 0 to 1 (default: 0.8)',
    )


def pseudo_labels(options: argparse.Namespace, bundle: Bundle) -> PseudoLabels | None:
    """The folder of labels, if one is wanted.

    Raises:
        LabelError: it cannot be used.
    """
    if options.pseudo_labels is None:
        return None
    return PseudoLabels(options.pseudo_labels, bundle, options.label_confidence)
