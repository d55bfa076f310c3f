#!/usr/bin/env python3
"""dev/swap.py DIR... - CPU per transaction of this checkout's libraries and of those of other checkouts, in one cluster.

Two clusters that were made alike differ by some per cent for reasons that nobody knows (where their files and memory lie);
this one is restarted with the libraries of each checkout in turn, so that nothing else differs. Round after round, each
checkout, each protocol: a second to warm up, then --seconds of pgbench -S. Ratios are medians of those within a round.

Needs: root, a demo that runs (make demo), each DIR built (make). Their libraries must go with this checkout's tables.
Leaves: the demo as it was, with this checkout's libraries.

For example: dev/swap.py --rounds 11 ../before
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

LIBRARIES = ("pgpool.so", "pgpool_worker.so")
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def fail(text):
    sys.exit("swap: " + text)


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("dirs", nargs="+", metavar="DIR", help="another checkout, built; the first is what all are compared with")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--protocols", default="simple,extended,prepared", type=lambda t: t.split(","))
    return p.parse_args()


class Demo:
    """The primary of `make demo`."""

    def __init__(self):
        try:
            with open(HERE + "/build/demo/state") as f:
                state = dict(line.split("=", 1) for line in f.read().splitlines())
        except OSError:
            fail("there is no demo: make demo")
        self.data = state["run"] + "/primary"
        self.owner = os.stat(self.data)
        exe = os.readlink("/proc/%d/exe" % self.postmaster())
        self.bin = os.path.dirname(exe)
        self.lib = os.path.join(os.path.dirname(self.bin), "lib")
        os.environ.update(PGPASSWORD=state["password"], PGSSLMODE="disable")
        conf = subprocess.run([self.bin + "/postgres", "-C", "pgpool.port", "-D", self.data], text=True,
                              capture_output=True, user=self.owner.st_uid, group=self.owner.st_gid)
        self.port = conf.stdout.strip() or "6543"

    def postmaster(self):
        with open(self.data + "/postmaster.pid") as f:
            return int(f.readline())

    def control(self, *words):
        log = self.data + "/../swap.log"
        done = subprocess.run([self.bin + "/pg_ctl", "-D", self.data, "-w", "-l", log, *words], text=True,
                              capture_output=True, user=self.owner.st_uid, group=self.owner.st_gid, extra_groups=[])
        if done.returncode:
            fail("pg_ctl %s: %s%s" % (" ".join(words), done.stdout, done.stderr))

    def install(self, checkout):
        self.control("stop", "-m", "fast")
        for name in LIBRARIES:
            os.unlink(os.path.join(self.lib, name))  # another file: who has the old one mapped keeps it
            shutil.copy(os.path.join(checkout, "build", name), self.lib)
        self.control("start")

    def cpu_us(self):
        """Of pgpool's workers, and of the backends that they opened."""
        workers = backends = 0
        root = self.postmaster()
        tick = 1000000 // os.sysconf("SC_CLK_TCK")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid) as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                with open("/proc/%s/cmdline" % pid) as f:
                    title = f.read()
            except OSError:
                continue
            if int(fields[1]) != root:
                continue
            used = (int(fields[11]) + int(fields[12])) * tick
            if "pgpool worker" in title:
                workers += used
            elif re.search(r"postgres: (\S+ )?app ", title):
                backends += used
        return workers, backends

    def pgbench(self, protocol, clients, seconds):
        for _ in range(100):  # until it is ready
            done = subprocess.run(
                [self.bin + "/pgbench", "-n", "-S", "-M", protocol, "-c", str(clients), "-T", str(seconds), "-h", "127.0.0.1", "-p",
                 self.port, "-U", "app.shop", "shop"], text=True, capture_output=True)
            if done.returncode == 0:
                return int(re.search(r"actually processed: (\d+)", done.stdout).group(1))
            time.sleep(0.2)
        return fail("pgbench: " + done.stderr)


def measure(demo, checkouts, o):
    """{(protocol, checkout): [(us of workers, us of backends) for a transaction, one a round]}"""
    results = {}
    for n in range(o.rounds):
        for checkout in checkouts if n % 2 == 0 else reversed(checkouts):
            demo.install(checkout)
            for protocol in o.protocols:
                demo.pgbench(protocol, o.clients, 1)
                before = demo.cpu_us()
                transactions = demo.pgbench(protocol, o.clients, o.seconds)
                spent = [(b - a) / transactions for a, b in zip(before, demo.cpu_us())]
                results.setdefault((protocol, checkout), []).append(spent)
        print("round %d of %d" % (n + 1, o.rounds), flush=True)
    return results


def report(results, checkouts, protocols):
    median = statistics.median
    everything = {c: [] for c in checkouts}
    print("%-10s %-24s %8s %9s   ratio: pooler, backends, both (quartiles)" % ("protocol", "checkout", "pooler", "backends"))
    for protocol in protocols:
        base = results[(protocol, checkouts[0])]
        for checkout in checkouts:
            here = results[(protocol, checkout)]
            ratio = lambda of: sorted(of(a) / of(b) for a, b in zip(here, base))
            both = ratio(sum)
            everything[checkout] += both
            print("%-10s %-24s %8.2f %9.2f   %.3f %.3f %.3f (%.3f - %.3f)" % (
                protocol, checkout[-24:], median(a[0] for a in here), median(a[1] for a in here),
                median(ratio(lambda a: a[0])), median(ratio(lambda a: a[1])), median(both),
                both[len(both) // 4], both[3 * len(both) // 4]))
    for checkout in checkouts[1:]:
        print("%-10s %-24s both %.3f of %s" % ("all", checkout[-24:], median(everything[checkout]), checkouts[0]))


def main():
    o = arguments()
    checkouts = [os.path.abspath(d) for d in o.dirs] + [HERE]
    for checkout in checkouts:
        for name in LIBRARIES:
            if not os.path.exists(os.path.join(checkout, "build", name)):
                fail("%s is not built: make -C %s" % (checkout, checkout))
    demo = Demo()
    try:
        report(measure(demo, checkouts, o), checkouts, o.protocols)
    finally:
        demo.install(HERE)


main()
