-- Columns and types of the views: an interface that monitoring relies on.
SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relnamespace = 'pgpool'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
 ORDER BY 1, 2;
