// MD5 password authentication: the digests against values of another implementation, and what is refused.
#include "proto/md5.hpp"

#include <string>

#include <gtest/gtest.h>

namespace
{

using namespace pgpool::proto;

const uint8_t kSalt[kMd5SaltLength] = {1, 2, 3, 0xff};
const char kVerifier[] = "md54a0a68b43b6cd5cf266fa02f196e2371"; // secret, alice
const char kResponse[] = "md55f0388cdae34fff99488f7c4c4a91735";

TEST(Md5, VerifierIsWhatPostgresStores)
{
	std::string out = "old";
	ASSERT_TRUE(md5_verifier("secret", "alice", out));
	EXPECT_EQ(out, kVerifier);
	EXPECT_TRUE(is_md5_verifier(out));
}

TEST(Md5, ResponseIsMadeFromTheVerifierAlone)
{
	std::string out = "old";
	ASSERT_TRUE(md5_response(kVerifier, kSalt, out));
	EXPECT_EQ(out, kResponse);
	EXPECT_TRUE(md5_response_matches(kVerifier, kSalt, kResponse));
}

TEST(Md5, EveryChangedBitOfTheResponseIsRefused)
{
	for (size_t at = 0; at < sizeof kResponse - 1; at++)
		for (int bit = 0; bit < 8; bit++) {
			std::string mutant = kResponse;
			mutant[at] = static_cast<char>(mutant[at] ^ (1 << bit));
			EXPECT_FALSE(md5_response_matches(kVerifier, kSalt, mutant)) << at << " " << bit;
		}
}

TEST(Md5, OtherLengthOrOtherSaltIsRefused)
{
	const uint8_t other[kMd5SaltLength] = {1, 2, 3, 0xfe};
	const std::string response = kResponse;
	EXPECT_FALSE(md5_response_matches(kVerifier, other, response));
	EXPECT_FALSE(md5_response_matches(kVerifier, kSalt, ""));
	EXPECT_FALSE(md5_response_matches(kVerifier, kSalt, response.substr(0, 34)));
	EXPECT_FALSE(md5_response_matches(kVerifier, kSalt, response + '\0'));
	EXPECT_FALSE(md5_response_matches(kVerifier, kSalt, kVerifier));
}

TEST(Md5, OnlyAVerifierIsTakenForOne)
{
	std::string out = "old";
	EXPECT_FALSE(is_md5_verifier(""));
	EXPECT_FALSE(is_md5_verifier("md5"));
	EXPECT_FALSE(is_md5_verifier("md54a0a68b43b6cd5cf266fa02f196e237"));
	EXPECT_FALSE(is_md5_verifier("md54a0a68b43b6cd5cf266fa02f196e23711"));
	EXPECT_FALSE(is_md5_verifier("md54A0a68b43b6cd5cf266fa02f196e2371"));
	EXPECT_FALSE(is_md5_verifier("MD54a0a68b43b6cd5cf266fa02f196e2371"));
	EXPECT_FALSE(is_md5_verifier("md54a0a68b43b6cd5cf266fa02f196e237g"));
	EXPECT_FALSE(md5_response("secret", kSalt, out));
	EXPECT_EQ(out, "");
	EXPECT_FALSE(md5_response_matches("", kSalt, ""));
}

TEST(Md5, ClearTextPasswordIsComparedWithTheVerifier)
{
	EXPECT_TRUE(md5_password_matches(kVerifier, "alice", "secret"));
	EXPECT_FALSE(md5_password_matches(kVerifier, "bob", "secret"));
	EXPECT_FALSE(md5_password_matches(kVerifier, "alice", "Secret"));
	EXPECT_FALSE(md5_password_matches(kVerifier, "secretalice", ""));
	EXPECT_FALSE(md5_password_matches("secret", "alice", "secret"));
}

TEST(Md5, EmptyPasswordNeverMatches)
{
	std::string verifier;
	ASSERT_TRUE(md5_verifier("", "alice", verifier));
	EXPECT_FALSE(md5_password_matches(verifier, "alice", ""));
}

} // namespace
