// The ordinary life of the PostgreSQL JDBC driver with its default settings, as TAP. The server is named by the variables
// of libpq. One file, so that `java -cp postgresql.jar Jdbc.java` runs it, too.
//
// From its fifth use on (prepareThreshold) a statement is a named one with values in binary, at most 256 of them for a
// connection; executeBatch() sends batches, a fetch size makes a named portal.
import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.sql.Date;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;

public class Jdbc {
    interface Body { void run() throws Exception; }
    interface With<T> { void run(T t) throws Exception; }

    static final String LONG = "ß0123456789abcde".repeat(65536);
    static final String ODD = "Zürich ∀x∈ℝ 🐘 'quoted' \"twice\" \\ back\tslash\n%s $1 ?";
    static final int CLAIM_SECONDS = 30;
    static final ExecutorService threads = Executors.newCachedThreadPool();
    static int number = 0;
    static boolean good = true;

    // ---- TAP: what goes wrong is told on standard error, so that the output of two runs is equal
    static void claim(String text, Body body) throws Exception {
        String what = "ok";
        try {
            threads.submit(() -> { body.run(); return null; }).get(CLAIM_SECONDS, TimeUnit.SECONDS);
        } catch (ExecutionException | TimeoutException e) {
            good = false;
            what = "not ok";
            (e.getCause() == null ? e : e.getCause()).printStackTrace();
        }
        System.out.println(what + " " + ++number + " - " + text);
    }
    static void same(Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) throw new AssertionError("got " + shown(got) + ", expected " + shown(expected));
    }
    static String shown(Object o) {
        String s = o instanceof Object[] ? Arrays.deepToString((Object[]) o) : String.valueOf(o);
        return s.length() > 300 ? s.substring(0, 300) : s;
    }
    static SQLException fails(String state, Body body) throws Exception {
        try {
            body.run();
        } catch (SQLException e) {
            if (!state.equals(e.getSQLState())) throw e;
            return e;
        }
        throw new AssertionError("no error, expected " + state);
    }

    // ---- connections and statements
    static Connection connect(String... more) throws SQLException {
        Properties p = new Properties();
        p.put("user", System.getenv("PGUSER"));
        p.put("password", System.getenv("PGPASSWORD"));
        for (int i = 0; i < more.length; i += 2) p.put(more[i], more[i + 1]);
        return DriverManager.getConnection(
            "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }
    static void connected(With<Connection> body, String... more) throws Exception {
        try (Connection c = connect(more)) { body.run(c); }
    }
    static int run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) { s.execute(sql); return s.getUpdateCount(); }
    }
    static Object[] row(PreparedStatement s, Object... values) throws SQLException {
        for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
        try (ResultSet r = s.executeQuery()) { return r.next() ? row(r) : null; }
    }
    static Object[] row(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) { return row(s, values); }
    }
    static Object[] row(ResultSet r) throws SQLException {
        Object[] row = new Object[r.getMetaData().getColumnCount()];
        for (int i = 0; i < row.length; i++) {
            row[i] = r.getObject(i + 1);
            if (row[i] instanceof java.sql.Array) row[i] = ((java.sql.Array) row[i]).getArray();
        }
        return row;
    }
    static Object[] list(Object... values) { return values; }
    static String ids(Connection c) throws SQLException {
        return (String) row(c, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM jdbc")[0];
    }

    public static void main(String[] arguments) throws Exception {
        claim("several statements in one text", () -> connected(c -> {
            run(c, "DROP TABLE IF EXISTS jdbc, jdbc_alter; CREATE TABLE jdbc (id int PRIMARY KEY, name text, data bytea)");
            try (Statement s = c.createStatement()) {
                same(s.execute("SELECT 1; SELECT 'x'"), true);
                s.getResultSet().next();
                same(s.getResultSet().getInt(1), 1);
                same(s.getMoreResults(), true);
                s.getResultSet().next();
                same(s.getResultSet().getString(1), "x");
            }
        }));
        claim("types and NULL come back as they went, as text and binary", () -> connected(c -> {
            Object[] values = {1, -(1L << 40), new BigDecimal("12345678901234567890.0001"), 2.5, true, ODD, new byte[] {0, -1, 92},
                Date.valueOf("2024-02-29"), Timestamp.valueOf("2024-02-29 12:00:00.123456"), new UUID(0, 7), null};
            String sql = "SELECT ?::int, ?::bigint, ?::numeric, ?::float8, ?::bool, ?::text, ?::bytea, ?::date, ?::timestamp, ?::uuid, ?::int";
            try (PreparedStatement s = c.prepareStatement(sql)) { for (int i = 0; i < 12; i++) same(row(s, values), values); }
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int[], ?::text[], ?::timestamptz, ?::jsonb #>> '{a,1}'")) {
                for (int i = 0; i < 12; i++) {
                    s.setArray(1, c.createArrayOf("int", new Integer[] {1, null, 3}));
                    s.setArray(2, c.createArrayOf("text", new String[] {"a", null, "{\""}));
                    s.setObject(3, OffsetDateTime.parse("2024-02-29T12:00:00.123456Z"));
                    s.setString(4, "{\"a\": [1, \"Zürich\"]}");
                    try (ResultSet r = s.executeQuery()) {
                        r.next();
                        same(list(r.getArray(1).getArray(), r.getArray(2).getArray(), r.getObject(3, OffsetDateTime.class), r.getString(4)),
                            list(new Integer[] {1, null, 3}, new String[] {"a", null, "{\""}, OffsetDateTime.parse("2024-02-29T12:00:00.123456Z"), "Zürich"));
                    }
                }
            }
        }));
        claim("a megabyte comes back, also from a table", () -> connected(c -> {
            same(row(c, "SELECT ?, length(?)", LONG, LONG), list(LONG, LONG.length()));
            byte[] bytes = LONG.getBytes(StandardCharsets.UTF_8);
            try (PreparedStatement s = c.prepareStatement("INSERT INTO jdbc VALUES (1000, ?, ?)")) {
                s.setString(1, LONG);
                s.setBytes(2, bytes);
                same(s.executeUpdate(), 1);
            }
            same(row(c, "DELETE FROM jdbc RETURNING name, data"), list(LONG, bytes));
        }));
        claim("statements past prepareThreshold, alone and in a transaction", () -> connected(c -> {
            for (boolean auto : new boolean[] {true, false}) {
                c.setAutoCommit(auto);
                try (PreparedStatement s = c.prepareStatement("SELECT ?::int + 1, ?::text")) {
                    for (int i = 0; i < 30; i++) same(row(s, i, ODD), list(i + 1, ODD));
                }
                for (int i = 0; i < 30; i++) same(row(c, "SELECT ?::int + 2", i), list(i + 2));
            }
        }));
        claim("more statements than the cache holds", () -> connected(c -> {
            for (int turn = 0; turn < 7; turn++)
                for (int i = 0; i < 300; i++) same(row(c, "SELECT ?::int + " + i, turn), list(turn + i));
        }, "prepareThreshold", "1"));
        claim("a statement whose parameter changes its type", () -> connected(c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT pg_typeof(?)::text")) {
                for (int i = 0; i < 8; i++) same(row(s, 1), list("integer"));
                for (int i = 0; i < 8; i++) same(row(s, 1L), list("bigint"));
                for (int i = 0; i < 8; i++) same(row(s, "x"), list("character varying"));
            }
        }));
        claim("commit, rollback and savepoints", () -> connected(c -> {
            c.setAutoCommit(false);
            run(c, "INSERT INTO jdbc VALUES (1)");
            c.commit();
            run(c, "INSERT INTO jdbc VALUES (2)");
            c.rollback();
            run(c, "INSERT INTO jdbc VALUES (3)");
            Savepoint a = c.setSavepoint("a");
            fails("23505", () -> run(c, "INSERT INTO jdbc VALUES (3)"));
            c.rollback(a);
            Savepoint b = c.setSavepoint();
            run(c, "INSERT INTO jdbc VALUES (4)");
            c.releaseSavepoint(b);
            c.commit();
            c.setReadOnly(true);
            fails("25006", () -> run(c, "INSERT INTO jdbc VALUES (5)"));
            c.rollback();
            c.setReadOnly(false);
            same(ids(c), "1 3 4");
            same(run(c, "DELETE FROM jdbc"), 3);
            c.commit();
        }));
        claim("a result in pieces of the fetch size, and one that scrolls", () -> connected(c -> {
            c.setAutoCommit(false);
            for (int turn = 0; turn < 8; turn++) {
                try (PreparedStatement s = c.prepareStatement("SELECT generate_series(1, ?)")) {
                    s.setFetchSize(7);
                    s.setInt(1, 300);
                    try (ResultSet r = s.executeQuery()) {
                        for (int i = 1; i <= 300; i++) {
                            same(r.next(), true);
                            same(r.getInt(1), i);
                            if (i % 100 == 0) same(row(c, "SELECT 'between'"), list("between"));
                        }
                        same(r.next(), false);
                    }
                }
                if (turn % 2 == 0) c.commit();
            }
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY);
                 ResultSet r = s.executeQuery("SELECT generate_series(1, 100)")) {
                same(r.absolute(53), true);
                same(r.getInt(1), 53);
                same(r.previous(), true);
                same(r.getInt(1), 52);
            }
        }));
        claim("COPY in and out, failing and rolled back", () -> connected(c -> {
            var copy = c.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder lines = new StringBuilder();
            for (int i = 0; i < 20000; i++) lines.append(i).append("\tname ").append(i).append("\t\\N\n");
            c.setAutoCommit(false);
            same(copy.copyIn("COPY jdbc FROM STDIN", new StringReader(lines.toString())), 20000L);
            StringWriter out = new StringWriter();
            same(copy.copyOut("COPY (SELECT * FROM jdbc ORDER BY id) TO STDOUT", out), 20000L);
            same(out.toString(), lines.toString());
            c.rollback();
            c.setAutoCommit(true);
            fails("22P02", () -> copy.copyIn("COPY jdbc FROM STDIN", new StringReader("x\ta\t\\N\n")));
            same(ids(c), null);
        }));
        claim("batches, also with keys that come back and with one that fails", () -> connected(c -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO jdbc VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int turn = 0; turn < 3; turn++) {
                    for (int i = 0; i < 500; i++) { s.setInt(1, turn * 1000 + i); s.setString(2, ODD); s.addBatch(); }
                    same(Arrays.stream(s.executeBatch()).sum(), 500);
                    int sum = 0;
                    try (ResultSet keys = s.getGeneratedKeys()) { while (keys.next()) sum += keys.getInt("id"); }
                    same(sum, 500 * turn * 1000 + 499 * 250);
                }
            }
            try (PreparedStatement s = c.prepareStatement("INSERT INTO jdbc VALUES (?, ?)")) {
                for (int i : new int[] {9000, 0, 9001}) { s.setInt(1, i); s.setString(2, "x"); s.addBatch(); }
                try {
                    s.executeBatch();
                    throw new AssertionError("no error");
                } catch (BatchUpdateException e) {
                    same(e.getSQLState(), "23505");
                }
            }
            try (Statement s = c.createStatement()) {
                for (int i = 0; i < 100; i++) s.addBatch("UPDATE jdbc SET name = 'n' WHERE id = " + i);
                same(s.executeBatch().length, 100);
            }
            same(run(c, "DELETE FROM jdbc"), 1500);
        }));
        claim("errors outside and in a transaction; the connection is usable", () -> connected(c -> {
            run(c, "INSERT INTO jdbc VALUES (1)");
            for (int i = 0; i < 8; i++) {
                var e = (org.postgresql.util.PSQLException) fails("23505", () -> {
                    try (PreparedStatement s = c.prepareStatement("INSERT INTO jdbc VALUES (?)")) { s.setInt(1, 1); s.executeUpdate(); }
                });
                same(e.getServerErrorMessage().getDetail(), "Key (id)=(1) already exists.");
            }
            fails("42601", () -> run(c, "SELEKT 1"));
            c.setAutoCommit(false);
            fails("42P01", () -> row(c, "SELECT * FROM nothing_here WHERE a = ?", 1));
            fails("25P02", () -> row(c, "SELECT 1"));
            c.rollback();
            same(run(c, "DELETE FROM jdbc"), 1);
            c.commit();
        }));
        claim("cancel() and a query timeout end the statement, and not the next", () -> connected(c -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                fails("57014", () -> s.execute("SELECT pg_sleep(10)"));
                s.setQueryTimeout(0);
                Future<?> timer = threads.submit(() -> { Thread.sleep(300); s.cancel(); return null; });
                fails("57014", () -> s.execute("SELECT pg_sleep(10)"));
                timer.get();
            }
            for (int i = 0; i < 10; i++) same(row(c, "SELECT 1"), list(1));
        }));
        claim("settings of the connection", () -> connected(c -> {
            for (int i = 0; i < 2; i++) fails("57014", () -> run(c, "SELECT pg_sleep(10)"));
            same(row(c, "SELECT current_setting('statement_timeout'), current_setting('application_name')"), list("200ms", "life"));
        }, "options", "-c statement_timeout=200", "ApplicationName", "life"));
        claim("notices", () -> connected(c -> {
            try (Statement s = c.createStatement()) {
                s.execute("DO $$ BEGIN RAISE NOTICE 'first %', 1; RAISE WARNING 'Zürich'; END $$");
                SQLWarning w = s.getWarnings();
                same(list(w.getMessage(), w.getNextWarning().getMessage()), list("first 1", "Zürich"));
            }
        }));
        claim("metadata, and rows changed through a result", () -> connected(c -> {
            try (ResultSet r = c.getMetaData().getColumns(null, null, "jdbc", null)) {
                StringBuilder names = new StringBuilder();
                while (r.next()) names.append(r.getString("COLUMN_NAME")).append(' ').append(r.getString("TYPE_NAME")).append(' ');
                same(names.toString(), "id int4 name text data bytea ");
            }
            run(c, "INSERT INTO jdbc VALUES (1, 'before')");
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                 ResultSet r = s.executeQuery("SELECT id, name FROM jdbc")) {
                r.next();
                r.updateString("name", "after");
                r.updateRow();
            }
            same(row(c, "DELETE FROM jdbc RETURNING name"), list("after"));
            same(c.isValid(5), true);
        }));
        claim("a statement whose table was altered, on a new connection", () -> connected(c -> {
            run(c, "CREATE TABLE jdbc_alter AS SELECT 1 AS a");
            connected(old -> { for (int i = 0; i < 10; i++) same(row(old, "SELECT * FROM jdbc_alter"), list(1)); });
            run(c, "ALTER TABLE jdbc_alter ADD b int DEFAULT 2");
            connected(one -> { for (int i = 0; i < 10; i++) same(row(one, "SELECT * FROM jdbc_alter"), list(1, 2)); });
        }));
        claim("a statement whose table was altered, on the connection that had it", () -> connected(c -> connected(old -> {
            for (int i = 0; i < 10; i++) same(row(old, "SELECT * FROM jdbc_alter"), list(1, 2));
            run(c, "ALTER TABLE jdbc_alter ADD c int DEFAULT 3");
            for (int i = 0; i < 10; i++) same(row(old, "SELECT * FROM jdbc_alter"), list(1, 2, 3));
        })));
        claim("connections of many threads use the same texts", () -> {
            List<Future<?>> all = new ArrayList<>();
            for (int t = 0; t < 8; t++) {
                int n = t;
                all.add(threads.submit(() -> {
                    connected(c -> {
                        c.setAutoCommit(false);
                        for (int i = 0; i < 30; i++) {
                            same(row(c, "SELECT ?::int, ?::text", n, "" + i), list(n, "" + i));
                            try (PreparedStatement s = c.prepareStatement("INSERT INTO jdbc VALUES (?, 'pool')")) {
                                s.setInt(1, n * 1000 + i);
                                same(s.executeUpdate(), 1);
                            }
                            if (i % 2 == 0) c.commit(); else c.rollback();
                        }
                    });
                    return null;
                }));
            }
            for (Future<?> f : all) f.get();
            connected(c -> same(run(c, "DELETE FROM jdbc"), 8 * 15));
        });
        System.out.println("1.." + number);
        System.exit(good ? 0 : 1);
    }
}
