"""The package's one logger, and the handler that the command line gives it.

A library call logs to `logging.getLogger("retrodistill")` and prints nothing; whoever imports the
package decides what becomes of it, as with any other library.
"""

import json
import logging
import sys
import time

log = logging.getLogger("retrodistill")


class _Stderr(logging.Handler):
    """Write each record as one line to whatever `sys.stderr` is at that moment.

    So lines stay whole beside a progress bar, which takes the stream over while it is shown.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:  # as logging's own handlers do: a full pipe does not end the work
            self.handleError(record)


class _Plain(logging.Formatter):
    """The message; a warning says that it is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        line = super().format(record)
        return f"warning: {line}" if record.levelno == logging.WARNING else line


class _Json(logging.Formatter):
    """One JSON object a line: `time` (UTC, ISO 8601), `level`, `module`, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "module": record.module,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(*, quiet: bool = False, as_json: bool = False) -> None:
    """Send the package's messages to stderr; `quiet` keeps warnings and errors only.

    The command line calls this; a library never does. A second call replaces the first.
    """
    handler = _Stderr()
    handler.setFormatter(_Json() if as_json else _Plain())
    for former in [handler for handler in log.handlers if isinstance(handler, _Stderr)]:
        log.removeHandler(former)
    log.addHandler(handler)
    log.disabled = False  # a library that calls logging.config disables the loggers of all others
    log.setLevel(logging.WARNING if quiet else logging.INFO)
