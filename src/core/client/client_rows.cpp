// See client_rows.hpp.
#include "core/client/client_rows.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using Sessions = List<Session, &Session::all_hook>;

namespace
{

template <size_t n> void put(char (&field)[n], std::string_view text)
{
	memcpy(field, text.data(), std::min(text.size(), n - 1));
}

void fill(control::ClientRow &row, Session &session)
{
	Context &context = session.context();
	row.id = session.id();
	row.state = session.state();
	row.state_since = context.outside().wall_us() - (context.now() - session.since());
	row.server_pid = session.server() ? session.server()->pid() : 0;
	row.session_mode = session.session_mode();
	row.protocol_minor = session.minor();
	row.key_pid = session.key().pid();
	session.tally().fill(row);
	const std::string_view address = session.stream()->address();
	row.address_length = static_cast<uint32_t>(std::min(address.size(), sizeof(row.address)));
	memcpy(row.address, address.data(), row.address_length);
	if (const TlsInfo *tls = session.stream()->tls()) {
		row.tls = 1;
		put(row.tls_version, tls->version);
		put(row.tls_cipher, tls->cipher);
	}
	const PoolGroup *group = session.group();
	row.pool_slot = group ? group->slot() : UINT32_MAX;
	if (group) {
		put(row.tenant, group->tenant());
		put(row.database, group->database());
		put(row.role, group->role());
	}
	if (const Params &settings = session.settings().now()) {
		if (const Param *p = settings->find("application_name"))
			put(row.application_name, p->value);
	}
	put(row.pinned, session.pinned_by());
}

} // namespace

ClientRows::ClientRows(Clients &clients) : clients_(clients), at_(clients.sessions().front())
{
	clients_.rows_under_way().push_back(this);
}

ClientRows::~ClientRows()
{
	clients_.rows_under_way().remove(this);
}

std::vector<control::ClientRow> ClientRows::next(size_t most)
{
	std::vector<control::ClientRow> rows;
	rows.reserve(std::min(most, clients_.sessions().size()));
	for (; at_ && rows.size() < most; at_ = Sessions::next(at_)) {
		rows.emplace_back();
		fill(rows.back(), *at_);
	}
	return rows;
}

void ClientRows::forget(const Session *session)
{
	if (at_ == session)
		at_ = Sessions::next(session);
}

} // namespace pgpool::core
