"""How the programs log: JSON lines off a terminal, readable lines on one; never a token."""

from __future__ import annotations

import logging
from typing import Any, Final, TextIO

import stamina.instrumentation
import structlog

LEVELS: Final = ("debug", "info", "warning", "error")

_FIRST: Final = ("level", "msg")


def configure(stream: TextIO, level: str = "info") -> None:
    """Send every log line of the process to `stream`, from `level` (one of LEVELS) up."""
    render: list[Any]
    if stream.isatty():
        render = [structlog.dev.ConsoleRenderer(event_key="event", colors=True)]
    else:
        render = [
            structlog.processors.EventRenamer("msg"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Libraries keep quiet: what matters of theirs is in the errors that we raise from them.
    logging.getLogger().handlers = [logging.NullHandler()]
    stamina.instrumentation.set_on_retry_hooks([_retrying])


def bind(**values: str) -> None:
    """Add these to every later line of the process (the run's id, say)."""
    structlog.contextvars.bind_contextvars(**values)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger to write lines with: `log.info("what happened", key=value)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _retrying(details: stamina.instrumentation.RetryDetails) -> None:
    get_logger().warning("Trying again", seconds=round(details.wait_for, 1), because=str(details.caused_by))


def _in_order(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**{key: event[key] for key in _FIRST if key in event}, **event}
