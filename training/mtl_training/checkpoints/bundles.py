"""Bundles as folders of files: read one, open its models, write it whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import yaml

from mtl_perception import bundle as runtime
from mtl_training import TrainingError


class BundleError(TrainingError):
    """A bundle that cannot be read or written, in one sentence."""


@dataclass(frozen=True)
class BundleFiles:
    """A bundle in memory.

    Attributes:
        description: ``bundle.yaml``.
        files: the other files that it names, by name.
    """

    description: dict[str, Any]
    files: dict[str, bytes]

    @property
    def model(self) -> bytes:
        """The fp32 model."""
        return self.files[self.description['model']['file']]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return int(self.description['input']['height']), int(self.description['input']['width'])

    def variant(self, name: str) -> bytes:
        """The model of a number format; ``fp32`` is ``model.onnx``.

        Raises:
            BundleError: the bundle has none.
        """
        if name == 'fp32':
            return self.model
        variants = self.description.get('variants', {})
        if name not in variants:
            raise BundleError(
                f'the bundle {self.description.get("name")} has no {name} model, it has '
                f'{", ".join(["fp32", *variants])}; `mtl_training quantize` makes others'
            )
        return self.files[variants[name]['file']]

    def put(self, section: dict[str, Any], key: str, file: str, content: bytes) -> None:
        """Add or replace a file that a section of the description names."""
        section[key] = {'file': file, 'sha256': hashlib.sha256(content).hexdigest()}
        self.files[file] = content


def read_bundle(folder: Path) -> BundleFiles:
    """Read ``bundle.yaml`` and every file that it names; hashes are compared.

    Raises:
        BundleError: what is missing, is not a bundle, or was changed.
    """
    try:
        text = (folder / 'bundle.yaml').read_text(encoding='utf-8')
        description = yaml.safe_load(text)
        entries = [description['model'], *description.get('variants', {}).values()]
        entries += [description['probes']] if 'probes' in description else []
        files = {}
        for entry in entries:
            name = Path(entry['file'])
            if name.is_absolute() or '..' in name.parts:
                raise BundleError(
                    f'{folder / "bundle.yaml"} names {entry["file"]}, expected a file inside the '
                    'folder of the bundle'
                )
            files[entry['file']] = (folder / name).read_bytes()
        int(description['input']['height']), int(description['input']['width'])
    except OSError as error:
        raise BundleError(
            f'{folder} cannot be read as a bundle: {error.filename}: {error.strerror}'
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = ' '.join(repr(error).split())
        raise BundleError(
            f'{folder / "bundle.yaml"} does not describe a bundle: {reason}'
        ) from error
    for entry in entries:
        if hashlib.sha256(files[entry['file']]).hexdigest() != entry.get('sha256'):
            raise BundleError(
                f'{folder / entry["file"]} is damaged: its sha256 is not {entry.get("sha256")}'
            )
    return BundleFiles(description, files)


def write_bundle(out: Path, bundle: BundleFiles) -> None:
    """Write a bundle beside ``out``, let the runtime check it, then rename: whole or not at all.

    Raises:
        BundleError: the runtime refuses it, or the folder cannot be written.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
    except OSError as error:
        raise BundleError(f'{out} cannot be written: {error.strerror}') from error
    try:
        folder = beside / out.name
        folder.mkdir()
        for name, content in bundle.files.items():
            (folder / name).write_bytes(content)
        text = yaml.safe_dump(
            bundle.description, sort_keys=False, default_flow_style=None, width=100
        )
        (folder / 'bundle.yaml').write_text(text, encoding='utf-8')
        runtime.load_bundle(folder)
        replaced = beside / 'replaced'
        if out.exists():
            os.rename(out, replaced)
        try:
            os.rename(folder, out)
        except OSError:
            if replaced.exists():
                os.rename(replaced, out)
            raise
    except runtime.BundleError as error:
        raise BundleError(f'the runtime refuses the bundle: {error}') from error
    except OSError as error:
        raise BundleError(f'{out} cannot be written: {error.strerror}') from error
    finally:
        shutil.rmtree(beside)


def open_model(
    model: bytes, threads: int = 0, *, variant: str = 'fp32'
) -> onnxruntime.InferenceSession:
    """A model of a bundle in onnxruntime on the CPU.

    The variant ``int8`` is for TensorRT, which adds up products of 8 bits exactly. Without VNNI,
    onnxruntime's own int8 kernels do not: pairs of them overflow 16 bits. So what lies between its
    quantisers is computed in float here.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if variant == 'int8':
        options.add_session_config_entry('session.disable_quant_qdq', '1')
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
