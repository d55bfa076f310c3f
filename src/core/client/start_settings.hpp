// The settings that a client asks for when it starts: what they are called and become.
//
// Owns what is made of a startup packet's settings: the set that a server is to have, SQL that must run before, the
// name under which the result is remembered for the next client. Must not know sessions, servers or pools.
#pragma once

#include <string>

#include "core/settings/params.hpp"
#include "proto/startup.hpp"

namespace pgpool::core
{

class StartSettings
{
public:
	explicit StartSettings(const proto::Startup &startup) : startup_(startup) {}

	// The same for all clients that ask for the same, whatever they are called.
	std::string key() const;
	// Over `base`, those of a fresh login: raw, as they were asked for. `base` counts once, the first time.
	const Params &wanted(const Params &base);
	// SQL for settings whose value changes a part of the present one.
	std::string ground(const Params &base) const;
	// What is remembered under key() of `now`, what they became, and back. application_name is another one for each of
	// many clients.
	static Params without_name(const Params &now, const Params &base);
	Params with_name(const Params &remembered) const;
	// What RESET goes back to, in the server's spelling, of `now`. Added to `none`, an empty set.
	Params defaults(const Params &now, Params none) const;

private:
	const proto::Startup &startup_;
	Params wanted_;
};

} // namespace pgpool::core
