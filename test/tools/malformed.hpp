// malformed: what its parts know of each other. malformed.cpp says what the program is.
//
// Owns the form of a case, and what a run counts. malformed_engine.cpp runs cases, malformed_cases.cpp makes them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "rawpg.hpp"

namespace malformed
{

using namespace rawpg;

// Bytes to send, after the answer that is named was seen: a message type, '?' for one byte, 0 for none.
struct Stage {
	Bytes bytes;
	char after = 0;
	uint32_t wait_ms = 0;
};

struct Case {
	std::string name;
	std::vector<Stage> stages;
	bool must_serve = false;   // legal: ReadyForQuery has to come
	std::string must_not_come; // this text in the answer is a failure
	bool hasty = false;        // half-close at once
};

enum class Outcome { Running, Error, Closed, Served, Bad };

struct Run {
	Target plain, scram; // roles that are trusted, and have to prove themselves
	uint64_t limit_ms = 0, parallel = 0, seed = 0;
	uint64_t failures = 0, cases_run = 0;
	std::map<Outcome, uint64_t> outcomes;
};
extern Run run;

// ---- the engine
void run_group(const std::string &name, std::vector<Case> cases);
void good_login(const std::string &after); // it must work

// ---- the cases
std::vector<Case> length_cases();
std::vector<Case> type_cases();
std::vector<Case> inner_cases();
std::vector<Case> startup_cases();
std::vector<Case> foreign_cases(Rng &rng);
std::vector<Case> clear_cases();
std::vector<Case> sasl_cases(Rng &rng);
std::vector<Bytes> session(); // a whole one, message by message
Case mutated(const std::vector<Bytes> &whole, Rng &rng);

} // namespace malformed
