// Which messages a client may send once it is logged in, and how long they may be.
//
// Owns the types and bounds (PostgreSQL: SocketBackend() in postgres.c). Knows no session and no socket.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "proto/message.hpp"
#include "proto/wire.hpp"

namespace pgpool::proto
{

inline bool is_frontend_type(char type)
{
	return type != 0 && strchr("QPBDECSHFXdcf", type) != nullptr;
}

inline bool is_frontend(char type, uint32_t length)
{
	const bool may_be_long = strchr("QPBFd", type) != nullptr;
	return is_frontend_type(type) && length >= 4 && length - 4 <= (may_be_long ? kMaxMessage : kMaxSmallMessage);
}

// Of a header that is none.
inline Error refuse_frontend(char type, uint32_t length)
{
	if (!is_frontend_type(type))
		return {sqlstate::kProtocolViolation,
		        "invalid frontend message type " + std::to_string(static_cast<unsigned char>(type)), "", ""};
	return {sqlstate::kProtocolViolation,
	        "invalid message length " + std::to_string(length) + " in message of type \"" + type + "\"", "", ""};
}

} // namespace pgpool::proto
