DROP FUNCTION lastpong_expire, lastpong_adopt, lastpong_declare_lost, lastpong_renew, lastpong_commit, lastpong_begin, lastpong_fenced;
DROP TABLE logins, users, log_head, events, last_heard, session_records, devices, nodes;
