// The login at the scripted backend: see backend.hpp, which includes it.
//
// Owns trust, SCRAM, and whatever a test demands or refuses instead.
#pragma once

#include "backend.hpp"

namespace fake
{

inline bool Backend::startup()
{
	if (in_.size() < 4 || in_.size() < pgpool::proto::load32(in_.data()))
		return false;
	pgpool::proto::Startup s;
	pgpool::proto::Error error;
	if (!pgpool::proto::read_startup(in_, s, error))
		note("a startup packet that cannot be read");
	const size_t named = in_.find("pgpool.agent");
	if (named != std::string::npos)
		agent_named = in_.c_str() + named + sizeof("pgpool.agent");
	agent = agent && named != std::string::npos;
	in_.clear();
	for (const auto &setting : s.settings)
		defaults[canonical(setting.first)] = setting.second;
	defaults["application_name"] = s.application_name;
	user = s.user;
	database = s.database;
	if (on_startup)
		on_startup(*this);
	now_ = defaults;
	phase_ = Phase::Password;
	if (!demand.empty()) {
		out += demand;
		return true;
	}
	if (verifier.empty()) {
		greeting();
		return true;
	}
	pgpool::proto::ScramVerifier v;
	(void)pgpool::proto::ScramVerifier::parse(verifier, v);
	scram_ = std::make_unique<pgpool::proto::ScramServer>(v, false, "");
	pgpool::proto::append_authentication(out, 10, pgpool::proto::ScramServer::mechanisms(false));
	return true;
}

inline void Backend::password(const std::string &body)
{
	if (!demand.empty()) {
		proof = body;
		greeting();
		return;
	}
	std::string answer;
	pgpool::proto::ScramKey key;
	if (!first_seen_) {
		first_seen_ = true;
		pgpool::proto::Reader r(body);
		const std::string mechanism(r.string());
		const std::string_view data = r.bytes(r.u32());
		if (scram_->first(mechanism, data, answer) == pgpool::proto::ScramStep::Continue)
			pgpool::proto::append_authentication(out, 11, answer);
		else
			die("28000");
		return;
	}
	if (scram_->final(body, answer, key) != pgpool::proto::ScramStep::Done) {
		die("28P01");
		return;
	}
	pgpool::proto::append_authentication(out, 12, answer);
	greeting();
}

inline void Backend::greeting()
{
	if (!refuse.sqlstate.empty()) {
		Writer w(out);
		w.begin('E').string("SFATAL").string("VFATAL").string("C" + refuse.sqlstate).string("M" + refuse.message);
		if (!refuse_routine.empty())
			w.string("R" + refuse_routine);
		w.u8(0).end();
		dead = true;
		return;
	}
	phase_ = Phase::Ready;
	pgpool::proto::append_authentication(out, 0);
	pgpool::proto::append_parameter(out, "server_version", "15.20");
	for (const auto &s : now_) {
		if (is_reported(s.first))
			pgpool::proto::append_parameter(out, s.first, s.second);
	}
	if (agent) {
		const std::string oids = std::to_string(database_oid) + " " + std::to_string(role_oid);
		pgpool::proto::append_parameter(out, "pgpool.identity", oids);
		pgpool::proto::append_parameter(out, "pgpool.agent", "1");
	}
	reported_ = now_;
	Writer(out).begin('K').u32(static_cast<uint32_t>(pid)).u32(77).end();
	pgpool::proto::append_ready(out, 'I');
}

} // namespace fake
