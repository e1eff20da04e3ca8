"""The library's tables, as the steps that lead to them. A step that has been released is never changed: a new one is
added, and a test opens a file of every earlier state.

Third normal form, but for two things that are derived and kept for speed, both renewed in the transaction that changes
what they follow from: `in_force` (the decision that counts for a track) and `search` (the words of a file).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Migration:
    """One named step: SQL statements that are run in one transaction."""

    name: str
    sql: str


MIGRATIONS = (
    Migration(
        "0001 tracks",
        """
        CREATE TABLE models (                 -- a network and how it was asked
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL,
            weights_digest TEXT NOT NULL,
            settings TEXT NOT NULL,           -- JSON: segments, enhancement, rules ...: all that changes the votes
            UNIQUE (weights_digest, settings)
        ) STRICT;
        CREATE TABLE scans (
            id INTEGER PRIMARY KEY,
            root BLOB NOT NULL,
            engine TEXT NOT NULL CHECK (engine IN ('local', 'ray')),
            model_id INTEGER NOT NULL REFERENCES models (id),
            started_at TEXT NOT NULL,
            finished_at TEXT,
            state TEXT NOT NULL CHECK (state IN ('running', 'done', 'cancelled', 'failed'))
        ) STRICT;
        CREATE TABLE tracks (                 -- one content
            id INTEGER PRIMARY KEY,
            digest TEXT NOT NULL UNIQUE CHECK (length(digest) = 64),
            n_bytes INTEGER NOT NULL CHECK (n_bytes >= 0),
            added_at TEXT NOT NULL
        ) STRICT;
        CREATE TABLE files (                  -- a place where a content lies; a row is a terminal state
            id INTEGER PRIMARY KEY,
            path BLOB NOT NULL UNIQUE,
            shown TEXT NOT NULL,              -- the path as a person reads it
            track_id INTEGER REFERENCES tracks (id),
            n_bytes INTEGER NOT NULL CHECK (n_bytes >= 0),
            mtime_ns INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('ok', 'error')),
            error_code TEXT,
            error_message TEXT,
            error_hint TEXT,
            missing INTEGER NOT NULL DEFAULT 0 CHECK (missing IN (0, 1)),
            scan_id INTEGER NOT NULL REFERENCES scans (id),   -- the last one that saw it
            title TEXT NOT NULL DEFAULT '',
            artist TEXT NOT NULL DEFAULT '',
            album TEXT NOT NULL DEFAULT '',
            year TEXT NOT NULL DEFAULT '',
            genres TEXT NOT NULL DEFAULT '[]',                -- JSON list: what the file's own tags say
            CHECK ((state = 'error') = (error_code IS NOT NULL)),
            CHECK (state = 'error' OR track_id IS NOT NULL)
        ) STRICT;
        CREATE INDEX files_of_track ON files (track_id);
        CREATE INDEX files_by_state ON files (state) WHERE state = 'error';
        CREATE TABLE analyses (               -- what a network said of a content
            id INTEGER PRIMARY KEY,
            track_id INTEGER NOT NULL REFERENCES tracks (id),
            model_id INTEGER NOT NULL REFERENCES models (id),
            made_at TEXT NOT NULL,
            duration_s REAL NOT NULL CHECK (duration_s >= 0),
            analyzed_s REAL NOT NULL CHECK (analyzed_s >= 0),
            n_segments INTEGER NOT NULL CHECK (n_segments > 0),
            warnings TEXT NOT NULL,           -- JSON: [{"code", "message"}]
            embedding BLOB NOT NULL,          -- float16 (D): the mean of those below; first, as it is read most
            places BLOB NOT NULL,             -- float64 (2, K): start_s, end_s
            logits BLOB NOT NULL,             -- float32 (K, C)
            tag_logits BLOB NOT NULL,         -- float16 (K, T)
            embeddings BLOB NOT NULL,         -- float16 (K, D)
            UNIQUE (track_id, model_id)
        ) STRICT;
        CREATE TABLE verdicts (               -- how the votes of an analysis are read at present
            analysis_id INTEGER PRIMARY KEY REFERENCES analyses (id) ON DELETE CASCADE,
            personal TEXT NOT NULL,           -- version of what the person taught; '' is the model alone
            top_genre TEXT NOT NULL,
            confidence REAL NOT NULL CHECK (confidence BETWEEN 0 AND 1),
            margin REAL NOT NULL,
            uncertainty REAL NOT NULL,
            agreement REAL NOT NULL,
            needs_review INTEGER NOT NULL CHECK (needs_review IN (0, 1)),
            review_reasons TEXT NOT NULL,     -- JSON list
            prediction_set TEXT NOT NULL,     -- JSON list
            probabilities TEXT NOT NULL       -- JSON: {genre: probability}
        ) STRICT;
        CREATE INDEX verdicts_by_genre ON verdicts (top_genre);
        CREATE INDEX verdicts_for_review ON verdicts (needs_review) WHERE needs_review = 1;
        """,
    ),
    Migration(
        "0002 decisions",
        """
        CREATE TABLE decisions (              -- the history of what a person decided; it only grows
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            track_id INTEGER NOT NULL REFERENCES tracks (id),
            made_at TEXT NOT NULL,
            who TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('genre', 'not_music', 'skip', 'undo')),
            genre TEXT,
            before_id INTEGER REFERENCES decisions (id),      -- what counted until then
            undoes_id INTEGER UNIQUE REFERENCES decisions (id),
            batch TEXT NOT NULL DEFAULT '',
            said_genre TEXT NOT NULL DEFAULT '',              -- what the model said then
            said_confidence REAL NOT NULL DEFAULT 0,
            took_s REAL CHECK (took_s >= 0),
            CHECK ((kind = 'genre') = (genre IS NOT NULL)),
            CHECK ((kind = 'undo') = (undoes_id IS NOT NULL))
        ) STRICT;
        CREATE INDEX decisions_of_track ON decisions (track_id, made_at);
        CREATE INDEX decisions_of_who ON decisions (who, made_at);
        CREATE INDEX decisions_in_time ON decisions (made_at);
        CREATE INDEX decisions_of_batch ON decisions (batch) WHERE batch <> '';
        CREATE TRIGGER decisions_are_not_changed BEFORE UPDATE ON decisions
            BEGIN SELECT RAISE (ABORT, 'a decision is history'); END;
        CREATE TRIGGER decisions_are_not_deleted BEFORE DELETE ON decisions
            BEGIN SELECT RAISE (ABORT, 'a decision is history'); END;
        CREATE TABLE in_force (               -- the decision that counts for a track, where one does
            track_id INTEGER PRIMARY KEY REFERENCES tracks (id),
            decision_id INTEGER NOT NULL UNIQUE REFERENCES decisions (id)
        ) STRICT;
        CREATE TABLE lessons (                -- what was learned of decisions, and what became of it
            id INTEGER PRIMARY KEY,
            version TEXT NOT NULL,
            made_at TEXT NOT NULL,
            last_decision_id INTEGER REFERENCES decisions (id),
            n_songs INTEGER NOT NULL,
            accuracy_before REAL,
            accuracy_after REAL,
            state TEXT NOT NULL CHECK (state IN ('offered', 'accepted', 'discarded', 'rolled back'))
        ) STRICT;
        """,
    ),
    Migration(
        "0003 tag writes",
        """
        CREATE TABLE tag_batches (
            id INTEGER PRIMARY KEY,
            made_at TEXT NOT NULL,
            policy TEXT NOT NULL              -- JSON
        ) STRICT;
        CREATE TABLE tag_writes (             -- the journal: a row is there before a file is touched
            id INTEGER PRIMARY KEY,
            batch_id INTEGER NOT NULL REFERENCES tag_batches (id),
            path BLOB NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('planned', 'written', 'failed', 'undone')),
            genres_before TEXT NOT NULL,      -- JSON list
            genres_after TEXT NOT NULL,       -- JSON list
            digest_before TEXT NOT NULL,      -- of the whole file
            digest_after TEXT,
            mtime_ns_before INTEGER NOT NULL,
            kept BLOB,                        -- what brings the old bytes back (see tagging)
            error_code TEXT,
            error_message TEXT,
            UNIQUE (batch_id, path)
        ) STRICT;
        CREATE INDEX tag_writes_of_path ON tag_writes (path);
        """,
    ),
    Migration(
        "0004 search",
        """
        CREATE VIRTUAL TABLE search USING fts5 (
            shown, title, artist, album, genres, tokenize = "unicode61 remove_diacritics 2", prefix = '2 3'
        );
        CREATE TRIGGER files_into_search AFTER INSERT ON files BEGIN
            INSERT INTO search (rowid, shown, title, artist, album, genres)
            VALUES (new.id, new.shown, new.title, new.artist, new.album, new.genres);
        END;
        CREATE TRIGGER files_out_of_search AFTER DELETE ON files BEGIN
            DELETE FROM search WHERE rowid = old.id;
        END;
        CREATE TRIGGER files_anew_in_search AFTER UPDATE OF shown, title, artist, album, genres ON files BEGIN
            UPDATE search SET shown = new.shown, title = new.title, artist = new.artist, album = new.album,
                genres = new.genres WHERE rowid = new.id;
        END;
        INSERT INTO search (rowid, shown, title, artist, album, genres)
            SELECT id, shown, title, artist, album, genres FROM files;
        """,
    ),
    Migration(
        "0005 lists",  # what a list of all tracks asks of each is answered by an index alone
        """
        DROP INDEX files_of_track;
        CREATE INDEX files_of_track ON files (track_id, state, missing);
        CREATE INDEX analyses_of_track ON analyses (track_id, id, model_id, duration_s);
        """,
    ),
    Migration(
        "0006 descriptors",
        """
        ALTER TABLE analyses ADD COLUMN descriptors TEXT;  -- JSON: what rules went by; NULL where they were off
        """,
    ),
    Migration(
        "0007 lineage",  # a content is known by what it was before a tag was written, and after
        """
        CREATE INDEX tag_writes_before ON tag_writes (digest_before);
        CREATE INDEX tag_writes_after ON tag_writes (digest_after) WHERE digest_after IS NOT NULL;
        """,
    ),
    Migration(
        "0008 bounds",
        """
        ALTER TABLE scans ADD COLUMN bounds TEXT NOT NULL DEFAULT '';  -- JSON: what files were held to
        """,
    ),
    Migration(
        "0009 other contents",  # a track through what the journal does not know of
        """
        CREATE TABLE other_contents (         -- the same song with tags that others wrote, here or elsewhere
            digest TEXT PRIMARY KEY CHECK (length(digest) = 64),
            track_id INTEGER NOT NULL REFERENCES tracks (id)
        ) STRICT;
        CREATE INDEX other_contents_of_track ON other_contents (track_id);
        """,
    ),
)
