// isocheck: the table that all clients write to, before the run and after it. See isocheck.hpp.
#include "isocheck.hpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace iso
{

static Target setup_target(size_t i)
{
	Target t = cfg.target;
	t.user = cfg.users[0];
	t.database = cfg.databases[i % cfg.databases.size()];
	return t;
}

bool prepare()
{
	for (size_t i = 0; i < cfg.databases.size(); i++) {
		Conn conn;
		Target t = setup_target(i);
		if (!conn.login(t)) {
			printf("cannot log in as %s to %s: %s\n", t.user.c_str(), t.database.c_str(), conn.error().c_str());
			return false;
		}
		Result r = conn.run("create table if not exists isocheck(tag text, seq bigint, payload text)");
		if (r.ok)
			conn.run("grant all on isocheck to public"); // fails when another run's role owns it: then it was done
		if (!r.ok) {
			printf("cannot make the table isocheck: %s\n", r.error.c_str());
			return false;
		}
	}
	return true;
}

// Each insert must be in the table as often as its fate says.
static bool check_inserts(Client &c, Conn &conn, std::map<Insert::State, uint64_t> &counts)
{
	Result r = conn.run("select seq, count(*), min(payload), max(payload) from isocheck where tag = '" + c.self.tag +
	                    "' group by 1");
	if (!r.ok) {
		fail(c, "cannot read the table: " + r.error, "");
		return false;
	}
	std::map<uint64_t, uint64_t> found;
	for (const auto &row : r.rows) {
		found[strtoull(row[0]->c_str(), nullptr, 10)] = strtoull(row[1]->c_str(), nullptr, 10);
		if (*row[2] != c.self.tag.substr(0, 8) || *row[2] != *row[3])
			fail(c, "a row with a foreign payload", *row[0] + " " + *row[2]);
	}
	for (const Insert &insert : c.ledger) {
		auto at = found.find(insert.seq);
		uint64_t have = at == found.end() ? 0 : at->second;
		counts[insert.state]++;
		if (at != found.end())
			found.erase(at);
		bool right = have == (insert.state == Insert::State::Committed ? insert.rows : 0) ||
		             (insert.state == Insert::State::Unknown && have == insert.rows);
		if (!right) {
			fail(c,
			     "insert " + std::to_string(insert.seq) + " of " + std::to_string(insert.rows) + " rows, " +
			         (insert.state == Insert::State::Committed ? "committed"
			          : insert.state == Insert::State::Aborted ? "rolled back"
			                                                   : "unknown"),
			     std::to_string(have) + " rows in the table");
			return false;
		}
	}
	if (!found.empty())
		fail(c, "rows that nobody inserted", std::to_string(found.begin()->first));
	conn.run("delete from isocheck where tag = '" + c.self.tag + "'");
	return !failed;
}

void verify()
{
	std::map<Insert::State, uint64_t> counts;
	std::vector<std::unique_ptr<Conn>> conns;
	for (size_t i = 0; i < cfg.databases.size(); i++) {
		conns.push_back(std::make_unique<Conn>());
		for (int tries = 0; !conns.back()->login(setup_target(i)); tries++) {
			if (tries >= 100) {
				fail(*clients[0], "cannot log in to verify", conns.back()->error());
				return;
			}
			struct timespec pause {
				0, 100000000
			};
			nanosleep(&pause, nullptr);
		}
	}
	for (auto &c : clients)
		for (size_t i = 0; i < cfg.databases.size(); i++)
			if (cfg.databases[i] == c->self.database && !failed && !check_inserts(*c, *conns[i], counts))
				return;
	printf("inserts: %" PRIu64 " committed, %" PRIu64 " rolled back, %" PRIu64 " unknown, all as they must be\n",
	       counts[Insert::State::Committed], counts[Insert::State::Aborted], counts[Insert::State::Unknown]);
}

} // namespace iso
