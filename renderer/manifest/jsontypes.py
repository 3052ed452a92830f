"""What JSON can hold, as Python types."""

from __future__ import annotations

from typing import Any, TypeAlias

#: A value read from JSON or YAML. It is `Any` below the top, because its shape is only known once checked.
Json: TypeAlias = Any
JsonObject: TypeAlias = dict[str, Any]
