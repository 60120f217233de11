"""What a perception node has on the graph, as an SROS2 policy: all of it, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from .wiring import full_name, input_topics, output_topics

# Those of every lifecycle node of rclpy, and those of ours; get_type_description is not in Humble.
SERVICES = (
    'change_state',
    'describe_model',
    'describe_parameters',
    'enable',
    'get_available_states',
    'get_available_transitions',
    'get_parameter_types',
    'get_parameters',
    'get_state',
    'get_transition_graph',
    'get_type_description',
    'list_parameters',
    'set_parameters',
    'set_parameters_atomically',
    'set_tasks',
)


def policy(
    *,
    namespace: str = '',
    name: str = 'perception',
    cameras: Sequence[str] = (),
    image: str = 'image',
    camera_info: str = '',
    outputs: str = '',
) -> str:
    """The policy of one node, in the enclave of its name.

    Args:
        namespace: of the node.
        name: of the node.
        cameras: their names; none for one camera without.
        image: as for ``wiring.input_remaps``, and so is ``camera_info``.
        camera_info: see there.
        outputs: as for ``wiring.output_remaps``.
    """
    node = full_name(namespace, name)
    published = [
        *output_topics(node, cameras, outputs),
        f'{node}/transition_event',
        '/diagnostics',
        '/parameter_events',
        '/rosout',
    ]
    images, infos = input_topics(node, image, camera_info, cameras)
    subscribed = [*images, *(f'{topic}/compressed' for topic in images), *infos, '/clock']
    root = ET.Element('policy', version='0.2.0')
    enclave = ET.SubElement(ET.SubElement(root, 'enclaves'), 'enclave', path=node)
    space = node.rpartition('/')[0] or '/'
    profile = ET.SubElement(ET.SubElement(enclave, 'profiles'), 'profile', ns=space, node=name)
    _rules(profile, 'topic', 'publish', published)
    _rules(profile, 'topic', 'subscribe', subscribed)
    _rules(profile, 'service', 'reply', [f'{node}/{service}' for service in SERVICES])
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _rules(profile: ET.Element, kind: str, verb: str, names: Iterable[str]) -> None:
    rules = ET.SubElement(profile, f'{kind}s', {verb: 'ALLOW'})
    for name in sorted(names):
        ET.SubElement(rules, kind).text = name
