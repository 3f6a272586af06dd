"""All families by name."""

from __future__ import annotations

from tests.coverage import decoders, encoders, modules, past, seq2seq
from tests.coverage.family import Family

OF_THE_LIBRARY: tuple[Family, ...] = (*encoders.FAMILIES, *decoders.FAMILIES, *seq2seq.FAMILIES, *past.FAMILIES)
FAMILIES: dict[str, Family] = {family.name: family for family in (*OF_THE_LIBRARY, *modules.FAMILIES)}
