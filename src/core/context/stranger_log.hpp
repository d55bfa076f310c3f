// Lines of the log that anybody can cause who reaches the port: how many, for each client address.
//
// Owns a bounded table of addresses, each with a bucket of its own, so that one who floods hides nobody else, and one
// bucket over all of them. IPv6 addresses of one /64 network are one. Must not know what is logged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "region/log_limit.hpp"

namespace pgpool::core
{

class StrangerLog
{
public:
	// True: log it. `address` is a sockaddr, empty for a Unix socket; `peer` the same with its port as text.
	bool take(std::string_view address, std::string_view peer, int64_t now);
	// How many lines were held back since it was asked last, and whose; "" = none.
	std::string held_back();

private:
	static constexpr size_t kMostAddresses = 256;
	static constexpr size_t kMostNamed = 4;

	struct Address {
		std::string key, name;
		int64_t seen = 0;
		region::LogLimit limit;
	};
	Address &find(std::string_view address, std::string_view peer, int64_t now);

	std::vector<Address> addresses_;
	uint64_t forgotten_ = 0; // held back of addresses that had to leave
	region::LogLimit all_{200, 20000};
};

} // namespace pgpool::core
