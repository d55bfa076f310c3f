// The login of one client, from the first byte to the greeting.
//
// Owns the negotiation of TLS, the startup packet, the question to the manager, the exchange of proofs,
// and the first contact with a server when the pool does not know yet how to greet such a client. It ends
// with Session::login_done() or with a FATAL error; one deadline (pgpool.login_timeout) covers it all.
// Until the exchange is over, an unknown role, tenant or database looks like a wrong password.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/settings/params.hpp"
#include "core/base/ports.hpp"
#include "core/server/server_user.hpp"
#include "proto/message.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "proto/startup.hpp"

namespace pgpool::core
{

class Session;
struct Credential;

class Login final : public ServerUser
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
	bool on_out_of_memory() override;
	bool cut_off(int64_t now) override;
	void on_lost(Loss loss, const proto::Error *why) override;
	void on_hot_standby(bool on) override;
	StatementRewriter *statements() override;
	void on_tcp_settings(const Params &now) override;
	// The pool has no server and will not have one.
	void on_failed(const proto::Error &why);
	// It waits for the manager, a server or a thread, not for the client.
	bool busy() const { return stage_ == Stage::Asking || stage_ == Stage::Deriving || stage_ == Stage::Preparing; }
	int64_t began() const { return began_; }

private:
	enum class Stage { Startup, Asking, Exchange, Deriving, Preparing, Over };
	enum class Expect { Password, Md5, SaslInitial, SaslLateInitial, SaslFinal };

	bool startup_packet();
	bool encryption_request(bool tls);
	void cancel_request(uint32_t size);
	void begin(uint32_t size);
	void ask();
	void start_exchange();
	void exchange_message(std::string_view body);
	void sasl_initial(std::string_view body);
	void sasl_step(proto::ScramStep step, const std::string &out);
	void check_password(std::string_view password);
	void check_md5(std::string_view response);
	void wrong_password();
	void derive(std::string_view password, const proto::ScramVerifier &verifier);
	void password_checked(bool right);
	void log_refusal();
	void on_admitted();
	void authenticated();
	bool lacks_server_key();
	void admitted();
	bool within_limits();
	void learn_credential();
	void prepare();
	const Params &wanted();
	std::string ground() const;
	void remember_defaults();
	void on_prepared();
	void remember_startup();
	std::string startup_key() const;
	void greet();
	void fail(const char *sqlstate, std::string message, std::string detail = {}, std::string hint = {});

	Session &session_;
	Stage stage_ = Stage::Startup;
	Expect expect_ = Expect::Password;
	proto::SecretString in_;
	proto::Startup startup_;
	proto::SecretPtr<control::AuthAnswer> answer_;
	// The first answer, when the proof was given and the manager is asked for a place: who proves nothing takes none.
	proto::SecretPtr<control::AuthAnswer> proved_;
	std::unique_ptr<proto::ScramServer> scram_;
	proto::Secret<proto::ScramKey> client_key_;
	bool has_key_ = false;
	std::string late_mechanism_;
	proto::SecretString password_; // clear text, of the method password
	Params wanted_;
	uint64_t question_ = 0;
	uint64_t derivation_ = 0; // 0 = none
	const int64_t began_;
	char md5_salt_[4];
	bool ssl_asked_ = false, gss_asked_ = false;
	bool asked_ = false;
};

} // namespace pgpool::core
