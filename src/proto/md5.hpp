// MD5 password authentication, both sides: "md5" + md5(md5(password + user) + salt), in lower-case hex.
//
// Owns the digests and the form of a verifier (rolpassword: "md5" and 32 hex digits). The verifier is
// equivalent to the password: who holds it can log in. It also serves the exchange `password`. Must not know
// sockets, roles, or where a verifier comes from.
//
// Each function answers false when libcrypto refuses MD5 (FIPS mode).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgpool::proto
{

constexpr size_t kMd5SaltLength = 4;

[[nodiscard]] bool is_md5_verifier(std::string_view text);

// What CREATE ROLE stores for this password.
[[nodiscard]] bool md5_verifier(std::string_view password, std::string_view user, std::string &out);

// What a client that holds the verifier answers to AuthenticationMD5Password, without the final NUL.
[[nodiscard]] bool md5_response(std::string_view verifier, const uint8_t (&salt)[kMd5SaltLength], std::string &out);

// Server side; constant time in the content of the answer.
[[nodiscard]] bool md5_response_matches(std::string_view verifier, const uint8_t (&salt)[kMd5SaltLength],
                                        std::string_view response);
[[nodiscard]] bool md5_password_matches(std::string_view verifier, std::string_view user, std::string_view password);

// Random bytes for AuthenticationMD5Password; false when libcrypto has none.

} // namespace pgpool::proto
