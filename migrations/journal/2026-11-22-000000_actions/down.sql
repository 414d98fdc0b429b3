DROP TABLE audit_waiting;
DROP TABLE known_bans;
