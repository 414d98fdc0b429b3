DROP TABLE folder;
DROP TABLE entries;
PRAGMA application_id = 0;
