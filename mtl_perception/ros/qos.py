"""The quality of service of the node's topics, and which of it users may override."""

from __future__ import annotations

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QosCallbackResult, QoSOverridingOptions

from .silence import POLICIES

# Images are used while they are fresh or not at all; outputs reach every kind of subscriber.
# Every topic gets a copy: rclpy writes the overrides of a topic into the profile it is given.
INPUT_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
# CameraInfos are small, and several may come between two looks at them.
INFO_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=8, reliability=ReliabilityPolicy.BEST_EFFORT
)
OUTPUT_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE
)
LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
LATCHED_INFO_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=INFO_QOS.depth,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def _check_qos(qos: QoSProfile) -> QosCallbackResult:
    """Refuse what the middleware would take and not do."""
    result = QosCallbackResult()
    result.successful = (
        qos.durability != DurabilityPolicy.TRANSIENT_LOCAL
        or qos.reliability == ReliabilityPolicy.RELIABLE
    )
    if not result.successful:
        result.reason = 'durability transient_local needs reliability: reliable as well'
    return result


_POLICIES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
OVERRIDABLE = QoSOverridingOptions(_POLICIES, callback=_check_qos)
OVERRIDES = 'qos_overrides'  # in front of the names of the parameters


def mismatched(offered: QoSProfile, wanted: QoSProfile) -> str:
    """The policy for which a publisher gives a subscription nothing; empty if there is none."""
    for policy, names in POLICIES.items():
        if (getattr(offered, policy).name.lower(), getattr(wanted, policy).name.lower()) == names:
            return policy
    return ''


def input_overrides(topic: str) -> list[str]:
    """The parameters that override the QoS of a topic that is subscribed to later."""
    return [f'{OVERRIDES}.{topic}.subscription.{policy.name.lower()}' for policy in _POLICIES]
