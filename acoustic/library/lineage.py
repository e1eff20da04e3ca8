"""One song through the tags that were written into it: each write makes another content of it, by the journal.

A file that comes back as it was before a write (from a backup, from another machine) is so known as the song that it
is, with all that was decided of it.
"""

from __future__ import annotations

from .database import Connection

MAX_CONTENTS = 100
"""how many contents of one song are followed"""


def contents(connection: Connection, digest: str) -> list[str]:
    """`digest`, and those of the contents that tags written into it came from or led to, the nearest first."""
    written = "state IN ('written', 'undone') AND digest_after IS NOT NULL"
    sql = f"""
        SELECT digest_after FROM tag_writes WHERE digest_before = ? AND {written}
        UNION SELECT digest_before FROM tag_writes WHERE digest_after = ? AND {written}"""
    found = [digest]
    for one in found:  # grows meanwhile
        near = [row[0] for row in connection.execute(sql, (one, one))]
        found += [content for content in near if content not in found]
        if len(found) >= MAX_CONTENTS:
            break
    return found[:MAX_CONTENTS]


def track_of(connection: Connection, digest: str) -> int | None:
    """The track of this content, else of what it was or became when tags were written."""
    for content in contents(connection, digest):
        row = connection.execute("SELECT id FROM tracks WHERE digest = ?", (content,)).fetchone()
        if row is not None:
            return int(row[0])
    return None
