"""What a section of the sweep needs to know."""

from typing import NamedTuple

from .session import Session


class Settings(NamedTuple):
    """How to measure."""

    session: Session
    peers: list  # names of those that are installed, fastnn first
    quick: bool  # small sizes
    full: bool  # the largest sizes
