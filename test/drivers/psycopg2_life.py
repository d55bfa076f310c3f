"""The ordinary life of psycopg2 with its default settings, as TAP. The server is named by the variables of libpq.

psycopg2 speaks the simple protocol alone: no prepared statements, but server-side cursors, COPY and large objects.
"""
import datetime
import decimal
import io
import select
import threading

import psycopg2
import psycopg2.errorcodes
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from tap import LONG, ODD, claim, fails, run, same


def connect(**options):
    return psycopg2.connect('', **options)


def autocommit(**options):
    c = connect(**options)
    c.autocommit = True
    return c


def ask(connection, *query):
    with connection.cursor() as cursor:
        cursor.execute(*query)
        return cursor.fetchall() if cursor.description else cursor.rowcount


ask(autocommit(), '''
    DROP TABLE IF EXISTS psycopg2_life;
    CREATE TABLE psycopg2_life (id int PRIMARY KEY, name text, data bytea)''')


def ids(connection):
    return [row[0] for row in ask(connection, 'SELECT id FROM psycopg2_life ORDER BY id')]


@claim('types and NULL come back as they went')
def _():
    values = [
        1, -2 ** 40, decimal.Decimal('12345678901234567890.0001'), 2.5, True, ODD, None, datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, datetime.timezone.utc), datetime.timedelta(days=3, seconds=4),
        [1, None, 3], ['a', None, '{"'],
    ]
    c = connect()
    ask(c, "SET LOCAL TimeZone = 'UTC'")
    same(list(ask(c, 'SELECT ' + ', '.join(['%s'] * len(values)), values)[0]), values)
    same(bytes(ask(c, 'SELECT %s', [b'\x00\xff\\'])[0][0]), b'\x00\xff\\')
    same(ask(c, 'SELECT %s', [psycopg2.extras.Json({'a': [1, None, ODD]})]), [("""{"a": [1, null, %s]}""" % (
        psycopg2.extras.json.dumps(ODD)),)])
    c.close()


@claim('a megabyte comes back, also from a table')
def _():
    c = connect()
    same(ask(c, 'SELECT %s, length(%s)', [LONG, LONG]), [(LONG, len(LONG))])
    ask(c, 'INSERT INTO psycopg2_life VALUES (1000, %s, %s)', [LONG, LONG.encode()])
    name, data = ask(c, 'SELECT name, data FROM psycopg2_life WHERE id = 1000')[0]
    same((name, bytes(data)), (LONG, LONG.encode()))
    c.rollback()
    same(ids(c), [])
    c.close()


@claim('commit, rollback and savepoints')
def _():
    c = connect()
    with c:
        ask(c, 'INSERT INTO psycopg2_life VALUES (1)')
    try:
        with c:
            ask(c, 'INSERT INTO psycopg2_life VALUES (2)')
            raise ValueError
    except ValueError:
        pass
    same(ids(c), [1])
    ask(c, 'SAVEPOINT a')
    ask(c, 'INSERT INTO psycopg2_life VALUES (3)')
    fails('23505', ask, c, 'INSERT INTO psycopg2_life VALUES (1)')
    ask(c, 'ROLLBACK TO SAVEPOINT a')
    ask(c, 'INSERT INTO psycopg2_life VALUES (4)')
    ask(c, 'RELEASE SAVEPOINT a')
    c.commit()
    same(ids(c), [1, 4])
    ask(c, 'DELETE FROM psycopg2_life')
    c.commit()
    c.close()


@claim('a server-side cursor in pieces')
def _():
    c = connect()
    with c.cursor('pieces') as cursor:
        cursor.itersize = 7
        cursor.execute('SELECT generate_series(1, %s)', [1000])
        same([n for n, in cursor], list(range(1, 1001)))
    with c.cursor('scrolls', scrollable=True) as cursor:
        cursor.execute('SELECT generate_series(1, 100)')
        same(cursor.fetchmany(2), [(1,), (2,)])
        cursor.scroll(50)
        same(cursor.fetchone(), (53,))
    c.close()


@claim('COPY in and out, failing and rolled back')
def _():
    text = ''.join('%d\tname %d\t\\N\n' % (i, i) for i in range(20000))
    c = connect()
    with c.cursor() as cursor:
        cursor.copy_expert('COPY psycopg2_life FROM STDIN', io.StringIO(text))
        same(cursor.rowcount, 20000)
        out = io.StringIO()
        cursor.copy_expert('COPY (SELECT * FROM psycopg2_life ORDER BY id) TO STDOUT', out)
        same(out.getvalue(), text)
        out = io.StringIO()
        cursor.copy_to(out, 'psycopg2_life', columns=['id'])
        same(len(out.getvalue().split()), 20000)
        c.rollback()
        fails('22P02', cursor.copy_expert, 'COPY psycopg2_life FROM STDIN', io.StringIO('1\ta\t\\N\nx\tb\t\\N\n'))
    c.rollback()
    same(ids(c), [])
    c.close()


@claim('batches: execute_values and execute_batch')
def _():
    c = connect()
    with c.cursor() as cursor:
        psycopg2.extras.execute_values(cursor, 'INSERT INTO psycopg2_life (id, name) VALUES %s', [(i, ODD) for i in range(1000)])
        psycopg2.extras.execute_batch(cursor, 'UPDATE psycopg2_life SET name = %s WHERE id = %s', [(str(i), i) for i in range(500)])
    same(ask(c, 'SELECT count(*), count(DISTINCT name) FROM psycopg2_life'), [(1000, 501)])
    c.rollback()
    c.close()


@claim('errors outside and in a transaction; the connection is usable')
def _():
    c = autocommit()
    ask(c, "INSERT INTO psycopg2_life VALUES (1, 'one')")
    e = fails('23505', ask, c, "INSERT INTO psycopg2_life VALUES (1, 'two')")
    same((e.diag.constraint_name, e.diag.message_detail), ('psycopg2_life_pkey', 'Key (id)=(1) already exists.'))
    same(fails('42601', ask, c, 'SELEKT 1').diag.statement_position, '1')
    fails('22012', ask, c, 'DELETE FROM psycopg2_life; SELECT 1/0; SELECT 1')
    same(ids(c), [1])
    c.close()
    c = connect()
    fails('42P01', ask, c, 'SELECT * FROM nothing_here')
    fails('25P02', ask, c, 'SELECT 1')
    c.rollback()
    same(ids(c), [1])
    ask(c, 'DELETE FROM psycopg2_life')
    c.commit()
    c.close()


@claim('cancel() ends the statement, and not the next')
def _():
    c = autocommit()
    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    fails('57014', ask, c, 'SELECT pg_sleep(10)')
    timer.join()
    same(ask(c, 'SELECT 1'), [(1,)])
    c.close()


@claim('statement_timeout from the connection string')
def _():
    c = autocommit(options='-c statement_timeout=200')
    for _ in range(2):
        fails('57014', ask, c, 'SELECT pg_sleep(10)')
    same(ask(c, 'SHOW statement_timeout'), [('200ms',)])
    c.close()


@claim('notices')
def _():
    c = autocommit()
    ask(c, "DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'Zürich'; END $$")
    same([n.splitlines()[0] for n in c.notices], ['NOTICE:  first 1', 'WARNING:  Zürich'])
    c.close()


@claim('encoding, time zone and isolation level follow the connection')
def _():
    c = connect()
    c.set_client_encoding('LATIN1')
    c.set_session(isolation_level='SERIALIZABLE')
    with c:
        ask(c, "SET TimeZone = 'Asia/Tokyo'")
    for _ in range(30):
        same(ask(c, "SELECT 'Zürich', current_setting('TimeZone'), current_setting('transaction_isolation')"),
             [('Zürich', 'Asia/Tokyo', 'serializable')])
        c.rollback()
    c.close()


@claim('a large object in a transaction')
def _():
    c = connect()
    large = c.lobject(0, 'wb')
    large.write(LONG.encode())
    large.seek(3)
    number = large.oid
    large.close()
    c.commit()
    large = c.lobject(number, 'rb')
    same(large.read(), LONG.encode())
    large.unlink()
    c.commit()
    c.close()


@claim('an asynchronous connection')
def _():
    def wait():
        while True:
            state = c.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            fd = [c.fileno()]
            ready = select.select(fd, [], [], 10) if state == psycopg2.extensions.POLL_READ else select.select([], fd, [], 10)
            assert any(ready), 'nothing came'
    c = connect(async_=True)
    wait()
    cursor = c.cursor()
    for i in range(20):
        cursor.execute('SELECT %s', [i])
        wait()
        same(cursor.fetchall(), [(i,)])
    c.close()


@claim('a pool whose threads use the same texts')
def _():
    wrong = []
    pool = psycopg2.pool.ThreadedConnectionPool(8, 8, '')

    def work(n):
        try:
            for i in range(30):
                c = pool.getconn()
                same(ask(c, 'SELECT %s::int, %s::text', [n, str(i)]), [(n, str(i))])
                ask(c, 'INSERT INTO psycopg2_life VALUES (%s, %s)', [n * 1000 + i, 'pool'])
                if i % 2:
                    c.commit()
                pool.putconn(c)  # rolls back what is open
        except Exception as e:
            wrong.append(e)
    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    pool.closeall()
    same(wrong, [])
    c = autocommit()
    same(ask(c, 'DELETE FROM psycopg2_life'), 8 * 15)
    c.close()


run()
