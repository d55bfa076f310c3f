// Hashes of passwords, in threads of libuv's: they take too long for the loop.
//
// Owns each from its start until its thread is done with it, also when nobody waits any more. Who asked is known by a
// number alone. Must not know logins.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>

#include "proto/scram.hpp"

namespace pgpool::net
{

class Loop;

class Derivations
{
public:
	using Done = std::function<void(uint64_t id, bool right, const proto::ScramKey &key)>;

	Derivations(Loop &loop, Done done) : loop_(loop), done_(std::move(done)) {}
	Derivations(const Derivations &) = delete;
	Derivations &operator=(const Derivations &) = delete;

	void start(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier);
	void forget(uint64_t id); // `done` will not be called

private:
	struct Derivation;

	Loop &loop_;
	const Done done_;
	std::unordered_map<uint64_t, Derivation *> running_; // for somebody
};

} // namespace pgpool::net
