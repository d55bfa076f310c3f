// See derivations.hpp.
#include "net/derivations.hpp"

#include <memory>
#include <stdexcept>

#include <uv.h>

#include "net/crash.hpp"
#include "net/loop.hpp"
#include "proto/secret.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

struct Derivations::Derivation {
	uv_work_t work;
	Derivations *all;
	uint64_t id;
	proto::SecretString password;
	proto::Secret<proto::ScramVerifier> verifier;
	proto::Secret<proto::ScramKey> key;
	bool right = false;
};

void Derivations::start(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier)
{
	auto d = std::make_unique<Derivation>();
	d->work.data = d.get();
	d->all = this;
	d->id = id;
	proto::assign(d->password, password);
	d->verifier = verifier;
	const int rc = uv_queue_work(
	    loop_.uv(), &d->work,
	    [](uv_work_t *w) {
		    use_crash_stack();
		    auto *self = static_cast<Derivation *>(w->data);
		    self->right = proto::scram_keys_from_password(*self->password, *self->verifier, self->key.edit());
	    },
	    [](uv_work_t *w, int) {
		    const std::unique_ptr<Derivation> self(static_cast<Derivation *>(w->data));
		    self->all->loop_.guarded([&self] {
			    if (self->all->running_.erase(self->id) > 0)
				    self->all->done_(self->id, self->right, *self->key);
		    });
	    });
	if (rc != 0)
		throw std::runtime_error("no thread for a hash");
	running_[id] = d.release();
}

void Derivations::forget(uint64_t id)
{
	auto it = running_.find(id);
	if (it == running_.end())
		return;
	uv_cancel(reinterpret_cast<uv_req_t *>(&it->second->work)); // unless it is at work already
	running_.erase(it);
}

} // namespace pgpool::net
