// What a worker cannot do, as pgpool.check() shows it and the log tells it.
//
// Owns `problem` of the worker's slot: there is one at a time, the newest. Must not know what it is about.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "region/layout.hpp"

namespace pgpool::net
{

class WorkerProblem
{
public:
	WorkerProblem(region::WorkerSlot &slot, void (*log)(const char *)) : slot_(slot), log_(log) {}

	void is(const std::string &text) { write(text, text); }
	void solved(const std::string &text) { write({}, text); } // `text`: for the log

private:
	void write(const std::string &problem, const std::string &line)
	{
		memset(slot_.problem, 0, sizeof(slot_.problem));
		memcpy(slot_.problem, problem.data(), std::min(problem.size(), sizeof(slot_.problem) - 1));
		log_(line.c_str());
	}

	region::WorkerSlot &slot_;
	void (*const log_)(const char *);
};

} // namespace pgpool::net
