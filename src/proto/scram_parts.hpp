// What both sides of a SCRAM exchange are made of: the arithmetic of keys, and the reading of a message.
//
// Every message is read by Attributes, the only code of SCRAM that moves through bytes of the peer. What a peer did
// wrong is told in PostgreSQL's words. Owns no state. For scram*.cpp alone; must not know whose turn it is.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "proto/scram.hpp"

namespace pgpool::proto::scram
{

// ---- keys

inline constexpr std::string_view kBindingType = "tls-server-end-point";

// Secrets live in such variables only.
struct WipedKey : ScramKey {
	WipedKey() { std::memset(bytes, 0, sizeof bytes); }
	~WipedKey() { wipe(bytes, sizeof bytes); }
	WipedKey(const WipedKey &) = delete;
	WipedKey &operator=(const WipedKey &) = delete;
};

bool crypto_ok(bool ok); // empties libcrypto's queue of errors
bool hmac(const ScramKey &key, std::string_view text, ScramKey &out);
bool sha256(const void *data, size_t size, ScramKey &out);
// In a time that does not depend on what is in them.
bool same(const ScramKey &a, const ScramKey &b);
bool same(std::string_view a, std::string_view b);
void exclusive_or(ScramKey &a, const ScramKey &b);
bool decode_key(std::string_view text, ScramKey &out);

// ---- texts

std::string make_nonce(); // empty when libcrypto has no random bytes
bool is_nonce(std::string_view text);
bool read_iterations(std::string_view text, uint32_t &out); // canonical decimal, 1 to kScramMaxIterations
// Splits off what stands before `separator`.
bool split(std::string_view &rest, char separator, std::string_view &head);
// What of the peer may stand in a log line.
std::string shown_char(std::string_view rest);
std::string shown_text(std::string_view text);

// ---- what is wrong; each returns Malformed

ScramStep refuse(ScramProblem &problem, const char *sqlstate, std::string message, std::string detail);
ScramStep malformed(ScramProblem &problem, std::string detail);
ScramStep internal(ScramProblem &problem, const char *message);

bool acceptable_size(std::string_view message, ScramProblem &problem);

// Reads "a=value,b=value,...". Two failures of the syntax leave their detail in `problem`.
class Attributes
{
public:
	Attributes(std::string_view text, ScramProblem &problem) : rest_(text), problem_(problem) {}

	bool at_end() const { return rest_.empty(); }
	size_t left() const { return rest_.size(); }
	bool value(char name, std::string_view &out);
	// Any attribute, for the extensions that may stand there and be ignored.
	bool any(char &name, std::string_view &out);

private:
	bool take(std::string_view &out);

	std::string_view rest_;
	ScramProblem &problem_;
};

} // namespace pgpool::proto::scram
