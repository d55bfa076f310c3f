// A client that listens without a server of its own: see session.hpp and subscription.hpp.
//
// Owns what becomes of the client and of its server at each end of a handover; the steps between are the
// subscription's. What the client sends meanwhile is in its input.
#include <utility>

#include "core/client/clients.hpp"
#include "core/context/context.hpp"
#include "core/listening/listeners.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
#include "core/client/session.hpp"
#include "core/client/subscription.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

bool Session::may_park() const
{
	return !subscription_ && !login_ && !departure_.leaving() && !kept() && input_.empty();
}

void Session::end_handover()
{
	input_.miss(Missing::Nothing);
	resume();
}

// It only listens: it can do without its server.
bool Session::park()
{
	Listener &listener = clients_.listeners().find(*group_, server_->params());
	if (listener.unavailable())
		return false;
	subscription_ = std::make_unique<Subscription>(*this, listener);
	input_.miss(Missing::Handover);
	server_->hand_to(*subscription_, client());
	subscription_->begin();
	return true;
}

void Session::on_park_failed()
{
	server_->hand_to(*this, client());
	subscription_.reset();
	server_->cannot_park();
	end_handover();
}

// `release`: this is no event of the server, which would look by itself whether it can be released.
void Session::on_parked(bool release)
{
	if (!server_)
		on_serverless();
	if (dead_)
		return;
	if (server_) {
		settings_.adopt(*server_); // it may be lost on the way back, and then they would be those from before it
		server_->hand_to(*this, client());
	}
	end_handover();
	if (release && !dead_ && server_)
		server_->try_release();
}

// The client's message waits, and the server has its settings.
void Session::come_back()
{
	input_.miss(Missing::Handover);
	server_->hand_to(*subscription_, client());
	subscription_->come_back();
}

// By value: who has them ends here.
void Session::on_came_back(std::string notifications) // NOLINT(performance-unnecessary-value-param)
{
	server_->hand_to(*this, client());
	subscription_.reset();
	server_->agent().ignore_commits();
	reply(notifications);
	on_applied();
}

void Session::on_return_failed()
{
	if (server_)
		drop_server();
	end_handover();
}

void Session::drop_server()
{
	ServerConn *server = std::exchange(server_, nullptr);
	if (!subscription_->returning())
		settings_.adopt(*server);
	server->abandon();
}

void Session::leave_lost_server(bool adopts)
{
	const ServerConn *server = std::exchange(server_, nullptr);
	if (adopts)
		settings_.adopt(server->params(), settings_.idle_session_timeout());
}

} // namespace pgpool::core
