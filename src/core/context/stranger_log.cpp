// See stranger_log.hpp.
#include "core/context/stranger_log.hpp"

#include <algorithm>
#include <utility>

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr size_t kSizeV4 = 16, kSizeV6 = 28; // of a sockaddr_in and a sockaddr_in6

// Without the port.
std::string_view key_of(std::string_view address)
{
	if (address.size() == kSizeV4)
		return address.substr(4, 4);
	if (address.size() == kSizeV6)
		return address.substr(8, 8);
	return {};
}

} // namespace

StrangerLog::Address &StrangerLog::find(std::string_view address, std::string_view peer, int64_t now)
{
	const std::string_view key = key_of(address);
	auto it = std::find_if(addresses_.begin(), addresses_.end(), [key](const Address &a) { return a.key == key; });
	if (it == addresses_.end()) {
		if (addresses_.size() >= kMostAddresses) {
			it = std::min_element(addresses_.begin(), addresses_.end(),
			                      [](const Address &a, const Address &b) { return a.seen < b.seen; });
			forgotten_ += it->limit.held_back();
			addresses_.erase(it);
		}
		addresses_.emplace_back();
		it = addresses_.end() - 1;
		it->key = key;
		it->name = peer.substr(0, key.empty() ? std::string_view::npos : peer.rfind(':'));
	}
	it->seen = now;
	return *it;
}

bool StrangerLog::take(std::string_view address, std::string_view peer, int64_t now)
{
	Address &a = find(address, peer, now);
	if (!a.limit.take(now))
		return false;
	if (all_.take(now))
		return true;
	a.limit.hold_back();
	(void)all_.held_back(); // it is counted with its address
	return false;
}

std::string StrangerLog::held_back()
{
	std::vector<std::pair<uint64_t, const std::string *>> whose;
	uint64_t sum = std::exchange(forgotten_, 0);
	for (Address &a : addresses_) {
		if (const uint64_t n = a.limit.held_back()) {
			whose.emplace_back(n, &a.name);
			sum += n;
		}
	}
	if (sum == 0)
		return {};
	std::sort(whose.begin(), whose.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
	std::string line = std::to_string(sum) + " more logins were refused and not logged";
	for (size_t i = 0; i < std::min(kMostNamed, whose.size()); i++)
		line += (i == 0 ? " (" : ", ") + *whose[i].second + ": " + std::to_string(whose[i].first);
	return line + (whose.empty() ? "" : whose.size() > kMostNamed ? ", ...)" : ")");
}

} // namespace pgpool::core
