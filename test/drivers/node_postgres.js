// The ordinary life of node-postgres (npm pg, pg-cursor, pg-copy-streams) with its default settings, as TAP. The server
// is named by the variables of libpq.
//
// A query with values is an unnamed statement, one with a name is prepared once for a connection; the queries of a
// client queue in it; a pool lends its clients.
'use strict'
const pg = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const { LONG, ODD, claim, fails, run, same, upto } = require('./tap.js')

async function connected(body, options = {}) {
  const client = new pg.Client(options)
  await client.connect()
  try {
    await body(client)
  } finally {
    await client.end()
  }
}
const ids = async (c) => (await c.query('SELECT id FROM node_postgres ORDER BY id')).rows.map((r) => r.id)
const read = async (stream) => { let all = ''; for await (const part of stream) all += part; return all }

claim('a script of several statements', () => connected(async (c) => {
  await c.query(`DROP TABLE IF EXISTS node_postgres, node_alter;
    CREATE TABLE node_postgres (id int PRIMARY KEY, name text, data bytea)`)
  const several = await c.query("SELECT 1 AS a; SELECT 'x' AS b")
  same(several.map((r) => r.rows), [[{ a: 1 }], [{ b: 'x' }]])
}))

claim('types and NULL come back as they went', () => connected(async (c) => {
  const values = {
    int: 1, bigint: String(-(2 ** 40)), numeric: '12345678901234567890.0001', float8: 2.5, bool: true, text: ODD,
    bytea: Buffer.from([0, 255, 92]), timestamptz: new Date('2024-02-29T12:00:00.123Z'), jsonb: { a: [1, null, ODD] },
    uuid: '00000000-0000-0000-0000-000000000007', 'int[]': [1, null, 3], 'text[]': ['a', null, '{"'], int8: null
  }
  const types = Object.keys(values)
  const text = 'SELECT ' + types.map((t, i) => `$${i + 1}::${t}`).join(', ')
  for (const query of [{ text }, { text, name: 'types' }, { text, name: 'types' }]) {
    const result = await c.query({ ...query, values: Object.values(values), rowMode: 'array' })
    same(result.rows, [Object.values(values)])
  }
}))

claim('a megabyte comes back, also from a table', () => connected(async (c) => {
  same((await c.query('SELECT $1::text AS a, length($1) AS b', [LONG])).rows, [{ a: LONG, b: LONG.length }])
  await c.query('INSERT INTO node_postgres VALUES (1000, $1, $2)', [LONG, Buffer.from(LONG)])
  same((await c.query('DELETE FROM node_postgres RETURNING name, data')).rows, [{ name: LONG, data: Buffer.from(LONG) }])
}))

claim('named statements, alone and in a transaction', () => connected(async (c) => {
  const ask = async (i) => same((await c.query({ name: 'sum', text: 'SELECT $1::int + 1 AS a, $2::text AS b', values: [i, ODD] })).rows,
    [{ a: i + 1, b: ODD }])
  for (let i = 0; i < 30; i++) await ask(i)
  await c.query('BEGIN')
  for (let i = 0; i < 30; i++) await ask(i)
  await c.query('COMMIT')
  for (let i = 0; i < 150; i++) same((await c.query({ name: `n${i}`, text: `SELECT ${i} AS a` })).rows, [{ a: i }])
}))

claim('queries that queue in a client', () => connected(async (c) => {
  const results = await Promise.all(upto(300).map((i) => c.query('SELECT $1::int AS a', [i])))
  same(results.map((r) => r.rows[0].a), upto(300))
  const mixed = await Promise.allSettled([c.query('SELECT 1'), c.query('SELECT 1/$1::int', [0]), c.query('SELECT 2 AS a')])
  same(mixed.map((m) => m.status), ['fulfilled', 'rejected', 'fulfilled'])
}))

claim('commit, rollback and savepoints', () => connected(async (c) => {
  const insert = (i) => c.query('INSERT INTO node_postgres VALUES ($1)', [i])
  await c.query('BEGIN')
  await insert(1)
  await c.query('COMMIT')
  await c.query('BEGIN')
  await insert(2)
  await c.query('ROLLBACK')
  await c.query('BEGIN ISOLATION LEVEL SERIALIZABLE')
  await insert(3)
  await c.query('SAVEPOINT a')
  await fails('23505', insert(3))
  await c.query('ROLLBACK TO a')
  await insert(4)
  same((await c.query('COMMIT')).command, 'COMMIT')
  same(await ids(c), [1, 3, 4])
  same((await c.query('DELETE FROM node_postgres')).rowCount, 3)
}))

claim('a cursor in pieces', () => connected(async (c) => {
  await c.query('BEGIN')
  const cursor = c.query(new Cursor('SELECT generate_series(1, $1::int) AS a', [1000]))
  const got = []
  for (let rows; (rows = await cursor.read(7)).length > 0;) got.push(...rows.map((r) => r.a))
  same(got, upto(1000))
  const second = c.query(new Cursor('SELECT generate_series(1, 100) AS a'))
  same((await second.read(3)).length, 3)
  await second.close()
  await c.query('COMMIT')
}))

claim('COPY in and out, failing and rolled back', () => connected(async (c) => {
  const lines = upto(20000).map((i) => `${i}\tname ${i}\t\\N\n`)
  await c.query('BEGIN')
  await pipeline(Readable.from(lines), c.query(copy.from('COPY node_postgres FROM STDIN')))
  same(await read(c.query(copy.to('COPY (SELECT * FROM node_postgres ORDER BY id) TO STDOUT'))), lines.join(''))
  await c.query('ROLLBACK')
  await fails('22P02', pipeline(Readable.from(['x\ta\t\\N\n']), c.query(copy.from('COPY node_postgres FROM STDIN'))))
  same(await ids(c), [])
}))

claim('errors outside and in a transaction; the connection is usable', () => connected(async (c) => {
  await c.query('INSERT INTO node_postgres VALUES (1)')
  for (let i = 0; i < 8; i++) {
    const e = await fails('23505', c.query({ name: 'insert', text: 'INSERT INTO node_postgres VALUES ($1)', values: [1] }))
    same([e.constraint, e.detail], ['node_postgres_pkey', 'Key (id)=(1) already exists.'])
  }
  same((await fails('42601', c.query('SELEKT 1'))).position, '1')
  await fails('42601', c.query({ name: 'wrong', text: 'SELEKT $1' }))
  await c.query('BEGIN')
  await fails('42P01', c.query('SELECT * FROM nothing_here WHERE a = $1', [1]))
  await fails('25P02', c.query('SELECT 1'))
  await c.query('ROLLBACK')
  same((await c.query('DELETE FROM node_postgres')).rowCount, 1)
}))

claim('pg_cancel_backend() ends the statement, and not the next', () => connected(async (c) => {
  const sleeps = fails('57014', c.query('SELECT pg_sleep(10)'))
  await connected(async (other) => {
    const find = "SELECT count(pg_cancel_backend(pid)) AS n FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(10)'"
    while ((await other.query(find)).rows[0].n === '0');
  })
  await sleeps
  same((await c.query('SELECT 1 AS a')).rows, [{ a: 1 }])
}))

claim('statement_timeout, lock_timeout and application_name of the client', () => connected(async (c) => {
  for (let i = 0; i < 2; i++) await fails('57014', c.query('SELECT pg_sleep(10)'))
  const show = (name) => c.query(`SHOW ${name}`).then((r) => r.rows[0][name])
  same([await show('statement_timeout'), await show('lock_timeout'), await show('application_name')], ['200ms', '3s', 'life'])
}, { statement_timeout: 200, lock_timeout: 3000, application_name: 'life' }))

claim('notices', () => connected(async (c) => {
  const got = []
  c.on('notice', (n) => got.push([n.severity, n.message]))
  await c.query("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'Zürich'; END $$")
  same(got, [['NOTICE', 'first 1'], ['WARNING', 'Zürich']])
}))

claim('a statement whose table was altered, on a new connection', () => connected(async (c) => {
  const ask = (one) => one.query({ name: 'altered', text: 'SELECT * FROM node_alter' })
  await c.query('CREATE TABLE node_alter AS SELECT 1 AS a')
  await connected(async (old) => { for (let i = 0; i < 5; i++) same((await ask(old)).rows, [{ a: 1 }]) })
  await c.query('ALTER TABLE node_alter ADD b int DEFAULT 2')
  await connected(async (one) => { for (let i = 0; i < 5; i++) same((await ask(one)).rows, [{ a: 1, b: 2 }]) })
}))

claim('a pool whose users use the same texts', async () => {
  const pool = new pg.Pool({ max: 8 })
  const work = async (n) => {
    for (let i = 0; i < 30; i++) {
      const c = await pool.connect()
      try {
        same((await c.query({ name: 'echo', text: 'SELECT $1::int AS a, $2::text AS b', values: [n, `${i}`] })).rows, [{ a: n, b: `${i}` }])
        await c.query('BEGIN')
        await c.query({ name: 'add', text: 'INSERT INTO node_postgres VALUES ($1, $2)', values: [n * 1000 + i, 'pool'] })
        await c.query(i % 2 ? 'ROLLBACK' : 'COMMIT')
      } finally {
        c.release()
      }
    }
  }
  await Promise.all(upto(16).map(work))
  same((await pool.query('DELETE FROM node_postgres')).rowCount, 240)
  await pool.end()
})

run()
