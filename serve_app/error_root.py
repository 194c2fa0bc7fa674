"""The root of the tree of errors, which is in ``serve_app.errors``."""

from __future__ import annotations

from typing import ClassVar, Literal

from serve_app.error_text import safe_text

Retry = Literal["permanent", "transient", "fatal"]


class ForeedgeError(Exception):
    """Root of the tree.

    Attributes:
        code: Stable identifier of the error, part of the public contract.
        retry: Whether another attempt can help.
        http_status: Status of the HTTP answer that reports the error.
        refusal: Whether a store or a model refuses, which need not be the image's fault.
        message: Text that says what failed, on which object, and what to do.
    """

    code: ClassVar[str]
    retry: ClassVar[Retry]
    http_status: ClassVar[int]
    refusal: bool = False

    def __init__(self, message: str) -> None:
        """Create the error from its text, as ``error_text.safe_text`` cleans and shortens it."""
        text = safe_text(message)
        super().__init__(text)
        self.message = text
