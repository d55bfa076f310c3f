"""The ordinary life of asyncpg with its default settings, as TAP. The server is named by the variables of libpq.

asyncpg prepares everything (a cache of 100 statements), sends and reads values in binary, looks types up in the
catalog, and its pool resets a connection that comes back.
"""
import asyncio
import datetime
import decimal
import ipaddress
import uuid

import asyncpg

from tap import LONG, ODD, claim, run, same


class Connected:
    """async with Connected(...) as c: a connection of its own for a claim"""

    def __init__(self, **options):
        self.options = options

    async def __aenter__(self):
        self.connection = await asyncpg.connect(**self.options)
        return self.connection

    async def __aexit__(self, *_):
        await self.connection.close()


async def refused(sqlstate, awaitable):
    try:
        await awaitable
    except asyncpg.PostgresError as e:
        same(e.sqlstate, sqlstate)
        return e
    raise AssertionError('no error, expected ' + sqlstate)


async def ids(c):
    return [r[0] for r in await c.fetch('SELECT id FROM asyncpg_life ORDER BY id')]


@claim('a script of several statements')
async def _():
    async with Connected() as c:
        await c.execute('''
            DROP TABLE IF EXISTS asyncpg_life, asyncpg_alter;
            DROP TYPE IF EXISTS asyncpg_pair, asyncpg_mood;
            CREATE TABLE asyncpg_life (id int PRIMARY KEY, name text, data bytea);
            CREATE TYPE asyncpg_pair AS (a int, b text);
            CREATE TYPE asyncpg_mood AS ENUM ('sad', 'ok')''')


@claim('types and NULL come back as they went')
async def _():
    values = {
        'int': 1, 'bigint': -2 ** 40, 'numeric': decimal.Decimal('12345678901234567890.0001'), 'float8': 2.5, 'bool': True,
        'text': ODD, 'bytea': b'\x00\xff\\', 'date': datetime.date(2024, 2, 29), 'uuid': uuid.UUID(int=7),
        'timestamptz': datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone.utc),
        'interval': datetime.timedelta(days=3, seconds=4), 'inet': ipaddress.ip_address('10.0.0.1'), 'jsonb': '{"a": [1, null]}',
        'int[]': [1, None, 3], 'text[]': ['a', None, '{"'], 'asyncpg_pair': (1, ODD), 'asyncpg_mood': 'ok', 'int4': None,
        'asyncpg_pair[]': [(1, 'x'), None],
    }
    async with Connected() as c:
        for type_, value in values.items():
            for _ in range(3):
                same(await c.fetchval('SELECT $1::' + type_, value), value)
        same(list(await c.fetchrow('SELECT ' + ', '.join('$%d::%s' % (i + 1, t) for i, t in enumerate(values)), *values.values())),
             list(values.values()))


@claim('a megabyte comes back, also from a table')
async def _():
    async with Connected() as c:
        same(tuple(await c.fetchrow('SELECT $1::text, length($1)', LONG)), (LONG, len(LONG)))
        await c.execute('INSERT INTO asyncpg_life VALUES (1000, $1, $2)', LONG, LONG.encode())
        same(tuple(await c.fetchrow('DELETE FROM asyncpg_life RETURNING name, data')), (LONG, LONG.encode()))


@claim('the cache of statements, and more than it holds')
async def _():
    async with Connected() as c:
        for turn in range(3):
            for i in range(150):
                same(await c.fetchval('SELECT $1::int + %d' % i, turn), turn + i)
        async with c.transaction():
            for i in range(150):
                same(await c.fetchval('SELECT $1::int + %d' % i, 1), 1 + i)


@claim('a prepared statement that stays, with attributes and explain')
async def _():
    async with Connected() as c:
        statement = await c.prepare('SELECT $1::int AS a, $2::text AS b')
        same([a.name for a in statement.get_attributes()], ['a', 'b'])
        same([p.name for p in statement.get_parameters()], ['int4', 'text'])
        for i in range(30):
            same(tuple(await statement.fetchrow(i, ODD)), (i, ODD))
        same(await statement.fetchval(7, 'x', column=1), 'x')


@claim('commit, rollback and savepoints')
async def _():
    async with Connected() as c:
        async with c.transaction():
            await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 1)
        lost = c.transaction()
        await lost.start()
        await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 2)
        await lost.rollback()
        async with c.transaction(isolation='serializable'):
            await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 3)
            try:
                async with c.transaction():
                    await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 4)
                    await c.fetchval('SELECT 1/$1::int', 0)
            except asyncpg.DivisionByZeroError:
                pass
            async with c.transaction():
                await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 5)
            same(await c.fetchval("SELECT current_setting('transaction_isolation')"), 'serializable')
        same(await ids(c), [1, 3, 5])
        same(await c.execute('DELETE FROM asyncpg_life'), 'DELETE 3')


@claim('cursors in pieces')
async def _():
    async with Connected() as c:
        async with c.transaction():
            got = [r[0] async for r in c.cursor('SELECT generate_series(1, $1::int)', 1000, prefetch=7)]
            same(got, list(range(1, 1001)))
            cursor = await c.cursor('SELECT generate_series(1, 100)')
            same([r[0] for r in await cursor.fetch(3)], [1, 2, 3])
            await cursor.forward(50)
            same((await cursor.fetchrow())[0], 54)


@claim('COPY in and out, as binary and text, failing and rolled back')
async def _():
    lines = [(i, ODD + str(i), bytes([i % 256])) for i in range(2000)]
    async with Connected() as c:
        async def out(into):
            got.append(into)
        same(await c.copy_records_to_table('asyncpg_life', records=lines), 'COPY 2000')
        same([tuple(r) for r in await c.fetch('SELECT * FROM asyncpg_life ORDER BY id')], lines)
        got = []
        await c.copy_from_query('SELECT id FROM asyncpg_life WHERE id < $1 ORDER BY id', 3, output=out)
        same(b''.join(got), b'0\n1\n2\n')
        await c.execute('DELETE FROM asyncpg_life')
        await refused('23505', c.copy_records_to_table('asyncpg_life', records=[lines[0], lines[0]]))
        lost = c.transaction()
        await lost.start()
        await c.copy_records_to_table('asyncpg_life', records=lines)
        await lost.rollback()
        same(await ids(c), [])


@claim('executemany, also when one of them fails')
async def _():
    async with Connected() as c:
        await c.executemany('INSERT INTO asyncpg_life VALUES ($1, $2)', [(i, str(i)) for i in range(2000)])
        await refused('23505', c.executemany('INSERT INTO asyncpg_life VALUES ($1, $2)', [(5000, 'x'), (0, 'y'), (6000, 'z')]))
        same(await c.execute('DELETE FROM asyncpg_life'), 'DELETE 2000')


@claim('errors outside and in a transaction; the connection is usable')
async def _():
    async with Connected() as c:
        await c.execute('INSERT INTO asyncpg_life VALUES ($1)', 1)
        for _ in range(8):
            e = await refused('23505', c.execute('INSERT INTO asyncpg_life VALUES ($1)', 1))
        same((e.constraint_name, e.detail), ('asyncpg_life_pkey', 'Key (id)=(1) already exists.'))
        same((await refused('42601', c.fetch('SELEKT 1'))).position, '1')
        transaction = c.transaction()
        await transaction.start()
        await refused('42P01', c.fetch('SELECT * FROM nothing_here WHERE a = $1', 1))
        await refused('25P02', c.fetch('SELECT 1'))
        await transaction.rollback()
        same(await c.execute('DELETE FROM asyncpg_life'), 'DELETE 1')


@claim('a timeout and a task that is cancelled end the statement, and not the next')
async def _():
    async with Connected() as c:
        try:
            await c.fetch('SELECT pg_sleep($1)', 10, timeout=0.3)
            raise AssertionError('no timeout')
        except asyncio.TimeoutError:
            pass
        same(await c.fetchval('SELECT 1'), 1)
        task = asyncio.ensure_future(c.execute('SELECT pg_sleep(10)'))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(10):
            same(await c.fetchval('SELECT 1'), 1)


@claim('statement_timeout and application_name as server settings')
async def _():
    async with Connected(server_settings={'statement_timeout': '200', 'application_name': 'life'}) as c:
        for _ in range(2):
            await refused('57014', c.fetch('SELECT pg_sleep(10)'))
        same(await c.fetchval("SELECT current_setting('statement_timeout') || current_setting('application_name')"), '200mslife')


@claim('notices')
async def _():
    async with Connected() as c:
        got = []
        c.add_log_listener(lambda _, message: got.append((message.severity, message.message)))
        await c.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'Zürich'; END $$")
        await asyncio.sleep(0)
        same(got, [('NOTICE', 'first 1'), ('WARNING', 'Zürich')])


@claim('a statement whose table was altered, on a new connection')
async def _():
    async with Connected() as c:
        await c.execute('DROP TABLE IF EXISTS asyncpg_alter; CREATE TABLE asyncpg_alter AS SELECT 1 AS a')
        async with Connected() as old:
            for _ in range(5):
                same(tuple(await old.fetchrow('SELECT * FROM asyncpg_alter')), (1,))
        await c.execute('ALTER TABLE asyncpg_alter ADD b int DEFAULT 2')
        async with Connected() as new:
            for _ in range(5):
                same(tuple(await new.fetchrow('SELECT * FROM asyncpg_alter')), (1, 2))
        await c.execute('DROP TABLE asyncpg_alter')


@claim('a statement whose table was altered, on the connection that had it')
async def _():
    async with Connected() as c, Connected() as old:
        await c.execute('DROP TABLE IF EXISTS asyncpg_alter; CREATE TABLE asyncpg_alter AS SELECT 1 AS a')
        for _ in range(5):
            same(tuple(await old.fetchrow('SELECT * FROM asyncpg_alter')), (1,))
        await c.execute('ALTER TABLE asyncpg_alter ADD b int DEFAULT 2')
        for _ in range(5):
            same(tuple(await old.fetchrow('SELECT * FROM asyncpg_alter')), (1, 2))
        await c.execute('DROP TABLE asyncpg_alter')


@claim('a pool whose tasks use the same texts')
async def _():
    async with asyncpg.create_pool(min_size=8, max_size=8) as pool:
        async def work(n):
            for i in range(30):
                async with pool.acquire() as c:
                    same(tuple(await c.fetchrow('SELECT $1::int, $2::text', n, str(i))), (n, str(i)))
                    transaction = c.transaction()
                    await transaction.start()
                    await c.execute('INSERT INTO asyncpg_life VALUES ($1, $2)', n * 1000 + i, 'pool')
                    await (transaction.rollback() if i % 2 else transaction.commit())
        await asyncio.gather(*[work(n) for n in range(16)])
        same(await pool.execute('DELETE FROM asyncpg_life'), 'DELETE 240')


run()
