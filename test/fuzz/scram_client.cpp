// Fuzzes ScramClient: no server message crashes it, no server is believed that does not know the ServerKey.
//
// Input: a byte of flags, then server-first and server-final apart at the first newline. kPrefix puts the
// client's nonce before server-first, kComplete appends the right signature to server-final, kDamage changes
// one bit of it. The oracle computes each signature itself.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "proto/base64.hpp"
#include "proto/scram.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::proto
{

struct ScramTestAccess {
	static void set_nonce(ScramClient &client, const char *nonce) { client.client_nonce_ = nonce; }
};

} // namespace pgpool::proto

namespace
{

using namespace pgpool::proto;

enum : uint8_t { kPrefix = 1, kComplete = 2, kDamage = 4 };

constexpr char kVerifier[] = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                             "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                             "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
constexpr char kClientNonce[] = "rOprNGfwEbeRWgbNEkqO";
constexpr char kSalt[] = "W22ZaJ0SNY7soEsUEjb6gQ==";

void require(bool claim)
{
	if (!claim)
		abort();
}

std::string right_signature(const ScramVerifier &verifier, const std::string &server_first,
                            const std::string &client_final, bool damage, size_t bit)
{
	const std::string auth_message = std::string("n=,r=") + kClientNonce + "," + server_first + "," +
	                                 client_final.substr(0, client_final.rfind(",p="));
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned length = 0;
	std::string out;

	require(HMAC(EVP_sha256(), verifier.server_key.bytes, 32,
	             reinterpret_cast<const unsigned char *>(auth_message.data()), auth_message.size(), bytes,
	             &length) != nullptr);
	if (damage)
		bytes[bit / 8 % 32] = static_cast<unsigned char>(bytes[bit / 8 % 32] ^ (1 << bit % 8));
	base64_append(bytes, length, out);
	return out;
}

void run(uint8_t flags, std::string server_first, std::string server_final)
{
	ScramVerifier verifier;
	ScramKey key;
	std::memset(key.bytes, 0x5a, sizeof key.bytes); // its proof is not looked at here
	require(ScramVerifier::parse(kVerifier, verifier));
	ScramClient client(key, verifier);
	ScramTestAccess::set_nonce(client, kClientNonce);
	std::string client_final;

	require(client.first() == std::string("n,,n=,r=") + kClientNonce);
	if ((flags & kPrefix) != 0)
		server_first.insert(0, std::string("r=") + kClientNonce);
	const ScramStep step = client.server_first(server_first, client_final);
	if (step != ScramStep::Continue) {
		require(step == ScramStep::Malformed && client_final.empty() && !client.problem().message.empty());
		require(client.server_final(server_final) == ScramStep::Malformed);
		return;
	}
	// the key was used with its own salt and count only, for an answer to our nonce
	const std::string tail = std::string(",s=") + kSalt + ",i=4096", start = std::string("r=") + kClientNonce;
	require(server_first.size() > start.size() + tail.size() && server_first.compare(0, start.size(), start) == 0 &&
	        server_first.compare(server_first.size() - tail.size(), tail.size(), tail) == 0);
	require(!client.salt_changed() && client.problem().message.empty());

	if ((flags & kComplete) != 0)
		server_final +=
		    right_signature(verifier, server_first, client_final, (flags & kDamage) != 0, server_final.size());
	const ScramStep end = client.server_final(server_final);
	const bool right = server_final == "v=" + right_signature(verifier, server_first, client_final, false, 0);
	require((end == ScramStep::Done) == right);
	require((end == ScramStep::Malformed) == !client.problem().message.empty());
	require(end != ScramStep::Continue && client.server_final(server_final) == ScramStep::Malformed);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	const std::string_view text(reinterpret_cast<const char *>(data) + 1, size - 1);
	const size_t newline = text.find('\n');
	run(data[0], std::string(text.substr(0, newline)),
	    std::string(newline == std::string_view::npos ? std::string_view() : text.substr(newline + 1)));
	return 0;
}
