// TAP for the Node.js drivers: one line a claim, run one after the other, none of them stops the next.
//
//     claim('what holds', async () => same((await c.query('SELECT 1 AS a')).rows, [{ a: 1 }]))
//     run()
//
// What goes wrong is told on standard error, so that the output of two runs is equal if all that was claimed is.
// LONG is a text of a megabyte, ODD one that is not ASCII.
'use strict'
const assert = require('node:assert/strict')
const LONG = 'ß0123456789abcde'.repeat(65536)
const ODD = 'Zürich ∀x∈ℝ 🐘 \'quoted\' "twice" \\ back\tslash\n%s $1 ?'
const CLAIM_SECONDS = 30
const claims = []

const claim = (text, body) => claims.push([text, body])
const same = (got, expected) => assert.deepEqual(got, expected)
// the promise must be refused with that SQLSTATE; gives the error
const fails = (state, promise) => Promise.resolve(promise).then(
  () => assert.fail(`no error, expected ${state}`),
  (e) => { if (e.code !== state) throw e; return e })
// 1, 2, ... up to the number
const upto = (n) => Array.from({ length: n }, (_, i) => i + 1)

async function run() {
  let good = true, number = 0
  for (const [text, body] of claims) {
    let timer
    const late = new Promise((_, no) => { timer = setTimeout(() => no(new Error('too late')), CLAIM_SECONDS * 1000) })
    let what = 'ok'
    try {
      await Promise.race([body(), late])
    } catch (e) {
      good = false
      what = 'not ok'
      console.error(String(e.stack).slice(0, 2000))
    }
    clearTimeout(timer)
    console.log(`${what} ${++number} - ${text}`)
  }
  console.log(`1..${claims.length}`)
  process.exit(good ? 0 : 1) // a connection that a failed claim left open would keep us
}

module.exports = { LONG, ODD, claim, fails, run, same, upto }
