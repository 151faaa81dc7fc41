"""The result of ``tgc.explain``: what was found, and its renderings."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tgc.inspect.page import as_data, as_page
from tgc.inspect.report import Findings
from tgc.inspect.text import as_text


@dataclass(frozen=True)
class Explanation(Findings):
    """What became of a program; ``print`` shows it as text."""

    def text(self) -> str:
        """For a terminal."""
        return as_text(self)

    def json(self) -> str:
        """Everything but code, for other programs. Symbolic amounts are ``{"formula": ..., "value": ...}``."""
        return json.dumps(as_data(self), indent=1)

    def html(self) -> str:
        """One page that needs nothing else: the graph drawn, with the code of each kernel."""
        return as_page(self)

    def __str__(self) -> str:
        return self.text()
