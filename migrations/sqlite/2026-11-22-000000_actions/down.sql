DROP TABLE audit;
DROP TABLE ban_head;
DROP TABLE bans;
