// See deputy.hpp.
#include "core/client/deputy.hpp"

#include "core/client/session.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

void Deputy::on_hot_standby(bool on)
{
	session_.on_hot_standby(on);
}

void Deputy::on_tcp_settings(const Params &now)
{
	session_.on_tcp_settings(now);
}

bool Deputy::on_out_of_memory()
{
	return session_.on_out_of_memory();
}

bool Deputy::cut_off(int64_t now)
{
	return session_.cut_off(now);
}

StatementRewriter *Deputy::statements()
{
	return session_.statements();
}

} // namespace pgpool::core
