// Where a client's next batch is served: on the primary, or as a read on a node. See session.hpp.
//
// A node serves whole batches of a client that is in no transaction, one at a time, and only such as the grammar says
// are reads. Before the client's bytes go there, the node must be known to be a standby that has replayed all that the
// client must see: else it is asked first (For::Position), for no position that somebody else tells is a proof of
// that. Whatever goes wrong before the client has heard of it goes to the primary. Must not know how a node is reached.
#include "core/client/session.hpp"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "core/client/read_route.hpp"
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
                                "pg_catalog.pg_is_in_recovery()";

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

// The target of the batch that `bytes` begin with.
Target Session::choose_target(std::string_view bytes)
{
	if (route_ && std::exchange(route_->primary_once, false))
		return Target::Primary;
	if (!group_->routes_reads())
		return Target::Primary;
	if (!route_)
		route_ = std::make_unique<ReadRoute>();
	if (session_mode_ || login_ || subscription_ || statements_.pins() || !is_read(bytes))
		return Target::Primary;
	route_->served = false;
	const std::optional<uint32_t> node = choose_node();
	return node ? on_node(*node) : Target::Primary;
}

bool Session::is_read(std::string_view bytes) const
{
	const Reading reading = reading_of(*settings_.now().get(), group_->greeting());
	const auto is_read = [&](std::string_view sql) {
		return context_.reads().is_read(sql, reading, group_->shared().database_oid, context_.now());
	};
	const auto sql_of = [this](std::string_view name) {
		const Statement *s = statements_.statement_of(name);
		return s ? std::string_view(s->body.c_str()) : std::string_view();
	};
	return BatchReader(bytes).reads(is_read, sql_of);
}

// What the client has seen on the primary or on one node another one may not have replayed yet. So it stays where it is
// for a while, and goes elsewhere only when it is known how far that can have been at most: as far as the primary has
// flushed since, or as commits were told that do not wait for that.
std::optional<uint32_t> Session::choose_node()
{
	Nodes &nodes = context_.nodes();
	const int64_t now = context_.now();
	const region::Header &header = *context_.region().header();
	context_.want_positions();
	ReadNeeds needs{group_->shared().node_mask.load(std::memory_order_relaxed), fence()};
	if (route_->answered_at == 0 || !is_monotonic())
		return nodes.choose(needs, now);
	const bool may_stay = route_->is_reader && nodes.may_serve(route_->node, needs, now);
	if (may_stay && now - route_->since < kStays)
		return route_->node;
	if (header.flushed_at.load(std::memory_order_acquire) <= route_->answered_at)
		return may_stay ? std::optional(route_->node) : std::nullopt;
	route_->seen = std::max({route_->seen, header.flushed.load(std::memory_order_relaxed), database_commit()});
	route_->answered_at = 0;
	route_->is_reader = false;
	needs.fence = fence();
	return nodes.choose(needs, now);
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

// The server is on a node, and has the client's settings. False: the node is asked, and the client waits.
bool Session::node_is_fit()
{
	route_->fence = fence();
	if (context_.nodes().is_proved(node_of(target_), route_->fence, context_.now()))
		return true;
	route_->position = 0;
	input_.miss(Missing::Position);
	server_->run(kAskPosition, For::Position);
	return false;
}

// Of the position: two columns, see kAskPosition.
void Session::on_row(std::string_view body)
{
	proto::Reader r(body);
	if (!route_ || r.u16() != 2)
		return;
	const std::string position(r.bytes(r.u32()));
	const std::string_view in_recovery = r.bytes(r.u32());
	if (r.ok() && in_recovery == "t")
		route_->position = strtoull(position.c_str(), nullptr, 10);
}

void Session::on_position()
{
	Nodes &nodes = context_.nodes();
	const uint32_t node = node_of(target_);
	if (route_->position == 0)
		nodes.fails(node, context_.now());
	else
		nodes.prove(node, route_->position, context_.now());
	if (route_->position == 0 || route_->position < route_->fence) {
		nodes.count_fallback(node);
		go_to_primary();
		return;
	}
	input_.miss(Missing::Nothing);
	resume();
}

// The client's bytes are about to go to a node.
void Session::begin_read()
{
	if (std::exchange(route_->served, true))
		return;
	server_->statements().replay().begin_on_node(server_->replies());
	context_.nodes().count_read(node_of(target_));
	if (!route_->is_reader || route_->node != node_of(target_))
		route_->since = context_.now();
	route_->is_reader = true;
	route_->node = node_of(target_);
}

// An answer is there: what was seen, had happened by now. By the clock itself: the time of the event may be older than
// what was received in it.
void Session::end_read()
{
	if (route_)
		route_->answered_at = context_.clock();
}

// Nothing of what waits was sent.
void Session::go_to_primary()
{
	if (!route_)
		route_ = std::make_unique<ReadRoute>();
	route_->primary_once = true;
	if (ServerConn *server = std::exchange(server_, nullptr))
		server->give_back();
	input_.miss(Missing::Nothing);
	resume();
}

} // namespace pgpool::core
