ALTER TABLE audit_waiting DROP COLUMN refused;
