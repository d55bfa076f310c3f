// The login of one client, from the first byte to the greeting.
//
// Owns the negotiation of TLS, the startup packet, the question to the manager, and the first contact with a server
// when the pool does not know yet how to greet such a client. The messages of the proof are ProofExchange's. It ends
// with Session::login_done() or with a FATAL error; one deadline (pgpool.login_timeout) covers it all.
// Until the exchange is over, an unknown role, tenant or database looks like a wrong password.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/client/deputy.hpp"
#include "core/client/proof_exchange.hpp"
#include "core/client/start_settings.hpp"
#include "proto/message.hpp"
#include "proto/secret.hpp"
#include "proto/startup.hpp"

namespace pgpool::core
{

class Login final : public Deputy
{
public:
	explicit Login(Session &session);
	~Login() override;

	void on_data(const char *data, size_t size);
	void on_answer(const control::AuthAnswer &answer);
	void on_manager(); // it is there again
	void on_derived(bool right, const proto::ScramKey &key);
	void on_handshake_failed(const char *why); // of TLS
	void on_timeout();
	// ---- for the server that says what the settings become
	void on_assigned();
	void on_settings(bool all) override;
	Standing standing() const override;
	void on_lost(Loss loss, const proto::Error *why) override;
	// The pool has no server and will not have one.
	void on_failed(const proto::Error &why);
	// It waits for the manager, a server or a thread, not for the client.
	bool busy() const { return stage_ == Stage::Asking || stage_ == Stage::Deriving || stage_ == Stage::Preparing; }
	int64_t began() const { return began_; }

private:
	enum class Stage { Startup, Asking, Exchange, Deriving, Preparing, Over };

	bool startup_packet();
	bool encryption_request(bool tls);
	void cancel_request(uint32_t size);
	void begin(uint32_t size);
	void ask();
	void start_exchange();
	void exchange_message(std::string_view body);
	[[nodiscard]] bool derive(std::string_view password);
	void wrong_password();
	void refuse();
	static proto::Error to_error(const control::ErrorText &e);
	void on_admitted();
	void authenticated();
	bool lacks_server_key();
	void admitted();
	bool within_limits();
	void learn_credential();
	void prepare();
	void on_prepared();
	void greet();
	void fail(const char *sqlstate, std::string message, std::string detail = {}, std::string hint = {});

	Stage stage_ = Stage::Startup;
	proto::SecretString in_;
	proto::Startup startup_;
	StartSettings settings_{startup_};
	proto::SecretPtr<control::AuthAnswer> answer_;
	// The first answer, when the proof was given and the manager is asked for a place: who proves nothing takes none.
	proto::SecretPtr<control::AuthAnswer> proved_;
	ProofExchange exchange_;
	uint64_t question_ = 0;   // to the manager; 0 = none
	uint64_t derivation_ = 0; // 0 = none
	const int64_t began_;
	bool ssl_asked_ = false, gss_asked_ = false;
};

} // namespace pgpool::core
