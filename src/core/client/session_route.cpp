// Where a client's next batch is served: on the primary, or as a read on a node. See session.hpp.
//
// A node serves whole batches of a client that is in no transaction, one at a time, and only such as the grammar says
// are reads, and blocks (session_block.cpp). Before the client's bytes go there, the node must be known to be a standby
// that has replayed all that the client must see: else it is asked first (For::Position), for no position that somebody
// else tells is a proof of that. Whatever goes wrong before the client has heard of it goes to the primary. Must not
// know how a node is reached.
#include "core/client/session.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/client/clients.hpp"
#include "core/client/read_route.hpp"
#include "core/routing/route_words.hpp"
#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// The position as a number of bytes.
constexpr char kAskPosition[] = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0'), "
                                "pg_catalog.pg_is_in_recovery(), "
                                "pg_catalog.current_setting('default_transaction_isolation')";

// What the session says of all its statements: by pgpool.route, or by a name that another pooler has for it.
Route route_of(const ParamSet &params)
{
	Route route = Route::Auto;
	for (const char *name : kRouteSettings) {
		const Param *p = params.find(name);
		if (p && route == Route::Auto)
			(void)route_of_word({p->value.data(), p->value.data() + p->value.size()}, route);
	}
	return route;
}

// How a client's strings are read. What is not known is as PostgreSQL has it by default.
Reading reading_of(const ParamSet &params, const Greeting &greeting)
{
	Reading r;
	if (const Param *p = params.find("client_encoding"))
		r.client_encoding = p->value;
	if (const Param *p = params.find("standard_conforming_strings"))
		r.standard_conforming_strings = p->value != "off";
	if (const Param *p = params.find("backslash_quote"))
		r.backslash_quote = p->value == "on" ? 1 : p->value == "off" ? 0 : 2;
	for (const auto &f : greeting.fixed()) {
		if (f.first == "server_encoding")
			r.server_encoding = f.second;
	}
	r.route = route_of(params);
	return r;
}

constexpr int64_t kStays = 1000000; // us that a client stays on one node, which is never behind itself

} // namespace

bool Session::is_on_node() const
{
	return server_ && server_->on_node();
}

// On a node: all of the batch went there, so what comes now is the next one.
bool Session::is_next_batch() const
{
	const Replies &replies = std::as_const(*server_).replies();
	return route_->served && (replies.round_outstanding() || replies.at_rest());
}

// The target of the batch that `bytes` begin with. False: it waits for a node, or was refused.
bool Session::choose_target(std::string_view bytes)
{
	target_ = Target::Primary;
	if (moves_block())
		return true;
	if (route_)
		route_->block = {};
	if (!group_->routes_reads() || login_) {
		if (route_) {
			route_->end_wait();
			route_->primary_once = route_->why = Reason::None;
		}
		return true;
	}
	if (!route_) {
		route_ = std::make_unique<ReadRoute>();
		route_->session = this;
	}
	route_->why = std::exchange(route_->primary_once, Reason::None);
	BatchReader batch(bytes);
	Block block;
	if (route_->why == Reason::None)
		route_->why = why_primary(batch, block);
	if (route_->why != Reason::None) {
		route_->end_wait();
		return true;
	}
	route_->served = false;
	if (batch.begins_block()) {
		block.begin = batch.begin();
		route_->block = std::move(block);
	}
	const NodeChoice choice = choose_node();
	if (choice.kind == NodeChoice::Kind::Behind && may_await(choice.node)) {
		if (stash(bytes))
			clients_.await_replay(route_.get());
		return false;
	}
	if (choice.kind == NodeChoice::Kind::Node) {
		target_ = on_node(choice.node); // which may say that it is not there yet
		return true;
	}
	route_->end_wait();
	route_->why = choice.kind == NodeChoice::Kind::Primary  ? Reason::PrimaryShare
	              : choice.kind == NodeChoice::Kind::Behind ? Reason::ReplicaBehind
	                                                        : Reason::NoReplica;
	return choice.kind == NodeChoice::Kind::Primary || no_node(choice, bytes);
}

Reading Session::reading() const
{
	return reading_of(*settings_.now().get(), group_->greeting());
}

// None: it is a read, or begins a block that is.
Reason Session::why_primary(BatchReader &batch, Block &block) const
{
	if (session_mode_ || subscription_ || statements_.pins())
		return Reason::KeptServer;
	Reason why = Reason::Batch;
	const bool is_known = read_batch(batch, block, why);
	return is_known && (batch.only_reads() || batch.begins_block()) ? Reason::None : why;
}

// `block` is the one that is open, or gets what is said of one that begins.
bool Session::read_batch(BatchReader &batch, Block &block, Reason &why) const
{
	Reading reading = this->reading();
	if (block.vouched)
		reading.route = Route::Replica;
	const auto part = [&](std::string_view sql) {
		const Classified &what = context_.reads().what(sql, reading, group_->shared().database_oid, context_.now());
		if (what.kind != Kind::Read)
			why = what.kind == Kind::Write ? what.reason : Reason::Transaction;
		return part_of(what, block);
	};
	const auto sql_of = [this](std::string_view name) {
		const Statement *s = statements_.statement_of(name);
		return s ? std::string_view(s->body.c_str()) : std::string_view();
	};
	return batch.read(part, sql_of);
}

// A node refused it, for it writes: that text goes to the primary from now on, this time as well. Which of several
// it was is not known.
void Session::learn_write(std::string_view bytes)
{
	std::string_view only;
	size_t others = 0;
	const auto note = [&](std::string_view sql) {
		others += !only.empty() && only != sql;
		only = sql;
		return Part::Read;
	};
	const auto sql_of = [this](std::string_view name) {
		const Statement *s = statements_.statement_of(name);
		return s ? std::string_view(s->body.c_str()) : std::string_view();
	};
	if (BatchReader(bytes).read(note, sql_of) && others == 0)
		context_.reads().learn_write(only, reading(), group_->shared().database_oid, context_.now());
	route_->primary_once = Reason::Learned;
}

ReadNeeds Session::needs() const
{
	ReadNeeds needs;
	needs.nodes =
	    group_->shared().node_mask.load(std::memory_order_relaxed) & ~group_->refusing_nodes() & ~route_->tried;
	needs.fence = route_->fence;
	needs.primary_weight = group_->settings().primary_reads.load(std::memory_order_relaxed) != 0 ? 1 : 0;
	return needs;
}

// What the client has seen on the primary or on one node another one may not have replayed yet. So it stays where
// it is for a while, and goes elsewhere only when it is known how far that can have been at most: as far as the
// primary has flushed since, or as commits were told that do not wait for that.
NodeChoice Session::choose_node()
{
	using To = NodeChoice::Kind;
	Nodes &nodes = context_.nodes();
	const int64_t now = context_.now();
	const region::Header &header = *context_.region().header();
	context_.want_positions();
	if (const uint32_t failed = nodes.failing() | group_->refusing_nodes())
		group_->try_nodes(failed & group_->shared().node_mask.load(std::memory_order_relaxed));
	if (!route_->waits())
		route_->fence = fence(); // what was committed before the read began
	ReadNeeds needs = this->needs();
	if (needs.primary_weight > 0 && now < route_->primary_until)
		return {To::Primary, 0};
	if (route_->answered_at != 0 && is_monotonic()) {
		const NodeChoice here = stay();
		if (here.kind == To::Node && now - route_->since < kStays)
			return here;
		if (header.flushed_at.load(std::memory_order_acquire) <= route_->answered_at)
			return here.kind == To::Node ? here : nodes.nearest(needs);
		route_->seen = std::max({route_->seen, header.flushed.load(std::memory_order_relaxed), database_commit()});
		route_->answered_at = 0;
		route_->is_reader = false;
		needs.fence = route_->fence = std::max(route_->fence, route_->seen);
	}
	const NodeChoice choice = nodes.choose(needs);
	if (choice.kind == To::Primary && is_monotonic())
		route_->primary_until = now + kStays;
	return choice;
}

// On the node that it has read from.
NodeChoice Session::stay()
{
	ReadNeeds same = needs();
	same.nodes &= route_->is_reader ? 1u << route_->node : 0;
	same.primary_weight = 0;
	return context_.nodes().choose(same);
}

// Some milliseconds, for a node to be at the fence.
bool Session::may_await(uint32_t node)
{
	const int64_t now = context_.now();
	const int64_t limit = int64_t{group_->settings().read_wait.load(std::memory_order_relaxed)} * 1000;
	if (!route_->waits()) {
		if (limit <= 0)
			return false;
		route_->wait_until = now + limit;
		since_ = now;
		context_.nodes().count_wait(node);
	}
	if (now >= route_->wait_until)
		return false;
	input_.miss(Missing::Replay);
	return true;
}

void Session::on_alarm()
{
	input_.miss(Missing::Nothing);
	resume();
}

// The primary serves it, if the tenant has it so.
bool Session::no_node(const NodeChoice &why, std::string_view bytes)
{
	const bool may_write = !route_->block.begin.empty() && !route_->block.read_only;
	if (falls_back() || may_write) {
		if (why.kind == NodeChoice::Kind::Behind)
			context_.nodes().count_fallback(why.node, Fallback::Behind);
		return true;
	}
	ReadNeeds all;
	all.nodes = group_->shared().node_mask.load(std::memory_order_relaxed);
	if (!stash(bytes))
		return false;
	refuse({proto::sqlstate::kCannotConnectNow, "no replica can serve the read",
	        "Reads of tenant \"" + group_->tenant() + "\" do not go to the primary (replica_fallback is error). " +
	            context_.nodes().why_none(all),
	        "See pgpool.pg_stat_replicas; to have the primary serve reads when no replica can: "
	        "pgpool.alter_tenant(..., replica_fallback => 'primary')."});
	if (!dead_)
		pause(Pause::Turn); // what comes behind it may end as it does
	return false;
}

bool Session::falls_back() const
{
	return group_->settings().replica_fallback.load(std::memory_order_relaxed) == region::ReplicaFallback::Primary;
}

bool Session::is_monotonic() const
{
	return group_->settings().consistency.load(std::memory_order_relaxed) != region::Consistency::Eventual;
}

// What the client must see, whichever node it reads from.
uint64_t Session::fence() const
{
	if (!is_monotonic())
		return 0;
	uint64_t fence = std::max(tally_.commit_lsn(), route_->seen);
	if (group_->settings().consistency.load(std::memory_order_relaxed) == region::Consistency::Database)
		fence = std::max(fence, database_commit());
	return fence;
}

uint64_t Session::database_commit() const
{
	return context_.region().header()->database_commit[group_->shared().database_oid % region::kCatalogCounters].load();
}

// The server has the client's settings. True: the client waits until something else is done there.
bool Session::prepares_target()
{
	if (moves_block())
		begin_again();
	return moves_block() || (is_on_node() && !node_is_fit());
}

// The server is on a node. False: the node is asked, and the client waits.
bool Session::node_is_fit()
{
	if (!route_->block.asks && context_.nodes().is_proved(node_of(target_), route_->fence, context_.now()))
		return true;
	route_->position = 0;
	input_.miss(Missing::Position);
	server_->run(kAskPosition, For::Position);
	return false;
}

// Of the position: three columns, see kAskPosition.
void Session::on_row(std::string_view body)
{
	proto::Reader r(body);
	if (!route_ || r.u16() != 3)
		return;
	const std::string position(r.bytes(r.u32()));
	const std::string_view in_recovery = r.bytes(r.u32());
	const std::string_view isolation = r.bytes(r.u32());
	if (r.ok() && in_recovery == "t")
		route_->position = strtoull(position.c_str(), nullptr, 10);
	if (r.ok() && route_->block.asks)
		route_->isolation = isolation;
}

void Session::on_position()
{
	Nodes &nodes = context_.nodes();
	const uint32_t node = node_of(target_);
	const bool is_standby = route_->position != 0;
	if (is_standby)
		nodes.prove(node, route_->position, context_.now());
	else
		nodes.fails(node, context_.now(), "it is no standby");
	const bool is_fit = is_standby && route_->position >= route_->fence;
	if (is_in_block_on_node()) {
		on_position_in_block(is_fit);
	} else if (is_fit && !isolation_is_fit()) {
		route_->primary_once = Reason::Transaction;
		leave_node();
	} else if (is_fit) {
		input_.miss(Missing::Nothing);
		resume();
	} else if (is_standby && may_await(node)) {
		std::exchange(server_, nullptr)->give_back();
		clients_.await_replay(route_.get());
	} else {
		nodes.count_fallback(node, Fallback::Behind);
		go_elsewhere(Reason::ReplicaBehind);
	}
}

// The client's bytes are about to go to a node.
void Session::begin_read()
{
	if (std::exchange(route_->served, true))
		return;
	route_->end_wait();
	server_->statements().replay().begin_on_node(server_->replies(), true);
	context_.nodes().count_read(node_of(target_));
	if (!route_->is_reader || route_->node != node_of(target_))
		route_->since = context_.now();
	route_->is_reader = true;
	route_->node = node_of(target_);
}

// An answer is there: what was seen, had happened by now. By the clock itself: the time of the event may be older
// than what was received in it.
void Session::end_batch(char status)
{
	if (!route_)
		return;
	route_->tried = 0;
	route_->answered_at = context_.clock();
	region::PoolCounters &counters = group_->counters();
	if (is_node(target_)) {
		region::bump(counters.reads_on_replicas);
	} else if (route_->why != Reason::None) {
		static_assert(kReasons <= int{region::kRouteReasons});
		const auto why = static_cast<size_t>(route_->why);
		region::bump(context_.region().tenant_counters(tenant_slot_, context_.worker()).to_primary[why]);
		if (is_of_read(route_->why))
			region::bump(counters.reads_on_primary);
		route_->why =
		    status == 'I' ? Reason::KeptServer : Reason::Transaction; // of the next one, if this server has it
	}
}

// The node has failed the batch.
void Session::avoid_node(Reason why)
{
	if (falls_back())
		route_->primary_once = why;
	else
		route_->tried |= 1u << node_of(target_);
}

// Nothing of what waits was sent.
void Session::go_elsewhere(Reason why)
{
	avoid_node(why);
	leave_node();
}

void Session::leave_node()
{
	route_->end_wait();
	if (ServerConn *server = std::exchange(server_, nullptr))
		server->give_back();
	input_.miss(Missing::Nothing);
	resume();
}

} // namespace pgpool::core
