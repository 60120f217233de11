"""The protocol of the survey, which is that of its repository and of MTI-Net."""

from __future__ import annotations

from mtl_training.protocols.protocol import Protocol, Setting, Settings

# One channel of saliency; normals per element; edges weigh .95 on both sets.
LOSSES: dict[str, Settings] = {'normals': {'per_element': True}, 'edges': {'edge_weight': 0.95}}
# Adam decays by its gradients, everything; the rate falls once per epoch.
OPTIM = {
    'optimizer': 'adam',
    'lr': 1e-4,
    'weight_decay': 1e-4,
    'decay_norms': True,
    'batch_size': 8,
    'power': 0.9,
    'poly_by': 'epoch',
}
AUGMENT = {'flip_p': 0.5, 'photometric_p': 0.0, 'cat_max_ratio': 1.0}
EDGES = {'max_distance': 0.0075, 'thresholds': 99}

SURVEY = Protocol(
    name='survey',
    resolution='native',
    saliency='miou',
    settings={
        'nyud': Setting(
            config={
                # Frames of 425x560 with fx 518.858, which fit into 480x640 at a scale of 480 / 425.
                'data': {'height': 480, 'width': 640, 'canonical_focal': 586.0},
                # 100 epochs of 795 // 8 batches.
                'optim': {**OPTIM, 'max_steps': 9_900},
                'augment': {**AUGMENT, 'scales': [1.0, 1.2, 1.5], 'centred': True},
            },
            losses=LOSSES,
            edges=EDGES,
        ),
        'pascal': Setting(
            config={
                'data': {'height': 512, 'width': 512, 'canonical_focal': 512.0},
                # 60 epochs of 4,998 // 8 batches.
                'optim': {**OPTIM, 'max_steps': 37_440},
            },
            losses=LOSSES,
            edges=EDGES,
            not_augmented='rotations by up to 20 degrees',
        ),
    },
)
