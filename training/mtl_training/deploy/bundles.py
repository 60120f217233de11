"""Bundles as folders of files: read one, make its probes, write it whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import yaml
from numpy.typing import NDArray

from mtl_training import TrainingError

PROBES = 2
PROBE_STRIDE = 8
PROBE_BYTES = 80_000


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
        BundleError: what is missing, is no bundle, or was changed.
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
        raise BundleError(f'{folder / "bundle.yaml"} describes no bundle: {reason}') from error
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
        _load_as_the_runtime_does(folder)
        replaced = beside / 'replaced'
        if out.exists():
            os.rename(out, replaced)
        try:
            os.rename(folder, out)
        except OSError:
            if replaced.exists():
                os.rename(replaced, out)
            raise
    except OSError as error:
        raise BundleError(f'{out} cannot be written: {error.strerror}') from error
    finally:
        shutil.rmtree(beside)


def _load_as_the_runtime_does(folder: Path) -> None:
    if importlib.util.find_spec('mtl_perception') is None:
        return  # trained on a machine without the runtime
    from mtl_perception import bundle as runtime

    try:
        runtime.load_bundle(folder)
    except runtime.BundleError as error:
        raise BundleError(f'the runtime refuses the bundle: {error}') from error


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


def smooth_noise(size: tuple[int, int], count: int = 3) -> NDArray[np.uint8]:
    """Pictures of colourful clouds, the same every time: uint8 [count, height, width, 3]."""
    height, width = size
    noise = np.random.default_rng(0).integers(
        0, 256, (count, height // 16, width // 16, 3), np.uint8
    )
    return np.stack([cv2.resize(n, (width, height), interpolation=cv2.INTER_CUBIC) for n in noise])


def make_probes(model: bytes, images: NDArray[np.uint8]) -> bytes:
    """Two pictures, and what the model gives for them, for the runtime's self-check.

    ``images`` are stored at half the network's size; the network gets every pixel repeated in both
    directions. They have as many levels per colour as fit into 80 KB with the outputs. Outputs are
    those of onnxruntime at every 8th pixel from the 4th on.

    Args:
        model: the fp32 ONNX file.
        images: [N, H, W, 3] at the network's size; the first and the middle one are taken.

    Returns:
        The bytes of ``probes.npz``: ``images``, ``stride``, and an array for every output.
    """
    chosen = images[:: max(1, (len(images) + 1) // PROBES)][:PROBES]
    height, width = chosen.shape[1:3]
    halves = np.stack(
        [cv2.resize(i, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for i in chosen]
    )
    session = open_model(model, threads=1)
    names = [output.name for output in session.get_outputs()]
    grid = slice(PROBE_STRIDE // 2, None, PROBE_STRIDE)
    content = b''
    for step in (1, 2, 4, 8, 16, 32, 64):
        small = halves // step * step + step // 2
        probes = small.repeat(2, axis=1).repeat(2, axis=2)
        outputs = dict(zip(names, session.run(names, {'image': probes}), strict=True))
        arrays = {'images': small, 'stride': np.int64(PROBE_STRIDE)}
        arrays |= {name: array[:, grid, grid] for name, array in outputs.items()}
        content = _npz(arrays)
        if len(content) <= PROBE_BYTES:
            break
    return content


def add_variant_probes(probes: bytes, variants: Mapping[str, bytes]) -> bytes:
    """Add what quantised models give for the pictures of ``probes.npz``, as ``VARIANT.OUTPUT``.

    Args:
        probes: of ``make_probes``.
        variants: ONNX files by name of the variant.
    """
    with np.load(io.BytesIO(probes), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if '.' not in name}
    images = arrays['images'].repeat(2, axis=1).repeat(2, axis=2)
    grid = slice(PROBE_STRIDE // 2, None, PROBE_STRIDE)
    for variant, model in variants.items():
        session = open_model(model, threads=1, variant=variant)
        names = [output.name for output in session.get_outputs()]
        for name, array in zip(names, session.run(names, {'image': images}), strict=True):
            arrays[f'{variant}.{name}'] = array[:, grid, grid]
    return _npz(arrays)


def _npz(arrays: Mapping[str, Any]) -> bytes:
    """As numpy.savez_compressed, without the time of day."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order='C'), allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
    return file.getvalue()
