"""Programs that nobody has read, run so that they harm nothing: a model's answers, and what judges them.

``run`` executes one program with files of its own; ``Worker`` keeps a process for many small questions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefero.lazy import lazily

if TYPE_CHECKING:
    from prefero.sandbox.confinement import (
        Protection as Protection,
        protection as protection,
    )
    from prefero.sandbox.execution import (
        Run as Run,
        run as run,
        run_twice as run_twice,
    )
    from prefero.sandbox.limits import Limits as Limits
    from prefero.sandbox.worker import Worker as Worker

__getattr__, __dir__, __all__ = lazily(__name__)
