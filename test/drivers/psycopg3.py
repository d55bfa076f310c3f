"""The ordinary life of psycopg 3 with its default settings, as TAP. The server is named by the variables of libpq.

Past prepare_threshold (5) psycopg prepares what it executes, and past prepared_max (100) it deallocates; executemany()
and pipeline() send batches; the pool keeps connections that threads share.
"""
import asyncio
import datetime
import decimal
import ipaddress
import threading
import uuid

import psycopg
import psycopg_pool
from psycopg.types.json import Jsonb

from tap import LONG, ODD, claim, fails, run, same

connect = psycopg.connect
connect('').execute('''
    DROP TABLE IF EXISTS psycopg3, psycopg3_alter;
    CREATE TABLE psycopg3 (id int PRIMARY KEY, name text, data bytea)''').connection.commit()


def rows(connection, where='true'):
    return connection.execute('SELECT id, name FROM psycopg3 WHERE %s ORDER BY id' % where).fetchall()


@claim('types and NULL come back as they went, as text and binary')
def _():
    values = [
        1, -2 ** 40, decimal.Decimal('12345678901234567890.0001'), 2.5, True, ODD, b'\x00\xff\\', None,
        datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4), uuid.UUID(int=7), ipaddress.ip_address('10.0.0.1'), [1, None, 3], ['a', None, '{"'],
    ]
    with connect('') as c:
        c.execute("SET LOCAL TimeZone = 'UTC'")
        for binary in False, True:
            row = c.cursor(binary=binary).execute('SELECT ' + ', '.join(['%s'] * len(values)) + '::text[]', values).fetchone()
            same(list(row), values)
        same(c.execute('SELECT %s', [Jsonb({'a': [1, None, ODD]})]).fetchone(), ({'a': [1, None, ODD]},))


@claim('a megabyte comes back, also from a table')
def _():
    with connect('') as c:
        same(c.execute('SELECT %s, length(%s)', [LONG, LONG]).fetchone(), (LONG, len(LONG)))
        c.execute('INSERT INTO psycopg3 VALUES (1000, %b, %b)', [LONG, LONG.encode()])
        same(c.execute('SELECT name, data FROM psycopg3 WHERE id = 1000').fetchone(), (LONG, LONG.encode()))
        c.rollback()
        same(rows(c), [])


@claim('statements past prepare_threshold, in a transaction each and in one')
def _():
    with connect('', autocommit=True) as c:
        for i in range(20):
            same(c.execute('SELECT %s::int + 1, %s', [i, str(i)]).fetchone(), (i + 1, str(i)))
        with c.transaction():
            for i in range(20):
                same(c.execute('SELECT %s::int + 1, %s', [i, str(i)]).fetchone(), (i + 1, str(i)))
        same(c.execute('SELECT %s', [1], prepare=True).fetchone(), (1,))


@claim('statements past prepared_max are forgotten and prepared anew')
def _():
    with connect('', autocommit=True) as c:
        for turn in range(2):
            for i in range(120):
                same(c.execute('SELECT %%s::int + %d' % i, [turn], prepare=True).fetchone(), (turn + i,))


@claim('statements past prepared_max in a transaction')
def _():
    with connect('') as c:
        for turn in range(2):
            for i in range(120):
                same(c.execute('SELECT %%s::int - %d' % i, [turn], prepare=True).fetchone(), (turn - i,))


@claim('commit, rollback and savepoints')
def _():
    with connect('') as c:
        c.execute("INSERT INTO psycopg3 VALUES (1, 'kept')")
        c.commit()
        c.execute("INSERT INTO psycopg3 VALUES (2, 'lost')")
        c.rollback()
        same(rows(c), [(1, 'kept')])
        c.commit()
        with c.transaction():
            c.execute("INSERT INTO psycopg3 VALUES (3, 'outer')")
            try:
                with c.transaction():
                    c.execute("INSERT INTO psycopg3 VALUES (4, 'inner')")
                    c.execute('SELECT 1/0')
            except psycopg.errors.DivisionByZero:
                pass
            with c.transaction():
                c.execute("INSERT INTO psycopg3 VALUES (5, 'inner')")
            with c.transaction(force_rollback=True):
                c.execute("INSERT INTO psycopg3 VALUES (6, 'inner')")
        same(rows(c), [(1, 'kept'), (3, 'outer'), (5, 'inner')])
        c.execute('DELETE FROM psycopg3')


@claim('isolation level, read only and deferrable of the connection')
def _():
    with connect('') as c:
        c.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        c.read_only = True
        show = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        same(c.execute(show).fetchone(), ('serializable', 'on'))
        fails('25006', c.execute, "INSERT INTO psycopg3 VALUES (1, 'no')")
        c.rollback()
        c.isolation_level = c.read_only = None
        same(c.execute(show).fetchone(), ('read committed', 'off'))


@claim('a server-side cursor in pieces, and one that scrolls')
def _():
    with connect('') as c:
        with c.cursor('pieces') as cursor:
            cursor.itersize = 7
            cursor.execute('SELECT generate_series(1, %s)', [1000])
            same([n for n, in cursor], list(range(1, 1001)))
        with c.cursor('scrolls', scrollable=True) as cursor:
            cursor.execute('SELECT generate_series(1, 100)')
            same(cursor.fetchmany(2), [(1,), (2,)])
            cursor.scroll(50)
            same(cursor.fetchone(), (53,))
            cursor.scroll(0, mode='absolute')
            same(len(cursor.fetchall()), 100)


@claim('COPY in and out, as text and binary, rolled back and failing')
def _():
    lines = [(i, ODD + str(i), bytes([i % 256])) for i in range(2000)]
    with connect('') as c:
        for form, types in ('', None), ('(FORMAT binary)', ['int4', 'text', 'bytea']):
            with c.cursor().copy('COPY psycopg3 FROM STDIN ' + form) as copy:
                if types:
                    copy.set_types(types)
                for line in lines:
                    copy.write_row(line)
            with c.cursor().copy('COPY (SELECT * FROM psycopg3 ORDER BY id) TO STDOUT ' + form) as copy:
                copy.set_types(['int4', 'text', 'bytea'])
                same(list(copy.rows()), lines)
            c.rollback()

        def wrong():
            with c.cursor().copy('COPY psycopg3 FROM STDIN') as copy:
                copy.write('1\tone\t\\N\nx\ttwo\t\\N\n')

        def stopped():
            with c.cursor().copy('COPY psycopg3 FROM STDIN') as copy:
                copy.write('1\tone\t\\N\n')
                raise ValueError('enough')
        fails('22P02', wrong)
        c.rollback()
        try:
            stopped()
            raise AssertionError('no error')
        except (ValueError, psycopg.errors.QueryCanceled):  # the former since psycopg 3.2
            pass
        c.rollback()
        same(rows(c), [])


@claim('executemany, with and without results')
def _():
    with connect('') as c, c.cursor() as cursor:
        cursor.executemany('INSERT INTO psycopg3 VALUES (%s, %s)', [(i, str(i)) for i in range(500)])
        same(cursor.rowcount, 500)
        cursor.executemany('DELETE FROM psycopg3 WHERE id >= %s RETURNING id', [(499,), (498,)], returning=True)
        got = [cursor.fetchall()]
        while cursor.nextset():
            got.append(cursor.fetchall())
        same(got, [[(499,)], [(498,)]])
        c.rollback()


@claim('pipelines, with an error in the middle')
def _():
    with connect('', autocommit=True) as c:
        with c.pipeline():
            cursors = [c.execute('SELECT %s::int * 2', [i]) for i in range(300)]
            same([cursor.fetchone()[0] for cursor in cursors], [i * 2 for i in range(300)])
        # the error comes with whatever looks at results first
        try:
            with c.pipeline():
                c.execute("INSERT INTO psycopg3 VALUES (1, 'lost')")
                c.execute('SELECT 1/0')
                c.execute("INSERT INTO psycopg3 VALUES (2, 'skipped')")
            raise AssertionError('no error')
        except psycopg.errors.DivisionByZero:
            pass
        same(rows(c), [])
        with c.pipeline(), c.transaction():
            for i in range(50):
                c.execute('INSERT INTO psycopg3 VALUES (%s, %s)', [i, 'pipe'])
        same(c.execute('DELETE FROM psycopg3').rowcount, 50)


@claim('errors outside and in a transaction; the connection is usable')
def _():
    with connect('', autocommit=True) as c:
        c.execute("INSERT INTO psycopg3 VALUES (1, 'one')")
        e = fails('23505', c.execute, "INSERT INTO psycopg3 VALUES (1, 'two')")
        same((e.diag.constraint_name, e.diag.message_detail), ('psycopg3_pkey', 'Key (id)=(1) already exists.'))
        for _ in range(8):
            fails('23505', c.execute, 'INSERT INTO psycopg3 VALUES (%s, %s)', [1, 'two'])
        same(fails('42601', c.execute, 'SELEKT 1').diag.statement_position, '1')
        same(rows(c), [(1, 'one')])
    with connect('') as c:
        c.execute('SELECT 1')
        fails('42P01', c.execute, 'SELECT * FROM nothing_here')
        fails('25P02', c.execute, 'SELECT 1')
        c.rollback()
        same(rows(c), [(1, 'one')])
        c.execute('DELETE FROM psycopg3')


@claim('cancel() ends the statement, and not the next')
def _():
    with connect('', autocommit=True) as c:
        timer = threading.Timer(0.3, c.cancel)
        timer.start()
        fails('57014', c.execute, 'SELECT pg_sleep(10)')
        timer.join()
        same(c.execute('SELECT 1').fetchone(), (1,))


@claim('statement_timeout from the connection string')
def _():
    with connect("options='-c statement_timeout=200'", autocommit=True) as c:
        for _ in range(2):
            fails('57014', c.execute, 'SELECT pg_sleep(10)')
        same(c.execute('SELECT current_setting(%s)', ['statement_timeout']).fetchone(), ('200ms',))


@claim('notices')
def _():
    with connect('', autocommit=True) as c:
        got = []
        c.add_notice_handler(lambda d: got.append((d.severity_nonlocalized, d.message_primary)))
        c.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'Zürich'; END $$")
        same(got, [('NOTICE', 'first 1'), ('WARNING', 'Zürich')])


@claim('settings that PostgreSQL reports follow the connection')
def _():
    with connect('', autocommit=True) as c:
        c.execute("SET client_encoding = 'LATIN1'")
        c.execute("SET TimeZone = 'Asia/Tokyo'")
        for _ in range(30):
            same(c.execute("SELECT 'Zürich', current_setting('TimeZone')").fetchone(), ('Zürich', 'Asia/Tokyo'))
        same((c.info.encoding, str(c.info.timezone)), ('iso8859-1', 'Asia/Tokyo'))


@claim('a statement whose table was altered, on a new connection')
def _():
    text = 'SELECT * FROM psycopg3_alter WHERE a = %s'
    with connect('', autocommit=True) as c:
        c.execute('CREATE TABLE psycopg3_alter AS SELECT 1 AS a')
        with connect('', autocommit=True) as old:
            for _ in range(10):
                same(old.execute(text, [1]).fetchone(), (1,))
        c.execute('ALTER TABLE psycopg3_alter ADD b int DEFAULT 2')
        with connect('', autocommit=True) as new:
            for _ in range(10):
                same(new.execute(text, [1]).fetchone(), (1, 2))
        c.execute('DROP TABLE psycopg3_alter')


@claim('asynchronous connections at the same time')
async def _():
    async def one(n):
        async with await psycopg.AsyncConnection.connect('') as c:
            for i in range(20):
                async with c.transaction():
                    cursor = await c.execute('SELECT %s::int, %s::text', [n, str(i)])
                    same(await cursor.fetchone(), (n, str(i)))
    await asyncio.gather(*[one(n) for n in range(8)])


@claim('a pool whose threads use the same texts')
def _():
    wrong = []
    with psycopg_pool.ConnectionPool('', min_size=8, max_size=8) as pool:
        def work(n):
            try:
                for i in range(30):
                    with pool.connection() as c:
                        same(c.execute('SELECT %s::int, %s::text', [n, str(i)]).fetchone(), (n, str(i)))
                        c.execute('INSERT INTO psycopg3 VALUES (%s, %s)', [n * 1000 + i, 'pool'])
                        if i % 2:
                            c.rollback()
            except Exception as e:
                wrong.append(e)
        threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        with pool.connection() as c:
            same(wrong, [])
            same(c.execute('DELETE FROM psycopg3').rowcount, 8 * 15)


run()
