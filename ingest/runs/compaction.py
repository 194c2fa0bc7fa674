"""Compaction: the results of a run in few objects instead of many.

A consumer writes a part every two seconds, so a quiet day of messages has 40,000 of them. They are
joined to parts of 5,000 records, each of which says which parts are in it (``parts``).

A joined part is stored before the first of its parts is deleted, and readers know every part by its
name, whether it is an object of its own or a member of another one. So a record can be read at each
moment and is never read twice, also if the compaction is killed, if two of them run, or if a writer
whose answer was lost stores its part again.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from ingest.runs.folder import RunFolder
from ingest.runs.parts import compacted_name

_RECORDS = 5_000
"""Records of a joined part at least, unless there are no more. Readers have 16 parts in memory."""

_Part = tuple[str, list[bytes]]


@dataclass(slots=True)
class Compaction:
    """What a compaction has done so far."""

    before: int = 0
    """Number of objects with results that were found."""
    joined: int = 0
    """Number of objects that were joined to others, or were in a joined one already."""
    written: int = 0
    """Number of objects that were written in their place."""

    @property
    def after(self) -> int:
        """Number of objects with results that are left."""
        return self.before - self.joined + self.written


@dataclass(slots=True)
class _Group:
    """Parts that become one object."""

    keys: list[str] = field(default_factory=list)
    members: dict[str, list[bytes]] = field(default_factory=dict)
    records: int = 0

    def add(self, key: str, parts: list[_Part]) -> None:
        """Add an object with its parts."""
        self.keys.append(key)
        for name, lines in parts:
            self.members[name] = lines
            self.records += len(lines)


def compact_results(folder: RunFolder) -> Compaction:
    """Join the results of a run to few objects. Blocks.

    Raises:
        InvalidMessage: A part is damaged. It is left as it is.
        ForeedgeError: The store refuses or does not answer. Repeating the call is safe.
    """
    done = Compaction()
    stored: set[str] = set()
    group = _Group()
    for key, parts in folder.read_parts(list(folder.part_keys("results"))):
        if parts is None:
            continue  # Another compaction has joined it.
        done.before += 1
        fresh = [(name, lines) for name, lines in parts if name not in stored]
        if not fresh:
            folder.delete([key])
            done.joined += 1
            continue
        group.add(key, fresh)
        if group.records >= _RECORDS:
            _join(folder, group, stored, done)
            group = _Group()
    _join(folder, group, stored, done)
    return done


def _join(folder: RunFolder, group: _Group, stored: set[str], done: Compaction) -> None:
    """Store a group as one object, and then delete its objects."""
    if len(group.keys) > 1:
        name = compacted_name(max(group.members), uuid.uuid4().hex[:12])
        folder.write_joined_part(folder.part_key("results", name), group.members)
        done.written += 1
        # Only now: what is deleted can be read from the joined part.
        folder.delete(group.keys)
        done.joined += len(group.keys)
    stored.update(group.members)
