// One message of a client that names a statement, as it goes to the backend. See rewriter.hpp. For rewriter*.cpp alone.
//
// Owns nothing; lives as long as the message is looked at.
#pragma once

#include <string>
#include <string_view>

#include "core/statements/backend_statements.hpp"
#include "core/statements/rewriter.hpp"
#include "core/statements/rewriter_own.hpp"
#include "proto/wire.hpp"

namespace pgpool::core
{

using OnServer = StatementNotes::OnServer;
using Has = ServerStatements::Has;
using Verdict = StatementRewriter::Verdict;

// A longer statement goes to the backend under its own name and keeps the client there.
inline constexpr size_t kMostStatement = 1 << 20;
inline constexpr std::string_view kScratch = "_pgpool_scratch";
inline constexpr std::string_view kNowhere = "_pgpool_nowhere"; // never prepared
inline constexpr std::string_view kDeallocateTarget = "DEALLOCATE \"_pgpool_scratch\"";

inline void put_parse(std::string &out, std::string_view name, std::string_view body)
{
	proto::Writer(out).begin('P').string(name).bytes(body).end();
}

// A Parse that the backend refuses in any state of the transaction: `words` are no SQL.
inline void put_unparsable(std::string &out, std::string_view words)
{
	proto::Writer(out).begin('P').string(kScratch).string(words).u16(0).end();
}

inline void put_close(std::string &out, std::string_view name)
{
	proto::Writer(out).begin('C').u8('S').string(name).end();
}

// A client's own name, as the backend may hear it.
inline std::string sent_name(std::string_view name)
{
	std::string sent(name);
	if (is_like_ours(name))
		sent.replace(0, kDisguisedPrefix.size(), kDisguisedPrefix);
	return sent;
}

class StatementRewriter::Rewriting
{
public:
	Rewriting(StatementRewriter &rewriter, BackendStatements &backend, const Message &message, std::string &out,
	          Taken &taken)
	    : rewriter_(rewriter), backend_(backend), message_(message), out_(out), taken_(taken), pool_(backend.pool()),
	      store_(pool_.store()), replies_(backend.replies()), table_(backend.table()), notes_(backend.notes()),
	      own_(rewriter.own(store_))
	{
	}
	Verdict query();
	Verdict parse();
	Verdict bind();
	Verdict describe_or_close();

private:
	// What a name stands for: looked up once, here and on the backend.
	struct Use {
		Statement *statement = nullptr; // which the backend has then; nullptr: it is to refuse `name`
		ClientStatements::Item *item = nullptr;
		std::string_view name; // on the backend
		std::string disguised; // the same, where the client's own goes there
		Has has = Has::No;
		Shape now;
	};
	Verdict unnamed_parse(std::string_view body, bool is_short);
	void prepare_unnamed_raw(std::string_view body);
	Statement *use_unnamed(const ClientStatements::Item *item);
	Statement *intern_unnamed(std::string_view body);
	Statement *intern(std::string_view body);
	Verdict prepare(std::string_view name, Statement *s);
	Verdict refuse_another();
	Verdict resolve(std::string_view name, Use &use);
	void look(Use &use);
	Verdict use_statement(std::string_view name, Use &use);
	void keep_types(std::string_view name, Use &use, const Shape &expected);
	bool just_prepared(const Use &use) const;
	void refuse_columns(const Use &use, std::string_view name);
	void send_parse(Statement *s, bool renew, For purpose);
	void send_deallocate_target();
	void ask_shape(Statement *s, const std::string_view *name);
	void await_shape();
	bool unsettled(std::string_view name);

	StatementRewriter &rewriter_;
	BackendStatements &backend_;
	const Message &message_;
	std::string &out_;
	Taken &taken_;
	StatementPool &pool_;
	StatementStore &store_;
	Replies &replies_;
	ServerStatements &table_;
	StatementNotes &notes_;
	Own &own_;
};

} // namespace pgpool::core
