"""The node's parameters in one table: what is declared, checked and documented.

No ROS here: the node declares this table, ``mtl_perception parameters --markdown`` prints it and
a test compares docs/parameters.md with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..engines.engine import BACKENDS, PRECISIONS, PROVIDERS
from ..pipeline import Options

# When a parameter may be given: only at the start of the node; until the node is configured (and
# again after a cleanup); any time, effective from the next frame on.
Change = Literal['start', 'unconfigured', 'any time']
Value = bool | int | float | str | Sequence[str]


_TYPES = {bool: 'bool', int: 'integer', float: 'double', str: 'string', tuple: 'string array'}
_CAMERA = re.compile('[A-Za-z][A-Za-z0-9_]*')


def _camera_fault(names: Value) -> str:
    """What is wrong with the names of cameras, which become parts of topics."""
    assert isinstance(names, Sequence)
    bad = [name for name in names if not _CAMERA.fullmatch(name)]
    if bad and list(names) != ['']:
        return f'has {bad[0]!r}, expected names of letters, digits and _, a letter first'
    if len(set(names)) < len(names):
        return f'is {list(names)}, expected each name once'
    return '' if names else "is empty, expected names, or [''] for one camera without"


@dataclass(frozen=True)
class Parameter:
    """One parameter of the node.

    Attributes:
        name: as given on the command line and in parameter files.
        default: its type is the parameter's type; a tuple of texts is a list of them.
        description: one or two sentences.
        change: when it may be changed.
        range: lowest and highest value of a number.
        choices: the allowed texts; empty where any is allowed.
        fault: what is wrong with a value that all else allows; empty if nothing is.
    """

    name: str
    default: Value
    description: str
    change: Change
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    fault: Callable[[Value], str] = lambda value: ''

    @property
    def type(self) -> str:
        """The type as users of ROS 2 parameters know it."""
        return _TYPES[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words; empty where the type says it all."""
        if self.range is not None:
            return f'{self.range[0]} to {self.range[1]}'
        return ', '.join(self.choices)

    @property
    def dynamic(self) -> bool:
        """Whether ROS 2 reads some of its texts as values of another type: true and false."""
        return 'true' in self.choices

    def read(self, value: Value) -> Value:
        """The value that was meant by one that ROS 2 has read."""
        return _literal(value) if self.dynamic and isinstance(value, bool) else value

    def problem(self, value: Value) -> str:
        """What is wrong with a value of the right type; empty if nothing is."""
        value = self.read(value)
        if self.choices and value not in self.choices:
            return f'{self.name} is {value!r}, expected one of {self.allowed}'
        if self.range is not None and isinstance(value, int | float):
            low, high = self.range
            if not low <= value <= high:  # also NaN
                return f'{self.name} is {value}, expected {self.allowed}'
        fault = self.fault(value)
        return f'{self.name} {fault}' if fault else ''


# Those that are fields of ``EngineOptions``.
ENGINE_PARAMETERS = ('precision', 'threads', 'provider', 'device', 'dla_core', 'workspace_mb')

PARAMETERS = (
    Parameter(
        'bundle',
        '',
        'Folder of the model bundle (bundle.yaml and model.onnx), or the name of one that is '
        'shipped: tif_lite0_indoor (empty means this one), tif_lite0_rooms.',
        'unconfigured',
    ),
    Parameter(
        'backend',
        'auto',
        'Engine that runs the model. auto takes TensorRT where it works, else the fastest of the '
        'installed CPU engines, measured once and remembered.',
        'unconfigured',
        choices=('auto', *BACKENDS),
    ),
    Parameter(
        'precision',
        'fp32',
        'Number format of the engine. int8, and fp16 in TensorRT, need a bundle that has the model '
        'in it (mtl_training quantize); bf16 is for OpenVINO.',
        'unconfigured',
        choices=PRECISIONS,
    ),
    Parameter(
        'device',
        0,
        'Number of the GPU.',
        'unconfigured',
        range=(0, 64),
    ),
    Parameter(
        'provider',
        'cpu',
        'How onnxruntime executes: cpu, cuda or tensorrt. Where it would fall back to the CPU, '
        'configuring fails.',
        'unconfigured',
        choices=PROVIDERS,
    ),
    Parameter(
        'dla_core',
        -1,
        'Deep-learning accelerator of a Jetson that TensorRT uses; -1 uses the GPU.',
        'unconfigured',
        range=(-1, 1),
    ),
    Parameter(
        'workspace_mb',
        0,
        'Memory that TensorRT may use to build, MB; 0 sets no limit.',
        'unconfigured',
        range=(0, 65536),
    ),
    Parameter(
        'threads',
        0,
        'CPU threads of one run of the model; 0 leaves the choice to the engine.',
        'unconfigured',
        range=(0, 256),
    ),
    Parameter(
        'cameras',
        ('',),
        'Names of the cameras, which share the engine. Each has the topics NAME/image and '
        'NAME/camera_info, and ~/NAME/ in front of every output. One without a name has just '
        'image, camera_info and ~/.',
        'unconfigured',
        fault=_camera_fault,
    ),
    Parameter(
        'image_transport',
        'raw',
        'raw subscribes to image (sensor_msgs/Image), compressed to image/compressed '
        '(sensor_msgs/CompressedImage).',
        'unconfigured',
        choices=('raw', 'compressed'),
    ),
    Parameter(
        'rectified',
        'auto',
        'Whether the images are rectified: the camera is then P of their CameraInfo, without '
        'distortion; otherwise K and D. auto: they are if their topic is named so (image_rect, '
        'rect/image) or D and R do nothing.',
        'unconfigured',
        choices=('auto', 'true', 'false'),
    ),
    Parameter(
        'max_age',
        0.0,
        'Seconds. Images that are older when their turn comes, by their stamp and the clock of the '
        'node, are rejected. 0 takes all.',
        'any time',
        range=(0.0, 3600.0),
    ),
    Parameter(
        'min_depth_confidence',
        0,
        'Depth whose confidence is lower becomes NaN, in depth and in points. 0 keeps all; 128 '
        'keeps what is more likely than not within a factor of 1.25 of the truth.',
        'any time',
        range=(0, 255),
    ),
    Parameter(
        'min_semantic_confidence',
        0,
        'Labels whose confidence is lower become 255, unlabelled, wherever labels go. 0 keeps all.',
        'any time',
        range=(0, 255),
    ),
    Parameter(
        'max_range',
        0.0,
        'Metres. Depth beyond becomes +Inf, and its points NaN. 0 sets no limit but that of the '
        'bundle.',
        'any time',
        range=(0.0, 1000.0),
    ),
    Parameter(
        'cloud_stride',
        1,
        'Clouds have every so many-th point of every so many-th row; 1 has all.',
        'any time',
        range=(1, 32),
    ),
    Parameter(
        'mask_classes',
        ('',),
        "Names of the classes that ~/mask shows, such as [person]; [''] shows none.",
        'any time',
    ),
    Parameter(
        'tasks',
        ('',),
        'Tasks of the bundle that are computed, such as [semantic, depth]; topics of the others '
        "stay silent. [''] computes all that somebody subscribes to.",
        'any time',
    ),
    Parameter(
        'allow_uncalibrated',
        False,
        'Publish depth also where it is not metric: without a usable CameraInfo, or with a bundle '
        'of relative depth. Diagnostics warn, and points stay unpublished.',
        'any time',
    ),
    Parameter(
        'autostart',
        False,
        'Configure and activate when the process starts, without a lifecycle manager.',
        'start',
    ),
)


def options_of(values: Mapping[str, Value]) -> dict[str, Any]:
    """What the options of the pipeline are among parameters.

    ROS 2 has no empty list of texts, because it would have no type: [''] stands for it.
    """
    own = {option.name: values[option.name] for option in fields(Options) if option.name in values}
    return {
        name: value
        if isinstance(value, bool | int | float | str)
        else tuple(text for text in value if text)
        for name, value in own.items()
    }


def refusal(values: Mapping[str, Value], *, configured: bool) -> str:
    """Why parameters cannot have these values, of the right types; empty if they can.

    Args:
        configured: whether the node is.
    """
    for parameter in PARAMETERS:
        if parameter.name in values:
            problem = parameter.problem(values[parameter.name])
            if not problem and configured and parameter.change == 'unconfigured':
                problem = f'{parameter.name} can change while unconfigured only: clean up first'
            if problem:
                return problem
    return ''


def parameters_markdown() -> str:
    """docs/parameters.md: every parameter with type, default, allowed values and meaning."""
    rows = [
        f'| `{p.name}` | {p.type} | `{_literal(p.default)}` | {p.allowed} | {p.change} '
        f'| {p.description} |'
        for p in PARAMETERS
    ]
    return '\n'.join(
        [
            '# Parameters of the perception node',
            '',
            '<!-- Generated: ./run exec mtl_perception parameters --markdown -->',
            '',
            '| name | type | default | allowed | can change | meaning |',
            '|---|---|---|---|---|---|',
            *rows,
            '',
            'Parameters that can change while *unconfigured* take effect when the node is '
            'configured; clean it up to',
            'change them again. History, depth, reliability and durability of every topic can be '
            'overridden by the standard',
            '`qos_overrides` parameters, for example '
            '`qos_overrides./camera/image_raw.subscription.reliability: reliable`;',
            'the topic is the one after remaps.',
            '',
        ]
    )


def _literal(value: Value) -> str:
    """A value as it stands in a parameter file."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
