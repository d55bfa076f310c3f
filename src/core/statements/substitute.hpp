// What a client gets in place of the message of its server that is looked at, or before it.
//
// Owns the texts, whose memory is used again: the client's stream takes a copy of them. Must not know why.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "proto/wire.hpp"

namespace pgpool::core
{

class Substitute
{
public:
	void reset()
	{
		withholds_ = false;
		instead_ = nullptr;
	}
	// Describe of a stale statement is answered by ParameterDescription and then the error; what is read on a node is
	// answered by a good deal before the node finds that it cannot do it. That waits for what comes behind it.
	void withhold(char type, std::string_view body)
	{
		if (!withholds_)
			withheld_.clear();
		proto::Writer(withheld_).begin(type).bytes(body).end();
		withholds_ = true;
	}
	void drop_withheld() { withholds_ = false; }
	bool withholds() const { return withholds_; }

	// In place of the present message: one that lasts, or what is written now.
	void put(const std::string &message) { instead_ = &message; }
	std::string &write()
	{
		written_.clear();
		instead_ = &written_;
		return written_;
	}

	// What goes out at a message of this type, nullptr = nothing. `forward`: the message itself goes, too.
	struct Due {
		const std::string *before, *instead;
	};
	Due take(char type, bool forward)
	{
		const std::string *instead = std::exchange(instead_, nullptr);
		const bool told = (forward || instead || type == 'E') && type != 't';
		return {told && std::exchange(withholds_, false) ? &withheld_ : nullptr, instead};
	}

private:
	std::string withheld_, written_;
	const std::string *instead_ = nullptr;
	bool withholds_ = false;
};

} // namespace pgpool::core
