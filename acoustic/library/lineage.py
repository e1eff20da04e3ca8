"""One song through the tags that were written into it: each write makes another content of it.

What this program wrote is in the journal; of what others wrote, `other_contents` says whose it is: a scan found the
sound unchanged in its place, or an import was told. A file that comes back as it was before a write (from a backup,
from another machine) is so known as the song that it is, with all that was decided of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .database import Connection

MAX_CONTENTS = 100
"""how many contents of one song are followed"""


def contents(connection: Connection, digest: str) -> list[str]:
    """`digest`, and those of the contents that other tags made of it or it of them, the nearest first."""
    written = "state IN ('written', 'undone') AND digest_after IS NOT NULL"
    sql = f"""
        SELECT digest_after FROM tag_writes WHERE digest_before = ? AND {written}
        UNION SELECT digest_before FROM tag_writes WHERE digest_after = ? AND {written}
        UNION SELECT t.digest FROM other_contents AS o JOIN tracks AS t ON t.id = o.track_id WHERE o.digest = ?
        UNION SELECT o.digest FROM tracks AS t JOIN other_contents AS o ON o.track_id = t.id WHERE t.digest = ?"""
    found = [digest]
    for one in found:  # grows meanwhile
        near = [row[0] for row in connection.execute(sql, (one,) * 4)]
        found += [content for content in near if content not in found]
        if len(found) >= MAX_CONTENTS:
            break
    return found[:MAX_CONTENTS]


def also(connection: Connection, track_id: int, digests: Iterable[str]) -> None:
    """Those of the `digests` that nothing is known by are contents of this track, too."""
    for digest in digests:
        if track_of(connection, digest) is None:
            connection.execute("INSERT INTO other_contents (digest, track_id) VALUES (?, ?)", (digest, track_id))


def track_of(connection: Connection, digest: str) -> int | None:
    """The track of this content, else of what it was or became when tags were written."""
    for content in contents(connection, digest):
        row = connection.execute("SELECT id FROM tracks WHERE digest = ?", (content,)).fetchone()
        if row is not None:
            return int(row[0])
    return None
