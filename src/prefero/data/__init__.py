"""Preference data: rows of any layout, read into examples, and examples as token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.data.arrange import arrange as arrange
    from prefero.data.examples import (
        Example as Example,
        Examples as Examples,
        Response as Response,
        Span as Span,
    )
    from prefero.data.files import Row as Row, load_rows as load_rows
    from prefero.data.formats import LAYOUTS as LAYOUTS, load_examples as load_examples, read_row as read_row
    from prefero.data.formats.fields import Fields as Fields, Layout as Layout
    from prefero.data.schema import SCHEMA as SCHEMA, ColumnSpec as ColumnSpec
    from prefero.data.tokenize import TokenDataset as TokenDataset, tokenize as tokenize
    from prefero.data.trie import Cell as Cell, TokenExample as TokenExample, TokenTrie as TokenTrie

__getattr__, __dir__, __all__ = lazily(__name__)
