// What logins have asked and nobody has answered yet: the manager about who they are, a thread about a password.
//
// Owns the numbers by which an answer finds its login; one that was forgotten, or that is not known, is dropped. The
// manager is asked about so many at a time, the others wait here. Must not know what the answers say.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <unordered_map>

#include "core/base/ports.hpp"
#include "region/control.hpp"

namespace pgpool::core
{

class Session;

class Questions
{
public:
	explicit Questions(Outside &outside) : outside_(outside) {}

	// ---- to the manager
	uint64_t ask(Session *session, control::AuthLookup &question); // its number
	void forget(uint64_t id);
	void on_answer(const control::AuthAnswer &answer);
	// It is there again and knows nothing of what it was asked: logins ask anew.
	void on_manager() { in_flight_ = 0; }

	// ---- to a thread. The session's login hears Login::on_derived(), unless it is forgotten before.
	uint64_t derive(Session *session, std::string_view password, const proto::ScramVerifier &verifier);
	void forget_derivation(uint64_t id);
	void on_derived(uint64_t id, bool right, const proto::ScramKey &key);

private:
	void ask_next();

	Outside &outside_;
	std::unordered_map<uint64_t, Session *> lookups_, derivations_;
	std::map<uint64_t, Session *> unasked_; // those of lookups_ that wait until the manager has answered others
	uint32_t in_flight_ = 0;
	uint64_t next_lookup_ = 1, next_derivation_ = 1;
};

} // namespace pgpool::core
