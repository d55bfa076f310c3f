// See names.hpp. What the linker finds in the program goes before what is in a library, so libuv calls it, too.
#include "names.hpp"

#include <condition_variable>
#include <map>
#include <mutex>

#include <dlfcn.h>
#include <netdb.h>

namespace fake
{

namespace
{

struct Names {
	std::mutex mutex;
	std::condition_variable changed;
	std::map<std::string, Name> all;
};

Names &names()
{
	static Names n;
	return n;
}

using Real = int (*)(const char *, const char *, const addrinfo *, addrinfo **);

int real(const char *node, const char *service, const addrinfo *hints, addrinfo **list)
{
	static const auto f = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "getaddrinfo"));
	return f(node, service, hints, list);
}

} // namespace

void set_name(const std::string &name, const Name &what)
{
	const std::lock_guard<std::mutex> lock(names().mutex);
	names().all[name] = what;
}

int asked_for(const std::string &name)
{
	const std::lock_guard<std::mutex> lock(names().mutex);
	return names().all[name].asked;
}

void unstick_names()
{
	const std::lock_guard<std::mutex> lock(names().mutex);
	for (auto &n : names().all)
		n.second.stuck = false;
	names().changed.notify_all();
}

} // namespace fake

extern "C" int getaddrinfo(const char *node, const char *service, const addrinfo *hints, addrinfo **list)
{
	using namespace fake;
	std::unique_lock<std::mutex> lock(names().mutex);
	auto it = names().all.find(node ? node : "");
	if (it == names().all.end() || (hints && (hints->ai_flags & AI_NUMERICHOST)))
		return real(node, service, hints, list);
	it->second.asked++;
	names().changed.wait(lock, [&] { return !it->second.stuck; });
	if (it->second.error != 0)
		return it->second.error;
	addrinfo **end = list;
	for (const std::string &a : it->second.addresses) {
		if (const int rc = real(a.c_str(), service, hints, end))
			return rc;
		end = &(*end)->ai_next;
	}
	return 0;
}
