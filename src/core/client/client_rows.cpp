// See client_rows.hpp.
#include "core/client/client_rows.hpp"

#include <algorithm>

#include "core/client/clients.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

using Sessions = List<Session, &Session::all_hook>;

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
		at_->fill(rows.back());
	}
	return rows;
}

void ClientRows::forget(const Session *session)
{
	if (at_ == session)
		at_ = Sessions::next(session);
}

} // namespace pgpool::core
