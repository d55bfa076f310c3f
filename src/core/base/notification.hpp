// What a NotificationResponse says. Owns its reading only.
#pragma once

#include <cstdint>
#include <string_view>

#include "proto/message.hpp"
#include "proto/wire.hpp"

namespace pgpool::core
{

struct Notification {
	int32_t pid = 0;
	std::string_view channel, payload;
	std::string_view bytes; // the whole message

	// `body` lies behind its header.
	explicit Notification(std::string_view body)
	    : bytes(body.data() - proto::kHeaderSize, body.size() + proto::kHeaderSize)
	{
		proto::Reader r(body);
		pid = static_cast<int32_t>(r.u32());
		channel = r.string();
		payload = r.string();
	}
};

} // namespace pgpool::core
