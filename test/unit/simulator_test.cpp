// Random schedules: clients with random programs, backends, cancels, deaths and a clock, all from one seed.
//
// The oracle of a client is a backend of its own, fed with the same bytes: the client must get exactly what
// that backend answers, in order. The backends themselves note when a server passes from one client to
// another while it is not at rest; in the end nothing may be left.
// SIM_SCHEDULES sets the number of schedules, SIM_SEED the first seed. A failure prints seed and last events.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <set>

#include <gtest/gtest.h>

#include "fake.hpp"

namespace
{

using namespace fake;

struct Client {
	int id = 0;
	Stream *stream = nullptr;
	uint64_t session = 0;
	Backend model;
	Settings settings;
	std::deque<std::string> program; // chunks; an empty one: wait for all replies
	std::string sent_to_it;          // not yet whole messages
	std::vector<std::string> expected, got;
	std::string key;
	int32_t key_pid = 0;
	int commands = 0;
	bool greeted = false;
	bool gone = false;    // it left, or was told to
	bool may_cut = false; // its server died
	bool without_model = false;
	bool sleeps = false;  // its last message is a SLEEP
	bool cancels = false; // it has asked for a cancel, ever
	Stream *canceller = nullptr;
	bool settled() const { return got.size() >= expected.size(); }
};

class Simulator
{
public:
	explicit Simulator(uint64_t seed)
	    : seed_(seed), world_(1 + static_cast<uint32_t>(seed % 2), seed * 2654435761u + 1), rng_(world_.rng)
	{
		world_.settings().pool_size.store(static_cast<int>(pick(1, 3)));
		world_.settings().server_lifetime.store(chance(30) ? 300 : 0);
		world_.settings().server_idle_timeout.store(chance(30) ? 200 : 0);
		world_.view.header()->settings.max_prepared_statements = static_cast<int>(pick(1, 4));
		for (auto &n : world_.nodes)
			n->engine->on_settings(world_.view.header()->settings);
		kills_ = chance(30);
		slow_ = chance(40);
		if (slow_)
			world_.server_room = 0;
		if (chance(20)) {
			world_.prepare_backend = [this](Backend &b) {
				if (chance(30))
					b.refuse = {"57P03", "the database system is starting up", "", ""};
			};
		}
		accepted_.resize(world_.nodes.size());
	}

	std::string run()
	{
		const auto n = pick(1, 6);
		for (uint64_t i = 0; i < n; i++)
			add_client();
		const auto steps = pick(100, 3000);
		for (uint64_t i = 0; i < steps && problem_.empty(); i++) {
			step();
			check();
		}
		finish();
		return problem_;
	}

	uint64_t events() const { return events_; }
	void print_trace() const
	{
		for (const std::string &line : trace_)
			fprintf(stderr, "  %s\n", line.c_str());
		for (const auto &b : world_.backends) {
			fprintf(stderr, "  backend %d%s:", b->pid, b->dead ? ", dead" : "");
			for (size_t i = b->log.size() > 20 ? b->log.size() - 20 : 0; i < b->log.size(); i++)
				fprintf(stderr, " [%s]", printable(b->log[i]).c_str());
			fprintf(stderr, "\n");
		}
	}

private:
	uint64_t pick(uint64_t from, uint64_t to) { return from + rng_() % (to - from + 1); }
	bool chance(uint64_t percent) { return rng_() % 100 < percent; }
	template <class T> T &one_of(std::vector<T> &v) { return v[rng_() % v.size()]; }
	size_t amount() { return chance(50) ? pick(1, 8) : chance(50) ? pick(1, 200) : core::kChunk; }

	void note(std::string line)
	{
		events_++;
		trace_.push_back(std::move(line));
		if (trace_.size() > 60)
			trace_.pop_front();
	}
	void fail(const std::string &what)
	{
		if (problem_.empty())
			problem_ = what;
	}

	// ---- programs

	void add_client()
	{
		clients_.push_back(std::make_unique<Client>());
		Client &c = *clients_.back();
		c.id = static_cast<int>(clients_.size());
		const auto node = static_cast<uint32_t>(pick(0, world_.nodes.size() - 1));
		c.stream = world_.connect(node);
		c.session = uint64_t{node} << 48 | ++accepted_[node];
		if (slow_)
			c.stream->room = 0;
		std::vector<std::pair<std::string, std::string>> parameters{{"user", "anna"}, {"database", "shop"}};
		if (chance(70))
			c.settings["application_name"] = "app" + std::to_string(pick(1, 3));
		if (chance(30))
			c.settings["TimeZone"] = "zone" + std::to_string(pick(1, 2));
		if (chance(30))
			c.settings["statement_timeout"] = std::to_string(pick(1, 2));
		parameters.insert(parameters.end(), c.settings.begin(), c.settings.end());
		c.model.be_model(c.settings);
		c.program.push_back(startup_packet(parameters));
		c.program.push_back("");
		const auto n = pick(1, 12);
		for (uint64_t i = 0; i < n; i++)
			add_step(c);
	}

	std::string tag(Client &c) { return " c" + std::to_string(c.id) + "." + std::to_string(++c.commands); }
	std::string zone() { return "zone" + std::to_string(pick(1, 3)); }

	std::string statement(Client &c)
	{
		switch (pick(0, 11)) {
		case 0:
			return "FAIL" + tag(c);
		case 1:
			return "ROWS" + tag(c) + " " + std::to_string(pick(0, 20)) + " " + std::to_string(pick(0, 300));
		case 2:
			return "COPYOUT" + tag(c) + " " + std::to_string(pick(0, 5));
		case 3:
			return "SET TimeZone " + zone() + tag(c);
		case 4:
			return "SHOW TimeZone" + tag(c);
		case 5:
			return "SHOW application_name" + tag(c);
		case 6:
			return "SHOW statement_timeout" + tag(c);
		case 7:
			return "BEGIN" + tag(c);
		case 8:
			return (chance(50) ? "COMMIT" : "ROLLBACK") + tag(c);
		case 9:
			return chance(20) ? "ROWS" + tag(c) + " 3 40000" : "SELECT" + tag(c);
		case 10:
			return "NOTICE" + tag(c);
		default:
			return chance(50) ? "SELECT" + tag(c) : "SELECT shared"; // the same text for all clients
		}
	}

	std::string name(int kinds) { return chance(50) ? "" : "s" + std::to_string(pick(1, kinds)); }

	std::string extended_message(Client &c)
	{
		switch (pick(0, 9)) {
		case 0:
			return parse(chance(10) ? "BADPARSE" + tag(c) : statement(c), name(3));
		// Not the unnamed statement: in transaction mode it is kept from Parse to its first use only.
		case 1:
			return bind_to("s" + std::to_string(pick(1, 3)), name(2));
		case 2:
			return chance(50) ? describe('S', "s" + std::to_string(pick(1, 3))) : describe('P', name(2));
		case 3:
			return execute(static_cast<uint32_t>(pick(0, 3)), name(2));
		case 4:
			return text_message('C', (chance(70) ? 'S' : 'P') + name(3));
		case 5:
			return kFlush_;
		case 6:
			return chance(30) ? query(statement(c)) : kFlush_;
		default: {
			const std::string s = name(3), p = name(2);
			return parse(statement(c), s) + (chance(40) ? describe('S', s) : "") + bind_to(s, p) +
			       (chance(60) ? describe('P', p) : "") +
			       execute(static_cast<uint32_t>(chance(30) ? pick(1, 3) : 0), p);
		}
		}
	}

	void put(Client &c, std::string bytes)
	{
		if (!c.program.empty() && !c.program.back().empty() && chance(50))
			c.program.back() += bytes;
		else
			c.program.push_back(std::move(bytes));
		if (chance(40))
			c.program.push_back("");
	}

	void add_copy(Client &c)
	{
		const bool bad = chance(40), is_extended = chance(50);
		const std::string sql = "COPYIN" + tag(c);
		put(c, is_extended ? parse(sql) + bind_to() + execute() + (chance(50) ? kSync_ : "") : query(sql));
		const auto rows = pick(0, 4);
		for (uint64_t i = 0; i < rows; i++) {
			put(c, message('d', tag(c).substr(1) + std::string(pick(0, 50), 'x')));
			if (!bad && chance(15))
				put(c, chance(50) ? kSync_ : kFlush_);
		}
		if (bad)
			put(c, message('d', tag(c).substr(1) + " bad") + (chance(50) ? message('d', tag(c).substr(1)) : ""));
		put(c, chance(75) ? message('c') : text_message('f', "no"));
		if (is_extended || chance(10))
			put(c, kSync_);
	}

	void add_step(Client &c)
	{
		switch (pick(0, 9)) {
		case 0:
			add_copy(c);
			break;
		case 1:
			put(c, query("BEGIN" + tag(c)));
			for (uint64_t i = pick(0, 4); i > 0; i--)
				put(c, query(statement(c)));
			put(c, query((chance(50) ? "COMMIT" : "ROLLBACK") + tag(c)));
			break;
		case 2:
			put(c, query(statement(c) + ";" + statement(c) + (chance(50) ? ";" + statement(c) : "")));
			break;
		case 3:
			for (uint64_t i = pick(1, 6); i > 0; i--)
				put(c, extended_message(c));
			put(c, kSync_);
			break;
		case 4:
			put(c, extended_message(c) + kSync_ + extended_message(c) + kSync_);
			break;
		case 5: {
			std::string body;
			Writer(body).u32(chance(30) ? 666 : 1).u16(0).u16(0).u16(0);
			put(c, message('F', body));
			break;
		}
		case 6:
			c.program.push_back("");
			c.program.push_back(kSync_ + query("ROLLBACK" + tag(c)));
			c.program.push_back("");
			c.program.push_back(query("SLEEP" + tag(c)));
			c.program.push_back("");
			break;
		case 7:
			put(c, chance(50) ? kSync_ : message('d', "stray") + message('c'));
			break;
		default:
			put(c, query(statement(c)));
			break;
		}
	}

	// ---- clients at work

	void send_chunk(Client &c)
	{
		if (c.gone || c.program.empty() || c.canceller)
			return;
		if (c.program.front().empty()) {
			if (!c.greeted || !c.settled())
				return;
			c.program.pop_front();
			c.sleeps = false;
			return;
		}
		const std::string bytes = c.program.front();
		c.program.pop_front();
		note("client " + std::to_string(c.id) + " sends " + printable(bytes));
		c.stream->from_peer += bytes;
		if (bytes.size() > 8 && bytes[0] == 0 && !c.greeted)
			return; // the startup packet
		c.sleeps = bytes.find("SLEEP") != std::string::npos;
		c.model.feed(bytes);
		do {
			c.model.run();
			if (c.model.sleeping())
				c.model.wake();
		} while (c.model.step());
		c.may_cut |= c.model.dead; // it ran into a copy and did not know
		for (const Message &m : take_messages(c.model.out))
			c.expected.push_back(token(m));
	}

	static std::string printable(const std::string &s)
	{
		std::string out;
		for (const char ch : s.substr(0, 160))
			out += ch >= 0x20 && ch < 0x7f ? ch : '.';
		return out;
	}

	static std::string token(const Message &m)
	{
		if (m.type == 'C' && m.body.substr(0, 5) == "SLEEP")
			return "end of sleep";
		if (m.type == 'E') {
			const pgpool::proto::Error e = pgpool::proto::read_error(m.body);
			if (e.sqlstate == "57014")
				return "end of sleep";
			// the name in the text is the server's own
			return "E " + m.body.substr(1, 5) + e.sqlstate;
		}
		return m.type + m.body;
	}

	void receive(Client &c)
	{
		c.sent_to_it += c.stream->to_peer;
		c.stream->to_peer.clear();
		for (const Message &m : take_messages(c.sent_to_it)) {
			if (!c.greeted) {
				greeting(c, m);
				continue;
			}
			if (c.without_model)
				continue;
			if (m.type == 'E' && m.body.substr(0, 6) == "SFATAL" && (c.may_cut || c.gone)) {
				note("client " + std::to_string(c.id) + " is told " + printable(m.body));
				return;
			}
			c.got.push_back(token(m));
			const size_t i = c.got.size() - 1;
			// Known: to describe a statement without rows in a failed transaction, pgpool may have to prepare it, which
			// the backend then refuses. From there on this client has no model.
			if (i < c.expected.size() && c.got[i] == "E ERROR25P02" && c.expected[i][0] == 't') {
				c.without_model = c.gone = true;
				c.stream->peer_eof = c.stream->peer_gone = true;
				return;
			}
			if (i >= c.expected.size() || c.expected[i] != c.got[i]) {
				fail("client " + std::to_string(c.id) + ", reply " + std::to_string(i) + ": got " +
				     printable(c.got[i]) + " after " + printable(i > 0 ? c.got[i - 1] : "") + ", not " +
				     (i < c.expected.size() ? printable(c.expected[i]) : "nothing"));
				return;
			}
		}
		if (c.stream->closed && !c.gone) {
			if (!c.may_cut)
				fail("client " + std::to_string(c.id) + " was closed" +
				     (world_.log.empty() ? "" : ": " + world_.log.back()));
			c.gone = true;
		}
	}

	void greeting(Client &c, const Message &m)
	{
		if (m.type == 'E' && !c.may_cut && !c.gone)
			fail("client " + std::to_string(c.id) + " could not log in: " + printable(m.body));
		if (m.type == 'S') {
			const std::string parameter = m.body.c_str(), value = m.body.c_str() + parameter.size() + 1;
			if (is_reported(parameter) && c.model.value(parameter) != value)
				fail("client " + std::to_string(c.id) + " was greeted with " + printable(m.body) + ", not " +
				     c.model.value(parameter) + ", settings " + std::to_string(c.settings.size()));
		}
		if (m.type == 'K') {
			c.key_pid = static_cast<int32_t>(pgpool::proto::load32(m.body.data()));
			c.key = m.body.substr(4);
		}
		c.greeted = m.type == 'Z';
	}

	void leave(Client &c)
	{
		if (c.gone)
			return;
		c.gone = true;
		Stream &s = *c.stream;
		if (chance(50) && !s.from_peer.empty())
			s.from_peer.resize(pick(0, s.from_peer.size()));
		s.peer_eof = true;
		s.peer_gone = chance(70);
		if (chance(30))
			s.from_peer.clear();
		note("client " + std::to_string(c.id) + " leaves");
	}

	void cancel(Client &c)
	{
		if (!c.sleeps || c.gone || c.canceller || !c.greeted || c.settled())
			return;
		const auto node = static_cast<uint32_t>(pick(0, world_.nodes.size() - 1));
		accepted_[node]++;
		c.cancels = true;
		c.canceller = world_.connect(node);
		c.canceller->from_peer = cancel_packet(c.key_pid, c.key);
		note("client " + std::to_string(c.id) + " asks for a cancel");
	}

	// ---- the rest of the world

	void kill()
	{
		if (!kills_ || world_.backends.empty())
			return;
		Backend &b = *one_of(world_.backends);
		Stream *s = world_.stream_of(&b);
		if (b.dead)
			return;
		b.die();
		const bool at_once = chance(50);
		if (at_once) { // nobody hears the last words
			b.out.clear();
			s->from_peer.clear();
			s->peer_eof = s->peer_gone = true;
		} else {
			dying_.insert(b.pid);
		}
		bool serves = false;
		each_served([&](int32_t pid, Client &c) {
			if (pid == b.pid) {
				c.may_cut = true;
				serves = true;
			}
		});
		// Whoever gets it before its end of file was read may be lost with it (SIM_STRICT: nobody is).
		if (!getenv("SIM_STRICT")) {
			for (auto &c : clients_)
				c->may_cut = true;
		}
		note("backend " + std::to_string(b.pid) + " dies" + (serves ? ", busy" : ", idle") +
		     (at_once ? " at once" : ""));
	}

	template <class F> void each_served(F f)
	{
		for (auto &n : world_.nodes) {
			for (const control::ServerRow &row : n->engine->server_rows()) {
				for (auto &c : clients_) {
					if (row.client_id == c->session)
						f(row.pid, *c);
				}
			}
		}
	}

	void step()
	{
		switch (pick(0, 19)) {
		case 0:
		case 1:
		case 2:
			send_chunk(*one_of(clients_));
			break;
		case 3:
			if (chance(3))
				leave(*one_of(clients_));
			if (chance(20))
				cancel(*one_of(clients_));
			break;
		case 4:
			if (chance(30)) {
				world_.tick(static_cast<int64_t>(pick(1, 100)));
				note("tick");
			}
			break;
		case 5:
			if (chance(10))
				kill();
			break;
		case 6:
			world_.post_event();
			break;
		case 7: {
			Stream *s = one_of(world_.streams).get();
			if (s->backend && s->backend->sleeping() && chance(30))
				s->backend->wake();
			break;
		}
		case 8:
		case 9: {
			Stream *s = one_of(world_.streams).get();
			if (slow_)
				s->room = amount();
			break;
		}
		default: {
			Stream *s = one_of(world_.streams).get();
			bool did = false;
			if (s->backend && chance(50))
				did = world_.backend_event(s, amount(), amount());
			else
				did = world_.stream_event(s, amount());
			if (did)
				note("event of " + std::string(s->backend ? "backend " + std::to_string(s->backend->pid) : "client"));
			break;
		}
		}
	}

	void check()
	{
		world_.check();
		if (!world_.problem.empty())
			fail(world_.problem);
		if (!dying_.empty()) {
			each_served([&](int32_t pid, Client &c) { c.may_cut |= dying_.count(pid) != 0; });
		}
		for (auto &c : clients_) {
			receive(*c);
			if (c->canceller && c->canceller->closed)
				c->canceller = nullptr;
		}
		for (auto &b : world_.backends) {
			if (b->cancelled > 0) {
				Client &c = *clients_[static_cast<size_t>(b->cancelled - 1)];
				if (!c.cancels && !c.gone && !c.stream->closed)
					fail("a cancel hit client " + std::to_string(c.id) + ", who asked for none");
				b->cancelled = -1;
			}
		}
	}

	bool work_off()
	{
		bool more = world_.post_event();
		for (size_t i = 0; i < world_.streams.size(); i++) {
			Stream *s = world_.streams[i].get();
			s->room = SIZE_MAX;
			if (s->backend) {
				if (s->backend->sleeping()) {
					s->backend->wake();
					more = true;
				}
				more |= world_.backend_event(s, SIZE_MAX, SIZE_MAX);
			}
			more |= world_.stream_event(s, core::kChunk);
		}
		check();
		return more;
	}

	// Everybody comes to an end; nobody may starve, and nothing may be left.
	void finish()
	{
		world_.server_room = SIZE_MAX;
		world_.prepare_backend = nullptr;
		for (auto &c : clients_) {
			c->program.push_back("");
			c->program.push_back(kSync_ + query("ROLLBACK" + tag(*c)));
		}
		int rounds = 0;
		for (bool open = true; open && problem_.empty() && rounds < 400; rounds++) {
			open = false;
			while (problem_.empty() && work_off()) {
			}
			for (auto &c : clients_) {
				for (int i = 0; i < 3; i++)
					send_chunk(*c);
				open |= !c->gone && (!c->program.empty() || !c->settled());
			}
			world_.tick(100);
			check();
		}
		for (auto &c : clients_) {
			if (!c->gone && problem_.empty() && (!c->settled() || !c->program.empty()))
				fail("client " + std::to_string(c->id) + " starves: " + std::to_string(c->got.size()) + " of " +
				     std::to_string(c->expected.size()) + " replies" + (c->may_cut ? ", a server died" : "") +
				     state(*c));
			if (c->gone)
				continue;
			c->gone = true;
			c->stream->from_peer += message('X');
			c->stream->peer_eof = true;
		}
		if (!problem_.empty())
			return;
		for (auto &n : world_.nodes) {
			n->engine->drain();
			n->engine->end_event();
		}
		for (int i = 0; i < 30; i++) {
			while (problem_.empty() && work_off()) {
			}
			world_.tick(100);
		}
		if (world_.leftovers() != "")
			fail("left: " + world_.leftovers());
	}

	std::string state(const Client &c)
	{
		std::string s = c.greeted ? "" : ", not greeted";
		for (uint32_t w = 0; w < world_.nodes.size(); w++) {
			region::PoolCounters &p = world_.counters(w);
			s += ", worker " + std::to_string(w) + ": open " + std::to_string(p.open.load()) + " idle " +
			     std::to_string(p.idle.load()) + " active " + std::to_string(p.active.load()) + " waiting " +
			     std::to_string(p.waiting.load());
			for (const control::ClientRow &row : world_.engine(w).client_rows())
				s += (row.id == c.session ? " (its state " : " (other ") + std::to_string(static_cast<int>(row.state)) +
				     ")";
		}
		return s;
	}

	const std::string kSync_ = message('S'), kFlush_ = message('H');
	const uint64_t seed_;
	World world_;
	std::mt19937_64 &rng_;
	std::vector<std::unique_ptr<Client>> clients_;
	std::vector<uint64_t> accepted_;
	std::deque<std::string> trace_;
	std::set<int32_t> dying_;
	std::string problem_;
	uint64_t events_ = 0;
	bool kills_ = false, slow_ = false;
};

uint64_t number(const char *variable, uint64_t otherwise)
{
	const char *value = getenv(variable);
	return value && *value ? strtoull(value, nullptr, 10) : otherwise;
}

TEST(Simulator, EveryClientGetsWhatABackendOfItsOwnWouldAnswer)
{
	const uint64_t first = number("SIM_SEED", 1), schedules = number("SIM_SCHEDULES", 2000);
	uint64_t events = 0, run = 0;
	int failures = 0;
	for (uint64_t seed = first; seed < first + schedules && failures < 3; seed++) {
		run++;
		Simulator simulator(seed);
		const std::string problem = simulator.run();
		events += simulator.events();
		if (problem.empty())
			continue;
		failures++;
		ADD_FAILURE() << "SIM_SEED=" << seed << ": " << problem;
		if (schedules == 1 || failures == 1)
			simulator.print_trace();
	}
	printf("[ simulator ] %llu schedules, %llu events\n", static_cast<unsigned long long>(run),
	       static_cast<unsigned long long>(events));
}

} // namespace
