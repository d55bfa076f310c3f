// SCRAM-SHA-256: the published vector, both sides against each other, and every way to be refused.
//
// The nonces are set here, so each expected message is a literal; the literals that RFC 7677 does not give
// were computed with Python's hashlib.
#include "proto/scram.hpp"

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include <gtest/gtest.h>

#include "proto/base64.hpp"

namespace pgpool::proto
{

struct ScramTestAccess {
	static void set_nonce(ScramServer &server, const char *nonce) { server.server_nonce_ = nonce; }
	static void set_nonce(ScramClient &client, const char *nonce) { client.client_nonce_ = nonce; }
};

} // namespace pgpool::proto

namespace
{

using namespace pgpool::proto;

static_assert(std::is_trivially_copyable_v<ScramVerifier>, "travels in a packet");
static_assert(!std::is_copy_constructible_v<ScramServer> && !std::is_copy_constructible_v<ScramClient>,
              "a copy would be a second place for the keys");

// password "pencil"
const char kVerifierText[] = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
                             "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
                             "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
const uint8_t kClientKey[kScramKeyLength] = {0xa6, 0x0f, 0xc9, 0x23, 0xd6, 0x7e, 0x86, 0x44, 0xa9, 0x2d, 0x16,
                                             0xb9, 0x6e, 0xda, 0x5e, 0xf4, 0x65, 0x6b, 0x0c, 0x72, 0x5c, 0x48,
                                             0x43, 0x74, 0xbe, 0x25, 0x53, 0x55, 0x76, 0x99, 0x6e, 0x8b};
const char kClientNonce[] = "rOprNGfwEbeRWgbNEkqO";
const char kServerNonce[] = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const std::string kNonce = std::string(kClientNonce) + kServerNonce;
const std::string kClientFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const std::string kServerFirst = "r=" + kNonce + ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const std::string kProof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const std::string kClientFinal = "c=biws,r=" + kNonce + ",p=" + kProof;
const std::string kServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
const std::string kBindingHeader = "p=tls-server-end-point,,";

ScramVerifier verifier()
{
	ScramVerifier out;
	EXPECT_TRUE(ScramVerifier::parse(kVerifierText, out));
	return out;
}

ScramKey client_key()
{
	ScramKey out;
	std::memcpy(out.bytes, kClientKey, sizeof out.bytes);
	return out;
}

bool equal(const ScramKey &a, const ScramKey &b)
{
	return std::memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0;
}

std::string base64(const std::string &bytes)
{
	std::string out;
	base64_append(bytes.data(), bytes.size(), out);
	return out;
}

// A certificate hash whose bytes 0..31 are all different, NUL among them.
std::string binding()
{
	std::string out;
	for (char c = 0; c < 32; c++)
		out += c;
	return out;
}

struct Exchange { // one server and what it said last
	std::unique_ptr<ScramServer> server;
	std::string out = "old";
	ScramKey key = client_key();

	explicit Exchange(bool doomed = false, const std::string &hash = "")
	    : server(std::make_unique<ScramServer>(verifier(), doomed, hash))
	{
		ScramTestAccess::set_nonce(*server, kServerNonce);
	}
	ScramStep first(std::string_view text, std::string_view mechanism = kScramMechanism)
	{
		return server->first(mechanism, text, out);
	}
	ScramStep final(std::string_view text) { return server->final(text, out, key); }
	std::string detail() const { return server->problem().detail; }
	std::string message() const { return server->problem().message; }
	std::string sqlstate() const { return server->problem().sqlstate; }
};

void expect_no_key(const Exchange &exchange)
{
	EXPECT_TRUE(equal(exchange.key, ScramKey{}));
	EXPECT_EQ(exchange.out, "");
}

TEST(ScramVerifier, IsReadAndWrittenAsInPgAuthid)
{
	const ScramVerifier v = verifier();
	EXPECT_EQ(v.iterations, 4096U);
	EXPECT_EQ(v.salt_length, 16U);
	EXPECT_EQ(v.text(), kVerifierText);
}

TEST(ScramVerifier, RefusesAnythingElse)
{
	const std::string good = kVerifierText;
	const std::string key = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=";
	const std::string tail = ":W22ZaJ0SNY7soEsUEjb6gQ==$" + key + ":" + key;
	ScramVerifier v;

	ASSERT_TRUE(ScramVerifier::parse("SCRAM-SHA-256$1" + tail, v));
	ASSERT_TRUE(ScramVerifier::parse("SCRAM-SHA-256$1000000" + tail, v));
	for (size_t length = 0; length < good.size(); length++)
		EXPECT_FALSE(ScramVerifier::parse(good.substr(0, length), v)) << length;
	for (const char *count : {"", "0", "-1", "+1", " 1", "1 ", "01", "0x10", "1000001", "9999999", "4294967297", "1e3"})
		EXPECT_FALSE(ScramVerifier::parse("SCRAM-SHA-256$" + std::string(count) + tail, v)) << count;
	for (const std::string &text :
	     {good + "=", good + "$", good + ":", good + '\0', " " + good, std::string("scram") + good.substr(5),
	      "SCRAM-SHA-256$4096:$" + key + ":" + key, "SCRAM-SHA-256$4096:AA==$" + key + ":AAAA",
	      "SCRAM-SHA-256$4096:AA==$AAAA:" + key, "SCRAM-SHA-256$4096:AB==$" + key + ":" + key,
	      "SCRAM-SHA-256$4096:" + base64(std::string(65, 'x')) + "$" + key + ":" + key, "SCRAM-SHA-1" + good.substr(13),
	      std::string("md54a0a68b43b6cd5cf266fa02f196e2371")})
		EXPECT_FALSE(ScramVerifier::parse(text, v)) << text;
	const ScramVerifier zero{};
	EXPECT_EQ(std::memcmp(&v, &zero, sizeof v), 0); // the keys of a refused text do not stay
	EXPECT_TRUE(ScramVerifier::parse("SCRAM-SHA-256$4096:" + base64(std::string(64, 'x')) + "$" + key + ":" + key, v));
}

TEST(ScramPassword, GivesTheClientKeyWhenItIsRight)
{
	ScramKey key{};
	ASSERT_TRUE(scram_keys_from_password("pencil", verifier(), key));
	EXPECT_TRUE(equal(key, client_key()));
}

TEST(ScramPassword, GivesNothingWhenItIsWrong)
{
	ScramVerifier none = verifier();
	none.iterations = 0;
	const std::string with_nul("pencil\0", 7);
	for (const std::string &password : {std::string(), std::string("Pencil"), with_nul, std::string(70000, 'x')}) {
		ScramKey key = client_key();
		EXPECT_FALSE(scram_keys_from_password(password, verifier(), key));
		EXPECT_TRUE(equal(key, ScramKey{}));
	}
	ScramKey key = client_key();
	EXPECT_FALSE(scram_keys_from_password("pencil", none, key));
}

TEST(ScramServer, OffersPlusOnlyWithABinding)
{
	EXPECT_EQ(ScramServer::mechanisms(false), std::string("SCRAM-SHA-256\0\0", 15));
	EXPECT_EQ(ScramServer::mechanisms(true), std::string("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", 34));
}

TEST(ScramServer, AcceptsTheVectorOfRfc7677AndLearnsTheClientKey)
{
	Exchange e;
	ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
	EXPECT_EQ(e.out, kServerFirst);
	ASSERT_EQ(e.final(kClientFinal), ScramStep::Done) << e.message() << e.detail();
	EXPECT_EQ(e.out, kServerFinal);
	EXPECT_TRUE(equal(e.key, client_key()));
	EXPECT_EQ(e.message(), "");
}

TEST(ScramServer, DoomedExchangeLooksTheSameAndEndsInWrongProof)
{
	Exchange e(true);
	ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
	EXPECT_EQ(e.out, kServerFirst);
	EXPECT_EQ(e.final(kClientFinal), ScramStep::WrongProof);
	expect_no_key(e);
	EXPECT_EQ(e.message(), "");
}

TEST(ScramServer, EveryChangedBitOfTheProofIsRefused)
{
	uint8_t bytes[kScramKeyLength];
	size_t length;
	ASSERT_TRUE(base64_decode(kProof, bytes, sizeof bytes, length));
	for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
		std::string mutant(bytes, bytes + sizeof bytes);
		mutant[bit / 8] = static_cast<char>(mutant[bit / 8] ^ (1 << bit % 8));
		Exchange e;
		ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
		EXPECT_EQ(e.final("c=biws,r=" + kNonce + ",p=" + base64(mutant)), ScramStep::WrongProof) << bit;
		expect_no_key(e);
	}
}

TEST(ScramServer, EveryChangedBitOfTheLastMessageIsRefused)
{
	for (size_t bit = 0; bit < 8 * kClientFinal.size(); bit++) {
		std::string mutant = kClientFinal;
		mutant[bit / 8] = static_cast<char>(mutant[bit / 8] ^ (1 << bit % 8));
		Exchange e;
		ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
		const ScramStep step = e.final(mutant);
		EXPECT_TRUE(step == ScramStep::WrongProof || step == ScramStep::Malformed) << mutant;
		EXPECT_EQ(step == ScramStep::Malformed, !e.message().empty()) << mutant;
		expect_no_key(e);
	}
}

TEST(ScramServer, ProofOfOtherMessagesIsRefused)
{
	for (const char *text : {"n,,n=,r=rOprNGfwEbeRWgbNEkqO", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO,x=1"}) {
		Exchange e;
		ASSERT_EQ(e.first(text), ScramStep::Continue);
		EXPECT_EQ(e.final(kClientFinal), ScramStep::WrongProof);
		expect_no_key(e);
	}
	Exchange e; // an extension that was not signed
	ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
	EXPECT_EQ(e.final("c=biws,r=" + kNonce + ",x=1,p=" + kProof), ScramStep::WrongProof);
}

TEST(ScramServer, ReplayAgainstAnotherNonceIsRefused)
{
	ScramServer server(verifier(), false, "");
	std::string out;
	ScramKey key;
	ASSERT_EQ(server.first(kScramMechanism, kClientFirst, out), ScramStep::Continue);
	EXPECT_EQ(server.final(kClientFinal, out, key), ScramStep::Malformed);
	EXPECT_EQ(server.problem().detail, "Nonce does not match.");
}

struct Refused {
	const char *text;
	const char *sqlstate;
	const char *message;
	const char *detail;
};

const char kMalformed[] = "malformed SCRAM message";

TEST(ScramServer, RefusesAMalformedFirstMessage)
{
	const Refused cases[] = {
	    {"", "08P01", kMalformed, "The message is empty."},
	    {"x,,n=,r=abc", "08P01", kMalformed, "Unexpected channel-binding flag \"x\"."},
	    {"\x01,,n=,r=abc", "08P01", kMalformed, "Unexpected channel-binding flag \"0x01\"."},
	    {"n", "08P01", kMalformed, "Comma expected, but found character end of message."},
	    {"n;,n=,r=abc", "08P01", kMalformed, "Comma expected, but found character \";\"."},
	    {"n,", "08P01", kMalformed, "Unexpected attribute end of message in client-first-message."},
	    {"n,x=,n=,r=abc", "08P01", kMalformed, "Unexpected attribute \"x\" in client-first-message."},
	    {"n,a=bob,n=,r=abc", "0A000", "client uses authorization identity, but it is not supported", ""},
	    {"n,,", "08P01", kMalformed, "Expected attribute \"n\" but found end of message."},
	    {"n,,m=x,n=,r=abc", "0A000", "client requires an unsupported SCRAM extension", ""},
	    {"n,,r=abc,n=", "08P01", kMalformed, "Expected attribute \"n\" but found \"r\"."},
	    {"n,,n", "08P01", kMalformed, "Expected character \"=\" for attribute \"n\"."},
	    {"n,,nn=,r=abc", "08P01", kMalformed, "Expected character \"=\" for attribute \"n\"."},
	    {"n,,n=", "08P01", kMalformed, "Expected attribute \"r\" but found end of message."},
	    {"n,,n=,m=x,r=abc", "08P01", kMalformed, "Expected attribute \"r\" but found \"m\"."},
	    {"n,,n=,r=", "08P01", kMalformed, "The nonce is empty."},
	    {"n,,n=,r=a b", "08P01", "non-printable characters in SCRAM nonce", ""},
	    {"n,,n=,r=a\x7f", "08P01", "non-printable characters in SCRAM nonce", ""},
	    {"n,,n=,r=a\xc3\xa9", "08P01", "non-printable characters in SCRAM nonce", ""},
	    {"n,,n=,r=abc,=", "08P01", kMalformed, "Attribute expected, but found invalid character \"=\"."},
	    {"n,,n=,r=abc,x", "08P01", kMalformed, "Expected character \"=\" for attribute \"x\"."},
	    {"p=tls-server-end-point,,n=,r=abc", "08P01", kMalformed,
	     "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel "
	     "binding data."},
	};
	for (const Refused &c : cases) {
		Exchange e;
		EXPECT_EQ(e.first(c.text), ScramStep::Malformed) << c.text;
		EXPECT_EQ(e.sqlstate(), c.sqlstate) << c.text;
		EXPECT_EQ(e.message(), c.message) << c.text;
		EXPECT_EQ(e.detail(), c.detail) << c.text;
		EXPECT_EQ(e.out, "");
		EXPECT_EQ(e.final(kClientFinal), ScramStep::Malformed) << "went on after " << c.text;
		expect_no_key(e);
	}
}

TEST(ScramServer, RefusesAMalformedLastMessage)
{
	const std::string r = "r=" + kNonce;
	const struct {
		std::string text;
		const char *message;
		const char *detail;
	} cases[] = {
	    {"", kMalformed, "The message is empty."},
	    {r + ",p=" + kProof, kMalformed, "Expected attribute \"c\" but found \"r\"."},
	    {"c", kMalformed, "Expected character \"=\" for attribute \"c\"."},
	    {"c=," + r + ",p=" + kProof, "unexpected SCRAM channel-binding attribute in client-final-message", ""},
	    {"c=eSws," + r + ",p=" + kProof, "unexpected SCRAM channel-binding attribute in client-final-message", ""},
	    {"c=biws", kMalformed, "Expected attribute \"r\" but found end of message."},
	    {"c=biws,r=,p=" + kProof, "invalid SCRAM response", "Nonce does not match."},
	    {"c=biws,r=" + std::string(kClientNonce) + ",p=" + kProof, "invalid SCRAM response", "Nonce does not match."},
	    {"c=biws," + r + "x,p=" + kProof, "invalid SCRAM response", "Nonce does not match."},
	    {"c=biws," + r, kMalformed, "Attribute expected, but found end of string."},
	    {"c=biws," + r + ",1=x,p=" + kProof, kMalformed, "Attribute expected, but found invalid character \"1\"."},
	    {"c=biws," + r + ",p", kMalformed, "Expected character \"=\" for attribute \"p\"."},
	    {"c=biws," + r + ",p=", kMalformed, "Malformed proof in client-final-message."},
	    {"c=biws," + r + ",p=" + base64(std::string(31, 'x')), kMalformed, "Malformed proof in client-final-message."},
	    {"c=biws," + r + ",p=" + base64(std::string(33, 'x')), kMalformed, "Malformed proof in client-final-message."},
	    {"c=biws," + r + ",p=" + kProof.substr(0, 43), kMalformed, "Malformed proof in client-final-message."},
	    {"c=biws," + r + ",p=" + kProof + ",x=1", kMalformed, "Garbage found at the end of client-final-message."},
	    {"c=biws," + r + ",p=" + kProof + ",", kMalformed, "Garbage found at the end of client-final-message."},
	    {kClientFinal + '\0', kMalformed, "Message length does not match input length."},
	    {std::string(1, '\0') + kClientFinal, kMalformed, "Message length does not match input length."},
	    {kClientFinal + std::string(65536, 'x'), kMalformed, "The message is too long."},
	};
	for (const auto &c : cases) {
		Exchange e;
		ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
		EXPECT_EQ(e.final(c.text), ScramStep::Malformed) << c.text;
		EXPECT_EQ(e.sqlstate(), "08P01");
		EXPECT_EQ(e.message(), c.message) << c.text;
		EXPECT_EQ(e.detail(), c.detail) << c.text;
		expect_no_key(e);
	}
}

TEST(ScramServer, RefusesNulAndOverlongFirstMessages)
{
	Exchange nul, longest, longer;
	EXPECT_EQ(nul.first(kClientFirst + '\0'), ScramStep::Malformed);
	EXPECT_EQ(longest.first(kClientFirst + std::string(65535 - kClientFirst.size(), 'x')), ScramStep::Continue);
	EXPECT_EQ(longer.first(kClientFirst + std::string(65536 - kClientFirst.size(), 'x')), ScramStep::Malformed);
}

TEST(ScramServer, RefusesAMechanismItDidNotOffer)
{
	for (const char *name : {"", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "scram-sha-256", "SCRAM-SHA-256 "}) {
		Exchange e;
		EXPECT_EQ(e.first(kClientFirst, name), ScramStep::Malformed) << name;
		EXPECT_EQ(e.message(), "client selected an invalid SASL authentication mechanism");
	}
}

TEST(ScramServer, RefusesStepsOutOfOrder)
{
	Exchange early;
	EXPECT_EQ(early.final(kClientFinal), ScramStep::Malformed);
	expect_no_key(early);

	Exchange twice;
	ASSERT_EQ(twice.first(kClientFirst), ScramStep::Continue);
	EXPECT_EQ(twice.first(kClientFirst), ScramStep::Malformed);

	Exchange again;
	ASSERT_EQ(again.first(kClientFirst), ScramStep::Continue);
	ASSERT_EQ(again.final("c=biws,r=" + kNonce + ",p=" + base64(std::string(32, 'x'))), ScramStep::WrongProof);
	EXPECT_EQ(again.final(kClientFinal), ScramStep::Malformed) << "a second guess in one exchange";
	expect_no_key(again);
}

TEST(ScramServer, WithoutRandomBytesNothingStarts)
{
	Exchange e;
	ScramTestAccess::set_nonce(*e.server, "");
	EXPECT_EQ(e.first(kClientFirst), ScramStep::Malformed);
	EXPECT_EQ(e.sqlstate(), "XX000");
}

TEST(ScramServer, EachExchangeHasItsOwnNonce)
{
	ScramServer a(verifier(), false, ""), b(verifier(), false, "");
	std::string first, second;
	ASSERT_EQ(a.first(kScramMechanism, kClientFirst, first), ScramStep::Continue);
	ASSERT_EQ(b.first(kScramMechanism, kClientFirst, second), ScramStep::Continue);
	EXPECT_NE(first, second);
	EXPECT_EQ(first.find(",s="), 2 + sizeof kClientNonce - 1 + 24);
}

TEST(ScramBinding, DowngradeIsRefusedWhenPlusWasOffered)
{
	Exchange tls(false, binding());
	EXPECT_EQ(tls.first("y,,n=,r=abc"), ScramStep::Malformed);
	EXPECT_EQ(tls.sqlstate(), "28000");
	EXPECT_EQ(tls.message(), "SCRAM channel binding negotiation error");

	Exchange plain; // a client that could bind, on a connection without TLS
	EXPECT_EQ(plain.first("y,,n=,r=abc"), ScramStep::Continue);
}

TEST(ScramBinding, FlagYMustBeRepeatedInTheLastMessage)
{
	Exchange right, wrong;
	ASSERT_EQ(right.first("y,,n=user,r=rOprNGfwEbeRWgbNEkqO"), ScramStep::Continue);
	EXPECT_EQ(right.final("c=eSws,r=" + kNonce + ",p=" + kProof),
	          ScramStep::WrongProof); // was signed with biws
	ASSERT_EQ(wrong.first("y,,n=user,r=rOprNGfwEbeRWgbNEkqO"), ScramStep::Continue);
	EXPECT_EQ(wrong.final(kClientFinal), ScramStep::Malformed);
}

TEST(ScramBinding, ClientWithoutBindingIsAcceptedOnTls)
{
	Exchange e(false, binding());
	ASSERT_EQ(e.first(kClientFirst), ScramStep::Continue);
	EXPECT_EQ(e.final(kClientFinal), ScramStep::Done);
}

TEST(ScramBinding, PlusNeedsTheBindingFlagAndItsOnlyType)
{
	const Refused cases[] = {
	    {"n,,n=,r=abc", "08P01", kMalformed,
	     "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding "
	     "data."},
	    {"y,,n=,r=abc", "08P01", kMalformed,
	     "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding "
	     "data."},
	    {"p=tls-unique,,n=,r=abc", "08P01", "unsupported SCRAM channel-binding type \"tls-unique\"", ""},
	    {"p=\x1b[0m,,n=,r=abc", "08P01", "unsupported SCRAM channel-binding type \"?[0m\"", ""},
	    {"p=,,n=,r=abc", "08P01", "unsupported SCRAM channel-binding type \"\"", ""},
	    {"p", "08P01", kMalformed, "Expected character \"=\" for attribute \"p\"."},
	    {"p,,n=,r=abc", "08P01", kMalformed, "Expected character \"=\" for attribute \"p\"."},
	    {"p=tls-server-end-point", "08P01", kMalformed, "Unexpected attribute end of message in client-first-message."},
	    {"p=tls-server-end-point,a=x,n=,r=abc", "0A000", "client uses authorization identity, but it is not supported",
	     ""},
	};
	for (const Refused &c : cases) {
		Exchange e(false, binding());
		EXPECT_EQ(e.first(c.text, kScramPlusMechanism), ScramStep::Malformed) << c.text;
		EXPECT_EQ(e.sqlstate(), c.sqlstate) << c.text;
		EXPECT_EQ(e.message(), c.message) << c.text;
		EXPECT_EQ(e.detail(), c.detail) << c.text;
	}
	Exchange e(false, binding());
	EXPECT_EQ(e.first("p=tls-server-end-point,,n=,r=abc"), ScramStep::Malformed) << "mechanism without -PLUS";
}

TEST(ScramBinding, PlusIsAcceptedWithOurCertificateOnly)
{
	const std::string proof = "Q8h71kjaoMzNI7dPksDrhRE/5mTUObF0fUHVIgBOWQg=";
	const std::string first = kBindingHeader + ",n=,r=" + kClientNonce;
	const std::string bare_first = "p=tls-server-end-point,,n=,r=" + std::string(kClientNonce);
	std::string other = binding();
	other[31] ^= 1;

	Exchange good(false, binding());
	ASSERT_EQ(good.first(bare_first, kScramPlusMechanism), ScramStep::Continue);
	ASSERT_EQ(good.final("c=" + base64(kBindingHeader + binding()) + ",r=" + kNonce + ",p=" + proof), ScramStep::Done)
	    << good.message();
	EXPECT_EQ(good.out, "v=ykwoqH8mLqO5AQCeuwwf6lsj9f8zyJZT/CcvAbN4Ssc=");
	EXPECT_TRUE(equal(good.key, client_key()));

	Exchange three_commas(false, binding());
	EXPECT_EQ(three_commas.first(first, kScramPlusMechanism), ScramStep::Malformed);

	for (const std::string &bound : {kBindingHeader + other, kBindingHeader, kBindingHeader + binding() + "x",
	                                 kBindingHeader + binding().substr(0, 31), std::string("n,,")}) {
		Exchange bad(false, binding()); // a man in the middle shows the client another certificate
		ASSERT_EQ(bad.first(bare_first, kScramPlusMechanism), ScramStep::Continue);
		EXPECT_EQ(bad.final("c=" + base64(bound) + ",r=" + kNonce + ",p=" + proof), ScramStep::Malformed);
		EXPECT_EQ(bad.sqlstate(), "28000");
		EXPECT_EQ(bad.message(), "SCRAM channel binding check failed");
		expect_no_key(bad);
	}
}

struct Login { // one client at a server with fixed nonces
	ScramClient client;
	std::string out = "old";

	explicit Login(const ScramKey &key = client_key(), const ScramVerifier &v = verifier()) : client(key, v)
	{
		ScramTestAccess::set_nonce(client, kClientNonce);
	}
};

const char kProofWithoutName[] = "qvT2SWdEH5Q06albL+hjSYuUhCG7VndFyzIb7CK4n9k=";
const char kFinalWithoutName[] = "v=3HO6Qt1M4MKJrmlKaoOqLAI0/0TV0HZe7J9H3MBtSOg=";

TEST(ScramClient, LogsInWithTheClientKeyAlone)
{
	Login l;
	EXPECT_EQ(l.client.first(), "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
	ASSERT_EQ(l.client.server_first(kServerFirst, l.out), ScramStep::Continue) << l.client.problem().detail;
	EXPECT_EQ(l.out, "c=biws,r=" + kNonce + ",p=" + kProofWithoutName);
	EXPECT_EQ(l.client.server_final(kFinalWithoutName), ScramStep::Done);
	EXPECT_FALSE(l.client.salt_changed());
}

TEST(ScramClient, EveryChangedBitOfTheSignatureIsRefused)
{
	const std::string good = kFinalWithoutName;
	for (size_t bit = 0; bit < 8 * good.size(); bit++) {
		std::string mutant = good;
		mutant[bit / 8] = static_cast<char>(mutant[bit / 8] ^ (1 << bit % 8));
		Login l;
		ASSERT_NE(l.client.first(), "");
		ASSERT_EQ(l.client.server_first(kServerFirst, l.out), ScramStep::Continue);
		EXPECT_NE(l.client.server_final(mutant), ScramStep::Done) << mutant;
	}
}

TEST(ScramClient, ServerThatDoesNotKnowTheVerifierIsRefused)
{
	Login l;
	ASSERT_NE(l.client.first(), "");
	ASSERT_EQ(l.client.server_first(kServerFirst, l.out), ScramStep::Continue);
	EXPECT_EQ(l.client.server_final("v=" + base64(std::string(32, 'x'))), ScramStep::WrongProof);
	EXPECT_EQ(l.client.server_final(kFinalWithoutName), ScramStep::Malformed) << "a second guess";
}

TEST(ScramClient, OtherSaltOrIterationsMeanAChangedPassword)
{
	for (const char *tail : {",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4097", ",s=X22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
	                         ",s=W22ZaJ0SNY7soEsUEjb6,i=4096", ",s=W22ZaJ0SNY7soEsUEjb6gQAA,i=4096"}) {
		Login l;
		ASSERT_NE(l.client.first(), "");
		EXPECT_EQ(l.client.server_first("r=" + kNonce + tail, l.out), ScramStep::Malformed) << tail;
		EXPECT_EQ(l.client.problem().message, "the role's password was changed");
		EXPECT_TRUE(l.client.salt_changed());
		EXPECT_EQ(l.out, "");
	}
}

TEST(ScramClient, RefusesAMalformedServerFirst)
{
	const std::string r = "r=" + kNonce, s = ",s=W22ZaJ0SNY7soEsUEjb6gQ==", i = ",i=4096";
	const struct {
		std::string text;
		const char *detail;
	} cases[] = {
	    {"", "The message is empty."},
	    {"m=x," + r + s + i, "Expected attribute \"r\" but found \"m\"."},
	    {"r=" + s + i, "Nonce does not match."},
	    {"r=" + std::string(kClientNonce) + s + i, "Nonce does not match."}, // the server added nothing
	    {"r=x" + kNonce + s + i, "Nonce does not match."},
	    {r + " " + s + i, "Nonce does not match."},
	    {r, "Expected attribute \"s\" but found end of message."},
	    {r + i, "Expected attribute \"s\" but found \"i\"."},
	    {r + s, "Expected attribute \"i\" but found end of message."},
	    {r + ",s=" + i, "Malformed salt in server-first-message."},
	    {r + ",s=W22" + i, "Malformed salt in server-first-message."},
	    {r + ",s=" + base64(std::string(65, 'x')) + i, "Malformed salt in server-first-message."},
	    {r + s + ",i=", "Malformed or too large iteration count in server-first-message."},
	    {r + s + ",i=0", "Malformed or too large iteration count in server-first-message."},
	    {r + s + ",i=-1", "Malformed or too large iteration count in server-first-message."},
	    {r + s + ",i=04096", "Malformed or too large iteration count in server-first-message."},
	    {r + s + ",i=1000001", "Malformed or too large iteration count in server-first-message."},
	    {r + s + ",i=99999999999999999999", "Malformed or too large iteration count in server-first-message."},
	    {r + s + i + ",", "Garbage found at the end of server-first-message."},
	    {r + s + i + ",x=1", "Garbage found at the end of server-first-message."},
	    {r + s + i + '\0', "Message length does not match input length."},
	    {r + std::string(65536, 'x') + s + i, "The message is too long."},
	};
	for (const auto &c : cases) {
		Login l;
		ASSERT_NE(l.client.first(), "");
		EXPECT_EQ(l.client.server_first(c.text, l.out), ScramStep::Malformed) << c.text;
		EXPECT_EQ(l.client.problem().detail, c.detail) << c.text;
		EXPECT_FALSE(l.client.salt_changed());
		EXPECT_EQ(l.out, "");
		EXPECT_EQ(l.client.server_final(kFinalWithoutName), ScramStep::Malformed);
	}
}

TEST(ScramClient, RefusesAMalformedServerFinal)
{
	const std::string good = kFinalWithoutName;
	const struct {
		std::string text;
		const char *detail;
	} cases[] = {
	    {"", "The message is empty."},
	    {"e=other-\x1b-error", "other-?-error"},
	    {"x=1", "Expected attribute \"v\" but found \"x\"."},
	    {"v", "Expected character \"=\" for attribute \"v\"."},
	    {"v=", "Malformed signature in server-final-message."},
	    {good.substr(0, good.size() - 1), "Malformed signature in server-final-message."},
	    {good + ",", "Garbage found at the end of server-final-message."},
	    {good + ",x=1", "Garbage found at the end of server-final-message."},
	    {good + '\0', "Message length does not match input length."},
	};
	for (const auto &c : cases) {
		Login l;
		ASSERT_NE(l.client.first(), "");
		ASSERT_EQ(l.client.server_first(kServerFirst, l.out), ScramStep::Continue);
		EXPECT_EQ(l.client.server_final(c.text), ScramStep::Malformed) << c.text;
		EXPECT_EQ(l.client.problem().detail, c.detail) << c.text;
	}
}

TEST(ScramClient, RefusesStepsOutOfOrder)
{
	Login early, final_early, no_random;
	EXPECT_EQ(early.client.server_first(kServerFirst, early.out), ScramStep::Malformed);
	ASSERT_NE(final_early.client.first(), "");
	EXPECT_EQ(final_early.client.server_final(kFinalWithoutName), ScramStep::Malformed);
	ScramTestAccess::set_nonce(no_random.client, "");
	EXPECT_EQ(no_random.client.first(), "");
	EXPECT_EQ(no_random.client.problem().message, "could not generate random nonce");
}

// Client and server of one program, with their own nonces; the key that the server learns serves the client.
ScramStep round_trip(const ScramKey &key, const ScramVerifier &theirs, bool doomed, ScramKey &learned)
{
	ScramClient client(key, theirs);
	ScramServer server(theirs, doomed, "");
	std::string to_server = client.first(), to_client;

	EXPECT_EQ(server.first(kScramMechanism, to_server, to_client), ScramStep::Continue);
	EXPECT_EQ(client.server_first(to_client, to_server), ScramStep::Continue);
	const ScramStep step = server.final(to_server, to_client, learned);
	if (step == ScramStep::Done) {
		EXPECT_EQ(client.server_final(to_client), ScramStep::Done);
	}
	return step;
}

TEST(ScramRoundTrip, TheLearnedKeyLogsInAgain)
{
	ScramKey learned{}, again{};
	ASSERT_EQ(round_trip(client_key(), verifier(), false, learned), ScramStep::Done);
	ASSERT_EQ(round_trip(learned, verifier(), false, again), ScramStep::Done);
	EXPECT_TRUE(equal(again, client_key()));
}

TEST(ScramRoundTrip, AnyOtherKeyOrADoomedExchangeFails)
{
	ScramKey learned{};
	for (size_t bit = 0; bit < 8 * kScramKeyLength; bit++) {
		ScramKey key = client_key();
		key.bytes[bit / 8] = static_cast<uint8_t>(key.bytes[bit / 8] ^ (1 << bit % 8));
		EXPECT_EQ(round_trip(key, verifier(), false, learned), ScramStep::WrongProof) << bit;
	}
	EXPECT_EQ(round_trip(verifier().stored_key, verifier(), false, learned), ScramStep::WrongProof);
	EXPECT_EQ(round_trip(client_key(), verifier(), true, learned), ScramStep::WrongProof);
	EXPECT_TRUE(equal(learned, ScramKey{}));
}

TEST(ScramRoundTrip, NobodyLogsInAtAMock)
{
	ScramVerifier mock = verifier(); // keys that belong to no password, as the manager presents them
	ScramKey learned{};
	mock.stored_key = mock.server_key = ScramKey{};
	EXPECT_EQ(round_trip(client_key(), mock, true, learned), ScramStep::WrongProof);
	EXPECT_EQ(round_trip(ScramKey{}, mock, false, learned), ScramStep::WrongProof);
}

TEST(Scram, WipeLeavesNothing)
{
	ScramKey key = client_key();
	wipe(&key, sizeof key);
	EXPECT_TRUE(equal(key, ScramKey{}));
}

} // namespace
