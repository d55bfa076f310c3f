// Random schedules: clients with random programs, backends, cancels, deaths and a clock, all from one seed.
//
// The oracle of a client is a backend of its own, fed with the same bytes: the client must get exactly what
// that backend answers, in order. The backends themselves note when a server passes from one client to
// another while it is not at rest; in the end nothing may be left. With nodes, reads go to standbys that replay what
// the primary writes when they like: none may serve a read that must see more than it has. SIM_SCHEDULES sets the
// number of schedules, SIM_SEED the first seed. A failure prints seed and last events, all of them with SIM_TRACE.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <set>

#include <gtest/gtest.h>

#include "fake.hpp"
#include "programs.hpp"

namespace
{

using namespace fake;

struct Client {
	Client(int number, uint64_t seed) : id(number), program(number, seed) {}

	int id;
	Stream *stream = nullptr;
	uint64_t session = 0;
	Program program;
	Backend model;
	struct Sent {
		std::string bytes;
		int version; // of the catalog, which the client may count on
	};
	std::vector<Sent> sent;               // to the model
	std::map<size_t, std::string> forced; // Backend::forced
	size_t lone_at = SIZE_MAX;            // first reply to a batch that nothing of the client's was beside
	bool lone_describes = false;
	int lone_changes = 0;   // of the catalog and of what was forgotten, when it was sent
	std::string sent_to_it; // not yet whole messages
	std::vector<std::string> expected, got;
	size_t next_notification = 0, next_listening = 0; // in the catalog: what it has not heard, what is not yet so
	std::set<std::string> channels;
	std::string key;
	int32_t key_pid = 0;
	uint64_t must_see = 0; // position that what it sent last must not be behind
	uint64_t seen = 0;     // of the furthest that it was served by
	bool greeted = false;
	bool gone = false;    // it left, or was told to
	bool may_cut = false; // its server died
	bool sleeps = false;  // its last message is a SLEEP
	bool cancels = false; // it has asked for a cancel, ever
	Stream *canceller = nullptr;
	bool settled() const { return got.size() >= expected.size(); }
};

class Simulator : Dice
{
public:
	enum class Nodes : uint8_t { None, Two };

	explicit Simulator(uint64_t seed, Nodes nodes = Nodes::None)
	    : Dice(seed), world_(1 + static_cast<uint32_t>(seed % 2), seed * 2654435761u + 1)
	{
		world_.settings().pool_size.store(static_cast<int>(pick(1, 3)));
		world_.settings().server_lifetime.store(chance(30) ? 300 : 0);
		world_.settings().on_disconnect.store(chance(50) ? region::OnDisconnect::Finish : region::OnDisconnect::Cancel);
		world_.settings().server_idle_timeout.store(chance(30) ? 200 : 0);
		world_.view.header()->settings.max_prepared_statements = static_cast<int>(pick(1, 4));
		if (chance(30))
			limit_ = world_.view.header()->settings.max_client_statements = static_cast<int>(pick(1, 3));
		if (chance(30))
			world_.settings().cache_unnamed.store(region::CacheUnnamed::Generic);
		counts_ = chance(80);
		if (!counts_)
			world_.catalog->changed = nullptr;
		for (auto &n : world_.nodes)
			n->engine->on_settings(world_.view.header()->settings);
		kills_ = chance(30);
		slow_ = chance(40);
		if (chance(40)) {
			bounded_ = true;
			for (auto &n : world_.nodes)
				n->engine->context().set_bounds({static_cast<uint32_t>(pick(1, 4)), pick(2, 8)});
		}
		if (slow_)
			world_.server_room = 0;
		agent_ = chance(50);
		refuses_ = chance(20);
		world_.prepare_backend = [this](Backend &b) {
			b.agent = agent_;
			if (refuses_ && !finishing_ && chance(30))
				b.refuse = {"57P03", "the database system is starting up", "", ""};
		};
		accepted_.resize(world_.nodes.size());
		if (nodes == Nodes::Two)
			add_nodes();
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
	uint64_t heard() const { return heard_; }
	uint64_t reads() const { return reads_; } // that nodes have served
	uint64_t handovers() const
	{
		uint64_t n = 0;
		for (const Catalog::Notification &m : world_.catalog->notifications)
			n += m.channel.substr(0, 8) == "_pgpool_";
		return n;
	}
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
	size_t amount() { return chance(50) ? pick(1, 8) : chance(50) ? pick(1, 200) : core::kChunk; }

	void note(std::string line)
	{
		events_++;
		trace_.push_back(std::move(line));
		if (trace_.size() > 60 && !getenv("SIM_TRACE"))
			trace_.pop_front();
	}
	void fail(const std::string &what)
	{
		if (problem_.empty())
			problem_ = what;
	}

	void add_client()
	{
		clients_.push_back(std::make_unique<Client>(static_cast<int>(clients_.size() + 1), pick(0, UINT64_MAX - 1)));
		Client &c = *clients_.back();
		const auto node = static_cast<uint32_t>(pick(0, world_.nodes.size() - 1));
		c.stream = world_.connect(node);
		c.session = uint64_t{node} << 48 | ++accepted_[node];
		if (slow_)
			c.stream->room = 0;
		c.program.reads = nodes_;
		c.program.listens = agent_ && chance(nodes_ ? 10 : 80);
		c.program.make();
		c.model.be_model(c.program.settings);
	}

	// ---- the nodes

	void add_nodes()
	{
		nodes_ = true;
		agent_ = true; // it tells of commits
		region::Header &h = *world_.view.header();
		h.system_identifier.store(4711);
		h.primary.store(1);
		for (uint32_t i = 0; i < kNodes; i++) {
			region::NodeSlot &n = world_.view.node(i);
			n.used.store(1);
			n.weight.store(100);
			n.generation.store(1);
		}
		world_.view.pool(0).node_mask.store(UINT32_MAX);
		world_.settings().routing.store(region::Routing::Reads);
		world_.settings().consistency.store(chance(50) ? region::Consistency::Database : region::Consistency::Session);
		flush();
		const auto prepare = world_.prepare_backend;
		world_.prepare_backend = [this, prepare](Backend &b) {
			prepare(b);
			b.agent = b.node < 0;
			if (b.node >= 0)
				b.replayed = replayed_[static_cast<size_t>(b.node)];
			b.executes = [this, &b](const std::string &sql) { executes(b, sql); };
		};
	}
	// The manager reads how far the primary is.
	void flush()
	{
		world_.view.header()->flushed.store(written_);
		world_.view.header()->flushed_at.store(world_.clock);
	}
	// Some nodes replay some of what was written; some fail, are promoted, come back.
	void change_nodes()
	{
		world_.clock += static_cast<int64_t>(pick(0, 3000));
		if (chance(70))
			flush();
		const auto i = static_cast<size_t>(pick(0, kNodes - 1));
		if (chance(70))
			replayed_[i] = pick(replayed_[i], written_);
		const bool refuses = chance(5), dies = chance(3), promoted = chance(3);
		for (auto &b : world_.backends) {
			if (b->node < 0 || static_cast<size_t>(b->node) != i)
				continue;
			b->replayed = replayed_[i];
			b->refused_reads = refuses ? "25006" : "";
			b->dies_reading = dies;
			b->in_recovery = !promoted;
		}
	}
	// What a client runs has its number in it.
	Client *client_of(const std::string &sql)
	{
		const size_t at = sql.find(" c");
		const size_t number = at == std::string::npos ? 0 : strtoul(sql.c_str() + at + 2, nullptr, 10);
		return number > 0 && number <= clients_.size() ? clients_[number - 1].get() : nullptr;
	}
	void executes(Backend &b, const std::string &sql)
	{
		Client *c = client_of(sql);
		const bool is_read = sql.substr(0, 6) == "SELECT" || sql.substr(0, 4) == "SHOW";
		if (b.node < 0 && !is_read)
			world_.view.header()->database_commit[b.database_oid].store(++written_);
		if (!c)
			return;
		c->seen = std::max(c->seen, b.node < 0 ? written_ : b.replayed);
		if (b.node < 0)
			return;
		reads_++;
		if (b.replayed < c->must_see)
			fail("client " + std::to_string(c->id) + " reads " + sql + " on a node at " + std::to_string(b.replayed) +
			     ", and must see " + std::to_string(c->must_see));
		if (!is_read)
			fail("client " + std::to_string(c->id) + " writes on a node: " + sql);
	}
	// It has been answered all that it sent, and asks for more.
	void demand(Client &c)
	{
		c.must_see = world_.settings().consistency.load() == region::Consistency::Database ? written_ : c.seen;
	}

	// ---- clients at work

	void send_chunk(Client &c)
	{
		std::deque<std::string> &chunks = c.program.chunks;
		if (c.gone || chunks.empty() || c.canceller)
			return;
		if (chunks.front().empty()) {
			if (!c.greeted || !c.settled())
				return;
			chunks.pop_front();
			c.sleeps = false;
			return;
		}
		const std::string bytes = chunks.front();
		chunks.pop_front();
		note("client " + std::to_string(c.id) + " sends " + printable(bytes));
		// Known: behind an error pgpool itself may still have something to do, if a name was taken.
		const bool at_once = c.greeted && c.settled() && c.stream->from_peer.empty() &&
		                     (c.got.size() < 2 || c.got[c.got.size() - 2][0] != 'E');
		if (c.greeted && c.settled())
			demand(c);
		c.stream->from_peer += bytes;
		if (bytes.size() > 8 && bytes[0] == 0 && !c.greeted)
			return; // the startup packet
		c.sleeps = bytes.find("SLEEP") != std::string::npos;
		if (at_once && !bounded_ && c.model.at_rest() && is_lone(bytes) && (chunks.empty() || chunks.front().empty()) &&
		    world_.stream_event(c.stream, core::kChunk) && c.stream->from_peer.empty()) {
			c.lone_at = c.expected.size();
			c.lone_changes = changes();
			c.lone_describes = bytes.find(message('D').substr(0, 4)) != std::string::npos;
		}
		c.sent.push_back({bytes, c.settled() ? world_.catalog->version : 0});
		tell_model(c, c.sent.back());
	}

	int changes() const { return world_.catalog->version + world_.catalog->forgotten; }

	// One batch: its Sync is at its end.
	static bool is_lone(const std::string &bytes)
	{
		std::string rest = bytes;
		const std::vector<Message> all = take_messages(rest);
		for (const Message &m : all) {
			if (m.type == 'Q' || m.type == 'F' || m.type == 'd' || (m.type == 'S' && &m != &all.back()))
				return false;
		}
		// Known: when a Parse or Close of the unnamed statement was skipped, the client has none, not the one before.
		const char *name = all[0].body.c_str() + (all[0].type == 'B' ? strlen(all[0].body.c_str()) + 1 : 1);
		return all.back().type == 'S' && (all[0].type == 'B' || all[0].type == 'D') && *name;
	}

	static void tell_model(Client &c, const Client::Sent &chunk)
	{
		Backend &m = c.model;
		m.catalog->version = std::max(m.catalog->version, chunk.version);
		m.feed(chunk.bytes);
		do {
			m.run();
			if (m.sleeping())
				m.wake();
		} while (m.step());
		c.may_cut |= m.dead; // it ran into a copy and did not know
		for (const Message &reply : take_messages(m.out))
			c.expected.push_back(token(reply));
		m.replies = c.expected.size();
	}

	// What others did made reply `i` an error. The client must then be answered as by a backend with that error in
	// that place.
	void force(Client &c, size_t i)
	{
		const std::string &e = c.got[i];
		const std::string sqlstate = e.substr(0, 7) == "EERROR " ? e.substr(7, 5) : "";
		const bool stale = sqlstate == "0A000", lost = sqlstate == "26000";
		if (!stale && !lost && !(sqlstate == "53400" && limit_ > 0) && sqlstate != "25P02")
			return;
		const bool only = i == c.lone_at || (i == c.lone_at + 1 && c.expected[i - 1][0] == 't');
		if (only && !c.gone && c.lone_changes == changes() && (lost || (stale && c.lone_describes)))
			fail("client " + std::to_string(c.id) + " is told of a statement that was gone");
		if (!c.forced.emplace(i, sqlstate).second)
			return;
		c.expected.clear();
		c.model = Backend();
		c.model.be_model(c.program.settings);
		c.model.forced = c.forced;
		for (const Client::Sent &chunk : c.sent)
			tell_model(c, chunk);
	}

	// A version of the catalog may be later than that which the client knew when it prepared.
	bool agree(const std::string &got, const std::string &expected) const
	{
		// Of two names for one statement the text may have the other.
		if (got.substr(0, 12) == "EERROR 26000" && expected.substr(0, 12) == "EERROR 26000")
			return got.find("_pgpool_") == std::string::npos;
		if (got.substr(0, 2) != expected.substr(0, 2) || (got.substr(0, 2) != "Dv" && got.substr(0, 2) != "Tv"))
			return got == expected;
		const int version = atoi(&got[2]);
		return version <= world_.catalog->version && (!counts_ || version >= atoi(&expected[2]));
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
		if (m.type == 'D' && m.body.size() > 7 && m.body[6] == 'v' && isdigit(m.body[7]))
			return "Dv" + m.body.substr(7);
		if (m.type == 'T' && m.body.size() > 3 && m.body[2] == 'v')
			return "Tv" + std::string(m.body.c_str() + 3);
		if (m.type == 'E') {
			const pgpool::proto::Error e = pgpool::proto::read_error(m.body);
			if (e.sqlstate == "57014")
				return "end of sleep";
			return "E" + m.body.substr(1, 5) + " " + e.sqlstate + " " + e.message;
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
			// Nothing can listen for it, and others keep their servers, too.
			c.may_cut |= refuses_ && pgpool::proto::read_error(m.body).sqlstate == "53400";
			if (m.type == 'E' && m.body.substr(0, 6) == "SFATAL" && (c.may_cut || c.gone)) {
				note("client " + std::to_string(c.id) + " is told " + printable(m.body));
				return;
			}
			if (m.type == 'A') {
				hear(c, m);
				continue;
			}
			c.got.push_back(token(m));
			if (getenv("SIM_TRACE"))
				note("client " + std::to_string(c.id) + " gets " + printable(c.got.back()));
			const size_t i = c.got.size() - 1;
			if (i < c.expected.size() && !agree(c.got[i], c.expected[i]))
				force(c, i);
			if (i >= c.expected.size() || !agree(c.got[i], c.expected[i])) {
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

	// The next notification that it must hear: each of a channel that it listens to when the other commits.
	const Catalog::Notification *due(Client &c)
	{
		const Catalog &all = *world_.catalog;
		for (; c.next_notification < all.notifications.size(); c.next_notification++) {
			for (; c.next_listening < all.listening.size(); c.next_listening++) {
				const Catalog::Listening &l = all.listening[c.next_listening];
				if (l.from > c.next_notification)
					break;
				if (l.client != c.id)
					continue;
				if (l.begins)
					c.channels.insert(l.channel);
				else if (l.channel == "*")
					c.channels.clear();
				else
					c.channels.erase(l.channel);
			}
			const Catalog::Notification &n = all.notifications[c.next_notification];
			if (c.channels.count(n.channel) != 0)
				return &n;
		}
		return nullptr;
	}

	void hear(Client &c, const Message &m)
	{
		const Catalog::Notification *n = due(c);
		const std::string channel = m.body.c_str() + 4, payload = m.body.c_str() + 5 + channel.size();
		note("client " + std::to_string(c.id) + " hears " + channel + " " + payload);
		if (!n || n->channel != channel || n->payload != payload)
			fail("client " + std::to_string(c.id) + " hears " + channel + " " + payload + ", not " +
			     (n ? n->channel + " " + n->payload : "nothing"));
		c.next_notification++;
		heard_++;
	}

	void greeting(Client &c, const Message &m)
	{
		if (m.type == 'E' && !c.may_cut && !c.gone)
			fail("client " + std::to_string(c.id) + " could not log in: " + printable(m.body));
		if (m.type == 'S') {
			const std::string parameter = m.body.c_str(), value = m.body.c_str() + parameter.size() + 1;
			if (is_reported(parameter) && c.model.value(parameter) != value)
				fail("client " + std::to_string(c.id) + " was greeted with " + printable(m.body) + ", not " +
				     c.model.value(parameter) + ", settings " + std::to_string(c.program.settings.size()));
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
		c.canceller->from_peer = cancel_request(c.key_pid, c.key);
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
			for (const control::ServerRow &row : server_rows(*n->engine)) {
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
				world_.tick(static_cast<int64_t>(pick(1, agent_ && chance(20) ? 1200 : 100)));
				note("tick");
			}
			break;
		case 5:
			if (chance(10))
				kill();
			break;
		case 6:
			if (nodes_)
				change_nodes();
			world_.post_event();
			world_.turn(static_cast<uint32_t>(pick(0, world_.nodes.size() - 1)));
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
		for (auto &n : world_.nodes) {
			auto &sessions = n->engine->clients().sessions();
			for (core::Session *s = sessions.front(); s && limit_ > 0; s = sessions.next(s)) {
				// one more: the unnamed one, or one whose Close was taken for granted and failed
				const core::ClientStatements *names = s->statements()->names();
				if (names && names->size() > static_cast<size_t>(limit_) + 1)
					fail("a client has more statements than it may");
			}
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
		for (uint32_t n = 0; n < world_.nodes.size(); n++)
			more |= world_.turn(n);
		check();
		return more;
	}

	// Everybody comes to an end; nobody may starve, and nothing may be left.
	void finish()
	{
		world_.server_room = SIZE_MAX;
		finishing_ = true;
		for (auto &c : clients_) {
			c->program.end();
			c->stream->room = SIZE_MAX; // who has only closed its half reads to the end, or a server waits for it
		}
		int rounds = 0;
		for (bool open = true; open && problem_.empty() && rounds < 400; rounds++) {
			open = false;
			while (problem_.empty() && work_off()) {
			}
			for (auto &c : clients_) {
				for (int i = 0; i < 3; i++)
					send_chunk(*c);
				open |= !c->gone && (!c->program.chunks.empty() || !c->settled());
			}
			world_.tick(100);
			check();
		}
		for (auto &c : clients_) {
			if (!c->gone && problem_.empty() && (!c->settled() || !c->program.chunks.empty()))
				fail("client " + std::to_string(c->id) + " starves: " + std::to_string(c->got.size()) + " of " +
				     std::to_string(c->expected.size()) + " replies" + (c->may_cut ? ", a server died" : "") +
				     state(*c));
			if (c->gone)
				continue;
			if (const Catalog::Notification *n = due(*c))
				fail("client " + std::to_string(c->id) + " has not heard " + n->channel + " " + n->payload);
			c->gone = true;
			c->stream->from_peer += message('X');
			c->stream->peer_eof = true;
		}
		for (int i = 0; i < 15; i++) { // also of who was cut in a handover
			while (problem_.empty() && work_off()) {
			}
			world_.tick(100);
		}
		if (problem_.empty() && world_.hushed() != 0)
			fail("a backend stays hushed");
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
			region::TargetGauges &p = world_.gauges(w);
			s += ", worker " + std::to_string(w) + ": open " + std::to_string(p.open.load()) + " idle " +
			     std::to_string(p.idle.load()) + " active " + std::to_string(p.active.load()) + " waiting " +
			     std::to_string(p.waiting.load());
			for (const control::ClientRow &row : client_rows(world_.engine(w)))
				s += (row.id == c.session ? " (its state " : " (other ") + std::to_string(static_cast<int>(row.state)) +
				     ")";
		}
		return s;
	}

	static constexpr uint32_t kNodes = 2;

	World world_;
	uint64_t written_ = 1000; // position of the primary
	uint64_t replayed_[kNodes] = {1000, 1000};
	uint64_t reads_ = 0;
	int limit_ = 0;      // of a client's statements, 0 = none that matters
	bool counts_ = true; // changes of the catalog: a standby does not know those of its primary
	std::vector<std::unique_ptr<Client>> clients_;
	std::vector<uint64_t> accepted_;
	std::deque<std::string> trace_;
	std::set<int32_t> dying_;
	std::string problem_;
	uint64_t events_ = 0;
	uint64_t heard_ = 0;
	bool kills_ = false, slow_ = false;
	bool bounded_ = false; // turns so short that no batch is served in one
	bool agent_ = false;   // it is in the backends
	bool nodes_ = false;   // reads go to them
	bool finishing_ = false;
	bool refuses_ = false; // some backends do not let us in
};

uint64_t number(const char *variable, uint64_t otherwise)
{
	const char *value = getenv(variable);
	return value && *value ? strtoull(value, nullptr, 10) : otherwise;
}

TEST(Simulator, EveryClientGetsWhatABackendOfItsOwnWouldAnswer)
{
	const uint64_t first = number("SIM_SEED", 1), schedules = number("SIM_SCHEDULES", 2000);
	uint64_t events = 0, heard = 0, handovers = 0, run = 0;
	int failures = 0;
	for (uint64_t seed = first; seed < first + schedules && failures < 3; seed++) {
		run++;
		Simulator simulator(seed);
		const std::string problem = simulator.run();
		events += simulator.events();
		heard += simulator.heard();
		handovers += simulator.handovers();
		if (problem.empty())
			continue;
		failures++;
		ADD_FAILURE() << "SIM_SEED=" << seed << ": " << problem;
		if (schedules == 1 || failures == 1)
			simulator.print_trace();
	}
	printf("[ simulator ] %llu schedules, %llu events, %llu notifications heard, %llu handovers\n",
	       static_cast<unsigned long long>(run), static_cast<unsigned long long>(events),
	       static_cast<unsigned long long>(heard), static_cast<unsigned long long>(handovers));
}

TEST(Simulator, NoReadOnANodeIsBehindWhatItsClientMustSee)
{
	const uint64_t first = number("SIM_SEED", 1), schedules = number("SIM_SCHEDULES", 2000) / 2 + 1;
	uint64_t reads = 0;
	int failures = 0;
	for (uint64_t seed = first; seed < first + schedules && failures < 3; seed++) {
		Simulator simulator(seed, Simulator::Nodes::Two);
		const std::string problem = simulator.run();
		reads += simulator.reads();
		if (problem.empty())
			continue;
		failures++;
		ADD_FAILURE() << "SIM_SEED=" << seed << ": " << problem;
		if (schedules == 1 || failures == 1)
			simulator.print_trace();
	}
	EXPECT_GT(reads, schedules / 2) << "hardly any read went to a node";
	printf("[ simulator ] %llu reads on nodes\n", static_cast<unsigned long long>(reads));
}

// What was found once in hundreds of thousands of schedules: a client that left behind a copy which ate its Sync (two),
// and settings that were lost on the way back from a listener.
TEST(Simulator, SchedulesThatFailedOnce)
{
	for (const uint64_t seed : {10240752, 10997778, 10705706})
		EXPECT_EQ(Simulator(seed).run(), "") << "SIM_SEED=" << seed << " SIM_SCHEDULES=1";
}

} // namespace
