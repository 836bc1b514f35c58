"""Somebody who is told how far work is."""

from __future__ import annotations

from wsiseg.progress import Silent


class Listener(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, message: str) -> None:
        """Note one line."""
        self.heard.append(message)
