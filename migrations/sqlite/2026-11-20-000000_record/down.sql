DROP TABLE logins;
DROP TABLE users;
DROP TABLE log_head;
DROP TABLE events;
DROP TABLE last_heard;
DROP TABLE session_records;
DROP TABLE devices;
DROP TABLE nodes;
PRAGMA application_id = 0;
