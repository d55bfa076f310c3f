"""TAP for the Python drivers: one line a claim, run one after the other, none of them stops the next.

    @claim('what holds')
    def _():
        same(connection.execute('SELECT 1').fetchone(), (1,))
    run()

A coroutine is run in an event loop of its own. What goes wrong is told on standard error, so that the output of two
runs is equal if all that was claimed is. LONG is a text of a megabyte, ODD one that is not ASCII.
"""
import asyncio
import inspect
import sys
import traceback

LONG = 'ß0123456789abcde' * 65536
ODD = "Zürich ∀x∈ℝ 🐘 'quoted' \"twice\" \\ back\tslash\n%s $1 ?"
CLAIM_SECONDS = 30
claims = []


def claim(text):
    def add(body):
        claims.append((text, body))
        return body
    return add


def same(got, expected):
    if isinstance(expected, list) and isinstance(got, list) and len(got) == len(expected):
        for pair in zip(got, expected):
            if pair[0] != pair[1]:
                raise AssertionError('got %.300r, expected %.300r' % pair)
    if got != expected:
        raise AssertionError('got %.300r, expected %.300r' % (got, expected))


def fails(sqlstate, code, *args):
    """code must raise an error of that SQLSTATE; gives the error."""
    try:
        code(*args)
    except Exception as e:
        same(state_of(e), sqlstate)
        return e
    raise AssertionError('no error, expected ' + sqlstate)


def state_of(error):
    state = getattr(error, 'sqlstate', None) or getattr(error, 'pgcode', None)
    if state is None:
        raise error
    return state


def run():
    good = True
    for number, (text, body) in enumerate(claims, 1):
        try:
            if inspect.iscoroutinefunction(body):
                asyncio.run(asyncio.wait_for(body(), CLAIM_SECONDS))
            else:
                body()
            print('ok %d - %s' % (number, text), flush=True)
        except Exception:
            good = False
            print('not ok %d - %s' % (number, text), flush=True)
            print(traceback.format_exc(), file=sys.stderr, flush=True)
    print('1..%d' % len(claims))
    sys.exit(0 if good else 1)
