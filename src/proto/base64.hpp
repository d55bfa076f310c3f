// Base64 (RFC 4648, section 4) as SCRAM uses it: one encoding for each byte string, and no other.
//
// Owns the alphabet and the strictness: no white space, padding required, spare bits zero. PostgreSQL's
// decoder lets spare bits pass; here they are refused, so that no message can be altered and still be read
// as the same bytes. Must not know what the bytes mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pgpool::proto
{

void base64_append(const void *data, size_t length, std::string &out);

// Decodes all of `text` to at most `capacity` bytes; false when it is not the base64 of so few bytes. After
// false the content of `out` is unspecified, within `capacity`.
[[nodiscard]] bool base64_decode(std::string_view text, uint8_t *out, size_t capacity, size_t &length);

} // namespace pgpool::proto
