// Transaction blocks that begin on a node. See session.hpp; session_route.cpp chooses the node.
//
// A block that only reads may begin on a node, and stays there as long as each of its batches is known to read and to
// leave nothing in the session: for what a backend there has of it beyond what PostgreSQL reports, nobody tells.
// Before any other batch the block goes to the primary: it is begun again there, in the words of its client, and the
// node rolls back. By READ COMMITTED each statement has a snapshot of its own, and the primary is behind no node, so
// the client sees what it would have seen; but for now(), which is later. By REPEATABLE READ it would see another
// snapshot, so what cannot be served on the node fails: such a block begins there only for who asked for a replica.
// Nothing of a batch is served twice: it goes before it is sent. Must not know what a statement is.
#include "core/client/session.hpp"

#include <utility>

#include "core/client/read_route.hpp"
#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/routing/route_words.hpp"
#include "core/server/server.hpp"
#include "proto/message.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

bool is_on(const ParamSet &params, std::string_view name)
{
	const Param *p = params.find(name);
	return p && p->value == "on";
}

} // namespace

// Whether the block that `what` begins may begin on a node, and what is said of it.
Part Session::part_of(const Classified &what, Block &block) const
{
	switch (what.kind) {
	case Kind::Read:
		return Part::Read;
	case Kind::Nothing:
		return Part::Nothing;
	case Kind::End:
		return what.chain ? Part::Other : Part::End;
	case Kind::SetTransactionReadOnly:
		return what.isolation == Isolation::Default ? Part::ReadOnly : Part::Other;
	case Kind::Begin:
	case Kind::BeginReadOnly:
		break;
	default:
		return Part::Other;
	}
	const bool until_write =
	    group_->settings().route_blocks.load(std::memory_order_relaxed) == region::RouteBlocks::UntilWrite;
	block.read_only =
	    what.kind == Kind::BeginReadOnly || is_on(*settings_.now().get(), "default_transaction_read_only");
	block.vouched = what.route == Route::Replica;
	block.repeatable = what.isolation == Isolation::RepeatableRead;
	block.asks = what.isolation == Isolation::Default;
	const bool may_begin = what.route != Route::Primary && what.access != Access::ReadWrite &&
	                       what.isolation != Isolation::Serializable && (block.read_only || until_write) &&
	                       (!block.repeatable || (block.read_only && block.vouched));
	return may_begin ? Part::Begin : Part::Other;
}

// The node has told the isolation level of a block that says none. False: it is one for the primary.
bool Session::isolation_is_fit()
{
	Block &block = route_->block;
	if (!std::exchange(block.asks, false) || route_->isolation == "read committed" ||
	    route_->isolation == "read uncommitted")
		return true;
	block.repeatable = true;
	return route_->isolation == "repeatable read" && block.read_only && block.vouched;
}

// Between two of its batches.
bool Session::is_in_block_on_node() const
{
	if (!is_on_node() || !route_->served)
		return false;
	const Replies &replies = std::as_const(*server_).replies();
	return replies.status() != 'I' && !replies.round_outstanding() && !replies.unsynced() && !replies.copy_in();
}

void Session::go_on_in_block(std::string_view bytes)
{
	Block &block = route_->block;
	if (bytes.size() >= proto::kHeaderSize && bytes[0] == 'X') {
		forward(bytes);
		return;
	}
	const bool failed = std::as_const(*server_).replies().status() == 'E';
	BatchReader batch(bytes);
	Block another = block; // should it begin one within
	Reason why = Reason::Batch;
	const bool reads = read_batch(batch, another, why);
	if (batch.is_short() && bytes.size() < kChunk) {
		stash(bytes); // the rest of it comes by itself
		return;
	}
	if (!reads || !batch.goes_on() || (batch.keeps_portals() && !block.repeatable)) {
		move_block(why, failed || block.repeatable);
		acquire(bytes);
		return;
	}
	// What has a snapshot does not become newer, and what has failed reads nothing.
	if (!std::exchange(block.is_fenced, true))
		route_->fence = fence();
	if (!failed && !block.repeatable && !node_is_fit()) {
		stash(bytes);
		return;
	}
	block.is_fenced = false;
	if (!batch.sets_read_only().empty())
		block.begin.append(";").append(batch.sets_read_only());
	server_->statements().replay().begin_on_node(server_->replies(), false);
	context_.nodes().count_read(node_of(target_));
	forward(bytes);
}

// No longer than this: the primary can do it.
void Session::on_position_in_block(bool is_fit)
{
	if (!is_fit) {
		context_.nodes().count_fallback(node_of(target_), Fallback::Behind);
		move_block(Reason::ReplicaBehind, false);
	}
	input_.miss(Missing::Nothing);
	resume();
}

// Nothing of what comes next was sent.
void Session::move_block(Reason why, bool fails)
{
	route_->why = why;
	route_->block.moves = true;
	route_->block.fails = fails;
	std::exchange(server_, nullptr)->roll_back();
}

// On the primary, which has the client's settings. The client waits.
void Session::begin_again()
{
	const Block &block = route_->block;
	input_.miss(Missing::Begin);
	server_->run(block.fails ? block.begin + ";SELECT 1/0" : block.begin, For::Begin);
}

void Session::on_begun(const proto::Error &why)
{
	const Block block = std::exchange(route_->block, {});
	if (!block.fails && !why.sqlstate.empty()) {
		fatal(why);
		return;
	}
	if (block.fails && block.repeatable) {
		std::string out;
		proto::append_error(out, proto::Severity::Warning,
		                    {"01000", "a statement cannot be served by the replica that its block began on",
		                     "The block is REPEATABLE READ, so it cannot go on elsewhere, and the statement is not "
		                     "known to read and to leave nothing in the session.",
		                     "Begin the block with /* pgpool: primary */, or declare its functions by "
		                     "pgpool.allow_on_replica()."});
		reply(out);
	}
	input_.miss(Missing::Nothing);
	resume();
}

// SET SERVER ROLE TO 'replica', which is no SQL, becomes what it means.
bool Session::put_in_own_words(std::string_view bytes, std::string &own) const
{
	if (bytes.size() <= proto::kHeaderSize || bytes[0] != 'Q')
		return false;
	const size_t total = size_t{proto::load32(bytes.data() + 1)} + 1;
	if (total > bytes.size() || total <= proto::kHeaderSize)
		return false;
	const char *text = bytes.data() + proto::kHeaderSize;
	Words words{text, bytes.data() + total - 1};
	Route route = Route::Auto;
	(void)take_hints(words);
	if (!is_server_role(words, route))
		return false;
	proto::append_query(own, std::string("SET pgpool.route TO '") + name_of(route) + "'");
	own.append(bytes.substr(total));
	return true;
}

} // namespace pgpool::core
