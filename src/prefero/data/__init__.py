"""Preference data: rows of any layout, read into examples, and examples as token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.data.arrange import arrange as arrange
    from prefero.data.examples import (
        Example as Example,
    )
    from prefero.data.examples import (
        Examples as Examples,
    )
    from prefero.data.examples import (
        Response as Response,
    )
    from prefero.data.examples import (
        Span as Span,
    )
    from prefero.data.files import Row as Row
    from prefero.data.files import load_rows as load_rows
    from prefero.data.formats import LAYOUTS as LAYOUTS
    from prefero.data.formats import load_examples as load_examples
    from prefero.data.formats import read_row as read_row
    from prefero.data.formats.fields import Fields as Fields
    from prefero.data.formats.fields import Layout as Layout
    from prefero.data.schema import SCHEMA as SCHEMA
    from prefero.data.schema import ColumnSpec as ColumnSpec
    from prefero.data.tokenize import TokenDataset as TokenDataset
    from prefero.data.tokenize import tokenize as tokenize
    from prefero.data.trie import Cell as Cell
    from prefero.data.trie import TokenExample as TokenExample
    from prefero.data.trie import TokenTrie as TokenTrie

__getattr__, __dir__, __all__ = lazily(__name__)
