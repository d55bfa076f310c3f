// See node_pulse.hpp.
#include "net/node_pulse.hpp"

#include <vector>

#include <sys/socket.h>

#include "net/loop.hpp"
#include "net/stream.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr int64_t kTime = 1000000;                                                          // us
constexpr char kGssEncRequest[8] = {0, 0, 0, 8, 0x04, static_cast<char>(0xd2), 0x16, 0x30}; // 80877104

} // namespace

class NodePulses::Pulse final : public core::StreamOwner
{
public:
	Pulse(NodePulses &all, uint32_t node) : all_(all), deadline_(all.loop_.now_us() + kTime), node_(node) {}

	bool begin(const sockaddr *to, socklen_t length)
	{
		stream_ = SocketStream::dial(all_.loop_, to, length, this);
		return stream_ != nullptr;
	}
	bool late(int64_t now) const { return now > deadline_; }
	void end(bool lives);

	void on_connected() override
	{
		stream_->queue(kGssEncRequest, sizeof(kGssEncRequest));
		stream_->flush();
	}
	void on_data(const char *, size_t) override { end(true); }
	void on_writable() override {}
	void on_closed(const char *) override { end(false); }

private:
	NodePulses &all_;
	const int64_t deadline_;
	const uint32_t node_;
	core::Stream *stream_ = nullptr;
};

void NodePulses::Pulse::end(bool lives)
{
	NodePulses &all = all_;
	const uint32_t node = node_;
	stream_->close(false);
	all.taken_.erase(this); // and with it this object
	if (lives)
		all.lives_(node);
}

NodePulses::NodePulses(Loop &loop, Lives lives) : loop_(loop), lives_(std::move(lives)) {}

NodePulses::~NodePulses() = default;

bool NodePulses::take(uint32_t node, const SocketStream &server)
{
	sockaddr_storage to{};
	socklen_t length = sizeof(to);
	if (getpeername(server.fd(), reinterpret_cast<sockaddr *>(&to), &length) != 0)
		return false;
	auto pulse = std::make_unique<Pulse>(*this, node);
	if (!pulse->begin(reinterpret_cast<const sockaddr *>(&to), length))
		return false;
	taken_[pulse.get()] = std::move(pulse);
	return true;
}

void NodePulses::tick()
{
	const int64_t now = loop_.now_us();
	std::vector<Pulse *> late;
	for (auto &p : taken_) {
		if (p.second->late(now))
			late.push_back(p.second.get());
	}
	for (Pulse *p : late)
		p->end(false);
}

} // namespace pgpool::net
