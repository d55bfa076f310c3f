// See client_settings.hpp.
#include "core/client/client_settings.hpp"

#include "core/server/server.hpp"
#include "core/statements/sql_command.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// Of the first message of `bytes`: see leaves_role().
bool is_leaving_role(std::string_view bytes)
{
	if (bytes.size() <= proto::kHeaderSize || (bytes[0] != 'Q' && bytes[0] != 'P'))
		return false;
	proto::Reader r(bytes.substr(proto::kHeaderSize));
	if (bytes[0] == 'P')
		r.string();
	const std::string_view text = r.string();
	return r.ok() && leaves_role(text);
}

} // namespace

void ClientSettings::adopt(const ServerConn &server)
{
	adopt(server.params(), server.agent().idle_session_timeout());
}

void ClientSettings::adopt(const Params &now, int32_t idle_session_timeout)
{
	now_ = now;
	idle_session_timeout_ = idle_session_timeout;
}

bool ClientSettings::apply(ServerConn &server, std::string_view message, bool must_wait)
{
	if (!doubtful_)
		return server.apply(now_, must_wait);
	doubtful_ = !server.apply_each(is_leaving_role(message) ? now_.without("role") : now_);
	return !doubtful_;
}

} // namespace pgpool::core
