"""How the programs log: JSON lines off a terminal, readable lines on one; never a token."""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final, TextIO

import click
import stamina.instrumentation
import structlog

LEVELS: Final = ("debug", "info", "warning", "error")

_FIRST: Final = ("level", "msg")
#: The run that this process is at. Not a context variable: threads that a run starts log for it, too.
_RUN: Final = {"run_id": ""}


def configure(stream: TextIO, level: str = "info") -> None:
    """Send every log line of the process to `stream`, from `level` (one of LEVELS) up; a new run begins."""
    new_run()
    render: list[Any]
    if stream.isatty():
        render = [structlog.dev.ConsoleRenderer(event_key="event", colors=_colours())]
    else:
        render = [
            structlog.processors.EventRenamer("msg"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _of_the_run,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # Libraries keep quiet: what matters of theirs is in the errors that we raise from them.
    logging.getLogger().handlers = [logging.NullHandler()]
    stamina.instrumentation.set_on_retry_hooks([_retrying])


def _colours() -> bool:
    """Whether a terminal gets colours: unless the command that runs was told otherwise."""
    context = click.get_current_context(silent=True)
    return context is None or context.color is not False


def new_run() -> str:
    """Begin a run: its id, which is given, is in every later line of the process, and in what the run leaves behind."""
    _RUN["run_id"] = secrets.token_hex(4)
    return _RUN["run_id"]


def run_id() -> str:
    """The id of the run that this process is at; begins one where there is none."""
    return _RUN["run_id"] or new_run()


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The logger to write lines with: `log.info("what happened", key=value)`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def _retrying(details: stamina.instrumentation.RetryDetails) -> None:
    get_logger().warning("Trying again", seconds=round(details.wait_for, 1), because=str(details.caused_by))


def _of_the_run(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**event, "run_id": run_id()}


def _in_order(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {**{key: event[key] for key in _FIRST if key in event}, **event}
