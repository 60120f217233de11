"""The protocol of ATRC, in whose terms TIF, DeMT and MQTransformer report."""

from __future__ import annotations

from mtl_training.protocols.protocol import Protocol, Setting

OPTIM = {
    'optimizer': 'sgd',
    'momentum': 0.9,
    'weight_decay': 5e-4,
    'decay_norms': True,
    'batch_size': 8,
    'max_steps': 40_000,
    'power': 0.9,
    'poly_by': 'step',
}
# The defaults of ``AugmentConfig`` are ATRC's.
AUGMENT = {'scale': [0.5, 2.0], 'cat_max_ratio': 0.75}
SALIENCY = {'saliency': {'two_class': True}}
EDGES = {'thresholds': 101, 'suppress': True}

ATRC = Protocol(
    name='atrc',
    resolution='network',
    saliency='maxf',
    settings={
        'nyud': Setting(
            config={
                'data': {'height': 425, 'width': 560, 'canonical_focal': 518.858},
                'optim': {**OPTIM, 'lr': 1e-2},
                'augment': AUGMENT,
            },
            losses={**SALIENCY, 'edges': {'edge_weight': 0.8}},
            edges={**EDGES, 'max_distance': 0.011},
        ),
        'pascal': Setting(
            config={
                'data': {'height': 512, 'width': 512, 'canonical_focal': 512.0},
                'optim': {**OPTIM, 'lr': 5e-3},
                'augment': AUGMENT,
            },
            losses={**SALIENCY, 'edges': {'edge_weight': 0.95}},
            edges={**EDGES, 'max_distance': 0.0075},
        ),
    },
)
