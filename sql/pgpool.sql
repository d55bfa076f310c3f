-- Objects of the extension pgpool: configuration tables, the functions that change them, views.
--
-- Limits stand in pgpool.tenant and, per role, in pgpool.tenant_user; NULL means "not set here": the role's value
-- counts before the tenant's, the tenant's before pgpool.default_* and the like. Changes act at COMMIT.

\echo Use "CREATE EXTENSION pgpool" to load this file. \quit

DO $$
DECLARE
	wanted text := current_setting('pgpool.database', true);
	members text;
BEGIN
	IF wanted IS NOT NULL AND wanted <> current_database() THEN
		RAISE EXCEPTION 'extension pgpool belongs in database "%"', wanted
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      DETAIL = format('This is database "%s".', current_database()),
			      HINT = 'Connect to that database, or set pgpool.database and restart.';
	END IF;
	-- the owner of a schema can change what lies in it
	IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
	           WHERE n.nspname = '@extschema@' AND NOT r.rolsuper) THEN
		RAISE EXCEPTION 'schema "@extschema@" is owned by a role that is not a superuser'
			USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop the schema, or change its owner.';
	END IF;
	-- a role of that name may be somebody's work of another time
	SELECT pg_catalog.string_agg(pg_catalog.quote_ident(m.rolname), ', ' ORDER BY m.rolname) INTO members
	  FROM pg_catalog.pg_roles a, pg_catalog.pg_roles m
	 WHERE a.rolname = 'pgpool_admin' AND NOT m.rolsuper AND (m.oid <> a.oid OR a.rolcanlogin)
	   AND pg_catalog.pg_has_role(m.oid, a.oid, 'MEMBER');
	IF members IS NOT NULL THEN
		RAISE WARNING 'role "pgpool_admin" exists already, and these roles get its rights: %', members
			USING HINT = 'REVOKE pgpool_admin from those that shall not administer pgpool.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'pgpool_admin') THEN
		CREATE ROLE pgpool_admin NOLOGIN;
	END IF;
END
$$;

-- ---- tables ------------------------------------------------------------------------------------------

CREATE TABLE @extschema@.tenant (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE CHECK (name ~ '^[^[:space:][:cntrl:].]+$' AND octet_length(name) <= 63),
	database text CHECK (octet_length(database) BETWEEN 1 AND 63),
	pool_mode text CHECK (pool_mode IN ('transaction', 'session')),
	pool_size integer CHECK (pool_size BETWEEN 1 AND 262143),
	max_clients integer CHECK (max_clients >= 0),
	query_wait_timeout interval CHECK (query_wait_timeout BETWEEN '0' AND '24 days'),
	client_idle_timeout interval CHECK (client_idle_timeout BETWEEN '0' AND '24 days'),
	idle_in_transaction_timeout interval CHECK (idle_in_transaction_timeout BETWEEN '0' AND '24 days'),
	server_idle_timeout interval CHECK (server_idle_timeout BETWEEN '0' AND '24 days'),
	server_lifetime interval CHECK (server_lifetime BETWEEN '0' AND '24 days'),
	cache_unnamed text CHECK (cache_unnamed IN ('off', 'custom', 'generic')),
	max_pinned integer CHECK (max_pinned BETWEEN 0 AND 262143),
	pin_idle_timeout interval CHECK (pin_idle_timeout BETWEEN '0' AND '24 days'),
	pin_sequences boolean,
	on_disconnect text CHECK (on_disconnect IN ('finish', 'cancel')),
	allow_list cidr[],
	require_tls boolean NOT NULL DEFAULT false,
	sni text[],
	only_listed_users boolean NOT NULL DEFAULT false,
	banned_until timestamptz,
	ban_reason text,
	comment text
);

CREATE TABLE @extschema@.tenant_user (
	tenant_id bigint NOT NULL REFERENCES @extschema@.tenant ON DELETE CASCADE,
	role_name name NOT NULL CHECK (role_name <> ''),
	pool_mode text CHECK (pool_mode IN ('transaction', 'session')),
	pool_size integer CHECK (pool_size BETWEEN 1 AND 262143),
	max_clients integer CHECK (max_clients >= 0),
	query_wait_timeout interval CHECK (query_wait_timeout BETWEEN '0' AND '24 days'),
	client_idle_timeout interval CHECK (client_idle_timeout BETWEEN '0' AND '24 days'),
	idle_in_transaction_timeout interval CHECK (idle_in_transaction_timeout BETWEEN '0' AND '24 days'),
	server_idle_timeout interval CHECK (server_idle_timeout BETWEEN '0' AND '24 days'),
	server_lifetime interval CHECK (server_lifetime BETWEEN '0' AND '24 days'),
	cache_unnamed text CHECK (cache_unnamed IN ('off', 'custom', 'generic')),
	max_pinned integer CHECK (max_pinned BETWEEN 0 AND 262143),
	pin_idle_timeout interval CHECK (pin_idle_timeout BETWEEN '0' AND '24 days'),
	pin_sequences boolean,
	on_disconnect text CHECK (on_disconnect IN ('finish', 'cancel')),
	PRIMARY KEY (tenant_id, role_name)
);

-- Passwords in clear text. No policy: nobody sees a row but the owner and who bypasses row security, so not the members
-- of pg_read_all_data. Nor are there statistics of the values, which these could read.
CREATE TABLE @extschema@.tenant_secret (
	tenant_id bigint,
	role_name name,
	server_password text NOT NULL CHECK (octet_length(server_password) BETWEEN 1 AND 255),
	PRIMARY KEY (tenant_id, role_name),
	FOREIGN KEY (tenant_id, role_name) REFERENCES @extschema@.tenant_user ON DELETE CASCADE
);
ALTER TABLE @extschema@.tenant_secret ENABLE ROW LEVEL SECURITY;
ALTER TABLE @extschema@.tenant_secret ALTER COLUMN server_password SET STATISTICS 0;

-- each login asks for the owners of its database
CREATE INDEX tenant_database ON @extschema@.tenant (database);

-- A dump holds the row of tenant "default", and CREATE EXTENSION has made one already when it is restored: the
-- insert becomes an update.
CREATE FUNCTION @extschema@.restore_default_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	UPDATE @extschema@.tenant
	   SET (database, pool_mode, pool_size, max_clients, query_wait_timeout, client_idle_timeout,
	        idle_in_transaction_timeout, server_idle_timeout, server_lifetime, cache_unnamed,
	        max_pinned, pin_idle_timeout, pin_sequences, on_disconnect, allow_list,
	        require_tls, sni, only_listed_users, banned_until, ban_reason, comment)
	     = (NEW.database, NEW.pool_mode, NEW.pool_size, NEW.max_clients, NEW.query_wait_timeout,
	        NEW.client_idle_timeout, NEW.idle_in_transaction_timeout, NEW.server_idle_timeout, NEW.server_lifetime,
	        NEW.cache_unnamed, NEW.max_pinned, NEW.pin_idle_timeout, NEW.pin_sequences, NEW.on_disconnect,
	        NEW.allow_list,
	        NEW.require_tls, NEW.sni, NEW.only_listed_users,
	        NEW.banned_until, NEW.ban_reason, NEW.comment)
	 WHERE name = 'default';
	IF FOUND THEN
		RETURN NULL;
	END IF;
	RETURN NEW;
END
$$;

CREATE FUNCTION @extschema@.config_changed() RETURNS trigger
LANGUAGE c AS 'MODULE_PATHNAME', 'pgpool_config_changed';

CREATE TRIGGER restore_default BEFORE INSERT ON @extschema@.tenant
	FOR EACH ROW WHEN (NEW.name = 'default') EXECUTE FUNCTION @extschema@.restore_default_tenant();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.tenant
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.tenant_user
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.config_changed();
CREATE TRIGGER config_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.tenant_secret
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.config_changed();
ALTER TABLE @extschema@.tenant ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE @extschema@.tenant ENABLE ALWAYS TRIGGER restore_default;
ALTER TABLE @extschema@.tenant_user ENABLE ALWAYS TRIGGER config_changed;
ALTER TABLE @extschema@.tenant_secret ENABLE ALWAYS TRIGGER config_changed;

INSERT INTO @extschema@.tenant (name, comment)
VALUES ('default', 'admits any role to any database that no tenant owns');

SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenant', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenant_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenant_user', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.tenant_secret', '');

-- ---- checks of arguments -----------------------------------------------------------------------------

CREATE FUNCTION @extschema@.bad_argument(argument text, value text, rule text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	RAISE EXCEPTION 'invalid value for argument "%": %', argument, coalesce(quote_literal(value), 'NULL')
		USING ERRCODE = 'invalid_parameter_value', HINT = rule;
END
$$;

CREATE FUNCTION @extschema@.check_limits(pool_mode text, pool_size integer, max_clients integer,
	query_wait_timeout interval, client_idle_timeout interval, idle_in_transaction_timeout interval,
	server_idle_timeout interval, server_lifetime interval, cache_unnamed text, max_pinned integer,
	pin_idle_timeout interval, on_disconnect text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t record;
BEGIN
	IF pool_mode NOT IN ('transaction', 'session') THEN
		PERFORM @extschema@.bad_argument('pool_mode', pool_mode, 'It is "transaction" or "session".');
	END IF;
	IF cache_unnamed NOT IN ('off', 'custom', 'generic') THEN
		PERFORM @extschema@.bad_argument('cache_unnamed', cache_unnamed, 'It is "off", "custom" or "generic".');
	END IF;
	IF on_disconnect NOT IN ('finish', 'cancel') THEN
		PERFORM @extschema@.bad_argument('on_disconnect', on_disconnect, 'It is "finish" or "cancel".');
	END IF;
	IF pool_size NOT BETWEEN 1 AND 262143 THEN
		PERFORM @extschema@.bad_argument('pool_size', pool_size::text, 'It is between 1 and 262143.');
	END IF;
	IF max_clients < 0 THEN
		PERFORM @extschema@.bad_argument('max_clients', max_clients::text, 'It is 0 (no limit) or more.');
	END IF;
	IF max_pinned NOT BETWEEN 0 AND 262143 THEN
		PERFORM @extschema@.bad_argument('max_pinned', max_pinned::text,
			'It is between 1 and 262143, or 0 for pool_size less one.');
	END IF;
	FOR t IN SELECT * FROM (VALUES ('query_wait_timeout', query_wait_timeout),
			('client_idle_timeout', client_idle_timeout),
			('idle_in_transaction_timeout', idle_in_transaction_timeout),
			('server_idle_timeout', server_idle_timeout), ('server_lifetime', server_lifetime),
			('pin_idle_timeout', pin_idle_timeout)) v (argument, value)
	LOOP
		IF t.value NOT BETWEEN '0'::interval AND '24 days'::interval THEN
			PERFORM @extschema@.bad_argument(t.argument, t.value::text, 'It is between 0 (off) and 24 days.');
		END IF;
	END LOOP;
END
$$;

-- Checks what only a tenant has; gives the SNI names as they are stored.
CREATE FUNCTION @extschema@.check_tenant(tenant text, database text, sni text[]) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	host text;
	other text;
	stored text[];
BEGIN
	IF tenant IS NULL OR tenant !~ '^[^[:space:][:cntrl:].]+$' OR octet_length(tenant) > 63 THEN
		PERFORM @extschema@.bad_argument('name', tenant, 'It has 1 to 63 bytes, without blanks and dots.');
	END IF;
	IF octet_length(database) NOT BETWEEN 1 AND 63 THEN
		PERFORM @extschema@.bad_argument('database', database, 'It has 1 to 63 bytes.');
	END IF;
	IF database IS NOT NULL AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = check_tenant.database) THEN
		RAISE WARNING 'database "%" does not exist yet', database;
	END IF;
	IF sni IS NULL THEN
		RETURN NULL;
	END IF;
	-- two transactions must not give one name to two tenants
	PERFORM pg_advisory_xact_lock(hashtext('pgpool'), hashtext('sni'));
	FOREACH host IN ARRAY sni LOOP
		IF host IS NULL OR host = '' OR octet_length(host) > 255 OR host ~ '[[:space:][:cntrl:]]' THEN
			PERFORM @extschema@.bad_argument('sni', host, 'Each name has 1 to 255 bytes, without blanks.');
		END IF;
		SELECT t.name INTO other FROM @extschema@.tenant t WHERE lower(host) = ANY (t.sni) AND t.name <> tenant;
		IF FOUND THEN
			PERFORM @extschema@.bad_argument('sni', host, format('Tenant "%s" has that name already.', other));
		END IF;
		stored := stored || lower(host);
	END LOOP;
	RETURN stored;
END
$$;

CREATE FUNCTION @extschema@.lock_tenant(tenant text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	found_id bigint;
BEGIN
	SELECT t.id INTO found_id FROM @extschema@.tenant t WHERE t.name = tenant FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'tenant % does not exist', coalesce(quote_ident(tenant), 'NULL')
			USING ERRCODE = 'undefined_object', HINT = 'Tenants are made with pgpool.create_tenant().';
	END IF;
	RETURN found_id;
END
$$;

-- ---- tenants -----------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.create_tenant(name text, database text DEFAULT NULL, pool_mode text DEFAULT NULL,
	pool_size integer DEFAULT NULL, max_clients integer DEFAULT NULL, query_wait_timeout interval DEFAULT NULL,
	client_idle_timeout interval DEFAULT NULL, idle_in_transaction_timeout interval DEFAULT NULL,
	server_idle_timeout interval DEFAULT NULL, server_lifetime interval DEFAULT NULL,
	cache_unnamed text DEFAULT NULL, max_pinned integer DEFAULT NULL, pin_idle_timeout interval DEFAULT NULL,
	pin_sequences boolean DEFAULT NULL, on_disconnect text DEFAULT NULL, allow_list cidr[] DEFAULT NULL,
	require_tls boolean DEFAULT NULL,
	sni text[] DEFAULT NULL, only_listed_users boolean DEFAULT NULL, comment text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	stored text[] := @extschema@.check_tenant($1, $2, $18);
	new_id bigint;
BEGIN
	PERFORM @extschema@.check_limits($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $15);
	IF $1 = 'default' OR EXISTS (SELECT FROM @extschema@.tenant t WHERE t.name = $1) THEN
		RAISE EXCEPTION 'tenant "%" already exists', $1
			USING ERRCODE = 'duplicate_object', HINT = 'Use pgpool.alter_tenant() to change it.';
	END IF;
	INSERT INTO @extschema@.tenant (name, database, pool_mode, pool_size, max_clients, query_wait_timeout,
			client_idle_timeout, idle_in_transaction_timeout, server_idle_timeout, server_lifetime,
			cache_unnamed, max_pinned, pin_idle_timeout, pin_sequences, on_disconnect, allow_list, require_tls, sni,
			only_listed_users, comment)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
		$16, coalesce($17, false), stored, coalesce($19, false), $20)
	RETURNING id INTO new_id;
	RETURN new_id;
END
$$;

CREATE FUNCTION @extschema@.alter_tenant(name text, database text DEFAULT NULL, pool_mode text DEFAULT NULL,
	pool_size integer DEFAULT NULL, max_clients integer DEFAULT NULL, query_wait_timeout interval DEFAULT NULL,
	client_idle_timeout interval DEFAULT NULL, idle_in_transaction_timeout interval DEFAULT NULL,
	server_idle_timeout interval DEFAULT NULL, server_lifetime interval DEFAULT NULL,
	cache_unnamed text DEFAULT NULL, max_pinned integer DEFAULT NULL, pin_idle_timeout interval DEFAULT NULL,
	pin_sequences boolean DEFAULT NULL, on_disconnect text DEFAULT NULL, allow_list cidr[] DEFAULT NULL,
	require_tls boolean DEFAULT NULL,
	sni text[] DEFAULT NULL, only_listed_users boolean DEFAULT NULL, comment text DEFAULT NULL,
	reset text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this bigint := @extschema@.lock_tenant($1);
	stored text[] := @extschema@.check_tenant($1, $2, $18);
	r text[] := coalesce($21, '{}');
	item text;
BEGIN
	PERFORM @extschema@.check_limits($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $15);
	FOREACH item IN ARRAY r LOOP
		IF item IS NULL OR item NOT IN ('database', 'pool_mode', 'pool_size', 'max_clients', 'query_wait_timeout',
				'client_idle_timeout', 'idle_in_transaction_timeout', 'server_idle_timeout', 'server_lifetime',
				'cache_unnamed', 'max_pinned', 'pin_idle_timeout', 'pin_sequences', 'on_disconnect', 'allow_list',
				'require_tls', 'sni',
				'only_listed_users', 'comment') THEN
			PERFORM @extschema@.bad_argument('reset', item, 'It holds names of settings of a tenant.');
		END IF;
	END LOOP;
	UPDATE @extschema@.tenant t SET
		database = CASE WHEN 'database' = ANY (r) THEN NULL ELSE coalesce($2, t.database) END,
		pool_mode = CASE WHEN 'pool_mode' = ANY (r) THEN NULL ELSE coalesce($3, t.pool_mode) END,
		pool_size = CASE WHEN 'pool_size' = ANY (r) THEN NULL ELSE coalesce($4, t.pool_size) END,
		max_clients = CASE WHEN 'max_clients' = ANY (r) THEN NULL ELSE coalesce($5, t.max_clients) END,
		query_wait_timeout =
			CASE WHEN 'query_wait_timeout' = ANY (r) THEN NULL ELSE coalesce($6, t.query_wait_timeout) END,
		client_idle_timeout =
			CASE WHEN 'client_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($7, t.client_idle_timeout) END,
		idle_in_transaction_timeout = CASE WHEN 'idle_in_transaction_timeout' = ANY (r) THEN NULL
			ELSE coalesce($8, t.idle_in_transaction_timeout) END,
		server_idle_timeout =
			CASE WHEN 'server_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($9, t.server_idle_timeout) END,
		server_lifetime = CASE WHEN 'server_lifetime' = ANY (r) THEN NULL ELSE coalesce($10, t.server_lifetime) END,
		cache_unnamed = CASE WHEN 'cache_unnamed' = ANY (r) THEN NULL ELSE coalesce($11, t.cache_unnamed) END,
		max_pinned = CASE WHEN 'max_pinned' = ANY (r) THEN NULL ELSE coalesce($12, t.max_pinned) END,
		pin_idle_timeout = CASE WHEN 'pin_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($13, t.pin_idle_timeout) END,
		pin_sequences = CASE WHEN 'pin_sequences' = ANY (r) THEN NULL ELSE coalesce($14, t.pin_sequences) END,
		on_disconnect = CASE WHEN 'on_disconnect' = ANY (r) THEN NULL ELSE coalesce($15, t.on_disconnect) END,
		allow_list = CASE WHEN 'allow_list' = ANY (r) THEN NULL ELSE coalesce($16, t.allow_list) END,
		require_tls = NOT 'require_tls' = ANY (r) AND coalesce($17, t.require_tls),
		sni = CASE WHEN 'sni' = ANY (r) THEN NULL ELSE coalesce(stored, t.sni) END,
		only_listed_users = NOT 'only_listed_users' = ANY (r) AND coalesce($19, t.only_listed_users),
		comment = CASE WHEN 'comment' = ANY (r) THEN NULL ELSE coalesce($20, t.comment) END
	WHERE t.id = this;
END
$$;

CREATE FUNCTION @extschema@.drop_tenant(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	this bigint := @extschema@.lock_tenant($1);
BEGIN
	IF $1 = 'default' THEN
		RAISE EXCEPTION 'tenant "default" cannot be dropped'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      HINT = 'To admit listed users only, use pgpool.alter_tenant(''default'', only_listed_users => true).';
	END IF;
	DELETE FROM @extschema@.tenant t WHERE t.id = this;
END
$$;

CREATE FUNCTION @extschema@.ban_tenant(name text, reason text DEFAULT NULL, duration interval DEFAULT NULL,
	until timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	this bigint := @extschema@.lock_tenant($1);
	ends timestamptz := coalesce($4, clock_timestamp() + $3, 'infinity');
BEGIN
	IF $3 IS NOT NULL AND $4 IS NOT NULL THEN
		PERFORM @extschema@.bad_argument('until', $4::text, 'Give either "duration" or "until".');
	END IF;
	IF $3 <= '0'::interval THEN
		PERFORM @extschema@.bad_argument('duration', $3::text, 'It is more than 0.');
	END IF;
	IF ends <= clock_timestamp() THEN
		PERFORM @extschema@.bad_argument('until', $4::text, 'It lies in the future.');
	END IF;
	UPDATE @extschema@.tenant t SET banned_until = ends, ban_reason = $2 WHERE t.id = this;
END
$$;

CREATE FUNCTION @extschema@.unban_tenant(name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	this bigint := @extschema@.lock_tenant($1);
BEGIN
	UPDATE @extschema@.tenant t SET banned_until = NULL, ban_reason = NULL WHERE t.id = this;
END
$$;

-- ---- users of a tenant -------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.set_user(tenant text, role_name name, pool_mode text DEFAULT NULL,
	pool_size integer DEFAULT NULL, max_clients integer DEFAULT NULL, query_wait_timeout interval DEFAULT NULL,
	client_idle_timeout interval DEFAULT NULL, idle_in_transaction_timeout interval DEFAULT NULL,
	server_idle_timeout interval DEFAULT NULL, server_lifetime interval DEFAULT NULL,
	cache_unnamed text DEFAULT NULL, max_pinned integer DEFAULT NULL, pin_idle_timeout interval DEFAULT NULL,
	pin_sequences boolean DEFAULT NULL, on_disconnect text DEFAULT NULL, server_password text DEFAULT NULL,
	reset text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	this bigint := @extschema@.lock_tenant($1);
	r text[] := coalesce($17, '{}');
	item text;
BEGIN
	IF $2 IS NULL OR $2 = '' THEN
		PERFORM @extschema@.bad_argument('role_name', $2, 'It is the name of a role.');
	END IF;
	PERFORM @extschema@.check_limits($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $15);
	IF octet_length($16) NOT BETWEEN 1 AND 255 THEN
		PERFORM @extschema@.bad_argument('server_password', '...', 'It has 1 to 255 bytes.');
	END IF;
	FOREACH item IN ARRAY r LOOP
		IF item IS NULL OR item NOT IN ('pool_mode', 'pool_size', 'max_clients', 'query_wait_timeout',
				'client_idle_timeout', 'idle_in_transaction_timeout', 'server_idle_timeout', 'server_lifetime',
				'cache_unnamed', 'max_pinned', 'pin_idle_timeout', 'pin_sequences', 'on_disconnect',
				'server_password') THEN
			PERFORM @extschema@.bad_argument('reset', item, 'It holds names of settings of a user.');
		END IF;
	END LOOP;
	IF NOT EXISTS (SELECT FROM pg_roles p WHERE p.rolname = $2) THEN
		RAISE WARNING 'role "%" does not exist yet', $2;
	END IF;
	INSERT INTO @extschema@.tenant_user AS u (tenant_id, role_name, pool_mode, pool_size, max_clients,
			query_wait_timeout, client_idle_timeout, idle_in_transaction_timeout, server_idle_timeout,
			server_lifetime, cache_unnamed, max_pinned, pin_idle_timeout, pin_sequences, on_disconnect)
	VALUES (this, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
	ON CONFLICT ON CONSTRAINT tenant_user_pkey DO UPDATE SET
		pool_mode = CASE WHEN 'pool_mode' = ANY (r) THEN NULL ELSE coalesce($3, u.pool_mode) END,
		pool_size = CASE WHEN 'pool_size' = ANY (r) THEN NULL ELSE coalesce($4, u.pool_size) END,
		max_clients = CASE WHEN 'max_clients' = ANY (r) THEN NULL ELSE coalesce($5, u.max_clients) END,
		query_wait_timeout =
			CASE WHEN 'query_wait_timeout' = ANY (r) THEN NULL ELSE coalesce($6, u.query_wait_timeout) END,
		client_idle_timeout =
			CASE WHEN 'client_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($7, u.client_idle_timeout) END,
		idle_in_transaction_timeout = CASE WHEN 'idle_in_transaction_timeout' = ANY (r) THEN NULL
			ELSE coalesce($8, u.idle_in_transaction_timeout) END,
		server_idle_timeout =
			CASE WHEN 'server_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($9, u.server_idle_timeout) END,
		server_lifetime = CASE WHEN 'server_lifetime' = ANY (r) THEN NULL ELSE coalesce($10, u.server_lifetime) END,
		cache_unnamed = CASE WHEN 'cache_unnamed' = ANY (r) THEN NULL ELSE coalesce($11, u.cache_unnamed) END,
		max_pinned = CASE WHEN 'max_pinned' = ANY (r) THEN NULL ELSE coalesce($12, u.max_pinned) END,
		pin_idle_timeout = CASE WHEN 'pin_idle_timeout' = ANY (r) THEN NULL ELSE coalesce($13, u.pin_idle_timeout) END,
		pin_sequences = CASE WHEN 'pin_sequences' = ANY (r) THEN NULL ELSE coalesce($14, u.pin_sequences) END,
		on_disconnect = CASE WHEN 'on_disconnect' = ANY (r) THEN NULL ELSE coalesce($15, u.on_disconnect) END;
	IF 'server_password' = ANY (r) THEN
		DELETE FROM @extschema@.tenant_secret s WHERE s.tenant_id = this AND s.role_name = $2;
	ELSIF $16 IS NOT NULL THEN
		INSERT INTO @extschema@.tenant_secret AS s (tenant_id, role_name, server_password) VALUES (this, $2, $16)
		ON CONFLICT ON CONSTRAINT tenant_secret_pkey DO UPDATE SET server_password = $16;
	END IF;
END
$$;

CREATE FUNCTION @extschema@.drop_user(tenant text, role_name name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	this bigint := @extschema@.lock_tenant($1);
BEGIN
	DELETE FROM @extschema@.tenant_user u WHERE u.tenant_id = this AND u.role_name = $2;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'tenant "%" has no settings for role %', $1, coalesce(quote_literal($2), 'NULL')
			USING ERRCODE = 'undefined_object';
	END IF;
END
$$;

-- ---- what runs ---------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.stat_workers(OUT worker integer, OUT pid integer, OUT state text,
	OUT started_at timestamptz, OUT starts bigint, OUT clients integer, OUT servers integer, OUT listens_tcp boolean,
	OUT listens_session boolean, OUT listens_unix boolean, OUT file_limit integer, OUT accepted bigint,
	OUT logins bigint, OUT login_failures bigint, OUT refused bigint, OUT cancels bigint, OUT cancels_delivered bigint,
	OUT problem text) RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_workers';

CREATE FUNCTION @extschema@.stat_tenants(OUT tenant text, OUT state text, OUT banned boolean, OUT clients bigint,
	OUT max_clients integer, OUT pools bigint, OUT clients_waiting bigint, OUT servers bigint, OUT transactions bigint,
	OUT queries bigint, OUT errors bigint, OUT logins bigint, OUT login_failures bigint, OUT refused bigint)
	RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_tenants';

CREATE FUNCTION @extschema@.stat_pools(OUT tenant text, OUT database text, OUT role text, OUT state text,
	OUT pool_mode text, OUT cache_unnamed text, OUT pool_size integer, OUT max_pinned integer, OUT clients bigint,
	OUT clients_waiting bigint, OUT longest_wait double precision, OUT servers bigint, OUT servers_active bigint,
	OUT servers_idle bigint, OUT servers_pinned bigint, OUT transactions bigint, OUT queries bigint, OUT bytes_received bigint,
	OUT bytes_sent bigint, OUT waits bigint, OUT wait_time double precision, OUT query_time double precision,
	OUT transaction_time double precision, OUT errors bigint, OUT wait_timeouts bigint, OUT server_logins bigint,
	OUT server_login_failures bigint, OUT statement_uses bigint, OUT statement_hits bigint,
	OUT statement_parses bigint, OUT statement_evictions bigint, OUT statement_hit_rate double precision)
	RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_pools';

CREATE FUNCTION @extschema@.stat_clients(OUT id bigint, OUT worker integer, OUT tenant text, OUT database text,
	OUT role text, OUT application_name text, OUT client_addr inet, OUT client_port integer, OUT state text,
	OUT server_pid integer, OUT pid integer, OUT pool_mode text, OUT pinned text, OUT ssl boolean, OUT ssl_version text,
	OUT ssl_cipher text, OUT connected_at timestamptz, OUT state_since timestamptz, OUT transactions bigint,
	OUT queries bigint, OUT commit_lsn pg_lsn) RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_clients';

CREATE FUNCTION @extschema@.stat_servers(OUT pid integer, OUT worker integer, OUT tenant text, OUT database text,
	OUT role text, OUT application_name text, OUT state text, OUT client_id bigint, OUT route text, OUT agent boolean,
	OUT connected_at timestamptz, OUT state_since timestamptz, OUT transactions bigint, OUT queries bigint)
	RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_servers';

CREATE FUNCTION @extschema@.stat_prepared(OUT worker integer, OUT name text, OUT text text, OUT parameter_types oid[],
	OUT tenants text[], OUT clients bigint, OUT servers bigint, OUT uses bigint, OUT hits bigint, OUT parses bigint,
	OUT evictions bigint, OUT bytes bigint) RETURNS SETOF record
LANGUAGE c STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'pgpool_stat_prepared';

CREATE VIEW @extschema@.pg_stat_workers AS SELECT * FROM @extschema@.stat_workers();
CREATE VIEW @extschema@.pg_stat_tenants AS SELECT * FROM @extschema@.stat_tenants();
-- the clients are only asked when some pool has pinned servers
CREATE VIEW @extschema@.pg_stat_pools AS
	WITH why AS MATERIALIZED (
		SELECT c.tenant, c.database, c.role, reason, count(*) AS clients
		  FROM @extschema@.stat_clients() c, unnest(string_to_array(c.pinned, ', ')) AS reason
		 WHERE c.pool_mode = 'transaction'
		 GROUP BY c.tenant, c.database, c.role, reason)
	SELECT p.*, CASE WHEN p.servers_pinned > 0 THEN
		(SELECT string_agg(format('%s (%s)', w.reason, w.clients), ', ' ORDER BY w.clients DESC, w.reason)
		   FROM why w WHERE w.tenant = p.tenant AND w.database = p.database AND w.role = p.role) END AS pinned
	  FROM @extschema@.stat_pools() p;
CREATE VIEW @extschema@.pg_stat_clients AS SELECT * FROM @extschema@.stat_clients();
CREATE VIEW @extschema@.pg_stat_servers AS SELECT * FROM @extschema@.stat_servers();
CREATE VIEW @extschema@.pg_stat_prepared AS SELECT * FROM @extschema@.stat_prepared();

CREATE FUNCTION @extschema@.reset_stats() RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgpool_reset_stats';

CREATE FUNCTION @extschema@.terminate_client(id bigint) RETURNS boolean
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgpool_terminate_client';

CREATE FUNCTION @extschema@.cancel_client(id bigint) RETURNS boolean
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgpool_cancel_client';

CREATE FUNCTION @extschema@.check_running(OUT item text, OUT status text, OUT message text, OUT remedy text)
	RETURNS SETOF record
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgpool_check';

CREATE FUNCTION @extschema@.preloaded() RETURNS boolean
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'pgpool_preloaded';

CREATE FUNCTION @extschema@.check(OUT item text, OUT status text, OUT message text, OUT remedy text)
	RETURNS SETOF record
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	wanted bigint;
	room bigint;
BEGIN
	RETURN QUERY SELECT * FROM @extschema@.check_running();
	IF NOT @extschema@.preloaded() THEN
		RETURN;
	END IF;
	room := current_setting('pgpool.max_server_connections')::bigint;
	IF room = 0 THEN
		room := current_setting('max_connections')::bigint
			- current_setting('superuser_reserved_connections')::bigint
			- coalesce(current_setting('reserved_connections', true)::bigint, 0) - 3;
	END IF;
	SELECT sum(coalesce(t.pool_size, current_setting('pgpool.default_pool_size')::bigint)) INTO wanted
	  FROM @extschema@.tenant t;
	item := 'pool sizes';
	IF wanted > room THEN
		status := 'warning';
		message := format('one pool of each tenant makes %s server connections, but there are %s', wanted, room);
		remedy := 'Raise max_connections, or lower pool_size of tenants or pgpool.default_pool_size.';
	ELSE
		status := 'ok';
		message := format('one pool of each tenant makes %s of %s server connections', wanted, room);
		remedy := NULL;
	END IF;
	RETURN NEXT;
END
$$;

-- ---- privileges --------------------------------------------------------------------------------------

REVOKE ALL ON SCHEMA @extschema@ FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA @extschema@ FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA @extschema@ FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @extschema@ FROM PUBLIC;

GRANT USAGE ON SCHEMA @extschema@ TO pg_monitor, pgpool_admin;
GRANT SELECT ON @extschema@.pg_stat_workers, @extschema@.pg_stat_tenants, @extschema@.pg_stat_pools,
	@extschema@.pg_stat_clients, @extschema@.pg_stat_servers, @extschema@.pg_stat_prepared, @extschema@.tenant,
	@extschema@.tenant_user TO pg_monitor, pgpool_admin;
-- a function in a view runs with the rights of who reads the view
GRANT EXECUTE ON FUNCTION @extschema@.stat_workers(), @extschema@.stat_tenants(), @extschema@.stat_pools(),
	@extschema@.stat_clients(), @extschema@.stat_servers(), @extschema@.stat_prepared() TO pg_monitor, pgpool_admin;
GRANT EXECUTE ON FUNCTION
	@extschema@.create_tenant(text, text, text, integer, integer, interval, interval, interval, interval, interval,
		text, integer, interval, boolean, text, cidr[], boolean, text[], boolean, text),
	@extschema@.alter_tenant(text, text, text, integer, integer, interval, interval, interval, interval, interval,
		text, integer, interval, boolean, text, cidr[], boolean, text[], boolean, text, text[]),
	@extschema@.drop_tenant(text), @extschema@.ban_tenant(text, text, interval, timestamptz),
	@extschema@.unban_tenant(text),
	@extschema@.set_user(text, name, text, integer, integer, interval, interval, interval, interval, interval, text,
		integer, interval, boolean, text, text, text[]),
	@extschema@.drop_user(text, name), @extschema@.reset_stats(), @extschema@.terminate_client(bigint),
	@extschema@.cancel_client(bigint), @extschema@.check() TO pgpool_admin;

-- ---- comments ----------------------------------------------------------------------------------------

COMMENT ON TABLE @extschema@.tenant IS 'settings of tenants; NULL takes the default of the setting pgpool.*';
COMMENT ON COLUMN @extschema@.tenant.name IS 'as in role.name of a user name, or the startup option pgpool.tenant';
COMMENT ON COLUMN @extschema@.tenant.database IS
	'the only database of the tenant, which owns it; NULL: the client''s choice among those that no tenant owns';
COMMENT ON COLUMN @extschema@.tenant.pool_size IS 'servers of each pool (role and database), over all workers';
COMMENT ON COLUMN @extschema@.tenant.max_clients IS 'clients of the tenant over all workers; 0: no limit';
COMMENT ON COLUMN @extschema@.tenant.cache_unnamed IS
	'what serves unnamed statements: off (the server), custom or generic (a shared prepared statement)';
COMMENT ON COLUMN @extschema@.tenant.max_pinned IS
	'servers of a pool that clients may keep between transactions; 0: pool_size less one, at least 1';
COMMENT ON COLUMN @extschema@.tenant.pin_idle_timeout IS
	'idle time of a client that keeps its server between transactions; 0: off';
COMMENT ON COLUMN @extschema@.tenant.pin_sequences IS
	'a client that used a sequence keeps its server, so that currval() and lastval() go on';
COMMENT ON COLUMN @extschema@.tenant.on_disconnect IS
	'what becomes of a statement whose client left: finish (as in PostgreSQL) or cancel';
COMMENT ON COLUMN @extschema@.tenant.allow_list IS 'networks that may connect by TCP; NULL: all';
COMMENT ON COLUMN @extschema@.tenant.require_tls IS 'refuses clients that connect by TCP without TLS';
COMMENT ON COLUMN @extschema@.tenant.sni IS 'host names of TLS clients that lead to the tenant, in lower case';
COMMENT ON COLUMN @extschema@.tenant.only_listed_users IS 'admits roles of pgpool.tenant_user only';
COMMENT ON COLUMN @extschema@.tenant.banned_until IS 'no client is admitted until then';
COMMENT ON TABLE @extschema@.tenant_user IS 'settings of a role in a tenant; NULL takes the tenant''s';
COMMENT ON TABLE @extschema@.tenant_secret IS
	'stored passwords of roles; superusers and roles with BYPASSRLS can read them';
COMMENT ON COLUMN @extschema@.tenant_secret.server_password IS
	'password for the login to the server where the client gives none';
COMMENT ON FUNCTION @extschema@.restore_default_tenant() IS 'lets a dump restore the tenant "default"';
COMMENT ON FUNCTION @extschema@.config_changed() IS 'trigger: the manager looks again at COMMIT';
COMMENT ON FUNCTION @extschema@.bad_argument(text, text, text) IS 'raises the error for a bad argument';
COMMENT ON FUNCTION @extschema@.check_limits(text, integer, integer, interval, interval, interval, interval, interval,
	text, integer, interval, text) IS 'checks arguments common to tenants and users';
COMMENT ON FUNCTION @extschema@.check_tenant(text, text, text[]) IS 'checks arguments of a tenant';
COMMENT ON FUNCTION @extschema@.lock_tenant(text) IS 'locks the row of a tenant, or raises an error';
COMMENT ON FUNCTION @extschema@.create_tenant(text, text, text, integer, integer, interval, interval, interval,
	interval, interval, text, integer, interval, boolean, text, cidr[], boolean, text[], boolean, text)
	IS 'makes a tenant; returns its id';
COMMENT ON FUNCTION @extschema@.alter_tenant(text, text, text, integer, integer, interval, interval, interval,
	interval, interval, text, integer, interval, boolean, text, cidr[], boolean, text[], boolean, text, text[])
	IS 'changes settings of a tenant; NULL leaves one as it is, "reset" names those that go back to the default';
COMMENT ON FUNCTION @extschema@.drop_tenant(text) IS 'drops a tenant; its clients are told to leave';
COMMENT ON FUNCTION @extschema@.ban_tenant(text, text, interval, timestamptz)
	IS 'admits no client of the tenant for a duration, until a time, or until unban_tenant()';
COMMENT ON FUNCTION @extschema@.unban_tenant(text) IS 'ends a ban';
COMMENT ON FUNCTION @extschema@.set_user(text, name, text, integer, integer, interval, interval, interval, interval,
	interval, text, integer, interval, boolean, text, text, text[])
	IS 'lists a role in a tenant, or changes its settings; NULL leaves one as it is';
COMMENT ON FUNCTION @extschema@.drop_user(text, name) IS 'removes a role and its settings from a tenant';
COMMENT ON FUNCTION @extschema@.stat_workers() IS 'rows of pg_stat_workers';
COMMENT ON FUNCTION @extschema@.stat_tenants() IS 'rows of pg_stat_tenants';
COMMENT ON FUNCTION @extschema@.stat_pools() IS 'rows of pg_stat_pools';
COMMENT ON FUNCTION @extschema@.stat_clients() IS 'rows of pg_stat_clients';
COMMENT ON FUNCTION @extschema@.stat_servers() IS 'rows of pg_stat_servers';
COMMENT ON FUNCTION @extschema@.stat_prepared() IS 'rows of pg_stat_prepared';
COMMENT ON VIEW @extschema@.pg_stat_workers IS 'worker processes; counters since the last reset_stats()';
COMMENT ON VIEW @extschema@.pg_stat_tenants IS 'tenants in use; counters since the last reset_stats()';
COMMENT ON VIEW @extschema@.pg_stat_pools IS 'pools in use; times in milliseconds, counters since the last reset_stats()';
COMMENT ON VIEW @extschema@.pg_stat_clients IS 'clients connected now';
COMMENT ON VIEW @extschema@.pg_stat_servers IS 'server connections open now';
COMMENT ON VIEW @extschema@.pg_stat_prepared IS 'shared prepared statements of each worker';
COMMENT ON FUNCTION @extschema@.reset_stats() IS 'starts all counters at zero';
COMMENT ON FUNCTION @extschema@.terminate_client(bigint) IS 'disconnects a client by its id of pg_stat_clients';
COMMENT ON FUNCTION @extschema@.cancel_client(bigint) IS
	'cancels the running query of a client, or its wait for a server';
COMMENT ON FUNCTION @extschema@.check_running() IS 'part of check(): processes, ports, limits, logins';
COMMENT ON FUNCTION @extschema@.preloaded() IS 'true if the library is preloaded';
COMMENT ON FUNCTION @extschema@.check() IS 'what is wrong with the set-up, and how to mend it';
