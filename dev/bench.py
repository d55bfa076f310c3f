#!/usr/bin/env python3
"""dev/bench.py - the measurements of `make bench`; dev/bench.sh starts what is measured and calls this.

Owns: the pgbench, psql and holdidle processes that it starts, and the JSON report. Needs Python 3.9, pgbench and psql of
--bindir, the right to read /proc/PID/task/*/schedstat of the servers (root, or their user). Leaves the report in --json-dir.

How to read it. Every cell runs on all systems in turn, round after round, starting with another system each time; figures
are medians over the rounds, ratios are medians of the ratios within a round, so slow spells of the machine cancel out.
CPU time is taken between two progress lines of pgbench, so no login is in it; that of PostgreSQL is all its processes but
the workers of pgpool. Prefer CPU and ratios to tps: on a machine
that does other work, tps differs by a third between two runs of the same thing.

With --against, "before" is the pgpool of another checkout, in a cluster of its own that was made alike; "before-direct" is
the server's own port of that cluster, and what it differs by from "direct" is not a matter of pgpool. The last table has
the ratios of pgpool to before.
"""
import argparse
import datetime
import glob
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

MEASURES = ("select", "tpcb", "stream", "idle")
PROTOCOLS = ("simple", "extended", "prepared")
STREAM_BYTES = 200 * 1000 * 1000
BASE = "pgbouncer"
BEFORE = "before"


def parse_arguments():
    # The cluster has TLS on, PgBouncer here has not: all are measured in clear text.
    os.environ.setdefault("PGSSLMODE", "disable")
    env = os.environ.get
    p = argparse.ArgumentParser(prog="make bench BENCH=...", description=(
        "Measures pgpool against PostgreSQL and PgBouncer. Environment: BENCH_ROUNDS, BENCH_SECONDS, PGBOUNCER=path, "
        "BENCH_CONF='pgpool.workers=1; ...' (more lines of postgresql.conf)."))
    words = lambda allowed: lambda text: check_words(p, text, allowed)
    p.add_argument("--only", metavar="LIST", default=list(MEASURES), type=words(MEASURES),
                   help="measures, comma separated: %s (default: all)" % ", ".join(MEASURES))
    p.add_argument("--protocols", metavar="LIST", default=list(PROTOCOLS), type=words(PROTOCOLS),
                   help="pgbench protocols: %s (default: all)" % ", ".join(PROTOCOLS))
    p.add_argument("--clients", metavar="LIST", default=[1, 16, 200], type=lambda t: [int(n) for n in t.split(",")],
                   help="numbers of clients (default: 1,16,200)")
    p.add_argument("--systems", metavar="LIST", default=None, type=lambda t: t.split(","),
                   help="systems: direct, pgpool, pgbouncer, pgbouncer64k (stream only), before and before-direct (with "
                        "--against); default: all there are but before-direct")
    p.add_argument("--rounds", type=int, default=int(env("BENCH_ROUNDS", "3")), help="rounds of each cell (default: 3)")
    p.add_argument("--seconds", type=float, default=float(env("BENCH_SECONDS", "5")),
                   help="seconds of each run that are measured (default: 5)")
    p.add_argument("--scale", type=int, default=20, help="scale of the pgbench tables (default: 20)")
    p.add_argument("--idle-clients", type=int, default=2000, help="clients of the idle measure (default: 2000)")
    p.add_argument("--against", metavar="DIR", help="another checkout of pgpool, built there: the system \"before\"")
    p.add_argument("--at-most", metavar="RATIO", type=float, help="with --against: the status is 1 if the CPU time for a "
                   "transaction, pooler and PostgreSQL, is more than RATIO times that of before, in any cell")
    p.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    for hidden in ("--bindir", "--work", "--tools", "--json-dir"):
        p.add_argument(hidden, help=argparse.SUPPRESS)
    p.add_argument("--postmaster", type=int, help=argparse.SUPPRESS)
    p.add_argument("--system", action="append", default=[], help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.at_most and not args.against:
        p.error("--at-most says how pgpool compares with --against DIR")
    return args


def check_words(parser, text, allowed):
    words = text.split(",")
    for word in words:
        if word not in allowed:
            parser.error("%s is none of: %s" % (word, ", ".join(allowed)))
    return words


# ------------------------------------------------------------------ processes

def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return [int(c) for c in f.read().split()]
    except OSError:
        return []


def title(pid):
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def cpu_by_pid(pids):
    """pid -> CPU time of all its threads, in nanoseconds."""
    result = {}
    for pid in pids:
        for path in glob.glob("/proc/%d/task/*/schedstat" % pid):
            try:
                with open(path) as f:
                    result[pid] = result.get(pid, 0) + int(f.read().split()[0])
            except OSError:
                pass
    return result


def cpu_ns(pids):
    return sum(cpu_by_pid(pids).values())


def cpu_between(before, after):
    """What the processes of `after` used since `before`; one that ended in between is lost, not subtracted."""
    return sum(used - before.get(pid, 0) for pid, used in after.items())


def memory_kb(pids, *fields):
    """The sum of some lines of /proc/PID/smaps_rollup or status."""
    total = 0
    for pid in pids:
        for name in ("smaps_rollup", "status"):
            try:
                with open("/proc/%d/%s" % (pid, name)) as f:
                    for line in f:
                        if line.split(":")[0] in fields:
                            total += int(line.split()[1])
            except OSError:
                pass
    return total


class System:
    """One way to reach the database: a port, and the processes that are the pooler on that way."""

    def __init__(self, text, postmaster):
        words = text.split()
        self.name, self.port, self.kind = words[0], words[1], words[2]
        # of a PgBouncer; or the postmaster, where it is not the one that all others share
        self.pid = int(words[3]) if len(words) > 3 else None
        self.postmaster = self.pid if self.pid and self.kind in ("pgpool", "postgres") else postmaster

    def pooler(self):
        if self.kind == "pgpool":
            return [p for p in children(self.postmaster) if "pgpool worker" in title(p)]
        return [self.pid] if self.pid and self.kind != "postgres" else []

    def postgres(self):
        return [self.postmaster] + [p for p in children(self.postmaster) if "pgpool worker" not in title(p)]

    def can(self, measure, protocol=None):
        if self.kind == "pgbouncer-stream":
            return measure == "stream"
        if self.kind == "postgres" and measure == "idle":
            return False
        return not (self.kind == "pgbouncer-unprepared" and protocol == "prepared")


class Bench:
    def __init__(self, args):
        self.args = args
        self.systems = [System(s, args.postmaster) for s in args.system]
        if args.systems:
            unknown = set(args.systems) - {s.name for s in self.systems}
            if unknown:
                sys.exit("bench: there is no system %s here; there are: %s" %
                         (", ".join(sorted(unknown)), ", ".join(s.name for s in self.systems)))
        # one for each cluster: where the tables are made
        self.servers = [s for s in self.systems if s.kind == "postgres"]
        self.systems = [s for s in self.systems if s.name in (args.systems or [s.name]) and
                        (args.systems or s.name != BEFORE + "-direct")]
        self.rounds = []  # one dictionary for each run
        os.makedirs(args.work, exist_ok=True)

    def program(self, name):
        return os.path.join(self.args.bindir, name)

    def psql(self, system, *commands, **options):
        command = [self.program("psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-p", system.port]
        for sql in commands:
            command += ["-c", sql]
        return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, **options)

    # -------------------------------------------------------------- pgbench

    def prepare_pgbench(self):
        print("pgbench tables, scale %d" % self.args.scale, flush=True)
        for server in self.servers:
            subprocess.run([self.program("pgbench"), "-i", "-q", "-s", str(self.args.scale), "-p", server.port],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def pgbench(self, system, measure, protocol, clients, patience=1):
        """One run; the figures between the first progress line and the last before the end."""
        # logins take their time out of -T, and the first and the last second are not measured
        seconds = int(self.args.seconds + 0.5)
        duration = seconds + 2 + math.ceil(clients * 0.03 * patience)
        prefix = os.path.join(self.args.work, "log")
        for old in glob.glob(prefix + "*"):
            os.unlink(old)
        command = [self.program("pgbench"), "-p", system.port, "-M", protocol, "-c", str(clients),
                   "-j", str(min(clients, 2)), "-T", str(duration), "-P", "1",
                   "--log", "--log-prefix", prefix, "--sampling-rate", "0.1"]
        command += ["-S", "-n"] if measure == "select" else []
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
        samples, transactions, messages = [], 0.0, []
        watch = threading.Timer(duration + 30, run.kill)
        watch.start()
        for line in run.stderr:
            found = re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line)
            if not found:
                messages.append(line)
            elif len(samples) <= seconds:
                samples.append((float(found[1]), float(found[2]),
                                cpu_by_pid(system.pooler()), cpu_by_pid(system.postgres())))
        run.wait()
        watch.cancel()
        if run.returncode == -signal.SIGKILL:
            return {"failed": "still running 30 s after its end: clients got no answer"}
        if run.returncode != 0:
            return {"failed": "".join(messages[-4:]).strip()}
        if len(samples) <= seconds:
            if patience < 4:
                return self.pgbench(system, measure, protocol, clients, patience * 4)
            return {"failed": "%d progress lines instead of %d" % (len(samples), seconds + 1)}
        pooler_us = postgres_us = 0
        for before, after in zip(samples, samples[1:]):
            transactions += after[1] * (after[0] - before[0])
            pooler_us += cpu_between(before[2], after[2]) / 1000
            postgres_us += cpu_between(before[3], after[3]) / 1000
        if not transactions:
            return {"failed": "no transaction in %d seconds" % seconds}
        pooler_us, postgres_us = pooler_us / transactions, postgres_us / transactions
        latencies = sorted(self.latencies(prefix))
        return {"tps": transactions / (samples[-1][0] - samples[0][0]),
                "p50_ms": percentile(latencies, 0.50), "p99_ms": percentile(latencies, 0.99),
                "pooler_us": pooler_us, "postgres_us": postgres_us, "total_us": pooler_us + postgres_us}

    @staticmethod
    def latencies(prefix):
        for path in glob.glob(prefix + "*"):
            with open(path) as f:
                for line in f:
                    fields = line.split()
                    if len(fields) >= 3 and fields[2].isdigit():
                        yield int(fields[2]) / 1000

    def run_pgbench(self, measure):
        self.prepare_pgbench()
        for protocol in self.args.protocols:
            for clients in self.args.clients:
                self.interleave((measure, protocol, clients),
                                [s for s in self.systems if s.can(measure, protocol)],
                                lambda s: self.pgbench(s, measure, protocol, clients))
                self.table((measure, protocol, clients), "%s, %s protocol, %d clients" % (measure, protocol, clients),
                           [("tps", "tps", "%.0f"), ("p50 ms", "p50_ms", "%.2f"), ("p99 ms", "p99_ms", "%.2f"),
                            ("pooler us/tx", "pooler_us", "%.1f"), ("PostgreSQL", "postgres_us", "%.1f"),
                            ("both", "total_us", "%.1f")],
                           [("tps", "tps"), ("pooler", "pooler_us"), ("PostgreSQL", "postgres_us"), ("both", "total_us")])

    # -------------------------------------------------------------- stream

    def prepare_stream(self):
        print("\ntables of %d MB for stream" % (STREAM_BYTES // 1000000), flush=True)
        for server in self.servers:
            self.psql(server,
                      "DROP TABLE IF EXISTS rows100, rows8k",
                      "CREATE TABLE rows100 AS SELECT i::int AS id, repeat('x', 91) AS t FROM generate_series(1, %d) i"
                      % (STREAM_BYTES // 100),
                      "CREATE TABLE rows8k (id int, t text)",
                      "ALTER TABLE rows8k ALTER t SET STORAGE EXTERNAL",
                      "INSERT INTO rows8k SELECT i, repeat(md5(i::text), 255) FROM generate_series(1, %d) i"
                      % (STREAM_BYTES // 8168),
                      "VACUUM (FREEZE, ANALYZE) rows100", "VACUUM (FREEZE, ANALYZE) rows8k", stderr=subprocess.DEVNULL)

    def stream(self, system, table):
        for pid in system.pooler():  # the peak of this run, not of all before
            try:
                with open("/proc/%d/clear_refs" % pid, "w") as f:
                    f.write("5")
            except OSError:
                pass
        resident = memory_kb(system.pooler(), "VmRSS")
        read_end = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        pooler, started = cpu_ns(system.pooler()), time.monotonic()
        self.psql(system, "COPY %s TO STDOUT" % table, stdout=read_end.stdin)
        read_end.stdin.close()
        size = int(read_end.stdout.read())
        read_end.wait()
        elapsed = time.monotonic() - started
        return {"mb_s": size / 1e6 / elapsed, "pooler_s_gb": (cpu_ns(system.pooler()) - pooler) / size,
                "peak_kb": memory_kb(system.pooler(), "VmHWM"), "growth_kb": memory_kb(system.pooler(), "VmHWM") - resident,
                "bytes": size}

    def run_stream(self):
        self.prepare_stream()
        for table, text in (("rows100", "rows of 100 bytes"), ("rows8k", "rows of 8 kB")):
            self.interleave(("stream", table), [s for s in self.systems if s.can("stream")],
                            lambda s: self.stream(s, table))
            self.table(("stream", table), "stream: 200 MB, %s, one connection" % text,
                       [("MB/s", "mb_s", "%.0f"), ("pooler s/GB", "pooler_s_gb", "%.3f"),
                        ("peak RSS kB", "peak_kb", "%.0f"), ("grown by kB", "growth_kb", "%.0f")],
                       [("MB/s", "mb_s"), ("pooler", "pooler_s_gb")])

    # -------------------------------------------------------------- idle

    def idle(self, system):
        """Memory for each logged-in client that does nothing. holdidle says when all are in."""
        count = self.args.idle_clients
        before = {k: memory_kb(system.pooler(), k) for k in ("Rss", "Pss")}
        command = [os.path.join(self.args.tools, "holdidle"), "--host", "127.0.0.1", "--port", system.port,
                   "--user", os.environ["PGUSER"], "--password", os.environ["PGPASSWORD"],
                   "--database", os.environ["PGDATABASE"], "--clients", str(count)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True)
        try:
            started = time.monotonic()
            if not any(line.startswith("ready") for line in iter(holder.stdout.readline, "")):
                return {"failed": holder.stderr.read().strip()[-300:] or "holdidle ended before all were in"}
            login = time.monotonic() - started
            time.sleep(1)
            after = {k: memory_kb(system.pooler(), k) for k in ("Rss", "Pss")}
            cpu, started = cpu_ns(system.pooler()), time.monotonic()
            time.sleep(2)
            cpu = (cpu_ns(system.pooler()) - cpu) / (time.monotonic() - started) / 1e7
        finally:
            holder.terminate()
            holder.wait()
        return {"login_s": login, "rss_b": (after["Rss"] - before["Rss"]) * 1024 / count,
                "pss_b": (after["Pss"] - before["Pss"]) * 1024 / count, "cpu_percent": cpu}

    def run_idle(self):
        if not os.access(os.path.join(self.args.tools, "holdidle"), os.X_OK):
            print("\nidle: left out, there is no test/tools/holdidle.cpp")
            return
        systems = [s for s in self.systems if s.can("idle")]
        # once: memory that is kept after the first round would hide what the second needs
        self.interleave(("idle",), systems, self.idle, rounds=1)
        self.table(("idle",), "idle: %d clients" % self.args.idle_clients,
                   [("login s", "login_s", "%.1f"), ("RSS B/client", "rss_b", "%.0f"), ("PSS B/client", "pss_b", "%.0f"),
                    ("CPU %", "cpu_percent", "%.1f")], [("RSS", "rss_b")])

    # -------------------------------------------------------------- rounds and tables

    def interleave(self, cell, systems, measure, rounds=None):
        for number in range(rounds or self.args.rounds):
            first = number % len(systems) if systems else 0
            for system in systems[first:] + systems[:first]:
                self.progress("%s, round %d, %s" % (" ".join(map(str, cell)), number + 1, system.name))
                try:
                    figures = measure(system)
                except (subprocess.CalledProcessError, OSError) as error:
                    figures = {"failed": str(error)}
                self.rounds.append({"cell": list(cell), "round": number, "system": system.name, **figures})
        self.progress("")

    @staticmethod
    def progress(text):
        if sys.stdout.isatty():
            print("\r\033[K" + text, end="", flush=True)

    def summary(self, cell):
        """system -> figures (medians) and ratios to PgBouncer (medians of the ratios within a round)."""
        runs = [r for r in self.rounds if r["cell"] == list(cell)]
        result = {}
        for name in dict.fromkeys(r["system"] for r in sorted(runs, key=lambda r: self.order(r["system"]))):
            mine = [r for r in runs if r["system"] == name]
            good = [r for r in mine if "failed" not in r]
            entry = {"rounds": len(good), "median": {}, "ratio": {}}
            if len(good) < len(mine):
                entry["failed"] = next(r["failed"] for r in mine if "failed" in r)
            keys = [k for k in (good[0] if good else {}) if k not in ("cell", "round", "system")]
            for key in keys:
                values = [r[key] for r in good if r[key] is not None]
                entry["median"][key] = statistics.median(values) if values else None
                ratios = self.ratios(runs, name, BASE, key)
                entry["ratio"][key] = statistics.median(ratios) if ratios else None
            result[name] = entry
        return result

    @staticmethod
    def ratios(runs, name, to, key):
        """Of two systems, within each round in which both have the figure."""
        return [r[key] / b[key] for r in runs for b in runs
                if r["system"] == name and b["system"] == to and b["round"] == r["round"] and b.get(key) and r.get(key)]

    def compare(self):
        """pgpool against the pgpool of --against, cell by cell; true if none is above --at-most."""
        columns = (("pooler", "pooler_us"), ("PostgreSQL", "postgres_us"), ("both", "total_us"))
        rows, above, total = [], [], []
        for cell in dict.fromkeys(tuple(r["cell"]) for r in self.rounds):
            runs = [r for r in self.rounds if r["cell"] == list(cell)]
            both = sorted(self.ratios(runs, "pgpool", BEFORE, "total_us"))
            if not both:
                continue
            total += both
            found = [statistics.median(self.ratios(runs, "pgpool", BEFORE, key)) for _, key in columns]
            rows.append([" ".join(map(str, cell))] + ["%.3f" % f for f in found] +
                        ["%.3f - %.3f" % (both[0], both[-1]), str(len(both))])
            if self.args.at_most and found[-1] > self.args.at_most:
                above.append(rows[-1][0])
        if not rows:
            print("\nno cell has pgpool and before")
            return not self.args.at_most
        rows.append(["all"] + [""] * len(columns[1:]) + ["%.3f" % statistics.median(total), "%.3f - %.3f" % (min(total), max(total)),
                                                       str(len(total))])
        print_table("pgpool / before: CPU time for a transaction, medians of the ratios within a round",
                    ["cell"] + [c[0] for c in columns] + ["both, range", "rounds"], rows)
        if self.args.at_most:
            limit = "%g" % self.args.at_most
            print("above %s: %s" % (limit, ", ".join(above)) if above else "at most %s in every cell" % limit)
        return not above

    def order(self, name):
        return [s.name for s in self.systems].index(name)

    def table(self, cell, heading, columns, ratios):
        summary = self.summary(cell)
        if not summary:
            return
        with_ratios = any(v is not None for e in summary.values() for v in e["ratio"].values())
        header = ["system"] + [c[0] for c in columns]
        header += ["x " + r[0] for r in ratios] if with_ratios else []
        rows = []
        for name, entry in summary.items():
            if not entry["rounds"]:
                rows.append([name, "failed: " + entry["failed"].splitlines()[-1][:90]])
                continue
            row = [name]
            for _, key, form in columns:
                value = entry["median"].get(key)
                row.append(form % value if value else "-")
            for _, key in ratios if with_ratios else []:
                value = entry["ratio"].get(key)
                row.append("%.2f" % value if value else "-")
            if "failed" in entry:
                row[0] += " (%d rounds)" % entry["rounds"]
            rows.append(row)
        print_table(heading + ("   (x: ratio to PgBouncer)" if with_ratios else ""), header, rows)

    def report(self):
        cells = list(dict.fromkeys(tuple(r["cell"]) for r in self.rounds))
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        data = {"date": stamp, "machine": {"cores": os.cpu_count(), "kernel": os.uname().release,
                                           "load": os.getloadavg()},
                "arguments": {k: v for k, v in vars(self.args).items() if k not in ("system", "check")},
                "cells": [{"cell": list(c), "systems": self.summary(c)} for c in cells], "runs": self.rounds}
        path = os.path.join(self.args.json_dir, "bench-%s.json" % stamp)
        for name in (path, os.path.join(self.args.json_dir, "latest.json")):
            with open(name, "w") as f:
                json.dump(data, f, indent=1)
        print("\n%d runs, load average %.1f on %d cores; report: %s" %
              (len(self.rounds), os.getloadavg()[0], os.cpu_count(), path))


def print_table(heading, header, rows):
    widths = [max(len(r[i]) for r in [header] + [r for r in rows if len(r) == len(header)]) for i in range(len(header))]
    widths[0] = max(widths[0], max(len(r[0]) for r in rows))
    print("\n" + heading)
    for row in [header] + rows:
        print("  " + "  ".join([row[0].ljust(widths[0])] + [v.rjust(w) for v, w in zip(row[1:], widths[1:])]))
    sys.stdout.flush()


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else None


def main():
    args = parse_arguments()
    if args.check:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = Bench(args)
    # idle first: memory that other measures left behind would serve its clients
    for measure in sorted(args.only, key=lambda m: m != "idle"):
        if measure in ("select", "tpcb"):
            bench.run_pgbench(measure)
        elif measure == "stream":
            bench.run_stream()
        else:
            bench.run_idle()
    fine = bench.compare() if args.against else True
    bench.report()
    sys.exit(0 if fine else 1)


main()
