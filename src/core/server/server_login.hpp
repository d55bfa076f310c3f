// The login of a server at its backend, from the startup packet to the proof that it is whom it should be.
//
// Proves the role by what a client proved (a SCRAM ClientKey, the md5 hash) or by a stored password, then has the
// backend say which role and database it has, by OID: names may have been given to others since. Exists while the
// server logs in, and owns what only this needs: what came and is not a whole message yet, the exchange of proofs,
// notices. Must not know sessions, nor what becomes of a server that has logged in or failed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/ports.hpp"
#include "proto/message.hpp"
#include "region/control.hpp"

namespace pgpool::proto
{
class ScramClient;
}

namespace pgpool::core
{

class Group;
class ServerConn;

struct LoginFailure {
	proto::Error why;
	control::ServerLimit limit = control::ServerLimit::None; // of the server's own, at which it refused us
	bool by_server = false;                                  // an error of its own; else we gave up
	uint32_t names_sequence = 0;                             // of the names it was asked for by, 0 = it was not asked
};

class ServerLogin
{
public:
	// `encoding`: of one that listens.
	ServerLogin(ServerConn &server, Group &group, std::string encoding);
	~ServerLogin();

	void start(const std::string &agent); // how the startup packet names it, "" = none

	enum class Outcome { Open, Done, Failed };
	Outcome on_data(const char *data, size_t size);

	const LoginFailure &failure() const { return *failure_; }   // of Outcome::Failed
	uint32_t names_sequence() const { return names_sequence_; } // of those it was asked for by
	const std::string &notices() const { return notices_; }     // as messages
	int32_t pid() const { return pid_; }
	const std::string &key() const { return key_; } // that cancels its queries

private:
	// That the backend has the pool's role and database. From Asked to Canceled a query for them is out.
	enum class Proof { None, Told, Wrong, Done, Asked, Answered, Canceled };

	void send(std::string_view bytes);
	void message(char type, std::string_view body);
	void authentication(std::string_view body);
	bool may_send(const char *what, Secrecy least);
	void sasl(uint32_t code, std::string_view rest);
	void parameter(std::string_view body);
	void ready();
	void ask_for_proof();
	bool proves(std::string_view database, std::string_view role) const;
	bool proves_standby(std::string_view in_recovery, std::string_view system);
	void not_the_same();
	void proof_message(char type, std::string_view body);
	void fail(const proto::Error &why);

	ServerConn &server_;
	Group &group_;
	const std::string encoding_;
	std::string in_;
	std::string notices_;
	std::unique_ptr<proto::ScramClient> scram_;
	std::optional<LoginFailure> failure_;
	Proof proof_ = Proof::None;
	int proof_asked_ = 0;
	uint32_t names_sequence_ = 0;
	int32_t pid_ = 0;
	std::string key_;
};

} // namespace pgpool::core
