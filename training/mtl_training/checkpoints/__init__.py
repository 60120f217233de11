"""Networks as files: how one is configured, checkpoints of a training, bundles of the runtime."""

from __future__ import annotations

from mtl_perception.engines import telemetry

telemetry.switch_off()
