// All clients of a worker as rows of a view, some at a time.
//
// Owns the place in the list of Clients of sessions. Between two calls sessions may come (they are seen) and end (they
// are not): a view of very many clients takes neither their memory at once nor everybody's time. Must not know sockets.
#pragma once

#include <cstddef>
#include <vector>

#include "core/base/list.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class Clients;
class Session;

class ClientRows
{
public:
	explicit ClientRows(Clients &clients);
	~ClientRows();
	ClientRows(const ClientRows &) = delete;
	ClientRows &operator=(const ClientRows &) = delete;

	// Not more than `most`; fewer only at the end.
	std::vector<control::ClientRow> next(size_t most);
	void forget(const Session *session); // it is taken out of the list of Clients

	Hook<ClientRows> hook; // of Clients

private:
	Clients &clients_;
	Session *at_;
};

} // namespace pgpool::core
