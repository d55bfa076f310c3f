// See questions.hpp.
#include "core/client/questions.hpp"

#include "core/client/login.hpp"
#include "core/client/session.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr uint32_t kMostAsked = 256; // what a manager that hangs has not read is memory of ours

} // namespace

uint64_t Questions::ask(Session *session, control::AuthLookup &question)
{
	question.head.id = next_lookup_++;
	lookups_[question.head.id] = session;
	if (in_flight_ >= kMostAsked)
		unasked_[question.head.id] = session;
	else if (outside_.ask_manager(question))
		in_flight_++;
	return question.head.id;
}

void Questions::forget(uint64_t id)
{
	lookups_.erase(id);
	unasked_.erase(id);
}

void Questions::ask_next()
{
	while (in_flight_ < kMostAsked && !unasked_.empty()) {
		Session *session = unasked_.begin()->second;
		unasked_.erase(unasked_.begin());
		if (!session->dead()) // one that ended in this event forgets its question at the end of it
			session->login()->on_manager();
	}
}

void Questions::on_answer(const control::AuthAnswer &answer)
{
	in_flight_ -= in_flight_ > 0 ? 1 : 0;
	auto it = lookups_.find(answer.head.id);
	if (it != lookups_.end()) {
		Session *session = it->second;
		lookups_.erase(it);
		if (session->login())
			session->login()->on_answer(answer);
	}
	ask_next();
}

uint64_t Questions::derive(Session *session, std::string_view password, const proto::ScramVerifier &verifier)
{
	const uint64_t id = next_derivation_++;
	derivations_[id] = session;
	outside_.derive(id, password, verifier);
	return id;
}

void Questions::forget_derivation(uint64_t id)
{
	if (derivations_.erase(id) > 0)
		outside_.forget_derivation(id);
}

void Questions::on_derived(uint64_t id, bool right, const proto::ScramKey &key)
{
	auto it = derivations_.find(id);
	if (it == derivations_.end())
		return;
	Session *session = it->second;
	derivations_.erase(it);
	if (session->login())
		session->login()->on_derived(right, key);
}

} // namespace pgpool::core
