DROP TABLE known_revocations;
