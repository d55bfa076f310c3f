-- What the statements of statements.txt name, in the database of a client. Run by test/tap/155_grammar.pl.
CREATE SCHEMA s;
CREATE TABLE t (id integer PRIMARY KEY, name text, at timestamptz DEFAULT now());
CREATE TABLE orders (id integer, t_id integer, amount numeric);
CREATE TABLE "Ünï" (id integer);
CREATE UNLOGGED TABLE u (id integer);
CREATE SEQUENCE sq;
CREATE FOREIGN DATA WRAPPER nobody;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nobody;
CREATE FOREIGN TABLE ft (id integer) SERVER nowhere;
CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id;
CREATE TABLE parent (id integer) PARTITION BY RANGE (id);
CREATE TABLE child PARTITION OF parent FOR VALUES FROM (0) TO (10);
CREATE TABLE parent_of_unlogged (id integer);
CREATE UNLOGGED TABLE unlogged_child () INHERITS (parent_of_unlogged);

CREATE FUNCTION f_volatile(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION f_stable(integer) RETURNS integer LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION f_immutable(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION f_declared(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION f_internal(integer, integer) RETURNS integer LANGUAGE internal IMMUTABLE AS 'int4pl';
CREATE FUNCTION f_default(integer DEFAULT nextval('sq')) RETURNS integer LANGUAGE internal IMMUTABLE AS 'int4up';
CREATE FUNCTION s.f_schema(integer) RETURNS integer LANGUAGE internal IMMUTABLE AS 'int4up';
CREATE FUNCTION public.f_schema(text) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION public.initcap(integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION f_attribute(t) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION f_pair(integer, integer) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION f_true(integer) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN NULL; END';

CREATE OPERATOR @#@ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = f_pair);
CREATE OPERATOR @+@ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = f_internal);
CREATE OPERATOR s.|| (LEFTARG = integer, RIGHTARG = integer, FUNCTION = f_internal);
CREATE AGGREGATE agg_bad (integer) (SFUNC = f_pair, STYPE = integer, INITCOND = '0');
CREATE AGGREGATE agg_good (integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0');

CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE wrap AS (a integer);
CREATE DOMAIN dom_good AS integer CHECK (VALUE > 0);
CREATE DOMAIN dom_bad AS integer CHECK (f_true(VALUE));
CREATE DOMAIN dom_of_bad AS dom_bad;
CREATE TYPE comp_bad AS (a integer, b dom_bad);
CREATE FUNCTION f_cast(integer) RETURNS wrap LANGUAGE plpgsql AS 'BEGIN RETURN ROW(1); END';
CREATE CAST (integer AS wrap) WITH FUNCTION f_cast(integer);

CREATE VIEW v_plain AS SELECT id, lower(name) AS name FROM t;
CREATE VIEW v_next AS SELECT nextval('sq');
CREATE VIEW v_of_view AS SELECT * FROM v_next;
CREATE VIEW s.v_of_schema AS SELECT * FROM public.v_of_view;
CREATE VIEW v_volatile AS SELECT f_volatile(id) FROM t;
CREATE VIEW v_subquery AS SELECT (SELECT max(f_volatile(o.id)) FROM orders o) FROM t;
CREATE VIEW v_operator AS SELECT id @#@ id AS x FROM t;
CREATE VIEW v_domain AS SELECT id::dom_bad FROM t;
CREATE VIEW v_session AS SELECT pg_backend_pid();
CREATE VIEW v_unlogged AS SELECT * FROM u;
CREATE VIEW v_locks AS SELECT id FROM t FOR UPDATE;
CREATE VIEW v_setting AS SELECT * FROM t WHERE name = current_setting('app.tenant', true);
CREATE VIEW v_other_setting AS SELECT current_setting('data_directory');
CREATE VIEW v_stable AS SELECT f_stable(id) FROM t;

CREATE TABLE p_good (id integer, tenant text);
ALTER TABLE p_good ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON p_good USING (tenant = current_setting('app.tenant', true));
CREATE TABLE p_bad (id integer);
ALTER TABLE p_bad ENABLE ROW LEVEL SECURITY;
CREATE POLICY who ON p_bad USING (f_true(id));
