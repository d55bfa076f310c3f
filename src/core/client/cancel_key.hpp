// What a client shows to cancel what runs for it: a number, by which Clients finds it, and a secret.
//
// Owns both; without a number the client was told no key yet. Must not know who has which number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/ports.hpp"
#include "proto/wire.hpp"

namespace pgpool::core
{

class CancelKey
{
public:
	void choose(Outside &outside, uint8_t minor) // of the protocol
	{
		length_ = minor >= 2 ? sizeof(secret_) : 4;
		outside.random(secret_, length_);
	}
	void set_pid(int32_t pid) { pid_ = pid; }
	int32_t pid() const { return pid_; } // as of a backend; 0 = none
	std::string_view secret() const { return {secret_, length_}; }
	bool is(std::string_view secret) const { return proto::same_secret(secret, this->secret()); }

private:
	int32_t pid_ = 0;
	uint8_t length_ = 0;
	char secret_[32];
};

} // namespace pgpool::core
