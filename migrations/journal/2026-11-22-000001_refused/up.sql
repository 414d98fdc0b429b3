-- Why the store will not have an entry of the audit, which then stays here; NULL while it waits.
ALTER TABLE audit_waiting ADD COLUMN refused TEXT;
