"""How the literature measures: figures that may be held against printed ones."""

from __future__ import annotations

from mtl_training.protocols.atrc import ATRC
from mtl_training.protocols.invpt import INVPT
from mtl_training.protocols.protocol import Protocol, ProtocolError, Setting
from mtl_training.protocols.survey import SURVEY

__all__ = ['PROTOCOLS', 'Protocol', 'ProtocolError', 'Setting']

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (SURVEY, ATRC, INVPT)}
