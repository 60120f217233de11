"""A machine is its processor, its cores and its packages."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from mtl_perception.engines.machine import installed_version, machine_name


def test_the_machine_is_its_processor_its_cores_and_its_architecture(monkeypatch):
    assert machine_name().endswith(f', {len(os.sched_getaffinity(0))} cores, {platform.machine()}')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(0, 999, 3)))
    assert ', 333 cores, ' in machine_name()


def test_a_package_is_known_by_its_distribution_and_version(monkeypatch, tmp_path):
    name = 'onnxruntime'
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    assert installed_version(name) == ''
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.metadata, 'version', versions({'onnxruntime-gpu': '1.30'}))
    (tmp_path / f'{name}.py').write_text("__version__ = '1.2'")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed_version(name) == 'onnxruntime-gpu 1.30'
    monkeypatch.setattr(importlib.metadata, 'version', versions({}))
    assert installed_version(name) == 'onnxruntime 1.2'  # built from source


def versions(known):
    def version(distribution):
        if distribution not in known:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return known[distribution]

    return version
