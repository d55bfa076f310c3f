// Everything around the core in memory: streams, workers, the manager's answers, backends, a clock.
//
// Owns the fake Stream (a socket with a buffer of any size), the fake Outside of each worker, one region for
// all of them, and the delivery of events: nothing happens until World::step() is asked for one event, so a
// test decides the order. Use of a closed stream is a problem that World notes. Uses no GoogleTest: the
// fuzzers include it, too.
// Longer than a header should be: the parts are of no use without each other.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "core/worker/engine.hpp"
#include "core/base/ports.hpp"

namespace fake
{

// of the password "pencil"
inline constexpr char kVerifier[] = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                                    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                                    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

namespace core = pgpool::core;
namespace control = pgpool::control;
namespace region = pgpool::region;

class World;

// Says whether the core is at work, not the world around it: a test that makes allocations fail fails those of the
// core.
class At
{
public:
	enum Place { World, Core };
	explicit At(Place place) : before_(std::exchange(now_, place)) {}
	~At() { now_ = before_; }
	At(const At &) = delete;
	At &operator=(const At &) = delete;
	static bool core() { return now_ == Core; }
	static void reset() { now_ = World; } // the core was left without its destructors

private:
	static inline Place now_ = World;
	Place before_;
};

class Stream final : public core::Stream
{
public:
	// ---- the other end
	std::string to_peer;    // what the socket took
	std::string from_peer;  // what the engine has not read
	size_t room = SIZE_MAX; // bytes that the socket takes now
	bool peer_eof = false;  // the peer sends no more
	bool peer_gone = false; // nor reads
	bool shut = false;      // the engine sends no more
	bool closed = false;
	bool tls_possible = false, tls_started = false, tls_up = false; // tls_up: the test says when
	const char *end = "end of file";                                // what on_closed() says
	bool connecting = false;
	std::string address_bytes;
	core::TlsInfo tls_info;
	core::Secrecy secret = core::Secrecy::Local;
	uint32_t node = 0;
	World *world = nullptr;
	Backend *backend = nullptr;
	core::StreamOwner *owner = nullptr;

	// ---- what the engine sees
	void queue(const char *data, size_t size) override
	{
		const At at(At::World);
		alive("queue");
		if (size == 0 || broken_)
			return;
		if (out_.empty())
			pieces_.push_back({data, size});
		else
			out_.append(data, size);
	}
	void flush() override;
	size_t unsent() const override { return out_.size(); }
	int64_t blocked_since() const override { return blocked_; }
	bool broken() const override { return broken_; }
	uint64_t sent() const override { return sent_; }
	void read(bool on) override
	{
		alive("read");
		reading = on;
	}
	bool wipes_input = false;
	void wipe_input(bool on) override { wipes_input = on; }
	void shutdown_write() override
	{
		alive("shutdown_write");
		shut = true;
		if (!out_.empty())
			broken_ = true; // the next attempt fails
		out_.clear();
	}
	void set_owner(core::StreamOwner *o) override { owner = o; }
	void close(bool with_flush) override
	{
		const At at(At::World);
		alive("close");
		pieces_.clear();
		if (with_flush && !broken_ && !handshaking())
			to_peer += out_;
		out_.clear();
		owner = nullptr;
		closed = shut = true;
	}
	bool can_tls() const override { return tls_possible; }
	void start_tls() override { tls_started = true; }
	bool handshaking() const override { return tls_started && !tls_up; }
	const core::TlsInfo *tls() const override { return tls_up ? &tls_info : nullptr; }
	core::Secrecy secrecy() const override { return secret; }
	std::string_view address() const override { return address_bytes; }
	std::string peer() const override { return "peer"; }

	// ---- one event for the engine, with at most `most` bytes. False: nothing to tell.
	bool event(size_t most);
	bool has_event() const
	{
		if (closed || !owner)
			return false;
		if (handshaking())
			return peer_eof && !told_;
		return connecting || (broken_ && !told_) || wants_writable() || (reading && !from_peer.empty() && !told_) ||
		       (peer_eof && !told_ && (reading ? true : !half_told_));
	}
	bool reading = true;

private:
	bool wants_writable() const { return (!out_.empty() || peer_gone) && blocked_ != 0 && (room > 0 || peer_gone); }
	void alive(const char *what);

	struct Piece {
		const char *data;
		size_t size;
	};
	std::vector<Piece> pieces_;
	std::string out_; // what the socket did not take
	uint64_t sent_ = 0;
	int64_t blocked_ = 0;
	bool broken_ = false, told_ = false, half_told_ = false;
};

// SELECT and SHOW are reads.
struct Reader final : core::Grammar {
	core::Classified classify(std::string_view sql, const core::Reading &reading, const core::Facts *) override
	{
		core::Classified c;
		const bool hinted = sql.substr(0, 21) == "/* pgpool: replica */";
		c.route = hinted ? core::Route::Replica : reading.route;
		auto begins = [&](std::string_view word) { return sql.substr(hinted ? 22 : 0, word.size()) == word; };
		auto holds = [&](std::string_view word) { return sql.find(word) != std::string_view::npos; };
		const bool vouched = c.route == core::Route::Replica;
		c.kind = core::Kind::Read;
		for (size_t at = 0; at != std::string_view::npos; at = sql.find(';', at)) {
			at += at > 0;
			if (sql.substr(at, 7) != "SELECT " && sql.substr(at, 5) != "SHOW " && !(vouched && begins("ROWS")))
				c.kind = core::Kind::Write;
		}
		if (c.route == core::Route::Primary)
			c.kind = core::Kind::Write;
		if (holds(";"))
			return c;
		if (begins("BEGIN"))
			c.kind =
			    holds("READ ONLY") && c.route != core::Route::Primary ? core::Kind::BeginReadOnly : core::Kind::Begin;
		if (begins("BEGIN") && holds("REPEATABLE READ"))
			c.isolation = core::Isolation::RepeatableRead;
		if (begins("COMMIT") || begins("ROLLBACK"))
			c.kind = core::Kind::End;
		if (begins("SET TRANSACTION READ ONLY"))
			c.kind = core::Kind::SetTransactionReadOnly;
		return c;
	}
};

struct Node final : core::Outside {
	Reader reader;
	World *world = nullptr;
	uint32_t index = 0;
	std::unique_ptr<core::Engine> engine;

	int64_t now_us() override;
	int64_t clock_us() override { return now_us(); }
	int64_t wall_us() override;
	void alarm() override { alarmed = true; }
	bool alarmed = false;
	void random(void *out, size_t size) override;
	void log(std::string_view line) override;
	core::Grammar &grammar() override { return reader; }
	bool read_facts(uint32_t, std::string &) override { return false; }
	bool ask_manager(const control::AuthLookup &lookup) override;
	void wake_manager() override;
	void derive(uint64_t id, std::string_view password, const pgpool::proto::ScramVerifier &verifier) override;
	void forget_derivation(uint64_t id) override;
	core::Stream *dial(const core::ServerAddress &address, core::StreamOwner *owner) override;
	void interrupt_backend(int32_t pid) override;
	void terminate_backend(int32_t pid) override;
	void tell_worker(uint32_t worker, const void *packet, size_t size) override;
	void forward_cancel(const control::CancelKey &cancel, uint64_t session) override;
	void cancel_on_node(uint32_t, const core::Stream &, int32_t, std::string_view, uint64_t) override {}
	bool take_pulse(uint32_t node, const core::Stream &server) override;
};

class World
{
public:
	explicit World(uint32_t workers = 1, uint64_t seed = 1) : rng(seed)
	{
		const size_t size = region::View::size(workers, 2, 4, 8);
		memory_.reset(new (std::align_val_t(64)) char[size]());
		auto *h = reinterpret_cast<region::Header *>(memory_.get());
		region::View::format(h, workers, 2, 4, 8);
		view = region::View(h);
		h->settings.max_client_connections = 1000;
		h->settings.max_server_connections = 100;
		h->settings.max_client_statements = 1000;
		h->settings.client_statement_memory = 16384;
		h->settings.max_session_settings = 1000;
		h->settings.session_settings_memory = 1024;
		h->phase.store(region::Phase::Running);
		strcpy(view.tenant(0).name, "main");
		view.tenant(0).state.store(region::SlotState::Used);
		region::PoolSlot &p = view.pool(0);
		strcpy(p.tenant, "main");
		strcpy(p.database, "shop");
		strcpy(p.role, "anna");
		p.database_oid = 5;
		p.role_oid = 10;
		p.settings.pool_size.store(2);
		p.settings.max_pinned.store(1);
		p.state.store(region::SlotState::Used);
		h->settings.pin_grace_time = 2000;
		catalog->changed = [this] { view.header()->catalog_changes[5 % region::kCatalogCounters].fetch_add(1); };
		for (uint32_t i = 0; i < workers; i++) {
			nodes.push_back(std::make_unique<Node>());
			nodes[i]->world = this;
			nodes[i]->index = i;
			nodes[i]->engine = std::make_unique<core::Engine>(*nodes[i], view, i);
		}
	}

	// A test that fails leaves sessions and servers behind: they end here, or every failure were a leak, too.
	~World()
	{
		for (auto &n : nodes) {
			n->engine->drain();
			n->engine->abandon();
			n->engine->end_event();
		}
		for (int i = 0; i < 20; i++) {
			for (auto &s : streams)
				s->peer_eof = s->peer_gone = true;
			for (size_t k = 0; k < streams.size(); k++) {
				while (stream_event(streams[k].get(), SIZE_MAX)) {
				}
			}
			tick(2000);
		}
	}

	struct Free {
		void operator()(char *p) const { operator delete[](p, std::align_val_t(64)); }
	};

	int64_t clock = 1000000;
	std::mt19937_64 rng;
	region::View view;
	std::vector<std::unique_ptr<Node>> nodes;
	std::vector<std::unique_ptr<Stream>> streams;
	std::vector<std::unique_ptr<Backend>> backends;
	std::shared_ptr<Catalog> catalog = std::make_shared<Catalog>(); // of all backends
	std::vector<std::string> log;
	std::vector<int32_t> interrupts;
	std::vector<int32_t> terminated;
	std::string problem; // of the harness; backends have their own
	bool manager_answers = true;
	std::function<void(const control::AuthLookup &)> manager_hangs; // takes the question, and that is all
	bool can_dial = true;
	uint32_t silent_nodes = 0; // bits: those that give no sign of life
	int pulses = 0;            // that were taken
	bool can_derive = true;    // false: the threads are busy, the test runs `deriving`
	std::vector<std::function<void()>> deriving;
	int derived = 0, forgotten = 0; // hashes that were asked for, and those that nobody wanted any more
	int proofs = 0;                 // that one worker told another
	size_t server_room = SIZE_MAX;
	// The manager: by default everybody is "anna" in pool 0, and is trusted.
	std::function<void(const control::AuthLookup &, control::AuthAnswer &)> answer;
	std::function<void(Backend &)> prepare_backend;
	std::function<void(Stream &)> on_dialled;

	region::PoolSettings &settings() { return view.pool(0).settings; }
	region::PoolCounters &counters(uint32_t worker = 0) { return view.pool_counters(0, worker); }
	region::TargetGauges &gauges(uint32_t worker = 0, uint32_t target = 0) { return view.gauges(0, target, worker); }
	core::Engine &engine(uint32_t i = 0) { return *nodes[i]->engine; }

	// The manager looks at roles and databases, and tells all.
	void look()
	{
		view.header()->changes_seen.store(view.header()->changes_told.load());
		for (auto &n : nodes) {
			const At at(At::Core);
			n->engine->on_poke();
			n->engine->end_event();
		}
	}
	Stream *new_stream(uint32_t node)
	{
		streams.push_back(std::make_unique<Stream>());
		Stream *s = streams.back().get();
		s->node = node;
		s->world = this;
		return s;
	}
	Stream *connect(uint32_t node = 0, bool session_port = false)
	{
		Stream *s = new_stream(node);
		const At at(At::Core);
		engine(node).accept(s, session_port, false);
		engine(node).end_event();
		return s;
	}

	// ---- events. Each returns false when there is none.
	bool stream_event(Stream *s, size_t most)
	{
		if (!s->event(most))
			return false;
		const At at(At::Core);
		engine(s->node).end_event();
		return true;
	}
	bool turn(uint32_t node)
	{
		if (!engine(node).clients().has_turns())
			return false;
		engine(node).clients().take_turns();
		engine(node).end_event();
		return true;
	}
	bool post_event()
	{
		if (posts_.empty())
			return false;
		Post p = std::move(posts_.front());
		posts_.pop_front();
		p.act();
		return true;
	}
	// One message of a backend, and its output.
	bool backend_event(Stream *s, size_t most_in, size_t most_out)
	{
		Backend &b = *s->backend;
		bool did = false;
		if (const size_t n = std::min(most_in, s->to_peer.size()); n > 0 && !b.dead) {
			b.feed(std::string_view(s->to_peer).substr(0, n));
			s->to_peer.erase(0, n);
			did = true;
		}
		did |= b.step();
		return give(s, most_out) || did;
	}
	bool give(Stream *s, size_t most_out)
	{
		Backend &b = *s->backend;
		const size_t n = std::min(most_out, b.out.size());
		s->from_peer.append(b.out, 0, n);
		b.out.erase(0, n);
		if (s->shut && s->to_peer.empty() && !b.dead && !b.sleeping())
			b.dead = true; // end of file
		if (b.dead && b.out.empty() && !s->peer_eof) {
			s->peer_eof = s->peer_gone = true;
			return true;
		}
		return n > 0;
	}
	void post(std::function<void()> act) { posts_.push_back({std::move(act)}); }
	size_t posted() const { return posts_.size(); }

	// A millisecond, if somebody asked to be told of its end.
	bool ring()
	{
		bool any = false;
		for (auto &n : nodes) {
			if (!std::exchange(n->alarmed, false))
				continue;
			clock += any ? 0 : 1000;
			any = true;
			const At at(At::Core);
			n->engine->clients().on_alarm();
			n->engine->end_event();
		}
		return any;
	}
	void tick(int64_t ms = 100)
	{
		ring();
		clock += ms * 1000;
		const At at(At::Core);
		for (auto &n : nodes) {
			n->engine->tick();
			n->engine->end_event();
		}
	}
	// Everything that can happen without time going by.
	void settle()
	{
		for (bool more = true; more;) {
			more = post_event();
			for (size_t i = 0; i < streams.size(); i++) {
				Stream *s = streams[i].get();
				if (s->backend)
					more |= backend_event(s, SIZE_MAX, SIZE_MAX);
				more |= stream_event(s, core::kChunk);
			}
			for (uint32_t n = 0; n < nodes.size(); n++)
				more |= turn(n);
		}
		check();
	}
	void pass(int64_t ms)
	{
		settle();
		for (int64_t t = 0; t < ms; t += 100) {
			tick(100);
			settle();
		}
	}
	void check()
	{
		for (auto &b : backends) {
			if (!b->problem.empty() && problem.empty())
				problem = b->problem;
		}
	}
	Backend *find_backend(int32_t pid)
	{
		for (auto &b : backends) {
			if (b->pid == pid)
				return b.get();
		}
		return nullptr;
	}
	Stream *stream_of(const Backend *b)
	{
		for (auto &s : streams) {
			if (s->backend == b)
				return s.get();
		}
		return nullptr;
	}
	size_t live_backends() const
	{
		size_t n = 0;
		for (const auto &b : backends)
			n += !b->dead;
		return n;
	}
	// All that is left when everybody has gone.
	// Backends whose statements nobody logs, counts or ends: while nothing of ours runs, none.
	int hushed()
	{
		int sum = 0;
		for (uint32_t i = 0; i < view.header()->max_agents; i++)
			sum += view.agent(i).owner.load() != 0 && view.agent(i).hushed.load() != 0;
		return sum;
	}
	std::string leftovers()
	{
		std::string left;
		auto claim = [&](const char *what, int64_t n) {
			if (n != 0)
				left += std::string(what) + "=" + std::to_string(n) + " ";
		};
		for (uint32_t w = 0; w < nodes.size(); w++) {
			claim("clients", counters(w).clients.load());
			for (uint32_t target = 0; target < region::kTargets; target++) {
				region::TargetGauges &g = gauges(w, target);
				claim("open", g.open.load());
				claim("active", g.active.load());
				claim("idle", g.idle.load());
				claim("waiting", g.waiting.load());
				claim("pinned", g.pinned.load());
				claim("parkable", g.parkable.load());
				claim("listeners", g.listeners.load());
			}
			claim("worker.clients", view.worker(w).clients.load());
			claim("worker.servers", view.worker(w).servers.load());
			claim("tenant.clients", view.tenant_counters(0, w).clients.load());
			claim("sessions", static_cast<int64_t>(engine(w).clients().sessions().size()));
		}
		for (auto &s : streams)
			claim("stream", s->closed ? 0 : 1);
		return left;
	}

private:
	struct Post {
		std::function<void()> act;
	};
	std::unique_ptr<char, Free> memory_;
	std::deque<Post> posts_;
};

// ---- Stream

inline std::vector<control::ClientRow> client_rows(core::Engine &engine)
{
	return core::ClientRows(engine.clients().sessions()).next(SIZE_MAX);
}

inline std::vector<control::ServerRow> server_rows(core::Engine &engine)
{
	return core::ServerRows(engine.pools().servers()).next(SIZE_MAX);
}

inline void Stream::alive(const char *what)
{
	const At at(At::World);
	if (closed && world->problem.empty())
		world->problem = std::string(what) + "() of a closed stream";
}

inline void Stream::flush()
{
	const At at(At::World);
	alive("flush");
	if (pieces_.empty())
		return;
	if (peer_gone || shut) {
		pieces_.clear();
		broken_ = true;
		return;
	}
	for (const Piece &p : pieces_) {
		const size_t n = out_.empty() && !handshaking() ? std::min(room, p.size) : 0;
		to_peer.append(p.data, n);
		sent_ += n;
		room -= room == SIZE_MAX ? 0 : n;
		out_.append(p.data + n, p.size - n);
	}
	pieces_.clear();
	if (!out_.empty())
		blocked_ = world->clock;
}

// What the core does with it is its own.
template <class F> void tell(F act)
{
	const At at(At::Core);
	act();
}

inline bool Stream::event(size_t most)
{
	if (!has_event())
		return false;
	if (connecting) {
		connecting = false;
		tell([&] { owner->on_connected(); });
	} else if (handshaking()) {
		told_ = true;
		tell([&] { owner->on_closed("EOF detected"); });
	} else if (broken_) {
		told_ = true;
		reading = false;
		tell([&] { owner->on_closed("the connection was reset"); });
	} else if (wants_writable()) {
		if (peer_gone) {
			out_.clear();
			blocked_ = 0;
			broken_ = true;
			return true;
		}
		const size_t n = std::min(room, out_.size());
		to_peer.append(out_, 0, n);
		out_.erase(0, n);
		sent_ += n;
		room -= room == SIZE_MAX ? 0 : n;
		blocked_ = out_.empty() ? 0 : world->clock;
		if (out_.empty())
			tell([&] { owner->on_writable(); });
	} else if (!reading) {
		half_told_ = true;
		tell([&] { owner->on_half_closed(); });
	} else if (!from_peer.empty()) {
		// A buffer of exactly this size, so that a byte beyond it is seen.
		const size_t n = std::min(most, from_peer.size());
		std::unique_ptr<char[]> buffer(new char[n]);
		memcpy(buffer.get(), from_peer.data(), n);
		from_peer.erase(0, n);
		tell([&] { owner->on_data(buffer.get(), n); });
	} else {
		told_ = true;
		reading = false;
		tell([&] { owner->on_closed(end); });
	}
	return true;
}

// ---- Node

inline int64_t Node::now_us()
{
	return world->clock;
}
inline int64_t Node::wall_us()
{
	return world->clock + 1700000000000000;
}
inline void Node::random(void *out, size_t size)
{
	for (size_t i = 0; i < size; i++)
		static_cast<unsigned char *>(out)[i] = static_cast<unsigned char>(world->rng());
}
inline void Node::log(std::string_view line)
{
	const At at(At::World);
	world->log.emplace_back(line);
}
inline bool Node::ask_manager(const control::AuthLookup &lookup)
{
	const At at(At::World);
	if (!world->manager_answers)
		return false;
	if (world->manager_hangs) {
		world->manager_hangs(lookup);
		return true;
	}
	world->post([this, lookup] {
		auto a = control::make<control::AuthAnswer>(control::Type::AuthAnswer, lookup.head.id);
		a.method = control::AuthMethod::Trust;
		a.database_oid = 5;
		a.role_oid = 10;
		strcpy(a.role, "anna");
		strcpy(a.database, "shop");
		a.pool_generation = world->view.pool(0).generation.load();
		a.route = control::ServerRoute::Unix;
		if (world->answer)
			world->answer(lookup, a);
		const At inside(At::Core);
		engine->questions().on_answer(a);
		engine->end_event();
	});
	return true;
}
inline void Node::wake_manager()
{
	const At at(At::World);
	if (world->manager_answers)
		world->post([this] { world->look(); });
}
inline void Node::derive(uint64_t id, std::string_view password, const pgpool::proto::ScramVerifier &verifier)
{
	const At at(At::World);
	world->derived++;
	auto act = [this, id, text = std::string(password), verifier] {
		pgpool::proto::ScramKey key;
		const bool right = pgpool::proto::scram_keys_from_password(text, verifier, key);
		engine->questions().on_derived(id, right, key);
		engine->end_event();
	};
	if (world->can_derive)
		world->post(act);
	else
		world->deriving.push_back(act);
}
inline void Node::forget_derivation(uint64_t)
{
	world->forgotten++;
}
inline core::Stream *Node::dial(const core::ServerAddress &to, core::StreamOwner *owner)
{
	const At at(At::World);
	if (!world->can_dial)
		return nullptr;
	Stream *s = world->new_stream(index);
	world->backends.push_back(std::make_unique<Backend>());
	s->backend = world->backends.back().get();
	s->backend->catalog = world->catalog;
	s->backend->pid = static_cast<int32_t>(1000 + world->backends.size());
	if (to.route == control::ServerRoute::Node)
		s->backend->node = static_cast<int>(to.node);
	s->connecting = true;
	s->owner = owner;
	s->room = world->server_room;
	if (world->prepare_backend)
		world->prepare_backend(*s->backend);
	if (world->on_dialled)
		world->on_dialled(*s);
	return s;
}
inline bool Node::take_pulse(uint32_t node, const core::Stream &)
{
	const At at(At::World);
	world->pulses++;
	if ((world->silent_nodes & 1u << node) == 0)
		world->post([this, node] { engine->node_watch().on_pulse(node); });
	return true;
}
inline void Node::interrupt_backend(int32_t pid)
{
	const At at(At::World);
	world->interrupts.push_back(pid);
	if (Backend *b = world->find_backend(pid))
		b->interrupt();
}
inline void Node::terminate_backend(int32_t pid)
{
	const At at(At::World);
	world->terminated.push_back(pid);
}
inline void Node::tell_worker(uint32_t worker, const void *packet, size_t size)
{
	const At at(At::World);
	const std::string copy(static_cast<const char *>(packet), size);
	World *w = world;
	w->post([w, worker, copy] {
		const At inside(At::Core);
		control::Head head;
		memcpy(&head, copy.data(), sizeof(head));
		if (head.type == control::Type::YieldServer) {
			control::YieldServer m;
			memcpy(&m, copy.data(), sizeof(m));
			w->engine(worker).pools().on_yield(m);
		} else if (head.type == control::Type::Proof) {
			control::Proof m;
			memcpy(&m, copy.data(), sizeof(m));
			w->engine(worker).pools().on_proof(m);
			w->proofs++;
		} else {
			control::PlaceFree m;
			memcpy(&m, copy.data(), sizeof(m));
			w->engine(worker).pools().on_place_free(m);
		}
		w->engine(worker).end_event();
	});
}
inline void Node::forward_cancel(const control::CancelKey &cancel, uint64_t session)
{
	const At at(At::World);
	World *w = world;
	const uint32_t me = index;
	w->post([w, me, cancel, session] {
		const At inside(At::Core);
		for (auto &n : w->nodes) {
			if (n->index != me)
				n->engine->clients().cancel_here(cancel.pid,
				                                 {reinterpret_cast<const char *>(cancel.key), cancel.key_length});
			n->engine->end_event();
		}
		w->engine(me).clients().on_cancel_done(session);
		w->engine(me).end_event();
	});
}

} // namespace fake
