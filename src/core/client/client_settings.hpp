// The settings of one client: what it has, what it began with, what it was told of where it is.
//
// A server gets them all at once. When one refused them, each is applied by itself the next time, until all are in
// force: so those that were refused are known. Owns that. Must not know sessions, nor what the client is told of a
// setting that was lost.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/settings/params.hpp"

namespace pgpool::core
{

class ServerConn;

class ClientSettings
{
public:
	const Params &now() const { return now_; }
	int32_t idle_session_timeout() const { return idle_session_timeout_; } // ms, while it has no server
	void adopt(const ServerConn &server);                                  // those that it has there
	void adopt(const Params &now, int32_t idle_session_timeout);
	const Params &defaults() const { return defaults_; } // what it started with
	void set_defaults(const Params &defaults) { defaults_ = defaults; }

	// To its server, for the message that comes next. False: the client waits until they are in force.
	// `must_wait`: in any case.
	[[nodiscard]] bool apply(ServerConn &server, std::string_view message, bool must_wait);
	void on_refused() { doubtful_ = true; }
	void on_applied() { doubtful_ = false; }

	void told_hot_standby(bool on) { told_hot_standby_ = on; }
	// What it was told is not so any more: true once.
	[[nodiscard]] bool ends_hot_standby(bool in_hot_standby)
	{
		const bool ends = told_hot_standby_ && !in_hot_standby;
		told_hot_standby_ = told_hot_standby_ && !ends;
		return ends;
	}

private:
	Params now_, defaults_;
	int32_t idle_session_timeout_ = 0;
	bool told_hot_standby_ = false;
	bool doubtful_ = false; // one of them was refused by a server
};

} // namespace pgpool::core
