// See crash.hpp.
#include "net/crash.hpp"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <iterator>
#include <memory>

#include <execinfo.h>
#include <unistd.h>

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

// What the kernel sends for a fault, what abort() and std::terminate() send, and what comes before a SIGKILL that would
// not be contained (SIGXCPU: the limit of CPU time).
constexpr int kCrashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGXCPU};
constexpr size_t kStackSize = 128 * 1024; // the unwinder takes a few KiB, the state of wide registers up to 11
constexpr unsigned kReportTime = 2;       // seconds

void put(const char *text)
{
	ssize_t rc = write(STDERR_FILENO, text, strlen(text));
	(void)rc;
}

void on_crash_in_handler(int)
{
	_exit(1);
}

void handle(int signal, void (*handler)(int))
{
	struct sigaction action {
	};
	action.sa_handler = handler;
	action.sa_flags = static_cast<int>(SA_ONSTACK | SA_NODEFER);
	sigaction(signal, &action, nullptr);
}

// Async-signal-safe but for backtrace(), which reads memory at a wild program counter and may wait for a lock that
// the thread which crashed holds. So first of all the end is made sure of.
void on_crash(int signal)
{
	for (const int s : kCrashes)
		handle(s, on_crash_in_handler);
	handle(SIGALRM, on_crash_in_handler);
	sigset_t none;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, nullptr);
	alarm(kReportTime);

	char line[] =
	    "pgpool worker: crashed by signal 00; its clients lose their connections, the database does not notice\n";
	char *digits = strstr(line, "00");
	digits[0] = static_cast<char>('0' + signal / 10);
	digits[1] = static_cast<char>('0' + signal % 10);
	put(line);
	void *frames[48];
	backtrace_symbols_fd(frames, backtrace(frames, 48), STDERR_FILENO);
	_exit(1);
}

// Of one thread; given back when it ends.
class CrashStack
{
public:
	CrashStack() : memory_(new char[kStackSize]) { use(0); }
	~CrashStack() { use(SS_DISABLE); }

private:
	void use(int flags)
	{
		stack_t stack{};
		stack.ss_sp = memory_.get();
		stack.ss_size = kStackSize;
		stack.ss_flags = flags;
		sigaltstack(&stack, nullptr);
	}
	std::unique_ptr<char[]> memory_;
};

} // namespace

void use_crash_stack()
{
	static thread_local CrashStack stack;
	(void)stack;
}

void contain_crashes()
{
	void *frame[1];
	backtrace(frame, 1); // loads the unwinder now, not in the handler
	use_crash_stack();
	for (const int s : kCrashes)
		handle(s, on_crash);
	// An immediate shutdown, or somebody's mistake; not 2, as of a backend, which makes the postmaster restart all.
	handle(SIGQUIT, on_crash_in_handler);
	// Handlers of the server and of other libraries work on what a worker has left, and the default of most signals
	// is the death of the process. A pending signal would be lost where it is ignored for a moment.
	for (int s = 1; s < NSIG; s++) {
		if (s != SIGQUIT && s != SIGTERM && s != SIGCHLD && s != SIGCONT &&
		    std::find(std::begin(kCrashes), std::end(kCrashes), s) == std::end(kCrashes))
			signal(s, SIG_IGN); // refused for SIGKILL, SIGSTOP and the C library's own
	}
	sigset_t none;
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, nullptr);
}

void end_process()
{
	_exit(1);
}

} // namespace pgpool::net
