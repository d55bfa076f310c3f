-- The settings: names, kinds, units, defaults and when a change acts.
SELECT name, vartype, unit, boot_val, min_val, max_val, context FROM pg_settings WHERE name LIKE 'pgpool.%' ORDER BY name;
