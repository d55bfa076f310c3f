// The agent: no timeout of the session ends what the worker does in it, the login included.
//
// statement_timeout, lock_timeout and transaction_timeout are the client's, by SET or by ALTER ROLE, and are armed for
// every query before any hook runs. So they are disarmed when they fire: the first two come as SIGINT, the last one
// leaves a mark in the handler of SIGALRM. Nothing is done while a client's query runs. Owns these two signals, in this
// process.
//
// idle_session_timeout is the client's, too, and the client may be idle without a server: the worker is told, and acts.
// It is armed before ReadyForQuery, and disarmed here. Must not know what the worker's query is.
#include <csignal>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/timeout.h"
}

namespace pgpool::postgres::agent
{

namespace
{

struct sigaction previous_interrupt, previous_alarm;
bool logged_in; // the first ReadyForQuery was sent: until then what the role sets by default is armed for the login

// Safe in a signal handler.
bool works_for_pgpool()
{
	return !logged_in || serves_pgpool();
}

// A timeout sends the signal twice, to the process and to its group.
void on_interrupt(int number)
{
	if (!works_for_pgpool() ||
	    !(get_timeout_indicator(STATEMENT_TIMEOUT, false) || get_timeout_indicator(LOCK_TIMEOUT, false)))
		previous_interrupt.sa_handler(number);
}

void on_alarm(int number)
{
	previous_alarm.sa_handler(number);
	if (works_for_pgpool())
		compat::forget_transaction_timeout();
}

void put_before(int number, void (*handler)(int), struct sigaction &previous)
{
	struct sigaction mine;

	if (sigaction(number, nullptr, &previous) != 0 || (previous.sa_flags & SA_SIGINFO) != 0 ||
	    previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN)
		return;
	mine = previous;
	mine.sa_handler = handler;
	(void)sigaction(number, &mine, nullptr);
}

} // namespace

// At a ReadyForQuery, the end of the worker's query among others. A cancel that comes later would be taken for a
// timeout.
void forget_timeouts()
{
	if (!works_for_pgpool())
		return;
	logged_in = true;
	(void)get_timeout_indicator(STATEMENT_TIMEOUT, true);
	(void)get_timeout_indicator(LOCK_TIMEOUT, true);
}

void tell_idle_timeout()
{
	static int told;
	char text[16];

	if (IdleSessionTimeout > 0)
		disable_timeout(IDLE_SESSION_TIMEOUT, false);
	if (IdleSessionTimeout == told)
		return;
	snprintf(text, sizeof text, "%d", IdleSessionTimeout);
	put_parameter_status("pgpool.idle_session_timeout", text);
	told = IdleSessionTimeout;
}

// After PostgreSQL has set its own handlers.
void install_timeouts()
{
	put_before(SIGINT, on_interrupt, previous_interrupt);
	if (compat::kHasTransactionTimeout)
		put_before(SIGALRM, on_alarm, previous_alarm);
}

} // namespace pgpool::postgres::agent
