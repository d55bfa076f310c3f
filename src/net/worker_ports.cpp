// See worker_ports.hpp.
#include "net/worker_ports.hpp"

#include <string>
#include <utility>

#include <unistd.h>

#include "net/loop.hpp"
#include "region/names.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int64_t kListenAgain = 1000000; // microseconds

} // namespace

WorkerPorts::WorkerPorts(Loop &loop, region::View region, uint32_t worker, WorkerProblem &problem,
                         Listener::Accept accept)
    : loop_(loop), slot_(region.worker(worker)), header_(*region.header()), problem_(problem),
      accept_(std::move(accept))
{
}

void WorkerPorts::listen()
{
	const region::Settings &s = loop_.settings();
	if (header_.port_taken.load()) {
		if (listen_again_at_ == 0)
			problem_.is("port " + std::to_string(s.port) +
			            " or the session port is used by pgpool of another cluster on this machine: "
			            "not listening until that has left it");
		listen_again_at_ = loop_.now_us() + kListenAgain;
		return;
	}
	std::string why;
	bool complete = Listener::bind_tcp(loop_, s.listen_addresses, s.port, s.listen_backlog, false, accept_, tcp_, why);
	if (s.session_port != 0)
		complete &= Listener::bind_tcp(loop_, s.listen_addresses, s.session_port, s.listen_backlog, true, accept_,
		                               session_tcp_, why);
	// A name that cannot be translated is asked for again only if there is nothing else: that may take seconds.
	complete &= !tcp_.empty() && (s.session_port == 0 || !session_tcp_.empty());
	if (!why.empty() && listen_again_at_ == 0)
		problem_.is(why + (complete ? "" : "; trying again every second"));
	else if (complete && listen_again_at_ != 0)
		problem_.solved("now listening on port " + std::to_string(s.port));
	listen_again_at_ = complete ? 0 : loop_.now_us() + kListenAgain;
	publish();
}

void WorkerPorts::publish()
{
	slot_.listening.store((!tcp_.empty() ? region::kListenTcp : 0) |
	                      (!session_tcp_.empty() ? region::kListenSession : 0) |
	                      (!unix_.empty() ? region::kListenUnix : 0));
}

void WorkerPorts::stop()
{
	stopped_ = true;
	for (auto *list : {&tcp_, &session_tcp_, &unix_}) {
		for (Listener *l : *list)
			l->close();
		list->clear();
	}
	listen_again_at_ = 0;
	publish();
}

// While no manager held the claim another cluster took it: with SO_REUSEPORT each would get a part of the connections.
void WorkerPorts::give_up()
{
	for (auto *list : {&tcp_, &session_tcp_}) {
		for (Listener *l : *list)
			l->close();
		list->clear();
	}
	listen_again_at_ = 0;
	listen();
	publish();
}

void WorkerPorts::tick()
{
	for (auto *list : {&tcp_, &session_tcp_, &unix_}) {
		for (Listener *l : *list)
			l->tick();
	}
	if (header_.port_taken.load(std::memory_order_relaxed) && !(tcp_.empty() && session_tcp_.empty()))
		give_up();
	if (listen_again_at_ != 0 && loop_.now_us() > listen_again_at_)
		listen();
}

void WorkerPorts::replace_unix(const control::UnixListeners &m, const std::vector<int> &fds)
{
	for (Listener *l : unix_)
		l->close();
	unix_.clear();
	for (size_t i = 0; i < fds.size(); i++) {
		if (stopped_ || i >= size_t{m.transaction_fds} + m.session_fds) {
			close(fds[i]);
			continue;
		}
		Listener *l = Listener::watch(loop_, fds[i], i >= m.transaction_fds, accept_);
		if (l)
			unix_.push_back(l);
	}
	publish();
}

} // namespace pgpool::net
