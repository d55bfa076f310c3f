// Why a server must stay with its client although a transaction is over, as far as its backend tells; and as what it
// is counted in its pool by that.
//
// Owns the reasons, and since when it is known that its client cannot be parked. What the user itself keeps
// (Standing::pinned) counts as much, and is known there: ServerConn::kept() asks both. Must not know sessions, settings
// by name, nor what follows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "region/layout.hpp"

namespace pgpool::core
{

class ServerPins
{
public:
	// ---- what the backend tells
	void tell(std::string_view reasons);                              // what the agent says; "" = nothing
	void tell_settings(bool too_many);                                // too many of them to go from server to server
	void tell_identity(bool foreign) { foreign_identity_ = foreign; } // SET SESSION AUTHORIZATION is in force

	bool any() const { return foreign_identity_ || !reasons_.empty(); }
	bool only_listens() const { return reasons_ == "LISTEN" && !foreign_identity_; }
	std::string_view why() const { return foreign_identity_ ? kForeign : std::string_view(reasons_); } // in words

	// ---- parking
	bool may_park() const { return park_again_at_ == 0; }
	void cannot_park(int64_t now);                  // for a while
	[[nodiscard]] bool may_park_again(int64_t now); // true: from now on
	void assigned() { park_again_at_ = 0; }         // to another client

	// ---- in the pool's sums: a parkable one takes no server from the others for long
	enum class Counted : uint8_t { Not, Kept, Parkable };
	Counted counted() const { return counted_; }
	void count(Counted as, region::TargetGauges &sums);

private:
	static constexpr std::string_view kForeign = "SET SESSION AUTHORIZATION";

	std::string reasons_;       // those of the agent, and behind them the settings
	size_t of_agent_ = 0;       // so much of it
	int64_t park_again_at_ = 0; // 0 = it can be tried
	Counted counted_ = Counted::Not;
	bool foreign_identity_ = false;
};

} // namespace pgpool::core
