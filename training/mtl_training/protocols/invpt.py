"""The protocol of InvPT and TaskPrompter: ATRC's augmentation and edges, native resolution.

Differs from the released code: there, the sigmoid of saliency is taken twice before it is judged,
which leaves four of the thresholds with anything to do.
"""

from __future__ import annotations

from mtl_training.protocols import atrc
from mtl_training.protocols.protocol import Protocol, Setting, Settings

OPTIM = {
    'optimizer': 'adam',
    'lr': 2e-5,
    'weight_decay': 1e-6,
    'decay_norms': True,
    'batch_size': 2,
    'max_steps': 40_000,
    'power': 0.9,
    'poly_by': 'step',
}
LOSSES: dict[str, Settings] = {**atrc.SALIENCY, 'edges': {'edge_weight': 0.95}}

INVPT = Protocol(
    name='invpt',
    resolution='native',
    saliency='maxf',
    settings={
        'nyud': Setting(
            config={
                # Frames of 425x560 with fx 518.858, which fit into 448x576 at a scale of 576 / 560.
                'data': {'height': 448, 'width': 576, 'canonical_focal': 533.682},
                'optim': OPTIM,
                'augment': atrc.AUGMENT,
            },
            losses=LOSSES,
            edges={**atrc.EDGES, 'max_distance': 0.011},
        ),
        'pascal': Setting(
            config={
                'data': {'height': 512, 'width': 512, 'canonical_focal': 512.0},
                'optim': OPTIM,
                'augment': atrc.AUGMENT,
            },
            losses=LOSSES,
            edges={**atrc.EDGES, 'max_distance': 0.0075},
        ),
    },
)
