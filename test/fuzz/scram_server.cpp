// Fuzzes ScramServer (and the readers of verifiers and base64): no input crashes, none is accepted without
// the right key.
//
// Input: a byte of flags, then client-first and client-final apart at the first newline. With kComplete the
// right proof is appended, so that accepted exchanges are reached; kDamage then changes one bit of it.
// The oracle computes each proof itself.
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
	static void set_nonce(ScramServer &server, const char *nonce) { server.server_nonce_ = nonce; }
};

} // namespace pgpool::proto

namespace
{

using namespace pgpool::proto;

enum : uint8_t { kBound = 1, kDoomed = 2, kPlus = 4, kComplete = 8, kDamage = 16, kPrefix = 32 };

constexpr char kVerifier[] = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                             "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                             "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
constexpr uint8_t kClientKey[] = {0xa6, 0x0f, 0xc9, 0x23, 0xd6, 0x7e, 0x86, 0x44, 0xa9, 0x2d, 0x16,
                                  0xb9, 0x6e, 0xda, 0x5e, 0xf4, 0x65, 0x6b, 0x0c, 0x72, 0x5c, 0x48,
                                  0x43, 0x74, 0xbe, 0x25, 0x53, 0x55, 0x76, 0x99, 0x6e, 0x8b};
constexpr char kServerNonce[] = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
constexpr std::string_view kBinding = "0123456789abcdef0123456789abcdef";

void require(bool claim)
{
	if (!claim)
		abort();
}

std::string base64(std::string_view bytes)
{
	std::string out;
	base64_append(bytes.data(), bytes.size(), out);
	return out;
}

std::string right_proof(const ScramVerifier &verifier, const std::string &auth_message, bool damage, size_t bit)
{
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	require(HMAC(EVP_sha256(), verifier.stored_key.bytes, 32,
	             reinterpret_cast<const unsigned char *>(auth_message.data()), auth_message.size(), bytes,
	             &length) != nullptr);
	for (size_t i = 0; i < sizeof kClientKey; i++)
		bytes[i] ^= kClientKey[i];
	if (damage)
		bytes[bit / 8 % 32] = static_cast<unsigned char>(bytes[bit / 8 % 32] ^ (1 << bit % 8));
	return base64(std::string_view(reinterpret_cast<const char *>(bytes), length));
}

// What parse() and the decoder accept has one spelling.
void check_readers(std::string_view text)
{
	uint8_t bytes[256];
	size_t length = 0;
	ScramVerifier verifier;

	if (ScramVerifier::parse(text, verifier))
		require(verifier.text() == text && verifier.iterations >= 1 && verifier.iterations <= kScramMaxIterations &&
		        verifier.salt_length <= kScramMaxSalt);
	if (base64_decode(text, bytes, sizeof bytes, length))
		require(base64(std::string_view(reinterpret_cast<char *>(bytes), length)) == text);
}

void run(uint8_t flags, std::string_view client_first, std::string client_final)
{
	ScramVerifier verifier;
	require(ScramVerifier::parse(kVerifier, verifier));
	const bool bound = (flags & kBound) != 0, plus = (flags & kPlus) != 0;
	ScramServer server(verifier, (flags & kDoomed) != 0, bound ? kBinding : std::string_view());
	ScramTestAccess::set_nonce(server, kServerNonce);
	std::string server_first, server_final;
	ScramKey key;

	const ScramStep step = server.first(plus ? kScramPlusMechanism : kScramMechanism, client_first, server_first);
	require(step == ScramStep::Continue || step == ScramStep::Malformed);
	require((step == ScramStep::Malformed) == !server.problem().message.empty());
	if (step == ScramStep::Malformed) {
		require(server_first.empty() && server.final(client_final, server_final, key) == ScramStep::Malformed);
		return;
	}
	require((client_first[0] == 'p') == plus && (bound || !plus) && !(bound && client_first[0] == 'y'));

	const size_t header = client_first.find(',', client_first.find(',') + 1) + 1;
	const std::string bare(client_first.substr(header));
	const std::string expected_start =
	    "c=" + base64(std::string(client_first.substr(0, header)) + std::string(plus ? kBinding : "")) + "," +
	    server_first.substr(0, server_first.rfind(",s="));
	if ((flags & kPrefix) != 0)
		client_final.insert(0, expected_start);
	const std::string before = bare + "," + server_first + ",";
	if ((flags & kComplete) != 0)
		client_final +=
		    ",p=" + right_proof(verifier, before + client_final, (flags & kDamage) != 0, client_final.size() * 7);

	const ScramStep end = server.final(client_final, server_final, key);
	if (end == ScramStep::Done) {
		const size_t proof = client_final.rfind(",p=");
		require((flags & kDoomed) == 0 && proof != std::string::npos);
		require(client_final.compare(0, expected_start.size(), expected_start) == 0);
		require(client_final.substr(proof + 3) ==
		        right_proof(verifier, before + client_final.substr(0, proof), false, 0));
		require(std::memcmp(key.bytes, kClientKey, sizeof kClientKey) == 0 && server_final.size() == 46);
	} else {
		const ScramKey zero{};
		require(end == ScramStep::Malformed || end == ScramStep::WrongProof);
		require((end == ScramStep::Malformed) == !server.problem().message.empty());
		require(server_final.empty() && std::memcmp(&key, &zero, sizeof key) == 0);
		// the right proof of a well-formed message is accepted
		require(end == ScramStep::Malformed || (flags & (kComplete | kDamage | kDoomed)) != kComplete);
	}
	require(server.final(client_final, server_final, key) == ScramStep::Malformed);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	const std::string_view text(reinterpret_cast<const char *>(data) + 1, size - 1);
	const size_t newline = text.find('\n');
	check_readers(text);
	run(data[0], text.substr(0, newline),
	    std::string(newline == std::string_view::npos ? std::string_view() : text.substr(newline + 1)));
	return 0;
}
