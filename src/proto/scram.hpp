// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 5803, 7677), server and client side, as PostgreSQL speaks.
//
// Owns: the text of the four messages, the checks on each field, the proof arithmetic, the wiping of keys.
// The messages are the SASL data alone: no type byte, no length, no AuthenticationRequest code. Must not know
// sockets, roles, pg_hba.conf, or when an error is sent: a failed step leaves a ScramProblem.
//
// Pass-through: an accepted proof gives the ClientKey of the role for its present salt and iteration count.
// With it ScramClient logs in at any server that has the same verifier, and the password is never known.
//
// Deviations from PostgreSQL: base64 with spare bits set is refused, a salt is at most 64 bytes, iterations
// at most 10^6, and a password that is not ASCII is taken as its raw bytes, without SASLprep (RFC 4013):
// where SASLprep would change it, scram_keys_from_password() says "wrong". Exchanges are not affected, since
// in them the client normalises.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgpool::proto
{

constexpr size_t kScramKeyLength = 32;
constexpr size_t kScramMaxSalt = 64;
constexpr uint32_t kScramMaxIterations = 1000000;
constexpr size_t kScramMaxMessage = 65535; // longer input is malformed, whatever it says

// Overwrites memory; the compiler cannot leave it out.
void wipe(void *data, size_t length);

// Plain bytes on purpose, so that it can travel in a packet: whoever holds one wipes it.
struct ScramKey {
	uint8_t bytes[kScramKeyLength];
};

// rolpassword, "SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>". Plain bytes, see ScramKey.
struct ScramVerifier {
	uint32_t iterations;
	uint32_t salt_length;
	uint8_t salt[kScramMaxSalt];
	ScramKey stored_key;
	ScramKey server_key;

	// Strict; after false `out` is zero.
	[[nodiscard]] static bool parse(std::string_view text, ScramVerifier &out);

	// The form parse() reads.
	std::string text() const;
};

// The ClientKey from a clear-text password; true when it is the verifier's password. Time grows with the
// verifier's iterations: about 1 ms for 4096, a third of a second for the most allowed.
[[nodiscard]] bool scram_keys_from_password(std::string_view password, const ScramVerifier &verifier,
                                            ScramKey &client_key);

enum class ScramStep {
	Continue,   // send the output, wait for the next message
	Done,       // authenticated (server side: after the output was sent)
	WrongProof, // the other side does not know the password; problem() is empty
	Malformed,  // or refused; problem() says why
};

// For an ErrorResponse, in PostgreSQL's words. Bytes of the peer are in it only when printable ASCII.
struct ScramProblem {
	const char *sqlstate = ""; // 08P01, 28000, 28P01 (client side: salt changed), 0A000, XX000
	std::string message;
	std::string detail; // may be empty
};

// One exchange with one client. On the heap for the time of a login, not in the session.
class ScramServer
{
public:
	// `binding`: the tls-server-end-point hash of our certificate, empty when the client came without TLS
	// (or the certificate has no such hash): -PLUS is then neither offered nor accepted.
	// `doomed`: the exchange runs as any other, and ends in WrongProof whatever the proof.
	ScramServer(const ScramVerifier &verifier, bool doomed, std::string_view binding);
	~ScramServer();
	ScramServer(const ScramServer &) = delete;
	ScramServer &operator=(const ScramServer &) = delete;

	// Body of AuthenticationSASL behind its code: names, each with its NUL, and one NUL more. `binding`: the
	// constructor's was not empty.
	static std::string mechanisms(bool binding);

	// SASLInitialResponse. Continue, or Malformed. A response without data (length -1) is the caller's: send
	// an empty AuthenticationSASLContinue and give the next message as `client_first`.
	[[nodiscard]] ScramStep first(std::string_view mechanism, std::string_view client_first, std::string &server_first);

	// SASLResponse. Done, WrongProof or Malformed; `server_final` and `client_key` are set only by Done,
	// else empty and zero.
	[[nodiscard]] ScramStep final(std::string_view client_final, std::string &server_final, ScramKey &client_key);

	const ScramProblem &problem() const { return problem_; }

private:
	friend struct ScramTestAccess; // published vectors need a chosen nonce

	enum class State : uint8_t { First, Final, Over }; // only ever to the right

	bool read_mechanism(std::string_view mechanism);
	bool read_binding_flag(std::string_view &rest);
	bool check_binding(std::string_view value);
	bool check_proof(std::string_view without_proof, const ScramKey &proof, ScramKey &client_key,
	                 std::string &server_final);

	ScramVerifier verifier_;
	const bool doomed_;
	bool plus_ = false; // the client chose -PLUS
	char flag_ = 0;     // n, y or p
	State state_ = State::First;
	const std::string binding_;
	std::string server_nonce_; // empty: no random bytes, first() refuses
	std::string nonce_;        // the client's and ours
	std::string client_first_bare_;
	std::string server_first_;
	ScramProblem problem_;
};

// One login at a server, with the ClientKey of a role; no channel binding.
class ScramClient
{
public:
	ScramClient(const ScramKey &client_key, const ScramVerifier &verifier);
	~ScramClient();
	ScramClient(const ScramClient &) = delete;
	ScramClient &operator=(const ScramClient &) = delete;

	// Data of SASLInitialResponse, mechanism kScramMechanism; empty when libcrypto has no random bytes.
	std::string first();

	// AuthenticationSASLContinue. Continue, or Malformed. Salt or iterations that are not the verifier's mean
	// that the key is of no use here: salt_changed() tells this from a broken server.
	[[nodiscard]] ScramStep server_first(std::string_view message, std::string &client_final);

	// AuthenticationSASLFinal. Done; WrongProof when the server does not know the verifier; Malformed.
	[[nodiscard]] ScramStep server_final(std::string_view message);

	const ScramProblem &problem() const { return problem_; }
	bool salt_changed() const { return salt_changed_; }

private:
	friend struct ScramTestAccess;

	enum class State : uint8_t { First, ServerFirst, ServerFinal, Over }; // only ever to the right

	bool check_salt(std::string_view salt, std::string_view iterations);
	bool prove(const std::string &without_proof, ScramKey &proof);

	ScramKey client_key_;
	ScramVerifier verifier_;
	State state_ = State::First;
	bool salt_changed_ = false;
	std::string client_nonce_; // empty: no random bytes
	std::string server_first_;
	std::string auth_message_;
	ScramProblem problem_;
};

inline constexpr const char kScramMechanism[] = "SCRAM-SHA-256";
inline constexpr const char kScramPlusMechanism[] = "SCRAM-SHA-256-PLUS";

} // namespace pgpool::proto
