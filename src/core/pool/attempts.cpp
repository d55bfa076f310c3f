// See attempts.hpp.
#include "core/pool/attempts.hpp"

#include <string>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

namespace sqlstate = proto::sqlstate;

constexpr int64_t kRetryAfter = 500000; // after a server could not log in, microseconds
constexpr int64_t kFullFor = 1000000;   // after the server refused a login at a limit of its own
constexpr int64_t kLogAgain = 1000000;

// Failures that pass by themselves.
bool is_passing(const std::string &state)
{
	return state == sqlstate::kCannotConnectNow || state == sqlstate::kTooManyConnections ||
	       state == sqlstate::kConnectionFailure || state == sqlstate::kAdminShutdown ||
	       state == sqlstate::kProtocolViolation || state == "57P02";
}

// By ALTER ROLE, GRANT, ALTER DATABASE or a line of pg_hba.conf, as it came: a session that is open did nothing wrong.
bool is_taken_back(const std::string &state)
{
	return state == sqlstate::kInvalidAuthorization || state == "42501" || state == "55000";
}

} // namespace

Attempts::Verdict Attempts::judge(const proto::Error &why, bool refused_by_server)
{
	if (is_passing(why.sqlstate))
		return Verdict::Wait;
	const bool survives =
	    why.sqlstate == sqlstate::kInvalidPassword || (refused_by_server && is_taken_back(why.sqlstate));
	return survives ? Verdict::Error : Verdict::Fatal;
}

void Attempts::failed(const proto::Error &why, control::ServerLimit limit, int64_t now)
{
	last_failure_ = why;
	retry_at_ = now + kRetryAfter;
	failed_at_ = now;
	full_ = limit;
}

void Attempts::succeeded(int64_t now)
{
	last_failure_ = {};
	refusal_.reset();
	if (now >= failed_at_ + kFullFor)
		full_ = control::ServerLimit::None;
}

void Attempts::made_room(bool is_wanted, int64_t now)
{
	retry_at_ = is_wanted ? 0 : now + kRetryAfter;
}

bool Attempts::may_log(int64_t now)
{
	if (now < logged_at_ + kLogAgain)
		return false;
	logged_at_ = now;
	return true;
}

} // namespace pgpool::core
