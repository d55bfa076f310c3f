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

namespace
{

template <size_t n> void put(char (&field)[n], std::string_view text)
{
	memcpy(field, text.data(), std::min(text.size(), n - 1));
}

} // namespace

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
	if (session.server())
		put(row.node, session.server()->node_name());
}

} // namespace pgpool::core
