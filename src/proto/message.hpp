// Messages that pgpool itself writes or must understand, beyond forwarding them.
//
// Owns error reports (ErrorResponse with SQLSTATE, DETAIL and HINT), the small replies of a server, and
// the reading of ErrorResponse. Source: PostgreSQL documentation, "Message Formats" and "Error and Notice
// Message Fields". Knows no session and no socket.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pgpool::proto
{

// An error as a client sees it. Texts follow PostgreSQL's style: message in lower case without a period,
// detail and hint as sentences.
struct Error {
	std::string sqlstate;
	std::string message;
	std::string detail;
	std::string hint;
};

enum class Severity { Warning, Error, Fatal }; // a warning is a NoticeResponse

void append_error(std::string &out, Severity severity, const Error &error);

// Reads an ErrorResponse's body, whatever subset of fields it has. Absent fields are empty, an absent
// SQLSTATE becomes XX000.
Error read_error(std::string_view body);
std::string_view error_field(std::string_view body, char field); // "" = there is none

void append_ready(std::string &out, char status);
void append_parameter(std::string &out, std::string_view name, std::string_view value);
void append_authentication(std::string &out, uint32_t code, std::string_view rest = {});
void append_query(std::string &out, std::string_view sql);

// `value` as an SQL literal that means the same whatever client_encoding and
// standard_conforming_strings are: printable ASCII as it is, all else as \x escapes in E''.
void append_literal(std::string &sql, std::string_view value);
// `name` as one identifier, dots and all. In no client_encoding is the byte of a double quote part of another
// character.
void append_identifier(std::string &sql, std::string_view name);
// The name of a setting: dots separate parts, and each is an identifier of its own.
void append_setting_name(std::string &sql, std::string_view name);

constexpr uint32_t kAuthOk = 0;
constexpr uint32_t kAuthCleartext = 3;
constexpr uint32_t kAuthMd5 = 5;
constexpr uint32_t kAuthSasl = 10;
constexpr uint32_t kAuthSaslContinue = 11;
constexpr uint32_t kAuthSaslFinal = 12;

namespace sqlstate
{
inline constexpr const char kProtocolViolation[] = "08P01";
inline constexpr const char kConnectionFailure[] = "08006";
inline constexpr const char kFeatureNotSupported[] = "0A000";
inline constexpr const char kInvalidParameter[] = "22023";
inline constexpr const char kSyntaxError[] = "42601";
inline constexpr const char kUndefinedObject[] = "42704";
inline constexpr const char kIdleInTransaction[] = "25P03";
inline constexpr const char kInvalidAuthorization[] = "28000";
inline constexpr const char kInvalidPassword[] = "28P01";
inline constexpr const char kUnknownDatabase[] = "3D000";
inline constexpr const char kTooManyConnections[] = "53300";
inline constexpr const char kOutOfMemory[] = "53200";
inline constexpr const char kQueryCanceled[] = "57014";
inline constexpr const char kLockNotAvailable[] = "55P03";
inline constexpr const char kAdminShutdown[] = "57P01";
inline constexpr const char kCannotConnectNow[] = "57P03";
inline constexpr const char kReadOnly[] = "25006";
inline constexpr const char kIdleSession[] = "57P05";
inline constexpr const char kInternal[] = "XX000";
} // namespace sqlstate

} // namespace pgpool::proto
