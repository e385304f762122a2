"""Every exception a user can meet.

RetrodistillError
+- ConfigError      a setting is unknown, missing, or out of range
+- DataError        a file, id or tensor does not have the promised form
+- MissingExtra     an optional dependency is not installed
"""


class RetrodistillError(Exception):
    """Base of all errors raised on purpose by this package."""


class ConfigError(RetrodistillError, ValueError):
    """A setting is unknown, missing, or out of range."""


class DataError(RetrodistillError, ValueError):
    """A file, id or tensor does not have the promised form."""


class MissingExtra(RetrodistillError, ImportError):
    """An optional dependency is not installed."""
