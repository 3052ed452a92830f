"""The Jinja2 environment of every template of ours, with delimiters that leave Kyverno's own `{{ … }}` alone."""

from __future__ import annotations

from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment


def environment(**options: Any) -> jinja2.Environment:
    """A sandbox in which a name without a value is an error; `options` are those of jinja2.Environment."""
    return ImmutableSandboxedEnvironment(
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        # YAML, not HTML: what is written is what people review.
        autoescape=False,
        **options,
    )
