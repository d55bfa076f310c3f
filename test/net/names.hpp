// getaddrinfo() of this program: names that a test has given addresses to. All others are the system's.
#pragma once

#include <string>
#include <vector>

namespace fake
{

struct Name {
	std::vector<std::string> addresses;
	int error = 0;      // of getaddrinfo()
	bool stuck = false; // until unstick_names()
	int asked = 0;
};

void set_name(const std::string &name, const Name &what);
int asked_for(const std::string &name);
void unstick_names();

} // namespace fake
