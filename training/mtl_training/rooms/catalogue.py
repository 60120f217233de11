"""The furniture catalogue: which pieces exist, their classes, and which split may use them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mtl_perception.files import write_beside
from mtl_training import TrainingError
from mtl_training.scenes.meshes import Mesh, MeshError, read_obj

SPLITS = ('train', 'val', 'test')
MAX_TRIANGLES = 40_000


class CatalogueError(TrainingError):
    """The assets folder is missing or incomplete."""


@dataclass(frozen=True)
class Piece:
    """One piece of furniture as its catalogue describes it; sizes in metres."""

    library: str
    number: int
    name: str
    category: str
    label: str  # NYUD-40 name
    model: str  # path below the assets folder
    width: float
    depth: float
    height: float
    elevation: float
    rotation: tuple[float, ...]
    creator: str
    licence: str
    triangles: int

    @property
    def key(self) -> str:
        return f'{self.library}_{self.number}'


LICENCES: dict[str, str] = {
    'core': 'GPL-2.0-or-later (part of Sweet Home 3D)',
    'Scopia': 'CC-BY-3.0',
    'KatorLegaz': 'CC-BY-3.0-US',
    'Reallusion': 'CC-BY-3.0-US',
    'BlendSwap-CC-BY': 'CC-BY-3.0',
    'BlendSwap-CC-0': 'CC0-1.0',
}

# First match wins: (NYUD-40 name, pattern on the lower-case name, pattern on the category or None).
# Names that no row matches become 'otherprop' when they stand indoors, else the piece is not used.
INDOOR = 'Living|Kitchen|Bathroom|Bedroom|Office|Miscellaneous'
RULES: tuple[tuple[str, str, str | None], ...] = (
    ('shower curtain', r'shower curtain', None),
    ('curtain', r'^curtain', None),
    ('blinds', r'blind|window shutter', None),
    ('floor mat', r'bathmat|rug|carpet|doormat|tatami', None),
    ('night stand', r'bedside|night ?stand', None),
    (
        'bed',
        r'^bed\b|bunk|(child|baby|iron|loft|day|hospital|mezzanine) bed|^crib|captain|'
        r'air mattress|^futon$|opened convertible',
        None,
    ),
    ('sofa', r'sofa|couch', None),
    (
        'chair',
        r'stool|chair(?!.*lift)|class seat|puff|ottoman|bench$',
        r'Living|Office|Kitchen|Bedroom|Exterior',
    ),
    ('dresser', r'dresser|chest$|drawers cabinet|changing table|dressing table', r'Living|Bedroom'),
    ('desk', r'^desk$|desk table|(wooden|technical|alder|teak) table', None),
    ('counter', r'^island(?! bath)|worktop', None),
    ('otherfurniture', r'table tennis$|football table|pool table', None),
    ('lamp', r'lamp|light|spotlight|chandelier|pendant|candle|lantern', r'Lights'),
    (
        'table',
        r'table$|^table|(coffee|glass|round|tea|folding|bar|children) table|trestles|tablecloth',
        r'Living|Kitchen|Office|Bedroom',
    ),
    ('bookshelf', r'bookcase', None),
    ('shelves', r'shelves', None),
    ('sink', r'vanity', r'Bathroom'),
    (
        'cabinet',
        r'wardrobe|cupboard|cabinet|filing|tv unit|tv stand|contemporary living|locker|sideboard',
        r'Bedroom|Living|Kitchen|Office',
    ),
    ('refridgerator', r'fridge|refrigerator|freezer', None),
    ('television', r'^tv$|flat tv|tv 16|^screen$|laptop|ibook|imac|monitor', None),
    ('toilet', r'toilets? unit|urinal|bidet|small lavatory', None),
    ('sink', r'washbasin|basin$|^sink', None),
    ('bathtub', r'^bath$|bathtub|island bath|fitted bath|jacuzzi', None),
    ('towel', r'towel', r'Bathroom|Kitchen'),
    ('picture', r'frame chambord|frame h|^frame$', None),
    ('mirror', r'mirror', None),
    ('box', r'cardboard box|gift|crate|^trunc|shopping basket', None),
    ('whiteboard', r'white ?board', None),
    ('books', r'book$', None),
    ('paper', r'newspaper|letter tray|calendar', None),
    (
        'clothes',
        r'clothes$|jacket|trousers|dress$|skirt|suit$|folded clothes|'
        r'clothes (horse|rack)|hat$|shoes',
        r'Bedroom|Miscellaneous',
    ),
    ('bag', r'handbag|backpack|briefcase|suitcase|bag$', None),
    ('person', r'male|female|boy|girl|mannequin', r'Characters|Miscellaneous'),
    ('door', r'garage door|doors?( |$)|elevator', r'Doors'),
    ('window', r'window|hatch', r'Doors'),
    (
        'otherstructure',
        r'stairc|radiator|chimney|fireplace|column|shower|water heater|boiler|step ladder',
        None,
    ),
    (
        'otherfurniture',
        r'piano|washing|washer|dryer|dishwasher|cooker|stove|oven|hood|safe$|water cooler|'
        r'cat$|dog$|'
        r'treadmill|indoor bike|clothes basket|plant|ficus|bamboo|yucca|tree',
        INDOOR,
    ),
)
# Odd ones: poses that do not stand, switches and sockets too small to see, outdoor things.
EXCLUDE = re.compile(
    r'sitting|lying|plug|switch|socket|outlet|antenna|dimmer|christmas|snow|railing|basketball|'
    r'garden|satellite|elevator|garage door|mezzanine|lamppost|street|outdoor',
    re.IGNORECASE,
)


def classify(name: str, category: str) -> str | None:
    """The NYUD-40 name of a piece, or None when it has no place in a room."""
    lower = name.lower()
    if EXCLUDE.search(lower) or category in ('Vehicles', 'Staircases'):
        return None
    if category == 'Exterior' and not re.search('chair|sofa|table|bench', lower):
        return None
    for label, pattern, categories in RULES:
        if re.search(pattern, lower) and (categories is None or re.search(categories, category)):
            return label
    return 'otherprop' if re.search(INDOOR, category) else None


def read_properties(path: Path) -> dict[str, str]:
    """A Java .properties file: ``key = value`` with continuation lines."""
    text = re.sub(r'(?<!\\)\\\r?\n\s*', '', path.read_text(encoding='latin-1'))
    pairs = (re.match(r'\s*([^#!\s][^=:]*?)\s*[=:]\s*(.*)', line) for line in text.splitlines())
    return {pair[1]: pair[2].strip() for pair in pairs if pair}


def _pieces_of(library: str, root: Path, properties: Path) -> Iterator[tuple[Piece, Path]]:
    values = read_properties(properties)
    numbers = sorted(int(key[5:]) for key in values if re.fullmatch(r'name#\d+', key))
    for number in numbers:

        def get(key: str, number: int = number) -> str:
            return values.get(f'{key}#{number}', '')

        name, category, model = get('name'), get('category'), root / get('model').lstrip('/')
        label = classify(name, category)
        if label is None or not model.is_file():
            continue
        rotation = tuple(float(x) for x in get('modelRotation').split())
        piece = Piece(
            library=library,
            number=number,
            name=name,
            category=category,
            label=label,
            model='',
            width=float(get('width')) / 100,
            depth=float(get('depth')) / 100,
            height=float(get('height')) / 100,
            elevation=float(get('elevation') or 0) / 100,
            rotation=rotation,
            creator=get('creator'),
            licence=LICENCES[library],
            triangles=0,
        )
        yield piece, model


def build_catalogue(assets: Path) -> list[Piece]:
    """Read every library in ``assets/sh3d``, cache meshes as .npz and write catalogue.json."""
    cache = assets / 'cache'
    cache.mkdir(exist_ok=True)
    core = assets / 'sh3d' / 'core'
    sources = [('core', core, core / 'com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties')]
    for library in sorted(set(LICENCES) - {'core'}):
        root = assets / 'sh3d' / library
        sources.append((library, root, root / 'PluginFurnitureCatalog.properties'))
    pieces = []
    for library, root, properties in sources:
        for piece, model in _pieces_of(library, root, properties):
            target = cache / f'{piece.key}.npz'
            rotation = np.array(piece.rotation).reshape(3, 3) if len(piece.rotation) == 9 else None
            try:
                if target.exists():
                    mesh = Mesh.load(target)
                else:
                    mesh = read_obj(model, (piece.width, piece.height, piece.depth), rotation)
                    mesh.save(target)
            except MeshError:  # a bare light source
                continue
            fields = asdict(piece) | {
                'model': str(model.relative_to(assets)),
                'triangles': len(mesh.vertices) // 3,
            }
            pieces.append(Piece(**fields))
    text = json.dumps([asdict(piece) for piece in pieces], indent=0)
    write_beside(assets / 'catalogue.json', text.encode())
    return pieces


def read_catalogue(assets: Path) -> list[Piece]:
    """The pieces that ``mtl_training rooms assets`` prepared.

    Raises:
        CatalogueError: there is no catalogue in ``assets``.
    """
    path = assets / 'catalogue.json'
    if not path.exists():
        raise CatalogueError(f'{path} is missing: run `mtl_training rooms assets {assets}` first')
    return [
        Piece(**{**row, 'rotation': tuple(row['rotation'])}) for row in json.loads(path.read_text())
    ]


def split_pieces(pieces: list[Piece]) -> dict[str, list[Piece]]:
    """Deal the pieces of every class to train, val and test so that no piece is in two of them.

    The order within a class is a hash of the piece, so that adding pieces does not reshuffle the
    rest. Of ten pieces seven train, one validates and two test; the first three of a class go one
    to each, so that small classes occur everywhere.
    """
    deal = ('train', 'test', 'val', *('train',) * 4, 'test', *('train',) * 2)
    by_label: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.triangles <= MAX_TRIANGLES:
            by_label.setdefault(piece.label, []).append(piece)
    result: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    for members in by_label.values():
        members.sort(key=lambda piece: hashlib.sha256(piece.key.encode()).hexdigest())
        for index, piece in enumerate(members):
            result[deal[index % len(deal)]].append(piece)
    return result


class Library:
    """The pieces one split may use, by class, with their meshes loaded on demand."""

    def __init__(self, assets: Path, pieces: list[Piece]) -> None:
        self.assets = assets
        self.by_label: dict[str, list[Piece]] = {}
        for piece in pieces:
            self.by_label.setdefault(piece.label, []).append(piece)
        self.mesh = lru_cache(maxsize=256)(self._mesh)

    @classmethod
    def of_split(cls, assets: Path, split: str) -> Library:
        return cls(assets, split_pieces(read_catalogue(assets))[split])

    def pieces(self, label: str) -> list[Piece]:
        return self.by_label.get(label, [])

    def texture(self, name: str) -> Path | None:
        path = self.assets / 'tex' / f'{name}.png'
        return path if path.exists() else None

    def _mesh(self, piece: Piece) -> Mesh:
        return Mesh.load(self.assets / 'cache' / f'{piece.key}.npz')


def credits(pieces: list[Piece]) -> str:
    """Markdown list of the creators of the pieces, as the CC-BY licences ask for."""
    rows: dict[tuple[str, str], set[str]] = {}
    for piece in pieces:
        rows.setdefault((piece.creator or 'unknown', piece.licence), set()).add(piece.name)
    lines = ['# Furniture credits', '', 'Models from the Sweet Home 3D furniture libraries.', '']
    for (creator, licence), names in sorted(rows.items()):
        lines.append(f'- {creator} ({licence}): {", ".join(sorted(names))}')
    return '\n'.join(lines) + '\n'
