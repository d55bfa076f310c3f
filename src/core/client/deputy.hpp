// Who uses a server in a session's place: its login (login.hpp), and its subscription in a handover (subscription.hpp).
//
// Owns what is the client's, whoever uses its server: that goes to the session. Must not know what the server is used
// for.
#pragma once

#include "core/server/server_user.hpp"

namespace pgpool::core
{

class Session;

class Deputy : public ServerUser
{
public:
	void on_hot_standby(bool on) final;
	void on_tcp_settings(const Params &now) final;
	bool on_out_of_memory() final;
	bool cut_off(int64_t now) final;
	StatementRewriter *statements() final;

protected:
	explicit Deputy(Session &session) : session_(session) {}

	Session &session_;
};

} // namespace pgpool::core
