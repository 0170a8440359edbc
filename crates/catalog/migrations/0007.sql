-- Looking for words in the audit trail.

--sqlite
ALTER TABLE audit ADD COLUMN search TEXT GENERATED ALWAYS AS (LOWER(user_name || char(10) || address || char(10) || operation || char(10) || object || char(10) || result)) VIRTUAL;
CREATE VIRTUAL TABLE audit_trigrams USING fts5 (search, content='audit', content_rowid='id', tokenize='trigram', detail='none', columnsize=0);
CREATE TRIGGER audit_inserted AFTER INSERT ON audit BEGIN
    INSERT INTO audit_trigrams (rowid, search) VALUES (new.id, new.search);
END;
CREATE TRIGGER audit_deleted AFTER DELETE ON audit BEGIN
    INSERT INTO audit_trigrams (audit_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
END;
CREATE TRIGGER audit_updated AFTER UPDATE ON audit BEGIN
    INSERT INTO audit_trigrams (audit_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    INSERT INTO audit_trigrams (rowid, search) VALUES (new.id, new.search);
END;
INSERT INTO audit_trigrams (audit_trigrams) VALUES ('rebuild');
--postgres
ALTER TABLE audit ADD COLUMN search {text} GENERATED ALWAYS AS (LOWER(user_name || E'\n' || address || E'\n' || operation || E'\n' || object || E'\n' || result)) STORED;
CREATE INDEX audit_trigrams ON audit USING gin (search gin_trgm_ops);
--all
